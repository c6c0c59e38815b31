/* Added tokens where no oracle exists: origins through normalisation and stripping, merges that would make a
 * special token, tokens that only tokenizer_config.json has. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/limits.h"
#include "chat/tokenizer.h"

#define TINY                                                                                                  \
    "{\"model\":{\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]},"                                 \
    "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},\"decoder\":{\"type\":\"ByteLevel\"}}"

static struct oc_chat_tokenizer *open_golden(const char *path) {
    struct oc_chat_tokenizer *tok = NULL;
    struct oc_errinfo ei = {0};
    if (oc_chat_tokenizer_open(path, NULL, &tok, &ei) != OC_OK) fail_msg("%s", ei.msg);
    return tok;
}

static struct oc_chat_tokenizer *open_tiny(const char *config) {
    struct oc_chat_tokenizer *tok = NULL;
    struct oc_errinfo ei = {0};
    if (oc_chat_tokenizer_open_json(OC_STR(TINY), oc_str_from(config), "tiny", &tok, &ei) != OC_OK)
        fail_msg("%s", ei.msg);
    return tok;
}

static struct oc_chat_ids encode(const struct oc_chat_tokenizer *tok, const char *text, const uint8_t *origin) {
    struct oc_chat_ids ids;
    oc_chat_ids_init(&ids, 1 << 20);
    assert_int_equal(oc_chat_tokenizer_encode(tok, oc_str_from(text), origin, 0, &ids, NULL), OC_OK);
    return ids;
}

static size_t count(struct oc_chat_ids ids, uint32_t id) {
    size_t n = 0;
    for (size_t i = 0; i < ids.n; i++) n += ids.v[i] == id;
    oc_chat_ids_free(&ids);
    return n;
}

/* "<", "e", U+0301, ">" becomes the special token under NFC, but not where any byte of it is a user's. */
static void origin_survives_normalisation(void **state) {
    (void)state;
    struct oc_chat_tokenizer *tok = open_golden(OC_TEST_DIR "/golden/tokenizer/qwen2.json");
    uint32_t id = oc_chat_tokenizer_id(tok, OC_STR("<\xC3\xA9>"));
    assert_int_not_equal(id, OC_CHAT_NO_ID);
    uint8_t origin[6];
    for (int user_at = -1; user_at < 6; user_at++) {
        memset(origin, 1, sizeof origin);
        if (user_at >= 0) origin[user_at] = 0;
        assert_int_equal(count(encode(tok, "x<e\xCC\x81>", origin), id), user_at < 1 ? 1 : 0);
    }
    assert_int_equal(count(encode(tok, "x<e\xCC\x81>", NULL), id), 1);
    oc_chat_tokenizer_close(tok);
}

/* Replacing ill-formed bytes changes lengths: the origins after them must still stand where they did. */
static void origin_survives_ill_formed_bytes(void **state) {
    (void)state;
    struct oc_chat_tokenizer *tok = open_golden(OC_TEST_DIR "/golden/tokenizer/gpt2.json");
    uint32_t id = oc_chat_tokenizer_id(tok, OC_STR("<mask>"));
    uint8_t origin[] = {0, 0, 0, 1, 1, 1, 1, 1, 1, 0};
    assert_int_equal(count(encode(tok, "\xFF\xFE\x80<mask>a", origin), id), 1);
    origin[8] = 0;
    assert_int_equal(count(encode(tok, "\xFF\xFE\x80<mask>a", origin), id), 0);
    oc_chat_tokenizer_close(tok);
}

/* <mask> takes white space on its left, but not a user's. */
static void lstrip_leaves_user_space(void **state) {
    (void)state;
    struct oc_chat_tokenizer *tok = open_golden(OC_TEST_DIR "/golden/tokenizer/gpt2.json");
    uint32_t space = oc_chat_tokenizer_id(tok, OC_STR("\xC4\xA0"));
    uint8_t origin[] = {1, 0, 1, 1, 1, 1, 1, 1};
    assert_int_equal(count(encode(tok, "a <mask>", NULL), space), 0);
    assert_int_equal(count(encode(tok, "a <mask>", origin), space), 1);
    oc_chat_tokenizer_close(tok);
}

static void merges_never_make_a_special_token(void **state) {
    (void)state;
    struct oc_chat_tokenizer *tok = open_tiny("{\"added_tokens_decoder\":{\"2\":{\"content\":\"ab\",\"special\":true}}}");
    uint8_t user[4] = {0};
    assert_int_equal(count(encode(tok, "abab", user), 2), 0);
    assert_int_equal(count(encode(tok, "abab", NULL), 2), 2);
    oc_chat_tokenizer_close(tok);
}

static void config_adds_tokens(void **state) {
    (void)state;
    static const uint32_t want[] = {2, 7, 1, 0};
    struct oc_chat_tokenizer *tok = open_tiny("{\"added_tokens_decoder\":{\"7\":{\"content\":\"<x>\",\"special\":true}}}");
    struct oc_chat_ids ids = encode(tok, "ab<x>ba", NULL);
    assert_int_equal(oc_chat_tokenizer_n_vocab(tok), 8);
    assert_int_equal(ids.n, 4);
    assert_memory_equal(ids.v, want, sizeof want);
    assert_null(oc_chat_tokenizer_bytes(tok, 5).p);
    oc_chat_ids_free(&ids);
    oc_chat_tokenizer_close(tok);
}

/* Two contents with one id, an id that is no number, an id past the limit. */
static void bad_added_tokens_are_refused(void **state) {
    (void)state;
    static const char *const configs[] = {
        "{\"added_tokens_decoder\":{\"7\":{\"content\":\"<x>\"},\"07\":{\"content\":\"<y>\"}}}",
        "{\"added_tokens_decoder\":{\"x\":{\"content\":\"<x>\"}}}",
        "{\"added_tokens_decoder\":{\"99999999999999999999\":{\"content\":\"<x>\"}}}",
        "{\"added_tokens_decoder\":{\"7\":{\"content\":\"\"}}}",
        "{\"added_tokens_decoder\":{\"1\":{\"content\":\"<x>\"}}}",
    };
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
        struct oc_chat_tokenizer *tok;
        struct oc_errinfo ei = {0};
        assert_int_equal(oc_chat_tokenizer_open_json(OC_STR(TINY), oc_str_from(configs[i]), "tiny", &tok, &ei),
                         OC_ERR_FORMAT);
        assert_null(tok);
        assert_non_null(strstr(ei.msg, "tiny: tokenizer: "));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(origin_survives_normalisation),     cmocka_unit_test(origin_survives_ill_formed_bytes),
        cmocka_unit_test(lstrip_leaves_user_space),          cmocka_unit_test(merges_never_make_a_special_token),
        cmocka_unit_test(config_adds_tokens),                cmocka_unit_test(bad_added_tokens_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
