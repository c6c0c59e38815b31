#include "base/arena.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALIGN 16u
#define FIRST_BLOCK_BYTES 4096u
#define LARGEST_BLOCK_BYTES (1u << 20)

struct oc_arena_block {
    struct oc_arena_block *next;
    size_t size, used;
    _Alignas(16) unsigned char data[];
};

void oc_arena_init(struct oc_arena *a, size_t max_bytes) {
    *a = (struct oc_arena){.max_bytes = max_bytes};
}

void oc_arena_free(struct oc_arena *a) {
    struct oc_arena_block *b = a->head;
    while (b) {
        struct oc_arena_block *next = b->next;
        free(b);
        b = next;
    }
    a->head = NULL;
    a->used_bytes = 0;
}

static struct oc_arena_block *block_add(struct oc_arena *a, size_t n_bytes) {
    size_t size = a->head ? a->head->size * 2 : FIRST_BLOCK_BYTES;
    if (size > LARGEST_BLOCK_BYTES) size = LARGEST_BLOCK_BYTES;
    if (size < n_bytes) size = n_bytes;
    struct oc_arena_block *b = malloc(sizeof *b + size);
    if (!b) return NULL;
    *b = (struct oc_arena_block){.next = a->head, .size = size};
    a->head = b;
    return b;
}

void *oc_arena_alloc(struct oc_arena *a, size_t n_bytes) {
    if (n_bytes > SIZE_MAX - ALIGN) return NULL;
    size_t n = (n_bytes + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    if (n > a->max_bytes || a->used_bytes > a->max_bytes - n) return NULL;
    struct oc_arena_block *b = a->head;
    if (!b || b->size - b->used < n) b = block_add(a, n);
    if (!b) return NULL;
    void *p = b->data + b->used;
    b->used += n;
    a->used_bytes += n;
    return memset(p, 0, n);
}

void *oc_arena_array(struct oc_arena *a, size_t count, size_t size_bytes) {
    size_t n;
    if (__builtin_mul_overflow(count, size_bytes, &n)) return NULL;
    return oc_arena_alloc(a, n);
}

char *oc_arena_strndup(struct oc_arena *a, const char *s, size_t n_bytes) {
    if (n_bytes == SIZE_MAX) return NULL;
    char *p = oc_arena_alloc(a, n_bytes + 1);
    if (p && n_bytes) memcpy(p, s, n_bytes);
    return p;
}

char *oc_arena_printf(struct oc_arena *a, const char *fmt, ...) {
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *p = n < 0 ? NULL : oc_arena_alloc(a, (size_t)n + 1);
    if (p) vsnprintf(p, (size_t)n + 1, fmt, again);
    va_end(again);
    return p;
}
