#include "server/runtime.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/file.h"
#include "base/limits.h"

#define MAX_CHILDREN (2 * (OC_LIMIT_SERVER_WORKERS + OC_LIMIT_SERVER_IMAGE_WORKERS))
#define FILE_BYTES (16 * OC_KIB)
#define SUFFIX ".children"

struct child {
    pid_t pid;
    uint64_t start_time;
};

struct oc_server_runtime {
    int fd;
    char path[OC_LIMIT_PATH_BYTES];
    char boot[64];
    struct child children[MAX_CHILDREN];
    int n;
};

/* ---- Parsing ------------------------------------------------------------------------------------------- */

/* A decimal number at the start of *s, which moves past it. */
static bool take_number(struct oc_str *s, uint64_t *out) {
    uint64_t v = 0;
    size_t n = 0;
    for (; n < s->n && s->p[n] >= '0' && s->p[n] <= '9'; n++) {
        if (v > (UINT64_MAX - 9) / 10) return false;
        v = v * 10 + (uint64_t)(s->p[n] - '0');
    }
    *s = (struct oc_str){s->p + n, s->n - n};
    *out = v;
    return n > 0;
}

uint64_t oc_server_runtime_parse_stat(struct oc_str text) {
    size_t at = text.n; /* the name in parentheses may hold anything: look from the end */
    while (at && text.p[at - 1] != ')') at--;
    if (!at) return 0;
    struct oc_str rest = {text.p + at, text.n - at};
    for (int field = 2; field < 22; field++) { /* the blank before field 3 comes first */
        while (rest.n && rest.p[0] != ' ') rest = (struct oc_str){rest.p + 1, rest.n - 1};
        if (!rest.n) return 0;
        rest = (struct oc_str){rest.p + 1, rest.n - 1};
    }
    uint64_t v;
    return take_number(&rest, &v) ? v : 0;
}

bool oc_server_runtime_parse_child(struct oc_str line, pid_t *pid, uint64_t *start_time) {
    uint64_t id;
    if (!take_number(&line, &id) || id < 2 || id > INT_MAX || !line.n || line.p[0] != ' ') return false;
    line = (struct oc_str){line.p + 1, line.n - 1};
    *pid = (pid_t)id;
    return take_number(&line, start_time) && *start_time && line.n == 0;
}

/* ---- Files of /proc ------------------------------------------------------------------------------------ */

/* A small file's first bytes, without the last line end. */
static struct oc_str read_small(const char *path, char *buf, size_t cap) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, buf, cap) : -1;
    if (fd >= 0) close(fd);
    while (n > 0 && buf[n - 1] == '\n') n--;
    return (struct oc_str){buf, n > 0 ? (size_t)n : 0};
}

uint64_t oc_server_runtime_start_time(pid_t pid) {
    char path[64], buf[1024];
    snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
    return oc_server_runtime_parse_stat(read_small(path, buf, sizeof buf));
}

/* The name of the program a process runs, without its folder and without the mark of a replaced file. */
static struct oc_str program_of(const char *link, char *buf, size_t cap) {
    ssize_t n = readlink(link, buf, cap);
    struct oc_str s = {buf, n > 0 ? (size_t)n : 0};
    if (oc_str_ends(s, OC_STR(" (deleted)"))) s.n -= strlen(" (deleted)");
    for (size_t i = s.n; i; i--)
        if (s.p[i - 1] == '/') return (struct oc_str){s.p + i, s.n - i};
    return s;
}

/* True when the process is a child that an orchestrator of this program wrote down. */
static bool is_leftover(pid_t pid, uint64_t start_time) {
    char link[64], theirs[OC_LIMIT_PATH_BYTES], ours[OC_LIMIT_PATH_BYTES];
    if (oc_server_runtime_start_time(pid) != start_time) return false;
    snprintf(link, sizeof link, "/proc/%ld/exe", (long)pid);
    struct oc_str a = program_of(link, theirs, sizeof theirs),
                  b = program_of("/proc/self/exe", ours, sizeof ours);
    return a.n && oc_str_eq(a, b);
}

/* ---- Leftovers ----------------------------------------------------------------------------------------- */

static struct oc_str next_line(struct oc_str *text) {
    const char *end = text->n ? memchr(text->p, '\n', text->n) : NULL;
    size_t n = end ? (size_t)(end - text->p) : text->n, skip = n + (end != NULL);
    struct oc_str line = {text->p, n};
    *text = (struct oc_str){text->p + skip, text->n - skip};
    return line;
}

static int end_children(const struct oc_server_runtime *r, int fd) {
    char buf[FILE_BYTES];
    ssize_t n = pread(fd, buf, sizeof buf, 0);
    struct oc_str text = {buf, n > 0 ? (size_t)n : 0}, line;
    if (!oc_str_is(next_line(&text), r->boot)) return 0; /* of an earlier boot */
    int n_ended = 0;
    while (text.n) {
        pid_t pid;
        uint64_t start_time;
        line = next_line(&text);
        if (oc_server_runtime_parse_child(line, &pid, &start_time) && is_leftover(pid, start_time))
            n_ended += kill(pid, SIGKILL) == 0;
    }
    return n_ended;
}

