/* Role D with x rounded to 8 bits: weights as unsigned bytes by VPDPBUSD, exact in 32 bits within a group.
 *
 * Sixteen groups of four rows are turned once, so that each lane holds words of one group: a group's whole sum then grows
 * in its lane, and the conversion, both scales and the zero bias come once for 16 groups. All rows of x pass over what was
 * turned, four at a time; their sums between spans stay in memory. */
#include "kernels/x86/avx512.h"

#define R 4
#define MAX_M 4
#define SPAN OC_INT8_SPAN
#define MAX_STEPS 32 /* vectors of bytes of a span of groups of 128 */
/* Bytes by which the prefetch runs ahead, as in avx512_dot.c. */
#define AHEAD 8192
#define AHEAD_SCALES 1024

/* Four rows at work. */
struct block {
    __m512i w[R][MAX_STEPS]; /* a span, turned */
    __m512 scales[R], zero_biases[R];
    __m512 acc[R][OC_D_SLICE];
    uint8_t pad[SPAN * 128]; /* the words of a row's last groups, when these fill no span */
};

/* Pieces of 16 bytes at p, p + stride, ... */
static inline __attribute__((always_inline)) __m512i four_pieces(const uint8_t *p, size_t stride) {
    __m512i v = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(const void *)p));
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(const void *)(p + stride)), 1);
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(const void *)(p + 2 * stride)), 2);
    return _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(const void *)(p + 3 * stride)), 3);
}

/* t[i] = words 4*quad .. 4*quad+3 of groups 4i .. 4i+3; a group has n_words. */
static inline __attribute__((always_inline)) void load_quads(const uint8_t *p, const int n_words, int quad, __m512i t[4]) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        if (n_words == 4) {
            t[i] = _mm512_loadu_si512(p + 64 * i);
        } else if (n_words == 8) {
            __m512i low = _mm512_loadu_si512(p + 128 * i), high = _mm512_loadu_si512(p + 128 * i + 64);
            t[i] = quad == 0 ? _mm512_shuffle_i32x4(low, high, 0x88) : _mm512_shuffle_i32x4(low, high, 0xdd);
        } else {
            t[i] = four_pieces(p + (size_t)(16 * i * n_words + 16 * quad), (size_t)(4 * n_words));
        }
    }
}

/* out = the span at p as bytes, in the order of struct oc_dot_x8. */
static inline __attribute__((always_inline)) void turn(const uint8_t *p, const int bits, const int n_words, __m512i *out) {
    const __m512i low = _mm512_set1_epi8(15);
#pragma GCC unroll 2
    for (int quad = 0; quad < n_words / 4; quad++) {
        __m512i t[4];
        load_quads(p, n_words, quad, t);
        __m512i a = _mm512_unpacklo_epi32(t[0], t[1]), b = _mm512_unpackhi_epi32(t[0], t[1]);
        __m512i c = _mm512_unpacklo_epi32(t[2], t[3]), d = _mm512_unpackhi_epi32(t[2], t[3]);
        __m512i u[4] = {_mm512_unpacklo_epi64(a, c), _mm512_unpackhi_epi64(a, c), _mm512_unpacklo_epi64(b, d),
                        _mm512_unpackhi_epi64(b, d)};
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            if (bits == 8) {
                *out++ = u[i];
            } else {
                *out++ = _mm512_and_si512(u[i], low);
                *out++ = _mm512_and_si512(_mm512_srli_epi16(u[i], 4), low);
            }
        }
    }
}

typedef void turn_fn(const uint8_t *p, __m512i *out);

static void turn_q4_32(const uint8_t *p, __m512i *out) {
    turn(p, 4, 4, out);
}

static void turn_q4_64(const uint8_t *p, __m512i *out) {
    turn(p, 4, 8, out);
}

static void turn_q4_128(const uint8_t *p, __m512i *out) {
    turn(p, 4, 16, out);
}

static void turn_q8_32(const uint8_t *p, __m512i *out) {
    turn(p, 8, 8, out);
}

static void turn_q8_64(const uint8_t *p, __m512i *out) {
    turn(p, 8, 16, out);
}

static void turn_q8_128(const uint8_t *p, __m512i *out) {
    turn(p, 8, 32, out);
}

static turn_fn *choose_turn(const struct oc_weight *w) {
    if (w->bits == 8) return w->group == 32 ? turn_q8_32 : w->group == 64 ? turn_q8_64 : turn_q8_128;
    return w->group == 32 ? turn_q4_32 : w->group == 64 ? turn_q4_64 : turn_q4_128;
}

/* The order of lanes, which is its own inverse. */
static inline __m512i lane_order(void) {
    return _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
}

static inline __m512 load_groups(const uint8_t *p, enum oc_dtype dtype, int64_t at, int n) {
    p += (size_t)at * (dtype == OC_F32 ? 4 : 2);
    _mm_prefetch((const char *)p + AHEAD_SCALES, _MM_HINT_T0);
    return _mm512_permutexvar_ps(lane_order(), oc_avx512_load_float(p, dtype, oc_avx512_mask(n)));
}

