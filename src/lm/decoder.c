#include "lm/decoder.h"

#include <math.h>

#include "base/carve.h"

static size_t lay_out(struct oc_lm_workspace *ws, const struct oc_lm *lm, int64_t rows, int64_t outs, uint8_t *mem) {
    size_t at = 0;
    int64_t q_dim = (int64_t)lm->n_heads * lm->hd, kv_dim = (int64_t)lm->n_kv_heads * lm->hd;
    ws->h = oc_carve_floats(mem, &at, rows * lm->dim);
    ws->x = oc_carve_floats(mem, &at, rows * lm->dim);
    ws->q = oc_carve_floats(mem, &at, rows * q_dim);
    ws->k = oc_carve_floats(mem, &at, rows * kv_dim);
    ws->v = oc_carve_floats(mem, &at, rows * kv_dim);
    ws->attn = oc_carve_floats(mem, &at, rows * q_dim);
    ws->mlp = oc_carve_floats(mem, &at, rows * lm->inter);
    ws->cos = oc_carve_floats(mem, &at, rows * (lm->hd / 2));
    ws->sin = oc_carve_floats(mem, &at, rows * (lm->hd / 2));
    ws->out = oc_carve_floats(mem, &at, outs * lm->dim);
    return at;
}

size_t oc_lm_decoder_workspace_bytes(const struct oc_lm *lm, int max_rows, int max_outputs) {
    struct oc_lm_workspace ws;
    return lay_out(&ws, lm, max_rows, max_outputs, NULL);
}

void oc_lm_decoder_workspace_init(struct oc_lm_workspace *ws, const struct oc_lm *lm, int max_rows, int max_outputs,
                                  uint8_t *mem) {
    lay_out(ws, lm, max_rows, max_outputs, mem);
}

static uint64_t weight_bytes(const struct oc_weight *w) {
    uint64_t n = (uint64_t)w->n * (uint64_t)w->k;
    if (w->bits == 0) return n * oc_dtype_bytes(w->dtype);
    return n * w->bits / 8 + n / w->group * 2 * oc_dtype_bytes(w->dtype);
}

uint64_t oc_lm_decoder_bytes_per_token(const struct oc_lm *lm) {
    uint64_t n = weight_bytes(&lm->head);
    for (int i = 0; i < lm->n_layers; i++) {
        const struct oc_lm_layer *l = &lm->layers[i];
        n += weight_bytes(&l->q) + weight_bytes(&l->k) + weight_bytes(&l->v) + weight_bytes(&l->o);
        n += weight_bytes(&l->gate) + weight_bytes(&l->up) + weight_bytes(&l->down);
    }
    return n;
}

/* Rows [from, to) of a stage. */
struct span {
    int from, to;
};

/* The part of a span that has one role: kernels take one role per call. */
struct run {
    enum oc_role role;
    int64_t from, m;
};

/* Cuts a span at the first row of role P; returns the number of runs. */
static int cut_runs(const struct oc_lm_pass *p, struct span r, struct run runs[2]) {
    int n = 0, d_end = r.to < p->b.n_d ? r.to : p->b.n_d, p_from = r.from > p->b.n_d ? r.from : p->b.n_d;
    if (r.from < d_end) runs[n++] = (struct run){OC_ROLE_D, r.from, d_end - r.from};
    if (p_from < r.to) runs[n++] = (struct run){OC_ROLE_P, p_from, r.to - p_from};
    return n;
}

/* cos and sin of each row's angles: frequency i turns with the axis that rope_section gives it. */
static void fill_angles(const struct oc_lm_pass *p, struct span r) {
    const struct oc_lm *lm = p->lm;
    int half = lm->hd / 2;
    for (int row = r.from; row < r.to; row++) {
        float *c = p->ws->cos + (int64_t)row * half, *s = p->ws->sin + (int64_t)row * half;
        for (int axis = 0, i = 0; axis < 3; axis++) {
            float pos = (float)p->b.pos[row][axis];
            for (int end = i + lm->rope_section[axis]; i < end; i++) {
                float angle = lm->inv_freq[i] * pos;
                c[i] = cosf(angle);
                s[i] = sinf(angle);
            }
        }
    }
}

/* The input rows: gathered from the embedding matrix, or given ready. */
static void embed(const struct oc_lm_pass *p, struct span span) {
    const struct oc_lm *lm = p->lm;
    const float *const *ready = p->b.embeddings;
    for (int r = span.from; r < span.to;) {
        float *h = p->ws->h + (int64_t)r * lm->dim;
        if (ready && ready[r]) {
            for (int i = 0; i < lm->dim; i++) h[i] = ready[r][i];
            r++;
            continue;
        }
        int end = r + 1;
        while (end < span.to && !(ready && ready[end])) end++;
        p->ops->embed(p->ctx, &(struct oc_embed){.m = end - r, .ids = p->b.tokens + r, .w = &lm->embed, .y = h, .ldy = lm->dim});
        r = end;
    }
    fill_angles(p, span);
}

