/* PNG through libpng's row API. Rows are decoded where they will lie, one, two or three bytes a pixel, and
 * spread to RGB in place; what the values become is Pillow's rule, so no gamma, background or scaling of
 * libpng's. */
#include <setjmp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <png.h>

#include "base/limits.h"
#include "image/exif.h"
#include "image/formats.h"

/* ---- Chunks, before libpng sees them ------------------------------------------------------------------- */

/* CRC-32 of PNG (ISO 3309), half a byte at a time. */
static uint32_t crc32_of(const uint8_t *p, size_t n) {
    static const uint32_t table[16] = {0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4,
                                       0x4db26158, 0x5005713c, 0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
                                       0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c};
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < n; i++) {
        crc = table[(crc ^ p[i]) & 15] ^ crc >> 4;
        crc = table[(crc ^ (uint32_t)(p[i] >> 4)) & 15] ^ crc >> 4;
    }
    return ~crc;
}

static uint32_t big_u32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

enum stop { STOP_AT_END, STOP_AT_NEXT_FRAME, STOP_IN_PIXELS, STOP_IN_CHUNK, STOP_AT_BAD_CHECKSUM };

/* Where the chunks of the first frame end, and whether the bytes end inside one of them. libpng takes memory
 * for a chunk before it looks whether the file holds that much, so a lying length must be found here. */
static enum stop find_stop(struct oc_image_bytes in) {
    bool has_pixels = false;
    for (size_t at = 8; in.n - at >= 8;) {
        const uint8_t *p = in.p + at;
        const size_t n = big_u32(p);
        const bool is_pixels = memcmp(p + 4, "IDAT", 4) == 0;
        has_pixels = has_pixels || is_pixels;
        if (memcmp(p + 4, "IEND", 4) == 0) break;
        if (has_pixels && memcmp(p + 4, "fcTL", 4) == 0) return STOP_AT_NEXT_FRAME;
        if (in.n - at - 8 < n) return is_pixels ? STOP_IN_PIXELS : STOP_IN_CHUNK;
        if (in.n - at - 8 - n < 4) break;
        if (!has_pixels && crc32_of(p + 4, n + 4) != big_u32(p + 8 + n)) return STOP_AT_BAD_CHECKSUM;
        at += 12 + n;
    }
    return STOP_AT_END;
}

struct decoder {
    png_structp png;
    png_infop info;
    struct oc_image_bytes in;
    size_t at;
    int last_row, last_pass; /* of the interlaced rows: the one whose decoding completes the picture */
    enum stop stop;
    bool complete;
    bool past_end;
    char msg[128];
};

enum oc_err oc_image_png_header(struct oc_image_bytes in, struct oc_image_info *info, struct oc_errinfo *ei) {
    if (in.n < 33)
        return oc_fail(ei, OC_ERR_FORMAT, "this PNG file ends (after %zu bytes) in its header", in.n);
    if (memcmp(in.p + 12, "IHDR", 4) != 0)
        return oc_fail(ei, OC_ERR_FORMAT, "this PNG file does not begin with an IHDR chunk");
    uint32_t size[2];
    for (int i = 0; i < 2; i++) {
        size[i] = big_u32(in.p + 16 + 4 * i);
        if (size[i] > 0x7fffffff) return oc_fail(ei, OC_ERR_FORMAT, "this PNG file has an impossible size");
    }
    info->width = (int)size[0];
    info->height = (int)size[1];
    return OC_OK;
}

static void on_error(png_structp png, png_const_charp msg) {
    struct decoder *d = png_get_error_ptr(png);
    strncpy(d->msg, msg, sizeof d->msg - 1);
    longjmp(png_jmpbuf(png), 1);
}

static void on_warning(png_structp png, png_const_charp msg) {
    (void)png;
    (void)msg;
}

static void on_read(png_structp png, png_bytep out, size_t n) {
    struct decoder *d = png_get_io_ptr(png);
    if (n > d->in.n - d->at) {
        d->past_end = true;
        png_error(png, "it is truncated");
    }
    memcpy(out, d->in.p + d->at, n);
    d->at += n;
}

/* Called for each decoded row, before libpng reads on: a file that is cut behind its last row is still good.
 */
static void on_row(png_structp png, png_row_infop row, png_bytep data) {
    struct decoder *d = png_get_user_transform_ptr(png);
    (void)row;
    (void)data;
    if ((int)png_get_current_row_number(png) == d->last_row &&
        png_get_current_pass_number(png) == d->last_pass)
        d->complete = true;
}

/* The last row of the last pass that is not empty (Adam7: first row and column, and their steps, per pass).
 */
static void find_last_row(struct decoder *d, int width, int height, bool interlaced) {
    static const int x0[7] = {0, 4, 0, 2, 0, 1, 0}, y0[7] = {0, 0, 4, 0, 2, 0, 1};
    static const int dy[7] = {8, 8, 8, 4, 4, 2, 2};
    d->last_pass = 0;
    d->last_row = height - 1;
    if (!interlaced) return;
    for (int pass = 0; pass < 7; pass++) {
        if (x0[pass] >= width || y0[pass] >= height) continue;
        d->last_pass = pass;
        d->last_row = y0[pass] + (height - 1 - y0[pass]) / dy[pass] * dy[pass];
    }
}

