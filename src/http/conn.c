#include "http/conn.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { KEEPALIVE_S = 60 }; /* finds peers that vanished without a word */
enum {
    UNSENT_BYTES = 128 * 1024
}; /* the kernel takes no more than it has sent and this: back-pressure is ours */

static void on_timer(uv_timer_t *t);
static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *buf);
static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf);

/* ---- The end ------------------------------------------------------------------------------------------- */

static void end_exchange(struct oc_http_conn *c, bool finished) {
    struct oc_http_exchange *x = c->x;
    c->x = NULL;
    if (!x) return;
    if (x->seen && c->server->ev.on_end) c->server->ev.on_end(c->server->ev.arg, x, finished);
    oc_http_exchange_free(x);
}

static void on_closed(uv_handle_t *h) {
    struct oc_http_conn *c = h->data;
    if (--c->n_handles > 0) return;
    struct oc_http_server *s = c->server;
    oc_buf_free(&c->surplus);
    oc_buf_free(&c->out);
    oc_buf_free(&c->in_flight);
    oc_http_tls_session_close(c->tls);
    free(c);
    oc_http_server_release(s);
}

static bool is_idle(const struct oc_http_conn *c) {
    return !c->x || (c->x->in == OC_HTTP_IN_HEAD && !oc_http_head_begun(&c->x->head));
}

void oc_http_conn_close(struct oc_http_conn *c) {
    if (c->phase == OC_HTTP_CLOSED) return;
    if (c->tls && is_idle(c) && !c->writing)
        oc_http_secure_bye(c); /* else the client must see that it was cut */
    c->phase = OC_HTTP_CLOSED;
    oc_http_link_remove(&c->link);
    oc_http_link_remove(&c->deferred);
    if (c->overflow) {
        c->server->n_overflow--;
    } else {
        c->server->n_connections--;
    }
    if (!c->reset || uv_tcp_close_reset(&c->tcp, on_closed) != 0) uv_close((uv_handle_t *)&c->tcp, on_closed);
    uv_close((uv_handle_t *)&c->timer, on_closed);
    end_exchange(c, false);
}

static void on_shutdown(uv_shutdown_t *req, int status) {
    struct oc_http_conn *c = req->handle->data;
    if (status < 0) oc_http_conn_close(c);
}

/* Closing with input unread makes the kernel send RST, which can destroy the answer on its way. So the
 * sending side is closed first, and what still comes is thrown away until the client closes or the time is
 * up. */
void oc_http_conn_linger(struct oc_http_conn *c) {
    if (c->tls) oc_http_secure_bye(c);
    c->phase = OC_HTTP_LINGERING;
    oc_buf_free(&c->surplus);
    if (c->broken || uv_shutdown(&c->shutdown, (uv_stream_t *)&c->tcp, on_shutdown) != 0) {
        oc_http_conn_close(c);
        return;
    }
    uv_timer_start(&c->timer, on_timer, OC_LIMIT_HTTP_LINGER_MS, 0);
}

/* ---- What comes next ----------------------------------------------------------------------------------- */

void oc_http_conn_settle(struct oc_http_conn *c) {
    struct oc_http_exchange *x = c->x;
    if (c->phase != OC_HTTP_OPEN) return;
    if (c->broken) {
        oc_http_conn_close(c);
        return;
    }
    if (!x || x->out != OC_HTTP_OUT_DONE || oc_http_output_left(c) > 0) return;
    if (c->tls && c->writing) return; /* all is sent; close_notify can follow once the loop has said so */
    bool close = x->close || c->server->stopping;
    if (!close && x->in != OC_HTTP_IN_DONE) return; /* a refused body is still being read past */
    if (x->aborted && !x->chunked) { /* without framing, only RST tells a cut stream from its end */
        c->reset = true;
        oc_http_conn_close(c);
        return;
    }
    c->n_turn++;
    end_exchange(c, !x->aborted);
    if (c->phase != OC_HTTP_OPEN) return;
    if (close) {
        oc_http_conn_linger(c);
    } else {
        oc_http_conn_rearm(c);
    }
}

