/* Role P of quantised weights by whole numbers: rounding of x, panels of W, and the tile of VPDPWSSD.
 *
 * x comes as signed 16-bit numbers (kernels/int16.h), W as the unsigned numbers that it is made of, in 16 bits too. An
 * instruction multiplies two k for 16 columns, 32 products, where an FMA makes 16; a group's sum is an integer and
 * exact: at most 255 * 128 * 32767 < 2^31. Pairs of k are (i, i + 4) of each 8, as masks and shifts take them from words of
 * 4 bits. (VPDPBUSD with x as two digits does as many products, but leaves two sums to be put together.) */
#include "kernels/int16.h"
#include "kernels/x86/avx512.h"

#define COLS 64 /* of a panel: four vectors */
#define VECS 4
#define ROWS OC_INT16_ROWS

/* ---- Rounding ---- */

/* 32 of q as pairs. */
static inline __m512i pairs_of(__m512i first, __m512i second) {
    __m512i low = _mm512_shuffle_i32x4(first, second, 0x88), high = _mm512_shuffle_i32x4(first, second, 0xdd);
    return _mm512_mask_mov_epi16(low, 0xaaaaaaaau, _mm512_slli_epi32(high, 16));
}

static inline __attribute__((always_inline)) void round_group(const float *x, const int group, int16_t *q, float *scale, float *sum) {
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    __m512i most = _mm512_setzero_si512(), total = _mm512_setzero_si512();
#pragma GCC unroll 8
    for (int i = 0; i < group; i += 16) most = _mm512_max_epu32(most, _mm512_and_si512(_mm512_loadu_si512(x + i), magnitude));
    float inverse = oc_int16_scale(_mm512_reduce_max_epu32(most), scale);
    const __mmask16 any = inverse > 0 ? 0xffff : 0; /* x may be a NaN where there is none */
    const __m512 factor = _mm512_set1_ps(inverse);
#pragma GCC unroll 4
    for (int i = 0; i < group; i += 32) {
        __m512i first = _mm512_maskz_cvtps_epi32(any, _mm512_mul_ps(_mm512_loadu_ps(x + i), factor));
        __m512i second = _mm512_maskz_cvtps_epi32(any, _mm512_mul_ps(_mm512_loadu_ps(x + i + 16), factor));
        total = _mm512_add_epi32(total, _mm512_add_epi32(first, second));
        _mm512_store_si512(q + i, pairs_of(first, second));
    }
    *sum = *scale * (float)_mm512_reduce_add_epi32(total);
}

void oc_avx512vnni_round16(const float *x, int kk, int group, int16_t *q, float *scales) {
    for (int k = 0; k < kk; k += group, scales += 2 * ROWS) {
        if (group == 32) round_group(x + k, 32, q + k, scales, scales + ROWS);
        if (group == 64) round_group(x + k, 64, q + k, scales, scales + ROWS);
        if (group == 128) round_group(x + k, 128, q + k, scales, scales + ROWS);
    }
}

/* ---- Panels of W ---- */

