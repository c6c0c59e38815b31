/* Strips of x and panels of W for hardware tiles (struct oc_simd_tiles). */
#include "kernels/x86/avx512bf16.h"

/* A tile of W: 32 k of n <= 16 rows, `stride` bytes apart, of which k are there, as pairs of k. */
static inline void tile_of(const uint8_t *in, size_t stride, int n, int k, uint16_t *out) {
    const __mmask32 there = k >= 32 ? 0xffffffffu : (1u << k) - 1;
    __m512i r[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) r[i] = _mm512_maskz_loadu_epi16(i < n ? there : 0, in + (size_t)(i < n ? i : 0) * stride);
    oc_avx512_turn16(r);
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) _mm512_store_si512(out + 32 * i, r[i]);
}

enum { CHUNK = OC_TILES_UNIT_K, TILE = OC_TILES_STEP / 2 };

/* n <= 16 quantised rows, a chunk at a time by way of rows of bf16. */
static void tiles_quantised(const struct oc_weight *w, int64_t n0, int n, int64_t k0, int kk, uint16_t *out) {
    uint16_t rows[16][CHUNK] __attribute__((aligned(64)));
    for (int at = 0; at < kk; at += CHUNK) {
        int k = kk - at < CHUNK ? kk - at : CHUNK;
        for (int r = 0; r < n; r++) oc_avx512bf16_row(w, n0 + r, k0 + at, k, rows[r], NULL);
        for (int i = 0; i < k; i += OC_TILES_K)
            tile_of((const uint8_t *)&rows[0][i], sizeof rows[0], n, k - i, out + (at + i) / OC_TILES_K * OC_TILES_STEP);
    }
}

static void tiles_plain(const struct oc_weight *w, int64_t n0, int n, int64_t k0, int kk, uint16_t *out) {
    const size_t stride = oc_weight_row_bytes(w);
    const uint8_t *in = w->w + (size_t)n0 * stride + 2 * (size_t)k0;
    for (int i = 0; i < kk; i += OC_TILES_K, out += OC_TILES_STEP) tile_of(in + 2 * i, stride, n, kk - i, out);
}

void oc_avx512bf16_panel(const struct oc_weight *w, int64_t n0, int n, int64_t k0, int kk, uint16_t *out) {
    for (int half = 0; half < 2; half++, n0 += 16, n -= 16, out += TILE) {
        int there = n > 16 ? 16 : n;
        if (there <= 0) {
            for (int i = 0; i < (kk + OC_TILES_K - 1) / OC_TILES_K; i++) memset(out + i * OC_TILES_STEP, 0, TILE * sizeof *out);
        } else if (w->bits == 0) {
            tiles_plain(w, n0, there, k0, kk, out);
        } else {
            tiles_quantised(w, n0, there, k0, kk, out);
        }
    }
}

/* A vector of 16 words of eight 4-bit weights, one for each of 16 rows: pair j of each word, as bf16. The table is doubled, so
 * that the bit above a nibble may hold anything. */
static inline __m512i pair_q4(__m512i words, const int j, __m512i table) {
    __m512i even = j == 0 ? words : _mm512_srli_epi32(words, 8 * j);
    __m512i odd = j < 2 ? _mm512_slli_epi32(words, 12 - 8 * j) : _mm512_srli_epi32(words, 8 * j - 12);
    return _mm512_permutexvar_epi16(_mm512_mask_blend_epi16(0xaaaaaaaa, even, odd), table);
}

/* The same of words of four 8-bit weights. */
static inline __m512i pair_q8(__m512i words, const int j) {
    const __m512i byte = _mm512_set1_epi32(255), middle = _mm512_set1_epi32(128);
    __m512i even = _mm512_sub_epi32(_mm512_and_si512(_mm512_srli_epi32(words, 16 * j), byte), middle);
    __m512i odd = _mm512_sub_epi32(_mm512_and_si512(_mm512_srli_epi32(words, 16 * j + 8), byte), middle);
    __m512i low = _mm512_srli_epi32(_mm512_castps_si512(_mm512_cvtepi32_ps(even)), 16);
    return _mm512_mask_blend_epi16(0xaaaaaaaa, low, _mm512_castps_si512(_mm512_cvtepi32_ps(odd)));
}

/* 16 words of k of n <= 16 rows, of which `there` are there. */
static inline void words_of(const uint8_t *in, size_t stride, int n, int there, __m512i r[16]) {
    const __mmask16 mask = oc_avx512_mask(there);
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) {
        const uint8_t *row = in + (size_t)(i < n ? i : 0) * stride;
        _mm_prefetch((const char *)row + 128, _MM_HINT_T0);
        r[i] = _mm512_maskz_loadu_epi32(i < n ? mask : 0, row);
    }
    oc_avx512_turn16(r);
}

