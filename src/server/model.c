#include "server/model.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ocellus.h"
#include "server/child.h"
#include "server/facts.h"
#include "server/models.h"
#include "server/request.h"

#define MEASURE_BYTES (64 * OC_KIB)
#define CHAT_IDLE_MS 60000 /* tokenizer and template of a model without a worker are kept so long */

/* ---- Making and freeing -------------------------------------------------------------------------------- */

static void set_dir(struct oc_server_model *m, const struct oc_server_facts *f) {
    char *dir = strdup(f->dir);
    if (!dir) return; /* the old one stays */
    if (!m->dir || strcmp(m->dir, dir) != 0) m->need_bytes = 0;
    free(m->dir);
    m->dir = dir;
    m->vision = f->vision;
    m->file_ctx_tokens = f->ctx_tokens;
    m->created = f->created;
    snprintf(m->architecture, sizeof m->architecture, "%s", f->architecture);
}

enum oc_err oc_server_model_make(struct oc_server *s, const char *id, const char *name,
                                 const struct oc_server_facts *facts, bool registered,
                                 struct oc_server_model **out, struct oc_errinfo *ei) {
    struct oc_server_model *m = calloc(1, sizeof *m);
    const struct oc_server_config *c = s->config;
    struct oc_admission_params p = {
        .n_slots = c->parallel > 0 ? c->parallel : 1,
        .max_waiting = c->queue_depth,
        .timeout_s = {c->queue_timeout_s[0], c->queue_timeout_s[1], c->queue_timeout_s[2]},
        .on_start = oc_server_request_on_slot,
        .on_timeout = oc_server_request_on_queue_timeout};
    *out = NULL;
    if (m) {
        m->s = s;
        m->registered = registered;
        m->id = strdup(id);
        m->name = strdup(name);
        set_dir(m, facts);
    }
    enum oc_err err = m && m->id && m->name && m->dir
                          ? oc_admission_open(&p, &m->admission, ei)
                          : oc_fail(ei, OC_ERR_NOMEM, "no memory for the model %.100s", id);
    if (err) {
        oc_server_model_free(m);
        return err;
    }
    *out = m;
    return OC_OK;
}

void oc_server_model_free(struct oc_server_model *m) {
    if (!m) return;
    if (m->admission) oc_admission_close(m->admission);
    free(m->id);
    free(m->name);
    free(m->dir);
    free(m);
}

const char *oc_server_model_state_name(enum oc_server_model_state st) {
    static const char *const names[] = {"unloaded", "preparing", "measuring", "waiting_for_memory",
                                        "loading",  "ready",     "stopping"};
    return names[st];
}

int oc_server_model_ctx_tokens(const struct oc_server_model *m) {
    return m->state == OC_MODEL_READY ? m->ready.ctx_tokens : m->file_ctx_tokens;
}

bool oc_server_model_is_resident(const struct oc_server_model *m) {
    return m->worker != NULL;
}

bool oc_server_model_is_idle(const struct oc_server_model *m) {
    return m->state == OC_MODEL_READY && m->n_held == 0 && m->n_wants_waiting == 0;
}

static void set_state(struct oc_server_model *m, enum oc_server_model_state state) {
    m->state = state;
    m->state_since_ms = oc_server_now_ms();
}

/* ---- Wants --------------------------------------------------------------------------------------------- */

bool oc_server_model_is_usable(const struct oc_server_model *m) {
    return m->state == OC_MODEL_READY && oc_server_worker_state(m->worker) == OC_WORKER_READY;
}

/* A newcomer may have it. */
static bool is_open(const struct oc_server_model *m, bool worker) {
    if (!m->chat || m->stop_when_idle) return false;
    return !worker || oc_server_model_is_usable(m);
}

static void hold(struct oc_server_model *m, struct oc_server_want *w) {
    w->state = OC_WANT_HELD;
    m->n_held++;
    m->last_used_ms = oc_server_now_ms();
}

static void unqueue(struct oc_server_model *m, struct oc_server_want *w) {
    *(w->prev ? &w->prev->next : &m->first) = w->next;
    *(w->next ? &w->next->prev : &m->last) = w->prev;
    w->prev = w->next = NULL;
    w->state = OC_WANT_OUT;
    m->n_wants_waiting--;
}

bool oc_server_model_want(struct oc_server_model *m, struct oc_server_want *w) {
    w->model = m;
    if (is_open(m, w->worker)) {
        hold(m, w);
        return true;
    }
    w->state = OC_WANT_WAITING;
    w->prev = m->last;
    w->next = NULL;
    *(m->last ? &m->last->next : &m->first) = w;
    m->last = w;
    m->n_wants_waiting++;
    oc_server_model_advance(m);
    return false;
}

