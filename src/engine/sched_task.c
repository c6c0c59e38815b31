#include "engine/sched.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/limits.h"

/* ---- Checking a job --------------------------------------------------------------------------------------- */

/* A plan comes from another process: it must be one that this engine could have made. */
static enum oc_err check_plan(const struct oc_scheduler *s, const struct oc_picture_plan *p, int number, struct oc_errinfo *ei) {
    const struct oc_picture_rules *r = &s->e->model->pictures;
    int most = s->e->vision_ws.max_patches, block = r->merge * r->merge;
    bool shape = p->patch == r->patch && p->merge == r->merge && p->temporal == r->temporal &&
                 p->patch_dim == 3 * r->temporal * r->patch * r->patch;
    bool grid = p->grid_t >= 1 && p->grid_h >= 1 && p->grid_w >= 1 && p->grid_t <= most && p->grid_h <= most && p->grid_w <= most &&
                p->grid_h % r->merge == 0 && p->grid_w % r->merge == 0;
    bool sum = grid && (int64_t)p->grid_t * p->grid_h <= most && (int64_t)p->grid_t * p->grid_h * p->grid_w == p->n_patches;
    if (!shape || !sum || p->n_tokens != p->n_patches / block)
        return oc_fail(ei, OC_ERR_FORMAT, "the plan of picture %d is not one of this model's", number);
    if (p->n_patches > most)
        return oc_fail(ei, OC_ERR_LIMIT, "picture %d has %d tokens, allowed are %d: see --image-max-tokens", number, p->n_tokens,
                       most / block);
    return OC_OK;
}

static enum oc_err check_counts(const struct oc_scheduler *s, const struct oc_sched_job *job, struct oc_errinfo *ei) {
    const struct oc_engine_info *info = &s->e->info;
    if (job->max_tokens < 1) return oc_fail(ei, OC_ERR_USAGE, "an answer of %d tokens: ask for at least 1", job->max_tokens);
    if (job->n_eos < 0 || job->n_eos > OC_MAX_EOS) return oc_fail(ei, OC_ERR_USAGE, "%d end tokens, at most %d are possible", job->n_eos, OC_MAX_EOS);
    if (job->n_tokens < 1) return oc_fail(ei, OC_ERR_FORMAT, "an empty prompt: there is nothing to answer");
    if (job->n_tokens > info->ctx_tokens)
        return oc_fail(ei, OC_ERR_LIMIT, "a prompt of %d tokens does not fit in the context of %d", job->n_tokens, info->ctx_tokens);
    if (job->n_pictures < 0 || job->n_pictures > OC_LIMIT_IMAGES_PER_PROMPT)
        return oc_fail(ei, OC_ERR_LIMIT, "%d pictures, at most %d are possible", job->n_pictures, OC_LIMIT_IMAGES_PER_PROMPT);
    if (job->n_pictures > 0 && !info->has_vision)
        return oc_fail(ei, OC_ERR_FORMAT, "this model (%s) reads text only, it cannot look at pictures", info->architecture);
    for (int i = 0; i < job->n_tokens; i++)
        if (job->tokens[i] < 0 || job->tokens[i] >= info->n_vocab)
            return oc_fail(ei, OC_ERR_FORMAT, "token id %d is outside the vocabulary of %d", job->tokens[i], info->n_vocab);
    for (int i = 0; i < job->n_pictures; i++) OC_TRY(check_plan(s, &job->pictures[i].plan, i + 1, ei));
    return oc_lm_sample_check(&job->sample, info->n_vocab, ei);
}

/* ---- Copying it ------------------------------------------------------------------------------------------- */

static enum oc_err no_memory(struct oc_errinfo *ei) {
    return oc_fail(ei, OC_ERR_NOMEM, "out of memory for a request");
}

static enum oc_err copy_prompt(struct oc_scheduler *s, struct oc_sched_task *t, const struct oc_sched_job *job, struct oc_errinfo *ei) {
    struct oc_picture_plan plans[OC_LIMIT_IMAGES_PER_PROMPT];
    int ctx = s->e->info.ctx_tokens;
    for (int i = 0; i < job->n_pictures; i++) plans[i] = job->pictures[i].plan;
    OC_TRY(oc_prompt_expand(s->e, job->tokens, job->n_tokens, plans, job->n_pictures, NULL, 0, &t->n_prompt, ei));
    if (t->n_prompt > ctx - job->max_tokens)
        return oc_fail(ei, OC_ERR_LIMIT, "a prompt of %d tokens and an answer of up to %d do not fit in the context of %d", t->n_prompt,
                       job->max_tokens, ctx);
    t->tokens = oc_arena_array(&t->arena, (size_t)t->n_prompt, sizeof *t->tokens);
    if (!t->tokens) return no_memory(ei);
    return oc_prompt_expand(s->e, job->tokens, job->n_tokens, plans, job->n_pictures, t->tokens, t->n_prompt, &t->n_prompt, ei);
}