static void numbers_q4(const uint8_t *in, size_t stride, int n, int kk, uint16_t *out) {
    const __m512 eight = _mm512_set1_ps(8), q = _mm512_sub_ps(_mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), eight);
    const __m512i table = (__m512i)_mm512_cvtne2ps_pbh(q, q);
    for (int k = 0; k < kk; k += 128) {
        __m512i r[16];
        words_of(in + k / 2, stride, n, (kk - k) / 8, r);
#pragma GCC unroll 16
        for (int d = 0; d < 16; d++) { /* words of 4 pairs, 4 of them to a step */
            if (k + 8 * d >= kk) break;
            uint16_t *to = out + (k / OC_TILES_K + d / 4) * OC_TILES_STEP + d % 4 * 128;
            _mm512_store_si512(to, pair_q4(r[d], 0, table));
            _mm512_store_si512(to + 32, pair_q4(r[d], 1, table));
            _mm512_store_si512(to + 64, pair_q4(r[d], 2, table));
            _mm512_store_si512(to + 96, pair_q4(r[d], 3, table));
        }
    }
}

static void numbers_q8(const uint8_t *in, size_t stride, int n, int kk, uint16_t *out) {
    for (int k = 0; k < kk; k += 64) {
        __m512i r[16];
        words_of(in + k, stride, n, (kk - k) / 4, r);
#pragma GCC unroll 16
        for (int d = 0; d < 16; d++) { /* words of 2 pairs, 8 of them to a step */
            if (k + 4 * d >= kk) break;
            uint16_t *to = out + (k / OC_TILES_K + d / 8) * OC_TILES_STEP + d % 8 * 64;
            _mm512_store_si512(to, pair_q8(r[d], 0));
            _mm512_store_si512(to + 32, pair_q8(r[d], 1));
        }
    }
}

/* Scales and zero biases of n_groups groups of n <= 16 rows, groups from `first` on: out[group][2][OC_TILES_N]. The others of the
 * 16 are zero. */
static void scales_of(const struct oc_weight *w, int64_t n0, int n, int64_t first, int n_groups, float *out) {
    const int64_t all = w->k / w->group;
    const int64_t size = w->dtype == OC_F32 ? 4 : 2;
    const __m512 middle = _mm512_set1_ps((float)(1 << (w->bits - 1)));
    for (int g = 0; g < n_groups; g += 16) {
        __m512i s[16], z[16];
        for (int i = 0; i < 16; i++) {
            __mmask16 mask = i < n ? oc_avx512_mask(n_groups - g) : 0;
            int64_t at = i < n ? ((n0 + i) * all + first + g) * size : 0;
            __m512 scale = oc_avx512_load_float(w->scales + at, w->dtype, mask);
            __m512 zero = oc_avx512_load_float(w->zero_biases + at, w->dtype, mask);
            s[i] = _mm512_castps_si512(scale);
            z[i] = _mm512_castps_si512(_mm512_fmadd_ps(scale, middle, zero));
        }
        oc_avx512_turn16(s);
        oc_avx512_turn16(z);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            if (g + i >= n_groups) break;
            _mm512_store_si512(out + (g + i) * 2 * OC_TILES_N, s[i]);
            _mm512_store_si512(out + (g + i) * 2 * OC_TILES_N + OC_TILES_N, z[i]);
        }
    }
}

void oc_avx512bf16_numbers(const struct oc_weight *w, int64_t n0, int n, int64_t k0, int kk, uint16_t *out, float *scales) {
    const size_t stride = oc_weight_row_bytes(w);
    for (int half = 0; half < 2; half++, n0 += 16, n -= 16, out += TILE, scales += 16) {
        int there = n > 16 ? 16 : n < 0 ? 0 : n;
        const uint8_t *in = w->w + (size_t)(there ? n0 : 0) * stride + (size_t)k0 * w->bits / 8;
        if (w->bits == 4) numbers_q4(in, stride, there, kk, out);
        if (w->bits == 8) numbers_q8(in, stride, there, kk, out);
        scales_of(w, n0, there, k0 / w->group, kk / w->group, scales);
    }
}

