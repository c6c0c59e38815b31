#include "http/ctype.h"
#include "http/http.h"

struct oc_str oc_http_request_header(const struct oc_http_request *r, const char *name) {
    for (size_t i = 0; i < r->n_headers; i++) {
        if (oc_http_same(r->headers[i].name, name)) return r->headers[i].value;
    }
    return (struct oc_str){NULL, 0};
}

/* Appends s with %XX and '+' resolved; false when a '%' is not followed by two hex digits. */
static bool decode(struct oc_str s, struct oc_buf *out) {
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i] == '+' ? ' ' : s.p[i];
        if (s.p[i] == '%') {
            if (s.n - i < 3) return false;
            int high = oc_http_hex((uint8_t)s.p[i + 1]), low = oc_http_hex((uint8_t)s.p[i + 2]);
            if (high < 0 || low < 0) return false;
            c = (char)(high << 4 | low);
            i += 2;
        }
        if (!oc_buf_add_char(out, c)) return false;
    }
    return true;
}

/* "name" or "name=value": decodes the one that is asked for. */
static bool decode_param(struct oc_str pair, const char *name, struct oc_buf *out, bool *found) {
    const char *equals = memchr(pair.p, '=', pair.n);
    size_t n_name = equals ? (size_t)(equals - pair.p) : pair.n;
    oc_buf_clear(out);
    if (!decode((struct oc_str){pair.p, n_name}, out)) return false;
    *found = oc_str_is((struct oc_str){oc_buf_str(out), out->n_bytes}, name);
    oc_buf_clear(out);
    if (!*found || !equals) return true;
    return decode((struct oc_str){equals + 1, pair.n - n_name - 1}, out);
}

bool oc_http_request_param(const struct oc_http_request *r, const char *name, struct oc_buf *out) {
    struct oc_str rest = r->query;
    bool found = false;
    while (rest.n && !found) {
        const char *amp = memchr(rest.p, '&', rest.n);
        size_t n = amp ? (size_t)(amp - rest.p) : rest.n;
        if (!decode_param((struct oc_str){rest.p, n}, name, out, &found) && found) return false;
        size_t skip = amp ? n + 1 : n;
        rest = (struct oc_str){rest.p + skip, rest.n - skip};
    }
    return found;
}
