#include "server/child.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/limits.h"
#include "server/runtime.h"

#define LINES_PER_S 200 /* of one child's standard error; the rest is counted */

struct oc_server_child {
    struct oc_server *s;
    uv_process_t process;
    uv_pipe_t err, out;
    int n_handles; /* open ones; the last to close frees the child */
    char name[32];
    struct oc_buf line, output;
    bool captures, exited, out_ended, err_ended;
    char last_line[OC_ERRINFO_MAX];
    int status, signal;
    uint64_t window_ms; /* of the line count */
    int n_lines;
    uint64_t n_left_out;
    void *arg;
    void (*on_exit)(void *arg, int status, int signal, struct oc_str output);
    char chunk[4096];
};

/* ---- The end ------------------------------------------------------------------------------------------- */

static void on_closed(uv_handle_t *h) {
    struct oc_server_child *c = h->data;
    if (--c->n_handles) return;
    oc_buf_free(&c->line);
    oc_buf_free(&c->output);
    struct oc_server *s = c->s;
    free(c);
    oc_server_progress(s);
}

static void close_pipe(uv_pipe_t *p) {
    if (!uv_is_closing((uv_handle_t *)p)) uv_close((uv_handle_t *)p, on_closed);
}

/* Tells the owner once the process is gone and its captured output has ended. */
static void settle(struct oc_server_child *c) {
    if (!c->exited || (c->captures && !(c->out_ended && c->err_ended)) || !c->on_exit) return;
    void (*on_exit)(void *, int, int, struct oc_str) = c->on_exit;
    struct oc_str output = {oc_buf_str(&c->output), c->output.n_bytes};
    c->on_exit = NULL;
    on_exit(c->arg, c->status, c->signal, output.n ? output : oc_str_from(c->last_line));
}

static void on_process_exit(uv_process_t *p, int64_t status, int signal) {
    struct oc_server_child *c = p->data;
    oc_server_runtime_remove(c->s->runtime, p->pid);
    c->exited = true;
    c->status = (int)status;
    c->signal = signal;
    uv_close((uv_handle_t *)p, on_closed);
    settle(c);
}

/* ---- Standard error into the log ----------------------------------------------------------------------- */

static void relay(struct oc_server_child *c) {
    uint64_t now = oc_server_now_ms();
    if (c->line.n_bytes) snprintf(c->last_line, sizeof c->last_line, "%s", oc_buf_str(&c->line));
    if (now - c->window_ms >= 1000) {
        if (c->n_left_out)
            oc_log(c->s->log, OC_LOG_WARN, "lines of a child were left out", OC_LOG_S("child", c->name),
                   OC_LOG_I("lines", (int64_t)c->n_left_out));
        c->window_ms = now;
        c->n_lines = 0;
        c->n_left_out = 0;
    }
    if (c->line.n_bytes && c->n_lines++ < LINES_PER_S)
        oc_log_relay(c->s->log, c->name, (struct oc_str){oc_buf_str(&c->line), c->line.n_bytes});
    else
        c->n_left_out += c->line.n_bytes > 0;
    oc_buf_clear(&c->line);
}

static void take_stderr(struct oc_server_child *c, const char *p, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '\n')
            relay(c);
        else
            oc_buf_add_char(&c->line, p[i]); /* a full line loses its end */
    }
}

static void on_alloc(uv_handle_t *h, size_t n, uv_buf_t *buf) {
    struct oc_server_child *c = h->data;
    (void)n;
    *buf = uv_buf_init(c->chunk, sizeof c->chunk);
}

static void on_stderr(uv_stream_t *st, ssize_t n, const uv_buf_t *buf) {
    struct oc_server_child *c = st->data;
    if (n > 0) {
        take_stderr(c, buf->base, (size_t)n);
        return;
    }
    if (n == 0) return;
    relay(c);
    c->err_ended = true;
    close_pipe(&c->err);
    settle(c);
}

