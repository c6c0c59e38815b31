#include "image/decode.h"

#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/pages.h"
#include "image/exif.h"
#include "image/formats.h"

struct format {
    const char *name;
    enum oc_err (*header)(struct oc_image_bytes in, struct oc_image_info *info, struct oc_errinfo *ei);
    enum oc_err (*decode)(struct oc_image_bytes in, const struct oc_image_info *info, uint8_t *rgb,
                          int *orientation, struct oc_errinfo *ei);
};

static const struct format formats[] = {
    [OC_IMAGE_UNKNOWN] = {"unknown", NULL, NULL},
    [OC_IMAGE_JPEG] = {"JPEG", oc_image_jpeg_header, oc_image_jpeg_decode},
    [OC_IMAGE_PNG] = {"PNG", oc_image_png_header, oc_image_png_decode},
    [OC_IMAGE_WEBP] = {"WebP", oc_image_webp_header, oc_image_webp_decode},
    [OC_IMAGE_GIF] = {"GIF", oc_image_gif_header, oc_image_gif_decode},
    [OC_IMAGE_BMP] = {"BMP", oc_image_bmp_header, oc_image_bmp_decode},
};

enum oc_image_format oc_image_sniff(const uint8_t *b, size_t n) {
    if (n >= 3 && memcmp(b, "\xff\xd8\xff", 3) == 0) return OC_IMAGE_JPEG;
    if (n >= 8 && memcmp(b, "\x89PNG\r\n\x1a\n", 8) == 0) return OC_IMAGE_PNG;
    if (n >= 12 && memcmp(b, "RIFF", 4) == 0 && memcmp(b + 8, "WEBP", 4) == 0) return OC_IMAGE_WEBP;
    if (n >= 6 && (memcmp(b, "GIF87a", 6) == 0 || memcmp(b, "GIF89a", 6) == 0)) return OC_IMAGE_GIF;
    if (n >= 2 && b[0] == 'B' && b[1] == 'M') return OC_IMAGE_BMP;
    return OC_IMAGE_UNKNOWN;
}

const char *oc_image_format_name(enum oc_image_format format) {
    return formats[format].name;
}

/* The caller's limits with defaults filled in; none above base/limits.h. */
static struct oc_image_limits effective_limits(const struct oc_image_limits *lim) {
    struct oc_image_limits out = {OC_LIMIT_IMAGE_BYTES, OC_LIMIT_IMAGE_SIDE_PX, OC_LIMIT_IMAGE_PIXELS};
    if (!lim) return out;
    if (lim->max_bytes && lim->max_bytes < out.max_bytes) out.max_bytes = lim->max_bytes;
    if (lim->max_side_px > 0 && lim->max_side_px < out.max_side_px) out.max_side_px = lim->max_side_px;
    if (lim->max_pixels && lim->max_pixels < out.max_pixels) out.max_pixels = lim->max_pixels;
    return out;
}

static enum oc_err check_size(const struct oc_image_info *info, const struct oc_image_limits *lim,
                              struct oc_errinfo *ei) {
    const char *name = oc_image_format_name(info->format);
    if (info->width <= 0 || info->height <= 0)
        return oc_fail(ei, OC_ERR_FORMAT, "this %s picture has no pixels (%d x %d)", name, info->width,
                       info->height);
    if (info->width > lim->max_side_px || info->height > lim->max_side_px)
        return oc_fail(ei, OC_ERR_LIMIT, "this %s picture of %d x %d is over the limit of %d pixels a side",
                       name, info->width, info->height, lim->max_side_px);
    if ((uint64_t)info->width * (uint64_t)info->height > lim->max_pixels)
        return oc_fail(ei, OC_ERR_LIMIT, "this %s picture of %d x %d is over the limit of %llu pixels", name,
                       info->width, info->height, (unsigned long long)lim->max_pixels);
    return OC_OK;
}

enum oc_err oc_image_probe(const uint8_t *bytes, size_t n, const struct oc_image_limits *lim,
                           struct oc_image_info *out, struct oc_errinfo *ei) {
    const struct oc_image_limits max = effective_limits(lim);
    memset(out, 0, sizeof *out);
    if (n > max.max_bytes)
        return oc_fail(ei, OC_ERR_LIMIT, "this picture of %zu bytes is over the limit of %zu bytes", n,
                       max.max_bytes);
    out->format = oc_image_sniff(bytes, n);
    if (out->format == OC_IMAGE_UNKNOWN)
        return oc_fail(ei, OC_ERR_UNSUPPORTED,
                       "these %zu bytes are no picture that ocellus reads (JPEG, PNG, WebP, GIF or BMP)", n);
    OC_TRY(formats[out->format].header((struct oc_image_bytes){bytes, n}, out, ei));
    return check_size(out, &max, ei);
}

enum oc_err oc_image_decode(const uint8_t *bytes, size_t n, const struct oc_image_limits *lim,
                            struct oc_image *out, struct oc_errinfo *ei) {
    struct oc_image_info info;
    int orientation = 1;
    memset(out, 0, sizeof *out);
    OC_TRY(oc_image_probe(bytes, n, lim, &info, ei));

    uint8_t *rgb = oc_pages_alloc((size_t)info.width * (size_t)info.height * 3);
    if (!rgb) goto nomem;
    const struct oc_image_bytes in = {bytes, n};
    enum oc_err err = formats[info.format].decode(in, &info, rgb, &orientation, ei);
    if (err != OC_OK) {
        free(rgb);
        return err;
    }
    out->width = info.width;
    out->height = info.height;
    out->rgb = oc_image_exif_apply(rgb, &out->width, &out->height, orientation);
    if (out->rgb) return OC_OK;
    free(rgb);
    memset(out, 0, sizeof *out);
nomem:
    return oc_fail(ei, OC_ERR_NOMEM, "out of memory for a picture of %d x %d pixels", info.width,
                   info.height);
}

void oc_image_free(struct oc_image *img) {
    free(img->rgb);
    memset(img, 0, sizeof *img);
}
