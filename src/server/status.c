/* server/status.c - health, readiness, and what goes on: the GET answers of both ports. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/limits.h"
#include "server/alerts.h"
#include "server/endpoints.h"
#include "server/images.h"
#include "server/models.h"
#include "server/process.h"
#include "server/record.h"
#include "server/writer.h"

#define KV_PAGE_TOKENS 16

static double gib(int64_t bytes) {
    return (double)bytes / (double)OC_GIB;
}

static void begin(struct oc_server_writer *w, struct oc_buf *b) {
    oc_buf_init(b, OC_SERVER_REPLY_BYTES);
    *w = (struct oc_server_writer){.b = b};
    oc_server_writer_open(w, NULL, '{');
}

static void finish(struct oc_server_ask *a, struct oc_server_writer *w, int status) {
    oc_server_writer_close(w, '}');
    oc_server_ask_reply(a, status, w->b);
    oc_buf_free(w->b);
}

/* ---- What the answers say ------------------------------------------------------------------------------ */

/* The loaded model that was used last; NULL: none. */
static const struct oc_server_model *loaded_model(const struct oc_server *s) {
    const struct oc_server_model *best = NULL;
    for (const struct oc_server_model *m = s->models->first; m; m = m->next)
        if (m->state == OC_MODEL_READY && (!best || m->last_used_ms > best->last_used_ms)) best = m;
    return best;
}

static const struct oc_server_model *stuck_model(const struct oc_server *s) {
    for (const struct oc_server_model *m = s->models->first; m; m = m->next)
        if (m->worker && oc_server_worker_is_stuck(m->worker)) return m;
    return NULL;
}

static const char *worker_status(const struct oc_server *s) {
    if (stuck_model(s)) return "stuck";
    if (loaded_model(s)) return "healthy";
    return oc_server_models_n_resident(s->models) ? "loading" : "no_worker";
}

/* All queues together. A model that nobody has used yet counts with no slots. */
static struct oc_admission_figures all_queues(const struct oc_server *s) {
    struct oc_admission_figures sum = {.max_waiting = s->config->queue_depth};
    double wait = 0;
    for (const struct oc_server_model *m = s->models->first; m; m = m->next) {
        struct oc_admission_figures f;
        oc_admission_figures(m->admission, &f);
        if (m->state == OC_MODEL_READY || f.n_running || f.n_waiting) sum.n_slots += f.n_slots;
        sum.n_running += f.n_running;
        sum.n_waiting += f.n_waiting;
        for (int i = 0; i < 3; i++) sum.waiting_by_class[i] += f.waiting_by_class[i];
        sum.n_entered += f.n_entered;
        sum.n_started += f.n_started;
        sum.n_timeouts += f.n_timeouts;
        sum.n_rejected += f.n_rejected;
        wait += f.mean_wait_ms * (double)f.n_started;
    }
    if (sum.n_slots == 0) sum.n_slots = s->config->parallel;
    if (sum.n_started) sum.mean_wait_ms = wait / (double)sum.n_started;
    return sum;
}

static void write_timestamp(struct oc_server_writer *w) {
    char text[32] = "";
    struct tm tm;
    time_t now = time(NULL);
    if (gmtime_r(&now, &tm)) strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm);
    oc_server_writer_str(w, "timestamp", text);
}

/* ---- Health and readiness ------------------------------------------------------------------------------ */

void oc_server_status_health(struct oc_server_ask *a) {
    const struct oc_server_model *m = loaded_model(a->s), *stuck = stuck_model(a->s);
    struct oc_server_writer w;
    struct oc_buf b;
    begin(&w, &b);
    oc_server_writer_str(&w, "status", stuck ? "stuck" : "ok");
    oc_server_writer_bool(&w, "healthy", !stuck);
    oc_server_writer_str(&w, "version", a->s->setup->version);
    oc_server_writer_open(&w, "checks", '{');
    oc_server_writer_bool(&w, "worker", !stuck);
    oc_server_writer_bool(&w, "model_loaded", m != NULL);
    oc_server_writer_bool(&w, "accepting", !a->s->draining);
    oc_server_writer_close(&w, '}');
    oc_server_writer_open(&w, "details", '{');
    oc_server_writer_open(&w, "worker", '{');
    oc_server_writer_bool(&w, "alive", m != NULL);
    oc_server_writer_str(&w, "status", worker_status(a->s));
    oc_server_writer_bool(&w, "model_loaded", m != NULL);
    oc_server_writer_str(&w, "model_name", m ? m->id : NULL);
    oc_server_writer_close(&w, '}');
    oc_server_writer_close(&w, '}');
    write_timestamp(&w);
    finish(a, &w, stuck ? 503 : 200);
}

