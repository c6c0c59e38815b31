/* Reference bidirectional attention inside segments. */
#include "kernels/ref/ref.h"

/* Row i, head h, over keys lo .. hi-1. */
static void attend(const struct oc_attn_segments *a, int64_t i, int h, int64_t lo, int64_t hi) {
    struct oc_ref_softmax s;
    int64_t at = (int64_t)h * a->hd;
    oc_ref_softmax_start(&s, a->hd);
    for (int64_t j = lo; j < hi; j += OC_REF_KEYS) {
        int n = (int)(hi - j < OC_REF_KEYS ? hi - j : OC_REF_KEYS);
        oc_ref_softmax_add(&s, a->q + i * a->ldq + at, a->hd, a->scale, a->k + j * a->ldk + at,
                           a->v + j * a->ldv + at, a->ldk, a->ldv, n);
    }
    oc_ref_softmax_finish(&s, a->hd, a->y + i * a->ldy + at);
}

static void work(void *arg, int thread, int n_threads) {
    const struct oc_attn_segments *a = arg;
    for (int s = 0; s < a->n_segs; s++) {
        int64_t first = a->seg[s], end = a->seg[s + 1];
        int64_t from = first > a->q_from ? first : a->q_from, to = a->q_to && a->q_to < end ? a->q_to : end;
        long lo, hi;
        if (from >= to) continue;
        oc_pool_split((long)(to - from), 1, thread, n_threads, &lo, &hi);
        for (int64_t i = from + lo; i < from + hi; i++) {
            for (int h = 0; h < a->n_heads; h++) attend(a, i, h, first, end);
        }
    }
}

void oc_ref_attn_segments(const struct oc_kctx *ctx, const struct oc_attn_segments *a) {
    oc_pool_run(ctx->pool, work, (void *)(uintptr_t)a);
}
