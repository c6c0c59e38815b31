/* BMP, read by our own code: the headers of Windows (40 to 124 bytes) and OS/2 (12, 64), 1, 4 and 8 bits with
 * a palette, 16, 24 and 32 bits, RLE4, RLE8 and the bit masks that Pillow knows. Layout: [MS-WMF] 2.2.2 and
 * the BITMAPV5HEADER documentation.
 *
 * Where Pillow 13 misreads a file (a palette of two grays with more than one bit a pixel, a gray ramp with
 * four), we follow the format instead. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "image/formats.h"

enum { RAW = 0, RLE8 = 1, RLE4 = 2, BITFIELDS = 3, FILE_HEADER = 14 };

struct bitmap {
    struct oc_image_bytes in;
    uint32_t header_bytes, compression, n_colours;
    int width, height, bits;
    bool top_down;
    uint32_t mask[4]; /* red, green, blue, alpha */
    size_t palette_at, pixels_at;
    int palette_entry_bytes;
};

static uint32_t u16(struct oc_image_bytes in, size_t at) {
    return (uint32_t)in.p[at] | (uint32_t)in.p[at + 1] << 8;
}

static uint32_t u32(struct oc_image_bytes in, size_t at) {
    return u16(in, at) | u16(in, at + 2) << 16;
}

static enum oc_err fail_truncated(const struct bitmap *b, struct oc_errinfo *ei) {
    return oc_fail(ei, OC_ERR_FORMAT, "this BMP file is truncated: its %zu bytes end before the picture does",
                   b->in.n);
}

/* ---- Header -------------------------------------------------------------------------------------------- */

static void read_core_header(struct bitmap *b) {
    b->width = (int)u16(b->in, 18);
    b->height = (int)u16(b->in, 20);
    b->bits = (int)u16(b->in, 24);
    b->compression = RAW;
    b->palette_entry_bytes = 3;
}

/* Sizes above 2^31 come out negative or huge and are refused by the caller. */
static enum oc_err read_info_header(struct bitmap *b, struct oc_errinfo *ei) {
    const uint32_t width = u32(b->in, 18);
    uint32_t height = u32(b->in, 22);
    b->top_down = b->in.p[25] == 0xff;
    if (b->top_down) height = 0u - height;
    if (width > 0x7fffffff || height > 0x7fffffff)
        return oc_fail(ei, OC_ERR_FORMAT, "this BMP file has an impossible size");
    b->width = (int)width;
    b->height = (int)height;
    b->bits = (int)u16(b->in, 28);
    b->compression = u32(b->in, 30);
    b->n_colours = u32(b->in, 46);
    b->palette_entry_bytes = 4;
    return OC_OK;
}

/* Masks stand inside the header from 52 bytes on, behind it in a header of 40; those of 56 and more have
 * alpha. */
static enum oc_err read_masks(struct bitmap *b, struct oc_errinfo *ei) {
    if (b->compression != BITFIELDS) return OC_OK;
    const int n = b->header_bytes >= 56 ? 4 : 3;
    if (b->in.n < FILE_HEADER + 40 + 4 * (size_t)n) return fail_truncated(b, ei);
    for (int i = 0; i < n; i++) b->mask[i] = u32(b->in, FILE_HEADER + 40 + 4 * (size_t)i);
    if (b->header_bytes == 40) b->palette_at += 12;
    return OC_OK;
}

static enum oc_err check_kind(const struct bitmap *b, struct oc_errinfo *ei) {
    const int bits = b->bits;
    if (bits != 1 && bits != 4 && bits != 8 && bits != 16 && bits != 24 && bits != 32)
        return oc_fail(ei, OC_ERR_UNSUPPORTED,
                       "this BMP file has %d bits a pixel; ocellus reads 1, 4, 8, 16, 24 and 32", bits);
    const bool ok = b->compression == RAW || (b->compression == BITFIELDS && bits >= 16) ||
                    (b->compression == RLE8 && bits == 8) || (b->compression == RLE4 && bits == 4);
    if (!ok)
        return oc_fail(ei, OC_ERR_UNSUPPORTED,
                       "this BMP file has compression %u with %d bits a pixel, which ocellus does not read",
                       b->compression, bits);
    return OC_OK;
}

