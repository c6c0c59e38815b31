/* kernels/x86/amx_tile.h - the AMX tile product and its table, over the instructions of whoever includes it.
 *
 * x86/amx_ops.c includes it after the real instructions; tests/kernels/amx_model.c after a model of them in plain C, so
 * that packing, edges and results are checked where there is no AMX. The includer defines AMX_CONFIG(p), AMX_RELEASE(),
 * AMX_ZERO(t), AMX_LOAD(t, p, stride), AMX_STORE(t, p, stride) and AMX_DP(c, a, b); t, a, b, c are literal numbers.
 * AMX_BLOCKS are the sizes of blocks, which the model makes smaller.
 *
 * A tile is 16 rows of 64 bytes: 16 rows of 32 k of operand A (x; in attention queries or probabilities), 16 pairs of k by 16
 * columns of operand B (W; keys or values), 16 x 16 of the product. 2 x 2 of them give 32 rows by 32 columns in four
 * accumulators. The products of high and low parts follow one another for each 32 of k, so that each tile is loaded once:
 * 8 loads for 12 products. amx_gemm.h has the linears, here is attention's tile. */
#ifndef OC_KERNELS_X86_AMX_TILE_H
#define OC_KERNELS_X86_AMX_TILE_H

#include "kernels/x86/amx_dot.h"
#include "kernels/x86/amx_gemm.h"

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

static inline void amx_load_a(const uint16_t *a, int64_t lda, bool lower) {
    const size_t stride = (size_t)lda * sizeof *a;
    AMX_LOAD(4, a, stride);
    if (lower) AMX_LOAD(5, a + 16 * lda, stride);
}

static inline void amx_load_b(const uint16_t *b, bool right) {
    const size_t stride = 2 * OC_BF16_COLS * sizeof *b;
    AMX_LOAD(6, b, stride);
    if (right) AMX_LOAD(7, b + OC_BF16_COLS, stride);
}

static inline void amx_products(bool lower, bool right) {
    AMX_DP(0, 4, 6);
    if (right) AMX_DP(1, 4, 7);
    if (lower) AMX_DP(2, 5, 6);
    if (lower && right) AMX_DP(3, 5, 7);
}

/* Products, and what is done beside them. */
AMX_INLINE void amx_products_of(const struct oc_bf16_tile *t, const bool lower, const bool right) {
    amx_products(lower, right);
    if (t->beside) t->beside(t->arg);
}

/* The four accumulators += 32 (16 when !lower) rows of a times 32 (16 when !right) columns of b, low parts where given. */
static inline __attribute__((always_inline)) void amx_sum(const struct oc_bf16_tile *t, const bool lower, const bool right) {
    const uint16_t *a = t->a, *b = t->b, *a_low = t->a_low, *b_low = t->b_low;
    for (int k = 0; k < t->kk; k += 32) {
        amx_load_a(a + k, t->lda, lower);
        if (b_low) {
            amx_load_b(b_low + k * OC_BF16_COLS, right);
            amx_products_of(t, lower, right);
        }
        amx_load_b(b + k * OC_BF16_COLS, right);
        amx_products_of(t, lower, right);
        if (!a_low) continue;
        amx_load_a(a_low + k, t->lda, lower);
        amx_products_of(t, lower, right);
    }
}

static void amx_tile(const struct oc_bf16_tile *t) {
    const size_t stride = (size_t)t->ldc * sizeof(float);
    const bool lower = t->mr > 16, right = t->nv == 2;
    float *below = t->c + 16 * t->ldc;
    if (t->first) {
        AMX_ZERO(0);
        AMX_ZERO(1);
        AMX_ZERO(2);
        AMX_ZERO(3);
    } else {
        AMX_LOAD(0, t->c, stride);
        if (right) AMX_LOAD(1, t->c + 16, stride);
        if (lower) AMX_LOAD(2, below, stride);
        if (lower && right) AMX_LOAD(3, below + 16, stride);
    }
    if (lower && right) {
        amx_sum(t, true, true);
    } else {
        amx_sum(t, lower, right);
    }
    AMX_STORE(0, t->c, stride);
    if (right) AMX_STORE(1, t->c + 16, stride);
    if (lower) AMX_STORE(2, below, stride);
    if (lower && right) AMX_STORE(3, below + 16, stride);
}

