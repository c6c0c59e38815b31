#include "server/images.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/child.h"
#include "server/link.h"

#define MAX_TRIES 2
#define MAX_WAITING (4 * OC_LIMIT_SERVER_QUEUE)
#define RECYCLE_AFTER 1000 /* pictures of one process */
#define PAUSE_MS 50        /* before a failed process is started again; doubles up to */
#define MAX_PAUSE_MS 10000
#define ABANDONED_MS 1000 /* a picture nobody waits for gets so long */

/* One place of the pool and the process in it. */
struct oc_server_eye {
    struct oc_server_images *pool;
    int index;
    struct oc_server_child *child; /* NULL: between two processes */
    struct oc_server_link *link;
    bool busy, failed;           /* failed: it is being killed */
    struct oc_server_look *look; /* NULL while busy: abandoned */
    uint64_t n_looks;            /* of this process; also the id of the messages */
    uv_timer_t timer;            /* limit of a picture, or pause before a start */
    uint64_t pause_ms;
    bool timed_out;
};

struct oc_server_images {
    struct oc_server *s;
    struct oc_server_look *first, *last; /* waiting */
    int n_waiting, n_eyes, n_handles;
    bool closing;
    uint64_t answered_ms; /* the last answer of any of them */
    uint64_t n_seen, n_refused, n_crashes, n_timeouts, n_restarts;
    struct oc_server_eye eyes[];
};

static void start_eye(struct oc_server_eye *e);
static void feed(struct oc_server_images *p);

/* ---- The queue ----------------------------------------------------------------------------------------- */

static void enqueue(struct oc_server_images *p, struct oc_server_look *l, bool in_front) {
    l->state = OC_LOOK_WAITING;
    l->prev = in_front ? NULL : p->last;
    l->next = in_front ? p->first : NULL;
    *(l->prev ? &l->prev->next : &p->first) = l;
    *(l->next ? &l->next->prev : &p->last) = l;
    p->n_waiting++;
}

static void dequeue(struct oc_server_images *p, struct oc_server_look *l) {
    *(l->prev ? &l->prev->next : &p->first) = l->next;
    *(l->next ? &l->next->prev : &p->last) = l->prev;
    l->prev = l->next = NULL;
    l->state = OC_LOOK_OUT;
    p->n_waiting--;
}

static void finish(struct oc_server_look *l, enum oc_server_look_end how, const struct oc_ipc_seen *seen,
                   int pixels, const struct oc_errinfo *ei) {
    l->state = OC_LOOK_OUT;
    l->eye = NULL;
    l->done(l, how, seen, pixels, ei);
}

enum oc_err oc_server_images_look(struct oc_server_images *p, struct oc_server_look *l,
                                  struct oc_errinfo *ei) {
    if (p->n_waiting >= MAX_WAITING) return oc_fail(ei, OC_ERR_LIMIT, "too many pictures wait to be decoded");
    l->n_tries = 0;
    l->queued_ms = oc_server_now_ms();
    enqueue(p, l, false);
    feed(p);
    return OC_OK;
}

/* ---- One process --------------------------------------------------------------------------------------- */

/* Ends the process; on_process_end starts the next. */
static void fail_eye(struct oc_server_eye *e) {
    if (e->failed || !e->child) return;
    e->failed = true;
    oc_server_child_signal(e->child, SIGKILL);
}

static void on_time(uv_timer_t *t) {
    struct oc_server_eye *e = t->data;
    e->timed_out = e->look != NULL;
    fail_eye(e);
}

static void set_free(struct oc_server_eye *e) {
    e->pool->answered_ms = oc_server_now_ms();
    uv_timer_stop(&e->timer);
    e->busy = false;
    e->look = NULL;
    e->pause_ms = 0;
    if (e->failed || e->n_looks < RECYCLE_AFTER) return;
    oc_server_link_close(e->link); /* end of file ends it */
    e->link = NULL;
    uv_timer_start(&e->timer, on_time, ABANDONED_MS, 0);
}

