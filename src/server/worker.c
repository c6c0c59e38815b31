#include "server/worker.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/child.h"
#include "server/link.h"

#define STOP_MS 5000 /* from SHUTDOWN to SIGKILL */
#define END_MS 1000  /* from the end of its socket to SIGKILL */
#define N_BUCKETS 128

struct oc_server_worker {
    struct oc_server *s;
    struct oc_server_worker_events ev;
    enum oc_server_worker_state state;
    int id, pid;
    char *dir;
    int64_t kv_tokens;
    char device[16];
    struct oc_server_child *child;
    struct oc_server_link *link;
    struct oc_ipc_board *board;
    uv_timer_t timer; /* load limit, then the limit of a stop */
    uint64_t start_ns, ready_ns;
    double load_s;
    bool stalled, lied; /* lied: it broke the protocol, nothing it says counts any more */
    bool files_changed;          /* the weights it maps are not there any more */
    bool asked, killed, refused; /* to stop by its owner; by us; the model could not be loaded */
    char how[160];               /* why it was killed */
    struct oc_server_job *buckets[N_BUCKETS];
    int n_jobs;
    uint64_t last_job;
};

/* ---- Jobs ---------------------------------------------------------------------------------------------- */

static void link_job(struct oc_server_worker *w, struct oc_server_job *j) {
    struct oc_server_job **head = &w->buckets[j->id % N_BUCKETS];
    j->worker = w;
    j->back = head;
    j->next = *head;
    if (j->next) j->next->back = &j->next;
    *head = j;
    w->n_jobs++;
}

static void unlink_job(struct oc_server_job *j) {
    *j->back = j->next;
    if (j->next) j->next->back = j->back;
    j->worker->n_jobs--;
    j->worker = NULL;
    j->next = NULL;
    j->back = NULL;
}

static struct oc_server_job *find_job(const struct oc_server_worker *w, uint64_t id) {
    struct oc_server_job *j = w->buckets[id % N_BUCKETS];
    while (j && j->id != id) j = j->next;
    return j;
}

/* Only a job that was encoding or prefilling can have been fatal by its picture; the board says which when it
 * was one alone. */
static bool is_blamed(const struct oc_server_worker *w, const struct oc_server_job *j) {
    if (!j->has_pictures || w->files_changed) return false;
    uint64_t at_hand = atomic_load_explicit(&w->board->job, memory_order_relaxed);
    if (at_hand && at_hand != j->id) return false;
    return at_hand == j->id || j->stage == OC_IPC_STAGE_ENCODE || j->stage == OC_IPC_STAGE_PREFILL;
}

static void lose_jobs(struct oc_server_worker *w) {
    for (int i = 0; i < N_BUCKETS; i++) {
        for (struct oc_server_job *j; (j = w->buckets[i]);) {
            bool blamed = is_blamed(w, j);
            unlink_job(j);
            j->ev->on_lost(j, blamed);
        }
    }
}

enum oc_err oc_server_worker_send(struct oc_server_worker *w, struct oc_server_job *j,
                                  const struct oc_ipc_job *m, const int *fds, int n_fds,
                                  struct oc_errinfo *ei) {
    struct oc_buf b;
    oc_buf_init(&b, OC_LIMIT_IPC_FRAME_BYTES);
    enum oc_err err = OC_OK;
    if (w->state != OC_WORKER_READY)
        err = oc_fail(ei, OC_ERR_IO, "the worker is not ready");
    else if (!oc_ipc_job_write(&b, m))
        err = oc_fail(ei, OC_ERR_LIMIT, "the prompt is too long for one message");
    if (err) {
        for (int i = 0; i < n_fds; i++) close(fds[i]);
    } else {
        j->id = ++w->last_job;
        j->stage = -1;
        j->has_pictures = m->n_pictures > 0;
        err = oc_server_link_send(w->link, OC_IPC_JOB, j->id, oc_buf_str(&b), b.n_bytes, fds, n_fds, ei);
        if (!err) link_job(w, j);
    }
    oc_buf_free(&b);
    return err;
}

