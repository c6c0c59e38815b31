/* Any bytes as EXIF and as XMP. */
#include <stdint.h>

#include "base/err.h"
#include "image/exif.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    const int exif = oc_image_exif_orientation(data, n), xmp = oc_image_exif_xmp_orientation(data, n);
    OC_ASSERT(exif >= 0 && exif <= 8 && xmp >= 0 && xmp <= 8);
    return 0;
}
