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
    ws->window_place = oc_carve(mem, &at, (size_t)n_merged * sizeof(int32_t));
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

/* Rows [from, to) of a stage. */
struct span {
    int64_t from, to;
};

static int64_t per_block(const struct oc_vision_pass *p) {
    return (int64_t)p->v->merge * p->v->merge;
}

/* Angles of each patch in window order: the first half of the frequencies turns with its row, the second with its
 * column; patches come in merge-block order inside a frame. */
static void fill_angles(const struct oc_vision_pass *p, struct span r) {
    const struct oc_vision *v = p->v;
    int half = v->hd / 2, n_freq = half / 2, in_all = (int)per_block(p);
    float inv_freq[OC_VISION_MAX_HD / 4];
    for (int f = 0; f < n_freq; f++) inv_freq[f] = (float)(1.0 / pow(v->rope_theta, (double)(2 * f) / half));
    int blocks_w = p->grid_w / v->merge, blocks_hw = p->grid_h / v->merge * blocks_w;
    for (int64_t i = r.from; i < r.to; i++) {
        int block = p->ws->window_order[i / in_all] % blocks_hw, in_block = (int)(i % in_all);
        int row = block / blocks_w * v->merge + in_block / v->merge;
        int col = block % blocks_w * v->merge + in_block % v->merge;
        float *c = p->ws->cos + i * half, *s = p->ws->sin + i * half;
        for (int f = 0; f < half; f++) {
            float angle = inv_freq[f % n_freq] * (float)(f < n_freq ? row : col);
            c[f] = cosf(angle);
            s[f] = sinf(angle);
        }
    }
}

static void norm_rows(const struct oc_vision_pass *p, struct span r, const float *w) {
    int64_t at = r.from * p->v->dim;
    p->ops->rmsnorm(p->ctx, &(struct oc_rmsnorm){.m = r.to - r.from,
                                                 .d = p->v->dim,
                                                 .x = p->ws->h + at,
                                                 .ldx = p->v->dim,
                                                 .w = w,
                                                 .eps = p->v->eps,
                                                 .y = p->ws->x + at,
                                                 .ldy = p->v->dim});
}

static void linear(const struct oc_vision_pass *p, struct span r, const float *x, const struct oc_weight *w, float *y,
                   enum oc_act act, bool add) {
    p->ops->linear(p->ctx, &(struct oc_linear){.role = OC_ROLE_P,
                                               .m = r.to - r.from,
                                               .x = x + r.from * w->k,
                                               .ldx = w->k,
                                               .w = w,
                                               .y = y + r.from * w->n,
                                               .ldy = w->n,
                                               .act = act,
                                               .add = add});
}

/* Embeds patches and puts their merge blocks where window order wants them. */
static void embed(const struct oc_vision_pass *p, struct span r) {
    int64_t block = per_block(p) * p->v->dim;
    linear(p, r, p->patches, &p->v->patch_embed, p->ws->x, OC_ACT_NONE, false);
    for (int64_t b = r.from / per_block(p); b < r.to / per_block(p); b++)
        memcpy(p->ws->h + p->ws->window_place[b] * block, p->ws->x + b * block, (size_t)block * sizeof(float));
}

static void project_qkv(const struct oc_vision_pass *p, struct span r) {
    const struct oc_vision *v = p->v;
    const struct oc_vision_block *b = &v->blocks[p->block];
    int64_t ld = 3 * (int64_t)v->dim, half = v->hd / 2;
    norm_rows(p, r, b->norm1);
    linear(p, r, p->ws->x, &b->qkv, p->ws->qkv, OC_ACT_NONE, false);
    struct oc_rope rope = {.m = r.to - r.from,
                           .n_heads = v->n_heads,
                           .hd = v->hd,
                           .x = p->ws->qkv + r.from * ld,
                           .ldx = ld,
                           .cos = p->ws->cos + r.from * half,
                           .sin = p->ws->sin + r.from * half};
    p->ops->rope(p->ctx, &rope);
    rope.x += v->dim;
    p->ops->rope(p->ctx, &rope);
}

