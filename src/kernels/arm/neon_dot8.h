/* kernels/arm/neon_dot8.h - role D with x as whole numbers, for the files that are compiled for SDOT and for USDOT.
 *
 * Four rows of W at a time. A unit is a group's part of them, up to 64 weights a row, unpacked to four vectors of bytes each: 16 registers,
 * which all rows of x then meet. SDOT adds four products to each lane, so after a unit each row of W has a vector of partial sums;
 * three additions of neighbours turn the four into one vector, a lane for each row of W. All of that is exact, so the order does not
 * matter; what follows is ref's: acc of chain g mod 16 = fma(scale, sum * x's scale, acc), then fma(zero_bias, x's sum, acc), for four
 * rows of W in the lanes.
 *
 * SDOT takes both as signed: 8-bit weights are taken less 128, and 128 times the sum of x's numbers of the group, which comes with x, is
 * added. USDOT takes them as they are.
 *
 * Numbers of 16 bits are two signed bytes, digits: a unit meets first the upper ones, then the lower ones, and sum of the former times 256
 * plus sum of the latter is the sum of the group, below 2^31 (kernels/int16.h). */
#ifndef OC_KERNELS_ARM_NEON_DOT8_H
#define OC_KERNELS_ARM_NEON_DOT8_H

#include "kernels/arm/neon.h"

#define DOT8_INLINE static inline __attribute__((always_inline))

enum { DOT8_R = 4, DOT8_CHAINS = OC_INT8_SPAN };

struct dot8_block {
    float32x4_t acc[DOT8_CHAINS][OC_D_SLICE]; /* of each row of x: a lane for each row of W */
    int32x4_t part[OC_D_SLICE];               /* of groups of two units: the sums of the first */
    float32x4_t scales[4], zero_biases[4];    /* of four groups, a lane for each row of W */
    const struct oc_weight *w;
    const struct oc_dot_x8 *x;
    const uint8_t *rows[DOT8_R]; /* a row that is not there repeats the last */
    int64_t at[DOT8_R];          /* the numbers of these rows */
    int m;
};

/* NV vectors of 16 weights, in the order of oc_neon_prepare8. */
DOT8_INLINE void dot8_unpack(const uint8_t *p, int8x16_t w[4], const int NV, const int bits, const bool unsigned_w) {
    if (bits == 4) {
#pragma GCC unroll 2
        for (int v = 0; v < NV / 2; v++) {
            uint8x16_t b = vld1q_u8(p + 16 * v);
            w[2 * v] = vreinterpretq_s8_u8(vandq_u8(b, vdupq_n_u8(15)));
            w[2 * v + 1] = vreinterpretq_s8_u8(vshrq_n_u8(b, 4));
        }
        return;
    }
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) {
        uint8x16_t b = vld1q_u8(p + 16 * v);
        w[v] = vreinterpretq_s8_u8(unsigned_w ? b : veorq_u8(b, vdupq_n_u8(128)));
    }
}

DOT8_INLINE int32x4_t dot8_product(int32x4_t sum, int8x16_t w, int8x16_t x, const int bits, const bool unsigned_w) {
#ifdef __ARM_FEATURE_MATMUL_INT8
    if (bits == 8 && unsigned_w) return vusdotq_s32(sum, vreinterpretq_u8_s8(w), x);
#endif
    (void)bits, (void)unsigned_w;
    return vdotq_s32(sum, w, x);
}

/* A unit's sums of one row of x, a lane for each row of W. */
DOT8_INLINE int32x4_t dot8_sums(int8x16_t w[DOT8_R][4], const int8_t *q, const int NV, const int bits, const bool unsigned_w) {
    int32x4_t sum[DOT8_R];
#pragma GCC unroll 4
    for (int r = 0; r < DOT8_R; r++) sum[r] = vdupq_n_s32(0);
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) {
        int8x16_t x = vld1q_s8(q + 16 * v);
#pragma GCC unroll 4
        for (int r = 0; r < DOT8_R; r++) sum[r] = dot8_product(sum[r], w[r][v], x, bits, unsigned_w);
    }
    return vpaddq_s32(vpaddq_s32(sum[0], sum[1]), vpaddq_s32(sum[2], sum[3]));
}

