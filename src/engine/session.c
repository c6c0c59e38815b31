#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"

int oc_engine_session_n_pages(int n_tokens) {
    return (n_tokens + OC_LM_PAGE_TOKENS - 1) / OC_LM_PAGE_TOKENS;
}

static struct oc_session *free_place(struct oc_engine *e) {
    for (int i = 0; i < e->n_sessions; i++)
        if (!e->sessions[i].engine) return &e->sessions[i];
    return NULL;
}

static void free_arrays(struct oc_session *s) {
    free(s->pages);
    free(s->tokens);
    free(s->next_pos);
    free(s->pos);
    *s = (struct oc_session){0};
}

static enum oc_err take_arrays(struct oc_session *s, int n_pages, struct oc_errinfo *ei) {
    size_t n = (size_t)s->max_tokens;
    s->pages = malloc((size_t)n_pages * sizeof *s->pages);
    s->tokens = malloc(n * sizeof *s->tokens);
    s->next_pos = malloc(n * sizeof *s->next_pos);
    s->pos = malloc(n * sizeof *s->pos);
    if (s->pages && s->tokens && s->next_pos && s->pos) return OC_OK;
    return oc_fail(ei, OC_ERR_NOMEM, "out of memory for a session of %d tokens", s->max_tokens);
}

enum oc_err oc_engine_session_open(struct oc_engine *e, int max_tokens, const int32_t *prefix, int n_prefix,
                                   struct oc_session **out, struct oc_errinfo *ei) {
    *out = NULL;
    if (max_tokens < 1 || max_tokens > e->info.ctx_tokens)
        return oc_fail(ei, OC_ERR_LIMIT, "a sequence of %d tokens does not fit in the context of %d: see --ctx", max_tokens, e->info.ctx_tokens);
    struct oc_session *s = free_place(e);
    if (!s) return oc_fail(ei, OC_ERR_LIMIT, "all %d sessions are in use", e->n_sessions);
    int n_pages = oc_engine_session_n_pages(max_tokens), n_own = n_pages - n_prefix;
    *s = (struct oc_session){.max_tokens = max_tokens};
    enum oc_err err = take_arrays(s, n_pages, ei);
    if (err == OC_OK && !oc_lm_kv_cache_take(&e->kv, s->pages + n_prefix, n_own))
        err = oc_fail(ei, OC_ERR_LIMIT, "a session of %d tokens needs %d KV pages, %d are free", max_tokens, n_own, e->kv.n_free);
    if (err != OC_OK) {
        free_arrays(s);
        return err;
    }
    if (n_prefix) memcpy(s->pages, prefix, (size_t)n_prefix * sizeof *prefix);
    s->engine = e;
    *out = s;
    return OC_OK;
}

enum oc_err oc_session_open(struct oc_engine *e, int max_tokens, struct oc_session **out, struct oc_errinfo *ei) {
    return oc_engine_session_open(e, max_tokens, NULL, 0, out, ei);
}

void oc_session_close(struct oc_session *s) {
    if (!s) return;
    struct oc_engine *e = s->engine;
    int n_pages = oc_engine_session_n_pages(s->max_tokens);
    if (e->prefix_cache) oc_engine_prefix_cache_give(e->prefix_cache, s->pages, n_pages);
    else oc_lm_kv_cache_give(&e->kv, s->pages, n_pages);
    free_arrays(s);
}

int oc_session_n_tokens(const struct oc_session *s) {
    return s->n_tokens;
}

int oc_session_max_tokens(const struct oc_session *s) {
    return s->max_tokens;
}

void oc_session_truncate(struct oc_session *s, int n_tokens) {
    OC_ASSERT(n_tokens >= 0 && n_tokens <= s->n_tokens);
    s->n_tokens = n_tokens;
    s->logits = NULL;
}

float *oc_session_logits(struct oc_session *s) {
    return s->logits;
}

int32_t oc_engine_session_next_pos(const struct oc_session *s) {
    return s->n_tokens ? s->next_pos[s->n_tokens - 1] : 0;
}

/* The largest position so far decides what follows. */
void oc_engine_session_commit(struct oc_session *s, const int32_t *tokens, const int32_t (*pos)[3], int n) {
    int32_t next = oc_engine_session_next_pos(s);
    OC_ASSERT(n <= s->max_tokens - s->n_tokens);
    for (int i = 0; i < n; i++) {
        for (int axis = 0; axis < 3; axis++)
            if (pos[i][axis] >= next) next = pos[i][axis] + 1;
        s->tokens[s->n_tokens] = tokens[i];
        s->next_pos[s->n_tokens++] = next;
    }
}

/* Walks the placeholders of a prompt: the embedding row that stands at each. */
struct picture_cursor {
    const struct oc_prompt *prompt;
    int picture, row;
};

static const float *next_embedding(struct picture_cursor *c, int64_t dim) {
    const struct oc_prompt_picture *p = &c->prompt->pictures[c->picture];
    const float *row = p->embedding + c->row * dim;
    if (++c->row == p->plan.n_tokens) {
        c->row = 0;
        c->picture++;
    }
    return row;
}

