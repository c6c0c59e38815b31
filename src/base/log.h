/* base/log.h - log lines: text for people, JSON for machines.
 *
 * One logger per process, owned by its main and passed down. Any thread may log; a line is written whole. A
 * write that fails (full disk, closed pipe) is counted, never fatal and never blocks for long: the descriptor is
 * used non-blocking where it is a pipe, and the next line that gets through is preceded by one that says how many
 * were lost. The process must ignore SIGPIPE. Whatever a text holds, its line is one line of valid UTF-8, cut at
 * OC_LIMIT_LOG_LINE_BYTES (" cut=true", "cut":true). No base64 and no prompt text unless the caller puts it there. */
#ifndef OC_BASE_LOG_H
#define OC_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

enum oc_log_level { OC_LOG_DEBUG, OC_LOG_INFO, OC_LOG_WARN, OC_LOG_ERROR };

struct oc_log;

/* One key of a line. The value is text, an integer or a number. */
struct oc_log_field {
    const char *key;
    enum { OC_LOG_STR, OC_LOG_INT, OC_LOG_NUM } kind;
    struct oc_str str;
    int64_t i;
    double d;
};
#define OC_LOG_S(key_, s_) ((struct oc_log_field){.key = (key_), .kind = OC_LOG_STR, .str = oc_str_from(s_)})
#define OC_LOG_I(key_, i_) ((struct oc_log_field){.key = (key_), .kind = OC_LOG_INT, .i = (i_)})
#define OC_LOG_D(key_, d_) ((struct oc_log_field){.key = (key_), .kind = OC_LOG_NUM, .d = (d_)})

/* path: NULL for stderr; a file is appended to. name stands in each line ("serve", "worker 3"). Errors: OC_ERR_IO. */
OC_MUST_CHECK enum oc_err oc_log_open(const char *path, bool json, enum oc_log_level least, const char *name,
                                      struct oc_log **out, struct oc_errinfo *ei);
void oc_log_close(struct oc_log *l);
/* NULL as logger is allowed and says nothing. Fields end at n. */
void oc_log_write(struct oc_log *l, enum oc_log_level level, const char *message, const struct oc_log_field *fields,
                  int n);
#define oc_log(l, level, message, ...)                                                                        \
    oc_log_write((l), (level), (message), (const struct oc_log_field[]){__VA_ARGS__},                        \
                 (int)(sizeof((const struct oc_log_field[]){__VA_ARGS__}) / sizeof(struct oc_log_field)))
/* Passes on a line that another process wrote: as it is when a logger of this form wrote it, else as the message of a
 * warning under `name`. A newline at its end is taken off. */
void oc_log_relay(struct oc_log *l, const char *name, struct oc_str line);
/* "debug", "info", "warn", "error" in any case; false for anything else. */
bool oc_log_level_parse(struct oc_str s, enum oc_log_level *out);
uint64_t oc_log_n_dropped(const struct oc_log *l);
/* Closes and opens the file again (SIGHUP, log rotation). Errors: OC_ERR_IO; the old one is kept then. */
OC_MUST_CHECK enum oc_err oc_log_reopen(struct oc_log *l, struct oc_errinfo *ei);

#endif
