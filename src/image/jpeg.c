/* JPEG through libjpeg-turbo's scanline API with its accurate DCT and fancy upsampling, as Pillow uses it. */
#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h> /* jpeglib.h needs FILE */
#include <string.h>

#include <jpeglib.h>

#include <jerror.h>

#include "base/buf.h"
#include "base/limits.h"
#include "image/exif.h"
#include "image/formats.h"

/* ---- Our own walk over the markers: size, number of components, EXIF ----------------------------------- */

struct segment {
    int marker; /* low byte */
    const uint8_t *data;
    size_t n;
};

enum walk { WALK_SEGMENT, WALK_SCAN, WALK_END };

/* Finds the next marker at or after *at, skipping junk between segments. WALK_SCAN: the first scan begins. */
static enum walk next_segment(struct oc_image_bytes in, size_t *at, struct segment *out) {
    size_t i = *at;
    while (i + 1 < in.n) {
        if (in.p[i] != 0xff || in.p[i + 1] == 0xff || in.p[i + 1] == 0) {
            i++;
            continue;
        }
        int marker = in.p[i + 1];
        i += 2;
        if (marker == 0xd8 || (marker >= 0xd0 && marker <= 0xd7) || marker == 0xd9 || marker == 0x01)
            continue;
        if (in.n - i < 2) break;
        size_t length = (size_t)in.p[i] << 8 | in.p[i + 1];
        if (length < 2 || length > in.n - i) break;
        *out = (struct segment){marker, in.p + i + 2, length - 2};
        *at = i + length;
        return marker == 0xda ? WALK_SCAN : WALK_SEGMENT;
    }
    return WALK_END;
}

static bool is_frame_marker(int m) {
    return m >= 0xc0 && m <= 0xcf && m != 0xc4 && m != 0xc8 && m != 0xcc;
}

static enum oc_err read_frame(const struct segment *s, struct oc_image_info *info, struct oc_errinfo *ei) {
    if (s->n < 6) return oc_fail(ei, OC_ERR_FORMAT, "this JPEG file has a truncated frame header");
    if (s->data[0] != 8)
        return oc_fail(ei, OC_ERR_UNSUPPORTED, "this JPEG file has %d bits a sample; ocellus reads 8",
                       s->data[0]);
    if (s->data[5] != 1 && s->data[5] != 3 && s->data[5] != 4)
        return oc_fail(ei, OC_ERR_UNSUPPORTED, "this JPEG file has %d components; ocellus reads 1, 3 and 4",
                       s->data[5]);
    info->height = s->data[1] << 8 | s->data[2];
    info->width = s->data[3] << 8 | s->data[4];
    return OC_OK;
}

enum oc_err oc_image_jpeg_header(struct oc_image_bytes in, struct oc_image_info *info,
                                 struct oc_errinfo *ei) {
    struct segment s;
    size_t at = 2;
    bool has_frame = false;
    for (;;) {
        enum walk w = next_segment(in, &at, &s);
        if (w == WALK_END)
            return oc_fail(ei, OC_ERR_FORMAT,
                           "this JPEG file ends (after %zu bytes) before its picture begins", in.n);
        if (w == WALK_SCAN) break;
        if (!is_frame_marker(s.marker)) continue;
        OC_TRY(read_frame(&s, info, ei));
        has_frame = true;
    }
    if (!has_frame) return oc_fail(ei, OC_ERR_FORMAT, "this JPEG file has a scan but no frame header");
    return OC_OK;
}

/* EXIF may be cut over several APP1 segments, which are joined; XMP is used when EXIF is silent. */
static int read_orientation(struct oc_image_bytes in) {
    struct segment s;
    size_t at = 2;
    struct oc_buf exif;
    int orientation = 0, xmp = 0;
    static const char xmp_id[] = "http://ns.adobe.com/xap/1.0/"; /* its NUL belongs to it */
    oc_buf_init(&exif, OC_LIMIT_IMAGE_METADATA_BYTES);
    while (next_segment(in, &at, &s) == WALK_SEGMENT) {
        if (s.marker != 0xe1) continue;
        if (s.n >= 6 && memcmp(s.data, "Exif\0\0", 6) == 0)
            oc_buf_add(&exif, s.data + 6, s.n - 6);
        else if (s.n >= sizeof xmp_id && memcmp(s.data, xmp_id, sizeof xmp_id) == 0)
            xmp = oc_image_exif_xmp_orientation(s.data + sizeof xmp_id, s.n - sizeof xmp_id);
    }
    if (exif.n_bytes) orientation = oc_image_exif_orientation((const uint8_t *)exif.data, exif.n_bytes);
    oc_buf_free(&exif);
    return orientation ? orientation : xmp ? xmp : 1;
}

/* ---- libjpeg ------------------------------------------------------------------------------------------- */

struct decoder {
    struct jpeg_decompress_struct cinfo;
    struct jpeg_error_mgr err;
    struct jpeg_source_mgr src;
    struct jpeg_progress_mgr progress;
    jmp_buf jump;
    bool too_many_scans;
    char msg[JMSG_LENGTH_MAX];
};

static void on_error(j_common_ptr cinfo) {
    struct decoder *d = cinfo->client_data;
    d->err.format_message(cinfo, d->msg);
    longjmp(d->jump, 1);
}

static void on_message(j_common_ptr cinfo) {
    (void)cinfo;
}

static void on_source(j_decompress_ptr cinfo) {
    (void)cinfo;
}

/* The end of the bytes: libjpeg then suspends, and its caller sees a truncated file. */
static boolean on_more_input(j_decompress_ptr cinfo) {
    (void)cinfo;
    return FALSE;
}

