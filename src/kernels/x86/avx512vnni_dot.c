/* Role D with x as whole numbers of one, two or three signed bytes, its digits: weights as unsigned bytes by
 * VPDPBUSD, exact in 32 bits within a group.
 *
 * Sixteen groups of a row of W are turned, so that each lane holds words of one group: a group's whole sum
 * then grows in its lane, a sum for each digit, and the conversion, both scales and the zero bias come once
 * for 16 groups.
 *
 * One row of x meets two rows of W while they are in registers. For more, four rows of W are turned into
 * memory once and all rows of x pass over them, some at a time; their sums between spans stay in memory. The
 * bits are the same: a group's sum is exact, and each lane adds its groups in order, by the same three
 * operations. */
#include "kernels/int16.h"
#include "kernels/x86/avx512.h"

/* Rows of W at work. More are more streams than the prefetch can lead: 8 cost 10 %, 16 cost 35 %. */
#define R 4
#define R_SINGLE 2 /* with one row of x */
#define MAX_M 4
#define MAX_D OC_MAX_DIGITS
#define SPAN OC_INT8_SPAN
#define MAX_WORDS 32 /* of a group: 128 weights of 8 bits */
/* Bytes by which the prefetch runs ahead, as in avx512_dot.c. */
#define AHEAD 8192
#define AHEAD_SCALES 1024

/* R rows at work. */
struct block {
    __m512i w[MAX_WORDS][R]; /* a span, turned: word for word of its groups */
    __m512 scales[R], zero_biases[R];
    __m512 acc[OC_D_SLICE][R];
    uint8_t pad[SPAN * 128]; /* the words of a row's last groups, when these fill no span */
    const uint8_t *ahead;    /* next to prefetch */
};

/* Pieces of 16 bytes at p, p + stride, ... */
static inline __attribute__((always_inline)) __m512i four_pieces(const uint8_t *p, size_t stride) {
    __m512i v = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(const void *)p));
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(const void *)(p + stride)), 1);
    v = _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(const void *)(p + 2 * stride)), 2);
    return _mm512_inserti32x4(v, _mm_loadu_si128((const __m128i *)(const void *)(p + 3 * stride)), 3);
}

/* t[i] = words 4*quad .. 4*quad+3 of groups 4i .. 4i+3; a group has n_words. */
static inline __attribute__((always_inline)) void load_quads(const uint8_t *p, const int n_words, int quad,
                                                             __m512i t[4]) {
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

/* words[i] = word 4*quad + i of each group of the span at p, in the order of lanes. */
static inline __attribute__((always_inline)) void turn_quad(const uint8_t *p, const int n_words, int quad,
                                                            __m512i words[4]) {
    __m512i t[4];
    load_quads(p, n_words, quad, t);
    __m512i a = _mm512_unpacklo_epi32(t[0], t[1]), b = _mm512_unpackhi_epi32(t[0], t[1]);
    __m512i c = _mm512_unpacklo_epi32(t[2], t[3]), d = _mm512_unpackhi_epi32(t[2], t[3]);
    words[0] = _mm512_unpacklo_epi64(a, c);
    words[1] = _mm512_unpackhi_epi64(a, c);
    words[2] = _mm512_unpacklo_epi64(b, d);
    words[3] = _mm512_unpackhi_epi64(b, d);
}

/* Bytes of words: all of 8-bit weights; of 4-bit ones the even (half 0) or odd ones. */
static inline __attribute__((always_inline)) __m512i bytes_of(__m512i words, const int bits, const int half) {
    if (bits == 8) return words;
    if (half == 1) words = _mm512_srli_epi16(words, 4);
    return _mm512_and_si512(words, _mm512_set1_epi8(15));
}

/* out[R * i] = word i of each group of the span at p, in the order of lanes. `lead`: prefetch as many bytes
 * from `ahead` on. */
static inline __attribute__((always_inline)) void turn(const uint8_t *p, const uint8_t *ahead,
                                                       const int n_words, const bool lead, __m512i *out) {
#pragma GCC unroll 2
    for (int quad = 0; quad < n_words / 4; quad++) {
        __m512i words[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4 && lead; i++)
            _mm_prefetch((const char *)ahead + 256 * quad + 64 * i, _MM_HINT_T0);
        turn_quad(p, n_words, quad, words);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++, out += R) *out = words[i];
    }
}