/* Ready: a request would be taken now. Models load when they are asked for, so none need be loaded. */
void oc_server_status_ready(struct oc_server_ask *a) {
    struct oc_admission_figures f = all_queues(a->s);
    bool room = f.n_running < f.n_slots || f.n_waiting < f.max_waiting, stuck = stuck_model(a->s) != NULL;
    bool ready = room && !stuck && !a->s->draining && a->s->models->first;
    struct oc_server_writer w;
    struct oc_buf b;
    begin(&w, &b);
    oc_server_writer_bool(&w, "ready", ready);
    oc_server_writer_open(&w, "conditions", '{');
    oc_server_writer_bool(&w, "accepting", !a->s->draining);
    oc_server_writer_bool(&w, "queue_available", room);
    oc_server_writer_bool(&w, "worker_alive", loaded_model(a->s) != NULL && !stuck);
    oc_server_writer_bool(&w, "model_loaded", loaded_model(a->s) != NULL);
    oc_server_writer_bool(&w, "model_known", a->s->models->first != NULL);
    oc_server_writer_close(&w, '}');
    oc_server_writer_int(&w, "queue_slots_available", f.n_slots > f.n_running ? f.n_slots - f.n_running : 0);
    finish(a, &w, ready ? 200 : 503);
}

void oc_server_status_admin_health(struct oc_server_ask *a) {
    struct oc_server_writer w;
    struct oc_buf b;
    begin(&w, &b);
    oc_server_writer_str(&w, "status", stuck_model(a->s) ? "degraded" : "healthy");
    oc_server_writer_str(&w, "worker_status", worker_status(a->s));
    oc_server_writer_str(&w, "version", a->s->setup->version);
    finish(a, &w, 200);
}

/* ---- Workers ------------------------------------------------------------------------------------------- */

#define BOARD(field) ((int64_t)atomic_load_explicit(&b->field, memory_order_relaxed))

static void write_board(struct oc_server_writer *w, const struct oc_ipc_board *b) {
    uint64_t beat = (uint64_t)BOARD(heartbeat_ns), now = oc_clock_ns();
    oc_server_writer_str(w, "doing", oc_ipc_doing_name((uint32_t)BOARD(doing)));
    oc_server_writer_num(w, "tps", (double)BOARD(decode_mtok_s) / 1e3);
    oc_server_writer_num(w, "heartbeat_age_s", beat && now > beat ? (double)(now - beat) / 1e9 : 0);
    oc_server_writer_int(w, "steps", BOARD(n_steps));
    oc_server_writer_int(w, "running", BOARD(n_running));
    oc_server_writer_int(w, "waiting", BOARD(n_waiting));
    oc_server_writer_int(w, "prompt_tokens", BOARD(n_prompt_tokens));
    oc_server_writer_int(w, "output_tokens", BOARD(n_output_tokens));
    oc_server_writer_int(w, "image_tokens", BOARD(n_image_tokens));
    oc_server_writer_open(w, "kv", '{');
    oc_server_writer_int(w, "page_tokens", KV_PAGE_TOKENS);
    oc_server_writer_int(w, "pages", BOARD(kv_pages));
    oc_server_writer_int(w, "used", BOARD(kv_pages_used));
    oc_server_writer_int(w, "cached", BOARD(kv_pages_cached));
    oc_server_writer_int(w, "evictions", BOARD(kv_evictions));
    oc_server_writer_close(w, '}');
    oc_server_writer_open(w, "prefix_cache", '{');
    oc_server_writer_int(w, "queries", BOARD(n_prefix_queries));
    oc_server_writer_int(w, "hits", BOARD(n_prefix_hits));
    oc_server_writer_close(w, '}');
    oc_server_writer_open(w, "speculation", '{');
    oc_server_writer_int(w, "drafts", BOARD(n_drafts));
    oc_server_writer_int(w, "drafted", BOARD(n_drafted));
    oc_server_writer_int(w, "accepted", BOARD(n_accepted));
    oc_server_writer_close(w, '}');
    oc_server_writer_open(w, "embed_cache", '{');
    oc_server_writer_int(w, "queries", BOARD(n_embed_queries));
    oc_server_writer_int(w, "hits", BOARD(n_embed_hits));
    oc_server_writer_int(w, "bytes", BOARD(embed_bytes));
    oc_server_writer_int(w, "evictions", BOARD(embed_evictions));
    oc_server_writer_close(w, '}');
}

