/* The table of AVX-512 with VNNI, over the AVX-512 one: role D of quantised weights by products of bytes. */
#include "kernels/x86/x86.h"

#define SIMD(n)                                                                                                      \
    {                                                                                                                \
    .mr = 12,                                                                                                        \
    .nr = 32,                                                                                                        \
    .lanes = 16,                                                                                                     \
    .tile = oc_avx512_tile,                                                                                          \
    .panel = oc_avx512_panel,                                                                                        \
    .transpose = oc_avx512_transpose,                                                                                \
    .widen = oc_avx512_widen,                                                                                        \
    .dot_prepare = oc_avx512_dot_prepare,                                                                            \
    .dot = oc_avx512_dot,                                                                                            \
    .dot8 = oc_avx512vnni_dot8,                                                                                      \
    .round8 = oc_avx512vnni_round8,                                                                                  \
    .x_digits = n,                                                                                                   \
    .act_row = oc_avx512_act_row,                                                                                    \
    .pair_scores = oc_avx512_pair_scores,                                                                            \
    .max_row = oc_avx512_max_row,                                                                                    \
    .exp_row = oc_avx512_exp_row,                                                                                    \
    }

static const struct oc_simd simd = SIMD(2), simd3 = SIMD(3);

static void linear(const struct oc_kctx *ctx, const struct oc_linear *a) {
    oc_tiled_linear(&simd, ctx, a);
}

static void linear_glu(const struct oc_kctx *ctx, const struct oc_linear_glu *a) {
    oc_tiled_linear_glu(&simd, ctx, a);
}

static void linear3(const struct oc_kctx *ctx, const struct oc_linear3 *a) {
    oc_tiled_linear3(&simd, ctx, a);
}
static void t_linear(const struct oc_kctx *ctx, const struct oc_linear *a) {
    oc_tiled_linear(&simd3, ctx, a);
}

static void t_linear_glu(const struct oc_kctx *ctx, const struct oc_linear_glu *a) {
    oc_tiled_linear_glu(&simd3, ctx, a);
}

static void t_linear3(const struct oc_kctx *ctx, const struct oc_linear3 *a) {
    oc_tiled_linear3(&simd3, ctx, a);
}

void oc_ops_set_avx512vnni(struct oc_ops *ops, int digits) {
    ops->isa = digits == 3 ? "avx512vnni3" : "avx512vnni";
    ops->x_digits = digits;
    ops->linear = digits == 3 ? t_linear : linear;
    ops->linear_glu = digits == 3 ? t_linear_glu: linear_glu;
    ops->linear3 = digits == 3 ? t_linear3 : linear3;
}