/* Where the prefetch goes was measured: of 4-bit weights between the products (5 to 10 % faster), of 8-bit
 * ones, which come with fewer products, here (25 % faster with one row of x). */
typedef void turn_fn(const uint8_t *p, const uint8_t *ahead, __m512i *out);

static void turn_q4_32(const uint8_t *p, const uint8_t *ahead, __m512i *out) {
    turn(p, ahead, 4, false, out);
}

static void turn_q4_64(const uint8_t *p, const uint8_t *ahead, __m512i *out) {
    turn(p, ahead, 8, false, out);
}

static void turn_q4_128(const uint8_t *p, const uint8_t *ahead, __m512i *out) {
    turn(p, ahead, 16, false, out);
}

static void turn_q8_32(const uint8_t *p, const uint8_t *ahead, __m512i *out) {
    turn(p, ahead, 8, true, out);
}

static void turn_q8_64(const uint8_t *p, const uint8_t *ahead, __m512i *out) {
    turn(p, ahead, 16, true, out);
}

static void turn_q8_128(const uint8_t *p, const uint8_t *ahead, __m512i *out) {
    turn(p, ahead, 32, true, out);
}

static turn_fn *choose_turn(const struct oc_weight *w) {
    if (w->bits == 8) return w->group == 32 ? turn_q8_32 : w->group == 64 ? turn_q8_64 : turn_q8_128;
    return w->group == 32 ? turn_q4_32 : w->group == 64 ? turn_q4_64 : turn_q4_128;
}

/* The order of lanes, which is its own inverse. */
static inline __m512i lane_order(void) {
    return _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
}

/* Scales or zero biases of n groups, in the order of lanes. */
static inline __attribute__((always_inline)) __m512 load_groups(const uint8_t *p, enum oc_dtype dtype,
                                                                int n) {
    _mm_prefetch((const char *)p + AHEAD_SCALES, _MM_HINT_T0);
    return _mm512_permutexvar_ps(lane_order(), oc_avx512_load_float(p, dtype, oc_avx512_mask(n)));
}

/* The same of a row's scales and zero biases, at `at` among those of the weight. */
static inline __attribute__((always_inline)) void load_scales(const struct oc_weight *w, int64_t at, int n,
                                                              __m512 *scales, __m512 *zero_biases) {
    const size_t byte = (size_t)at * (w->dtype == OC_F32 ? 4 : 2);
    const uint8_t *from = w->scales + byte, *zero_from = w->zero_biases + byte;
    if (w->dtype == OC_BF16) {
        *scales = load_groups(from, OC_BF16, n);
        *zero_biases = load_groups(zero_from, OC_BF16, n);
    } else if (w->dtype == OC_F16) {
        *scales = load_groups(from, OC_F16, n);
        *zero_biases = load_groups(zero_from, OC_F16, n);
    } else {
        *scales = load_groups(from, OC_F32, n);
        *zero_biases = load_groups(zero_from, OC_F32, n);
    }
}

/* The last n groups of a row are read as if sixteen followed: what these are counts for nothing, since x, its
 * scale and those of W are 0 there. But where W ends nothing more can be read. */
static const uint8_t *last_words(const struct oc_weight *w, const uint8_t *p, int n, uint8_t *pad) {
    const size_t group_bytes = (size_t)w->group * w->bits / 8;
    const uint8_t *end = w->w + (size_t)w->n * oc_weight_row_bytes(w);
    if ((size_t)(end - p) >= SPAN * group_bytes) return p;
    memset(pad, 0, SPAN * group_bytes);
    return memcpy(pad, p, (size_t)n * group_bytes);
}

/* sum += four products of unsigned bytes of w with bytes of x, in each lane. By hand: around the intrinsic
 * gcc 12 copies every sum, half of them through memory, which makes the loop five times as slow. */
static inline __attribute__((always_inline)) __m512i add_products(__m512i sum, __m512i w, __m512i x) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(w), "v"(x));
    return sum;
}