static void take_seen(struct oc_server_eye *e, struct oc_server_look *l, struct oc_arena *a,
                      struct oc_ipc_frame *f) {
    struct oc_ipc_seen m;
    struct oc_errinfo ei;
    enum oc_err err = oc_ipc_seen_read(a, f->payload, f->n_bytes, &m, &ei);
    if (!err && f->n_fds != 1) err = oc_fail(&ei, OC_ERR_FORMAT, "no pixels came with a picture");
    if (err) {
        fail_eye(e);
        return;
    }
    int pixels = f->fds[0];
    f->fds[0] = -1;
    e->pool->n_seen++;
    set_free(e);
    if (l)
        finish(l, OC_LOOK_SEEN, &m, pixels, NULL);
    else
        close(pixels);
}

static void take_unseen(struct oc_server_eye *e, struct oc_server_look *l, struct oc_arena *a,
                        struct oc_ipc_frame *f) {
    struct oc_ipc_unseen m;
    struct oc_errinfo ei;
    if (oc_ipc_unseen_read(a, f->payload, f->n_bytes, &m, &ei)) {
        fail_eye(e);
        return;
    }
    oc_fail(&ei, m.err ? (enum oc_err)m.err : OC_ERR_FORMAT, "%.*s", (int)m.message.n, m.message.p);
    e->pool->n_refused++;
    set_free(e);
    if (l) finish(l, OC_LOOK_REFUSED, NULL, -1, &ei);
}

static void on_frame(void *arg, struct oc_ipc_frame *f) {
    struct oc_server_eye *e = arg;
    struct oc_arena a;
    if (!e->busy || f->id != e->n_looks || (f->type != OC_IPC_SEEN && f->type != OC_IPC_UNSEEN)) {
        fail_eye(e);
        return;
    }
    oc_arena_init(&a, 2 * OC_LIMIT_IPC_FRAME_BYTES);
    if (f->type == OC_IPC_SEEN)
        take_seen(e, e->look, &a, f);
    else
        take_unseen(e, e->look, &a, f);
    oc_arena_free(&a);
    feed(e->pool);
}

static void on_link_end(void *arg, const struct oc_errinfo *ei) {
    (void)ei;
    fail_eye(arg); /* if it has not gone by itself */
}

/* A picture whose process died gets a second try; a second death is its own fault. */
static void lose_look(struct oc_server_eye *e) {
    struct oc_server_look *l = e->look;
    struct oc_errinfo ei;
    bool timed_out = e->timed_out;
    e->look = NULL;
    if (!l) return;
    l->eye = NULL;
    if (timed_out) {
        e->pool->n_timeouts++;
        oc_fail(&ei, OC_ERR_LIMIT, "the picture took longer than %d s to decode",
                e->pool->s->config->image_timeout_s);
    } else {
        oc_fail(&ei, OC_ERR_FORMAT, "the picture brought down the process that decodes pictures");
    }
    if (!timed_out && l->n_tries < MAX_TRIES && !e->pool->closing)
        enqueue(e->pool, l, true);
    else
        finish(l, OC_LOOK_CRASHED, NULL, -1, &ei);
}

static void on_pause_over(uv_timer_t *t) {
    start_eye(t->data);
    feed(((struct oc_server_eye *)t->data)->pool);
}

static void free_when_done(struct oc_server_images *p) {
    if (p->n_handles) return;
    struct oc_server *s = p->s;
    s->images = NULL;
    free(p);
    oc_server_progress(s);
}

static void on_timer_closed(uv_handle_t *h) {
    struct oc_server_images *p = ((struct oc_server_eye *)h->data)->pool;
    p->n_handles--;
    free_when_done(p);
}

static void log_exit(const struct oc_server_eye *e, int status, int sig) {
    bool expected = e->pool->closing || (!sig && status == 0);
    oc_log(e->pool->s->log, expected ? OC_LOG_DEBUG : OC_LOG_WARN, "image-worker ended",
           OC_LOG_I("place", e->index), OC_LOG_I("code", status), OC_LOG_I("signal", sig),
           OC_LOG_I("busy", e->busy), OC_LOG_I("timed_out", e->timed_out));
}

