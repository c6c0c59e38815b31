/* The loop of a worker: messages in, one slice of work, messages out. */
#include "worker/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/digest.h"
#include "base/json.h"
#include "engine/speculate.h"
#include "ipc/board.h"
#include "ipc/channel.h"
#include "worker/convert.h"
#include "worker/jail.h"
#include "worker/jobs.h"
#include "worker/lifetime.h"

#define RSS_NS 250000000u      /* how often the size of this process is looked up */
#define FRAMES_A_SLICE 64      /* read at most before the next slice of work */
#define LAST_WORDS_MS 500      /* for what is queued when the process ends */
#define FRAME_ARENA_BYTES (64 * OC_MIB)

_Static_assert(OC_WORKER_JOB_PICKS == 1 + OC_ENGINE_DRAFT_ROWS, "the tokens of a step go out together");

enum state { RUNNING, ENDED, BROKEN };

struct worker {
    const struct oc_worker_options *o;
    enum state state;
    struct oc_ipc_channel *channel;
    struct oc_ipc_board *board;
    int signal_fd, statm_fd;
    uint64_t rss_ns;
    struct oc_engine *engine;
    struct oc_scheduler *scheduler;
    struct oc_picture_rules rules;
    struct oc_worker_jobs jobs;
    struct oc_buf out;     /* the payload that is being written */
    struct oc_arena arena; /* of the frame that is being read */
    bool paused;           /* the other side does not read */
};

static void complain(const char *what, const char *why) {
    fprintf(stderr, "%s: %s\n", what, why);
}

/* ---- The board -------------------------------------------------------------------------------------------- */

#define PUT(w, field, value) atomic_store_explicit(&(w)->board->field, (value), memory_order_relaxed)

static void beat(struct worker *w) {
    PUT(w, heartbeat_ns, oc_clock_ns());
}

static void put_doing(struct worker *w, enum oc_ipc_doing doing, uint64_t job) {
    PUT(w, doing, (uint32_t)doing);
    PUT(w, job, job);
}

/* The second number of /proc/self/statm: resident pages. */
static void put_rss(struct worker *w) {
    char text[128];
    const uint64_t now_ns = oc_clock_ns();
    if (w->rss_ns && now_ns - w->rss_ns < RSS_NS) return;
    w->rss_ns = now_ns;
    ssize_t n = w->statm_fd < 0 ? -1 : pread(w->statm_fd, text, sizeof text - 1, 0);
    if (n <= 0) return;
    text[n] = '\0';
    const char *second = strchr(text, ' ');
    if (second) PUT(w, rss_bytes, strtoull(second, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE));
}

static void put_figures(struct worker *w) {
    struct oc_sched_figures f;
    oc_scheduler_figures(w->scheduler, &f);
    PUT(w, n_steps, f.n_steps);
    PUT(w, n_running, (uint32_t)f.n_running);
    PUT(w, n_waiting, (uint32_t)f.n_waiting);
    PUT(w, kv_pages, (uint32_t)f.kv_pages);
    PUT(w, kv_pages_used, (uint32_t)f.kv_pages_used);
    PUT(w, kv_pages_cached, (uint32_t)f.kv_pages_cached);
    PUT(w, n_prefix_queries, f.n_prefix_queries);
    PUT(w, n_prefix_hits, f.n_prefix_hits);
    PUT(w, n_embed_queries, f.n_embed_queries);
    PUT(w, n_embed_hits, f.n_embed_hits);
    PUT(w, embed_bytes, f.embed_bytes);
    PUT(w, embed_evictions, f.embed_evictions);
    PUT(w, kv_evictions, f.kv_evictions);
    PUT(w, n_prompt_tokens, f.n_prompt_tokens);
    PUT(w, n_output_tokens, f.n_output_tokens);
    PUT(w, n_image_tokens, f.n_image_tokens);
    PUT(w, n_drafts, f.n_drafts);
    PUT(w, n_drafted, f.n_drafted);
    PUT(w, n_accepted, f.n_accepted);
    PUT(w, decode_mtok_s, f.decode_tok_s > 0 ? (uint64_t)(f.decode_tok_s * 1000) : 0);
    put_rss(w);
}

