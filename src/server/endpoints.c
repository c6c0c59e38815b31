#include "server/endpoints.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/limits.h"
#include "server/record.h"
#include "server/request.h"

#define SMALL_BODY_BYTES (64 * OC_KIB)

enum { GET = 1, POST = 2 };
enum {
    MAIN = 1,  /* on the main port */
    ADMIN = 2, /* on the admin port */
    OPEN = 4,  /* no key is asked for */
    JSON = 8,  /* a POST must say application/json; without a body it may say nothing */
    WORK = 16, /* turned away while draining, and counted against the rate */
    BIG = 32,  /* its body may be as big as configured */
    LOADS = 64 /* turned away while draining */
};

static void chat(struct oc_server_ask *a) {
    oc_server_request_start(a->s, a->x, a->h, true, a->key, a->salt);
}

static void completions(struct oc_server_ask *a) {
    oc_server_request_start(a->s, a->x, a->h, false, a->key, a->salt);
}

struct route {
    const char *path; /* with a `*` at the end: what begins so */
    int methods, flags;
    const char *endpoint;
    void (*handle)(struct oc_server_ask *a);
};

static const struct route routes[] = {
    {"/v1/chat/completions", POST, MAIN | JSON | WORK | BIG, "chat", chat},
    {"/v1/completions", POST, MAIN | JSON | WORK | BIG, "completions", completions},
    {"/v1/models", GET, MAIN, "models", oc_server_listing_all},
    {"/v1/models/*", GET, MAIN, "models", oc_server_listing_one},
    {"/tokenize", POST, MAIN | JSON | BIG, "tokenize", oc_server_tokens_encode},
    {"/detokenize", POST, MAIN | JSON | BIG, "detokenize", oc_server_tokens_decode},
    {"/health", GET, MAIN | ADMIN | OPEN, "health", oc_server_status_health},
    {"/ready", GET, MAIN | ADMIN | OPEN, "ready", oc_server_status_ready},
    {"/metrics", GET, MAIN | ADMIN, "admin", oc_server_status_metrics},
    {"/v1/admin/status", GET | POST, MAIN | ADMIN | JSON, "admin", oc_server_status_whole},
    {"/admin/health", GET, ADMIN | OPEN, "admin", oc_server_status_admin_health},
    {"/admin/status", GET, ADMIN, "admin", oc_server_status_whole},
    {"/admin/metrics", GET, ADMIN, "admin", oc_server_status_figures},
    {"/admin/queue", GET, ADMIN, "admin", oc_server_status_queue},
    {"/admin/capabilities", GET, ADMIN, "admin", oc_server_status_capabilities},
    {"/admin/load", POST, ADMIN | JSON | LOADS, "admin", oc_server_admin_load},
    {"/admin/unload", POST, ADMIN | JSON, "admin", oc_server_admin_unload},
};

/* ---- The gate ------------------------------------------------------------------------------------------ */

static bool path_matches(const char *pattern, struct oc_str path) {
    size_t n = strlen(pattern);
    if (n && pattern[n - 1] == '*') return path.n >= n && !memcmp(pattern, path.p, n - 1);
    return oc_str_is(path, pattern);
}

static const struct route *find_route(const struct oc_server_door *d, struct oc_str path) {
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++)
        if ((routes[i].flags & (d->is_admin ? ADMIN : MAIN)) && path_matches(routes[i].path, path))
            return &routes[i];
    return NULL;
}

static int method_bit(enum oc_http_method m) {
    if (m == OC_HTTP_GET || m == OC_HTTP_HEAD) return GET;
    return m == OC_HTTP_POST ? POST : 0;
}

static const char *allowed_methods(int methods) {
    static const char *const names[] = {"", "GET, HEAD, OPTIONS", "POST, OPTIONS",
                                        "GET, HEAD, POST, OPTIONS"};
    return names[methods & 3];
}

static int refuse(const struct oc_server_door *d, struct oc_http_exchange *x, const struct oc_http_request *h,
                  const struct route *r, const struct oc_api_error *e, const char *reason) {
    if (reason) oc_metrics_add(d->s->metrics, OC_M_REFUSED, reason, NULL, 1);
    oc_server_call_reply_error(d->s, x, r ? r->endpoint : "other", e, h->received_ns);
    return oc_api_error_status(e->problem);
}