/* The sums of all digits, lowest first, as floats. */
static inline __attribute__((always_inline)) __m512 join(const __m512i *const sum, const int D) {
    if (D == 1) return _mm512_cvtepi32_ps(sum[0]);
    __m512i upper = _mm512_add_epi32(_mm512_slli_epi32(sum[D - 1], 8), sum[D - 2]);
    if (D == 2) return _mm512_cvtepi32_ps(upper);
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(upper), _mm512_set1_ps(256), _mm512_cvtepi32_ps(sum[0]));
}

/* acc grows by a span's groups: their sums times x's scales and W's, and x's sums times W's zero biases. */
static inline __attribute__((always_inline)) __m512
add_groups(__m512 acc, __m512 sums, __m512 x_scales, __m512 scales, __m512 x_sums, __m512 zero_biases) {
    acc = _mm512_fmadd_ps(scales, _mm512_mul_ps(sums, x_scales), acc);
    return _mm512_fmadd_ps(zero_biases, x_sums, acc);
}

/* ---- More rows of x ---- */

/* sum[r][m] = four rows of W, a span of them at w, times rows of x, at q, digit by digit. `lead`: prefetch as
 * many bytes of 4-bit W between the products; all at once they would wait for each other. */
static inline __attribute__((always_inline)) void sum_span(const __m512i (*w)[R], const int8_t *q,
                                                           int64_t ldq, int n_words, const uint8_t *ahead,
                                                           __m512i sum[R][MAX_M][MAX_D], const int D,
                                                           const int M, const int bits, const bool lead) {
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
#pragma GCC unroll 4
        for (int m = 0; m < M; m++) {
#pragma GCC unroll 4
            for (int d = 0; d < D; d++) sum[r][m][d] = _mm512_setzero_si512();
        }
    }
    for (int i = 0; i < n_words; i++, ahead += 64 * R) {
#pragma GCC unroll 4
        for (int r = 0; r < R && lead; r++) _mm_prefetch((const char *)ahead + 64 * r, _MM_HINT_T0);
        for (int half = 0; half < 8 / bits; half++, q += 64 * D) {
            __m512i xv[MAX_M][MAX_D];
#pragma GCC unroll 4
            for (int m = 0; m < M; m++) {
#pragma GCC unroll 4
                for (int d = 0; d < D; d++) xv[m][d] = _mm512_loadu_si512(q + m * ldq + 64 * d);
            }
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) {
                __m512i v = bytes_of(w[i][r], bits, half);
#pragma GCC unroll 4
                for (int m = 0; m < M; m++) {
#pragma GCC unroll 4
                    for (int d = 0; d < D; d++) sum[r][m][d] = add_products(sum[r][m][d], v, xv[m][d]);
                }
            }
        }
    }
}

/* acc of rows i .. i+M-1 of x with the rows of W grows by the span in b, whose first group is g. */
static inline __attribute__((always_inline)) void multiply(struct block *b, const struct oc_dot_x8 *x,
                                                           int64_t g, int group, int i, const int D,
                                                           const int M, const int bits, const bool lead) {
    const float *scales = x->scales + i * x->lds + g, *sums = x->sums + i * x->lds + g;
    __m512i sum[R][MAX_M][MAX_D];
    sum_span(b->w, x->q + i * x->ldq + g * group * D, x->ldq, group * bits / 32, b->ahead, sum, D, M, bits,
             lead);
#pragma GCC unroll 4
    for (int m = 0; m < M; m++) {
        __m512 x_scales = _mm512_loadu_ps(scales + m * x->lds), x_sums = _mm512_loadu_ps(sums + m * x->lds);
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            __m512 *acc = &b->acc[i + m][r];
            *acc = add_groups(*acc, join(sum[r][m], D), x_scales, b->scales[r], x_sums, b->zero_biases[r]);
        }
    }
}

/* Digits, and rows of x together; functions of their own, so that the compiler finds registers for the sums.
 * Of 4-bit weights the first rows of x lead the prefetch. */
