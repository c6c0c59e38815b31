/* kernels/x86/digits.h - what role D by AMX does between tile products, in AVX-512 with VBMI: x86/amx_dot.h
 * calls it.
 *
 * 32 rows of W are at work, in two tiles of 16. A step is 128 k: two tiles of 64 k for 16 rows. */
#ifndef OC_KERNELS_X86_DIGITS_H
#define OC_KERNELS_X86_DIGITS_H

#include "kernels/tiled/tiled.h"

#define OC_DIGITS_STEP 128
#define OC_DIGITS_SPAN 16 /* groups whose scales are turned at a time */

/* A step of 16 rows of W unpacked: [two times 64 k][row][k]; and its products with four rows of x:
 * [group][256]. */
typedef uint8_t oc_digits_w[2][16][64];
typedef int32_t oc_digits_c[2][256];

/* A span's scales and zero biases, turned. */
typedef float oc_digits_groups[OC_DIGITS_SPAN][OC_D_NB];

/* oc_simd_digits.prepare. */
void oc_avx512vbmi_digits_prepare(const struct oc_weight *w, const float *x, int8_t *q, int width, int slot,
                                  float *scale);

/* Rows 0 .. n-1 of a = kk weights (64 or 128) from k0 on of n rows, less the middle of their range: signed.
 * Of 4-bit weights each 64 k come as the even ones, then the odd ones. */
void oc_avx512vbmi_digits_unpack(const struct oc_weight *w, int64_t row, int n, int64_t k0, int kk,
                                 uint8_t (*a)[64]);

/* Groups g .. g+count-1 of n rows; zeros for the rows from n on. What unpack took from the weights comes back
 * in zero_biases. */
void oc_avx512vbmi_digits_groups(const struct oc_weight *w, int64_t row, int n, int64_t g, int count,
                                 oc_digits_groups scales, oc_digits_groups zero_biases);

/* acc += scale times product for each of n_groups groups in order; c and acc are one tile, [16 rows of
 * W][width rows of x][4 digits], [group][256]; scales[g] are those of the tile's rows. */
void oc_avx512vbmi_digits_add(const int32_t *c, int n_groups, const float (*scales)[OC_D_NB], float *acc,
                              int width);

/* z[i][r] += zero_biases[g][r] * sums[i*lds + g] for g < count in order, i < m. */
void oc_avx512vbmi_digits_zero(oc_digits_groups zero_biases, int count, const float *sums, int64_t lds, int m,
                               float (*z)[OC_D_NB]);

/* out[i*ldo + r] = the digits in acc added up, times scales[i*lds], and z[i][r]; i < n_x <= width, r < n. */
void oc_avx512vbmi_digits_finish(const float *acc, int width, int n_x, const float *scales, int64_t lds,
                                 const float (*z)[OC_D_NB], float *out, int64_t ldo, int n);

#endif
