/* server/endpoints.h - the table of URLs, and the gate before them.
 *
 * Both ports go through it: a request is judged by its head (host, origin, route, key, content type, rate,
 * drain) before its body is read. Loop's thread only. */
#ifndef OC_SERVER_ENDPOINTS_H
#define OC_SERVER_ENDPOINTS_H

#include "http/http.h"
#include "server/call.h"

/* One request on its way to a handler. */
struct oc_server_ask {
    struct oc_server *s;
    struct oc_http_exchange *x;
    const struct oc_http_request *h;
    const char *endpoint; /* label of metrics */
    int key;
    uint8_t salt[16];
};

struct oc_server_door { /* one listening port; lives as long as the http server */
    struct oc_server *s;
    bool is_admin;
};

/* The events for oc_http_listen; arg is the door. */
void oc_server_endpoints_events(struct oc_server_door *door, struct oc_http_events *out);

static inline void oc_server_ask_reply(const struct oc_server_ask *a, int status, const struct oc_buf *body) {
    oc_server_call_reply_json(a->s, a->x, a->endpoint, status, body, a->h->received_ns);
}
static inline void oc_server_ask_fail(const struct oc_server_ask *a, const struct oc_api_error *e) {
    oc_server_call_reply_error(a->s, a->x, a->endpoint, e, a->h->received_ns);
}

/* ---- Handlers: admin.c ---- */
void oc_server_admin_load(struct oc_server_ask *a);
void oc_server_admin_unload(struct oc_server_ask *a);
/* ---- status.c ---- */
void oc_server_status_health(struct oc_server_ask *a);
void oc_server_status_ready(struct oc_server_ask *a);
void oc_server_status_admin_health(struct oc_server_ask *a);
void oc_server_status_whole(struct oc_server_ask *a);
void oc_server_status_figures(struct oc_server_ask *a);
void oc_server_status_queue(struct oc_server_ask *a);
void oc_server_status_capabilities(struct oc_server_ask *a);
void oc_server_status_metrics(struct oc_server_ask *a);
/* ---- listing.c ---- */
void oc_server_listing_all(struct oc_server_ask *a);
void oc_server_listing_one(struct oc_server_ask *a);
/* ---- tokens.c ---- */
void oc_server_tokens_encode(struct oc_server_ask *a);
void oc_server_tokens_decode(struct oc_server_ask *a);

#endif