void oc_server_model_release(struct oc_server_want *w) {
    struct oc_server_model *m = w->model;
    if (w->state == OC_WANT_WAITING) unqueue(m, w);
    if (w->state != OC_WANT_HELD) return;
    w->state = OC_WANT_OUT;
    m->n_held--;
    m->last_used_ms = oc_server_now_ms();
    if (m->n_held) return;
    if (m->files_changed && m->state == OC_MODEL_UNLOADED) oc_server_model_close_chat(m); /* it was made of the old ones */
    if (m->stop_when_idle) oc_server_model_advance(m);
    if (m->state == OC_MODEL_READY) oc_server_models_room_made(m->s->models);
}

/* Those whose wish is fulfilled, in order; callbacks may release or want again. */
static void grant(struct oc_server_model *m) {
    for (bool again = true; again;) {
        again = false;
        for (struct oc_server_want *w = m->first; w; w = w->next) {
            if (!is_open(m, w->worker)) continue;
            unqueue(m, w);
            hold(m, w);
            w->on_have(w, NULL);
            again = true;
            break;
        }
    }
}

void oc_server_model_fail_wants(struct oc_server_model *m, const struct oc_api_error *err) {
    struct oc_server_want *last = m->last; /* wants that a callback adds are for the next try */
    for (struct oc_server_want *w; (w = m->first);) {
        bool was_last = w == last;
        unqueue(m, w);
        w->on_have(w, err);
        if (was_last) break;
    }
}

static bool worker_wanted(const struct oc_server_model *m) {
    for (const struct oc_server_want *w = m->first; w; w = w->next)
        if (w->worker) return true;
    return false;
}

/* ---- Preparing: files, tokenizer, template ------------------------------------------------------------- */

struct prepare {
    struct oc_server_work work;
    struct oc_server_model *m;
    struct oc_hub_env hub;
    char *name;
    struct oc_arena arena;
    struct oc_server_facts facts;
    struct oc_chat_model *chat;
    enum oc_err err;
    struct oc_errinfo ei;
};

static void free_chat(struct oc_chat_model *chat) {
    if (!chat) return;
    oc_chat_model_close(chat);
    free(chat);
}

static void run_prepare(struct oc_server_work *work) {
    struct prepare *p = (struct prepare *)work;
    p->err = oc_server_facts_read(&p->arena, &p->hub, p->name, &p->facts, &p->ei);
    if (p->err) return;
    p->chat = calloc(1, sizeof *p->chat);
    p->err = p->chat ? oc_chat_model_open(p->chat, p->facts.dir, true, false, &p->ei)
                     : oc_fail(&p->ei, OC_ERR_NOMEM, "no memory for the tokenizer");
    if (!p->err) return;
    free_chat(p->chat);
    p->chat = NULL;
}

static void fail_load(struct oc_server_model *m, enum oc_api_problem problem, const char *why) {
    struct oc_api_error e = {0};
    char told[OC_ERRINFO_MAX];
    snprintf(told, sizeof told, "%s", why);
    oc_server_facts_hide_paths(told); /* the log has them */
    oc_api_fail(&e, problem, "model", "the model %.100s cannot be loaded: %.300s", m->id, told);
    if (problem == OC_API_MODEL_LOADING || problem == OC_API_NO_MEMORY) e.retry_after_s = 10;
    oc_metrics_add(m->s->metrics, OC_M_MODEL_LOADS, m->id, "failed", 1);
    oc_log(m->s->log, OC_LOG_ERROR, "a model cannot be loaded", OC_LOG_S("model", m->id),
           OC_LOG_S("why", why));
    oc_server_model_fail_wants(m, &e);
}

static enum oc_api_problem problem_of_load(enum oc_err err) {
    if (err == OC_ERR_NOT_FOUND) return OC_API_MODEL_NOT_FOUND;
    return err == OC_ERR_NOMEM ? OC_API_NO_MEMORY : OC_API_INTERNAL;
}

static void prepared(struct oc_server_work *work) {
    struct prepare *p = (struct prepare *)work;
    struct oc_server_model *m = p->m;
    m->n_refs--;
    set_state(m, OC_MODEL_UNLOADED);
    if (!p->err) {
        set_dir(m, &p->facts);
        m->chat = p->chat;
        m->last_used_ms = oc_server_now_ms();
    } else {
        fail_load(m, problem_of_load(p->err), p->ei.msg);
    }
    oc_arena_free(&p->arena);
    free(p->name);
    free(p);
    oc_server_model_advance(m);
    oc_server_progress(m->s);
}