/* ---- Sending ---------------------------------------------------------------------------------------------- */

/* Sends w->out. A failure here is the end of the worker: nobody is there to hear more, or nobody who listens. */
static void send_out(struct worker *w, uint16_t type, uint64_t id, bool written) {
    struct oc_errinfo ei;
    if (w->state != RUNNING) return;
    enum oc_err err = written ? oc_ipc_channel_send(w->channel, type, id, w->out.data, w->out.n_bytes, NULL, 0, &ei)
                              : oc_fail(&ei, OC_ERR_LIMIT, "a message %s is too long", oc_ipc_type_name(type));
    if (err == OC_OK) return;
    w->state = err == OC_ERR_IO ? ENDED : BROKEN;
    if (w->state == BROKEN) complain("the channel to the orchestrator", ei.msg);
}

static void send_stage(struct worker *w, uint64_t id, const struct oc_ipc_stage_entered *m) {
    oc_buf_clear(&w->out);
    send_out(w, OC_IPC_STAGE, id, oc_ipc_stage_write(&w->out, m));
}

static void send_done(struct worker *w, uint64_t id, const struct oc_ipc_done *m) {
    oc_buf_clear(&w->out);
    send_out(w, OC_IPC_DONE, id, oc_ipc_done_write(&w->out, m));
}

static void send_tokens(struct worker *w, struct oc_worker_job *j) {
    const struct oc_ipc_tokens m = {.picks = j->picks, .n_picks = (uint32_t)j->n_picks};
    if (j->n_picks == 0) return;
    oc_buf_clear(&w->out);
    send_out(w, OC_IPC_TOKENS, j->id, oc_ipc_tokens_write(&w->out, &m));
    j->n_picks = 0;
}

static void send_all_tokens(struct worker *w) {
    for (int i = 0; i < w->jobs.n; i++) send_tokens(w, w->jobs.live[i]);
}

static void send_ready(struct worker *w) {
    struct oc_ipc_ready m;
    w->rss_ns = 0;
    put_figures(w); /* who hears of READY may look at the board at once */
    oc_worker_convert_ready(oc_engine_info(w->engine), &w->rules, &m);
    oc_buf_clear(&w->out);
    send_out(w, OC_IPC_READY, 0, oc_ipc_ready_write(&w->out, &m));
}

static void send_refused(struct worker *w, const struct oc_errinfo *ei) {
    const struct oc_ipc_refused m = {.err = (int32_t)ei->code, .message = oc_str_from(ei->msg)};
    oc_buf_clear(&w->out);
    send_out(w, OC_IPC_REFUSED, 0, oc_ipc_refused_write(&w->out, &m));
}

/* What is queued goes out before the process ends, if the other side reads at all. */
static void send_rest(struct worker *w) {
    const uint64_t start_ns = oc_clock_ns();
    struct oc_errinfo ei;
    while (oc_ipc_channel_wants_write(w->channel)) {
        const double left_ms = LAST_WORDS_MS - oc_clock_ms_since(start_ns);
        struct pollfd p = {oc_ipc_channel_fd(w->channel), POLLOUT, 0};
        if (left_ms <= 0 || poll(&p, 1, (int)left_ms + 1) < 0) return;
        if (oc_ipc_channel_flush(w->channel, &ei) != OC_OK) return;
    }
}

/* ---- Events of the scheduler ------------------------------------------------------------------------------ */

static void on_stage(void *arg, uint64_t id, enum oc_sched_stage stage, int n_prompt, int n_cached) {
    const struct oc_ipc_stage_entered m = {.stage = (int32_t)stage, .n_prompt = n_prompt, .n_cached = n_cached};
    send_stage(arg, id, &m);
}

static void on_picture(void *arg, uint64_t id, int picture) {
    struct worker *w = arg;
    struct oc_worker_job *j = oc_worker_jobs_find(&w->jobs, id);
    if (j) oc_worker_jobs_unmap(j, picture);
}

