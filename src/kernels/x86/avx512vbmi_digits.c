/* Role D by AMX, the vector part: x to digits, W to bytes, products to sums. */
#include "kernels/x86/avx512.h"
#include "kernels/x86/digits.h"

/* Bytes of a row of W by which the prefetch to L1 runs ahead of unpacking. */
#define AHEAD 256

/* ---- x ----------------------------------------------------------------------------------------------------
 */

static inline uint32_t largest_bits(const float *x, int64_t k) {
    __m512i most = _mm512_setzero_si512();
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    for (int64_t i = 0; i < k; i += 16)
        most = _mm512_max_epu32(most, _mm512_and_si512(_mm512_loadu_si512(x + i), magnitude));
    return _mm512_reduce_max_epu32(most);
}

static inline float power_of_two(int e) {
    return oc_f32_from_bits(e > -127 ? (uint32_t)(e + 127) << 23 : 1u << (e + 149));
}

/* The two factors that bring x under 2^30 (one alone may not be a float), and in *scale what 2^24 of the
 * integers are worth. */
static void factors_of(uint32_t most, float f[2], float *scale) {
    f[0] = f[1] = 0;
    *scale = oc_f32_from_bits(0x7fc00000u);
    if (most >= 0x7f800000u) return;
    int exponent = most >> 23 ? (int)(most >> 23) : 1, e = 156 - exponent; /* x < 2^(exponent - 126) */
    f[0] = power_of_two(e / 2);
    f[1] = power_of_two(e - e / 2);
    *scale = power_of_two(24 - e);
}

/* Four k of 32 bits become four digits of four k, in each quarter of a vector. */
static inline __m512i digits_of(__m512i v) {
    const __m512i half = _mm512_set1_epi32(0x808080);
    const __m512i turn =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    return _mm512_shuffle_epi8(_mm512_xor_si512(_mm512_add_epi32(v, half), half), turn);
}

/* 16 bytes to each of four rows of a tile. */
static inline void store_rows(int8_t *q, int width, __m512i v) {
    const int row = 16 * width;
    _mm_storeu_si128((__m128i *)(void *)q, _mm512_castsi512_si128(v));
    _mm_storeu_si128((__m128i *)(void *)(q + row), _mm512_extracti32x4_epi32(v, 1));
    _mm_storeu_si128((__m128i *)(void *)(q + 2 * row), _mm512_extracti32x4_epi32(v, 2));
    _mm_storeu_si128((__m128i *)(void *)(q + 3 * row), _mm512_extracti32x4_epi32(v, 3));
}

static void prepare_zeros(int64_t k, int8_t *q, int width) {
    for (int64_t i = 0; i < k; i += 16, q += 64 * width) store_rows(q, width, _mm512_setzero_si512());
}

void oc_avx512vbmi_digits_prepare(const struct oc_weight *w, const float *x, int8_t *q, int width, int slot,
                                  float *scale) {
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    q += 16 * slot;
    if (!x) {
        prepare_zeros(w->k, q, width);
        return;
    }
    float f[2];
    factors_of(largest_bits(x, w->k), f, scale);
    const __m512 f0 = _mm512_set1_ps(f[0]), f1 = _mm512_set1_ps(f[1]);
    const __mmask16 any = f[0] > 0 ? 0xffff : 0; /* x may be a NaN where not */
    for (int64_t i = 0; i < w->k; i += 64, q += 256 * width) {
        __m512i v[4], t[4];
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++)
            t[j] = v[j] = _mm512_maskz_cvtps_epi32(
                any, _mm512_mul_ps(_mm512_mul_ps(_mm512_loadu_ps(x + i + 16 * j), f0), f1));
        if (w->bits == 4) {
            t[0] = _mm512_permutex2var_epi32(v[0], even, v[1]);
            t[1] = _mm512_permutex2var_epi32(v[2], even, v[3]);
            t[2] = _mm512_permutex2var_epi32(v[0], odd, v[1]);
            t[3] = _mm512_permutex2var_epi32(v[2], odd, v[3]);
        }
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) store_rows(q + 64 * width * j, width, digits_of(t[j]));
    }
}

/* ---- W ----------------------------------------------------------------------------------------------------
 */

/* A step of a row: 64 bytes at p, 32 where the row ends. The low six bits of a byte are an index into a table
 * that does not look at the upper two of them. */
