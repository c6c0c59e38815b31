/* Input of a connection: bytes to heads, bodies and requests, and what the user says to them. */
#include "base/clock.h"
#include "http/conn.h"

#include <stdlib.h>

void oc_http_exchange_free(struct oc_http_exchange *x) {
    x->c->server->bodies_bytes -= x->body_bytes;
    oc_http_head_free(&x->head);
    oc_http_body_free(&x->body);
    oc_buf_free(&x->headers);
    free(x);
}

static struct oc_http_exchange *begin_exchange(struct oc_http_conn *c) {
    struct oc_http_exchange *x = calloc(1, sizeof(*x));
    if (!x) {
        c->broken = true;
        return NULL;
    }
    x->c = c;
    oc_http_head_init(&x->head, c->server->o.max_head_bytes);
    oc_buf_init(&x->body.bytes, 0);
    oc_buf_init(&x->headers, OC_LIMIT_HTTP_HEAD_BYTES);
    c->x = x;
    return x;
}

void oc_http_input_refuse(struct oc_http_conn *c, int status, const char *message) {
    struct oc_http_exchange *x = c->x ? c->x : begin_exchange(c);
    if (!x) return;
    x->in = OC_HTTP_IN_DONE;
    x->close = true;
    x->no_body = oc_http_head_is_head(&x->head);
    if (x->out == OC_HTTP_OUT_NONE) oc_http_respond_error(x, status, message);
    oc_http_conn_rearm(c);
}

static void refuse_fault(struct oc_http_conn *c, struct oc_http_fault fault) {
    oc_http_input_refuse(c, fault.status, fault.message);
}

/* ---- The head is whole --------------------------------------------------------------------------------- */

static void fill_request(struct oc_http_exchange *x) {
    const struct oc_http_head *h = &x->head;
    struct oc_http_request *r = &x->request;
    r->method = h->method;
    r->method_name = h->method_name;
    r->path = h->path;
    r->query = h->query;
    r->headers = h->fields;
    r->n_headers = h->n_fields;
    r->body = OC_STR("");
    r->peer = oc_str_from(x->c->peer);
    bool has_body = h->chunked || h->length > 0;
    bool skippable = !h->chunked && h->length <= OC_LIMIT_HTTP_DRAIN_BYTES && !h->expect_continue;
    x->no_body = h->method == OC_HTTP_HEAD;
    x->close = !h->keep_alive;
    x->close_refused = has_body && !skippable;
}

static void body_done(struct oc_http_conn *c) {
    struct oc_http_exchange *x = c->x;
    x->in = OC_HTTP_IN_DONE;
    oc_http_conn_rearm(c);
    if (x->out != OC_HTTP_OUT_NONE) return; /* refused, and its body read past */
    x->request.body = (struct oc_str){oc_buf_str(&x->body.bytes), x->body.bytes.n_bytes};
    x->seen = true;
    c->server->ev.on_request(c->server->ev.arg, x, &x->request);
}

/* The user refused the request by its head. A small body is read past, so that the connection lives on. */
static void head_refused(struct oc_http_conn *c, int status) {
    struct oc_http_exchange *x = c->x;
    OC_ASSERT(x->out != OC_HTTP_OUT_STREAM); /* a refusal is a whole answer */
    if (x->out == OC_HTTP_OUT_NONE) {
        x->close |= x->close_refused;
        oc_http_respond_error(x, status, oc_http_reason(status));
    }
    if (x->close || oc_http_body_begin(&x->body, &x->head, OC_LIMIT_HTTP_DRAIN_BYTES, true) == OC_HTTP_DONE) {
        x->in = OC_HTTP_IN_DONE;
    } else {
        x->in = OC_HTTP_IN_BODY;
    }
    oc_http_conn_rearm(c);
}

static void begin_body(struct oc_http_conn *c, size_t max_body) {
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    struct oc_http_exchange *x = c->x;
    enum oc_http_parse verdict = oc_http_body_begin(&x->body, &x->head, max_body, false);
    if (verdict == OC_HTTP_BAD) {
        refuse_fault(c, x->body.fault);
        return;
    }
    x->in = OC_HTTP_IN_BODY;
    if (verdict == OC_HTTP_DONE) {
        body_done(c);
        return;
    }
    oc_http_conn_rearm(c);
    if (!x->head.expect_continue) return;
    uv_buf_t buf = uv_buf_init((char *)go_on, sizeof(go_on) - 1);
    oc_http_output(c, &buf, 1, OC_LIMIT_HTTP_OUT_MAX_BYTES);
}

