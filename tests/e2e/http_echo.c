/* Test tool: the HTTP server alone, for tests/e2e/test_http_strict.py.
 *
 * Listens on a free port of 127.0.0.1, prints it, and answers each request with what it read:
 * {"method": ..., "path": ..., "query": ..., "body_bytes": ...}. Paths below /stream come in three pieces.
 * Ends when its stdin does. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "http/http.h"

struct echo {
    struct oc_http_server *server;
    uv_pipe_t in;
    char in_bytes[64];
};

static void on_request(void *arg, struct oc_http_exchange *x, const struct oc_http_request *r) {
    struct oc_buf b;
    (void)arg;
    oc_buf_init(&b, 64 * 1024);
    oc_buf_printf(&b,
                  "{\"method\": \"%.*s\", \"path\": \"%.*s\", \"query\": \"%.*s\", \"body_bytes\": %zu}\n",
                  (int)r->method_name.n, r->method_name.p, (int)r->path.n, r->path.p, (int)r->query.n,
                  r->query.n ? r->query.p : "", r->body.n);
    struct oc_str text = {oc_buf_str(&b), b.n_bytes};
    if (r->path.n >= 7 && memcmp(r->path.p, "/stream", 7) == 0) {
        oc_http_stream_begin(x, 200, "application/json");
        oc_http_stream_write(x, (struct oc_str){text.p, 1});
        oc_http_stream_write(x, (struct oc_str){text.p + 1, text.n - 2});
        oc_http_stream_write(x, (struct oc_str){text.p + text.n - 1, 1});
        oc_http_stream_end(x);
    } else {
        oc_http_respond(x, 200, "application/json", text);
    }
    oc_buf_free(&b);
}

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *buf) {
    struct echo *e = h->data;
    (void)suggested;
    *buf = uv_buf_init(e->in_bytes, sizeof(e->in_bytes));
}

static void on_stdin(uv_stream_t *s, ssize_t n, const uv_buf_t *buf) {
    struct echo *e = s->data;
    (void)buf;
    if (n >= 0) return;
    uv_close((uv_handle_t *)s, NULL);
    oc_http_server_close(e->server, NULL, NULL);
}

int main(void) {
    uv_loop_t *loop = uv_default_loop();
    static struct echo e;
    struct oc_errinfo ei;
    const struct oc_http_events ev = {.on_request = on_request};
    const struct oc_http_options o = {.max_body_bytes = 1024 * 1024};
    signal(SIGPIPE, SIG_IGN);
    if (oc_http_listen(loop, "127.0.0.1", 0, &o, &ev, &e.server, &ei) != OC_OK) {
        fprintf(stderr, "http_echo: %s\n", ei.msg);
        return 1;
    }
    e.in.data = &e;
    uv_pipe_init(loop, &e.in, 0);
    if (uv_pipe_open(&e.in, 0) != 0 || uv_read_start((uv_stream_t *)&e.in, on_alloc, on_stdin) != 0) {
        fprintf(stderr, "http_echo: stdin must be a pipe\n");
        return 1;
    }
    printf("%d\n", oc_http_server_port(e.server));
    fflush(stdout);
    uv_run(loop, UV_RUN_DEFAULT);
    return uv_loop_close(loop) == 0 ? 0 : 1;
}