static void attend(const struct oc_vision_pass *p, struct span r) {
    const struct oc_vision *v = p->v;
    bool full = v->blocks[p->block].full_attention;
    int64_t ld = 3 * (int64_t)v->dim;
    const float *q = p->ws->qkv;
    p->ops->attn_segments(p->ctx, &(struct oc_attn_segments){.n_heads = v->n_heads,
                                                             .hd = v->hd,
                                                             .scale = 1.0f / sqrtf((float)v->hd),
                                                             .q = q,
                                                             .k = q + v->dim,
                                                             .v = q + 2 * (int64_t)v->dim,
                                                             .ldq = ld,
                                                             .ldk = ld,
                                                             .ldv = ld,
                                                             .seg = full ? p->ws->full_seg : p->ws->window_seg,
                                                             .n_segs = full ? p->grid_t : p->n_windows,
                                                             .y = p->ws->attn,
                                                             .ldy = v->dim,
                                                             .q_from = r.from,
                                                             .q_to = r.to});
}

static void feed_forward(const struct oc_vision_pass *p, struct span r) {
    const struct oc_vision *v = p->v;
    const struct oc_vision_block *b = &v->blocks[p->block];
    linear(p, r, p->ws->attn, &b->proj, p->ws->h, OC_ACT_NONE, true);
    norm_rows(p, r, b->norm2);
    p->ops->linear_glu(p->ctx, &(struct oc_linear_glu){.role = OC_ROLE_P,
                                                       .m = r.to - r.from,
                                                       .x = p->ws->x + r.from * v->dim,
                                                       .ldx = v->dim,
                                                       .gate = &b->gate,
                                                       .up = &b->up,
                                                       .y = p->ws->mlp + r.from * v->inter,
                                                       .ldy = v->inter,
                                                       .act = v->act});
    linear(p, r, p->ws->mlp, &b->down, p->ws->h, OC_ACT_NONE, true);
}

/* Joins merge^2 patches to a token and puts the tokens back from window order. */
static void merge_tokens(const struct oc_vision_pass *p, struct span r) {
    const struct oc_vision *v = p->v;
    struct span t = {r.from / per_block(p), r.to / per_block(p)};
    norm_rows(p, r, v->merger_norm);
    float *hidden = p->ws->qkv; /* [n, merge^2*dim] fits where [merge^2*n, 3*dim] was */
    linear(p, t, p->ws->x, &v->merger_fc1, hidden, v->merger_act, false);
    linear(p, t, hidden, &v->merger_fc2, p->ws->merged, OC_ACT_NONE, false);
    for (int64_t i = t.from; i < t.to; i++)
        memcpy(p->out + p->ws->window_order[i] * (int64_t)v->out_dim, p->ws->merged + i * v->out_dim,
               (size_t)v->out_dim * sizeof(float));
}

typedef void stage_fn(const struct oc_vision_pass *p, struct span r);

static stage_fn *const stages[OC_VISION_N_STAGES] = {
    [OC_VISION_ANGLES] = fill_angles, [OC_VISION_EMBED] = embed,      [OC_VISION_QKV] = project_qkv,
    [OC_VISION_ATTEND] = attend,      [OC_VISION_MLP] = feed_forward, [OC_VISION_MERGE] = merge_tokens,
};

static double stage_macs(const struct oc_vision_pass *p) {
    const struct oc_vision *v = p->v;
    double dim = v->dim, keys = p->window_keys;
    if (p->stage == OC_VISION_ATTEND && v->blocks[p->block].full_attention) keys = (double)p->grid_h * p->grid_w;
    const double macs[OC_VISION_N_STAGES] = {
        [OC_VISION_ANGLES] = 32.0 * v->hd, /* sines, not multiplications: about as long */
        [OC_VISION_EMBED] = dim * v->patch_dim,
        [OC_VISION_QKV] = 3 * dim * dim,
        [OC_VISION_ATTEND] = 2 * dim * keys,
        [OC_VISION_MLP] = dim * dim + 3 * dim * v->inter,
        [OC_VISION_MERGE] = dim * dim * (double)per_block(p) + dim * v->out_dim,
    };
    return macs[p->stage];
}

