/* The inner loops of resampling for what the processor offers, each against a loop of one byte at a time; and
 * pictures resized and cut into patches strip by strip against the same done at once. Inputs end at an
 * unreadable page, outputs have canaries. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "image/patchify.h"
#include "image/resample.h"
#include "image/resize.h"

enum { CANARY = 64, CANARY_BYTE = 0xa5 };

static uint32_t next_random(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 32);
}

static int random_in(uint64_t *state, int low, int high) {
    return low + (int)(next_random(state) % (uint32_t)(high - low + 1));
}

/* ---- Memory -------------------------------------------------------------------------------------------- */

/* Bytes that end where nothing may be read. */
struct fenced {
    uint8_t *p, *map;
    size_t map_bytes;
};

static struct fenced make_fenced(size_t n, uint64_t *random) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), inside = (n + page - 1) / page * page;
    struct fenced f = {.map_bytes = inside + page};
    f.map = mmap(NULL, f.map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(f.map != MAP_FAILED);
    assert_int_equal(mprotect(f.map + inside, page, PROT_NONE), 0);
    f.p = f.map + inside - n;
    for (size_t i = 0; i < n; i++) f.p[i] = (uint8_t)next_random(random);
    if (random_in(random, 0, 3) == 0) memset(f.p, random_in(random, 0, 1) * 255, n); /* what clips */
    return f;
}

static void free_fenced(struct fenced *f) {
    munmap(f->map, f->map_bytes);
}

static uint8_t *make_guarded(size_t n) {
    uint8_t *p = malloc(n + 2 * CANARY);
    assert_non_null(p);
    memset(p, CANARY_BYTE, n + 2 * CANARY);
    return p + CANARY;
}

static void free_guarded(uint8_t *p, size_t n) {
    for (size_t i = 0; i < CANARY; i++) {
        assert_int_equal(p[(ptrdiff_t)i - CANARY], CANARY_BYTE);
        assert_int_equal(p[n + i], CANARY_BYTE);
    }
    free(p - CANARY);
}

/* ---- One byte at a time -------------------------------------------------------------------------------- */

