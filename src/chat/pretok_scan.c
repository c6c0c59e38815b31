#include "chat/pretok_scan.h"

#include <stdbool.h>

#include "chat/unicode.h"

#define WORDLIKE (OC_PROP_SPACE | OC_PROP_LETTER | OC_PROP_NUMBER)

static inline uint8_t prop_at(const char *p, unsigned *len) {
    uint32_t cp;
    *len = oc_chat_unicode_next(p, &cp);
    return oc_chat_unicode_prop(cp);
}

static inline bool is_newline(char c) {
    return c == '\r' || c == '\n';
}

/* Past the run of characters whose property byte, masked, equals want. */
static inline const char *skip_run(const char *p, const char *end, uint8_t mask, uint8_t want) {
    while (p < end) {
        unsigned len;
        if ((prop_at(p, &len) & mask) != want) break;
        p += len;
    }
    return p;
}

static inline const char *skip_letters(const char *p, const char *end) {
    for (;;) {
        while (p < end && ((unsigned char)((*p | 0x20) - 'a') < 26)) p++;
        unsigned len;
        if (p == end || !(prop_at(p, &len) & OC_PROP_LETTER)) return p;
        p += len;
    }
}

/* \s+(?!\S)|\s+ at a white space: the run, but for its last character where something other follows. */
static size_t scan_space(const char *p, const char *end) {
    const char *q = p, *last = p;
    while (q < end) {
        unsigned len;
        if (!(prop_at(q, &len) & OC_PROP_SPACE)) break;
        last = q;
        q += len;
    }
    return (size_t)((q == end || last == p ? q : last) - p);
}

/* Length of 's 't 're 've 'm 'll 'd at the apostrophe p, or 0. */
static size_t contraction(const char *p, const char *end, bool caseless) {
    char fold = caseless ? 0x20 : 0;
    char a = end - p > 1 ? p[1] | fold : 0, b = end - p > 2 ? p[2] | fold : 0;
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
    if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return 3;
    bool long_s = caseless && end - p > 2 && p[1] == '\xC5' && p[2] == '\xBF'; /* U+017F folds to s */
    return long_s ? 3 : 0;
}

size_t oc_chat_scan_gpt2(const char *p, const char *end) {
    if (*p == '\'') {
        size_t n = contraction(p, end, false);
        if (n) return n;
    }
    const char *q = p;
    if (*q == ' ' && q + 1 < end) q++;
    unsigned len;
    uint8_t prop = prop_at(q, &len) & WORDLIKE;
    if (prop & OC_PROP_SPACE) return scan_space(p, end);
    if (prop & OC_PROP_LETTER) return (size_t)(skip_letters(q + len, end) - p);
    return (size_t)(skip_run(q + len, end, WORDLIKE, prop) - p);
}

size_t oc_chat_scan_digits(const char *p, const char *end, int max_digits) {
    const char *q = p;
    for (int i = 0; q < end && (max_digits == 0 || i < max_digits); i++) {
        unsigned len;
        if (!(prop_at(q, &len) & OC_PROP_NUMBER)) break;
        q += len;
    }
    return (size_t)(q - p);
}

/* \s*[\r\n]+|\s+(?!\S)|\s+ at a white space: up to the last newline of the run if it has one. */
static size_t scan_space_newlines(const char *p, const char *end) {
    const char *q = p, *last = p, *past_newline = NULL;
    while (q < end) {
        unsigned len;
        if (!(prop_at(q, &len) & OC_PROP_SPACE)) break;
        last = q;
        q += len;
        if (is_newline(*last)) past_newline = q;
    }
    if (past_newline) return (size_t)(past_newline - p);
    return (size_t)((q == end || last == p ? q : last) - p);
}

size_t oc_chat_scan_caseless(const char *p, const char *end, int max_digits) {
    if (*p == '\'') {
        size_t n = contraction(p, end, true);
        if (n) return n;
    }
    unsigned len, next_len;
    uint8_t prop = prop_at(p, &len) & WORDLIKE;
    if (prop & OC_PROP_LETTER) return (size_t)(skip_letters(p + len, end) - p);
    if (prop & OC_PROP_NUMBER) return oc_chat_scan_digits(p, end, max_digits);
    const char *q = p + len;
    uint8_t next = q < end ? prop_at(q, &next_len) & WORDLIKE : OC_PROP_SPACE;
    if (!is_newline(*p) && (next & OC_PROP_LETTER)) return (size_t)(skip_letters(q, end) - p);
    if (prop & OC_PROP_SPACE) {
        if (*p != ' ' || next != 0) return scan_space_newlines(p, end);
    }
    q = skip_run(q, end, WORDLIKE, 0);
    while (q < end && is_newline(*q)) q++;
    return (size_t)(q - p);
}