static void on_process_end(void *arg, int status, int sig, struct oc_str output) {
    struct oc_server_eye *e = arg;
    struct oc_server_images *p = e->pool;
    (void)output;
    log_exit(e, status, sig);
    e->failed = true;                           /* takes nothing more */
    if (e->link) oc_server_link_drain(e->link); /* it may have answered before it went */
    bool wanted = p->closing || (!e->busy && status == 0 && sig == 0 && e->n_looks >= RECYCLE_AFTER);
    oc_server_link_close(e->link);
    e->link = NULL;
    e->child = NULL;
    uv_timer_stop(&e->timer);
    if (!wanted) p->n_crashes++;
    lose_look(e);
    e->busy = e->failed = e->timed_out = false;
    e->n_looks = 0;
    if (p->closing) {
        if (!uv_is_closing((uv_handle_t *)&e->timer)) uv_close((uv_handle_t *)&e->timer, on_timer_closed);
        return;
    }
    p->n_restarts++;
    uint64_t pause = wanted ? 0 : e->pause_ms;
    e->pause_ms = pause ? (2 * pause < MAX_PAUSE_MS ? 2 * pause : MAX_PAUSE_MS) : PAUSE_MS;
    uv_timer_start(&e->timer, on_pause_over, pause, 0);
}

static enum oc_err spawn(struct oc_server_eye *e, struct oc_errinfo *ei) {
    char name[32];
    int socket = -1;
    char parent[16];
    char *argv[] = {(char *)"ocellus", (char *)"image-worker", (char *)"--parent", parent, NULL};
    snprintf(parent, sizeof parent, "%d", (int)getpid());
    snprintf(name, sizeof name, "image-worker %d", e->index);
    struct oc_server_child_params p = {
        .name = name, .argv = argv, .socket = &socket, .board_fd = -1, .arg = e, .on_exit = on_process_end};
    OC_TRY(oc_server_child_spawn(e->pool->s, &p, &e->child, ei));
    struct oc_server_link_events ev = {.arg = e, .on_frame = on_frame, .on_end = on_link_end};
    return oc_server_link_open(e->pool->s, socket, &ev, &e->link, ei);
}

static void start_eye(struct oc_server_eye *e) {
    struct oc_errinfo ei;
    if (e->child || e->pool->closing) return;
    if (!spawn(e, &ei)) return;
    oc_log(e->pool->s->log, OC_LOG_ERROR, ei.msg, OC_LOG_I("place", e->index));
    if (e->child)
        fail_eye(e);
    else
        uv_timer_start(&e->timer, on_pause_over, MAX_PAUSE_MS / 10, 0);
}

/* ---- Work ---------------------------------------------------------------------------------------------- */

static enum oc_err send_look(struct oc_server_eye *e, struct oc_server_look *l, struct oc_errinfo *ei) {
    struct oc_buf b;
    int fd = fcntl(l->fd, F_DUPFD_CLOEXEC, 0);
    if (fd < 0) return oc_fail(ei, OC_ERR_IO, "out of file descriptors");
    oc_buf_init(&b, 64 * OC_KIB);
    enum oc_err err;
    if (oc_ipc_look_write(&b, &l->what)) {
        err =
            oc_server_link_send(e->link, OC_IPC_LOOK, e->n_looks + 1, oc_buf_str(&b), b.n_bytes, &fd, 1, ei);
    } else {
        close(fd);
        err = oc_fail(ei, OC_ERR_NOMEM, "no memory for a message");
    }
    oc_buf_free(&b);
    return err;
}

/* False when it could not be sent; the look waits on. */
static void give(struct oc_server_eye *e, struct oc_server_look *l) {
    struct oc_errinfo ei;
    dequeue(e->pool, l);
    if (send_look(e, l, &ei)) {
        fail_eye(e);
        if (++l->n_tries < MAX_TRIES)
            enqueue(e->pool, l, true);
        else
            finish(l, OC_LOOK_FAILED, NULL, -1, &ei);
        return;
    }
    e->n_looks++;
    e->busy = true;
    e->look = l;
    l->eye = e;
    l->state = OC_LOOK_RUNNING;
    l->n_tries++;
    uv_timer_start(&e->timer, on_time, (uint64_t)e->pool->s->config->image_timeout_s * 1000, 0);
}

