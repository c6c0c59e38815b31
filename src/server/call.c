#include "server/call.h"

#include <stdio.h>

#include "base/limits.h"
#include "server/record.h"

void oc_server_call_attach(struct oc_server_user *u, struct oc_http_exchange *x) {
    u->x = x;
    oc_http_exchange_set_user(x, u);
}

struct oc_http_exchange *oc_server_call_detach(struct oc_server_user *u) {
    struct oc_http_exchange *x = u->x;
    if (x) oc_http_exchange_set_user(x, NULL);
    u->x = NULL;
    return x;
}

void oc_server_call_reply(struct oc_server *s, struct oc_http_exchange *x, const char *endpoint, int status,
                          const char *content_type, const struct oc_buf *body, uint64_t received_ns) {
    oc_server_record_answer(s, endpoint, status, received_ns);
    if (body->failed) {
        oc_http_respond(
            x, 500, "application/json",
            OC_STR("{\"error\":{\"message\":\"the answer is too large\",\"type\":\"server_error\","
                   "\"param\":null,\"code\":null}}"));
        return;
    }
    oc_http_respond(x, status, content_type, (struct oc_str){oc_buf_str(body), body->n_bytes});
}

void oc_server_call_reply_json(struct oc_server *s, struct oc_http_exchange *x, const char *endpoint,
                               int status, const struct oc_buf *body, uint64_t received_ns) {
    oc_server_call_reply(s, x, endpoint, status, "application/json", body, received_ns);
}

void oc_server_call_retry_header(struct oc_http_exchange *x, const struct oc_api_error *e) {
    char text[24];
    if (e->retry_after_s <= 0) return;
    snprintf(text, sizeof text, "%d", e->retry_after_s);
    oc_http_header(x, "Retry-After", text);
}

void oc_server_call_reply_error(struct oc_server *s, struct oc_http_exchange *x, const char *endpoint,
                                const struct oc_api_error *e, uint64_t received_ns) {
    struct oc_buf b;
    oc_buf_init(&b, 64 * OC_KIB);
    oc_api_error_write(&b, e);
    oc_server_call_retry_header(x, e);
    oc_server_call_reply_json(s, x, endpoint, oc_api_error_status(e->problem), &b, received_ns);
    oc_buf_free(&b);
}
