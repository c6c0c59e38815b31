/* The register tile: 8 rows by 8 columns in 16 accumulators, two loads of b and eight of a per k. */
#include "kernels/arm/neon.h"

static inline __attribute__((always_inline)) void tile(const struct oc_tile *t, const int mr, const int nv) {
    float32x4_t acc[8][2];
#pragma GCC unroll 8
    for (int r = 0; r < mr; r++) {
#pragma GCC unroll 2
        for (int v = 0; v < nv; v++) acc[r][v] = vdupq_n_f32(0);
    }
    const float *b = t->b;
    const float *a[8];
#pragma GCC unroll 8
    for (int r = 0; r < mr; r++) a[r] = t->a + r * t->lda;
    for (int64_t k = 0; k < t->kk; k++, b += t->ldb) {
        float32x4_t bv[2];
#pragma GCC unroll 2
        for (int v = 0; v < nv; v++) bv[v] = vld1q_f32(b + 4 * v);
#pragma GCC unroll 8
        for (int r = 0; r < mr; r++) {
            float32x4_t ar = vld1q_dup_f32(a[r] + k);
#pragma GCC unroll 2
            for (int v = 0; v < nv; v++) acc[r][v] = vfmaq_f32(acc[r][v], ar, bv[v]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < mr; r++) {
        float *c = t->c + r * t->ldc;
#pragma GCC unroll 2
        for (int v = 0; v < nv; v++) {
            if (t->add) acc[r][v] = vaddq_f32(vld1q_f32(c + 4 * v), acc[r][v]);
            vst1q_f32(c + 4 * v, acc[r][v]);
        }
    }
}

void oc_neon_tile(const struct oc_tile *t) {
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
    default:
        OC_ASSERT(!"a tile of 1 to 8 rows and 1 or 2 vectors");
    }
}
