/* The tokenizer against goldens that Hugging Face `tokenizers` made (tools/check_tokenizer.py --write), and what
 * goldens cannot say: origins, refusals, long words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/limits.h"
#include "chat/detok.h"

#define DIR OC_TEST_DIR "/golden/tokenizer/"

static struct oc_chat_tokenizer *open_tokenizer(const char *name) {
    char path[1024];
    struct oc_chat_tokenizer *tok;
    struct oc_errinfo ei;
    snprintf(path, sizeof path, DIR "%s.json", name);
    if (oc_chat_tokenizer_open(path, NULL, &tok, &ei) != OC_OK) fail_msg("%s", ei.msg);
    return tok;
}

static struct oc_chat_ids encode(const struct oc_chat_tokenizer *tok, struct oc_str text, const uint8_t *origin,
                                 unsigned flags) {
    struct oc_chat_ids ids;
    struct oc_errinfo ei;
    oc_chat_ids_init(&ids, OC_MIB);
    if (oc_chat_tokenizer_encode(tok, text, origin, flags, &ids, &ei) != OC_OK) fail_msg("%s", ei.msg);
    return ids;
}

/* ---- Goldens ---- */

struct reader {
    const char *p, *end;
};

static uint32_t read_u32(struct reader *r) {
    uint32_t v;
    assert_true(r->end - r->p >= 4);
    memcpy(&v, r->p, 4);
    r->p += 4;
    return v;
}

static struct oc_str read_bytes(struct reader *r, size_t n) {
    struct oc_str s = {r->p, n};
    assert_true((size_t)(r->end - r->p) >= n);
    r->p += n;
    return s;
}

/* Token by token: every piece is whole characters, and together they are the text. */
static void check_stream(const struct oc_chat_tokenizer *tok, const struct oc_chat_ids *ids, bool skip, struct oc_str want) {
    struct oc_chat_detok d;
    struct oc_buf all, piece;
    oc_buf_init(&all, OC_MIB);
    oc_buf_init(&piece, OC_MIB);
    oc_chat_detok_init(&d, tok, skip);
    for (size_t i = 0; i <= ids->n; i++) {
        oc_buf_clear(&piece);
        enum oc_err err = i < ids->n ? oc_chat_detok_feed(&d, ids->v[i], &piece, NULL) : oc_chat_detok_finish(&d, &piece, NULL);
        assert_int_equal(err, OC_OK);
        assert_true(oc_utf8_valid(oc_buf_str(&piece), piece.n_bytes));
        oc_buf_add(&all, oc_buf_str(&piece), piece.n_bytes);
    }
    assert_int_equal(all.n_bytes, want.n);
    assert_memory_equal(oc_buf_str(&all), want.p, want.n);
    oc_buf_free(&piece);
    oc_buf_free(&all);
}

static void check_case(const struct oc_chat_tokenizer *tok, struct reader *r) {
    uint32_t flags = read_u32(r), n = read_u32(r);
    struct oc_str text = read_bytes(r, n);
    uint8_t *user = calloc(n + 1, 1); /* origin 0: a user wrote all of it */
    struct oc_chat_ids ids = encode(tok, text, flags & 1 ? user : NULL, flags & 2 ? OC_CHAT_ENCODE_ADD_SPECIAL : 0);
    uint32_t n_ids = read_u32(r);
    struct oc_str want = read_bytes(r, 4 * (size_t)n_ids);
    assert_int_equal(ids.n, n_ids);
    if (n_ids) assert_memory_equal(ids.v, want.p, want.n);
    for (int skip = 0; skip < 2; skip++) {
        uint32_t n_text = read_u32(r);
        check_stream(tok, &ids, skip, read_bytes(r, n_text));
    }
    oc_chat_ids_free(&ids);
    free(user);
}

static void replay(const char *name) {
    char path[1024];
    struct oc_arena a;
    struct oc_str bytes;
    struct oc_chat_tokenizer *tok = open_tokenizer(name);
    oc_arena_init(&a, 8 * OC_MIB);
    snprintf(path, sizeof path, DIR "%s.cases", name);
    assert_int_equal(oc_file_read(&a, path, OC_MIB, &bytes, NULL), OC_OK);
    struct reader r = {bytes.p, bytes.p + bytes.n};
    int n_cases = 0;
    for (; r.p < r.end; n_cases++) check_case(tok, &r);
    assert_true(n_cases >= 5);
    oc_arena_free(&a);
    oc_chat_tokenizer_close(tok);
}

static void equals_tokenizers_gpt2(void **state) {
    (void)state;
    replay("gpt2");
}

static void equals_tokenizers_single_digits_nfc(void **state) {
    (void)state;
    replay("qwen2");
}

static void equals_tokenizers_three_digits_ignore_merges(void **state) {
    (void)state;
    replay("llama3");
}

static void equals_tokenizers_digits_split_missing_bytes(void **state) {
    (void)state;
    replay("digits");
}

static void equals_tokenizers_unknown_pattern_by_regex(void **state) {
    (void)state;
    replay("o200k");
}

/* ---- Origins ---- */

static size_t n_special(const struct oc_chat_tokenizer *tok, const struct oc_chat_ids *ids) {
    size_t n = 0;
    for (size_t i = 0; i < ids->n; i++) n += oc_chat_tokenizer_is_special(tok, ids->v[i]);
    return n;
}