static int fill_chunk(struct oc_session *s, struct picture_cursor *c, int from) {
    struct oc_engine *e = s->engine;
    const struct oc_prompt *p = c->prompt;
    int n = p->n_tokens - from;
    if (n > OC_ENGINE_CHUNK_ROWS) n = OC_ENGINE_CHUNK_ROWS;
    for (int i = 0; i < n; i++) {
        int32_t token = p->tokens[from + i];
        struct oc_row *r = &e->step.rows[i];
        *r = (struct oc_row){.session = s, .slot = s->n_tokens + i, .role = OC_ROW_PREFILL, .token = token};
        memcpy(r->pos, s->pos[from + i], sizeof r->pos);
        if (token == e->info.image_token) r->embedding = next_embedding(c, e->info.dim);
        if (from + i == p->n_tokens - 1) r->output = OC_ROW_LOGITS;
    }
    return n;
}

enum oc_err oc_session_prefill(struct oc_session *s, const struct oc_prompt *prompt,
                               bool (*on_chunk)(void *arg, int n_done, int n_all), void *arg, struct oc_errinfo *ei) {
    struct oc_engine *e = s->engine;
    int32_t next;
    if (prompt->n_tokens < 1) return oc_fail(ei, OC_ERR_FORMAT, "an empty prompt: there is nothing to answer");
    if (prompt->n_tokens > s->max_tokens - s->n_tokens)
        return oc_fail(ei, OC_ERR_LIMIT, "%d more tokens do not fit behind %d in a sequence of %d", prompt->n_tokens, s->n_tokens, s->max_tokens);
    OC_TRY(oc_model_positions(e->model, prompt, oc_engine_session_next_pos(s), s->pos, &next, ei));
    struct picture_cursor c = {.prompt = prompt};
    for (int from = 0; from < prompt->n_tokens;) {
        int n = fill_chunk(s, &c, from);
        OC_TRY(oc_engine_step(e, e->step.rows, n, ei));
        oc_engine_session_commit(s, prompt->tokens + from, (const int32_t(*)[3])(s->pos + from), n);
        from += n;
        if (on_chunk && !on_chunk(arg, from, prompt->n_tokens)) return oc_fail(ei, OC_ERR_CANCELLED, "cancelled while reading the prompt");
    }
    s->logits = oc_engine_logits(e, 0);
    return OC_OK;
}

struct oc_row oc_engine_session_row(struct oc_session *s, int ahead, int32_t token) {
    const int32_t at = oc_engine_session_next_pos(s) + ahead;
    return (struct oc_row){.session = s, .slot = s->n_tokens + ahead, .pos = {at, at, at}, .role = OC_ROW_DECODE,
                           .token = token, .output = OC_ROW_LOGITS};
}

enum oc_err oc_session_decode_several(struct oc_session *s, const int32_t *tokens, int n, struct oc_errinfo *ei) {
    struct oc_engine *e = s->engine;
    if (n < 1 || n > e->max_outputs) return oc_fail(ei, OC_ERR_LIMIT, "%d tokens at once, allowed are 1 to %d", n, e->max_outputs);
    if (n > s->max_tokens - s->n_tokens)
        return oc_fail(ei, OC_ERR_LIMIT, "the sequence is full: it has %d tokens of %d", s->n_tokens, s->max_tokens);
    for (int i = 0; i < n; i++) e->step.rows[i] = oc_engine_session_row(s, i, tokens[i]);
    OC_TRY(oc_engine_step(e, e->step.rows, n, ei));
    for (int i = 0; i < n; i++) oc_engine_session_commit(s, &tokens[i], (const int32_t(*)[3]) & e->step.rows[i].pos, 1);
    s->logits = oc_engine_logits(e, n - 1);
    return OC_OK;
}

enum oc_err oc_session_decode(struct oc_session *s, int32_t token, struct oc_errinfo *ei) {
    return oc_session_decode_several(s, &token, 1, ei);
}

enum oc_err oc_prompt_expand(const struct oc_engine *e, const int32_t *ids, int n_ids, const struct oc_picture_plan *plans,
                             int n_plans, int32_t *out, int out_cap, int *n_out, struct oc_errinfo *ei) {
    int n = 0, picture = 0;
    for (int i = 0; i < n_ids; i++) {
        int repeat = 1;
        if (e->info.image_token >= 0 && ids[i] == e->info.image_token) {
            if (picture == n_plans)
                return oc_fail(ei, OC_ERR_FORMAT, "the chat template made more than %d places for %d pictures", n_plans, n_plans);
            repeat = plans[picture++].n_tokens;
        }
        for (int j = 0; j < repeat; j++, n++)
            if (n < out_cap) out[n] = ids[i];
    }
    *n_out = n;
    if (picture != n_plans)
        return oc_fail(ei, OC_ERR_FORMAT, "%d pictures were given, but the chat template made %d places", n_plans, picture);
    if (n > out_cap && out_cap > 0) return oc_fail(ei, OC_ERR_LIMIT, "the prompt has %d tokens, room is for %d", n, out_cap);
    return OC_OK;
}
