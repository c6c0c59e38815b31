#include "engine/sched.h"

#include <stdlib.h>

/* A waiting task starts when a session, pages for its prompt and answer, and room for its pictures' embeddings are to be
 * had: nothing runs out later. One that does not fit is passed by a bounded number of times, then it is next. */

/* Pages at the head of its prompt that the cache has. */
static int count_cached(const struct oc_scheduler *s, const struct oc_sched_task *t) {
    int n = 0, most = (t->n_prompt - 1) / OC_LM_PAGE_TOKENS; /* the last token is always run */
    while (n < most && n < t->n_keys && oc_engine_prefix_cache_find(&s->prefix, &t->keys[n]) >= 0) n++;
    return n;
}

/* Takes hold of the cached pages, so that making room does not evict them; false if there is no room for the rest. */
static bool hold_prefix(struct oc_scheduler *s, const struct oc_sched_task *t, int32_t *pages, int n_cached) {
    int n_own = oc_engine_session_n_pages(t->n_prompt + t->max_tokens) - n_cached;
    for (int i = 0; i < n_cached; i++) {
        pages[i] = oc_engine_prefix_cache_find(&s->prefix, &t->keys[i]);
        oc_engine_prefix_cache_hold(&s->prefix, pages[i]);
    }
    if (s->e->kv.n_free + s->prefix.n_idle < n_own) {
        oc_engine_prefix_cache_give(&s->prefix, pages, n_cached);
        return false;
    }
    oc_engine_prefix_cache_evict(&s->prefix, n_own);
    return true;
}

/* Bytes of embeddings that it would hold and nobody holds yet. */
static bool embeddings_fit(const struct oc_scheduler *s, const struct oc_sched_task *t, int n_done) {
    size_t most = (size_t)s->e->info.ctx_tokens * (size_t)s->e->info.dim * sizeof(float), n = 0;
    for (int i = 0; i < t->n_pictures; i++) {
        const struct oc_sched_view *v = &t->pictures[i];
        const struct oc_engine_embedding *there = oc_engine_embed_cache_find(&s->embeds, &v->key);
        if (v->from + v->p.plan.n_tokens <= n_done || (there && there->n_holders > 0)) continue;
        n += (size_t)v->p.plan.n_tokens * (size_t)s->e->info.dim * sizeof(float);
    }
    return n <= most - s->embeds.held_bytes;
}

static enum oc_err hold_pictures(struct oc_scheduler *s, struct oc_sched_task *t, struct oc_errinfo *ei) {
    for (int i = 0; i < t->n_pictures; i++) {
        struct oc_sched_view *v = &t->pictures[i];
        if (v->is_passed) continue;
        OC_TRY(oc_engine_embed_cache_hold(&s->embeds, &v->key, v->p.plan.n_tokens, s->e->info.dim, &v->embedding, ei));
        bool is_read = s->encode.embedding == v->embedding && !s->encode.task; /* a pass that needs no patches any more */
        if (v->embedding->is_ready || is_read) oc_sched_task_tell_picture(s, t, i);
    }
    return OC_OK;
}

/* Positions of the whole prompt, the place in the session for them is its scratch. */
static enum oc_err find_positions(struct oc_scheduler *s, struct oc_sched_task *t, struct oc_errinfo *ei) {
    struct oc_prompt_picture *pictures = oc_arena_array(&t->arena, (size_t)t->n_pictures, sizeof *pictures);
    int32_t next;
    if (!pictures) return oc_fail(ei, OC_ERR_NOMEM, "out of memory for a request");
    for (int i = 0; i < t->n_pictures; i++) pictures[i].plan = t->pictures[i].p.plan;
    const struct oc_prompt prompt = {t->tokens, t->n_prompt, pictures, t->n_pictures};
    return oc_model_positions(s->e->model, &prompt, 0, t->session->pos, &next, ei);
}

static enum oc_err start(struct oc_scheduler *s, struct oc_sched_task *t, const int32_t *pages, int n_cached, struct oc_errinfo *ei) {
    int n_done = n_cached * OC_LM_PAGE_TOKENS;
    enum oc_err err = oc_engine_session_open(s->e, t->n_prompt + t->max_tokens, pages, n_cached, &t->session, ei);
    if (err != OC_OK) {
        oc_engine_prefix_cache_give(&s->prefix, pages, n_cached);
        return err;
    }
    OC_TRY(find_positions(s, t, ei));
    oc_engine_session_commit(t->session, t->tokens, (const int32_t(*)[3])t->session->pos, n_done);
    t->done.n_cached = n_done;
    oc_sched_task_pass_pictures(s, t, n_done);
    OC_TRY(oc_lm_sample_open(&t->sample, s->e->info.n_vocab, &t->sampler, ei));
    oc_lm_sample_prompt(t->sampler, t->tokens, t->n_prompt);
    if (s->p.speculate) {
        OC_TRY(oc_engine_ngram_open(&t->ngram, t->n_prompt + t->max_tokens, s->e->info.image_token, ei));
        oc_engine_ngram_prompt(&t->ngram, t->tokens, t->n_prompt);
    }
    return hold_pictures(s, t, ei);
}

/* True when it was taken in, be it to end at once with an error. */
static bool try_task(struct oc_scheduler *s, struct oc_sched_task *t) {
    struct oc_errinfo ei;
    if (s->n_running == s->e->n_sessions) return false;
    if (s->p.prefix_cache && !t->keys && oc_sched_task_make_keys(t, &ei) != OC_OK) {
        s->running[s->n_running++] = t;
        oc_sched_task_end(s, t, OC_SCHED_ERROR, &ei);
        return true;
    }
    int n_cached = count_cached(s, t);
    if (!embeddings_fit(s, t, n_cached * OC_LM_PAGE_TOKENS)) return false;
    int32_t *pages = malloc(((size_t)n_cached + 1) * sizeof *pages);
    if (pages && !hold_prefix(s, t, pages, n_cached)) {
        free(pages);
        return false;
    }
    enum oc_err err = pages ? start(s, t, pages, n_cached, &ei) : oc_fail(&ei, OC_ERR_NOMEM, "out of memory for a request");
    free(pages);
    s->running[s->n_running++] = t;
    if (err != OC_OK) oc_sched_task_end(s, t, OC_SCHED_ERROR, &ei);
    return true;
}

void oc_sched_admit(struct oc_scheduler *s) {
    if (!s->admit_again) return;
    s->admit_again = false;
    int n_tried = 0, n_started = 0;
    struct oc_sched_task *stuck = NULL; /* the first that did not fit */
    for (struct oc_sched_task **at = &s->waiting; *at && n_tried <= OC_SCHED_LOOK_AHEAD;) {
        struct oc_sched_task *t = *at;
        if (s->n_running == s->e->n_sessions || n_started == OC_SCHED_ADMIT_MAX || (stuck && stuck->n_overtaken >= OC_SCHED_MAX_OVERTAKES)) return;
        if (!try_task(s, t)) {
            if (!stuck) stuck = t;
            n_tried++;
            at = &t->next;
            continue;
        }
        *at = t->next;
        s->n_waiting--;
        if (++n_started == OC_SCHED_ADMIT_MAX) s->admit_again = true;
        if (stuck) stuck->n_overtaken++;
    }
}