static enum oc_err copy_pictures(const struct oc_scheduler *s, struct oc_sched_task *t, const struct oc_sched_job *job, struct oc_errinfo *ei) {
    t->n_pictures = job->n_pictures;
    t->pictures = oc_arena_array(&t->arena, (size_t)job->n_pictures, sizeof *t->pictures);
    if (!t->pictures) return no_memory(ei);
    int at = 0;
    for (int i = 0; i < t->n_pictures; i++) {
        struct oc_sched_view *v = &t->pictures[i];
        const struct oc_picture_plan *plan = &job->pictures[i].plan;
        while (t->tokens[at] != s->e->info.image_token) at++;
        *v = (struct oc_sched_view){.p = job->pictures[i], .from = at};
        v->key = (struct oc_engine_embed_key){.grid_t = plan->grid_t, .grid_h = plan->grid_h, .grid_w = plan->grid_w};
        memcpy(v->key.digest, v->p.digest, sizeof v->key.digest);
        memcpy(v->key.salt, job->salt, sizeof v->key.salt);
        at += plan->n_tokens;
        t->done.n_image += plan->n_tokens;
    }
    return OC_OK;
}

static enum oc_err copy_rest(struct oc_sched_task *t, const struct oc_sched_job *job, struct oc_errinfo *ei) {
    t->id = job->id;
    t->priority = job->priority;
    t->max_tokens = job->max_tokens;
    t->sample = job->sample;
    t->n_eos = job->n_eos;
    if (job->n_eos) memcpy(t->eos, job->eos, (size_t)job->n_eos * sizeof *job->eos);
    memcpy(t->salt, job->salt, sizeof t->salt);
    size_t n = (size_t)(job->sample.n_biases > 0 ? job->sample.n_biases : 0);
    struct oc_lm_sample_bias *biases = oc_arena_array(&t->arena, n, sizeof *biases);
    if (!biases) return no_memory(ei);
    if (n) memcpy(biases, job->sample.biases, n * sizeof *biases);
    t->sample.biases = biases;
    return OC_OK;
}

enum oc_err oc_sched_task_new(struct oc_scheduler *s, const struct oc_sched_job *job, struct oc_sched_task **out, struct oc_errinfo *ei) {
    *out = NULL;
    OC_TRY(check_counts(s, job, ei));
    struct oc_sched_task *t = calloc(1, sizeof *t);
    if (!t) return no_memory(ei);
    oc_arena_init(&t->arena, OC_LIMIT_SCHED_JOB_BYTES);
    enum oc_err err = copy_prompt(s, t, job, ei);
    if (err == OC_OK) err = copy_pictures(s, t, job, ei);
    if (err == OC_OK) err = copy_rest(t, job, ei);
    if (err != OC_OK) {
        oc_sched_task_free(t);
        return err;
    }
    t->done.n_prompt = t->n_prompt;
    t->added_ns = oc_clock_ns();
    *out = t;
    return OC_OK;
}

void oc_sched_task_free(struct oc_sched_task *t) {
    OC_ASSERT(!t->session && !t->sampler && !t->in_pass);
    oc_arena_free(&t->arena);
    free(t);
}

/* ---- Keys of its pages ------------------------------------------------------------------------------------ */

/* The parts of pictures in slots from .. from+15; -1 when one of them may not be shared. */
static int parts_of_page(const struct oc_sched_task *t, int from, struct oc_engine_prefix_part parts[OC_LM_PAGE_TOKENS]) {
    static const uint8_t none[OC_DIGEST_BYTES] = {0};
    int n = 0, to = from + OC_LM_PAGE_TOKENS;
    for (int i = 0; i < t->n_pictures; i++) {
        const struct oc_sched_view *v = &t->pictures[i];
        int lo = v->from > from ? v->from : from, end = v->from + v->p.plan.n_tokens, hi = end < to ? end : to;
        if (lo >= hi) continue;
        if (memcmp(v->key.digest, none, sizeof none) == 0) return -1;
        parts[n] = (struct oc_engine_prefix_part){.grid_t = v->key.grid_t, .grid_h = v->key.grid_h, .grid_w = v->key.grid_w};
        memcpy(parts[n].digest, v->key.digest, sizeof parts[n].digest);
        parts[n].from = lo - v->from;
        parts[n++].to = hi - v->from;
    }
    return n;
}