/* ---- Rows to RGB, in place ----------------------------------------------------------------------------- */

/* One byte a pixel to three through a table of 256 colours; from the end, so that nothing is overwritten. */
static void spread_bytes(uint8_t *row, int width, const uint8_t (*table)[3]) {
    for (int x = width - 1; x >= 0; x--) {
        const uint8_t *c = table[row[x]];
        row[3 * x] = c[0];
        row[3 * x + 1] = c[1];
        row[3 * x + 2] = c[2];
    }
}

/* 16-bit gray, big-endian: Pillow clips it to 255 instead of scaling it (mode I;16 to RGB). */
static void spread_gray16(uint8_t *row, int width) {
    for (int x = width - 1; x >= 0; x--) {
        uint8_t v = row[2 * x] ? 255 : row[2 * x + 1];
        row[3 * x] = row[3 * x + 1] = row[3 * x + 2] = v;
    }
}

/* Colours of the values of a one-byte row: the palette (missing entries black), or gray scaled to 255. */
static void make_table(struct decoder *d, int colour, int depth, uint8_t (*table)[3]) {
    memset(table, 0, 256 * sizeof *table);
    if (colour == PNG_COLOR_TYPE_PALETTE) {
        png_colorp palette = NULL;
        int n = 0;
        png_get_PLTE(d->png, d->info, &palette, &n);
        for (int i = 0; i < n && i < 256; i++) {
            table[i][0] = palette[i].red;
            table[i][1] = palette[i].green;
            table[i][2] = palette[i].blue;
        }
        return;
    }
    const int max = depth >= 8 ? 255 : (1 << depth) - 1;
    for (int i = 0; i <= max; i++) memset(table[i], i * 255 / max, 3);
}

static void to_rgb(struct decoder *d, int width, int height, uint8_t *rgb) {
    const int colour = png_get_color_type(d->png, d->info), depth = png_get_bit_depth(d->png, d->info);
    uint8_t table[256][3];
    if (colour & PNG_COLOR_MASK_COLOR && colour != PNG_COLOR_TYPE_PALETTE) return;
    make_table(d, colour, depth, table);
    for (int y = 0; y < height; y++) {
        uint8_t *row = rgb + (size_t)y * (size_t)width * 3;
        if (colour == PNG_COLOR_TYPE_GRAY && depth == 16)
            spread_gray16(row, width);
        else
            spread_bytes(row, width, table);
    }
}

/* ---- Decoding ------------------------------------------------------------------------------------------ */

/* Asks libpng for raw values without alpha: 16-bit colour and gray+alpha keep their high byte, as in Pillow.
 */
static void set_transforms(struct decoder *d) {
    const int colour = png_get_color_type(d->png, d->info);
    if (png_get_bit_depth(d->png, d->info) == 16 && colour != PNG_COLOR_TYPE_GRAY) png_set_strip_16(d->png);
    if (colour & PNG_COLOR_MASK_ALPHA) png_set_strip_alpha(d->png);
    png_set_packing(d->png);
    png_set_read_user_transform_fn(d->png, on_row);
    png_set_user_transform_info(d->png, d, 0, 0);
}

/* Runs inside setjmp: some of these take memory. */
static void configure(struct decoder *d) {
    png_set_read_fn(d->png, d, on_read);
    png_set_user_limits(d->png, OC_LIMIT_IMAGE_SIDE_PX, OC_LIMIT_IMAGE_SIDE_PX);
    png_set_chunk_malloc_max(d->png, OC_LIMIT_IMAGE_METADATA_BYTES);
    png_set_chunk_cache_max(d->png, 64);
    /* Checksums of pixel data do not matter, as in Pillow; those before it were checked by find_stop. */
    png_set_crc_action(d->png, PNG_CRC_QUIET_USE, PNG_CRC_WARN_DISCARD);
    static const png_byte skipped[] = "iCCP\0sPLT\0hIST"; /* big, compressed, and of no use here */
    png_set_keep_unknown_chunks(d->png, PNG_HANDLE_CHUNK_NEVER, skipped, 3);
    /* libpng reads pixel data in large pieces and fails when one is short, though the rows may be whole: a
     * file cut there is read byte by byte. */
    if (d->stop == STOP_IN_PIXELS) png_set_compression_buffer_size(d->png, 1);
}

/* Errors leave by longjmp. */
static void read_rows(struct decoder *d, const struct oc_image_info *info, uint8_t *rgb) {
    configure(d);
    png_read_info(d->png, d->info);
    if ((int)png_get_image_width(d->png, d->info) != info->width ||
        (int)png_get_image_height(d->png, d->info) != info->height)
        png_error(d->png, "it has two headers");
    set_transforms(d);
    const bool interlaced = png_get_interlace_type(d->png, d->info) != PNG_INTERLACE_NONE;
    const int n_passes = png_set_interlace_handling(d->png);
    find_last_row(d, info->width, info->height, interlaced);
    png_start_read_image(d->png);
    for (int pass = 0; pass < n_passes; pass++)
        for (int y = 0; y < info->height; y++)
            png_read_row(d->png, rgb + (size_t)y * (size_t)info->width * 3, NULL);
}

