/* Numbers that are not finite, wherever they stand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <float.h>
#include <math.h>

#include "kernels/finite.h"

#define N 9000

static void one_is_found_at_any_place(void **state) {
    (void)state;
    static float x[N];
    const float bad[] = {NAN, -NAN, INFINITY, -INFINITY}, good[] = {FLT_MAX, -FLT_MAX, -0.0f, FLT_MIN / 4};
    for (int i = 0; i < N; i++) x[i] = good[i % 4];
    assert_true(oc_finite_all(x, N));
    assert_true(oc_finite_all(x, 0));
    for (int i = 0; i < N; i += i < 70 || (i > 4000 && i < 4200) ? 1 : 37) {
        float was = x[i];
        x[i] = bad[i % 4];
        assert_false(oc_finite_all(x, N));
        assert_false(oc_finite_all(x + i, 1));
        assert_true(oc_finite_all(x, i));
        assert_true(oc_finite_all(x + i + 1, N - i - 1));
        x[i] = was;
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(one_is_found_at_any_place)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