/* Turns 16 x 16 words. */
static inline __attribute__((always_inline)) void turn16(__m512i v[16]) {
    __m512i t[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        v[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        v[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        v[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        v[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) { /* quarter q of v[4r + i] is column 4q + i of rows 4r .. 4r+3 */
        t[i] = _mm512_shuffle_i32x4(v[i], v[4 + i], 0x88);
        t[4 + i] = _mm512_shuffle_i32x4(v[i], v[4 + i], 0xdd);
        t[8 + i] = _mm512_shuffle_i32x4(v[8 + i], v[12 + i], 0x88);
        t[12 + i] = _mm512_shuffle_i32x4(v[8 + i], v[12 + i], 0xdd);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        v[i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0x88);
        v[8 + i] = _mm512_shuffle_i32x4(t[i], t[8 + i], 0xdd);
        v[4 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0x88);
        v[12 + i] = _mm512_shuffle_i32x4(t[4 + i], t[12 + i], 0xdd);
    }
}

/* n_words <= 16 words of each of n rows, turned: v[i] is word i of all. */
static inline __attribute__((always_inline)) void load_turned(const uint8_t *in, size_t stride, int n, int n_words, __m512i v[16]) {
    const __mmask16 mask = oc_avx512_mask(n_words);
#pragma GCC unroll 16
    for (int r = 0; r < 16; r++) v[r] = _mm512_maskz_loadu_epi32(r < n ? mask : 0, in + (r < n ? (size_t)r * stride : 0));
    turn16(v);
}

/* Four pairs of k of 16 columns from a word of 8 x 4 bits. */
static inline void emit_q4(__m512i word, int16_t *out) {
    const __m512i low = _mm512_set1_epi32(0x000f000f);
    _mm512_store_si512(out, _mm512_and_si512(word, low));
    _mm512_store_si512(out + 2 * COLS, _mm512_and_si512(_mm512_srli_epi32(word, 4), low));
    _mm512_store_si512(out + 4 * COLS, _mm512_and_si512(_mm512_srli_epi32(word, 8), low));
    _mm512_store_si512(out + 6 * COLS, _mm512_and_si512(_mm512_srli_epi32(word, 12), low));
}

/* The same from two words of 4 x 8 bits. */
static inline void emit_q8(__m512i first, __m512i second, int16_t *out) {
    const __m512i low = _mm512_set1_epi32(0x00ff00ff);
    const __mmask32 odd = 0xaaaaaaaau;
    _mm512_store_si512(out, _mm512_and_si512(_mm512_mask_mov_epi16(first, odd, _mm512_slli_epi32(second, 16)), low));
    __m512i a = _mm512_srli_epi32(first, 8), b = _mm512_slli_epi32(second, 8);
    _mm512_store_si512(out + 2 * COLS, _mm512_and_si512(_mm512_mask_mov_epi16(a, odd, b), low));
    a = _mm512_srli_epi32(first, 16);
    _mm512_store_si512(out + 4 * COLS, _mm512_and_si512(_mm512_mask_mov_epi16(a, odd, second), low));
    a = _mm512_srli_epi32(first, 24), b = _mm512_srli_epi32(second, 8);
    _mm512_store_si512(out + 6 * COLS, _mm512_and_si512(_mm512_mask_mov_epi16(a, odd, b), low));
}

/* kk of n <= 16 rows at `in`: out[kk/2][COLS][2], of which 16 columns. */
static void numbers_q4(const uint8_t *in, size_t stride, int n, int kk, int16_t *out) {
    for (int n_words = kk / 8; n_words > 0; n_words -= 16, in += 64) {
        __m512i v[16];
        load_turned(in, stride, n, n_words, v);
        int some = n_words < 16 ? n_words : 16; /* a multiple of 4: of a group */
        for (int i = 0; i < some; i++, out += 8 * COLS) emit_q4(v[i], out);
    }
}

static void numbers_q8(const uint8_t *in, size_t stride, int n, int kk, int16_t *out) {
    for (int n_words = kk / 4; n_words > 0; n_words -= 16, in += 64) {
        __m512i v[16];
        load_turned(in, stride, n, n_words, v);
        int some = n_words < 16 ? n_words : 16;
        for (int i = 0; i < some; i += 2, out += 8 * COLS) emit_q8(v[i], v[i + 1], out);
    }
}

void oc_avx512vnni_numbers16(const struct oc_weight *w, int64_t n0, int n, int64_t k0, int kk, int16_t *out) {
    const size_t stride = oc_weight_row_bytes(w);
    for (int at = 0; at < COLS; at += 16) {
        int there = n - at > 16 ? 16 : n - at < 0 ? 0 : n - at;
        const uint8_t *in = w->w + (size_t)(n0 + (there ? at : 0)) * stride + (size_t)k0 * w->bits / 8;
        if (w->bits == 4) numbers_q4(in, stride, there, kk, out + 2 * at);
        if (w->bits == 8) numbers_q8(in, stride, there, kk, out + 2 * at);
    }
}

/* n_groups <= 16 of n <= 16 rows: out[g * 2 * COLS + row]. */
static void floats_turned(const uint8_t *in, enum oc_dtype dtype, int64_t row_groups, int n, int n_groups, float *out) {
    const __mmask16 mask = oc_avx512_mask(n_groups);
    const size_t stride = (size_t)row_groups * oc_dtype_bytes(dtype);
    __m512i v[16];
    for (int r = 0; r < 16; r++) v[r] = _mm512_castps_si512(oc_avx512_load_float(in + (r < n ? (size_t)r * stride : 0), dtype, r < n ? mask : 0));
    turn16(v);
    for (int g = 0; g < n_groups; g++) _mm512_store_si512(out + g * 2 * COLS, v[g]);
}

void oc_avx512vnni_scales16(const struct oc_weight *w, int64_t n0, int n, int64_t group, int n_groups, float *out) {
    const int64_t row_groups = w->k / w->group;
    for (int at = 0; at < COLS; at += 16, out += 16) {
        int there = n - at > 16 ? 16 : n - at < 0 ? 0 : n - at;
        size_t from = (size_t)((n0 + (there ? at : 0)) * row_groups + group) * oc_dtype_bytes(w->dtype);
        floats_turned(w->scales + from, w->dtype, row_groups, there, n_groups, out);
        floats_turned(w->zero_biases + from, w->dtype, row_groups, there, n_groups, out + COLS);
    }
}

/* ---- The tile ---- */

/* sum += two products in each lane. By hand: gcc 12 copies every sum around the intrinsic. */
static inline __attribute__((always_inline)) __m512i add_products(__m512i sum, __m512i w, __m512i x) {
    __asm__("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(w), "v"(x));
    return sum;
}

/* Sums of a group, n_pairs long; the first pair of k needs no zeros to be added to. */
static inline __attribute__((always_inline)) void sum_group(const int16_t *x, const int16_t *w, int n_pairs, __m512i sum[ROWS][VECS],
                                                            const int mr) {
    for (int k = 0; k < n_pairs; k++, x += 2, w += 2 * COLS) {
        __m512i wv[VECS];
#pragma GCC unroll 4
        for (int v = 0; v < VECS; v++) wv[v] = _mm512_load_si512(w + 32 * v);
#pragma GCC unroll 6
        for (int r = 0; r < mr; r++) {
            int32_t pair;
            memcpy(&pair, x + r * OC_P_KB, sizeof pair);
            __m512i xv = _mm512_set1_epi32(pair);
#pragma GCC unroll 4
            for (int v = 0; v < VECS; v++) sum[r][v] = add_products(sum[r][v], wv[v], xv);
        }
    }
}

static inline __attribute__((always_inline)) void tile(const struct oc_int16_tile *t, const int mr) {
    const int16_t *x = t->x, *w = t->w;
    const float *scales = t->scales, *w_scales = t->w_scales;
    const int n_pairs = t->group / 2;
    __mmask16 old = t->first ? 0 : 0xffff;
    for (int k = 0; k < t->kk; k += t->group) {
        __m512i sum[ROWS][VECS];
#pragma GCC unroll 6
        for (int r = 0; r < mr; r++) {
#pragma GCC unroll 4
            for (int v = 0; v < VECS; v++) sum[r][v] = _mm512_setzero_si512();
        }
        sum_group(x, w, n_pairs, sum, mr);
        x += t->group;
        w += t->group * COLS;
#pragma GCC unroll 4
        for (int v = 0; v < VECS; v++) {
            const __m512 scale = _mm512_load_ps(w_scales + 16 * v), zero = _mm512_load_ps(w_scales + COLS + 16 * v);
#pragma GCC unroll 6
            for (int r = 0; r < mr; r++) {
                float *c = t->c + r * t->ldc + 16 * v;
                __m512 s = _mm512_mul_ps(_mm512_cvtepi32_ps(sum[r][v]), _mm512_set1_ps(scales[r]));
                __m512 y = _mm512_fmadd_ps(zero, _mm512_set1_ps(scales[ROWS + r]), _mm512_maskz_load_ps(old, c));
                _mm512_store_ps(c, _mm512_fmadd_ps(scale, s, y));
            }
        }
        scales += 2 * ROWS;
        w_scales += 2 * COLS;
        old = 0xffff;
    }
}

/* Functions of their own, so that each has all registers for its sums. */
static void tile1(const struct oc_int16_tile *t) {
    tile(t, 1);
}

static void tile2(const struct oc_int16_tile *t) {
    tile(t, 2);
}

static void tile3(const struct oc_int16_tile *t) {
    tile(t, 3);
}

static void tile4(const struct oc_int16_tile *t) {
    tile(t, 4);
}

static void tile5(const struct oc_int16_tile *t) {
    tile(t, 5);
}

static void tile6(const struct oc_int16_tile *t) {
    tile(t, 6);
}

typedef void tile_fn(const struct oc_int16_tile *t);

static tile_fn *const tiles[ROWS] = {tile1, tile2, tile3, tile4, tile5, tile6};

void oc_avx512vnni_tile16(const struct oc_int16_tile *t) {
    OC_ASSERT(t->mr >= 1 && t->mr <= ROWS);
    tiles[t->mr - 1](t);
}
