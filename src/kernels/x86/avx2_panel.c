/* Widening, dequantising and turning blocks of W for the register tile. */
#include "kernels/x86/avx2.h"

void oc_avx2_widen(const uint8_t *in, enum oc_dtype t, int64_t n, float *out) {
    size_t bytes = t == OC_F32 ? 4 : 2;
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(out + i, oc_avx2_load_float(in + bytes * (size_t)i, t));
    for (; i < n; i++) out[i] = oc_load_float(in, t, i);
}

/* 8 weights of 4 bits, in order. */
static inline __m256 nibbles(const uint8_t *p) {
    const __m256i shifts = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
    __m256i v = _mm256_srlv_epi32(_mm256_set1_epi32((int)oc_load_u32(p)), shifts);
    return _mm256_cvtepi32_ps(_mm256_and_si256(v, _mm256_set1_epi32(15)));
}

static inline __m256 bytes8(const uint8_t *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p)));
}

/* out[kk] = row `row` of w from k0 on; when quantised k0 and kk are multiples of the group. */
static void row_part(const struct oc_weight *w, int64_t row, int64_t k0, int64_t kk, float *out) {
    const uint8_t *in = w->w + (size_t)row * oc_weight_row_bytes(w);
    if (w->bits == 0) {
        oc_avx2_widen(in + (size_t)k0 * oc_dtype_bytes(w->dtype), w->dtype, kk, out);
        return;
    }
    int64_t at = row * (w->k / w->group) + k0 / w->group;
    in += (size_t)k0 * w->bits / 8;
    for (int64_t g = 0; g < kk; g += w->group, at++) {
        __m256 s = _mm256_set1_ps(oc_load_float(w->scales, w->dtype, at));
        __m256 b = _mm256_set1_ps(oc_load_float(w->zero_biases, w->dtype, at));
        for (int64_t i = g; i < g + w->group; i += 8) {
            __m256 q = w->bits == 4 ? nibbles(in + i / 2) : bytes8(in + i);
            _mm256_storeu_ps(out + i, _mm256_fmadd_ps(s, q, b));
        }
    }
}

/* out[k * nr + r] = in[r][k] for an 8 x 8 block. */
static inline void transpose8(const __m256 in[8], float *out, int nr) {
    __m256 a[8], b[8];
    for (int i = 0; i < 8; i += 2) {
        a[i] = _mm256_unpacklo_ps(in[i], in[i + 1]);
        a[i + 1] = _mm256_unpackhi_ps(in[i], in[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        b[i] = _mm256_shuffle_ps(a[i], a[i + 2], 0x44);
        b[i + 1] = _mm256_shuffle_ps(a[i], a[i + 2], 0xee);
        b[i + 2] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0x44);
        b[i + 3] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0xee);
    }
    for (int i = 0; i < 4; i++) {
        _mm256_storeu_ps(out + nr * i, _mm256_permute2f128_ps(b[i], b[i + 4], 0x20));
        _mm256_storeu_ps(out + nr * (i + 4), _mm256_permute2f128_ps(b[i], b[i + 4], 0x31));
    }
}

void oc_avx2_transpose_to(const float *in, int64_t ld, int n, int kk, float *out, int nr) {
    int k = 0;
    for (; k + 8 <= kk; k += 8) {
        for (int first = 0; first < nr; first += 8) {
            __m256 rows[8];
            for (int r = 0; r < 8; r++) {
                rows[r] = first + r < n ? _mm256_loadu_ps(in + (first + r) * ld + k) : _mm256_setzero_ps();
            }
            transpose8(rows, out + k * nr + first, nr);
        }
    }
    for (; k < kk; k++) {
        for (int r = 0; r < nr; r++) out[k * nr + r] = r < n ? in[r * ld + k] : 0.0f;
    }
}

void oc_avx2_panel_to(const struct oc_weight *w, int64_t n0, int n, int64_t k0, int kk, float *out, float *tmp,
                      int nr) {
    for (int r = 0; r < n; r++) row_part(w, n0 + r, k0, kk, tmp + (int64_t)r * kk);
    oc_avx2_transpose_to(tmp, kk, n, kk, out, nr);
}

void oc_avx2_transpose(const float *in, int64_t ld, int n, int kk, float *out) {
    oc_avx2_transpose_to(in, ld, n, kk, out, 16);
}

void oc_avx2_panel(const struct oc_weight *w, int64_t n0, int n, int64_t k0, int kk, float *out, float *tmp) {
    oc_avx2_panel_to(w, n0, n, k0, kk, out, tmp, 16);
}