void oc_server_worker_finish(struct oc_server_job *j) {
    struct oc_server_worker *w = j->worker;
    struct oc_errinfo ei;
    if (w && w->state == OC_WORKER_READY &&
        oc_server_link_send(w->link, OC_IPC_CANCEL, j->id, "", 0, NULL, 0, &ei))
        oc_server_worker_kill(w, "a cancel could not be sent");
}

void oc_server_worker_cancel(struct oc_server_job *j) {
    if (!j->worker) return;
    oc_server_worker_finish(j);
    unlink_job(j);
}

/* ---- Messages ------------------------------------------------------------------------------------------ */

/* The reader has bounded each field; these are about what is counted with and divided by. */
static enum oc_err check_ready(const struct oc_ipc_ready *m, struct oc_errinfo *ei) {
    if (m->n_vocab < 1 || m->ctx_tokens < 1 || m->n_sessions < 1 || m->n_sessions > OC_LIMIT_SCHED_JOBS ||
        m->kv_tokens < m->ctx_tokens)
        return oc_fail(ei, OC_ERR_FORMAT, "READY of %d sequences, %d tokens of context, %d of KV cache, %d of vocabulary",
                       m->n_sessions, m->ctx_tokens, m->kv_tokens, m->n_vocab);
    return OC_OK;
}

static enum oc_err take_ready(struct oc_server_worker *w, struct oc_arena *a, const struct oc_ipc_frame *f,
                              struct oc_errinfo *ei) {
    struct oc_ipc_ready m;
    OC_TRY(oc_ipc_ready_read(a, f->payload, f->n_bytes, &m, ei));
    if (m.version != OC_IPC_VERSION || w->state != OC_WORKER_STARTING)
        return oc_fail(ei, OC_ERR_FORMAT, "READY of version %d in state %d", m.version, (int)w->state);
    OC_TRY(check_ready(&m, ei));
    uv_timer_stop(&w->timer);
    w->state = OC_WORKER_READY;
    w->ready_ns = oc_clock_ns();
    w->load_s = oc_clock_ms_since(w->start_ns) / 1e3;
    w->ev.on_ready(w->ev.arg, w, &m);
    return OC_OK;
}

static enum oc_err take_refused(struct oc_server_worker *w, struct oc_arena *a, const struct oc_ipc_frame *f,
                                struct oc_errinfo *ei) {
    struct oc_ipc_refused m;
    OC_TRY(oc_ipc_refused_read(a, f->payload, f->n_bytes, &m, ei));
    if (w->state != OC_WORKER_STARTING || w->refused) return OC_OK;
    w->refused = true;
    w->ev.on_refused(w->ev.arg, w, (enum oc_err)m.err, m.message);
    return OC_OK;
}

static enum oc_err take_stage(struct oc_server_job *j, struct oc_arena *a, const struct oc_ipc_frame *f,
                              struct oc_errinfo *ei) {
    struct oc_ipc_stage_entered m;
    OC_TRY(oc_ipc_stage_read(a, f->payload, f->n_bytes, &m, ei));
    j->stage = m.stage;
    j->ev->on_stage(j, &m);
    return OC_OK;
}

static enum oc_err take_tokens(struct oc_server_job *j, struct oc_arena *a, const struct oc_ipc_frame *f,
                               struct oc_errinfo *ei) {
    struct oc_ipc_tokens m;
    OC_TRY(oc_ipc_tokens_read(a, f->payload, f->n_bytes, &m, ei));
    j->ev->on_tokens(j, &m);
    return OC_OK;
}

static enum oc_err take_done(struct oc_server_job *j, struct oc_arena *a, const struct oc_ipc_frame *f,
                             struct oc_errinfo *ei) {
    struct oc_ipc_done m;
    OC_TRY(oc_ipc_done_read(a, f->payload, f->n_bytes, &m, ei));
    unlink_job(j);
    j->ev->on_done(j, &m);
    return OC_OK;
}

