/* The NEON table with products of bf16 matrices in role P, over the one with USDOT. */
#include "kernels/arm/neon_tiles.h"

static void nothing(void) {
}

/* x as two bf16, W exact: within the bounds of f32 (docs/KERNELS.md). A block of W is 512 KiB, for an L2 of 1 MiB; of a pass 8 rows
 * of x, 16 KiB, and of W, 8 KiB, lie in L1. */
static const struct oc_simd_tiles tiles = {
    .split = true,
    .w_elements = 256 * 1024,
    .k_most = 512,
    .begin = nothing,
    .end = nothing,
    .panel = oc_neon_tiles_panel,
    .numbers = oc_neon_tiles_numbers,
    .cut = oc_neon_bf16_cut,
    .strip = oc_neon_bf16_strip,
    .finish = oc_neon_tiles_finish,
};

static const struct oc_simd simd = {OC_NEON_BASE, .dot8 = oc_neon_dot8_usdot, .prepare8 = oc_neon_prepare8, .x_digits = 2,
                                    .tiles = &tiles};

static void linear(const struct oc_kctx *ctx, const struct oc_linear *a) {
    oc_tiled_linear(&simd, ctx, a);
}

static void linear_glu(const struct oc_kctx *ctx, const struct oc_linear_glu *a) {
    oc_tiled_linear_glu(&simd, ctx, a);
}

static void linear3(const struct oc_kctx *ctx, const struct oc_linear3 *a) {
    oc_tiled_linear3(&simd, ctx, a);
}

void oc_ops_set_neon_bfmmla(struct oc_ops *ops) {
    ops->isa = "neonmm";
    ops->linear = linear;
    ops->linear_glu = linear_glu;
    ops->linear3 = linear3;
}
