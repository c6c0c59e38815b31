/* Role D with x as whole numbers of one, two or three signed bytes: weights as unsigned bytes by VPDPBUSD, exact in 32 bits within a
 * group.
 *
 * Sixteen groups of four rows are turned once, so that each lane holds bytes of one group: a group's whole
 * sum then grows in its lane, a sum for each digit of x, and the conversion, both scales and the zero bias come once for 16 groups. All
 * rows of x pass over what was turned, some at a time; their sums between spans stay in memory. How many pass together
 * changes no bit: a group's sum is exact, and the order of groups is that of each lane. */
#include "kernels/int16.h"
#include "kernels/x86/avx512.h"

/* Rows of W at work. More are more streams than the prefetch can lead: 8 cost 10 %, 16 cost 35 %. */
#define R 4
#define MAX_M 4
#define MAX_D OC_MAX_DIGITS
#define SPAN OC_INT8_SPAN
#define MAX_VECTORS 32 /* of bytes of a group: 128 weights */
/* Bytes by which the prefetch runs ahead, as in avx512_dot.c. */
#define AHEAD 8192
#define AHEAD_SCALES 1024

/* R rows at work. */
struct block {
    __m512i w[MAX_VECTORS][R]; /* a span, turned: bytes of its groups, of 4-bit words first the even ones, then the odd ones */
    __m512 scales[R], zero_biases[R];
    __m512 acc[OC_D_SLICE][R];
    uint8_t pad[SPAN * 128]; /* the words of a row's last groups, when these fill no span */
    const uint8_t *words[R], *scales_at[R], *zero_biases_at[R]; /* of the next span */
    const uint8_t *ahead;                                       /* next to prefetch */
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

/* out[R * i] = vector i of bytes of each group of the span at p, in the order of lanes. `lead`: prefetch as many bytes
 * from `ahead` on. */
static inline __attribute__((always_inline)) void turn(const uint8_t *p, const uint8_t *ahead, const int bits,
                                                       const int n_words, const bool lead, __m512i *out) {
    const __m512i low = _mm512_set1_epi8(15);
#pragma GCC unroll 2
    for (int quad = 0; quad < n_words / 4; quad++) {
        __m512i t[4], words[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4 && lead; i++)
            _mm_prefetch((const char *)ahead + 256 * quad + 64 * i, _MM_HINT_T0);
        load_quads(p, n_words, quad, t);
        __m512i a = _mm512_unpacklo_epi32(t[0], t[1]), b = _mm512_unpackhi_epi32(t[0], t[1]);
        __m512i c = _mm512_unpacklo_epi32(t[2], t[3]), d = _mm512_unpackhi_epi32(t[2], t[3]);
        words[0] = _mm512_unpacklo_epi64(a, c);
        words[1] = _mm512_unpackhi_epi64(a, c);
        words[2] = _mm512_unpacklo_epi64(b, d);
        words[3] = _mm512_unpackhi_epi64(b, d);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++, out += R) {
            *out = bits == 4 ? _mm512_and_si512(words[i], low) : words[i];
            if (bits == 4) *(out += R) = _mm512_and_si512(_mm512_srli_epi16(words[i], 4), low);
        }
    }
}

/* Where the prefetch goes was measured: of 4-bit weights between the products (5 to 10 % faster), of 8-bit
 * ones, which come with fewer products, here (25 % faster with one row of x). */
typedef void turn_fn(const uint8_t *p, const uint8_t *ahead, __m512i *out);

static void turn_q4_32(const uint8_t *p, const uint8_t *ahead, __m512i *out) {
    turn(p, ahead, 4, 4, false, out);
}

static void turn_q4_64(const uint8_t *p, const uint8_t *ahead, __m512i *out) {
    turn(p, ahead, 4, 8, false, out);
}

static void turn_q4_128(const uint8_t *p, const uint8_t *ahead, __m512i *out) {
    turn(p, ahead, 4, 16, false, out);
}

static void turn_q8_32(const uint8_t *p, const uint8_t *ahead, __m512i *out) {
    turn(p, ahead, 8, 8, true, out);
}

static void turn_q8_64(const uint8_t *p, const uint8_t *ahead, __m512i *out) {
    turn(p, ahead, 8, 16, true, out);
}

static void turn_q8_128(const uint8_t *p, const uint8_t *ahead, __m512i *out) {
    turn(p, ahead, 8, 32, true, out);
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

/* sum += four products of unsigned bytes of w with bytes of x, in each lane. By hand: around the intrinsic
 * gcc 12 copies every sum, half of them through memory, which makes the loop five times as slow. */
static inline __attribute__((always_inline)) __m512i add_products(__m512i sum, __m512i w, __m512i x) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(w), "v"(x));
    return sum;
}