static const char *worker_state(const struct oc_server_model *m) {
    static const char *const names[] = {"loading", "ready", "stopping", "dead"};
    return oc_server_worker_is_stuck(m->worker) ? "stuck" : names[oc_server_worker_state(m->worker)];
}

static void write_worker(struct oc_server_writer *w, const struct oc_server_model *m) {
    int pid = oc_server_worker_pid(m->worker);
    oc_server_writer_open(w, NULL, '{');
    oc_server_writer_int(w, "id", oc_server_worker_id(m->worker));
    oc_server_writer_int(w, "pid", pid);
    oc_server_writer_str(w, "model", m->id);
    oc_server_writer_str(w, "state", worker_state(m));
    oc_server_writer_num(w, "memory_gb", gib(oc_server_process_rss(pid)));
    oc_server_writer_num(w, "measured_gb", gib(m->need_bytes));
    oc_server_writer_num(w, "load_time_s", oc_server_worker_load_s(m->worker));
    oc_server_writer_num(w, "ttft_ms", m->ttft_ms);
    oc_server_writer_int(w, "jobs", oc_server_worker_n_jobs(m->worker));
    if (m->state == OC_MODEL_READY) {
        oc_server_writer_bool(w, "vision", m->vision);
        oc_server_writer_str(w, "architecture", m->architecture);
        oc_server_writer_str(w, "isa", m->isa);
        oc_server_writer_str(w, "device", m->device);
        oc_server_writer_str(w, "device_name", m->device_name);
        oc_server_writer_str(w, "device_why", m->device_why);
        oc_server_writer_num(w, "device_memory_gb", gib((int64_t)m->ready.device_bytes));
        oc_server_writer_bool(w, "throughput", m->ready.throughput);
        oc_server_writer_int(w, "threads", m->ready.n_threads);
        oc_server_writer_int(w, "ctx_tokens", m->ready.ctx_tokens);
        oc_server_writer_int(w, "kv_tokens", m->ready.kv_tokens);
        oc_server_writer_int(w, "sequences", m->ready.n_sessions);
    }
    write_board(w, oc_server_worker_board(m->worker));
    oc_server_writer_close(w, '}');
}

static void write_workers(struct oc_server_writer *w, const struct oc_server *s) {
    oc_server_writer_open(w, "workers", '[');
    for (const struct oc_server_model *m = s->models->first; m; m = m->next)
        if (m->worker) write_worker(w, m);
    oc_server_writer_close(w, ']');
}

static void write_image_workers(struct oc_server_writer *w, const struct oc_server *s) {
    struct oc_server_images_figures f = {0};
    if (s->images) oc_server_images_figures(s->images, &f);
    oc_server_writer_open(w, "image_workers", '{');
    oc_server_writer_int(w, "workers", f.n_workers);
    oc_server_writer_int(w, "idle", f.n_idle);
    oc_server_writer_int(w, "busy", f.n_busy);
    oc_server_writer_int(w, "waiting", f.n_waiting);
    oc_server_writer_int(w, "seen", (int64_t)f.n_seen);
    oc_server_writer_int(w, "refused", (int64_t)f.n_refused);
    oc_server_writer_int(w, "crashes", (int64_t)f.n_crashes);
    oc_server_writer_int(w, "timeouts", (int64_t)f.n_timeouts);
    oc_server_writer_int(w, "restarts", (int64_t)f.n_restarts);
    oc_server_writer_open(w, "pids", '[');
    for (int i = 0; i < f.n_workers; i++) oc_server_writer_int(w, NULL, f.pids[i]);
    oc_server_writer_close(w, ']');
    oc_server_writer_close(w, '}');
}

