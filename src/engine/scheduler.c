#include "engine/scheduler.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/limits.h"
#include "engine/sched.h"

/* ---- Opening ---------------------------------------------------------------------------------------------- */

static enum oc_err no_memory(const struct oc_scheduler *s, struct oc_errinfo *ei) {
    return oc_fail(ei, OC_ERR_NOMEM, "out of memory for a scheduler of %d sessions", s->e->n_sessions);
}

static enum oc_err take_arrays(struct oc_scheduler *s, struct oc_errinfo *ei) {
    struct oc_sched_prefill *c = &s->prefill;
    size_t n = (size_t)s->e->n_sessions, outputs = (size_t)s->e->max_outputs, rows = OC_ENGINE_CHUNK_ROWS;
    oc_arena_init(&s->arena, 64 * OC_MIB);
    s->running = oc_arena_array(&s->arena, n, sizeof *s->running);
    s->rows = oc_arena_array(&s->arena, outputs, sizeof *s->rows);
    s->picks = oc_arena_array(&s->arena, outputs, sizeof *s->picks);
    s->turns = oc_arena_array(&s->arena, n, sizeof *s->turns);
    s->drafts = oc_arena_array(&s->arena, n, sizeof *s->drafts);
    c->parts = oc_arena_array(&s->arena, n, sizeof *c->parts);
    c->tokens = oc_arena_array(&s->arena, rows, sizeof *c->tokens);
    c->outputs = oc_arena_array(&s->arena, rows, sizeof *c->outputs);
    c->embeddings = oc_arena_array(&s->arena, rows, sizeof *c->embeddings);
    c->pos = oc_arena_array(&s->arena, rows, sizeof *c->pos);
    c->kv_rows = oc_arena_array(&s->arena, rows, sizeof *c->kv_rows);
    if (!s->running || !s->rows || !s->picks || !s->turns || !s->drafts) return no_memory(s, ei);
    if (c->parts && c->tokens && c->outputs && c->embeddings && c->pos && c->kv_rows) return OC_OK;
    return no_memory(s, ei);
}

enum oc_err oc_scheduler_open(struct oc_engine *e, const struct oc_sched_params *p, const struct oc_sched_events *ev,
                              struct oc_scheduler **out, struct oc_errinfo *ei) {
    *out = NULL;
    for (int i = 0; i < e->n_sessions; i++) OC_ASSERT(!e->sessions[i].engine);
    OC_ASSERT(!e->prefix_cache);
    struct oc_scheduler *s = calloc(1, sizeof *s);
    if (!s) return oc_fail(ei, OC_ERR_NOMEM, "out of memory for a scheduler");
    s->e = e;
    s->p = *p;
    s->ev = *ev;
    if (s->p.max_jobs <= 0) s->p.max_jobs = OC_LIMIT_SCHED_JOBS;
    oc_engine_embed_cache_init(&s->embeds, p->embed_cache_bytes);
    oc_engine_workspace_split(e, &s->prefill.ws);
    enum oc_err err = take_arrays(s, ei);
    if (err == OC_OK) err = oc_engine_prefix_cache_open(&s->prefix, &e->kv, p->prefix_cache, ei);
    if (err != OC_OK) {
        oc_scheduler_close(s);
        return err;
    }
    e->prefix_cache = &s->prefix;
    *out = s;
    return OC_OK;
}

/* As bounded by admission: n_sessions tasks, and one context of embeddings among them. */
static uint64_t picture_bytes(const struct oc_engine *e) {
    if (!e->model->has_vision) return 0;
    const struct oc_picture_rules *r = &e->model->pictures;
    const uint64_t patch_bytes = 3ull * (uint64_t)(r->patch * r->patch); /* as pixels: patches are made in the workspace */
    return (uint64_t)e->info.ctx_tokens * (uint64_t)e->info.dim * sizeof(float) + (uint64_t)e->vision_ws.max_patches * patch_bytes;
}

