/* kernels/int16.h - x as whole numbers of 16 bits with one scale for each quantisation group of the weight it
 * meets.
 *
 * The largest absolute value of a group becomes OC_INT16_MOST, and q is the nearest integer, ties to even. q
 * is two signed bytes, q = 256 high + low, so products with W's unsigned integers can be made of bytes, and
 * their sum over a group of up to 128 is an exact integer below 2^31 whatever makes it (128 * 255 * 32639). y
 * is W times the rounded x: zero_bias meets the sum of the rounded x, as in kernels/int8.h. Inline, no state,
 * any thread. */
#ifndef OC_KERNELS_INT16_H
#define OC_KERNELS_INT16_H

#include "kernels/int8.h"

#define OC_INT24_MOST 8355584 /* 65536 * 127 + 256 * 127, which rounding cannot carry to a fourth byte */
#define OC_INT16_MOST 32639   /* 256 * 127 + 127, of which both bytes are signed */

/* The scale of a group whose largest absolute value has the bits `most`; returns its inverse, 0 where all of
 * q is 0. */
static inline float oc_int16_scale(uint32_t most, float *scale) {
    return oc_int_scale(most, OC_INT16_MOST, scale);
}

/* The lowest byte of *q, signed; *q becomes what is left, over 256. */
static inline int8_t oc_int_take_digit(int32_t *q) {
    int8_t low = (int8_t)(uint8_t)(*q & 255);
    *q = (*q - low) / 256;
    return low;
}

/* q[i] = x[i] / *scale rounded, i < n <= 128, and the sum of the rounded values; NaN and almost nothing as
 * oc_int_round_group. */
static inline void oc_int16_round_group(const float *x, int n, int16_t *q, float *scale, float *sum) {
    int32_t wide[128];
    oc_int_round_group(x, n, OC_INT16_MOST, wide, scale, sum);
    for (int i = 0; i < n; i++) q[i] = (int16_t)wide[i];
}

/* Numbers of one, two or three signed bytes. */
#define OC_MAX_DIGITS 3

static inline float oc_digits_most(int digits) {
    return digits == 1 ? 127.0f : digits == 2 ? OC_INT16_MOST : OC_INT24_MOST;
}

#endif
