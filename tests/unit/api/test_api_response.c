/* Answers and chunks: each is parsed back (strictly, so that what is written is JSON) and compared. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "api/response.h"
#include "base/json.h"
#include "base/limits.h"

struct fixture {
    struct oc_arena a;
    struct oc_buf b, again;
    struct oc_json j;
};

static int setup(void **state) {
    struct fixture *fx = calloc(1, sizeof *fx);
    oc_arena_init(&fx->a, 16 * OC_MIB);
    oc_buf_init(&fx->b, OC_MIB);
    oc_buf_init(&fx->again, OC_MIB);
    *state = fx;
    return 0;
}

static int teardown(void **state) {
    struct fixture *fx = *state;
    oc_arena_free(&fx->a);
    oc_buf_free(&fx->b);
    oc_buf_free(&fx->again);
    free(fx);
    return 0;
}

static const struct oc_api_answer chat = {.is_chat = true,
                                          .id = "chatcmpl-1",
                                          .created = 1700000000,
                                          .model = {"org/m\"x\"", 8},
                                          .fingerprint = "fp"};
static const struct oc_api_answer old = {.id = "cmpl-1", .created = 1700000000, .model = {"m", 1}};

#define CHAT_HEAD(object)                                                                                    \
    "{\"id\":\"chatcmpl-1\",\"object\":\"" object                                                            \
    "\",\"created\":1700000000,\"model\":\"org/m\\\"x\\\"\",\"system_fingerprint\":\"fp\","
#define OLD_HEAD                                                                                             \
    "{\"id\":\"cmpl-1\",\"object\":\"text_completion\",\"created\":1700000000,\"model\":\"m\","              \
    "\"system_fingerprint\":null,"

/* What is in fx->b, parsed; the buffer is emptied for the next. */
static const struct oc_json *parsed(struct fixture *fx) {
    struct oc_errinfo ei;
    assert_false(fx->b.failed);
    struct oc_str text = {oc_buf_str(&fx->b), fx->b.n_bytes};
    if (oc_json_parse(&fx->a, text, "answer", &fx->j, &ei)) fail_msg("%s: %s", oc_buf_str(&fx->b), ei.msg);
    if (strchr(oc_buf_str(&fx->b), '\n'))
        fail_msg("a line break would cut an SSE event: %s", oc_buf_str(&fx->b));
    oc_buf_clear(&fx->b);
    return &fx->j;
}

static void expect_part(struct fixture *fx, const struct oc_json *v, const char *want) {
    assert_non_null(v);
    oc_buf_clear(&fx->again);
    oc_json_write(&fx->again, v, ",", ":");
    assert_string_equal(oc_buf_str(&fx->again), want);
}

static void expect(struct fixture *fx, const char *want) {
    expect_part(fx, parsed(fx), want);
}

/* ---- Streams ------------------------------------------------------------------------------------------- */

static void test_chat_chunks(void **state) {
    struct fixture *fx = *state;
    struct oc_api_choice c = {.index = 1, .text = OC_STR("a\n\x01\"")};
    oc_api_write_role_chunk(&fx->b, &chat, 0);
    expect(fx, CHAT_HEAD("chat.completion.chunk") "\"choices\":[{\"index\":0,\"delta\":{\"role\":"
                                                  "\"assistant\",\"content\":"
                                                  "\"\"},\"logprobs\":null,\"finish_reason\":null}]}");
    oc_api_write_chunk(&fx->b, &chat, &c);
    expect(
        fx,
        CHAT_HEAD(
            "chat.completion.chunk") "\"choices\":[{\"index\":1,\"delta\":{\"content\":\"a\\n\\u0001\\\"\"},"
                                     "\"logprobs\":null,\"finish_reason\":null}]}");
    c = (struct oc_api_choice){.text = OC_STR("b"), .finish = OC_API_FINISH_LENGTH};
    oc_api_write_chunk(&fx->b, &chat, &c);
    expect(fx, CHAT_HEAD("chat.completion.chunk") "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"b\"},"
                                                  "\"logprobs\":null,\"finish_reason\":\"length\"}]}");
    c = (struct oc_api_choice){.finish = OC_API_FINISH_STOP};
    oc_api_write_chunk(&fx->b, &chat, &c);
    expect(fx,
           CHAT_HEAD(
               "chat.completion.chunk") "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\"},\"logprobs\":null,\"finish_"
                                        "reason\":\"stop\"}]}");
    c = (struct oc_api_choice){.index = 0}; /* no text yet, as when half a character is held back */
    oc_api_write_chunk(&fx->b, &chat, &c);
    expect_part(fx, oc_json_get(&oc_json_get(parsed(fx), "choices")->items[0], "delta"),
                "{\"content\":\"\"}");
}

