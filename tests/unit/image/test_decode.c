/* Limits, sniffing and errors of the picture reader; pixels are compared in test_golden.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "image/decode.h"
#include "image/exif.h"
#include "image/patchify.h"
#include "image/resize.h"

/* A PNG header that promises width x height and holds nothing. */
static const uint8_t png_head[33] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n',
                                     0,    0,   0,   13,  'I',  'H',  'D',  'R'};

static void make_png(uint8_t *out, uint32_t w, uint32_t h) {
    memcpy(out, png_head, sizeof png_head);
    for (int i = 0; i < 4; i++) {
        out[16 + i] = (uint8_t)(w >> (24 - 8 * i));
        out[20 + i] = (uint8_t)(h >> (24 - 8 * i));
    }
    out[24] = 8;
    out[25] = 2;
}

static enum oc_err decode_code(const uint8_t *p, size_t n, const struct oc_image_limits *lim) {
    struct oc_image img;
    struct oc_errinfo ei = {.code = OC_OK};
    enum oc_err err = oc_image_decode(p, n, lim, &img, &ei);
    assert_null(img.rgb);
    assert_int_equal(ei.code, err);
    assert_true(strlen(ei.msg) > 10);
    return err;
}

static void test_sniff(void **state) {
    (void)state;
    assert_int_equal(oc_image_sniff((const uint8_t *)"", 0), OC_IMAGE_UNKNOWN);
    assert_int_equal(oc_image_sniff((const uint8_t *)"\xff\xd8\xff", 3), OC_IMAGE_JPEG);
    assert_int_equal(oc_image_sniff((const uint8_t *)"\xff\xd8", 2), OC_IMAGE_UNKNOWN);
    assert_int_equal(oc_image_sniff((const uint8_t *)"GIF88a", 6), OC_IMAGE_UNKNOWN);
    assert_int_equal(oc_image_sniff((const uint8_t *)"RIFF1234WEBP", 12), OC_IMAGE_WEBP);
    assert_int_equal(oc_image_sniff((const uint8_t *)"RIFF1234WAVE", 12), OC_IMAGE_UNKNOWN);
    assert_int_equal(oc_image_sniff((const uint8_t *)"BM", 2), OC_IMAGE_BMP);
    assert_string_equal(oc_image_format_name(OC_IMAGE_WEBP), "WebP");
}

static void test_not_a_picture(void **state) {
    (void)state;
    assert_int_equal(decode_code((const uint8_t *)"", 0, NULL), OC_ERR_UNSUPPORTED);
    assert_int_equal(decode_code((const uint8_t *)"<svg>", 5, NULL), OC_ERR_UNSUPPORTED);
    static const char *heads[] = {"\xff\xd8\xff", "\x89PNG\r\n\x1a\n", "RIFF\x20\0\0\0WEBP", "GIF89a", "BM"};
    static const size_t n[] = {3, 8, 12, 6, 2};
    for (int i = 0; i < 5; i++)
        assert_int_equal(decode_code((const uint8_t *)heads[i], n[i], NULL), OC_ERR_FORMAT);
}

/* Sizes are refused before anything is allocated: 2^31-1 squared would not fit anywhere. */
static void test_huge_sizes(void **state) {
    (void)state;
    static const uint32_t sizes[][2] = {{0x7fffffff, 0x7fffffff}, {32769, 1}, {1, 32769}, {20000, 20000}};
    uint8_t png[33];
    struct oc_image_info info;
    struct oc_errinfo ei;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        make_png(png, sizes[i][0], sizes[i][1]);
        assert_int_equal(oc_image_probe(png, sizeof png, NULL, &info, &ei), OC_ERR_LIMIT);
        assert_int_equal(decode_code(png, sizeof png, NULL), OC_ERR_LIMIT);
    }
    make_png(png, 0, 5);
    assert_int_equal(decode_code(png, sizeof png, NULL), OC_ERR_FORMAT);
    make_png(png, 0x80000000u, 5);
    assert_int_equal(decode_code(png, sizeof png, NULL), OC_ERR_FORMAT);
}

static void test_huge_sizes_of_other_formats(void **state) {
    (void)state;
    static const uint8_t gif[] = "GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\1\0\1\0\0\2\2\x44\1\0;";
    static const uint8_t jpeg[] =
        "\xff\xd8\xff\xc0\0\x0b\x08\xff\xff\xff\xff\1\1\x11\0\xff\xda\0\x08\1\1\0\0\x3f\0";
    static const uint8_t webp[] = "RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\2\0\0\0\x3f\x9c\0\x3f\x9c\0ANIM";
    uint8_t bmp[54] = "BM";
    bmp[14] = 40;
    bmp[20] = bmp[24] = 1; /* 65536 x 65536 */
    bmp[28] = 24;
    assert_int_equal(decode_code(gif, sizeof gif - 1, NULL), OC_ERR_LIMIT);
    assert_int_equal(decode_code(jpeg, sizeof jpeg - 1, NULL), OC_ERR_LIMIT);
    assert_int_equal(decode_code(webp, sizeof webp - 1, NULL), OC_ERR_LIMIT);
    assert_int_equal(decode_code(bmp, sizeof bmp, NULL), OC_ERR_LIMIT);
}

