/* `messages` of a chat request: what is accepted, what is handed on, which pictures are found, what refusals
 * name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "api/request.h"
#include "chat/messages.h"

#define MAX_PICTURES 3

struct fixture {
    struct oc_arena a;
    struct oc_api_request r;
    struct oc_api_error e;
    struct oc_buf out;
};

static int setup(void **state) {
    struct fixture *fx = calloc(1, sizeof *fx);
    oc_arena_init(&fx->a, 16 * OC_MIB);
    oc_buf_init(&fx->out, OC_MIB);
    *state = fx;
    return 0;
}

static int teardown(void **state) {
    struct fixture *fx = *state;
    oc_arena_free(&fx->a);
    oc_buf_free(&fx->out);
    free(fx);
    return 0;
}

static bool parse(struct fixture *fx, const char *messages) {
    struct oc_buf b;
    oc_buf_init(&b, OC_MIB);
    oc_buf_printf(&b, "{\"messages\":%s}", messages);
    bool ok =
        oc_api_request_parse(&fx->a, (struct oc_str){b.data, b.n_bytes}, true, MAX_PICTURES, &fx->r, &fx->e);
    oc_buf_free(&b);
    return ok;
}

/* chat/ accepts what was accepted here, and finds the same pictures. */
static void check_prepared(struct fixture *fx, const char *messages) {
    struct oc_chat_messages m;
    struct oc_errinfo ei;
    if (oc_chat_messages_prepare(&fx->a, &fx->r.messages, true, true, &m, &ei))
        fail_msg("%s: %s", messages, ei.msg);
    assert_int_equal(m.n_images, fx->r.n_pictures);
    for (size_t i = 0; i < m.n_images; i++) assert_true(oc_str_eq(m.images[i].source, fx->r.pictures[i].url));
}

static void accept(struct fixture *fx, const char *messages, const char *want) {
    if (!parse(fx, messages)) fail_msg("%s: %s", messages, fx->e.message);
    oc_buf_clear(&fx->out);
    oc_json_write(&fx->out, &fx->r.messages, ",", ":");
    assert_string_equal(oc_buf_str(&fx->out), want);
    check_prepared(fx, messages);
}

static void refuse(struct fixture *fx, const char *messages, enum oc_api_problem problem, const char *param,
                   const char *words) {
    if (parse(fx, messages)) fail_msg("%s was accepted", messages);
    if (fx->e.problem != problem || strcmp(fx->e.param, param) || !strstr(fx->e.message, words))
        fail_msg("%s: %d '%s' %s", messages, (int)fx->e.problem, fx->e.param, fx->e.message);
}

static void refuse_400(struct fixture *fx, const char *messages, const char *param, const char *words) {
    refuse(fx, messages, OC_API_BAD_REQUEST, param, words);
}

/* One user message with these parts. */
static const char *parts(struct fixture *fx, const char *list) {
    return oc_arena_printf(&fx->a, "[{\"role\":\"user\",\"content\":[%s]}]", list);
}

static void test_roles(void **state) {
    struct fixture *fx = *state;
    static const char *const same[] = {"system", "user", "assistant", "tool", "function"};
    for (size_t i = 0; i < 5; i++) {
        const char *m = oc_arena_printf(&fx->a, "[{\"role\":\"%s\",\"content\":\"x\"}]", same[i]);
        accept(fx, m, m);
    }
    accept(fx, "[{\"content\":\"x\",\"role\":\"developer\"}]", "[{\"content\":\"x\",\"role\":\"system\"}]");
    refuse_400(fx, "[{\"role\":\"robot\",\"content\":\"x\"}]", "messages[0].role", "'robot'");
    refuse_400(fx, "[{\"role\":\"User\",\"content\":\"x\"}]", "messages[0].role", "must be one of");
    refuse_400(fx, "[{\"role\":\"user\",\"content\":\"x\"},{\"content\":\"x\"}]", "messages[1].role",
               "not nothing");
    refuse_400(fx, "[{\"role\":5,\"content\":\"x\"}]", "messages[0].role", "a string, not an integer");
    refuse_400(fx, "[{\"role\":null,\"content\":\"x\"}]", "messages[0].role", "not null");
}

