/* Requests, well-formed and not: the verdict must be the one of the table however the bytes are cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/limits.h"
#include "http/body.h"
#include "http/ctype.h"

enum { MAX_BODY = 64 };

struct verdict {
    int status; /* 0: well-formed; -1: more is needed */
    size_t n_taken;
    bool in_body;
    char text[256]; /* method, path, query, host, body */
};

struct machine {
    struct oc_http_head head;
    struct oc_http_body body;
    bool in_body;
};

static enum oc_http_parse feed(struct machine *m, const char *p, size_t n, size_t *n_taken) {
    *n_taken = 0;
    if (!m->in_body) {
        enum oc_http_parse r = oc_http_head_feed(&m->head, p, n, n_taken);
        if (r != OC_HTTP_DONE) return r;
        m->in_body = true;
        r = oc_http_body_begin(&m->body, &m->head, MAX_BODY, false);
        if (r != OC_HTTP_MORE || *n_taken == n) return r;
    }
    size_t more;
    enum oc_http_parse r = oc_http_body_feed(&m->body, p + *n_taken, n - *n_taken, &more);
    *n_taken += more;
    return r;
}

static void note(struct verdict *v, struct machine *m) {
    struct oc_str host = {"-", 1};
    for (size_t i = 0; i < m->head.n_fields; i++) {
        if (oc_http_same(m->head.fields[i].name, "host")) host = m->head.fields[i].value;
    }
    snprintf(v->text, sizeof(v->text), "%.*s %.*s ?%.*s %.*s [%.*s]%s%s", (int)m->head.method_name.n,
             m->head.method_name.p, (int)m->head.path.n, m->head.path.p, (int)m->head.query.n,
             m->head.query.p ? m->head.query.p : "", (int)host.n, host.p, (int)m->body.bytes.n_bytes,
             oc_buf_str(&m->body.bytes), m->head.keep_alive ? "" : " close",
             m->head.expect_continue ? " expect" : "");
}

/* Feeds pieces of the given sizes, the last size again and again; each piece is a copy of exactly its size.
 */
static struct verdict parse(const char *p, size_t n, size_t first, size_t then) {
    struct machine m = {.in_body = false};
    struct verdict v = {.status = -1};
    oc_http_head_init(&m.head, OC_LIMIT_HTTP_HEAD_BYTES);
    oc_buf_init(&m.body.bytes, 0);
    while (v.status < 0 && v.n_taken < n) {
        size_t piece = v.n_taken ? then : first, taken;
        if (piece > n - v.n_taken) piece = n - v.n_taken;
        char *copy = malloc(piece ? piece : 1);
        assert_non_null(copy);
        memcpy(copy, p + v.n_taken, piece);
        enum oc_http_parse r = feed(&m, copy, piece, &taken);
        free(copy);
        v.n_taken += taken;
        assert_true(r != OC_HTTP_MORE || taken == piece);
        if (r == OC_HTTP_BAD) v.status = m.in_body ? m.body.fault.status : m.head.fault.status;
        if (r == OC_HTTP_DONE) v.status = 0;
    }
    v.in_body = m.in_body;
    if (v.status == 0) note(&v, &m);
    oc_http_head_free(&m.head);
    oc_http_body_free(&m.body);
    return v;
}

static void check_splits(const char *p, size_t n, int status, const char *text) {
    struct verdict whole = parse(p, n, n, n);
    if (whole.status != status || (text && strcmp(text, whole.text) != 0)) {
        print_error("request: %.*s\n", (int)n, p);
        print_error("wanted %d %s\ngot    %d %s\n", status, text ? text : "", whole.status, whole.text);
        fail();
    }
    for (size_t first = 1; first <= n && first < 600; first++) {
        struct verdict two = parse(p, n, first, n);
        assert_int_equal(two.status, whole.status);
        assert_int_equal(two.n_taken, whole.n_taken);
        assert_string_equal(two.text, whole.text);
    }
    for (size_t step = 1; step <= 3; step++) {
        struct verdict drops = parse(p, n, step, step);
        assert_int_equal(drops.status, whole.status);
        assert_int_equal(drops.n_taken, whole.n_taken);
        assert_string_equal(drops.text, whole.text);
    }
}