static void test_own_limits(void **state) {
    (void)state;
    uint8_t png[33];
    struct oc_image_info info;
    struct oc_errinfo ei;
    make_png(png, 100, 50);
    struct oc_image_limits lim = {.max_bytes = 32};
    assert_int_equal(oc_image_probe(png, sizeof png, &lim, &info, &ei), OC_ERR_LIMIT);
    lim = (struct oc_image_limits){.max_side_px = 99};
    assert_int_equal(oc_image_probe(png, sizeof png, &lim, &info, &ei), OC_ERR_LIMIT);
    lim = (struct oc_image_limits){.max_pixels = 4999};
    assert_int_equal(oc_image_probe(png, sizeof png, &lim, &info, &ei), OC_ERR_LIMIT);
    lim = (struct oc_image_limits){.max_bytes = 33, .max_side_px = 100, .max_pixels = 5000};
    assert_int_equal(oc_image_probe(png, sizeof png, &lim, &info, &ei), OC_OK);
    assert_int_equal(info.format, OC_IMAGE_PNG);
    assert_int_equal(info.width, 100);
    assert_int_equal(info.height, 50);
    lim = (struct oc_image_limits){.max_side_px = 1 << 30,
                                   .max_pixels = UINT64_MAX}; /* cannot raise the house's */
    make_png(png, 32769, 1);
    assert_int_equal(oc_image_probe(png, sizeof png, &lim, &info, &ei), OC_ERR_LIMIT);
}

/* The 3 x 2 picture a b c / d e f (first bytes of its pixels) in each of the eight positions. */
static void test_orientations(void **state) {
    (void)state;
    static const char *want[9] = {NULL,     "abcdef", "cbafed", "fedcba", "defabc",
                                  "adbecf", "daebfc", "fcebda", "cfbead"};
    for (int o = 1; o <= 8; o++) {
        int w = 3, h = 2;
        uint8_t *rgb = calloc(18, 1);
        assert_non_null(rgb);
        for (int i = 0; i < 6; i++) rgb[3 * i] = rgb[3 * i + 2] = (uint8_t)('a' + i);
        rgb = oc_image_exif_apply(rgb, &w, &h, o);
        assert_int_equal(w, o < 5 ? 3 : 2);
        assert_int_equal(h, o < 5 ? 2 : 3);
        for (int i = 0; i < 6; i++) {
            assert_int_equal(rgb[3 * i], want[o][i]);
            assert_int_equal(rgb[3 * i + 1], 0);
            assert_int_equal(rgb[3 * i + 2], want[o][i]);
        }
        free(rgb);
    }
}

static void test_resize_refuses(void **state) {
    (void)state;
    uint8_t px[3] = {1, 2, 3};
    const struct oc_image one = {1, 1, px};
    struct oc_image out;
    struct oc_errinfo ei;
    static const int sizes[][2] = {{0, 5}, {5, 0}, {-1, 5}, {32769, 1}, {20000, 20000}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        assert_int_equal(oc_image_resize(&one, sizes[i][0], sizes[i][1], OC_RESAMPLE_BICUBIC, &out, &ei),
                         OC_ERR_LIMIT);
        assert_null(out.rgb);
    }
}

static void test_patchify_refuses(void **state) {
    (void)state;
    uint8_t px[4 * 4 * 3] = {0};
    float out[4 * 4 * 3];
    const struct oc_image img = {4, 4, px};
    const struct oc_picture_plan good = {.width = 4,
                                         .height = 4,
                                         .rescale = 1,
                                         .std = {1, 1, 1},
                                         .patch = 2,
                                         .merge = 2,
                                         .temporal = 1,
                                         .grid_t = 1,
                                         .grid_h = 2,
                                         .grid_w = 2,
                                         .n_patches = 4,
                                         .patch_dim = 12};
    struct oc_errinfo ei;
    assert_int_equal(oc_image_patchify(&img, &good, out, &ei), OC_OK);
    struct oc_picture_plan bad = good;
    bad.grid_w = 3;
    assert_int_equal(oc_image_patchify(&img, &bad, out, &ei), OC_ERR_USAGE);
    bad = good;
    bad.patch_dim = 24;
    assert_int_equal(oc_image_patchify(&img, &bad, out, &ei), OC_ERR_USAGE);
    const struct oc_image other = {4, 2, px};
    assert_int_equal(oc_image_patchify(&other, &good, out, &ei), OC_ERR_USAGE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sniff),          cmocka_unit_test(test_not_a_picture),
        cmocka_unit_test(test_huge_sizes),     cmocka_unit_test(test_huge_sizes_of_other_formats),
        cmocka_unit_test(test_own_limits),     cmocka_unit_test(test_orientations),
        cmocka_unit_test(test_resize_refuses), cmocka_unit_test(test_patchify_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