static void prepare(struct oc_server_model *m) {
    struct prepare *p = calloc(1, sizeof *p);
    if (!p || !(p->name = strdup(m->name))) {
        free(p);
        fail_load(m, OC_API_INTERNAL, "out of memory");
        return;
    }
    p->m = m;
    p->hub = m->s->config->hub_env;
    p->work = (struct oc_server_work){.run = run_prepare, .done = prepared};
    oc_arena_init(&p->arena, OC_LIMIT_JSON_BYTES);
    set_state(m, OC_MODEL_PREPARING);
    m->n_refs++;
    oc_server_crew_post(m->s->quick, &p->work);
}

struct closing {
    struct oc_server_work work;
    struct oc_chat_model *chat;
};

static void run_closing(struct oc_server_work *w) {
    free_chat(((struct closing *)w)->chat);
}

static void closed(struct oc_server_work *w) {
    free(w);
}

void oc_server_model_close_chat(struct oc_server_model *m) {
    if (!m->chat || m->n_held) return;
    struct closing *c = calloc(1, sizeof *c);
    if (c) {
        *c = (struct closing){.work = {.run = run_closing, .done = closed}, .chat = m->chat};
        oc_server_crew_post(m->s->quick, &c->work);
    } else {
        free_chat(m->chat);
    }
    m->chat = NULL;
}

/* ---- Measuring ----------------------------------------------------------------------------------------- */

static enum oc_err take_measure(struct oc_server_model *m, struct oc_str output, struct oc_errinfo *ei) {
    struct oc_server_measure me;
    const struct oc_server_config *c = m->s->config;
    OC_TRY(oc_server_budget_parse_measure(output.p, output.n, &me, ei));
    m->kv_tokens =
        c->kv_tokens > 0 ? c->kv_tokens : oc_server_budget_kv_tokens(&me, m->s->models->budget_bytes);
    m->need_bytes = oc_server_budget_need(&me, m->kv_tokens);
    snprintf(m->measured_device, sizeof m->measured_device, "%s", me.device);
    snprintf(m->device_why, sizeof m->device_why, "%s", me.device_why);
    return OC_OK;
}

static void measured(void *arg, int status, int sig, struct oc_str output) {
    struct oc_server_model *m = arg;
    struct oc_errinfo ei;
    set_state(m, OC_MODEL_UNLOADED);
    m->measure = NULL;
    enum oc_err err;
    if (oc_str_starts(output, OC_STR("ocellus: "))) output = (struct oc_str){output.p + 9, output.n - 9};
    if (sig || (status && !output.n))
        err = oc_fail(&ei, OC_ERR_IO, "the process that measures it ended with %s %d (see the log)",
                      sig ? "signal" : "code", sig ? sig : status);
    else if (status)
        err = oc_fail(&ei, OC_ERR_FORMAT, "%.*s", (int)(output.n < 400 ? output.n : 400), output.p);
    else
        err = take_measure(m, output, &ei);
    if (err) {
        m->need_bytes = 0;
        oc_server_model_close_chat(m);
        fail_load(m, sig ? OC_API_MODEL_LOADING : OC_API_INTERNAL, ei.msg);
    }
    oc_server_model_advance(m);
    oc_server_progress(m->s);
}

static void measure(struct oc_server_model *m) {
    struct oc_server_worker_argv argv;
    struct oc_errinfo ei;
    oc_server_worker_make_argv(m->s->config, m->dir, m->s->config->kv_tokens, m->s->config->device, true, &argv);
    struct oc_server_child_params p = {.name = "measure",
                                       .argv = argv.v,
                                       .board_fd = -1,
                                       .max_output = MEASURE_BYTES,
                                       .arg = m,
                                       .on_exit = measured};
    if (oc_server_child_spawn(m->s, &p, &m->measure, &ei))
        fail_load(m, OC_API_INTERNAL, ei.msg);
    else
        set_state(m, OC_MODEL_MEASURING);
}

/* ---- The worker ---------------------------------------------------------------------------------------- */

static void copy_text(char *to, size_t cap, struct oc_str s) {
    snprintf(to, cap, "%.*s", (int)(s.n < cap ? s.n : cap - 1), s.p);
}

