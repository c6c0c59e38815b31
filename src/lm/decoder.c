#include "lm/decoder.h"

#include <math.h>
#include <stdlib.h>

#include "base/carve.h"
#include "kernels/finite.h"

#define STAGED_ROWS 1024 /* whose angles go to a device at once: each trip has its price */

static size_t lay_out(struct oc_lm_workspace *ws, const struct oc_lm *lm, bool is_host, int64_t rows, int64_t outs, uint8_t *mem) {
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
    ws->logits = is_host ? NULL : oc_carve_floats(mem, &at, outs * lm->n_vocab);
    return at;
}

size_t oc_lm_decoder_workspace_bytes(const struct oc_lm *lm, bool is_host, int max_rows, int max_outputs) {
    struct oc_lm_workspace ws;
    return lay_out(&ws, lm, is_host, max_rows, max_outputs, NULL);
}

/* Cosines and sines of rows, or (see is_finite) a whole row, or a few numbers of each of some rows. */
size_t oc_lm_decoder_staging_bytes(const struct oc_lm *lm, bool is_host) {
    size_t n = (size_t)STAGED_ROWS * (size_t)lm->hd;
    if (n < (size_t)lm->dim) n = (size_t)lm->dim;
    return is_host ? 0 : n * sizeof(float);
}

void oc_lm_decoder_workspace_init(struct oc_lm_workspace *ws, const struct oc_lm *lm, bool is_host, int max_rows, int max_outputs,
                                  uint8_t *mem, uint8_t *staging) {
    lay_out(ws, lm, is_host, max_rows, max_outputs, mem);
    ws->staging = is_host ? NULL : (float *)(void *)staging;
}

/* ---- Weights ---------------------------------------------------------------------------------------------- */

static enum oc_err take_layer(struct oc_lm_layer *l, int dim, struct oc_device_walk *k, struct oc_errinfo *ei) {
    struct oc_weight *const weights[] = {&l->q, &l->k, &l->v, &l->o, &l->gate, &l->up, &l->down};
    OC_TRY(oc_device_walk_floats(k, &l->attn_norm, dim, ei));
    OC_TRY(oc_device_walk_floats(k, &l->mlp_norm, dim, ei));
    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++) OC_TRY(oc_device_walk_weight(k, weights[i], ei));
    return OC_OK;
}

enum oc_err oc_lm_decoder_take(struct oc_lm *lm, struct oc_device_walk *k, struct oc_errinfo *ei) {
    bool tied = lm->head.w == lm->embed.w;
    OC_TRY(oc_device_walk_weight(k, &lm->embed, ei));
    for (int i = 0; i < lm->n_layers; i++) OC_TRY(take_layer(&lm->layers[i], lm->dim, k, ei));
    OC_TRY(oc_device_walk_floats(k, &lm->final_norm, lm->dim, ei));
    if (!tied) return oc_device_walk_weight(k, &lm->head, ei);
    return k->d ? k->d->take_weight(k->d, &lm->head, ei) : OC_OK; /* brought and counted already */
}