/* The rows of x at group g, for one row after the other. */
struct dot8_x {
    const int8_t *q;       /* of a unit */
    const float *scale, *total;
    const int32_t *middle; /* 128 times the sum of the group's numbers */
    int64_t ldq, lds;
};

DOT8_INLINE struct dot8_x dot8_first(const struct oc_dot_x8 *x, const struct oc_weight *w, int64_t g, int unit) {
    const int8_t *middles = x->q + x->n_digits * w->k;
    return (struct dot8_x){.q = x->q + g * w->group * x->n_digits + unit * 64,
                           .scale = x->scales + g,
                           .total = x->sums + g,
                           .middle = (const int32_t *)(const void *)middles + g,
                           .ldq = x->ldq,
                           .lds = x->lds};
}

DOT8_INLINE void dot8_next(struct dot8_x *x) {
    x->q += x->ldq;
    x->scale += x->lds;
    x->total += x->lds;
    x->middle += x->ldq / (int64_t)sizeof *x->middle;
}

/* Unit `unit` of group g: NV vectors of each row; last: the sums of the group are whole then, and are added to its chain. */
DOT8_INLINE void dot8_unit(struct dot8_block *b, int64_t g, int unit, bool last, const int NV, const int D, const int bits,
                           const bool unsigned_w) {
    const size_t from = (size_t)(g * b->w->group + unit * 64) * (size_t)bits / 8;
    const float32x4_t scales = b->scales[g % 4], zero_biases = b->zero_biases[g % 4];
    float32x4_t *acc = b->acc[g % DOT8_CHAINS];
    int8x16_t w[DOT8_R][4];
#pragma GCC unroll 4
    for (int r = 0; r < DOT8_R; r++) dot8_unpack(b->rows[r] + from, w[r], NV, bits, unsigned_w);
    struct dot8_x x = dot8_first(b->x, b->w, g, unit);
    const int group = b->w->group;
    for (int i = 0, m = b->m; i < m; i++, dot8_next(&x)) {
        int32x4_t sum = dot8_sums(w, x.q + (D - 1) * group, NV, bits, unsigned_w);
        if (D == 2) sum = vaddq_s32(vshlq_n_s32(sum, 8), dot8_sums(w, x.q, NV, bits, unsigned_w));
        if (unit > 0) sum = vaddq_s32(sum, b->part[i]);
        if (!last) {
            b->part[i] = sum;
            continue;
        }
        if (bits == 8 && !unsigned_w) sum = vaddq_s32(sum, vdupq_n_s32(*x.middle));
        float32x4_t v = vmulq_n_f32(vcvtq_f32_s32(sum), *x.scale);
        acc[i] = vfmaq_n_f32(vfmaq_f32(acc[i], v, scales), zero_biases, *x.total);
    }
}

/* Four rows become four columns. */
DOT8_INLINE void dot8_turn(float32x4_t v[4]) {
    float32x4_t a = vtrn1q_f32(v[0], v[1]), b = vtrn2q_f32(v[0], v[1]), c = vtrn1q_f32(v[2], v[3]), d = vtrn2q_f32(v[2], v[3]);
    v[0] = vcombine_f32(vget_low_f32(a), vget_low_f32(c));
    v[1] = vcombine_f32(vget_low_f32(b), vget_low_f32(d));
    v[2] = vcombine_f32(vget_high_f32(a), vget_high_f32(c));
    v[3] = vcombine_f32(vget_high_f32(b), vget_high_f32(d));
}