static void add_value_header(struct oc_http_exchange *x, const char *name, struct oc_str value) {
    char text[512];
    snprintf(text, sizeof text, "%.*s", (int)(value.n < sizeof text ? value.n : sizeof text - 1), value.p);
    oc_http_header(x, name, text);
}

static void add_cors(struct oc_http_exchange *x, struct oc_str origin) {
    if (!origin.n) return;
    add_value_header(x, "Access-Control-Allow-Origin", origin);
    oc_http_header(x, "Access-Control-Expose-Headers",
                   "X-Request-Id, X-Queue-Wait-Ms, X-Queue-Position, Retry-After");
    oc_http_header(x, "Vary", "Origin");
}

/* A browser's question before the request itself: no key comes with it. */
static int preflight(struct oc_server *s, struct oc_http_exchange *x, const struct oc_http_request *h,
                     const struct route *r) {
    struct oc_str wanted = oc_http_request_header(h, "Access-Control-Request-Headers");
    oc_http_header(x, "Access-Control-Allow-Methods", allowed_methods(r ? r->methods : GET | POST));
    if (wanted.n)
        add_value_header(x, "Access-Control-Allow-Headers", wanted);
    else
        oc_http_header(x, "Access-Control-Allow-Headers",
                       "Authorization, Content-Type, X-Api-Key, X-Priority");
    oc_http_header(x, "Access-Control-Max-Age", "600");
    oc_server_record_answer(s, r ? r->endpoint : "other", 204, h->received_ns);
    oc_http_respond(x, 204, "text/plain", OC_STR(""));
    return 204;
}

/* Who asks: the host it called us by, the page it comes from. */
static bool check_caller(const struct oc_server_door *d, const struct oc_http_request *h,
                         struct oc_api_error *e, const char **reason) {
    struct oc_str host = oc_http_request_header(h, "Host"), origin = oc_http_request_header(h, "Origin");
    *reason = "host"; /* HTTP/1.0 may leave it out; browsers, whom this is about, do not */
    if (host.p && !oc_gate_host_ok(d->s->gate, host))
        return oc_api_fail(
            e, OC_API_FORBIDDEN, NULL,
            "this server does not go by the name in Host: use an IP address or localhost, or start it "
            "with --allowed-hosts");
    *reason = "origin";
    if (!oc_gate_origin_ok(d->s->gate, origin, host))
        return oc_api_fail(e, OC_API_FORBIDDEN, NULL,
                           "pages of this origin may not use this server: start it with --allowed-origins");
    return true;
}

static bool check_route(const struct oc_http_request *h, const struct route *r, struct oc_http_exchange *x,
                        struct oc_api_error *e) {
    if (!r)
        return oc_api_fail(e, OC_API_NOT_FOUND, NULL, "there is nothing at %.*s",
                           (int)(h->path.n < 200 ? h->path.n : 200), h->path.p);
    if (r->methods & method_bit(h->method)) return true;
    oc_http_header(x, "Allow", allowed_methods(r->methods));
    return oc_api_fail(e, OC_API_METHOD, NULL, "%s takes %s only", r->path, allowed_methods(r->methods));
}

static int key_of(const struct oc_server *s, const struct oc_http_request *h, uint8_t salt[16]) {
    return oc_gate_key(s->gate, oc_http_request_header(h, "Authorization"),
                       oc_http_request_header(h, "X-Api-Key"), salt);
}

static bool has_body(const struct oc_http_request *h) {
    struct oc_str length = oc_http_request_header(h, "Content-Length");
    return oc_http_request_header(h, "Transfer-Encoding").n > 0 || (length.n && !oc_str_is(length, "0"));
}

static bool check_type(const struct oc_http_request *h, const struct route *r, struct oc_api_error *e) {
    struct oc_str type = oc_http_request_header(h, "Content-Type");
    if (!(r->flags & JSON) || h->method != OC_HTTP_POST || (!type.n && !has_body(h)) || oc_gate_is_json(type))
        return true;
    return oc_api_fail(e, OC_API_MEDIA_TYPE, NULL,
                       "the body must be JSON: send Content-Type: application/json");
}

