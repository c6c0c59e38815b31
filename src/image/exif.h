/* image/exif.h - the one thing we need of a picture's metadata: which way is up.
 *
 * Reads tag 0x0112 of the first TIFF directory, as Pillow's Image.Exif does: broken metadata means "no
 * orientation", never an error. Any thread, no state. */
#ifndef OC_IMAGE_EXIF_H
#define OC_IMAGE_EXIF_H

#include <stddef.h>
#include <stdint.h>

/* data: a TIFF stream, up to two "Exif\0\0" prefixes before it allowed. Returns the tag's integer clamped to
 * 1..8 (1 for integers without a meaning, too), or 0 when there is no such tag. */
int oc_image_exif_orientation(const uint8_t *data, size_t n);

/* The first tiff:Orientation of an XMP packet, 1..8 as above, or 0 when there is none. */
int oc_image_exif_xmp_orientation(const uint8_t *xmp, size_t n);

/* Turns rgb [height, width, 3] as the orientation says; sizes are swapped for 5 to 8. Returns new memory from
 * malloc and frees rgb, or returns rgb itself for orientation 1; NULL (rgb untouched) when out of memory. */
uint8_t *oc_image_exif_apply(uint8_t *rgb, int *width, int *height, int orientation);

#endif