enum oc_err oc_sched_task_make_keys(struct oc_sched_task *t, struct oc_errinfo *ei) {
    struct oc_engine_prefix_key key;
    struct oc_engine_prefix_part parts[OC_LM_PAGE_TOKENS];
    int n_full = t->n_prompt / OC_LM_PAGE_TOKENS;
    t->keys = oc_arena_array(&t->arena, (size_t)n_full, sizeof *t->keys);
    if (!t->keys) return no_memory(ei);
    oc_engine_prefix_cache_root(t->salt, sizeof t->salt, &key);
    for (t->n_keys = 0; t->n_keys < n_full; t->n_keys++) {
        int from = t->n_keys * OC_LM_PAGE_TOKENS, n_parts = parts_of_page(t, from, parts);
        if (n_parts < 0) break;
        oc_engine_prefix_cache_key(&key, t->tokens + from, parts, n_parts, &t->keys[t->n_keys]);
        key = t->keys[t->n_keys];
    }
    return OC_OK;
}

/* ---- While it runs ---------------------------------------------------------------------------------------- */

void oc_sched_task_tell_picture(struct oc_scheduler *s, struct oc_sched_task *t, int picture) {
    if (t->is_ended || t->pictures[picture].is_told) return;
    t->pictures[picture].is_told = true;
    if (s->ev.on_picture) s->ev.on_picture(s->ev.arg, t->id, picture);
}

static void give_picture(struct oc_scheduler *s, struct oc_sched_task *t, struct oc_sched_view *v) {
    if (!v->embedding) return;
    oc_sched_encode_leave(s, t, v->embedding);
    oc_engine_embed_cache_give(&s->embeds, v->embedding);
    v->embedding = NULL;
    s->admit_again = true;
}

void oc_sched_task_give_pictures(struct oc_scheduler *s, struct oc_sched_task *t) {
    for (int i = 0; i < t->n_pictures; i++) give_picture(s, t, &t->pictures[i]);
}

void oc_sched_task_pass_pictures(struct oc_scheduler *s, struct oc_sched_task *t, int n_done) {
    for (int i = 0; i < t->n_pictures; i++) {
        struct oc_sched_view *v = &t->pictures[i];
        if (v->is_passed || v->from + v->p.plan.n_tokens > n_done) continue;
        v->is_passed = true;
        oc_sched_task_tell_picture(s, t, i);
        give_picture(s, t, v);
        s->figures.n_embed_queries++;
        if (v->is_own) continue;
        s->figures.n_embed_hits++;
        t->done.n_image_cached += v->p.plan.n_tokens;
    }
}

void oc_sched_task_refresh(struct oc_scheduler *s, struct oc_sched_task *t) {
    struct oc_session *q = t->session;
    int before = q->n_tokens;
    for (int i = q->n_tokens / OC_LM_PAGE_TOKENS; q->n_tokens % OC_LM_PAGE_TOKENS == 0; i++) {
        if (i >= t->n_keys || (i + 1) * OC_LM_PAGE_TOKENS >= t->n_prompt) break; /* the last token is always run */
        int32_t page = oc_engine_prefix_cache_find(&s->prefix, &t->keys[i]);
        if (page < 0) break;
        oc_engine_prefix_cache_hold(&s->prefix, page);
        oc_engine_prefix_cache_give(&s->prefix, &q->pages[i], 1);
        q->pages[i] = page;
        oc_engine_session_commit(q, t->tokens + q->n_tokens, (const int32_t(*)[3])(q->pos + q->n_tokens), OC_LM_PAGE_TOKENS);
    }
    t->done.n_cached += q->n_tokens - before;
    if (q->n_tokens > before) oc_sched_task_pass_pictures(s, t, q->n_tokens);
}

void oc_sched_task_end(struct oc_scheduler *s, struct oc_sched_task *t, enum oc_sched_finish finish, const struct oc_errinfo *error) {
    if (t->is_ended) return;
    t->is_ended = true;
    t->done.finish = finish;
    if (error) t->done.error = *error;
    if (t->is_decoding) s->n_decoding--;
    t->is_decoding = false;
    if (!t->in_pass) oc_sched_task_give_pictures(s, t); /* a pass may still read them */
}
