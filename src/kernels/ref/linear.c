/* Reference linear: dequantise a few rows of W, dot them with every row of x. */
#include "kernels/ref/ref.h"

struct job {
    const struct oc_kctx *ctx;
    const struct oc_linear *a;
};

static void store(const struct oc_linear *a, int64_t i, int64_t n, float v) {
    float *y = a->y + i * a->ldy + n;
    if (a->w->bias) v += a->w->bias[n];
    v = oc_ref_act(a->act, v);
    *y = a->add ? *y + v : v;
}

/* y columns n0 .. n0+rows-1 for all rows of x; panel [rows, k] holds those rows of W. */
static void columns(const struct oc_linear *a, const float *panel, int64_t n0, int rows) {
    const struct oc_weight *w = a->w;
    for (int64_t i = 0; i < a->m; i++) {
        const float *x = a->x + i * a->ldx;
        for (int r = 0; r < rows; r++) store(a, i, n0 + r, oc_ref_dot(x, panel + r * w->k, w->k));
    }
}

/* y columns lo .. hi-1 of an x of 8 bits. */
static void columns_int8(const struct oc_linear *a, float *room, int64_t lo, int64_t hi) {
    for (int64_t i = 0; i < a->m; i++) {
        struct oc_ref_int8 x = oc_ref_int8_round(a->w, a->x + i * a->ldx, 1, room);
        for (int64_t n = lo; n < hi; n++) store(a, i, n, oc_ref_int8_dot(a->w, n, &x));
    }
}

static void work(void *arg, int thread, int n_threads) {
    const struct job *j = arg;
    const struct oc_weight *w = j->a->w;
    float *panel = (float *)(void *)j->ctx->scratch + (int64_t)thread * OC_REF_ROWS * w->k;
    long lo, hi;
    oc_pool_split((long)w->n, OC_REF_ROWS, thread, n_threads, &lo, &hi);
    if (j->ctx->int8 && j->a->role == OC_ROLE_D && w->bits) {
        columns_int8(j->a, panel, lo, hi);
        return;
    }
    for (int64_t n0 = lo; n0 < hi; n0 += OC_REF_ROWS) {
        int rows = (int)(hi - n0 < OC_REF_ROWS ? hi - n0 : OC_REF_ROWS);
        for (int r = 0; r < rows; r++) oc_ref_weight_row(w, n0 + r, panel + r * w->k);
        columns(j->a, panel, n0, rows);
    }
}

void oc_ref_linear(const struct oc_kctx *ctx, const struct oc_linear *a) {
    size_t need = (size_t)oc_pool_n_threads(ctx->pool) * OC_REF_ROWS * (size_t)a->w->k * sizeof(float);
    OC_ASSERT(need <= ctx->scratch_bytes);
    struct job j = {ctx, a};
    oc_pool_run(ctx->pool, work, &j);
}
