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

/* Patches [from, to) alone, for who needs them a few at a time: the same bits. rgb: [plan->height,
 * plan->width, 3], the picture as resized. out: [to - from, patch_dim]. The plan must agree with itself, and
 * 0 <= from <= to <= n_patches. */
void oc_image_patchify_rows(const uint8_t *rgb, const struct oc_picture_plan *plan, int from, int to,
                            float *out);

#endif
