/* Patches with AVX-512 VBMI: a table of 256 values fits the registers, so 64 pixels of a channel are looked
 * up at once. */
#include "image/patch.h"

#include <immintrin.h>
#include <string.h>

enum { ROWS = 4 }; /* of up to 16 pixels, one quarter of the result each */

bool oc_image_patch_avx512vbmi_fits(int edge) {
    return edge >= 8 && edge <= 16 && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vbmi");
}

/* Where the pixels of rows 0 and 1 (2 and 3), 64 bytes each, go: byte 16 l + 4 r + i of the vector is pixel 4
 * l + i of row r, since interleaving four such vectors then gives one row in each. */
static inline __m512i pixel_order(int channel) {
    int8_t order[64];
    for (int at = 0; at < 64; at++) {
        const int x = at / 16 * 4 + at % 4, r = at % 16 / 4;
        order[at] = (int8_t)(r % 2 * 64 + 3 * x + channel);
    }
    return _mm512_loadu_si512(order);
}

static inline __attribute__((always_inline)) __m512i gather(const uint8_t *const row[ROWS], __mmask64 pixels,
                                                            __m512i order) {
    const __m512i a = _mm512_maskz_loadu_epi8(pixels, row[0]), b = _mm512_maskz_loadu_epi8(pixels, row[1]);
    const __m512i c = _mm512_maskz_loadu_epi8(pixels, row[2]), d = _mm512_maskz_loadu_epi8(pixels, row[3]);
    const __mmask64 later_rows = 0xff00ff00ff00ff00u;
    return _mm512_mask_blend_epi8(later_rows, _mm512_permutex2var_epi8(a, order, b),
                                  _mm512_permutex2var_epi8(c, order, d));
}

/* One byte of each value. */
static inline __attribute__((always_inline)) __m512i look_up(const __m512i table[4], __m512i v,
                                                             __mmask64 is_high) {
    return _mm512_mask_blend_epi8(is_high, _mm512_permutex2var_epi8(table[0], v, table[1]),
                                  _mm512_permutex2var_epi8(table[2], v, table[3]));
}

static inline __attribute__((always_inline)) void values_of(const __m512i table[4][4], __m512i v,
                                                            __m512i out[ROWS]) {
    const __mmask64 is_high = _mm512_movepi8_mask(v);
    const __m512i b0 = look_up(table[0], v, is_high), b1 = look_up(table[1], v, is_high);
    const __m512i b2 = look_up(table[2], v, is_high), b3 = look_up(table[3], v, is_high);
    const __m512i low01 = _mm512_unpacklo_epi8(b0, b1), high01 = _mm512_unpackhi_epi8(b0, b1);
    const __m512i low23 = _mm512_unpacklo_epi8(b2, b3), high23 = _mm512_unpackhi_epi8(b2, b3);
    out[0] = _mm512_unpacklo_epi16(low01, low23);
    out[1] = _mm512_unpackhi_epi16(low01, low23);
    out[2] = _mm512_unpacklo_epi16(high01, high23);
    out[3] = _mm512_unpackhi_epi16(high01, high23);
}

/* Row y of a frame. What is written behind it belongs to the next row, which follows; the last one keeps
 * within the frame. */
static inline __attribute__((always_inline)) void store_row(float *frame, int y, int edge, __m512i v) {
    float *to = frame + y * edge;
    if (y < edge - 1)
        _mm512_storeu_si512(to, v);
    else
        _mm512_mask_storeu_epi32(to, (__mmask16)((1u << edge) - 1), v);
}

static void write_channel(const uint8_t *rgb, size_t row_bytes, int edge, int temporal,
                          const uint8_t (*bytes)[256], __m512i order, float *out) {
    const __mmask64 pixels = ((__mmask64)1 << (3 * edge)) - 1;
    __m512i table[4][4], v[ROWS];
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) table[i][j] = _mm512_loadu_si512(bytes[i] + 64 * j);
    for (int y = 0; y < edge; y += ROWS) {
        const uint8_t *row[ROWS];
        for (int r = 0; r < ROWS; r++) row[r] = rgb + (size_t)(y + r < edge ? y + r : edge - 1) * row_bytes;
        values_of(table, gather(row, pixels, order), v);
        for (int r = 0; r < ROWS && y + r < edge; r++) store_row(out, y + r, edge, v[r]);
    }
    for (int t = 1; t < temporal; t++)
        memcpy(out + t * edge * edge, out, (size_t)(edge * edge) * sizeof *out);
}

void oc_image_patch_avx512vbmi(const uint8_t *rgb, size_t row_bytes, int edge, int temporal,
                               const struct oc_image_values *values, float *out) {
    for (int c = 0; c < 3; c++, out += temporal * edge * edge)
        write_channel(rgb, row_bytes, edge, temporal, values->bytes[c], pixel_order(c), out);
}
