/* kernels/int8.h - x as whole numbers: how role D rounds it to 8 bits where struct oc_kctx says int8, and to more
 * (kernels/int16.h).
 *
 * Each quantisation group of the weight has one scale for its part of x: the largest absolute value becomes
 * the largest whole number (127), and q is the nearest integer, ties to even. y is then W times the rounded x: q's products are summed
 * exactly, and zero_bias meets the sum of the rounded x, not of x itself, so that the error of rounding is
 * weighed by w and not by the unsigned integers of which w is made. Inline, no state, any thread; shared by
 * every ISA of the room. */
#ifndef OC_KERNELS_INT8_H
#define OC_KERNELS_INT8_H

#include "kernels/convert.h"

/* The scale that makes a group's largest absolute value, which has the bits `most`, the whole number
 * `largest_q`; returns its inverse, 0 where all of q is 0. */
static inline float oc_int_scale(uint32_t most, float largest_q, float *scale) {
    float largest = oc_f32_from_bits(most);
    bool finite = most < 0x7f800000u, any = finite && largest > 1e-30f;
    *scale = any ? largest / largest_q : finite ? 0.0f : oc_f32_from_bits(0x7fc00000u);
    return any ? largest_q / largest : 0.0f;
}

/* v, at most largest_q, rounded. */
static inline int32_t oc_int_nearest(float v, float largest_q) {
    const float magic = 0x1.8p23f; /* its last bit is worth 1: adding it rounds to an integer below 2^22 */
    if (largest_q >= 0x1p22f) return (int32_t)__builtin_rintf(v);
    return (int32_t)(oc_f32_bits(v + magic) - oc_f32_bits(magic));
}

/* q[i] = x[i] / *scale rounded, i < n <= 128, and the sum of the rounded values. A group with a NaN or an
 * infinity gets a scale of NaN, so that its outputs are NaN; one of (almost) nothing is 0. */
static inline void oc_int_round_group(const float *x, int n, float largest_q, int32_t *q, float *scale,
                                      float *sum) {
    uint32_t most = 0;
    int32_t total = 0;
    for (int i = 0; i < n; i++) {
        uint32_t bits = oc_f32_bits(x[i]) & 0x7fffffffu;
        most = bits > most ? bits : most;
    }
    float inverse = oc_int_scale(most, largest_q, scale);
    for (int i = 0; i < n; i++) {
        q[i] = inverse > 0 ? oc_int_nearest(x[i] * inverse, largest_q) : 0;
        total += q[i];
    }
    *sum = *scale * (float)total;
}

#endif
