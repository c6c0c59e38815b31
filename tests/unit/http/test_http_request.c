/* Look-ups in a request, reasons, and the bytes of server-sent events. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "http/http.h"
#include "http/sse.h"

static void test_header(void **state) {
    (void)state;
    const struct oc_http_header fields[] = {
        {OC_STR("X-A"), OC_STR("1")}, {OC_STR("x-a"), OC_STR("2")}, {OC_STR("Empty"), OC_STR("")}};
    const struct oc_http_request r = {.headers = fields, .n_headers = 3};
    assert_true(oc_str_is(oc_http_request_header(&r, "x-A"), "1"));
    assert_true(oc_http_request_header(&r, "empty").p != NULL);
    assert_int_equal(oc_http_request_header(&r, "empty").n, 0);
    assert_null(oc_http_request_header(&r, "x-").p);
    assert_null(oc_http_request_header(&r, "x-ab").p);
}

static void check_param(const char *query, const char *name, const char *wanted) {
    struct oc_buf out;
    oc_buf_init(&out, 16);
    const struct oc_http_request r = {.query = oc_str_from(query)};
    bool found = oc_http_request_param(&r, name, &out);
    assert_int_equal(found, wanted != NULL);
    if (found) assert_string_equal(oc_buf_str(&out), wanted);
    oc_buf_free(&out);
}

static void test_param(void **state) {
    (void)state;
    check_param("", "a", NULL);
    check_param("a=1&b=2", "a", "1");
    check_param("a=1&b=2", "b", "2");
    check_param("a=1&b=2", "c", NULL);
    check_param("a=1&a=2", "a", "1");
    check_param("a", "a", "");
    check_param("a=", "a", "");
    check_param("&&a==x=&", "a", "=x=");
    check_param("aa=1", "a", NULL);
    check_param("a%62=c%20d+e%C3%A9", "ab", "c d e\xc3\xa9");
    check_param("a=%4", "a", NULL);
    check_param("a=%", "a", NULL);
    check_param("a=%zz", "a", NULL);
    check_param("%zz=1&a=2", "a", "2");
    check_param("a=0123456789abcdef", "a", "0123456789abcdef");
    check_param("a=0123456789abcdefg", "a", NULL);           /* over the buffer's maximum */
    check_param("namenamenamenamenamename=1&a=2", "a", "2"); /* another's name is over it */
}

static void test_reason(void **state) {
    (void)state;
    assert_string_equal(oc_http_reason(404), "Not Found");
    assert_string_equal(oc_http_reason(200), "OK");
    assert_true(strlen(oc_http_reason(299)) > 0);
}

static void check_event(const char *data, const char *wanted) {
    struct oc_buf b;
    oc_buf_init(&b, 1000);
    oc_http_sse_event(&b, oc_str_from(data));
    assert_string_equal(oc_buf_str(&b), wanted);
    oc_buf_free(&b);
}

static void test_sse(void **state) {
    (void)state;
    check_event("{\"a\":1}", "data: {\"a\":1}\n\n");
    check_event("", "data: \n\n");
    check_event("a\nb", "data: a\ndata: b\n\n");
    check_event("a\r\nb\rc\n", "data: a\ndata: b\ndata: c\ndata: \n\n");
    struct oc_buf b;
    oc_buf_init(&b, 1000);
    oc_http_sse_comment(&b, "ping");
    oc_http_sse_comment(&b, "a\nb");
    assert_string_equal(oc_buf_str(&b), ": ping\n\n: a b\n\n");
    oc_buf_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_header),
        cmocka_unit_test(test_param),
        cmocka_unit_test(test_reason),
        cmocka_unit_test(test_sse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
