#include "image/resize.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/pages.h"
#include "image/resample.h"

/* ---- Weights ------------------------------------------------------------------------------------------- */

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

static void weights_free(struct oc_image_weights *w) {
    free(w->first);
    free(w->count);
    free(w->weights);
    free(w->prepared);
    memset(w, 0, sizeof *w);
}

/* The weights of one output in double, normalised to sum 1, then fixed point rounded away from zero. */
static void weights_fill(struct oc_image_weights *w, int i, double scale, struct filter f, double *tmp) {
    const double filter_scale = scale < 1.0 ? 1.0 : scale, support = f.support * filter_scale;
    const double centre = (i + 0.5) * scale, inverse = 1.0 / filter_scale;
    int first = (int)(centre - support + 0.5), end = (int)(centre + support + 0.5);
    double sum = 0.0;
    if (first < 0) first = 0;
    if (end > w->n_in) end = w->n_in;
    w->first[i] = first;
    w->count[i] = end - first;
    for (int x = 0; x < end - first; x++) sum += tmp[x] = f.at((x + first - centre + 0.5) * inverse);
    int32_t *out = w->weights + (size_t)i * (size_t)w->n_taps;
    for (int x = 0; x < end - first; x++) {
        const double v = (sum != 0.0 ? tmp[x] / sum : tmp[x]) * (1 << OC_IMAGE_WEIGHT_BITS);
        out[x] = (int32_t)(v < 0 ? v - 0.5 : v + 0.5);
    }
}

/* False when out of memory; nothing is then left allocated. */
static bool weights_init(struct oc_image_weights *w, int n_in, int n_out, struct filter f) {
    const double scale = (double)n_in / n_out;
    const double support = f.support * (scale < 1.0 ? 1.0 : scale);
    w->n_in = n_in;
    w->n_out = n_out;
    w->n_taps = (int)ceil(support) * 2 + 1;
    w->first = malloc((size_t)n_out * sizeof *w->first);
    w->count = malloc((size_t)n_out * sizeof *w->count);
    w->weights = calloc((size_t)n_out * (size_t)w->n_taps, sizeof *w->weights);
    double *tmp = malloc((size_t)w->n_taps * sizeof *tmp);
    const bool ok = w->first && w->count && w->weights && tmp;
    for (int i = 0; ok && i < n_out; i++) weights_fill(w, i, scale, f, tmp);
    free(tmp);
    if (!ok) weights_free(w);
    return ok;
}

/* ---- A picture, strip by strip ------------------------------------------------------------------------- */

/* Columns of pixels are one pass (wx), rows of pixels the other (wy). */
enum passes { COPY, NEAREST, WIDTH, HEIGHT, WIDTH_FIRST, HEIGHT_FIRST };

struct oc_image_resizer {
    struct oc_image in; /* borrowed */
    int width, height;
    enum passes passes;
    const struct oc_image_resample *loops;
    struct oc_image_weights wx, wy;
    int y; /* the next row of the result */
    double at_y;
    uint8_t *tail; /* the last rows of `in`, for they lack the slack behind them */
    int n_tail;
    uint8_t *tmp; /* rows between the passes */
    int tmp_first, tmp_n;
};

static size_t row_bytes(int width) {
    return (size_t)width * 3;
}

/* Pillow up to 12 always does the width first; from 13 on the height comes first when it shrinks by more than
 * twice as many pixels as the width does. The 8-bit rounding between the passes makes the order visible. */
static bool is_height_first(const struct oc_image *in, int width, int height) {
    return in->height > height && in->height - height > 2 * (in->width - width);
}

static enum passes passes_of(const struct oc_image *in, int width, int height, enum oc_resample filter) {
    if (in->width == width && in->height == height) return COPY;
    if (filter == OC_RESAMPLE_NEAREST) return NEAREST;
    if (in->width == width) return HEIGHT;
    if (in->height == height) return WIDTH;
    return is_height_first(in, width, height) ? HEIGHT_FIRST : WIDTH_FIRST;
}

static int last_row(const struct oc_image_weights *w, int y) {
    return w->first[y] + w->count[y];
}

/* Rows of input that n_rows rows of the result are made of, at most. */
static int most_rows(const struct oc_image_weights *w, int n_rows) {
    int most = 0;
    for (int y = 0; y < w->n_out; y++) {
        const int end = y + n_rows < w->n_out ? y + n_rows : w->n_out;
        const int n = last_row(w, end - 1) - w->first[y];
        if (n > most) most = n;
    }
    return most;
}

