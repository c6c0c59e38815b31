#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/json.h"
#include "base/limits.h"

#define MAX_NAME 48
#define CUT_ROOM 24 /* kept free for the mark of a line that was cut, its brace and its newline */

struct oc_log {
    pthread_mutex_t lock; /* over fd, tail, n_unsaid */
    int fd;
    bool owns_fd, json;
    enum oc_log_level least;
    char name[MAX_NAME];
    char *path;
    /* A sink that took only a part of a line gets the rest before anything else. */
    char tail[OC_LIMIT_LOG_LINE_BYTES];
    size_t tail_n;
    uint64_t n_unsaid; /* lines lost since the last line that said so */
    atomic_uint_fast64_t n_dropped;
};

static const struct {
    const char *text, *json;
} levels[] = {{"DEBUG", "debug"}, {"INFO ", "info"}, {"WARN ", "warn"}, {"ERROR", "error"}};
#define N_LEVELS (sizeof levels / sizeof levels[0])

bool oc_log_level_parse(struct oc_str s, enum oc_log_level *out) {
    for (size_t i = 0; i < N_LEVELS; i++) {
        if (s.n != strlen(levels[i].json) || strncasecmp(s.p, levels[i].json, s.n) != 0) continue;
        *out = (enum oc_log_level)i;
        return true;
    }
    return false;
}

/* ---- One line ------------------------------------------------------------------------------------------ */

struct line {
    char p[OC_LIMIT_LOG_LINE_BYTES];
    size_t n;
    bool cut;
};

static bool has_room(const struct line *l, size_t n_bytes) {
    return l->n + n_bytes + CUT_ROOM <= sizeof l->p;
}

static void put(struct line *l, const char *p, size_t n) {
    if (!has_room(l, n)) {
        l->cut = true;
        return;
    }
    memcpy(l->p + l->n, p, n);
    l->n += n;
}

static void put_str(struct line *l, const char *s) {
    put(l, s, strlen(s));
}

/* Ill-formed UTF-8 and what moves the cursor or ends a line somewhere: C0, DEL, C1, U+2028 and 2029, and the
 * controls of writing direction, which can make a line read as another. */
static bool is_control(uint32_t cp) {
    return cp < 0x20 || (cp >= 0x7F && cp <= 0x9F) || cp == 0x2028 || cp == 0x2029 ||
           (cp >= 0x202A && cp <= 0x202E) || (cp >= 0x2066 && cp <= 0x2069);
}

/* One code point as it stands in a line: itself or a JSON escape. Returns the length of out. */
static size_t escape(uint32_t cp, bool quoted, char out[8]) {
    static const char named[] = "\b\f\n\r\t", letters[] = "bfnrt";
    const char *hit = cp && cp < 0x20 ? strchr(named, (int)cp) : NULL;
    if (hit) return (size_t)snprintf(out, 8, "\\%c", letters[hit - named]);
    if (is_control(cp)) return (size_t)snprintf(out, 8, "\\u%04x", cp);
    if (quoted && (cp == '"' || cp == '\\')) return (size_t)snprintf(out, 8, "\\%c", (char)cp);
    return oc_utf8_encode(cp, out);
}

/* Writes s escaped; what does not fit is left out and an ellipsis put in its place. */
static void put_escaped(struct line *l, struct oc_str s, bool quoted) {
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        char out[8];
        i += oc_utf8_decode(s.p + i, s.n - i, &cp);
        size_t n = escape(cp, quoted, out);
        if (!has_room(l, n + 4)) { /* "..." and the quotation mark */
            put_str(l, "...");
            l->cut = true;
            return;
        }
        put(l, out, n);
    }
}

static void put_quoted(struct line *l, struct oc_str s) {
    put_str(l, "\"");
    put_escaped(l, s, true);
    put_str(l, "\"");
}

/* Text without quotation marks is easier on the eye, where nobody can take it for something else. */
static bool needs_quotes(struct oc_str s) {
    if (s.n == 0) return true;
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        i += oc_utf8_decode(s.p + i, s.n - i, &cp);
        if (is_control(cp) || cp == ' ' || cp == '"' || cp == '=' || cp == '\\' || cp == 0xFFFD) return true;
    }
    return false;
}

static void put_value(struct line *l, const struct oc_log_field *f, bool json) {
    char number[40];
    switch (f->kind) {
    case OC_LOG_STR:
        if (json || needs_quotes(f->str))
            put_quoted(l, f->str);
        else
            put_escaped(l, f->str, false);
        return;
    case OC_LOG_INT:
        snprintf(number, sizeof number, "%lld", (long long)f->i);
        break;
    case OC_LOG_NUM:
        if (isfinite(f->d))
            snprintf(number, sizeof number, "%.6g", f->d);
        else
            snprintf(number, sizeof number, "null");
        break;
    }
    put_str(l, number);
}

