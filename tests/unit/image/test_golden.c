/* Every case of tests/golden/image/manifest.txt: what Pillow makes of each file, and what we make of it. The
 * manifest is written by tools/capture_image_golden.py, which describes its lines. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/limits.h"
#include "image/decode.h"
#include "image/patchify.h"
#include "image/resize.h"

#define GOLDEN_DIR OC_TEST_DIR "/golden/image/"

struct tally {
    int n_decode, n_resize, n_patches, n_errors, n_bad;
};

static uint64_t fnv1a(const void *data, size_t n) {
    const uint8_t *p = data;
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < n; i++) h = (h ^ p[i]) * 1099511628211u;
    return h;
}

/* The bytes are copied to memory of their exact size, so that a sanitizer sees a read past them. */
static enum oc_err decode_file(const char *name, struct oc_image *img, struct oc_errinfo *ei) {
    char path[1024];
    struct oc_map map;
    snprintf(path, sizeof path, GOLDEN_DIR "%s", name);
    assert_int_equal(oc_map_open(path, &map, ei), OC_OK);
    uint8_t *copy = malloc(map.n_bytes);
    assert_non_null(copy);
    memcpy(copy, map.data, map.n_bytes);
    enum oc_err err = oc_image_decode(copy, map.n_bytes, NULL, img, ei);
    free(copy);
    oc_map_close(&map);
    return err;
}

static void check(struct tally *t, const char *line, uint64_t got, uint64_t want) {
    if (got == want) return;
    printf("differs: %s (got %016" PRIx64 ")\n", line, got);
    t->n_bad++;
}

static void decode_or_complain(struct tally *t, const char *line, const char *name, struct oc_image *img) {
    struct oc_errinfo ei;
    if (decode_file(name, img, &ei) == OC_OK) return;
    printf("refused: %s: %s\n", line, ei.msg);
    t->n_bad++;
}

static void run_decode(struct tally *t, const char *line) {
    char name[256];
    int w, h;
    uint64_t want;
    struct oc_image img;
    assert_int_equal(sscanf(line, "decode %255s %d %d %" SCNx64, name, &w, &h, &want), 4);
    decode_or_complain(t, line, name, &img);
    t->n_decode++;
    if (!img.rgb) return;
    assert_int_equal(img.width, w);
    assert_int_equal(img.height, h);
    check(t, line, fnv1a(img.rgb, (size_t)w * (size_t)h * 3), want);
    oc_image_free(&img);
}

static void run_resize(struct tally *t, const char *line) {
    char name[256];
    int w, h, filter;
    uint64_t want;
    struct oc_image img, out;
    struct oc_errinfo ei;
    assert_int_equal(sscanf(line, "resize %255s %d %d %d %" SCNx64, name, &w, &h, &filter, &want), 5);
    decode_or_complain(t, line, name, &img);
    t->n_resize++;
    if (!img.rgb) return;
    assert_int_equal(oc_image_resize(&img, w, h, (enum oc_resample)filter, &out, &ei), OC_OK);
    check(t, line, fnv1a(out.rgb, (size_t)w * (size_t)h * 3), want);
    oc_image_free(&out);
    oc_image_free(&img);
}

/* Bits, not 1e-6: the reference's arithmetic is a rounding for each byte value, which a table repeats
 * exactly. */
static void run_patches(struct tally *t, const char *line) {
    char name[256];
    struct oc_picture_plan p = {.rescale = 1 / 255.0,
                                .mean = {0.48145466, 0.4578275, 0.40821073},
                                .std = {0.26862954, 0.26130258, 0.27577711},
                                .grid_t = 1};
    int filter;
    uint64_t want;
    struct oc_image img;
    struct oc_errinfo ei;
    assert_int_equal(sscanf(line, "patches %255s %d %d %d %d %d %d %" SCNx64, name, &p.width, &p.height,
                            &filter, &p.patch, &p.merge, &p.temporal, &want),
                     8);
    p.resample = (enum oc_resample)filter;
    p.grid_h = p.height / p.patch;
    p.grid_w = p.width / p.patch;
    p.n_patches = p.grid_h * p.grid_w;
    p.patch_dim = 3 * p.temporal * p.patch * p.patch;
    decode_or_complain(t, line, name, &img);
    t->n_patches++;
    if (!img.rgb) return;
    const size_t n = (size_t)p.n_patches * (size_t)p.patch_dim;
    float *out = malloc(n * sizeof *out);
    assert_non_null(out);
    assert_int_equal(oc_image_patchify_resized(&img, &p, out, &ei), OC_OK);
    check(t, line, fnv1a(out, n * sizeof *out), want);
    free(out);
    oc_image_free(&img);
}

static void run_error(struct tally *t, const char *line) {
    char name[256], code[32];
    struct oc_image img;
    struct oc_errinfo ei = {.code = OC_OK};
    assert_int_equal(sscanf(line, "error %255s %31s", name, code), 2);
    enum oc_err err = decode_file(name, &img, &ei);
    t->n_errors++;
    if (err != OC_OK && strcmp(oc_err_name(err), code) == 0 && ei.code == err && strlen(ei.msg) > 20 &&
        !img.rgb)
        return;
    printf("wrong error: %s (got %s)\n", line, err == OC_OK ? "a picture" : oc_err_name(err));
    oc_image_free(&img);
    t->n_bad++;
}

static void run_line(struct tally *t, const char *line) {
    if (strncmp(line, "decode ", 7) == 0)
        run_decode(t, line);
    else if (strncmp(line, "resize ", 7) == 0)
        run_resize(t, line);
    else if (strncmp(line, "patches ", 8) == 0)
        run_patches(t, line);
    else if (strncmp(line, "error ", 6) == 0)
        run_error(t, line);
    else
        assert_int_equal(line[0], '#');
}

static void test_manifest(void **state) {
    (void)state;
    struct tally t = {0};
    char line[512];
    FILE *f = fopen(GOLDEN_DIR "manifest.txt", "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = '\0';
        run_line(&t, line);
    }
    fclose(f);
    printf("%d decoded, %d resized, %d patchified, %d refused\n", t.n_decode, t.n_resize, t.n_patches,
           t.n_errors);
    assert_int_equal(t.n_bad, 0);
    assert_true(t.n_decode >= 100 && t.n_resize >= 60 && t.n_patches >= 6 && t.n_errors >= 20);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_manifest)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