/* False when out of memory. */
static bool take_tail(struct oc_image_resizer *r) {
    const size_t n_bytes = row_bytes(r->in.width);
    r->n_tail = (int)((OC_IMAGE_ROW_SLACK + n_bytes - 1) / n_bytes);
    if (r->n_tail > r->in.height) r->n_tail = r->in.height;
    r->tail = calloc(1, (size_t)r->n_tail * n_bytes + OC_IMAGE_ROW_SLACK);
    if (r->tail)
        memcpy(r->tail, r->in.rgb + (size_t)(r->in.height - r->n_tail) * n_bytes,
               (size_t)r->n_tail * n_bytes);
    return r->tail != NULL;
}

/* What the passes need; n_rows: the most that will be asked for at once. False when out of memory. */
static bool prepare(struct oc_image_resizer *r, struct filter f, int n_rows) {
    const bool has_width = r->passes != HEIGHT, has_height = r->passes != WIDTH;
    if (has_width && !weights_init(&r->wx, r->in.width, r->width, f)) return false;
    if (has_width && r->loops->prepare && !r->loops->prepare(&r->wx)) return false;
    if (has_height && !weights_init(&r->wy, r->in.height, r->height, f)) return false;
    if (has_width && r->passes != HEIGHT_FIRST && !take_tail(r)) return false;
    size_t n_tmp = 0;
    if (r->passes == WIDTH_FIRST) n_tmp = (size_t)most_rows(&r->wy, n_rows) * row_bytes(r->width);
    if (r->passes == HEIGHT_FIRST) n_tmp = (size_t)n_rows * row_bytes(r->in.width);
    r->tmp = n_tmp ? malloc(n_tmp + OC_IMAGE_ROW_SLACK) : NULL;
    return !n_tmp || r->tmp;
}

static const uint8_t *input_row(const struct oc_image_resizer *r, int y) {
    const size_t n_bytes = row_bytes(r->in.width);
    const int in_tail = y - (r->in.height - r->n_tail);
    return in_tail >= 0 ? r->tail + (size_t)in_tail * n_bytes : r->in.rgb + (size_t)y * n_bytes;
}

/* The width of n_rows rows: of `between`, or of the picture from first_row on. A last group of fewer than
 * four repeats its last. */
static void do_rows(const struct oc_image_resizer *r, const uint8_t *between, int first_row, int n_rows,
                    uint8_t *out) {
    for (int y = 0; y < n_rows; y += 4) {
        const uint8_t *from[4];
        uint8_t *to[4];
        for (int i = 0; i < 4; i++) {
            const int row = y + i < n_rows ? y + i : n_rows - 1;
            from[i] =
                between ? between + (size_t)row * row_bytes(r->in.width) : input_row(r, first_row + row);
            to[i] = out + (size_t)row * row_bytes(r->width);
        }
        r->loops->rows(from, &r->wx, to);
    }
}

/* The height of rows r->y and on. in: rows of n_bytes, the first of them being row first_row of what the
 * weights count from. */
static void do_columns(const struct oc_image_resizer *r, const uint8_t *in, int first_row, size_t n_bytes,
                       int n_rows, uint8_t *out) {
    for (int y = r->y; y < r->y + n_rows; y++, out += n_bytes)
        r->loops->columns(in + (size_t)(r->wy.first[y] - first_row) * n_bytes, n_bytes,
                          r->wy.weights + (size_t)y * (size_t)r->wy.n_taps, r->wy.count[y], n_bytes, out);
}

/* Only rows that the height reads get their width; those that the strip before had too are kept. */
static void width_first(struct oc_image_resizer *r, int n_rows, uint8_t *out) {
    const size_t n_bytes = row_bytes(r->width);
    const int first = r->wy.first[r->y], end = last_row(&r->wy, r->y + n_rows - 1);
    const int kept = r->tmp_first + r->tmp_n > first ? r->tmp_first + r->tmp_n - first : 0;
    if (kept) memmove(r->tmp, r->tmp + (size_t)(first - r->tmp_first) * n_bytes, (size_t)kept * n_bytes);
    do_rows(r, NULL, first + kept, end - first - kept, r->tmp + (size_t)kept * n_bytes);
    r->tmp_first = first;
    r->tmp_n = end - first;
    do_columns(r, r->tmp, first, n_bytes, n_rows, out);
}

