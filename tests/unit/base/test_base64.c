#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/base64.h"

/* The test vectors of RFC 4648, section 10, and some with whitespace or without padding. */
static void good_text_decodes(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"", ""},
        {"Zg==", "f"},
        {"Zm8=", "fo"},
        {"Zm9v", "foo"},
        {"Zm9vYg==", "foob"},
        {"Zm9vYmE=", "fooba"},
        {"Zm9vYmFy", "foobar"},
        {"Zg", "f"},
        {"Zm8", "fo"},
        {" Zm9v\r\nYm\tFy ", "foobar"},
        {"+/+/", "\xfb\xff\xbf"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t out[64];
        size_t n = 99;
        struct oc_str text = oc_str_from(cases[i][0]);
        assert_true(oc_base64_max_bytes(text) <= sizeof out);
        assert_int_equal(oc_base64_decode(text, out, &n, NULL), OC_OK);
        assert_int_equal(n, strlen(cases[i][1]));
        assert_memory_equal(out, cases[i][1], n);
    }
}

static void bad_text_is_refused(void **state) {
    (void)state;
    static const char *const cases[] = {
        "Z", "Zm9vY", "Zg=", "Zg===", "Zm8==", "Zm9v=", "Zg==Zg==", "Zm9*", "Zm-_", "\xc3\xa4"};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t out[64];
        size_t n;
        struct oc_errinfo ei;
        if (oc_base64_decode(oc_str_from(cases[i]), out, &n, &ei) != OC_ERR_FORMAT)
            fail_msg("'%s' passed", cases[i]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_text_decodes),
        cmocka_unit_test(bad_text_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
