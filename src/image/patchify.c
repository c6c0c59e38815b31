#include "image/patchify.h"

#include <stdlib.h>
#include <string.h>

#include "image/patch.h"
#include "image/resize.h"

#define SINK_BYTES                                                                                           \
    ((size_t)128 << 10) /* what a sink gets at once: of the second-level cache, not all of it */

/* A byte has 256 values: the arithmetic of the reference is done once for each. */
static void make_values(const struct oc_picture_plan *plan, struct oc_image_values *out) {
    for (int c = 0; c < 3; c++) {
        const float mean = (float)plan->mean[c], std = (float)plan->std[c];
        for (int v = 0; v < 256; v++) {
            uint32_t bits;
            out->at[c][v] = ((float)(v * plan->rescale) - mean) / std;
            memcpy(&bits, &out->at[c][v], sizeof bits);
            for (int i = 0; i < 4; i++) out->bytes[c][i][v] = (uint8_t)(bits >> (8 * i));
        }
    }
}

/* Writes the patch whose top left pixel is at `rgb`: [3, temporal, patch, patch]. */
static void write_patch(const uint8_t *rgb, size_t row_bytes, int edge, int temporal,
                        const struct oc_image_values *values, float *out) {
    const size_t frame = (size_t)edge * (size_t)edge;
    for (int c = 0; c < 3; c++) {
        float *q = out;
        for (int y = 0; y < edge; y++, q += edge) {
            const uint8_t *p = rgb + (size_t)y * row_bytes + c;
            for (int x = 0; x < edge; x++) q[x] = values->at[c][p[3 * x]];
        }
        for (int t = 1; t < temporal; t++) memcpy(out + (size_t)t * frame, out, frame * sizeof *out);
        out += (size_t)temporal * frame;
    }
}

typedef void (*patch_writer)(const uint8_t *rgb, size_t row_bytes, int edge, int temporal,
                             const struct oc_image_values *values, float *out);

static patch_writer pick_writer(int edge) {
#if defined(__x86_64__)
    if (oc_image_patch_avx512vbmi_fits(edge)) return oc_image_patch_avx512vbmi;
#endif
    (void)edge;
    return write_patch;
}

/* What a picture is made into patches with. */
struct maker {
    const struct oc_picture_plan *plan;
    patch_writer write;
    struct oc_image_values values;
};

static bool is_plan_consistent(const struct oc_picture_plan *p) {
    if (p->patch < 1 || p->merge < 1 || p->temporal < 1 || p->grid_t < 1 || p->grid_h < 1 || p->grid_w < 1)
        return false;
    return p->grid_h % p->merge == 0 && p->grid_w % p->merge == 0 &&
           (int64_t)p->grid_h * p->patch == p->height && (int64_t)p->grid_w * p->patch == p->width &&
           (int64_t)p->grid_t * p->grid_h * p->grid_w == p->n_patches &&
           (int64_t)3 * p->temporal * p->patch * p->patch == p->patch_dim;
}

/* ---- Where patches go ---------------------------------------------------------------------------------- */

/* Straight to memory at `at`, or through a buffer to a sink. */
struct target {
    float *at;
    const struct oc_image_sink *sink;
    float *buffer;
    size_t n_buffer, n_used;
};

static enum oc_err target_open(struct target *t, const struct oc_picture_plan *plan, float *out,
                               const struct oc_image_sink *sink, struct oc_errinfo *ei) {
    *t = (struct target){.at = out, .sink = sink};
    if (!sink) return OC_OK;
    const size_t n_patch = (size_t)plan->patch_dim, n_patches = SINK_BYTES / sizeof(float) / n_patch;
    t->n_buffer = (n_patches ? n_patches : 1) * n_patch;
    t->buffer = malloc(t->n_buffer * sizeof *t->buffer);
    return t->buffer ? OC_OK : oc_fail(ei, OC_ERR_NOMEM, "out of memory for the patches of a picture");
}

static enum oc_err target_flush(struct target *t, struct oc_errinfo *ei) {
    const size_t n = t->n_used;
    t->n_used = 0;
    return n ? t->sink->take(t->sink->arg, t->buffer, n, ei) : OC_OK;
}

/* Room for the n floats that come next. */
static enum oc_err target_take(struct target *t, size_t n, float **out, struct oc_errinfo *ei) {
    if (!t->sink) {
        *out = t->at;
        t->at += n;
        return OC_OK;
    }
    if (t->n_used + n > t->n_buffer) OC_TRY(target_flush(t, ei));
    *out = t->buffer + t->n_used;
    t->n_used += n;
    return OC_OK;
}

/* ---- Frames -------------------------------------------------------------------------------------------- */

