/* http/head.h - the head of one request: bytes in pieces of any size to a checked request line and fields.
 *
 * Pure: no I/O, no clock. The verdict depends on the bytes only, never on how they were cut into pieces: the
 * machine looks at one byte at a time, and what needs whole fields is looked at when the head is complete.
 * Internal to the room, and for its tests. */
#ifndef OC_HTTP_HEAD_H
#define OC_HTTP_HEAD_H

#include "http/http.h"

enum oc_http_parse { OC_HTTP_MORE, OC_HTTP_DONE, OC_HTTP_BAD };

/* Why a message is refused; message is a constant sentence. */
struct oc_http_fault {
    int status;
    const char *message;
};

struct oc_http_head {
    /* The machine */
    struct oc_buf text; /* all bytes of the head so far */
    size_t max_bytes;
    uint8_t state;
    bool skipped_line; /* the one empty line allowed before a request line */
    size_t method_at, target_at, version_at, fields_at, n_lines;
    struct oc_http_fault fault; /* after OC_HTTP_BAD */

    /* What the head says, after OC_HTTP_DONE; spans lie in `text`, the array is owned */
    enum oc_http_method method;
    struct oc_str method_name, target, path, query;
    struct oc_http_header *fields;
    size_t n_fields;
    int minor; /* HTTP/1.minor: 0 or 1 */
    bool keep_alive, expect_continue, chunked, has_length;
    uint64_t length; /* Content-Length; UINT64_MAX stands for anything over 18 digits */
};

void oc_http_head_init(struct oc_http_head *h, size_t max_bytes);
void oc_http_head_free(struct oc_http_head *h);

/* Takes bytes up to the end of the head or the first fault; *n_taken says how many. */
enum oc_http_parse oc_http_head_feed(struct oc_http_head *h, const char *p, size_t n, size_t *n_taken);

/* True once a byte has come that belongs to a request (an empty line before it does not). */
bool oc_http_head_begun(const struct oc_http_head *h);

/* True if the request line, as far as it came, is that of HEAD: an answer must have no body. */
bool oc_http_head_is_head(const struct oc_http_head *h);

/* Marks the head as refused. */
void oc_http_head_refuse(struct oc_http_head *h, int status, const char *message);

/* The rules that need whole lines (head_rules.c): fills in what the head says; false with h->fault set. */
bool oc_http_head_rules(struct oc_http_head *h);

#endif
