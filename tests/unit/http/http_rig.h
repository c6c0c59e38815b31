/* What the tests of connections share: a server on a real loop, clients on plain sockets, and pumping the
 * loop until something is true or time is up. Everything runs in one thread. With RIG_TLS defined both sides
 * speak TLS: test_http_*_tls.c run the tests of their neighbours so. */
#ifndef OC_TEST_HTTP_RIG_H
#define OC_TEST_HTTP_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/limits.h"
#include "http/http.h"

#ifdef RIG_TLS
#include "tls_rig.h"
#endif

enum { RIG_PATIENCE_MS = 10000, RIG_KEPT = 8 };

struct rig {
    uv_loop_t loop;
    uv_timer_t tick; /* so that the loop does not sleep past what the test waits for */
    struct oc_http_server *server;
    struct oc_http_exchange *waiting[RIG_KEPT]; /* requests for /later, /stream and /hold */
    int n_waiting;
    int n_heads, n_requests, n_finished, n_gone, n_drains, n_errors;
    uint64_t gone_ns;        /* when the last unfinished end was told */
    struct oc_buf log;       /* what was asked, a line each */
    int refuse_with;         /* on_head's answer to /refuse */
    size_t max_body;         /* set by on_head if not 0 */
    struct oc_http_tls *tls; /* NULL without RIG_TLS */
    int n_tls_failures[4];
    char tls_reason[128]; /* of the last */
#ifdef RIG_TLS
    struct tls_files tls_files;
    SSL_CTX *client_ctx;
#endif
    bool done;
};

static void rig_note(struct rig *r, const struct oc_http_request *q) {
    oc_buf_printf(&r->log, "%.*s %.*s?%.*s %zu\n", (int)q->method_name.n, q->method_name.p, (int)q->path.n,
                  q->path.p, (int)q->query.n, q->query.p ? q->query.p : "", q->body.n);
    assert_int_equal(q->body.p[q->body.n], 0);
    assert_true(q->received_ns > 0 && q->received_ns <= oc_clock_ns());
}

static int rig_on_head(void *arg, struct oc_http_exchange *x, const struct oc_http_request *q,
                       size_t *max_body) {
    struct rig *r = arg;
    r->n_heads++;
    if (r->max_body) *max_body = r->max_body;
    assert_int_equal(q->body.n, 0);
    if (oc_str_is(q->path, "/refuse")) {
        oc_http_respond(x, r->refuse_with, "text/plain", OC_STR("refused"));
        return r->refuse_with;
    }
    return oc_str_is(q->path, "/refuse-without-answer") ? r->refuse_with : 0;
}

static void rig_on_request(void *arg, struct oc_http_exchange *x, const struct oc_http_request *q) {
    struct rig *r = arg;
    r->n_requests++;
    rig_note(r, q);
    oc_http_exchange_set_user(x, r);
    assert_false(oc_http_stream_begun(x));
    if (oc_str_is(q->path, "/later")) {
        assert_true(r->n_waiting < RIG_KEPT);
        r->waiting[r->n_waiting++] = x;
    } else if (oc_str_is(q->path, "/echo")) {
        oc_http_header(x, "X-Mark", "echo");
        oc_http_respond(x, 200, "text/plain", q->body);
    } else if (oc_str_is(q->path, "/peer")) {
        oc_http_respond(x, 200, "text/plain", q->peer);
    } else if (oc_str_is(q->path, "/nothing")) {
        oc_http_respond(x, 204, NULL, OC_STR(""));
    } else if (oc_str_is(q->path, "/pieces")) {
        oc_http_stream_begin(x, 200, "text/event-stream");
        assert_true(oc_http_stream_begun(x));
        oc_http_stream_write(x, OC_STR("one"));
        oc_http_stream_write(x, OC_STR(""));
        oc_http_stream_write(x, OC_STR("two"));
        oc_http_stream_end(x);
        assert_true(oc_http_stream_begun(x));
    } else {
        oc_http_respond(x, 200, "text/plain", OC_STR("ok"));
    }
}

static void rig_on_end(void *arg, struct oc_http_exchange *x, bool finished) {
    struct rig *r = arg;
    assert_ptr_equal(oc_http_exchange_user(x), r);
    if (finished) {
        r->n_finished++;
    } else {
        r->n_gone++;
        r->gone_ns = oc_clock_ns();
    }
    for (int i = 0; i < r->n_waiting; i++) {
        if (r->waiting[i] == x) r->waiting[i] = r->waiting[--r->n_waiting];
    }
}