static inline __attribute__((always_inline)) void scale_rows(const struct oc_tiles_scale *g, int row, int n, const bool first) {
    const __m512 s0 = _mm512_load_ps(g->scales), s1 = _mm512_load_ps(g->scales + 16);
    const __m512 z0 = _mm512_load_ps(g->scales + 32), z1 = _mm512_load_ps(g->scales + 48);
    int at = row / 16 * 512 + row % 16 * 16; /* tiles: two above, two below; n rows are all above or all below */
    const float *acc = g->acc + row / 16 * OC_TILES_ACC_BELOW + row % 16 * 16, *sums = g->sums + row;
    float *c = g->c + at;
    for (int r = 0; r < n; r++, acc += 16, c += 16) {
        __m512 sum = _mm512_set1_ps(sums[r]);
        __m512 c0 = _mm512_mul_ps(sum, z0), c1 = _mm512_mul_ps(sum, z1);
        if (!first) {
            c0 = _mm512_fmadd_ps(sum, z0, _mm512_load_ps(c));
            c1 = _mm512_fmadd_ps(sum, z1, _mm512_load_ps(c + 256));
        }
        _mm512_store_ps(c, _mm512_fmadd_ps(_mm512_load_ps(acc), s0, c0));
        _mm512_store_ps(c + 256, _mm512_fmadd_ps(_mm512_load_ps(acc + 256), s1, c1));
    }
}

/* n divides 16, or is 32. */
void oc_avx512bf16_scale(const struct oc_tiles_scale *g, int row, int n) {
    for (int end = row + n; row < end; row += 16) {
        int rows = n < 16 ? n : 16;
        if (g->first) {
            scale_rows(g, row, rows, true);
        } else {
            scale_rows(g, row, rows, false);
        }
    }
}

static inline __m512 low_half(__m512i halves) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(halves)), 16));
}

static inline __m512 high_half(__m512i halves) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(halves, 1)), 16));
}

/* Step `step` of a row; there: whether the row is. Returns the sum of what is written. */
static inline __attribute__((always_inline)) float piece(const struct oc_tiles_cut *c, int row, int step, const bool whole, const int parts) {
    const float *x = c->x + row * c->ldx + step * OC_TILES_K;
    uint16_t *out = c->out + step * parts * OC_TILES_STEP + row * OC_TILES_K;
    uint16_t *to_high = parts == 2 && step % 2 == 0 ? out + OC_TILES_STEP : out, *to_low = step % 2 == 0 ? out : out + OC_TILES_STEP;
    __m512 lo, hi;
    if (whole) {
        lo = _mm512_loadu_ps(x), hi = _mm512_loadu_ps(x + 16);
    } else {
        int k = row < c->n ? c->k - step * OC_TILES_K : 0;
        lo = _mm512_maskz_loadu_ps(oc_avx512_mask(k), x);
        hi = _mm512_maskz_loadu_ps(k > 16 ? oc_avx512_mask(k - 16) : 0, x + 16);
    }
    __m512i high = (__m512i)_mm512_cvtne2ps_pbh(hi, lo);
    _mm512_store_si512(to_high, high);
    if (parts == 1) return 0;
    __m512 high0 = low_half(high), high1 = high_half(high);
    __m512i low = (__m512i)_mm512_cvtne2ps_pbh(_mm512_sub_ps(hi, high1), _mm512_sub_ps(lo, high0));
    _mm512_store_si512(to_low, low);
    if (!c->sums) return 0;
    return oc_avx512_sum(_mm512_add_ps(_mm512_add_ps(high0, high1), _mm512_add_ps(low_half(low), high_half(low))));
}

enum { CUT_STEPS = 4 }; /* of a row at a time: what is written stays in L1 until its lines' neighbours are, and reads are runs */

static inline __attribute__((always_inline)) void cut_parts(const struct oc_tiles_cut *c, const int parts) {
    for (int from = 0; from < c->steps; from += CUT_STEPS) {
        int to = from + CUT_STEPS < c->steps ? from + CUT_STEPS : c->steps;
        for (int row = 0; row < c->rows; row++) {
            const float *x = c->x + row * c->ldx;
            for (int i = 0; i < 2 * CUT_STEPS && row < c->n; i++) _mm_prefetch((const char *)(x + (to * 2 + i) * 16), _MM_HINT_T0);
            for (int step = from; step < to; step++) {
                bool whole = row < c->n && (step + 1) * OC_TILES_K <= c->k;
                float sum = whole ? piece(c, row, step, true, parts) : piece(c, row, step, false, parts);
                if (c->sums) c->sums[step * OC_TILES_N + row] = sum;
            }
        }
    }
}

void oc_avx512bf16_cut(const struct oc_tiles_cut *c) {
    if (c->parts == 2) cut_parts(c, 2);
    if (c->parts == 1) cut_parts(c, 1);
}
