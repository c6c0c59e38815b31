#include "image/patchify.h"

#include <stdlib.h>
#include <string.h>

#include "image/patch.h"
#include "image/resize.h"

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

/* Patches [from, to) of the frame whose pixels begin at rgb, or of a strip of it that begins with a row of
 * merge blocks. */
static void write_run(const uint8_t *rgb, const struct maker *k, int from, int to, float *out) {
    const struct oc_picture_plan *plan = k->plan;
    const size_t row_bytes = (size_t)plan->width * 3, edge = (size_t)plan->patch;
    const int m = plan->merge, n_across = plan->grid_w / m;
    for (int i = from; i < to; i++, out += plan->patch_dim) {
        const int block = i / (m * m), inner = i % (m * m);
        const size_t y = (size_t)(block / n_across * m + inner / m),
                     x = (size_t)(block % n_across * m + inner % m);
        k->write(rgb + y * edge * row_bytes + x * edge * 3, row_bytes, plan->patch, plan->temporal,
                 &k->values, out);
    }
}

/* Resized a strip at a time, each made into patches while it is in the cache. Returns the end of what it
 * wrote. */
static float *write_frame(struct oc_image_resizer *r, uint8_t *strip, const struct maker *k, float *out) {
    const struct oc_picture_plan *plan = k->plan;
    const int n_rows = plan->merge * plan->patch, n_patches = plan->merge * plan->grid_w;
    for (int y = 0; y < plan->height; y += n_rows, out += (size_t)n_patches * (size_t)plan->patch_dim) {
        oc_image_resizer_next(r, n_rows, strip);
        write_run(strip, k, 0, n_patches, out);
    }
    return out;
}

static enum oc_err check_plan(const struct oc_picture_plan *plan, struct oc_errinfo *ei) {
    if (is_plan_consistent(plan)) return OC_OK;
    return oc_fail(ei, OC_ERR_USAGE,
                   "this picture plan is inconsistent: %d x %d pixels, grid %d x %d x %d, patch %d",
                   plan->width, plan->height, plan->grid_t, plan->grid_h, plan->grid_w, plan->patch);
}

static void maker_init(struct maker *k, const struct oc_picture_plan *plan) {
    k->plan = plan;
    k->write = pick_writer(plan->patch);
    make_values(plan, &k->values);
}

static enum oc_err write_resized(const struct oc_image *img, const struct oc_picture_plan *plan, float *out,
                                 struct oc_errinfo *ei) {
    const int n_rows = plan->merge * plan->patch;
    struct maker k;
    maker_init(&k, plan);
    uint8_t *strip = malloc((size_t)n_rows * (size_t)plan->width * 3);
    enum oc_err err = strip ? OC_OK : oc_fail(ei, OC_ERR_NOMEM, "out of memory for the patches of a picture");
    for (int i = 0; !err && i < plan->grid_t; i++) {
        struct oc_image_resizer *r;
        err = oc_image_resizer_open(img, plan->width, plan->height, plan->resample, n_rows, &r, ei);
        if (!err) out = write_frame(r, strip, &k, out);
        oc_image_resizer_close(r);
    }
    free(strip);
    return err;
}

/* ---- The functions of the header ----------------------------------------------------------------------- */

void oc_image_patchify_rows(const uint8_t *rgb, const struct oc_picture_plan *plan, int from, int to,
                            float *out) {
    OC_ASSERT(is_plan_consistent(plan) && from >= 0 && from <= to && to <= plan->n_patches);
    const int in_frame = plan->grid_h * plan->grid_w;
    struct maker k;
    maker_init(&k, plan);
    while (from < to) {
        const int first = from % in_frame, left = in_frame - first, n = to - from < left ? to - from : left;
        write_run(rgb, &k, first, first + n, out);
        out += (size_t)n * (size_t)plan->patch_dim;
        from += n;
    }
}

enum oc_err oc_image_patchify(const struct oc_image *img, const struct oc_picture_plan *plan, float *out,
                              struct oc_errinfo *ei) {
    OC_TRY(check_plan(plan, ei));
    if (img->width != plan->width || img->height != plan->height)
        return oc_fail(ei, OC_ERR_USAGE, "a picture of %d x %d pixels was given for a plan of %d x %d",
                       img->width, img->height, plan->width, plan->height);
    oc_image_patchify_rows(img->rgb, plan, 0, plan->n_patches, out);
    return OC_OK;
}

enum oc_err oc_image_patchify_resized(const struct oc_image *img, const struct oc_picture_plan *plan,
                                      float *out, struct oc_errinfo *ei) {
    if (img->width == plan->width && img->height == plan->height)
        return oc_image_patchify(img, plan, out, ei);
    OC_TRY(check_plan(plan, ei));
    return write_resized(img, plan, out, ei);
}
