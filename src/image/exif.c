#include "image/exif.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/pages.h"

enum { TAG_ORIENTATION = 0x0112, N_TYPES = 17 };

struct reader {
    const uint8_t *p;
    size_t n;
    bool big_endian;
};

static uint32_t read_u16(const struct reader *r, size_t at) {
    const uint8_t *p = r->p + at;
    return r->big_endian ? (uint32_t)(p[0] << 8 | p[1]) : (uint32_t)(p[1] << 8 | p[0]);
}

static uint32_t read_u32(const struct reader *r, size_t at) {
    uint32_t a = read_u16(r, at), b = read_u16(r, at + 2);
    return r->big_endian ? a << 16 | b : b << 16 | a;
}

static int clamp_orientation(uint32_t v) {
    return v >= 1 && v <= 8 ? (int)v : 1;
}

/* Bytes of one value of a TIFF type, 0 for types that do not exist. */
static uint32_t type_bytes(uint32_t type) {
    static const uint8_t bytes[N_TYPES] = {0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8};
    return type < N_TYPES ? bytes[type] : 0;
}

/* The value of an orientation entry at `at`: 0 when the entry counts as absent. */
static int entry_orientation(const struct reader *r, size_t at) {
    uint32_t type = read_u16(r, at + 2), count = read_u32(r, at + 4);
    uint32_t bytes = type_bytes(type);
    if (bytes == 0 || count == 0) return 0;
    if (count != 1) return 1; /* a tuple is present but matches no orientation */
    if (type == 3 || type == 8) return clamp_orientation(read_u16(r, at + 8));
    if (type == 4 || type == 9 || type == 13) return clamp_orientation(read_u32(r, at + 8));
    return 1;
}

int oc_image_exif_orientation(const uint8_t *data, size_t n) {
    for (int i = 0; i < 2 && n >= 6 && memcmp(data, "Exif\0\0", 6) == 0; i++) {
        data += 6;
        n -= 6;
    }
    if (n < 8) return 0;
    struct reader r = {data, n, data[0] == 'M'};
    if (memcmp(data, "II\x2a\0", 4) != 0 && memcmp(data, "MM\0\x2a", 4) != 0 &&
        memcmp(data, "MM\x2a\0", 4) != 0 && memcmp(data, "II\0\x2a", 4) != 0)
        return 0;
    size_t at = read_u32(&r, 4);
    if (at > n || n - at < 2) return 0;
    uint32_t n_entries = read_u16(&r, at);
    at += 2;
    for (uint32_t i = 0; i < n_entries && n - at >= 12; i++, at += 12) {
        if (read_u16(&r, at) != TAG_ORIENTATION) continue;
        int orientation = entry_orientation(&r, at);
        if (orientation) return orientation;
    }
    return 0;
}

int oc_image_exif_xmp_orientation(const uint8_t *xmp, size_t n) {
    static const char key[] = "tiff:Orientation";
    const size_t n_key = sizeof key - 1;
    for (size_t at = 0; n >= n_key + 2 && at <= n - n_key - 2; at++) {
        if (memcmp(xmp + at, key, n_key) != 0) continue;
        const uint8_t *p = xmp + at + n_key, *end = xmp + n;
        if (*p == '>')
            p++;
        else if (end - p >= 3 && p[0] == '=' && p[1] == '"')
            p += 2;
        else
            continue;
        if (p < end && *p >= '0' && *p <= '9') return clamp_orientation((uint32_t)(*p - '0'));
    }
    return 0;
}

/* For each orientation, where the first stored pixel is read from and how reading proceeds along the upright
 * picture's rows: swap exchanges the axes, flip_x and flip_y count the stored axis from its end. */
static const struct {
    bool swap, flip_x, flip_y;
} turns[9] = {
    {0, 0, 0}, {0, 0, 0}, {0, 1, 0}, {0, 1, 1}, {0, 0, 1}, {1, 0, 0}, {1, 0, 1}, {1, 1, 1}, {1, 1, 0},
};

uint8_t *oc_image_exif_apply(uint8_t *rgb, int *width, int *height, int orientation) {
    if (orientation < 2 || orientation > 8) return rgb;
    const bool swap = turns[orientation].swap;
    const ptrdiff_t w = *width, h = *height;
    const ptrdiff_t out_w = swap ? h : w, out_h = swap ? w : h;
    uint8_t *out = oc_pages_alloc((size_t)(w * h) * 3);
    if (!out) return NULL;
    const ptrdiff_t step_x = turns[orientation].flip_x ? -3 : 3;
    const ptrdiff_t step_y = turns[orientation].flip_y ? -3 * w : 3 * w;
    const uint8_t *first = rgb + (step_x < 0 ? 3 * (w - 1) : 0) + (step_y < 0 ? 3 * w * (h - 1) : 0);
    uint8_t *q = out;
    for (ptrdiff_t y = 0; y < out_h; y++) {
        const uint8_t *row = first + y * (swap ? step_x : step_y);
        const ptrdiff_t step = swap ? step_y : step_x;
        for (ptrdiff_t x = 0; x < out_w; x++, q += 3) {
            const uint8_t *p = row + x * step;
            q[0] = p[0];
            q[1] = p[1];
            q[2] = p[2];
        }
    }
    free(rgb);
    *width = (int)out_w;
    *height = (int)out_h;
    return out;
}