static void norm_rows(const struct oc_lm_pass *p, const float *x, const float *w, float *y, int64_t m) {
    p->ops->rmsnorm(p->ctx, &(struct oc_rmsnorm){.m = m,
                                                 .d = p->lm->dim,
                                                 .x = x,
                                                 .ldx = p->lm->dim,
                                                 .w = w,
                                                 .eps = p->lm->eps,
                                                 .y = y,
                                                 .ldy = p->lm->dim});
}

static void add_linear(const struct oc_lm_pass *p, const struct run *r, const float *x, const struct oc_weight *w) {
    p->ops->linear(p->ctx, &(struct oc_linear){.role = r->role,
                                               .m = r->m,
                                               .x = x + r->from * w->k,
                                               .ldx = w->k,
                                               .w = w,
                                               .y = p->ws->h + r->from * p->lm->dim,
                                               .ldy = p->lm->dim,
                                               .add = true});
}

static void linear3(const struct oc_lm_pass *p, const struct run *r, const struct oc_lm_layer *l) {
    const struct oc_weight *w[3] = {&l->q, &l->k, &l->v};
    float *y[3] = {p->ws->q, p->ws->k, p->ws->v};
    struct oc_linear3 a = {.role = r->role, .m = r->m, .x = p->ws->x + r->from * p->lm->dim, .ldx = p->lm->dim};
    for (int j = 0; j < 3; j++) {
        a.w[j] = w[j];
        a.y[j] = y[j] + r->from * w[j]->n;
        a.ldy[j] = w[j]->n;
    }
    p->ops->linear3(p->ctx, &a);
}

static void rotate(const struct oc_lm_pass *p, struct span r, float *x, int n_heads) {
    int64_t ld = (int64_t)n_heads * p->lm->hd, half = p->lm->hd / 2;
    p->ops->rope(p->ctx, &(struct oc_rope){.m = r.to - r.from,
                                           .n_heads = n_heads,
                                           .hd = p->lm->hd,
                                           .x = x + r.from * ld,
                                           .ldx = ld,
                                           .cos = p->ws->cos + r.from * half,
                                           .sin = p->ws->sin + r.from * half});
}

static void project_qkv(const struct oc_lm_pass *p, struct span r) {
    const struct oc_lm *lm = p->lm;
    const struct oc_lm_layer *l = &lm->layers[p->layer];
    struct run runs[2];
    int64_t at = (int64_t)r.from * lm->dim, kv_dim = (int64_t)lm->n_kv_heads * lm->hd;
    int n = cut_runs(p, r, runs);
    norm_rows(p, p->ws->h + at, l->attn_norm, p->ws->x + at, r.to - r.from);
    for (int i = 0; i < n; i++) linear3(p, &runs[i], l);
    rotate(p, r, p->ws->q, lm->n_heads);
    rotate(p, r, p->ws->k, lm->n_kv_heads);
    p->ops->kv_append(p->ctx, &(struct oc_kv_append){.m = r.to - r.from,
                                                     .k = p->ws->k + r.from * kv_dim,
                                                     .v = p->ws->v + r.from * kv_dim,
                                                     .ldk = kv_dim,
                                                     .ldv = kv_dim,
                                                     .rows = p->b.kv_rows + r.from,
                                                     .kv = oc_lm_kv_cache_layer(p->kv, p->layer)});
}

static void attend(const struct oc_lm_pass *p, struct span r) {
    const struct oc_lm *lm = p->lm;
    int64_t q_dim = (int64_t)lm->n_heads * lm->hd;
    p->ops->attn_paged(p->ctx, &(struct oc_attn_paged){.m = r.to - r.from,
                                                       .n_heads = lm->n_heads,
                                                       .scale = 1.0f / sqrtf((float)lm->hd),
                                                       .q = p->ws->q + r.from * q_dim,
                                                       .ldq = q_dim,
                                                       .rows = p->b.kv_rows + r.from,
                                                       .kv = oc_lm_kv_cache_layer(p->kv, p->layer),
                                                       .y = p->ws->attn + r.from * q_dim,
                                                       .ldy = q_dim});
}

static void gated(const struct oc_lm_pass *p, const struct run *r, const struct oc_lm_layer *l) {
    p->ops->linear_glu(p->ctx, &(struct oc_linear_glu){.role = r->role,
                                                       .m = r->m,
                                                       .x = p->ws->x + r->from * p->lm->dim,
                                                       .ldx = p->lm->dim,
                                                       .gate = &l->gate,
                                                       .up = &l->up,
                                                       .y = p->ws->mlp + r->from * p->lm->inter,
                                                       .ldy = p->lm->inter,
                                                       .act = p->lm->act});
}

static void mix(const struct oc_lm_pass *p, struct span r) {
    const struct oc_lm_layer *l = &p->lm->layers[p->layer];
    struct run runs[2];
    int n = cut_runs(p, r, runs);
    int64_t at = (int64_t)r.from * p->lm->dim;
    attend(p, r);
    for (int i = 0; i < n; i++) add_linear(p, &runs[i], p->ws->attn, &l->o);
    norm_rows(p, p->ws->h + at, l->mlp_norm, p->ws->x + at, r.to - r.from);
    for (int i = 0; i < n; i++) gated(p, &runs[i], l);
    for (int i = 0; i < n; i++) add_linear(p, &runs[i], p->ws->mlp, &l->down);
}

