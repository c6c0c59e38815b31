/* The AVX-512 table, over the AVX2 one: panels are made by the AVX2 code, to this ISA's width. */
#include "kernels/x86/avx512.h"

void oc_avx512_transpose(const float *in, int64_t ld, int n, int kk, float *out) {
    oc_avx2_transpose_to(in, ld, n, kk, out, 32);
}

void oc_avx512_panel(const struct oc_weight *w, int64_t n0, int n, int64_t k0, int kk, float *out, float *tmp) {
    oc_avx2_panel_to(w, n0, n, k0, kk, out, tmp, 32);
}

void oc_avx512_dot_prepare(const struct oc_weight *w, const float *x, float *xp, int64_t ldx, float *sums, int64_t lds) {
    oc_tiled_dot_prepare(w, 16, x, xp, ldx, sums, lds);
}

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
    .dot8 = oc_avx512vnni_dot8, /* called only where oc_ops.int8 is set, which asks for VNNI */
    .round8 = oc_avx512vnni_round8,
    .act_row = oc_avx512_act_row,
    .pair_scores = oc_avx512_pair_scores,
    .max_row = oc_avx512_max_row,
    .exp_row = oc_avx512_exp_row,
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

void oc_ops_set_avx512(struct oc_ops *ops) {
    ops->isa = "avx512";
    ops->linear = linear;
    ops->linear_glu = linear_glu;
    ops->linear3 = linear3;
    ops->attn_paged = attn_paged;
    ops->attn_segments = attn_segments;
}
