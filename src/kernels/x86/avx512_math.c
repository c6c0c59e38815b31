/* Activations and the softmax's rows. */
#include <math.h>

#include "kernels/x86/avx512.h"

/* x / (1 + exp(-u)) */
static inline __m512 gate(__m512 x, __m512 u) {
    __m512 e = oc_avx512_exp(_mm512_xor_ps(u, _mm512_set1_ps(-0.0f)));
    return _mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1.0f), e));
}

/* x Phi(x) = max(x, 0) - |x|/2 erfc(|x|/sqrt 2). erfc(a) = exp(-a^2) f(a), and f is a polynomial in t = 1/(1 + 0.45 a):
 * fitted by least squares on the relative error, which is below 2e-8 for a < 9.4 (where the exponential ends). */
static inline __m512 gelu(__m512 x) {
    const __m512 half = _mm512_set1_ps(0.5f), one = _mm512_set1_ps(1.0f);
    __m512 size = _mm512_abs_ps(x);
    __m512 t = _mm512_div_ps(one, _mm512_fmadd_ps(size, _mm512_set1_ps(0.318198052f), one)); /* 0.45 / sqrt 2 */
    __m512 p = _mm512_set1_ps(-0x1.51a4a2p-5f);
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(0x1.10b5ap-2f));
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(-0x1.4ddcbap-1f));
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(0x1.5db1bap-1f));
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(-0x1.2cd41cp-2f));
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(0x1.597672p-2f));
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(0x1.7dc528p-3f));
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(0x1.0af498p-2f));
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(0x1.0354cap-2f));
    p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(0x1.aa2d8ap-16f));
    __m512 square = _mm512_mul_ps(x, x);
    __m512 lost = _mm512_fmsub_ps(x, x, square); /* what rounding took from the square matters to exp */
    __m512 e = oc_avx512_exp(_mm512_mul_ps(square, _mm512_set1_ps(-0.5f)));
    e = _mm512_fnmadd_ps(_mm512_mul_ps(half, lost), e, e);
    return _mm512_fnmadd_ps(_mm512_mul_ps(half, size), _mm512_mul_ps(e, p), _mm512_max_ps(x, _mm512_setzero_ps()));
}

static inline __attribute__((always_inline)) __m512 act16(const enum oc_act act, __m512 x) {
    if (act == OC_ACT_SILU) return gate(x, x);
    if (act == OC_ACT_GELU) return gelu(x);
    if (act == OC_ACT_QUICK_GELU) return gate(x, _mm512_mul_ps(x, _mm512_set1_ps(1.702f)));
    __m512 cube = _mm512_mul_ps(_mm512_mul_ps(x, x), x);
    __m512 u = _mm512_fmadd_ps(cube, _mm512_set1_ps(0.044715f), x); /* tanh form: u = 2 sqrt(2/pi) (x + c x^3) */
    return gate(x, _mm512_mul_ps(u, _mm512_set1_ps(1.5957691216f)));
}

static inline __attribute__((always_inline)) void each16(const enum oc_act act, float *v, int64_t n) {
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 mask = oc_avx512_mask(n - i);
        _mm512_mask_storeu_ps(v + i, mask, act16(act, _mm512_maskz_loadu_ps(mask, v + i)));
    }
}

void oc_avx512_act_row(enum oc_act act, float *v, int64_t n) {
    switch (act) {
    case OC_ACT_NONE:
        break;
    case OC_ACT_SILU:
        each16(OC_ACT_SILU, v, n);
        break;
    case OC_ACT_GELU:
        each16(OC_ACT_GELU, v, n);
        break;
    case OC_ACT_GELU_TANH:
        each16(OC_ACT_GELU_TANH, v, n);
        break;
    case OC_ACT_QUICK_GELU:
        each16(OC_ACT_QUICK_GELU, v, n);
        break;
    }
}

/* 16 columns of one row: `at` is where they stand in c, `col` in y. */
static inline __attribute__((always_inline)) void finish16(const struct oc_tiles_end *e, const enum oc_act act, int at, int col) {
    const __mmask16 mask = oc_avx512_mask(e->cols - col);
    float *y = e->y + e->row * e->ldy + col;
    __m512 v = _mm512_load_ps(e->c + at);
    if (e->bias) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, e->bias + col));
    if (act != OC_ACT_NONE) v = act16(act, v);
    if (e->up) {
        __m512 up = _mm512_load_ps(e->up + at);
        if (e->up_bias) up = _mm512_add_ps(up, _mm512_maskz_loadu_ps(mask, e->up_bias + col));
        v = _mm512_mul_ps(v, up);
    }
    if (e->add) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(mask, y));
    _mm512_mask_storeu_ps(y, mask, v);
}

enum { FINISH_AHEAD = 4 * OC_TILES_N }; /* columns of y that are prefetched: they come from L3 or memory */

static inline __attribute__((always_inline)) void finish_some(struct oc_tiles_end *e, int n, const enum oc_act act) {
    for (; n > 0 && e->row < e->rows; n--) {
        int col = e->panel * OC_TILES_N;
        int at = e->panel * OC_TILES_N * OC_TILES_N + e->row / 16 * 512 + e->row % 16 * 16; /* tiles: two above, two below */
        const float *y = e->y + e->row * e->ldy + col;
        if (col + FINISH_AHEAD + 16 < e->cols) {
            __builtin_prefetch(y + FINISH_AHEAD, 1);
            __builtin_prefetch(y + FINISH_AHEAD + 16, 1);
        }
        finish16(e, act, at, col);
        if (e->cols - col > 16) finish16(e, act, at + 256, col + 16);
        if (++e->panel < e->n_panels) continue;
        e->panel = 0;
        e->row++;
    }
}

void oc_avx512_finish(struct oc_tiles_end *e, int n) {
    switch (e->act) {
    case OC_ACT_NONE:
        finish_some(e, n, OC_ACT_NONE);
        break;
    case OC_ACT_SILU:
        finish_some(e, n, OC_ACT_SILU);
        break;
    case OC_ACT_GELU:
        finish_some(e, n, OC_ACT_GELU);
        break;
    case OC_ACT_GELU_TANH:
        finish_some(e, n, OC_ACT_GELU_TANH);
        break;
    case OC_ACT_QUICK_GELU:
        finish_some(e, n, OC_ACT_QUICK_GELU);
        break;
    }
}

float oc_avx512_max_row(const float *v, int64_t n) {
    const __m512 least = _mm512_set1_ps(-INFINITY);
    __m512 most = least;
    for (int64_t i = 0; i < n; i += 16) {
        most = _mm512_max_ps(most, _mm512_mask_loadu_ps(least, oc_avx512_mask(n - i), v + i));
    }
    __m256 h = _mm256_max_ps(_mm512_castps512_ps256(most), _mm512_extractf32x8_ps(most, 1));
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return fmaxf(_mm_cvtss_f32(m), _mm_cvtss_f32(_mm_movehdup_ps(m)));
}

float oc_avx512_exp_row(float *v, int64_t n, float scale, float max) {
    const __m512 s = _mm512_set1_ps(scale), shift = _mm512_set1_ps(max);
    __m512 sum = _mm512_setzero_ps();
    for (int64_t i = 0; i < n; i += 16) {
        __mmask16 mask = oc_avx512_mask(n - i);
        __m512 e = oc_avx512_exp(_mm512_fmsub_ps(_mm512_maskz_loadu_ps(mask, v + i), s, shift));
        _mm512_mask_storeu_ps(v + i, mask, e);
        sum = _mm512_mask_add_ps(sum, mask, sum, e);
    }
    return oc_avx512_sum(sum);
}
