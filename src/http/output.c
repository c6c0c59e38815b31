/* Output of a connection: the socket first, then a queue of copied bytes. While one write is with the loop
 * (in_flight), more gathers in `out`. */
#include "http/conn.h"

static void on_written(uv_write_t *req, int status);

size_t oc_http_output_left(const struct oc_http_conn *c) {
    return uv_stream_get_write_queue_size((const uv_stream_t *)&c->tcp) + c->out.n_bytes;
}

static void start_write(struct oc_http_conn *c) {
    struct oc_buf empty = c->in_flight;
    c->in_flight = c->out;
    c->out = empty;
    uv_buf_t buf = {c->in_flight.data, c->in_flight.n_bytes};
    if (uv_write(&c->write, (uv_stream_t *)&c->tcp, &buf, 1, on_written) != 0) {
        c->broken = true;
        return;
    }
    c->writing = true;
}

/* Copies what was not sent of the buffers. */
static bool queue_rest(struct oc_http_conn *c, const uv_buf_t *bufs, unsigned n_bufs, size_t sent,
                       size_t max_bytes) {
    size_t rest = 0;
    for (unsigned i = 0; i < n_bufs; i++) rest += bufs[i].len;
    rest -= sent;
    if (rest == 0) return true;
    if (rest > max_bytes || oc_http_output_left(c) > max_bytes - rest) return false;
    c->out.max_bytes = max_bytes;
    for (unsigned i = 0; i < n_bufs; i++) {
        size_t skip = sent < bufs[i].len ? sent : bufs[i].len;
        sent -= skip;
        if (!oc_buf_add(&c->out, bufs[i].base + skip, bufs[i].len - skip)) return false;
    }
    return true;
}

void oc_http_output(struct oc_http_conn *c, const uv_buf_t *bufs, unsigned n_bufs, size_t max_bytes) {
    if (c->phase != OC_HTTP_OPEN || c->broken) return;
    size_t sent = 0;
    if (!c->writing) {
        int r = uv_try_write((uv_stream_t *)&c->tcp, bufs, n_bufs);
        if (r < 0 && r != UV_EAGAIN) {
            c->broken = true;
            return;
        }
        if (r > 0) sent = (size_t)r;
    }
    if (!queue_rest(c, bufs, n_bufs, sent, max_bytes)) {
        c->broken = true;
    } else if (c->out.n_bytes && !c->writing) {
        start_write(c);
        if (c->x && c->x->in == OC_HTTP_IN_DONE) oc_http_conn_rearm(c);
    }
}

static void on_written(uv_write_t *req, int status) {
    struct oc_http_conn *c = req->handle->data;
    c->writing = false;
    oc_buf_free(&c->in_flight);
    if (c->phase != OC_HTTP_OPEN) return;
    if (status < 0) c->broken = true;
    if (!c->broken && c->out.n_bytes) start_write(c);
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
