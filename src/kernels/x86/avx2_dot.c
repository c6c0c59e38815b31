/* Role D: weight rows straight from the mapping, dotted with a few rows of x.
 *
 * 8 quantised weights cost an AND, a conversion and, per row of x, an FMA: the place of q inside its word is undone
 * by x's factors (struct oc_dot_x), so q stays exact. A group's sum is scaled once; zero_bias meets the group sums
 * of x eight groups at a time. Two to four rows of W, with one or two of x, share loads of x and the unpacking:
 * that changes no sum's order. */
#include "kernels/x86/avx2.h"

enum format { Q4, Q8, PLAIN_F32, PLAIN_F16, PLAIN_BF16 };

#define MAX_R 4
#define MAX_M 2
/* Bytes by which the prefetch runs ahead: of w beyond the block of rows at work, in the order of memory (hardware
 * follows several rows badly), and of scales and zero biases, which hardware does not follow at all. */
#define AHEAD 8192
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

static inline float sum8(__m256 v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

static inline __attribute__((always_inline)) void store(const struct task *t, __m256 acc[MAX_R][MAX_M],
                                                        const int R, const int M) {
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
#pragma GCC unroll 4
        for (int m = 0; m < M; m++) t->out[m * t->ldo + r] = sum8(acc[r][m]);
    }
}

/* Scales or zero biases of n groups from `at` on. */
static inline __m256 load_groups(const uint8_t *p, enum oc_dtype dtype, int64_t at, int n) {
    p += (size_t)at * (dtype == OC_F32 ? 4 : 2);
    _mm_prefetch((const char *)p + AHEAD_SCALES, _MM_HINT_T0);
    return n == 8 ? oc_avx2_load_float(p, dtype) : oc_avx2_load_float_tail(p, dtype, n);
}

/* Weight j of a half word of each word, times 2^(bits*j). */
static inline __attribute__((always_inline)) __m256 unpack(__m256i words, const int bits, const int j) {
    const int mask = bits == 4 ? 15 : 255;
    return _mm256_cvtepi32_ps(_mm256_and_si256(words, _mm256_set1_epi32(mask << (bits * j))));
}

/* sum[r][m] = or += q[r] times vector j of x's rows. */
static inline __attribute__((always_inline)) void multiply(const __m256 q[MAX_R], const float *x, int64_t ldx,
                                                           __m256 sum[MAX_R][MAX_M], const int R, const int M,
                                                           const bool first) {
#pragma GCC unroll 4
    for (int m = 0; m < M; m++) {
        __m256 xv = _mm256_loadu_ps(x + m * ldx);
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            sum[r][m] = first ? _mm256_mul_ps(q[r], xv) : _mm256_fmadd_ps(q[r], xv, sum[r][m]);
        }
    }
}

/* One vector of words of each row: sums[r][m] = its product with x, even and odd j apart (two short chains of
 * FMAs instead of a long one), then added. The words are shifted once: a second set of masks would not fit the
 * registers, and the sign bit stays out of the way. */
static inline __attribute__((always_inline)) void chunk(__m256i words[MAX_R], const float *x, int64_t ldx,
                                                        __m256 sums[MAX_R][MAX_M], const int R, const int M,
                                                        const int bits) {
    const int half = 16 / bits; /* weights of a half word */
    __m256 odd[MAX_R][MAX_M], q[MAX_R];
#pragma GCC unroll 8
    for (int j = 0; j < 2 * half; j += 2) {
#pragma GCC unroll 4
        for (int r = 0; r < R && j == half; r++) words[r] = _mm256_srli_epi32(words[r], 16);
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) q[r] = unpack(words[r], bits, j % half);
        multiply(q, x + 8 * j, ldx, sums, R, M, j == 0);
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) q[r] = unpack(words[r], bits, (j + 1) % half);
        multiply(q, x + 8 * (j + 1), ldx, odd, R, M, j == 0);
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
#pragma GCC unroll 4
        for (int m = 0; m < M; m++) sums[r][m] = _mm256_add_ps(sums[r][m], odd[r][m]);
    }
}

/* What `step` walks: eight groups of R rows of w. */
struct span {
    const uint8_t *p; /* first row's words */
    size_t row_bytes;
    const float *x;
    int64_t ldx;
    __m256 scales[MAX_R]; /* of the eight groups */
    __m256i log2_group;
    const uint8_t *ahead; /* next to prefetch */
};