static void test_completion_chunks(void **state) {
    struct fixture *fx = *state;
    struct oc_api_choice c = {.text = OC_STR("x")};
    oc_api_write_role_chunk(&fx->b, &old, 0);
    assert_int_equal(fx->b.n_bytes, 0);
    oc_api_write_chunk(&fx->b, &old, &c);
    expect(fx,
           OLD_HEAD "\"choices\":[{\"text\":\"x\",\"index\":0,\"logprobs\":null,\"finish_reason\":null}]}");
    c = (struct oc_api_choice){.finish = OC_API_FINISH_STOP};
    oc_api_write_chunk(&fx->b, &old, &c);
    expect(fx, OLD_HEAD
           "\"choices\":[{\"text\":\"\",\"index\":0,\"logprobs\":null,\"finish_reason\":\"stop\"}]}");
}

static const struct oc_api_usage usage = {
    .prompt_tokens = 100, .completion_tokens = 5, .cached_tokens = 40, .image_tokens = 30};
static const struct oc_api_timings timings = {.queue_ms = 1,
                                              .fetch_ms = 2.0004,
                                              .image_ms = 3,
                                              .encode_ms = 4.5,
                                              .prefill_ms = 600,
                                              .ttft_ms = 700,
                                              .decode_ms = 900,
                                              .n_prompt = 100,
                                              .n_cached = 40,
                                              .n_image = 30,
                                              .n_decode = 5};
static const struct oc_api_image_report image = {1355, 710, 1344, 700, 1, 50, 96, 1200};

#define USAGE                                                                                                \
    "\"usage\":{\"prompt_tokens\":100,\"completion_tokens\":5,\"total_tokens\":105,\"prompt_tokens_"         \
    "details\":{"                                                                                            \
    "\"cached_tokens\":40,\"image_tokens\":30}"
#define TIMINGS                                                                                              \
    "\"timings\":{\"queue_ms\":1.0,\"fetch_ms\":2.0,\"image_ms\":3.0,\"vision_ms\":4.5,\"prefill_ms\":600."  \
    "0,"                                                                                                     \
    "\"ttft_ms\":700.0,\"decode_ms\":900.0,\"n_prompt\":100,\"n_cached\":40,\"n_image\":30,\"n_decode\":5,"  \
    "\"prefill_tok_s\":100.0,\"decode_tok_s\":4.444}"
#define IMAGES                                                                                               \
    "\"images\":[{\"original\":[1355,710],\"resized\":[1344,700],\"grid\":[1,50,96],\"tokens\":1200}]"

static void test_usage_in_streams(void **state) {
    struct fixture *fx = *state;
    struct oc_api_answer a = chat;
    struct oc_api_choice c = {.text = OC_STR("x")};
    a.include_usage = true;
    oc_api_write_role_chunk(&fx->b, &a, 0);
    assert_int_equal(oc_json_get(parsed(fx), "usage")->type, OC_JSON_NULL);
    oc_api_write_chunk(&fx->b, &a, &c);
    assert_int_equal(oc_json_get(parsed(fx), "usage")->type, OC_JSON_NULL);
    oc_api_write_usage_chunk(&fx->b, &a, &usage, &timings, &image, 1);
    expect(fx, CHAT_HEAD("chat.completion.chunk") "\"choices\":[]," USAGE ",\"tokens_per_sec\":3.33}," TIMINGS
                                                  "," IMAGES "}");
    oc_api_write_usage_chunk(&fx->b, &old, &usage, &timings, NULL, 0);
    expect(fx, OLD_HEAD "\"choices\":[]," USAGE "}," TIMINGS "}");
}

