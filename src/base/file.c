#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/limits.h"

static enum oc_err open_failed(struct oc_errinfo *ei, const char *path) {
    int e = errno;
    if (e == ENOENT || e == ENOTDIR) return oc_fail(ei, OC_ERR_NOT_FOUND, "%s: no such file", path);
    return oc_fail(ei, OC_ERR_IO, "%s: cannot open: %s", path, strerror(e));
}

enum oc_err oc_map_open(const char *path, struct oc_map *out, struct oc_errinfo *ei) {
    *out = (struct oc_map){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return open_failed(ei, path);
    enum oc_err err = OC_OK;
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        err = oc_fail(ei, OC_ERR_IO, "%s: not a regular file", path);
        goto out;
    }
    if (st.st_size == 0) goto out;
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED) {
        err = oc_fail(ei, OC_ERR_IO, "%s: cannot map: %s", path, strerror(errno));
        goto out;
    }
    *out = (struct oc_map){p, (size_t)st.st_size};
out:
    close(fd);
    return err;
}

void oc_map_close(struct oc_map *m) {
    if (m->data) munmap((void *)m->data, m->n_bytes);
    *m = (struct oc_map){0};
}

enum oc_err oc_file_read_fd(struct oc_arena *a, int fd, const char *name, size_t max_bytes,
                            struct oc_str *out, struct oc_errinfo *ei) {
    size_t cap = 64 * OC_KIB, n = 0;
    struct stat st;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) cap = (size_t)st.st_size + 1;
    if (cap > max_bytes + 1) cap = max_bytes + 1;
    char *tmp = malloc(cap);
    enum oc_err err = OC_OK;
    while (tmp) {
        if (n == cap) {
            if (cap > max_bytes) break;
            cap = cap > max_bytes / 2 ? max_bytes + 1 : cap * 2;
            char *bigger = realloc(tmp, cap);
            if (!bigger) {
                err = oc_fail(ei, OC_ERR_NOMEM, "%s: out of memory while reading", name);
                goto out;
            }
            tmp = bigger;
        }
        ssize_t got = read(fd, tmp + n, cap - n);
        if (got == 0) break;
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) {
            err = oc_fail(ei, OC_ERR_IO, "%s: cannot read: %s", name, strerror(errno));
            goto out;
        }
        n += (size_t)got;
    }
    if (n > max_bytes) {
        err = oc_fail(ei, OC_ERR_LIMIT, "%s: larger than the %zu bytes allowed here", name, max_bytes);
        goto out;
    }
    out->p = tmp ? oc_arena_strndup(a, tmp, n) : NULL;
    out->n = n;
    if (!out->p) err = oc_fail(ei, OC_ERR_NOMEM, "%s: out of memory while reading", name);
out:
    free(tmp);
    return err;
}

enum oc_err oc_file_read(struct oc_arena *a, const char *path, size_t max_bytes, struct oc_str *out,
                         struct oc_errinfo *ei) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return open_failed(ei, path);
    enum oc_err err = oc_file_read_fd(a, fd, path, max_bytes, out, ei);
    close(fd);
    return err;
}

bool oc_file_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

bool oc_file_is_dir(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

char *oc_path_join(struct oc_arena *a, const char *dir, const char *name) {
    size_t n = strlen(dir);
    if (n + strlen(name) + 2 > OC_LIMIT_PATH_BYTES) return NULL;
    const char *sep = n && dir[n - 1] == '/' ? "" : "/";
    return oc_arena_printf(a, "%s%s%s", dir, sep, name);
}
