/* Blocks small and large: all of each can be written, and free() takes it back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/pages.h"

static void test_sizes(void **state) {
    (void)state;
    const size_t mib = (size_t)1 << 20;
    const size_t sizes[] = {0, 1, 4096, mib - 1, mib, mib + 1, 2 * mib, 2 * mib + 1, 3 * mib, 20 * mib + 7};
    for (int round = 0; round < 3; round++) {
        uint8_t *p[sizeof sizes / sizeof *sizes];
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            p[i] = oc_pages_alloc(sizes[i]);
            assert_non_null(p[i]);
            memset(p[i], (int)i, sizes[i]);
        }
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            if (sizes[i]) assert_true(p[i][0] == i && p[i][sizes[i] / 2] == i && p[i][sizes[i] - 1] == i);
            free(p[i]);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_sizes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
