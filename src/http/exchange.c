#include "http/conn.h"

void oc_http_exchange_set_user(struct oc_http_exchange *x, void *user) {
    x->user = user;
}

void *oc_http_exchange_user(const struct oc_http_exchange *x) {
    return x->user;
}

void oc_http_take_body(struct oc_http_exchange *x, struct oc_buf *out) {
    OC_ASSERT(x->in == OC_HTTP_IN_DONE);
    oc_buf_free(out);
    *out = x->body.bytes;
    oc_buf_init(&x->body.bytes, 0);
    x->request.body = OC_STR("");
}
