/* Resampling with AVX-512 VNNI and VBMI: four taps in one VPDPBUSD for each byte of the weights.
 *
 * A weight is k0 + 2^8 k1 + 2^16 k2 with signed bytes, and so is the sum of products; pixels stay bytes. In a
 * row the taps of 16 neighbouring bytes of the result lie within 64 bytes of the input unless it shrinks to
 * less than a third: one permutation brings them to their lanes. Rows of more than that go the way of AVX2.
 */
#include "image/resample.h"

#include <immintrin.h>
#include <stdlib.h>
#include <string.h>

enum { TAPS = 4, LANES = 16, REACH = 64 };

/* By hand: around the intrinsic gcc 12 copies every sum. */
static inline __attribute__((always_inline)) __m512i add_products(__m512i sum, __m512i bytes,
                                                                  __m512i weights) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(bytes), "v"(weights));
    return sum;
}

/* The three bytes of a weight. False when it needs more. */
static inline bool split(int32_t k, int8_t part[3]) {
    part[0] = (int8_t)(uint8_t)k;
    k = (k - part[0]) / 256;
    part[1] = (int8_t)(uint8_t)k;
    k = (k - part[1]) / 256;
    part[2] = (int8_t)(uint8_t)k;
    return k == part[2];
}

/* 16 sums to bytes. */
static inline __attribute__((always_inline)) __m128i finish(const __m512i s[3]) {
    const __m512i half = _mm512_set1_epi32(1 << (OC_IMAGE_WEIGHT_BITS - 1));
    __m512i v = _mm512_add_epi32(_mm512_add_epi32(s[0], half), _mm512_slli_epi32(s[1], 8));
    v = _mm512_srai_epi32(_mm512_add_epi32(v, _mm512_slli_epi32(s[2], 16)), OC_IMAGE_WEIGHT_BITS);
    return _mm512_cvtusepi32_epi8(_mm512_max_epi32(v, _mm512_setzero_si512()));
}

/* ---- Rows ---------------------------------------------------------------------------------------------- */

/* 16 bytes of the result, starting with byte 16 b. The weights of its groups of taps begin at `weights`. */
struct block {
    uint32_t from, n_groups; /* byte of the input row that order counts from */
    size_t weights;
    int8_t order[REACH];
};

struct prepared {
    int n_blocks;
    struct block *blocks;
    int8_t (*weights)[3][REACH]; /* [group][part]: four taps for each lane */
};

/* False when the taps of the block do not lie close enough together. */
static bool plan_block(const struct oc_image_weights *w, int b, struct block *out) {
    const int n_bytes = 3 * w->n_out, begin = b * LANES,
              end = begin + LANES < n_bytes ? begin + LANES : n_bytes;
    const int first = w->first[begin / 3];
    int most = 0;
    memset(out->order, 0, sizeof out->order);
    for (int i = begin; i < end; i++) {
        const int at = w->first[i / 3] - first;
        if (3 * (at + TAPS) > REACH) return false;
        if (w->count[i / 3] > most) most = w->count[i / 3];
        for (int t = 0; t < TAPS; t++) out->order[(i - begin) * TAPS + t] = (int8_t)(3 * (at + t) + i % 3);
    }
    out->from = 3u * (unsigned)first;
    out->n_groups = (uint32_t)((most + TAPS - 1) / TAPS);
    return true;
}

static bool fill_weights(const struct oc_image_weights *w, int b, const struct block *block,
                         int8_t (*out)[3][REACH]) {
    memset(out, 0, block->n_groups * sizeof *out);
    for (int lane = 0; lane < LANES && b * LANES + lane < 3 * w->n_out; lane++) {
        const int i = (b * LANES + lane) / 3;
        for (int t = 0; t < w->count[i]; t++) {
            int8_t part[3];
            if (!split(w->weights[(size_t)i * (size_t)w->n_taps + (size_t)t], part)) return false;
            for (int p = 0; p < 3; p++) out[t / TAPS][p][lane * TAPS + t % TAPS] = part[p];
        }
    }
    return true;
}

