/* Resized sizes against Python's own arithmetic: the numbers come from the formula run in Python 3.11, whose round() is
 * half to even. */
#include <setjmp.h>
#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/limits.h"
#include "models/pictures.h"

static void sizes_equal_python(void **state) {
    (void)state;
    static const struct {
        int w, h;
        int64_t min, max;
        int out_w, out_h;
    } cases[] = {
        {1355, 710, 3136, 12845056, 1344, 700},
        {14, 14, 3136, 12845056, 56, 56},
        {70, 42, 3136, 12845056, 56, 56},
        {98, 70, 3136, 12845056, 112, 56},
        {200, 1, 3136, 12845056, 812, 28},
        {1, 200, 3136, 12845056, 28, 812},
        {6000, 4000, 3136, 12845056, 4368, 2912},
        {6000, 4000, 3136, 1003520, 1204, 812},
        {1, 1, 3136, 12845056, 56, 56},
        {2000, 13, 3136, 12845056, 700, 28},
        {50, 9999, 3136, 602112, 56, 9996},
        {154, 126, 100, 1000000, 168, 112},
        {28, 28, 784, 784, 28, 28},
        {41, 30, 784, 784, 28, 28},
        {2110, 2552, 3136, 200704, 392, 476},
        {4352, 1469, 3136, 12845056, 4340, 1456},
        {2053, 1908, 3136, 200704, 448, 420},
        {1286, 213, 3136, 12845056, 1288, 224},
        {3853, 1523, 3136, 12845056, 3864, 1512},
        {4465, 1560, 3136, 12845056, 4452, 1568},
        {2058, 2351, 3136, 12845056, 2072, 2352},
        {1795, 2995, 3136, 1003520, 756, 1288},
        {1499, 1145, 3136, 1003520, 1120, 868},
        {594, 654, 3136, 12845056, 588, 644},
        {3661, 2532, 3136, 12845056, 3668, 2520},
        {18, 542, 3136, 12845056, 28, 532},
        {1771, 858, 3136, 12845056, 1764, 868},
        {2374, 682, 3136, 1003520, 1848, 532},
        {4423, 815, 3136, 200704, 1036, 168},
        {1695, 2563, 3136, 12845056, 1708, 2576},
        {1631, 2829, 3136, 1003520, 756, 1316},
        {185, 1224, 3136, 1003520, 196, 1232},
        {1371, 1700, 3136, 12845056, 1372, 1708},
        {541, 1081, 3136, 1003520, 532, 1092},
        {4949, 1235, 3136, 200704, 896, 196},
        {2100, 14, 3136, 200704, 700, 28},
        {2788, 2899, 3136, 12845056, 2800, 2912},
        {2920, 1270, 3136, 1003520, 1512, 644},
        {2600, 1970, 3136, 12845056, 2604, 1960},
        {3885, 1972, 3136, 200704, 616, 308},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int w, h;
        assert_int_equal(oc_models_pictures_smart_resize(cases[i].w, cases[i].h, 28, cases[i].min, cases[i].max, &w, &h, NULL),
                         OC_OK);
        assert_int_equal(w, cases[i].out_w);
        assert_int_equal(h, cases[i].out_h);
    }
}

static void extreme_aspect_is_refused(void **state) {
    (void)state;
    struct oc_errinfo ei;
    int w, h;
    assert_int_equal(oc_models_pictures_smart_resize(2010, 10, 28, 3136, 1000000, &w, &h, &ei), OC_ERR_LIMIT);
    assert_non_null(strstr(ei.msg, "2010x10"));
    assert_int_equal(oc_models_pictures_smart_resize(2000, 10, 28, 3136, 1000000, &w, &h, &ei), OC_OK);
    assert_int_equal(oc_models_pictures_smart_resize(0, 10, 28, 3136, 1000000, &w, &h, &ei), OC_ERR_FORMAT);
}

