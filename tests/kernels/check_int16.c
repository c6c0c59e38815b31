/* Role P of quantised weights by whole numbers has the bits that kernels/int16.h and the order of groups give it, in every ISA. */
#include <math.h>
#include <stdlib.h>

#include "check.h"
#include "kernels/int16.h"

/* y of one row of x and one of W, the plain way. */
static float plain(const struct oc_weight *w, int64_t n, const float *x) {
    const int mask = (1 << w->bits) - 1, per = 32 / w->bits;
    float y = 0;
    for (int64_t g = 0; g < w->k / w->group; g++) {
        int16_t q[128];
        float scale, sum;
        int32_t dot = 0;
        oc_int16_round_group(x + g * w->group, w->group, q, &scale, &sum);
        for (int i = 0; i < w->group; i++) {
            int64_t k = g * w->group + i;
            uint32_t word = oc_load_u32(w->w + 4 * ((n * w->k + k) / per));
            dot += q[i] * (int32_t)(word >> (uint32_t)(k % per) * w->bits & (uint32_t)mask);
        }
        int64_t at = n * (w->k / w->group) + g;
        y = fmaf(oc_load_float(w->zero_biases, w->dtype, at), sum, y);
        y = fmaf(oc_load_float(w->scales, w->dtype, at), (float)dot * scale, y);
    }
    return w->bias ? y + w->bias[n] : y;
}

/* m 0: some rows. */
static void bits(struct chk *c, enum wformat f, int group, int64_t m) {
    static const enum oc_dtype types[] = {OC_F32, OC_F16, OC_BF16};
    int64_t k = group * rnd_int(c, 1, (m ? 600 : 2300) / group), n = rnd_int(c, 1, 140);
    if (m == 0) m = rnd_int(c, 1, 3) == 1 ? 391 : rnd_int(c, 1, 30);
    struct weight w = weight_new(c, f, n, k, group, RND_OF(c, types), rnd(c) % 2);
    struct mat x = mat_new(m, k, k + rnd_int(c, 0, 5)), y = mat_new(m, n, n + 3);
    mat_random(c, &x);
    if (rnd(c) % 4 == 0) memset(x.p, 0, (size_t)group * sizeof(float)); /* a group of nothing */
    x.p[rnd_int(c, 0, (int)k - 1)] = 3e4f;
    if (rnd(c) % 4 == 0) memset(w.data.p, 0xff, w.data.bytes); /* the largest sums */
    for (int64_t i = 0; w.data.p[0] == 0xff && i < k; i++) x.p[i] = 1;
    struct run_ctx r = run_ctx_new(c, rnd_int(c, 1, 3), m, k, n, 8);
    struct oc_linear a = {OC_ROLE_P, m, x.p, x.ld, &w.w, y.p, y.ld, OC_ACT_NONE, false};
    c->ops.linear(&r.k, &a);
    bool same = true;
    for (int64_t at = 0; at < m * n && same; at++) {
        int64_t row = at / n, col = at % n;
        if (row > 8 && rnd(c) % 8) continue;
        float want = plain(&w.w, col, x.p + row * x.ld), got = y.p[row * y.ld + col];
        same = memcmp(&want, &got, sizeof want) == 0 || want == got; /* either zero will do */
        if (!same) {
            fail(c, "row %d column %d: %a for %a, %s in groups of %d, m %d n %d k %d", (int)row, (int)col, (double)got, (double)want,
                 wformat_name(f), group, (int)m, (int)n, (int)k);
        }
    }
    bool clean = mat_written(&y);
    if (!run_ctx_free(&r) || !clean) fail(c, "canary or poison, m %d n %d k %d", (int)m, (int)n, (int)k);
    c->n_cases++;
    mat_free(&x), mat_free(&y);
    weight_free(&w);
}

void check_int16(struct chk *c) {
    static const int groups[] = {32, 64, 128};
    op_begin(c, "bits: whole numbers (P)");
    for (int i = 0; i < (c->quick ? 2 : 8); i++) {
        for (int g = 0; g < 3; g++) bits(c, W_Q4, groups[g], 0), bits(c, W_Q8, groups[g], 0);
    }
    bits(c, W_Q4, 64, 1601); /* more than are rounded at a time */
    check_not_finite(c, OC_ROLE_P, W_Q4, 9, 70, 320);
    check_not_finite(c, OC_ROLE_P, W_Q8, 9, 70, 320);
    op_end(c, 0);
}
