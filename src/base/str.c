#include "base/str.h"

bool oc_str_starts(struct oc_str s, struct oc_str prefix) {
    return s.n >= prefix.n && memcmp(s.p, prefix.p, prefix.n) == 0;
}

bool oc_str_ends(struct oc_str s, struct oc_str suffix) {
    return s.n >= suffix.n && memcmp(s.p + s.n - suffix.n, suffix.p, suffix.n) == 0;
}

/* Length and the allowed range of the second byte, by lead byte (Unicode 16, table 3-7). */
static int lead_info(uint8_t c, uint8_t *lo, uint8_t *hi) {
    *lo = 0x80;
    *hi = 0xBF;
    if (c < 0x80) return 1;
    if (c >= 0xC2 && c <= 0xDF) return 2;
    if (c >= 0xE0 && c <= 0xEF) {
        if (c == 0xE0) *lo = 0xA0;
        if (c == 0xED) *hi = 0x9F;
        return 3;
    }
    if (c >= 0xF0 && c <= 0xF4) {
        if (c == 0xF0) *lo = 0x90;
        if (c == 0xF4) *hi = 0x8F;
        return 4;
    }
    return 0;
}

/* Bytes of the sequence at p that are well-formed so far; *want is its full length (0: bad lead byte). */
static size_t sequence_prefix(const char *p, size_t n, int *want) {
    const uint8_t *u = (const uint8_t *)p;
    uint8_t lo, hi;
    *want = lead_info(u[0], &lo, &hi);
    if (*want <= 1) return 1;
    size_t i = 1;
    while (i < (size_t)*want && i < n && u[i] >= lo && u[i] <= hi) {
        lo = 0x80;
        hi = 0xBF;
        i++;
    }
    return i;
}

size_t oc_utf8_decode(const char *p, size_t n, uint32_t *code_point) {
    const uint8_t *u = (const uint8_t *)p;
    int want;
    size_t got = sequence_prefix(p, n, &want);
    if (want == 1) {
        *code_point = u[0];
        return 1;
    }
    if (want == 0 || got < (size_t)want) {
        *code_point = 0xFFFD;
        return got;
    }
    uint32_t cp = u[0] & (0x7Fu >> want);
    for (int i = 1; i < want; i++) cp = cp << 6 | (u[i] & 0x3Fu);
    *code_point = cp;
    return (size_t)want;
}

size_t oc_utf8_encode(uint32_t cp, char out[4]) {
    if ((cp >= 0xD800 && cp <= 0xDFFF) || cp > 0x10FFFF) cp = 0xFFFD;
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (char)(0xC0 | cp >> 6);
        out[1] = (char)(0x80 | (cp & 0x3F));
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (char)(0xE0 | cp >> 12);
        out[1] = (char)(0x80 | (cp >> 6 & 0x3F));
        out[2] = (char)(0x80 | (cp & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | cp >> 18);
    out[1] = (char)(0x80 | (cp >> 12 & 0x3F));
    out[2] = (char)(0x80 | (cp >> 6 & 0x3F));
    out[3] = (char)(0x80 | (cp & 0x3F));
    return 4;
}

bool oc_utf8_valid(const char *p, size_t n) {
    size_t i = 0;
    while (i < n) {
        int want;
        size_t got = sequence_prefix(p + i, n - i, &want);
        if (want == 0 || got < (size_t)want) return false;
        i += got;
    }
    return true;
}

size_t oc_utf8_incomplete_tail(const char *p, size_t n) {
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        int want;
        size_t got = sequence_prefix(p + n - back, back, &want);
        if (want > 1 && got == back && got < (size_t)want) return back;
    }
    return 0;
}