static enum oc_err dispatch(struct oc_server_worker *w, struct oc_arena *a, const struct oc_ipc_frame *f,
                            struct oc_errinfo *ei) {
    if (f->type == OC_IPC_READY) return take_ready(w, a, f, ei);
    if (f->type == OC_IPC_REFUSED) return take_refused(w, a, f, ei);
    if (f->type != OC_IPC_STAGE && f->type != OC_IPC_TOKENS && f->type != OC_IPC_DONE)
        return oc_fail(ei, OC_ERR_FORMAT, "a message of type %s", oc_ipc_type_name(f->type));
    struct oc_server_job *j = find_job(w, f->id);
    if (!j) return OC_OK; /* cancelled in the meantime */
    if (f->type == OC_IPC_STAGE) return take_stage(j, a, f, ei);
    return f->type == OC_IPC_TOKENS ? take_tokens(j, a, f, ei) : take_done(j, a, f, ei);
}

static void on_frame(void *arg, struct oc_ipc_frame *f) {
    struct oc_server_worker *w = arg;
    struct oc_errinfo ei;
    struct oc_arena a;
    if (w->state == OC_WORKER_DEAD || w->lied) return;
    oc_arena_init(&a, 2 * OC_LIMIT_IPC_FRAME_BYTES);
    if (dispatch(w, &a, f, &ei)) {
        char why[160];
        snprintf(why, sizeof why, "it broke the protocol: %.120s", ei.msg);
        w->lied = true;
        oc_server_worker_kill(w, why);
    }
    oc_arena_free(&a);
}

static void on_stop_time(uv_timer_t *t) {
    struct oc_server_worker *w = t->data;
    oc_server_worker_kill(w, "it did not stop in time");
}

/* The socket ends just before the process does; one that lives on without it is of no use. */
static void on_link_end(void *arg, const struct oc_errinfo *ei) {
    struct oc_server_worker *w = arg;
    if (ei) {
        char why[160];
        snprintf(why, sizeof why, "its channel broke: %.120s", ei->msg);
        oc_server_worker_kill(w, why);
        return;
    }
    if (w->state == OC_WORKER_STOPPING || w->state == OC_WORKER_DEAD) return;
    w->state = OC_WORKER_STOPPING;
    uv_timer_start(&w->timer, on_stop_time, END_MS, 0);
}

/* ---- The end ------------------------------------------------------------------------------------------- */

static void on_timer_closed(uv_handle_t *h) {
    struct oc_server_worker *w = h->data;
    oc_ipc_board_unmap(w->board);
    free(w->dir);
    free(w);
}

static void describe_end(struct oc_server_worker *w, int status, int sig, char *how, size_t n) {
    if (w->how[0])
        snprintf(how, n, "%s", w->how);
    else if (w->files_changed)
        snprintf(how, n, "the model's files changed while they were in use (signal %d, %s)", sig, strsignal(sig));
    else if (sig)
        snprintf(how, n, "it was ended by signal %d (%s)", sig, strsignal(sig));
    else
        snprintf(how, n, "it exited with code %d", status);
}

static void log_end(struct oc_server_worker *w, bool expected, const char *how) {
    oc_log(w->s->log, expected ? OC_LOG_INFO : OC_LOG_ERROR, expected ? "worker stopped" : "worker died",
           OC_LOG_I("worker", w->id), OC_LOG_I("pid", w->pid), OC_LOG_S("how", how),
           OC_LOG_S("doing", oc_ipc_doing_name(atomic_load_explicit(&w->board->doing, memory_order_relaxed))),
           OC_LOG_I("jobs", w->n_jobs));
}

static void on_process_end(void *arg, int status, int sig, struct oc_str output) {
    struct oc_server_worker *w = arg;
    char how[200];
    (void)output;
    bool expected = w->asked || w->refused;
    if (w->link) oc_server_link_drain(w->link); /* what it said before it went */
    w->files_changed = sig == SIGBUS && !w->killed; /* all else that it maps is sealed or its own */
    describe_end(w, status, sig, how, sizeof how);
    log_end(w, expected, how);
    w->child = NULL;
    w->state = OC_WORKER_DEAD;
    oc_server_link_close(w->link);
    w->link = NULL;
    w->ev.on_dead(w->ev.arg, w, how);
    lose_jobs(w);
    uv_close((uv_handle_t *)&w->timer, on_timer_closed);
}

void oc_server_worker_kill(struct oc_server_worker *w, const char *why) {
    if (w->state == OC_WORKER_DEAD || !w->child || w->killed) return;
    w->killed = true;
    w->state = OC_WORKER_STOPPING;
    snprintf(w->how, sizeof w->how, "it was killed: %s", why);
    oc_server_child_signal(w->child, SIGKILL);
}

