/* Role D with x rounded to 8 bits, without VNNI: the way of avx512vnni_dot.c in vectors of 8 lanes.
 *
 * VPMADDUBSW adds two products in 16 bits and saturates: it sees nibbles only (8-bit weights become two), of
 * which eight steps stay under 2^15 (8 * 2 * 15 * 127), and then the pairs are added in 32 bits. */
#include "kernels/x86/avx2.h"

#define R 2
#define MAX_M 2
#define SPAN OC_INT8_SPAN
#define MAX_VECTORS 128 /* of nibbles, of a span of groups of 128 8-bit weights */
#define AHEAD 8192      /* of the prefetch, as in avx2_dot.c */

/* Two rows at work. */
struct block {
    __m256i w[2][R][MAX_VECTORS / 2]; /* a span, turned: lanes 0 to 7 and 8 to 15 */
    __m256 scales[2][R], zero_biases[2][R];
    __m256 acc[2][R][OC_D_SLICE];
    uint8_t pad[SPAN * 128],
        pad_groups[SPAN * 4]; /* what a row's last groups are copied to when they fill no span */
};

/* t[i] = words 4*quad .. 4*quad+3 of groups 4i+2h and 4i+2h+1. */
static inline void load_quads(const uint8_t *p, int n_words, int quad, int h, __m256i t[4]) {
    for (int i = 0; i < 4; i++) {
        const uint8_t *at = p + (size_t)(4 * n_words * (4 * i + 2 * h) + 16 * quad);
        __m128i low = _mm_loadu_si128((const __m128i *)(const void *)at);
        __m128i high = _mm_loadu_si128((const __m128i *)(const void *)(at + 4 * n_words));
        t[i] = _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
    }
}

/* Half h of the span at p as nibbles in the order of struct oc_dot_x8. */
static void turn(const uint8_t *p, int n_words, int h, __m256i *out) {
    const __m256i low = _mm256_set1_epi8(15);
    for (int quad = 0; quad < n_words / 4; quad++) {
        __m256i t[4];
        load_quads(p, n_words, quad, h, t);
        __m256i a = _mm256_unpacklo_epi32(t[0], t[1]), b = _mm256_unpackhi_epi32(t[0], t[1]);
        __m256i c = _mm256_unpacklo_epi32(t[2], t[3]), d = _mm256_unpackhi_epi32(t[2], t[3]);
        __m256i u[4] = {_mm256_unpacklo_epi64(a, c), _mm256_unpackhi_epi64(a, c), _mm256_unpacklo_epi64(b, d),
                        _mm256_unpackhi_epi64(b, d)};
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            *out++ = _mm256_and_si256(u[i], low);
            *out++ = _mm256_and_si256(_mm256_srli_epi16(u[i], 4), low);
        }
    }
}

/* Scales or zero biases of n groups from `at` on, in the order of lanes; 0 beyond. */
static void load_groups(struct block *b, const uint8_t *p, enum oc_dtype dtype, int64_t at, int n,
                        __m256 *low, __m256 *high) {
    const size_t size = dtype == OC_F32 ? 4 : 2;
    p += (size_t)at * size;
    if (n < SPAN) {
        memset(b->pad_groups, 0, sizeof b->pad_groups);
        p = memcpy(b->pad_groups, p, (size_t)n * size);
    }
    __m256 g0 = oc_avx2_load_float(p, dtype), g8 = oc_avx2_load_float(p + 8 * size, dtype);
    __m128 t0 = _mm256_castps256_ps128(g0), t1 = _mm256_extractf128_ps(g0, 1);
    __m128 t2 = _mm256_castps256_ps128(g8), t3 = _mm256_extractf128_ps(g8, 1);
    _MM_TRANSPOSE4_PS(t0, t1, t2, t3);
    *low = _mm256_insertf128_ps(_mm256_castps128_ps256(t0), t1, 1);
    *high = _mm256_insertf128_ps(_mm256_castps128_ps256(t2), t3, 1);
}

/* sum[r][m] += four words of each group: 8 vectors of nibbles with as many of x; or, of 8-bit weights, two
 * nibbles with each of four. */
static inline __attribute__((always_inline)) void add_quad(const __m256i *const w[R], const int8_t *q,
                                                           int64_t ldq, __m256i sum[R][MAX_M], const int M,
                                                           const int bits) {
    const __m256i ones = _mm256_set1_epi16(1), sixteens = _mm256_set1_epi16(16);
    __m256i low[R][MAX_M], high[R][MAX_M];
#pragma GCC unroll 8
    for (int s = 0; s < 8; s++) {
        __m256i xv[MAX_M];
#pragma GCC unroll 2
        for (int m = 0; m < M; m++) {
            xv[m] = _mm256_loadu_si256(
                (const __m256i *)(const void *)(q + m * ldq + 64 * (bits == 8 ? s / 2 : s)));
        }
#pragma GCC unroll 2
        for (int r = 0; r < R; r++) {
#pragma GCC unroll 2
            for (int m = 0; m < M; m++) {
                __m256i product = _mm256_maddubs_epi16(w[r][s], xv[m]);
                if (bits == 8 && s % 2) {
                    high[r][m] = s == 1 ? product : _mm256_add_epi16(high[r][m], product);
                } else {
                    low[r][m] = s == 0 ? product : _mm256_add_epi16(low[r][m], product);
                }
            }
        }
    }
#pragma GCC unroll 2
    for (int r = 0; r < R; r++) {
#pragma GCC unroll 2
        for (int m = 0; m < M; m++) {
            sum[r][m] = _mm256_add_epi32(sum[r][m], _mm256_madd_epi16(low[r][m], ones));
            if (bits == 8) sum[r][m] = _mm256_add_epi32(sum[r][m], _mm256_madd_epi16(high[r][m], sixteens));
        }
    }
}