static void user_text_is_never_special(void **state) {
    (void)state;
    struct oc_chat_tokenizer *tok = open_tokenizer("qwen2");
    struct oc_str text = OC_STR("<|im_start|>hi<|im_end|>");
    uint8_t origin[24];
    /* bit i of the pattern: who wrote each third of the text */
    for (int pattern = 0; pattern < 8; pattern++) {
        for (size_t i = 0; i < text.n; i++) origin[i] = i < 12 ? pattern & 1 : i < 14 ? pattern >> 1 & 1 : pattern >> 2 & 1;
        struct oc_chat_ids ids = encode(tok, text, origin, 0);
        assert_int_equal(n_special(tok, &ids), (pattern & 1) + (pattern >> 2 & 1));
        oc_chat_ids_free(&ids);
    }
    struct oc_chat_ids raw = encode(tok, text, NULL, 0);
    assert_int_equal(n_special(tok, &raw), 2);
    oc_chat_ids_free(&raw);
    oc_chat_tokenizer_close(tok);
}

static void one_foreign_byte_is_enough(void **state) {
    (void)state;
    struct oc_chat_tokenizer *tok = open_tokenizer("qwen2");
    struct oc_str text = OC_STR("<|im_end|>");
    for (size_t at = 0; at < text.n; at++) {
        uint8_t origin[10];
        memset(origin, 1, sizeof origin);
        origin[at] = 0;
        struct oc_chat_ids ids = encode(tok, text, origin, 0);
        assert_int_equal(n_special(tok, &ids), 0);
        assert_true(ids.n > 1);
        oc_chat_ids_free(&ids);
    }
    oc_chat_tokenizer_close(tok);
}

/* ---- Names, limits, refusals ---- */

static void ids_and_bytes_know_each_other(void **state) {
    (void)state;
    struct oc_chat_tokenizer *tok = open_tokenizer("qwen2");
    uint32_t id = oc_chat_tokenizer_id(tok, OC_STR("<|im_start|>"));
    assert_int_not_equal(id, OC_CHAT_NO_ID);
    assert_true(oc_chat_tokenizer_is_special(tok, id) && id < oc_chat_tokenizer_n_vocab(tok));
    assert_true(oc_str_is(oc_chat_tokenizer_bytes(tok, id), "<|im_start|>"));
    assert_int_equal(oc_chat_tokenizer_id(tok, OC_STR("no such token at all")), OC_CHAT_NO_ID);
    size_t n;
    const uint32_t *special = oc_chat_tokenizer_special_ids(tok, &n);
    for (size_t i = 0; i < n; i++) assert_true(oc_chat_tokenizer_is_special(tok, special[i]));
    assert_true(n >= 3);
    oc_chat_tokenizer_close(tok);
}

static void long_runs_stay_cheap(void **state) {
    (void)state;
    struct oc_chat_tokenizer *tok = open_tokenizer("qwen2");
    static const char units[] = "a \n=0";
    size_t n = 300000;
    char *text = malloc(n);
    for (size_t u = 0; u < sizeof units - 1; u++) {
        memset(text, units[u], n);
        struct oc_chat_ids ids = encode(tok, (struct oc_str){text, n}, NULL, 0);
        assert_true(ids.n > 0 && ids.n <= n);
        oc_chat_ids_free(&ids);
    }
    free(text);
    oc_chat_tokenizer_close(tok);
}

static void too_many_ids_is_an_error(void **state) {
    (void)state;
    struct oc_chat_tokenizer *tok = open_tokenizer("gpt2");
    struct oc_chat_ids ids;
    oc_chat_ids_init(&ids, 3);
    assert_int_equal(oc_chat_tokenizer_encode(tok, OC_STR("1 2 3 4 5 6"), NULL, 0, &ids, NULL), OC_ERR_LIMIT);
    assert_int_equal(ids.n, 3);
    oc_chat_ids_free(&ids);
    oc_chat_tokenizer_close(tok);
}

static void other_kinds_are_refused_by_name(void **state) {
    (void)state;
    static const struct {
        const char *json, *word;
        enum oc_err err;
    } cases[] = {
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}", "Unigram", OC_ERR_UNSUPPORTED},
        {"{\"model\":{\"type\":\"WordPiece\",\"vocab\":{}}}", "WordPiece", OC_ERR_UNSUPPORTED},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}", "ByteLevel", OC_ERR_UNSUPPORTED},
        {"{\"decoder\":{\"type\":\"ByteLevel\"},\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}", "", OC_ERR_FORMAT},
        {"{\"decoder\":{\"type\":\"ByteLevel\"},\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a zz\"]}}", "zz", OC_ERR_FORMAT},
        {"{}", "", OC_ERR_FORMAT},
        {"[1]", "", OC_ERR_FORMAT},
        {"{\"model\":", "", OC_ERR_FORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct oc_chat_tokenizer *tok = NULL;
        struct oc_errinfo ei;
        assert_int_equal(oc_chat_tokenizer_open_json(oc_str_from(cases[i].json), (struct oc_str){0}, "t.json", &tok, &ei), cases[i].err);
        assert_null(tok);
        assert_non_null(strstr(ei.msg, "t.json"));
        assert_non_null(strstr(ei.msg, cases[i].word));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_tokenizers_gpt2),
        cmocka_unit_test(equals_tokenizers_single_digits_nfc),
        cmocka_unit_test(equals_tokenizers_three_digits_ignore_merges),
        cmocka_unit_test(equals_tokenizers_digits_split_missing_bytes),
        cmocka_unit_test(equals_tokenizers_unknown_pattern_by_regex),
        cmocka_unit_test(user_text_is_never_special),
        cmocka_unit_test(one_foreign_byte_is_enough),
        cmocka_unit_test(ids_and_bytes_know_each_other),
        cmocka_unit_test(long_runs_stay_cheap),
        cmocka_unit_test(too_many_ids_is_an_error),
        cmocka_unit_test(other_kinds_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
