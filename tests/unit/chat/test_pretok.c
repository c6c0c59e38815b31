/* The hand-written scanners against the same patterns run through PCRE2: pieces must be equal on random text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/limits.h"
#include "chat/nfc.h"
#include "chat/pretok.h"
#include "chat/unicode.h"

#define CASELESS "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|"
#define REST "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"

static void open_split(const char *regex, struct oc_chat_pretok *pt) {
    char text[2048];
    struct oc_arena arena;
    struct oc_json json;
    struct oc_errinfo ei;
    snprintf(text, sizeof text, "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"%s\"},"
             "\"behavior\":\"Isolated\"},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]}", regex);
    oc_arena_init(&arena, OC_MIB);
    assert_int_equal(oc_json_parse(&arena, oc_str_from(text), "test", &json, &ei), OC_OK);
    if (oc_chat_pretok_open(&json, pt, &ei) != OC_OK) fail_msg("%s", ei.msg);
    oc_arena_free(&arena);
}

struct cuts {
    const char *base;
    size_t at[512], n;
};

static enum oc_err note(void *arg, struct oc_str piece) {
    struct cuts *c = arg;
    assert_true(piece.n > 0);
    c->at[c->n++] = (size_t)(piece.p - c->base) + piece.n;
    return OC_OK;
}

static size_t random_text(char *out, size_t n_chars, unsigned *rng) {
    static const uint32_t pool[] = {' ', ' ', ' ', '\n', '\r', '\t', 0x85, 0xA0, 0x180E, 0x2028, 0x3000, 'a', 'S', 't', 'e',
                                    'l', 'd', 'm', '\'', '\'', '.', '-', '1', '2', 0xE9, 0x17F, 0x301, 0x4E2D, 0x663,
                                    0xBD, 0x2167, 0x1F600, 0x200D, 0x20000, 0x323B0, 0xE0100, 0x10FFFF, 0x0E01, 0x94D};
    size_t n = 0;
    for (size_t i = 0; i < n_chars; i++) {
        *rng = *rng * 1664525u + 1013904223u;
        uint32_t cp = pool[(*rng >> 12) % (sizeof pool / sizeof *pool)];
        if (*rng >> 28 == 0) cp = (*rng >> 7) % 0x110000;
        n += oc_utf8_encode(cp, out + n);
    }
    return n;
}

static void same_as_pcre2(const char *regex, enum oc_chat_scan scan) {
    struct oc_chat_pretok own, pcre;
    struct oc_chat_pretok_scratch scratch = {0};
    char wrapped[1024], text[256];
    unsigned rng = 11;
    snprintf(wrapped, sizeof wrapped, "(?:%s)", regex); /* unknown to the table of patterns: goes to PCRE2 */
    open_split(regex, &own);
    open_split(wrapped, &pcre);
    assert_int_equal(own.stage[0].scan, scan);
    assert_int_equal(pcre.stage[0].scan, OC_SCAN_REGEX);
    for (int trial = 0; trial < 20000; trial++) {
        struct cuts a = {.base = text}, b = {.base = text};
        size_t n = random_text(text, 1 + (size_t)trial % 40, &rng);
        assert_int_equal(oc_chat_pretok_run(&own, &scratch, (struct oc_str){text, n}, note, &a, NULL), OC_OK);
        assert_int_equal(oc_chat_pretok_run(&pcre, &scratch, (struct oc_str){text, n}, note, &b, NULL), OC_OK);
        assert_int_equal(a.n, b.n);
        assert_memory_equal(a.at, b.at, a.n * sizeof *a.at);
        assert_int_equal(a.at[a.n - 1], n);
    }
    oc_chat_pretok_scratch_free(&scratch);
    oc_chat_pretok_close(&own);
    oc_chat_pretok_close(&pcre);
}

static void gpt2(void **s) {
    (void)s;
    same_as_pcre2("'s|'t|'re|'ve|'m|'ll|'d| ?\\\\p{L}+| ?\\\\p{N}+| ?[^\\\\s\\\\p{L}\\\\p{N}]+|\\\\s+(?!\\\\S)|\\\\s+", OC_SCAN_GPT2);
}

static void qwen2(void **s) {
    (void)s;
    same_as_pcre2(CASELESS "\\\\p{N}" REST, OC_SCAN_ONE_DIGIT);
}

static void llama3(void **s) {
    (void)s;
    same_as_pcre2(CASELESS "\\\\p{N}{1,3}" REST, OC_SCAN_THREE_DIGITS);
}

/* Facts of Unicode that the tables must hold. */
static void tables(void **s) {
    (void)s;
    assert_true(oc_chat_unicode_prop(0x323AF) & OC_PROP_LETTER);  /* CJK extension H, Unicode 15 */
    assert_false(oc_chat_unicode_prop(0x323B0) & OC_PROP_LETTER); /* unassigned in 16 */
    assert_false(oc_chat_unicode_prop(0x180E) & OC_PROP_SPACE);
    assert_true(oc_chat_unicode_prop(0x85) & OC_PROP_SPACE);
    assert_true(oc_chat_unicode_prop(0xBD) & OC_PROP_NUMBER);
    assert_int_equal(oc_chat_unicode_prop(0x301) & OC_PROP_CATEGORY, OC_CAT_MN);
    int n_space = 0;
    for (uint32_t c = 0; c < 0x110000; c++) n_space += (oc_chat_unicode_prop(c) & OC_PROP_SPACE) != 0;
    assert_int_equal(n_space, 25);
}

static void nfc_cases(void **s) {
    (void)s;
    static const char *const cases[][2] = {
        {"e\xCC\x81", "\xC3\xA9"},
        {"e\xCC\x81\xCC\xA3", "\xE1\xBA\xB9\xCC\x81"},                            /* marks reorder, the lower composes */
        {"\xE1\x84\x80\xE1\x85\xA1\xE1\x86\xA8", "\xEA\xB0\x81"},                 /* Hangul L V T */
        {"\xEA\xB0\x80\xE1\x86\xA7", "\xEA\xB0\x80\xE1\x86\xA7"},                 /* U+11A7 is no trailing consonant */
        {"\xE2\x84\xAB", "\xC3\x85"},                                             /* Angstrom sign, a singleton */
        {"\xE0\xA5\x98", "\xE0\xA4\x95\xE0\xA4\xBC"},                             /* excluded from composition */
        {"\xCC\x81", "\xCC\x81"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct oc_buf out;
        oc_buf_init(&out, 64);
        assert_true(oc_chat_nfc(oc_str_from(cases[i][0]), NULL, &out, NULL));
        assert_string_equal(oc_buf_str(&out), cases[i][1]);
        oc_buf_free(&out);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gpt2),   cmocka_unit_test(qwen2),     cmocka_unit_test(llama3),
        cmocka_unit_test(tables), cmocka_unit_test(nfc_cases),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
