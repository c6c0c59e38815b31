/* Reference gated MLP half: act(gate) * up. */
#include "kernels/ref/ref.h"

struct job {
    const struct oc_kctx *ctx;
    const struct oc_linear_glu *a;
};

static bool is_rounded(const struct job *j, const struct oc_weight *w) {
    return j->ctx->int8 && j->a->role == OC_ROLE_D && w->bits;
}

/* x times row n of w, which stands dequantised in `row`; or, where x is rounded, `row` is room for that. */
static float product(const struct job *j, const struct oc_weight *w, const float *x, int64_t n, float *row) {
    if (!is_rounded(j, w)) return oc_ref_dot(x, row, w->k);
    struct oc_ref_int8 rounded = oc_ref_int8_round(w, x, 1, row);
    return oc_ref_int8_dot(w, n, &rounded);
}

static void column(const struct job *j, float *gate, float *up, int64_t n) {
    const struct oc_linear_glu *a = j->a;
    for (int64_t i = 0; i < a->m; i++) {
        const float *x = a->x + i * a->ldx;
        float g = product(j, a->gate, x, n, gate), u = product(j, a->up, x, n, up);
        if (a->gate->bias) g += a->gate->bias[n];
        if (a->up->bias) u += a->up->bias[n];
        a->y[i * a->ldy + n] = oc_ref_act(a->act, g) * u;
    }
}

static void work(void *arg, int thread, int n_threads) {
    const struct job *j = arg;
    int64_t k = j->a->gate->k;
    float *gate = (float *)(void *)j->ctx->scratch + (int64_t)thread * 2 * k, *up = gate + k;
    long lo, hi;
    oc_pool_split((long)j->a->gate->n, 1, thread, n_threads, &lo, &hi);
    for (int64_t n = lo; n < hi; n++) {
        if (!is_rounded(j, j->a->gate)) oc_ref_weight_row(j->a->gate, n, gate);
        if (!is_rounded(j, j->a->up)) oc_ref_weight_row(j->a->up, n, up);
        column(j, gate, up, n);
    }
}

void oc_ref_linear_glu(const struct oc_kctx *ctx, const struct oc_linear_glu *a) {
    OC_ASSERT(a->gate->n == a->up->n && a->gate->k == a->up->k);
    size_t need = (size_t)oc_pool_n_threads(ctx->pool) * 2 * (size_t)a->gate->k * sizeof(float);
    OC_ASSERT(need <= ctx->scratch_bytes);
    struct job j = {ctx, a};
    oc_pool_run(ctx->pool, work, &j);
}
