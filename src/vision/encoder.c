#include "vision/encoder.h"

#include <math.h>
#include <string.h>

#include "base/carve.h"

static size_t lay_out(struct oc_vision_workspace *ws, const struct oc_vision *v, int64_t n, uint8_t *mem) {
    size_t at = 0;
    int64_t n_merged = n / (v->merge * v->merge);
    ws->max_patches = (int)n;
    ws->h = oc_carve_floats(mem, &at, n * v->dim);
    ws->x = oc_carve_floats(mem, &at, n * v->dim);
    ws->qkv = oc_carve_floats(mem, &at, n * 3 * v->dim);
    ws->attn = oc_carve_floats(mem, &at, n * v->dim);
    ws->mlp = oc_carve_floats(mem, &at, n * v->inter);
    ws->cos = oc_carve_floats(mem, &at, n * (v->hd / 2));
    ws->sin = oc_carve_floats(mem, &at, n * (v->hd / 2));
    ws->merged = oc_carve_floats(mem, &at, n_merged * v->out_dim);
    ws->window_order = oc_carve(mem, &at, (size_t)n_merged * sizeof(int32_t));
    ws->window_seg = oc_carve(mem, &at, (size_t)(n_merged + 1) * sizeof(int32_t));
    ws->full_seg = oc_carve(mem, &at, (size_t)(n_merged + 1) * sizeof(int32_t));
    return at;
}

size_t oc_vision_encoder_workspace_bytes(const struct oc_vision *v, int max_patches) {
    struct oc_vision_workspace ws;
    return lay_out(&ws, v, max_patches, NULL);
}

void oc_vision_encoder_workspace_init(struct oc_vision_workspace *ws, const struct oc_vision *v, int max_patches,
                                      uint8_t *mem) {
    lay_out(ws, v, max_patches, mem);
}

int oc_vision_encoder_windows(const struct oc_vision *v, int grid_t, int grid_h, int grid_w, int32_t *order,
                              int32_t *seg) {
    int h = grid_h / v->merge, w = grid_w / v->merge, per_block = v->merge * v->merge;
    int n = 0, n_windows = 0;
    seg[0] = 0;
    for (int t = 0; t < grid_t; t++) {
        for (int wy = 0; wy < h; wy += v->window) {
            for (int wx = 0; wx < w; wx += v->window) {
                for (int y = wy; y < wy + v->window && y < h; y++)
                    for (int x = wx; x < wx + v->window && x < w; x++) order[n++] = (t * h + y) * w + x;
                seg[++n_windows] = n * per_block;
            }
        }
    }
    return n_windows;
}

struct encode {
    const struct oc_vision *v;
    const struct oc_ops *ops;
    const struct oc_kctx *ctx;
    struct oc_vision_workspace *ws;
    int grid_t, grid_h, grid_w;
    int64_t n; /* patches */
};

/* Angles of each patch in window order: the first half of the frequencies turns with its row, the second with its
 * column; patches come in merge-block order inside a frame. */
static void fill_rope(const struct encode *e) {
    const struct oc_vision *v = e->v;
    int half = v->hd / 2, n_freq = half / 2, per_block = v->merge * v->merge;
    float inv_freq[OC_VISION_MAX_HD / 4];
    for (int f = 0; f < n_freq; f++) inv_freq[f] = (float)(1.0 / pow(v->rope_theta, (double)(2 * f) / half));
    int blocks_w = e->grid_w / v->merge, blocks_hw = e->grid_h / v->merge * blocks_w;
    for (int64_t i = 0; i < e->n; i++) {
        int block = e->ws->window_order[i / per_block] % blocks_hw, in_block = (int)(i % per_block);
        int row = block / blocks_w * v->merge + in_block / v->merge;
        int col = block % blocks_w * v->merge + in_block % v->merge;
        float *c = e->ws->cos + i * half, *s = e->ws->sin + i * half;
        for (int f = 0; f < half; f++) {
            float angle = inv_freq[f % n_freq] * (float)(f < n_freq ? row : col);
            c[f] = cosf(angle);
            s[f] = sinf(angle);
        }
    }
}

/* dst block i = src block order[i]; a block is merge^2 patches. */
static void gather_blocks(const struct encode *e, const float *src, float *dst) {
    int64_t block = (int64_t)e->v->merge * e->v->merge * e->v->dim, n = e->n / (e->v->merge * e->v->merge);
    for (int64_t i = 0; i < n; i++)
        memcpy(dst + i * block, src + e->ws->window_order[i] * block, (size_t)block * sizeof *dst);
}

static void norm_rows(const struct encode *e, const float *w) {
    e->ops->rmsnorm(e->ctx, &(struct oc_rmsnorm){.m = e->n,
                                                 .d = e->v->dim,
                                                 .x = e->ws->h,
                                                 .ldx = e->v->dim,
                                                 .w = w,
                                                 .eps = e->v->eps,
                                                 .y = e->ws->x,
                                                 .ldy = e->v->dim});
}

