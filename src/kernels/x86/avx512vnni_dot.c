/* Role D with x rounded to 8 bits: weights as unsigned bytes by VPDPBUSD, exact in 32 bits within a group.
 *
 * Sixteen groups of four rows are turned once, so that each lane holds words of one group: a group's whole
 * sum then grows in its lane, and the conversion, both scales and the zero bias come once for 16 groups. All
 * rows of x pass over what was turned, four at a time; their sums between spans stay in memory. */
#include "kernels/int8.h"
#include "kernels/x86/avx512.h"

/* Rows of W at work. More are more streams than the prefetch can lead: 8 cost 10 %, 16 cost 35 %. */
#define R 4
#define MAX_M 4
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

/* out[R * i] = word i of each group of the span at p, in the order of lanes. `lead`: prefetch as many bytes
 * from `ahead` on. */
static inline __attribute__((always_inline)) void turn(const uint8_t *p, const uint8_t *ahead,
                                                       const int n_words, const bool lead, __m512i *out) {
#pragma GCC unroll 2
    for (int quad = 0; quad < n_words / 4; quad++, out += 4 * R) {
        __m512i t[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4 && lead; i++)
            _mm_prefetch((const char *)ahead + 256 * quad + 64 * i, _MM_HINT_T0);
        load_quads(p, n_words, quad, t);
        __m512i a = _mm512_unpacklo_epi32(t[0], t[1]), b = _mm512_unpackhi_epi32(t[0], t[1]);
        __m512i c = _mm512_unpacklo_epi32(t[2], t[3]), d = _mm512_unpackhi_epi32(t[2], t[3]);
        out[0] = _mm512_unpacklo_epi64(a, c);
        out[R] = _mm512_unpackhi_epi64(a, c);
        out[2 * R] = _mm512_unpacklo_epi64(b, d);
        out[3 * R] = _mm512_unpackhi_epi64(b, d);
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

/* sum += four products of unsigned bytes of w with bytes of x, in each lane. By hand: around the intrinsic
 * gcc 12 copies every sum, half of them through memory, which makes the loop five times as slow. */
static inline __attribute__((always_inline)) __m512i add_products(__m512i sum, __m512i w, __m512i x) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(w), "v"(x));
    return sum;
}

/* sum[r][m] = four rows of W, a span of them at w, times rows of x, at q. `lead`: prefetch as many bytes of W
 * between the products; all at once they would wait for each other. */
static inline __attribute__((always_inline)) void sum_span(const __m512i (*w)[R], const int8_t *q,
                                                           int64_t ldq, int n_words, const uint8_t *ahead,
                                                           __m512i sum[R][MAX_M], const int M, const int bits,
                                                           const bool lead) {
    const __m512i low = _mm512_set1_epi8(15);
    const int halves = bits == 4 ? 2 : 1; /* vectors of bytes in a word of each lane */
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
#pragma GCC unroll 4
        for (int m = 0; m < M; m++) sum[r][m] = _mm512_setzero_si512();
    }
    for (int i = 0; i < n_words; i++, q += 64 * halves, ahead += 64 * R) {
#pragma GCC unroll 4
        for (int r = 0; r < R && lead; r++) _mm_prefetch((const char *)ahead + 64 * r, _MM_HINT_T0);
#pragma GCC unroll 2
        for (int half = 0; half < halves; half++) {
            __m512i x[MAX_M];
#pragma GCC unroll 4
            for (int m = 0; m < M; m++) x[m] = _mm512_loadu_si512(q + m * ldq + 64 * half);
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) {
                __m512i v = w[i][r];
                if (half == 1) v = _mm512_srli_epi16(v, 4);
                if (bits == 4) v = _mm512_and_si512(v, low);
#pragma GCC unroll 4
                for (int m = 0; m < M; m++) sum[r][m] = add_products(sum[r][m], v, x[m]);
            }
        }
    }
}