/* The patches of one row of merge blocks, whose pixels begin at rgb. */
static enum oc_err write_strip(const uint8_t *rgb, const struct maker *k, struct target *t,
                               struct oc_errinfo *ei) {
    const struct oc_picture_plan *plan = k->plan;
    const size_t row_bytes = (size_t)plan->width * 3, edge = (size_t)plan->patch;
    const int m = plan->merge, n_in_block = m * m;
    for (int bx = 0; bx < plan->grid_w; bx += m) {
        for (int i = 0; i < n_in_block; i++) {
            float *out;
            OC_TRY(target_take(t, (size_t)plan->patch_dim, &out, ei));
            k->write(rgb + (size_t)(i / m) * edge * row_bytes + (size_t)(bx + i % m) * edge * 3, row_bytes,
                     plan->patch, plan->temporal, &k->values, out);
        }
    }
    return OC_OK;
}

/* One frame in merge-block order. A picture of another size is resized a strip at a time, into `strip`; r is
 * NULL when there is nothing to resize. */
static enum oc_err write_frame(const struct oc_image *img, struct oc_image_resizer *r, uint8_t *strip,
                               const struct maker *k, struct target *t, struct oc_errinfo *ei) {
    const struct oc_picture_plan *plan = k->plan;
    const int n_rows = plan->merge * plan->patch;
    for (int y = 0; y < plan->height; y += n_rows) {
        const uint8_t *rgb = r ? strip : img->rgb + (size_t)y * (size_t)plan->width * 3;
        if (r) oc_image_resizer_next(r, n_rows, strip);
        OC_TRY(write_strip(rgb, k, t, ei));
    }
    return OC_OK;
}

static enum oc_err write_frame_resized(const struct oc_image *img, const struct maker *k, struct target *t,
                                       struct oc_errinfo *ei) {
    const struct oc_picture_plan *plan = k->plan;
    const int n_rows = plan->merge * plan->patch;
    struct oc_image_resizer *r;
    OC_TRY(oc_image_resizer_open(img, plan->width, plan->height, plan->resample, n_rows, &r, ei));
    uint8_t *strip = malloc((size_t)n_rows * (size_t)plan->width * 3);
    enum oc_err err = strip ? write_frame(img, r, strip, k, t, ei)
                            : oc_fail(ei, OC_ERR_NOMEM, "out of memory for the patches of a picture");
    free(strip);
    oc_image_resizer_close(r);
    return err;
}

static enum oc_err check_plan(const struct oc_picture_plan *plan, struct oc_errinfo *ei) {
    if (is_plan_consistent(plan)) return OC_OK;
    return oc_fail(ei, OC_ERR_USAGE,
                   "this picture plan is inconsistent: %d x %d pixels, grid %d x %d x %d, patch %d",
                   plan->width, plan->height, plan->grid_t, plan->grid_h, plan->grid_w, plan->patch);
}

static enum oc_err write_patches(const struct oc_image *img, const struct oc_picture_plan *plan, float *out,
                                 const struct oc_image_sink *sink, struct oc_errinfo *ei) {
    const bool same_size = img->width == plan->width && img->height == plan->height;
    struct maker k = {.plan = plan, .write = pick_writer(plan->patch)};
    struct target t;
    OC_TRY(check_plan(plan, ei));
    OC_TRY(target_open(&t, plan, out, sink, ei));
    make_values(plan, &k.values);
    enum oc_err err = OC_OK;
    for (int i = 0; !err && i < plan->grid_t; i++)
        err = same_size ? write_frame(img, NULL, NULL, &k, &t, ei) : write_frame_resized(img, &k, &t, ei);
    if (!err && sink) err = target_flush(&t, ei);
    free(t.buffer);
    return err;
}

enum oc_err oc_image_patchify(const struct oc_image *img, const struct oc_picture_plan *plan, float *out,
                              struct oc_errinfo *ei) {
    OC_TRY(check_plan(plan, ei));
    if (img->width != plan->width || img->height != plan->height)
        return oc_fail(ei, OC_ERR_USAGE, "a picture of %d x %d pixels was given for a plan of %d x %d",
                       img->width, img->height, plan->width, plan->height);
    return write_patches(img, plan, out, NULL, ei);
}

enum oc_err oc_image_patchify_resized(const struct oc_image *img, const struct oc_picture_plan *plan,
                                      float *out, struct oc_errinfo *ei) {
    return write_patches(img, plan, out, NULL, ei);
}

enum oc_err oc_image_patchify_to(const struct oc_image *img, const struct oc_picture_plan *plan,
                                 const struct oc_image_sink *sink, struct oc_errinfo *ei) {
    return write_patches(img, plan, NULL, sink, ei);
}
