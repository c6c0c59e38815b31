/* chat/unicode.h - character properties for the tokenizer.
 *
 * Categories are those of Unicode 16 and canonical composition data those of Unicode 9, which is what Hugging
 * Face `tokenizers` uses and ids must equal; the tables are written by tools/gen_unicode_tables.py. Constant
 * data, any thread. */
#ifndef OC_CHAT_UNICODE_H
#define OC_CHAT_UNICODE_H

#include <stdbool.h>
#include <stdint.h>

/* Low five bits of a property byte: the general category, in this order. */
enum oc_chat_category {
    OC_CAT_CN, OC_CAT_CC, OC_CAT_CF, OC_CAT_CO, OC_CAT_CS, OC_CAT_LL, OC_CAT_LM, OC_CAT_LO, OC_CAT_LT, OC_CAT_LU,
    OC_CAT_MC, OC_CAT_ME, OC_CAT_MN, OC_CAT_ND, OC_CAT_NL, OC_CAT_NO, OC_CAT_PC, OC_CAT_PD, OC_CAT_PE, OC_CAT_PF,
    OC_CAT_PI, OC_CAT_PO, OC_CAT_PS, OC_CAT_SC, OC_CAT_SK, OC_CAT_SM, OC_CAT_SO, OC_CAT_ZL, OC_CAT_ZP, OC_CAT_ZS,
    OC_CAT_COUNT
};

#define OC_PROP_CATEGORY 0x1f
#define OC_PROP_SPACE 0x20  /* White_Space: what \s means */
#define OC_PROP_LETTER 0x40 /* \p{L} */
#define OC_PROP_NUMBER 0x80 /* \p{N} */

struct oc_chat_decomposition {
    uint32_t from, a, b; /* from -> a b; b is 0 for a singleton */
};

struct oc_chat_composition {
    uint32_t a, b, to;
};

extern const uint8_t oc_chat_category_index[4352];
extern const uint8_t oc_chat_category_block[][256];
extern const uint8_t oc_chat_nfc_index[4352];
extern const uint8_t oc_chat_nfc_block[][256];
extern const uint32_t oc_chat_n_decompositions, oc_chat_n_compositions;
extern const struct oc_chat_decomposition oc_chat_decompositions[]; /* sorted by from */
extern const struct oc_chat_composition oc_chat_compositions[];     /* sorted by a, then b */

/* Property byte of a code point up to U+10FFFF. */
static inline uint8_t oc_chat_unicode_prop(uint32_t cp) {
    return oc_chat_category_block[oc_chat_category_index[cp >> 8]][cp & 255];
}

/* 0: inert under NFC (begins a segment, never changes alone); 1..254: combining class; 255: class 0, not inert. */
static inline uint8_t oc_chat_unicode_nfc(uint32_t cp) {
    return oc_chat_nfc_block[oc_chat_nfc_index[cp >> 8]][cp & 255];
}

/* True if cp is a word character in the sense of \w (UTS 18): Alphabetic, marks, digits, connectors, joiners. */
bool oc_chat_unicode_is_word(uint32_t cp);

/* Decodes one code point of valid UTF-8 at p and returns its length. */
static inline unsigned oc_chat_unicode_next(const char *s, uint32_t *cp) {
    const unsigned char *p = (const unsigned char *)s;
    if (p[0] < 0x80) return *cp = p[0], 1;
    if (p[0] < 0xE0) return *cp = (p[0] & 0x1Fu) << 6 | (p[1] & 0x3Fu), 2;
    if (p[0] < 0xF0) return *cp = (p[0] & 0xFu) << 12 | (p[1] & 0x3Fu) << 6 | (p[2] & 0x3Fu), 3;
    return *cp = (p[0] & 7u) << 18 | (p[1] & 0x3Fu) << 12 | (p[2] & 0x3Fu) << 6 | (p[3] & 0x3Fu), 4;
}

#endif