uint64_t oc_lm_decoder_bytes_per_token(const struct oc_lm *lm) {
    uint64_t n = oc_weight_bytes(&lm->head);
    for (int i = 0; i < lm->n_layers; i++) {
        const struct oc_lm_layer *l = &lm->layers[i];
        n += oc_weight_bytes(&l->q) + oc_weight_bytes(&l->k) + oc_weight_bytes(&l->v) + oc_weight_bytes(&l->o);
        n += oc_weight_bytes(&l->gate) + oc_weight_bytes(&l->up) + oc_weight_bytes(&l->down);
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

/* cos and sin of a row's angles: frequency i turns with the axis that rope_section gives it. */
static void fill_row(const struct oc_lm *lm, const int32_t pos[3], float *c, float *s) {
    for (int axis = 0, i = 0; axis < 3; axis++) {
        float at = (float)pos[axis];
        for (int end = i + lm->rope_section[axis]; i < end; i++) {
            float angle = lm->inv_freq[i] * at;
            c[i] = cosf(angle);
            s[i] = sinf(angle);
        }
    }
}

#define SPREAD_ROWS 64 /* from so many rows on, sines take longer than waking the other threads */

struct angles {
    const struct oc_lm *lm;
    const int32_t (*pos)[3];
    int64_t n;
    float *cos, *sin; /* [n, hd/2] */
};

static void fill_some(void *arg, int thread, int n_threads) {
    const struct angles *a = arg;
    int64_t half = a->lm->hd / 2;
    for (int64_t i = a->n * thread / n_threads; i < a->n * (thread + 1) / n_threads; i++)
        fill_row(a->lm, a->pos[i], a->cos + i * half, a->sin + i * half);
}

static void fill_rows(const struct oc_kctx *ctx, struct angles *a) {
    if (a->n < SPREAD_ROWS) fill_some(a, 0, 1);
    else oc_pool_run(ctx->pool, fill_some, a);
}

/* Where device memory is the host's they are made in place. */
static void fill_angles(const struct oc_lm_pass *p, struct span r) {
    int64_t half = p->lm->hd / 2;
    for (int64_t from = r.from; from < r.to; from += STAGED_ROWS) {
        int64_t n = r.to - from < STAGED_ROWS ? r.to - from : STAGED_ROWS;
        float *cos_there = p->ws->cos + from * half, *sin_there = p->ws->sin + from * half;
        float *c = p->dev->is_host ? cos_there : p->ws->staging, *s = p->dev->is_host ? sin_there : c + n * half;
        fill_rows(p->ctx, &(struct angles){.lm = p->lm, .pos = p->b.pos + from, .n = n, .cos = c, .sin = s});
        if (p->dev->is_host) continue;
        p->dev->put(p->dev, cos_there, c, (size_t)(n * half) * sizeof *c);
        p->dev->put(p->dev, sin_there, s, (size_t)(n * half) * sizeof *s);
    }
}

/* The end of the rows from r on that are ready and lie behind each other. */
static int ready_end(const float *const *ready, int r, int to, int dim) {
    int end = r + 1;
    while (end < to && ready[end] && ready[end] == ready[end - 1] + dim) end++;
    return end;
}

/* The input rows: gathered from the embedding matrix, or given ready. */
static void embed(const struct oc_lm_pass *p, struct span span) {
    const struct oc_lm *lm = p->lm;
    const float *const *ready = p->b.embeddings;
    for (int r = span.from, end; r < span.to; r = end) {
        float *h = p->ws->h + (int64_t)r * lm->dim;
        if (ready && ready[r]) {
            end = ready_end(ready, r, span.to, lm->dim);
            p->dev->put(p->dev, h, ready[r], (size_t)(end - r) * (size_t)lm->dim * sizeof *h);
            continue;
        }
        end = r + 1;
        while (end < span.to && !(ready && ready[end])) end++;
        p->ops->embed(p->ctx, &(struct oc_embed){.m = end - r, .ids = p->b.tokens + r, .w = &lm->embed, .y = h, .ldy = lm->dim});
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

/* Norms of the outputs' rows; those that follow each other at once. */
static void norm_outputs(const struct oc_lm_pass *p, struct span r) {
    const int32_t *rows = p->b.outputs;
    for (int i = r.from, end; i < r.to; i = end) {
        end = i + 1;
        while (end < r.to && rows[end] == rows[end - 1] + 1) end++;
        norm_rows(p, p->ws->h + (int64_t)rows[i] * p->lm->dim, p->lm->final_norm, p->ws->out + (int64_t)i * p->lm->dim, end - i);
    }
}

static float *logits_there(const struct oc_lm_pass *p) {
    return p->dev->is_host ? p->b.logits : p->ws->logits;
}

/* The head runs in role D whatever the row's own role: few rows, one answer. */
static void head(const struct oc_lm_pass *p, struct span r) {
    const struct oc_lm *lm = p->lm;
    norm_outputs(p, r);
    p->ops->linear(p->ctx, &(struct oc_linear){.role = OC_ROLE_D,
                                               .m = r.to - r.from,
                                               .x = p->ws->out + (int64_t)r.from * lm->dim,
                                               .ldx = lm->dim,
                                               .w = &lm->head,
                                               .y = logits_there(p) + (int64_t)r.from * lm->n_vocab,
                                               .ldy = lm->n_vocab});
}

typedef void stage_fn(const struct oc_lm_pass *p, struct span r);

static stage_fn *const stages[OC_LM_N_STAGES] = {
    [OC_LM_EMBED] = embed, [OC_LM_QKV] = project_qkv, [OC_LM_MIX] = mix, [OC_LM_HEAD] = head};

static int stage_rows(const struct oc_lm_pass *p) {
    return p->stage == OC_LM_HEAD ? p->b.n_outputs : p->b.n_rows;
}

static void tell(const struct oc_lm_pass *p, const char *stage, int layer) {
    float *copy;
    const float *h = oc_device_look(p->dev, p->ws->h, (int64_t)p->b.n_rows * p->lm->dim, &copy);
    p->trace->fn(p->trace->arg, stage, layer, h, p->b.n_rows, p->lm->dim);
    free(copy);
}

static void fetch_logits(const struct oc_lm_pass *p) {
    if (p->dev->is_host) return;
    p->dev->get(p->dev, p->b.logits, p->ws->logits, (size_t)p->b.n_outputs * (size_t)p->lm->n_vocab * sizeof *p->b.logits);
}

/* The stage's rows are all done: tells the trace and goes to the next that has any. */
static void end_stage(struct oc_lm_pass *p) {
    enum oc_lm_stage done = p->stage;
    p->row = 0;
    p->stage = done + 1;
    if (done == OC_LM_MIX && ++p->layer < p->lm->n_layers) p->stage = OC_LM_QKV;
    if (p->stage == OC_LM_HEAD && p->b.n_outputs == 0) p->stage = OC_LM_N_STAGES;
    if (done == OC_LM_HEAD) fetch_logits(p);
    if (p->trace && done == OC_LM_EMBED) tell(p, "embed", -1);
    if (p->trace && done == OC_LM_MIX) tell(p, "layer", p->layer - 1);
}

void oc_lm_decoder_begin(struct oc_lm_pass *p, const struct oc_lm *lm, struct oc_device *dev, const struct oc_kctx *ctx,
                         const struct oc_lm_kv_cache *kv, struct oc_lm_workspace *ws, const struct oc_lm_batch *b,
                         const struct oc_lm_trace *trace) {
    *p = (struct oc_lm_pass){.lm = lm, .dev = dev, .ops = &dev->ops, .ctx = ctx, .kv = kv, .ws = ws, .b = *b, .trace = trace};
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

void oc_lm_decoder_forward(const struct oc_lm *lm, struct oc_device *dev, const struct oc_kctx *ctx,
                           const struct oc_lm_kv_cache *kv, struct oc_lm_workspace *ws,
                           const struct oc_lm_batch *b, const struct oc_lm_trace *trace) {
    struct oc_lm_pass p;
    struct oc_lm_piece next;
    oc_lm_decoder_begin(&p, lm, dev, ctx, kv, ws, b, trace);
    while (oc_lm_decoder_next(&p, &next)) oc_lm_decoder_step(&p, next.n_rows);
}

/* ---- Finite? ---------------------------------------------------------------------------------------------- */

static int min_int(int a, int b) {
    return a < b ? a : b;
}

static bool any_but_zero(const float *x, int n) {
    for (int i = 0; i < n; i++)
        if (isfinite(x[i]) && x[i] != 0) return true;
    return false;
}

static bool is_row_finite(const struct oc_lm_pass *p, int row) {
    int64_t dim = p->lm->dim;
    p->dev->get(p->dev, p->ws->staging, p->ws->h + row * dim, (size_t)dim * sizeof(float));
    return oc_finite_all(p->ws->staging, dim);
}

#define LOOKED_AT 8     /* numbers of a row */
#define LOOKED_ROWS 256 /* at once */

/* A row's norm divides by the root of its mean square, which is no finite number when any of the row is none: then all that
 * comes out is 0 or NaN. So a few numbers of the norm tell of the whole row, and few bytes come from the device; only a row
 * in which they are all 0 or not finite is looked at itself. */
static bool are_finite_there(const struct oc_lm_pass *p, int from, int n) {
    int32_t to[LOOKED_ROWS];
    int64_t dim = p->lm->dim;
    int d = min_int(LOOKED_AT, min_int(p->lm->dim, p->lm->inter)); /* there is room for as many in the MLP's rows */
    for (int i = 0; i < n; i++) to[i] = i;
    norm_rows(p, p->ws->h + from * dim, p->lm->final_norm, p->ws->x, n);
    p->ops->move_rows(p->ctx, &(struct oc_move_rows){.m = n, .d = d, .x = p->ws->x, .ldx = dim, .to = to, .y = p->ws->mlp, .ldy = d});
    p->dev->get(p->dev, p->ws->staging, p->ws->mlp, (size_t)(n * d) * sizeof(float));
    bool clear[LOOKED_ROWS];
    for (int i = 0; i < n; i++) clear[i] = any_but_zero(p->ws->staging + i * d, d);
    for (int i = 0; i < n; i++)
        if (!clear[i] && !is_row_finite(p, from + i)) return false;
    return true;
}

bool oc_lm_decoder_is_finite(const struct oc_lm_pass *p, int from, int n) {
    int64_t dim = p->lm->dim;
    if (p->dev->is_host) return oc_finite_all(p->ws->h + from * dim, n * dim);
    for (int at = 0; at < n; at += LOOKED_ROWS)
        if (!are_finite_there(p, from + at, n - at < LOOKED_ROWS ? n - at : LOOKED_ROWS)) return false;
    return true;
}
