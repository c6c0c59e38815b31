/* Rounded rows of x in the order that dot8 wants. */
#include "kernels/int8.h"
#include "kernels/tiled/tiled.h"

/* Bytes 0, 2, 4 and 6 of v. */
static inline uint32_t even_bytes(uint64_t v) {
    v &= 0x00ff00ff00ff00ffu;
    v = (v | v >> 8) & 0x0000ffff0000ffffu;
    return (uint32_t)(v | v >> 16);
}

void oc_tiled_round8(const float *x, int group, int bits, int8_t *q, float *scale, float *sum) {
    oc_int8_round_group(x, group, q, scale, sum);
    for (int i = 0; bits == 4 && i < group; i += 8) {
        uint64_t v;
        memcpy(&v, q + i, 8);
        uint32_t even = even_bytes(v), odd = even_bytes(v >> 8);
        memcpy(q + i, &even, 4);
        memcpy(q + i + 4, &odd, 4);
    }
}

void oc_tiled_dot8_prepare(const struct oc_simd *s, const struct oc_weight *w, const float *x, int8_t *q,
                           int64_t ldq, float *scales, float *sums, int64_t lds) {
    int64_t n_groups = w->k / w->group, padded = (int64_t)oc_round_up((size_t)n_groups, OC_INT8_SPAN);
    int8_t rounded[128];
    OC_ASSERT(w->group <= 128 && padded * w->group <= ldq && padded <= lds);
    for (int64_t g = 0; g < lds; g++) scales[g] = sums[g] = 0;
    if (padded > n_groups)
        memset(q + (padded - OC_INT8_SPAN) * w->group, 0, (size_t)(OC_INT8_SPAN * w->group));
    for (int64_t g = 0; g < n_groups; g++) {
        int64_t span = g / OC_INT8_SPAN * OC_INT8_SPAN;
        int lane = oc_int8_lane((int)(g - span));
        s->round8(x + g * w->group, w->group, w->bits, rounded, &scales[span + lane], &sums[span + lane]);
        int8_t *at = q + span * w->group + 4 * lane;
        for (int i = 0; i < w->group; i += 4, at += 64) memcpy(at, rounded + i, 4);
    }
}