#define SHAPES X(1, 1) X(1, 2) X(1, 4) X(2, 1) X(2, 2) X(2, 3) X(3, 1) X(3, 2)

typedef void multiply_fn(struct block *b, const struct oc_dot_x8 *x, int64_t g, int group, int i);

#define X(D, M)                                                                                              \
    static void q4_##D##_##M(struct block *b, const struct oc_dot_x8 *x, int64_t g, int group, int i) {      \
        if (i == 0) {                                                                                        \
            multiply(b, x, g, group, i, D, M, 4, true);                                                      \
        } else {                                                                                             \
            multiply(b, x, g, group, i, D, M, 4, false);                                                     \
        }                                                                                                    \
    }                                                                                                        \
    static void q8_##D##_##M(struct block *b, const struct oc_dot_x8 *x, int64_t g, int group, int i) {      \
        multiply(b, x, g, group, i, D, M, 8, false);                                                         \
    }
SHAPES
#undef X

#define X(D, M) [D][M] = {q4_##D##_##M, q8_##D##_##M},
static multiply_fn *const multiply_fns[MAX_D + 1][MAX_M + 1][2] = {SHAPES};
#undef X

/* How many of m rows of x to take together: of 1 digit 4, 2 or 1; of 2 digits at most 3, but 2 and 2 of 4; of
 * 3 at most 2. */
static int step_of(int digits, int m) {
    static const int of_one[5] = {0, 1, 2, 2, 4}, of_two[5] = {0, 1, 2, 3, 2};
    if (digits == 1) return of_one[m < 4 ? m : 4];
    if (digits == 2) return m > 4 ? 3 : of_two[m];
    return m < 2 ? m : 2;
}

/* The next n <= 16 groups of n_rows rows from `row` on, the first of them g. */
static void load_span(struct block *b, const struct oc_weight *w, turn_fn *turn_row, int64_t row, int n_rows,
                      int64_t g, int n) {
    const size_t group_bytes = (size_t)w->group * w->bits / 8;
    const int64_t n_groups = w->k / w->group;
    for (int r = 0; r < n_rows; r++) {
        const uint8_t *p = w->w + (size_t)(row + r) * oc_weight_row_bytes(w) + (size_t)g * group_bytes;
        if (n < SPAN) p = last_words(w, p, n, b->pad);
        turn_row(p, b->ahead + (size_t)r * SPAN * group_bytes, &b->w[0][r]);
        load_scales(w, (row + r) * n_groups + g, n, &b->scales[r], &b->zero_biases[r]);
    }
}

static void multiply_span(struct block *b, const struct oc_weight *w, const struct oc_dot_x8 *x, int64_t g,
                          int m) {
    for (int i = 0, step; i < m; i += step) {
        step = step_of(x->n_digits, m - i);
        multiply_fns[x->n_digits][step][w->bits == 8](b, x, g, w->group, i);
    }
    b->ahead += (size_t)R * SPAN * w->group * w->bits / 8;
}

/* The sums of the lanes of four rows, in the order of groups: halves of 8, of 4, of 2, of 1. Groups that are
 * 8 and 4 apart stand in one quarter of a vector. */
static inline __m128 sum_rows(const __m512 acc[R]) {
    __m512 a =
        _mm512_add_ps(_mm512_shuffle_ps(acc[0], acc[1], 0x44), _mm512_shuffle_ps(acc[0], acc[1], 0xee));
    __m512 b =
        _mm512_add_ps(_mm512_shuffle_ps(acc[2], acc[3], 0x44), _mm512_shuffle_ps(acc[2], acc[3], 0xee));
    __m512 quarters = _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xdd));
    __m256 h = _mm256_add_ps(_mm512_castps512_ps256(quarters), _mm512_extractf32x8_ps(quarters, 1));
    return _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
}

/* n_rows <= R rows of w from `row` on with all rows of x. Rows of the last four that are not there hold what
 * they held. */
