/* Streaming decode: whole characters only, and the pieces add up to the whole. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/limits.h"
#include "chat/detok.h"

static struct oc_chat_tokenizer *open_gpt2(void) {
    struct oc_chat_tokenizer *tok;
    assert_int_equal(oc_chat_tokenizer_open(OC_TEST_DIR "/golden/tokenizer/gpt2.json", NULL, &tok, NULL), OC_OK);
    return tok;
}

/* The id of one byte: all 256 are in the GPT-2 style vocabulary. */
static uint32_t byte_id(const struct oc_chat_tokenizer *tok, uint8_t b) {
    for (uint32_t id = 0; id < oc_chat_tokenizer_n_vocab(tok); id++) {
        struct oc_str s = oc_chat_tokenizer_bytes(tok, id);
        if (s.n == 1 && (uint8_t)s.p[0] == b) return id;
    }
    fail();
    return 0;
}

static void waits_for_whole_characters(void **state) {
    (void)state;
    static const char bytes[] = "a\xF0\x9F\x91\x8D\xC3\xA9";
    static const char *const after[] = {"a", "a", "a", "a", "a\xF0\x9F\x91\x8D", "a\xF0\x9F\x91\x8D",
                                        "a\xF0\x9F\x91\x8D\xC3\xA9"};
    struct oc_chat_tokenizer *tok = open_gpt2();
    struct oc_chat_detok d;
    struct oc_buf out;
    oc_buf_init(&out, OC_MIB);
    oc_chat_detok_init(&d, tok, true);
    for (size_t i = 0; i < sizeof bytes - 1; i++) {
        assert_int_equal(oc_chat_detok_feed(&d, byte_id(tok, (uint8_t)bytes[i]), &out, NULL), OC_OK);
        assert_string_equal(oc_buf_str(&out), after[i]);
    }
    assert_int_equal(oc_chat_detok_finish(&d, &out, NULL), OC_OK);
    assert_string_equal(oc_buf_str(&out), after[6]);
    oc_buf_free(&out);
    oc_chat_tokenizer_close(tok);
}

/* Random bytes, one a token: each moment's output is well-formed, a prefix of the end's, and at most one
 * character behind; the end equals replacing ill-formed parts in the whole. */
static void random_bytes(void **state) {
    (void)state;
    static const uint8_t alphabet[] = {'a', 0x80, 0x9F, 0xBF, 0xC3, 0xE2, 0x82, 0xED, 0xA0, 0xF0, 0x9F, 0xF4, 0x90, 0xFF, 0xC0};
    struct oc_chat_tokenizer *tok = open_gpt2();
    uint32_t id[sizeof alphabet];
    unsigned rng = 3;
    for (size_t i = 0; i < sizeof alphabet; i++) id[i] = byte_id(tok, alphabet[i]);
    for (int trial = 0; trial < 3000; trial++) {
        struct oc_buf out, want;
        struct oc_chat_detok d;
        char bytes[16];
        oc_buf_init(&out, OC_MIB);
        oc_buf_init(&want, OC_MIB);
        oc_chat_detok_init(&d, tok, false);
        for (size_t i = 0; i < sizeof bytes; i++) {
            size_t k = ((rng = rng * 1664525u + 1013904223u) >> 20) % sizeof alphabet;
            bytes[i] = (char)alphabet[k];
            assert_int_equal(oc_chat_detok_feed(&d, id[k], &out, NULL), OC_OK);
            assert_true(oc_utf8_valid(oc_buf_str(&out), out.n_bytes));
            assert_true(d.n_pending <= 3);
        }
        assert_int_equal(oc_chat_detok_finish(&d, &out, NULL), OC_OK);
        for (size_t i = 0; i < sizeof bytes;) {
            uint32_t cp;
            char enc[4];
            i += oc_utf8_decode(bytes + i, sizeof bytes - i, &cp);
            oc_buf_add(&want, enc, oc_utf8_encode(cp, enc));
        }
        assert_string_equal(oc_buf_str(&out), oc_buf_str(&want));
        oc_buf_free(&out);
        oc_buf_free(&want);
    }
    oc_chat_tokenizer_close(tok);
}

static void unknown_and_special_ids(void **state) {
    (void)state;
    struct oc_chat_tokenizer *tok = open_gpt2();
    uint32_t ids[] = {oc_chat_tokenizer_id(tok, OC_STR("<|im_end|>")), 4000000000u, byte_id(tok, 'x'), UINT32_MAX};
    struct oc_buf out;
    oc_buf_init(&out, 64);
    assert_int_equal(oc_chat_detok_all(tok, ids, 4, false, &out, NULL), OC_OK);
    assert_string_equal(oc_buf_str(&out), "<|im_end|>x");
    oc_buf_clear(&out);
    assert_int_equal(oc_chat_detok_all(tok, ids, 4, true, &out, NULL), OC_OK);
    assert_string_equal(oc_buf_str(&out), "x");
    oc_buf_free(&out);
    oc_buf_init(&out, 4);
    assert_int_equal(oc_chat_detok_all(tok, ids, 4, false, &out, NULL), OC_ERR_LIMIT);
    oc_buf_free(&out);
    oc_chat_tokenizer_close(tok);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(waits_for_whole_characters),
        cmocka_unit_test(random_bytes),
        cmocka_unit_test(unknown_and_special_ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
