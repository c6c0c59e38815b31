/* kernels/x86/avx512.h - the AVX-512 (F, BW, DQ, VL) primitives, and loads and exp that several of them share.
 *
 * Included by x86/avx512_*.c only, which are the files compiled for AVX-512. */
#ifndef OC_KERNELS_X86_AVX512_H
#define OC_KERNELS_X86_AVX512_H

#include <immintrin.h>

#include "kernels/x86/x86.h"

/* Lanes 0 .. n-1, all 16 from n = 16 on. */
static inline __mmask16 oc_avx512_mask(int64_t n) {
    return n >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << n) - 1);
}

/* The lanes of `mask` of 16 elements of F32, F16 or BF16 from any address, as f32; the others are not read and 0. */
static inline __attribute__((always_inline)) __m512 oc_avx512_load_float(const uint8_t *p, enum oc_dtype t,
                                                                         __mmask16 mask) {
    if (t == OC_F32) return _mm512_maskz_loadu_ps(mask, p);
    __m256i half = _mm256_maskz_loadu_epi16(mask, p);
    if (t == OC_F16) return _mm512_cvtph_ps(half);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

/* The sum of the lanes, in an order of our own: that of _mm512_reduce_add_ps is the compiler's. */
static inline float oc_avx512_sum(__m512 v) {
    __m256 h = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

/* The same of four vectors. */
static inline __m128 oc_avx512_sum4(__m512 a, __m512 b, __m512 c, __m512 d) {
    __m512 ab = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
    __m512 cd = _mm512_add_ps(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xee));
    __m512 v = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
    v = _mm512_add_ps(v, _mm512_permute_ps(v, 0x4e));
    v = _mm512_add_ps(v, _mm512_permute_ps(v, 0xb1));
    return _mm512_castps512_ps128(_mm512_permutexvar_ps(_mm512_setr_epi32(0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12), v));
}

/* 16 rows of 16 words become 16 columns. */
static inline void oc_avx512_turn16(__m512i r[16]) {
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

/* exp(x) as oc_avx2_exp has it: within 2 ulp for x in [-87.33, 88.37], 0 below, 2.4e38 above; NaN stays
 * NaN. */
static inline __m512 oc_avx512_exp(__m512 x) {
    const __m512 lowest = _mm512_set1_ps(-87.336540f), highest = _mm512_set1_ps(88.376259f);
    __mmask16 normal = _mm512_cmp_ps_mask(x, lowest, _CMP_NLT_UQ); /* true for NaN */
    x = _mm512_min_ps(highest, x); /* in this order a NaN passes */
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), _MM_FROUND_TO_NEAREST_INT);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.62e4p-1f), x); /* ln2 in two parts, as in oc_avx2_exp */
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.7f7d1cp-20f), r);
    __m512 p = _mm512_set1_ps(1.0f / 5040);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 720));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 120));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 24));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 6));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return _mm512_maskz_scalef_ps(normal, p, n);
}

#endif
