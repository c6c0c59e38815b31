/* Fuzz target: one request, head and body, fed whole, byte by byte and in uneven pieces. The verdict, the
 * bytes taken and all that was read must be the same; what is accepted must keep the rules that matter. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "http/body.h"
#include "http/ctype.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { MAX_BODY = 4096 };

struct reading {
    struct oc_http_head head;
    struct oc_http_body body;
    bool in_body;
    enum oc_http_parse verdict;
    struct oc_http_fault fault;
    size_t n_taken;
};

static void feed(struct reading *r, const char *p, size_t n) {
    size_t taken = 0;
    if (!r->in_body) {
        r->verdict = oc_http_head_feed(&r->head, p, n, &taken);
        r->n_taken += taken;
        r->fault = r->head.fault;
        if (r->verdict != OC_HTTP_DONE) return;
        r->in_body = true;
        r->verdict = oc_http_body_begin(&r->body, &r->head, MAX_BODY, false);
    }
    if (r->verdict == OC_HTTP_MORE && taken < n) {
        p += taken;
        n -= taken;
        r->verdict = oc_http_body_feed(&r->body, p, n, &taken);
        r->n_taken += taken;
    }
    r->fault = r->body.fault;
}

/* seed 0: whole; 1: byte by byte; otherwise pieces of pseudo-random sizes. */
static void read_all(struct reading *r, const char *p, size_t n, uint32_t seed) {
    *r = (struct reading){.verdict = OC_HTTP_MORE};
    oc_http_head_init(&r->head, OC_LIMIT_HTTP_HEAD_BYTES);
    oc_buf_init(&r->body.bytes, 0);
    for (size_t at = 0; at < n && r->verdict == OC_HTTP_MORE;) {
        size_t piece = seed == 0 ? n : 1;
        if (seed > 1) {
            seed = seed * 1664525u + 1013904223u;
            piece = 1 + (seed >> 24) % 37;
        }
        if (piece > n - at) piece = n - at;
        feed(r, p + at, piece);
        at += piece;
        if (r->verdict == OC_HTTP_MORE && r->n_taken != at) abort();
    }
}

static void must_be_same(const struct reading *a, const struct reading *b) {
    if (a->verdict != b->verdict || a->n_taken != b->n_taken || a->fault.status != b->fault.status) abort();
    if (a->fault.message != b->fault.message) abort(); /* constants */
    if (a->verdict == OC_HTTP_BAD) return;
    if (a->head.n_fields != b->head.n_fields || !oc_str_eq(a->head.path, b->head.path)) abort();
    if (!oc_str_eq(a->head.query, b->head.query)) abort();
    for (size_t i = 0; i < a->head.n_fields; i++) {
        if (!oc_str_eq(a->head.fields[i].name, b->head.fields[i].name)) abort();
        if (!oc_str_eq(a->head.fields[i].value, b->head.fields[i].value)) abort();
    }
    struct oc_str x = {a->body.bytes.data, a->body.bytes.n_bytes},
                  y = {b->body.bytes.data, b->body.bytes.n_bytes};
    if (!oc_str_eq(x, y)) abort();
}

static size_t count(const struct oc_http_head *h, const char *name) {
    size_t n = 0;
    for (size_t i = 0; i < h->n_fields; i++) n += oc_http_same(h->fields[i].name, name);
    return n;
}

static void must_keep_rules(const struct reading *r) {
    const struct oc_http_head *h = &r->head;
    if (count(h, "host") > 1 || (h->minor == 1 && count(h, "host") != 1)) abort();
    if (count(h, "content-length") + count(h, "transfer-encoding") > 1) abort();
    if (h->path.n == 0 || (h->path.p[0] != '/' && !oc_str_is(h->path, "*"))) abort();
    if (h->text.n_bytes > OC_LIMIT_HTTP_HEAD_BYTES || h->n_fields > OC_LIMIT_HTTP_HEADERS + 1) abort();
    for (size_t i = 0; i < h->n_fields; i++) {
        struct oc_str v = h->fields[i].value;
        if (v.n && (memchr(v.p, '\r', v.n) || memchr(v.p, '\n', v.n) || memchr(v.p, 0, v.n))) abort();
        if (v.n && (strchr(" \t", v.p[0]) || strchr(" \t", v.p[v.n - 1]))) abort();
    }
    if (r->body.bytes.n_bytes > MAX_BODY || r->body.bytes.n_bytes != r->body.total) abort();
    if (!h->chunked && r->body.total != h->length) abort();
}

static void look_up(const struct reading *r) {
    struct oc_buf out;
    oc_buf_init(&out, 256);
    const struct oc_http_request q = {
        .query = r->head.query, .headers = r->head.fields, .n_headers = r->head.n_fields};
    oc_http_request_param(&q, "a", &out);
    oc_http_request_header(&q, "a");
    oc_buf_free(&out);
}

static void drop(struct reading *r) {
    oc_http_head_free(&r->head);
    oc_http_body_free(&r->body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct reading whole, pieces;
    read_all(&whole, (const char *)data, n, 0);
    if (whole.verdict == OC_HTTP_DONE) {
        must_keep_rules(&whole);
        look_up(&whole);
    }
    for (uint32_t seed = 1; seed <= 3; seed++) {
        read_all(&pieces, (const char *)data, n, seed == 1 ? 1 : seed * 7919u + (uint32_t)n);
        if (n) must_be_same(&whole, &pieces);
        drop(&pieces);
    }
    drop(&whole);
    return 0;
}