static void on_stdout(uv_stream_t *st, ssize_t n, const uv_buf_t *buf) {
    struct oc_server_child *c = st->data;
    if (n > 0) oc_buf_add(&c->output, buf->base, (size_t)n);
    if (n >= 0) return;
    c->out_ended = true;
    close_pipe(&c->out);
    settle(c);
}

/* ---- The start ----------------------------------------------------------------------------------------- */

static struct oc_server_child *make(struct oc_server *s, const struct oc_server_child_params *p) {
    struct oc_server_child *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    c->s = s;
    c->arg = p->arg;
    c->on_exit = p->on_exit;
    c->captures = p->max_output > 0;
    snprintf(c->name, sizeof c->name, "%s", p->name);
    oc_buf_init(&c->line, OC_LIMIT_LOG_LINE_BYTES / 2); /* room for what the log adds */
    oc_buf_init(&c->output, p->max_output);
    uv_pipe_init(&s->loop, &c->err, 0);
    uv_pipe_init(&s->loop, &c->out, 0);
    c->err.data = c->out.data = c->process.data = c;
    c->n_handles = 3;
    return c;
}

static int start(struct oc_server *s, struct oc_server_child *c, const struct oc_server_child_params *p,
                 int socket) {
    const uv_stdio_flags to_us = UV_CREATE_PIPE | UV_WRITABLE_PIPE;
    uv_stdio_container_t io[5] = {{.flags = UV_IGNORE},
                                  {.flags = UV_IGNORE},
                                  {.flags = UV_IGNORE},
                                  {.flags = UV_IGNORE},
                                  {.flags = UV_IGNORE}};
    io[2] = (uv_stdio_container_t){.flags = to_us, .data.stream = (uv_stream_t *)&c->err};
    if (c->captures) io[1] = (uv_stdio_container_t){.flags = to_us, .data.stream = (uv_stream_t *)&c->out};
    if (socket >= 0) io[3] = (uv_stdio_container_t){.flags = UV_INHERIT_FD, .data.fd = socket};
    if (p->board_fd >= 0) io[4] = (uv_stdio_container_t){.flags = UV_INHERIT_FD, .data.fd = p->board_fd};
    uv_process_options_t o = {.file = "/proc/self/exe",
                              .args = (char **)p->argv,
                              .stdio = io,
                              .stdio_count = p->board_fd >= 0 ? 5
                                             : socket >= 0    ? 4
                                                              : 3,
                              .exit_cb = on_process_exit};
    int err = uv_spawn(&s->loop, &c->process, &o);
    if (err) return err;
    oc_server_runtime_add(s->runtime, c->process.pid);
    uv_read_start((uv_stream_t *)&c->err, on_alloc, on_stderr);
    if (c->captures)
        uv_read_start((uv_stream_t *)&c->out, on_alloc, on_stdout);
    else
        close_pipe(&c->out);
    return 0;
}

enum oc_err oc_server_child_spawn(struct oc_server *s, const struct oc_server_child_params *p,
                                  struct oc_server_child **out, struct oc_errinfo *ei) {
    int pair[2] = {-1, -1};
    *out = NULL;
    if (p->socket && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
        return oc_fail(ei, OC_ERR_IO, "no socket pair for %s: out of descriptors?", p->name);
    struct oc_server_child *c = make(s, p);
    int err = c ? start(s, c, p, pair[1]) : UV_ENOMEM;
    if (pair[1] >= 0) close(pair[1]);
    if (!err) {
        if (p->socket) *p->socket = pair[0];
        *out = c;
        return OC_OK;
    }
    if (pair[0] >= 0) close(pair[0]);
    if (c) {
        uv_close((uv_handle_t *)&c->process, on_closed); /* initialised by uv_spawn also when it fails */
        close_pipe(&c->err);
        close_pipe(&c->out);
    }
    return oc_fail(ei, OC_ERR_IO, "%s cannot be started: %s", p->name, uv_strerror(err));
}

int oc_server_child_pid(const struct oc_server_child *c) {
    return c->process.pid;
}

void oc_server_child_signal(struct oc_server_child *c, int signal) {
    if (!c->exited) uv_process_kill(&c->process, signal);
}