static struct oc_picture_rules rules(void) {
    return (struct oc_picture_rules){.kind = OC_MODELS_PICTURES_GRID, .patch = 14, .merge = 2, .temporal = 2, .resample = OC_RESAMPLE_BICUBIC,
                                     .max_tokens = 4096, .min_pixels = 3136, .max_pixels = 12845056, .rescale = 1 / 255.0,
                                     .mean = {0.5, 0.5, 0.5}, .std = {0.25, 0.25, 0.25}};
}

static struct oc_model model_with_rules(void) {
    struct oc_model m = {.architecture = "Test", .has_vision = true, .image_token = 9};
    m.pictures = rules();
    return m;
}

static void plan_counts_patches_and_tokens(void **state) {
    (void)state;
    struct oc_picture_rules r = rules();
    struct oc_picture_plan p;
    assert_int_equal(oc_picture_rules_plan(&r, 1355, 710, NULL, 0, &p, NULL), OC_OK);
    assert_int_equal(p.width, 1344);
    assert_int_equal(p.height, 700);
    assert_int_equal(p.grid_h, 50);
    assert_int_equal(p.grid_w, 96);
    assert_int_equal(p.n_patches, 4800);
    assert_int_equal(p.n_tokens, 1200);
    assert_int_equal(p.patch_dim, 1176);
}

static void plan_respects_the_cap(void **state) {
    (void)state;
    struct oc_picture_rules r = rules();
    struct oc_picture_plan p;
    for (int cap = 4; cap < 3000; cap = cap * 3 + 1) {
        assert_int_equal(oc_picture_rules_plan(&r, 4032, 3024, NULL, cap, &p, NULL), OC_OK);
        assert_true(p.n_tokens <= cap && p.n_tokens > 0);
    }
    assert_int_equal(oc_picture_rules_plan(&r, 4032, 3024, &(struct oc_picture_limits){.max_pixels = 100 * 784}, 0, &p, NULL), OC_OK);
    assert_true(p.n_tokens <= 100);
    r.max_tokens = 30; /* a caller's wish does not raise the engine's own */
    assert_int_equal(oc_picture_rules_plan(&r, 4032, 3024, NULL, 1000, &p, NULL), OC_OK);
    assert_true(p.n_tokens <= 30);
    r.kind = OC_MODELS_PICTURES_NONE;
    assert_int_equal(oc_picture_rules_plan(&r, 40, 30, NULL, 0, &p, NULL), OC_ERR_UNSUPPORTED);
}

/* Each makes rules that a broken process could send. */
static void break_rules(struct oc_picture_rules *r, int how) {
    switch (how) {
    case 0: r->kind = 2; break;
    case 1: r->kind = -1; break;
    case 2: r->patch = 0; break;
    case 3: r->patch = INT32_MAX; break;
    case 4: r->merge = 0; break;
    case 5: r->merge = 1000; break;
    case 6: r->temporal = -3; break;
    case 7: r->temporal = 99; break;
    case 8: r->max_tokens = 0; break;
    case 9: r->max_tokens = INT32_MAX; break;
    case 10: r->min_pixels = 0; break;
    case 11: r->max_pixels = r->min_pixels - 1; break;
    case 12: r->rescale = NAN; break;
    case 13: r->std[1] = 0; break;
    case 14: r->mean[2] = INFINITY; break;
    case 15: r->resample = (enum oc_resample)7; break;
    default: r->rescale = 0; break;
    }
}

static void rules_that_contradict_themselves_are_refused(void **state) {
    (void)state;
    struct oc_picture_plan p;
    struct oc_errinfo ei;
    for (int how = 0; how <= 16; how++) {
        struct oc_picture_rules r = rules();
        break_rules(&r, how);
        assert_int_equal(oc_picture_rules_plan(&r, 640, 480, NULL, 0, &p, &ei), OC_ERR_FORMAT);
        assert_non_null(strstr(ei.msg, "contradict"));
    }
}

