#include "server/record.h"

#include <stdio.h>

#include "server/images.h"
#include "server/models.h"
#include "server/process.h"
#include "server/request.h"

static const char *const classes[] = {"high", "normal", "low"};

void oc_server_record_answer(struct oc_server *s, const char *endpoint, int status, uint64_t received_ns) {
    char text[16];
    snprintf(text, sizeof text, "%d", status);
    oc_metrics_add(s->metrics, OC_M_REQUESTS, endpoint, text, 1);
    if (received_ns)
        oc_metrics_observe(s->metrics, OC_M_REQUEST_TIME, endpoint, NULL,
                           oc_clock_ms_since(received_ns) / 1e3);
}

/* ---- Completion requests ------------------------------------------------------------------------------- */

void oc_server_record_request_started(struct oc_server_request *r) {
    r->s->totals.n_requests++;
    oc_metrics_add(r->s->metrics, OC_M_REQUESTS_NOW, r->endpoint, NULL, 1);
}

static const char *finish_label(const struct oc_server_request *r, int status, const char *reason) {
    (void)r;
    return status == 200 ? reason : status == 499 ? "cancelled" : "error";
}

static void count_total(struct oc_server *s, int status, double ms) {
    struct oc_server_totals *t = &s->totals;
    t->n_succeeded += status == 200;
    t->n_gone += status == 499;
    t->n_failed += status != 200 && status != 499;
    if (t->min_ms == 0 || ms < t->min_ms) t->min_ms = ms;
    if (ms > t->max_ms) t->max_ms = ms;
}

/* Figures of an answer that the engine finished. */
static void record_done(struct oc_server_request *r) {
    struct oc_metrics *m = r->s->metrics;
    const char *id = r->model->id;
    int64_t n_output = 0, n_cached = 0;
    for (int i = 0; i < r->n_choices; i++) {
        const struct oc_server_choice *c = &r->choices[i];
        n_output += c->has_done ? c->done.n_output : c->n_tokens;
        if (!c->has_done) continue;
        n_cached += c->done.n_cached;
        oc_metrics_add(m, OC_M_CACHE_QUERIES, id, "prefix", c->done.n_prompt);
        oc_metrics_add(m, OC_M_CACHE_HITS, id, "prefix", c->done.n_cached);
        if (c->done.n_image) oc_metrics_add(m, OC_M_CACHE_QUERIES, id, "embedding", c->done.n_image);
        if (c->done.n_image) oc_metrics_add(m, OC_M_CACHE_HITS, id, "embedding", c->done.n_image_cached);
        if (r->n_pictures) oc_metrics_observe(m, OC_M_ENCODE_TIME, id, NULL, c->done.encode_ms / 1e3);
        oc_metrics_observe(m, OC_M_PREFILL_TIME, id, NULL, c->done.prefill_ms / 1e3);
        oc_metrics_observe(m, OC_M_DECODE_TIME, id, NULL, c->done.decode_ms / 1e3);
        oc_metrics_observe(m, OC_M_ENGINE_TIME, id, NULL,
                           (c->done.encode_ms + c->done.prefill_ms + c->done.decode_ms) / 1e3);
    }
    oc_metrics_add(m, OC_M_PROMPT_TOKENS, id, NULL, (double)r->n_prompt);
    oc_metrics_add(m, OC_M_CACHED_TOKENS, id, NULL, (double)n_cached);
    oc_metrics_add(m, OC_M_IMAGE_TOKENS, id, NULL, (double)r->n_image);
    oc_metrics_add(m, OC_M_OUTPUT_TOKENS, id, NULL, (double)n_output);
    oc_metrics_observe(m, OC_M_PROMPT_SIZE, id, NULL, (double)r->n_prompt);
    oc_metrics_observe(m, OC_M_OUTPUT_SIZE, id, NULL, (double)n_output);
    oc_metrics_observe(m, OC_M_MAX_TOKENS, id, NULL, (double)r->max_tokens);
    oc_metrics_observe(m, OC_M_CHOICES, id, NULL, r->n_choices);
    oc_metrics_observe(m, OC_M_E2E, id, NULL, oc_clock_ms_since(r->received_ns) / 1e3);
}

static void log_end(const struct oc_server_request *r, int status, const char *reason, double ms) {
    int64_t n_output = 0;
    for (int i = 0; i < r->n_choices; i++) n_output += r->choices[i].n_tokens;
    double ttft = oc_server_request_ttft_ms(r);
    oc_log(r->s->log, status >= 500 ? OC_LOG_WARN : OC_LOG_INFO, "request", OC_LOG_S("request", r->id),
           OC_LOG_S("model", r->model ? r->model->id : ""),
           OC_LOG_S("key", oc_gate_key_name(r->s->gate, r->key)), OC_LOG_I("status", status),
           OC_LOG_S("end", reason), OC_LOG_S("stage", oc_server_request_stage_name(r->stage)),
           OC_LOG_I("pictures", (int64_t)r->n_pictures), OC_LOG_I("prompt_tokens", r->n_prompt),
           OC_LOG_I("output_tokens", n_output), OC_LOG_D("ttft_ms", ttft), OC_LOG_D("ms", ms),
           OC_LOG_D("queue_ms", r->queue_ms), OC_LOG_I("replays", r->n_replays));
}

