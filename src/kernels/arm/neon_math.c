/* Activations and the softmax's rows. */
#include <math.h>

#include "kernels/arm/neon.h"
#include "kernels/ref/ref.h"

void oc_neon_act_row(enum oc_act act, float *v, int64_t n) {
    int64_t i = 0;
    for (; act == OC_ACT_SILU && i + 4 <= n; i += 4) {
        float32x4_t x = vld1q_f32(v + i);
        vst1q_f32(v + i, vdivq_f32(x, vaddq_f32(vdupq_n_f32(1), oc_neon_exp(vnegq_f32(x)))));
    }
    if (i < n && act == OC_ACT_SILU) { /* the same arithmetic for the tail: a value may not depend on its place */
        float rest[4] = {0};
        memcpy(rest, v + i, (size_t)(n - i) * sizeof(float));
        float32x4_t x = vld1q_f32(rest);
        vst1q_f32(rest, vdivq_f32(x, vaddq_f32(vdupq_n_f32(1), oc_neon_exp(vnegq_f32(x)))));
        memcpy(v + i, rest, (size_t)(n - i) * sizeof(float));
        return;
    }
    for (; i < n; i++) v[i] = oc_ref_act(act, v[i]);
}

float oc_neon_max_row(const float *v, int64_t n) {
    float max = -INFINITY;
    int64_t i = 0;
    float32x4_t most = vdupq_n_f32(max);
    for (; i + 4 <= n; i += 4) most = vmaxq_f32(most, vld1q_f32(v + i));
    max = vmaxvq_f32(most);
    for (; i < n; i++) max = fmaxf(max, v[i]);
    return max;
}

float oc_neon_exp_row(float *v, int64_t n, float scale, float max) {
    const float32x4_t shift = vdupq_n_f32(-max);
    float32x4_t sum = vdupq_n_f32(0);
    int64_t i = 0;
    for (; i + 4 <= n; i += 4) {
        float32x4_t e = oc_neon_exp(vfmaq_n_f32(shift, vld1q_f32(v + i), scale));
        vst1q_f32(v + i, e);
        sum = vaddq_f32(sum, e);
    }
    if (i < n) {
        float rest[4] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
        memcpy(rest, v + i, (size_t)(n - i) * sizeof(float));
        float32x4_t e = oc_neon_exp(vfmaq_n_f32(shift, vld1q_f32(rest), scale)); /* 0 where there is no value */
        vst1q_f32(rest, e);
        memcpy(v + i, rest, (size_t)(n - i) * sizeof(float));
        sum = vaddq_f32(sum, e);
    }
    return vaddvq_f32(sum);
}
