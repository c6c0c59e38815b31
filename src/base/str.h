/* base/str.h - spans of bytes and UTF-8.
 *
 * A span is borrowed memory: pointer and length, no NUL. Any thread; no state. */
#ifndef OC_BASE_STR_H
#define OC_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct oc_str {
    const char *p;
    size_t n;
};

#define OC_STR(lit) ((struct oc_str){(lit), sizeof(lit) - 1})

static inline struct oc_str oc_str_from(const char *s) {
    return (struct oc_str){s, strlen(s)};
}

static inline bool oc_str_eq(struct oc_str a, struct oc_str b) {
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static inline bool oc_str_is(struct oc_str a, const char *lit) {
    return oc_str_eq(a, oc_str_from(lit));
}

bool oc_str_starts(struct oc_str s, struct oc_str prefix);
bool oc_str_ends(struct oc_str s, struct oc_str suffix);

/* Decodes one code point at p (n bytes left, n > 0). Returns the bytes taken; an ill-formed sequence gives
 * U+FFFD and takes the maximal subpart, as Unicode 16 section 3.9 and Python's "replace" do. */
size_t oc_utf8_decode(const char *p, size_t n, uint32_t *code_point);

/* Writes code point cp (a surrogate or one past U+10FFFF becomes U+FFFD) and returns 1 to 4. */
size_t oc_utf8_encode(uint32_t cp, char out[4]);

/* True if all n bytes are well-formed UTF-8. */
bool oc_utf8_valid(const char *p, size_t n);

/* How many of the last bytes of p[0..n) start a sequence that more bytes could complete (0 to 3). */
size_t oc_utf8_incomplete_tail(const char *p, size_t n);

#endif
