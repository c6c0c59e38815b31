/* Resized sizes against Python's own arithmetic: the numbers come from the formula run in Python 3.11, whose round() is
 * half to even. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

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

static struct oc_model model_with_rules(void) {
    struct oc_model m = {.architecture = "Test", .has_vision = true, .image_token = 9};
    m.pictures = (struct oc_model_picture_rules){.patch = 14, .merge = 2, .temporal = 2, .min_pixels = 3136, .max_pixels = 12845056};
    return m;
}

static void plan_counts_patches_and_tokens(void **state) {
    (void)state;
    struct oc_model m = model_with_rules();
    struct oc_picture_plan p;
    assert_int_equal(oc_model_plan_picture(&m, 1355, 710, NULL, 4096, &p, NULL), OC_OK);
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
    struct oc_model m = model_with_rules();
    struct oc_picture_plan p;
    for (int cap = 4; cap < 3000; cap = cap * 3 + 1) {
        assert_int_equal(oc_model_plan_picture(&m, 4032, 3024, NULL, cap, &p, NULL), OC_OK);
        assert_true(p.n_tokens <= cap && p.n_tokens > 0);
    }
    assert_int_equal(oc_model_plan_picture(&m, 4032, 3024, &(struct oc_picture_limits){.max_pixels = 100 * 784}, 4096, &p, NULL), OC_OK);
    assert_true(p.n_tokens <= 100);
    m.has_vision = false;
    assert_int_equal(oc_model_plan_picture(&m, 40, 30, NULL, 4096, &p, NULL), OC_ERR_UNSUPPORTED);
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
        cmocka_unit_test(positions_follow_rows_and_columns),
        cmocka_unit_test(mismatched_placeholders_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
