/* The table from problems to statuses, and the error object, parsed back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "api/error.h"
#include "base/json.h"
#include "base/limits.h"

static void test_table(void **state) {
    (void)state;
    static const struct {
        enum oc_api_problem problem;
        int status;
        const char *type, *code;
    } want[] = {
        {OC_API_BAD_REQUEST, 400, "invalid_request_error", NULL},
        {OC_API_CONTEXT_LENGTH, 400, "invalid_request_error", "context_length_exceeded"},
        {OC_API_BAD_IMAGE, 400, "invalid_request_error", "invalid_image"},
        {OC_API_UNAUTHENTICATED, 401, "authentication_error", "invalid_api_key"},
        {OC_API_FORBIDDEN, 403, "permission_error", NULL},
        {OC_API_MODEL_NOT_FOUND, 404, "not_found_error", "model_not_found"},
        {OC_API_TOO_LARGE, 413, "invalid_request_error", "request_too_large"},
        {OC_API_RATE_LIMIT, 429, "rate_limit_error", "rate_limit_exceeded"},
        {OC_API_INTERNAL, 500, "server_error", NULL},
        {OC_API_OVERLOADED, 503, "unavailable_error", "queue_full"},
        {OC_API_WORKER_LOST, 503, "unavailable_error", "worker_lost"},
        {OC_API_HTTP_VERSION, 505, "invalid_request_error", NULL},
    };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        assert_int_equal(oc_api_error_status(want[i].problem), want[i].status);
        assert_string_equal(oc_api_error_type(want[i].problem), want[i].type);
        const char *code = oc_api_error_code(want[i].problem);
        assert_string_equal(code ? code : "(null)", want[i].code ? want[i].code : "(null)");
    }
    for (int p = 0; p < OC_API_N_PROBLEMS; p++) { /* no row was forgotten */
        int status = oc_api_error_status((enum oc_api_problem)p);
        assert_true(status >= 400 && status < 600);
        assert_non_null(oc_api_error_type((enum oc_api_problem)p));
        assert_int_equal(oc_api_error_status(oc_api_problem_of_status(status)), status);
    }
    assert_int_equal(oc_api_problem_of_status(400), OC_API_BAD_REQUEST);
    assert_int_equal(oc_api_problem_of_status(404), OC_API_NOT_FOUND);
    assert_int_equal(oc_api_problem_of_status(418), OC_API_BAD_REQUEST);
}

static void test_problem_of(void **state) {
    (void)state;
    static const enum oc_err clients[] = {OC_ERR_FORMAT, OC_ERR_UNSUPPORTED, OC_ERR_LIMIT, OC_ERR_USAGE,
                                          OC_ERR_NOT_FOUND};
    static const enum oc_err ours[] = {OC_ERR_IO, OC_ERR_NOMEM, OC_ERR_CANCELLED, (enum oc_err)99};
    for (size_t i = 0; i < 5; i++) assert_int_equal(oc_api_error_status(oc_api_problem_of(clients[i])), 400);
    for (size_t i = 0; i < 4; i++) assert_int_equal(oc_api_error_status(oc_api_problem_of(ours[i])), 500);
    assert_int_equal(oc_api_problem_of(OC_ERR_UNSUPPORTED), OC_API_UNSUPPORTED);
}

static void expect_object(const struct oc_api_error *e, const char *want) {
    struct oc_buf b, again;
    struct oc_arena a;
    struct oc_json j;
    struct oc_errinfo ei;
    oc_buf_init(&b, OC_MIB);
    oc_buf_init(&again, OC_MIB);
    oc_arena_init(&a, OC_MIB);
    oc_api_error_write(&b, e);
    if (oc_json_parse(&a, (struct oc_str){oc_buf_str(&b), b.n_bytes}, "error", &j, &ei))
        fail_msg("%s", ei.msg);
    oc_json_write(&again, &j, ",", ":");
    assert_string_equal(oc_buf_str(&again), want);
    oc_arena_free(&a);
    oc_buf_free(&b);
    oc_buf_free(&again);
}

static void test_object(void **state) {
    (void)state;
    struct oc_api_error e;
    assert_false(oc_api_fail(&e, OC_API_BAD_REQUEST, NULL, "line 1\n\"%s\" \xFF", "x\x01"));
    expect_object(
        &e, "{\"error\":{\"message\":\"line 1\\n\\\"x\\u0001\\\" \xEF\xBF\xBD\",\"type\":\"invalid_request_"
            "error\",\"param\":null,\"code\":null}}");
    oc_api_fail(&e, OC_API_BAD_IMAGE, "messages[2].content[1].image_url", "no");
    expect_object(&e,
                  "{\"error\":{\"message\":\"no\",\"type\":\"invalid_request_error\",\"param\":\"messages[2]."
                  "content[1].image_url\",\"code\":\"invalid_image\"}}");
    assert_int_equal(e.retry_after_s, 0);
}

static void test_long_texts_are_cut(void **state) {
    (void)state;
    char text[2000];
    struct oc_api_error e;
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    oc_api_fail(&e, OC_API_INTERNAL, text, "%s", text);
    assert_int_equal(strlen(e.message), sizeof e.message - 1);
    assert_int_equal(strlen(e.param), sizeof e.param - 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_problem_of),
        cmocka_unit_test(test_object),
        cmocka_unit_test(test_long_texts_are_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
