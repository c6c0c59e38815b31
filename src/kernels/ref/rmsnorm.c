/* Reference RMS norm. */
#include <math.h>

#include "kernels/ref/ref.h"

static void work(void *arg, int thread, int n_threads) {
    const struct oc_rmsnorm *a = arg;
    long lo, hi;
    oc_pool_split((long)a->m, 1, thread, n_threads, &lo, &hi);
    for (int64_t i = lo; i < hi; i++) {
        const float *x = a->x + i * a->ldx;
        float *y = a->y + i * a->ldy;
        float scale = 1.0f / sqrtf(oc_ref_dot(x, x, a->d) / (float)a->d + a->eps);
        for (int64_t j = 0; j < a->d; j++) y[j] = x[j] * scale * a->w[j];
    }
}

void oc_ref_rmsnorm(const struct oc_kctx *ctx, const struct oc_rmsnorm *a) {
    oc_run_sized(ctx, a->m * a->d, work, (void *)(uintptr_t)a);
}