static void on_load_time(uv_timer_t *t) {
    struct oc_server_worker *w = t->data;
    oc_server_worker_kill(w, "it did not load within --load-timeout");
}

void oc_server_worker_stop(struct oc_server_worker *w) {
    struct oc_errinfo ei;
    w->asked = true;
    if (w->state == OC_WORKER_STARTING) { /* it reads no messages while it loads */
        oc_server_worker_kill(w, "its model is not wanted any more");
        return;
    }
    if (w->state != OC_WORKER_READY) return;
    w->state = OC_WORKER_STOPPING;
    uv_timer_start(&w->timer, on_stop_time, STOP_MS, 0);
    if (oc_server_link_send(w->link, OC_IPC_SHUTDOWN, 0, "", 0, NULL, 0, &ei))
        oc_server_worker_kill(w, "it takes no messages");
}

/* ---- The start ----------------------------------------------------------------------------------------- */

static void add(struct oc_server_worker_argv *a, const char *s) {
    if (a->n < OC_SERVER_WORKER_ARGS - 1) a->v[a->n++] = (char *)s;
    a->v[a->n] = NULL;
}

static void add_int(struct oc_server_worker_argv *a, const char *name, int64_t n) {
    if (a->n > OC_SERVER_WORKER_ARGS - 3) return;
    add(a, name);
    snprintf(a->text[a->n], sizeof a->text[a->n], "%" PRId64, n);
    add(a, a->text[a->n]);
}

/* Unless it is 0, which means the worker's own default. */
static void add_number(struct oc_server_worker_argv *a, const char *name, int64_t n) {
    if (n) add_int(a, name, n);
}

void oc_server_worker_make_argv(const struct oc_server_config *c, const char *model_dir, int64_t kv_tokens,
                                const char *device, bool measure, struct oc_server_worker_argv *out) {
    *out = (struct oc_server_worker_argv){0};
    add(out, "ocellus");
    add(out, "worker");
    if (measure) add(out, "--measure");
    add(out, "--model");
    add(out, model_dir);
    add_number(out, "--threads", c->n_threads);
    add_number(out, "--ctx", c->ctx_tokens);
    add_number(out, "--parallel", c->parallel);
    add_number(out, "--kv-tokens", kv_tokens);
    add_number(out, "--image-max-tokens", c->image_max_tokens);
    add_int(out, "--embed-cache-bytes", c->embed_cache_bytes); /* 0: none */
    if (!measure) add_int(out, "--parent", getpid());
    if (!c->prefix_cache) add(out, "--no-prefix-cache");
    if (c->speculate && strcmp(c->speculate, "off") == 0) add(out, "--no-speculation");
    if (device && *device) {
        add(out, "--device");
        add(out, device);
    }
    if (c->isa && *c->isa) {
        add(out, "--isa");
        add(out, c->isa);
    }
    if (strcmp(c->batch_mode, "exact") != 0) {
        add(out, "--batch-mode");
        add(out, c->batch_mode);
    }
}

static int next_id(struct oc_server *s) {
    return ++s->n_workers_started;
}

static enum oc_err spawn(struct oc_server_worker *w, struct oc_errinfo *ei) {
    int board_fd = -1, socket = -1;
    char name[32];
    struct oc_server_worker_argv argv;
    snprintf(name, sizeof name, "worker %d", w->id);
    oc_server_worker_make_argv(w->s->config, w->dir, w->kv_tokens, w->device, false, &argv);
    OC_TRY(oc_ipc_board_create(&w->board, &board_fd, ei));
    struct oc_server_child_params p = {.name = name,
                                       .argv = argv.v,
                                       .socket = &socket,
                                       .board_fd = board_fd,
                                       .arg = w,
                                       .on_exit = on_process_end};
    enum oc_err err = oc_server_child_spawn(w->s, &p, &w->child, ei);
    close(board_fd);
    if (err) return err;
    w->pid = oc_server_child_pid(w->child);
    struct oc_server_link_events ev = {.arg = w, .on_frame = on_frame, .on_end = on_link_end};
    return oc_server_link_open(w->s, socket, &ev, &w->link, ei);
}