/* The stage's rows are all done: tells the trace and goes to the next. */
static void end_stage(struct oc_vision_pass *p) {
    const struct oc_vision_trace *t = p->trace;
    enum oc_vision_stage done = p->stage;
    p->row = 0;
    p->stage = done + 1;
    if (done == OC_VISION_MLP && ++p->block < p->v->n_blocks) p->stage = OC_VISION_QKV;
    if (done == OC_VISION_EMBED && p->v->n_blocks == 0) p->stage = OC_VISION_MERGE;
    if (!t) return;
    if (done == OC_VISION_EMBED) t->fn(t->arg, "patch_embed", -1, p->ws->x, p->n, p->v->dim);
    if (done == OC_VISION_MLP) t->fn(t->arg, "block", p->block - 1, p->ws->h, p->n, p->v->dim);
    if (done == OC_VISION_MERGE) t->fn(t->arg, "merger", -1, p->out, p->n / per_block(p), p->v->out_dim);
}

void oc_vision_encoder_begin(struct oc_vision_pass *p, const struct oc_vision *v, const struct oc_ops *ops,
                             const struct oc_kctx *ctx, struct oc_vision_workspace *ws, const float *patches,
                             int grid_t, int grid_h, int grid_w, float *out, const struct oc_vision_trace *trace) {
    int64_t n = (int64_t)grid_t * grid_h * grid_w;
    OC_ASSERT(n > 0 && n <= ws->max_patches && grid_h % v->merge == 0 && grid_w % v->merge == 0);
    *p = (struct oc_vision_pass){.v = v, .ops = ops, .ctx = ctx, .ws = ws, .patches = patches, .out = out, .trace = trace};
    p->grid_t = grid_t, p->grid_h = grid_h, p->grid_w = grid_w;
    p->n = n;
    p->n_windows = oc_vision_encoder_windows(v, grid_t, grid_h, grid_w, ws->window_order, ws->window_seg);
    for (int32_t i = 0; i < n / per_block(p); i++) ws->window_place[ws->window_order[i]] = i;
    for (int t = 0; t <= grid_t; t++) ws->full_seg[t] = t * grid_h * grid_w;
    double pairs = 0;
    for (int w = 0; w < p->n_windows; w++) pairs += pow(ws->window_seg[w + 1] - ws->window_seg[w], 2);
    p->window_keys = pairs / (double)n;
}

bool oc_vision_encoder_next(const struct oc_vision_pass *p, struct oc_vision_piece *next) {
    if (p->stage == OC_VISION_N_STAGES) return false;
    *next = (struct oc_vision_piece){p->stage, p->n - p->row, stage_macs(p)};
    return true;
}

void oc_vision_encoder_step(struct oc_vision_pass *p, int64_t n_rows) {
    OC_ASSERT(p->stage < OC_VISION_N_STAGES && n_rows > 0);
    bool whole_blocks = p->stage == OC_VISION_EMBED || p->stage == OC_VISION_MERGE;
    if (n_rows > p->n - p->row) n_rows = p->n - p->row;
    if (whole_blocks) n_rows = (n_rows + per_block(p) - 1) / per_block(p) * per_block(p);
    struct span r = {p->row, p->row + n_rows};
    stages[p->stage](p, r);
    p->row = r.to;
    if (p->row == p->n) end_stage(p);
}

void oc_vision_encoder_forward(const struct oc_vision *v, const struct oc_ops *ops, const struct oc_kctx *ctx,
                               struct oc_vision_workspace *ws, const float *patches, int grid_t, int grid_h,
                               int grid_w, float *out, const struct oc_vision_trace *trace) {
    struct oc_vision_pass p;
    struct oc_vision_piece next;
    oc_vision_encoder_begin(&p, v, ops, ctx, ws, patches, grid_t, grid_h, grid_w, out, trace);
    while (oc_vision_encoder_next(&p, &next)) oc_vision_encoder_step(&p, next.n_rows);
}
