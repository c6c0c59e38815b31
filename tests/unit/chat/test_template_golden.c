/* Templates of tests/golden/template rendered as Python's jinja2 rendered them, byte for byte, and what came
 * from message contents marked as data. With an argument (a JSON file of cases) it prints a line for each
 * instead: tools/jinja_diff.py reads them. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/limits.h"
#include "chat/template.h"

#define NOW 1700000000

static const char *token(const struct oc_json *c, const char *key) {
    const struct oc_json *v = oc_json_get(c, key);
    return v && v->type == OC_JSON_STR ? v->str.p : NULL;
}

static enum oc_err render_case(const struct oc_chat_template *t, const struct oc_json *c,
                               struct oc_chat_text *out, struct oc_errinfo *ei) {
    struct oc_chat_render r = {
        .messages = oc_json_get(c, "messages"),
        .tools = oc_json_get(c, "tools"),
        .extra = oc_json_get(c, "extra"),
        .add_generation_prompt = oc_json_bool_or(oc_json_get(c, "add_generation_prompt"), false),
        .bos_token = token(c, "bos_token"),
        .eos_token = token(c, "eos_token"),
        .now = NOW,
    };
    return oc_chat_template_render(t, &r, out, ei);
}

static void check_ranges(const struct oc_chat_text *out, const struct oc_json *ranges, const char *name) {
    for (size_t i = 0; ranges && i < ranges->n_items; i++) {
        int64_t from = oc_json_int_or(&ranges->items[i].items[0], 0),
                to = oc_json_int_or(&ranges->items[i].items[1], 0);
        assert_true(from < to && (size_t)to <= out->origin.n_bytes);
        for (int64_t k = from; k < to; k++) {
            if (out->origin.data[k])
                fail_msg("%s: byte %lld came from a message and has origin 1", name, (long long)k);
        }
    }
}

static void check_case(const struct oc_chat_template *t, const struct oc_json *c, const char *file) {
    struct oc_chat_text out;
    struct oc_errinfo ei;
    char name[300];
    snprintf(name, sizeof name, "%s, %s", file, oc_json_get(c, "name")->str.p);
    enum oc_err err = render_case(t, c, &out, &ei);
    const struct oc_json *want = oc_json_get(c, "text");
    if (want && err) fail_msg("%s: %s", name, ei.msg);
    if (!want && !err) fail_msg("%s: rendered, but jinja2 raised %s", name, oc_json_get(c, "error")->str.p);
    if (want) {
        assert_int_equal(out.text.n_bytes, out.origin.n_bytes);
        assert_string_equal(oc_buf_str(&out.text), want->str.p);
        assert_int_equal(out.text.n_bytes, want->str.n);
        check_ranges(&out, oc_json_get(c, "data"), name);
    }
    oc_chat_text_free(&out);
}

static size_t check_file(const char *path) {
    struct oc_arena a;
    struct oc_json j;
    struct oc_errinfo ei;
    struct oc_chat_template *t;
    oc_arena_init(&a, 64 * OC_MIB);
    if (oc_json_load(&a, path, OC_MIB, &j, &ei)) fail_msg("%s", ei.msg);
    if (oc_chat_template_open(oc_json_get(&j, "template")->str, &t, &ei)) fail_msg("%s: %s", path, ei.msg);
    const struct oc_json *cases = oc_json_get(&j, "cases");
    size_t n = cases->n_items;
    for (size_t i = 0; i < n; i++) check_case(t, &cases->items[i], path);
    oc_chat_template_close(t);
    oc_arena_free(&a);
    return n;
}

static void test_goldens(void **state) {
    (void)state;
    DIR *d = opendir(OC_TEST_DIR "/golden/template");
    assert_non_null(d);
    size_t n = 0;
    for (struct dirent *e; (e = readdir(d));) {
        char path[OC_LIMIT_PATH_BYTES];
        if (!strstr(e->d_name, ".json")) continue;
        snprintf(path, sizeof path, "%s/%s", OC_TEST_DIR "/golden/template", e->d_name);
        n += check_file(path);
    }
    closedir(d);
    assert_int_equal(n, 80);
}

static void print_case(const struct oc_json *c) {
    struct oc_chat_template *t;
    struct oc_errinfo ei;
    struct oc_buf b;
    oc_buf_init(&b, 256 * OC_MIB);
    enum oc_err err = oc_chat_template_open(oc_json_get(c, "template")->str, &t, &ei);
    if (!err) {
        struct oc_chat_text out;
        err = render_case(t, c, &out, &ei);
        oc_buf_add_str(&b, "{\"text\":");
        oc_json_write_str(&b, (struct oc_str){oc_buf_str(&out.text), out.text.n_bytes});
        oc_buf_add_str(&b, "}");
        oc_chat_text_free(&out);
        oc_chat_template_close(t);
    }
    if (err) {
        oc_buf_clear(&b);
        oc_buf_add_str(&b, "{\"error\":");
        oc_json_write_str(&b, oc_str_from(ei.msg));
        oc_buf_add_str(&b, "}");
    }
    puts(oc_buf_str(&b));
    oc_buf_free(&b);
}

static int print_cases(const char *path) {
    struct oc_arena a;
    struct oc_json j;
    struct oc_errinfo ei;
    oc_arena_init(&a, OC_GIB);
    bool ok = oc_json_load(&a, path, OC_LIMIT_JSON_BYTES, &j, &ei) == OC_OK && j.type == OC_JSON_ARR;
    for (size_t i = 0; ok && i < j.n_items; i++) print_case(&j.items[i]);
    oc_arena_free(&a);
    return ok ? 0 : 1;
}

int main(int argc, char **argv) {
    if (argc == 2) return print_cases(argv[1]);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_goldens)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
