/* Whole answers, and the head of all of them. */
#include "http/conn.h"

static bool is_field_value(const char *s) {
    return !strpbrk(s, "\r\n");
}

void oc_http_header(struct oc_http_exchange *x, const char *name, const char *value) {
    OC_ASSERT(x->out == OC_HTTP_OUT_NONE);
    OC_ASSERT(*name && !strpbrk(name, "\r\n :") && is_field_value(value));
    if (!oc_buf_printf(&x->headers, "%s: %s\r\n", name, value)) x->c->broken = true;
}

static bool without_body(int status) {
    return status == 204 || status == 304 || (status >= 100 && status < 200);
}

static void add_connection(struct oc_http_exchange *x, struct oc_buf *out) {
    if (x->c->server->stopping) x->close = true;
    if (x->close) {
        oc_buf_add_str(out, "Connection: close\r\n");
    } else if (x->head.minor == 0) {
        oc_buf_add_str(out, "Connection: keep-alive\r\n");
    }
}

void oc_http_respond_head(struct oc_http_exchange *x, int status, const char *content_type,
                          enum oc_http_length length, size_t n_body, struct oc_buf *out) {
    struct oc_http_server *s = x->c->server;
    OC_ASSERT(status >= 200 && status <= 999);
    oc_buf_printf(out, "HTTP/1.1 %d %s\r\nDate: %s\r\n", status, oc_http_reason(status),
                  oc_http_server_date(s));
    if (s->o.server_name) oc_buf_printf(out, "Server: %s\r\n", s->o.server_name);
    if (content_type) {
        OC_ASSERT(is_field_value(content_type));
        oc_buf_printf(out, "Content-Type: %s\r\n", content_type);
    }
    if (without_body(status)) {
        x->no_body = true;
    } else if (length == OC_HTTP_LENGTH_KNOWN) {
        oc_buf_printf(out, "Content-Length: %zu\r\n", n_body);
    } else if (length == OC_HTTP_LENGTH_CHUNKED) {
        oc_buf_add_str(out, "Transfer-Encoding: chunked\r\n");
    }
    add_connection(x, out);
    oc_buf_add(out, x->headers.data, x->headers.n_bytes);
    oc_buf_add_str(out, "\r\n");
}

static void send_whole(struct oc_http_exchange *x, int status, const char *content_type, struct oc_str body) {
    struct oc_buf head;
    oc_buf_init(&head, 2 * OC_LIMIT_HTTP_HEAD_BYTES);
    oc_http_respond_head(x, status, content_type, OC_HTTP_LENGTH_KNOWN, body.n, &head);
    if (x->no_body) body.n = 0;
    if (head.failed) {
        x->c->broken = true;
    } else {
        uv_buf_t bufs[] = {{head.data, head.n_bytes}, {(char *)body.p, body.n}};
        oc_http_output(x->c, bufs, body.n ? 2 : 1, head.n_bytes + body.n + OC_LIMIT_HTTP_OUT_MAX_BYTES);
    }
    oc_buf_free(&head);
    x->out = OC_HTTP_OUT_DONE;
}

void oc_http_respond(struct oc_http_exchange *x, int status, const char *content_type, struct oc_str body) {
    OC_ASSERT(x->out == OC_HTTP_OUT_NONE);
    if (x->in == OC_HTTP_IN_HEAD) x->close |= x->close_refused;
    send_whole(x, status, content_type, body);
    oc_http_conn_defer(x->c);
}

void oc_http_respond_error(struct oc_http_exchange *x, int status, const char *message) {
    const struct oc_http_events *ev = &x->c->server->ev;
    const char *content_type = "text/plain; charset=utf-8";
    struct oc_buf body;
    oc_buf_init(&body, 64 * OC_KIB);
    if (ev->error_body) {
        ev->error_body(ev->arg, status, message, &body, &content_type);
    } else {
        oc_buf_printf(&body, "%s\n", message);
    }
    send_whole(x, status, content_type, (struct oc_str){oc_buf_str(&body), body.n_bytes});
    oc_buf_free(&body);
}
