#include "http/ctype.h"

/* Sums of the classes in ctype.h for the bytes below 128; from 128 on (obs-text) a byte is OC_HTTP_FIELD
 * only. */
static const uint8_t classes_of[128] = {
    0,   0,   0,   0,   0,   0,   0,   0,   0,   2,   0,   0,   0,   0,   0,   0,  0,  0,  0,  0,  0,  0,
    0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   2,   79,  2,   3,   79,  79, 79, 79, 78, 78, 79, 79,
    78,  79,  79,  6,   127, 127, 127, 127, 127, 127, 127, 127, 127, 127, 14,  78, 2,  78, 2,  6,  14, 111,
    111, 111, 111, 111, 111, 79,  79,  79,  79,  79,  79,  79,  79,  79,  79,  79, 79, 79, 79, 79, 79, 79,
    79,  79,  79,  6,   2,   6,   3,   79,  3,   111, 111, 111, 111, 111, 111, 79, 79, 79, 79, 79, 79, 79,
    79,  79,  79,  79,  79,  79,  79,  79,  79,  79,  79,  79,  79,  2,   3,   2,  79, 0,
};

bool oc_http_is(uint8_t c, int classes) {
    int have = c < 128 ? classes_of[c] : OC_HTTP_FIELD;
    return (have & classes) != 0;
}

int oc_http_hex(uint8_t c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

static char lower(char c) {
    return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

bool oc_http_same(struct oc_str s, const char *lit) {
    if (s.n != strlen(lit)) return false;
    for (size_t i = 0; i < s.n; i++) {
        if (lower(s.p[i]) != lower(lit[i])) return false;
    }
    return true;
}

static bool is_blank(char c) {
    return c == ' ' || c == '\t';
}

struct oc_str oc_http_trim(struct oc_str s) {
    while (s.n && is_blank(s.p[0])) {
        s.p++;
        s.n--;
    }
    while (s.n && is_blank(s.p[s.n - 1])) s.n--;
    return s;
}