/* A file whose lock is free has no living owner. */
static int sweep_file(const struct oc_server_runtime *r, int dir_fd, const char *name) {
    int fd = openat(dir_fd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) return 0;
    int n = 0;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
        n = end_children(r, fd);
        unlinkat(dir_fd, name, 0);
    }
    close(fd);
    return n;
}

static int sweep(const struct oc_server_runtime *r, const char *dir) {
    DIR *d = opendir(dir);
    int n = 0;
    for (struct dirent *e; d && (e = readdir(d));)
        if (oc_str_ends(oc_str_from(e->d_name), OC_STR(SUFFIX))) n += sweep_file(r, dirfd(d), e->d_name);
    if (d) closedir(d);
    return n;
}

/* ---- Opening ------------------------------------------------------------------------------------------- */

static enum oc_err make_dir(const char *dir, struct oc_errinfo *ei) {
    struct stat st;
    if (mkdir(dir, 0700) && errno != EEXIST)
        return oc_fail(ei, OC_ERR_IO, "the runtime directory %.300s cannot be made: %s", dir,
                       strerror(errno));
    if (lstat(dir, &st) || !S_ISDIR(st.st_mode))
        return oc_fail(ei, OC_ERR_IO, "the runtime directory %.300s is not a directory", dir);
    if (st.st_uid != geteuid() || (st.st_mode & 022))
        return oc_fail(ei, OC_ERR_IO,
                       "the runtime directory %.300s belongs to someone else or others may write to it", dir);
    return OC_OK;
}

static void write_list(struct oc_server_runtime *r) {
    struct oc_buf b;
    oc_buf_init(&b, FILE_BYTES);
    oc_buf_printf(&b, "%s\n", r->boot);
    for (int i = 0; i < r->n; i++)
        oc_buf_printf(&b, "%ld %llu\n", (long)r->children[i].pid,
                      (unsigned long long)r->children[i].start_time);
    if (!b.failed && pwrite(r->fd, oc_buf_str(&b), b.n_bytes, 0) == (ssize_t)b.n_bytes &&
        ftruncate(r->fd, (off_t)b.n_bytes)) {
        /* nothing to be done: the list is a help, not a promise */
    }
    oc_buf_free(&b);
}

static enum oc_err take_lock(struct oc_server_runtime *r, const char *dir, struct oc_errinfo *ei) {
    int n = snprintf(r->path, sizeof r->path, "%s/%ld" SUFFIX, dir, (long)getpid());
    if (n < 0 || (size_t)n >= sizeof r->path)
        return oc_fail(ei, OC_ERR_IO, "the runtime directory's path is too long");
    r->fd = open(r->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (r->fd < 0 || flock(r->fd, LOCK_EX | LOCK_NB))
        return oc_fail(ei, OC_ERR_IO, "the file %.300s cannot be made or locked: %s", r->path,
                       strerror(errno));
    write_list(r);
    return OC_OK;
}

static enum oc_err open_in(struct oc_server_runtime *r, const char *dir, int *n_ended,
                           struct oc_errinfo *ei) {
    char boot[sizeof r->boot];
    struct oc_str id = read_small("/proc/sys/kernel/random/boot_id", boot, sizeof boot - 1);
    snprintf(r->boot, sizeof r->boot, "%.*s", (int)id.n, id.p);
    OC_TRY(make_dir(dir, ei));
    *n_ended = sweep(r, dir);
    return take_lock(r, dir, ei);
}

enum oc_err oc_server_runtime_open(const char *dir, struct oc_server_runtime **out, int *n_ended,
                                   struct oc_errinfo *ei) {
    struct oc_server_runtime *r = calloc(1, sizeof *r);
    *out = NULL;
    *n_ended = 0;
    if (!r) return oc_fail(ei, OC_ERR_NOMEM, "no memory for the list of children");
    r->fd = -1;
    enum oc_err err = open_in(r, dir, n_ended, ei);
    if (err) {
        if (r->fd >= 0) close(r->fd);
        free(r);
        return err;
    }
    *out = r;
    return OC_OK;
}

void oc_server_runtime_close(struct oc_server_runtime *r) {
    if (!r) return;
    unlink(r->path);
    close(r->fd);
    free(r);
}

void oc_server_runtime_add(struct oc_server_runtime *r, pid_t pid) {
    if (r->n == MAX_CHILDREN) return;
    r->children[r->n++] = (struct child){pid, oc_server_runtime_start_time(pid)};
    write_list(r);
}

void oc_server_runtime_remove(struct oc_server_runtime *r, pid_t pid) {
    for (int i = 0; i < r->n; i++) {
        if (r->children[i].pid != pid) continue;
        r->children[i] = r->children[--r->n];
        write_list(r);
        return;
    }
}
