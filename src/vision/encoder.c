#include "vision/encoder.h"

#include <math.h>
#include <stdlib.h>

#include "base/carve.h"
#include "base/pool.h"

#define STAGED_ROWS 1024 /* patches that are made at once, and whose angles go to a device at once: each trip has its price */

/* Whole merge blocks, and no more than a picture can have. */
static int staged_rows(const struct oc_vision *v, int64_t max_patches) {
    int block = v->merge * v->merge, most = STAGED_ROWS > block ? STAGED_ROWS / block * block : block;
    return max_patches < most ? (int)max_patches : most;
}

static size_t lay_out(struct oc_vision_workspace *ws, const struct oc_vision *v, bool is_host, int64_t n, uint8_t *mem) {
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
    ws->patches = is_host ? NULL : oc_carve_floats(mem, &at, n * v->patch_dim);
    ws->out = is_host ? NULL : oc_carve_floats(mem, &at, n_merged * v->out_dim);
    return at;
}

static size_t lay_out_lists(struct oc_vision_workspace *ws, const struct oc_vision *v, int64_t n, uint8_t *mem) {
    size_t at = 0;
    int64_t n_merged = n / (v->merge * v->merge), n_places = n / v->merge; /* of a picture one merge block wide */
    ws->window_order = oc_carve(mem, &at, (size_t)n_merged * sizeof(int32_t));
    ws->window_place = oc_carve(mem, &at, (size_t)n_merged * sizeof(int32_t));
    ws->window_seg = oc_carve(mem, &at, (size_t)(n_merged + 1) * sizeof(int32_t));
    ws->full_seg = oc_carve(mem, &at, (size_t)(n_merged + 1) * sizeof(int32_t));
    ws->place_cos = oc_carve_floats(mem, &at, n_places * (v->hd / 4));
    ws->place_sin = oc_carve_floats(mem, &at, n_places * (v->hd / 4));
    ws->staged_rows = staged_rows(v, n);
    ws->staging = oc_carve_floats(mem, &at, (int64_t)ws->staged_rows * (v->patch_dim > v->hd ? v->patch_dim : v->hd));
    return at;
}

size_t oc_vision_encoder_workspace_bytes(const struct oc_vision *v, bool is_host, int max_patches) {
    struct oc_vision_workspace ws;
    return lay_out(&ws, v, is_host, max_patches, NULL);
}

size_t oc_vision_encoder_lists_bytes(const struct oc_vision *v, int max_patches) {
    struct oc_vision_workspace ws;
    return lay_out_lists(&ws, v, max_patches, NULL);
}

void oc_vision_encoder_workspace_init(struct oc_vision_workspace *ws, const struct oc_vision *v, bool is_host, int max_patches,
                                      uint8_t *mem, uint8_t *lists) {
    lay_out(ws, v, is_host, max_patches, mem);
    lay_out_lists(ws, v, max_patches, lists);
}

/* ---- Weights ---------------------------------------------------------------------------------------------- */

static enum oc_err take_block(struct oc_vision_block *b, int dim, struct oc_device_walk *k, struct oc_errinfo *ei) {
    struct oc_weight *const weights[] = {&b->qkv, &b->proj, &b->gate, &b->up, &b->down};
    OC_TRY(oc_device_walk_floats(k, &b->norm1, dim, ei));
    OC_TRY(oc_device_walk_floats(k, &b->norm2, dim, ei));
    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++) OC_TRY(oc_device_walk_weight(k, weights[i], ei));
    return OC_OK;
}

enum oc_err oc_vision_encoder_take(struct oc_vision *v, struct oc_device_walk *k, struct oc_errinfo *ei) {
    OC_TRY(oc_device_walk_weight(k, &v->patch_embed, ei));
    for (int i = 0; i < v->n_blocks; i++) OC_TRY(take_block(&v->blocks[i], v->dim, k, ei));
    OC_TRY(oc_device_walk_floats(k, &v->merger_norm, v->dim, ei));
    OC_TRY(oc_device_walk_weight(k, &v->merger_fc1, ei));
    return oc_device_walk_weight(k, &v->merger_fc2, ei);
}

/* ---- Windows ---------------------------------------------------------------------------------------------- */

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

/* The angles of every place on an axis, row or column, once: pictures have few of them and many patches. */
static void fill_places(const struct oc_vision_pass *p) {
    const struct oc_vision *v = p->v;
    int half = v->hd / 2, n_freq = half / 2, n = p->grid_h > p->grid_w ? p->grid_h : p->grid_w;
    float inv_freq[OC_VISION_MAX_HD / 4];
    for (int f = 0; f < n_freq; f++) inv_freq[f] = (float)(1.0 / pow(v->rope_theta, (double)(2 * f) / half));
    for (int place = 0; place < n; place++) {
        float *c = p->ws->place_cos + (int64_t)place * n_freq, *s = p->ws->place_sin + (int64_t)place * n_freq;
        for (int f = 0; f < n_freq; f++) {
            float angle = inv_freq[f] * (float)place;
            c[f] = cosf(angle);
            s[f] = sinf(angle);
        }
    }
}

