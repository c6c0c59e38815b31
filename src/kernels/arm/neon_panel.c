/* Dequantising and turning blocks of W for the register tile, in plain C: a few percent of a prefill's time. */
#include "kernels/arm/neon.h"
#include "kernels/ref/ref.h"

enum { NR = 8 };

/* out[kk] = row `row` of w from k0 on; when quantised k0 and kk are multiples of the group. */
static void row_part(const struct oc_weight *w, int64_t row, int64_t k0, int64_t kk, float *out) {
    const uint8_t *in = w->w + (size_t)row * oc_weight_row_bytes(w);
    if (w->bits == 0) {
        oc_ref_widen(in + (size_t)k0 * oc_dtype_bytes(w->dtype), w->dtype, kk, out);
        return;
    }
    int64_t at = row * (w->k / w->group) + k0 / w->group;
    in += (size_t)k0 * w->bits / 8;
    for (int64_t g = 0; g < kk; g += w->group, at++) {
        float s = oc_load_float(w->scales, w->dtype, at), b = oc_load_float(w->zero_biases, w->dtype, at);
        if (w->bits == 8) {
            for (int64_t i = g; i < g + w->group; i++) out[i] = s * (float)in[i] + b;
            continue;
        }
        for (int64_t i = g; i < g + w->group; i += 2) {
            out[i] = s * (float)(in[i / 2] & 15) + b;
            out[i + 1] = s * (float)(in[i / 2] >> 4) + b;
        }
    }
}

void oc_neon_transpose(const float *in, int64_t ld, int n, int kk, float *out) {
    for (int r = 0; r < NR; r++) {
        for (int k = 0; k < kk; k++) out[k * NR + r] = r < n ? in[r * ld + k] : 0.0f;
    }
}

void oc_neon_panel(const struct oc_weight *w, int64_t n0, int n, int64_t k0, int kk, float *out, float *tmp) {
    for (int r = 0; r < n; r++) row_part(w, n0 + r, k0, kk, tmp + (int64_t)r * kk);
    oc_neon_transpose(tmp, kk, n, kk, out);
}
