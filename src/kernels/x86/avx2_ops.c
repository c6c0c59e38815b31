/* The AVX2 table. Ops that are not named here stay those of ref: they move little. */
#include "kernels/x86/avx2.h"

void oc_avx2_dot_prepare(const struct oc_weight *w, const float *x, float *xp, int64_t ldx, float *sums, int64_t lds) {
    oc_tiled_dot_prepare(w, 8, x, xp, ldx, sums, lds);
}

static const struct oc_simd simd = {
    .mr = 6,
    .nr = 16,
    .lanes = 8,
    .tile = oc_avx2_tile,
    .panel = oc_avx2_panel,
    .transpose = oc_avx2_transpose,
    .widen = oc_avx2_widen,
    .dot_prepare = oc_avx2_dot_prepare,
    .dot = oc_avx2_dot,
    .dot8 = oc_avx2_dot8,
    .round8 = oc_tiled_round8,
    .act_row = oc_avx2_act_row,
    .max_row = oc_avx2_max_row,
    .exp_row = oc_avx2_exp_row,
};

static void linear(const struct oc_kctx *ctx, const struct oc_linear *a) {
    oc_tiled_linear(&simd, ctx, a);
}

static void linear_glu(const struct oc_kctx *ctx, const struct oc_linear_glu *a) {
    oc_tiled_linear_glu(&simd, ctx, a);
}

static void linear3(const struct oc_kctx *ctx, const struct oc_linear3 *a) {
    oc_tiled_linear3(&simd, ctx, a);
}

static void attn_paged(const struct oc_kctx *ctx, const struct oc_attn_paged *a) {
    oc_tiled_attn_paged(&simd, ctx, a);
}

static void attn_segments(const struct oc_kctx *ctx, const struct oc_attn_segments *a) {
    oc_tiled_attn_segments(&simd, ctx, a);
}

void oc_ops_set_avx2(struct oc_ops *ops) {
    ops->isa = "avx2";
    ops->rmsnorm = oc_avx2_rmsnorm;
    ops->linear = linear;
    ops->linear_glu = linear_glu;
    ops->linear3 = linear3;
    ops->attn_paged = attn_paged;
    ops->attn_segments = attn_segments;
}