/* Why a stream ended before its end; NULL: it did not. */
static const char *cut_reason(const struct oc_server_request *r, int status) {
    if (status == 200 || status == 499 || !r->text_sent) return NULL;
    return r->s->draining ? "drain" : status == 408 ? "timeout" : "worker";
}

void oc_server_record_request_ended(struct oc_server_request *r, int status, const char *reason) {
    struct oc_metrics *m = r->s->metrics;
    double ms = oc_clock_ms_since(r->received_ns);
    const char *cut = cut_reason(r, status);
    count_total(r->s, status, ms);
    oc_metrics_add(m, OC_M_REQUESTS_NOW, r->endpoint, NULL, -1);
    oc_server_record_answer(r->s, r->endpoint, status, r->received_ns);
    if (r->model) oc_metrics_add(m, OC_M_FINISHED, r->model->id, finish_label(r, status, reason), 1);
    if (status == 499) oc_metrics_add(m, OC_M_GONE, oc_server_request_stage_name(r->stage), NULL, 1);
    if (cut) oc_metrics_add(m, OC_M_STREAMS_CUT, cut, NULL, 1);
    if (status == 200) record_done(r);
    log_end(r, status, reason, ms);
}

void oc_server_record_slot(struct oc_server_request *r) {
    oc_metrics_observe(r->s->metrics, OC_M_QUEUE_WAIT, r->model->id, classes[r->priority], r->queue_ms / 1e3);
}

void oc_server_record_first_token(struct oc_server_request *r) {
    double ms = oc_server_request_ttft_ms(r);
    r->model->ttft_ms = ms;
    oc_metrics_observe(r->s->metrics, OC_M_TTFT, r->model->id, NULL, ms / 1e3);
}

void oc_server_record_token_gap(struct oc_server_request *r, uint64_t gap_ns) {
    oc_metrics_observe(r->s->metrics, OC_M_ITL, r->model->id, NULL, (double)gap_ns / 1e9);
}

/* ---- Pictures ------------------------------------------------------------------------------------------ */

static const char *scheme_of(struct oc_str url) {
    if (oc_str_starts(url, OC_STR("data:"))) return "data";
    return oc_str_starts(url, OC_STR("http")) ? "http" : "file";
}

void oc_server_record_fetched(struct oc_server_request *r, const struct oc_server_picture *p) {
    const char *scheme = scheme_of(r->api.pictures[p - r->pictures].url);
    oc_metrics_observe(r->s->metrics, OC_M_FETCH_TIME, scheme, NULL, p->fetch_ms / 1e3);
    oc_metrics_observe(r->s->metrics, OC_M_FETCH_BYTES, scheme, NULL, (double)p->n_bytes);
}

void oc_server_record_seen(struct oc_server_request *r, const struct oc_server_picture *p) {
    struct oc_metrics *m = r->s->metrics;
    const struct oc_ipc_seen *s = &p->seen;
    bool resized = s->width != s->plan.width || s->height != s->plan.height;
    double wait_ms = p->look_ms - s->decode_ms - s->resize_ms;
    oc_metrics_add(m, OC_M_IMAGES, resized ? "resized" : "ok", NULL, 1);
    oc_metrics_observe(m, OC_M_IMAGE_WAIT, NULL, NULL, wait_ms > 0 ? wait_ms / 1e3 : 0);
    oc_metrics_observe(m, OC_M_IMAGE_DECODE_TIME, NULL, NULL, s->decode_ms / 1e3);
    oc_metrics_observe(m, OC_M_IMAGE_PREPARE_TIME, NULL, NULL, s->resize_ms / 1e3);
    oc_metrics_observe(m, OC_M_IMAGE_PIXELS, NULL, NULL, (double)s->width * s->height);
}

void oc_server_record_picture_failed(struct oc_server_request *r, const char *result) {
    oc_metrics_add(r->s->metrics, OC_M_IMAGES, result, NULL, 1);
}

/* ---- Gauges -------------------------------------------------------------------------------------------- */

#define BOARD(field) ((double)atomic_load_explicit(&b->field, memory_order_relaxed))