static bool check_rate(struct oc_server *s, const struct route *r, int key, struct oc_api_error *e) {
    double wait_s;
    if (!(r->flags & WORK) || oc_gate_take(s->gate, key, oc_server_now_ms(), &wait_s)) return true;
    s->totals.n_rate_rejects++;
    oc_metrics_add(s->metrics, OC_M_RATE_REJECTS, NULL, NULL, 1);
    e->retry_after_s = (int)ceil(wait_s);
    oc_api_fail(e, OC_API_RATE_LIMIT, NULL, "rate limit exceeded: try again in %.1f seconds", wait_s);
    e->retry_after_s = (int)ceil(wait_s);
    return false;
}

static bool check_drain(struct oc_server *s, const struct route *r, struct oc_api_error *e) {
    if (!s->draining || !(r->flags & (WORK | LOADS))) return true;
    oc_api_fail(e, OC_API_DRAINING, NULL, "the server is shutting down");
    e->retry_after_s = 5;
    return false;
}

static int on_head(void *arg, struct oc_http_exchange *x, const struct oc_http_request *h, size_t *max_body) {
    struct oc_server_door *d = arg;
    struct oc_server *s = d->s;
    struct oc_api_error e = {0};
    const char *reason;
    uint8_t salt[16];
    const struct route *r = find_route(d, h->path);
    if (!check_caller(d, h, &e, &reason)) return refuse(d, x, h, r, &e, reason);
    add_cors(x, oc_http_request_header(h, "Origin"));
    if (h->method == OC_HTTP_OPTIONS) return preflight(s, x, h, r);
    if (!check_route(h, r, x, &e)) return refuse(d, x, h, r, &e, NULL);
    int key = key_of(s, h, salt);
    if (key < 0 && !(r->flags & OPEN)) {
        oc_http_header(x, "WWW-Authenticate", "Bearer");
        oc_api_fail(&e, OC_API_UNAUTHENTICATED, NULL,
                    "this server wants an API key: Authorization: Bearer KEY");
        return refuse(d, x, h, r, &e, "key");
    }
    if (!check_type(h, r, &e)) return refuse(d, x, h, r, &e, "content_type");
    if (!check_drain(s, r, &e) || !check_rate(s, r, key, &e)) return refuse(d, x, h, r, &e, NULL);
    *max_body = r->flags & BIG ? (size_t)s->config->max_body_bytes : SMALL_BODY_BYTES;
    return 0;
}

/* ---- Requests ------------------------------------------------------------------------------------------ */

static void on_request(void *arg, struct oc_http_exchange *x, const struct oc_http_request *h) {
    struct oc_server_door *d = arg;
    const struct route *r = find_route(d, h->path); /* on_head has seen that it is there */
    struct oc_server_ask a = {.s = d->s, .x = x, .h = h, .endpoint = r->endpoint};
    a.key = key_of(d->s, h, a.salt);
    r->handle(&a);
}

static void on_end(void *arg, struct oc_http_exchange *x, bool finished) {
    struct oc_server_user *u = oc_http_exchange_user(x);
    (void)arg;
    if (!u) return;
    u->x = NULL;
    if (!finished) u->on_gone(u);
}

static void on_drain(void *arg, struct oc_http_exchange *x) {
    struct oc_server_user *u = oc_http_exchange_user(x);
    (void)arg;
    if (u && u->on_drain) u->on_drain(u);
}

static void error_body(void *arg, int status, const char *message, struct oc_buf *body,
                       const char **content_type) {
    struct oc_server_door *d = arg;
    struct oc_api_error e = {0};
    oc_api_fail(&e, oc_api_problem_of_status(status), NULL, "%s", message);
    oc_api_error_write(body, &e);
    *content_type = "application/json";
    oc_server_record_answer(d->s, "other", status, 0);
}

static void on_tls_failure(void *arg, const char *peer, enum oc_http_tls_failure failure,
                           const char *reason) {
    struct oc_server_door *d = arg;
    const char *name = oc_http_tls_failure_name(failure);
    oc_metrics_add(d->s->metrics, OC_M_TLS_FAILURES, name, NULL, 1);
    oc_log(d->s->log, OC_LOG_DEBUG, "a TLS handshake came to nothing", OC_LOG_S("peer", peer),
           OC_LOG_S("failure", name), OC_LOG_S("reason", reason));
}

void oc_server_endpoints_events(struct oc_server_door *door, struct oc_http_events *out) {
    *out = (struct oc_http_events){.arg = door,
                                   .on_head = on_head,
                                   .on_request = on_request,
                                   .on_end = on_end,
                                   .on_drain = on_drain,
                                   .error_body = error_body,
                                   .on_tls_failure = on_tls_failure};
}