static void rows(struct block *b, const struct oc_weight *w, turn_fn *turn_row, int64_t row, int n_rows,
                 const struct oc_dot_x8 *x, int m, float *out, int64_t ldo) {
    const int64_t n_groups = w->k / w->group;
    b->ahead = w->w + (size_t)(row + n_rows) * oc_weight_row_bytes(w) + AHEAD;
    for (int r = 0; r < R; r++) {
        for (int i = 0; i < m; i++) b->acc[i][r] = _mm512_setzero_ps();
    }
    for (int64_t g = 0; g < n_groups; g += SPAN) {
        load_span(b, w, turn_row, row, n_rows, g, n_groups - g < SPAN ? (int)(n_groups - g) : SPAN);
        multiply_span(b, w, x, g, m);
    }
    for (int i = 0; i < m; i++) {
        _mm_mask_storeu_ps(out + i * ldo, (__mmask8)((1 << n_rows) - 1), sum_rows(b->acc[i]));
    }
}

/* ---- One row of x ---- */

/* Two rows of W, where their words stand, and what is next to prefetch. */
struct pair {
    const uint8_t *words[R_SINGLE], *ahead;
};

/* sum[r] = a span of each row of W times x, digit by digit. */
static inline __attribute__((always_inline)) void sum_pair(const struct pair *p, const int8_t *q,
                                                           __m512i sum[R_SINGLE][MAX_D], const int bits,
                                                           const int n_words, const int D) {
    const uint8_t *ahead = p->ahead;
#pragma GCC unroll 4
    for (int r = 0; r < R_SINGLE; r++) {
#pragma GCC unroll 4
        for (int d = 0; d < D; d++) sum[r][d] = _mm512_setzero_si512();
    }
#pragma GCC unroll 2
    for (int quad = 0; quad < n_words / 4; quad++) {
        __m512i words[R_SINGLE][4];
#pragma GCC unroll 4
        for (int r = 0; r < R_SINGLE; r++, ahead += 256) {
            turn_quad(p->words[r], n_words, quad, words[r]);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) _mm_prefetch((const char *)ahead + 64 * i, _MM_HINT_T0);
        }
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            for (int half = 0; half < 8 / bits; half++, q += 64 * D) {
                __m512i v[R_SINGLE];
#pragma GCC unroll 4
                for (int r = 0; r < R_SINGLE; r++) v[r] = bytes_of(words[r][i], bits, half);
#pragma GCC unroll 4
                for (int d = 0; d < D; d++) {
                    __m512i x = _mm512_loadu_si512(q + 64 * d);
#pragma GCC unroll 4
                    for (int r = 0; r < R_SINGLE; r++) sum[r][d] = add_products(sum[r][d], v[r], x);
                }
            }
        }
    }
}

/* n_rows <= 2 rows of w from `row` on; of one the second is the first again. */
static inline __attribute__((always_inline)) void single(const struct oc_weight *w, int64_t row, int n_rows,
                                                         const struct oc_dot_x8 *x, float *out,
                                                         const int bits, const int n_words, const int D) {
    const int64_t n_groups = w->k / w->group, rows[R_SINGLE] = {row, row + n_rows - 1};
    const size_t row_bytes = oc_weight_row_bytes(w), span_bytes = 4 * SPAN * (size_t)n_words;
    struct pair p = {.ahead = w->w + (size_t)(row + n_rows) * row_bytes + AHEAD};
    const int8_t *q = x->q;
    uint8_t pad[R_SINGLE][SPAN * 128];
    __m512 acc[R];
    for (int r = 0; r < R_SINGLE; r++) p.words[r] = w->w + (size_t)rows[r] * row_bytes;
    for (int r = 0; r < R; r++) acc[r] = _mm512_setzero_ps();
    for (int64_t g = 0; g < n_groups; g += SPAN) {
        __m512i sum[R_SINGLE][MAX_D];
        int n = n_groups - g < SPAN ? (int)(n_groups - g) : SPAN;
        for (int r = 0; r < R_SINGLE && n < SPAN; r++) p.words[r] = last_words(w, p.words[r], n, pad[r]);
        sum_pair(&p, q, sum, bits, n_words, D);
        p.ahead += R_SINGLE * span_bytes;
        q += SPAN * w->group * D;
        __m512 x_scales = _mm512_loadu_ps(x->scales + g), x_sums = _mm512_loadu_ps(x->sums + g);
#pragma GCC unroll 4
        for (int r = 0; r < R_SINGLE; r++) {
            __m512 scales, zero_biases;
            p.words[r] += span_bytes;
            load_scales(w, rows[r] * n_groups + g, n, &scales, &zero_biases);
            acc[r] = add_groups(acc[r], join(sum[r], D), x_scales, scales, x_sums, zero_biases);
        }
    }
    _mm_mask_storeu_ps(out, (__mmask8)((1 << n_rows) - 1), sum_rows(acc));
}