static void test_lists(void **state) {
    struct fixture *fx = *state;
    refuse_400(fx, "[]", "messages", "empty");
    refuse_400(fx, "{}", "messages", "an array, not an object");
    refuse_400(fx, "\"hi\"", "messages", "not a string");
    refuse_400(fx, "null", "messages", "not null");
    refuse_400(fx, "[\"hi\"]", "messages[0]", "an object, not a string");
    refuse_400(fx, "[{\"role\":\"user\",\"content\":\"a\"},null]", "messages[1]", "not null");
    struct oc_buf b;
    oc_buf_init(&b, OC_MIB);
    oc_buf_add_str(&b, "[{\"role\":\"user\",\"content\":\"a\"}");
    for (int i = 1; i < OC_LIMIT_API_MESSAGES; i++)
        oc_buf_add_str(&b, ",{\"role\":\"user\",\"content\":\"a\"}");
    size_t n = b.n_bytes;
    oc_buf_add_str(&b, "]");
    assert_true(parse(fx, b.data));
    assert_int_equal(fx->r.messages.n_items, OC_LIMIT_API_MESSAGES);
    b.n_bytes = n;
    oc_buf_add_str(&b, ",{\"role\":\"user\",\"content\":\"a\"}]");
    refuse_400(fx, b.data, "messages", "1025 messages");
    oc_buf_free(&b);
}

static void test_content(void **state) {
    struct fixture *fx = *state;
    accept(fx, "[{\"role\":\"user\",\"content\":\"\"}]", "[{\"role\":\"user\",\"content\":\"\"}]");
    accept(fx, "[{\"role\":\"user\",\"content\":[]}]", "[{\"role\":\"user\",\"content\":[]}]");
    accept(fx, "[{\"role\":\"assistant\",\"content\":null}]", "[{\"role\":\"assistant\",\"content\":\"\"}]");
    accept(fx, "[{\"role\":\"assistant\"}]", "[{\"role\":\"assistant\",\"content\":\"\"}]");
    refuse_400(fx, "[{\"role\":\"user\"}]", "messages[0].content", "not nothing");
    refuse_400(fx, "[{\"role\":\"user\",\"content\":null}]", "messages[0].content", "not null");
    refuse_400(fx, "[{\"role\":\"tool\",\"content\":null}]", "messages[0].content", "not null");
    refuse_400(fx, "[{\"role\":\"user\",\"content\":123}]", "messages[0].content",
               "an array of parts, not an integer");
    refuse_400(fx, "[{\"role\":\"assistant\",\"content\":{}}]", "messages[0].content", "not an object");
    refuse_400(fx, "[{\"role\":\"user\",\"content\":[\"x\"]}]", "messages[0].content[0]", "not a string");
    refuse_400(fx, "[{\"role\":\"user\",\"content\":\"x\"},{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"x\"},\"y\"]}]",
               "messages[1].content[1]", "an object with \"type\"");
}

