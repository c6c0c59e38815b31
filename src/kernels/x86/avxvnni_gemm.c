/* Role P of quantised weights by whole numbers with vectors of 256 bits (AVX-VNNI): what x86/avx512vnni_gemm.c does, same bits.
 *
 * A panel is 32 columns as two halves of 16, one after the other; 6 rows by 16 columns are 12 sums. */
#include "kernels/int16.h"
#include "kernels/x86/avx2.h"

#define COLS 32
#define HALF 16 /* columns of a tile: two vectors */
#define VECS 2
#define ROWS OC_INT16_ROWS

/* ---- Rounding ---- */

static inline int32_t sum_of(__m256i v) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

static inline uint32_t most_of(__m256i v) {
    __m128i s = _mm_max_epu32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_max_epu32(s, _mm_shuffle_epi32(s, 0x4e));
    return (uint32_t)_mm_cvtsi128_si32(_mm_max_epu32(s, _mm_shuffle_epi32(s, 0xb1)));
}

static inline __m256i rounded(const float *x, __m256 factor, __m256i any) {
    return _mm256_and_si256(any, _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), factor)));
}

static void round_group(const float *x, int group, int16_t *q, float *scale, float *sum) {
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256i most = _mm256_setzero_si256(), total = _mm256_setzero_si256();
    for (int i = 0; i < group; i += 8) {
        __m256i bits = _mm256_loadu_si256((const __m256i *)(const void *)(x + i));
        most = _mm256_max_epu32(most, _mm256_and_si256(bits, magnitude));
    }
    float inverse = oc_int16_scale(most_of(most), scale);
    const __m256i any = _mm256_set1_epi32(inverse > 0 ? -1 : 0); /* x may be a NaN where there is none */
    const __m256 factor = _mm256_set1_ps(inverse);
    for (int i = 0; i < group; i += 16) {
        __m256i a = rounded(x + i, factor, any), b = rounded(x + i + 8, factor, any);
        total = _mm256_add_epi32(total, _mm256_add_epi32(a, b));
        __m256i low = _mm256_permute2x128_si256(a, b, 0x20), high = _mm256_permute2x128_si256(a, b, 0x31);
        __m256i pairs = _mm256_blend_epi16(low, _mm256_slli_epi32(high, 16), 0xaa);
        _mm256_store_si256((__m256i *)(void *)(q + i), pairs);
    }
    *sum = *scale * (float)sum_of(total);
}

void oc_avxvnni_round16(const float *x, int kk, int group, int16_t *q, float *scales) {
    for (int k = 0; k < kk; k += group, scales += 2 * ROWS) round_group(x + k, group, q + k, scales, scales + ROWS);
}

/* ---- Panels of W ---- */

