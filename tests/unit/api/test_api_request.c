/* Bodies of requests: what each field gives, and what is said of a wrong one (the field in `param`). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "api/request.h"

struct fixture {
    struct oc_arena a;
    struct oc_api_request r;
    struct oc_api_error e;
    char body[4096];
};

static int setup(void **state) {
    struct fixture *fx = calloc(1, sizeof *fx);
    oc_arena_init(&fx->a, 16 * OC_MIB);
    *state = fx;
    return 0;
}

static int teardown(void **state) {
    struct fixture *fx = *state;
    oc_arena_free(&fx->a);
    free(fx);
    return 0;
}

/* Parses a copy of exactly n bytes that is gone afterwards: what the result refers to is in the arena. */
static bool parse_n(struct fixture *fx, const char *text, size_t n, bool is_chat) {
    char *copy = malloc(n ? n : 1);
    memcpy(copy, text, n);
    bool ok = oc_api_request_parse(&fx->a, (struct oc_str){copy, n}, is_chat, 5, &fx->r, &fx->e);
    free(copy);
    return ok;
}

static bool parse(struct fixture *fx, const char *text, bool is_chat) {
    return parse_n(fx, text, strlen(text), is_chat);
}

#define MESSAGES "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"

/* A chat request with these further fields ("" or "\"n\":1"). */
static const struct oc_api_request *chat(struct fixture *fx, const char *fields) {
    snprintf(fx->body, sizeof fx->body, "{" MESSAGES "%s%s}", *fields ? "," : "", fields);
    if (!parse(fx, fx->body, true)) fail_msg("%s: %s: %s", fields, fx->e.param, fx->e.message);
    return &fx->r;
}

static const struct oc_api_request *completion(struct fixture *fx, const char *fields) {
    snprintf(fx->body, sizeof fx->body, "{\"prompt\":\"p\"%s%s}", *fields ? "," : "", fields);
    if (!parse(fx, fx->body, false)) fail_msg("%s: %s: %s", fields, fx->e.param, fx->e.message);
    return &fx->r;
}

/* The whole body is refused with this problem and param, and words in the message. */
static void refuse_body(struct fixture *fx, const char *body, bool is_chat, enum oc_api_problem problem,
                        const char *param, const char *words) {
    if (parse(fx, body, is_chat)) fail_msg("%s was accepted", body);
    if (fx->e.problem != problem || strcmp(fx->e.param, param) || !strstr(fx->e.message, words))
        fail_msg("%s: %d '%s' %s", body, (int)fx->e.problem, fx->e.param, fx->e.message);
}

static void refuse(struct fixture *fx, const char *fields, bool is_chat, enum oc_api_problem problem,
                   const char *param, const char *words) {
    snprintf(fx->body, sizeof fx->body, "{%s,%s}", is_chat ? MESSAGES : "\"prompt\":\"p\"", fields);
    refuse_body(fx, fx->body, is_chat, problem, param, words);
}

static void refuse_both(struct fixture *fx, const char *fields, const char *param, const char *words) {
    refuse(fx, fields, true, OC_API_BAD_REQUEST, param, words);
    refuse(fx, fields, false, OC_API_BAD_REQUEST, param, words);
}

/* ---- Fields -------------------------------------------------------------------------------------------- */

static void expect_defaults(const struct oc_api_request *r) {
    assert_false(r->temperature.given || r->top_p.given || r->top_k.given || r->min_p.given);
    assert_false(r->repetition_penalty.given || r->presence_penalty.given || r->frequency_penalty.given);
    assert_false(r->has_seed || r->stream || r->include_usage || r->logprobs || r->echo || r->ignore_eos);
    assert_true(r->add_generation_prompt);
    assert_int_equal(r->max_tokens, 0);
    assert_int_equal(r->n, 1);
    assert_int_equal(r->top_logprobs, 0);
    assert_int_equal(r->n_stop + r->n_biases + r->n_pictures + r->model.n + r->user.n, 0);
    assert_null(r->chat_template_kwargs);
}

