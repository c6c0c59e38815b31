/* The table of AVX2 with AVX-VNNI, over the AVX2 one: role P takes quantised weights as whole numbers. */
#include "kernels/x86/avx2.h"

static const struct oc_simd_int16 int16 = {
    .cols = 32,
    .round = oc_avxvnni_round16,
    .numbers = oc_avxvnni_numbers16,
    .scales = oc_avxvnni_scales16,
    .tile = oc_avxvnni_tile16,
};

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
    .int16 = &int16,
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

void oc_ops_set_avxvnni(struct oc_ops *ops) {
    ops->isa = "avxvnni";
    ops->int16 = true;
    ops->linear = linear;
    ops->linear_glu = linear_glu;
    ops->linear3 = linear3;
}