/* Turns 8 x 8 words. */
static inline __attribute__((always_inline)) void turn8(__m256i v[8]) {
    __m256i a[8], b[8];
    for (int i = 0; i < 8; i += 2) {
        a[i] = _mm256_unpacklo_epi32(v[i], v[i + 1]);
        a[i + 1] = _mm256_unpackhi_epi32(v[i], v[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        b[i] = _mm256_unpacklo_epi64(a[i], a[i + 2]);
        b[i + 1] = _mm256_unpackhi_epi64(a[i], a[i + 2]);
        b[i + 2] = _mm256_unpacklo_epi64(a[i + 1], a[i + 3]);
        b[i + 3] = _mm256_unpackhi_epi64(a[i + 1], a[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        v[i] = _mm256_permute2x128_si256(b[i], b[i + 4], 0x20);
        v[i + 4] = _mm256_permute2x128_si256(b[i], b[i + 4], 0x31);
    }
}

/* n_words <= 8 words of each of n rows, turned. */
static inline __attribute__((always_inline)) void load_turned(const uint8_t *in, size_t stride, int n, int n_words, __m256i v[8]) {
    const __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(n_words), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    for (int r = 0; r < 8; r++) {
        v[r] = r < n ? _mm256_maskload_epi32((const int *)(const void *)(in + (size_t)r * stride), mask) : _mm256_setzero_si256();
    }
    turn8(v);
}

static inline void put(int16_t *out, int pair, __m256i v) {
    _mm256_store_si256((__m256i *)(void *)(out + pair * 2 * HALF), v);
}

/* Four pairs of k of 8 columns from a word of 8 x 4 bits. */
static inline void emit_q4(__m256i word, int16_t *out) {
    const __m256i low = _mm256_set1_epi32(0x000f000f);
    put(out, 0, _mm256_and_si256(word, low));
    put(out, 1, _mm256_and_si256(_mm256_srli_epi32(word, 4), low));
    put(out, 2, _mm256_and_si256(_mm256_srli_epi32(word, 8), low));
    put(out, 3, _mm256_and_si256(_mm256_srli_epi32(word, 12), low));
}

/* The same from two words of 4 x 8 bits. */
static inline void emit_q8(__m256i first, __m256i second, int16_t *out) {
    const __m256i low = _mm256_set1_epi32(0x00ff00ff);
    put(out, 0, _mm256_and_si256(_mm256_blend_epi16(first, _mm256_slli_epi32(second, 16), 0xaa), low));
    put(out, 1, _mm256_and_si256(_mm256_blend_epi16(_mm256_srli_epi32(first, 8), _mm256_slli_epi32(second, 8), 0xaa), low));
    put(out, 2, _mm256_and_si256(_mm256_blend_epi16(_mm256_srli_epi32(first, 16), second, 0xaa), low));
    put(out, 3, _mm256_and_si256(_mm256_blend_epi16(_mm256_srli_epi32(first, 24), _mm256_srli_epi32(second, 8), 0xaa), low));
}

/* kk of n <= 8 rows at `in`: out[kk/2][HALF][2], of which 8 columns. */
static void numbers_of(const uint8_t *in, size_t stride, int n, int bits, int kk, int16_t *out) {
    for (int n_words = kk * bits / 32; n_words > 0; n_words -= 8, in += 32) {
        __m256i v[8];
        load_turned(in, stride, n, n_words, v);
        int some = n_words < 8 ? n_words : 8;
        if (bits == 4) {
            for (int i = 0; i < some; i++, out += 8 * HALF) emit_q4(v[i], out);
        } else {
            for (int i = 0; i < some; i += 2, out += 8 * HALF) emit_q8(v[i], v[i + 1], out);
        }
    }
}

void oc_avxvnni_numbers16(const struct oc_weight *w, int64_t n0, int n, int64_t k0, int kk, int16_t *out) {
    const size_t stride = oc_weight_row_bytes(w);
    for (int at = 0; at < COLS; at += 8) {
        int there = n - at > 8 ? 8 : n - at < 0 ? 0 : n - at;
        const uint8_t *in = w->w + (size_t)(n0 + (there ? at : 0)) * stride + (size_t)k0 * w->bits / 8;
        numbers_of(in, stride, there, w->bits, kk, out + at / HALF * kk * HALF + at % HALF * 2);
    }
}

void oc_avxvnni_scales16(const struct oc_weight *w, int64_t n0, int n, int64_t group, int n_groups, float *out) {
    const int64_t row_groups = w->k / w->group;
    for (int r = 0; r < COLS; r++) {
        for (int g = 0; g < n_groups; g++) {
            int64_t at = (n0 + r) * row_groups + group + g;
            out[g * 2 * COLS + r] = r < n ? oc_load_float(w->scales, w->dtype, at) : 0;
            out[(g * 2 + 1) * COLS + r] = r < n ? oc_load_float(w->zero_biases, w->dtype, at) : 0;
        }
    }
}

/* ---- The tile ---- */

/* sum += two products in each lane; by hand as with 512 bits, and in the encoding that needs no AVX-512. */
static inline __attribute__((always_inline)) __m256i add_products(__m256i sum, __m256i w, __m256i x) {
    __asm__("%{vex%} vpdpwssd %2, %1, %0" : "+x"(sum) : "x"(w), "x"(x));
    return sum;
}

static inline __attribute__((always_inline)) void sum_group(const int16_t *x, const int16_t *w, int n_pairs, __m256i sum[ROWS][VECS],
                                                            const int mr) {
    for (int k = 0; k < n_pairs; k++, x += 2, w += 2 * HALF) {
        __m256i w0 = _mm256_load_si256((const __m256i *)(const void *)w), w1 = _mm256_load_si256((const __m256i *)(const void *)(w + HALF));
#pragma GCC unroll 6
        for (int r = 0; r < mr; r++) {
            int32_t pair;
            memcpy(&pair, x + r * OC_P_KB, sizeof pair);
            __m256i xv = _mm256_set1_epi32(pair);
            sum[r][0] = add_products(sum[r][0], w0, xv);
            sum[r][1] = add_products(sum[r][1], w1, xv);
        }
    }
}

/* c of a group's sums; `old`: added to what it was. */
static inline __attribute__((always_inline)) void scale_group(const __m256i sum[ROWS][VECS], const float *scales, const float *w_scales,
                                                              float *c, int64_t ldc, bool old, const int mr) {
#pragma GCC unroll 2
    for (int v = 0; v < VECS; v++) {
        const __m256 scale = _mm256_load_ps(w_scales + 8 * v), zero = _mm256_load_ps(w_scales + COLS + 8 * v);
#pragma GCC unroll 6
        for (int r = 0; r < mr; r++) {
            float *at = c + r * ldc + 8 * v;
            __m256 s = _mm256_mul_ps(_mm256_cvtepi32_ps(sum[r][v]), _mm256_broadcast_ss(scales + r));
            __m256 y = old ? _mm256_load_ps(at) : _mm256_setzero_ps();
            y = _mm256_fmadd_ps(zero, _mm256_broadcast_ss(scales + ROWS + r), y);
            _mm256_store_ps(at, _mm256_fmadd_ps(scale, s, y));
        }
    }
}

static inline __attribute__((always_inline)) void tile(const struct oc_int16_tile *t, const int mr) {
    const int16_t *w = t->w;
    for (int half = 0; half < COLS / HALF; half++) {
        const int16_t *x = t->x;
        const float *scales = t->scales, *w_scales = t->w_scales + half * HALF;
        bool old = !t->first;
        for (int k = 0; k < t->kk; k += t->group) {
            __m256i sum[ROWS][VECS];
#pragma GCC unroll 6
            for (int r = 0; r < mr; r++) sum[r][0] = sum[r][1] = _mm256_setzero_si256();
            sum_group(x, w, t->group / 2, sum, mr);
            scale_group(sum, scales, w_scales, t->c + half * HALF, t->ldc, old, mr);
            x += t->group;
            w += t->group * HALF;
            scales += 2 * ROWS;
            w_scales += 2 * COLS;
            old = true;
        }
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

void oc_avxvnni_tile16(const struct oc_int16_tile *t) {
    OC_ASSERT(t->mr >= 1 && t->mr <= ROWS);
    tiles[t->mr - 1](t);
}
