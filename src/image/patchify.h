/* image/patchify.h - executes a picture plan: RGB pixels to normalised patches.
 *
 * The plan comes from the engine, which knows the family's rule; this room only carries it out. Values equal
 * those of the transformers image processor with the Pillow back end (rescale in double, cast to f32, then (v
 * - mean) / std in f32), and so do the order of patches and the order inside one. Any thread, no state. */
#ifndef OC_IMAGE_PATCHIFY_H
#define OC_IMAGE_PATCHIFY_H

#include "base/err.h"
#include "image/decode.h"
#include "ocellus.h"

/* img: exactly plan->width x plan->height. out: [n_patches, patch_dim] f32, row-major: patches in merge
 * blocks (grid_t, grid_h / merge, grid_w / merge, merge, merge), inside a patch (3, temporal, patch, patch);
 * the one picture fills every frame of `temporal` and of grid_t. Errors: OC_ERR_USAGE (plan and picture
 * disagree, or the plan with itself). */
OC_MUST_CHECK enum oc_err oc_image_patchify(const struct oc_image *img, const struct oc_picture_plan *plan,
                                            float *out, struct oc_errinfo *ei);

/* Resizes a decoded picture as the plan says and patchifies it, strip by strip. Errors: those of
 * oc_image_resize; OC_ERR_USAGE (the plan disagrees with itself). */
OC_MUST_CHECK enum oc_err oc_image_patchify_resized(const struct oc_image *img,
                                                    const struct oc_picture_plan *plan, float *out,
                                                    struct oc_errinfo *ei);

/* Takes the next n floats of the patches, which it may not keep; an error of it ends the work. */
struct oc_image_sink {
    enum oc_err (*take)(void *arg, const float *values, size_t n, struct oc_errinfo *ei);
    void *arg;
};

/* oc_image_patchify_resized piece by piece, for patches that go elsewhere than to memory. Errors: the same,
 * those of the sink, OC_ERR_NOMEM. */
OC_MUST_CHECK enum oc_err oc_image_patchify_to(const struct oc_image *img, const struct oc_picture_plan *plan,
                                               const struct oc_image_sink *sink, struct oc_errinfo *ei);

#endif
