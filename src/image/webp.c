/* WebP through libwebp and libwebpdemux: a still, or the first frame of an animation on its canvas. */
#include <string.h>

#include <webp/decode.h>
#include <webp/demux.h>

#include "image/exif.h"
#include "image/formats.h"

enum oc_err oc_image_webp_header(struct oc_image_bytes in, struct oc_image_info *info,
                                 struct oc_errinfo *ei) {
    WebPBitstreamFeatures f;
    VP8StatusCode status = WebPGetFeatures(in.p, in.n, &f);
    if (status == VP8_STATUS_NOT_ENOUGH_DATA)
        return oc_fail(ei, OC_ERR_FORMAT, "this WebP file ends (after %zu bytes) in its header", in.n);
    if (status == VP8_STATUS_UNSUPPORTED_FEATURE)
        return oc_fail(ei, OC_ERR_UNSUPPORTED, "this WebP file uses a feature that libwebp does not know");
    if (status != VP8_STATUS_OK) return oc_fail(ei, OC_ERR_FORMAT, "this WebP file has a broken header");
    info->width = f.width;
    info->height = f.height;
    return OC_OK;
}

static int chunk_orientation(const WebPDemuxer *demux, const char *fourcc,
                             int (*read)(const uint8_t *data, size_t n)) {
    WebPChunkIterator it;
    int orientation = 0;
    if (WebPDemuxGetChunk(demux, fourcc, 1, &it)) orientation = read(it.chunk.bytes, it.chunk.size);
    WebPDemuxReleaseChunkIterator(&it);
    return orientation;
}

static int read_orientation(const WebPDemuxer *demux) {
    int orientation = chunk_orientation(demux, "EXIF", oc_image_exif_orientation);
    if (!orientation) orientation = chunk_orientation(demux, "XMP ", oc_image_exif_xmp_orientation);
    return orientation ? orientation : 1;
}

/* Decodes a frame into its place on the canvas; alpha is dropped, not blended. */
static enum oc_err decode_frame(const WebPIterator *frame, const struct oc_image_info *info, uint8_t *rgb,
                                struct oc_errinfo *ei) {
    WebPDecoderConfig config;
    if (!WebPInitDecoderConfig(&config))
        return oc_fail(ei, OC_ERR_UNSUPPORTED, "libwebp has another version");
    if (frame->x_offset < 0 || frame->y_offset < 0 || frame->width > info->width - frame->x_offset ||
        frame->height > info->height - frame->y_offset)
        return oc_fail(ei, OC_ERR_FORMAT, "this WebP file has a frame outside its canvas");
    const size_t stride = (size_t)info->width * 3;
    const size_t first = (size_t)frame->y_offset * stride + (size_t)frame->x_offset * 3;
    if (frame->width != info->width || frame->height != info->height)
        memset(rgb, 0, stride * (size_t)info->height);
    config.output.colorspace = MODE_RGB;
    config.output.is_external_memory = 1;
    config.output.u.RGBA.rgba = rgb + first;
    config.output.u.RGBA.stride = (int)stride;
    config.output.u.RGBA.size = stride * (size_t)info->height - first;
    VP8StatusCode status = WebPDecode(frame->fragment.bytes, frame->fragment.size, &config);
    const int width = config.output.width, height = config.output.height;
    WebPFreeDecBuffer(&config.output);
    if (status == VP8_STATUS_OUT_OF_MEMORY) return oc_fail(ei, OC_ERR_NOMEM, "out of memory for a WebP file");
    if (status == VP8_STATUS_NOT_ENOUGH_DATA || status == VP8_STATUS_SUSPENDED)
        return oc_fail(ei, OC_ERR_FORMAT, "this WebP file is truncated inside the picture");
    if (status != VP8_STATUS_OK || width != frame->width || height != frame->height)
        return oc_fail(ei, OC_ERR_FORMAT, "this WebP file has broken pixel data");
    return OC_OK;
}

enum oc_err oc_image_webp_decode(struct oc_image_bytes in, const struct oc_image_info *info, uint8_t *rgb,
                                 int *orientation, struct oc_errinfo *ei) {
    enum oc_err err;
    WebPIterator frame;
    const WebPData data = {in.p, in.n};
    WebPDemuxer *demux = WebPDemux(&data);
    memset(&frame, 0, sizeof frame);
    if (!demux) {
        err = oc_fail(ei, OC_ERR_FORMAT, "this WebP file of %zu bytes is truncated or broken", in.n);
    } else if ((int)WebPDemuxGetI(demux, WEBP_FF_CANVAS_WIDTH) != info->width ||
               (int)WebPDemuxGetI(demux, WEBP_FF_CANVAS_HEIGHT) != info->height) {
        err = oc_fail(ei, OC_ERR_FORMAT, "this WebP file states two sizes");
    } else if (!WebPDemuxGetFrame(demux, 1, &frame)) {
        err = oc_fail(ei, OC_ERR_FORMAT, "this WebP file has no frame");
    } else {
        err = decode_frame(&frame, info, rgb, ei);
        if (err == OC_OK) *orientation = read_orientation(demux);
    }
    WebPDemuxReleaseIterator(&frame);
    WebPDemuxDelete(demux);
    return err;
}
