/* kernels/ref/ref.h - the plain C kernels: the definition of right for every other ISA.
 *
 * One file per op. Values are dequantised in f32 (w = s*q + b) and accumulated in f32 in a fixed order. Other
 * ISAs call these where they have nothing better. */
#ifndef OC_KERNELS_REF_H
#define OC_KERNELS_REF_H

#include "kernels/convert.h"
#include "kernels/impl.h"

#define OC_OP(name) void oc_ref_##name(const struct oc_kctx *ctx, const struct oc_##name *a);
#include "kernels/ops.def"
#undef OC_OP

/* Weight rows dequantised at once by a thread of the reference linear ops. */
#define OC_REF_ROWS 8

/* out[k] f32 = row `row` of w, dequantised. */
void oc_ref_weight_row(const struct oc_weight *w, int64_t row, float *out);

/* sum of a[i]*b[i], in 16 interleaved partial sums added pairwise. */
float oc_ref_dot(const float *a, const float *b, int64_t n);

/* A row of x as oc_int_round_group rounds it to numbers of so many digits, lowest first: q [digits, k],
 * scales and sums [k/group]. */
struct oc_ref_int8 {
    int8_t *q;
    float *scales, *sums;
    int digits;
};

/* The row x rounded for w, into `room`, which holds k floats. */
struct oc_ref_int8 oc_ref_int8_round(const struct oc_weight *w, const float *x, int digits, float *room);

/* Row `row` of w times a rounded x, in the order that oc_simd.dot8 tells. */
float oc_ref_int8_dot(const struct oc_weight *w, int64_t row, const struct oc_ref_int8 *x);

/* act(x), libm accuracy. */
float oc_ref_act(enum oc_act act, float x);

/* out[i] = element i of `in` (F32, F16 or BF16). */
void oc_ref_widen(const uint8_t *in, enum oc_dtype t, int64_t n, float *out);

/* One query's running softmax over blocks of keys: sum and acc are relative to exp(max). */
struct oc_ref_softmax {
    float max, sum;
    float acc[OC_MAX_HD];
};

#define OC_REF_KEYS 64 /* keys per block of the running softmax */

void oc_ref_softmax_start(struct oc_ref_softmax *s, int hd);

/* Takes n <= OC_REF_KEYS keys and values (rows of hd, ld apart) into the softmax of query q. */
void oc_ref_softmax_add(struct oc_ref_softmax *s, const float *q, int hd, float scale, const float *k,
                        const float *v, int64_t ldk, int64_t ldv, int n);

/* y[hd] = acc / sum. */
void oc_ref_softmax_finish(const struct oc_ref_softmax *s, int hd, float *y);

#endif
