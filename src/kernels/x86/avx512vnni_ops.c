/* The tables of AVX-512 with VNNI, over the AVX-512 one: role D of quantised weights by products of bytes, x
 * as two or three of them. */
#include "kernels/x86/x86.h"

#define VNNI_SIMD(digits_of_x)                                                                               \
    {                                                                                                        \
        .mr = 12, .nr = 32, .lanes = 16, .tile = oc_avx512_tile, .panel = oc_avx512_panel,                   \
        .transpose = oc_avx512_transpose, .widen = oc_avx512_widen, .dot_prepare = oc_avx512_dot_prepare,    \
        .dot = oc_avx512_dot, .dot8 = oc_avx512vnni_dot8, .round8 = oc_avx512vnni_round8,                    \
        .x_digits = digits_of_x, .act_row = oc_avx512_act_row, .pair_scores = oc_avx512_pair_scores,         \
        .max_row = oc_avx512_max_row, .exp_row = oc_avx512_exp_row                                           \
    }

static const struct oc_simd simd16 = VNNI_SIMD(2), simd24 = VNNI_SIMD(3);

#define VNNI_OP(op)                                                                                          \
    static void op##16(const struct oc_kctx *ctx, const struct oc_##op *a) {                                 \
        oc_tiled_##op(&simd16, ctx, a);                                                                      \
    }                                                                                                        \
    static void op##24(const struct oc_kctx *ctx, const struct oc_##op *a) {                                 \
        oc_tiled_##op(&simd24, ctx, a);                                                                      \
    }

VNNI_OP(linear)
VNNI_OP(linear_glu)
VNNI_OP(linear3)

void oc_ops_set_avx512vnni(struct oc_ops *ops, bool bits24) {
    ops->isa = bits24 ? "avx512vnni24" : "avx512vnni";
    ops->x_digits = bits24 ? 3 : 2;
    ops->linear = bits24 ? linear24 : linear16;
    ops->linear_glu = bits24 ? linear_glu24 : linear_glu16;
    ops->linear3 = bits24 ? linear324 : linear316;
}