/* One vector of words at weight `k` of the span; `left` weights remain when they are fewer than a vector holds. */
static inline __attribute__((always_inline)) void step(struct span *s, int k, int left, __m256i weight,
                                                       __m256 acc[MAX_R][MAX_M], const int R, const int M,
                                                       const int bits, const bool partial) {
    const uint8_t *at = s->p + (size_t)k * bits / 8;
    __m256i words[MAX_R];
    __m256 sums[MAX_R][MAX_M];
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
        const uint8_t *row = at + r * s->row_bytes;
        words[r] = partial ? _mm256_maskload_epi32((const int *)(const void *)row, oc_avx2_mask(left * bits / 32))
                           : oc_avx2_load(row);
        _mm_prefetch((const char *)s->ahead + 32 * r, _MM_HINT_T0);
    }
    s->ahead += 32 * R;
    chunk(words, s->x + k, s->ldx, sums, R, M, bits);
    __m256i group = _mm256_srlv_epi32(weight, s->log2_group);
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
        __m256 scale = _mm256_permutevar8x32_ps(s->scales[r], group);
#pragma GCC unroll 4
        for (int m = 0; m < M; m++) acc[r][m] = _mm256_fmadd_ps(scale, sums[r][m], acc[r][m]);
    }
}

static inline __attribute__((always_inline)) void quantised(const struct task *t, const int R, const int M,
                                                            const int bits) {
    const struct oc_weight *w = t->w;
    const int wide = 8 * 32 / bits; /* weights of a vector */
    const int64_t n_groups = w->k / w->group, lds = t->x->lds;
    const float *sums_x = t->x->sums + t->i * lds;
    const __m256i lane_weight = _mm256_mullo_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7),
                                                   _mm256_set1_epi32(32 / bits));
    struct span s = {.row_bytes = oc_weight_row_bytes(w), .ldx = t->x->ldx};
    s.ahead = w->w + (size_t)(t->row + R) * s.row_bytes + AHEAD;
    s.log2_group = _mm256_set1_epi32(__builtin_ctz(w->group));
    __m256 acc[MAX_R][MAX_M];
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
#pragma GCC unroll 4
        for (int m = 0; m < M; m++) acc[r][m] = _mm256_setzero_ps();
    }
    for (int64_t g = 0; g < n_groups; g += 8) {
        int n = n_groups - g < 8 ? (int)(n_groups - g) : 8;
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            s.scales[r] = load_groups(w->scales, w->dtype, (t->row + r) * n_groups + g, n);
            __m256 zero = load_groups(w->zero_biases, w->dtype, (t->row + r) * n_groups + g, n);
#pragma GCC unroll 4
            for (int m = 0; m < M; m++) {
                acc[r][m] = _mm256_fmadd_ps(zero, _mm256_loadu_ps(sums_x + m * lds + g), acc[r][m]);
            }
        }
        s.p = w->w + (size_t)t->row * s.row_bytes + (size_t)(g * w->group) * bits / 8;
        s.x = t->x->x + t->i * s.ldx + g * w->group;
        __m256i weight = lane_weight;
        int k = 0, end = n * w->group;
        for (; k + wide <= end; k += wide) {
            step(&s, k, wide, weight, acc, R, M, bits, false);
            weight = _mm256_add_epi32(weight, _mm256_set1_epi32(wide));
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
    __m256 acc[MAX_R][MAX_M];
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
#pragma GCC unroll 4
        for (int m = 0; m < M; m++) acc[r][m] = _mm256_setzero_ps();
    }
    for (int64_t k = 0; k < k_all; k += 8) {
        __m256 wv[MAX_R];
        const uint8_t *at = p + (size_t)k * bytes;
#pragma GCC unroll 4
        for (int r = 0; r < R; r++, at += row_bytes) {
            wv[r] = k_all - k >= 8 ? oc_avx2_load_float(at, dtype)
                                   : oc_avx2_load_float_tail(at, dtype, (int)(k_all - k));
            _mm_prefetch((const char *)ahead + 8 * (size_t)r * bytes, _MM_HINT_T0);
        }
        ahead += 8 * R * bytes;
#pragma GCC unroll 4
        for (int m = 0; m < M; m++) {
            __m256 xv = _mm256_loadu_ps(x + m * ldx + k);
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) acc[r][m] = _mm256_fmadd_ps(wv[r], xv, acc[r][m]);
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

/* n rows of w, at most 4, against all m rows of x, one or two of these at a time. */
static inline __attribute__((always_inline)) void rows(struct task t, int n, int m, const enum format f) {
    const int wide = f == Q4 || f == Q8 ? 2 : 4; /* quantised: more would spill, measured 15 % slower */
    const int64_t row = t.row;
    float *out = t.out;
    while (m > 0) {
        int step = m >= 2 ? 2 : 1;
        for (int r = 0; r < n;) {
            t.row = row + r;
            t.out = out + r;
            if (step == 1 && n - r >= wide) {
                block(&t, wide, 1, f);
                r += wide;
            } else if (step == 2 && n - r >= 2) {
                block(&t, 2, 2, f);
                r += 2;
            } else {
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

void oc_avx2_dot(const struct oc_weight *w, int64_t n0, int n, const struct oc_dot_x *x, int m, float *out,
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
