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

/* The same from top to bottom, some rows at a time, so that what is made of them finds them in the cache.
 * `in` is borrowed. n_rows: the most that will be asked for at once. Errors: as above. */
struct oc_image_resizer;
OC_MUST_CHECK enum oc_err oc_image_resizer_open(const struct oc_image *in, int width, int height,
                                                enum oc_resample filter, int n_rows,
                                                struct oc_image_resizer **out, struct oc_errinfo *ei);
void oc_image_resizer_close(struct oc_image_resizer *r);

/* Writes the next n_rows rows of the result, 3 * width bytes each; never more than there are left. */
void oc_image_resizer_next(struct oc_image_resizer *r, int n_rows, uint8_t *out);

/* With inner loops of the caller's choice, for tests. */
struct oc_image_resample;
OC_MUST_CHECK enum oc_err oc_image_resizer_open_with(const struct oc_image_resample *loops,
                                                     const struct oc_image *in, int width, int height,
                                                     enum oc_resample filter, int n_rows,
                                                     struct oc_image_resizer **out, struct oc_errinfo *ei);

#endif