static void test_defaults(void **state) {
    struct fixture *fx = *state;
    expect_defaults(chat(fx, ""));
    assert_true(fx->r.is_chat && fx->r.messages.type == OC_JSON_ARR);
    expect_defaults(completion(fx, ""));
    assert_true(!fx->r.is_chat && oc_str_is(fx->r.prompt, "p") && !fx->r.prompt_tokens);
    static const char nulls[] = "\"model\":null,\"temperature\":null,\"top_p\":null,\"top_k\":null,\"min_p\":"
                                "null,\"repetition_penalty\":null,"
                                "\"presence_penalty\":null,\"frequency_penalty\":null,\"seed\":null,\"stop\":"
                                "null,\"logit_bias\":null,"
                                "\"logprobs\":null,\"top_logprobs\":null,\"n\":null,\"stream\":null,\"stream_"
                                "options\":null,\"user\":null,"
                                "\"max_tokens\":null,\"max_completion_tokens\":null,\"echo\":null,\"ignore_"
                                "eos\":null,\"best_of\":null,"
                                "\"add_generation_prompt\":null,\"chat_template_kwargs\":null,\"tools\":null,"
                                "\"response_format\":null";
    expect_defaults(chat(fx, nulls));
    expect_defaults(completion(fx, nulls));
    expect_defaults(
        chat(fx, "\"nobody_knows\":{\"a\":[1]},\"store\":true,\"metadata\":{\"k\":\"v\"},\"service_tier\":"
                 "\"auto\",\"parallel_tool_calls\":true,\"prompt\":5"));
}

static void test_numbers(void **state) {
    struct fixture *fx = *state;
    static const char fields[] =
        "\"model\":\"org/"
        "m\",\"temperature\":0.5,\"top_p\":1,\"top_k\":40,\"min_p\":0.25,\"repetition_penalty\":1.5,"
        "\"presence_penalty\":-2,\"frequency_penalty\":2,\"seed\":7,\"n\":8,\"max_tokens\":5.0,\"user\":"
        "\"u\"";
    for (int is_chat = 0; is_chat < 2; is_chat++) {
        const struct oc_api_request *r = is_chat ? chat(fx, fields) : completion(fx, fields);
        assert_true(oc_str_is(r->model, "org/m") && oc_str_is(r->user, "u"));
        assert_true(r->temperature.given && r->temperature.value == 0.5);
        assert_true(r->top_p.given && r->top_p.value == 1);
        assert_true(r->top_k.given && r->top_k.value == 40);
        assert_true(r->min_p.given && r->min_p.value == 0.25);
        assert_true(r->repetition_penalty.given && r->repetition_penalty.value == 1.5);
        assert_true(r->presence_penalty.given && r->presence_penalty.value == -2);
        assert_true(r->frequency_penalty.given && r->frequency_penalty.value == 2);
        assert_true(r->has_seed && r->seed == 7 && r->n == 8 && r->max_tokens == 5);
    }
    assert_true(chat(fx, "\"temperature\":0")->temperature.given);
    assert_true(chat(fx, "\"top_p\":0")->top_p.value > 0 && fx->r.top_p.value < 1e-6);
    assert_true(chat(fx, "\"top_k\":-1")->top_k.given && fx->r.top_k.value == 0);
    assert_true(chat(fx, "\"top_k\":0")->top_k.given && fx->r.top_k.value == 0);
    assert_int_equal(chat(fx, "\"max_completion_tokens\":9,\"max_tokens\":4")->max_tokens, 9);
    assert_int_equal(chat(fx, "\"max_tokens\":4,\"max_completion_tokens\":null")->max_tokens, 4);
}