/* Scales or zero biases of n <= 4 groups from g on. */
DOT8_INLINE void dot8_scales(const struct dot8_block *b, const uint8_t *p, int64_t g, int n, float32x4_t v[4]) {
    const int64_t n_groups = b->w->k / b->w->group;
    const size_t size = b->w->dtype == OC_F32 ? 4 : 2;
#pragma GCC unroll 4
    for (int r = 0; r < DOT8_R; r++) {
        uint8_t few[16] = {0};
        const uint8_t *at = p + (size_t)(b->at[r] * n_groups + g) * size;
        if (n < 4) at = memcpy(few, at, (size_t)n * size);
        v[r] = oc_neon_load_float(at, b->w->dtype);
    }
    dot8_turn(v);
}

DOT8_INLINE void dot8_groups(struct dot8_block *b, const int D, const int bits, const bool unsigned_w) {
    const int group = b->w->group;
    const int64_t n_groups = b->w->k / group;
    for (int64_t g = 0; g < n_groups; g++) {
        if (g % 4 == 0) {
            int n = n_groups - g < 4 ? (int)(n_groups - g) : 4;
            dot8_scales(b, b->w->scales, g, n, b->scales);
            dot8_scales(b, b->w->zero_biases, g, n, b->zero_biases);
        }
        if (group == 32) dot8_unit(b, g, 0, true, 2, D, bits, unsigned_w);
        if (group == 128) dot8_unit(b, g, 0, false, 4, D, bits, unsigned_w);
        if (group >= 64) dot8_unit(b, g, group / 64 - 1, true, 4, D, bits, unsigned_w);
    }
}

/* The chains added in halves: out[i*ldo + r], r < n. */
DOT8_INLINE void dot8_store(struct dot8_block *b, int n, float *out, int64_t ldo) {
    for (int i = 0; i < b->m; i++) {
        for (int half = DOT8_CHAINS / 2; half > 0; half /= 2) {
            for (int c = 0; c < half; c++) b->acc[c][i] = vaddq_f32(b->acc[c][i], b->acc[c + half][i]);
        }
        float v[4];
        vst1q_f32(v, b->acc[0][i]);
        memcpy(out + i * ldo, v, (size_t)n * sizeof *v);
    }
}

DOT8_INLINE void dot8_rows(struct dot8_block *b, int64_t row, int n, float *out, int64_t ldo, const bool unsigned_w) {
    for (int r = 0; r < DOT8_R; r++) {
        b->at[r] = row + (r < n ? r : n - 1);
        b->rows[r] = b->w->w + (size_t)b->at[r] * oc_weight_row_bytes(b->w);
    }
    for (int c = 0; c < DOT8_CHAINS; c++) {
        for (int i = 0; i < b->m; i++) b->acc[c][i] = vdupq_n_f32(0);
    }
    if (b->w->bits == 4) {
        if (b->x->n_digits == 1) dot8_groups(b, 1, 4, unsigned_w);
        if (b->x->n_digits == 2) dot8_groups(b, 2, 4, unsigned_w);
    } else {
        if (b->x->n_digits == 1) dot8_groups(b, 1, 8, unsigned_w);
        if (b->x->n_digits == 2) dot8_groups(b, 2, 8, unsigned_w);
    }
    dot8_store(b, n, out, ldo);
}

/* oc_simd.dot8. */
DOT8_INLINE void dot8_all(const struct oc_weight *w, int64_t n0, int n, const struct oc_dot_x8 *x, int m, float *out, int64_t ldo,
                          const bool unsigned_w) {
    struct dot8_block b;
    OC_ASSERT(m <= OC_D_SLICE && w->group <= 128 && w->group % 32 == 0 && (x->n_digits == 1 || x->n_digits == 2));
    b.w = w, b.x = x, b.m = m;
    for (int r = 0; r < n; r += DOT8_R) {
        dot8_rows(&b, n0 + r, n - r < DOT8_R ? n - r : DOT8_R, out + r, ldo, unsigned_w);
    }
}

#endif
