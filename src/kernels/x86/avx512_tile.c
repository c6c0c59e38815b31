/* The register tile: 12 rows by 32 columns in 24 accumulators, two loads of b and twelve broadcasts of a per k. */
#include "kernels/x86/avx512.h"

static inline __attribute__((always_inline)) void tile(const struct oc_tile *t, const int mr, const int nv) {
    __m512 acc[12][2];
#pragma GCC unroll 12
    for (int r = 0; r < mr; r++) {
#pragma GCC unroll 2
        for (int v = 0; v < nv; v++) acc[r][v] = _mm512_setzero_ps();
    }
    const int64_t lda = t->lda;
    const float *b = t->b;
    const float *a[12 / 3]; /* every third row: the two between are addressed from it by lda and 2 lda */
#pragma GCC unroll 12
    for (int r = 0; r < mr; r += 3) a[r / 3] = t->a + r * lda;
    for (int64_t k = t->kk; k > 0; k--, b += t->ldb) {
        __m512 bv[2];
#pragma GCC unroll 2
        for (int v = 0; v < nv; v++) bv[v] = _mm512_loadu_ps(b + 16 * v);
#pragma GCC unroll 12
        for (int r = 0; r < mr; r++) {
            __m512 ar = _mm512_set1_ps(a[r / 3][r % 3 * lda]);
#pragma GCC unroll 2
            for (int v = 0; v < nv; v++) acc[r][v] = _mm512_fmadd_ps(ar, bv[v], acc[r][v]);
        }
#pragma GCC unroll 12
        for (int r = 0; r < mr; r += 3) a[r / 3]++;
    }
#pragma GCC unroll 12
    for (int r = 0; r < mr; r++) {
        float *c = t->c + r * t->ldc;
#pragma GCC unroll 2
        for (int v = 0; v < nv; v++) {
            if (t->add) acc[r][v] = _mm512_add_ps(_mm512_loadu_ps(c + 16 * v), acc[r][v]);
            _mm512_storeu_ps(c + 16 * v, acc[r][v]);
        }
    }
}

void oc_avx512_tile(const struct oc_tile *t) {
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
    case 14:
        tile(t, 7, 1);
        break;
    case 15:
        tile(t, 7, 2);
        break;
    case 16:
        tile(t, 8, 1);
        break;
    case 17:
        tile(t, 8, 2);
        break;
    case 18:
        tile(t, 9, 1);
        break;
    case 19:
        tile(t, 9, 2);
        break;
    case 20:
        tile(t, 10, 1);
        break;
    case 21:
        tile(t, 10, 2);
        break;
    case 22:
        tile(t, 11, 1);
        break;
    case 23:
        tile(t, 11, 2);
        break;
    case 24:
        tile(t, 12, 1);
        break;
    case 25:
        tile(t, 12, 2);
        break;
    default:
        OC_ASSERT(!"a tile of 1 to 12 rows and 1 or 2 vectors");
    }
}
