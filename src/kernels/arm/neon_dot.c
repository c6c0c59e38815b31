/* Role D: weight rows straight from the mapping, dotted with a few rows of x, in the way of x86/avx2_dot.c: q is
 * masked where it stands in its word, and x's factors undo its place (struct oc_dot_x). */
#include "kernels/arm/neon.h"

#define MAX_M 4

/* The sum of one group's q times x, for M rows of x; k: the group's first weight. */
static inline __attribute__((always_inline)) void group_sums(const uint8_t *words, const float *x, int64_t ldx,
                                                             int n_weights, float32x4_t sum[MAX_M], const int M,
                                                             const int bits) {
    const int per = 32 / bits, wide = 4 * per;
#pragma GCC unroll 4
    for (int m = 0; m < M; m++) sum[m] = vdupq_n_f32(0);
    for (int k = 0; k < n_weights; k += wide) {
        uint32x4_t w = vreinterpretq_u32_u8(vld1q_u8(words + (size_t)k * bits / 8));
#pragma GCC unroll 8
        for (int j = 0; j < per; j++) {
            const uint32_t mask = (bits == 4 ? 15u : 255u) << (bits * (j % (per / 2)));
            if (j == per / 2) w = vshrq_n_u32(w, 16);
            uint32x4_t q = vandq_u32(w, vdupq_n_u32(mask));
            float32x4_t qf = vcvtq_f32_u32(q);
#pragma GCC unroll 4
            for (int m = 0; m < M; m++) sum[m] = vfmaq_f32(sum[m], qf, vld1q_f32(x + m * ldx + k + 4 * j));
        }
    }
}

static inline __attribute__((always_inline)) void quantised(const struct oc_weight *w, int64_t row,
                                                            const struct oc_dot_x *x, int i, float *out,
                                                            int64_t ldo, const int M, const int bits) {
    const int64_t n_groups = w->k / w->group;
    const uint8_t *words = w->w + (size_t)row * oc_weight_row_bytes(w);
    float32x4_t acc[MAX_M], sum[MAX_M];
    float zero[MAX_M];
    for (int m = 0; m < M; m++) acc[m] = vdupq_n_f32(0), zero[m] = 0;
    for (int64_t g = 0; g < n_groups; g++) {
        int64_t k = g * w->group;
        float s = oc_load_float(w->scales, w->dtype, row * n_groups + g);
        float b = oc_load_float(w->zero_biases, w->dtype, row * n_groups + g);
        group_sums(words + (size_t)k * bits / 8, x->x + i * x->ldx + k, x->ldx, w->group, sum, M, bits);
        for (int m = 0; m < M; m++) {
            acc[m] = vfmaq_n_f32(acc[m], sum[m], s);
            zero[m] += b * x->sums[(i + m) * x->lds + g];
        }
    }
    for (int m = 0; m < M; m++) out[m * ldo] = vaddvq_f32(acc[m]) + zero[m];
}

static inline __attribute__((always_inline)) void plain(const struct oc_weight *w, int64_t row,
                                                        const struct oc_dot_x *x, int i, float *out, int64_t ldo,
                                                        const int M, const enum oc_dtype dtype) {
    const size_t bytes = dtype == OC_F32 ? 4 : 2;
    const uint8_t *p = w->w + (size_t)row * oc_weight_row_bytes(w);
    float32x4_t acc[MAX_M];
    for (int m = 0; m < M; m++) acc[m] = vdupq_n_f32(0);
    for (int64_t k = 0; k < w->k; k += 4) {
        uint8_t rest[16] = {0};
        const uint8_t *at = p + (size_t)k * bytes;
        if (w->k - k < 4) {
            memcpy(rest, at, (size_t)(w->k - k) * bytes);
            at = rest;
        }
        float32x4_t v = oc_neon_load_float(at, dtype);
        for (int m = 0; m < M; m++) acc[m] = vfmaq_f32(acc[m], v, vld1q_f32(x->x + (i + m) * x->ldx + k));
    }
    for (int m = 0; m < M; m++) out[m * ldo] = vaddvq_f32(acc[m]);
}

static inline __attribute__((always_inline)) void one(const struct oc_weight *w, int64_t row,
                                                      const struct oc_dot_x *x, int i, float *out, int64_t ldo,
                                                      const int M) {
    if (w->bits == 4) {
        quantised(w, row, x, i, out, ldo, M, 4);
    } else if (w->bits == 8) {
        quantised(w, row, x, i, out, ldo, M, 8);
    } else if (w->dtype == OC_F32) {
        plain(w, row, x, i, out, ldo, M, OC_F32);
    } else if (w->dtype == OC_F16) {
        plain(w, row, x, i, out, ldo, M, OC_F16);
    } else {
        plain(w, row, x, i, out, ldo, M, OC_BF16);
    }
}

void oc_neon_dot_prepare(const struct oc_weight *w, const float *x, float *xp, int64_t ldx, float *sums, int64_t lds) {
    oc_tiled_dot_prepare(w, 4, x, xp, ldx, sums, lds);
}

void oc_neon_dot(const struct oc_weight *w, int64_t n0, int n, const struct oc_dot_x *x, int m, float *out,
                 int64_t ldo) {
    for (int r = 0; r < n; r++) {
        int i = 0;
        for (; i + 4 <= m; i += 4) one(w, n0 + r, x, i, out + i * ldo + r, ldo, 4);
        for (; i < m; i++) one(w, n0 + r, x, i, out + i * ldo + r, ldo, 1);
    }
}
