/* Role D: weight rows straight from the mapping, dotted with a few rows of x.
 *
 * 16 quantised weights cost an AND, a conversion and, per row of x, an FMA: the place of q inside its word is undone
 * by x's factors (struct oc_dot_x), so q stays exact. A group's sum is scaled once; zero_bias meets the group sums
 * of x sixteen groups at a time. Four rows of W, with up to four of x, share loads of x and the unpacking:
 * that changes no sum's order. */
#include "kernels/x86/avx512.h"

enum format { Q4, Q8, PLAIN_F32, PLAIN_F16, PLAIN_BF16 };

#define MAX_R 4
#define MAX_M 4
/* Bytes by which the prefetch runs ahead: of w beyond the block of rows at work, in the order of memory (hardware
 * follows several rows badly), and of scales and zero biases, which hardware does not follow at all. 4-bit weights come to L2
 * first and to L1 shortly before their use: quicker where two cores fill one way to memory. */
#define AHEAD 8192
#define AHEAD_L1 2048
#define AHEAD_L2 (AHEAD_L1 + 8192)
#define AHEAD_SCALES 1024

/* The part of a call that one block of rows works on. */
struct task {
    const struct oc_weight *w;
    const struct oc_dot_x *x;
    int64_t row; /* first row of w */
    int i;       /* first row of x */
    float *out;  /* of (row, i) */
    int64_t ldo;
};

static inline __attribute__((always_inline)) void store(const struct task *t, __m512 acc[MAX_R][MAX_M],
                                                        const int R, const int M) {
#pragma GCC unroll 4
    for (int m = 0; m < M; m++) {
        float *out = t->out + m * t->ldo;
        if (R == 4) {
            _mm_storeu_ps(out, oc_avx512_sum4(acc[0][m], acc[1][m], acc[2][m], acc[3][m]));
        } else {
            out[0] = oc_avx512_sum(acc[0][m]); /* R is 1 */
        }
    }
}

/* Scales or zero biases of n groups from `at` on. */
static inline __m512 load_groups(const uint8_t *p, enum oc_dtype dtype, int64_t at, int n) {
    p += (size_t)at * (dtype == OC_F32 ? 4 : 2);
    _mm_prefetch((const char *)p + AHEAD_SCALES, _MM_HINT_T0);
    return oc_avx512_load_float(p, dtype, oc_avx512_mask(n));
}

/* Weight j of a half word of each word, times 2^(bits*j). */
static inline __attribute__((always_inline)) __m512 unpack(__m512i words, const int bits, const int j) {
    const int mask = bits == 4 ? 15 : 255;
    if (bits == 4 && j == 0) { /* the low four bits are an index already */
        return _mm512_permutexvar_ps(words, _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    }
    return _mm512_cvtepi32_ps(_mm512_and_si512(words, _mm512_set1_epi32(mask << (bits * j))));
}

/* sum[r][m] = or += q[r] times vector j of x's rows. */
static inline __attribute__((always_inline)) void multiply(const __m512 q[MAX_R], const float *x, int64_t ldx,
                                                           __m512 sum[MAX_R][MAX_M], const int R, const int M,
                                                           const bool first) {
#pragma GCC unroll 4
    for (int m = 0; m < M; m++) {
        __m512 xv = _mm512_loadu_ps(x + m * ldx);
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            sum[r][m] = first ? _mm512_mul_ps(q[r], xv) : _mm512_fmadd_ps(q[r], xv, sum[r][m]);
        }
    }
}

/* One vector of words of each row: sums[r][m] = its product with x, one chain of FMAs for each. The words are
 * shifted once: a second set of masks would not fit the registers, and the sign bit stays out of the way. */
static inline __attribute__((always_inline)) void chunk(__m512i words[MAX_R], const float *x, int64_t ldx,
                                                        __m512 sums[MAX_R][MAX_M], const int R, const int M,
                                                        const int bits) {
    const int half = 16 / bits; /* weights of a half word */
    __m512 q[MAX_R];
#pragma GCC unroll 8
    for (int j = 0; j < 2 * half; j++) {
#pragma GCC unroll 4
        for (int r = 0; r < R && j == half; r++) words[r] = _mm512_srli_epi32(words[r], 16);
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) q[r] = unpack(words[r], bits, j % half);
        multiply(q, x + 16 * j, ldx, sums, R, M, j == 0);
    }
}

