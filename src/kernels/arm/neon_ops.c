/* The NEON table of the base architecture. Ops that are not named here stay those of ref. */
#include "kernels/arm/neon.h"

static const struct oc_simd simd = {OC_NEON_BASE};

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