void oc_http_conn_advance(struct oc_http_conn *c) {
    oc_http_conn_settle(c);
    if (c->phase != OC_HTTP_OPEN) return;
    if (c->rest) {
        c->rest = false;
        c->n_turn = 0;
        uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read);
    }
    if (c->surplus.n_bytes == 0 || (c->x && c->x->in == OC_HTTP_IN_DONE)) return;
    struct oc_buf input = c->surplus;
    oc_buf_init(&c->surplus, input.max_bytes);
    oc_http_input(c, input.data, input.n_bytes);
    oc_buf_free(&input);
}

void oc_http_conn_defer(struct oc_http_conn *c) {
    if (c->busy || c->phase == OC_HTTP_CLOSED || !oc_http_link_alone(&c->deferred)) return;
    oc_http_link_add(&c->server->deferred, &c->deferred);
    oc_http_server_wake(c->server);
}

/* ---- Reading ------------------------------------------------------------------------------------------- */

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *buf) {
    (void)suggested;
    const struct oc_http_conn *c = h->data;
    struct oc_http_server *s = c->server;
    if (oc_http_secure_must_wait(c)) return; /* no buffer: the bytes stay in the socket, and the loop asks again */
    /* What is decrypted of one read, with the record that was begun before, is not more than a plain read. */
    size_t n = sizeof(s->read_bytes) - (s->o.tls ? OC_LIMIT_HTTP_TLS_RECORD_BYTES : 0);
    *buf = uv_buf_init(s->read_bytes, (unsigned)n);
}

void oc_http_conn_drain(struct oc_http_conn *c, size_t n) {
    c->n_drained += n;
    if (c->n_drained > OC_LIMIT_HTTP_DRAIN_BYTES) uv_read_stop((uv_stream_t *)&c->tcp);
}

/* End of file, also of one direction only, means that the client is gone: there is no telling the two apart,
 * and nothing is computed for a client that may be away. */
static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf) {
    struct oc_http_conn *c = stream->data;
    if (n == 0 || n == UV_ENOBUFS) return;
    if (n < 0) {
        oc_http_secure_lost(c, OC_HTTP_TLS_GONE, "the client left");
        oc_http_conn_close(c);
        return;
    }
    uint64_t now = uv_now(c->server->loop);
    if (now != c->turn_ms) c->n_turn = 0;
    c->turn_ms = now;
    oc_http_conn_advance(c); /* an answer of this turn may have ended the exchange already */
    if (c->phase == OC_HTTP_OPEN && c->tls) {
        oc_http_secure_input(c, buf->base, (size_t)n);
    } else if (c->phase == OC_HTTP_OPEN) {
        oc_http_input(c, buf->base, (size_t)n);
    } else if (c->phase == OC_HTTP_LINGERING) {
        oc_http_conn_drain(c, (size_t)n);
    }
}

/* ---- Deadlines ----------------------------------------------------------------------------------------- */

void oc_http_conn_close_idle(struct oc_http_conn *c) {
    if (c->phase == OC_HTTP_OPEN && is_idle(c)) oc_http_conn_close(c);
}

static void on_timer(uv_timer_t *t) {
    struct oc_http_conn *c = t->data;
    struct oc_http_exchange *x = c->x;
    if (c->phase == OC_HTTP_LINGERING || is_idle(c)) {
        oc_http_secure_lost(c, OC_HTTP_TLS_TIMEOUT, "the handshake did not end in time");
        oc_http_conn_close(c);
    } else if (x->in == OC_HTTP_IN_DONE) {
        if (!oc_http_output_tick(c)) oc_http_conn_close(c);
    } else if (x->out != OC_HTTP_OUT_NONE) { /* answered already, and its body does not come */
        oc_http_conn_close(c);
    } else {
        oc_http_input_refuse(c, 408,
                             x->in == OC_HTTP_IN_HEAD ? "The head of the request did not come in time."
                                                      : "The body of the request did not come in time.");
        oc_http_conn_advance(c);
    }
}

