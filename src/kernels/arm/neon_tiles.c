/* Panels of W for BFMMLA, and what becomes of its sums (struct oc_simd_tiles; arm/neon_tiles.h has the layouts). */
#include <math.h>

#include "kernels/arm/neon_tiles.h"

/* Rows from n on of a panel of `steps` steps become zero. */
static void clear_rows(uint16_t *out, int n, int steps) {
    for (int row = n; row < OC_TILES_N; row++) {
        for (int s = 0; s < steps; s++) {
            uint16_t *to = out + s * OC_TILES_STEP + neon_tiles_at(row, 0);
            for (int q = 0; q < OC_TILES_K / 4; q++) memset(to + q * NEON_QUAD, 0, 4 * sizeof *to);
        }
    }
}

void oc_neon_tiles_panel(const struct oc_weight *w, int64_t n0, int n, int64_t k0, int kk, uint16_t *out) {
    OC_ASSERT(w->bits == 0 && w->dtype == OC_BF16);
    for (int row = 0; row < n; row++) {
        const uint8_t *in = w->w + (size_t)(n0 + row) * oc_weight_row_bytes(w) + 2 * (size_t)k0;
        for (int k = 0; k < (int)oc_round_up((size_t)kk, OC_TILES_K); k += 4) {
            uint16_t *to = out + k / OC_TILES_K * OC_TILES_STEP + neon_tiles_at(row, k % OC_TILES_K);
            int there = kk - k > 4 ? 4 : kk - k > 0 ? kk - k : 0;
            memset(to, 0, 4 * sizeof *to);
            memcpy(to, in + 2 * k, (size_t)there * sizeof *to);
        }
    }
    clear_rows(out, n, (int)oc_round_up((size_t)kk, OC_TILES_K) / OC_TILES_K);
}

/* 8 bf16 are the 4 k of two quads. */
static inline void put8(uint16x8_t v, uint16_t *to) {
    vst1_u16(to, vget_low_u16(v));
    vst1_u16(to + NEON_QUAD, vget_high_u16(v));
}

/* 32 4-bit weights less 8; the two bytes of a bf16 come from tables. */
static inline void numbers_q4(const uint8_t *in, uint16_t *to) {
    static const uint8_t of_low[16] = {0x00, 0xe0, 0xc0, 0xa0, 0x80, 0x40, 0x00, 0x80, 0, 0x80, 0x00, 0x40, 0x80, 0xa0, 0xc0, 0xe0};
    static const uint8_t of_high[16] = {0xc1, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xbf, 0, 0x3f, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40};
    const uint8x16_t low = vld1q_u8(of_low), high = vld1q_u8(of_high), bytes = vld1q_u8(in);
    const uint8x16_t even = vandq_u8(bytes, vdupq_n_u8(15)), odd = vshrq_n_u8(bytes, 4);
    const uint8x16_t q[2] = {vzip1q_u8(even, odd), vzip2q_u8(even, odd)};
    for (int i = 0; i < 2; i++, to += 4 * NEON_QUAD) {
        uint8x16_t l = vqtbl1q_u8(low, q[i]), h = vqtbl1q_u8(high, q[i]);
        put8(vreinterpretq_u16_u8(vzip1q_u8(l, h)), to);
        put8(vreinterpretq_u16_u8(vzip2q_u8(l, h)), to + 2 * NEON_QUAD);
    }
}

/* 8 whole numbers of at most 8 bits, which bf16 has exactly: the upper halves of their f32. */
static inline uint16x8_t bf16_of(int16x8_t q) {
    float32x4_t a = vcvtq_f32_s32(vmovl_s16(vget_low_s16(q))), b = vcvtq_f32_s32(vmovl_s16(vget_high_s16(q)));
    return vuzp2q_u16(vreinterpretq_u16_f32(a), vreinterpretq_u16_f32(b));
}

/* 32 8-bit weights less 128. */
static inline void numbers_q8(const uint8_t *in, uint16_t *to) {
    for (int i = 0; i < 2; i++, to += 4 * NEON_QUAD) {
        int8x16_t q = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(in + 16 * i), vdupq_n_u8(128)));
        put8(bf16_of(vmovl_s8(vget_low_s8(q))), to);
        put8(bf16_of(vmovl_s8(vget_high_s8(q))), to + 2 * NEON_QUAD);
    }
}

void oc_neon_tiles_numbers(const struct oc_weight *w, int64_t n0, int n, int64_t k0, int kk, uint16_t *out, float *scales) {
    const float middle = (float)(1 << (w->bits - 1));
    const int64_t n_groups = w->k / w->group;
    memset(scales, 0, (size_t)(kk / w->group) * 2 * OC_TILES_N * sizeof *scales);
    for (int row = 0; row < n; row++) {
        const uint8_t *in = w->w + (size_t)(n0 + row) * oc_weight_row_bytes(w) + (size_t)k0 * w->bits / 8;
        for (int k = 0; k < kk; k += OC_TILES_K) {
            uint16_t *to = out + k / OC_TILES_K * OC_TILES_STEP + neon_tiles_at(row, 0);
            if (w->bits == 4) numbers_q4(in + k / 2, to);
            if (w->bits == 8) numbers_q8(in + k, to);
        }
        int64_t at = (n0 + row) * n_groups + k0 / w->group;
        for (float *s = scales + row; s < scales + kk / w->group * 2 * OC_TILES_N; s += 2 * OC_TILES_N, at++) {
            s[0] = oc_load_float(w->scales, w->dtype, at);
            s[OC_TILES_N] = fmaf(s[0], middle, oc_load_float(w->zero_biases, w->dtype, at));
        }
    }
    clear_rows(out, n, kk / OC_TILES_K);
}

/* Row `row` of a panel of c. */
static inline void c_row(const float *c, int row, float v[OC_TILES_N]) {
    for (int j = 0; j < OC_TILES_N; j += 4) {
        const float *at = c + neon_tiles_c(row, j);
        vst1q_f32(v + j, vcombine_f32(vld1_f32(at), vld1_f32(at + 4)));
    }
}

static void finish_piece(const struct oc_tiles_end *e) {
    const int from = e->panel * OC_TILES_N, n = e->cols - from < OC_TILES_N ? e->cols - from : OC_TILES_N;
    const int64_t at = e->panel * OC_TILES_N * OC_TILES_N;
    float *y = e->y + e->row * e->ldy + from, v[OC_TILES_N], up[OC_TILES_N];
    c_row(e->c + at, e->row, v);
    for (int i = 0; e->bias && i < n; i++) v[i] += e->bias[from + i];
    if (e->act != OC_ACT_NONE) oc_neon_act_row(e->act, v, n);
    if (e->up) {
        c_row(e->up + at, e->row, up);
        for (int i = 0; i < n; i++) v[i] *= e->up_bias ? up[i] + e->up_bias[from + i] : up[i];
    }
    for (int i = 0; i < n; i++) y[i] = e->add ? y[i] + v[i] : v[i];
}

void oc_neon_tiles_finish(struct oc_tiles_end *e, int n) {
    for (; n > 0 && e->row < e->rows; n--) {
        finish_piece(e);
        if (++e->panel == e->n_panels) e->panel = 0, e->row++;
    }
}
