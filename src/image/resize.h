/* image/resize.h - resampling that equals Pillow's, bit for bit.
 *
 * Two passes in fixed point with rounding to 8 bits between them, the width first, or the height where Pillow
 * 13 takes it first. Weights are computed in double, scaled by 2^22 and rounded; when shrinking, the filter
 * is widened by the scale (antialias). A pass whose size does not change is skipped. Definition: Pillow's
 * Resample.c (precompute_coeffs, 8 bits a channel). Any thread, no state. */
#ifndef OC_IMAGE_RESIZE_H
#define OC_IMAGE_RESIZE_H

#include "base/err.h"
#include "image/decode.h"
#include "ocellus.h"

/* Resizes `in` to width x height into *out, which then owns its pixels (a copy when the size is the same); on
 * error *out is empty. Errors: OC_ERR_LIMIT (a side below 1 or over OC_LIMIT_IMAGE_SIDE_PX, too many pixels),
 * OC_ERR_NOMEM. */
OC_MUST_CHECK enum oc_err oc_image_resize(const struct oc_image *in, int width, int height,
                                          enum oc_resample filter, struct oc_image *out,
                                          struct oc_errinfo *ei);

#endif