static inline __attribute__((always_inline)) void unpack4(const uint8_t *p, uint8_t *a, __m512i table,
                                                          const bool half) {
    __m512i v = half ? _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)(const void *)p))
                     : _mm512_loadu_si512(p);
    __m512i even = _mm512_permutexvar_epi8(v, table),
            odd = _mm512_permutexvar_epi8(_mm512_srli_epi16(v, 4), table);
    _mm512_store_si512(a, _mm512_inserti64x4(even, _mm512_castsi512_si256(odd), 1));
    _mm512_store_si512(a + sizeof(uint8_t[16][64]), _mm512_shuffle_i64x2(even, odd, 0xee));
}

static inline __attribute__((always_inline)) void unpack8(const uint8_t *p, uint8_t *a, const bool half) {
    const __m512i middle = _mm512_set1_epi8((char)0x80);
    _mm512_store_si512(a, _mm512_xor_si512(_mm512_loadu_si512(p), middle));
    if (!half)
        _mm512_store_si512(a + sizeof(uint8_t[16][64]), _mm512_xor_si512(_mm512_loadu_si512(p + 64), middle));
}

static inline __attribute__((always_inline)) void unpack(const uint8_t *p, size_t row_bytes, int n,
                                                         uint8_t (*a)[64], const int bits, const bool half) {
    const __m512i table = _mm512_set4_epi32(0x07060504, 0x03020100, (int)0xfffefdfc, (int)0xfbfaf9f8);
    for (int r = 0; r < n; r++, p += row_bytes) {
        _mm_prefetch((const char *)p + AHEAD * bits / 4, _MM_HINT_T0);
        if (bits == 8) _mm_prefetch((const char *)p + 2 * AHEAD + 64, _MM_HINT_T0);
        if (bits == 4) unpack4(p, a[r], table, half);
        if (bits == 8) unpack8(p, a[r], half);
    }
}

void oc_avx512vbmi_digits_unpack(const struct oc_weight *w, int64_t row, int n, int64_t k0, int kk,
                                 uint8_t (*a)[64]) {
    const size_t row_bytes = oc_weight_row_bytes(w);
    const uint8_t *p = w->w + (size_t)row * row_bytes + (size_t)k0 * w->bits / 8;
    if (w->bits == 4 && kk == 128) unpack(p, row_bytes, n, a, 4, false);
    if (w->bits == 4 && kk == 64) unpack(p, row_bytes, n, a, 4, true);
    if (w->bits == 8 && kk == 128) unpack(p, row_bytes, n, a, 8, false);
    if (w->bits == 8 && kk == 64) unpack(p, row_bytes, n, a, 8, true);
}

/* Columns become rows: v[j] = lane j of each of v[0] .. v[15]. */
static inline __attribute__((always_inline)) void transpose(__m512 v[16]) {
    __m512 t[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 4) {
        __m512 a = _mm512_unpacklo_ps(v[i], v[i + 1]), b = _mm512_unpackhi_ps(v[i], v[i + 1]);
        __m512 c = _mm512_unpacklo_ps(v[i + 2], v[i + 3]), d = _mm512_unpackhi_ps(v[i + 2], v[i + 3]);
        t[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(c)));
        t[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(c)));
        t[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(b), _mm512_castps_pd(d)));
        t[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(b), _mm512_castps_pd(d)));
    }
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
        __m512 a = _mm512_shuffle_f32x4(t[c], t[4 + c], 0x88), b = _mm512_shuffle_f32x4(t[c], t[4 + c], 0xdd);
        __m512 d = _mm512_shuffle_f32x4(t[8 + c], t[12 + c], 0x88),
               e = _mm512_shuffle_f32x4(t[8 + c], t[12 + c], 0xdd);
        v[c] = _mm512_shuffle_f32x4(a, d, 0x88);
        v[8 + c] = _mm512_shuffle_f32x4(a, d, 0xdd);
        v[4 + c] = _mm512_shuffle_f32x4(b, e, 0x88);
        v[12 + c] = _mm512_shuffle_f32x4(b, e, 0xdd);
    }
}

/* 16 rows, of which n are there: scales, and zero biases of weights of which the middle of their range was
 * taken. */
