/* GIF through giflib: the first frame on its canvas, as Pillow shows it. The canvas grows to hold the frame;
 * the rest of it has the transparent colour's value, or 0. Alpha is dropped: transparent pixels keep their
 * colour. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <gif_lib.h>

#include "base/limits.h"
#include "image/formats.h"

struct source {
    struct oc_image_bytes in;
    size_t at;
    bool past_end;
};

struct frame {
    int x, y, width, height;
    int canvas_width, canvas_height;
    bool interlaced;
    int transparent; /* palette index, or -1 */
};

/* At the end one zero byte is handed out for each single one asked for: a missing block terminator is
 * forgiven, missing data is not. */
static int on_read(GifFileType *gif, GifByteType *out, int n) {
    struct source *s = gif->UserData;
    size_t left = s->in.n - s->at, take = (size_t)n < left ? (size_t)n : left;
    memcpy(out, s->in.p + s->at, take);
    s->at += take;
    if (take == (size_t)n) return n;
    s->past_end = true;
    if (n == 1) {
        out[0] = 0;
        return 1;
    }
    return (int)take;
}

static enum oc_err fail(const struct source *s, int code, struct oc_errinfo *ei) {
    if (code == D_GIF_ERR_NOT_ENOUGH_MEM) return oc_fail(ei, OC_ERR_NOMEM, "out of memory for a GIF file");
    if (s->past_end)
        return oc_fail(ei, OC_ERR_FORMAT,
                       "this GIF file is truncated: its %zu bytes end before the picture does", s->in.n);
    const char *why = GifErrorString(code);
    return oc_fail(ei, OC_ERR_FORMAT, "this GIF file is broken: %s", why ? why : "unknown error");
}

/* Reads one extension; a graphic control block sets the frame's transparent index. */
static bool read_extension(GifFileType *gif, struct frame *f, int *n_blocks) {
    int code;
    GifByteType *block;
    if (DGifGetExtension(gif, &code, &block) != GIF_OK) return false;
    if (code == GRAPHICS_EXT_FUNC_CODE && block && block[0] >= 4) {
        if (block[1] & 1) f->transparent = block[4];
    }
    while (block) {
        if (++*n_blocks > OC_LIMIT_IMAGE_GIF_BLOCKS) return false;
        if (DGifGetExtensionNext(gif, &block) != GIF_OK) return false;
    }
    return true;
}

/* Reads up to the first frame's pixels. */
static bool find_frame(GifFileType *gif, struct frame *f) {
    GifRecordType type;
    int n_blocks = 0;
    f->transparent = -1;
    for (;;) {
        if (DGifGetRecordType(gif, &type) != GIF_OK) return false;
        if (type == IMAGE_DESC_RECORD_TYPE) break;
        if (type != EXTENSION_RECORD_TYPE || !read_extension(gif, f, &n_blocks)) {
            if (gif->Error == 0) gif->Error = D_GIF_ERR_NO_IMAG_DSCR;
            return false;
        }
    }
    if (DGifGetImageDesc(gif) != GIF_OK) return false;
    const GifImageDesc *im = &gif->Image;
    f->x = im->Left;
    f->y = im->Top;
    f->width = im->Width;
    f->height = im->Height;
    f->interlaced = im->Interlace;
    f->canvas_width = f->x + f->width > gif->SWidth ? f->x + f->width : gif->SWidth;
    f->canvas_height = f->y + f->height > gif->SHeight ? f->y + f->height : gif->SHeight;
    return true;
}

/* Opens and stops before the first frame's pixels. On success the caller closes *gif. */
static enum oc_err open_frame(struct source *s, GifFileType **gif, struct frame *f, struct oc_errinfo *ei) {
    int code = 0;
    *gif = DGifOpen(s, on_read, &code);
    if (!*gif) return fail(s, code, ei);
    enum oc_err err = OC_OK;
    if (!find_frame(*gif, f))
        err = fail(s, (*gif)->Error, ei);
    else if (f->width == 0 || f->height == 0)
        err = oc_fail(ei, OC_ERR_FORMAT, "this GIF file has an empty first frame");
    if (err == OC_OK) return OC_OK;
    DGifCloseFile(*gif, NULL);
    *gif = NULL;
    return err;
}

