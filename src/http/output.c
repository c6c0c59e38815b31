/* Output of a connection: the socket first, then a queue of copied bytes. While one write is with the loop
 * (in_flight), more gathers in `out`. */
#include "http/conn.h"

static void on_written(uv_write_t *req, int status);

size_t oc_http_output_left(const struct oc_http_conn *c) {
    size_t left = uv_stream_get_write_queue_size((const uv_stream_t *)&c->tcp) + c->out.n_bytes;
    return c->tls ? left - c->n_sealed + c->tls->out.n_bytes : left;
}

static bool is_waiting(const struct oc_http_conn *c) {
    return c->out.n_bytes > 0 || (c->tls && c->tls->out.n_bytes > 0);
}

/* Moves what waits into in_flight: all of it, with TLS an encrypted piece. */
static bool load(struct oc_http_conn *c) {
    struct oc_buf empty = c->in_flight, *from = c->tls ? &c->tls->out : &c->out;
    if (c->tls && !oc_http_secure_seal(c)) return false;
    size_t max_bytes = from->max_bytes;
    c->in_flight = *from;
    *from = empty;
    from->max_bytes = max_bytes;
    return true;
}

/* Gives in_flight to the loop, except for what is sent already. */
static void start_write(struct oc_http_conn *c, size_t sent) {
    uv_buf_t buf = {c->in_flight.data + sent, c->in_flight.n_bytes - sent};
    if (uv_write(&c->write, (uv_stream_t *)&c->tcp, &buf, 1, on_written) != 0) {
        c->broken = true;
        return;
    }
    c->writing = true;
}

static void write_next(struct oc_http_conn *c) {
    if (load(c)) {
        start_write(c, 0);
    } else {
        c->broken = true;
    }
}

/* Takes off what is encrypted and gone once it is as much as what waits: memory stays bounded, and little is
 * moved. */
static void drop_sealed(struct oc_http_conn *c) {
    if (c->n_sealed == 0 || c->n_sealed < c->out.n_bytes / 2) return;
    c->out.n_bytes -= c->n_sealed;
    memmove(c->out.data, c->out.data + c->n_sealed, c->out.n_bytes);
    c->n_sealed = 0;
}

/* Copies what was not sent of the buffers. */
static bool queue_rest(struct oc_http_conn *c, const uv_buf_t *bufs, unsigned n_bufs, size_t sent,
                       size_t max_bytes) {
    size_t rest = 0;
    for (unsigned i = 0; i < n_bufs; i++) rest += bufs[i].len;
    rest -= sent;
    if (rest == 0) return true;
    if (rest > max_bytes || oc_http_output_left(c) > max_bytes - rest) return false;
    drop_sealed(c);
    c->out.max_bytes = max_bytes + c->n_sealed;
    for (unsigned i = 0; i < n_bufs; i++) {
        size_t skip = sent < bufs[i].len ? sent : bufs[i].len;
        sent -= skip;
        if (!oc_buf_add(&c->out, bufs[i].base + skip, bufs[i].len - skip)) return false;
    }
    return true;
}

/* How much the socket takes at once; -1 when it is gone. */
static ssize_t try_write(struct oc_http_conn *c, const uv_buf_t *bufs, unsigned n_bufs) {
    int r = uv_try_write((uv_stream_t *)&c->tcp, bufs, n_bufs);
    return r == UV_EAGAIN ? 0 : r < 0 ? -1 : r;
}

/* One piece at once, which is all there is as a rule; the others one by one through the loop, so that a long
 * answer is not encrypted in one go. */
void oc_http_output_flush(struct oc_http_conn *c) {
    if (c->phase != OC_HTTP_OPEN || c->broken || c->writing || !is_waiting(c)) return;
    uv_buf_t buf = {0};
    ssize_t sent = -1;
    if (load(c)) {
        buf = (uv_buf_t){c->in_flight.data, c->in_flight.n_bytes};
        sent = try_write(c, &buf, 1);
    }
    if (sent < 0) {
        c->broken = true;
    } else if ((size_t)sent < buf.len) {
        start_write(c, (size_t)sent);
    } else {
        oc_buf_free(&c->in_flight);
        if (is_waiting(c)) write_next(c);
    }
    if (c->writing && c->x && c->x->in == OC_HTTP_IN_DONE) oc_http_conn_rearm(c);
}

void oc_http_output(struct oc_http_conn *c, const uv_buf_t *bufs, unsigned n_bufs, size_t max_bytes) {
    if (c->phase != OC_HTTP_OPEN || c->broken) return;
    ssize_t sent = c->writing || c->tls ? 0 : try_write(c, bufs, n_bufs);
    if (sent < 0 || !queue_rest(c, bufs, n_bufs, (size_t)sent, max_bytes)) {
        c->broken = true;
    } else if (c->tls) {
        oc_http_output_flush(c);
    } else if (c->out.n_bytes && !c->writing) {
        write_next(c);
        if (c->x && c->x->in == OC_HTTP_IN_DONE) oc_http_conn_rearm(c);
    }
}

static void on_written(uv_write_t *req, int status) {
    struct oc_http_conn *c = req->handle->data;
    c->writing = false;
    oc_buf_free(&c->in_flight);
    if (c->phase != OC_HTTP_OPEN) return;
    if (status < 0) c->broken = true;
    if (!c->broken && is_waiting(c)) write_next(c);
    struct oc_http_exchange *x = c->x;
    if (x && x->in == OC_HTTP_IN_DONE) oc_http_conn_rearm(c);
    if (!c->broken && x && x->high && x->out == OC_HTTP_OUT_STREAM &&
        oc_http_output_left(c) < OC_LIMIT_HTTP_OUT_HIGH_BYTES / 2) {
        x->high = false;
        if (c->server->ev.on_drain) c->server->ev.on_drain(c->server->ev.arg, x);
    }
    oc_http_conn_advance(c);
}

void oc_http_output_tick_start(struct oc_http_conn *c) {
    c->last_left = uv_stream_get_write_queue_size((const uv_stream_t *)&c->tcp);
    c->n_stalled = 0;
}

bool oc_http_output_tick(struct oc_http_conn *c) {
    size_t left = uv_stream_get_write_queue_size((const uv_stream_t *)&c->tcp);
    c->n_stalled = left == c->last_left ? c->n_stalled + 1 : 0;
    c->last_left = left;
    return c->n_stalled < OC_HTTP_OUTPUT_TICKS;
}