static inline __attribute__((always_inline)) void groups16(const uint8_t *s, const uint8_t *z,
                                                           size_t row_bytes, int n, int count, float middle,
                                                           float *scales, float *zero_biases,
                                                           const enum oc_dtype dtype) {
    __m512 sv[16], zv[16];
    const __mmask16 mask = oc_avx512_mask(count);
#pragma GCC unroll 16
    for (int r = 0; r < 16; r++) {
        __mmask16 there = r < n ? mask : 0;
        sv[r] = oc_avx512_load_float(s, dtype, there);
        zv[r] = _mm512_fmadd_ps(_mm512_set1_ps(middle), sv[r], oc_avx512_load_float(z, dtype, there));
        if (r + 1 < n) s += row_bytes, z += row_bytes;
    }
    transpose(sv);
    for (int g = 0; g < 16; g++) _mm512_store_ps(scales + g * OC_D_NB, sv[g]);
    transpose(zv);
    for (int g = 0; g < 16; g++) _mm512_store_ps(zero_biases + g * OC_D_NB, zv[g]);
}

/* The same of bf16, both in one pass: a scale and a zero bias are the halves of a lane while they are turned.
 */
static inline void groups16_bf16(const uint8_t *s, const uint8_t *z, size_t row_bytes, int n, int count,
                                 float middle, float *scales, float *zero_biases) {
    __m512 both[16];
    const __mmask16 mask = oc_avx512_mask(count);
#pragma GCC unroll 16
    for (int r = 0; r < 16; r++) {
        __mmask16 there = r < n ? mask : 0;
        __m512i sv = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(there, s));
        __m512i zv = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(there, z));
        both[r] = _mm512_castsi512_ps(_mm512_or_si512(_mm512_slli_epi32(zv, 16), sv));
        if (r + 1 < n) s += row_bytes, z += row_bytes;
    }
    transpose(both);
#pragma GCC unroll 16
    for (int g = 0; g < 16; g++) {
        __m512i v = _mm512_castps_si512(both[g]);
        __m512 scale = _mm512_castsi512_ps(_mm512_slli_epi32(v, 16));
        __m512 zero = _mm512_castsi512_ps(_mm512_and_si512(v, _mm512_set1_epi32((int)0xffff0000)));
        _mm512_store_ps(scales + g * OC_D_NB, scale);
        _mm512_store_ps(zero_biases + g * OC_D_NB, _mm512_fmadd_ps(_mm512_set1_ps(middle), scale, zero));
    }
}

void oc_avx512vbmi_digits_groups(const struct oc_weight *w, int64_t row, int n, int64_t g, int count,
                                 oc_digits_groups scales, oc_digits_groups zero_biases) {
    const size_t size = w->dtype == OC_F32 ? 4 : 2, row_bytes = (size_t)(w->k / w->group) * size;
    const size_t at = (size_t)row * row_bytes + (size_t)g * size;
    const float middle = w->bits == 4 ? 8 : 128;
    for (int half = 0; half < n; half += 16) {
        const uint8_t *s = w->scales + at + (size_t)half * row_bytes,
                      *z = w->zero_biases + at + (size_t)half * row_bytes;
        float *so = &scales[0][half], *zo = &zero_biases[0][half];
        if (w->dtype == OC_BF16) groups16_bf16(s, z, row_bytes, n - half, count, middle, so, zo);
        if (w->dtype == OC_F16) groups16(s, z, row_bytes, n - half, count, middle, so, zo, OC_F16);
        if (w->dtype == OC_F32) groups16(s, z, row_bytes, n - half, count, middle, so, zo, OC_F32);
    }
}

/* ---- Products ---------------------------------------------------------------------------------------------
 */

/* The scales of the rows that vector v of a tile holds, each for all columns of its row. */
static inline __attribute__((always_inline)) __m512 spread(const float *scales, int v, const int width) {
    if (width == 4) return _mm512_set1_ps(scales[v]);
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512i row =
        _mm512_add_epi32(_mm512_srli_epi32(lane, width == 2 ? 3 : 2), _mm512_set1_epi32(v * (4 / width)));
    return _mm512_permutexvar_ps(row, _mm512_load_ps(scales));
}

