/* JSON: against Python's json (tests/golden/base/json_cases.txt, from tools/make_json_golden.py), then what
 * Python does not tell: source text of numbers, limits, messages, look-up, writing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"

struct fixture {
    struct oc_arena arena;
    struct oc_errinfo ei;
    struct oc_json v;
    struct oc_buf out;
};

static int setup(void **state) {
    struct fixture *fx = calloc(1, sizeof *fx);
    oc_arena_init(&fx->arena, 64 * OC_MIB);
    oc_buf_init(&fx->out, OC_MIB);
    *state = fx;
    return 0;
}

static int teardown(void **state) {
    struct fixture *fx = *state;
    oc_arena_free(&fx->arena);
    oc_buf_free(&fx->out);
    free(fx);
    return 0;
}

/* Parses a copy of exactly n bytes, so that a sanitizer sees a read past the end. */
static enum oc_err parse_n(struct fixture *fx, const char *text, size_t n) {
    char *copy = malloc(n ? n : 1);
    memcpy(copy, text, n);
    enum oc_err err = oc_json_parse(&fx->arena, (struct oc_str){copy, n}, "here", &fx->v, &fx->ei);
    free(copy);
    return err;
}

static const struct oc_json *parse(struct fixture *fx, const char *text) {
    if (parse_n(fx, text, strlen(text)) != OC_OK) fail_msg("%s: %s", text, fx->ei.msg);
    return &fx->v;
}

static const char *write(struct fixture *fx, const char *item_sep, const char *key_sep) {
    oc_buf_clear(&fx->out);
    oc_json_write(&fx->out, &fx->v, item_sep, key_sep);
    return oc_buf_str(&fx->out);
}

static size_t unhex(const char *hex, size_t n_hex, char *out) {
    for (size_t i = 0; i < n_hex / 2; i++) {
        char digits[3] = {hex[2 * i], hex[2 * i + 1], '\0'};
        out[i] = (char)strtol(digits, NULL, 16);
    }
    return n_hex / 2;
}

static void check_case(struct fixture *fx, const char *text, size_t n, const char *want) {
    enum oc_err err = parse_n(fx, text, n);
    if (strcmp(want, "!") == 0) {
        if (err != OC_ERR_FORMAT) fail_msg("taken: %.*s", (int)n, text);
        assert_non_null(strstr(fx->ei.msg, "here: not valid JSON"));
        return;
    }
    if (err != OC_OK) fail_msg("refused: %.*s: %s", (int)n, text, fx->ei.msg);
    const char *got = write(fx, ",", ":");
    if (strcmp(got, want) != 0) fail_msg("%.*s\n gives %s\n wants %s", (int)n, text, got, want);
}

static void test_against_python(void **state) {
    struct fixture *fx = *state;
    struct oc_arena a;
    struct oc_str s;
    oc_arena_init(&a, 8 * OC_MIB);
    assert_int_equal(oc_file_read(&a, OC_TEST_DIR "/golden/base/json_cases.txt", 4 * OC_MIB, &s, &fx->ei),
                     OC_OK);
    int n_cases = 0;
    for (const char *p = s.p, *end = s.p + s.n; p < end; n_cases++) {
        const char *eol = memchr(p, '\n', (size_t)(end - p)), *want = eol + 1;
        char *want_end = memchr(want, '\n', (size_t)(end - want));
        char *text = malloc((size_t)(eol - p) / 2 + 1);
        size_t n = unhex(p, (size_t)(eol - p), text);
        *want_end = '\0';
        check_case(fx, text, n, want);
        free(text);
        oc_arena_free(&fx->arena);
        p = want_end + 1;
    }
    assert_true(n_cases > 700);
    oc_arena_free(&a);
}

