/* What the picture fuzz targets share: decode, check what came out, and resize and patchify a little of it.
 */
#ifndef OC_TESTS_FUZZ_IMAGE_TARGET_H
#define OC_TESTS_FUZZ_IMAGE_TARGET_H

#include <stdint.h>
#include <stdlib.h>

#include "image/decode.h"
#include "image/resize.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* Every pixel is read, so that a sanitizer sees what was never written. */
static inline unsigned image_sum(const struct oc_image *img) {
    unsigned sum = 0;
    for (size_t i = 0; i < (size_t)img->width * (size_t)img->height * 3; i++) sum = sum * 31 + img->rgb[i];
    return sum;
}

static inline int image_target(const uint8_t *data, size_t n, enum oc_image_format format) {
    const struct oc_image_limits lim = {.max_bytes = 1 << 20, .max_side_px = 2048, .max_pixels = 1 << 18};
    struct oc_image_info info;
    struct oc_errinfo ei;
    struct oc_image img, small;
    if (oc_image_sniff(data, n) != format) return 0;
    const enum oc_err probed = oc_image_probe(data, n, &lim, &info, &ei);
    const enum oc_err err = oc_image_decode(data, n, &lim, &img, &ei);
    if (err != OC_OK) {
        OC_ASSERT(img.rgb == NULL && ei.msg[0] != '\0');
        return 0;
    }
    OC_ASSERT(probed == OC_OK && img.width * img.height == info.width * info.height);
    const unsigned sum = image_sum(&img);
    if (oc_image_resize(&img, 1 + (int)(sum % 40), 1 + (int)(sum / 40 % 40), OC_RESAMPLE_BICUBIC, &small,
                        &ei) == OC_OK) {
        volatile unsigned keep = image_sum(&small);
        (void)keep;
    }
    oc_image_free(&small);
    oc_image_free(&img);
    return 0;
}

#endif
