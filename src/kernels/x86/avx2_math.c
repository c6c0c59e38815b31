/* Activations and the softmax's rows. */
#include <math.h>

#include "kernels/x86/avx2.h"

/* x / (1 + exp(-u)) */
static inline __m256 gate(__m256 x, __m256 u) {
    const __m256 one = _mm256_set1_ps(1.0f);
    __m256 e = oc_avx2_exp(_mm256_xor_ps(u, _mm256_set1_ps(-0.0f)));
    return _mm256_div_ps(x, _mm256_add_ps(one, e));
}

/* x Phi(x) = max(x, 0) - |x|/2 erfc(|x|/sqrt 2). erfc(a) = exp(-a^2) f(a), and f is a polynomial in t = 1/(1 + 0.45 a):
 * fitted by least squares on the relative error, which is below 2e-8 for a < 9.4 (where the exponential ends). */
static inline __m256 gelu(__m256 x) {
    const __m256 half = _mm256_set1_ps(0.5f), one = _mm256_set1_ps(1.0f);
    __m256 size = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
    __m256 t = _mm256_div_ps(one, _mm256_fmadd_ps(size, _mm256_set1_ps(0.318198052f), one)); /* 0.45 / sqrt 2 */
    __m256 p = _mm256_set1_ps(-0x1.51a4a2p-5f);
    p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(0x1.10b5ap-2f));
    p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(-0x1.4ddcbap-1f));
    p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(0x1.5db1bap-1f));
    p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(-0x1.2cd41cp-2f));
    p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(0x1.597672p-2f));
    p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(0x1.7dc528p-3f));
    p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(0x1.0af498p-2f));
    p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(0x1.0354cap-2f));
    p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(0x1.aa2d8ap-16f));
    __m256 square = _mm256_mul_ps(x, x);
    __m256 lost = _mm256_fmsub_ps(x, x, square); /* what rounding took from the square matters to exp */
    __m256 e = oc_avx2_exp(_mm256_mul_ps(square, _mm256_set1_ps(-0.5f)));
    e = _mm256_fnmadd_ps(_mm256_mul_ps(half, lost), e, e);
    return _mm256_fnmadd_ps(_mm256_mul_ps(half, size), _mm256_mul_ps(e, p), _mm256_max_ps(x, _mm256_setzero_ps()));
}

static inline __attribute__((always_inline)) __m256 act8(const enum oc_act act, __m256 x) {
    if (act == OC_ACT_SILU) return gate(x, x);
    if (act == OC_ACT_GELU) return gelu(x);
    if (act == OC_ACT_QUICK_GELU) return gate(x, _mm256_mul_ps(x, _mm256_set1_ps(1.702f)));
    __m256 cube = _mm256_mul_ps(_mm256_mul_ps(x, x), x);
    __m256 u = _mm256_fmadd_ps(cube, _mm256_set1_ps(0.044715f), x); /* tanh form: u = 2 sqrt(2/pi) (x + c x^3) */
    return gate(x, _mm256_mul_ps(u, _mm256_set1_ps(1.5957691216f)));
}

static inline __attribute__((always_inline)) void each8(const enum oc_act act, float *v, int64_t n) {
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(v + i, act8(act, _mm256_loadu_ps(v + i)));
    if (i < n) {
        __m256i mask = oc_avx2_mask((int)(n - i));
        _mm256_maskstore_ps(v + i, mask, act8(act, _mm256_maskload_ps(v + i, mask)));
    }
}

void oc_avx2_act_row(enum oc_act act, float *v, int64_t n) {
    switch (act) {
    case OC_ACT_NONE:
        break;
    case OC_ACT_SILU:
        each8(OC_ACT_SILU, v, n);
        break;
    case OC_ACT_GELU:
        each8(OC_ACT_GELU, v, n);
        break;
    case OC_ACT_GELU_TANH:
        each8(OC_ACT_GELU_TANH, v, n);
        break;
    case OC_ACT_QUICK_GELU:
        each8(OC_ACT_QUICK_GELU, v, n);
        break;
    }
}

float oc_avx2_max_row(const float *v, int64_t n) {
    __m256 most = _mm256_set1_ps(-INFINITY);
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) most = _mm256_max_ps(most, _mm256_loadu_ps(v + i));
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(most), _mm256_extractf128_ps(most, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    float max = fmaxf(_mm_cvtss_f32(m), _mm_cvtss_f32(_mm_movehdup_ps(m)));
    for (; i < n; i++) max = fmaxf(max, v[i]);
    return max;
}

float oc_avx2_exp_row(float *v, int64_t n, float scale, float max) {
    const __m256 s = _mm256_set1_ps(scale), shift = _mm256_set1_ps(max);
    __m256 sum = _mm256_setzero_ps();
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 e = oc_avx2_exp(_mm256_fmsub_ps(_mm256_loadu_ps(v + i), s, shift));
        _mm256_storeu_ps(v + i, e);
        sum = _mm256_add_ps(sum, e);
    }
    if (i < n) {
        __m256i mask = oc_avx2_mask((int)(n - i));
        __m256 e = oc_avx2_exp(_mm256_fmsub_ps(_mm256_maskload_ps(v + i, mask), s, shift));
        e = _mm256_and_ps(e, _mm256_castsi256_ps(mask));
        _mm256_maskstore_ps(v + i, mask, e);
        sum = _mm256_add_ps(sum, e);
    }
    __m128 t = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps(sum, 1));
    t = _mm_add_ps(t, _mm_movehl_ps(t, t));
    return _mm_cvtss_f32(_mm_add_ss(t, _mm_movehdup_ps(t)));
}