static void on_token(void *arg, uint64_t id, const struct oc_lm_sample_pick *pick) {
    struct worker *w = arg;
    struct oc_worker_job *j = oc_worker_jobs_find(&w->jobs, id);
    if (!j) return;
    if (j->n_picks == OC_WORKER_JOB_PICKS) send_tokens(w, j);
    oc_worker_convert_pick(pick, j->top[j->n_picks], &j->picks[j->n_picks]);
    j->n_picks++;
}

static void on_done(void *arg, uint64_t id, const struct oc_sched_done *done) {
    struct worker *w = arg;
    struct oc_worker_job *j = oc_worker_jobs_find(&w->jobs, id);
    struct oc_ipc_done m;
    if (!j) return;
    send_tokens(w, j);
    oc_worker_convert_done(done, &m);
    send_done(w, id, &m);
    oc_worker_jobs_remove(&w->jobs, j);
}

static void on_beat(void *arg, enum oc_sched_stage stage, uint64_t id) {
    static const enum oc_ipc_doing doing[] = {[OC_SCHED_ENCODE] = OC_IPC_DOING_ENCODE,
                                              [OC_SCHED_PREFILL] = OC_IPC_DOING_PREFILL,
                                              [OC_SCHED_DECODE] = OC_IPC_DOING_DECODE};
    struct worker *w = arg;
    const bool several = stage == OC_SCHED_DECODE && w->jobs.n > 1; /* a row of each: none is at hand alone */
    put_doing(w, doing[stage], several ? 0 : id);
    beat(w);
}

/* ---- Messages of the orchestrator ------------------------------------------------------------------------- */

static enum oc_err map_pictures(struct oc_worker_job *j, const struct oc_ipc_frame *f, struct oc_sched_picture *pictures,
                                int n_pictures, struct oc_errinfo *ei) {
    if (f->n_fds != n_pictures)
        return oc_fail(ei, OC_ERR_FORMAT, "a job of %d pictures came with the pixels of %d", n_pictures, f->n_fds);
    for (int i = 0; i < n_pictures; i++)
        OC_TRY(oc_worker_jobs_map(j, f->fds[i], &pictures[i].plan, &pictures[i].patches, ei));
    return OC_OK;
}

static enum oc_err start_job(struct worker *w, const struct oc_ipc_frame *f, struct oc_errinfo *ei) {
    struct oc_ipc_job m;
    struct oc_sched_job job;
    struct oc_sched_picture *pictures;
    struct oc_worker_job *j;
    OC_TRY(oc_ipc_job_read(&w->arena, f->payload, f->n_bytes, &m, ei));
    OC_TRY(oc_worker_convert_job(&w->arena, f->id, &m, &w->rules, &job, &pictures, ei));
    OC_TRY(oc_worker_jobs_add(&w->jobs, f->id, job.n_pictures, &j, ei));
    enum oc_err err = map_pictures(j, f, pictures, job.n_pictures, ei);
    if (!err) err = oc_scheduler_add(w->scheduler, &job, ei);
    if (err) oc_worker_jobs_remove(&w->jobs, j);
    return err;
}

static void take_job(struct worker *w, const struct oc_ipc_frame *f) {
    struct oc_errinfo ei;
    enum oc_err err = start_job(w, f, &ei);
    oc_arena_free(&w->arena);
    if (err == OC_OK) return;
    const struct oc_ipc_done m = {
        .finish = OC_IPC_FINISH_ERROR, .err = (int32_t)err, .message = oc_str_from(ei.msg)};
    send_done(w, f->id, &m);
}

static void take_cancel(struct worker *w, const struct oc_ipc_frame *f) {
    oc_scheduler_cancel(w->scheduler, f->id);
}

static void take_shutdown(struct worker *w, const struct oc_ipc_frame *f) {
    (void)f;
    w->state = ENDED;
}

typedef void taker(struct worker *w, const struct oc_ipc_frame *f);