/* ---- Whole answers ------------------------------------------------------------------------------------- */

static void test_answers(void **state) {
    struct fixture *fx = *state;
    struct oc_api_choice c[2] = {{.text = OC_STR("one"), .finish = OC_API_FINISH_STOP},
                                 {.index = 1, .text = OC_STR(""), .finish = OC_API_FINISH_LENGTH}};
    oc_api_write_answer(&fx->b, &chat, c, 2, &usage, &timings, &image, 1);
    expect(
        fx,
        CHAT_HEAD(
            "chat.completion") "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":"
                               "\"one\","
                               "\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"stop\"},{\"index\":1,"
                               "\"message\":{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null},"
                               "\"logprobs\":null,\"finish_reason\":\"length\"}]," USAGE
                               ",\"tokens_per_sec\":3.33}," TIMINGS "," IMAGES "}");
    oc_api_write_answer(&fx->b, &old, c, 1, &usage, NULL, NULL, 0);
    expect(fx, OLD_HEAD
           "\"choices\":[{\"text\":\"one\",\"index\":0,\"logprobs\":null,\"finish_reason\":\"stop\"}]," USAGE
           "}}");
}

/* Rates of an answer that took no time, or had no token, are 0 and never "inf". */
static void test_empty_figures(void **state) {
    struct fixture *fx = *state;
    struct oc_api_usage none = {0};
    struct oc_api_timings zero = {.decode_ms = NAN, .prefill_ms = INFINITY};
    oc_api_write_answer(&fx->b, &chat, NULL, 0, &none, &zero, NULL, 0);
    const struct oc_json *v = parsed(fx);
    assert_true(oc_json_double_or(oc_json_path(v, "usage", "tokens_per_sec", NULL), -1) == 0);
    assert_true(oc_json_double_or(oc_json_path(v, "timings", "decode_tok_s", NULL), -1) == 0);
    assert_true(oc_json_double_or(oc_json_path(v, "timings", "prefill_ms", NULL), -1) == 0);
    assert_int_equal(oc_json_get(v, "images")->n_items, 0);
}

/* ---- Log-probabilities --------------------------------------------------------------------------------- */

static const struct oc_api_logprob top[] = {{{"a", 1}, -0.5}, {{"\xF0\x9F", 2}, -1.25}, {{"a", 1}, -2}};
static const struct oc_api_token_logprobs tokens[] = {
    {{{"a", 1}, -0.5}, top, 3},
    {{{"\xF0\x9F", 2}, -INFINITY}, top, 1},
    {{{"\x98\x80", 2}, 0}, NULL, 0},
};
static const struct oc_api_choice spoken = {.logprobs = tokens, .n_logprobs = 3, .text_offset = 7};

static void test_chat_logprobs(void **state) {
    struct fixture *fx = *state;
    oc_api_write_chunk(&fx->b, &chat, &spoken);
    expect_part(
        fx, oc_json_get(&oc_json_get(parsed(fx), "choices")->items[0], "logprobs"),
        "{\"content\":[{\"token\":\"a\",\"logprob\":-0.5,\"bytes\":[97],\"top_logprobs\":[{\"token\":\"a\","
        "\"logprob\":-0.5,\"bytes\":[97]},{\"token\":\"\xEF\xBF\xBD\",\"logprob\":-1.25,\"bytes\":[240,159]},"
        "{"
        "\"token\":\"a\",\"logprob\":-2.0,\"bytes\":[97]}]},{\"token\":\"\xEF\xBF\xBD\",\"logprob\":-9999.0,"
        "\"bytes\":[240,159],\"top_logprobs\":[{\"token\":\"a\",\"logprob\":-0.5,\"bytes\":[97]}]},{"
        "\"token\":"
        "\"\xEF\xBF\xBD\xEF\xBF\xBD\",\"logprob\":0.0,\"bytes\":[152,128],\"top_logprobs\":[]}],\"refusal\":"
        "null}");
    struct oc_api_choice none = {.logprobs = tokens, .n_logprobs = 0};
    oc_api_write_answer(&fx->b, &chat, &none, 1, &usage, NULL, NULL, 0);
    expect_part(fx, oc_json_get(&oc_json_get(parsed(fx), "choices")->items[0], "logprobs"),
                "{\"content\":[],\"refusal\":null}");
}