static void on_skip(j_decompress_ptr cinfo, long n) {
    struct jpeg_source_mgr *src = cinfo->src;
    size_t skip = n <= 0 ? 0 : (size_t)n < src->bytes_in_buffer ? (size_t)n : src->bytes_in_buffer;
    src->next_input_byte += skip;
    src->bytes_in_buffer -= skip;
}

/* Each scan of a progressive file may touch every coefficient, so their number bounds the time. */
static void on_progress(j_common_ptr cinfo) {
    struct decoder *d = cinfo->client_data;
    if (d->cinfo.input_scan_number <= OC_LIMIT_IMAGE_JPEG_SCANS) return;
    d->too_many_scans = true;
    longjmp(d->jump, 1);
}

static void decoder_init(struct decoder *d, struct oc_image_bytes in) {
    memset(d, 0, sizeof *d);
    d->cinfo.err = jpeg_std_error(&d->err);
    d->err.error_exit = on_error;
    d->err.output_message = on_message;
    d->cinfo.client_data = d;
    d->src = (struct jpeg_source_mgr){.next_input_byte = in.p,
                                      .bytes_in_buffer = in.n,
                                      .init_source = on_source,
                                      .fill_input_buffer = on_more_input,
                                      .skip_input_data = on_skip,
                                      .resync_to_restart = jpeg_resync_to_restart,
                                      .term_source = on_source};
    d->progress.progress_monitor = on_progress;
}

/* Runs inside setjmp, since libjpeg takes its first memory here. */
static void decoder_start(struct decoder *d, const struct oc_image_info *info) {
    jpeg_create_decompress(&d->cinfo); /* keeps err and client_data */
    d->cinfo.src = &d->src;
    d->cinfo.progress = &d->progress;
    /* Coefficients take 2 bytes for each of up to 4 components; sides are padded to whole MCUs of 32 pixels.
     */
    size_t padded = ((size_t)info->width + 32) * ((size_t)info->height + 32);
    d->cinfo.mem->max_memory_to_use = (long)(padded * 10 + 16 * OC_MIB);
}

/* Pillow takes every CMYK file for an inverted one, as Adobe writes them: the bytes are 255 - ink. */
static void cmyk_row_to_rgb(const uint8_t *in, uint8_t *rgb, int width) {
    for (int x = 0; x < width; x++) {
        unsigned k = in[4 * x + 3];
        for (int c = 0; c < 3; c++) {
            unsigned t = (255u - in[4 * x + c]) * k + 128;
            rgb[3 * x + c] = (uint8_t)(k - (((t >> 8) + t) >> 8));
        }
    }
}

/* False: the bytes ended too early. Errors leave by longjmp. */
static bool decode_pixels(struct decoder *d, const struct oc_image_info *info, uint8_t *rgb) {
    int ok;
    decoder_start(d, info);
    do ok = jpeg_read_header(&d->cinfo, FALSE);
    while (ok == JPEG_HEADER_TABLES_ONLY);
    if (ok == JPEG_SUSPENDED) return false;
    if ((int)d->cinfo.image_width != info->width || (int)d->cinfo.image_height != info->height)
        ERREXIT(&d->cinfo, JERR_BAD_LENGTH);
    const bool cmyk = d->cinfo.num_components == 4;
    d->cinfo.out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
    if (!jpeg_start_decompress(&d->cinfo)) return false;
    uint8_t *line = NULL;
    if (cmyk) line = d->cinfo.mem->alloc_large((j_common_ptr)&d->cinfo, JPOOL_IMAGE, (size_t)info->width * 4);
    while ((int)d->cinfo.output_scanline < info->height) {
        uint8_t *row = rgb + (size_t)d->cinfo.output_scanline * (size_t)info->width * 3;
        JSAMPROW to = cmyk ? line : row;
        if (jpeg_read_scanlines(&d->cinfo, &to, 1) != 1) return false;
        if (cmyk) cmyk_row_to_rgb(line, row, info->width);
    }
    return true; /* what follows the last row does not matter, as in Pillow */
}

enum outcome { DONE, TRUNCATED, BROKEN };

/* Has no variables of its own that a longjmp could spoil. */
static enum outcome decode_guarded(struct decoder *d, const struct oc_image_info *info, uint8_t *rgb) {
    if (setjmp(d->jump)) return BROKEN;
    return decode_pixels(d, info, rgb) ? DONE : TRUNCATED;
}

static enum oc_err fail_broken(const struct decoder *d, struct oc_errinfo *ei) {
    if (d->too_many_scans)
        return oc_fail(ei, OC_ERR_LIMIT, "this JPEG file has more than %d scans", OC_LIMIT_IMAGE_JPEG_SCANS);
    if (d->err.msg_code == JERR_OUT_OF_MEMORY)
        return oc_fail(ei, OC_ERR_NOMEM, "out of memory for a JPEG file");
    return oc_fail(ei, OC_ERR_FORMAT, "this JPEG file is broken: %s", d->msg);
}

enum oc_err oc_image_jpeg_decode(struct oc_image_bytes in, const struct oc_image_info *info, uint8_t *rgb,
                                 int *orientation, struct oc_errinfo *ei) {
    struct decoder d;
    enum oc_err err = OC_OK;
    decoder_init(&d, in);
    const enum outcome outcome = decode_guarded(&d, info, rgb);
    if (outcome == BROKEN) err = fail_broken(&d, ei);
    if (outcome == TRUNCATED)
        err = oc_fail(ei, OC_ERR_FORMAT, "this JPEG file is truncated: its %zu bytes end inside the picture",
                      in.n);
    jpeg_destroy_decompress(&d.cinfo);
    if (err == OC_OK) *orientation = read_orientation(in);
    return err;
}