static void take_frame(struct worker *w, const struct oc_ipc_frame *f) {
    static taker *const takers[OC_IPC_N_TYPES] = {
        [OC_IPC_JOB] = take_job, [OC_IPC_CANCEL] = take_cancel, [OC_IPC_SHUTDOWN] = take_shutdown};
    if (takers[f->type]) {
        takers[f->type](w, f);
        return;
    }
    complain("the channel to the orchestrator brought a message that is not for a worker", oc_ipc_type_name(f->type));
    w->state = BROKEN;
}

/* All frames that are there, within reason. */
static void take_frames(struct worker *w) {
    for (int i = 0; i < FRAMES_A_SLICE && w->state == RUNNING; i++) {
        struct oc_ipc_frame f;
        enum oc_ipc_got got;
        struct oc_errinfo ei;
        if (oc_ipc_channel_receive(w->channel, 0, &f, &got, &ei) != OC_OK) {
            complain("the channel to the orchestrator", ei.msg);
            w->state = BROKEN;
        } else if (got == OC_IPC_END) {
            w->state = ENDED;
        } else if (got == OC_IPC_NOTHING) {
            return;
        } else {
            take_frame(w, &f);
        }
    }
}

/* ---- The loop --------------------------------------------------------------------------------------------- */

/* Over the limit the worker pauses until half of it has drained. */
static void flush(struct worker *w) {
    struct oc_errinfo ei;
    if (w->state != RUNNING) return;
    if (oc_ipc_channel_flush(w->channel, &ei) != OC_OK) {
        w->state = ENDED; /* the other side is gone */
        return;
    }
    const size_t queued = oc_ipc_channel_queued_bytes(w->channel);
    w->paused = queued > (w->paused ? OC_LIMIT_IPC_BACKLOG_BYTES / 2 : OC_LIMIT_IPC_BACKLOG_BYTES);
}

static void wait_for_work(struct worker *w) {
    const short out = oc_ipc_channel_wants_write(w->channel) ? POLLOUT : 0;
    struct pollfd p[2] = {{oc_ipc_channel_fd(w->channel), (short)(POLLIN | out), 0}, {w->signal_fd, POLLIN, 0}};
    put_doing(w, OC_IPC_DOING_IDLE, 0);
    (void)!poll(p, 2, OC_WORKER_BEAT_MS);
}

static void run(struct worker *w) {
    while (w->state == RUNNING) {
        beat(w);
        take_frames(w);
        flush(w);
        if (oc_worker_lifetime_signal_came(w->signal_fd)) w->state = ENDED;
        if (w->state != RUNNING) return;
        const bool busy = !w->paused && oc_scheduler_step(w->scheduler);
        send_all_tokens(w);
        put_figures(w);
        if (!busy) wait_for_work(w);
    }
}

/* ---- Start and end ---------------------------------------------------------------------------------------- */

/* While weights are read the process must still end when it is told to, or when nobody is there any more: what is
 * half loaded needs no care. */
static void on_progress(void *arg, double fraction) {
    struct worker *w = arg;
    struct pollfd p = {oc_ipc_channel_fd(w->channel), 0, 0};
    (void)fraction;
    beat(w);
    put_rss(w);
    const bool gone = poll(&p, 1, 0) == 1 && (p.revents & (POLLHUP | POLLERR));
    if (!gone && !oc_worker_lifetime_signal_came(w->signal_fd)) return;
    put_doing(w, OC_IPC_DOING_EXIT, 0);
    _exit(0);
}

static struct oc_engine_params engine_params(const struct oc_worker_options *o) {
    return (struct oc_engine_params){.model_dir = o->model_dir, .device = o->device, .cuda_plugin = o->cuda_plugin, .isa = o->isa,
                                     .batch_mode = o->batch_mode, .n_threads = o->n_threads,
                                     .ctx_tokens = o->ctx_tokens, .kv_tokens = o->kv_tokens,
                                     .image_max_tokens = o->image_max_tokens, .n_sessions = o->n_sessions};
}