static void test_numbers(void **state) {
    struct fixture *fx = *state;
    const struct oc_json *v =
        parse(fx, "[9223372036854775807,9223372036854775808,-9223372036854775809,-0,2.0,1e3,0.5]");
    assert_true(v->items[0].i == INT64_MAX && v->items[1].i == INT64_MAX && v->items[2].i == INT64_MIN);
    assert_true(oc_str_is(v->items[1].num, "9223372036854775808"));
    assert_true(v->items[1].d == 9223372036854775808.0);
    assert_int_equal(v->items[3].type, OC_JSON_INT);
    assert_int_equal(v->items[3].i, 0);
    assert_int_equal(v->items[4].type, OC_JSON_DOUBLE);
    assert_int_equal(oc_json_int_or(&v->items[4], 7), 2);
    assert_int_equal(oc_json_int_or(&v->items[5], 7), 1000);
    assert_int_equal(oc_json_int_or(&v->items[6], 7), 7);
    assert_true(oc_json_double_or(&v->items[0], 0) == 9223372036854775807.0);
    assert_string_equal(write(fx, ",", ":"),
                        "[9223372036854775807,9223372036854775808,-9223372036854775809,-0,2.0,"
                        "1000.0,0.5]");
}

static void test_fallbacks(void **state) {
    struct fixture *fx = *state;
    const struct oc_json *v = parse(fx, "{\"s\":\"x\",\"b\":true,\"n\":null,\"i\":3}");
    assert_int_equal(oc_json_int_or(oc_json_get(v, "s"), -1), -1);
    assert_int_equal(oc_json_int_or(oc_json_get(v, "none"), -1), -1);
    assert_true(oc_json_bool_or(oc_json_get(v, "b"), false));
    assert_true(oc_json_bool_or(oc_json_get(v, "i"), true));
    assert_true(oc_json_double_or(oc_json_get(v, "s"), 0.5) == 0.5);
    assert_true(oc_str_is(oc_json_str_or(oc_json_get(v, "s"), OC_STR("y")), "x"));
    assert_true(oc_str_is(oc_json_str_or(oc_json_get(v, "i"), OC_STR("y")), "y"));
    assert_true(oc_json_is_null(oc_json_get(v, "n")) && oc_json_is_null(NULL));
    assert_false(oc_json_is_null(oc_json_get(v, "i")));
    assert_null(oc_json_get(NULL, "x"));
    assert_null(oc_json_get(oc_json_get(v, "s"), "x"));
}

static void test_look_up(void **state) {
    struct fixture *fx = *state;
    char text[4096], key[16];
    size_t n = (size_t)snprintf(text, sizeof text, "{");
    for (int i = 0; i < 200; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "%s\"k%d\":%d", i ? "," : "", i, i);
    snprintf(text + n, sizeof text - n, ",\"k7\":-7}");
    const struct oc_json *v = parse(fx, text);
    assert_int_equal(v->n_members, 200);
    for (int i = 0; i < 200; i++) {
        snprintf(key, sizeof key, "k%d", i);
        assert_int_equal(oc_json_int_or(oc_json_get(v, key), -1), i == 7 ? -7 : i);
        assert_true(oc_str_is(v->members[i].key, key));
    }
    assert_null(oc_json_get(v, "k200"));
    v = parse(fx, "{\"a\":{\"b\":{\"c\":5}},\"z\":1}");
    assert_int_equal(oc_json_int_or(oc_json_path(v, "a", "b", "c", NULL), 0), 5);
    assert_null(oc_json_path(v, "a", "x", "c", NULL));
    assert_null(oc_json_path(v, "z", "x", NULL));
}

static void test_strings(void **state) {
    struct fixture *fx = *state;
    const struct oc_json *v = parse(fx, "\"a\\u0000b\\ud83d\\ude00\\ud800\"");
    assert_int_equal(v->str.n, 3 + 4 + 3);
    assert_memory_equal(v->str.p, "a\0b\xF0\x9F\x98\x80\xEF\xBF\xBD\0", 11); /* a NUL behind it */
    oc_buf_clear(&fx->out);
    oc_json_write_str(&fx->out, (struct oc_str){"a\xFFz\x00\"\\\n\x7F\xC3", 9});
    assert_string_equal(oc_buf_str(&fx->out), "\"a\xEF\xBF\xBDz\\u0000\\\"\\\\\\n\x7F\xEF\xBF\xBD\"");
}

