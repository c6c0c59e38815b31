#include "image/patchify.h"

#include <string.h>

#include "image/resize.h"

/* A byte has 256 values: the arithmetic of the reference is done once for each. */
static void make_tables(const struct oc_picture_plan *plan, float (*table)[256]) {
    for (int c = 0; c < 3; c++) {
        const float mean = (float)plan->mean[c], std = (float)plan->std[c];
        for (int v = 0; v < 256; v++) table[c][v] = ((float)(v * plan->rescale) - mean) / std;
    }
}

/* Writes the patch whose top left pixel is at `rgb`: [3, temporal, patch, patch]. */
static void write_patch(const uint8_t *rgb, size_t row_bytes, const struct oc_picture_plan *plan,
                        const float (*table)[256], float *out) {
    const int edge = plan->patch;
    const size_t frame = (size_t)edge * (size_t)edge;
    for (int c = 0; c < 3; c++) {
        float *q = out;
        for (int y = 0; y < edge; y++, q += edge) {
            const uint8_t *p = rgb + (size_t)y * row_bytes + c;
            for (int x = 0; x < edge; x++) q[x] = table[c][p[3 * x]];
        }
        for (int t = 1; t < plan->temporal; t++) memcpy(out + (size_t)t * frame, out, frame * sizeof *out);
        out += (size_t)plan->temporal * frame;
    }
}

static bool is_plan_consistent(const struct oc_picture_plan *p) {
    if (p->patch < 1 || p->merge < 1 || p->temporal < 1 || p->grid_t < 1 || p->grid_h < 1 || p->grid_w < 1)
        return false;
    return p->grid_h % p->merge == 0 && p->grid_w % p->merge == 0 &&
           (int64_t)p->grid_h * p->patch == p->height && (int64_t)p->grid_w * p->patch == p->width &&
           (int64_t)p->grid_t * p->grid_h * p->grid_w == p->n_patches &&
           (int64_t)3 * p->temporal * p->patch * p->patch == p->patch_dim;
}

/* All patches of one frame, in merge-block order. */
static float *write_frame(const struct oc_image *img, const struct oc_picture_plan *plan,
                          const float (*table)[256], float *out) {
    const size_t row_bytes = (size_t)img->width * 3;
    const int m = plan->merge, n_in_block = m * m;
    for (int by = 0; by < plan->grid_h; by += m) {
        for (int bx = 0; bx < plan->grid_w; bx += m) {
            for (int i = 0; i < n_in_block; i++, out += plan->patch_dim) {
                const size_t y = (size_t)(by + i / m) * (size_t)plan->patch;
                const size_t x = (size_t)(bx + i % m) * (size_t)plan->patch;
                write_patch(img->rgb + y * row_bytes + x * 3, row_bytes, plan, table, out);
            }
        }
    }
    return out;
}

enum oc_err oc_image_patchify(const struct oc_image *img, const struct oc_picture_plan *plan, float *out,
                              struct oc_errinfo *ei) {
    float table[3][256];
    if (!is_plan_consistent(plan))
        return oc_fail(ei, OC_ERR_USAGE,
                       "this picture plan is inconsistent: %d x %d pixels, grid %d x %d x %d, patch %d",
                       plan->width, plan->height, plan->grid_t, plan->grid_h, plan->grid_w, plan->patch);
    if (img->width != plan->width || img->height != plan->height)
        return oc_fail(ei, OC_ERR_USAGE, "a picture of %d x %d pixels was given for a plan of %d x %d",
                       img->width, img->height, plan->width, plan->height);
    make_tables(plan, table);
    for (int t = 0; t < plan->grid_t; t++) out = write_frame(img, plan, (const float(*)[256])table, out);
    return OC_OK;
}

enum oc_err oc_image_patchify_resized(const struct oc_image *img, const struct oc_picture_plan *plan,
                                      float *out, struct oc_errinfo *ei) {
    struct oc_image resized;
    if (img->width == plan->width && img->height == plan->height)
        return oc_image_patchify(img, plan, out, ei);
    OC_TRY(oc_image_resize(img, plan->width, plan->height, plan->resample, &resized, ei));
    enum oc_err err = oc_image_patchify(&resized, plan, out, ei);
    oc_image_free(&resized);
    return err;
}
