/* The files of a model directory that turn messages into tokens: what each says, and what is said of broken
 * ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/limits.h"
#include "chat/model.h"

/* Its added tokens: <|end|> 0, <|im_start|> 900, <|im_end|> 901. */
#define TOKENIZER OC_TEST_DIR "/golden/tokenizer/gpt2.json"
#define TEMPLATE                                                                                             \
    "{%- for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>' }}{% endfor %}"   \
    "{%- if extra_word is defined %}{{ extra_word }}{% endif %}"                                             \
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"

static const char *const names[] = {"tokenizer.json", "tokenizer_config.json", "generation_config.json",
                                    "config.json", "chat_template.jinja"};
#define N_NAMES (sizeof names / sizeof *names)

struct fixture {
    char dir[600];
    struct oc_chat_model m;
    struct oc_errinfo ei;
};

static void put(const struct fixture *fx, const char *name, const char *text, size_t n) {
    char path[700];
    snprintf(path, sizeof path, "%s/%s", fx->dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void put_text(const struct fixture *fx, const char *name, const char *text) {
    put(fx, name, text, strlen(text));
}

static int setup(void **state) {
    struct fixture *fx = calloc(1, sizeof *fx);
    struct oc_arena a;
    struct oc_str s;
    snprintf(fx->dir, sizeof fx->dir, "%s/chat-model-XXXXXX", OC_TEST_TMP);
    if (!mkdtemp(fx->dir)) return -1;
    oc_arena_init(&a, OC_MIB);
    assert_int_equal(oc_file_read(&a, TOKENIZER, OC_MIB, &s, NULL), OC_OK);
    put(fx, "tokenizer.json", s.p, s.n);
    oc_arena_free(&a);
    *state = fx;
    return 0;
}

static int teardown(void **state) {
    struct fixture *fx = *state;
    char path[700];
    for (size_t i = 0; i < N_NAMES; i++) {
        snprintf(path, sizeof path, "%s/%s", fx->dir, names[i]);
        unlink(path);
    }
    int err = rmdir(fx->dir);
    free(fx);
    return err;
}

static void open_model(struct fixture *fx, bool want_template) {
    if (oc_chat_model_open(&fx->m, fx->dir, want_template, want_template, &fx->ei))
        fail_msg("%s", fx->ei.msg);
}

/* Opens with this generation_config.json; the caller closes. */
static const struct oc_chat_generation *generation(struct fixture *fx, const char *json) {
    put_text(fx, "generation_config.json", json);
    open_model(fx, false);
    return &fx->m.generation;
}

static void test_absent_files_say_nothing(void **state) {
    struct fixture *fx = *state;
    open_model(fx, false);
    const struct oc_chat_generation *g = &fx->m.generation;
    assert_false(g->do_sample);
    assert_true(g->temperature == 1 && g->top_p == 1 && g->min_p == 0 && g->repetition_penalty == 1);
    assert_int_equal(g->top_k, 0);
    assert_int_equal(g->max_new_tokens, 0);
    assert_int_equal(g->n_eos, 0);
    assert_int_equal(fx->m.tokenizer_config.type, OC_JSON_NULL);
    assert_null(fx->m.template_);
    assert_int_equal(fx->m.template_error.code, OC_OK);
    assert_string_equal(fx->m.dir, fx->dir);
    oc_chat_model_close(&fx->m);
}

static void test_generation_values(void **state) {
    struct fixture *fx = *state;
    const struct oc_chat_generation *g = generation(
        fx,
        "{\"do_sample\":true,\"temperature\":0.5,\"top_p\":0.25,\"min_p\":0.125,\"repetition_penalty\":1.5,"
        "\"top_k\":7,\"max_new_tokens\":99}");
    assert_true(g->do_sample && g->temperature == 0.5 && g->top_p == 0.25 && g->min_p == 0.125);
    assert_true(g->repetition_penalty == 1.5 && g->top_k == 7 && g->max_new_tokens == 99);
    oc_chat_model_close(&fx->m);
    /* null: transformers runs without that step */
    g = generation(fx, "{\"do_sample\":true,\"temperature\":null,\"top_p\":null,\"min_p\":null,"
                       "\"repetition_penalty\":null,\"top_k\":null,\"max_new_tokens\":null}");
    assert_true(g->temperature == 1 && g->top_p == 1 && g->min_p == 0 && g->repetition_penalty == 1);
    assert_true(g->top_k == 0 && g->max_new_tokens == 0);
    oc_chat_model_close(&fx->m);
}

static void test_top_k(void **state) {
    struct fixture *fx = *state;
    static const struct {
        const char *json;
        int want;
    } cases[] = {
        {"{\"do_sample\":true}", 50},
        {"{\"do_sample\":true,\"top_k\":null}", 0},
        {"{\"do_sample\":true,\"top_k\":0}", 0},
        {"{\"do_sample\":true,\"top_k\":-1}", 0},
        {"{\"do_sample\":true,\"top_k\":1}", 1},
        {"{\"do_sample\":true,\"top_k\":20.0}", 20},
        {"{\"do_sample\":false}", 0},
        {"{\"do_sample\":null}", 0},
        {"{\"do_sample\":false,\"top_k\":20}", 20},
        {"{}", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (generation(fx, cases[i].json)->top_k != cases[i].want) fail_msg("%s", cases[i].json);
        oc_chat_model_close(&fx->m);
    }
}

static void test_bad_generation_values(void **state) {
    struct fixture *fx = *state;
    static const struct {
        const char *json, *word;
    } cases[] = {
        {"{\"temperature\":-3}", "temperature is -3"},
        {"{\"temperature\":\"hot\"}", "temperature must be a number"},
        {"{\"top_p\":0}", "top_p is 0"},
        {"{\"top_p\":1.5}", "top_p is 1.5"},
        {"{\"min_p\":-0.5}", "min_p is -0.5"},
        {"{\"repetition_penalty\":0}", "repetition_penalty is 0"},
        {"{\"repetition_penalty\":1e400}", "repetition_penalty is inf"},
        {"{\"top_k\":\"5\"}", "top_k must be a number"},
        {"{", "not valid JSON"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_text(fx, "generation_config.json", cases[i].json);
        enum oc_err err = oc_chat_model_open(&fx->m, fx->dir, false, false, &fx->ei);
        assert_int_equal(err, OC_ERR_FORMAT);
        assert_int_equal(fx->ei.code, OC_ERR_FORMAT);
        if (!strstr(fx->ei.msg, cases[i].word) || !strstr(fx->ei.msg, "generation_config.json"))
            fail_msg("%s: %s", cases[i].json, fx->ei.msg);
        oc_chat_model_close(&fx->m);
    }
}

static void test_end_tokens(void **state) {
    struct fixture *fx = *state;
    static const int32_t want[] = {5, 6, 7, 8, 901};
    put_text(fx, "config.json",
             "{\"eos_token_id\":7,\"text_config\":{\"eos_token_id\":[8,6,-1,\"x\",9000000]}}");
    put_text(fx, "tokenizer_config.json", "{\"eos_token\":{\"content\":\"<|im_end|>\",\"lstrip\":false}}");
    generation(fx, "{\"eos_token_id\":[5,6,5]}");
    assert_int_equal(fx->m.generation.n_eos, 5);
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(fx->m.generation.eos[i], want[i]);
        assert_true(oc_chat_model_is_eos(&fx->m, want[i]));
    }
    assert_false(oc_chat_model_is_eos(&fx->m, 900));
    assert_false(oc_chat_model_is_eos(&fx->m, -1));
    oc_chat_model_close(&fx->m);
    put_text(fx, "tokenizer_config.json", "{\"eos_token\":\"<|no such token|>\"}");
    generation(fx, "{\"eos_token_id\":[1,2,3,4,5,6,7,8,9,10]}");
    assert_int_equal(fx->m.generation.n_eos, OC_CHAT_MAX_EOS);
    oc_chat_model_close(&fx->m);
}

static void test_missing_tokenizer(void **state) {
    struct fixture *fx = *state;
    char path[700];
    snprintf(path, sizeof path, "%s/tokenizer.json", fx->dir);
    unlink(path);
    assert_int_equal(oc_chat_model_open(&fx->m, fx->dir, false, false, &fx->ei), OC_ERR_NOT_FOUND);
    assert_non_null(strstr(fx->ei.msg, "tokenizer.json"));
    oc_chat_model_close(&fx->m);
}

/* Ids of one user message, as text with the special ones in brackets. */
static enum oc_err encode(struct fixture *fx, const char *extra, bool prompt, struct oc_chat_ids *ids) {
    struct oc_arena a;
    struct oc_json messages, more;
    oc_arena_init(&a, OC_MIB);
    struct oc_str text = OC_STR("[{\"role\":\"user\",\"content\":\"a<|im_end|>\"}]");
    assert_int_equal(oc_json_parse(&a, text, "test", &messages, &fx->ei), OC_OK);
    if (extra) assert_int_equal(oc_json_parse(&a, oc_str_from(extra), "test", &more, &fx->ei), OC_OK);
    oc_chat_ids_init(ids, 1000);
    enum oc_err err = oc_chat_model_encode(&fx->m, &messages, extra ? &more : NULL, prompt, ids, &fx->ei);
    oc_arena_free(&a);
    return err;
}

static size_t count_id(const struct oc_chat_ids *ids, uint32_t id) {
    size_t n = 0;
    for (size_t i = 0; i < ids->n; i++) n += ids->v[i] == id;
    return n;
}

static void test_encode(void **state) {
    struct fixture *fx = *state;
    struct oc_chat_ids plain, with_prompt, with_extra;
    put_text(fx, "chat_template.jinja", TEMPLATE);
    open_model(fx, true);
    assert_int_equal(encode(fx, NULL, false, &plain), OC_OK);
    assert_int_equal(count_id(&plain, 900), 1);
    assert_int_equal(count_id(&plain, 901), 1); /* the user's is only text */
    assert_int_equal(encode(fx, NULL, true, &with_prompt), OC_OK);
    assert_int_equal(count_id(&with_prompt, 900), 2);
    assert_int_equal(encode(fx, "{\"extra_word\":\"<|im_start|>\"}", false, &with_extra), OC_OK);
    assert_int_equal(count_id(&with_extra, 900), 1);
    assert_true(with_extra.n > plain.n);
    oc_chat_ids_free(&plain);
    oc_chat_ids_free(&with_prompt);
    oc_chat_ids_free(&with_extra);
    oc_chat_model_close(&fx->m);
}

static void test_template_is_optional_on_request(void **state) {
    struct fixture *fx = *state;
    struct oc_chat_ids ids;
    for (int broken = 0; broken < 2; broken++) {
        const char *word = broken ? "chat template of" : "no chat template";
        if (broken) put_text(fx, "chat_template.jinja", "{% for m in %}");
        assert_int_not_equal(oc_chat_model_open(&fx->m, fx->dir, true, true, &fx->ei), OC_OK);
        assert_non_null(strstr(fx->ei.msg, word));
        oc_chat_model_close(&fx->m);
        assert_int_equal(oc_chat_model_open(&fx->m, fx->dir, true, false, &fx->ei), OC_OK);
        assert_null(fx->m.template_);
        assert_non_null(strstr(fx->m.template_error.msg, word));
        enum oc_err err = encode(fx, NULL, true, &ids);
        assert_int_equal(err, fx->m.template_error.code);
        assert_string_equal(fx->ei.msg, fx->m.template_error.msg);
        oc_chat_ids_free(&ids);
        oc_chat_model_close(&fx->m);
    }
    open_model(fx, false);
    assert_int_equal(encode(fx, NULL, true, &ids), OC_ERR_NOT_FOUND);
    oc_chat_ids_free(&ids);
    oc_chat_model_close(&fx->m);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        CASE(test_absent_files_say_nothing),
        CASE(test_generation_values),
        CASE(test_top_k),
        CASE(test_bad_generation_values),
        CASE(test_end_tokens),
        CASE(test_missing_tokenizer),
        CASE(test_encode),
        CASE(test_template_is_optional_on_request),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
