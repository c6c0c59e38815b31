/* image/decode.h - hostile bytes to RGB pixels.
 *
 * Pictures come from strangers: every size is checked from the header before a pixel is decoded, and all
 * memory is bounded by the limits. The pixels equal those of Pillow's
 * `ImageOps.exif_transpose(Image.open(f)).convert("RGB")` (first frame, alpha dropped) bit for bit. Called by
 * the command line and by the image worker; any thread, no state of its own. */
#ifndef OC_IMAGE_DECODE_H
#define OC_IMAGE_DECODE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum oc_image_format {
    OC_IMAGE_UNKNOWN = 0,
    OC_IMAGE_JPEG,
    OC_IMAGE_PNG,
    OC_IMAGE_WEBP,
    OC_IMAGE_GIF,
    OC_IMAGE_BMP,
};

/* Maxima of one picture; 0 means the one of base/limits.h (OC_LIMIT_IMAGE_*), which no value here can exceed.
 */
struct oc_image_limits {
    size_t max_bytes;    /* encoded */
    int max_side_px;     /* width and height */
    uint64_t max_pixels; /* width * height */
};

/* Pixels, row by row without padding. Owned by whoever asked for them. */
struct oc_image {
    int width, height;
    uint8_t *rgb; /* [height, width, 3], from malloc */
};

/* What a header says. */
struct oc_image_info {
    enum oc_image_format format;
    int width, height; /* as stored: an EXIF orientation may swap them in the decoded picture */
};

/* The format by content alone; n may be 0. */
enum oc_image_format oc_image_sniff(const uint8_t *bytes, size_t n);

/* Short constant name such as "JPEG". */
const char *oc_image_format_name(enum oc_image_format format);

/* Reads the header and checks it against `lim` (NULL: defaults). Errors: OC_ERR_UNSUPPORTED (not one of the
 * five formats, or a kind of one that is not read), OC_ERR_FORMAT (broken or truncated header), OC_ERR_LIMIT,
 * OC_ERR_NOMEM. */
OC_MUST_CHECK enum oc_err oc_image_probe(const uint8_t *bytes, size_t n, const struct oc_image_limits *lim,
                                         struct oc_image_info *out, struct oc_errinfo *ei);

/* Decodes the first frame, converts it to RGB and turns it upright. On success *out owns its pixels; on error
 * it is empty. Errors: those of oc_image_probe; OC_ERR_FORMAT also for broken or missing pixel data. */
OC_MUST_CHECK enum oc_err oc_image_decode(const uint8_t *bytes, size_t n, const struct oc_image_limits *lim,
                                          struct oc_image *out, struct oc_errinfo *ei);

/* Frees the pixels and empties the picture; an empty one is allowed. */
void oc_image_free(struct oc_image *img);

#endif