/* Of the tile only what attention needs: linears have `strip`. */
static const struct oc_simd_bf16 amx_attn = {
    .mr = 32,
    .pad_rows = 32,
    .begin = amx_begin,
    .end = amx_end,
    .pack = oc_avx512bf16_pack,
    .tile = amx_tile,
    .round_row = oc_avx512bf16_round_row,
    .pack_pairs = oc_avx512bf16_pack_pairs,
    .exp_row = oc_avx512bf16_exp_row,
};

#ifndef AMX_BLOCKS
#define AMX_BLOCKS .w_elements = 384 * 1024, .k_most = 1024
#endif

#define AMX_TILES(is_split)                                                                                            \
    {                                                                                                                  \
        .split = is_split, AMX_BLOCKS,                                                                                 \
        .begin = amx_begin, .end = amx_end, .panel = oc_avx512bf16_panel,                                              \
        .numbers = oc_avx512bf16_numbers, .scale = oc_avx512bf16_scale, .cut = oc_avx512bf16_cut,                      \
        .strip = amx_strip, .finish = oc_avx512_finish                                                                 \
    }

/* Products with the low parts, as exact as f32 sums; and without, three times (bf16 weights: twice) as fast. */
static const struct oc_simd_tiles amx_split = AMX_TILES(true), amx_rounded = AMX_TILES(false);

#define AMX_SIMD(linears, role_d, digits_of_x)                                                                                    \
    {                                                                                                                  \
        .mr = 12, .nr = 32, .lanes = 16, .tile = oc_avx512_tile, .panel = oc_avx512_panel,                             \
        .transpose = oc_avx512_transpose, .widen = oc_avx512_widen, .dot_prepare = oc_avx512_dot_prepare,                \
        .dot = oc_avx512_dot, .dot8 = oc_avx512vnni_dot8, .round8 = oc_avx512vnni_round8, .digits = role_d,            \
        .x_digits = digits_of_x,                                                                                         \
        .act_row = oc_avx512_act_row,                                                                                  \
        .max_row = oc_avx512_max_row, .exp_row = oc_avx512_exp_row,                                                      \
        .pair_scores = oc_avx512_pair_scores, .bf16 = &amx_attn, .tiles = linears                                      \
    }

static const struct oc_simd amx_split_simd = AMX_SIMD(&amx_split, NULL, 2), amx_rounded_simd = AMX_SIMD(&amx_rounded, NULL, 2),
                            amx_many_simd = AMX_SIMD(&amx_split, &amx_digits, 0);

#define AMX_OP(op)                                                                                                     \
    static void amx_split_##op(const struct oc_kctx *ctx, const struct oc_##op *a) {                                   \
        oc_tiled_##op(&amx_split_simd, ctx, a);                                                                        \
    }                                                                                                                  \
    static void amx_rounded_##op(const struct oc_kctx *ctx, const struct oc_##op *a) {                                 \
        oc_tiled_##op(&amx_rounded_simd, ctx, a);                                                                      \
    }                                                                                                                  \
    static void amx_many_##op(const struct oc_kctx *ctx, const struct oc_##op *a) {                                    \
        oc_tiled_##op(&amx_many_simd, ctx, a);                                                                         \
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

static void amx_set(struct oc_ops *ops, bool rounded, bool many) {
    ops->x_digits = many && !rounded ? 0 : 2;
    ops->linear = rounded ? amx_rounded_linear : many ? amx_many_linear : amx_split_linear;
    ops->linear_glu = rounded ? amx_rounded_linear_glu : many ? amx_many_linear_glu : amx_split_linear_glu;
    ops->linear3 = rounded ? amx_rounded_linear3 : many ? amx_many_linear3 : amx_split_linear3;
    ops->attn_paged = amx_attn_paged;
    ops->attn_segments = amx_attn_segments;
}

#endif