/* The largest rules that are let through, with the largest sides: nothing overflows. */
static void the_widest_rules_do_not_overflow(void **state) {
    (void)state;
    struct oc_picture_rules r = rules();
    struct oc_picture_plan p;
    static const int sides[][2] = {{INT32_MAX, INT32_MAX}, {INT32_MAX, INT32_MAX / 200}, {1, 1}, {200, 1}};
    for (int patch = 1; patch <= OC_LIMIT_PATCH_EDGE; patch += OC_LIMIT_PATCH_EDGE - 1)
        for (int merge = 1; merge <= OC_LIMIT_PATCH_MERGE; merge += OC_LIMIT_PATCH_MERGE - 1)
            for (size_t i = 0; i < sizeof sides / sizeof sides[0]; i++) {
                r.patch = patch, r.merge = merge, r.temporal = OC_LIMIT_PATCH_FRAMES;
                r.max_tokens = OC_LIMIT_CTX_TOKENS, r.max_pixels = INT64_MAX, r.min_pixels = i % 2 ? INT64_MAX : 1;
                struct oc_picture_limits lim = {.max_pixels = INT64_MAX};
                enum oc_err err = oc_picture_rules_plan(&r, sides[i][0], sides[i][1], &lim, 0, &p, NULL);
                if (err == OC_OK) assert_int_equal((int64_t)p.grid_h * p.grid_w / (merge * merge), p.n_tokens);
                else assert_int_equal(err, OC_ERR_LIMIT);
            }
}

static struct oc_prompt_picture picture(int w, int h) {
    struct oc_prompt_picture p = {.plan = {.grid_t = 1, .grid_h = 2 * h, .grid_w = 2 * w, .merge = 2, .n_tokens = w * h}};
    return p;
}

static void positions_follow_rows_and_columns(void **state) {
    (void)state;
    struct oc_model m = model_with_rules();
    /* two words, a picture 3 wide and 2 high, a word, a picture of one token, a word */
    const int32_t tokens[] = {1, 2, 9, 9, 9, 9, 9, 9, 3, 9, 4};
    struct oc_prompt_picture pics[] = {picture(3, 2), picture(1, 1)};
    struct oc_prompt prompt = {tokens, 11, pics, 2};
    static const int32_t want[11][3] = {{5, 5, 5}, {6, 6, 6},  {7, 7, 7},  {7, 7, 8},    {7, 7, 9},   {7, 8, 7},
                                        {7, 8, 8}, {7, 8, 9}, {10, 10, 10}, {11, 11, 11}, {12, 12, 12}};
    int32_t pos[11][3], next;
    assert_int_equal(oc_model_positions(&m, &prompt, 5, pos, &next, NULL), OC_OK);
    assert_memory_equal(pos, want, sizeof want);
    assert_int_equal(next, 13);
}

static void mismatched_placeholders_are_refused(void **state) {
    (void)state;
    struct oc_model m = model_with_rules();
    const int32_t tokens[] = {1, 9, 9, 2};
    struct oc_prompt_picture pics[] = {picture(2, 1), picture(1, 1)};
    int32_t pos[4][3], next;
    assert_int_equal(oc_model_positions(&m, &(struct oc_prompt){tokens, 4, pics, 2}, 0, pos, &next, NULL), OC_ERR_FORMAT);
    assert_int_equal(oc_model_positions(&m, &(struct oc_prompt){tokens, 4, pics, 0}, 0, pos, &next, NULL), OC_ERR_FORMAT);
    assert_int_equal(oc_model_positions(&m, &(struct oc_prompt){tokens, 4, pics, 1}, 0, pos, &next, NULL), OC_OK);
    pics[0] = picture(3, 1);
    assert_int_equal(oc_model_positions(&m, &(struct oc_prompt){tokens, 4, pics, 1}, 0, pos, &next, NULL), OC_ERR_FORMAT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_equal_python),
        cmocka_unit_test(extreme_aspect_is_refused),
        cmocka_unit_test(plan_counts_patches_and_tokens),
        cmocka_unit_test(plan_respects_the_cap),
        cmocka_unit_test(rules_that_contradict_themselves_are_refused),
        cmocka_unit_test(the_widest_rules_do_not_overflow),
        cmocka_unit_test(positions_follow_rows_and_columns),
        cmocka_unit_test(mismatched_placeholders_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
