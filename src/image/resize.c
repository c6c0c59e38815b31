#include "image/resize.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"

enum { PRECISION_BITS = 22 };

/* Vectors of the compiler: SSE4.1 on x86-64-v2, NEON on aarch64. Bytes are widened by interleaving with
 * zeros, which (unlike a conversion of four bytes) gcc turns into one instruction; it takes a little-endian
 * machine. */
typedef uint8_t u8x16 __attribute__((vector_size(16)));
typedef uint16_t u16x8 __attribute__((vector_size(16)));
typedef int32_t i32x4 __attribute__((vector_size(16)));

/* ---- Weights ------------------------------------------------------------------------------------------- */

/* For output i: weights[i * n_taps .. + count[i]] applies to inputs from first[i] on. */
struct weights {
    int n_out, n_taps;
    int *first, *count;
    int32_t *weights;
};

static double bilinear(double x) {
    x = fabs(x);
    return x < 1.0 ? 1.0 - x : 0.0;
}

/* Cubic convolution with a = -0.5 (Keys 1981). */
static double bicubic(double x) {
    const double a = -0.5;
    x = fabs(x);
    if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
    return 0.0;
}

static double sinc(double x) {
    if (x == 0.0) return 1.0;
    x = x * M_PI;
    return sin(x) / x;
}

static double lanczos3(double x) {
    return -3.0 <= x && x < 3.0 ? sinc(x) * sinc(x / 3) : 0.0;
}

struct filter {
    double (*at)(double x);
    double support;
};

static struct filter filter_of(enum oc_resample r) {
    if (r == OC_RESAMPLE_LANCZOS) return (struct filter){lanczos3, 3.0};
    if (r == OC_RESAMPLE_BILINEAR) return (struct filter){bilinear, 1.0};
    OC_ASSERT(r == OC_RESAMPLE_BICUBIC);
    return (struct filter){bicubic, 2.0};
}

static void weights_free(struct weights *w) {
    free(w->first);
    free(w->count);
    free(w->weights);
    memset(w, 0, sizeof *w);
}

/* The weights of one output in double, normalised to sum 1, then fixed point rounded away from zero. */
static void weights_fill(struct weights *w, int i, int n_in, double scale, struct filter f, double *tmp) {
    const double filter_scale = scale < 1.0 ? 1.0 : scale, support = f.support * filter_scale;
    const double centre = (i + 0.5) * scale, inverse = 1.0 / filter_scale;
    int first = (int)(centre - support + 0.5), end = (int)(centre + support + 0.5);
    double sum = 0.0;
    if (first < 0) first = 0;
    if (end > n_in) end = n_in;
    w->first[i] = first;
    w->count[i] = end - first;
    for (int x = 0; x < end - first; x++) sum += tmp[x] = f.at((x + first - centre + 0.5) * inverse);
    int32_t *out = w->weights + (size_t)i * (size_t)w->n_taps;
    for (int x = 0; x < end - first; x++) {
        const double v = (sum != 0.0 ? tmp[x] / sum : tmp[x]) * (1 << PRECISION_BITS);
        out[x] = (int32_t)(v < 0 ? v - 0.5 : v + 0.5);
    }
}

/* False when out of memory; nothing is then left allocated. */
static bool weights_init(struct weights *w, int n_in, int n_out, struct filter f) {
    const double scale = (double)n_in / n_out;
    const double support = f.support * (scale < 1.0 ? 1.0 : scale);
    w->n_out = n_out;
    w->n_taps = (int)ceil(support) * 2 + 1;
    w->first = malloc((size_t)n_out * sizeof *w->first);
    w->count = malloc((size_t)n_out * sizeof *w->count);
    w->weights = calloc((size_t)n_out * (size_t)w->n_taps, sizeof *w->weights);
    double *tmp = malloc((size_t)w->n_taps * sizeof *tmp);
    const bool ok = w->first && w->count && w->weights && tmp;
    for (int i = 0; ok && i < n_out; i++) weights_fill(w, i, n_in, scale, f, tmp);
    free(tmp);
    if (!ok) weights_free(w);
    return ok;
}

