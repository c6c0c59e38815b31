/* RMS norm, with the bits of ref: its 16 partial sums are two vectors. */
#include <math.h>

#include "kernels/x86/avx2.h"

static float sum_of_squares(const float *x, int64_t n) {
    float part[16];
    __m256 lo = _mm256_setzero_ps(), hi = lo;
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        __m256 a = _mm256_loadu_ps(x + i), b = _mm256_loadu_ps(x + i + 8);
        lo = _mm256_add_ps(lo, _mm256_mul_ps(a, a));
        hi = _mm256_add_ps(hi, _mm256_mul_ps(b, b));
    }
    _mm256_storeu_ps(part, lo);
    _mm256_storeu_ps(part + 8, hi);
    for (int j = 0; i < n; i++, j++) part[j] += x[i] * x[i];
    for (int half = 8; half > 0; half /= 2) {
        for (int j = 0; j < half; j++) part[j] += part[j + half];
    }
    return part[0];
}

static void work(void *arg, int thread, int n_threads) {
    const struct oc_rmsnorm *a = arg;
    long lo, hi;
    oc_pool_split((long)a->m, 1, thread, n_threads, &lo, &hi);
    for (int64_t i = lo; i < hi; i++) {
        const float *x = a->x + i * a->ldx;
        float *y = a->y + i * a->ldy;
        float scale = 1.0f / sqrtf(sum_of_squares(x, a->d) / (float)a->d + a->eps);
        __m256 s = _mm256_set1_ps(scale);
        int64_t j = 0;
        for (; j + 8 <= a->d; j += 8) {
            __m256 v = _mm256_mul_ps(_mm256_mul_ps(_mm256_loadu_ps(x + j), s), _mm256_loadu_ps(a->w + j));
            _mm256_storeu_ps(y + j, v);
        }
        for (; j < a->d; j++) y[j] = x[j] * scale * a->w[j];
    }
}

void oc_avx2_rmsnorm(const struct oc_kctx *ctx, const struct oc_rmsnorm *a) {
    oc_run_sized(ctx, a->m * a->d, work, (void *)(uintptr_t)a);
}