static void linear(const struct encode *e, int64_t m, const float *x, const struct oc_weight *w, float *y,
                   enum oc_act act, bool add) {
    e->ops->linear(e->ctx, &(struct oc_linear){.role = OC_ROLE_P,
                                               .m = m,
                                               .x = x,
                                               .ldx = w->k,
                                               .w = w,
                                               .y = y,
                                               .ldy = w->n,
                                               .act = act,
                                               .add = add});
}

static void attend(const struct encode *e, const struct oc_vision_block *b, const int32_t *seg, int n_segs) {
    const struct oc_vision *v = e->v;
    int64_t ld = 3 * (int64_t)v->dim;
    float *q = e->ws->qkv, *k = q + v->dim;
    linear(e, e->n, e->ws->x, &b->qkv, e->ws->qkv, OC_ACT_NONE, false);
    struct oc_rope rope = {
        .m = e->n, .n_heads = v->n_heads, .hd = v->hd, .x = q, .ldx = ld, .cos = e->ws->cos, .sin = e->ws->sin};
    e->ops->rope(e->ctx, &rope);
    rope.x = k;
    e->ops->rope(e->ctx, &rope);
    e->ops->attn_segments(e->ctx, &(struct oc_attn_segments){.n_heads = v->n_heads,
                                                             .hd = v->hd,
                                                             .scale = 1.0f / sqrtf((float)v->hd),
                                                             .q = q,
                                                             .k = k,
                                                             .v = k + v->dim,
                                                             .ldq = ld,
                                                             .ldk = ld,
                                                             .ldv = ld,
                                                             .seg = seg,
                                                             .n_segs = n_segs,
                                                             .y = e->ws->attn,
                                                             .ldy = v->dim});
    linear(e, e->n, e->ws->attn, &b->proj, e->ws->h, OC_ACT_NONE, true);
}

static void feed_forward(const struct encode *e, const struct oc_vision_block *b) {
    e->ops->linear_glu(e->ctx, &(struct oc_linear_glu){.role = OC_ROLE_P,
                                                       .m = e->n,
                                                       .x = e->ws->x,
                                                       .ldx = e->v->dim,
                                                       .gate = &b->gate,
                                                       .up = &b->up,
                                                       .y = e->ws->mlp,
                                                       .ldy = e->v->inter,
                                                       .act = e->v->act});
    linear(e, e->n, e->ws->mlp, &b->down, e->ws->h, OC_ACT_NONE, true);
}

/* Joins merge^2 patches to a token and puts the tokens back from window order. */
static void merge_tokens(const struct encode *e, float *out) {
    const struct oc_vision *v = e->v;
    int64_t n = e->n / (v->merge * v->merge);
    norm_rows(e, v->merger_norm);
    float *hidden = e->ws->qkv; /* [n, merge^2*dim] fits where [4n, 3*dim] was */
    linear(e, n, e->ws->x, &v->merger_fc1, hidden, v->merger_act, false);
    linear(e, n, hidden, &v->merger_fc2, e->ws->merged, OC_ACT_NONE, false);
    for (int64_t i = 0; i < n; i++)
        memcpy(out + e->ws->window_order[i] * (int64_t)v->out_dim, e->ws->merged + i * v->out_dim,
               (size_t)v->out_dim * sizeof *out);
}

void oc_vision_encoder_forward(const struct oc_vision *v, const struct oc_ops *ops, const struct oc_kctx *ctx,
                               struct oc_vision_workspace *ws, const float *patches, int grid_t, int grid_h,
                               int grid_w, float *out, const struct oc_vision_trace *trace) {
    int64_t n = (int64_t)grid_t * grid_h * grid_w;
    OC_ASSERT(n > 0 && n <= ws->max_patches && grid_h % v->merge == 0 && grid_w % v->merge == 0);
    struct encode e = {v, ops, ctx, ws, grid_t, grid_h, grid_w, n};
    int n_windows = oc_vision_encoder_windows(v, grid_t, grid_h, grid_w, ws->window_order, ws->window_seg);
    for (int t = 0; t <= grid_t; t++) ws->full_seg[t] = t * grid_h * grid_w;
    fill_rope(&e);
    linear(&e, n, patches, &v->patch_embed, ws->x, OC_ACT_NONE, false);
    if (trace) trace->fn(trace->arg, "patch_embed", -1, ws->x, n, v->dim);
    gather_blocks(&e, ws->x, ws->h);
    for (int i = 0; i < v->n_blocks; i++) {
        const struct oc_vision_block *b = &v->blocks[i];
        norm_rows(&e, b->norm1);
        if (b->full_attention) attend(&e, b, ws->full_seg, grid_t);
        else attend(&e, b, ws->window_seg, n_windows);
        norm_rows(&e, b->norm2);
        feed_forward(&e, b);
        if (trace) trace->fn(trace->arg, "block", i, ws->h, n, v->dim);
    }
    merge_tokens(&e, out);
    if (trace) trace->fn(trace->arg, "merger", -1, out, n / (v->merge * v->merge), v->out_dim);
}
