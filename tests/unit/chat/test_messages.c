/* OpenAI messages made ready for templates: parts, pictures, tool calls, and errors that name the place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/limits.h"
#include "chat/messages.h"

/* The prepared list as compact JSON, or the error's sentence. */
static enum oc_err prepare(const char *in, bool text, bool parts, char *out, size_t size, char *sources,
                           size_t sources_size) {
    struct oc_arena a;
    struct oc_json j;
    struct oc_errinfo ei = {0};
    struct oc_chat_messages m;
    struct oc_buf b;
    oc_arena_init(&a, OC_MIB);
    oc_buf_init(&b, OC_MIB);
    assert_int_equal(oc_json_parse(&a, oc_str_from(in), "test", &j, &ei), OC_OK);
    enum oc_err err = oc_chat_messages_prepare(&a, &j, text, parts, &m, &ei);
    if (!err) oc_json_write(&b, &m.list, ",", ":");
    snprintf(out, size, "%s", err ? ei.msg : oc_buf_str(&b));
    size_t n = 0;
    sources[0] = '\0';
    for (size_t i = 0; !err && i < m.n_images; i++) {
        const struct oc_chat_image *g = &m.images[i];
        n += (size_t)snprintf(sources + n, sources_size - n, "%zu.%zu %.*s;", g->message, g->part,
                              (int)g->source.n, g->source.p);
    }
    oc_buf_free(&b);
    oc_arena_free(&a);
    return err;
}

static void expect(const char *in, bool text, bool parts, const char *want, const char *want_sources) {
    char out[2000], sources[500];
    if (prepare(in, text, parts, out, sizeof out, sources, sizeof sources)) fail_msg("%s: %s", in, out);
    assert_string_equal(out, want);
    assert_string_equal(sources, want_sources);
}

static void expect_error(const char *in, bool parts, enum oc_err code, const char *want) {
    char out[2000], sources[500];
    assert_int_equal(prepare(in, true, parts, out, sizeof out, sources, sizeof sources), code);
    if (!strstr(out, want)) fail_msg("%s: %s", in, out);
}

static void test_forms(void **state) {
    (void)state;
    const char *plain = "[{\"role\":\"user\",\"content\":\"hi\"}]";
    expect(plain, true, false, plain, "");
    expect(plain, true, true, plain, "");
    expect(plain, false, true, "[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"hi\"}]}]", "");
    const char *parts = "[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":"
                        "\"text\",\"text\":\"b\"}]}]";
    expect(parts, true, true, parts, "");
    expect(parts, true, false, "[{\"role\":\"user\",\"content\":\"a\\nb\"}]", "");
    expect("[{\"role\":\"user\",\"content\":[]}]", true, false, "[{\"role\":\"user\",\"content\":\"\"}]", "");
}

static void test_pictures(void **state) {
    (void)state;
    expect("[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":[{\"type\":\"image_url\","
           "\"image_url\":{\"url\":\"a.png\"}},"
           "{\"type\":\"text\",\"text\":\"t\"},{\"type\":\"image\",\"image\":\"b.png\"},{\"type\":\"image_"
           "url\",\"image_url\":\"c\"},{\"type\":\"image\"}]}]",
           true, true,
           "[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":[{\"type\":\"image\"},{"
           "\"type\":\"text\",\"text\":\"t\"},"
           "{\"type\":\"image\"},{\"type\":\"image\"},{\"type\":\"image\"}]}]",
           "1.0 a.png;1.2 b.png;1.3 c;1.4 ;");
    expect_error("[{\"role\":\"user\",\"content\":[{\"type\":\"image\",\"path\":\"x\"}]}]", false,
                 OC_ERR_UNSUPPORTED, "messages[0].content[0]: a picture, but");
}

static void test_tool_calls(void **state) {
    (void)state;
    expect("[{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"1\",\"function\":{\"name\":"
           "\"f\",\"arguments\":\"{\\\"x\\\": 1}\"}}]}]",
           true, false,
           "[{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"1\",\"function\":{\"name\":"
           "\"f\",\"arguments\":{\"x\":1}}}]}]",
           "");
    const char *kept = "[{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":"
                       "\"not json\"}}]}]";
    expect(kept, true, false, kept, "");
}

static void test_errors(void **state) {
    (void)state;
    expect_error("[]", true, OC_ERR_FORMAT, "at least one message");
    expect_error("{}", true, OC_ERR_FORMAT, "must be a list");
    expect_error("[1]", true, OC_ERR_FORMAT, "messages[0]: must be an object");
    expect_error("[{\"content\":\"x\"}]", true, OC_ERR_FORMAT, "messages[0].role");
    expect_error("[{\"role\":\"user\"}]", true, OC_ERR_FORMAT, "messages[0].content: is missing");
    expect_error("[{\"role\":\"user\",\"content\":5}]", true, OC_ERR_FORMAT, "messages[0].content: must be");
    expect_error("[{\"role\":\"a\",\"content\":\"\"},{\"role\":\"user\",\"content\":[{\"type\":\"text\","
                 "\"text\":\"\"},{\"type\":\"image_url\",\"image_url\":{}}]}]",
                 true, OC_ERR_FORMAT, "messages[1].content[1].image_url.url");
    expect_error("[{\"role\":\"user\",\"content\":[{\"type\":\"audio\"}]}]", true, OC_ERR_UNSUPPORTED,
                 "'audio' is not one of");
    expect_error("[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]", true, OC_ERR_FORMAT,
                 "messages[0].content[0].text");
}

static void test_too_many(void **state) {
    (void)state;
    struct oc_buf b;
    char out[300], sources[10];
    oc_buf_init(&b, OC_MIB);
    oc_buf_add_str(&b, "[{\"role\":\"user\",\"content\":[");
    for (int i = 0; i <= OC_LIMIT_IMAGES_PER_PROMPT; i++)
        oc_buf_printf(&b, "%s{\"type\":\"image\"}", i ? "," : "");
    oc_buf_add_str(&b, "]}]");
    assert_int_equal(prepare(oc_buf_str(&b), true, true, out, sizeof out, sources, sizeof sources),
                     OC_ERR_LIMIT);
    oc_buf_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),  cmocka_unit_test(test_pictures), cmocka_unit_test(test_tool_calls),
        cmocka_unit_test(test_errors), cmocka_unit_test(test_too_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
