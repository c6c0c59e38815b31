/* image/formats.h - what decode.c asks of each format; internal to the room.
 *
 * `header` reads sizes without decoding; `decode` then fills rgb ([height, width, 3], already sized from the
 * checked header, not cleared) and sets *orientation to the EXIF value 1 to 8 where the format carries one
 * (it is 1 on entry). A decode function fails rather than write when the file turns out to have another size
 * than its header said. Any thread. */
#ifndef OC_IMAGE_FORMATS_H
#define OC_IMAGE_FORMATS_H

#include "image/decode.h"

struct oc_image_bytes {
    const uint8_t *p;
    size_t n;
};

#define OC_IMAGE_FORMAT_DECL(name)                                                                           \
    OC_MUST_CHECK enum oc_err oc_image_##name##_header(struct oc_image_bytes in, struct oc_image_info *info, \
                                                       struct oc_errinfo *ei);                               \
    OC_MUST_CHECK enum oc_err oc_image_##name##_decode(struct oc_image_bytes in,                             \
                                                       const struct oc_image_info *info, uint8_t *rgb,       \
                                                       int *orientation, struct oc_errinfo *ei);

OC_IMAGE_FORMAT_DECL(jpeg)
OC_IMAGE_FORMAT_DECL(png)
OC_IMAGE_FORMAT_DECL(webp)
OC_IMAGE_FORMAT_DECL(gif)
OC_IMAGE_FORMAT_DECL(bmp)

#endif