static enum oc_err parse(struct oc_image_bytes in, struct bitmap *b, struct oc_errinfo *ei) {
    *b = (struct bitmap){.in = in};
    if (in.n < FILE_HEADER + 4) return fail_truncated(b, ei);
    const uint32_t size = b->header_bytes = u32(in, FILE_HEADER);
    if (size != 12 && size != 40 && size != 52 && size != 56 && size != 64 && size != 108 && size != 124)
        return oc_fail(ei, OC_ERR_UNSUPPORTED, "this BMP file has an unknown header of %u bytes", size);
    if (in.n < FILE_HEADER + (size_t)size) return fail_truncated(b, ei);
    b->palette_at = FILE_HEADER + (size_t)size;
    if (size == 12)
        read_core_header(b);
    else
        OC_TRY(read_info_header(b, ei));
    OC_TRY(check_kind(b, ei));
    OC_TRY(read_masks(b, ei));
    if (b->n_colours == 0 && b->bits <= 8) b->n_colours = 1u << b->bits;
    if (b->bits <= 8 && b->n_colours > 256)
        return oc_fail(ei, OC_ERR_UNSUPPORTED, "this BMP file has a palette of %u colours; 256 is the most",
                       b->n_colours);
    const size_t palette_bytes = b->bits <= 8 ? b->n_colours * (size_t)b->palette_entry_bytes : 0;
    b->pixels_at = u32(in, 10);
    /* Some writers forget the palette in the offset; none at all means "right behind what was read". */
    if (b->pixels_at == 0 || b->pixels_at == FILE_HEADER + (size_t)size) {
        const bool behind_masks = b->pixels_at == 0;
        b->pixels_at = (behind_masks ? b->palette_at : FILE_HEADER + (size_t)size) + palette_bytes;
    }
    return OC_OK;
}

enum oc_err oc_image_bmp_header(struct oc_image_bytes in, struct oc_image_info *info, struct oc_errinfo *ei) {
    struct bitmap b;
    OC_TRY(parse(in, &b, ei));
    info->width = b.width;
    info->height = b.height;
    return OC_OK;
}

/* ---- Colours ------------------------------------------------------------------------------------------- */

/* Entries past the palette or past the file are black; a full ramp of grays makes values their own gray. */
static void read_palette(const struct bitmap *b, uint8_t (*table)[3]) {
    bool ramp = b->n_colours != 2;
    memset(table, 0, 256 * sizeof *table);
    for (uint32_t i = 0; i < b->n_colours; i++) {
        size_t at = b->palette_at + i * (size_t)b->palette_entry_bytes;
        if (at > b->in.n || b->in.n - at < 3) {
            ramp = false;
            break;
        }
        const uint8_t *p = b->in.p + at;
        table[i][0] = p[2];
        table[i][1] = p[1];
        table[i][2] = p[0];
        if (p[0] != i || p[1] != i || p[2] != i) ramp = false;
    }
    for (int i = 0; ramp && i < 256; i++) memset(table[i], i, 3);
}

static void row_indexed(const uint8_t *p, int width, int bits, const uint8_t (*table)[3], uint8_t *rgb) {
    const unsigned mask = (1u << bits) - 1;
    for (int x = 0; x < width; x++, rgb += 3) {
        const int bit = x * bits;
        memcpy(rgb, table[p[bit / 8] >> (8 - bits - bit % 8) & mask], 3);
    }
}

/* 5 (or for green 6) bits a colour, widened as Pillow does: v * 255 / max, rounded down. */
static void row_16(const uint8_t *p, int width, bool green6, uint8_t *rgb) {
    const int g_max = green6 ? 63 : 31, r_shift = green6 ? 11 : 10;
    for (int x = 0; x < width; x++, p += 2, rgb += 3) {
        const int v = p[0] | p[1] << 8;
        rgb[0] = (uint8_t)((v >> r_shift & 31) * 255 / 31);
        rgb[1] = (uint8_t)((v >> 5 & g_max) * 255 / g_max);
        rgb[2] = (uint8_t)((v & 31) * 255 / 31);
    }
}

