/* Rounded rows of x in the order that dot8 wants. */
#include "kernels/int16.h"
#include "kernels/tiled/tiled.h"

void oc_tiled_round8(const float *x, int group, int bits, int digits, int8_t *q, float *scale, float *sum) {
    int32_t wide[128];
    oc_int_round_group(x, group, oc_digits_most(digits), wide, scale, sum);
    for (int i = 0; i < group; i += 4) {
        const int32_t *from = bits == 8 ? wide + i : wide + i / 8 * 8 + i / 4 % 2;
        for (int j = 0; j < 4; j++) {
            int32_t v = from[bits == 8 ? j : 2 * j];
            for (int d = 0; d < digits; d++) q[4 * d + j] = oc_int_take_digit(&v);
        }
        q += 4 * digits;
    }
}

void oc_tiled_dot8_prepare(const struct oc_simd *s, const struct oc_weight *w, const float *x, int digits,
                           int8_t *q, int64_t ldq, float *scales, float *sums, int64_t lds) {
    int64_t n_groups = w->k / w->group, padded = (int64_t)oc_round_up((size_t)n_groups, OC_INT8_SPAN);
    int64_t bytes = (int64_t)w->group * digits; /* of a group */
    int8_t rounded[128 * OC_MAX_DIGITS];
    OC_ASSERT(w->group <= 128 && padded * bytes <= ldq && padded <= lds);
    for (int64_t g = 0; g < lds; g++) scales[g] = sums[g] = 0;
    if (padded > n_groups) memset(q + (padded - OC_INT8_SPAN) * bytes, 0, (size_t)(OC_INT8_SPAN * bytes));
    for (int64_t g = 0; g < n_groups; g++) {
        int64_t span = g / OC_INT8_SPAN * OC_INT8_SPAN;
        int lane = oc_int8_lane((int)(g - span));
        s->round8(x + g * w->group, w->group, w->bits, digits, rounded, &scales[span + lane],
                  &sums[span + lane]);
        int8_t *at = q + span * bytes + 4 * lane;
        for (int i = 0; i < bytes; i += 4, at += 64) memcpy(at, rounded + i, 4);
    }
}