static void write_models(struct oc_server_writer *w, const struct oc_server *s) {
    oc_server_writer_open(w, "models", '[');
    for (const struct oc_server_model *m = s->models->first; m; m = m->next) {
        oc_server_writer_open(w, NULL, '{');
        oc_server_writer_str(w, "id", m->id);
        oc_server_writer_str(w, "state", oc_server_model_state_name(m->state));
        oc_server_writer_bool(w, "vision", m->vision);
        oc_server_writer_int(w, "loads", (int64_t)m->n_loads);
        oc_server_writer_int(w, "deaths", (int64_t)m->n_deaths);
        oc_server_writer_int(w, "held", m->n_held);
        oc_server_writer_close(w, '}');
    }
    oc_server_writer_close(w, ']');
}

static void write_alerts(struct oc_server_writer *w, const struct oc_server *s) {
    oc_server_writer_open(w, "alerts", '[');
    for (int i = 0; i < OC_ALERT_N; i++) {
        if (!s->alerts->v[i].on) continue;
        oc_server_writer_open(w, NULL, '{');
        oc_server_writer_str(w, "name", oc_server_alert_name((enum oc_server_alert)i));
        oc_server_writer_str(w, "severity", oc_server_alert_severity((enum oc_server_alert)i));
        oc_server_writer_str(w, "message", s->alerts->v[i].message);
        oc_server_writer_close(w, '}');
    }
    oc_server_writer_close(w, ']');
}

static void write_memory(struct oc_server_writer *w, const struct oc_server *s) {
    oc_server_writer_open(w, "memory", '{');
    oc_server_writer_num(w, "active_memory_gb", gib(oc_server_process_workers_rss(s)));
    oc_server_writer_num(w, "budget_gb", gib(s->models->budget_bytes));
    oc_server_writer_num(w, "counted_gb", gib(oc_server_models_used_bytes(s->models)));
    oc_server_writer_num(w, "pictures_gb", gib(s->room.held_bytes));
    oc_server_writer_num(w, "pictures_limit_gb", gib(oc_server_models_picture_bytes(s->models)));
    oc_server_writer_int(w, "waiting_for_pictures", s->room.n_waiting);
    oc_server_writer_num(w, "orchestrator_gb", gib(oc_server_process_rss(0)));
    oc_server_writer_bool(w, "model_loaded", loaded_model(s) != NULL);
    oc_server_writer_close(w, '}');
}

static void write_head(struct oc_server_writer *w, const struct oc_server *s) {
    const struct oc_server_model *m = loaded_model(s);
    oc_server_writer_str(w, "status", s->draining ? "draining" : "running");
    oc_server_writer_str(w, "version", s->setup->version);
    oc_server_writer_num(w, "uptime_s", oc_clock_ms_since(s->start_ns) / 1e3);
    oc_server_writer_open(w, "ports", '{');
    oc_server_writer_int(w, "main", oc_http_server_port(s->http));
    oc_server_writer_int(w, "admin", oc_http_server_port(s->admin));
    oc_server_writer_close(w, '}');
    oc_server_writer_open(w, "model", '{');
    oc_server_writer_bool(w, "loaded", m != NULL);
    oc_server_writer_str(w, "name", m ? m->id : NULL);
    oc_server_writer_num(w, "memory_gb", m ? gib(oc_server_process_rss(oc_server_worker_pid(m->worker))) : 0);
    oc_server_writer_close(w, '}');
    oc_server_writer_open(w, "worker", '{');
    oc_server_writer_bool(w, "healthy", m && !stuck_model(s));
    oc_server_writer_str(w, "status", worker_status(s));
    oc_server_writer_close(w, '}');
    oc_server_writer_open(w, "config", '{');
    oc_server_writer_str(w, "machine_type", s->config->machine_type);
    oc_server_writer_int(w, "total_ram_gb", (int64_t)(gib(s->config->memory_bytes) + 0.5));
    oc_server_writer_int(w, "idle_timeout_seconds", s->config->idle_unload_s);
    oc_server_writer_close(w, '}');
    oc_server_writer_int(w, "idle_timeout_seconds", s->config->idle_unload_s);
}

