/* Paged attention, role D. Keys and values are widened 16 at a time. Scores: the heads that share a KV head
 * are half as many as lanes, so a key comes two columns at a time, by one broadcast of 64 bits, and every
 * lane is at work. */
#include "kernels/x86/avx512.h"

#define KEYS 16

/* Sums of keys i .. i+3: r[0] has, in quarter L, the four scores of head 2L; r[1] those of head 2L+1. */
static inline __attribute__((always_inline)) void add_pairs(const __m512 *acc, __m512 r[2]) {
    __m512 a =
        _mm512_add_ps(_mm512_shuffle_ps(acc[0], acc[1], 0x88), _mm512_shuffle_ps(acc[0], acc[1], 0xdd));
    __m512 b =
        _mm512_add_ps(_mm512_shuffle_ps(acc[2], acc[3], 0x88), _mm512_shuffle_ps(acc[2], acc[3], 0xdd));
    r[0] = _mm512_shuffle_ps(a, b, 0x88);
    r[1] = _mm512_shuffle_ps(a, b, 0xdd);
}

/* p[2*ldp*L] = quarters L of the four vectors: a 4 x 4 transposition of quarters. */
static inline __attribute__((always_inline)) void store_heads(__m512 v0, __m512 v1, __m512 v2, __m512 v3,
                                                              float *p, int64_t ldp) {
    __m512 a = _mm512_shuffle_f32x4(v0, v1, 0x44), b = _mm512_shuffle_f32x4(v2, v3, 0x44);
    __m512 c = _mm512_shuffle_f32x4(v0, v1, 0xee), d = _mm512_shuffle_f32x4(v2, v3, 0xee);
    _mm512_storeu_ps(p, _mm512_shuffle_f32x4(a, b, 0x88));
    _mm512_storeu_ps(p + 2 * ldp, _mm512_shuffle_f32x4(a, b, 0xdd));
    _mm512_storeu_ps(p + 4 * ldp, _mm512_shuffle_f32x4(c, d, 0x88));
    _mm512_storeu_ps(p + 6 * ldp, _mm512_shuffle_f32x4(c, d, 0xdd));
}

static inline __m512 load_pair(const float *k) {
    double pair;
    memcpy(&pair, k, sizeof pair);
    return _mm512_castpd_ps(_mm512_set1_pd(pair));
}

void oc_avx512_pair_scores(const float *k, int64_t ldk, int n_keys, const float *q, int n_pairs, float *p,
                           int64_t ldp) {
    for (int j = 0; j < n_keys; j += KEYS, k += KEYS * ldk) {
        __m512 acc[KEYS], r[4][2];
#pragma GCC unroll 16
        for (int i = 0; i < KEYS; i++) acc[i] = _mm512_setzero_ps();
        for (int d = 0; d < n_pairs; d++) {
            __m512 qv = _mm512_loadu_ps(q + 16 * d);
#pragma GCC unroll 16
            for (int i = 0; i < KEYS; i++)
                acc[i] = _mm512_fmadd_ps(load_pair(k + i * ldk + 2 * d), qv, acc[i]);
        }
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) add_pairs(acc + 4 * i, r[i]);
        store_heads(r[0][0], r[1][0], r[2][0], r[3][0], p + j, ldp);
        store_heads(r[0][1], r[1][1], r[2][1], r[3][1], p + j + ldp, ldp);
    }
}

void oc_avx512_widen(const uint8_t *in, enum oc_dtype t, int64_t n, float *out) {
    if (t == OC_F32) {
        memcpy(out, in, (size_t)n * sizeof(float));
        return;
    }
    int64_t i = 0;
    for (; i + 16 <= n && t == OC_BF16; i += 16)
        _mm512_storeu_ps(out + i, oc_avx512_load_float(in + 2 * i, OC_BF16, 0xffff));
    for (; i < n; i += 16) {
        __mmask16 there = oc_avx512_mask(n - i);
        _mm512_mask_storeu_ps(out + i, there, oc_avx512_load_float(in + 2 * i, t, there));
    }
}