/* What `step` walks: sixteen groups of R rows of w. */
struct span {
    const uint8_t *p; /* first row's words */
    size_t row_bytes;
    const float *x;
    int64_t ldx;
    __m512 scales[MAX_R]; /* of the eight groups */
    __m512i log2_group;
    const uint8_t *ahead; /* next to prefetch */
};

/* One vector of words at weight `k` of the span; `left` weights remain when they are fewer than a vector holds. */
static inline __attribute__((always_inline)) void step(struct span *s, int k, int left, __m512i weight,
                                                       __m512 acc[MAX_R][MAX_M], const int R, const int M,
                                                       const int bits, const bool partial) {
    const uint8_t *at = s->p + (size_t)k * bits / 8;
    __m512i words[MAX_R];
    __m512 sums[MAX_R][MAX_M];
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
        const uint8_t *row = at + r * s->row_bytes;
        words[r] = partial ? _mm512_maskz_loadu_epi32(oc_avx512_mask(left * bits / 32), row)
                           : _mm512_loadu_si512(row);
        _mm_prefetch((const char *)s->ahead + 64 * r, _MM_HINT_T0);
        if (bits == 4) _mm_prefetch((const char *)s->ahead + (AHEAD_L2 - AHEAD_L1) + 64 * r, _MM_HINT_T1);
    }
    s->ahead += 64 * R;
    chunk(words, s->x + k, s->ldx, sums, R, M, bits);
    __m512i group = _mm512_srlv_epi32(weight, s->log2_group);
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
        __m512 scale = _mm512_permutexvar_ps(group, s->scales[r]);
#pragma GCC unroll 4
        for (int m = 0; m < M; m++) acc[r][m] = _mm512_fmadd_ps(scale, sums[r][m], acc[r][m]);
    }
}

static inline __attribute__((always_inline)) void quantised(const struct task *t, const int R, const int M,
                                                            const int bits) {
    const struct oc_weight *w = t->w;
    const int wide = 16 * 32 / bits; /* weights of a vector */
    const int64_t n_groups = w->k / w->group, lds = t->x->lds;
    const float *sums_x = t->x->sums + t->i * lds;
    const __m512i lane_weight = _mm512_mullo_epi32(
        _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), _mm512_set1_epi32(32 / bits));
    struct span s = {.row_bytes = oc_weight_row_bytes(w), .ldx = t->x->ldx};
    s.ahead = w->w + (size_t)(t->row + R) * s.row_bytes + (bits == 4 ? AHEAD_L1 : AHEAD);
    s.log2_group = _mm512_set1_epi32(__builtin_ctz(w->group));
    __m512 acc[MAX_R][MAX_M];
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
#pragma GCC unroll 4
        for (int m = 0; m < M; m++) acc[r][m] = _mm512_setzero_ps();
    }
    for (int64_t g = 0; g < n_groups; g += 16) {
        int n = n_groups - g < 16 ? (int)(n_groups - g) : 16;
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            s.scales[r] = load_groups(w->scales, w->dtype, (t->row + r) * n_groups + g, n);
            __m512 zero = load_groups(w->zero_biases, w->dtype, (t->row + r) * n_groups + g, n);
#pragma GCC unroll 4
            for (int m = 0; m < M; m++) {
                acc[r][m] = _mm512_fmadd_ps(zero, _mm512_loadu_ps(sums_x + m * lds + g), acc[r][m]);
            }
        }
        s.p = w->w + (size_t)t->row * s.row_bytes + (size_t)(g * w->group) * bits / 8;
        s.x = t->x->x + t->i * s.ldx + g * w->group;
        __m512i weight = lane_weight;
        int k = 0, end = n * w->group;
        for (; k + wide <= end; k += wide) {
            step(&s, k, wide, weight, acc, R, M, bits, false);
            weight = _mm512_add_epi32(weight, _mm512_set1_epi32(wide));
        }
        if (k < end) step(&s, k, end - k, weight, acc, R, M, bits, true);
    }
    store(t, acc, R, M);
}