enum oc_err oc_image_gif_header(struct oc_image_bytes in, struct oc_image_info *info, struct oc_errinfo *ei) {
    struct source s = {in, 0, false};
    struct frame f;
    GifFileType *gif;
    OC_TRY(open_frame(&s, &gif, &f, ei));
    info->width = f.canvas_width;
    info->height = f.canvas_height;
    DGifCloseFile(gif, NULL);
    return OC_OK;
}

/* The colour of each pixel value. Without a palette, or with one that only lists the grays in order, values
 * are grays themselves (Pillow's mode L); otherwise values past the palette are black. */
static void make_table(const GifFileType *gif, uint8_t (*table)[3]) {
    const ColorMapObject *map = gif->Image.ColorMap ? gif->Image.ColorMap : gif->SColorMap;
    bool gray = true;
    memset(table, 0, 256 * sizeof *table);
    for (int i = 0; map && i < map->ColorCount && i < 256; i++) {
        const GifColorType c = map->Colors[i];
        table[i][0] = c.Red;
        table[i][1] = c.Green;
        table[i][2] = c.Blue;
        if (c.Red != i || c.Green != i || c.Blue != i) gray = false;
    }
    for (int i = 0; gray && i < 256; i++) memset(table[i], i, 3);
}

static void fill(uint8_t *rgb, size_t n_pixels, const uint8_t *colour) {
    for (size_t i = 0; i < n_pixels; i++, rgb += 3) memcpy(rgb, colour, 3);
}

/* The row of the picture that comes `i`-th in an interlaced file: every 8th, then the 8ths between, and so
 * on. */
static int interlaced_row(int i, int height) {
    static const int first[4] = {0, 4, 2, 1}, step[4] = {8, 8, 4, 2};
    for (int pass = 0; pass < 4; pass++) {
        int n_rows = height > first[pass] ? (height - first[pass] + step[pass] - 1) / step[pass] : 0;
        if (i < n_rows) return first[pass] + i * step[pass];
        i -= n_rows;
    }
    return height - 1;
}

static bool read_rows(GifFileType *gif, const struct frame *f, const uint8_t (*table)[3], uint8_t *line,
                      uint8_t *rgb) {
    for (int i = 0; i < f->height; i++) {
        const int y = f->y + (f->interlaced ? interlaced_row(i, f->height) : i);
        if (DGifGetLine(gif, line, f->width) != GIF_OK) return false;
        uint8_t *to = rgb + ((size_t)y * (size_t)f->canvas_width + (size_t)f->x) * 3;
        for (int x = 0; x < f->width; x++, to += 3) {
            to[0] = table[line[x]][0];
            to[1] = table[line[x]][1];
            to[2] = table[line[x]][2];
        }
    }
    return true;
}

enum oc_err oc_image_gif_decode(struct oc_image_bytes in, const struct oc_image_info *info, uint8_t *rgb,
                                int *orientation, struct oc_errinfo *ei) {
    struct source s = {in, 0, false};
    struct frame f;
    GifFileType *gif;
    uint8_t table[256][3];
    (void)orientation; /* GIF carries none */
    OC_TRY(open_frame(&s, &gif, &f, ei));
    OC_ASSERT(f.canvas_width == info->width && f.canvas_height == info->height);
    enum oc_err err = OC_OK;
    uint8_t *line = malloc((size_t)f.width);
    if (!line) {
        err = oc_fail(ei, OC_ERR_NOMEM, "out of memory for a GIF file");
        goto out;
    }
    make_table(gif, table);
    if (f.width != f.canvas_width || f.height != f.canvas_height)
        fill(rgb, (size_t)f.canvas_width * (size_t)f.canvas_height,
             table[f.transparent < 0 ? 0 : f.transparent]);
    if (!read_rows(gif, &f, (const uint8_t(*)[3])table, line, rgb)) err = fail(&s, gif->Error, ei);
out:
    free(line);
    DGifCloseFile(gif, NULL);
    return err;
}
