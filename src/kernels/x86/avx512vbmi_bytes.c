/* x and W as numbers of 16 bits for tiles of bytes (struct oc_simd_bytes), and what becomes of the products. */
#include "kernels/int16.h"
#include "kernels/x86/avx512.h"

#include <math.h>

/* ---- Rows to bytes ---- */

/* The scale of a block whose largest absolute value is `most`, and its inverse, 0 where all of q is 0. */
static inline float scale_of(float most, float *scale) {
    bool finite = most < INFINITY, any = finite && most > 1e-30f; /* a NaN is not finite */
    *scale = any ? most / OC_INT16_MOST : finite ? 0.0f : oc_f32_from_bits(0x7fc00000u);
    return any ? OC_INT16_MOST / most : 0.0f;
}

/* Of absolute values, as integers: NaN is the largest. */
static inline float largest(__m512i most) {
    return oc_f32_from_bits(_mm512_reduce_max_epu32(most));
}

static inline __m512i larger(__m512i most, __m512 v) {
    return _mm512_max_epu32(most, _mm512_and_si512(_mm512_castps_si512(v), _mm512_set1_epi32(0x7fffffff)));
}

/* Byte e of 64 is that of element e, from two vectors that _mm512_packs_epi32 made of 16 elements each: its even (low) bytes, or
 * the odd ones. */
static const uint8_t low_bytes[64] = {0,  2,  4,  6,  16, 18, 20, 22, 32, 34, 36,  38,  48,  50,  52,  54,  8,  10, 12,  14,  24, 26,
                                      28, 30, 40, 42, 44, 46, 56, 58, 60, 62, 64,  66,  68,  70,  80,  82,  84, 86, 96,  98,  100, 102,
                                      112, 114, 116, 118, 72, 74, 76, 78, 88, 90, 92, 94, 104, 106, 108, 110, 120, 122, 124, 126};

static inline void bytes64(const __m512 v[4], __m512 inverse, int8_t *high, int8_t *low) {
    const __m512i at = _mm512_loadu_si512(low_bytes), half = _mm512_set1_epi16(128);
    __m512i q[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) q[i] = _mm512_cvtps_epi32(_mm512_mul_ps(v[i], inverse));
    __m512i a = _mm512_packs_epi32(q[0], q[1]), b = _mm512_packs_epi32(q[2], q[3]);
    _mm512_store_si512(low, _mm512_permutex2var_epi8(a, at, b));
    a = _mm512_add_epi16(a, half), b = _mm512_add_epi16(b, half);
    _mm512_store_si512(high, _mm512_permutex2var_epi8(a, _mm512_add_epi8(at, _mm512_set1_epi8(1)), b));
}

enum { STEPS = OC_BYTES_BLOCK / OC_BYTES_K };

static inline int steps_of(int k) {
    return (k + OC_BYTES_K - 1) / OC_BYTES_K;
}

/* 64 of a row, of which `left` are there. */
static inline __attribute__((always_inline)) void load64(const float *x, int left, __m512 v[4]) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) v[i] = left >= OC_BYTES_K ? _mm512_loadu_ps(x + 16 * i) : _mm512_maskz_loadu_ps(left > 16 * i ? oc_avx512_mask(left - 16 * i) : 0, x + 16 * i);
}