void oc_server_status_whole(struct oc_server_ask *a) {
    const struct oc_server *s = a->s;
    struct oc_server_writer w;
    struct oc_buf b;
    begin(&w, &b);
    write_head(&w, s);
    write_workers(&w, s);
    write_image_workers(&w, s);
    write_models(&w, s);
    write_memory(&w, s);
    oc_server_writer_open(&w, "requests", '{');
    oc_server_writer_int(&w, "active_requests", s->n_requests);
    oc_server_writer_int(&w, "total_requests", (int64_t)s->totals.n_requests);
    oc_server_writer_int(&w, "clients_gone", (int64_t)s->totals.n_gone);
    oc_server_writer_close(&w, '}');
    write_alerts(&w, s);
    finish(a, &w, 200);
}

/* ---- Figures ------------------------------------------------------------------------------------------- */

static void write_times(struct oc_server_writer *w, const struct oc_server *s) {
    double n = oc_metrics_value(s->metrics, OC_M_REQUEST_TIME, NULL, NULL);
    oc_server_writer_open(w, "request_duration_ms", '{');
    if (n > 0) {
        oc_server_writer_num(w, "p50", 1e3 * oc_metrics_quantile(s->metrics, OC_M_REQUEST_TIME, 0.5));
        oc_server_writer_num(w, "p95", 1e3 * oc_metrics_quantile(s->metrics, OC_M_REQUEST_TIME, 0.95));
        oc_server_writer_num(w, "p99", 1e3 * oc_metrics_quantile(s->metrics, OC_M_REQUEST_TIME, 0.99));
        oc_server_writer_num(w, "avg", 1e3 * oc_metrics_sum(s->metrics, OC_M_REQUEST_TIME, NULL, NULL) / n);
        oc_server_writer_num(w, "min", s->totals.min_ms);
        oc_server_writer_num(w, "max", s->totals.max_ms);
    }
    oc_server_writer_close(w, '}');
    n = oc_metrics_value(s->metrics, OC_M_QUEUE_WAIT, NULL, NULL);
    oc_server_writer_open(w, "queue_wait_time_ms", '{');
    if (n > 0) {
        oc_server_writer_num(w, "avg", 1e3 * oc_metrics_sum(s->metrics, OC_M_QUEUE_WAIT, NULL, NULL) / n);
        oc_server_writer_num(w, "p95", 1e3 * oc_metrics_quantile(s->metrics, OC_M_QUEUE_WAIT, 0.95));
    }
    oc_server_writer_close(w, '}');
}

static void write_waiting(struct oc_server_writer *w, const struct oc_admission_figures *f) {
    oc_server_writer_open(w, "waiting_by_priority", '{');
    for (int i = 0; i < 3; i++)
        oc_server_writer_int(w, oc_admission_priority_name((enum oc_priority)i), f->waiting_by_class[i]);
    oc_server_writer_close(w, '}');
}

static void write_queue(struct oc_server_writer *w, const struct oc_admission_figures *f) {
    oc_server_writer_bool(w, "enabled", true);
    oc_server_writer_int(w, "active_slots", f->n_running);
    oc_server_writer_int(w, "max_slots", f->n_slots);
    oc_server_writer_int(w, "queue_depth", f->n_waiting);
    oc_server_writer_int(w, "max_queue_depth", f->max_waiting);
    oc_server_writer_num(w, "utilization", f->n_slots ? (double)f->n_running / f->n_slots : 0);
    write_waiting(w, f);
}

static void write_rate(struct oc_server_writer *w, const struct oc_server *s) {
    const struct oc_server_config *c = s->config;
    oc_server_writer_open(w, "rate_limiter", '{');
    oc_server_writer_bool(w, "enabled", c->rate_limit);
    oc_server_writer_int(w, "requests_per_minute", c->rate_per_minute);
    oc_server_writer_int(w, "burst_size", c->rate_burst);
    oc_server_writer_num(w, "current_tokens",
                         c->rate_limit ? oc_gate_tokens(s->gate, 0, oc_server_now_ms()) : c->rate_burst);
    oc_server_writer_int(w, "max_tokens", c->rate_burst);
    oc_server_writer_close(w, '}');
}