typedef void single_fn(const struct oc_weight *w, int64_t row, int n_rows, const struct oc_dot_x8 *x,
                       float *out);

#define DIGITS X(1) X(2) X(3)

#define X(D)                                                                                                 \
    static void single_q4_##D(const struct oc_weight *w, int64_t row, int n_rows, const struct oc_dot_x8 *x, \
                              float *out) {                                                                  \
        if (w->group == 64) {                                                                                \
            single(w, row, n_rows, x, out, 4, 8, D);                                                         \
        } else {                                                                                             \
            single(w, row, n_rows, x, out, 4, w->group / 8, D);                                              \
        }                                                                                                    \
    }                                                                                                        \
    static void single_q8_##D(const struct oc_weight *w, int64_t row, int n_rows, const struct oc_dot_x8 *x, \
                              float *out) {                                                                  \
        single(w, row, n_rows, x, out, 8, w->group / 4, D);                                                  \
    }
DIGITS
#undef X

#define X(D) [D] = {single_q4_##D, single_q8_##D},
static single_fn *const single_fns[MAX_D + 1][2] = {DIGITS};
#undef X

/* ---- */

void oc_avx512vnni_round8(const float *x, int group, int bits, int digits, int8_t *q, float *scale,
                          float *sum) {
    __m512i most = _mm512_setzero_si512(), total = _mm512_setzero_si512();
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    for (int i = 0; i < group; i += 16) {
        most = _mm512_max_epu32(most, _mm512_and_si512(_mm512_loadu_si512(x + i), magnitude));
    }
    float inverse = oc_int_scale(_mm512_reduce_max_epu32(most), oc_digits_most(digits), scale);
    const __m128i apart = bits == 4 ? _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15)
                                    : _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __mmask16 any = inverse > 0 ? 0xffff : 0; /* x may be a NaN where there is none */
    for (int i = 0; i < group; i += 16, q += 16 * digits) {
        __m512i v =
            _mm512_maskz_cvtps_epi32(any, _mm512_mul_ps(_mm512_loadu_ps(x + i), _mm512_set1_ps(inverse)));
        total = _mm512_add_epi32(total, v);
        for (int d = 0; d < digits; d++) {
            uint32_t at[4];
            _mm_storeu_si128((__m128i *)(void *)at, _mm_shuffle_epi8(_mm512_cvtepi32_epi8(v), apart));
            for (int j = 0; j < 4; j++) memcpy(q + 4 * (j * digits + d), &at[j], 4);
            v = _mm512_srai_epi32(_mm512_add_epi32(v, _mm512_set1_epi32(128)), 8);
        }
    }
    *sum = *scale * (float)_mm512_reduce_add_epi32(total);
}

void oc_avx512vnni_dot8(const struct oc_weight *w, int64_t n0, int n, const struct oc_dot_x8 *x, int m,
                        float *out, int64_t ldo) {
    OC_ASSERT(m <= OC_D_SLICE && w->group <= 128 && x->n_digits <= MAX_D);
    if (m == 1) {
        single_fn *fn = single_fns[x->n_digits][w->bits == 8];
        for (int r = 0; r < n; r += R_SINGLE) fn(w, n0 + r, n - r < R_SINGLE ? n - r : R_SINGLE, x, out + r);
        return;
    }
    struct block b;
    turn_fn *turn_row = choose_turn(w);
    if (n < R) memset(&b, 0, offsetof(struct block, acc)); /* rows that are not there are multiplied too */
    for (int r = 0; r < n; r += R) rows(&b, w, turn_row, n0 + r, n - r < R ? n - r : R, x, m, out + r, ldo);
}