/* acc of rows i .. i+M-1 of x grows by the span in b, whose first group is g. */
static inline __attribute__((always_inline)) void multiply(struct block *b, const struct oc_dot_x8 *x, int64_t g, int group,
                                                           int n_steps, int i, const int M) {
    const int8_t *q = x->q + i * x->ldq + g * group;
    const float *scales = x->scales + i * x->lds + g, *sums = x->sums + i * x->lds + g;
    __m512i sum[R][MAX_M];
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
#pragma GCC unroll 4
        for (int m = 0; m < M; m++) sum[r][m] = _mm512_setzero_si512();
    }
    for (int s = 0; s < n_steps; s++, q += 64) {
        __m512i xv[MAX_M];
#pragma GCC unroll 4
        for (int m = 0; m < M; m++) xv[m] = _mm512_loadu_si512(q + m * x->ldq);
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            __m512i wv = b->w[r][s];
#pragma GCC unroll 4
            for (int m = 0; m < M; m++) sum[r][m] = _mm512_dpbusd_epi32(sum[r][m], wv, xv[m]);
        }
    }
#pragma GCC unroll 4
    for (int m = 0; m < M; m++) {
        __m512 scale = _mm512_loadu_ps(scales + m * x->lds), total = _mm512_loadu_ps(sums + m * x->lds);
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(sum[r][m]), scale);
            v = _mm512_fmadd_ps(b->scales[r], v, b->acc[r][i + m]);
            b->acc[r][i + m] = _mm512_fmadd_ps(b->zero_biases[r], total, v);
        }
    }
}

/* n <= 16 groups from g on of the n_rows rows from `row` on; rows that are not there repeat the last. */
static void load_span(struct block *b, const struct oc_weight *w, turn_fn *turn_row, int64_t row, int n_rows, int64_t g, int n,
                      const uint8_t **ahead) {
    const int64_t n_groups = w->k / w->group;
    const size_t group_bytes = (size_t)(w->group * w->bits / 8);
    for (int r = 0; r < R; r++) {
        int64_t at = row + (r < n_rows ? r : n_rows - 1);
        const uint8_t *p = w->w + (size_t)at * oc_weight_row_bytes(w) + (size_t)g * group_bytes;
        for (size_t i = 0; i < (size_t)n * group_bytes; i += 64) _mm_prefetch((const char *)*ahead + i, _MM_HINT_T0);
        *ahead += (size_t)n * group_bytes;
        if (n < SPAN) p = memcpy(b->pad, p, (size_t)n * group_bytes);
        turn_row(p, b->w[r]);
        b->scales[r] = load_groups(w->scales, w->dtype, at * n_groups + g, n);
        b->zero_biases[r] = load_groups(w->zero_biases, w->dtype, at * n_groups + g, n);
    }
}

static void span(struct block *b, const struct oc_dot_x8 *x, int64_t g, int group, int bits, int m) {
    const int n_steps = SPAN * group / 64, i4 = m / 4 * 4;
    (void)bits;
    int i = 0;
    for (; i < i4; i += 4) multiply(b, x, g, group, n_steps, i, 4);
    for (; i + 2 <= m; i += 2) multiply(b, x, g, group, n_steps, i, 2);
    if (i < m) multiply(b, x, g, group, n_steps, i, 1);
}

/* n_rows <= 4 rows of w from `row` on with all rows of x. */
static void rows(struct block *b, const struct oc_weight *w, turn_fn *turn_row, int64_t row, int n_rows, const struct oc_dot_x8 *x,
                 int m, float *out, int64_t ldo) {
    const int64_t n_groups = w->k / w->group;
    const uint8_t *ahead = w->w + (size_t)(row + R) * oc_weight_row_bytes(w) + AHEAD;
    for (int r = 0; r < R; r++) {
        for (int i = 0; i < m; i++) b->acc[r][i] = _mm512_setzero_ps();
    }
    for (int64_t g = 0; g < n_groups; g += SPAN) {
        int n = n_groups - g < SPAN ? (int)(n_groups - g) : SPAN;
        if (n < SPAN) memset(b->pad, 0, sizeof b->pad);
        load_span(b, w, turn_row, row, n_rows, g, n, &ahead);
        span(b, x, g, w->group, w->bits, m);
    }
    for (int r = 0; r < n_rows; r++) {
        for (int i = 0; i < m; i++) {
            out[i * ldo + r] = oc_avx512_sum(_mm512_permutexvar_ps(lane_order(), b->acc[r][i]));
        }
    }
}

void oc_avx512vnni_dot8(const struct oc_weight *w, int64_t n0, int n, const struct oc_dot_x8 *x, int m, float *out,
                        int64_t ldo) {
    struct block b;
    turn_fn *turn_row = choose_turn(w);
    OC_ASSERT(m <= OC_D_SLICE && w->group <= 128);
    for (int r = 0; r < n; r += R) rows(&b, w, turn_row, n0 + r, n - r < R ? n - r : R, x, m, out + r, ldo);
}