static void head_done(struct oc_http_conn *c) {
    const struct oc_http_events *ev = &c->server->ev;
    struct oc_http_exchange *x = c->x;
    size_t max_body = c->server->o.max_body_bytes;
    fill_request(x);
    int status = ev->on_head ? ev->on_head(ev->arg, x, &x->request, &max_body) : 0;
    if (status != 0 || x->out != OC_HTTP_OUT_NONE) {
        head_refused(c, status);
    } else {
        begin_body(c, max_body);
    }
}

/* ---- Bytes --------------------------------------------------------------------------------------------- */

static size_t take_head(struct oc_http_conn *c, const char *p, size_t n) {
    struct oc_http_exchange *x = c->x;
    size_t n_taken;
    bool begun = oc_http_head_begun(&x->head);
    enum oc_http_parse verdict = oc_http_head_feed(&x->head, p, n, &n_taken);
    if (!begun && oc_http_head_begun(&x->head)) {
        x->request.received_ns = oc_clock_ns();
        oc_http_conn_rearm(c);
    }
    if (verdict == OC_HTTP_BAD) refuse_fault(c, x->head.fault);
    if (verdict == OC_HTTP_DONE) head_done(c);
    return n_taken;
}

/* Counts what has come of the body; false when all bodies together are too much. */
static bool count_body(struct oc_http_exchange *x) {
    struct oc_http_server *s = x->c->server;
    s->bodies_bytes += x->body.bytes.n_bytes - x->body_bytes;
    x->body_bytes = x->body.bytes.n_bytes;
    return s->bodies_bytes <= s->max_bodies_bytes;
}

static size_t take_body(struct oc_http_conn *c, const char *p, size_t n) {
    struct oc_http_exchange *x = c->x;
    size_t n_taken;
    enum oc_http_parse verdict = oc_http_body_feed(&x->body, p, n, &n_taken);
    if (!count_body(x)) {
        x->body.fault =
            (struct oc_http_fault){503, "The server is busy with too many large requests; try again later."};
        verdict = OC_HTTP_BAD;
    }
    if (verdict == OC_HTTP_BAD) refuse_fault(c, x->body.fault);
    if (verdict == OC_HTTP_DONE) body_done(c);
    return n_taken;
}

static size_t take(struct oc_http_conn *c, const char *p, size_t n) {
    if (!c->x && !begin_exchange(c)) return n;
    return c->x->in == OC_HTTP_IN_HEAD ? take_head(c, p, n) : take_body(c, p, n);
}

/* Input that comes while a request is being answered: the next requests, or what is left of a refused one. */
static void keep(struct oc_http_conn *c, const char *p, size_t n) {
    struct oc_http_exchange *x = c->x;
    if (x->close && x->out == OC_HTTP_OUT_DONE) {
        oc_http_conn_drain(c, n);
    } else if (c->surplus.n_bytes + n > OC_LIMIT_HTTP_PIPELINED_BYTES || !oc_buf_add(&c->surplus, p, n)) {
        c->broken = true;
    }
}

/* A client that sends many small requests at once must not hold up the others. No request of its is running,
 * so reading may rest: there is nothing that its leaving would stop. */
static void rest(struct oc_http_conn *c, const char *p, size_t n) {
    if (!oc_buf_add(&c->surplus, p, n)) c->broken = true;
    c->rest = true;
    uv_read_stop((uv_stream_t *)&c->tcp);
}

void oc_http_input(struct oc_http_conn *c, const char *p, size_t n) {
    OC_ASSERT(!c->busy);
    c->busy = true;
    while (n > 0 && c->phase == OC_HTTP_OPEN) {
        size_t taken = n;
        if (c->x && c->x->in == OC_HTTP_IN_DONE) {
            keep(c, p, n);
        } else if (!c->x && (c->rest || c->n_turn >= OC_LIMIT_HTTP_TURN_REQUESTS)) {
            rest(c, p, n);
        } else {
            taken = take(c, p, n);
        }
        p += taken;
        n -= taken;
        oc_http_conn_settle(c);
    }
    c->busy = false;
    if (c->rest) oc_http_conn_defer(c);
}
