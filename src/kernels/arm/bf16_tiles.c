/* Role P by BFMMLA: x cut into sums of two bf16, and strips of it times panels of W (struct oc_simd_tiles).
 *
 * BFMMLA multiplies 2 x 4 by 4 x 2 bf16 and adds to 2 x 2 f32: 16 products, where FMLA makes 4. How it rounds is its own affair; FPCR
 * has no say in it unless FPCR.EBF is set, which Linux leaves 0. For each element, twice: two products, which are exact, are added,
 * and the sum is added to the accumulator, each time cut off to 24 bits, the last bit set where something was lost (round to odd).
 * Such a step errs by under 2^-23 of its result instead of 2^-24, up as often as down, and there are two for 4 k where FMLA has
 * four. Numbers under 2^-126 count as zero. (A CPU with FEAT_EBF16 does the same while EBF is 0.)
 *
 * Of 2 x 2 elements of y all k of a group, or of a pass, are summed in one accumulator, step by step: first the high parts of 4 k
 * of x, then the low ones. Rows of x meet only their own row of the matrix, so an element's bits depend on its row of x and its row of W.
 * The layouts: arm/neon_tiles.h. */
#include "kernels/arm/neon_tiles.h"

#define BF16_INLINE static inline __attribute__((always_inline))

/* 4 of x at `out` as bf16, and at out_low what that took away; returns the sum of both. */
BF16_INLINE float32x4_t cut4(float32x4_t x, uint16_t *out, uint16_t *out_low) {
    uint16x4_t high = vreinterpret_u16_bf16(vcvt_bf16_f32(x));
    float32x4_t high_f = vreinterpretq_f32_u32(vshll_n_u16(high, 16));
    uint16x4_t low = vreinterpret_u16_bf16(vcvt_bf16_f32(vsubq_f32(x, high_f)));
    vst1_u16(out, high);
    vst1_u16(out_low, low);
    return vaddq_f32(high_f, vreinterpretq_f32_u32(vshll_n_u16(low, 16)));
}

void oc_neon_bf16_cut(const struct oc_tiles_cut *c) {
    OC_ASSERT(c->parts == 2);
    for (int row = 0; row < c->rows; row++) {
        for (int step = 0; step < c->steps; step++) {
            float few[OC_TILES_K] = {0};
            const float *x = few;
            int k = row < c->n ? c->k - step * OC_TILES_K : 0;
            if (k >= OC_TILES_K) {
                x = c->x + row * c->ldx + step * OC_TILES_K;
            } else if (k > 0) {
                memcpy(few, c->x + row * c->ldx + step * OC_TILES_K, (size_t)k * sizeof *x);
            }
            uint16_t *out = c->out + step * 2 * OC_TILES_STEP + neon_tiles_at(row, 0);
            float32x4_t sum = vdupq_n_f32(0);
            for (int q = 0; q < OC_TILES_K / 4; q++, out += NEON_QUAD) {
                sum = vaddq_f32(sum, cut4(vld1q_f32(x + 4 * q), out, out + OC_TILES_STEP));
            }
            if (c->sums) c->sums[step * OC_TILES_N + row] = vaddvq_f32(sum);
        }
    }
}

BF16_INLINE bfloat16x8_t load(const uint16_t *p) {
    return vreinterpretq_bf16_u16(vld1q_u16(p));
}

/* acc += 8 rows of x, from a on, times 8 of W, for `steps` steps. */
BF16_INLINE void products(const uint16_t *a, const uint16_t *b, int steps, float32x4_t acc[4][4]) {
    for (; steps > 0; steps--, a += 2 * OC_TILES_STEP, b += OC_TILES_STEP) {
        for (int q = 0; q < NEON_BLOCK_ELEMENTS; q += NEON_QUAD) {
            bfloat16x8_t bv[4];
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++) bv[j] = load(b + q + 8 * j);
#pragma GCC unroll 2
            for (int part = 0; part < 2; part++) {
#pragma GCC unroll 4
                for (int i = 0; i < 4; i++) {
                    bfloat16x8_t av = load(a + part * OC_TILES_STEP + q + 8 * i);
#pragma GCC unroll 4
                    for (int j = 0; j < 4; j++) acc[i][j] = vbfmmlaq_f32(acc[i][j], av, bv[j]);
                }
            }
        }
    }
}

BF16_INLINE float32x4_t twice(const float *p) {
    float32x2_t v = vld1_f32(p);
    return vcombine_f32(v, v);
}

/* c = (first) or += acc * scale of the column + sum of the row * zero bias of the column. */
BF16_INLINE void scale(float32x4_t acc[4][4], const float *scales, const float *sums, float *c, const bool first) {
    float32x4_t s[4], z[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) s[j] = twice(scales + 2 * j), z[j] = twice(scales + OC_TILES_N + 2 * j);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        float32x4_t sum = twice(sums + 2 * i);
        sum = vzip1q_f32(sum, sum); /* one lane pair for each of two rows */
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++, c += 4) {
            float32x4_t v = first ? vmulq_f32(sum, z[j]) : vfmaq_f32(vld1q_f32(c), sum, z[j]);
            vst1q_f32(c, vfmaq_f32(v, acc[i][j], s[j]));
        }
    }
}

/* 8 x 8 of y over the whole pass, W plain: a sum of its own, so that no chain is longer than a pass. */
static void block_plain(const struct oc_tiles_strip *t, const uint16_t *a, const uint16_t *b, float *c) {
    float32x4_t acc[4][4];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) acc[i / 4][i % 4] = vdupq_n_f32(0);
    products(a, b, t->steps, acc);
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) {
        float32x4_t v = acc[i / 4][i % 4];
        vst1q_f32(c + 4 * i, t->first ? v : vaddq_f32(vld1q_f32(c + 4 * i), v));
    }
}

/* The same, W in whole numbers; scales and sums are those of the block's columns and rows. */
static void block_grouped(const struct oc_tiles_strip *t, const uint16_t *a, const uint16_t *b, const float *scales, const float *sums,
                          float *c) {
    for (int s = 0; s < t->steps; s += t->group, scales += 2 * OC_TILES_N, sums += OC_TILES_N) {
        float32x4_t acc[4][4];
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) acc[i / 4][i % 4] = vdupq_n_f32(0);
        products(a + s * 2 * OC_TILES_STEP, b + s * OC_TILES_STEP, t->group, acc);
        if (s == 0 && t->first) {
            scale(acc, scales, sums, c, true);
        } else {
            scale(acc, scales, sums, c, false);
        }
    }
}

/* 8 rows of x stay in L1 while all panels pass. */
void oc_neon_bf16_strip(const struct oc_tiles_strip *t) {
    const int n_groups = t->group ? t->steps / t->group : 0;
    for (int i = 0; i < (t->lower ? OC_TILES_N : OC_TILES_N / 2); i += NEON_BLOCK) {
        const uint16_t *a = t->a + neon_tiles_at(i, 0);
        for (int panel = 0; panel < t->n_panels; panel++) {
            const uint16_t *b = t->b + panel * t->steps * OC_TILES_STEP;
            float *c = t->c + panel * OC_TILES_N * OC_TILES_N + neon_tiles_c(i, 0);
            for (int j = 0; j < OC_TILES_N; j += NEON_BLOCK, b += NEON_BLOCK_ELEMENTS, c += NEON_BLOCK * NEON_BLOCK) {
                if (t->group) {
                    block_grouped(t, a, b, t->scales + panel * n_groups * 2 * OC_TILES_N + j, t->sums + i, c);
                } else {
                    block_plain(t, a, b, c);
                }
            }
        }
    }
}