/* sum[d][r][m] = four rows of W, a span of them at w, times digit d of rows of x, at q. `lead`: prefetch as many bytes of 4-bit W
 * between the products; all at once they would wait for each other. */
static inline __attribute__((always_inline)) void sum_span(const __m512i (*w)[R], const int8_t *q, int64_t ldq,
                                                           int n_vectors, const uint8_t *ahead,
                                                           __m512i sum[MAX_D][R][MAX_M], const int D, const int M,
                                                           const bool lead) {
#pragma GCC unroll 4
    for (int d = 0; d < D; d++) {
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
#pragma GCC unroll 4
            for (int m = 0; m < M; m++) sum[d][r][m] = _mm512_setzero_si512();
        }
    }
    for (int i = 0; i < n_vectors; i++, q += 64 * D, ahead += 32 * R) {
#pragma GCC unroll 4
        for (int r = 0; r < R / 2 && lead; r++) _mm_prefetch((const char *)ahead + 64 * r, _MM_HINT_T0);
        __m512i v[R];
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) v[r] = w[i][r];
#pragma GCC unroll 4
        for (int m = 0; m < M; m++) {
#pragma GCC unroll 4
            for (int d = 0; d < D; d++) {
                __m512i x = _mm512_loadu_si512(q + m * ldq + 64 * d);
#pragma GCC unroll 4
                for (int r = 0; r < R; r++) sum[d][r][m] = add_products(sum[d][r][m], v[r], x);
            }
        }
    }
}

/* The sum of digits, lowest first, as a float. */
static inline __attribute__((always_inline)) __m512 join(const __m512i sum[MAX_D][R][MAX_M], int r, int m, const int D) {
    if (D == 1) return _mm512_cvtepi32_ps(sum[0][r][m]);
    __m512i upper = _mm512_add_epi32(_mm512_slli_epi32(sum[D - 1][r][m], 8), sum[D - 2][r][m]);
    if (D == 2) return _mm512_cvtepi32_ps(upper);
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(upper), _mm512_set1_ps(256), _mm512_cvtepi32_ps(sum[0][r][m]));
}

/* acc of rows i .. i+M-1 of x with the rows of W grows by the span in b, whose first group is g. */
static inline __attribute__((always_inline)) void multiply(struct block *b, const struct oc_dot_x8 *x, int64_t g,
                                                           int group, int i, const int D, const int M, const bool lead) {
    const float *scales = x->scales + i * x->lds + g, *sums = x->sums + i * x->lds + g;
    __m512i sum[MAX_D][R][MAX_M];
    sum_span(b->w, x->q + i * x->ldq + g * group * D, x->ldq, group / 4, b->ahead, sum, D, M, lead);
#pragma GCC unroll 4
    for (int m = 0; m < M; m++) {
        __m512 scale = _mm512_loadu_ps(scales + m * x->lds), total = _mm512_loadu_ps(sums + m * x->lds);
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            __m512 *acc = &b->acc[i + m][r];
            __m512 v = _mm512_mul_ps(join(sum, r, m, D), scale);
            v = _mm512_fmadd_ps(b->scales[r], v, *acc);
            *acc = _mm512_fmadd_ps(b->zero_biases[r], total, v);
        }
    }
}

/* Digits, and rows of x together; functions of their own, so that the compiler finds registers for the sums. */
#define SHAPES X(1, 1) X(1, 2) X(1, 4) X(2, 1) X(2, 2) X(2, 3) X(3, 1) X(3, 2)

typedef void multiply_fn(struct block *b, const struct oc_dot_x8 *x, int64_t g, int group, int i, bool lead);

#define X(D, M)                                                                                                          \
    static void multiply_##D##_##M(struct block *b, const struct oc_dot_x8 *x, int64_t g, int group, int i, bool lead) { \
        if (lead) {                                                                                                      \
            multiply(b, x, g, group, i, D, M, true);                                                                     \
        } else {                                                                                                         \
            multiply(b, x, g, group, i, D, M, false);                                                                    \
        }                                                                                                                \
    }
SHAPES
#undef X

#define X(D, M) [D][M] = multiply_##D##_##M,
static multiply_fn *const multiply_fns[MAX_D + 1][MAX_M + 1] = {SHAPES};
#undef X

/* How many of the m rows of x that are left to take together. */
static int step_of(int digits, int m) {
    static const int most[MAX_D + 1] = {0, 4, 3, 2};
    int step = m < most[digits] ? m : most[digits];
    if (step == 3 && digits == 1) return 2;
    if (m == 4 && digits == 2) return 2;
    return step;
}

