/* The NEON table. Ops that are not named here stay those of ref. */
#include "kernels/arm/neon.h"
#include "kernels/ref/ref.h"

static void dot_prepare(const struct oc_weight *w, const float *x, float *xp, int64_t ldx, float *sums, int64_t lds) {
    oc_tiled_dot_prepare(w, 4, x, xp, ldx, sums, lds);
}

static const struct oc_simd simd = {
    .mr = 8,
    .nr = 8,
    .lanes = 4,
    .tile = oc_neon_tile,
    .panel = oc_neon_panel,
    .transpose = oc_neon_transpose,
    .widen = oc_ref_widen,
    .dot_prepare = dot_prepare,
    .dot = oc_neon_dot,
    .act_row = oc_neon_act_row,
    .max_row = oc_neon_max_row,
    .exp_row = oc_neon_exp_row,
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

void oc_ops_set_neon(struct oc_ops *ops) {
    ops->isa = "neon";
    ops->linear = linear;
    ops->linear_glu = linear_glu;
    ops->linear3 = linear3;
    ops->attn_paged = attn_paged;
    ops->attn_segments = attn_segments;
}