/* What client libraries send back of an earlier answer. */
static void test_other_fields(void **state) {
    struct fixture *fx = *state;
    accept(fx,
           "[{\"role\":\"assistant\",\"content\":\"a\",\"refusal\":null,\"audio\":null,\"tool_calls\":null,"
           "\"function_call\":null,\"annotations\":[]}]",
           "[{\"role\":\"assistant\",\"content\":\"a\",\"annotations\":[]}]");
    accept(fx, "[{\"role\":\"user\",\"content\":\"a\",\"name\":\"n\"}]",
           "[{\"role\":\"user\",\"content\":\"a\",\"name\":\"n\"}]");
    accept(fx,
           "[{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"1\",\"function\":{\"name\":"
           "\"f\",\"arguments\":"
           "\"{}\"}}]},{\"role\":\"tool\",\"tool_call_id\":\"1\",\"content\":\"5\"}]",
           "[{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"1\",\"function\":{\"name\":\"f\","
           "\"arguments\":\"{}\"}}],"
           "\"content\":\"\"},{\"role\":\"tool\",\"tool_call_id\":\"1\",\"content\":\"5\"}]");
    refuse_400(fx, "[{\"role\":\"user\",\"content\":\"a\",\"name\":5}]", "messages[0].name", "a string");
    refuse_400(fx, "[{\"role\":\"assistant\",\"content\":\"a\",\"tool_calls\":{}}]", "messages[0].tool_calls",
               "an array");
}

static void test_parts(void **state) {
    struct fixture *fx = *state;
    const char *m =
        parts(fx, "{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"input_text\",\"text\":\"\"}");
    accept(fx, m, m);
    assert_int_equal(fx->r.n_pictures, 0);
    refuse_400(fx, parts(fx, "5"), "messages[0].content[0]", "an object with");
    refuse_400(fx, parts(fx, "null"), "messages[0].content[0]", "not null");
    refuse_400(fx, parts(fx, "{\"text\":\"a\"}"), "messages[0].content[0].type", "not nothing");
    refuse_400(fx, parts(fx, "{\"type\":\"text\",\"text\":\"a\"},{\"type\":5}"), "messages[0].content[1].type", "not an integer");
    refuse_400(fx, parts(fx, "{\"type\":\"text\"}"), "messages[0].content[0].text", "not nothing");
    refuse_400(fx, parts(fx, "{\"type\":\"text\",\"text\":null}"), "messages[0].content[0].text", "not null");
    static const char *const types[] = {"input_audio", "video_url", "video", "file", "refusal", "TEXT", ""};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        const char *part = oc_arena_printf(&fx->a, "{\"type\":\"%s\",\"text\":\"a\"}", types[i]);
        refuse(fx, parts(fx, part), OC_API_UNSUPPORTED, "messages[0].content[0]",
               oc_arena_printf(&fx->a, "'%s'", types[i]));
    }
}

static void expect_picture(const struct fixture *fx, size_t i, const char *url, const char *param,
                           enum oc_api_detail detail, int64_t min_pixels, int64_t max_pixels) {
    const struct oc_api_picture *p = &fx->r.pictures[i];
    assert_true(i < fx->r.n_pictures);
    assert_true(oc_str_is(p->url, url));
    assert_string_equal(p->param, param);
    assert_int_equal(p->detail, detail);
    assert_int_equal(p->min_pixels, min_pixels);
    assert_int_equal(p->max_pixels, max_pixels);
}