uint64_t oc_scheduler_jobs_bytes(const struct oc_engine *e) {
    const struct oc_sched_task *t = NULL;
    const uint64_t ctx = (uint64_t)e->info.ctx_tokens, page = OC_LM_PAGE_TOKENS, pages = ctx / page + 1;
    const uint64_t sequence = ctx * (sizeof *t->session->tokens + sizeof *t->session->next_pos + sizeof *t->session->pos +
                                     sizeof *t->tokens) + pages * (sizeof *t->keys + sizeof *t->session->pages);
    const uint64_t entries = pages * (sizeof(struct oc_engine_prefix_entry) + 4 * sizeof(int32_t)); /* buckets, holders */
    const uint64_t part_page = page * e->info.kv_bytes_per_token; /* the pool has one for the end of each sequence */
    const uint64_t task = sizeof *t + sizeof(struct oc_sched_turn) + sizeof(struct oc_engine_draft) + sizeof(struct oc_sched_part);
    const uint64_t output = sizeof(struct oc_row) + sizeof(struct oc_lm_sample_pick);
    const uint64_t one = oc_lm_sample_bytes(e->info.n_vocab) + oc_engine_ngram_bytes(e->info.ctx_tokens) + sequence + entries +
                         part_page + task;
    return (uint64_t)e->n_sessions * one + (uint64_t)e->max_outputs * output + picture_bytes(e) + OC_MIB;
}

static void release(struct oc_scheduler *s, struct oc_sched_task *t) {
    oc_sched_task_give_pictures(s, t);
    oc_session_close(t->session);
    oc_lm_sample_close(t->sampler);
    oc_engine_ngram_close(&t->ngram);
    t->session = NULL;
    t->sampler = NULL;
    oc_sched_task_free(t);
}

void oc_scheduler_close(struct oc_scheduler *s) {
    if (!s) return;
    s->encode = (struct oc_sched_encode){0};
    for (int i = 0; i < s->n_running; i++) {
        s->running[i]->in_pass = false;
        release(s, s->running[i]);
    }
    while (s->waiting) {
        struct oc_sched_task *t = s->waiting;
        s->waiting = t->next;
        release(s, t);
    }
    oc_engine_embed_cache_close(&s->embeds);
    oc_engine_prefix_cache_close(&s->prefix);
    s->e->prefix_cache = NULL;
    oc_engine_workspace_join(s->e);
    oc_arena_free(&s->arena);
    free(s);
}

/* ---- The queue -------------------------------------------------------------------------------------------- */

static struct oc_sched_task *find(const struct oc_scheduler *s, uint64_t id) {
    for (int i = 0; i < s->n_running; i++)
        if (s->running[i]->id == id && !s->running[i]->is_ended) return s->running[i];
    for (struct oc_sched_task *t = s->waiting; t; t = t->next)
        if (t->id == id && !t->is_ended) return t;
    return NULL;
}

enum oc_err oc_scheduler_add(struct oc_scheduler *s, const struct oc_sched_job *job, struct oc_errinfo *ei) {
    struct oc_sched_task *t;
    OC_ASSERT(!s->in_step);
    if (s->n_waiting + s->n_running >= s->p.max_jobs)
        return oc_fail(ei, OC_ERR_LIMIT, "%d requests run and %d wait, more than %d are not taken", s->n_running, s->n_waiting, s->p.max_jobs);
    if (find(s, job->id)) return oc_fail(ei, OC_ERR_USAGE, "a request with this id is live already");
    OC_TRY(oc_sched_task_new(s, job, &t, ei));
    t->order = s->n_added++;
    struct oc_sched_task **at = &s->waiting;
    while (*at && oc_sched_before(*at, t)) at = &(*at)->next;
    t->next = *at;
    *at = t;
    s->n_waiting++;
    s->admit_again = true;
    return OC_OK;
}

/* ---- The end of a task ------------------------------------------------------------------------------------ */

static double span_ms(uint64_t from_ns, uint64_t to_ns) {
    return from_ns && to_ns > from_ns ? (double)(to_ns - from_ns) / 1e6 : 0;
}