/* The head runs in role D whatever the row's own role: few rows, one answer. */
static void head(const struct oc_lm_pass *p, struct span r) {
    const struct oc_lm *lm = p->lm;
    for (int i = r.from; i < r.to; i++)
        norm_rows(p, p->ws->h + (int64_t)p->b.outputs[i] * lm->dim, lm->final_norm, p->ws->out + (int64_t)i * lm->dim, 1);
    p->ops->linear(p->ctx, &(struct oc_linear){.role = OC_ROLE_D,
                                               .m = r.to - r.from,
                                               .x = p->ws->out + (int64_t)r.from * lm->dim,
                                               .ldx = lm->dim,
                                               .w = &lm->head,
                                               .y = p->b.logits + (int64_t)r.from * lm->n_vocab,
                                               .ldy = lm->n_vocab});
}

typedef void stage_fn(const struct oc_lm_pass *p, struct span r);

static stage_fn *const stages[OC_LM_N_STAGES] = {
    [OC_LM_EMBED] = embed, [OC_LM_QKV] = project_qkv, [OC_LM_MIX] = mix, [OC_LM_HEAD] = head};

static int stage_rows(const struct oc_lm_pass *p) {
    return p->stage == OC_LM_HEAD ? p->b.n_outputs : p->b.n_rows;
}

/* The stage's rows are all done: tells the trace and goes to the next that has any. */
static void end_stage(struct oc_lm_pass *p) {
    enum oc_lm_stage done = p->stage;
    p->row = 0;
    p->stage = done + 1;
    if (done == OC_LM_MIX && ++p->layer < p->lm->n_layers) p->stage = OC_LM_QKV;
    if (p->stage == OC_LM_HEAD && p->b.n_outputs == 0) p->stage = OC_LM_N_STAGES;
    const struct oc_lm_trace *t = p->trace;
    if (t && done == OC_LM_EMBED) t->fn(t->arg, "embed", -1, p->ws->h, p->b.n_rows, p->lm->dim);
    if (t && done == OC_LM_MIX) t->fn(t->arg, "layer", p->layer - 1, p->ws->h, p->b.n_rows, p->lm->dim);
}

void oc_lm_decoder_begin(struct oc_lm_pass *p, const struct oc_lm *lm, const struct oc_ops *ops, const struct oc_kctx *ctx,
                         const struct oc_lm_kv_cache *kv, struct oc_lm_workspace *ws, const struct oc_lm_batch *b,
                         const struct oc_lm_trace *trace) {
    *p = (struct oc_lm_pass){.lm = lm, .ops = ops, .ctx = ctx, .kv = kv, .ws = ws, .b = *b, .trace = trace};
    for (int i = 0; i < b->n_rows; i++) p->mean_keys += (double)(b->kv_rows[i].slot + 1) / b->n_rows;
}

bool oc_lm_decoder_next(const struct oc_lm_pass *p, struct oc_lm_piece *next) {
    if (p->stage == OC_LM_N_STAGES) return false;
    const struct oc_lm *lm = p->lm;
    double dim = lm->dim, q_dim = (double)lm->n_heads * lm->hd, kv_dim = (double)lm->n_kv_heads * lm->hd;
    const double macs[OC_LM_N_STAGES] = {
        [OC_LM_EMBED] = dim + 32.0 * lm->hd, /* sines, not multiplications: about as long */
        [OC_LM_QKV] = dim * (q_dim + 2 * kv_dim),
        [OC_LM_MIX] = 2 * q_dim * p->mean_keys + q_dim * dim + 3 * dim * lm->inter,
        [OC_LM_HEAD] = dim * lm->n_vocab,
    };
    *next = (struct oc_lm_piece){p->stage, stage_rows(p) - p->row, macs[p->stage]};
    return true;
}

void oc_lm_decoder_step(struct oc_lm_pass *p, int n_rows) {
    OC_ASSERT(p->stage < OC_LM_N_STAGES && n_rows > 0);
    int left = stage_rows(p) - p->row;
    struct span r = {p->row, p->row + (n_rows < left ? n_rows : left)};
    stages[p->stage](p, r);
    p->row = r.to;
    if (p->row == stage_rows(p)) end_stage(p);
}

void oc_lm_decoder_forward(const struct oc_lm *lm, const struct oc_ops *ops, const struct oc_kctx *ctx,
                           const struct oc_lm_kv_cache *kv, struct oc_lm_workspace *ws,
                           const struct oc_lm_batch *b, const struct oc_lm_trace *trace) {
    struct oc_lm_pass p;
    struct oc_lm_piece next;
    oc_lm_decoder_begin(&p, lm, ops, ctx, kv, ws, b, trace);
    while (oc_lm_decoder_next(&p, &next)) oc_lm_decoder_step(&p, next.n_rows);
}
