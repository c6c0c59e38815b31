#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

static void write_escape(struct oc_buf *b, unsigned char c) {
    static const char named[] = "\b\f\n\r\t\"\\", letters[] = "bfnrt\"\\";
    const char *hit = c ? strchr(named, c) : NULL;
    if (hit) oc_buf_printf(b, "\\%c", letters[hit - named]);
    else oc_buf_printf(b, "\\u%04x", c);
}

void oc_json_write_str(struct oc_buf *b, struct oc_str s) {
    oc_buf_add_char(b, '"');
    size_t run = 0; /* start of the bytes that need no change */
    for (size_t i = 0; i < s.n;) {
        unsigned char c = (unsigned char)s.p[i];
        uint32_t cp;
        size_t n = c < 0x80 ? 1 : oc_utf8_decode(s.p + i, s.n - i, &cp);
        bool bad = c >= 0x80 && cp == 0xFFFD && !(n == 3 && c == 0xEF);
        if (c < 0x20 || c == '"' || c == '\\' || bad) {
            oc_buf_add(b, s.p + run, i - run);
            if (bad) oc_buf_add_str(b, "\xEF\xBF\xBD");
            else write_escape(b, c);
            run = i + n;
        }
        i += n;
    }
    if (s.n > run) oc_buf_add(b, s.p + run, s.n - run);
    oc_buf_add_char(b, '"');
}

/* Turns "1.29e5" into "1.30e5"; false when there is no next one of as many digits. */
static bool next_decimal(char *text) {
    for (char *c = strchr(text, 'e') - 1; c >= text; c--) {
        if (*c == '.') continue;
        if (*c != '9') {
            ++*c;
            return true;
        }
        *c = '0';
    }
    return false;
}

/* Digits and decimal exponent of the shortest decimal that reads back equal. At a power of two the doubles above
 * stand twice as far apart as those below: there the nearest decimal may miss where the next one above hits. */
static int shortest_digits(double d, char digits[24]) {
    char text[40];
    for (int p = 0; p < 17; p++) {
        snprintf(text, sizeof text, "%.*e", p, d);
        if (strtod(text, NULL) == d || p == 16) break;
        if (next_decimal(text) && strtod(text, NULL) == d) break;
    }
    char *e = strchr(text, 'e');
    size_t n = 0;
    for (char *c = text; c < e; c++)
        if (*c != '.') digits[n++] = *c;
    digits[n] = '\0';
    return (int)strtol(e + 1, NULL, 10);
}

void oc_json_write_double(struct oc_buf *b, double d) {
    if (!isfinite(d)) {
        oc_buf_add_str(b, "null");
        return;
    }
    if (signbit(d)) oc_buf_add_char(b, '-');
    char digits[24];
    int exp10 = shortest_digits(fabs(d), digits), n = (int)strlen(digits);
    if (exp10 < -4 || exp10 >= 16) {
        oc_buf_printf(b, "%c%s%s", digits[0], n > 1 ? "." : "", digits + 1);
        oc_buf_printf(b, "e%c%02d", exp10 < 0 ? '-' : '+', abs(exp10));
    } else if (exp10 < 0) {
        oc_buf_printf(b, "0.%.*s%s", -exp10 - 1, "0000", digits);
    } else if (n <= exp10 + 1) {
        oc_buf_printf(b, "%s%.*s.0", digits, exp10 + 1 - n, "0000000000000000");
    } else {
        oc_buf_printf(b, "%.*s.%s", exp10 + 1, digits, digits + exp10 + 1);
    }
}

static void write_list(struct oc_buf *b, const struct oc_json *v, const char *item_sep, const char *key_sep) {
    bool obj = v->type == OC_JSON_OBJ;
    size_t n = obj ? v->n_members : v->n_items;
    oc_buf_add_char(b, obj ? '{' : '[');
    for (size_t i = 0; i < n; i++) {
        if (i) oc_buf_add_str(b, item_sep);
        if (obj) {
            oc_json_write_str(b, v->members[i].key);
            oc_buf_add_str(b, key_sep);
        }
        oc_json_write(b, obj ? &v->members[i].value : &v->items[i], item_sep, key_sep);
    }
    oc_buf_add_char(b, obj ? '}' : ']');
}

void oc_json_write(struct oc_buf *b, const struct oc_json *v, const char *item_sep, const char *key_sep) {
    switch (v->type) {
    case OC_JSON_NULL:
        oc_buf_add_str(b, "null");
        break;
    case OC_JSON_BOOL:
        oc_buf_add_str(b, v->b ? "true" : "false");
        break;
    case OC_JSON_INT:
        oc_buf_add(b, v->num.p, v->num.n);
        break;
    case OC_JSON_DOUBLE:
        oc_json_write_double(b, v->d);
        break;
    case OC_JSON_STR:
        oc_json_write_str(b, v->str);
        break;
    case OC_JSON_ARR:
    case OC_JSON_OBJ:
        write_list(b, v, item_sep, key_sep);
        break;
    }
}