enum oc_err oc_server_worker_start(struct oc_server *s, const char *model_dir, int64_t kv_tokens, const char *device,
                                   const struct oc_server_worker_events *ev, struct oc_server_worker **out,
                                   struct oc_errinfo *ei) {
    struct oc_server_worker *w = calloc(1, sizeof *w);
    *out = NULL;
    if (!w || !(w->dir = strdup(model_dir))) {
        free(w);
        return oc_fail(ei, OC_ERR_NOMEM, "no memory for a worker");
    }
    w->s = s;
    w->ev = *ev;
    w->kv_tokens = kv_tokens;
    snprintf(w->device, sizeof w->device, "%s", device ? device : "");
    w->id = next_id(s);
    w->start_ns = oc_clock_ns();
    uv_timer_init(&s->loop, &w->timer);
    w->timer.data = w;
    enum oc_err err = spawn(w, ei);
    if (err && w->child) { /* started, but it cannot be talked to: on_process_end cleans up */
        oc_server_worker_kill(w, "no channel to it could be opened");
    } else if (err) {
        uv_close((uv_handle_t *)&w->timer, on_timer_closed);
        return err;
    }
    if (w->state == OC_WORKER_STARTING)
        uv_timer_start(&w->timer, on_load_time, (uint64_t)s->config->load_timeout_s * 1000, 0);
    *out = w;
    return OC_OK;
}

/* ---- Watching ------------------------------------------------------------------------------------------ */

/* READY counts as a beat: one that never had another is silent too. */
static double silent_s(const struct oc_server_worker *w) {
    uint64_t beat = atomic_load_explicit(&w->board->heartbeat_ns, memory_order_relaxed), now = oc_clock_ns();
    if (beat < w->ready_ns) beat = w->ready_ns;
    return now > beat ? (double)(now - beat) / 1e9 : 0;
}

bool oc_server_worker_is_stuck(const struct oc_server_worker *w) {
    int limit = w->s->config->stall_timeout_s;
    return w->state == OC_WORKER_READY && limit > 0 && silent_s(w) > limit / 2.0;
}

void oc_server_worker_watch(struct oc_server_worker *w) {
    int limit = w->s->config->stall_timeout_s;
    double silent = silent_s(w);
    if (w->state != OC_WORKER_READY || limit <= 0 || silent < limit) return;
    const struct oc_ipc_board *b = w->board;
    oc_log(w->s->log, OC_LOG_ERROR, "a worker makes no progress; it is killed", OC_LOG_I("worker", w->id),
           OC_LOG_I("pid", w->pid), OC_LOG_D("silent_s", silent),
           OC_LOG_S("doing", oc_ipc_doing_name(atomic_load_explicit(&b->doing, memory_order_relaxed))),
           OC_LOG_I("job", (int64_t)atomic_load_explicit(&b->job, memory_order_relaxed)),
           OC_LOG_I("steps", (int64_t)atomic_load_explicit(&b->n_steps, memory_order_relaxed)),
           OC_LOG_I("running", (int64_t)atomic_load_explicit(&b->n_running, memory_order_relaxed)),
           OC_LOG_I("waiting", (int64_t)atomic_load_explicit(&b->n_waiting, memory_order_relaxed)));
    w->stalled = true;
    oc_server_worker_kill(w, "its heartbeat stopped");
}

enum oc_server_worker_state oc_server_worker_state(const struct oc_server_worker *w) {
    return w->state;
}

const struct oc_ipc_board *oc_server_worker_board(const struct oc_server_worker *w) {
    return w->board;
}

int oc_server_worker_id(const struct oc_server_worker *w) {
    return w->id;
}

int oc_server_worker_pid(const struct oc_server_worker *w) {
    return w->pid;
}

bool oc_server_worker_has_stalled(const struct oc_server_worker *w) {
    return w->stalled;
}

bool oc_server_worker_lost_files(const struct oc_server_worker *w) {
    return w->files_changed;
}

int oc_server_worker_n_jobs(const struct oc_server_worker *w) {
    return w->n_jobs;
}

double oc_server_worker_load_s(const struct oc_server_worker *w) {
    return w->state == OC_WORKER_STARTING ? oc_clock_ms_since(w->start_ns) / 1e3 : w->load_s;
}
