/* Reference gated MLP half: act(gate) * up. */
#include "kernels/ref/ref.h"

struct job {
    const struct oc_kctx *ctx;
    const struct oc_linear_glu *a;
};

static void column(const struct oc_linear_glu *a, const float *gate, const float *up, int64_t n) {
    for (int64_t i = 0; i < a->m; i++) {
        const float *x = a->x + i * a->ldx;
        float g = oc_ref_dot(x, gate, a->gate->k), u = oc_ref_dot(x, up, a->up->k);
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
        oc_ref_weight_row(j->a->gate, n, gate);
        oc_ref_weight_row(j->a->up, n, up);
        column(j->a, gate, up, n);
    }
}

void oc_ref_linear_glu(const struct oc_kctx *ctx, const struct oc_linear_glu *a) {
    OC_ASSERT(a->gate->n == a->up->n && a->gate->k == a->up->k);
    size_t need = (size_t)oc_pool_n_threads(ctx->pool) * 2 * (size_t)a->gate->k * sizeof(float);
    OC_ASSERT(need <= ctx->scratch_bytes);
    struct job j = {ctx, a};
    oc_pool_run(ctx->pool, work, &j);
}
