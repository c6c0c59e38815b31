#include "engine/engine.h"

int oc_engine_max_rows(const struct oc_engine *e) {
    return e->max_rows;
}

int oc_engine_max_outputs(const struct oc_engine *e) {
    return e->max_outputs;
}

float *oc_engine_logits(struct oc_engine *e, int i) {
    return e->logits + (int64_t)i * e->info.n_vocab;
}

static enum oc_err check_rows(const struct oc_engine *e, const struct oc_row *rows, int n_rows, struct oc_errinfo *ei) {
    int n_outputs = 0;
    if (n_rows < 1 || n_rows > e->max_rows)
        return oc_fail(ei, OC_ERR_LIMIT, "a step of %d rows, allowed are 1 to %d", n_rows, e->max_rows);
    for (int i = 0; i < n_rows; i++) {
        const struct oc_row *r = &rows[i];
        if (r->slot < 0 || r->slot >= r->session->max_tokens)
            return oc_fail(ei, OC_ERR_LIMIT, "token %d of a sequence that has room for %d", r->slot + 1, r->session->max_tokens);
        if (!r->embedding && (r->token < 0 || r->token >= e->info.n_vocab))
            return oc_fail(ei, OC_ERR_FORMAT, "token id %d is outside the vocabulary of %d", r->token, e->info.n_vocab);
        OC_ASSERT(e->kv.n_holders[r->session->pages[r->slot / OC_LM_PAGE_TOKENS]] == 1); /* a shared page is read only */
        n_outputs += r->output != OC_ROW_NONE;
    }
    if (n_outputs > e->max_outputs)
        return oc_fail(ei, OC_ERR_LIMIT, "a step with %d outputs, allowed are %d", n_outputs, e->max_outputs);
    return OC_OK;
}

/* Decode rows first, else in the caller's order; returns the number of decode rows. */
static int order_rows(struct oc_engine *e, const struct oc_row *rows, int n_rows) {
    int n = 0, n_d;
    for (int i = 0; i < n_rows; i++)
        if (rows[i].role == OC_ROW_DECODE) e->step.order[n++] = i;
    n_d = n;
    for (int i = 0; i < n_rows; i++)
        if (rows[i].role == OC_ROW_PREFILL) e->step.order[n++] = i;
    return n_d;
}

static void fill_rows(struct oc_engine *e, const struct oc_row *rows, int n_rows) {
    struct oc_engine_step_arrays *s = &e->step;
    for (int i = 0; i < n_rows; i++) {
        const struct oc_row *r = &rows[s->order[i]];
        s->tokens[i] = r->token;
        s->embeddings[i] = r->embedding;
        for (int axis = 0; axis < 3; axis++) s->pos[i][axis] = r->pos[axis];
        s->kv_rows[i] = (struct oc_kv_row){
            .pages = r->session->pages,
            .slot = r->slot,
            .role = r->role == OC_ROW_DECODE ? OC_ROLE_D : OC_ROLE_P,
        };
    }
}

/* outputs[i]: the decoder's row of the caller's i-th row with output. */
static int fill_outputs(struct oc_engine *e, const struct oc_row *rows, int n_rows) {
    int n = 0;
    int32_t *place = e->step.outputs;
    for (int i = 0; i < n_rows; i++) {
        if (rows[i].output == OC_ROW_NONE) continue;
        int at = 0;
        while (e->step.order[at] != i) at++;
        place[n++] = at;
    }
    return n;
}

enum oc_err oc_engine_step(struct oc_engine *e, const struct oc_row *rows, int n_rows, struct oc_errinfo *ei) {
    OC_TRY(check_rows(e, rows, n_rows, ei));
    int n_d = order_rows(e, rows, n_rows);
    fill_rows(e, rows, n_rows);
    struct oc_lm_batch b = {
        .n_rows = n_rows,
        .n_d = n_d,
        .tokens = e->step.tokens,
        .embeddings = e->step.embeddings,
        .pos = (const int32_t(*)[3])e->step.pos,
        .kv_rows = e->step.kv_rows,
        .outputs = e->step.outputs,
        .n_outputs = fill_outputs(e, rows, n_rows),
        .logits = e->logits,
    };
    oc_lm_decoder_forward(&e->model->lm, e->dev, &e->ctx, &e->kv, &e->lm_ws, &b, e->lm_trace);
    return OC_OK;
}
