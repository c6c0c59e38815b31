/* Windows: every merge block once, window by window, partial ones at the right and lower edge. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "vision/encoder.h"

static void small_grid_by_hand(void **state) {
    (void)state;
    struct oc_vision v = {.merge = 2, .window = 2};
    int32_t order[15], seg[16];
    /* 3 rows of 5 blocks, windows of 2x2 */
    static const int32_t want[15] = {0, 1, 5, 6, 2, 3, 7, 8, 4, 9, 10, 11, 12, 13, 14};
    static const int32_t want_seg[7] = {0, 16, 32, 40, 48, 56, 60};
    assert_int_equal(oc_vision_encoder_windows(&v, 1, 6, 10, order, seg), 6);
    assert_memory_equal(order, want, sizeof want);
    assert_memory_equal(seg, want_seg, sizeof want_seg);
}

static void every_block_once(void **state) {
    (void)state;
    struct oc_vision v = {.merge = 2, .window = 4};
    for (int h = 1; h < 14; h++) {
        for (int w = 1; w < 14; w++) {
            int32_t order[2 * 14 * 14], seg[2 * 14 * 14 + 1];
            int n_seg = oc_vision_encoder_windows(&v, 2, 2 * h, 2 * w, order, seg), seen[2 * 14 * 14] = {0};
            assert_int_equal(n_seg, 2 * ((h + 3) / 4) * ((w + 3) / 4));
            assert_int_equal(seg[n_seg], 2 * h * w * 4);
            for (int i = 0; i < 2 * h * w; i++) seen[order[i]]++;
            for (int i = 0; i < 2 * h * w; i++) assert_int_equal(seen[i], 1);
            for (int i = 0; i < n_seg; i++) assert_true(seg[i] < seg[i + 1] && seg[i + 1] - seg[i] <= 64);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_grid_by_hand),
        cmocka_unit_test(every_block_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
