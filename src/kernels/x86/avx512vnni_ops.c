/* The table of AVX-512 with VNNI, over the AVX-512 one: role P takes quantised weights as whole numbers. */
#include "kernels/x86/x86.h"

static const struct oc_simd_int16 int16 = {
    .cols = 64,
    .round = oc_avx512vnni_round16,
    .numbers = oc_avx512vnni_numbers16,
    .scales = oc_avx512vnni_scales16,
    .tile = oc_avx512vnni_tile16,
};

static const struct oc_simd simd = {
    .mr = 12,
    .nr = 32,
    .lanes = 16,
    .tile = oc_avx512_tile,
    .panel = oc_avx512_panel,
    .transpose = oc_avx512_transpose,
    .widen = oc_avx512_widen,
    .dot_prepare = oc_avx512_dot_prepare,
    .dot = oc_avx512_dot,
    .dot8 = oc_avx512vnni_dot8,
    .round8 = oc_avx512vnni_round8,
    .act_row = oc_avx512_act_row,
    .pair_scores = oc_avx512_pair_scores,
    .max_row = oc_avx512_max_row,
    .exp_row = oc_avx512_exp_row,
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

void oc_ops_set_avx512vnni(struct oc_ops *ops) {
    ops->isa = "avx512vnni";
    ops->int16 = true;
    ops->linear = linear;
    ops->linear_glu = linear_glu;
    ops->linear3 = linear3;
}
