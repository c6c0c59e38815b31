/* Reference embedding gather. */
#include "kernels/ref/ref.h"

static void work(void *arg, int thread, int n_threads) {
    const struct oc_embed *a = arg;
    long lo, hi;
    oc_pool_split((long)a->m, 1, thread, n_threads, &lo, &hi);
    for (int64_t i = lo; i < hi; i++) oc_ref_weight_row(a->w, a->ids[i], a->y + i * a->ldy);
}

void oc_ref_embed(const struct oc_kctx *ctx, const struct oc_embed *a) {
    oc_run_sized(ctx, a->m * a->w->k, work, (void *)(uintptr_t)a);
}