static inline __attribute__((always_inline)) void plain(const struct task *t, const int R, const int M,
                                                        const enum oc_dtype dtype) {
    const int64_t k_all = t->w->k, ldx = t->x->ldx;
    const size_t bytes = dtype == OC_F32 ? 4 : 2, row_bytes = (size_t)k_all * bytes;
    const uint8_t *p = t->w->w + (size_t)t->row * row_bytes;
    const uint8_t *ahead = p + R * row_bytes + AHEAD;
    const float *x = t->x->x + t->i * ldx;
    __m512 acc[MAX_R][MAX_M];
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
#pragma GCC unroll 4
        for (int m = 0; m < M; m++) acc[r][m] = _mm512_setzero_ps();
    }
    for (int64_t k = 0; k < k_all; k += 16) {
        __m512 wv[MAX_R];
        const uint8_t *at = p + (size_t)k * bytes;
#pragma GCC unroll 4
        for (int r = 0; r < R; r++, at += row_bytes) {
            wv[r] = oc_avx512_load_float(at, dtype, oc_avx512_mask(k_all - k));
            _mm_prefetch((const char *)ahead + 16 * (size_t)r * bytes, _MM_HINT_T0);
        }
        ahead += 16 * R * bytes;
#pragma GCC unroll 4
        for (int m = 0; m < M; m++) {
            __m512 xv = _mm512_loadu_ps(x + m * ldx + k);
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) acc[r][m] = _mm512_fmadd_ps(wv[r], xv, acc[r][m]);
        }
    }
    store(t, acc, R, M);
}

static inline __attribute__((always_inline)) void block(const struct task *t, const int R, const int M,
                                                        const enum format f) {
    if (f == Q4) quantised(t, R, M, 4);
    if (f == Q8) quantised(t, R, M, 8);
    if (f == PLAIN_F32) plain(t, R, M, OC_F32);
    if (f == PLAIN_F16) plain(t, R, M, OC_F16);
    if (f == PLAIN_BF16) plain(t, R, M, OC_BF16);
}

/* How many of the m rows of x that are left to take together: 3 and 3 of 6 are 10 % faster than 4 and 2. */
static int step_of(int m) {
    return m >= 7 || m == 4 ? 4 : m >= 3 ? 3 : m;
}

/* n rows of w, at most 4, against all m rows of x, one to four of these at a time. */
static inline __attribute__((always_inline)) void rows(struct task t, int n, int m, const enum format f) {
    const int64_t row = t.row;
    float *out = t.out;
    while (m > 0) {
        int step = step_of(m);
        for (int r = 0; r < n;) {
            t.row = row + r;
            t.out = out + r;
            if (n - r >= 4) {
                if (step == 4) block(&t, 4, 4, f);
                if (step == 3) block(&t, 4, 3, f);
                if (step == 2) block(&t, 4, 2, f);
                if (step == 1) block(&t, 4, 1, f);
                r += 4;
            } else {
                if (step == 4) block(&t, 1, 4, f);
                if (step == 3) block(&t, 1, 3, f);
                if (step == 2) block(&t, 1, 2, f);
                if (step == 1) block(&t, 1, 1, f);
                r += 1;
            }
        }
        t.i += step;
        out += step * t.ldo;
        m -= step;
    }
}

static void rows_q4(struct task t, int n, int m) {
    rows(t, n, m, Q4);
}

static void rows_q8(struct task t, int n, int m) {
    rows(t, n, m, Q8);
}

static void rows_f32(struct task t, int n, int m) {
    rows(t, n, m, PLAIN_F32);
}

static void rows_f16(struct task t, int n, int m) {
    rows(t, n, m, PLAIN_F16);
}

static void rows_bf16(struct task t, int n, int m) {
    rows(t, n, m, PLAIN_BF16);
}

void oc_avx512_dot(const struct oc_weight *w, int64_t n0, int n, const struct oc_dot_x *x, int m, float *out,
                 int64_t ldo) {
    for (int r = 0; r < n; r += 4) {
        struct task t = {.w = w, .x = x, .row = n0 + r, .out = out + r, .ldo = ldo};
        int some = n - r < 4 ? n - r : 4;
        if (w->bits == 4) {
            rows_q4(t, some, m);
        } else if (w->bits == 8) {
            rows_q8(t, some, m);
        } else if (w->dtype == OC_F32) {
            rows_f32(t, some, m);
        } else if (w->dtype == OC_F16) {
            rows_f16(t, some, m);
        } else {
            rows_bf16(t, some, m);
        }
    }
}
