/* In place of the files that need libraries which a cross-compiler does not have: pictures are refused, and digests, for which
 * check_golden has no use, are a bug. */
#include "base/digest.h"
#include "image/formats.h"

void oc_digest(const struct oc_digest_piece *pieces, int n, uint8_t out[OC_DIGEST_BYTES]) {
    (void)pieces, (void)n, (void)out;
    OC_ASSERT(!"a digest without a library");
}

#define REFUSED(name)                                                                                                 \
    enum oc_err oc_image_##name##_header(struct oc_image_bytes in, struct oc_image_info *info, struct oc_errinfo *ei) { \
        (void)in, (void)info;                                                                                         \
        return oc_fail(ei, OC_ERR_UNSUPPORTED, "there are no pictures of " #name " in this build");                  \
    }                                                                                                                 \
    enum oc_err oc_image_##name##_decode(struct oc_image_bytes in, const struct oc_image_info *info, uint8_t *rgb,     \
                                         int *orientation, struct oc_errinfo *ei) {                                  \
        (void)in, (void)info, (void)rgb, (void)orientation;                                                           \
        return oc_fail(ei, OC_ERR_UNSUPPORTED, "there are no pictures of " #name " in this build");                  \
    }

REFUSED(jpeg)
REFUSED(png)
REFUSED(webp)
REFUSED(gif)