struct request {
    const char *bytes;
    size_t n;
    int status;
    const char *text;
};

#define OK(bytes, text)                                                                                      \
    { bytes, sizeof(bytes) - 1, 0, text }
#define BAD(status, bytes)                                                                                   \
    { bytes, sizeof(bytes) - 1, status, NULL }
#define H "Host: a\r\n"
#define GET "GET / HTTP/1.1\r\n" H
#define POST "POST / HTTP/1.1\r\n" H
#define CHUNKED POST "Transfer-Encoding: chunked\r\n\r\n"

static const struct request good[] = {
    OK("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / ? a []"),
    OK("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / ? a []"),
    OK("GET /v1/models?a=1&b=%20c?/ HTTP/1.1\r\nhOST:a:8080\r\n\r\n",
       "GET /v1/models ?a=1&b=%20c?/ a:8080 []"),
    OK("GET /%41/~b;c=1,2 HTTP/1.1\r\nHost: \t [::1]:80 \t \r\n\r\n", "GET /%41/~b;c=1,2 ? [::1]:80 []"),
    OK("GET // HTTP/1.1\r\nHost: a:\r\n\r\n", "GET // ? a: []"),
    OK("GET http://b:1/c?d HTTP/1.1\r\nHost: a\r\n\r\n", "GET /c ?d b:1 []"),
    OK("GET HTTP://b HTTP/1.1\r\nHost: a\r\n\r\n", "GET / ? b []"),
    OK("GET http://b?x HTTP/1.1\r\nHost: a\r\n\r\n", "GET / ?x b []"),
    OK("GET http://[::2]/ HTTP/1.0\r\n\r\n", "GET / ? [::2] [] close"),
    OK("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS * ? a []"),
    OK("OPTIONS http://a:1 HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS * ? a:1 []"),
    OK("PATCH!#$%&'*+-.^_`|~9 / HTTP/1.1\r\nHost: a\r\n\r\n", "PATCH!#$%&'*+-.^_`|~9 / ? a []"),
    OK("get / HTTP/1.1\r\nHost: a\r\n\r\n", "get / ? a []"),
    OK("GET / HTTP/1.0\r\n\r\n", "GET / ? - [] close"),
    OK("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "GET / ? - []"),
    OK("GET / HTTP/1.0\r\nExpect: the worst\r\n\r\n", "GET / ? - [] close"),
    OK(GET "Connection: close\r\n\r\n", "GET / ? a [] close"),
    OK(GET "Connection: keep-alive, x\r\nConnection: y ,\tCLOSE\r\n\r\n", "GET / ? a [] close"),
    OK(GET "X:\r\nY: \r\nZ:a\tb \x80\xff\r\n\r\n", "GET / ? a []"),
    OK(GET "Content-Length: 0\r\n\r\n", "GET / ? a []"),
    OK(GET "Content-Length: 3\r\n\r\nabc", "GET / ? a [abc]"),
    OK(POST "Content-Length: 0005\r\n\r\nhello", "POST / ? a [hello]"),
    OK(POST "Expect: 100-Continue\r\nContent-Length: 1\r\n\r\nx", "POST / ? a [x] expect"),
    OK("POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\nab", "POST / ? - [ab] close"),
    OK(CHUNKED "0\r\n\r\n", "POST / ? a []"),
    OK(CHUNKED "5\r\nhello\r\n0\r\n\r\n", "POST / ? a [hello]"),
    OK(CHUNKED "005\r\nhello\r\n1\r\n!\r\n000\r\n\r\n", "POST / ? a [hello!]"),
    OK(CHUNKED "A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", "POST / ? a [01234567890123456789]"),
    OK(CHUNKED "1;a\r\nx\r\n1;a=b;c=\"d\\\"\te\"\r\ny\r\n0;z\r\n\r\n", "POST / ? a [xy]"),
    OK(CHUNKED "1 ; a = b ; c = \"d\" ;e\r\nx\r\n0\r\n\r\n", "POST / ? a [x]"),
    OK(CHUNKED "1\r\nx\r\n0\r\nX: y\r\nContent-Length: 9\r\n\r\n", "POST / ? a [x]"),
    OK(CHUNKED "2\r\n\r\n\r\n0\r\n\r\n", "POST / ? a [\r\n]"),
    OK(POST "Transfer-Encoding: \tChunKed \r\n\r\n0\r\n\r\n", "POST / ? a []"),
};

static const struct request broken[] = {
    /* the request line */
    BAD(400, "\nGET / HTTP/1.1\r\n" H "\r\n"),
    BAD(400, "\r\n\r\nGET / HTTP/1.1\r\n" H "\r\n"),
    BAD(400, "\rGET / HTTP/1.1\r\n" H "\r\n"),
    BAD(400, " GET / HTTP/1.1\r\n" H "\r\n"),
    BAD(400, "G ET / HTTP/1.1\r\n" H "\r\n"),
    BAD(400, "G\tET / HTTP/1.1\r\n" H "\r\n"),
    BAD(400, "G(T / HTTP/1.1\r\n" H "\r\n"),
    BAD(400, "G\0T / HTTP/1.1\r\n" H "\r\n"),
    BAD(400, "G\xc3\xa9T / HTTP/1.1\r\n" H "\r\n"),
    BAD(400, "\x16\x03\x01\x02\x00\x01"),
    BAD(400, "GET  / HTTP/1.1\r\n" H "\r\n"),
    BAD(400, "GET\t/ HTTP/1.1\r\n" H "\r\n"),
    BAD(400, "GET /  HTTP/1.1\r\n" H "\r\n"),
    BAD(400, "GET / HTTP/1.1 \r\n" H "\r\n"),
    BAD(400, "GET /\r\n"),
    BAD(400, "GET / \r\n" H "\r\n"),
    BAD(400, "GET\r\n" H "\r\n"),
    BAD(400, "GET / http/1.1\r\n" H "\r\n"),
    BAD(400, "GET / HTTP/1,1\r\n" H "\r\n"),
    BAD(400, "GET / HTTP/11\r\n" H "\r\n"),
    BAD(400, "GET / HTTP/1.10\r\n" H "\r\n"),
    BAD(400, "GET / HTTP/1.\r\n" H "\r\n"),
    BAD(400, "GET / HTTP/+1.1\r\n" H "\r\n"),
    BAD(400, "GET / ICAP/1.1\r\n" H "\r\n"),
    BAD(400, "GET / HTTP/1.1\n" H "\r\n"),
    BAD(400, "GET / HTTP/1.1\r" H "\r\n"),
    BAD(505, "GET / HTTP/2.0\r\n" H "\r\n"),
    BAD(505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    BAD(505, "GET / HTTP/1.2\r\n" H "\r\n"),
    BAD(505, "GET / HTTP/0.9\r\n" H "\r\n"),
    BAD(501, "GETGETGETGETGETGETGETGETGETGETGETGET / HTTP/1.1\r\n" H "\r\n"),
    /* the target */
    BAD(400, "GET /a b HTTP/1.1\r\n" H "\r\n"),
    BAD(400, "GET /a\tb HTTP/1.1\r\n" H "\r\n"),
    BAD(400, "GET /a\0b HTTP/1.1\r\n" H "\r\n"),
    BAD(400, "GET /a\x01 HTTP/1.1\r\n" H "\r\n"),
    BAD(400, "GET /a\x7f HTTP/1.1\r\n" H "\r\n"),
    BAD(400, "GET /\xc3\xa9 HTTP/1.1\r\n" H "\r\n"),
    BAD(400, "GET /a#b HTTP/1.1\r\n" H "\r\n"),
    BAD(400, "GET /a\\b HTTP/1.1\r\n" H "\r\n"),
    BAD(400, "GET /\"a\" HTTP/1.1\r\n" H "\r\n"),
    BAD(400, "GET /<a> HTTP/1.1\r\n" H "\r\n"),
    BAD(400, "GET /a|b HTTP/1.1\r\n" H "\r\n"),
    BAD(400, "GET /{a} HTTP/1.1\r\n" H "\r\n"),
    BAD(400, "GET /a?[b] HTTP/1.1\r\n" H "\r\n"),
    BAD(400, "GET /% HTTP/1.1\r\n" H "\r\n"),
    BAD(400, "GET /%4 HTTP/1.1\r\n" H "\r\n"),
    BAD(400, "GET /%zz HTTP/1.1\r\n" H "\r\n"),
    BAD(400, "GET /?a=%4x HTTP/1.1\r\n" H "\r\n"),
    BAD(400, "GET a HTTP/1.1\r\n" H "\r\n"),
    BAD(400, "GET ?a HTTP/1.1\r\n" H "\r\n"),
    BAD(400, "GET * HTTP/1.1\r\n" H "\r\n"),
    BAD(400, "GET a:80 HTTP/1.1\r\n" H "\r\n"),
    BAD(400, "GET ftp://a/ HTTP/1.1\r\n" H "\r\n"),
    BAD(400, "GET https://a/ HTTP/1.1\r\n" H "\r\n"),
    BAD(400, "GET http:/// HTTP/1.1\r\n" H "\r\n"),
    BAD(400, "GET http:// HTTP/1.1\r\n" H "\r\n"),
    BAD(400, "GET http:/a HTTP/1.1\r\n" H "\r\n"),
    BAD(400, "GET http://u:p@a/ HTTP/1.1\r\n" H "\r\n"),
    BAD(400, "GET http://a:b/ HTTP/1.1\r\n" H "\r\n"),
    BAD(400, "GET http://[::1/ HTTP/1.1\r\n" H "\r\n"),
    BAD(400, "GET http://:80/ HTTP/1.1\r\n" H "\r\n"),
    BAD(501, "CONNECT a:80 HTTP/1.1\r\n" H "\r\n"),
    BAD(501, "CONNECT / HTTP/1.1\r\n" H "\r\n"),
    /* Host */
    BAD(400, "GET / HTTP/1.1\r\n\r\n"),
    BAD(400, "GET / HTTP/1.1\r\nX: Host: a\r\n\r\n"),
    BAD(400, "GET http://a/ HTTP/1.1\r\n\r\n"),
    BAD(400, GET "Host: a\r\n\r\n"),
    BAD(400, GET "HOST: b\r\n\r\n"),
    BAD(400, "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"),
    BAD(400, "GET / HTTP/1.1\r\nHost:\r\n\r\n"),
    BAD(400, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
    BAD(400, "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    BAD(400, "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"),
    BAD(400, "GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n"),
    BAD(400, "GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n"),
    BAD(400, "GET / HTTP/1.1\r\nHost: a:-1\r\n\r\n"),
    BAD(400, "GET / HTTP/1.1\r\nHost: :80\r\n\r\n"),
    BAD(400, "GET / HTTP/1.1\r\nHost: ::1\r\n\r\n"),
    BAD(400, "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n"),
    BAD(400, "GET / HTTP/1.1\r\nHost: [::1]a\r\n\r\n"),
    BAD(400, "GET / HTTP/1.1\r\nHost: [1.2.3.4]\r\n\r\n"),
    BAD(400, "GET / HTTP/1.1\r\nHost: []\r\n\r\n"),
    BAD(400, "GET / HTTP/1.1\r\nHost: a%\r\n\r\n"),
    BAD(400, "GET / HTTP/1.1\r\nHost: a\xff\r\n\r\n"),
    /* fields */
    BAD(400, "GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    BAD(400, "GET / HTTP/1.1\r\n" H " folded\r\n\r\n"),
    BAD(400, "GET / HTTP/1.1\r\n" H "\tfolded\r\n\r\n"),
    BAD(400, "GET / HTTP/1.1\r\n" H "X: a\r\n b\r\n\r\n"),
    BAD(400, "GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
    BAD(400, "GET / HTTP/1.1\r\nHost\t: a\r\n\r\n"),
    BAD(400, GET "X Y: a\r\n\r\n"),
    BAD(400, GET "X\r\n\r\n"),
    BAD(400, GET ": a\r\n\r\n"),
    BAD(400, GET "\0: a\r\n\r\n"),
    BAD(400, GET "X(: a\r\n\r\n"),
    BAD(400, GET "X\x80: a\r\n\r\n"),
    BAD(400, GET "X: a\0b\r\n\r\n"),
    BAD(400, GET "X: a\x01\r\n\r\n"),
    BAD(400, GET "X: a\x1b[2J\r\n\r\n"),
    BAD(400, GET "X: a\x7f\r\n\r\n"),
    BAD(400, GET "X: a\rb\r\n\r\n"),
    BAD(400, GET "X: a\r\r\n\r\n"),
    BAD(400, GET "X: a\nY: b\r\n\r\n"),
    BAD(400, GET "X: a\r\n\n"),
    BAD(400, GET "X: a\r\n\rX"),
    BAD(400, "GET / HTTP/1.1\r\nHost: a\n\n"),
    /* framing */
    BAD(400, POST "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
    BAD(400, POST "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
    BAD(400, POST "Content-Length: 5, 5\r\n\r\nhello"),
    BAD(400, POST "Content-Length: +5\r\n\r\nhello"),
    BAD(400, POST "Content-Length: -5\r\n\r\nhello"),
    BAD(400, POST "Content-Length: 0x5\r\n\r\nhello"),
    BAD(400, POST "Content-Length: 5.0\r\n\r\nhello"),
    BAD(400, POST "Content-Length: 5 5\r\n\r\nhello"),
    BAD(400, POST "Content-Length:\r\n\r\nhello"),
    BAD(400, POST "Content-Length: five\r\n\r\nhello"),
    BAD(400, POST "Content-Length: 5;\r\n\r\nhello"),
    BAD(400, POST "Content-Length: \"5\"\r\n\r\nhello"),
    BAD(413, POST "Content-Length: 65\r\n\r\n"),
    BAD(413, POST "Content-Length: 18446744073709551621\r\n\r\nhello"),
    BAD(413, POST "Content-Length: 99999999999999999999999999999999999999\r\n\r\n"),
    BAD(400, POST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    BAD(400, POST "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
    BAD(400, POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    BAD(400, POST "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    BAD(400, POST "Transfer-Encoding: identity\r\n\r\n"),
    BAD(400, POST "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    BAD(400, POST "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"),
    BAD(400, POST "Transfer-Encoding: 'chunked'\r\n\r\n0\r\n\r\n"),
    BAD(400, POST "Transfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n"),
    BAD(400, POST "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
    BAD(501, POST "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    BAD(501, POST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    BAD(400, POST "Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n"),
    BAD(400, POST "Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n"),
    BAD(400, POST "Transfer-Encoding:\r\n\r\n0\r\n\r\n"),
    BAD(400, POST "Transfer-Encoding: \x0b"
                  "chunked\r\n\r\n0\r\n\r\n"),
    BAD(400, POST "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
    BAD(400, "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    BAD(417, POST "Expect: 200-ok\r\nContent-Length: 1\r\n\r\nx"),
    BAD(417, POST "Expect: 100-continue, x\r\n\r\n"),
    BAD(417, POST "Expect:\r\n\r\n"),
    /* chunks */
    BAD(400, CHUNKED "\r\n"),
    BAD(400, CHUNKED "x\r\n"),
    BAD(400, CHUNKED "0x3\r\nabc\r\n0\r\n\r\n"),
    BAD(400, CHUNKED "+3\r\nabc\r\n0\r\n\r\n"),
    BAD(400, CHUNKED "-1\r\n"),
    BAD(400, CHUNKED " 3\r\nabc\r\n0\r\n\r\n"),
    BAD(400, CHUNKED "3 \r\nabc\r\n0\r\n\r\n"),
    BAD(400, CHUNKED "3\nabc\n0\n\n"),
    BAD(400, CHUNKED "3\r\nabc\n0\r\n\r\n"),
    BAD(400, CHUNKED "3\r\nabcd\r\n0\r\n\r\n"),
    BAD(400, CHUNKED "3\r\nabc0\r\n\r\n"),
    BAD(400, CHUNKED "3\rabc\r\n0\r\n\r\n"),
    BAD(400, CHUNKED "3;\r\nabc\r\n0\r\n\r\n"),
    BAD(400, CHUNKED "3;=a\r\nabc\r\n0\r\n\r\n"),
    BAD(400, CHUNKED "3;a=\r\nabc\r\n0\r\n\r\n"),
    BAD(400, CHUNKED "3;a b\r\nabc\r\n0\r\n\r\n"),
    BAD(400, CHUNKED "3;a=\"b\r\nabc\r\n0\r\n\r\n"),
    BAD(400, CHUNKED "3;a=\"b\"c\r\nabc\r\n0\r\n\r\n"),
    BAD(400, CHUNKED "3;a\n\r\nabc\r\n0\r\n\r\n"),
    BAD(400, CHUNKED "3;a \r\nabc\r\n0\r\n\r\n"),
    BAD(400, CHUNKED "3;\0a\r\nabc\r\n0\r\n\r\n"),
    BAD(400, CHUNKED "00000000000000003\r\nabc\r\n0\r\n\r\n"),
    BAD(413, CHUNKED "41\r\n"),
    BAD(413, CHUNKED "FFFFFFFFFFFFFFFF\r\n"),
    BAD(413, CHUNKED "20\r\n0123456789abcdef0123456789abcdef\r\n21\r\n0123456789abcdef0123456789abcdef0\r\n"),
    BAD(400, CHUNKED "0\r\nX\r\n\r\n"),
    BAD(400, CHUNKED "0\r\n X: a\r\n\r\n"),
    BAD(400, CHUNKED "0\r\nX : a\r\n\r\n"),
    BAD(400, CHUNKED "0\r\nX: a\n\r\n"),
    BAD(400, CHUNKED "0\r\nX: a\0\r\n\r\n"),
    BAD(400, CHUNKED "0\r\n\n"),
    BAD(400, CHUNKED "0\r\n\rX"),
    BAD(400, CHUNKED "0\n\n"),
};

static void check_table(const struct request *r, size_t n) {
    for (size_t i = 0; i < n; i++) check_splits(r[i].bytes, r[i].n, r[i].status, r[i].text);
}

static void test_well_formed(void **state) {
    (void)state;
    size_t n = sizeof(good) / sizeof(good[0]);
    check_table(good, n);
    /* What is cut short is never refused and never taken for whole. */
    for (size_t i = 0; i < n; i++) {
        for (size_t cut = 1; cut < good[i].n; cut++)
            assert_int_equal(parse(good[i].bytes, cut, cut, cut).status, -1);
    }
}

static void test_ill_formed(void **state) {
    (void)state;
    check_table(broken, sizeof(broken) / sizeof(broken[0]));
}

/* Bytes after the end of a request belong to the next one. */
static void test_end(void **state) {
    (void)state;
    static const char two[] = POST "Content-Length: 2\r\n\r\nabGET";
    static const char chunks[] = CHUNKED "1\r\nx\r\n0\r\n\r\nGET";
    for (size_t first = 1; first < sizeof(two); first++)
        assert_int_equal(parse(two, sizeof(two) - 1, first, 1000).n_taken, sizeof(two) - 4);
    for (size_t first = 1; first < sizeof(chunks); first++)
        assert_int_equal(parse(chunks, sizeof(chunks) - 1, first, 1000).n_taken, sizeof(chunks) - 4);
}

/* text, then n times c, then end. */
static void check_long(int status, const char *text, size_t n, const char *piece, const char *end) {
    struct oc_buf b;
    oc_buf_init(&b, OC_MIB);
    oc_buf_add_str(&b, text);
    for (size_t i = 0; i < n; i++) oc_buf_add_str(&b, piece);
    oc_buf_add_str(&b, end);
    assert_false(b.failed);
    check_splits(b.data, b.n_bytes, status, NULL);
    oc_buf_free(&b);
}

static void test_limits(void **state) {
    (void)state;
    check_long(0, "GET /", OC_LIMIT_HTTP_TARGET_BYTES - 1, "a", " HTTP/1.1\r\n" H "\r\n");
    check_long(414, "GET /", OC_LIMIT_HTTP_TARGET_BYTES, "a", " HTTP/1.1\r\n" H "\r\n");
    check_long(414, "GET /", 10 * OC_LIMIT_HTTP_TARGET_BYTES, "a", "");
    check_long(0, GET, OC_LIMIT_HTTP_HEADERS - 1, "X: a\r\n", "\r\n");
    check_long(431, GET, OC_LIMIT_HTTP_HEADERS, "X: a\r\n", "\r\n");
    size_t most = OC_LIMIT_HTTP_HEAD_BYTES - (sizeof(GET "X: \r\n\r\n") - 1);
    check_long(0, GET "X: ", most, "a", "\r\n\r\n");
    check_long(431, GET "X: ", most + 1, "a", "\r\n\r\n");
    check_long(431, GET "X", OC_LIMIT_HTTP_HEAD_BYTES, "a", "");
    check_long(0, CHUNKED "1;", OC_LIMIT_HTTP_CHUNK_EXT_BYTES - 1, "a", "\r\nx\r\n0\r\n\r\n");
    check_long(400, CHUNKED "1;", OC_LIMIT_HTTP_CHUNK_EXT_BYTES, "a", "\r\nx\r\n0\r\n\r\n");
    check_long(400, CHUNKED, MAX_BODY - 1,
               "1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\nx\r\n", "");
    check_long(0, CHUNKED "0\r\nX:", OC_LIMIT_HTTP_TRAILER_BYTES - 3, "a", "\r\n\r\n");
    check_long(431, CHUNKED "0\r\nX:", OC_LIMIT_HTTP_TRAILER_BYTES, "a", "\r\n\r\n");
    check_long(431, CHUNKED "0\r\n", OC_LIMIT_HTTP_TRAILER_BYTES, "X:a\r\n", "\r\n");
    check_long(413, CHUNKED, MAX_BODY + 1, "1\r\nx\r\n", "");
}

/* The table of classes against the rules written out. */
static void test_classes(void **state) {
    (void)state;
    static const char alnum[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    for (int c = 1; c < 256; c++) {
        bool is_alnum = strchr(alnum, c), in_name = is_alnum || strchr("-._~!$&'()*+,;=%", c);
        bool in_path = in_name || strchr(":@", c);
        assert_int_equal(oc_http_is((uint8_t)c, OC_HTTP_TCHAR), is_alnum || strchr("!#$%&'*+-.^_`|~", c));
        assert_int_equal(oc_http_is((uint8_t)c, OC_HTTP_NAME), in_name);
        assert_int_equal(oc_http_is((uint8_t)c, OC_HTTP_PCHAR), in_path);
        assert_int_equal(oc_http_is((uint8_t)c, OC_HTTP_TARGET), in_path || strchr("/?[]", c));
        assert_int_equal(oc_http_is((uint8_t)c, OC_HTTP_FIELD), c == '\t' || (c >= ' ' && c != 0x7f));
        assert_int_equal(oc_http_is((uint8_t)c, OC_HTTP_DIGIT), c >= '0' && c <= '9');
        assert_int_equal(oc_http_is((uint8_t)c, OC_HTTP_HEX), strchr("0123456789abcdefABCDEF", c) != NULL);
        assert_int_equal(oc_http_hex((uint8_t)c) >= 0, oc_http_is((uint8_t)c, OC_HTTP_HEX));
    }
    assert_false(oc_http_is(0, 255));
}

/* HEAD is known from the request line on, also when what follows is refused. */
static void test_is_head(void **state) {
    (void)state;
    static const struct {
        const char *text;
        bool is;
    } cases[] = {{"HEAD / HTTP/1.1\r\n :", true}, {"HEAD \x01", true},   {"HEAD", false},
                 {"GET / HTTP/1.1\r\n :", false}, {"HEADS \x01", false}, {"\r\nHEAD /\n", true}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (size_t piece = 1; piece < 30; piece++) {
            struct oc_http_head h;
            oc_http_head_init(&h, 1000);
            size_t n = strlen(cases[i].text), at = 0, taken;
            while (at < n && h.fault.status == 0) {
                size_t m = piece < n - at ? piece : n - at;
                oc_http_head_feed(&h, cases[i].text + at, m, &taken);
                at += taken;
            }
            assert_int_equal(oc_http_head_is_head(&h), cases[i].is);
            oc_http_head_free(&h);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_well_formed), cmocka_unit_test(test_ill_formed), cmocka_unit_test(test_end),
        cmocka_unit_test(test_limits),      cmocka_unit_test(test_classes),    cmocka_unit_test(test_is_head),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
