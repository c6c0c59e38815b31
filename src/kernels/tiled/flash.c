#include "kernels/tiled/flash.h"

#include <math.h>

static size_t padded(int hd) {
    return oc_round_up((size_t)hd, OC_TILE_MAX_NR);
}

enum { SCORE_FLOATS = OC_TILE_MAX_NR * OC_ATTN_KB };

size_t oc_tiled_attn_thread_bytes(int max_hd) {
    size_t ld = padded(max_hd);
    size_t floats = 2 * OC_ATTN_QB * ld + 3 * OC_ATTN_QB + 3 * OC_ATTN_KB * ld + SCORE_FLOATS;
    return floats * sizeof(float);
}

static float *take(float **at, size_t n) {
    float *p = *at;
    *at += n;
    return p;
}

void oc_flash_open(struct oc_flash *f, const struct oc_simd *s, const struct oc_kctx *ctx, int thread, int hd,
                   float scale) {
    OC_ASSERT(hd > 0 && hd <= OC_MAX_HD && scale > 0);
    size_t bytes = oc_tiled_attn_thread_bytes(hd), room = padded(hd);
    OC_ASSERT(bytes * (size_t)oc_pool_n_threads(ctx->pool) <= ctx->scratch_bytes);
    float *at = (float *)(void *)(ctx->scratch + (size_t)thread * bytes);
    f->s = s;
    f->hd = hd;
    f->ld = (int)oc_round_up((size_t)hd, (size_t)s->nr);
    f->scale = scale;
    f->q = take(&at, OC_ATTN_QB * room);
    f->acc = take(&at, OC_ATTN_QB * room);
    f->max = take(&at, OC_ATTN_QB);
    f->sum = take(&at, OC_ATTN_QB);
    f->valid = (int32_t *)(void *)take(&at, OC_ATTN_QB);
    f->k = take(&at, OC_ATTN_KB * room);
    f->v = take(&at, OC_ATTN_KB * room);
    f->rows = take(&at, OC_ATTN_KB * room);
    f->score = take(&at, SCORE_FLOATS);
    /* Columns from hd to ld are never written again: the padding of a row's keys and values, which must be finite. */
    for (int j = 0; j < OC_ATTN_KB && f->ld != hd; j++) {
        memset(f->rows + (int64_t)j * f->ld + hd, 0, (size_t)(f->ld - hd) * sizeof(float));
        memset(f->v + (int64_t)j * f->ld + hd, 0, (size_t)(f->ld - hd) * sizeof(float));
    }
}

void oc_flash_start(struct oc_flash *f, int n) {
    memset(f->acc, 0, (size_t)n * (size_t)f->ld * sizeof(float));
    for (int i = 0; i < n; i++) {
        f->max[i] = -INFINITY;
        f->sum[i] = 0;
    }
}

void oc_flash_softmax(struct oc_flash *f, int row, float *score, int valid, int n_keys) {
    if (valid > 0) {
        float old = f->max[row];
        float max = fmaxf(old, f->s->max_row(score, valid) * f->scale);
        float shrink = expf(old - max);
        float sum = f->s->exp_row(score, valid, f->scale, max);
        f->max[row] = max;
        f->sum[row] = f->sum[row] * shrink + sum;
        if (shrink != 1.0f) {
            float *acc = f->acc + (int64_t)row * f->ld;
            for (int d = 0; d < f->ld; d++) acc[d] *= shrink;
        }
    }
    for (int j = valid; j < n_keys; j++) score[j] = 0;
}

/* Rows i .. i+mr-1, one register tile high. */
static void tile_rows(struct oc_flash *f, int i, int mr) {
    int n_keys = 0, nr = f->s->nr;
    for (int r = 0; r < mr; r++) n_keys = f->valid[i + r] > n_keys ? f->valid[i + r] : n_keys;
    if (n_keys == 0) return;
    struct oc_tile t = {.a = f->q + (int64_t)i * f->ld, .lda = f->ld, .ldb = nr, .kk = f->hd};
    t.ldc = OC_ATTN_KB;
    t.mr = mr;
    t.nv = 2;
    for (int j = 0; j < n_keys; j += nr) {
        t.b = f->k + (int64_t)j * f->hd;
        t.c = f->score + j;
        f->s->tile(&t);
    }
    for (int r = 0; r < mr; r++) {
        oc_flash_softmax(f, i + r, f->score + (int64_t)r * OC_ATTN_KB, f->valid[i + r], n_keys);
    }
    t.a = f->score;
    t.lda = OC_ATTN_KB;
    t.ldb = t.ldc = f->ld;
    t.kk = n_keys;
    t.add = true;
    for (int d = 0; d < f->ld; d += nr) {
        t.b = f->v + d;
        t.c = f->acc + (int64_t)i * f->ld + d;
        f->s->tile(&t);
    }
}

void oc_flash_block(struct oc_flash *f, int n) {
    int mr = f->s->mr;
    for (int i = 0; i < n; i += mr) tile_rows(f, i, n - i < mr ? n - i : mr);
}

void oc_flash_finish(const struct oc_flash *f, int row, float *y) {
    const float *acc = f->acc + (int64_t)row * f->ld;
    float inv = 1.0f / f->sum[row];
    /* Adding 0 makes -0 into +0, the one bit that rows sharing a tile could otherwise leave behind. */
    for (int d = 0; d < f->hd; d++) y[d] = acc[d] * inv + 0.0f;
}
