/* Role D with x as whole numbers of one or more signed bytes: weights as unsigned bytes by VPDPBUSD, exact in 32 bits within a
 * group.
 *
 * Sixteen groups of a row are turned, so that each lane holds words of one group: a group's whole sum then
 * grows in its lane, a sum for each digit of x, and the conversion, both scales and the zero bias come once for 16
 * groups. Two rows of W meet up to four of x while they are in registers; for more rows of x they are turned again. How many rows
 * meet changes no bit: a group's sum is exact, and groups are added in the order that each lane has. */
#include "kernels/int16.h"
#include "kernels/x86/avx512.h"

#define R 2 /* rows of W at work */
#define MAX_M 4
#define MAX_D OC_MAX_DIGITS
#define SPAN OC_INT8_SPAN
/* Bytes by which the prefetch runs ahead: of w beyond the rows at work, in the order of memory, and of scales and zero biases. */
#ifdef G
extern int g_near, g_far;
#else
#define AHEAD 8192
#endif
#define AHEAD_SCALES 1024

/* The part of a call that two rows of W and a few of x make up. */
struct task {
    const struct oc_weight *w;
    const struct oc_dot_x8 *x;
    int64_t row; /* first row of w */
    int n_rows;  /* 1 or 2 */
    int i;       /* first row of x */
    bool lead;   /* fetch what follows in memory */
    float *out;  /* of (row, i) */
    int64_t ldo;
};

/* Where these stand: a span of sixteen groups. */
struct span {
    const uint8_t *words[R];
    const uint8_t *ahead; /* next to prefetch */
    const int8_t *q;
    int64_t ldq;
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
static inline __attribute__((always_inline)) void turn_quad(const uint8_t *p, const int n_words, int quad, __m512i words[4]) {
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

/* The sums of the lanes of two rows, in the order of groups: halves of 8, of 4, of 2, of 1. Groups that are
 * 8 and 4 apart stand in one quarter of a vector. */
static inline __m128 sum_rows(__m512 first, __m512 second) {
    __m512 a = _mm512_add_ps(_mm512_shuffle_ps(first, second, 0x44), _mm512_shuffle_ps(first, second, 0xee));
    __m512 quarters = _mm512_add_ps(_mm512_shuffle_ps(a, a, 0x88), _mm512_shuffle_ps(a, a, 0xdd));
    __m256 h = _mm256_add_ps(_mm512_castps512_ps256(quarters), _mm512_extractf32x8_ps(quarters, 1));
    return _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
}

/* Prefetches the next 256 bytes for each row. */
static inline __attribute__((always_inline)) void fetch(const uint8_t *ahead) {
#pragma GCC unroll 8
    for (int i = 0; i < 4 * R; i++) {
#ifdef G
        if (g_near >= 0) _mm_prefetch((const char *)ahead + g_near + 64 * i, _MM_HINT_T0);
        if (g_far >= 0) _mm_prefetch((const char *)ahead + g_far + 64 * i, _MM_HINT_T1);
#else
        _mm_prefetch((const char *)ahead + AHEAD + 64 * i, _MM_HINT_T0);
#endif
    }
}

/* sum[d][r][m] = a span of each row of W times digit d of each row of x. */
static inline __attribute__((always_inline)) void sum_span(struct span *s, __m512i sum[MAX_D][R][MAX_M], const int bits,
                                                           const int n_words, const int D, const int M) {
    const int8_t *q = s->q;
#pragma GCC unroll 4
    for (int d = 0; d < D; d++) {
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
#pragma GCC unroll 4
            for (int m = 0; m < M; m++) sum[d][r][m] = _mm512_setzero_si512();
        }
    }
    for (int quad = 0; quad < n_words / 4; quad++) {
        __m512i words[R][4];
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) turn_quad(s->words[r], n_words, quad, words[r]);
        fetch(s->ahead);
        s->ahead += 256 * R;
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
#pragma GCC unroll 2
            for (int half = 0; half < 8 / bits; half++, q += 64 * D) {
                __m512i v[R];
#pragma GCC unroll 4
                for (int r = 0; r < R; r++) v[r] = bytes_of(words[r][i], bits, half);
#pragma GCC unroll 4
                for (int m = 0; m < M; m++) {
#pragma GCC unroll 4
                    for (int d = 0; d < D; d++) {
                        __m512i x = _mm512_loadu_si512(q + m * s->ldq + 64 * d);
#pragma GCC unroll 4
                        for (int r = 0; r < R; r++) sum[d][r][m] = add_products(sum[d][r][m], v[r], x);
                    }
                }
            }
        }
    }
    s->q = q;
}

/* The sums of all digits, lowest first, as floats. */
static inline __attribute__((always_inline)) __m512 join(const __m512i sum[MAX_D][R][MAX_M], int r, int m, const int D) {
    if (D == 1) return _mm512_cvtepi32_ps(sum[0][r][m]);
    __m512i upper = _mm512_add_epi32(_mm512_slli_epi32(sum[D - 1][r][m], 8), sum[D - 2][r][m]);
    if (D == 2) return _mm512_cvtepi32_ps(upper);
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(upper), _mm512_set1_ps(256), _mm512_cvtepi32_ps(sum[0][r][m]));
}

