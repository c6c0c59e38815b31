/* base/arena.h - memory that lives and dies together.
 *
 * A request, a loaded config or a parsed JSON file owns one arena; everything in it is freed at once. Not
 * thread-safe: one arena, one thread at a time. Blocks grow geometrically up to `max_bytes` in all. */
#ifndef OC_BASE_ARENA_H
#define OC_BASE_ARENA_H

#include <stdbool.h>
#include <stddef.h>

struct oc_arena_block;

struct oc_arena {
    struct oc_arena_block *head;
    size_t used_bytes; /* handed out, alignment included */
    size_t max_bytes;  /* allocations past it return NULL */
};

/* Makes an empty arena; nothing is allocated until the first use. */
void oc_arena_init(struct oc_arena *a, size_t max_bytes);

/* Frees all that was ever allocated from the arena; it may be used again after. */
void oc_arena_free(struct oc_arena *a);

/* Zeroed memory aligned to 16 bytes, or NULL when the arena's maximum or the system's memory is reached.
 * n_bytes of 0 gives a valid pointer. */
void *oc_arena_alloc(struct oc_arena *a, size_t n_bytes);

/* The same for an array; NULL also when count * size_bytes overflows. */
void *oc_arena_array(struct oc_arena *a, size_t count, size_t size_bytes);

/* A NUL-terminated copy of n_bytes bytes, or NULL as above. */
char *oc_arena_strndup(struct oc_arena *a, const char *s, size_t n_bytes);

/* printf into the arena, or NULL as above. */
char *oc_arena_printf(struct oc_arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
