/* server/call.h - what stands behind an exchange, and how simple answers are sent.
 *
 * An exchange's user pointer is a struct oc_server_user, the first member of whatever handles it for longer
 * than a callback. Loop's thread only. */
#ifndef OC_SERVER_CALL_H
#define OC_SERVER_CALL_H

#include "api/error.h"
#include "base/buf.h"
#include "http/http.h"
#include "server/server.h"

struct oc_server_user {
    struct oc_http_exchange *x; /* NULL once it is gone or answered */
    void (*on_gone)(struct oc_server_user *u);
    void (*on_drain)(struct oc_server_user *u); /* may be NULL */
};

void oc_server_call_attach(struct oc_server_user *u, struct oc_http_exchange *x);
/* Takes the exchange from the user, before its last bytes are written: no callback follows. */
struct oc_http_exchange *oc_server_call_detach(struct oc_server_user *u);

/* Sends an answer and counts it. */
void oc_server_call_reply(struct oc_server *s, struct oc_http_exchange *x, const char *endpoint, int status,
                          const char *content_type, const struct oc_buf *body, uint64_t received_ns);
void oc_server_call_reply_json(struct oc_server *s, struct oc_http_exchange *x, const char *endpoint,
                               int status, const struct oc_buf *body, uint64_t received_ns);
void oc_server_call_reply_error(struct oc_server *s, struct oc_http_exchange *x, const char *endpoint,
                                const struct oc_api_error *e, uint64_t received_ns);
/* Retry-After, when the error has it. */
void oc_server_call_retry_header(struct oc_http_exchange *x, const struct oc_api_error *e);

#define OC_SERVER_REPLY_BYTES (16 * OC_MIB)

#endif