static void test_separators(void **state) {
    struct fixture *fx = *state;
    parse(fx, "{\"a\":[1,{}],\"b\":[]}");
    assert_string_equal(write(fx, ", ", ": "), "{\"a\": [1, {}], \"b\": []}");
}

static void test_limits(void **state) {
    struct fixture *fx = *state;
    char deep[2 * OC_LIMIT_JSON_DEPTH + 4];
    memset(deep, '[', OC_LIMIT_JSON_DEPTH + 1);
    memset(deep + OC_LIMIT_JSON_DEPTH + 1, ']', OC_LIMIT_JSON_DEPTH + 1);
    assert_int_equal(parse_n(fx, deep, 2 * OC_LIMIT_JSON_DEPTH + 2), OC_ERR_LIMIT);
    assert_int_equal(parse_n(fx, deep + 1, 2 * OC_LIMIT_JSON_DEPTH), OC_OK);
    oc_arena_free(&fx->arena);
    oc_arena_init(&fx->arena, 1000);
    assert_int_equal(
        parse_n(fx, "[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27]", 73),
        OC_ERR_NOMEM);
    /* what is open counts too: the arena's limit stops a list long before its bracket would close */
    oc_arena_free(&fx->arena);
    oc_arena_init(&fx->arena, 1000);
    char open[301] = "[";
    for (size_t n = 1; n + 3 < sizeof open; n += 3) memcpy(open + n, "[],", 3);
    assert_int_equal(parse_n(fx, open, strlen(open)), OC_ERR_NOMEM);
    for (size_t n = 1; n + 3 < sizeof open; n += 3) memcpy(open + n, "1,[", 3);
    assert_int_equal(parse_n(fx, open, strlen(open)), OC_ERR_NOMEM);
}

/* Keys that all fall into one slot of the table would take time in the square of their number. */
static void test_collisions(void **state) {
    struct fixture *fx = *state;
    struct oc_buf b;
    oc_buf_init(&b, OC_MIB);
    int n = 0;
    for (uint32_t i = 0; n < 1000; i++) {
        char key[12];
        uint32_t h = 2166136261u;
        snprintf(key, sizeof key, "%x", i);
        for (const char *c = key; *c; c++) h = (h ^ (uint8_t)*c) * 16777619u;
        if (((h ^ h >> 15) & 2047) != 0) continue;
        oc_buf_printf(&b, "%s\"%s\":0", n++ ? "," : "{", key);
    }
    oc_buf_add_str(&b, "}");
    assert_int_equal(parse_n(fx, b.data, b.n_bytes), OC_ERR_LIMIT);
    assert_non_null(strstr(fx->ei.msg, "collide"));
    oc_buf_free(&b);
}

static void test_messages(void **state) {
    struct fixture *fx = *state;
    assert_int_equal(parse_n(fx, "{\n \"a\": x}", 10), OC_ERR_FORMAT);
    assert_string_equal(fx->ei.msg, "here: not valid JSON: expected a value at line 2, column 7");
}

static void test_load(void **state) {
    struct fixture *fx = *state;
    const char *path = OC_TEST_TMP "/test_json.json";
    FILE *f = fopen(path, "wb");
    fputs("[1, 2]", f);
    fclose(f);
    assert_int_equal(oc_json_load(&fx->arena, path, 100, &fx->v, &fx->ei), OC_OK);
    assert_int_equal(fx->v.n_items, 2);
    assert_int_equal(oc_json_load(&fx->arena, path, 5, &fx->v, &fx->ei), OC_ERR_LIMIT);
    remove(path);
    assert_int_equal(oc_json_load(&fx->arena, path, 100, &fx->v, &fx->ei), OC_ERR_NOT_FOUND);
    assert_non_null(strstr(fx->ei.msg, path));
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        CASE(test_against_python), CASE(test_numbers),  CASE(test_fallbacks),
        CASE(test_look_up),        CASE(test_strings),  CASE(test_separators),
        CASE(test_limits),         CASE(test_messages), CASE(test_load),
        CASE(test_collisions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
