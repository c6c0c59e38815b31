/* base/file.h - reading files: small ones whole, big ones mapped.
 *
 * Any thread; no state. Errors name the path. */
#ifndef OC_BASE_FILE_H
#define OC_BASE_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/str.h"

/* A read-only private mapping of a whole file. Owned by whoever opened it. */
struct oc_map {
    const uint8_t *data; /* NULL for an empty file */
    size_t n_bytes;
};

/* Errors: OC_ERR_NOT_FOUND, OC_ERR_IO (also for a directory or other non-file). */
OC_MUST_CHECK enum oc_err oc_map_open(const char *path, struct oc_map *out, struct oc_errinfo *ei);
void oc_map_close(struct oc_map *m);

/* Reads a file of at most max_bytes into the arena, NUL-terminated past out->n. Pipes and devices are read
 * to their end. Errors: as above, OC_ERR_LIMIT (too big), OC_ERR_NOMEM. */
OC_MUST_CHECK enum oc_err oc_file_read(struct oc_arena *a, const char *path, size_t max_bytes,
                                       struct oc_str *out, struct oc_errinfo *ei);

/* The same for an open descriptor, which stays open; `name` is for messages. */
OC_MUST_CHECK enum oc_err oc_file_read_fd(struct oc_arena *a, int fd, const char *name, size_t max_bytes,
                                          struct oc_str *out, struct oc_errinfo *ei);

/* True if path names an existing regular file (or a link to one). */
bool oc_file_exists(const char *path);
bool oc_file_is_dir(const char *path);

/* "dir/name" in the arena; NULL when out of memory or longer than OC_LIMIT_PATH_BYTES. */
char *oc_path_join(struct oc_arena *a, const char *dir, const char *name);

#endif
