/* The NEON tables with role D of quantised weights by products of bytes, over the one of the base: by SDOT, and with USDOT. */
#include "kernels/arm/neon.h"

static const struct oc_simd sdot = {OC_NEON_BASE, .dot8 = oc_neon_dot8_sdot, .prepare8 = oc_neon_prepare8, .x_digits = 2};
static const struct oc_simd usdot = {OC_NEON_BASE, .dot8 = oc_neon_dot8_usdot, .prepare8 = oc_neon_prepare8, .x_digits = 2};

static void sdot_linear(const struct oc_kctx *ctx, const struct oc_linear *a) {
    oc_tiled_linear(&sdot, ctx, a);
}

static void sdot_linear_glu(const struct oc_kctx *ctx, const struct oc_linear_glu *a) {
    oc_tiled_linear_glu(&sdot, ctx, a);
}

static void sdot_linear3(const struct oc_kctx *ctx, const struct oc_linear3 *a) {
    oc_tiled_linear3(&sdot, ctx, a);
}

static void usdot_linear(const struct oc_kctx *ctx, const struct oc_linear *a) {
    oc_tiled_linear(&usdot, ctx, a);
}

static void usdot_linear_glu(const struct oc_kctx *ctx, const struct oc_linear_glu *a) {
    oc_tiled_linear_glu(&usdot, ctx, a);
}

static void usdot_linear3(const struct oc_kctx *ctx, const struct oc_linear3 *a) {
    oc_tiled_linear3(&usdot, ctx, a);
}

void oc_ops_set_neon_dot8(struct oc_ops *ops, bool i8mm) {
    ops->isa = "neondot";
    ops->x_digits = 2;
    ops->linear = i8mm ? usdot_linear : sdot_linear;
    ops->linear_glu = i8mm ? usdot_linear_glu : sdot_linear_glu;
    ops->linear3 = i8mm ? usdot_linear3 : sdot_linear3;
}