/* One piece of memory for all. Weights that do not fit leave nothing prepared. */
static bool prepare(struct oc_image_weights *w) {
    const int n_blocks = (3 * w->n_out + LANES - 1) / LANES;
    const size_t most_groups = (size_t)n_blocks * (size_t)((w->n_taps + TAPS - 1) / TAPS);
    const size_t head = (sizeof(struct prepared) + REACH - 1) / REACH * REACH;
    const size_t weights_bytes = most_groups * sizeof(int8_t[3][REACH]);
    uint8_t *memory = aligned_alloc(
        REACH, head + weights_bytes + ((size_t)n_blocks * sizeof(struct block) + REACH - 1) / REACH * REACH);
    if (!memory) return false;
    struct prepared *p = w->prepared = memory;
    p->n_blocks = n_blocks;
    p->weights = (void *)(memory + head);
    p->blocks = (void *)(memory + head + weights_bytes);
    size_t n_groups = 0;
    bool fits = true;
    for (int b = 0; fits && b < n_blocks; b++) {
        struct block *block = &p->blocks[b];
        fits = plan_block(w, b, block) && fill_weights(w, b, block, p->weights + n_groups);
        if (fits) block->weights = n_groups, n_groups += block->n_groups;
    }
    if (fits) return true;
    free(memory);
    w->prepared = NULL;
    return true;
}

static inline __attribute__((always_inline)) void do_block(const struct prepared *p, const struct block *b,
                                                           const uint8_t *const in[4], __m128i out[4]) {
    const __m512i zero = _mm512_setzero_si512(), order = _mm512_loadu_si512(b->order);
    __m512i s[4][3] = {{zero, zero, zero}, {zero, zero, zero}, {zero, zero, zero}, {zero, zero, zero}};
    for (uint32_t g = 0; g < b->n_groups; g++) {
        const int8_t(*k)[REACH] = p->weights[b->weights + g];
        const __m512i k0 = _mm512_load_si512(k[0]), k1 = _mm512_load_si512(k[1]),
                      k2 = _mm512_load_si512(k[2]);
        for (int i = 0; i < 4; i++) {
            const __m512i v =
                _mm512_permutexvar_epi8(order, _mm512_loadu_si512(in[i] + b->from + 3 * TAPS * g));
            s[i][0] = add_products(s[i][0], v, k0);
            s[i][1] = add_products(s[i][1], v, k1);
            s[i][2] = add_products(s[i][2], v, k2);
        }
    }
    for (int i = 0; i < 4; i++) out[i] = finish(s[i]);
}

static void rows(const uint8_t *const in[4], const struct oc_image_weights *w, uint8_t *const out[4]) {
    const struct prepared *p = w->prepared;
    __m128i v[4];
    if (!p) {
        oc_image_resample_avx2.rows(in, w, out);
        return;
    }
    const size_t n_bytes = 3 * (size_t)w->n_out, n_whole = n_bytes / LANES;
    for (size_t b = 0; b < n_whole; b++) {
        do_block(p, &p->blocks[b], in, v);
        for (int i = 0; i < 4; i++) _mm_storeu_si128((__m128i *)(out[i] + b * LANES), v[i]);
    }
    if (n_whole * LANES == n_bytes) return;
    const __mmask16 mask = (__mmask16)((1u << (n_bytes % LANES)) - 1);
    do_block(p, &p->blocks[n_whole], in, v);
    for (int i = 0; i < 4; i++) _mm_mask_storeu_epi8(out[i] + n_whole * LANES, mask, v[i]);
}

/* ---- Columns ------------------------------------------------------------------------------------------- */

/* Four weights as they stand in every lane; those behind the n-th are 0. */
struct column_weights {
    int32_t part[3];
};

static bool split_column(const int32_t *k, int n, struct column_weights *out) {
    int8_t part[3][TAPS] = {{0}};
    for (int t = 0; t < n && t < TAPS; t++) {
        int8_t one[3];
        if (!split(k[t], one)) return false;
        for (int p = 0; p < 3; p++) part[p][t] = one[p];
    }
    memcpy(out->part, part, sizeof part);
    return true;
}

