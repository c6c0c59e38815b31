/* Reference products of quantised weights with an x of whole numbers. */
#include "kernels/int16.h"

#include <math.h>

#include "kernels/ref/ref.h"

struct oc_ref_int8 oc_ref_int8_round(const struct oc_weight *w, const float *x, int digits, float *room) {
    int64_t n_groups = w->k / w->group;
    struct oc_ref_int8 r = {
        .scales = room, .sums = room + n_groups, .q = (int8_t *)(room + 2 * n_groups), .digits = digits};
    for (int64_t g = 0; g < n_groups; g++) {
        int32_t q[128];
        int8_t *at = r.q + g * w->group;
        oc_int_round_group(x + g * w->group, w->group, oc_digits_most(digits), q, &r.scales[g], &r.sums[g]);
        for (int d = 0; d < digits; d++, at += w->k) {
            for (int i = 0; i < w->group; i++) at[i] = oc_int_take_digit(&q[i]);
        }
    }
    return r;
}

/* The sum of the unsigned weights times a digit of x over one group: an exact integer. */
static int32_t group_dot(const struct oc_weight *w, const uint8_t *row, int64_t k0, const int8_t *q) {
    int32_t sum = 0;
    for (int64_t i = k0; i < k0 + w->group; i++) {
        int v = w->bits == 8 ? row[i] : (row[i / 2] >> (i % 2 * 4)) & 15;
        sum += v * q[i];
    }
    return sum;
}

/* The same times x, exact but for its rounding to a float, where of three digits the lowest is added to the
 * others. */
static float group_sum(const struct oc_weight *w, const uint8_t *row, int64_t k0,
                       const struct oc_ref_int8 *x) {
    int32_t sum[OC_MAX_DIGITS] = {0};
    for (int d = 0; d < x->digits; d++) sum[d] = group_dot(w, row, k0, x->q + d * w->k);
    if (x->digits == 1) return (float)sum[0];
    int32_t upper = sum[x->digits - 1] * 256 + sum[x->digits - 2];
    return x->digits == 2 ? (float)upper : fmaf((float)upper, 256, (float)sum[0]);
}

float oc_ref_int8_dot(const struct oc_weight *w, int64_t row, const struct oc_ref_int8 *x) {
    const uint8_t *in = w->w + (size_t)row * oc_weight_row_bytes(w);
    int64_t n_groups = w->k / w->group;
    float acc[16] = {0};
    for (int64_t g = 0; g < n_groups; g++) {
        float scale = oc_load_float(w->scales, w->dtype, row * n_groups + g);
        float zero_bias = oc_load_float(w->zero_biases, w->dtype, row * n_groups + g);
        float sum = group_sum(w, in, g * w->group, x) * x->scales[g];
        acc[g % 16] = fmaf(scale, sum, acc[g % 16]);
        acc[g % 16] = fmaf(zero_bias, x->sums[g], acc[g % 16]);
    }
    for (int half = 8; half > 0; half /= 2) {
        for (int i = 0; i < half; i++) acc[i] += acc[i + half];
    }
    return acc[0];
}
