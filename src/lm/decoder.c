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

/* cos and sin of each row's angles: frequency i turns with the axis that rope_section gives it. */
static void fill_rope(const struct oc_lm *lm, const struct oc_lm_batch *b, float *cos_out, float *sin_out) {
    int half = lm->hd / 2;
    for (int r = 0; r < b->n_rows; r++) {
        float *c = cos_out + (int64_t)r * half, *s = sin_out + (int64_t)r * half;
        for (int axis = 0, i = 0; axis < 3; axis++) {
            float pos = (float)b->pos[r][axis];
            for (int end = i + lm->rope_section[axis]; i < end; i++) {
                float angle = lm->inv_freq[i] * pos;
                c[i] = cosf(angle);
                s[i] = sinf(angle);
            }
        }
    }
}

/* The input rows: gathered from the embedding matrix, or given ready. */
static void embed_rows(const struct oc_lm *lm, const struct oc_ops *ops, const struct oc_kctx *ctx,
                       const struct oc_lm_batch *b, float *h) {
    for (int r = 0; r < b->n_rows;) {
        if (b->embeddings && b->embeddings[r]) {
            for (int i = 0; i < lm->dim; i++) h[(int64_t)r * lm->dim + i] = b->embeddings[r][i];
            r++;
            continue;
        }
        int end = r + 1;
        while (end < b->n_rows && !(b->embeddings && b->embeddings[end])) end++;
        ops->embed(ctx, &(struct oc_embed){
                            .m = end - r,
                            .ids = b->tokens + r,
                            .w = &lm->embed,
                            .y = h + (int64_t)r * lm->dim,
                            .ldy = lm->dim,
                        });
        r = end;
    }
}

/* A run of rows of one role: kernels take one role per call. */
struct run {
    enum oc_role role;
    int64_t from, m;
};

struct step {
    const struct oc_lm *lm;
    const struct oc_ops *ops;
    const struct oc_kctx *ctx;
    struct oc_lm_workspace *ws;
    const struct oc_lm_batch *b;
    struct run runs[2];
    int n_runs;
};

static void norm_rows(const struct step *s, const float *x, const float *w, float *y, int64_t m) {
    s->ops->rmsnorm(s->ctx, &(struct oc_rmsnorm){.m = m,
                                                 .d = s->lm->dim,
                                                 .x = x,
                                                 .ldx = s->lm->dim,
                                                 .w = w,
                                                 .eps = s->lm->eps,
                                                 .y = y,
                                                 .ldy = s->lm->dim});
}

static void add_linear(const struct step *s, const float *x, const struct oc_weight *w) {
    for (int i = 0; i < s->n_runs; i++) {
        const struct run *r = &s->runs[i];
        s->ops->linear(s->ctx, &(struct oc_linear){.role = r->role,
                                                   .m = r->m,
                                                   .x = x + r->from * w->k,
                                                   .ldx = w->k,
                                                   .w = w,
                                                   .y = s->ws->h + r->from * s->lm->dim,
                                                   .ldy = s->lm->dim,
                                                   .add = true});
    }
}

static void project_qkv(const struct step *s, const struct oc_lm_layer *l) {
    const struct oc_weight *w[3] = {&l->q, &l->k, &l->v};
    float *y[3] = {s->ws->q, s->ws->k, s->ws->v};
    for (int i = 0; i < s->n_runs; i++) {
        const struct run *r = &s->runs[i];
        struct oc_linear3 a = {
            .role = r->role, .m = r->m, .x = s->ws->x + r->from * s->lm->dim, .ldx = s->lm->dim};
        for (int j = 0; j < 3; j++) {
            a.w[j] = w[j];
            a.y[j] = y[j] + r->from * w[j]->n;
            a.ldy[j] = w[j]->n;
        }
        s->ops->linear3(s->ctx, &a);
    }
}

static void rotate(const struct step *s, float *x, int n_heads) {
    s->ops->rope(s->ctx, &(struct oc_rope){.m = s->b->n_rows,
                                           .n_heads = n_heads,
                                           .hd = s->lm->hd,
                                           .x = x,
                                           .ldx = (int64_t)n_heads * s->lm->hd,
                                           .cos = s->ws->cos,
                                           .sin = s->ws->sin});
}

