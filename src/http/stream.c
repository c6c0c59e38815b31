/* Answers in pieces. */
#include "http/conn.h"

static void output(struct oc_http_exchange *x, const uv_buf_t *bufs, unsigned n) {
    oc_http_output(x->c, bufs, n, OC_LIMIT_HTTP_OUT_MAX_BYTES);
    if (x->c->broken) oc_http_conn_defer(x->c);
}

void oc_http_stream_begin(struct oc_http_exchange *x, int status, const char *content_type) {
    OC_ASSERT(x->out == OC_HTTP_OUT_NONE && x->in == OC_HTTP_IN_DONE);
    struct oc_buf head;
    oc_buf_init(&head, 2 * OC_LIMIT_HTTP_HEAD_BYTES);
    x->chunked = x->head.minor == 1;
    if (!x->chunked && !x->no_body) x->close = true;
    oc_http_respond_head(x, status, content_type,
                         x->chunked ? OC_HTTP_LENGTH_CHUNKED : OC_HTTP_LENGTH_UNTIL_CLOSE, 0, &head);
    x->out = OC_HTTP_OUT_STREAM;
    x->begun = true;
    if (head.failed) x->c->broken = true;
    uv_buf_t buf = {head.data, head.n_bytes};
    output(x, &buf, 1);
    oc_buf_free(&head);
}

static void send_piece(struct oc_http_exchange *x, struct oc_str bytes) {
    char size[24];
    int n = snprintf(size, sizeof(size), "%zx\r\n", bytes.n);
    uv_buf_t bufs[] = {{size, (size_t)n}, {(char *)bytes.p, bytes.n}, {"\r\n", 2}};
    if (x->chunked) {
        output(x, bufs, 3);
    } else {
        output(x, bufs + 1, 1);
    }
}

size_t oc_http_stream_write(struct oc_http_exchange *x, struct oc_str bytes) {
    OC_ASSERT(x->out == OC_HTTP_OUT_STREAM);
    if (bytes.n && !x->no_body) send_piece(x, bytes); /* an empty chunk would be the last one */
    size_t left = oc_http_output_left(x->c);
    if (left > OC_LIMIT_HTTP_OUT_HIGH_BYTES) x->high = true;
    return left;
}

void oc_http_stream_end(struct oc_http_exchange *x) {
    OC_ASSERT(x->out == OC_HTTP_OUT_STREAM);
    uv_buf_t last = uv_buf_init("0\r\n\r\n", 5);
    if (x->chunked && !x->no_body) output(x, &last, 1);
    x->out = OC_HTTP_OUT_DONE;
    oc_http_conn_defer(x->c);
}

void oc_http_stream_abort(struct oc_http_exchange *x) {
    OC_ASSERT(x->out == OC_HTTP_OUT_STREAM);
    x->out = OC_HTTP_OUT_DONE;
    x->close = x->aborted = true;
    oc_http_conn_defer(x->c);
}

bool oc_http_stream_begun(const struct oc_http_exchange *x) {
    return x->begun;
}
