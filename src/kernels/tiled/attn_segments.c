/* Bidirectional attention inside segments: units of (segment, block of query rows, head). */
#include "kernels/tiled/flash.h"

struct job {
    const struct oc_simd *s;
    const struct oc_kctx *ctx;
    const struct oc_attn_segments *a;
    int64_t qb; /* query rows of a unit, at most */
    long next;
};

/* Query rows q0 .. q0+n-1 of segment s, head h. */
static void unit(struct oc_flash *f, const struct oc_attn_segments *a, int s, int64_t q0, int n, int h) {
    int64_t at = (int64_t)h * a->hd;
    oc_flash_begin(f, n);
    for (int i = 0; i < n; i++) oc_flash_query(f, i, a->q + (q0 + i) * a->ldq + at);
    for (int64_t j = a->seg[s]; j < a->seg[s + 1]; j += OC_ATTN_KB) {
        int keys = (int)(a->seg[s + 1] - j < OC_ATTN_KB ? a->seg[s + 1] - j : OC_ATTN_KB);
        oc_flash_keys(f, a->k + j * a->ldk + at, a->ldk, keys);
        oc_flash_values(f, a->v + j * a->ldv + at, a->ldv, keys);
        for (int i = 0; i < n; i++) f->valid[i] = keys;
        oc_flash_block(f, n);
    }
    oc_flash_end(f);
    for (int i = 0; i < n; i++) oc_flash_finish(f, i, a->y + (q0 + i) * a->ldy + at);
}

/* Every thread walks the same list of units and does those whose turn it drew. */
static void work(void *arg, int thread, int n_threads) {
    struct job *j = arg;
    const struct oc_attn_segments *a = j->a;
    struct oc_flash f;
    (void)n_threads;
    oc_flash_open(&f, j->s, j->ctx, thread, a->hd, a->scale);
    long at = 0, mine = __atomic_fetch_add(&j->next, 1, __ATOMIC_RELAXED);
    for (int s = 0; s < a->n_segs; s++) {
        int64_t from = a->seg[s] > a->q_from ? a->seg[s] : a->q_from;
        int64_t to = a->q_to && a->q_to < a->seg[s + 1] ? a->q_to : a->seg[s + 1];
        for (int64_t q0 = from; q0 < to; q0 += j->qb) {
            int n = (int)(to - q0 < j->qb ? to - q0 : j->qb);
            for (int h = 0; h < a->n_heads; h++, at++) {
                if (at != mine) continue;
                unit(&f, a, s, q0, n, h);
                mine = __atomic_fetch_add(&j->next, 1, __ATOMIC_RELAXED);
            }
        }
    }
}

void oc_tiled_attn_segments(const struct oc_simd *s, const struct oc_kctx *ctx,
                            const struct oc_attn_segments *a) {
    struct job j = {.s = s, .ctx = ctx, .a = a, .qb = OC_ATTN_QB};
    int64_t rows = (a->q_to ? a->q_to : a->seg[a->n_segs]) - a->q_from;
    /* The more rows share packed keys and values the better, while there are units enough for all threads. */
    if (s->bf16 && s->bf16->exp_row && rows * a->n_heads >= OC_ATTN_WIDE_QB * 4L * oc_pool_n_threads(ctx->pool)) j.qb = OC_ATTN_WIDE_QB;
    oc_pool_run(ctx->pool, work, &j);
}