/* Pillow adds the step up in double rather than multiply, which decides between neighbours now and then. */
static void nearest(struct oc_image_resizer *r, int n_rows, uint8_t *out) {
    const double step_x = (double)r->in.width / r->width, step_y = (double)r->in.height / r->height;
    for (int y = 0; y < n_rows; y++, r->at_y += step_y) {
        const int in_y = (int)r->at_y < r->in.height ? (int)r->at_y : r->in.height - 1;
        const uint8_t *row = r->in.rgb + (size_t)in_y * row_bytes(r->in.width);
        double at_x = step_x * 0.5;
        for (int x = 0; x < r->width; x++, out += 3, at_x += step_x) {
            const int in_x = (int)at_x < r->in.width ? (int)at_x : r->in.width - 1;
            memcpy(out, row + (size_t)in_x * 3, 3);
        }
    }
}

void oc_image_resizer_next(struct oc_image_resizer *r, int n_rows, uint8_t *out) {
    const size_t in_bytes = row_bytes(r->in.width);
    OC_ASSERT(n_rows >= 1 && n_rows <= r->height - r->y);
    switch (r->passes) {
    case COPY:
        memcpy(out, r->in.rgb + (size_t)r->y * in_bytes, (size_t)n_rows * in_bytes);
        break;
    case NEAREST:
        nearest(r, n_rows, out);
        break;
    case WIDTH:
        do_rows(r, NULL, r->y, n_rows, out);
        break;
    case HEIGHT:
        do_columns(r, r->in.rgb, 0, in_bytes, n_rows, out);
        break;
    case WIDTH_FIRST:
        width_first(r, n_rows, out);
        break;
    case HEIGHT_FIRST:
        do_columns(r, r->in.rgb, 0, in_bytes, n_rows, r->tmp);
        do_rows(r, r->tmp, 0, n_rows, out);
        break;
    }
    r->y += n_rows;
}

void oc_image_resizer_close(struct oc_image_resizer *r) {
    if (!r) return;
    weights_free(&r->wx);
    weights_free(&r->wy);
    free(r->tail);
    free(r->tmp);
    free(r);
}

enum oc_err oc_image_resizer_open_with(const struct oc_image_resample *loops, const struct oc_image *in,
                                       int width, int height, enum oc_resample filter, int n_rows,
                                       struct oc_image_resizer **out, struct oc_errinfo *ei) {
    *out = NULL;
    if (width < 1 || height < 1 || width > OC_LIMIT_IMAGE_SIDE_PX || height > OC_LIMIT_IMAGE_SIDE_PX ||
        (uint64_t)width * (uint64_t)height > OC_LIMIT_IMAGE_PIXELS)
        return oc_fail(ei, OC_ERR_LIMIT, "a picture cannot be resized to %d x %d pixels", width, height);
    struct oc_image_resizer *r = malloc(sizeof *r);
    bool ok = r != NULL;
    if (ok) {
        *r = (struct oc_image_resizer){.in = *in,
                                       .width = width,
                                       .height = height,
                                       .loops = loops,
                                       .passes = passes_of(in, width, height, filter),
                                       .at_y = (double)in->height / height * 0.5};
        if (r->passes != COPY && r->passes != NEAREST) ok = prepare(r, filter_of(filter), n_rows);
    }
    if (ok) {
        *out = r;
        return OC_OK;
    }
    oc_image_resizer_close(r);
    return oc_fail(ei, OC_ERR_NOMEM, "out of memory for resizing a picture to %d x %d pixels", width, height);
}

enum oc_err oc_image_resizer_open(const struct oc_image *in, int width, int height, enum oc_resample filter,
                                  int n_rows, struct oc_image_resizer **out, struct oc_errinfo *ei) {
    return oc_image_resizer_open_with(oc_image_resample_best(), in, width, height, filter, n_rows, out, ei);
}

enum oc_err oc_image_resize(const struct oc_image *in, int width, int height, enum oc_resample filter,
                            struct oc_image *out, struct oc_errinfo *ei) {
    enum { STRIP = 32 };
    struct oc_image_resizer *r;
    memset(out, 0, sizeof *out);
    OC_TRY(oc_image_resizer_open(in, width, height, filter, STRIP, &r, ei));
    uint8_t *rgb = oc_pages_alloc((size_t)height * row_bytes(width));
    if (rgb)
        for (int y = 0; y < height; y += STRIP)
            oc_image_resizer_next(r, height - y < STRIP ? height - y : STRIP,
                                  rgb + (size_t)y * row_bytes(width));
    oc_image_resizer_close(r);
    if (!rgb)
        return oc_fail(ei, OC_ERR_NOMEM, "out of memory for resizing a picture to %d x %d pixels", width,
                       height);
    *out = (struct oc_image){width, height, rgb};
    return OC_OK;
}
