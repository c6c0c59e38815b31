#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void oc_buf_init(struct oc_buf *b, size_t max_bytes) {
    *b = (struct oc_buf){.max_bytes = max_bytes};
}

void oc_buf_free(struct oc_buf *b) {
    free(b->data);
    oc_buf_init(b, b->max_bytes);
}

void oc_buf_clear(struct oc_buf *b) {
    b->n_bytes = 0;
    b->failed = false;
    if (b->data) b->data[0] = '\0';
}

bool oc_buf_reserve(struct oc_buf *b, size_t n_bytes) {
    if (n_bytes > b->max_bytes || b->n_bytes > b->max_bytes - n_bytes) {
        b->failed = true;
        return false;
    }
    size_t need = b->n_bytes + n_bytes;
    if (b->data && need <= b->cap_bytes) return true;
    size_t cap = b->cap_bytes ? b->cap_bytes : 64;
    while (cap < need) cap *= 2;
    if (cap > b->max_bytes) cap = b->max_bytes;
    char *p = realloc(b->data, cap + 1);
    if (!p) {
        b->failed = true;
        return false;
    }
    b->data = p;
    b->cap_bytes = cap;
    return true;
}

bool oc_buf_add(struct oc_buf *b, const void *p, size_t n_bytes) {
    if (!oc_buf_reserve(b, n_bytes)) return false;
    if (n_bytes) memcpy(b->data + b->n_bytes, p, n_bytes);
    b->n_bytes += n_bytes;
    b->data[b->n_bytes] = '\0';
    return true;
}

bool oc_buf_add_str(struct oc_buf *b, const char *s) {
    return oc_buf_add(b, s, strlen(s));
}

bool oc_buf_add_char(struct oc_buf *b, char c) {
    return oc_buf_add(b, &c, 1);
}

bool oc_buf_printf(struct oc_buf *b, const char *fmt, ...) {
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    bool ok = n >= 0 && oc_buf_reserve(b, (size_t)n); /* room for the NUL is always there */
    if (ok) {
        vsnprintf(b->data + b->n_bytes, (size_t)n + 1, fmt, again);
        b->n_bytes += (size_t)n;
    }
    va_end(again);
    return ok;
}

const char *oc_buf_str(const struct oc_buf *b) {
    return b->data ? b->data : "";
}