static void rig_on_drain(void *arg, struct oc_http_exchange *x) {
    struct rig *r = arg;
    (void)x;
    r->n_drains++;
}

static void rig_error_body(void *arg, int status, const char *message, struct oc_buf *body,
                           const char **type) {
    struct rig *r = arg;
    r->n_errors++;
    *type = "application/json";
    oc_buf_printf(body, "{\"status\":%d,\"message\":\"%s\"}", status, message);
}

static void rig_on_tls_failure(void *arg, const char *peer, enum oc_http_tls_failure failure,
                               const char *reason) {
    struct rig *r = arg;
    assert_string_equal(peer, "127.0.0.1");
    r->n_tls_failures[failure]++;
    snprintf(r->tls_reason, sizeof(r->tls_reason), "%s", reason);
}

static void rig_on_tick(uv_timer_t *t) {
    (void)t;
}

static inline void rig_open(struct rig *r, const char *host, const struct oc_http_options *o) {
    memset(r, 0, sizeof(*r));
    const struct oc_http_events ev = {.arg = r,
                                      .on_head = rig_on_head,
                                      .on_request = rig_on_request,
                                      .on_end = rig_on_end,
                                      .on_drain = rig_on_drain,
                                      .error_body = rig_error_body,
                                      .on_tls_failure = rig_on_tls_failure};
    struct oc_errinfo ei = {0};
    struct oc_http_options with = {0};
    if (o) with = *o;
#ifdef RIG_TLS
    tls_files_make(&r->tls_files);
    with.tls = r->tls = tls_open(&r->tls_files);
    r->client_ctx = tls_client_context(0, 0);
    SSL_CTX_set_mode(r->client_ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
#endif
    signal(SIGPIPE, SIG_IGN);
    oc_buf_init(&r->log, OC_MIB);
    r->refuse_with = 401;
    assert_int_equal(uv_loop_init(&r->loop), 0);
    uv_timer_init(&r->loop, &r->tick);
    uv_timer_start(&r->tick, rig_on_tick, 1, 1);
    assert_int_equal(oc_http_listen(&r->loop, host, 0, &with, &ev, &r->server, &ei), OC_OK);
    assert_true(oc_http_server_port(r->server) > 0);
}

static void rig_on_done(void *arg) {
    ((struct rig *)arg)->done = true;
}

static inline void rig_turn(struct rig *r) {
    uv_run(&r->loop, UV_RUN_ONCE);
}

#define rig_until(r, condition)                                                                              \
    do {                                                                                                     \
        uint64_t begun_ = oc_clock_ns();                                                                     \
        while (!(condition)) {                                                                               \
            if (oc_clock_ms_since(begun_) > RIG_PATIENCE_MS)                                                 \
                fail_msg("%s:%d: never: %s", __FILE__, __LINE__, #condition);                                \
            rig_turn(r);                                                                                     \
        }                                                                                                    \
    } while (0)

static inline void rig_for(struct rig *r, int ms) {
    uint64_t begun = oc_clock_ns();
    while (oc_clock_ms_since(begun) < ms) rig_turn(r);
}

/* Every exchange that was seen must have ended by now. */
static inline void rig_close(struct rig *r) {
    if (r->server) oc_http_server_close(r->server, rig_on_done, r);
    rig_until(r, r->done);
    assert_int_equal(r->n_finished + r->n_gone, r->n_requests);
    uv_close((uv_handle_t *)&r->tick, NULL);
    uv_run(&r->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&r->loop), 0);
    oc_buf_free(&r->log);
    oc_http_tls_close(r->tls);
#ifdef RIG_TLS
    SSL_CTX_free(r->client_ctx);
    tls_files_remove(&r->tls_files);
#endif
}

/* ---- Clients ------------------------------------------------------------------------------------------- */

struct client {
    int fd;
    struct oc_buf in;
    bool eof, reset;
#ifdef RIG_TLS
    SSL *ssl;
    bool bye; /* the server ended with close_notify */
#endif
};

/* The handshake, if there is one; it may fail. */
static inline void client_start(struct client *k, struct rig *r) {
#ifdef RIG_TLS
    uint64_t begun = oc_clock_ns();
    k->ssl = SSL_new(r->client_ctx);
    assert_int_equal(SSL_set_fd(k->ssl, k->fd), 1);
    for (int n; (n = SSL_connect(k->ssl)) != 1 && oc_clock_ms_since(begun) < RIG_PATIENCE_MS; rig_turn(r)) {
        if (SSL_get_error(k->ssl, n) == SSL_ERROR_WANT_READ) continue;
        k->reset = true;
        break;
    }
    ERR_clear_error();
#else
    (void)k;
    (void)r;
#endif
}

static inline void client_open(struct client *k, struct rig *r) {
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)oc_http_server_port(r->server))};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    *k = (struct client){.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    oc_buf_init(&k->in, 64 * OC_MIB);
    assert_int_equal(connect(k->fd, (struct sockaddr *)&a, sizeof(a)), 0);
    fcntl(k->fd, F_SETFL, O_NONBLOCK);
    client_start(k, r);
}