/* acc of rows i .. i+M-1 of x grows by half h of the span in b, whose first group is g. */
static inline __attribute__((always_inline)) void multiply(struct block *b, const struct oc_dot_x8 *x,
                                                           int64_t g, int group, int h, int i, const int M,
                                                           const int bits) {
    const int8_t *q = x->q + i * x->ldq + g * group + 32 * h;
    const int n_quads = group * bits / 128;
    const __m256i *w[R] = {b->w[h][0], b->w[h][1]};
    __m256i sum[R][MAX_M];
    for (int r = 0; r < R; r++) {
        for (int m = 0; m < M; m++) sum[r][m] = _mm256_setzero_si256();
    }
    for (int quad = 0; quad < n_quads; quad++) {
        add_quad(w, q, x->ldq, sum, M, bits);
        w[0] += 8, w[1] += 8;
        q += bits == 8 ? 4 * 64 : 8 * 64;
    }
    for (int m = 0; m < M; m++) {
        __m256 scale = _mm256_loadu_ps(x->scales + (i + m) * x->lds + g + 8 * h);
        __m256 total = _mm256_loadu_ps(x->sums + (i + m) * x->lds + g + 8 * h);
        for (int r = 0; r < R; r++) {
            __m256 v = _mm256_mul_ps(_mm256_cvtepi32_ps(sum[r][m]), scale);
            v = _mm256_fmadd_ps(b->scales[h][r], v, b->acc[h][r][i + m]);
            b->acc[h][r][i + m] = _mm256_fmadd_ps(b->zero_biases[h][r], total, v);
        }
    }
}

static void multiply_all(struct block *b, const struct oc_weight *w, const struct oc_dot_x8 *x, int64_t g,
                         int m) {
    for (int h = 0; h < 2; h++) {
        int i = 0;
        for (; i + 2 <= m && w->bits == 4; i += 2) multiply(b, x, g, w->group, h, i, 2, 4);
        for (; i + 2 <= m; i += 2) multiply(b, x, g, w->group, h, i, 2, 8);
        if (i < m && w->bits == 4) multiply(b, x, g, w->group, h, i, 1, 4);
        if (i < m && w->bits == 8) multiply(b, x, g, w->group, h, i, 1, 8);
    }
}

/* n <= 16 groups from g on of the n_rows rows from `row` on; a row that is not there repeats the last. */
static void load_span(struct block *b, const struct oc_weight *w, int64_t row, int n_rows, int64_t g, int n,
                      const uint8_t **ahead) {
    const int64_t n_groups = w->k / w->group;
    const int n_words = w->group * w->bits / 32;
    const size_t bytes = (size_t)(n * n_words * 4);
    for (int r = 0; r < R; r++) {
        int64_t at = row + (r < n_rows ? r : n_rows - 1);
        const uint8_t *p = w->w + (size_t)at * oc_weight_row_bytes(w) + (size_t)(g * n_words * 4);
        for (size_t i = 0; i < bytes; i += 64) _mm_prefetch((const char *)*ahead + i, _MM_HINT_T0);
        *ahead += bytes;
        if (n < SPAN) {
            memset(b->pad, 0, sizeof b->pad);
            p = memcpy(b->pad, p, bytes);
        }
        turn(p, n_words, 0, b->w[0][r]);
        turn(p, n_words, 1, b->w[1][r]);
        load_groups(b, w->scales, w->dtype, at * n_groups + g, n, &b->scales[0][r], &b->scales[1][r]);
        load_groups(b, w->zero_biases, w->dtype, at * n_groups + g, n, &b->zero_biases[0][r],
                    &b->zero_biases[1][r]);
    }
}

/* The lanes of both halves in the order of groups, added in halves. */
static float sum_lanes(__m256 low, __m256 high) {
    float lanes[SPAN], v[SPAN];
    _mm256_storeu_ps(lanes, low);
    _mm256_storeu_ps(lanes + 8, high);
    for (int g = 0; g < SPAN; g++) v[g] = lanes[oc_int8_lane(g)];
    for (int half = SPAN / 2; half > 0; half /= 2) {
        for (int i = 0; i < half; i++) v[i] += v[i + half];
    }
    return v[0];
}

static void rows(struct block *b, const struct oc_weight *w, int64_t row, int n_rows,
                 const struct oc_dot_x8 *x, int m, float *out, int64_t ldo) {
    const int64_t n_groups = w->k / w->group;
    const uint8_t *ahead = w->w + (size_t)(row + R) * oc_weight_row_bytes(w) + AHEAD;
    for (int i = 0; i < 2 * R; i++) {
        for (int j = 0; j < m; j++) b->acc[i / R][i % R][j] = _mm256_setzero_ps();
    }
    for (int64_t g = 0; g < n_groups; g += SPAN) {
        load_span(b, w, row, n_rows, g, n_groups - g < SPAN ? (int)(n_groups - g) : SPAN, &ahead);
        multiply_all(b, w, x, g, m);
    }
    for (int r = 0; r < n_rows; r++) {
        for (int i = 0; i < m; i++) out[i * ldo + r] = sum_lanes(b->acc[0][r][i], b->acc[1][r][i]);
    }
}

void oc_avx2_dot8(const struct oc_weight *w, int64_t n0, int n, const struct oc_dot_x8 *x, int m, float *out,
                  int64_t ldo) {
    struct block b;
    OC_ASSERT(m <= OC_D_SLICE && w->group <= 128);
    for (int r = 0; r < n; r += R) rows(&b, w, n0 + r, n - r < R ? n - r : R, x, m, out + r, ldo);
}