/* Scales and zero biases of n groups from g on of row r of the task. */
static inline __attribute__((always_inline)) void load_scales(const struct task *t, int r, int64_t g, int n, __m512 *scales,
                                                              __m512 *zero_biases) {
    const struct oc_weight *w = t->w;
    int64_t at = (t->row + (r < t->n_rows ? r : 0)) * (w->k / w->group) + g;
    if (w->dtype == OC_F32) {
        *scales = load_groups(w->scales + 4 * at, OC_F32, n), *zero_biases = load_groups(w->zero_biases + 4 * at, OC_F32, n);
    } else if (w->dtype == OC_F16) {
        *scales = load_groups(w->scales + 2 * at, OC_F16, n), *zero_biases = load_groups(w->zero_biases + 2 * at, OC_F16, n);
    } else {
        *scales = load_groups(w->scales + 2 * at, OC_BF16, n), *zero_biases = load_groups(w->zero_biases + 2 * at, OC_BF16, n);
    }
}

/* The last n groups of a row are read as if sixteen followed; what these are counts for nothing, since x is 0 there, but where W ends they
 * must not be read. */
static const uint8_t *last_words(const struct task *t, const uint8_t *p, size_t bytes, size_t span_bytes, uint8_t *pad) {
    const uint8_t *end = t->w->w + (size_t)t->w->n * oc_weight_row_bytes(t->w);
    if ((size_t)(end - p) >= span_bytes) return p;
    memset(pad, 0, span_bytes);
    return memcpy(pad, p, bytes);
}

static inline __attribute__((always_inline)) void block(const struct task *t, const int bits, const int n_words, const int D, const int M) {
    const struct oc_weight *w = t->w;
    const struct oc_dot_x8 *x = t->x;
    const size_t row_bytes = oc_weight_row_bytes(w), group_bytes = 4 * (size_t)n_words;
    const int64_t n_groups = w->k / w->group;
    struct span s = {.ahead = w->w + (size_t)(t->row + (t->lead ? R : 0)) * row_bytes, .q = x->q + t->i * x->ldq, .ldq = x->ldq};
    uint8_t pad[R][SPAN * 128];
    __m512 acc[MAX_M][R];
    for (int r = 0; r < R; r++) s.words[r] = w->w + (size_t)(t->row + (r < t->n_rows ? r : 0)) * row_bytes;
#pragma GCC unroll 4
    for (int m = 0; m < M; m++) {
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) acc[m][r] = _mm512_setzero_ps();
    }
    for (int64_t g = 0; g < n_groups; g += SPAN) {
        __m512i sum[MAX_D][R][MAX_M];
        int n = n_groups - g < SPAN ? (int)(n_groups - g) : SPAN;
        for (int r = 0; r < R && n < SPAN; r++)
            s.words[r] = last_words(t, s.words[r], (size_t)n * group_bytes, SPAN * group_bytes, pad[r]);
        sum_span(&s, sum, bits, n_words, D, M);
        const float *x_scales = x->scales + t->i * x->lds + g, *x_sums = x->sums + t->i * x->lds + g;
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            __m512 scales, zero_biases;
            s.words[r] += SPAN * group_bytes;
            load_scales(t, r, g, n, &scales, &zero_biases);
#pragma GCC unroll 4
            for (int m = 0; m < M; m++) {
                __m512 v = _mm512_mul_ps(join(sum, r, m, D), _mm512_loadu_ps(x_scales + m * x->lds));
                v = _mm512_fmadd_ps(scales, v, acc[m][r]);
                acc[m][r] = _mm512_fmadd_ps(zero_biases, _mm512_loadu_ps(x_sums + m * x->lds), v);
            }
        }
    }
#pragma GCC unroll 4
    for (int m = 0; m < M; m++) {
        __m128 sums = sum_rows(acc[m][0], acc[m][1]);
        _mm_mask_storeu_ps(t->out + m * t->ldo, t->n_rows == 2 ? 3 : 1, sums);
    }
}

/* Digits, and rows of x together; functions of their own, so that the compiler finds registers for the sums. */
#define SHAPES X(1, 1) X(1, 2) X(1, 3) X(1, 4) X(2, 1) X(2, 2) X(2, 3) X(2, 4) X(3, 1) X(3, 2)

typedef void block_fn(const struct task *t);

#define X(D, M)                                                                       \
    static void q4_##D##_##M(const struct task *t) {                                  \
        if (t->w->group == 64) {                                                      \
            block(t, 4, 8, D, M);                                                     \
        } else {                                                                      \
            block(t, 4, t->w->group / 8, D, M);                                       \
        }                                                                             \
    }                                                                                 \
    static void q8_##D##_##M(const struct task *t) {                                  \
        block(t, 8, t->w->group / 4, D, M);                                           \
    }
SHAPES
#undef X

#define X(D, M) [D][M] = {q4_##D##_##M, q8_##D##_##M},
static block_fn *const block_fns[MAX_D + 1][MAX_M + 1][2] = {SHAPES};
#undef X

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
    static const int most[MAX_D + 1] = {0, 4, 4, 2}; /* rows of x together */
    OC_ASSERT(w->group <= 128 && x->n_digits <= MAX_D);
    for (int r = 0; r < n; r += R) {
        struct task t = {.w = w, .x = x, .row = n0 + r, .n_rows = n - r < R ? n - r : R, .ldo = ldo};
        for (int step; t.i < m; t.i += step) {
            step = m - t.i < most[x->n_digits] ? m - t.i : most[x->n_digits];
            t.lead = t.i == 0;
            t.out = out + t.i * ldo + r;
            block_fns[x->n_digits][step][w->bits == 8](&t);
        }
    }
}
