/* Stop strings: whatever way the text is cut into pieces, the same part of it comes out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/limits.h"
#include "chat/stop.h"

/* Feeds text in pieces of `step` bytes; returns the index of the stop string, or -1. */
static int feed(const char *const *stops, size_t n_stops, const char *text, size_t step, struct oc_buf *out) {
    struct oc_str strings[4];
    struct oc_chat_stop *st;
    int hit = -1;
    for (size_t i = 0; i < n_stops; i++) strings[i] = oc_str_from(stops[i]);
    assert_int_equal(oc_chat_stop_open(strings, n_stops, &st, NULL), OC_OK);
    for (size_t at = 0, n = strlen(text); at < n && hit < 0; at += step) {
        size_t take = n - at < step ? n - at : step;
        assert_int_equal(oc_chat_stop_feed(st, (struct oc_str){text + at, take}, out, &hit, NULL), OC_OK);
    }
    if (hit < 0) assert_int_equal(oc_chat_stop_finish(st, out, NULL), OC_OK);
    oc_chat_stop_close(st);
    return hit;
}

static void every_cut_gives_the_same(void **state) {
    (void)state;
    static const struct {
        const char *stops[4];
        size_t n_stops;
        const char *text, *out;
        int hit;
    } cases[] = {
        {{"END"}, 1, "one two END three", "one two ", 0},
        {{"END"}, 1, "EEENEND", "EEEN", 0},
        {{"aab"}, 1, "aaaaab!", "aaa", 0},
        {{"x", "abc"}, 2, "ababc x", "ab", 1},
        {{"\n\n"}, 1, "a\nb\n\nc", "a\nb", 0},
        {{"END"}, 1, "EN", "EN", -1},
        {{"END"}, 1, "no stop here, EN", "no stop here, EN", -1},
        {{"ab", "b"}, 2, "cab", "c", 0},
        {{"é"}, 1, "caf\xc3\xa9!", "caf", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (size_t step = 1; step < 20; step++) {
            struct oc_buf out;
            oc_buf_init(&out, OC_MIB);
            assert_int_equal(feed(cases[i].stops, cases[i].n_stops, cases[i].text, step, &out), cases[i].hit);
            assert_string_equal(oc_buf_str(&out), cases[i].out);
            oc_buf_free(&out);
        }
    }
}

static void bad_strings_are_refused(void **state) {
    (void)state;
    struct oc_chat_stop *st = NULL;
    struct oc_str many[OC_LIMIT_STOP_STRINGS + 1], empty = OC_STR(""), broken = OC_STR("\xff");
    for (size_t i = 0; i < OC_LIMIT_STOP_STRINGS + 1; i++) many[i] = OC_STR("a");
    assert_int_equal(oc_chat_stop_open(&empty, 1, &st, NULL), OC_ERR_USAGE);
    assert_int_equal(oc_chat_stop_open(&broken, 1, &st, NULL), OC_ERR_USAGE);
    assert_int_equal(oc_chat_stop_open(many, OC_LIMIT_STOP_STRINGS + 1, &st, NULL), OC_ERR_LIMIT);
    assert_null(st);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_cut_gives_the_same),
        cmocka_unit_test(bad_strings_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