static inline __attribute__((always_inline)) void add(const int32_t *c, const float (*scales)[OC_D_NB],
                                                      float *acc, const int width, const int n_groups) {
#pragma GCC unroll 4
    for (int v = 0; v < 4 * width; v++) {
        __m512 sum = _mm512_load_ps(acc + 16 * v);
#pragma GCC unroll 2
        for (int g = 0; g < n_groups; g++) {
            __m512 product = _mm512_cvtepi32_ps(_mm512_load_si512(c + 256 * g + 16 * v));
            sum = _mm512_fmadd_ps(product, spread(scales[g], v, width), sum);
        }
        _mm512_store_ps(acc + 16 * v, sum);
    }
}

void oc_avx512vbmi_digits_add(const int32_t *c, int n_groups, const float (*scales)[OC_D_NB], float *acc,
                              int width) {
    if (n_groups == 2) {
        if (width == 1) add(c, scales, acc, 1, 2);
        if (width == 2) add(c, scales, acc, 2, 2);
        if (width == 4) add(c, scales, acc, 4, 2);
    } else {
        if (width == 1) add(c, scales, acc, 1, 1);
        if (width == 2) add(c, scales, acc, 2, 1);
        if (width == 4) add(c, scales, acc, 4, 1);
    }
}

void oc_avx512vbmi_digits_zero(oc_digits_groups zero_biases, int count, const float *sums, int64_t lds, int m,
                               float (*z)[OC_D_NB]) {
    for (int i = 0; i < m; i++, sums += lds) {
        __m512 a = _mm512_load_ps(z[i]), b = _mm512_load_ps(z[i] + 16);
        for (int g = 0; g < count; g++) {
            __m512 sum = _mm512_set1_ps(sums[g]);
            a = _mm512_fmadd_ps(_mm512_load_ps(zero_biases[g]), sum, a);
            b = _mm512_fmadd_ps(_mm512_load_ps(zero_biases[g] + 16), sum, b);
        }
        _mm512_store_ps(z[i], a);
        _mm512_store_ps(z[i] + 16, b);
    }
}

/* The four digits of each (row of W, row of x) in four vectors of acc, added from the smallest up: lane 4b +
 * i is quarter b of vector i. */
static inline __m512 add_digits(const float *acc) {
    __m512 v[4];
    for (int i = 0; i < 4; i++) v[i] = _mm512_load_ps(acc + 16 * i);
    __m512 a = _mm512_unpacklo_ps(v[0], v[1]), b = _mm512_unpackhi_ps(v[0], v[1]);
    __m512 c = _mm512_unpacklo_ps(v[2], v[3]), d = _mm512_unpackhi_ps(v[2], v[3]);
    __m512 d0 = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(c)));
    __m512 d1 = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(c)));
    __m512 d2 = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(b), _mm512_castps_pd(d)));
    __m512 d3 = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(b), _mm512_castps_pd(d)));
    const __m512 down = _mm512_set1_ps(0x1p-8f);
    return _mm512_fmadd_ps(_mm512_fmadd_ps(_mm512_fmadd_ps(d0, down, d1), down, d2), down, d3);
}

void oc_avx512vbmi_digits_finish(const float *acc, int width, int n_x, const float *scales, int64_t lds,
                                 const float (*z)[OC_D_NB], float *out, int64_t ldo, int n) {
    _Alignas(64) float sums[64];
    const __m512i row = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const int log2 = width == 4 ? 2 : width - 1; /* of width */
    for (int q = 0; q < width; q++) _mm512_store_ps(sums + 16 * q, add_digits(acc + 64 * q));
    for (int i = 0; i < n_x; i++) {
        /* Row r and column i stand in quarter `part` of vector `at`. */
        __m512i at = _mm512_srli_epi32(row, (unsigned)(2 - log2));
        __m512i part = _mm512_add_epi32(
            _mm512_slli_epi32(_mm512_and_si512(row, _mm512_set1_epi32(4 / width - 1)), (unsigned)log2),
            _mm512_set1_epi32(i));
        __m512i index = _mm512_add_epi32(
            _mm512_slli_epi32(_mm512_srli_epi32(at, 2), 4),
            _mm512_add_epi32(_mm512_slli_epi32(part, 2), _mm512_and_si512(at, _mm512_set1_epi32(3))));
        __m512 v = _mm512_i32gather_ps(index, sums, 4);
        v = _mm512_fmadd_ps(v, _mm512_set1_ps(scales[i * lds]), _mm512_load_ps(z[i]));
        _mm512_mask_storeu_ps(out + i * ldo, oc_avx512_mask(n), v);
    }
}
