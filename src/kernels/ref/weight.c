/* Dequantisation and the dot product, shared by the reference ops. */
#include "kernels/ref/ref.h"

void oc_ref_widen(const uint8_t *in, enum oc_dtype t, int64_t n, float *out) {
    switch (t) {
    case OC_F32:
        memcpy(out, in, (size_t)n * 4);
        break;
    case OC_BF16:
        for (int64_t i = 0; i < n; i++) out[i] = oc_bf16_to_f32(oc_load_u16(in + 2 * i));
        break;
    default:
        OC_ASSERT(t == OC_F16);
        for (int64_t i = 0; i < n; i++) out[i] = oc_f16_to_f32(oc_load_u16(in + 2 * i));
    }
}

void oc_ref_weight_row(const struct oc_weight *w, int64_t row, float *out) {
    const uint8_t *in = w->w + (size_t)row * oc_weight_row_bytes(w);
    if (w->bits == 0) {
        oc_ref_widen(in, w->dtype, w->k, out);
        return;
    }
    OC_ASSERT(w->bits == 4 || w->bits == 8);
    int64_t n_groups = w->k / w->group;
    for (int64_t g = 0; g < n_groups; g++) {
        float s = oc_load_float(w->scales, w->dtype, row * n_groups + g);
        float b = oc_load_float(w->zero_biases, w->dtype, row * n_groups + g);
        int64_t k0 = g * w->group;
        for (int64_t i = k0; i < k0 + w->group; i++) {
            unsigned q = w->bits == 8 ? in[i] : (in[i / 2] >> (i % 2 * 4)) & 15u;
            out[i] = s * (float)q + b;
        }
    }
}

float oc_ref_dot(const float *a, const float *b, int64_t n) {
    float part[16] = {0};
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        for (int j = 0; j < 16; j++) part[j] += a[i + j] * b[i + j];
    }
    for (int j = 0; i < n; i++, j++) part[j] += a[i] * b[i];
    for (int half = 8; half > 0; half /= 2) {
        for (int j = 0; j < half; j++) part[j] += part[j + half];
    }
    return part[0];
}
