#include "image/resample.h"

#include <string.h>

/* Vectors of the compiler: SSE4.1 on x86-64-v2, NEON on aarch64. Bytes are widened by interleaving with
 * zeros, which (unlike a conversion of four bytes) gcc turns into one instruction; it takes a little-endian
 * machine. */
typedef uint8_t u8x16 __attribute__((vector_size(16)));
typedef uint16_t u16x8 __attribute__((vector_size(16)));
typedef int32_t i32x4 __attribute__((vector_size(16)));

static inline u16x8 low_to_u16(u8x16 v) {
    return (u16x8)__builtin_shufflevector(v, (u8x16){0}, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7,
                                          23);
}

static inline u16x8 high_to_u16(u8x16 v) {
    return (u16x8)__builtin_shufflevector(v, (u8x16){0}, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30,
                                          15, 31);
}

static inline i32x4 low_to_i32(u16x8 v) {
    return (i32x4)__builtin_shufflevector(v, (u16x8){0}, 0, 8, 1, 9, 2, 10, 3, 11);
}

static inline i32x4 high_to_i32(u16x8 v) {
    return (i32x4)__builtin_shufflevector(v, (u16x8){0}, 4, 12, 5, 13, 6, 14, 7, 15);
}

/* Four bytes at p as integers. */
static inline i32x4 load_pixel(const uint8_t *p) {
    int32_t v;
    memcpy(&v, p, sizeof v);
    return low_to_i32(low_to_u16((u8x16)(i32x4){v, 0, 0, 0}));
}

static inline uint8_t clip8(int32_t v) {
    v >>= OC_IMAGE_WEIGHT_BITS;
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

static inline i32x4 clip_lanes(i32x4 v) {
    v >>= OC_IMAGE_WEIGHT_BITS;
    v &= v > 0;
    const i32x4 over = v > 255;
    return (v & ~over) | (over & 255);
}

static inline void store_pixel(uint8_t *out, i32x4 sum) {
    sum = clip_lanes(sum);
    out[0] = (uint8_t)sum[0];
    out[1] = (uint8_t)sum[1];
    out[2] = (uint8_t)sum[2];
}

/* Four rows at once, so that each weight is fetched once for all. Four bytes are loaded at a time and the
 * fourth lane is thrown away. */
static void rows(const uint8_t *const in[4], const struct oc_image_weights *w, uint8_t *const out[4]) {
    const i32x4 half = (i32x4){0} + (1 << (OC_IMAGE_WEIGHT_BITS - 1));
    for (int i = 0; i < w->n_out; i++) {
        const int32_t *k = w->weights + (size_t)i * (size_t)w->n_taps;
        const size_t n_bytes = 3 * (size_t)w->count[i], first = 3 * (size_t)w->first[i], to = 3 * (size_t)i;
        const uint8_t *p0 = in[0] + first, *p1 = in[1] + first, *p2 = in[2] + first, *p3 = in[3] + first;
        i32x4 sum0 = half, sum1 = half, sum2 = half, sum3 = half;
        for (size_t x = 0; x < n_bytes; x += 3, k++) {
            const i32x4 weight = (i32x4){0} + *k;
            sum0 += load_pixel(p0 + x) * weight;
            sum1 += load_pixel(p1 + x) * weight;
            sum2 += load_pixel(p2 + x) * weight;
            sum3 += load_pixel(p3 + x) * weight;
        }
        store_pixel(out[0] + to, sum0);
        store_pixel(out[1] + to, sum1);
        store_pixel(out[2] + to, sum2);
        store_pixel(out[3] + to, sum3);
    }
}

/* 16 bytes of one output row from n rows of input, `stride` bytes apart. */
static inline void column_block(const uint8_t *in, size_t stride, const int32_t *k, int n, uint8_t *out) {
    const i32x4 half = (i32x4){0} + (1 << (OC_IMAGE_WEIGHT_BITS - 1));
    i32x4 sum0 = half, sum1 = half, sum2 = half, sum3 = half;
    for (int y = 0; y < n; y++, in += stride) {
        u8x16 v;
        memcpy(&v, in, sizeof v);
        const u16x8 low = low_to_u16(v), high = high_to_u16(v);
        sum0 += low_to_i32(low) * k[y];
        sum1 += high_to_i32(low) * k[y];
        sum2 += low_to_i32(high) * k[y];
        sum3 += high_to_i32(high) * k[y];
    }
    const u16x8 low =
        __builtin_shufflevector((u16x8)clip_lanes(sum0), (u16x8)clip_lanes(sum1), 0, 2, 4, 6, 8, 10, 12, 14);
    const u16x8 high =
        __builtin_shufflevector((u16x8)clip_lanes(sum2), (u16x8)clip_lanes(sum3), 0, 2, 4, 6, 8, 10, 12, 14);
    const u8x16 bytes = __builtin_shufflevector((u8x16)low, (u8x16)high, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18,
                                                20, 22, 24, 26, 28, 30);
    memcpy(out, &bytes, sizeof bytes);
}

static void columns(const uint8_t *in, size_t stride, const int32_t *k, int n, size_t n_bytes, uint8_t *out) {
    size_t x = 0;
    for (; x + 16 <= n_bytes; x += 16) column_block(in + x, stride, k, n, out + x);
    for (; x < n_bytes; x++) {
        int32_t sum = 1 << (OC_IMAGE_WEIGHT_BITS - 1);
        for (int i = 0; i < n; i++) sum += in[(size_t)i * stride + x] * k[i];
        out[x] = clip8(sum);
    }
}

static bool always(void) {
    return true;
}

const struct oc_image_resample oc_image_resample_plain = {
    .name = "plain", .is_supported = always, .rows = rows, .columns = columns};

/* ---- Which one ----------------------------------------------------------------------------------------- */

static const struct oc_image_resample *const all[] = {
    &oc_image_resample_plain,
#if defined(__x86_64__)
    &oc_image_resample_avx2,
    &oc_image_resample_avx512vbmi,
#endif
};

const struct oc_image_resample *oc_image_resample_at(int i) {
    return i >= 0 && (size_t)i < sizeof all / sizeof *all ? all[i] : NULL;
}

const struct oc_image_resample *oc_image_resample_best(void) {
    const struct oc_image_resample *best = all[0];
    for (size_t i = 1; i < sizeof all / sizeof *all; i++)
        if (all[i]->is_supported()) best = all[i];
    return best;
}
