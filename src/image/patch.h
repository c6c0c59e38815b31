/* image/patch.h - the inner loop of patchify.c, for what the processor offers.
 *
 * The value of a byte is looked up, so all give the same bits. Pure; any thread. */
#ifndef OC_IMAGE_PATCH_H
#define OC_IMAGE_PATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The value of each byte in each channel. */
struct oc_image_values {
    float at[3][256];
    uint8_t bytes[3][4][256]; /* the same cut into bytes, the lowest first, for lookups of bytes */
};

#if defined(__x86_64__)
/* Patches of this edge, on this processor? */
bool oc_image_patch_avx512vbmi_fits(int edge);

/* Writes the patch whose top left pixel is at `rgb`, rows row_bytes apart: [3, temporal, edge, edge]. Reads
 * and writes nothing beside it. */
void oc_image_patch_avx512vbmi(const uint8_t *rgb, size_t row_bytes, int edge, int temporal,
                               const struct oc_image_values *values, float *out);
#endif

#endif
