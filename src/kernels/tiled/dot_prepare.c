/* The order of x that the role D kernels want. */
#include "kernels/tiled/tiled.h"

static void permute(const float *x, int64_t k, int bits, int lanes, float *out, int64_t ldx) {
    const int per = 32 / bits;
    const int64_t chunk = (int64_t)lanes * per, whole = k / chunk * chunk;
    for (int j = 0; j < per; j++) {
        const float factor = oc_f32_from_bits((uint32_t)(127 - bits * (j % (per / 2))) << 23);
        for (int64_t c = 0; c < whole; c += chunk) {
            float *o = out + c + (int64_t)j * lanes;
            for (int i = 0; i < lanes; i++) o[i] = x[c + (int64_t)i * per + j] * factor;
        }
        for (int i = 0; i < lanes && whole < k; i++) {
            int64_t from = whole + (int64_t)i * per + j;
            out[whole + (int64_t)j * lanes + i] = from < k ? x[from] * factor : 0.0f;
        }
    }
    for (int64_t i = (k + chunk - 1) / chunk * chunk; i < ldx; i++) out[i] = 0;
}

static float group_sum(const float *x, int n) {
    float part[8] = {0};
    for (int i = 0; i < n; i += 8) {
        for (int j = 0; j < 8; j++) part[j] += x[i + j];
    }
    return ((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7]));
}

void oc_tiled_group_sums(const struct oc_weight *w, const float *x, float *sums, int64_t lds) {
    int64_t n_groups = w->k / w->group;
    for (int64_t g = 0; g < lds; g++) sums[g] = g < n_groups ? group_sum(x + g * w->group, w->group) : 0.0f;
}

void oc_tiled_dot_prepare(const struct oc_weight *w, int lanes, const float *x, float *xp, int64_t ldx, float *sums,
                          int64_t lds) {
    if (w->bits == 0) {
        memcpy(xp, x, (size_t)w->k * sizeof(float));
        memset(xp + w->k, 0, (size_t)(ldx - w->k) * sizeof(float));
        return;
    }
    permute(x, w->k, w->bits, lanes, xp, ldx);
    oc_tiled_group_sums(w, x, sums, lds);
}