/* A field whose beginning does not fit is left out whole. */
static void put_field(struct line *l, const struct oc_log_field *f, bool json) {
    struct oc_str key = oc_str_from(f->key);
    if (!has_room(l, 2 * key.n + 48)) {
        l->cut = true;
        return;
    }
    put_str(l, json ? "," : " ");
    if (json)
        put_quoted(l, key);
    else
        put_escaped(l, key, false);
    put_str(l, json ? ":" : "=");
    put_value(l, f, json);
}

static void put_head(struct line *l, bool json, enum oc_log_level level, const char *name) {
    struct timespec now;
    struct tm tm;
    char text[80];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    size_t n = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(text + n, sizeof text - n, ".%03dZ", (int)(now.tv_nsec / 1000000));
    put_str(l, json ? "{\"time\":\"" : "");
    put_str(l, text);
    put_str(l, json ? "\",\"level\":\"" : " ");
    put_str(l, json ? levels[level].json : levels[level].text);
    put_str(l, json ? "\",\"name\":" : " ");
    if (json)
        put_quoted(l, oc_str_from(name));
    else
        put_escaped(l, oc_str_from(name), false);
    put_str(l, json ? ",\"message\":" : ": ");
}

/* Ends the line; the mark, the brace and the newline have the room that put() never uses. */
static void finish(struct line *l, bool json) {
    const char *end = json ? (l->cut ? ",\"cut\":true}\n" : "}\n") : (l->cut ? " cut=true\n" : "\n");
    size_t n = strlen(end);
    memcpy(l->p + l->n, end, n);
    l->n += n;
}

static void compose(struct line *l, bool json, enum oc_log_level level, const char *name,
                    struct oc_str message, const struct oc_log_field *fields, int n) {
    l->n = 0;
    l->cut = false;
    put_head(l, json, level, name);
    if (json)
        put_quoted(l, message);
    else
        put_escaped(l, message, false);
    for (int i = 0; i < n; i++) put_field(l, &fields[i], json);
    finish(l, json);
}

/* ---- The sink ------------------------------------------------------------------------------------------ */

/* Returns the bytes taken, 0 when it takes none. */
static size_t sink(struct oc_log *log, const char *p, size_t n) {
    ssize_t got;
    do got = write(log->fd, p, n);
    while (got < 0 && errno == EINTR);
    return got > 0 ? (size_t)got : 0;
}

static bool flush_tail(struct oc_log *log) {
    if (!log->tail_n) return true;
    size_t got = sink(log, log->tail, log->tail_n);
    log->tail_n -= got;
    memmove(log->tail, log->tail + got, log->tail_n);
    return log->tail_n == 0;
}

/* Under the lock. False: the line is lost. */
static bool emit(struct oc_log *log, const char *p, size_t n) {
    if (!flush_tail(log)) return false;
    size_t got = sink(log, p, n);
    if (got == 0) return false;
    log->tail_n = n - got;
    memcpy(log->tail, p + got, log->tail_n);
    return true;
}

/* Under the lock: says how many lines are missing here, as soon as the sink takes lines again. */
static bool tell_losses(struct oc_log *log) {
    if (!log->n_unsaid) return true;
    struct line l;
    struct oc_log_field f = OC_LOG_I("n_lines", (int64_t)log->n_unsaid);
    compose(&l, log->json, OC_LOG_WARN, log->name, OC_STR("log lines were lost here"), &f, 1);
    if (!emit(log, l.p, l.n)) return false;
    log->n_unsaid = 0;
    return true;
}

static void write_line(struct oc_log *log, const struct line *l) {
    pthread_mutex_lock(&log->lock);
    if (!tell_losses(log) || !emit(log, l->p, l->n)) {
        log->n_unsaid++;
        atomic_fetch_add(&log->n_dropped, 1);
    }
    pthread_mutex_unlock(&log->lock);
}

void oc_log_write(struct oc_log *log, enum oc_log_level level, const char *message,
                  const struct oc_log_field *fields, int n) {
    if (!log || level < log->least) return;
    struct line l;
    compose(&l, log->json, level, log->name, oc_str_from(message), fields, n);
    write_line(log, &l);
}

/* ---- Lines of other processes -------------------------------------------------------------------------- */

