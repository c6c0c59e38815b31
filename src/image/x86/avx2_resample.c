/* Resampling with AVX2. Weights of 23 or 24 bits are cut into a high part and a low part of 15 bits, for
 * VPMADDWD. */
#include "image/resample.h"

#include <immintrin.h>
#include <string.h>

enum { LOW_BITS = 15 };

static inline uint8_t clip8(int32_t v) {
    v >>= OC_IMAGE_WEIGHT_BITS;
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

/* ---- Rows ---------------------------------------------------------------------------------------------- */

/* 16 bytes of each of two rows. */
static inline __m256i load_two(const uint8_t *a, const uint8_t *b) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)a)),
                                   _mm_loadu_si128((const __m128i *)b), 1);
}

/* Two weights for two neighbouring pixels, as high and low words in every lane. */
static inline void split(const int32_t *k, __m256i *high, __m256i *low) {
    const int32_t mask = (1 << LOW_BITS) - 1;
    *high = _mm256_set1_epi32((int32_t)((uint32_t)(k[1] >> LOW_BITS) << 16 | (uint16_t)(k[0] >> LOW_BITS)));
    *low = _mm256_set1_epi32((k[1] & mask) << 16 | (k[0] & mask));
}

struct sums {
    __m256i high[2], low[2]; /* of rows 0 and 1, 2 and 3 */
};

static inline void add_pair(struct sums *s, const __m256i v[2], __m256i order, const int32_t *k) {
    __m256i high, low;
    split(k, &high, &low);
    for (int i = 0; i < 2; i++) {
        const __m256i pair = _mm256_shuffle_epi8(v[i], order);
        s->high[i] = _mm256_add_epi32(s->high[i], _mm256_madd_epi16(pair, high));
        s->low[i] = _mm256_add_epi32(s->low[i], _mm256_madd_epi16(pair, low));
    }
}

/* Two pixels of three bytes in each half become three pairs of words. */
static inline __m256i pair_order(int first) {
    const __m128i one = _mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1);
    const __m128i zero = _mm_cmplt_epi8(one, _mm_setzero_si128());
    return _mm256_broadcastsi128_si256(_mm_or_si128(_mm_add_epi8(one, _mm_set1_epi8((char)first)), zero));
}

static inline void store_pixel(uint8_t *out, uint32_t v) {
    memcpy(out, &v, 2);
    out[2] = (uint8_t)(v >> 16);
}

/* Sums of two rows to two pixels. */
static inline void store_two(uint8_t *a, uint8_t *b, __m256i high, __m256i low) {
    __m256i v = _mm256_add_epi32(_mm256_slli_epi32(high, LOW_BITS), low);
    v = _mm256_srai_epi32(_mm256_add_epi32(v, _mm256_set1_epi32(1 << (OC_IMAGE_WEIGHT_BITS - 1))),
                          OC_IMAGE_WEIGHT_BITS);
    v = _mm256_packus_epi32(v, v);
    v = _mm256_packus_epi16(v, v);
    store_pixel(a, (uint32_t)_mm256_extract_epi32(v, 0));
    store_pixel(b, (uint32_t)_mm256_extract_epi32(v, 4));
}

static void rows(const uint8_t *const in[4], const struct oc_image_weights *w, uint8_t *const out[4]) {
    const __m256i order01 = pair_order(0), order23 = pair_order(6);
    for (int i = 0; i < w->n_out; i++) {
        const int32_t *k = w->weights + (size_t)i * (size_t)w->n_taps;
        const size_t first = 3 * (size_t)w->first[i], to = 3 * (size_t)i;
        const int n = w->count[i];
        struct sums s = {{_mm256_setzero_si256(), _mm256_setzero_si256()},
                         {_mm256_setzero_si256(), _mm256_setzero_si256()}};
        int t = 0;
        for (; t < n; t += 4) {
            const size_t at = first + 3 * (size_t)t;
            const __m256i v[2] = {load_two(in[0] + at, in[1] + at), load_two(in[2] + at, in[3] + at)};
            int32_t last[4] = {0};
            const int32_t *kt = k + t;
            if (n - t < 4) memcpy(last, kt, (size_t)(n - t) * sizeof *last), kt = last;
            add_pair(&s, v, order01, kt);
            if (n - t > 2) add_pair(&s, v, order23, kt + 2);
        }
        store_two(out[0] + to, out[1] + to, s.high[0], s.low[0]);
        store_two(out[2] + to, out[3] + to, s.high[1], s.low[1]);
    }
}

/* ---- Columns ------------------------------------------------------------------------------------------- */

static inline __m256i widen(const uint8_t *p) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
}

/* 32 bytes. */
static inline void column_block(const uint8_t *in, size_t stride, const int32_t *k, int n, uint8_t *out) {
    const __m256i half = _mm256_set1_epi32(1 << (OC_IMAGE_WEIGHT_BITS - 1));
    __m256i s[4] = {half, half, half, half};
    for (int y = 0; y < n; y++, in += stride) {
        const __m256i weight = _mm256_set1_epi32(k[y]);
        for (int i = 0; i < 4; i++)
            s[i] = _mm256_add_epi32(s[i], _mm256_mullo_epi32(widen(in + 8 * i), weight));
    }
    for (int i = 0; i < 4; i++) s[i] = _mm256_srai_epi32(s[i], OC_IMAGE_WEIGHT_BITS);
    const __m256i low = _mm256_packus_epi32(s[0], s[1]), high = _mm256_packus_epi32(s[2], s[3]);
    const __m256i bytes = _mm256_packus_epi16(low, high); /* the halves of each quarter stand apart */
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    _mm256_storeu_si256((__m256i *)out, _mm256_permutevar8x32_epi32(bytes, order));
}

static void columns(const uint8_t *in, size_t stride, const int32_t *k, int n, size_t n_bytes, uint8_t *out) {
    size_t x = 0;
    for (; x + 32 <= n_bytes; x += 32) column_block(in + x, stride, k, n, out + x);
    for (; x < n_bytes; x++) {
        int32_t sum = 1 << (OC_IMAGE_WEIGHT_BITS - 1);
        for (int i = 0; i < n; i++) sum += in[(size_t)i * stride + x] * k[i];
        out[x] = clip8(sum);
    }
}

static bool is_supported(void) {
    return __builtin_cpu_supports("avx2");
}

const struct oc_image_resample oc_image_resample_avx2 = {
    .name = "avx2", .is_supported = is_supported, .rows = rows, .columns = columns};