/* The next n <= 16 groups of n_rows rows. */
static inline __attribute__((always_inline)) void load_groups_of(struct block *b, const struct oc_weight *w,
                                                                 turn_fn *turn_row, int n_rows, const int n,
                                                                 const enum oc_dtype dtype) {
    const size_t bytes = (size_t)(n * w->group * w->bits / 8),
                 group_bytes = (size_t)n * (dtype == OC_F32 ? 4 : 2);
    for (int r = 0; r < n_rows; r++) {
        const uint8_t *p = b->words[r];
        if (n < SPAN) p = memcpy(b->pad, p, bytes);
        turn_row(p, b->ahead + (size_t)r * SPAN * w->group * w->bits / 8, &b->w[0][r]);
        b->scales[r] = load_groups(b->scales_at[r], dtype, n);
        b->zero_biases[r] = load_groups(b->zero_biases_at[r], dtype, n);
        b->words[r] += bytes;
        b->scales_at[r] += group_bytes;
        b->zero_biases_at[r] += group_bytes;
    }
}

static inline __attribute__((always_inline)) void load_span(struct block *b, const struct oc_weight *w,
                                                            turn_fn *turn_row, int n_rows, const int n) {
    if (w->dtype == OC_BF16) load_groups_of(b, w, turn_row, n_rows, n, OC_BF16);
    if (w->dtype == OC_F16) load_groups_of(b, w, turn_row, n_rows, n, OC_F16);
    if (w->dtype == OC_F32) load_groups_of(b, w, turn_row, n_rows, n, OC_F32);
}

static void multiply_span(struct block *b, const struct oc_weight *w, const struct oc_dot_x8 *x, int64_t g,
                          int m) {
    for (int i = 0, step; i < m; i += step) {
        step = step_of(x->n_digits, m - i);
        multiply_fns[x->n_digits][step](b, x, g, w->group, i, i == 0 && w->bits == 4);
    }
    b->ahead += (size_t)R * SPAN * w->group * w->bits / 8;
}

/* Pointers to row `row` and what follows it; sums to nothing. Rows of the last four that are not there hold
 * what they held. */
static void begin(struct block *b, const struct oc_weight *w, int64_t row, int n_rows, int m) {
    const size_t row_bytes = oc_weight_row_bytes(w),
                 group_bytes = (size_t)(w->k / w->group) * (w->dtype == OC_F32 ? 4 : 2);
    for (int r = 0; r < n_rows; r++) {
        b->words[r] = w->w + (size_t)(row + r) * row_bytes;
        b->scales_at[r] = w->scales + (size_t)(row + r) * group_bytes;
        b->zero_biases_at[r] = w->zero_biases + (size_t)(row + r) * group_bytes;
    }
    b->ahead = w->w + (size_t)(row + n_rows) * row_bytes + AHEAD;
    for (int r = 0; r < R; r++) {
        for (int i = 0; i < m; i++) b->acc[i][r] = _mm512_setzero_ps();
    }
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

/* n_rows <= R rows of w from `row` on with all rows of x. */
static void rows(struct block *b, const struct oc_weight *w, turn_fn *turn_row, int64_t row, int n_rows,
                 const struct oc_dot_x8 *x, int m, float *out, int64_t ldo) {
    const int64_t n_groups = w->k / w->group;
    int64_t g = 0;
    begin(b, w, row, n_rows, m);
    for (; g + SPAN <= n_groups; g += SPAN) {
        load_span(b, w, turn_row, n_rows, SPAN);
        multiply_span(b, w, x, g, m);
    }
    if (g < n_groups) {
        memset(b->pad, 0, sizeof b->pad);
        load_span(b, w, turn_row, n_rows, (int)(n_groups - g));
        multiply_span(b, w, x, g, m);
    }
    for (int i = 0; i < m; i++) {
        _mm_mask_storeu_ps(out + i * ldo, (__mmask8)((1 << n_rows) - 1), sum_rows(b->acc[i]));
    }
}

void oc_avx512vnni_round8(const float *x, int group, int bits, int digits, int8_t *q, float *scale, float *sum) {
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
    struct block b;
    turn_fn *turn_row = choose_turn(w);
    OC_ASSERT(m <= OC_D_SLICE && w->group <= 128);
    if (n < R) memset(&b, 0, offsetof(struct block, acc)); /* rows that are not there are multiplied too */
    for (int r = 0; r < n; r += R) rows(&b, w, turn_row, n0 + r, n - r < R ? n - r : R, x, m, out + r, ldo);
}
