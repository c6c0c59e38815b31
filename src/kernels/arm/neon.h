/* kernels/arm/neon.h - the NEON primitives: f32 arithmetic of the AArch64 base, products of bytes (dotprod, i8mm). Plain and right
 * before fast: no machine was there to time them, see docs/KERNELS.md. */
#ifndef OC_KERNELS_ARM_NEON_H
#define OC_KERNELS_ARM_NEON_H

#include <arm_neon.h>

#include "kernels/ref/ref.h"
#include "kernels/tiled/tiled.h"

void oc_neon_tile(const struct oc_tile *t);
void oc_neon_panel(const struct oc_weight *w, int64_t n0, int n, int64_t k0, int kk, float *out, float *tmp);
void oc_neon_transpose(const float *in, int64_t ld, int n, int kk, float *out);
void oc_neon_dot(const struct oc_weight *w, int64_t n0, int n, const struct oc_dot_x *x, int m, float *out,
                 int64_t ldo);
void oc_neon_act_row(enum oc_act act, float *v, int64_t n);
float oc_neon_max_row(const float *v, int64_t n);
float oc_neon_exp_row(float *v, int64_t n, float scale, float max);
void oc_neon_dot_prepare(const struct oc_weight *w, const float *x, float *xp, int64_t ldx, float *sums, int64_t lds);

/* What the tables have in common, members of struct oc_simd. */
#define OC_NEON_BASE                                                                                                    \
    .mr = 8, .nr = 8, .lanes = 4, .tile = oc_neon_tile, .panel = oc_neon_panel, .transpose = oc_neon_transpose,        \
    .widen = oc_ref_widen, .dot_prepare = oc_neon_dot_prepare, .dot = oc_neon_dot, .act_row = oc_neon_act_row,         \
    .max_row = oc_neon_max_row, .exp_row = oc_neon_exp_row

/* oc_simd.dot8 by SDOT alone, and with USDOT; `prepare8` of both: groups in order, of each group first the lower digits, then the
 * upper ones if there are two; of 4-bit weights each 32 of a group as the 16 even ones, then the 16 odd ones, as they fall out of 16
 * bytes; behind all groups, for each, an int32 of 128 times the sum of its numbers. */
void oc_neon_dot8_sdot(const struct oc_weight *w, int64_t n0, int n, const struct oc_dot_x8 *x, int m, float *out, int64_t ldo);
void oc_neon_dot8_usdot(const struct oc_weight *w, int64_t n0, int n, const struct oc_dot_x8 *x, int m, float *out, int64_t ldo);
void oc_neon_prepare8(const struct oc_weight *w, const float *x, int digits, int8_t *q, int64_t ldq, float *scales, float *sums,
                      int64_t lds);

/* 4 elements of F32, F16 or BF16 from any address, as f32. */
static inline __attribute__((always_inline)) float32x4_t oc_neon_load_float(const uint8_t *p, enum oc_dtype t) {
    if (t == OC_F32) return vreinterpretq_f32_u8(vld1q_u8(p));
    uint16x4_t half = vreinterpret_u16_u8(vld1_u8(p));
    if (t == OC_F16) return vcvt_f32_f16(vreinterpret_f16_u16(half));
    return vreinterpretq_f32_u32(vshll_n_u16(half, 16));
}

/* exp(x) within 2 ulp for x in [-87.33, 88.37], 0 below, 2.4e38 above; NaN stays NaN. The same formula as
 * oc_avx2_exp. */
static inline float32x4_t oc_neon_exp(float32x4_t x) {
    const float32x4_t lowest = vdupq_n_f32(-87.336540f);
    uint32x4_t underflow = vcltq_f32(x, lowest);
    x = vminq_f32(vdupq_n_f32(88.376259f), vmaxq_f32(lowest, x)); /* NaN passes both */
    float32x4_t n = vrndnq_f32(vmulq_n_f32(x, 1.44269504f));
    float32x4_t r = vfmsq_f32(x, n, vdupq_n_f32(0x1.62e4p-1f));
    r = vfmsq_f32(r, n, vdupq_n_f32(0x1.7f7d1cp-20f));
    float32x4_t p = vdupq_n_f32(1.0f / 5040);
    p = vfmaq_f32(vdupq_n_f32(1.0f / 720), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.0f / 120), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.0f / 24), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.0f / 6), p, r);
    p = vfmaq_f32(vdupq_n_f32(0.5f), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.0f), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.0f), p, r);
    int32x4_t bits = vaddq_s32(vreinterpretq_s32_f32(p), vshlq_n_s32(vcvtq_s32_f32(n), 23));
    return vreinterpretq_f32_s32(vbicq_s32(bits, vreinterpretq_s32_u32(underflow)));
}

#endif
