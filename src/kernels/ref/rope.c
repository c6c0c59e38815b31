/* Reference rotary embedding. */
#include "kernels/ref/ref.h"

static void turn(float *x, const float *c, const float *s, int half) {
    for (int i = 0; i < half; i++) {
        float lo = x[i], hi = x[i + half];
        x[i] = lo * c[i] - hi * s[i];
        x[i + half] = hi * c[i] + lo * s[i];
    }
}

static void work(void *arg, int thread, int n_threads) {
    const struct oc_rope *a = arg;
    int half = a->hd / 2;
    long lo, hi;
    oc_pool_split((long)a->m, 1, thread, n_threads, &lo, &hi);
    for (int64_t i = lo; i < hi; i++) {
        for (int h = 0; h < a->n_heads; h++) {
            turn(a->x + i * a->ldx + (int64_t)h * a->hd, a->cos + i * half, a->sin + i * half, half);
        }
    }
}

void oc_ref_rope(const struct oc_kctx *ctx, const struct oc_rope *a) {
    oc_run_sized(ctx, a->m * a->n_heads * a->hd, work, (void *)(uintptr_t)a);
}