void oc_http_conn_rearm(struct oc_http_conn *c) {
    const struct oc_http_options *o = &c->server->o;
    if (c->phase != OC_HTTP_OPEN) return;
    if (is_idle(c)) {
        bool shaking = oc_http_secure_is_shaking(c);
        uv_timer_start(&c->timer, on_timer, (uint64_t)(shaking ? o->header_timeout_ms : o->idle_timeout_ms),
                       0);
    } else if (c->x->in == OC_HTTP_IN_HEAD) {
        uv_timer_start(&c->timer, on_timer, (uint64_t)o->header_timeout_ms, 0);
    } else if (c->x->in == OC_HTTP_IN_BODY) {
        uv_timer_start(&c->timer, on_timer, (uint64_t)o->body_timeout_ms, 0);
    } else if (c->writing) {
        oc_http_output_tick_start(c);
        uint64_t tick = (uint64_t)o->write_timeout_ms / OC_HTTP_OUTPUT_TICKS + 1;
        uv_timer_start(&c->timer, on_timer, tick, tick);
    } else {
        uv_timer_stop(&c->timer);
    }
}

void oc_http_conn_refuse_overflow(struct oc_http_conn *c) {
    oc_http_input_refuse(c, 503, "The server has too many connections, in all or from this address; try again later.");
    oc_http_conn_advance(c);
}

/* ---- The beginning ------------------------------------------------------------------------------------- */

static void set_options(struct oc_http_conn *c, int fd) {
    int unsent = UNSENT_BYTES;
    uv_tcp_nodelay(&c->tcp, 1);
    uv_tcp_keepalive(&c->tcp, 1, KEEPALIVE_S);
    setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent,
               sizeof(unsent)); /* without it more waits in the kernel */
}

static void init(struct oc_http_conn *c, struct oc_http_server *s, const char *peer, bool overflow) {
    c->server = s;
    c->overflow = overflow;
    c->tcp.data = c->timer.data = c;
    c->n_handles = 2;
    snprintf(c->peer, sizeof(c->peer), "%s", peer);
    c->source = oc_http_listen_source(peer);
    oc_buf_init(&c->surplus, OC_LIMIT_HTTP_READ_BYTES + OC_LIMIT_HTTP_PIPELINED_BYTES);
    oc_buf_init(&c->out, OC_LIMIT_HTTP_OUT_MAX_BYTES);
    oc_buf_init(&c->in_flight, OC_LIMIT_HTTP_OUT_MAX_BYTES);
    oc_http_link_init(&c->deferred);
    oc_http_link_add(&s->connections, &c->link);
    s->n_handles++;
    if (overflow) {
        s->n_overflow++;
    } else {
        s->n_connections++;
    }
}

void oc_http_conn_open(struct oc_http_server *s, int fd, const char *peer, bool overflow) {
    struct oc_http_conn *c = calloc(1, sizeof(*c));
    if (!c || uv_tcp_init(s->loop, &c->tcp) != 0) {
        free(c);
        close(fd);
        return;
    }
    uv_timer_init(s->loop, &c->timer);
    init(c, s, peer, overflow);
    if (s->o.tls) c->tls = oc_http_tls_session_open(s->o.tls);
    if (s->o.tls && !c->tls) {
        close(fd);
        oc_http_conn_close(c);
        return;
    }
    if (uv_tcp_open(&c->tcp, fd) != 0) {
        close(fd);
        oc_http_conn_close(c);
        return;
    }
    set_options(c, fd);
    if (uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read) != 0) {
        oc_http_conn_close(c);
        return;
    }
    oc_http_conn_rearm(c);
    if (overflow && !c->tls) oc_http_conn_refuse_overflow(c); /* with TLS it is told after the handshake */
}
