/* Arenas: zeroed, aligned, bounded, reusable. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/arena.h"

static void test_aligned_and_zeroed(void **state) {
    (void)state;
    struct oc_arena a;
    oc_arena_init(&a, 32 << 20);
    for (size_t n = 0; n < 5000; n += 7) {
        unsigned char *p = oc_arena_alloc(&a, n);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 16, 0);
        for (size_t i = 0; i < n; i++) assert_int_equal(p[i], 0);
        memset(p, 0xAA, n); /* must not show in a later block */
    }
    unsigned char *big = oc_arena_alloc(&a, 3 << 20); /* larger than any ordinary block */
    assert_non_null(big);
    assert_int_equal(big[(3 << 20) - 1], 0);
    oc_arena_free(&a);
}

static void test_maximum(void **state) {
    (void)state;
    struct oc_arena a;
    oc_arena_init(&a, 1024);
    assert_non_null(oc_arena_alloc(&a, 1000));
    assert_int_equal(a.used_bytes, 1008);
    assert_null(oc_arena_alloc(&a, 17));
    assert_non_null(oc_arena_alloc(&a, 16));
    assert_null(oc_arena_alloc(&a, 1));
    oc_arena_free(&a);
    assert_int_equal(a.used_bytes, 0);
    assert_non_null(oc_arena_alloc(&a, 1024)); /* the same arena again, the same maximum */
    assert_null(oc_arena_alloc(&a, 1));
    oc_arena_free(&a);
    assert_null(oc_arena_alloc(&a, SIZE_MAX));
    assert_null(oc_arena_alloc(&a, SIZE_MAX - 8));
    assert_null(oc_arena_array(&a, SIZE_MAX / 2, 3));
    assert_null(oc_arena_strndup(&a, "x", SIZE_MAX));
    oc_arena_free(&a);
}

static void test_text(void **state) {
    (void)state;
    struct oc_arena a;
    oc_arena_init(&a, 1 << 16);
    char *s = oc_arena_strndup(&a, "abcdef", 3);
    assert_string_equal(s, "abc");
    assert_string_equal(oc_arena_strndup(&a, NULL, 0), "");
    char *long_text = oc_arena_printf(&a, "%0*d-%s", 5000, 7, s);
    assert_int_equal(strlen(long_text), 5004);
    assert_string_equal(long_text + 4999, "7-abc");
    oc_arena_free(&a);
    oc_arena_init(&a, 64);
    assert_null(oc_arena_printf(&a, "%100d", 1));
    oc_arena_free(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_aligned_and_zeroed),
        cmocka_unit_test(test_maximum),
        cmocka_unit_test(test_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
