/* The register tile: 6 rows by 16 columns in 12 accumulators, two loads of b and six broadcasts of a per k. */
#include "kernels/x86/avx2.h"

static inline __attribute__((always_inline)) void tile(const struct oc_tile *t, const int mr, const int nv) {
    __m256 acc[6][2];
#pragma GCC unroll 6
    for (int r = 0; r < mr; r++) {
#pragma GCC unroll 2
        for (int v = 0; v < nv; v++) acc[r][v] = _mm256_setzero_ps();
    }
    const int64_t lda = t->lda;
    const float *b = t->b;
    const float *a[6 / 3]; /* every third row: the two between are addressed from it by lda and 2 lda */
#pragma GCC unroll 6
    for (int r = 0; r < mr; r += 3) a[r / 3] = t->a + r * lda;
    for (int64_t k = t->kk; k > 0; k--, b += t->ldb) {
        __m256 bv[2];
#pragma GCC unroll 2
        for (int v = 0; v < nv; v++) bv[v] = _mm256_loadu_ps(b + 8 * v);
#pragma GCC unroll 6
        for (int r = 0; r < mr; r++) {
            __m256 ar = _mm256_set1_ps(a[r / 3][r % 3 * lda]);
#pragma GCC unroll 2
            for (int v = 0; v < nv; v++) acc[r][v] = _mm256_fmadd_ps(ar, bv[v], acc[r][v]);
        }
#pragma GCC unroll 6
        for (int r = 0; r < mr; r += 3) a[r / 3]++;
    }
#pragma GCC unroll 6
    for (int r = 0; r < mr; r++) {
        float *c = t->c + r * t->ldc;
#pragma GCC unroll 2
        for (int v = 0; v < nv; v++) {
            if (t->add) acc[r][v] = _mm256_add_ps(_mm256_loadu_ps(c + 8 * v), acc[r][v]);
            _mm256_storeu_ps(c + 8 * v, acc[r][v]);
        }
    }
}

void oc_avx2_tile(const struct oc_tile *t) {
    switch (t->mr * 2 + t->nv - 1) {
    case 2:
        tile(t, 1, 1);
        break;
    case 3:
        tile(t, 1, 2);
        break;
    case 4:
        tile(t, 2, 1);
        break;
    case 5:
        tile(t, 2, 2);
        break;
    case 6:
        tile(t, 3, 1);
        break;
    case 7:
        tile(t, 3, 2);
        break;
    case 8:
        tile(t, 4, 1);
        break;
    case 9:
        tile(t, 4, 2);
        break;
    case 10:
        tile(t, 5, 1);
        break;
    case 11:
        tile(t, 5, 2);
        break;
    case 12:
        tile(t, 6, 1);
        break;
    case 13:
        tile(t, 6, 2);
        break;
    default:
        OC_ASSERT(!"a tile of 1 to 6 rows and 1 or 2 vectors");
    }
}
