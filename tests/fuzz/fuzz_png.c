/* Any bytes through the picture reader: as they are, and with the checksums of the chunks put right, without
 * which hardly a changed byte would get past the header. */
#include <string.h>

#include "image_target.h"

static uint32_t crc32_of(const uint8_t *p, size_t n) {
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++) crc = crc & 1 ? crc >> 1 ^ 0xedb88320 : crc >> 1;
    }
    return ~crc;
}

static void repair_checksums(uint8_t *p, size_t n) {
    for (size_t at = 8; n - at >= 12;) {
        const size_t length =
            (size_t)p[at] << 24 | (size_t)p[at + 1] << 16 | (size_t)p[at + 2] << 8 | p[at + 3];
        if (n - at - 12 < length) return;
        const uint32_t crc = crc32_of(p + at + 4, length + 4);
        for (int i = 0; i < 4; i++) p[at + 8 + length + (size_t)i] = (uint8_t)(crc >> (24 - 8 * i));
        at += 12 + length;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    image_target(data, n, OC_IMAGE_PNG);
    if (n < 8) return 0;
    uint8_t *copy = malloc(n);
    OC_ASSERT(copy);
    memcpy(copy, data, n);
    repair_checksums(copy, n);
    image_target(copy, n, OC_IMAGE_PNG);
    free(copy);
    return 0;
}