void oc_server_status_figures(struct oc_server_ask *a) {
    const struct oc_server_totals *t = &a->s->totals;
    struct oc_admission_figures f = all_queues(a->s);
    struct oc_server_writer w;
    struct oc_buf b;
    begin(&w, &b);
    oc_server_writer_int(&w, "total_requests", (int64_t)t->n_requests);
    oc_server_writer_int(&w, "successful_requests", (int64_t)t->n_succeeded);
    oc_server_writer_int(&w, "failed_requests", (int64_t)t->n_failed);
    oc_server_writer_int(&w, "queue_full_rejects", (int64_t)t->n_queue_rejects);
    oc_server_writer_int(&w, "rate_limit_rejects", (int64_t)t->n_rate_rejects);
    oc_server_writer_num(&w, "success_rate",
                         (double)t->n_succeeded / (double)(t->n_requests ? t->n_requests : 1));
    write_times(&w, a->s);
    oc_server_writer_open(&w, "queue", '{');
    oc_server_writer_int(&w, "max_depth", f.max_waiting);
    oc_server_writer_int(&w, "active_requests", f.n_running);
    oc_server_writer_int(&w, "available_slots", f.n_slots > f.n_running ? f.n_slots - f.n_running : 0);
    oc_server_writer_num(&w, "utilization", f.n_slots ? (double)f.n_running / f.n_slots : 0);
    oc_server_writer_close(&w, '}');
    write_rate(&w, a->s);
    oc_server_writer_open(&w, "priority_queue", '{');
    write_queue(&w, &f);
    oc_server_writer_int(&w, "total_enqueued", (int64_t)f.n_entered);
    oc_server_writer_int(&w, "total_timeouts", (int64_t)f.n_timeouts);
    oc_server_writer_int(&w, "total_completed", (int64_t)f.n_started - f.n_running);
    oc_server_writer_num(&w, "avg_wait_time_ms", f.mean_wait_ms);
    oc_server_writer_close(&w, '}');
    finish(a, &w, 200);
}

void oc_server_status_queue(struct oc_server_ask *a) {
    struct oc_admission_figures f = all_queues(a->s);
    struct oc_server_writer w;
    struct oc_buf b;
    begin(&w, &b);
    write_queue(&w, &f);
    oc_server_writer_open(&w, "totals", '{');
    oc_server_writer_int(&w, "enqueued", (int64_t)f.n_entered);
    oc_server_writer_int(&w, "completed", (int64_t)f.n_started - f.n_running);
    oc_server_writer_int(&w, "timeouts", (int64_t)f.n_timeouts);
    oc_server_writer_close(&w, '}');
    oc_server_writer_num(&w, "avg_wait_time_ms", f.mean_wait_ms);
    finish(a, &w, 200);
}

void oc_server_status_capabilities(struct oc_server_ask *a) {
    const struct oc_server_model *m = loaded_model(a->s);
    struct oc_server_writer w;
    struct oc_buf b;
    begin(&w, &b);
    oc_server_writer_str(&w, "model", m ? m->id : NULL);
    oc_server_writer_open(&w, "capabilities", '{');
    oc_server_writer_bool(&w, "text", true);
    oc_server_writer_bool(&w, "vision", m && m->vision);
    oc_server_writer_close(&w, '}');
    oc_server_writer_str(&w, "detection_method", m ? "config_json" : "no_model_loaded");
    oc_server_writer_open(&w, "models", '[');
    for (m = a->s->models->first; m; m = m->next) {
        oc_server_writer_open(&w, NULL, '{');
        oc_server_writer_str(&w, "id", m->id);
        oc_server_writer_bool(&w, "vision", m->vision);
        oc_server_writer_bool(&w, "loaded", m->state == OC_MODEL_READY);
        oc_server_writer_close(&w, '}');
    }
    oc_server_writer_close(&w, ']');
    oc_server_writer_str(&w, "notes", NULL);
    finish(a, &w, 200);
}

/* ?names=own: without the names that others chose, as `promtool check metrics` likes it. */
void oc_server_status_metrics(struct oc_server_ask *a) {
    struct oc_buf b;
    oc_buf_init(&b, 64);
    bool own = oc_http_request_param(a->h, "names", &b) &&
               oc_str_is((struct oc_str){oc_buf_str(&b), b.n_bytes}, "own");
    oc_buf_free(&b);
    oc_buf_init(&b, OC_SERVER_REPLY_BYTES);
    oc_server_record_gauges(a->s);
    oc_metrics_write_names(a->s->metrics, own ? OC_METRICS_OWN : OC_METRICS_ALL, &b);
    oc_server_call_reply(a->s, a->x, a->endpoint, 200, OC_METRICS_CONTENT_TYPE, &b, a->h->received_ns);
    oc_buf_free(&b);
}
