/* kernels/x86/amx_tile.h - the AMX tile product and its table, over the instructions of whoever includes it.
 *
 * x86/amx_ops.c includes it after the real instructions; tests/kernels/amx_model.c after a model of them in plain C, so
 * that packing, edges and results are checked where there is no AMX. The includer defines AMX_CONFIG(p), AMX_RELEASE(),
 * AMX_ZERO(t), AMX_LOAD(t, p, stride), AMX_STORE(t, p, stride) and AMX_DP(c, a, b); t, a, b, c are literal numbers.
 *
 * A tile is 16 rows of 64 bytes. Rows of W, as they lie, are operand A (16 rows of 32 k); a panel of x is operand B (16
 * pairs of k by 16 columns); 2 x 2 of them give 32 rows by 32 columns of y^T in four accumulators, four loads for
 * four products, each load beside the product that wants it. */
#ifndef OC_KERNELS_X86_AMX_TILE_H
#define OC_KERNELS_X86_AMX_TILE_H

#include "kernels/x86/x86.h"

enum { C00, C01, C10, C11, A0, A1, B0, B1, N_TILES };

/* What LDTILECFG reads: palette 1, and for each tile bytes per row and rows. */
struct amx_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

static void amx_begin(void) {
    struct amx_config c = {.palette = 1};
    for (int t = 0; t < N_TILES; t++) c.row_bytes[t] = 64, c.rows[t] = 16;
    AMX_CONFIG(&c);
}

static void amx_end(void) {
    AMX_RELEASE();
}

/* The four accumulators += 32 (16 when !low) rows of a times 32 (16 when !right) columns of b. */
static void amx_products(const uint16_t *a, int64_t lda, const uint16_t *b, int kk, bool low, bool right) {
    const size_t a_stride = (size_t)lda * sizeof *a, b_stride = 2 * OC_BF16_COLS * sizeof *b;
    for (int k = 0; k < kk; k += 32, a += 32, b += 32 * OC_BF16_COLS) {
        AMX_LOAD(4, a, a_stride);
        AMX_LOAD(6, b, b_stride);
        AMX_DP(0, 4, 6);
        if (right) {
            AMX_LOAD(7, b + OC_BF16_COLS, b_stride);
            AMX_DP(1, 4, 7);
        }
        if (!low) continue;
        AMX_LOAD(5, a + 16 * lda, a_stride);
        AMX_DP(2, 5, 6);
        if (right) AMX_DP(3, 5, 7);
    }
}

static void amx_tile(const struct oc_bf16_tile *t) {
    const size_t stride = (size_t)t->ldc * sizeof(float);
    const bool low = t->mr > 16, right = t->nv == 2;
    float *lower = t->c + 16 * t->ldc;
    if (t->first) {
        AMX_ZERO(0);
        AMX_ZERO(1);
        AMX_ZERO(2);
        AMX_ZERO(3);
    } else {
        AMX_LOAD(0, t->c, stride);
        if (right) AMX_LOAD(1, t->c + 16, stride);
        if (low) AMX_LOAD(2, lower, stride);
        if (low && right) AMX_LOAD(3, lower + 16, stride);
    }
    amx_products(t->a, t->lda, t->b, t->kk, low, right);
    if (t->b_low) amx_products(t->a, t->lda, t->b_low, t->kk, low, right);
    if (t->a_low) amx_products(t->a_low, t->lda, t->b, t->kk, low, right);
    AMX_STORE(0, t->c, stride);
    if (right) AMX_STORE(1, t->c + 16, stride);
    if (low) AMX_STORE(2, lower, stride);
    if (low && right) AMX_STORE(3, lower + 16, stride);
}

#define AMX_BF16(is_split)                                                                                             \
    {                                                                                                                  \
        .mr = 32, .pad_rows = 32, .mb = 768, .split = is_split, .begin = amx_begin, .end = amx_end,                    \
        .pack = oc_avx512bf16_pack, .row = oc_avx512bf16_row, .tile = amx_tile, .turn = oc_avx2_transpose_to,          \
        .round_row = oc_avx512bf16_round_row, .pack_pairs = oc_avx512bf16_pack_pairs,                                  \
        .exp_row = oc_avx512bf16_exp_row                                                                               \
    }

/* Products with the low parts, as exact as f32 sums; and without, three times (bf16 weights: twice) as fast. */
static const struct oc_simd_bf16 amx_split = AMX_BF16(true), amx_rounded = AMX_BF16(false);

#define AMX_SIMD(products)                                                                                             \
    {                                                                                                                  \
        .mr = 12, .nr = 32, .lanes = 16, .tile = oc_avx512_tile, .panel = oc_avx512_panel,                             \
        .transpose = oc_avx512_transpose, .widen = oc_avx512_widen, .dot_prepare = oc_avx512_dot_prepare,                \
        .dot = oc_avx512_dot, .dot8 = oc_avx512vnni_dot8, .round8 = oc_avx512vnni_round8,                              \
        .act_row = oc_avx512_act_row,                                                                                  \
        .max_row = oc_avx512_max_row, .exp_row = oc_avx512_exp_row,                                                      \
        .pair_scores = oc_avx512_pair_scores, .bf16 = products                                                         \
    }

static const struct oc_simd amx_split_simd = AMX_SIMD(&amx_split), amx_rounded_simd = AMX_SIMD(&amx_rounded);

#define AMX_OP(op)                                                                                                     \
    static void amx_split_##op(const struct oc_kctx *ctx, const struct oc_##op *a) {                                   \
        oc_tiled_##op(&amx_split_simd, ctx, a);                                                                        \
    }                                                                                                                  \
    static void amx_rounded_##op(const struct oc_kctx *ctx, const struct oc_##op *a) {                                 \
        oc_tiled_##op(&amx_rounded_simd, ctx, a);                                                                      \
    }

AMX_OP(linear)
AMX_OP(linear_glu)
AMX_OP(linear3)

/* Attention is as exact in both. */
static void amx_attn_paged(const struct oc_kctx *ctx, const struct oc_attn_paged *a) {
    oc_tiled_attn_paged(&amx_split_simd, ctx, a);
}

static void amx_attn_segments(const struct oc_kctx *ctx, const struct oc_attn_segments *a) {
    oc_tiled_attn_segments(&amx_split_simd, ctx, a);
}

static void amx_set(struct oc_ops *ops, bool rounded) {
    ops->linear = rounded ? amx_rounded_linear : amx_split_linear;
    ops->linear_glu = rounded ? amx_rounded_linear_glu : amx_split_linear_glu;
    ops->linear3 = rounded ? amx_rounded_linear3 : amx_split_linear3;
    ops->attn_paged = amx_attn_paged;
    ops->attn_segments = amx_attn_segments;
}

#endif