/* Each stage lasts until the next one that the task reached, or until now. */
static void report(struct oc_scheduler *s, struct oc_sched_task *t) {
    uint64_t now_ns = oc_clock_ns(), first = t->first_ns ? t->first_ns : now_ns, prefill = t->prefill_ns ? t->prefill_ns : now_ns;
    t->is_reported = true;
    if (t->prefill_ns) {
        s->figures.n_prefix_queries += (uint64_t)t->n_prompt;
        s->figures.n_prefix_hits += (uint64_t)t->done.n_cached;
    }
    t->done.queue_ms = span_ms(t->added_ns, t->encode_ns ? t->encode_ns : prefill);
    t->done.encode_ms = span_ms(t->encode_ns, prefill);
    t->done.prefill_ms = span_ms(t->prefill_ns, first);
    t->done.decode_ms = span_ms(t->first_ns, t->last_ns);
    if (s->ev.on_done) s->ev.on_done(s->ev.arg, t->id, &t->done);
}

/* Reports tasks that ended and frees those that nothing uses any more. */
static void reap(struct oc_scheduler *s) {
    oc_sched_prefill_tidy(s);
    for (struct oc_sched_task **at = &s->waiting; *at;) {
        struct oc_sched_task *t = *at;
        if (!t->is_ended) {
            at = &t->next;
            continue;
        }
        *at = t->next;
        s->n_waiting--;
        report(s, t);
        release(s, t);
        s->admit_again = true;
    }
    int n = 0;
    for (int i = 0; i < s->n_running; i++) {
        struct oc_sched_task *t = s->running[i];
        if (t->is_ended && !t->is_reported) report(s, t);
        if (!t->is_ended || t->in_pass) {
            s->running[n++] = t;
            continue;
        }
        release(s, t);
        s->admit_again = true;
    }
    s->n_running = n;
}

void oc_scheduler_cancel(struct oc_scheduler *s, uint64_t id) {
    struct oc_sched_task *t = find(s, id);
    if (!t) return;
    oc_sched_task_end(s, t, OC_SCHED_CANCELLED, NULL);
    if (!s->in_step) reap(s);
}

/* ---- Slices ----------------------------------------------------------------------------------------------- */

/* Encoding and prefill take turns while both have work of the same priority: a long picture does not hold up short prompts,
 * nor a long prompt a picture. */
static bool work_slice(struct oc_scheduler *s) {
    int encode = oc_sched_encode_priority(s), prefill = oc_sched_prefill_priority(s);
    if (encode == OC_SCHED_NO_WORK && prefill == OC_SCHED_NO_WORK) return false;
    bool now_encode = encode == prefill ? s->encode_next : encode < prefill;
    s->encode_next = !now_encode;
    if (now_encode) oc_sched_encode_slice(s);
    else oc_sched_prefill_slice(s);
    return true;
}

bool oc_scheduler_step(struct oc_scheduler *s) {
    OC_ASSERT(!s->in_step);
    s->in_step = true;
    oc_sched_admit(s);
    s->figures.n_steps++;
    bool decode = s->n_decoding > 0 && s->decode_next;
    if (decode || !work_slice(s)) {
        if (s->n_decoding > 0) oc_sched_decode_step(s);
        decode = true;
    }
    s->decode_next = !decode;
    reap(s);
    s->in_step = false;
    return s->n_running > 0 || s->n_waiting > 0;
}

/* ---- Figures ---------------------------------------------------------------------------------------------- */

void oc_scheduler_figures(const struct oc_scheduler *s, struct oc_sched_figures *out) {
    *out = s->figures;
    out->n_running = s->n_running;
    out->n_waiting = s->n_waiting;
    out->kv_pages = s->e->kv.n_pages;
    out->kv_pages_cached = s->prefix.n_idle;
    out->kv_pages_used = s->e->kv.n_pages - s->e->kv.n_free - s->prefix.n_idle;
    out->kv_evictions = s->prefix.n_evictions;
    out->embed_bytes = s->embeds.held_bytes + s->embeds.idle_bytes;
    out->embed_evictions = s->embeds.n_evictions;
}
