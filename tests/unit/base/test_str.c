/* Spans and UTF-8. The expectations for ill-formed bytes are those of Unicode 16, section 3.9 (maximal
 * subparts), which Python's bytes.decode("utf-8", "replace") follows as well. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/str.h"

static void test_spans(void **state) {
    (void)state;
    struct oc_str s = OC_STR("model.layers");
    assert_true(oc_str_starts(s, OC_STR("model.")));
    assert_true(oc_str_starts(s, OC_STR("")));
    assert_false(oc_str_starts(s, OC_STR("model.layers.")));
    assert_true(oc_str_ends(s, OC_STR("layers")));
    assert_false(oc_str_ends(s, OC_STR("xmodel.layers")));
    assert_true(oc_str_eq((struct oc_str){NULL, 0}, OC_STR("")));
    assert_false(oc_str_eq(OC_STR("a\0b"), OC_STR("a\0c")));
    assert_true(oc_str_is((struct oc_str){"abc", 2}, "ab"));
}

/* Decodes all of n bytes (copied, so that a sanitizer sees a read past the end) and compares code points. */
static void decodes_to(const char *bytes, size_t n, const uint32_t *want, size_t n_want) {
    char *copy = malloc(n);
    memcpy(copy, bytes, n);
    size_t at = 0, i = 0;
    while (at < n) {
        uint32_t cp;
        size_t took = oc_utf8_decode(copy + at, n - at, &cp);
        assert_in_range(took, 1, n - at);
        assert_true(i < n_want);
        assert_int_equal(cp, want[i++]);
        at += took;
    }
    assert_int_equal(i, n_want);
    free(copy);
}

#define DECODES(bytes, ...)                                                                                  \
    do {                                                                                                     \
        static const uint32_t want_[] = {__VA_ARGS__};                                                       \
        decodes_to(bytes, sizeof(bytes) - 1, want_, sizeof want_ / sizeof *want_);                           \
    } while (0)

static void test_decode(void **state) {
    (void)state;
    DECODES("a\xC3\xA9\xE4\xB8\xAD\xF0\x9F\x98\x80", 'a', 0xE9, 0x4E2D, 0x1F600);
    DECODES("\x7F\xC2\x80\xDF\xBF\xE0\xA0\x80\xEF\xBF\xBF\xF0\x90\x80\x80\xF4\x8F\xBF\xBF", 0x7F, 0x80, 0x7FF,
            0x800, 0xFFFF, 0x10000, 0x10FFFF);
    /* the table of Unicode's own example, 3-11: 61 F1 80 80 E1 80 C2 62 80 63 80 BF 64 */
    DECODES("\x61\xF1\x80\x80\xE1\x80\xC2\x62\x80\x63\x80\xBF\x64", 0x61, 0xFFFD, 0xFFFD, 0xFFFD, 0x62,
            0xFFFD, 0x63, 0xFFFD, 0xFFFD, 0x64);
    /* overlong, surrogate and past the end: each byte on its own (tables 3-8, 3-9, 3-10) */
    DECODES("\xC0\xAF\xE0\x80\xBF", 0xFFFD, 0xFFFD, 0xFFFD, 0xFFFD, 0xFFFD);
    DECODES("\xED\xA0\x80\xED\xBF", 0xFFFD, 0xFFFD, 0xFFFD, 0xFFFD, 0xFFFD);
    DECODES("\xF4\x91\x92\x93\xFF\x41", 0xFFFD, 0xFFFD, 0xFFFD, 0xFFFD, 0xFFFD, 0x41);
    DECODES("\xF0\x80\x80\x41", 0xFFFD, 0xFFFD, 0xFFFD, 0x41);
    DECODES("\xE2\x82", 0xFFFD);
    DECODES("\xF0\x9F\x98", 0xFFFD);
}

static void test_every_code_point(void **state) {
    (void)state;
    for (uint32_t cp = 0; cp <= 0x110000; cp++) {
        char bytes[4];
        uint32_t back;
        size_t n = oc_utf8_encode(cp, bytes);
        bool scalar = cp <= 0x10FFFF && !(cp >= 0xD800 && cp <= 0xDFFF);
        if (oc_utf8_decode(bytes, n, &back) != n || back != (scalar ? cp : 0xFFFD)) fail_msg("U+%04X", cp);
        if (!oc_utf8_valid(bytes, n)) fail_msg("U+%04X is not valid", cp);
        if (n > 1 && oc_utf8_valid(bytes, n - 1)) fail_msg("U+%04X cut short is valid", cp);
        for (size_t cut = 1; cut < n; cut++)
            if (oc_utf8_incomplete_tail(bytes, cut) != cut) fail_msg("U+%04X cut to %zu", cp, cut);
    }
}

static void test_valid(void **state) {
    (void)state;
    assert_true(oc_utf8_valid("", 0));
    assert_true(oc_utf8_valid("a\0b", 3));
    assert_false(oc_utf8_valid("\xC0\x80", 2));
    assert_false(oc_utf8_valid("\xED\xA0\x80", 3));
    assert_false(oc_utf8_valid("\xF4\x90\x80\x80", 4));
    assert_false(oc_utf8_valid("ok\xFF", 3));
}

static void test_incomplete_tail(void **state) {
    (void)state;
    assert_int_equal(oc_utf8_incomplete_tail("", 0), 0);
    assert_int_equal(oc_utf8_incomplete_tail("abc", 3), 0);
    assert_int_equal(oc_utf8_incomplete_tail("a\xC3\xA9", 3), 0);
    assert_int_equal(oc_utf8_incomplete_tail("a\xF0\x9F\x98", 4), 3);
    assert_int_equal(oc_utf8_incomplete_tail("\xF0\x9F\x98\x80", 4), 0);
    assert_int_equal(oc_utf8_incomplete_tail("a\xF0\x80", 3), 0); /* no byte can make this well-formed */
    assert_int_equal(oc_utf8_incomplete_tail("a\x80", 2), 0);
    assert_int_equal(oc_utf8_incomplete_tail("\xE2\x82\xC3", 3), 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spans),
        cmocka_unit_test(test_decode),
        cmocka_unit_test(test_every_code_point),
        cmocka_unit_test(test_valid),
        cmocka_unit_test(test_incomplete_tail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