static enum oc_err open_model(struct worker *w, struct oc_errinfo *ei) {
    struct oc_engine_params p = engine_params(w->o);
    const struct oc_sched_params sp = {.embed_cache_bytes = w->o->embed_cache_bytes, .prefix_cache = w->o->prefix_cache,
                                       .speculate = w->o->speculate};
    const struct oc_sched_events ev = {.arg = w, .on_stage = on_stage, .on_picture = on_picture,
                                       .on_token = on_token, .on_done = on_done, .on_beat = on_beat};
    p.progress = on_progress;
    p.progress_arg = w;
    OC_TRY(oc_engine_open(&p, &w->engine, ei));
    if (oc_engine_info(w->engine)->has_vision) oc_engine_picture_rules(w->engine, &w->rules);
    return oc_scheduler_open(w->engine, &sp, &ev, &w->scheduler, ei);
}

/* From here on the process needs no network and no other processes, and no files but for a GPU's driver. The library behind digests reads its
 * configuration at the first one: that must be before. */
static enum oc_err enter_jail(const struct worker *w, struct oc_errinfo *ei) {
    uint8_t digest[OC_DIGEST_BYTES];
    oc_digest(&(struct oc_digest_piece){"", 0}, 1, digest);
    const bool is_gpu = oc_engine_info(w->engine)->device_bytes > 0;
    if (oc_worker_jail_is_possible()) return is_gpu ? oc_worker_jail_filter_device(ei) : oc_worker_jail_filter_threads(ei);
    fputs("worker: not jailed, since this build has a sanitizer\n", stderr);
    return OC_OK;
}

static enum oc_err open_ends(struct worker *w, struct oc_errinfo *ei) {
    mallopt(M_ARENA_MAX, 1); /* see worker/jail.h; nothing is allocated where threads compute */
    oc_worker_lifetime_close_others(w->o->socket_fd, w->o->board_fd);
    OC_TRY(oc_worker_lifetime_watch_signals(&w->signal_fd, ei));
    OC_TRY(oc_ipc_board_map(w->o->board_fd, &w->board, ei));
    close(w->o->board_fd);
    beat(w);
    put_doing(w, OC_IPC_DOING_LOADING, 0);
    w->statm_fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC); /* without it that figure stays 0 */
    return oc_ipc_channel_open(w->o->socket_fd, &w->channel, ei);
}

static void close_all(struct worker *w) {
    w->state = w->state == RUNNING ? ENDED : w->state; /* events of what is closed now are nobody's business */
    oc_scheduler_close(w->scheduler);
    oc_worker_jobs_free(&w->jobs);
    oc_engine_close(w->engine);
    oc_ipc_channel_close(w->channel);
    oc_ipc_board_unmap(w->board);
    oc_buf_free(&w->out);
    oc_arena_free(&w->arena);
    if (w->signal_fd >= 0) close(w->signal_fd);
    if (w->statm_fd >= 0) close(w->statm_fd);
}

int oc_worker_main(const struct oc_worker_options *o) {
    struct oc_errinfo ei;
    if (!oc_worker_lifetime_bind(o->parent_pid)) return 0;
    struct worker *w = calloc(1, sizeof *w);
    if (!w) return 1;
    *w = (struct worker){.o = o, .signal_fd = -1, .statm_fd = -1};
    oc_buf_init(&w->out, OC_LIMIT_IPC_FRAME_BYTES);
    oc_arena_init(&w->arena, FRAME_ARENA_BYTES);
    enum oc_err err = open_ends(w, &ei);
    if (!err) {
        err = open_model(w, &ei);
        if (!err) err = enter_jail(w, &ei);
        if (err) send_refused(w, &ei);
        else send_ready(w);
    }
    if (err) complain("the model cannot be loaded", ei.msg);
    else run(w);
    if (w->channel) send_rest(w);
    if (w->board) put_doing(w, OC_IPC_DOING_EXIT, 0);
    const int code = err || w->state == BROKEN ? 1 : 0;
    close_all(w);
    free(w);
    return code;
}

