/* The order of weights on a GPU: each element of a block has bits of its own, and they are found again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "kernels/cuda/layout.h"

static void each_element_has_its_bits(void **state) {
    (void)state;
    for (int f = 0; f < OC_CU_N_FORMATS; f++) {
        int bits = oc_cu_bits(f);
        uint8_t taken[16 * 64] = {0};
        assert_int_equal(oc_cu_block_bytes(f), 16 * 64 * bits / 8);
        for (int row = 0; row < 16; row++) {
            for (int k = 0; k < 64; k++) {
                int bit = oc_cu_bit_of(f, oc_cu_place_of(row, k));
                assert_int_equal(bit % bits, 0);
                assert_in_range(bit, 0, oc_cu_block_bytes(f) * 8 - bits);
                assert_int_equal(taken[bit / bits]++, 0);
            }
        }
    }
}

static void the_way_back(void **state) {
    (void)state;
    for (int f = 0; f < OC_CU_N_FORMATS; f++) {
        for (int row = 0; row < 16; row++) {
            for (int k = 0; k < 64; k++) {
                struct oc_cu_place p = oc_cu_place_of(row, k), q = oc_cu_place_at(f, oc_cu_bit_of(f, p));
                assert_memory_equal(&p, &q, sizeof p);
                assert_int_equal(oc_cu_row_of(p), row);
                assert_int_equal(oc_cu_k_of(p), k);
            }
        }
    }
}

/* What a lane feeds to a product lies in its own 16 bytes, so that a warp reads 512 bytes in a row. */
static void lanes_read_their_own(void **state) {
    (void)state;
    for (int f = 0; f < OC_CU_N_FORMATS; f++) {
        for (int i = 0; i < 16 * 64; i++) {
            struct oc_cu_place p = oc_cu_place_of(i / 64, i % 64);
            assert_int_equal(oc_cu_bit_of(f, p) / 8 % 512 / 16, p.lane);
        }
    }
}

static void scales_of_rows_that_go_together(void **state) {
    (void)state;
    for (int row = 0; row < 8; row++) {
        assert_int_equal(oc_cu_pair_of(row), 2 * row);
        assert_int_equal(oc_cu_pair_of(row + 8), 2 * row + 1);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_element_has_its_bits),
        cmocka_unit_test(the_way_back),
        cmocka_unit_test(lanes_read_their_own),
        cmocka_unit_test(scales_of_rows_that_go_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
