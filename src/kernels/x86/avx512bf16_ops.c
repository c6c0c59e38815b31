/* The table of AVX-512 with BF16, over the AVX-512 one: role P rounds to bf16, which only --isa chooses. */
#include "kernels/x86/x86.h"

static const struct oc_simd_bf16 bf16 = {
    .mr = 12,
    .pad_rows = 1,
    .pack = oc_avx512bf16_pack,
    .row = oc_avx512bf16_row,
    .tile = oc_avx512bf16_tile,
    .turn = oc_avx2_transpose_to,
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
    .bf16 = &bf16,
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

void oc_ops_set_avx512bf16(struct oc_ops *ops) {
    ops->isa = "avx512bf16";
    ops->x_digits = 0;
    ops->linear = linear;
    ops->linear_glu = linear_glu;
    ops->linear3 = linear3;
}
