/* Rows of x as whole numbers in the order that NEON's dot8 wants. */
#include "kernels/arm/neon.h"
#include "kernels/int8.h"

/* A group's part; returns the sum. */
static int32_t place(const int8_t *rounded, int group, int bits, int8_t *q) {
    int32_t total = 0;
    for (int i = 0; i < group; i++) total += rounded[i];
    if (bits == 8) memcpy(q, rounded, (size_t)group);
    for (int k = 0; bits == 4 && k < group; k += 32) {
        for (int i = 0; i < 16; i++) {
            q[k + i] = rounded[k + 2 * i];
            q[k + 16 + i] = rounded[k + 2 * i + 1];
        }
    }
    return total;
}

void oc_neon_prepare8(const struct oc_weight *w, const float *x, int8_t *q, int64_t ldq, float *scales, float *sums, int64_t lds) {
    const int64_t n_groups = w->k / w->group;
    int32_t *middles = (int32_t *)(void *)(q + w->k);
    int8_t rounded[128];
    OC_ASSERT(w->group <= 128 && w->k + n_groups * 4 <= ldq && n_groups <= lds);
    for (int64_t g = 0; g < n_groups; g++) {
        oc_int8_round_group(x + g * w->group, w->group, rounded, &scales[g], &sums[g]);
        middles[g] = 128 * place(rounded, w->group, w->bits, q + g * w->group);
    }
}
