/* Rows of x as whole numbers in the order that NEON's dot8 wants. */
#include "kernels/arm/neon.h"
#include "kernels/int16.h"

/* Digits of a group's numbers, the lowest first, each in the order of the weights; returns the numbers' sum. */
static int32_t place(int32_t *numbers, int group, int bits, int digits, int8_t *q) {
    int32_t total = 0;
    for (int i = 0; i < group; i++) total += numbers[i];
    for (int d = 0; d < digits; d++, q += group) {
        int8_t digit[128];
        for (int i = 0; i < group; i++) digit[i] = oc_int_take_digit(&numbers[i]);
        if (bits == 8) memcpy(q, digit, (size_t)group);
        for (int k = 0; bits == 4 && k < group; k += 32) {
            for (int i = 0; i < 16; i++) {
                q[k + i] = digit[k + 2 * i];
                q[k + 16 + i] = digit[k + 2 * i + 1];
            }
        }
    }
    return total;
}

void oc_neon_prepare8(const struct oc_weight *w, const float *x, int digits, int8_t *q, int64_t ldq, float *scales, float *sums,
                      int64_t lds) {
    const int64_t n_groups = w->k / w->group;
    int32_t *middles = (int32_t *)(void *)(q + digits * w->k), numbers[128];
    OC_ASSERT(w->group <= 128 && digits * w->k + n_groups * 4 <= ldq && n_groups <= lds);
    for (int64_t g = 0; g < n_groups; g++, q += digits * w->group) {
        oc_int_round_group(x + g * w->group, w->group, oc_digits_most(digits), numbers, &scales[g], &sums[g]);
        middles[g] = 128 * place(numbers, w->group, w->bits, digits, q);
    }
}