static void on_ready(void *arg, struct oc_server_worker *w, const struct oc_ipc_ready *r) {
    struct oc_server_model *m = arg;
    m->ready = *r;
    copy_text(m->family, sizeof m->family, r->family);
    copy_text(m->isa, sizeof m->isa, r->isa);
    copy_text(m->device, sizeof m->device, r->device);
    copy_text(m->device_name, sizeof m->device_name, r->device_name);
    copy_text(m->architecture, sizeof m->architecture, r->architecture);
    m->ready.family = oc_str_from(m->family);
    m->ready.isa = oc_str_from(m->isa);
    m->ready.device = oc_str_from(m->device);
    m->ready.device_name = oc_str_from(m->device_name);
    m->ready.device_why = oc_str_from(m->device_why); /* the worker was told which one to take */
    m->ready.architecture = oc_str_from(m->architecture);
    m->vision = r->rules.kind != 0;
    m->state = OC_MODEL_READY;
    m->n_loads++;
    oc_metrics_add(m->s->metrics, OC_M_MODEL_LOADS, m->id, "ok", 1);
    oc_metrics_observe(m->s->metrics, OC_M_MODEL_LOAD_TIME, m->id, NULL, oc_server_worker_load_s(w));
    m->load_s = oc_server_worker_load_s(w);
    m->last_used_ms = oc_server_now_ms();
    if (r->n_sessions > 0) oc_admission_set_slots(m->admission, r->n_sessions, m->last_used_ms);
    oc_log(m->s->log, OC_LOG_INFO, "model loaded", OC_LOG_S("model", m->id),
           OC_LOG_I("worker", oc_server_worker_id(w)), OC_LOG_I("pid", oc_server_worker_pid(w)),
           OC_LOG_D("load_s", m->load_s), OC_LOG_S("device", m->device), OC_LOG_S("device_name", m->device_name),
           OC_LOG_S("device_why", m->device_why), OC_LOG_S("isa", m->isa), OC_LOG_I("ctx", r->ctx_tokens),
           OC_LOG_I("sequences", r->n_sessions), OC_LOG_I("kv_tokens", r->kv_tokens));
    if (strcmp(m->s->config->batch_mode, "throughput") == 0)
        oc_log(m->s->log, OC_LOG_WARN, r->throughput ? OC_THROUGHPUT_SENTENCE : OC_NO_THROUGHPUT_SENTENCE,
               OC_LOG_S("model", m->id));
    grant(m);
    oc_server_model_advance(m);
}

static void on_refused(void *arg, struct oc_server_worker *w, enum oc_err err, struct oc_str message) {
    struct oc_server_model *m = arg;
    char why[OC_ERRINFO_MAX];
    (void)w;
    m->state = OC_MODEL_STOPPING;
    m->measure_again = m->measured_device[0] && strcmp(m->measured_device, "cpu") != 0; /* others may have its memory now */
    copy_text(why, sizeof why, message);
    fail_load(m, problem_of_load(err), why);
}

static void finish_unloads(struct oc_server_model *m) {
    struct oc_server_unload *u = m->unloads;
    m->unloads = NULL;
    while (u) {
        struct oc_server_unload *next = u->next;
        u->done(u, m->need_bytes);
        u = next;
    }
}

static void on_dead(void *arg, struct oc_server_worker *w, const char *how) {
    struct oc_server_model *m = arg;
    bool was_loading = m->state == OC_MODEL_LOADING;
    bool died = was_loading || m->state == OC_MODEL_READY;
    struct oc_metrics *mt = m->s->metrics;
    m->n_deaths += died;
    m->files_changed = oc_server_worker_lost_files(w);
    if (died)
        oc_metrics_add(mt, OC_M_WORKER_RESTARTS, m->id, oc_server_worker_has_stalled(w) ? "stalled" : "died",
                       1);
    if (m->state == OC_MODEL_READY || m->stop_when_idle)
        oc_metrics_add(mt, OC_M_MODEL_UNLOADS, m->id, died ? "died" : m->stop_reason, 1);
    m->worker = NULL;
    m->state = OC_MODEL_UNLOADED;
    m->stop_when_idle = false;
    if (m->n_held == 0) oc_server_model_close_chat(m);
    if (was_loading) fail_load(m, OC_API_MODEL_LOADING, how);
    finish_unloads(m);
    if (m->files_changed || m->measure_again) m->need_bytes = 0; /* measured anew, be it to hear what is wrong */
    oc_server_model_advance(m);
    oc_server_models_room_made(m->s->models);
}