/* acc of rows i .. i+M-1 of x with the rows of W grows by the span in b, whose first group is g. */
static inline __attribute__((always_inline)) void multiply(struct block *b, const struct oc_dot_x8 *x,
                                                           int64_t g, int group, int i, const int M,
                                                           const int bits, const bool lead) {
    const float *scales = x->scales + i * x->lds + g, *sums = x->sums + i * x->lds + g;
    __m512i sum[R][MAX_M];
    sum_span(b->w, x->q + i * x->ldq + g * group, x->ldq, group * bits / 32, b->ahead, sum, M, bits, lead);
#pragma GCC unroll 4
    for (int m = 0; m < M; m++) {
        __m512 scale = _mm512_loadu_ps(scales + m * x->lds), total = _mm512_loadu_ps(sums + m * x->lds);
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            __m512 *acc = &b->acc[i + m][r];
            __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(sum[r][m]), scale);
            v = _mm512_fmadd_ps(b->scales[r], v, *acc);
            *acc = _mm512_fmadd_ps(b->zero_biases[r], total, v);
        }
    }
}

/* Functions of their own, so that the compiler finds registers for the sums. */
typedef void multiply_fn(struct block *b, const struct oc_dot_x8 *x, int64_t g, int group, int i);

static void multiply_q4_1(struct block *b, const struct oc_dot_x8 *x, int64_t g, int group, int i) {
    multiply(b, x, g, group, i, 1, 4, true);
}

static void multiply_q4_2(struct block *b, const struct oc_dot_x8 *x, int64_t g, int group, int i) {
    multiply(b, x, g, group, i, 2, 4, true);
}

static void multiply_q4_4(struct block *b, const struct oc_dot_x8 *x, int64_t g, int group, int i) {
    multiply(b, x, g, group, i, 4, 4, true);
}

static void multiply_q4_more(struct block *b, const struct oc_dot_x8 *x, int64_t g, int group, int i) {
    multiply(b, x, g, group, i, 4, 4, false);
}

static void multiply_q8_1(struct block *b, const struct oc_dot_x8 *x, int64_t g, int group, int i) {
    multiply(b, x, g, group, i, 1, 8, false);
}

static void multiply_q8_2(struct block *b, const struct oc_dot_x8 *x, int64_t g, int group, int i) {
    multiply(b, x, g, group, i, 2, 8, false);
}

static void multiply_q8_4(struct block *b, const struct oc_dot_x8 *x, int64_t g, int group, int i) {
    multiply(b, x, g, group, i, 4, 8, false);
}

/* For the last 1 or 2 rows of x, for the first 4, which lead the prefetch, and for 4 more. */
enum { ONE, TWO, FOUR, MORE };

static multiply_fn *const multiply_fns[2][4] = {
    {multiply_q4_1, multiply_q4_2, multiply_q4_4, multiply_q4_more},
    {multiply_q8_1, multiply_q8_2, multiply_q8_4, multiply_q8_4}};

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
    multiply_fn *const *fn = multiply_fns[w->bits == 8];
    int i = 0;
    for (; i + 4 <= m; i += 4) fn[i == 0 ? FOUR : MORE](b, x, g, w->group, i);
    for (; i + 2 <= m; i += 2) fn[TWO](b, x, g, w->group, i);
    if (i < m) fn[ONE](b, x, g, w->group, i);
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

void oc_avx512vnni_round8(const float *x, int group, int bits, int8_t *q, float *scale, float *sum) {
    __m512i most = _mm512_setzero_si512(), total = _mm512_setzero_si512();
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    for (int i = 0; i < group; i += 16) {
        most = _mm512_max_epu32(most, _mm512_and_si512(_mm512_loadu_si512(x + i), magnitude));
    }
    float inverse = oc_int8_scale(_mm512_reduce_max_epu32(most), scale);
    const __m128i apart = bits == 4 ? _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15)
                                    : _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __mmask16 any = inverse > 0 ? 0xffff : 0; /* x may be a NaN where there is none */
    for (int i = 0; i < group; i += 16) {
        __m512i v =
            _mm512_maskz_cvtps_epi32(any, _mm512_mul_ps(_mm512_loadu_ps(x + i), _mm512_set1_ps(inverse)));
        total = _mm512_add_epi32(total, v);
        _mm_storeu_si128((__m128i *)(void *)(q + i), _mm_shuffle_epi8(_mm512_cvtepi32_epi8(v), apart));
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