/* Whole bytes: at[] says where red, green and blue lie in each pixel. */
static void row_bytes(const uint8_t *p, int width, int pixel_bytes, const uint8_t at[3], uint8_t *rgb) {
    for (int x = 0; x < width; x++, p += pixel_bytes, rgb += 3) {
        rgb[0] = p[at[0]];
        rgb[1] = p[at[1]];
        rgb[2] = p[at[2]];
    }
}

struct layout {
    uint8_t bits;
    uint32_t mask[4];
    uint8_t at[3]; /* byte of red, green, blue; for 16 bits at[0] is 1 when green has six */
};

/* The masks that Pillow reads. Any other arrangement is refused by name. */
static const struct layout layouts[] = {
    {32, {0xff0000, 0xff00, 0xff, 0}, {2, 1, 0}},
    {32, {0xff000000, 0xff0000, 0xff00, 0}, {3, 2, 1}},
    {32, {0xff000000, 0xff00, 0xff, 0}, {3, 1, 0}},
    {32, {0xff000000, 0xff0000, 0xff00, 0xff}, {3, 2, 1}},
    {32, {0xff, 0xff00, 0xff0000, 0xff000000}, {0, 1, 2}},
    {32, {0xff0000, 0xff00, 0xff, 0xff000000}, {2, 1, 0}},
    {32, {0xff000000, 0xff00, 0xff, 0xff0000}, {3, 1, 0}},
    {32, {0, 0, 0, 0}, {2, 1, 0}},
    {24, {0xff0000, 0xff00, 0xff, 0}, {2, 1, 0}},
    {16, {0xf800, 0x7e0, 0x1f, 0}, {1, 0, 0}},
    {16, {0x7c00, 0x3e0, 0x1f, 0}, {0, 0, 0}},
};

static enum oc_err find_layout(const struct bitmap *b, uint8_t at[3], struct oc_errinfo *ei) {
    static const uint8_t bgr[3] = {2, 1, 0}, rgb555[3] = {0, 0, 0};
    if (b->compression != BITFIELDS) {
        memcpy(at, b->bits == 16 ? rgb555 : bgr, 3);
        return OC_OK;
    }
    for (size_t i = 0; i < sizeof layouts / sizeof layouts[0]; i++) {
        const struct layout *l = &layouts[i];
        const size_t n = b->bits == 32 ? 4 : 3; /* alpha of 16 and 24 bits is not looked at */
        if (l->bits != b->bits || memcmp(l->mask, b->mask, n * sizeof l->mask[0]) != 0) continue;
        memcpy(at, l->at, 3);
        return OC_OK;
    }
    return oc_fail(ei, OC_ERR_UNSUPPORTED,
                   "this BMP file has bit masks %x %x %x %x, which ocellus does not read", b->mask[0],
                   b->mask[1], b->mask[2], b->mask[3]);
}

static uint8_t *row_of(const struct bitmap *b, uint8_t *rgb, int i) {
    return rgb + (size_t)(b->top_down ? i : b->height - 1 - i) * (size_t)b->width * 3;
}

static enum oc_err decode_raw(const struct bitmap *b, uint8_t *rgb, struct oc_errinfo *ei) {
    uint8_t table[256][3], at[3] = {0, 0, 0};
    const size_t row_bits = (size_t)b->width * (size_t)b->bits;
    const size_t used = (row_bits + 7) / 8, stride = (row_bits + 31) / 32 * 4;
    /* The padding behind the last row may be missing. */
    if (b->pixels_at > b->in.n || (b->in.n - b->pixels_at) < stride * (size_t)(b->height - 1) + used)
        return fail_truncated(b, ei);
    if (b->bits <= 8)
        read_palette(b, table);
    else
        OC_TRY(find_layout(b, at, ei));
    for (int i = 0; i < b->height; i++) {
        const uint8_t *p = b->in.p + b->pixels_at + (size_t)i * stride;
        uint8_t *row = row_of(b, rgb, i);
        if (b->bits <= 8)
            row_indexed(p, b->width, b->bits, (const uint8_t(*)[3])table, row);
        else if (b->bits == 16)
            row_16(p, b->width, at[0] == 1, row);
        else
            row_bytes(p, b->width, b->bits / 8, at, row);
    }
    return OC_OK;
}

/* ---- Run-length coding --------------------------------------------------------------------------------- */

