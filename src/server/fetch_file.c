/* Pictures from files below the media directory. */
#define _GNU_SOURCE /* O_PATH */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/limits.h"
#include "server/fetch_impl.h"

#define OPEN_FLAGS (O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK) /* opening a FIFO must not wait */

/* ---- Names --------------------------------------------------------------------------------------------- */

static int hex(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Copies the path, with %XX decoded in URLs. False: a NUL, a broken escape, too long. */
static bool copy_path(struct oc_str s, bool is_url, char out[OC_LIMIT_PATH_BYTES]) {
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (is_url && (c == '?' || c == '#')) return false;
        if (is_url && c == '%') {
            int high = i + 2 < s.n ? hex(s.p[i + 1]) : -1, low = i + 2 < s.n ? hex(s.p[i + 2]) : -1;
            if (high < 0 || low < 0) return false;
            c = (char)(high << 4 | low);
            i += 2;
        }
        if (!c || n + 1 >= OC_LIMIT_PATH_BYTES) return false;
        out[n++] = c;
    }
    out[n] = '\0';
    return n > 0;
}

/* The path of "file:///a", "file://localhost/a", "file:/a", or of a plain path. */
static bool path_of(struct oc_str url, char out[OC_LIMIT_PATH_BYTES]) {
    bool is_url = url.n >= 5 && strncasecmp(url.p, "file:", 5) == 0;
    if (!is_url) return copy_path(url, false, out);
    struct oc_str s = {url.p + 5, url.n - 5};
    if (oc_str_starts(s, OC_STR("//")))
        s = (struct oc_str){s.p + 2, s.n - 2};
    else if (!oc_str_starts(s, OC_STR("/")))
        return false;
    if (s.n >= 10 && strncasecmp(s.p, "localhost/", 10) == 0) s = (struct oc_str){s.p + 9, s.n - 9};
    return s.n && s.p[0] == '/' && copy_path(s, true, out);
}

/* What is left of path below dir; NULL when it does not stand there. */
static const char *below(const char *path, const char *dir) {
    size_t n = strlen(dir);
    while (n > 1 && dir[n - 1] == '/') n--;
    if (strncmp(path, dir, n) != 0) return NULL;
    path += n;
    if (*path != '/' && (n != 1 || dir[0] != '/')) return NULL;
    while (*path == '/') path++;
    return *path ? path : NULL;
}

/* The path relative to the media directory, which may be named by itself or with its links resolved. */
static const char *relative(const char *path, const char *media_dir) {
    char real[PATH_MAX];
    if (path[0] != '/') return path;
    const char *rest = below(path, media_dir);
    if (rest || !realpath(media_dir, real)) return rest;
    size_t n = strlen(real);
    return below(path, real) ? path + n + strspn(path + n, "/") : NULL;
}

/* ---- Opening ------------------------------------------------------------------------------------------- */

/* Name after name without following any link. */
static int open_step_by_step(int dir, const char *path) {
    int at = dir;
    while (at >= 0) {
        char name[NAME_MAX + 1];
        size_t n = strcspn(path, "/"), skip = n + strspn(path + n, "/");
        bool last = path[skip] == '\0', climbs = n == 2 && path[0] == '.' && path[1] == '.';
        int next = -1;
        errno = climbs ? EXDEV : ENAMETOOLONG;
        if (!climbs && n > 0 && n < sizeof name) {
            memcpy(name, path, n);
            name[n] = '\0';
            next = openat(at, name, (last ? OPEN_FLAGS : O_PATH | O_DIRECTORY | O_CLOEXEC) | O_NOFOLLOW);
        }
        int e = errno;
        if (at != dir) close(at);
        errno = e;
        at = next;
        path += skip;
        if (last) break;
    }
    return at;
}

int oc_fetch_open_beneath(int dir, const char *path, bool old_kernel) {
    struct open_how how = {.flags = OPEN_FLAGS, .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    for (int i = 0; !old_kernel && i < 16; i++) { /* EAGAIN: somebody moves directories about meanwhile */
        long fd = syscall(SYS_openat2, dir, path, &how, sizeof how);
        if (fd >= 0) return (int)fd;
        if (errno == ENOSYS || errno == EPERM)
            return open_step_by_step(dir, path); /* an old kernel; some containers */
        if (errno != EAGAIN && errno != EINTR) return -1;
    }
    return old_kernel ? open_step_by_step(dir, path) : -1;
}

/* Says no more about what is outside than that it is outside. */
static enum oc_err open_failed(struct oc_errinfo *ei) {
    switch (errno) {
    case ENOENT:
    case ENOTDIR:
    case ENAMETOOLONG:
        return oc_fail(ei, OC_ERR_NOT_FOUND, "file not found below the media directory");
    case EXDEV:
    case ELOOP:
        return oc_fail(ei, OC_ERR_USAGE, "the path leads out of the media directory");
    default:
        return oc_fail(ei, OC_ERR_IO, "the file cannot be opened: %s", strerror(errno));
    }
}

static enum oc_err copy(int fd, const struct oc_fetch_options *o, struct oc_fetch_sink *s,
                        struct oc_errinfo *ei) {
    struct stat st;
    char block[16 * 1024];
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) return oc_fail(ei, OC_ERR_USAGE, "not a file");
    if ((uint64_t)st.st_size > s->max_bytes) return oc_fetch_too_big((uint64_t)st.st_size, s->max_bytes, ei);
    for (;;) {
        if (oc_fetch_is_cancelled(o)) return oc_fail(ei, OC_ERR_CANCELLED, "cancelled");
        ssize_t n = read(fd, block, sizeof block);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return oc_fail(ei, OC_ERR_IO, "the file cannot be read: %s", strerror(errno));
        if (n == 0) return OC_OK;
        OC_TRY(oc_fetch_sink_add(s, block, (size_t)n, ei));
    }
}

enum oc_err oc_fetch_file(struct oc_str url, const struct oc_fetch_options *o, struct oc_fetch_sink *s,
                          struct oc_errinfo *ei) {
    char path[OC_LIMIT_PATH_BYTES];
    if (!path_of(url, path)) return oc_fail(ei, OC_ERR_USAGE, "not a path or file: URL of a local file");
    const char *name = relative(path, o->media_dir);
    if (!name) return oc_fail(ei, OC_ERR_USAGE, "the path leads out of the media directory");
    int dir = open(o->media_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0) return oc_fail(ei, OC_ERR_IO, "the media directory cannot be opened: %s", strerror(errno));
    int fd = oc_fetch_open_beneath(dir, name, false);
    enum oc_err err = fd < 0 ? open_failed(ei) : copy(fd, o, s, ei);
    if (fd >= 0) oc_fetch_close(fd);
    close(dir);
    return err;
}
