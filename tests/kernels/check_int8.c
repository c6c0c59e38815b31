/* Role D with x as whole numbers has the bits of ref in every ISA. */
#include <stdlib.h>

#include "check.h"
#include "kernels/ref/ref.h"

/* What the reference makes of so many digits. */
static void reference(int digits, const struct weight *w, const struct mat *x, struct mat *y) {
    float *room = malloc((size_t)w->w.k * 2 * sizeof *room);
    OC_ASSERT(room);
    for (int64_t i = 0; i < x->rows; i++) {
        struct oc_ref_int8 r = oc_ref_int8_round(&w->w, x->p + i * x->ld, digits, room);
        for (int64_t n = 0; n < w->w.n; n++) {
            y->p[i * y->ld + n] = oc_ref_int8_dot(&w->w, n, &r);
            if (w->w.bias) y->p[i * y->ld + n] += w->w.bias[n];
        }
    }
    free(room);
}

static void bits_of_ref(struct chk *c, enum wformat f, int group) {
    static const enum oc_dtype types[] = {OC_F32, OC_F16, OC_BF16};
    int64_t k = group * rnd_int(c, 1, 2100 / group), n = rnd_int(c, 1, 100),
            m = rnd_int(c, 1, 3) == 1 ? 64 : rnd_int(c, 1, 9);
    struct weight w = weight_new(c, f, n, k, group, RND_OF(c, types), rnd(c) % 2);
    struct mat x = mat_new(m, k, k + rnd_int(c, 0, 5)), want = mat_new(m, n, n), got = mat_new(m, n, n + 3);
    mat_random(c, &x);
    if (rnd(c) % 4 == 0) memset(x.p, 0, (size_t)group * sizeof(float)); /* a group of nothing */
    struct run_ctx r = run_ctx_new(c, rnd_int(c, 1, 3), m, k, n, 8);
    struct oc_linear a = {OC_ROLE_D, m, x.p, x.ld, &w.w, got.p, got.ld, OC_ACT_NONE, false};
    reference(c->ops.int8 ? 1 : c->ops.x_digits, &w, &x, &want);
    c->ops.linear(&r.k, &a);
    for (int64_t i = 0; i < m; i++) {
        if (memcmp(want.p + i * want.ld, got.p + i * got.ld, (size_t)n * sizeof(float)) == 0) continue;
        fail(c, "row %d of %d is not that of ref, %s in groups of %d, n %d k %d", (int)i, (int)m,
             wformat_name(f), group, (int)n, (int)k);
        break;
    }
    bool clean = mat_written(&got);
    if (!run_ctx_free(&r) || !clean) fail(c, "canary or poison, m %d n %d k %d", (int)m, (int)n, (int)k);
    c->n_cases++;
    mat_free(&x), mat_free(&want), mat_free(&got);
    weight_free(&w);
}

void check_int8(struct chk *c) {
    static const int groups[] = {32, 64, 128};
    op_begin(c, "bits: x as whole numbers, as ref");
    for (int i = 0; i < (c->quick ? 6 : 30); i++) {
        for (int g = 0; g < 3; g++) {
            bits_of_ref(c, W_Q4, groups[g]);
            bits_of_ref(c, W_Q8, groups[g]);
        }
    }
    check_not_finite(c, OC_ROLE_D, W_Q4, 5, 37, 1088);
    check_not_finite(c, OC_ROLE_D, W_Q8, 5, 37, 1088);
    op_end(c, 0);
}