static void start_worker(struct oc_server_model *m) {
    struct oc_errinfo ei;
    m->files_changed = m->measure_again = false;
    struct oc_server_worker_events ev = {
        .arg = m, .on_ready = on_ready, .on_refused = on_refused, .on_dead = on_dead};
    if (oc_server_worker_start(m->s, m->dir, m->kv_tokens, m->measured_device, &ev, &m->worker, &ei)) {
        m->state = OC_MODEL_UNLOADED;
        fail_load(m, OC_API_INTERNAL, ei.msg);
        return;
    }
    m->state = OC_MODEL_LOADING;
    oc_log(m->s->log, OC_LOG_INFO, "loading a model", OC_LOG_S("model", m->id), OC_LOG_S("dir", m->dir),
           OC_LOG_I("worker", oc_server_worker_id(m->worker)),
           OC_LOG_I("pid", oc_server_worker_pid(m->worker)),
           OC_LOG_I("need_mb", m->need_bytes / (int64_t)OC_MIB));
}

static void take_room(struct oc_server_model *m) {
    struct oc_api_error e = {0};
    enum oc_server_verdict v = oc_server_models_room(m->s->models, m, &e);
    if (v == OC_BUDGET_FITS) start_worker(m);
    if (v != OC_BUDGET_NEVER) return;
    m->state = OC_MODEL_UNLOADED;
    oc_log(m->s->log, OC_LOG_ERROR, e.message, OC_LOG_S("model", m->id));
    oc_server_model_fail_wants(m, &e);
}

/* ---- The states ---------------------------------------------------------------------------------------- */

static void leave_unloaded(struct oc_server_model *m) {
    if (!m->chat) {
        prepare(m);
    } else if (worker_wanted(m) && m->need_bytes == 0) {
        measure(m);
    } else if (worker_wanted(m)) {
        set_state(m, OC_MODEL_WAITING);
        take_room(m);
    }
}

void oc_server_model_advance(struct oc_server_model *m) {
    if (m->chat) grant(m);
    if (m->state == OC_MODEL_UNLOADED && m->first && !m->s->stopping)
        leave_unloaded(m);
    else if (m->state == OC_MODEL_WAITING && !worker_wanted(m))
        m->state = OC_MODEL_UNLOADED;
    else if (m->state == OC_MODEL_WAITING)
        take_room(m);
    else if (m->state == OC_MODEL_READY && m->stop_when_idle && m->n_held == 0) {
        m->state = OC_MODEL_STOPPING;
        oc_server_worker_stop(m->worker);
    }
}

void oc_server_model_unload(struct oc_server_model *m, const char *reason, struct oc_server_unload *u) {
    if (u) {
        u->next = m->unloads;
        m->unloads = u;
    }
    m->stop_when_idle = true;
    m->stop_reason = reason;
    oc_server_model_advance(m);
}

/* A state on the way to a load has lasted for the whole of --load-timeout; LOADING has its own limit in
 * worker.c. */
static void too_late(struct oc_server_model *m) {
    if (m->state == OC_MODEL_WAITING) {
        m->state = OC_MODEL_UNLOADED;
        fail_load(m, OC_API_NO_MEMORY, "other models were busy all the time and kept the memory");
    } else if (m->state == OC_MODEL_MEASURING) {
        oc_server_child_signal(m->measure, SIGKILL); /* measured() tells those who wait */
    } else if (m->state == OC_MODEL_PREPARING && m->first) {
        fail_load(m, OC_API_MODEL_LOADING, "its files could not be read in time");
    }
}

void oc_server_model_stop(struct oc_server_model *m) {
    if (m->measure) oc_server_child_signal(m->measure, SIGKILL);
    if (!m->worker) return;
    m->stop_when_idle = true;
    m->stop_reason = "asked";
    oc_server_worker_stop(m->worker);
}

void oc_server_model_tick(struct oc_server_model *m, uint64_t now_ms) {
    const struct oc_server_config *c = m->s->config;
    if (m->worker) oc_server_worker_watch(m->worker);
    if (now_ms - m->state_since_ms > (uint64_t)c->load_timeout_s * 1000) too_late(m);
    uint64_t idle_ms = now_ms > m->last_used_ms ? now_ms - m->last_used_ms : 0;
    if (oc_server_model_is_idle(m) && !m->stop_when_idle && c->idle_unload_s > 0 &&
        idle_ms >= (uint64_t)c->idle_unload_s * 1000) {
        oc_log(m->s->log, OC_LOG_INFO, "an idle model is unloaded", OC_LOG_S("model", m->id));
        oc_server_model_unload(m, "idle", NULL);
    }
    if (m->state == OC_MODEL_UNLOADED && idle_ms > CHAT_IDLE_MS) oc_server_model_close_chat(m);
}