struct runs {
    const struct bitmap *b;
    size_t at;       /* next byte of the file */
    uint8_t *out;    /* palette indices, rows in file order */
    size_t n, n_all; /* written, and width * height */
    size_t x;        /* Pillow's column: not reset when an absolute run crosses the end of a row */
};

static void put_run(struct runs *r, size_t n, uint8_t value) {
    const size_t width = (size_t)r->b->width;
    if (r->x + n > width) n = r->x < width ? width - r->x : 0;
    const uint8_t first = r->b->bits == 4 ? value >> 4 : value, second = r->b->bits == 4 ? value & 15 : value;
    for (size_t i = 0; i < n; i++) r->out[r->n++] = i % 2 ? second : first;
    r->x += n;
}

static void put_zeros(struct runs *r, size_t n) {
    if (n > r->n_all - r->n) n = r->n_all - r->n;
    memset(r->out + r->n, 0, n);
    r->n += n;
}

/* False when the file ends inside the run. */
static bool put_absolute(struct runs *r, size_t n_stated) {
    const struct oc_image_bytes in = r->b->in;
    const size_t n = n_stated < r->n_all - r->n ? n_stated : r->n_all - r->n;
    const bool rle4 = r->b->bits == 4;
    const size_t n_bytes = rle4 ? (n + 1) / 2 : n;
    if (in.n - r->at < n_bytes) return false;
    for (size_t i = 0; i < n; i++) {
        const uint8_t v = in.p[r->at + (rle4 ? i / 2 : i)];
        r->out[r->n++] = !rle4 ? v : i % 2 ? v & 15 : v >> 4;
    }
    r->at += n_bytes;
    r->x += n_stated;
    if (r->at % 2) r->at++; /* runs begin at even places of the file */
    return true;
}

/* One escape code. False at the end of the bitmap or of the file. */
static bool put_escape(struct runs *r, uint8_t code) {
    const struct oc_image_bytes in = r->b->in;
    const size_t width = (size_t)r->b->width;
    if (code == 0) { /* end of line */
        put_zeros(r, (width - r->n % width) % width);
        r->x = 0;
        return true;
    }
    if (code == 1) return false;
    if (code != 2) return put_absolute(r, code);
    if (in.n - r->at < 2) return false;
    put_zeros(r, in.p[r->at] + in.p[r->at + 1] * width);
    r->at += 2;
    r->x = r->n % width;
    return true;
}

static void expand_runs(struct runs *r) {
    const struct oc_image_bytes in = r->b->in;
    while (r->n < r->n_all && r->at + 2 <= in.n) {
        const uint8_t n = in.p[r->at], value = in.p[r->at + 1];
        r->at += 2;
        if (n)
            put_run(r, n, value);
        else if (!put_escape(r, value))
            return;
    }
}

/* Indices first, then colours: runs may cross rows. */
static enum oc_err decode_rle(const struct bitmap *b, uint8_t *rgb, struct oc_errinfo *ei) {
    uint8_t table[256][3];
    const size_t n_all = (size_t)b->width * (size_t)b->height;
    uint8_t *indices = malloc(n_all);
    if (!indices) return oc_fail(ei, OC_ERR_NOMEM, "out of memory for a BMP file");
    struct runs r = {.b = b, .at = b->pixels_at, .out = indices, .n_all = n_all};
    enum oc_err err = OC_OK;
    expand_runs(&r);
    if (r.n < n_all) {
        err = fail_truncated(b, ei);
        goto out;
    }
    read_palette(b, table);
    for (int i = 0; i < b->height; i++)
        row_indexed(indices + (size_t)i * (size_t)b->width, b->width, 8, (const uint8_t(*)[3])table,
                    row_of(b, rgb, i));
out:
    free(indices);
    return err;
}

enum oc_err oc_image_bmp_decode(struct oc_image_bytes in, const struct oc_image_info *info, uint8_t *rgb,
                                int *orientation, struct oc_errinfo *ei) {
    struct bitmap b;
    (void)orientation; /* BMP carries none */
    OC_TRY(parse(in, &b, ei));
    OC_ASSERT(b.width == info->width && b.height == info->height);
    if (b.compression == RLE8 || b.compression == RLE4) return decode_rle(&b, rgb, ei);
    return decode_raw(&b, rgb, ei);
}