/* Bytes at p, the n_bytes first of a block of 64. */
static inline __attribute__((always_inline)) __m512i load(const uint8_t *p, __mmask64 mask) {
    return _mm512_maskz_loadu_epi8(mask, p);
}

/* Up to 64 bytes of the result. Interleaving works within quarters of 16 bytes, and so does taking it apart.
 */
static inline __attribute__((always_inline)) void column_block(const uint8_t *in, size_t stride,
                                                               const struct column_weights *k, int n,
                                                               __mmask64 mask, uint8_t *out) {
    const __m512i zero = _mm512_setzero_si512();
    __m512i s[4][3] = {{zero, zero, zero}, {zero, zero, zero}, {zero, zero, zero}, {zero, zero, zero}};
    for (int y = 0; y < n; y += TAPS, k++, in += TAPS * stride) {
        const int last =
            n - y < TAPS ? n - y - 1 : TAPS - 1; /* its weight is 0 where it stands for another */
        const __m512i r0 = load(in, mask), r1 = load(in + (last < 1 ? 0 : 1) * stride, mask);
        const __m512i r2 = load(in + (size_t)(last < 2 ? 0 : 2) * stride, mask);
        const __m512i r3 = load(in + (size_t)(last < 3 ? 0 : 3) * stride, mask);
        const __m512i low01 = _mm512_unpacklo_epi8(r0, r1), high01 = _mm512_unpackhi_epi8(r0, r1);
        const __m512i low23 = _mm512_unpacklo_epi8(r2, r3), high23 = _mm512_unpackhi_epi8(r2, r3);
        const __m512i v[4] = {_mm512_unpacklo_epi16(low01, low23), _mm512_unpackhi_epi16(low01, low23),
                              _mm512_unpacklo_epi16(high01, high23), _mm512_unpackhi_epi16(high01, high23)};
        for (int p = 0; p < 3; p++) {
            const __m512i weights = _mm512_set1_epi32(k->part[p]);
            for (int i = 0; i < 4; i++) s[i][p] = add_products(s[i][p], v[i], weights);
        }
    }
    const __m512i half = _mm512_set1_epi32(1 << (OC_IMAGE_WEIGHT_BITS - 1));
    __m512i v[4];
    for (int i = 0; i < 4; i++) {
        v[i] = _mm512_add_epi32(_mm512_add_epi32(s[i][0], half), _mm512_slli_epi32(s[i][1], 8));
        v[i] =
            _mm512_srai_epi32(_mm512_add_epi32(v[i], _mm512_slli_epi32(s[i][2], 16)), OC_IMAGE_WEIGHT_BITS);
    }
    const __m512i low = _mm512_packus_epi32(v[0], v[1]), high = _mm512_packus_epi32(v[2], v[3]);
    _mm512_mask_storeu_epi8(out, mask, _mm512_packus_epi16(low, high));
}

static void columns(const uint8_t *in, size_t stride, const int32_t *k, int n, size_t n_bytes, uint8_t *out) {
    enum { MOST_GROUPS = 64 };
    struct column_weights weights[MOST_GROUPS];
    bool fits = n <= MOST_GROUPS * TAPS;
    for (int y = 0; fits && y < n; y += TAPS) fits = split_column(k + y, n - y, &weights[y / TAPS]);
    if (!fits) {
        oc_image_resample_avx2.columns(in, stride, k, n, n_bytes, out);
        return;
    }
    size_t x = 0;
    for (; x + REACH <= n_bytes; x += REACH) column_block(in + x, stride, weights, n, ~(__mmask64)0, out + x);
    if (x < n_bytes) column_block(in + x, stride, weights, n, ((__mmask64)1 << (n_bytes - x)) - 1, out + x);
}

static bool is_supported(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni") &&
           __builtin_cpu_supports("avx512vbmi");
}

const struct oc_image_resample oc_image_resample_avx512vbmi = {
    .name = "avx512vbmi", .is_supported = is_supported, .prepare = prepare, .rows = rows, .columns = columns};