static void test_wrong_numbers(void **state) {
    struct fixture *fx = *state;
    static const struct {
        const char *fields, *param, *words;
    } cases[] = {
        {"\"temperature\":2.1", "temperature", "from 0 to 2"},
        {"\"temperature\":-0.1", "temperature", "from 0 to 2"},
        {"\"temperature\":\"0.7\"", "temperature", "must be a number, not a string"},
        {"\"temperature\":true", "temperature", "not a boolean"},
        {"\"temperature\":[]", "temperature", "not an array"},
        {"\"temperature\":1e999", "temperature", "inf"},
        {"\"top_p\":1.01", "top_p", "from 0 to 1"},
        {"\"min_p\":-1", "min_p", "from 0 to 1"},
        {"\"repetition_penalty\":0", "repetition_penalty", "from 0.1 to 5"},
        {"\"presence_penalty\":3", "presence_penalty", "from -2 to 2"},
        {"\"frequency_penalty\":{}", "frequency_penalty", "not an object"},
        {"\"top_k\":-2", "top_k", "from -1"},
        {"\"top_k\":1.5", "top_k", "a whole number"},
        {"\"max_tokens\":0", "max_tokens", "from 1"},
        {"\"max_tokens\":-1", "max_tokens", "from 1"},
        {"\"max_tokens\":\"5\"", "max_tokens", "not a string"},
        {"\"max_tokens\":99999999999999999999", "max_tokens", "from 1"},
        {"\"max_tokens\":1e300", "max_tokens", "from 1"},
        {"\"max_tokens\":0,\"max_completion_tokens\":5", "max_tokens", "from 1"},
        {"\"max_completion_tokens\":0", "max_completion_tokens", "from 1"},
        {"\"n\":0", "n", "from 1 to 8"},
        {"\"n\":9", "n", "from 1 to 8"},
        {"\"seed\":1.5", "seed", "a whole number"},
        {"\"seed\":\"x\"", "seed", "an integer"},
        {"\"stream\":1", "stream", "true or false"},
        {"\"stream\":\"true\"", "stream", "true or false"},
        {"\"stream_options\":true", "stream_options", "an object"},
        {"\"stream_options\":{\"include_usage\":1}", "stream_options.include_usage", "true or false"},
        {"\"model\":5", "model", "a string"},
        {"\"user\":{}", "user", "a string"},
        {"\"ignore_eos\":\"no\"", "ignore_eos", "true or false"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refuse_both(fx, cases[i].fields, cases[i].param, cases[i].words);
}

static void test_seed(void **state) {
    struct fixture *fx = *state;
    static const struct {
        const char *fields;
        uint64_t want;
    } cases[] = {
        {"\"seed\":0", 0},
        {"\"seed\":-1", UINT64_MAX},
        {"\"seed\":-9223372036854775808", (uint64_t)1 << 63},
        {"\"seed\":18446744073709551615", UINT64_MAX},
        {"\"seed\":18446744073709551617", 1},
        {"\"seed\":5.0", 5},
        {"\"seed\":-5.0", (uint64_t)-5},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_true(chat(fx, cases[i].fields)->has_seed);
        if (fx->r.seed != cases[i].want)
            fail_msg("%s: %llu", cases[i].fields, (unsigned long long)fx->r.seed);
    }
}

static void test_stop(void **state) {
    struct fixture *fx = *state;
    assert_int_equal(chat(fx, "\"stop\":\"a\\nb\"")->n_stop, 1);
    assert_true(oc_str_is(fx->r.stop[0], "a\nb"));
    assert_int_equal(chat(fx, "\"stop\":[]")->n_stop, 0);
    assert_int_equal(completion(fx, "\"stop\":[\"1\",\"2\",\"3\",\"4\"]")->n_stop, 4);
    assert_true(oc_str_is(fx->r.stop[3], "4"));
    refuse_both(fx, "\"stop\":[\"1\",\"2\",\"3\",\"4\",\"5\"]", "stop", "at most 4");
    refuse_both(fx, "\"stop\":\"\"", "stop", "empty");
    refuse_both(fx, "\"stop\":[\"a\",\"\"]", "stop[1]", "empty");
    refuse_both(fx, "\"stop\":[null]", "stop[0]", "a string, not null");
    refuse_both(fx, "\"stop\":5", "stop", "a string or an array");
    char fields[OC_LIMIT_STOP_BYTES + 20];
    int n = snprintf(fields, sizeof fields, "\"stop\":\"");
    memset(fields + n, 's', OC_LIMIT_STOP_BYTES + 1);
    memcpy(fields + n + OC_LIMIT_STOP_BYTES + 1, "\"", 2);
    refuse_both(fx, fields, "stop", "1025 bytes");
    memcpy(fields + n + OC_LIMIT_STOP_BYTES, "\"", 2);
    assert_int_equal(chat(fx, fields)->stop[0].n, OC_LIMIT_STOP_BYTES);
}

static void test_logit_bias(void **state) {
    struct fixture *fx = *state;
    assert_int_equal(chat(fx, "\"logit_bias\":{}")->n_biases, 0);
    assert_int_equal(chat(fx, "\"logit_bias\":{\"0\":-100,\"50256\":2.5,\"7\":null}")->n_biases, 3);
    assert_true(fx->r.biases[0].token == 0 && fx->r.biases[0].bias == -100);
    assert_true(fx->r.biases[1].token == 50256 && fx->r.biases[1].bias == 2.5);
    assert_true(fx->r.biases[2].token == 7 && fx->r.biases[2].bias == 0);
    refuse_both(fx, "\"logit_bias\":{\"5\":101}", "logit_bias.5", "from -100 to 100");
    refuse_both(fx, "\"logit_bias\":{\"5\":\"1\"}", "logit_bias.5", "a number, not a string");
    static const char *const keys[] = {"", "-1", "+1", " 1", "01", "1.0", "cat", "2000000", "99999999999"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        char fields[80];
        snprintf(fields, sizeof fields, "\"logit_bias\":{\"%s\":1}", keys[i]);
        refuse_both(fx, fields, "logit_bias", "no token id");
    }
    refuse_both(fx, "\"logit_bias\":[]", "logit_bias", "an object");
    struct oc_buf b;
    oc_buf_init(&b, OC_MIB);
    oc_buf_add_str(&b, "{" MESSAGES ",\"logit_bias\":{\"0\":1");
    for (int i = 1; i <= OC_LIMIT_API_BIASES; i++) oc_buf_printf(&b, ",\"%d\":1", i);
    oc_buf_add_str(&b, "}}");
    refuse_body(fx, b.data, true, OC_API_BAD_REQUEST, "logit_bias", "at most 1024");
    oc_buf_free(&b);
}

static void test_logprobs(void **state) {
    struct fixture *fx = *state;
    assert_true(chat(fx, "\"logprobs\":true")->logprobs && fx->r.top_logprobs == 0);
    assert_true(chat(fx, "\"logprobs\":true,\"top_logprobs\":20")->logprobs && fx->r.top_logprobs == 20);
    assert_false(chat(fx, "\"logprobs\":false,\"top_logprobs\":0")->logprobs);
    refuse(fx, "\"top_logprobs\":3", true, OC_API_BAD_REQUEST, "top_logprobs", "needs 'logprobs'");
    refuse(fx, "\"logprobs\":true,\"top_logprobs\":21", true, OC_API_BAD_REQUEST, "top_logprobs",
           "from 0 to 20");
    refuse(fx, "\"logprobs\":5", true, OC_API_BAD_REQUEST, "logprobs", "true or false");
    assert_true(completion(fx, "\"logprobs\":0")->logprobs && fx->r.top_logprobs == 0);
    assert_true(completion(fx, "\"logprobs\":5")->logprobs && fx->r.top_logprobs == 5);
    assert_false(completion(fx, "\"logprobs\":false")->logprobs);
    refuse(fx, "\"logprobs\":true", false, OC_API_BAD_REQUEST, "logprobs", "an integer");
    refuse(fx, "\"logprobs\":-1", false, OC_API_BAD_REQUEST, "logprobs", "from 0 to 20");
    refuse(fx, "\"logprobs\":1,\"echo\":true", false, OC_API_UNSUPPORTED, "echo", "logprobs");
}

static void test_flags_and_objects(void **state) {
    struct fixture *fx = *state;
    assert_true(chat(fx, "\"stream\":true,\"stream_options\":{\"include_usage\":true}")->stream);
    assert_true(fx->r.include_usage);
    assert_false(
        chat(fx, "\"stream\":true,\"stream_options\":{\"include_usage\":null,\"other\":1}")->include_usage);
    assert_true(chat(fx, "\"ignore_eos\":true")->ignore_eos);
    assert_false(chat(fx, "\"add_generation_prompt\":false")->add_generation_prompt);
    assert_true(completion(fx, "\"echo\":true")->echo);
    const struct oc_json *kwargs =
        chat(fx, "\"chat_template_kwargs\":{\"enable_thinking\":false}")->chat_template_kwargs;
    assert_non_null(oc_json_get(kwargs, "enable_thinking"));
    refuse(fx, "\"chat_template_kwargs\":[]", true, OC_API_BAD_REQUEST, "chat_template_kwargs", "an object");
    refuse(fx, "\"chat_template_kwargs\":{\"messages\":[]}", true, OC_API_UNSUPPORTED, "chat_template_kwargs",
           "'messages'");
}

/* ---- Features that are not there ----------------------------------------------------------------------- */

static void test_features_off(void **state) {
    struct fixture *fx = *state;
    chat(fx, "\"tools\":[],\"functions\":[],\"tool_choice\":\"auto\",\"function_call\":\"none\","
             "\"modalities\":[\"text\"],"
             "\"response_format\":{\"type\":\"text\"},\"audio\":null,\"prediction\":null,\"reasoning_"
             "effort\":\"none\","
             "\"documents\":[],\"min_tokens\":0,\"typical_p\":1.0,\"mirostat\":0,\"use_beam_search\":false,"
             "\"skip_special_tokens\":true,\"stop_token_ids\":[],\"continue_final_message\":false");
    chat(fx, "\"tool_choice\":\"none\",\"response_format\":{}");
    completion(fx, "\"suffix\":\"\",\"best_of\":2,\"n\":2");
    completion(fx, "\"best_of\":1");
}

static void test_features_on(void **state) {
    struct fixture *fx = *state;
    static const struct {
        const char *fields, *param;
    } cases[] = {
        {"\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]", "tools"},
        {"\"functions\":[{}]", "functions"},
        {"\"tool_choice\":\"required\"", "tool_choice"},
        {"\"tool_choice\":{\"type\":\"function\"}", "tool_choice"},
        {"\"response_format\":{\"type\":\"json_object\"}", "response_format"},
        {"\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{}}", "response_format"},
        {"\"response_format\":\"text\"", "response_format"},
        {"\"response_format\":{\"type\":5}", "response_format"},
        {"\"modalities\":[\"text\",\"audio\"]", "modalities"},
        {"\"audio\":{\"voice\":\"a\"}", "audio"},
        {"\"prediction\":{}", "prediction"},
        {"\"reasoning_effort\":\"high\"", "reasoning_effort"},
        {"\"suffix\":\"end\"", "suffix"},
        {"\"guided_json\":{}", "guided_json"},
        {"\"chat_template\":\"x\"", "chat_template"},
        {"\"skip_special_tokens\":false", "skip_special_tokens"},
        {"\"min_tokens\":3", "min_tokens"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refuse(fx, cases[i].fields, true, OC_API_UNSUPPORTED, cases[i].param,
               "not supported here: leave it out");
    refuse(fx, "\"best_of\":3,\"n\":2", false, OC_API_UNSUPPORTED, "best_of", "over 'n'");
    refuse(fx, "\"best_of\":1,\"n\":2", false, OC_API_BAD_REQUEST, "best_of", "less than 'n'");
    refuse(fx, "\"tools\":[1]", true, OC_API_UNSUPPORTED, "tools", "or send []");
}

/* ---- Bodies and prompts -------------------------------------------------------------------------------- */

static void test_bodies(void **state) {
    struct fixture *fx = *state;
    refuse_body(fx, "", true, OC_API_BAD_REQUEST, "", "not valid JSON");
    refuse_body(fx, "{\n \"messages\": x}", true, OC_API_BAD_REQUEST, "", "line 2, column 14");
    refuse_body(fx, "[]", true, OC_API_BAD_REQUEST, "", "must be a JSON object, not an array");
    refuse_body(fx, "\"x\"", false, OC_API_BAD_REQUEST, "", "not a string");
    refuse_body(fx, "{}{}", false, OC_API_BAD_REQUEST, "", "not valid JSON");
    refuse_body(fx, "{}", true, OC_API_BAD_REQUEST, "messages", "an array, not nothing");
    refuse_body(fx, "{}", false, OC_API_BAD_REQUEST, "prompt", "not nothing");
    assert_false(parse_n(fx, "{\"a\":\"\xFF\"}", 9, true));
    assert_int_equal(fx->e.problem, OC_API_BAD_REQUEST);
}

static void test_depth(void **state) {
    struct fixture *fx = *state;
    for (int depth = OC_LIMIT_API_JSON_DEPTH - 1; depth < 300; depth++) {
        int n = snprintf(fx->body, sizeof fx->body, "{\"prompt\":\"p\",\"x\":");
        memset(fx->body + n, '[', (size_t)depth);
        memset(fx->body + n + depth, ']', (size_t)depth);
        snprintf(fx->body + n + 2 * depth, 2, "}");
        bool ok = parse(fx, fx->body, false);
        assert_int_equal(ok, depth < OC_LIMIT_API_JSON_DEPTH); /* the object is a level */
        if (!ok) assert_int_equal(fx->e.problem, OC_API_BAD_REQUEST);
        if (!ok && !strstr(fx->e.message, "deeper than")) fail_msg("%s", fx->e.message);
    }
}

static void test_memory(void **state) {
    struct fixture *fx = *state;
    struct oc_buf b;
    oc_buf_init(&b, OC_MIB);
    oc_buf_add_str(&b, "{\"prompt\":\"p\",\"x\":[0");
    for (int i = 0; i < 20000; i++) oc_buf_add_str(&b, ",[]");
    oc_buf_add_str(&b, "]}");
    for (size_t max = 100; max < 4 * OC_MIB; max = max * 3 / 2) {
        oc_arena_free(&fx->a);
        oc_arena_init(&fx->a, max);
        if (parse(fx, b.data, false)) break;
        assert_int_equal(fx->e.problem, OC_API_TOO_LARGE);
    }
    assert_true(oc_str_is(fx->r.prompt, "p"));
    oc_buf_free(&b);
}

static void test_prompts(void **state) {
    struct fixture *fx = *state;
    assert_true(parse(fx, "{\"prompt\":[\"one\"]}", false) && oc_str_is(fx->r.prompt, "one"));
    for (int nested = 0; nested < 2; nested++) {
        assert_true(parse(fx, nested ? "{\"prompt\":[[1,2,3.0]]}" : "{\"prompt\":[1,2,3]}", false));
        assert_int_equal(fx->r.n_prompt_tokens, 3);
        assert_int_equal(fx->r.prompt_tokens[2], 3);
        assert_int_equal(fx->r.prompt.n, 0);
    }
    static const struct {
        const char *prompt, *param, *words;
        enum oc_api_problem problem;
    } cases[] = {
        {"\"\"", "prompt", "empty", OC_API_BAD_REQUEST},
        {"[]", "prompt", "empty", OC_API_BAD_REQUEST},
        {"[\"\"]", "prompt[0]", "empty", OC_API_BAD_REQUEST},
        {"[[]]", "prompt[0]", "empty", OC_API_BAD_REQUEST},
        {"null", "prompt", "not null", OC_API_BAD_REQUEST},
        {"5", "prompt", "a string or an array", OC_API_BAD_REQUEST},
        {"{}", "prompt", "a string or an array", OC_API_BAD_REQUEST},
        {"[\"a\",\"b\"]", "prompt", "2 prompts", OC_API_UNSUPPORTED},
        {"[[1],[2]]", "prompt", "2 prompts", OC_API_UNSUPPORTED},
        {"[1,\"a\"]", "prompt[1]", "a token id, not a string", OC_API_BAD_REQUEST},
        {"[[1,null]]", "prompt[0][1]", "a token id, not null", OC_API_BAD_REQUEST},
        {"[-1]", "prompt[0]", "from 0", OC_API_BAD_REQUEST},
        {"[1.5]", "prompt[0]", "a whole number", OC_API_BAD_REQUEST},
        {"[true]", "prompt[0]", "a token id, not a boolean", OC_API_BAD_REQUEST},
        {"[2000000]", "prompt[0]", "to 1999999", OC_API_BAD_REQUEST},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char body[80];
        snprintf(body, sizeof body, "{\"prompt\":%s}", cases[i].prompt);
        refuse_body(fx, body, false, cases[i].problem, cases[i].param, cases[i].words);
    }
}

/* ---- Tokens -------------------------------------------------------------------------------------------- */

static bool tokenize(struct fixture *fx, const char *body, struct oc_api_tokenize *t) {
    return oc_api_tokenize_parse(&fx->a, oc_str_from(body), t, &fx->e);
}

static void test_tokenize(void **state) {
    struct fixture *fx = *state;
    struct oc_api_tokenize t;
    assert_true(tokenize(fx, "{\"model\":\"m\",\"prompt\":\"\",\"add_special_tokens\":true}", &t));
    assert_true(oc_str_is(t.model, "m") && t.prompt.n == 0 && t.parse_special &&
                t.messages.type == OC_JSON_NULL);
    assert_true(tokenize(fx, "{\"prompt\":\"x\",\"messages\":null,\"parse_special\":false}", &t));
    assert_true(oc_str_is(t.prompt, "x") && !t.parse_special);
    assert_true(tokenize(fx, "{" MESSAGES ",\"add_generation_prompt\":false}", &t));
    assert_true(t.messages.n_items == 1 && !t.add_generation_prompt);
    assert_false(tokenize(fx, "{}", &t));
    assert_false(tokenize(fx, "{\"prompt\":\"x\"," MESSAGES "}", &t));
    assert_string_equal(fx->e.param, "prompt");
    assert_false(tokenize(fx, "{\"prompt\":[1]}", &t));
    assert_false(tokenize(fx, "{\"messages\":[]}", &t));
    assert_string_equal(fx->e.param, "messages");
    assert_false(tokenize(fx, "[", &t));
}

static void test_detokenize(void **state) {
    struct fixture *fx = *state;
    struct oc_api_detokenize d;
    assert_true(oc_api_detokenize_parse(&fx->a, OC_STR("{\"tokens\":[1,2.0],\"model\":\"m\"}"), &d, &fx->e));
    assert_true(d.n_tokens == 2 && d.tokens[1] == 2 && oc_str_is(d.model, "m"));
    assert_true(oc_api_detokenize_parse(&fx->a, OC_STR("{\"tokens\":[]}"), &d, &fx->e));
    assert_int_equal(d.n_tokens, 0);
    assert_false(oc_api_detokenize_parse(&fx->a, OC_STR("{\"tokens\":[\"1\"]}"), &d, &fx->e));
    assert_string_equal(fx->e.param, "tokens[0]");
    assert_false(oc_api_detokenize_parse(&fx->a, OC_STR("{\"tokens\":5}"), &d, &fx->e));
    assert_false(oc_api_detokenize_parse(&fx->a, OC_STR("{}"), &d, &fx->e));
    assert_string_equal(fx->e.param, "tokens");
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        CASE(test_defaults),      CASE(test_numbers),
        CASE(test_wrong_numbers), CASE(test_seed),
        CASE(test_stop),          CASE(test_logit_bias),
        CASE(test_logprobs),      CASE(test_flags_and_objects),
        CASE(test_features_off),  CASE(test_features_on),
        CASE(test_bodies),        CASE(test_depth),
        CASE(test_memory),        CASE(test_prompts),
        CASE(test_tokenize),      CASE(test_detokenize),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
