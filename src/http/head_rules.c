/* The rules of a head that need whole lines: target forms, Host, framing, Expect, Connection. */
#include <arpa/inet.h>
#include <stdlib.h>

#include "base/limits.h"
#include "http/ctype.h"
#include "http/head.h"

static bool bad(struct oc_http_head *h, int status, const char *message) {
    oc_http_head_refuse(h, status, message);
    return false;
}

/* ---- Lines into spans ---------------------------------------------------------------------------------- */

static enum oc_http_method method_of(struct oc_str name) {
    static const char *const names[] = {"GET", "HEAD",   "POST",
                                        "PUT", "DELETE", "OPTIONS"}; /* in the enum's order */
    for (int i = 0; i < OC_HTTP_OTHER; i++) {
        if (oc_str_is(name, names[i])) return (enum oc_http_method)i;
    }
    return OC_HTTP_OTHER;
}

/* The machine has seen to it that every line has a colon and ends in CRLF. One field more is allocated for a
 * Host that comes from the target. */
static bool split_lines(struct oc_http_head *h) {
    const char *text = h->text.data, *end = text + h->text.n_bytes;
    h->method_name = (struct oc_str){text + h->method_at, h->target_at - 1 - h->method_at};
    h->method = method_of(h->method_name);
    h->target = (struct oc_str){text + h->target_at, h->version_at - 1 - h->target_at};
    h->fields = calloc(h->n_lines + 1, sizeof(*h->fields));
    if (!h->fields) return bad(h, 503, "There is no memory for the request.");
    const char *p = text + h->fields_at;
    for (; h->n_fields < h->n_lines; h->n_fields++) {
        const char *colon = memchr(p, ':', (size_t)(end - p));
        const char *cr = memchr(colon, '\r', (size_t)(end - colon));
        h->fields[h->n_fields].name = (struct oc_str){p, (size_t)(colon - p)};
        h->fields[h->n_fields].value = oc_http_trim((struct oc_str){colon + 1, (size_t)(cr - colon - 1)});
        p = cr + 2;
    }
    return true;
}

/* How many fields have the name; *last is the last of them. */
static size_t count_fields(struct oc_http_head *h, const char *name, struct oc_http_header **last) {
    size_t n = 0;
    for (size_t i = 0; i < h->n_fields; i++) {
        if (!oc_http_same(h->fields[i].name, name)) continue;
        *last = &h->fields[i];
        n++;
    }
    return n;
}

/* ---- Host and target ----------------------------------------------------------------------------------- */

/* Every byte in the class, every '%' followed by two hex digits. */
static bool all_in(struct oc_str s, int classes, const char *also) {
    for (size_t i = 0; i < s.n; i++) {
        uint8_t c = (uint8_t)s.p[i];
        if (!oc_http_is(c, classes) && (c == '\0' || !strchr(also, c))) return false;
        if (c != '%') continue;
        if (s.n - i < 3 || oc_http_hex((uint8_t)s.p[i + 1]) < 0 || oc_http_hex((uint8_t)s.p[i + 2]) < 0)
            return false;
    }
    return true;
}

static bool is_port(struct oc_str s) {
    unsigned value = 0;
    if (s.n > 5) return false;
    for (size_t i = 0; i < s.n; i++) {
        if (!oc_http_is((uint8_t)s.p[i], OC_HTTP_DIGIT)) return false;
        value = value * 10 + (unsigned)(s.p[i] - '0');
    }
    return value <= 65535;
}

static bool is_ipv6(struct oc_str s) {
    char text[INET6_ADDRSTRLEN];
    struct in6_addr address;
    if (s.n == 0 || s.n >= sizeof(text)) return false;
    memcpy(text, s.p, s.n);
    text[s.n] = '\0';
    return inet_pton(AF_INET6, text, &address) == 1;
}

/* uri-host [":" port] with a host that is not empty and no user information (RFC 9110 section 4.2). */
static bool is_authority(struct oc_str s) {
    size_t n_host = 0;
    if (s.n && s.p[0] == '[') {
        while (n_host < s.n && s.p[n_host] != ']') n_host++;
        if (n_host == s.n || !is_ipv6((struct oc_str){s.p + 1, n_host - 1})) return false;
        n_host++;
    } else {
        while (n_host < s.n && s.p[n_host] != ':') n_host++;
        if (n_host == 0 || !all_in((struct oc_str){s.p, n_host}, OC_HTTP_NAME, "")) return false;
    }
    if (n_host == s.n) return true;
    return s.p[n_host] == ':' && is_port((struct oc_str){s.p + n_host + 1, s.n - n_host - 1});
}

static bool check_host(struct oc_http_head *h) {
    struct oc_http_header *host = NULL;
    size_t n = count_fields(h, "host", &host);
    if (n > 1) return bad(h, 400, "The request has more than one Host.");
    if (n == 0) return h->minor == 0 || bad(h, 400, "The request has no Host.");
    return is_authority(host->value) || bad(h, 400, "The value of Host is not a host and a port.");
}

/* The host of an absolute target counts, not the Host field (RFC 9112 section 3.2.2), so it takes its place.
 */
static void replace_host(struct oc_http_head *h, struct oc_str authority) {
    struct oc_http_header *host = NULL;
    if (count_fields(h, "host", &host) == 0) host = &h->fields[h->n_fields++];
    *host = (struct oc_http_header){OC_STR("Host"), authority};
}