/* ---- Passes -------------------------------------------------------------------------------------------- */

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
    v >>= PRECISION_BITS;
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

static inline i32x4 clip_lanes(i32x4 v) {
    v >>= PRECISION_BITS;
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

/* Four rows at once, so that each weight is fetched once for all. Rows must be readable one byte past their
 * last pixel: four bytes are loaded at a time and the fourth lane is thrown away. */
static void rows_resample(const uint8_t *const in[4], const struct weights *w, uint8_t *const out[4]) {
    const i32x4 half = (i32x4){0} + (1 << (PRECISION_BITS - 1));
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

/* The width of n_rows rows of the picture, from `first_row` on. A last group of fewer than four rows repeats
 * its last one. False when out of memory. */
static bool resample_rows(const struct oc_image *in, int first_row, int n_rows, const struct weights *w,
                          uint8_t *out) {
    const size_t in_bytes = (size_t)in->width * 3, out_bytes = (size_t)w->n_out * 3;
    uint8_t *padded = malloc(in_bytes + 1); /* for the picture's last row, which has no byte behind it */
    if (!padded) return false;
    memcpy(padded, in->rgb + (size_t)(in->height - 1) * in_bytes, in_bytes);
    padded[in_bytes] = 0;
    for (int y = 0; y < n_rows; y += 4) {
        const uint8_t *from[4];
        uint8_t *to[4];
        for (int i = 0; i < 4; i++) {
            const int row = y + i < n_rows ? y + i : n_rows - 1, in_row = first_row + row;
            from[i] = in_row == in->height - 1 ? padded : in->rgb + (size_t)in_row * in_bytes;
            to[i] = out + (size_t)row * out_bytes;
        }
        rows_resample(from, w, to);
    }
    free(padded);
    return true;
}

/* 16 bytes of one output row from n rows of input, `stride` bytes apart. */
static inline void column_block(const uint8_t *in, size_t stride, const int32_t *k, int n, uint8_t *out) {
    const i32x4 half = (i32x4){0} + (1 << (PRECISION_BITS - 1));
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

/* in: rows of row_bytes bytes, the first of them being row `first_row` of what the weights count from. */
static void resample_columns(const uint8_t *in, size_t row_bytes, int first_row, const struct weights *w,
                             uint8_t *out) {
    for (int y = 0; y < w->n_out; y++, out += row_bytes) {
        const uint8_t *rows = in + (size_t)(w->first[y] - first_row) * row_bytes;
        const int32_t *k = w->weights + (size_t)y * (size_t)w->n_taps;
        const int n = w->count[y];
        size_t x = 0;
        for (; x + 16 <= row_bytes; x += 16) column_block(rows + x, row_bytes, k, n, out + x);
        for (; x < row_bytes; x++) {
            int32_t sum = 1 << (PRECISION_BITS - 1);
            for (int i = 0; i < n; i++) sum += rows[(size_t)i * row_bytes + x] * k[i];
            out[x] = clip8(sum);
        }
    }
}

/* ---- Whole pictures ------------------------------------------------------------------------------------ */

/* Pillow adds the step up in double rather than multiply, which decides between neighbours now and then. */
static void nearest(const struct oc_image *in, struct oc_image *out) {
    const double step_x = (double)in->width / out->width, step_y = (double)in->height / out->height;
    double at_y = step_y * 0.5;
    uint8_t *q = out->rgb;
    for (int y = 0; y < out->height; y++, at_y += step_y) {
        const int in_y = (int)at_y < in->height ? (int)at_y : in->height - 1;
        const uint8_t *row = in->rgb + (size_t)in_y * (size_t)in->width * 3;
        double at_x = step_x * 0.5;
        for (int x = 0; x < out->width; x++, q += 3, at_x += step_x) {
            const int in_x = (int)at_x < in->width ? (int)at_x : in->width - 1;
            memcpy(q, row + (size_t)in_x * 3, 3);
        }
    }
}

/* Columns of pixels are one pass (wx), rows of pixels the other (wy); a pass without weights is skipped. The
 * first pass computes only the rows that the second one reads. */
static bool width_then_height(const struct oc_image *in, const struct weights *wx, const struct weights *wy,
                              struct oc_image *out) {
    if (!wy->n_out) return resample_rows(in, 0, in->height, wx, out->rgb);
    if (!wx->n_out) {
        resample_columns(in->rgb, (size_t)in->width * 3, 0, wy, out->rgb);
        return true;
    }
    const int first = wy->first[0], last = wy->n_out - 1;
    const int n_rows = wy->first[last] + wy->count[last] - first;
    uint8_t *tmp = malloc((size_t)n_rows * (size_t)out->width * 3);
    const bool ok = tmp && resample_rows(in, first, n_rows, wx, tmp);
    if (ok) resample_columns(tmp, (size_t)out->width * 3, first, wy, out->rgb);
    free(tmp);
    return ok;
}

static bool height_then_width(const struct oc_image *in, const struct weights *wx, const struct weights *wy,
                              struct oc_image *out) {
    struct oc_image tmp = {in->width, out->height, malloc((size_t)in->width * (size_t)out->height * 3)};
    if (tmp.rgb) resample_columns(in->rgb, (size_t)in->width * 3, 0, wy, tmp.rgb);
    const bool ok = tmp.rgb && resample_rows(&tmp, 0, tmp.height, wx, out->rgb);
    free(tmp.rgb);
    return ok;
}

/* Pillow up to 12 always does the width first; from 13 on the height comes first when it shrinks by more than
 * twice as many pixels as the width does. The 8-bit rounding between the passes makes the order visible. */
static bool is_height_first(const struct oc_image *in, const struct oc_image *out) {
    return in->height > out->height && in->height - out->height > 2 * (in->width - out->width);
}

static bool two_passes(const struct oc_image *in, struct filter f, struct oc_image *out) {
    struct weights wx = {0}, wy = {0};
    bool ok = in->width == out->width || weights_init(&wx, in->width, out->width, f);
    ok = ok && (in->height == out->height || weights_init(&wy, in->height, out->height, f));
    if (ok && wx.n_out && wy.n_out && is_height_first(in, out))
        ok = height_then_width(in, &wx, &wy, out);
    else if (ok)
        ok = width_then_height(in, &wx, &wy, out);
    weights_free(&wx);
    weights_free(&wy);
    return ok;
}

enum oc_err oc_image_resize(const struct oc_image *in, int width, int height, enum oc_resample filter,
                            struct oc_image *out, struct oc_errinfo *ei) {
    memset(out, 0, sizeof *out);
    if (width < 1 || height < 1 || width > OC_LIMIT_IMAGE_SIDE_PX || height > OC_LIMIT_IMAGE_SIDE_PX ||
        (uint64_t)width * (uint64_t)height > OC_LIMIT_IMAGE_PIXELS)
        return oc_fail(ei, OC_ERR_LIMIT, "a picture cannot be resized to %d x %d pixels", width, height);
    const size_t n_bytes = (size_t)width * (size_t)height * 3;
    *out = (struct oc_image){width, height, malloc(n_bytes)};
    bool ok = out->rgb != NULL;
    if (ok && in->width == width && in->height == height)
        memcpy(out->rgb, in->rgb, n_bytes);
    else if (ok && filter == OC_RESAMPLE_NEAREST)
        nearest(in, out);
    else if (ok)
        ok = two_passes(in, filter_of(filter), out);
    if (ok) return OC_OK;
    oc_image_free(out);
    return oc_fail(ei, OC_ERR_NOMEM, "out of memory for resizing a picture to %d x %d pixels", width, height);
}