/* A row's k to high and low bytes of whole steps, OC_BYTES_X_STEP bytes from one to the next. */
static float cut_row(const float *x, int k, int n_steps, int8_t *high, int8_t *low) {
    float scale;
    __m512 v[4];
    __m512i most[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
    for (int s = 0; s < n_steps; s++) {
        load64(x + s * OC_BYTES_K, k - s * OC_BYTES_K, v);
        most[0] = larger(larger(most[0], v[0]), v[1]);
        most[1] = larger(larger(most[1], v[2]), v[3]);
    }
    const __m512 inverse = _mm512_set1_ps(scale_of(largest(_mm512_max_epu32(most[0], most[1])), &scale));
    for (int s = 0; s < n_steps; s++, high += OC_BYTES_X_STEP, low += OC_BYTES_X_STEP) {
        load64(x + s * OC_BYTES_K, k - s * OC_BYTES_K, v);
        bytes64(v, inverse, high, low);
    }
    return scale;
}

void oc_avx512vbmi_bytes_cut(const float *x, int64_t ldx, int n, int k, int8_t *out, float *scales) {
    for (int r = 0; r < OC_BYTES_M; r++, out += OC_BYTES_K) {
        const float *row = x + (r < n ? r : 0) * ldx;
        scales[r] = cut_row(row, r < n ? k : 0, steps_of(k), out, out + OC_BYTES_TILE);
    }
}

/* ---- W ---- */

/* High and low bytes of 16 rows, step by step. */
struct rows {
    int8_t high[STEPS][16][OC_BYTES_K], low[STEPS][16][OC_BYTES_K];
};

/* Scales and zero biases of a row's groups, as numbers of 16 bits have them: times the inverse of the row's scale. */
struct groups {
    float scales[16], zeros[16];
    int shift; /* a group is 1 << shift weights */
};

static inline int shift_of(const struct oc_weight *w) {
    return __builtin_ctz(w->group);
}

static float groups_of(const struct oc_weight *w, int64_t row, int64_t k0, int kk, struct groups *g) {
    const int shift = shift_of(w);
    const int64_t size = w->dtype == OC_F32 ? 4 : 2, at = ((row * w->k + k0) >> shift) * size;
    const __mmask16 mask = oc_avx512_mask(kk >> shift);
    const __m512 most_q = _mm512_set1_ps((float)((1 << w->bits) - 1));
    __m512 s = oc_avx512_load_float(w->scales + at, w->dtype, mask), z = oc_avx512_load_float(w->zero_biases + at, w->dtype, mask);
    float scale;
    __m512 inverse = _mm512_set1_ps(scale_of(largest(larger(larger(_mm512_setzero_si512(), z), _mm512_fmadd_ps(s, most_q, z))), &scale));
    _mm512_storeu_ps(g->scales, _mm512_mul_ps(s, inverse));
    _mm512_storeu_ps(g->zeros, _mm512_mul_ps(z, inverse));
    g->shift = shift;
    return scale;
}

/* The 16 values of a group as bytes, high and low, in each quarter of a vector. */
static inline void table_of(const struct groups *g, int group, __m512i *high, __m512i *low) {
    const __m512 q = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i words = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60));
    __m512i v = _mm512_cvtps_epi32(_mm512_fmadd_ps(_mm512_set1_ps(g->scales[group]), q, _mm512_set1_ps(g->zeros[group])));
    *low = _mm512_permutexvar_epi8(words, v);
    *high = _mm512_permutexvar_epi8(_mm512_add_epi8(words, _mm512_set1_epi8(1)), _mm512_add_epi32(v, _mm512_set1_epi32(128)));
}

/* 64 weights, or 32 and zeros. */
static inline __m512i nibbles(const uint8_t *in, bool whole) {
    __m256i bytes = whole ? _mm256_loadu_si256((const __m256i *)(const void *)in) : _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)in));
    __m512i words = _mm512_cvtepu8_epi16(whole ? bytes : _mm256_zextsi128_si256(_mm256_castsi256_si128(bytes)));
    return _mm512_and_si512(_mm512_or_si512(words, _mm512_slli_epi16(words, 4)), _mm512_set1_epi8(15));
}

static void row_q4(const uint8_t *in, const struct groups *g, int kk, struct rows *out, int r) {
    __m512i high = _mm512_setzero_si512(), low = high;
    for (int k = 0, s = 0; k < kk; k += OC_BYTES_K, s++) {
        if (g->shift < 7 || s % 2 == 0) table_of(g, k >> g->shift, &high, &low);
        if (g->shift == 5) {
            __m512i high1, low1;
            table_of(g, k / 32 + 1, &high1, &low1);
            high = _mm512_mask_blend_epi64(0xf0, high, high1);
            low = _mm512_mask_blend_epi64(0xf0, low, low1);
        }
        __m512i q = nibbles(in + k / 2, kk - k >= OC_BYTES_K);
        _mm512_store_si512(out->high[s][r], _mm512_shuffle_epi8(high, q));
        _mm512_store_si512(out->low[s][r], _mm512_shuffle_epi8(low, q));
    }
}

static void row_q8(const uint8_t *in, const struct groups *g, int kk, struct rows *out, int r) {
    for (int k = 0, s = 0; k < kk; k += OC_BYTES_K, s++) {
        __m512 v[4];
        for (int i = 0; i < 4; i++) {
            int at = k + 16 * i, group = at < kk ? at >> g->shift : 0;
            __m512 q = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(at < kk ? 0xffff : 0, in + at)));
            v[i] = _mm512_fmadd_ps(q, _mm512_set1_ps(g->scales[group]), _mm512_set1_ps(g->zeros[group]));
        }
        bytes64(v, _mm512_set1_ps(1), out->high[s][r], out->low[s][r]);
    }
}

static inline __m512 wide_bf16(const uint8_t *in, __mmask16 mask) {
    return oc_avx512_load_float(in, OC_BF16, mask);
}

/* A row of bf16: 32 at a time for the largest, whose order is that of their bits. */
static float row_plain(const uint8_t *in, int kk, struct rows *out, int r) {
    float scale;
    __m512i most = _mm512_setzero_si512();
    for (int i = 0; i < kk; i += 32) {
        __mmask32 there = kk - i >= 32 ? 0xffffffffu : (1u << (kk - i)) - 1;
        most = _mm512_max_epu16(most, _mm512_and_si512(_mm512_maskz_loadu_epi16(there, in + 2 * i), _mm512_set1_epi16(0x7fff)));
    }
    most = _mm512_max_epu32(_mm512_slli_epi32(most, 16), _mm512_and_si512(most, _mm512_set1_epi32((int32_t)0xffff0000u)));
    const __m512 inverse = _mm512_set1_ps(scale_of(largest(most), &scale));
    for (int k = 0, s = 0; k < kk; k += OC_BYTES_K, s++) {
        __m512 v[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            int left = kk - k - 16 * i;
            v[i] = wide_bf16(in + 2 * (k + 16 * i), left > 0 ? oc_avx512_mask(left) : 0);
        }
        bytes64(v, inverse, out->high[s][r], out->low[s][r]);
    }
    return scale;
}