static bool decoder_init(struct decoder *d, struct oc_image_bytes in) {
    *d = (struct decoder){.in = in};
    d->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, d, on_error, on_warning);
    d->info = d->png ? png_create_info_struct(d->png) : NULL;
    return d->info != NULL;
}

/* ---- Orientation --------------------------------------------------------------------------------------- */

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* ImageMagick's "Raw profile type exif": a newline, the name, the length, then lines of hex digits. */
static int raw_profile_orientation(const char *text, size_t n) {
    size_t at = 0, n_out = 0;
    for (int lines = 0; lines < 3 && at < n; at++) lines += text[at] == '\n';
    uint8_t *out = malloc(n / 2 + 1);
    if (!out) return 0;
    int high = -1;
    for (; at < n; at++) {
        int v = hex_digit(text[at]);
        if (v < 0) continue;
        if (high < 0)
            high = v;
        else {
            out[n_out++] = (uint8_t)(high << 4 | v);
            high = -1;
        }
    }
    int orientation = oc_image_exif_orientation(out, n_out);
    free(out);
    return orientation;
}

static int read_orientation(struct decoder *d) {
    png_uint_32 n_exif = 0;
    png_bytep exif = NULL;
    png_textp text = NULL;
    int n_text = 0, profile = 0, xmp = 0, orientation = 0;
    if (png_get_eXIf_1(d->png, d->info, &n_exif, &exif))
        orientation = oc_image_exif_orientation(exif, n_exif);
    png_get_text(d->png, d->info, &text, &n_text);
    for (int i = 0; i < n_text; i++) {
        const bool is_itxt = text[i].compression >= PNG_ITXT_COMPRESSION_NONE;
        const size_t n = is_itxt ? text[i].itxt_length : text[i].text_length;
        if (strcmp(text[i].key, "Raw profile type exif") == 0)
            profile = raw_profile_orientation(text[i].text, n);
        else if (strcmp(text[i].key, "XML:com.adobe.xmp") == 0)
            xmp = oc_image_exif_xmp_orientation((const uint8_t *)text[i].text, n);
    }
    if (!exif && profile) orientation = profile;
    return orientation ? orientation : xmp ? xmp : 1;
}

/* These two have no variables of their own that a longjmp could spoil. */
static bool read_rows_guarded(struct decoder *d, const struct oc_image_info *info, uint8_t *rgb) {
    if (setjmp(png_jmpbuf(d->png))) return false;
    read_rows(d, info, rgb);
    return true;
}

/* Metadata may follow the pixels; whatever is wrong there is no reason to refuse the picture. */
static void read_trailer_guarded(struct decoder *d) {
    if (setjmp(png_jmpbuf(d->png))) return;
    png_read_end(d->png, d->info);
}

/* libpng has no error codes, only messages. */
static enum oc_err fail_broken(const struct decoder *d, struct oc_errinfo *ei) {
    if (d->past_end)
        return oc_fail(ei, OC_ERR_FORMAT, "this PNG file is truncated: its %zu bytes end inside the picture",
                       d->in.n);
    if (strstr(d->msg, "ut of memory") || strstr(d->msg, "nsufficient memory"))
        return oc_fail(ei, OC_ERR_NOMEM, "out of memory for a PNG file");
    return oc_fail(ei, OC_ERR_FORMAT, "this PNG file is broken: %s", d->msg);
}

enum oc_err oc_image_png_decode(struct oc_image_bytes in, const struct oc_image_info *info, uint8_t *rgb,
                                int *orientation, struct oc_errinfo *ei) {
    struct decoder d;
    enum oc_err err = OC_OK;
    const enum stop stop = find_stop(in);
    if (stop == STOP_IN_CHUNK)
        return oc_fail(ei, OC_ERR_FORMAT, "this PNG file is truncated: its %zu bytes end inside a chunk",
                       in.n);
    if (stop == STOP_AT_BAD_CHECKSUM)
        return oc_fail(ei, OC_ERR_FORMAT, "this PNG file is broken: a checksum before its pixels is wrong");
    if (!decoder_init(&d, in)) {
        err = oc_fail(ei, OC_ERR_NOMEM, "out of memory for a PNG file");
        goto out;
    }
    d.stop = stop;
    if (read_rows_guarded(&d, info, rgb)) {
        if (stop == STOP_AT_END) read_trailer_guarded(&d);
    } else if (!d.complete) {
        err = fail_broken(&d, ei);
    }
    if (err == OC_OK) {
        to_rgb(&d, info->width, info->height, rgb);
        *orientation = read_orientation(&d);
    }
out:
    png_destroy_read_struct(&d.png, &d.info, NULL);
    return err;
}
