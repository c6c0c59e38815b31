/* The three linear ops as one: choose the role's driver, and the shared end of a row. */
#include "kernels/tiled/tiled.h"

void oc_tiled_store_row(const struct oc_simd *s, const struct oc_multi_linear *a, int which, int64_t row,
                        int64_t n0, int n, float *v, const float *up) {
    const float *bias = a->w[which]->bias;
    float *y = a->y[which] + row * a->ldy[which] + n0;
    if (bias) {
        for (int i = 0; i < n; i++) v[i] += bias[n0 + i];
    }
    if (a->act != OC_ACT_NONE) s->act_row(a->act, v, n);
    if (a->glu) {
        const float *up_bias = a->w[1]->bias;
        for (int i = 0; i < n; i++) y[i] = v[i] * (up_bias ? up[i] + up_bias[n0 + i] : up[i]);
    } else if (a->add) {
        for (int i = 0; i < n; i++) y[i] += v[i];
    } else {
        memcpy(y, v, (size_t)n * sizeof(float));
    }
}

static void run_floats(const struct oc_simd *s, const struct oc_kctx *ctx, const struct oc_multi_linear *a) {
    if (s->bytes && oc_tiled_may_bf16(a)) {
        oc_tiled_gemm_bytes(s, ctx, a);
    } else if (s->tiles && oc_tiled_may_tiles(a)) {
        oc_tiled_gemm_tiles(s, ctx, a);
    } else if (s->bf16 && !s->tiles && oc_tiled_may_bf16(a)) {
        oc_tiled_gemm_bf16(s, ctx, a);
    } else {
        oc_tiled_gemm(s, ctx, a);
    }
}

static void run(const struct oc_simd *s, const struct oc_kctx *ctx, const struct oc_multi_linear *a) {
    struct oc_multi_linear rest = *a;
    if (a->m == 0) return;
    if (a->role == OC_ROLE_D) {
        oc_tiled_gemv(s, ctx, a);
        return;
    }
    if (s->int16) oc_tiled_gemm_int16(s, ctx, a, &rest);
    if (rest.n_w > 0) run_floats(s, ctx, &rest);
}

void oc_tiled_linear(const struct oc_simd *s, const struct oc_kctx *ctx, const struct oc_linear *a) {
    struct oc_multi_linear multi = {.role = a->role,
                                    .m = a->m,
                                    .x = a->x,
                                    .ldx = a->ldx,
                                    .n_w = 1,
                                    .w = {a->w},
                                    .y = {a->y},
                                    .ldy = {a->ldy},
                                    .act = a->act,
                                    .add = a->add};
    run(s, ctx, &multi);
}

void oc_tiled_linear_glu(const struct oc_simd *s, const struct oc_kctx *ctx, const struct oc_linear_glu *a) {
    OC_ASSERT(a->gate->n == a->up->n && a->gate->k == a->up->k);
    struct oc_multi_linear multi = {.role = a->role,
                                    .m = a->m,
                                    .x = a->x,
                                    .ldx = a->ldx,
                                    .n_w = 2,
                                    .glu = true,
                                    .w = {a->gate, a->up},
                                    .y = {a->y},
                                    .ldy = {a->ldy},
                                    .act = a->act};
    run(s, ctx, &multi);
}

void oc_tiled_linear3(const struct oc_simd *s, const struct oc_kctx *ctx, const struct oc_linear3 *a) {
    OC_ASSERT(a->w[0]->k == a->w[1]->k && a->w[0]->k == a->w[2]->k);
    struct oc_multi_linear multi = {.role = a->role,
                                    .m = a->m,
                                    .x = a->x,
                                    .ldx = a->ldx,
                                    .n_w = 3,
                                    .w = {a->w[0], a->w[1], a->w[2]},
                                    .y = {a->y[0], a->y[1], a->y[2]},
                                    .ldy = {a->ldy[0], a->ldy[1], a->ldy[2]},
                                    .act = OC_ACT_NONE};
    run(s, ctx, &multi);
}
