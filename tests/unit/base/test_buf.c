/* Buffers: their maximum holds, and a failed append changes nothing but the flag. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"

static void test_grows(void **state) {
    (void)state;
    struct oc_buf b;
    oc_buf_init(&b, 100000);
    assert_string_equal(oc_buf_str(&b), "");
    for (int i = 0; i < 1000; i++) assert_true(oc_buf_printf(&b, "%d,", i));
    assert_true(oc_buf_add_str(&b, "end"));
    assert_true(oc_buf_add_char(&b, '.'));
    assert_true(oc_buf_add(&b, NULL, 0));
    assert_int_equal(b.n_bytes, 10 * 2 + 90 * 3 + 900 * 4 + 4);
    assert_int_equal(strlen(oc_buf_str(&b)), b.n_bytes);
    assert_memory_equal(oc_buf_str(&b), "0,1,2,", 6);
    assert_string_equal(oc_buf_str(&b) + b.n_bytes - 8, "999,end.");
    oc_buf_free(&b);
    assert_string_equal(oc_buf_str(&b), "");
}

static void test_maximum(void **state) {
    (void)state;
    struct oc_buf b;
    oc_buf_init(&b, 10);
    assert_true(oc_buf_add_str(&b, "1234567"));
    assert_false(oc_buf_add_str(&b, "abcd"));
    assert_true(b.failed);
    assert_string_equal(oc_buf_str(&b), "1234567");
    assert_true(oc_buf_add_str(&b, "890")); /* what fits still fits; the flag stays */
    assert_true(b.failed);
    assert_string_equal(oc_buf_str(&b), "1234567890");
    assert_false(oc_buf_add_char(&b, 'x'));
    assert_false(oc_buf_reserve(&b, SIZE_MAX));
    oc_buf_clear(&b);
    assert_false(b.failed);
    assert_string_equal(oc_buf_str(&b), "");
    assert_false(oc_buf_printf(&b, "%20d", 1));
    assert_string_equal(oc_buf_str(&b), "");
    oc_buf_free(&b);
}

static void test_printf_up_to_maximum(void **state) {
    (void)state;
    struct oc_buf b;
    oc_buf_init(&b, 5);
    assert_true(oc_buf_printf(&b, "%s", "12345"));
    assert_string_equal(oc_buf_str(&b), "12345");
    assert_false(b.failed);
    oc_buf_free(&b);
}

static void test_holds_any_byte(void **state) {
    (void)state;
    struct oc_buf b;
    oc_buf_init(&b, 10);
    assert_true(oc_buf_add(&b, "a\0b", 3));
    assert_int_equal(b.n_bytes, 3);
    assert_memory_equal(b.data, "a\0b\0", 4);
    oc_buf_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_grows),
        cmocka_unit_test(test_maximum),
        cmocka_unit_test(test_printf_up_to_maximum),
        cmocka_unit_test(test_holds_any_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