static uint8_t one_byte(const uint8_t *in, size_t stride, const int32_t *k, int n) {
    int64_t sum = 1 << (OC_IMAGE_WEIGHT_BITS - 1);
    for (int i = 0; i < n; i++) sum += (int64_t)in[(size_t)i * stride] * k[i];
    assert_true(sum >= INT32_MIN && sum <= INT32_MAX);
    sum >>= OC_IMAGE_WEIGHT_BITS;
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

/* n weights whose sum with any bytes fits in 32 bits; `large`: one of them in more than three signed bytes.
 */
static void make_weights(int32_t *k, int n, bool large, uint64_t *random) {
    int32_t left = 1 << 23;
    for (int i = 0; i < n; i++) {
        const int32_t size = large && i == n / 2 ? (1 << 23) - (1 << 12)
                             : left > 0          ? (int32_t)(next_random(random) % (uint32_t)left) / 2
                                                 : 0;
        if (large && i != n / 2) {
            k[i] = random_in(random, -15, 15);
            continue;
        }
        k[i] = random_in(random, 0, 2) ? size : -size;
        left -= size;
    }
}

/* ---- Loops --------------------------------------------------------------------------------------------- */

static void check_columns(const struct oc_image_resample *r, int n_bytes, int n, size_t gap, bool large,
                          uint64_t *random) {
    const size_t stride = (size_t)n_bytes + gap;
    struct fenced in = make_fenced(stride * (size_t)(n - 1) + (size_t)n_bytes, random);
    uint8_t *out = make_guarded((size_t)n_bytes);
    int32_t *k = malloc((size_t)n * sizeof *k); /* of its exact size, for a sanitizer */
    make_weights(k, n, large, random);
    r->columns(in.p, stride, k, n, (size_t)n_bytes, out);
    for (int x = 0; x < n_bytes; x++) assert_int_equal(out[x], one_byte(in.p + x, stride, k, n));
    free(k);
    free_guarded(out, (size_t)n_bytes);
    free_fenced(&in);
}

/* Windows that move as those of a resize do, with up to n_taps taps. */
static struct oc_image_weights make_windows(int n_in, int n_out, int n_taps, bool large, uint64_t *random) {
    struct oc_image_weights w = {.n_in = n_in,
                                 .n_out = n_out,
                                 .n_taps = n_taps,
                                 .first = malloc((size_t)n_out * sizeof(int)),
                                 .count = malloc((size_t)n_out * sizeof(int)),
                                 .weights = calloc((size_t)n_out * (size_t)n_taps, sizeof(int32_t))};
    for (int i = 0; i < n_out; i++) {
        const int first = (int)((int64_t)i * n_in / n_out) - n_taps / 2,
                  most = random_in(random, n_taps > 1 ? n_taps - 1 : 1, n_taps);
        w.first[i] = first < 0 ? 0 : first;
        w.count[i] = w.first[i] + most > n_in ? n_in - w.first[i] : most;
        make_weights(w.weights + (size_t)i * (size_t)n_taps, w.count[i], large, random);
    }
    return w;
}

static void check_rows(const struct oc_image_resample *r, int n_in, int n_out, int n_taps, bool large,
                       uint64_t *random) {
    struct oc_image_weights w = make_windows(n_in, n_out, n_taps, large, random);
    struct fenced in[4];
    uint8_t *out[4];
    const uint8_t *from[4];
    const size_t n_bytes = 3 * (size_t)n_out;
    for (int i = 0; i < 4; i++)
        in[i] = make_fenced(3 * (size_t)n_in + OC_IMAGE_ROW_SLACK, random), out[i] = make_guarded(n_bytes);
    for (int i = 0; i < 4; i++) from[i] = in[i].p;
    if (r->prepare) assert_true(r->prepare(&w));
    r->rows(from, &w, out);
    for (int i = 0; i < 4; i++)
        for (size_t x = 0; x < n_bytes; x++)
            assert_int_equal(out[i][x], one_byte(in[i].p + 3 * (size_t)w.first[x / 3] + x % 3, 3,
                                                 w.weights + x / 3 * (size_t)n_taps, w.count[x / 3]));
    for (int i = 0; i < 4; i++) free_fenced(&in[i]), free_guarded(out[i], n_bytes);
    free(w.first);
    free(w.count);
    free(w.weights);
    free(w.prepared);
}

static void for_each_loops(void (*check)(const struct oc_image_resample *r, uint64_t *random)) {
    const struct oc_image_resample *r;
    for (int i = 0; (r = oc_image_resample_at(i)); i++) {
        uint64_t random = 1;
        if (r->is_supported()) check(r, &random);
        print_message("%s: %s\n", r->name, r->is_supported() ? "checked" : "not supported here");
    }
    assert_true(oc_image_resample_best()->is_supported());
}

static void columns_of(const struct oc_image_resample *r, uint64_t *random) {
    for (int n_bytes = 1; n_bytes <= 200; n_bytes++)
        check_columns(r, n_bytes, random_in(random, 1, 14), (size_t)random_in(random, 0, 5), false, random);
    for (int n = 1; n <= 40; n++) check_columns(r, random_in(random, 1, 300), n, 0, n % 5 == 0, random);
    check_columns(r, 77, 256, 3, false, random);
    check_columns(r, 77, 257, 3, false, random); /* more taps than the loops have room for */
    check_columns(r, 130, 1000, 0, false, random);
}

static void rows_of(const struct oc_image_resample *r, uint64_t *random) {
    for (int n_out = 1; n_out <= 90; n_out++)
        check_rows(r, n_out, n_out, random_in(random, 1, 9), n_out % 7 == 0, random);
    for (int i = 0; i < 200; i++)
        check_rows(r, random_in(random, 1, 300), random_in(random, 1, 300), random_in(random, 1, 20),
                   i % 20 == 0, random);
    check_rows(r, 5000, 3, 1200, false, random);
}

static void test_columns(void **state) {
    (void)state;
    for_each_loops(columns_of);
}

static void test_rows(void **state) {
    (void)state;
    for_each_loops(rows_of);
}

/* ---- Pictures ------------------------------------------------------------------------------------------ */

/* A picture resized in strips of random heights, by the loops of r. */
static uint8_t *resize_in_strips(const struct oc_image_resample *r, const struct oc_image *img, int width,
                                 int height, enum oc_resample filter, uint64_t *random) {
    struct oc_image_resizer *resizer;
    struct oc_errinfo ei;
    const int most = random_in(random, 1, 40);
    const size_t row_bytes = 3 * (size_t)width;
    uint8_t *out = make_guarded(row_bytes * (size_t)height);
    assert_int_equal(oc_image_resizer_open_with(r, img, width, height, filter, most, &resizer, &ei), OC_OK);
    for (int y = 0; y < height;) {
        int n = random_in(random, 1, most);
        if (n > height - y) n = height - y;
        oc_image_resizer_next(resizer, n, out + (size_t)y * row_bytes);
        y += n;
    }
    oc_image_resizer_close(resizer);
    return out;
}

static void check_picture(const struct oc_image_resample *r, int w, int h, int width, int height,
                          uint64_t *random) {
    struct fenced in = make_fenced(3 * (size_t)w * (size_t)h, random);
    const struct oc_image img = {w, h, in.p};
    for (int filter = OC_RESAMPLE_NEAREST; filter <= OC_RESAMPLE_BICUBIC; filter++) {
        const size_t n_bytes = 3 * (size_t)width * (size_t)height;
        struct oc_image_resizer *whole;
        struct oc_errinfo ei;
        uint8_t *expected = make_guarded(n_bytes);
        assert_int_equal(oc_image_resizer_open_with(oc_image_resample_at(0), &img, width, height,
                                                    (enum oc_resample)filter, height, &whole, &ei),
                         OC_OK);
        oc_image_resizer_next(whole, height, expected);
        oc_image_resizer_close(whole);
        uint8_t *got = resize_in_strips(r, &img, width, height, (enum oc_resample)filter, random);
        assert_memory_equal(got, expected, n_bytes);
        free_guarded(got, n_bytes);
        free_guarded(expected, n_bytes);
    }
    free_fenced(&in);
}

static void pictures_of(const struct oc_image_resample *r, uint64_t *random) {
    for (int i = 0; i < 60; i++)
        check_picture(r, random_in(random, 1, 90), random_in(random, 1, 90), random_in(random, 1, 90),
                      random_in(random, 1, 90), random);
    for (int i = 0; i < 12; i++) { /* one side stays */
        const int w = random_in(random, 1, 60), h = random_in(random, 1, 60);
        check_picture(r, w, h, i % 2 ? w : random_in(random, 1, 60), i % 2 ? random_in(random, 1, 60) : h,
                      random);
    }
    check_picture(r, 20, 700, 18, 50, random); /* the height first */
    check_picture(r, 1, 1, 33, 65, random);
    check_picture(r, 400, 300, 7, 3, random);
}

static void test_pictures(void **state) {
    (void)state;
    for_each_loops(pictures_of);
}

/* ---- Patches ------------------------------------------------------------------------------------------- */

static struct oc_picture_plan make_plan(int patch, int merge, int temporal, int grid_t, int blocks_h,
                                        int blocks_w) {
    const int h = blocks_h * merge, w = blocks_w * merge;
    return (struct oc_picture_plan){.width = w * patch,
                                    .height = h * patch,
                                    .resample = OC_RESAMPLE_BICUBIC,
                                    .rescale = 1 / 255.0,
                                    .mean = {0.48145466, 0.4578275, 0.40821073},
                                    .std = {0.26862954, 0.26130258, 0.27577711},
                                    .patch = patch,
                                    .merge = merge,
                                    .temporal = temporal,
                                    .grid_t = grid_t,
                                    .grid_h = h,
                                    .grid_w = w,
                                    .n_patches = grid_t * h * w,
                                    .patch_dim = 3 * temporal * patch * patch};
}

/* Where a value of the result comes from, counted down from its place in the order of patches. */
static float expected_value(const uint8_t *rgb, const struct oc_picture_plan *p, size_t at) {
    size_t in_patch = at % (size_t)p->patch_dim,
           patch = at / (size_t)p->patch_dim % (size_t)(p->grid_h * p->grid_w);
    const size_t edge = (size_t)p->patch, m = (size_t)p->merge;
    const size_t x = in_patch % edge, y = in_patch / edge % edge,
                 c = in_patch / (edge * edge) / (size_t)p->temporal;
    const size_t inner = patch % (m * m), block = patch / (m * m), n_across = (size_t)p->grid_w / m;
    const size_t row = (block / n_across * m + inner / m) * edge + y,
                 column = (block % n_across * m + inner % m) * edge + x;
    const double v = rgb[(row * (size_t)p->width + column) * 3 + c] * p->rescale;
    return ((float)v - (float)p->mean[c]) / (float)p->std[c];
}

/* Any run of them, alone. */
static void check_run(const struct oc_picture_plan *p, const uint8_t *rgb, int from, int to,
                      const float *all) {
    const size_t n = (size_t)(to - from) * (size_t)p->patch_dim;
    float *out = (float *)(void *)make_guarded(n * sizeof *out);
    oc_image_patchify_rows(rgb, p, from, to, out);
    if (n) assert_memory_equal(out, all + (size_t)from * (size_t)p->patch_dim, n * sizeof *out);
    free_guarded((uint8_t *)(void *)out, n * sizeof *out);
}

/* At once or in runs, resized or not. */
static void check_patches(const struct oc_picture_plan *p, int w, int h, uint64_t *random) {
    const size_t n = (size_t)p->n_patches * (size_t)p->patch_dim,
                 n_rgb = 3 * (size_t)p->width * (size_t)p->height;
    struct fenced in = make_fenced(3 * (size_t)w * (size_t)h, random), copy = make_fenced(n_rgb, random);
    const struct oc_image img = {w, h, in.p};
    struct oc_image resized;
    struct oc_errinfo ei;
    float *out = (float *)(void *)make_guarded(n * sizeof *out);
    assert_int_equal(oc_image_resize(&img, p->width, p->height, p->resample, &resized, &ei), OC_OK);
    assert_int_equal(oc_image_patchify_resized(&img, p, out, &ei), OC_OK);
    for (size_t i = 0; i < n; i++) {
        const float want = expected_value(resized.rgb, p, i);
        assert_memory_equal(&out[i], &want, sizeof want);
    }
    memcpy(copy.p, resized.rgb, n_rgb); /* nothing behind it is read */
    for (int size = 1; size < p->n_patches; size = size * 3 + 1)
        for (int from = 0; from < p->n_patches; from += size)
            check_run(p, copy.p, from, p->n_patches - from < size ? p->n_patches : from + size, out);
    for (int i = 0; i < 8; i++) {
        const int from = random_in(random, 0, p->n_patches);
        check_run(p, copy.p, from, random_in(random, from, p->n_patches), out);
    }
    free_guarded((uint8_t *)(void *)out, n * sizeof *out);
    oc_image_free(&resized);
    free_fenced(&copy);
    free_fenced(&in);
}

static void test_patches(void **state) {
    (void)state;
    uint64_t random = 1;
    for (int patch = 1; patch <= 20; patch++) {
        const struct oc_picture_plan p =
            make_plan(patch, random_in(&random, 1, 3), random_in(&random, 1, 3), random_in(&random, 1, 2),
                      random_in(&random, 1, 3), random_in(&random, 1, 4));
        check_patches(&p, p.width, p.height, &random);
        check_patches(&p, random_in(&random, 1, 100), random_in(&random, 1, 100), &random);
    }
    const struct oc_picture_plan wide = make_plan(14, 2, 2, 1, 2, 40);
    check_patches(&wide, 1119, 57, &random);
    check_patches(&wide, wide.width, wide.height, &random);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_columns),
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_pictures),
        cmocka_unit_test(test_patches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