static bool has_control(struct oc_str s) {
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        i += oc_utf8_decode(s.p + i, s.n - i, &cp);
        if (is_control(cp) || cp == 0xFFFD) return true;
    }
    return false;
}

/* True for a line that a logger of ours in text form wrote: it starts with a time. */
static bool is_text_line(struct oc_str s) {
    static const char shape[] = "0000-00-00T00:00:00.000Z ";
    if (s.n < sizeof shape - 1) return false;
    for (size_t i = 0; i < sizeof shape - 1; i++) {
        bool digit = s.p[i] >= '0' && s.p[i] <= '9';
        if (shape[i] == '0' ? !digit : s.p[i] != shape[i]) return false;
    }
    return true;
}

static bool is_json_line(struct oc_str s) {
    if (s.n < 2 || s.p[0] != '{') return false;
    struct oc_arena a;
    struct oc_json v;
    oc_arena_init(&a, 64 * OC_LIMIT_LOG_LINE_BYTES);
    bool ok = oc_json_parse(&a, s, "line", &v, NULL) == OC_OK && v.type == OC_JSON_OBJ;
    oc_arena_free(&a);
    return ok;
}

void oc_log_relay(struct oc_log *log, const char *name, struct oc_str text) {
    if (!log) return;
    while (text.n && (text.p[text.n - 1] == '\n' || text.p[text.n - 1] == '\r')) text.n--;
    if (!text.n) return;
    struct line l = {.n = 0, .cut = false};
    bool as_it_is =
        has_room(&l, text.n) && !has_control(text) && (log->json ? is_json_line(text) : is_text_line(text));
    if (as_it_is) {
        put(&l, text.p, text.n);
        l.p[l.n++] = '\n';
    } else if (OC_LOG_WARN >= log->least) {
        compose(&l, log->json, OC_LOG_WARN, name, text, NULL, 0);
    } else {
        return;
    }
    write_line(log, &l);
}

uint64_t oc_log_n_dropped(const struct oc_log *log) {
    return log ? atomic_load(&log->n_dropped) : 0;
}

/* ---- Opening ------------------------------------------------------------------------------------------- */

static enum oc_err open_path(const char *path, int *fd, struct oc_errinfo *ei) {
    *fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0640);
    if (*fd >= 0) return OC_OK;
    return oc_fail(ei, OC_ERR_IO, "%s: cannot open the log file: %s", path, strerror(errno));
}

/* stderr itself may be shared with the shell or a parent, for whom it must not turn non-blocking: a pipe or
 * terminal is opened anew. Where that is not allowed it is used as it is. */
static void open_stderr(struct oc_log *log) {
    struct stat st;
    log->fd = STDERR_FILENO;
    if (fstat(STDERR_FILENO, &st) != 0 || !(S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode))) return;
    int fd = open("/proc/self/fd/2", O_WRONLY | O_APPEND | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0) return;
    log->fd = fd;
    log->owns_fd = true;
}

enum oc_err oc_log_open(const char *path, bool json, enum oc_log_level least, const char *name,
                        struct oc_log **out, struct oc_errinfo *ei) {
    *out = NULL;
    struct oc_log *log = calloc(1, sizeof *log);
    char *own_path = path ? strdup(path) : NULL;
    if (!log || (path && !own_path)) {
        free(log);
        free(own_path);
        return oc_fail(ei, OC_ERR_NOMEM, "out of memory for the log");
    }
    log->json = json;
    log->least = least;
    log->path = own_path;
    snprintf(log->name, sizeof log->name, "%s", name);
    pthread_mutex_init(&log->lock, NULL);
    enum oc_err err = OC_OK;
    if (path) {
        log->owns_fd = true;
        err = open_path(path, &log->fd, ei);
    } else {
        open_stderr(log);
    }
    if (err)
        oc_log_close(log);
    else
        *out = log;
    return err;
}

void oc_log_close(struct oc_log *log) {
    if (!log) return;
    if (log->fd >= 0) flush_tail(log);
    if (log->owns_fd && log->fd >= 0) close(log->fd);
    pthread_mutex_destroy(&log->lock);
    free(log->path);
    free(log);
}

enum oc_err oc_log_reopen(struct oc_log *log, struct oc_errinfo *ei) {
    if (!log || !log->path) return OC_OK;
    int fd;
    OC_TRY(open_path(log->path, &fd, ei));
    pthread_mutex_lock(&log->lock);
    flush_tail(log);
    log->tail_n = 0; /* the rest of a line has nothing to do in a new file */
    close(log->fd);
    log->fd = fd;
    pthread_mutex_unlock(&log->lock);
    return OC_OK;
}