static void record_board(struct oc_metrics *m, const char *id, const struct oc_ipc_board *b) {
    double pages = BOARD(kv_pages), used = BOARD(kv_pages_used), cached = BOARD(kv_pages_cached);
    double beat = BOARD(heartbeat_ns), now = (double)oc_clock_ns();
    char n_pages[24];
    oc_metrics_set(m, OC_M_KV_PAGES, id, "used", used);
    oc_metrics_set(m, OC_M_KV_PAGES, id, "cached", cached);
    oc_metrics_set(m, OC_M_KV_PAGES, id, "free", pages - used - cached);
    oc_metrics_set(m, OC_M_KV_USED, id, NULL, pages > 0 ? used / pages : 0);
    oc_metrics_set(m, OC_M_CACHE_EVICTIONS, id, "prefix", BOARD(kv_evictions));
    oc_metrics_set(m, OC_M_CACHE_EVICTIONS, id, "embedding", BOARD(embed_evictions));
    oc_metrics_set(m, OC_M_CACHE_BYTES, id, "embedding", BOARD(embed_bytes));
    oc_metrics_set(m, OC_M_DRAFTS, id, NULL, BOARD(n_drafts));
    oc_metrics_set(m, OC_M_DRAFT_TOKENS, id, NULL, BOARD(n_drafted));
    oc_metrics_set(m, OC_M_DRAFT_ACCEPTED, id, NULL, BOARD(n_accepted));
    oc_metrics_set(m, OC_M_TOK_S, id, NULL, BOARD(decode_mtok_s) / 1e3);
    oc_metrics_set(m, OC_M_WORKER_HEARTBEAT, id, NULL, beat > 0 && now > beat ? (now - beat) / 1e9 : 0);
    snprintf(n_pages, sizeof n_pages, "%.0f", pages);
    if (pages > 0) oc_metrics_set(m, OC_M_VLLM_CACHE_CONFIG, "16", n_pages, 1);
}

static void record_model(struct oc_server *s, const struct oc_server_model *mo) {
    struct oc_metrics *m = s->metrics;
    struct oc_admission_figures f;
    bool ready = mo->state == OC_MODEL_READY;
    oc_admission_figures(mo->admission, &f);
    oc_metrics_set(m, OC_M_RUNNING, mo->id, NULL, f.n_running);
    for (int i = 0; i < 3; i++) oc_metrics_set(m, OC_M_WAITING, mo->id, classes[i], f.waiting_by_class[i]);
    oc_metrics_set(m, OC_M_SLOTS, mo->id, NULL, f.n_slots);
    oc_metrics_set(m, OC_M_MODEL_LOADED, mo->id, NULL, ready);
    oc_metrics_set(m, OC_M_WORKER_UP, mo->id, NULL, ready && !oc_server_worker_is_stuck(mo->worker));
    oc_metrics_set(m, OC_M_MODEL_MEMORY, mo->id, NULL,
                   mo->worker ? (double)oc_server_process_rss(oc_server_worker_pid(mo->worker)) : 0);
    if (mo->worker) record_board(m, mo->id, oc_server_worker_board(mo->worker));
}

static void record_process(struct oc_server *s) {
    struct oc_metrics *m = s->metrics;
    oc_metrics_set(m, OC_M_PROCESS_RSS, NULL, NULL, (double)oc_server_process_rss(0));
    oc_metrics_set(m, OC_M_PROCESS_CPU, NULL, NULL, oc_server_process_cpu_s());
    oc_metrics_set(m, OC_M_PROCESS_FDS, NULL, NULL, oc_server_process_n_fds());
    oc_metrics_set(m, OC_M_PROCESS_START, NULL, NULL, (double)s->start_unix);
    oc_metrics_set(m, OC_M_LOG_LOST, NULL, NULL, (double)oc_log_n_dropped(s->log));
    oc_metrics_set(m, OC_M_DRAINING, NULL, NULL, s->draining);
    oc_metrics_set(m, OC_M_MEMORY_BUDGET, NULL, NULL, (double)s->models->budget_bytes);
    oc_metrics_set(m, OC_M_MEMORY_USED, NULL, NULL, (double)oc_server_models_used_bytes(s->models));
    oc_metrics_set(m, OC_M_PICTURE_MEMORY, NULL, NULL, (double)s->room.held_bytes);
    oc_metrics_set(m, OC_M_PICTURE_MEMORY_WAITING, NULL, NULL, s->room.n_waiting);
    oc_metrics_set(m, OC_M_CONNECTIONS, "main", NULL, oc_http_server_n_connections(s->http));
    oc_metrics_set(m, OC_M_CONNECTIONS, "admin", NULL, oc_http_server_n_connections(s->admin));
    oc_metrics_set(m, OC_M_CONNECTIONS_MAX, NULL, NULL, s->config->max_connections);
    oc_metrics_set(m, OC_M_QUEUE_MAX, NULL, NULL, s->config->queue_depth);
    if (s->config->rate_limit)
        oc_metrics_set(m, OC_M_RATE_TOKENS, NULL, NULL, oc_gate_tokens(s->gate, 0, oc_server_now_ms()));
}

void oc_server_record_gauges(struct oc_server *s) {
    struct oc_server_images_figures f = {0};
    record_process(s);
    for (const struct oc_server_model *m = s->models->first; m; m = m->next) record_model(s, m);
    if (s->images) oc_server_images_figures(s->images, &f);
    oc_metrics_set(s->metrics, OC_M_IMAGE_WORKERS, "idle", NULL, f.n_idle);
    oc_metrics_set(s->metrics, OC_M_IMAGE_WORKERS, "busy", NULL, f.n_busy);
    oc_metrics_set(s->metrics, OC_M_IMAGE_WORKER_RESTARTS, NULL, NULL, (double)f.n_restarts);
}
