/* Strips of x and panels of W for hardware tiles (struct oc_simd_tiles). */
#include "kernels/x86/avx512bf16.h"

/* 16 rows of 16 words become 16 columns. */
static inline void turn16(__m512i r[16]) {
    __m512i t[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) { /* lane l of r[4g + c]: column 4l + c of rows 4g .. 4g + 3 */
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
        __m512i even[2] = {_mm512_shuffle_i32x4(r[c], r[4 + c], 0x88), _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0x88)};
        __m512i odd[2] = {_mm512_shuffle_i32x4(r[c], r[4 + c], 0xdd), _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0xdd)};
        t[c] = _mm512_shuffle_i32x4(even[0], even[1], 0x88);
        t[4 + c] = _mm512_shuffle_i32x4(odd[0], odd[1], 0x88);
        t[8 + c] = _mm512_shuffle_i32x4(even[0], even[1], 0xdd);
        t[12 + c] = _mm512_shuffle_i32x4(odd[0], odd[1], 0xdd);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) r[i] = t[i];
}

/* A tile of W: 32 k of n <= 16 rows, `stride` bytes apart, of which k are there, as pairs of k. */
static inline void tile_of(const uint8_t *in, size_t stride, int n, int k, uint16_t *out) {
    const __mmask32 there = k >= 32 ? 0xffffffffu : (1u << k) - 1;
    __m512i r[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) r[i] = _mm512_maskz_loadu_epi16(i < n ? there : 0, in + (size_t)(i < n ? i : 0) * stride);
    turn16(r);
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) _mm512_store_si512(out + 32 * i, r[i]);
}

enum { CHUNK = OC_TILES_UNIT_K, TILE = OC_TILES_STEP / 2 };

/* n <= 16 quantised rows, a chunk at a time by way of rows of bf16. */
static void tiles_quantised(const struct oc_weight *w, int64_t n0, int n, int64_t k0, int kk, int parts, uint16_t *out) {
    uint16_t high[16][CHUNK] __attribute__((aligned(64))), low[16][CHUNK] __attribute__((aligned(64)));
    for (int at = 0; at < kk; at += CHUNK) {
        int k = kk - at < CHUNK ? kk - at : CHUNK;
        for (int r = 0; r < n; r++) oc_avx512bf16_row(w, n0 + r, k0 + at, k, high[r], parts == 2 ? low[r] : NULL);
        for (int i = 0; i < k; i += OC_TILES_K) {
            uint16_t *to = out + (at + i) / OC_TILES_K * parts * OC_TILES_STEP;
            tile_of((const uint8_t *)&high[0][i], sizeof high[0], n, k - i, to);
            if (parts == 2) tile_of((const uint8_t *)&low[0][i], sizeof low[0], n, k - i, to + OC_TILES_STEP);
        }
    }
}

static void tiles_plain(const struct oc_weight *w, int64_t n0, int n, int64_t k0, int kk, int parts, uint16_t *out) {
    const size_t stride = oc_weight_row_bytes(w);
    const uint8_t *in = w->w + (size_t)n0 * stride + 2 * (size_t)k0;
    for (int i = 0; i < kk; i += OC_TILES_K, out += parts * OC_TILES_STEP) {
        tile_of(in + 2 * i, stride, n, kk - i, out);
        if (parts == 2) memset(out + OC_TILES_STEP, 0, TILE * sizeof *out);
    }
}

void oc_avx512bf16_panel(const struct oc_weight *w, int64_t n0, int n, int64_t k0, int kk, int parts, uint16_t *out) {
    for (int half = 0; half < 2; half++, n0 += 16, n -= 16, out += TILE) {
        int there = n > 16 ? 16 : n;
        if (there <= 0) {
            for (int i = 0; i < (kk + OC_TILES_K - 1) / OC_TILES_K * parts; i++) memset(out + i * OC_TILES_STEP, 0, TILE * sizeof *out);
        } else if (w->bits == 0) {
            tiles_plain(w, n0, there, k0, kk, parts, out);
        } else {
            tiles_quantised(w, n0, there, k0, kk, parts, out);
        }
    }
}

/* Reads of x are led by this many pieces: what is used in a hundred cycles comes from L3 or memory. */
enum { AHEAD = 16 };

static inline void piece(const struct oc_tiles_cut *c) {
    const float *x = c->x + c->row * c->ldx + c->step * OC_TILES_K;
    uint16_t *out = c->out + c->step * c->parts * OC_TILES_STEP + c->row * OC_TILES_K;
    const float *later = x + AHEAD * OC_TILES_K;
    if (c->step + AHEAD >= c->steps) later += c->ldx - c->steps * OC_TILES_K;
    _mm_prefetch((const char *)later, _MM_HINT_T0);
    _mm_prefetch((const char *)(later + 16), _MM_HINT_T0);
    int k = c->k - c->step * OC_TILES_K;
    __mmask16 first = c->row < c->n ? oc_avx512_mask(k) : 0, second = c->row < c->n && k > 16 ? oc_avx512_mask(k - 16) : 0;
    __m512 lo = _mm512_maskz_loadu_ps(first, x), hi = _mm512_maskz_loadu_ps(second, x + 16);
    __m512bh high = _mm512_cvtne2ps_pbh(hi, lo);
    _mm512_store_si512(out, (__m512i)high);
    if (c->parts == 2) _mm512_store_si512(out + OC_TILES_STEP, (__m512i)oc_avx512bf16_low_part(lo, hi, high));
}

void oc_avx512bf16_cut(struct oc_tiles_cut *c, int n) {
    for (; n > 0 && c->row < c->rows; n--) {
        piece(c);
        if (++c->step < c->steps) continue;
        c->step = 0;
        c->row++;
    }
}
