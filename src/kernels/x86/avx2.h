/* kernels/x86/avx2.h - the AVX2 + FMA + F16C primitives, and loads and exp that several of them share.
 *
 * Included by x86/avx2_*.c and x86/avxvnni_*.c only, which are the files compiled for AVX2. */
#ifndef OC_KERNELS_X86_AVX2_H
#define OC_KERNELS_X86_AVX2_H

#include <immintrin.h>

#include "kernels/x86/x86.h"

void oc_avx2_rmsnorm(const struct oc_kctx *ctx, const struct oc_rmsnorm *a);
void oc_avx2_tile(const struct oc_tile *t);
void oc_avx2_panel(const struct oc_weight *w, int64_t n0, int n, int64_t k0, int kk, float *out, float *tmp);
void oc_avx2_transpose(const float *in, int64_t ld, int n, int kk, float *out);
void oc_avx2_dot_prepare(const struct oc_weight *w, const float *x, float *xp, int64_t ldx, float *sums, int64_t lds);
void oc_avx2_dot(const struct oc_weight *w, int64_t n0, int n, const struct oc_dot_x *x, int m, float *out,
                 int64_t ldo);
void oc_avx2_dot8(const struct oc_weight *w, int64_t n0, int n, const struct oc_dot_x8 *x, int m, float *out, int64_t ldo);
void oc_avx2_act_row(enum oc_act act, float *v, int64_t n);
float oc_avx2_max_row(const float *v, int64_t n);
float oc_avx2_exp_row(float *v, int64_t n, float scale, float max);

static inline __m256i oc_avx2_load(const uint8_t *p) {
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

/* 8 elements of F32, F16 or BF16 from any address, as f32. */
static inline __attribute__((always_inline)) __m256 oc_avx2_load_float(const uint8_t *p, enum oc_dtype t) {
    if (t == OC_F32) return _mm256_castsi256_ps(oc_avx2_load(p));
    __m128i half = _mm_loadu_si128((const __m128i *)(const void *)p);
    if (t == OC_F16) return _mm256_cvtph_ps(half);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

/* The same where only n < 8 elements may be read; the rest is 0. */
static inline __m256 oc_avx2_load_float_tail(const uint8_t *p, enum oc_dtype t, int n) {
    uint8_t buf[32] = {0};
    memcpy(buf, p, (size_t)n * (t == OC_F32 ? 4 : 2));
    return oc_avx2_load_float(buf, t);
}

/* exp(x) within 2 ulp for x in [-87.33, 88.37], 0 below, 2.4e38 above; NaN stays NaN.
 * x = n ln2 + r, |r| <= ln2/2; exp(r) by its Taylor terms to r^7 (next term 5e-9 of the result). */
static inline __m256 oc_avx2_exp(__m256 x) {
    const __m256 lowest = _mm256_set1_ps(-87.336540f), highest = _mm256_set1_ps(88.376259f);
    __m256 underflow = _mm256_cmp_ps(x, lowest, _CMP_LT_OQ);
    x = _mm256_min_ps(highest, _mm256_max_ps(lowest, x)); /* in this order a NaN passes */
    __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)),
                               _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0x1.62e4p-1f), x); /* ln2 in two parts: n times the first is exact */
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0x1.7f7d1cp-20f), r);
    __m256 p = _mm256_set1_ps(1.0f / 5040);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 720));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 120));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 24));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 6));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.5f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    __m256i bits = _mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23));
    return _mm256_andnot_ps(underflow, _mm256_castsi256_ps(bits));
}

/* Lanes 0 .. n-1 set, for masked loads and stores. */
static inline __m256i oc_avx2_mask(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

#endif
