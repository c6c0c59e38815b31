/* http/body.h - the body of one request: by length or chunked (RFC 9112 sections 6 and 7), in pieces of any
 * size.
 *
 * Pure: no I/O, no clock; the verdict depends on the bytes only. Chunk extensions are checked, counted and
 * dropped, and so are trailer fields. Internal to the room, and for its tests. */
#ifndef OC_HTTP_BODY_H
#define OC_HTTP_BODY_H

#include "http/head.h"

struct oc_http_body {
    uint8_t state;
    bool chunked, discard; /* discard: bytes are counted, not kept */
    uint64_t left;         /* of the body, or of the chunk */
    uint64_t total, max;   /* de-chunked bytes so far, and their maximum */
    size_t n_digits, n_ext_bytes, n_trailer_bytes;
    struct oc_buf bytes;        /* the body */
    struct oc_http_fault fault; /* after OC_HTTP_BAD */
};

/* What follows the head, at most max_bytes of it. OC_HTTP_DONE: nothing follows. OC_HTTP_BAD: 413, or 503
 * without memory. */
enum oc_http_parse oc_http_body_begin(struct oc_http_body *b, const struct oc_http_head *h, size_t max_bytes,
                                      bool discard);
void oc_http_body_free(struct oc_http_body *b);

/* Takes bytes up to the end of the body or the first fault; *n_taken says how many. */
enum oc_http_parse oc_http_body_feed(struct oc_http_body *b, const char *p, size_t n, size_t *n_taken);

#endif