static void row_of(const struct oc_weight *w, int64_t row, int64_t k0, int kk, struct rows *out, int r, float *scale) {
    const uint8_t *in = w->w + (size_t)row * oc_weight_row_bytes(w);
    struct groups g;
    if (w->bits == 0) {
        *scale = row_plain(in + 2 * k0, kk, out, r);
        return;
    }
    *scale = groups_of(w, row, k0, kk, &g);
    if (w->bits == 4) row_q4(in + k0 / 2, &g, kk, out, r);
    if (w->bits == 8) row_q8(in + k0, &g, kk, out, r);
}

static inline void turn_rows(int8_t (*rows)[OC_BYTES_K], int8_t *out) {
    __m512i v[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) v[i] = _mm512_load_si512(rows[i]);
    oc_avx512_turn16(v);
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) _mm512_store_si512(out + 64 * i, v[i]);
}

/* Row `at` of a half, or nothing of it. */
static void row_piece(const struct oc_bytes_panel *p, int half, int at, struct rows *rows) {
    int r = 16 * half + at;
    p->scales[r] = 0;
    if (r < p->n) {
        row_of(p->w, p->n0 + r, p->k0, p->kk, rows, at, &p->scales[r]);
        return;
    }
    for (int s = 0; s < STEPS; s++) {
        memset(rows->high[s][at], 0, OC_BYTES_K);
        memset(rows->low[s][at], 0, OC_BYTES_K);
    }
}

void oc_avx512vbmi_bytes_panel(struct oc_bytes_panel *p, int n) {
    enum { OF_HALF = OC_BYTES_PIECES / 2 };
    struct rows *rows = (struct rows *)(void *)p->rows;
    for (; n > 0 && p->next < OC_BYTES_PIECES; n--, p->next++) {
        int half = p->next / OF_HALF, at = p->next % OF_HALF, tile = at - OC_BYTES_M;
        if (tile < 0) {
            row_piece(p, half, at, rows);
        } else if (tile / 2 < steps_of(p->kk)) {
            turn_rows(tile % 2 ? rows->low[tile / 2] : rows->high[tile / 2], p->out + tile / 2 * OC_BYTES_W_STEP + (2 * half + tile % 2) * OC_BYTES_TILE);
        }
    }
}

/* ---- Products ---- */

static inline __m512 sum_of(const int32_t *acc) {
    __m512i v = _mm512_add_epi32(_mm512_slli_epi32(_mm512_load_si512(acc), 8), _mm512_load_si512(acc + 256));
    return _mm512_cvtepi32_ps(v);
}

static inline __attribute__((always_inline)) void add_rows(const struct oc_bytes_add *a, int row, int n, const bool first) {
    /* What the two scales' product is worth: 2^8 of it. */
    const __m512 s0 = _mm512_mul_ps(_mm512_loadu_ps(a->w_scales), _mm512_set1_ps(256)), s1 = _mm512_mul_ps(_mm512_loadu_ps(a->w_scales + 16), _mm512_set1_ps(256));
    for (int r = row; r < row + n; r++) {
        const __m512 x = _mm512_set1_ps(a->x_scales[r]);
        float *c = a->c + 16 * r;
        __m512 v0 = sum_of(a->acc + 16 * r), v1 = sum_of(a->acc + 512 + 16 * r);
        if (a->ahead) {
            _mm_prefetch((const char *)(a->ahead + 16 * r), _MM_HINT_T0);
            _mm_prefetch((const char *)(a->ahead + 256 + 16 * r), _MM_HINT_T0);
        }
        if (first) {
            v0 = _mm512_mul_ps(v0, _mm512_mul_ps(x, s0)), v1 = _mm512_mul_ps(v1, _mm512_mul_ps(x, s1));
        } else {
            v0 = _mm512_fmadd_ps(v0, _mm512_mul_ps(x, s0), _mm512_load_ps(c));
            v1 = _mm512_fmadd_ps(v1, _mm512_mul_ps(x, s1), _mm512_load_ps(c + 256));
        }
        _mm512_store_ps(c, v0);
        _mm512_store_ps(c + 256, v1);
    }
}

void oc_avx512vbmi_bytes_add(const struct oc_bytes_add *a, int row, int n) {
    if (a->first) {
        add_rows(a, row, n, true);
    } else {
        add_rows(a, row, n, false);
    }
}