/* ---- Measuring -------------------------------------------------------------------------------------------- */

/* Libraries, stacks, messages and what the allocator keeps. */
#define PROCESS_BYTES (24 * OC_MIB)

/* The libraries of a GPU, their tables and the memory through which bytes go over: a guess on the safe side. */
#define DEVICE_PROCESS_BYTES (768 * OC_MIB)

static void put_device(struct oc_buf *b, const struct oc_engine_info *i) {
    oc_buf_add_str(b, ",\"device\":");
    oc_json_write_str(b, oc_str_from(i->device));
    oc_buf_add_str(b, ",\"device_name\":");
    oc_json_write_str(b, oc_str_from(i->device_name));
    oc_buf_add_str(b, ",\"device_why\":");
    oc_json_write_str(b, oc_str_from(i->device_why));
    oc_buf_printf(b, ",\"device_bytes\":%llu,\"device_free_bytes\":%llu,\"host_bytes\":%llu", (unsigned long long)i->device_bytes,
                  (unsigned long long)i->device_free_bytes, (unsigned long long)i->host_bytes);
}

static void put_measure(const struct oc_worker_options *o, const struct oc_engine *e, struct oc_buf *b) {
    const struct oc_engine_info *i = oc_engine_info(e);
    const unsigned long long kv_bytes = (unsigned long long)i->kv_bytes_per_token * (unsigned long long)i->kv_tokens;
    const unsigned long long embed_bytes = i->has_vision ? o->embed_cache_bytes : 0;
    const unsigned long long job_bytes = sizeof(struct oc_worker_job) + OC_LIMIT_IMAGES_PER_PROMPT * sizeof(struct oc_worker_picture);
    const unsigned long long jobs_bytes = oc_scheduler_jobs_bytes(e) + PROCESS_BYTES + (i->device_bytes ? DEVICE_PROCESS_BYTES : 0) +
                                          (unsigned long long)i->n_sessions * job_bytes;
    oc_buf_add_str(b, "{\"architecture\":");
    oc_json_write_str(b, oc_str_from(i->architecture));
    oc_buf_add_str(b, ",\"family\":");
    oc_json_write_str(b, oc_str_from(i->family));
    oc_buf_add_str(b, ",\"isa\":");
    oc_json_write_str(b, oc_str_from(i->isa));
    put_device(b, i);
    oc_buf_printf(b, ",\"has_vision\":%s,\"n_params\":%llu,\"n_vocab\":%d,\"weight_bytes\":%llu,\"kv_bytes\":%llu,"
                     "\"workspace_bytes\":%llu,\"embed_cache_bytes\":%llu,\"jobs_bytes\":%llu,"
                     "\"decode_weight_bytes\":%llu,",
                  i->has_vision ? "true" : "false", (unsigned long long)i->n_params, i->n_vocab,
                  (unsigned long long)i->weight_bytes, kv_bytes, (unsigned long long)i->workspace_bytes, embed_bytes, jobs_bytes,
                  (unsigned long long)i->decode_weight_bytes);
    oc_buf_printf(b, "\"ctx_tokens\":%d,\"model_ctx_tokens\":%d,\"kv_tokens\":%d,\"n_sessions\":%d,"
                     "\"image_max_tokens\":%d,\"n_threads\":%d}\n",
                  i->ctx_tokens, i->model_ctx_tokens, i->kv_tokens, i->n_sessions, i->image_max_tokens, i->n_threads);
}

enum oc_err oc_worker_measure(const struct oc_worker_options *o, struct oc_buf *out, struct oc_errinfo *ei) {
    struct oc_engine *e;
    struct oc_engine_params p = engine_params(o);
    p.skip_prefetch = true;
    OC_TRY(oc_engine_open(&p, &e, ei));
    put_measure(o, e, out);
    oc_engine_close(e);
    return out->failed ? oc_fail(ei, OC_ERR_NOMEM, "no memory for the report") : OC_OK;
}