/* Of a patch in window order: the first half of the frequencies turns with its row, the second with its column; patches come
 * in merge-block order inside a frame. */
static void fill_row(const struct oc_vision_pass *p, int64_t i, float *c, float *s) {
    int merge = p->v->merge, in_all = (int)per_block(p), n_freq = p->v->hd / 4;
    int blocks_w = p->grid_w / merge, blocks_hw = p->grid_h / merge * blocks_w;
    int block = p->ws->window_order[i / in_all] % blocks_hw, in_block = (int)(i % in_all);
    int64_t row = (int64_t)(block / blocks_w * merge + in_block / merge) * n_freq;
    int64_t col = (int64_t)(block % blocks_w * merge + in_block % merge) * n_freq;
    for (int f = 0; f < n_freq; f++) {
        c[f] = p->ws->place_cos[row + f];
        s[f] = p->ws->place_sin[row + f];
        c[n_freq + f] = p->ws->place_cos[col + f];
        s[n_freq + f] = p->ws->place_sin[col + f];
    }
}

/* Where device memory is the host's they are made in place. */
static void fill_angles(const struct oc_vision_pass *p, struct span r) {
    int64_t half = p->v->hd / 2;
    if (r.from == 0) fill_places(p);
    for (int64_t from = r.from; from < r.to; from += p->ws->staged_rows) {
        int64_t n = r.to - from < p->ws->staged_rows ? r.to - from : p->ws->staged_rows;
        float *cos_there = p->ws->cos + from * half, *sin_there = p->ws->sin + from * half;
        float *c = p->dev->is_host ? cos_there : p->ws->staging, *s = p->dev->is_host ? sin_there : c + n * half;
        for (int64_t i = 0; i < n; i++) fill_row(p, from + i, c + i * half, s + i * half);
        if (p->dev->is_host) continue;
        p->dev->put(p->dev, cos_there, c, (size_t)(n * half) * sizeof *c);
        p->dev->put(p->dev, sin_there, s, (size_t)(n * half) * sizeof *s);
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

static void linear_rows(const struct oc_vision_pass *p, int64_t m, const float *x, const struct oc_weight *w, float *y,
                        enum oc_act act, bool add) {
    p->ops->linear(p->ctx, &(struct oc_linear){.role = OC_ROLE_P,
                                               .m = m,
                                               .x = x,
                                               .ldx = w->k,
                                               .w = w,
                                               .y = y,
                                               .ldy = w->n,
                                               .act = act,
                                               .add = add});
}

static void linear(const struct oc_vision_pass *p, struct span r, const float *x, const struct oc_weight *w, float *y,
                   enum oc_act act, bool add) {
    linear_rows(p, r.to - r.from, x + r.from * w->k, w, y + r.from * w->n, act, add);
}

/* Whole rows, one by one or merge block by merge block, to the places that `to` names. */
static void move(const struct oc_vision_pass *p, int64_t m, int64_t d, const float *x, const int32_t *to, float *y) {
    p->ops->move_rows(p->ctx, &(struct oc_move_rows){.m = m, .d = d, .x = x, .ldx = d, .to = to, .y = y, .ldy = d});
}

struct making {
    const struct oc_vision_pass *p;
    struct span rows;
};

static void make_part(void *arg, int thread, int n_threads) {
    const struct making *m = arg;
    const struct oc_vision_pass *p = m->p;
    long from, to;
    oc_pool_split((long)(m->rows.to - m->rows.from), 1, thread, n_threads, &from, &to);
    if (from == to) return;
    p->patches.make(p->patches.arg, (int)(m->rows.from + from), (int)(m->rows.from + to), p->ws->staging + from * p->v->patch_dim);
}

/* Patches of r in the host's memory. */
static const float *patches_here(const struct oc_vision_pass *p, struct span r) {
    if (p->patches.all) return p->patches.all + r.from * p->v->patch_dim;
    struct making m = {p, r};
    oc_pool_run(p->ctx->pool, make_part, &m);
    return p->ws->staging;
}

/* The same where ops can read them. */
static const float *patches_there(const struct oc_vision_pass *p, struct span r) {
    const float *here = patches_here(p, r);
    if (p->dev->is_host) return here;
    float *there = p->ws->patches + r.from * p->v->patch_dim;
    p->dev->put(p->dev, there, here, (size_t)((r.to - r.from) * p->v->patch_dim) * sizeof *here);
    return there;
}

/* Embeds patches, those that are made some at a time, and puts their merge blocks where window order wants them. */
static void embed(const struct oc_vision_pass *p, struct span r) {
    int64_t dim = p->v->dim, block = per_block(p) * dim, b = r.from / per_block(p);
    int64_t most = p->patches.all ? r.to - r.from : p->ws->staged_rows;
    for (struct span some = {r.from, 0}; some.from < r.to; some.from = some.to) {
        some.to = r.to - some.from < most ? r.to : some.from + most;
        linear_rows(p, some.to - some.from, patches_there(p, some), &p->v->patch_embed, p->ws->x + some.from * dim, OC_ACT_NONE,
                    false);
    }
    move(p, r.to / per_block(p) - b, block, p->ws->x + b * block, p->ws->window_place + b, p->ws->h);
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
    move(p, t.to - t.from, v->out_dim, p->ws->merged + t.from * v->out_dim, p->ws->window_order + t.from,
         p->dev->is_host ? p->out : p->ws->out);
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
        [OC_VISION_ANGLES] = v->hd, /* copied, not multiplied: about as long */
        [OC_VISION_EMBED] = dim * v->patch_dim,
        [OC_VISION_QKV] = 3 * dim * dim,
        [OC_VISION_ATTEND] = 2 * dim * keys,
        [OC_VISION_MLP] = dim * dim + 3 * dim * v->inter,
        [OC_VISION_MERGE] = dim * dim * (double)per_block(p) + dim * v->out_dim,
    };
    return macs[p->stage];
}

static void tell(const struct oc_vision_pass *p, const char *stage, int block, const float *x) {
    float *copy;
    const float *there = oc_device_look(p->dev, x, p->n * p->v->dim, &copy);
    p->trace->fn(p->trace->arg, stage, block, there, p->n, p->v->dim);
    free(copy);
}

static void fetch_out(const struct oc_vision_pass *p) {
    if (p->dev->is_host) return;
    p->dev->get(p->dev, p->out, p->ws->out, (size_t)(p->n / per_block(p) * p->v->out_dim) * sizeof *p->out);
}

/* The stage's rows are all done: tells the trace and goes to the next. */
static void end_stage(struct oc_vision_pass *p) {
    const struct oc_vision_trace *t = p->trace;
    enum oc_vision_stage done = p->stage;
    p->row = 0;
    p->stage = done + 1;
    if (done == OC_VISION_MLP && ++p->block < p->v->n_blocks) p->stage = OC_VISION_QKV;
    if (done == OC_VISION_EMBED && p->v->n_blocks == 0) p->stage = OC_VISION_MERGE;
    if (done == OC_VISION_MERGE) fetch_out(p);
    if (!t) return;
    if (done == OC_VISION_EMBED) tell(p, "patch_embed", -1, p->ws->x);
    if (done == OC_VISION_MLP) tell(p, "block", p->block - 1, p->ws->h);
    if (done == OC_VISION_MERGE) t->fn(t->arg, "merger", -1, p->out, p->n / per_block(p), p->v->out_dim);
}

void oc_vision_encoder_begin(struct oc_vision_pass *p, const struct oc_vision *v, struct oc_device *dev,
                             const struct oc_kctx *ctx, struct oc_vision_workspace *ws,
                             const struct oc_vision_patches *patches, int grid_t, int grid_h, int grid_w, float *out,
                             const struct oc_vision_trace *trace) {
    int64_t n = (int64_t)grid_t * grid_h * grid_w;
    OC_ASSERT(n > 0 && n <= ws->max_patches && grid_h % v->merge == 0 && grid_w % v->merge == 0);
    *p = (struct oc_vision_pass){.v = v, .dev = dev, .ops = &dev->ops, .ctx = ctx, .ws = ws, .patches = *patches, .out = out, .trace = trace};
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

void oc_vision_encoder_forward(const struct oc_vision *v, struct oc_device *dev, const struct oc_kctx *ctx,
                               struct oc_vision_workspace *ws, const struct oc_vision_patches *patches, int grid_t,
                               int grid_h, int grid_w, float *out, const struct oc_vision_trace *trace) {
    struct oc_vision_pass p;
    struct oc_vision_piece next;
    oc_vision_encoder_begin(&p, v, dev, ctx, ws, patches, grid_t, grid_h, grid_w, out, trace);
    while (oc_vision_encoder_next(&p, &next)) oc_vision_encoder_step(&p, next.n_rows);
}