/* "http://host:port/path?query": sets *rest to "/path?query". */
static bool split_absolute(struct oc_http_head *h, struct oc_str *rest) {
    struct oc_str t = h->target;
    size_t n = 0;
    if (t.n < 7 || !oc_http_same((struct oc_str){t.p, 7}, "http://"))
        return bad(h, 400, "The request target must be a path, or begin with http://.");
    t = (struct oc_str){t.p + 7, t.n - 7};
    while (n < t.n && t.p[n] != '/' && t.p[n] != '?') n++;
    struct oc_str authority = {t.p, n};
    if (!is_authority(authority))
        return bad(h, 400, "The host of the request target is not a host and a port.");
    replace_host(h, authority);
    *rest = (struct oc_str){t.p + n, t.n - n};
    return true;
}

static bool check_target(struct oc_http_head *h) {
    struct oc_str t = h->target;
    if (oc_str_is(h->method_name, "CONNECT")) return bad(h, 501, "CONNECT is not supported.");
    if (oc_str_is(t, "*")) {
        h->path = t;
        return h->method == OC_HTTP_OPTIONS || bad(h, 400, "The request target * is for OPTIONS only.");
    }
    if (t.p[0] != '/' && !split_absolute(h, &t)) return false;
    size_t n_path = 0;
    while (n_path < t.n && t.p[n_path] != '?') n_path++;
    h->path = (struct oc_str){t.p, n_path};
    if (n_path < t.n) h->query = (struct oc_str){t.p + n_path + 1, t.n - n_path - 1};
    if (!all_in(h->path, OC_HTTP_PCHAR, "/") || !all_in(h->query, OC_HTTP_PCHAR, "/?"))
        return bad(h, 400, "The request target holds a byte that is not allowed there.");
    if (n_path == 0) h->path = h->method == OC_HTTP_OPTIONS && t.n == 0 ? OC_STR("*") : OC_STR("/");
    return true;
}

/* ---- Framing ------------------------------------------------------------------------------------------- */

static bool check_length(struct oc_http_head *h, struct oc_str digits) {
    if (digits.n == 0) return bad(h, 400, "Content-Length must be digits.");
    for (size_t i = 0; i < digits.n; i++) {
        if (!oc_http_is((uint8_t)digits.p[i], OC_HTTP_DIGIT))
            return bad(h, 400, "Content-Length must be digits.");
    }
    h->has_length = true;
    for (size_t i = 0; i < digits.n; i++) {
        if (h->length >
            UINT64_MAX / 10 - 1) { /* far over any maximum: refused as too large, not as ill-formed */
            h->length = UINT64_MAX;
            return true;
        }
        h->length = h->length * 10 + (uint64_t)(digits.p[i] - '0');
    }
    return true;
}

/* A coding before a final "chunked" is one we do not know (501); any other value leaves the length open
 * (400). */
static bool check_coding(struct oc_http_head *h, struct oc_str value) {
    static const char final[] = "chunked";
    size_t n = sizeof(final) - 1;
    if (oc_http_same(value, final)) {
        h->chunked = true;
        return h->minor == 1 || bad(h, 400, "Transfer-Encoding is not part of HTTP/1.0.");
    }
    if (value.n > n && oc_http_same((struct oc_str){value.p + value.n - n, n}, final)) {
        struct oc_str before = oc_http_trim((struct oc_str){value.p, value.n - n});
        if (before.n > 1 && before.p[before.n - 1] == ',')
            return bad(h, 501, "The only transfer coding supported is chunked.");
    }
    return bad(h, 400, "Transfer-Encoding must be chunked.");
}

static bool check_framing(struct oc_http_head *h) {
    struct oc_http_header *length = NULL, *coding = NULL;
    size_t n_length = count_fields(h, "content-length", &length);
    size_t n_coding = count_fields(h, "transfer-encoding", &coding);
    if (n_length && n_coding) return bad(h, 400, "Content-Length and Transfer-Encoding exclude each other.");
    if (n_length > 1) return bad(h, 400, "The request has more than one Content-Length.");
    if (n_coding > 1) return bad(h, 400, "The request has more than one Transfer-Encoding.");
    if (n_length) return check_length(h, length->value);
    return n_coding == 0 || check_coding(h, coding->value);
}

/* ---- Expect and Connection ----------------------------------------------------------------------------- */

/* An expectation of HTTP/1.0 is to be ignored (RFC 9110 section 10.1.1). */
static bool check_expect(struct oc_http_head *h) {
    for (size_t i = 0; i < h->n_fields && h->minor == 1; i++) {
        if (!oc_http_same(h->fields[i].name, "expect")) continue;
        if (!oc_http_same(h->fields[i].value, "100-continue"))
            return bad(h, 417, "The only expectation supported is 100-continue.");
        h->expect_continue = true;
    }
    return true;
}

static void note_options(struct oc_str list, bool *close, bool *keep) {
    while (list.n) {
        size_t n = 0;
        while (n < list.n && list.p[n] != ',') n++;
        struct oc_str option = oc_http_trim((struct oc_str){list.p, n});
        *close |= oc_http_same(option, "close");
        *keep |= oc_http_same(option, "keep-alive");
        if (n < list.n) n++;
        list = (struct oc_str){list.p + n, list.n - n};
    }
}

static bool check_connection(struct oc_http_head *h) {
    bool close = false, keep = false;
    for (size_t i = 0; i < h->n_fields; i++) {
        if (oc_http_same(h->fields[i].name, "connection")) note_options(h->fields[i].value, &close, &keep);
    }
    h->keep_alive = !close && (h->minor == 1 || keep);
    return true;
}

typedef bool rule_fn(struct oc_http_head *h);

bool oc_http_head_rules(struct oc_http_head *h) {
    static rule_fn *const rules[] = {split_lines,   check_host,   check_target,
                                     check_framing, check_expect, check_connection};
    for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
        if (!rules[i](h)) return false;
    }
    return true;
}