static bool is_free(const struct oc_server_eye *e) {
    return e->child && e->link && !e->busy && !e->failed;
}

static void feed(struct oc_server_images *p) {
    for (int i = 0; i < p->n_eyes && p->first; i++)
        if (is_free(&p->eyes[i])) give(&p->eyes[i], p->first);
}

void oc_server_images_cancel(struct oc_server_images *p, struct oc_server_look *l) {
    if (l->state == OC_LOOK_WAITING) dequeue(p, l);
    if (l->state != OC_LOOK_RUNNING) return;
    struct oc_server_eye *e = l->eye;
    l->state = OC_LOOK_OUT;
    l->eye = NULL;
    e->look = NULL; /* it ends soon by itself, or is ended */
    if (uv_timer_get_due_in(&e->timer) > ABANDONED_MS) uv_timer_start(&e->timer, on_time, ABANDONED_MS, 0);
}

/* ---- The pool ------------------------------------------------------------------------------------------ */

static int pool_size(const struct oc_server_config *c) {
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    int n = c->image_workers > 0 ? c->image_workers : cpus >= 4 ? 4 : cpus > 1 ? 2 : 1;
    return n < OC_LIMIT_SERVER_IMAGE_WORKERS ? n : OC_LIMIT_SERVER_IMAGE_WORKERS;
}

enum oc_err oc_server_images_open(struct oc_server *s, struct oc_server_images **out, struct oc_errinfo *ei) {
    int n = pool_size(s->config);
    struct oc_server_images *p = calloc(1, sizeof *p + (size_t)n * sizeof *p->eyes);
    *out = p;
    if (!p) return oc_fail(ei, OC_ERR_NOMEM, "no memory for the image-workers");
    p->s = s;
    p->n_eyes = p->n_handles = n;
    for (int i = 0; i < n; i++) {
        struct oc_server_eye *e = &p->eyes[i];
        e->pool = p;
        e->index = i;
        uv_timer_init(&s->loop, &e->timer);
        e->timer.data = e;
        start_eye(e);
    }
    return OC_OK;
}

void oc_server_images_tick(struct oc_server_images *p, uint64_t now_ms) {
    uint64_t limit_ms = (uint64_t)p->s->config->image_timeout_s * 1000 + ABANDONED_MS;
    struct oc_errinfo ei;
    for (struct oc_server_look *l; (l = p->first);) {
        uint64_t since_ms = l->queued_ms > p->answered_ms ? l->queued_ms : p->answered_ms;
        if (now_ms < since_ms + limit_ms) return;
        oc_fail(&ei, OC_ERR_IO, "the processes that decode pictures do not answer");
        dequeue(p, l);
        finish(l, OC_LOOK_FAILED, NULL, -1, &ei);
    }
}

void oc_server_images_close(struct oc_server_images *p) {
    if (!p || p->closing) return;
    p->closing = true;
    for (int i = 0; i < p->n_eyes; i++) {
        struct oc_server_eye *e = &p->eyes[i];
        uv_timer_stop(&e->timer);
        if (e->child)
            oc_server_child_signal(e->child, SIGKILL);
        else
            uv_close((uv_handle_t *)&e->timer, on_timer_closed);
    }
}

void oc_server_images_figures(const struct oc_server_images *p, struct oc_server_images_figures *out) {
    *out = (struct oc_server_images_figures){.n_waiting = p->n_waiting,
                                             .n_seen = p->n_seen,
                                             .n_refused = p->n_refused,
                                             .n_crashes = p->n_crashes,
                                             .n_timeouts = p->n_timeouts,
                                             .n_restarts = p->n_restarts};
    for (int i = 0; i < p->n_eyes; i++) {
        const struct oc_server_eye *e = &p->eyes[i];
        if (!e->child) continue;
        out->pids[out->n_workers++] = oc_server_child_pid(e->child);
        out->n_idle += is_free(e);
        out->n_busy += e->busy;
    }
}