static void attend(const struct step *s, const struct oc_kv_layer *kv) {
    const struct oc_lm *lm = s->lm;
    int64_t q_dim = (int64_t)lm->n_heads * lm->hd, kv_dim = (int64_t)lm->n_kv_heads * lm->hd;
    rotate(s, s->ws->q, lm->n_heads);
    rotate(s, s->ws->k, lm->n_kv_heads);
    s->ops->kv_append(s->ctx, &(struct oc_kv_append){.m = s->b->n_rows,
                                                     .k = s->ws->k,
                                                     .v = s->ws->v,
                                                     .ldk = kv_dim,
                                                     .ldv = kv_dim,
                                                     .rows = s->b->kv_rows,
                                                     .kv = *kv});
    s->ops->attn_paged(s->ctx, &(struct oc_attn_paged){.m = s->b->n_rows,
                                                       .n_heads = lm->n_heads,
                                                       .scale = 1.0f / sqrtf((float)lm->hd),
                                                       .q = s->ws->q,
                                                       .ldq = q_dim,
                                                       .rows = s->b->kv_rows,
                                                       .kv = *kv,
                                                       .y = s->ws->attn,
                                                       .ldy = q_dim});
}

static void feed_forward(const struct step *s, const struct oc_lm_layer *l) {
    for (int i = 0; i < s->n_runs; i++) {
        const struct run *r = &s->runs[i];
        s->ops->linear_glu(s->ctx, &(struct oc_linear_glu){.role = r->role,
                                                           .m = r->m,
                                                           .x = s->ws->x + r->from * s->lm->dim,
                                                           .ldx = s->lm->dim,
                                                           .gate = &l->gate,
                                                           .up = &l->up,
                                                           .y = s->ws->mlp + r->from * s->lm->inter,
                                                           .ldy = s->lm->inter,
                                                           .act = s->lm->act});
    }
    add_linear(s, s->ws->mlp, &l->down);
}

/* The head runs in role D whatever the row's own role: few rows, one answer. */
static void head_logits(const struct step *s) {
    const struct oc_lm *lm = s->lm;
    if (s->b->n_outputs == 0) return;
    for (int i = 0; i < s->b->n_outputs; i++)
        norm_rows(s, s->ws->h + (int64_t)s->b->outputs[i] * lm->dim, lm->final_norm,
                  s->ws->out + (int64_t)i * lm->dim, 1);
    s->ops->linear(s->ctx, &(struct oc_linear){.role = OC_ROLE_D,
                                               .m = s->b->n_outputs,
                                               .x = s->ws->out,
                                               .ldx = lm->dim,
                                               .w = &lm->head,
                                               .y = s->b->logits,
                                               .ldy = lm->n_vocab});
}

static void trace_rows(const struct step *s, const struct oc_lm_trace *t, const char *stage, int layer) {
    if (t) t->fn(t->arg, stage, layer, s->ws->h, s->b->n_rows, s->lm->dim);
}

void oc_lm_decoder_forward(const struct oc_lm *lm, const struct oc_ops *ops, const struct oc_kctx *ctx,
                           const struct oc_lm_kv_cache *kv, struct oc_lm_workspace *ws,
                           const struct oc_lm_batch *b, const struct oc_lm_trace *trace) {
    struct step s = {.lm = lm, .ops = ops, .ctx = ctx, .ws = ws, .b = b};
    if (b->n_d) s.runs[s.n_runs++] = (struct run){OC_ROLE_D, 0, b->n_d};
    if (b->n_rows > b->n_d) s.runs[s.n_runs++] = (struct run){OC_ROLE_P, b->n_d, b->n_rows - b->n_d};
    embed_rows(lm, ops, ctx, b, ws->h);
    trace_rows(&s, trace, "embed", -1);
    fill_rope(lm, b, ws->cos, ws->sin);
    for (int i = 0; i < lm->n_layers; i++) {
        const struct oc_lm_layer *l = &lm->layers[i];
        struct oc_kv_layer layer_kv = oc_lm_kv_cache_layer(kv, i);
        norm_rows(&s, ws->h, l->attn_norm, ws->x, b->n_rows);
        project_qkv(&s, l);
        attend(&s, &layer_kv);
        add_linear(&s, ws->attn, &l->o);
        norm_rows(&s, ws->h, l->mlp_norm, ws->x, b->n_rows);
        feed_forward(&s, l);
        trace_rows(&s, trace, "layer", i);
    }
    head_logits(&s);
}
