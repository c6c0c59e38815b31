/* base/buf.h - a growing byte buffer with a compulsory maximum.
 *
 * One owner, one thread at a time. After a failed append the buffer is unchanged and `failed` stays set, so a
 * run of appends may be checked once at its end. */
#ifndef OC_BASE_BUF_H
#define OC_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>

struct oc_buf {
    char *data; /* n_bytes bytes and a NUL, or NULL when nothing was appended */
    size_t n_bytes, cap_bytes, max_bytes;
    bool failed; /* an append met the maximum or the system's memory */
};

void oc_buf_init(struct oc_buf *b, size_t max_bytes);
void oc_buf_free(struct oc_buf *b);

/* Empties the buffer, keeps its memory, clears `failed`. */
void oc_buf_clear(struct oc_buf *b);

/* Makes room for n_bytes more; false when over the maximum or out of memory. */
bool oc_buf_reserve(struct oc_buf *b, size_t n_bytes);

/* Appends; false (and `failed`) as above. */
bool oc_buf_add(struct oc_buf *b, const void *p, size_t n_bytes);
bool oc_buf_add_str(struct oc_buf *b, const char *s);
bool oc_buf_add_char(struct oc_buf *b, char c);
bool oc_buf_printf(struct oc_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The bytes as a C string ("" when empty); owned by the buffer, valid until the next append. */
const char *oc_buf_str(const struct oc_buf *b);

#endif