static void test_completion_logprobs(void **state) {
    struct fixture *fx = *state;
    oc_api_write_chunk(&fx->b, &old, &spoken);
    expect_part(fx, oc_json_get(&oc_json_get(parsed(fx), "choices")->items[0], "logprobs"),
                "{\"tokens\":[\"a\",\"bytes:\\\\xf0\\\\x9f\",\"bytes:\\\\x98\\\\x80\"],\"token_logprobs\":[-"
                "0.5,-9999.0,0.0],"
                "\"top_logprobs\":[{\"a\":-0.5,\"bytes:\\\\xf0\\\\x9f\":-1.25},{\"a\":-0.5,\"bytes:"
                "\\\\xf0\\\\x9f\":-9999.0},{"
                "\"bytes:\\\\x98\\\\x80\":0.0}],\"text_offset\":[7,8,9]}");
    struct oc_api_choice plain = {.logprobs = &tokens[2], .n_logprobs = 1};
    oc_api_write_chunk(&fx->b, &old, &plain);
    expect_part(fx,
                oc_json_path(&oc_json_get(parsed(fx), "choices")->items[0], "logprobs", "top_logprobs", NULL),
                "null");
}

/* ---- Models, tokens, ids ------------------------------------------------------------------------------- */

static void test_models(void **state) {
    struct fixture *fx = *state;
    struct oc_api_model m[2] = {{.id = OC_STR("a/b"),
                                 .owned_by = OC_STR("a"),
                                 .created = 5,
                                 .loaded = true,
                                 .vision = true,
                                 .ctx_tokens = 4096},
                                {.id = OC_STR("c"), .owned_by = OC_STR("local")}};
    oc_api_write_models(&fx->b, m, 2);
    expect(fx,
           "{\"object\":\"list\",\"data\":[{\"id\":\"a/"
           "b\",\"object\":\"model\",\"created\":5,\"owned_by\":\"a\",\"loaded\":"
           "true,\"capabilities\":{\"text\":true,\"vision\":true},\"modalities\":[\"text\",\"image\"],\"max_"
           "model_len\":"
           "4096},{\"id\":\"c\",\"object\":\"model\",\"created\":0,\"owned_by\":\"local\",\"loaded\":false,"
           "\"capabilities\":{\"text\":true,\"vision\":false},\"modalities\":[\"text\"],\"max_model_len\":"
           "null}]}");
    oc_api_write_models(&fx->b, NULL, 0);
    expect(fx, "{\"object\":\"list\",\"data\":[]}");
}

static void test_tokens(void **state) {
    struct fixture *fx = *state;
    static const int32_t ids[] = {1, 200000};
    oc_api_write_tokens(&fx->b, ids, 2, 99);
    expect(fx, "{\"count\":2,\"max_model_len\":99,\"tokens\":[1,200000]}");
    oc_api_write_tokens(&fx->b, NULL, 0, 0);
    expect(fx, "{\"count\":0,\"max_model_len\":null,\"tokens\":[]}");
    oc_api_write_detokenized(&fx->b, OC_STR("a\"\xFF"));
    expect(fx, "{\"prompt\":\"a\\\"\xEF\xBF\xBD\"}");
}

static void test_ids(void **state) {
    (void)state;
    static const uint8_t random[12] = {0x00, 0x01, 0x7f, 0x80, 0xff, 1, 2, 3, 4, 5, 6, 0xab};
    char id[40];
    oc_api_make_id(true, random, id);
    assert_string_equal(id, "chatcmpl-00017f80ff010203040506ab");
    oc_api_make_id(false, random, id);
    assert_string_equal(id, "cmpl-00017f80ff010203040506ab");
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        CASE(test_chat_chunks),
        CASE(test_completion_chunks),
        CASE(test_usage_in_streams),
        CASE(test_answers),
        CASE(test_empty_figures),
        CASE(test_chat_logprobs),
        CASE(test_completion_logprobs),
        CASE(test_models),
        CASE(test_tokens),
        CASE(test_ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