static inline void client_close(struct client *k) {
#ifdef RIG_TLS
    SSL_free(k->ssl);
    k->ssl = NULL;
#endif
    if (k->fd >= 0) close(k->fd);
    k->fd = -1;
    oc_buf_free(&k->in);
}

/* Leaves with RST. */
static inline void client_reset(struct client *k) {
    struct linger l = {1, 0};
    setsockopt(k->fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
    client_close(k);
}

/* Like send and recv, through TLS if the rig has it. */
static inline ssize_t client_put(struct client *k, const char *p, size_t n) {
#ifdef RIG_TLS
    ERR_clear_error();
    int w = k->reset ? -1 : SSL_write(k->ssl, p, (int)n);
    if (w > 0) return w;
    errno = !k->reset && SSL_get_error(k->ssl, w) == SSL_ERROR_WANT_WRITE ? EAGAIN : EPIPE;
    return -1;
#else
    return send(k->fd, p, n, MSG_NOSIGNAL);
#endif
}

static inline ssize_t client_get(struct client *k, char *p, size_t n) {
#ifdef RIG_TLS
    ERR_clear_error();
    errno = 0;
    int got = SSL_read(k->ssl, p, (int)n);
    if (got > 0) return got;
    int error = SSL_get_error(k->ssl, got);
    if (error == SSL_ERROR_WANT_READ) {
        errno = EAGAIN;
        return -1;
    }
    k->bye = error == SSL_ERROR_ZERO_RETURN;
    if (k->bye || ERR_GET_REASON(ERR_peek_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING) return 0;
    errno = ECONNRESET;
    return -1;
#else
    return recv(k->fd, p, n, 0);
#endif
}

/* Reads what is there. */
static inline void client_read(struct client *k, size_t most) {
    char buf[16384];
    while (!k->eof && !k->reset && most > 0) {
        ssize_t n = client_get(k, buf, most < sizeof(buf) ? most : sizeof(buf));
        if (n > 0) {
            oc_buf_add(&k->in, buf, (size_t)n);
            most -= (size_t)n;
        } else if (n == 0) {
            k->eof = true;
        } else if (errno != EINTR) {
            k->reset = errno != EAGAIN;
            break;
        }
    }
}

/* Sends all of it, the server's loop running meanwhile; what cannot be sent because the server closed is
 * lost. */
static inline void client_send_n(struct client *k, struct rig *r, const char *p, size_t n) {
    uint64_t begun = oc_clock_ns();
    while (n > 0 && oc_clock_ms_since(begun) < RIG_PATIENCE_MS) {
        ssize_t w = client_put(k, p, n);
        if (w < 0 && errno != EAGAIN && errno != EINTR) return;
        if (w > 0) {
            p += w;
            n -= (size_t)w;
        }
        rig_turn(r);
    }
    assert_int_equal(n, 0);
}

static inline void client_send(struct client *k, struct rig *r, const char *text) {
    client_send_n(k, r, text, strlen(text));
}

/* How often `text` stands in what came. */
static inline int client_count(struct client *k, const char *text) {
    int n = 0;
    for (const char *p = oc_buf_str(&k->in); (p = strstr(p, text)); p += strlen(text)) n++;
    return n;
}

static inline bool client_has(struct client *k, const char *text) {
    client_read(k, SIZE_MAX);
    return client_count(k, text) > 0;
}

static inline bool client_ended(struct client *k) {
    client_read(k, SIZE_MAX);
    return k->eof || k->reset;
}

static inline void client_must_have(struct client *k, const char *text) {
    if (client_count(k, text) > 0) return;
    fail_msg("wanted \"%s\" in \"%s\"", text, oc_buf_str(&k->in));
}

static inline void client_forget(struct client *k) {
    oc_buf_clear(&k->in);
}

#endif