static void test_pictures(void **state) {
    struct fixture *fx = *state;
    const char *m =
        "[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":[{\"type\":\"text\","
        "\"text\":\"t\"},"
        "{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:a\",\"detail\":\"low\",\"min_pixels\":100,"
        "\"max_pixels\":200.0}},"
        "{\"type\":\"input_image\",\"image_url\":\"http://b\",\"detail\":\"high\"}]},"
        "{\"role\":\"user\",\"content\":[{\"type\":\"image\",\"image\":\"/c.png\",\"max_pixels\":7}]}]";
    accept(fx, m, m);
    assert_int_equal(fx->r.n_pictures, 3);
    expect_picture(fx, 0, "data:a", "messages[1].content[1].image_url", OC_API_DETAIL_LOW, 100, 200);
    expect_picture(fx, 1, "http://b", "messages[1].content[2].image_url", OC_API_DETAIL_HIGH, 0, 0);
    expect_picture(fx, 2, "/c.png", "messages[2].content[0].image", OC_API_DETAIL_AUTO, 0, 7);
    m = parts(fx, "{\"type\":\"image\",\"image\":null,\"url\":\"u\"},{\"type\":\"image\",\"path\":\"p\","
                  "\"detail\":null}");
    accept(fx, m, m);
    expect_picture(fx, 0, "u", "messages[0].content[0].url", OC_API_DETAIL_AUTO, 0, 0);
    expect_picture(fx, 1, "p", "messages[0].content[1].path", OC_API_DETAIL_AUTO, 0, 0);
    /* the object's own wishes are nearer to the picture than the part's */
    m = parts(fx, "{\"type\":\"image_url\",\"min_pixels\":1,\"max_pixels\":2,\"image_url\":{\"url\":\"u\","
                  "\"max_pixels\":9}}");
    accept(fx, m, m);
    expect_picture(fx, 0, "u", "messages[0].content[0].image_url", OC_API_DETAIL_AUTO, 1, 9);
}

static void test_wrong_pictures(void **state) {
    struct fixture *fx = *state;
    static const struct {
        const char *part, *param, *words;
    } cases[] = {
        {"{\"type\":\"image_url\"}", "messages[0].content[0].image_url", "not nothing"},
        {"{\"type\":\"image_url\",\"image_url\":5}", "messages[0].content[0].image_url", "not an integer"},
        {"{\"type\":\"image_url\",\"image_url\":{}}", "messages[0].content[0].image_url.url", "not nothing"},
        {"{\"type\":\"image_url\",\"image_url\":{\"url\":null}}", "messages[0].content[0].image_url.url",
         "not null"},
        {"{\"type\":\"image_url\",\"image_url\":{\"url\":\"\"}}", "messages[0].content[0].image_url",
         "empty"},
        {"{\"type\":\"image_url\",\"image_url\":\"\"}", "messages[0].content[0].image_url", "empty"},
        {"{\"type\":\"image_url\",\"image_url\":{\"url\":\"u\",\"detail\":\"ultra\"}}",
         "messages[0].content[0].image_url.detail", "\"auto\", \"low\" or \"high\""},
        {"{\"type\":\"image_url\",\"detail\":5,\"image_url\":{\"url\":\"u\"}}",
         "messages[0].content[0].detail", "must be"},
        {"{\"type\":\"image_url\",\"image_url\":{\"url\":\"u\",\"min_pixels\":0}}",
         "messages[0].content[0].image_url.min_pixels", "from 1"},
        {"{\"type\":\"image_url\",\"max_pixels\":\"9\",\"image_url\":\"u\"}",
         "messages[0].content[0].max_pixels", "not a string"},
        {"{\"type\":\"image_url\",\"image_url\":{\"url\":\"u\",\"min_pixels\":3,\"max_pixels\":2}}",
         "messages[0].content[0].image_url", "min_pixels over max_pixels"},
        {"{\"type\":\"image\"}", "messages[0].content[0]", "names no picture"},
        {"{\"type\":\"image\",\"source\":{\"type\":\"base64\"}}", "messages[0].content[0]",
         "names no picture"},
        {"{\"type\":\"image\",\"url\":5}", "messages[0].content[0].url", "a string"},
        {"{\"type\":\"image\",\"image\":{\"url\":\"u\"}}", "messages[0].content[0].image",
         "a string, not an object"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refuse_400(fx, parts(fx, cases[i].part), cases[i].param, cases[i].words);
    refuse_400(
        fx,
        parts(fx, "{\"type\":\"image_url\",\"image_url\":\"a\"},{\"type\":\"image_url\",\"image_url\":\"b\"},"
                  "{\"type\":\"text\",\"text\":\"\"},{\"type\":\"image_url\",\"image_url\":\"c\"},"
                  "{\"type\":\"image_url\",\"image_url\":\"d\"}"),
        "messages[0].content[4].image_url", "Too many images: a request may have at most 3");
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        CASE(test_roles), CASE(test_lists),    CASE(test_content),        CASE(test_other_fields),
        CASE(test_parts), CASE(test_pictures), CASE(test_wrong_pictures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
