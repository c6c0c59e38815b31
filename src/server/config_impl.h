/* server/config_impl.h - what the files config*.c share. Nobody else includes it but their tests.
 *
 * A reading collects faults instead of stopping at the first; every value goes through oc_config_set(),
 * whichever source it comes from. The environment and the machine come in as arguments, so that a test can
 * choose them. */
#ifndef OC_SERVER_CONFIG_IMPL_H
#define OC_SERVER_CONFIG_IMPL_H

#include <stdarg.h>

#include "base/str.h"
#include "ocellus.h"
#include "server/config.h"

enum oc_config_kind {
    OC_CONFIG_SECTION,
    OC_CONFIG_STR,    /* const char *, NULL for none */
    OC_CONFIG_CHOICE, /* const char *, one of arg */
    OC_CONFIG_INT,    /* int */
    OC_CONFIG_COUNT,  /* int64_t */
    OC_CONFIG_BYTES,  /* int64_t */
    OC_CONFIG_TIME,   /* int, seconds */
    OC_CONFIG_BOOL,   /* bool */
    OC_CONFIG_NUM,    /* double */
    OC_CONFIG_LIST,   /* struct oc_server_list */
};

struct oc_config_key {
    enum oc_config_kind kind;
    const char *key, *flag; /* NULL for a section */
    char letter;
    const char *arg;
    size_t offset;
    double min, max;
    const char *def, *help;
};

extern const struct oc_config_key oc_config_keys[];
extern const int oc_config_n_keys;

/* Later ones win. A list that a later one gives replaces the earlier one's. */
enum oc_config_level { OC_CONFIG_DEFAULT, OC_CONFIG_OLD, OC_CONFIG_FILE, OC_CONFIG_ENV, OC_CONFIG_FLAG };

/* What the reading depends on besides argv. */
struct oc_config_world {
    const char *const *environ; /* NULL-terminated, "NAME=value" */
    int64_t memory_bytes;       /* that this process may use */
};

struct oc_config_reader {
    struct oc_server_config *c;
    const struct oc_config_world *world;
    struct oc_buf *faults;
    int n_faults;
    enum oc_err err;                                /* of the first fault */
    char first[OC_ERRINFO_MAX / 2];                 /* its sentence */
    unsigned char level[OC_SERVER_CONFIG_MAX_KEYS]; /* of the last value */
    int64_t reject_threshold;                       /* MLX_QUEUE_REJECT_THRESHOLD, -1: not set */
};

/* Adds a sentence. */
void oc_config_fault(struct oc_config_reader *r, enum oc_err err, const char *fmt, ...) OC_PRINTF(3, 4);
void oc_config_note(struct oc_config_reader *r, const char *fmt, ...) OC_PRINTF(2, 3);

/* Sets a value, or adds a fault. `where` is what the fault and --print-config call the source. For a list:
 * one more item. */
void oc_config_set(struct oc_config_reader *r, int key, struct oc_str text, enum oc_config_level level,
                   const char *where);

/* Makes a list empty that an earlier level filled, or any value none or what it was by default. */
void oc_config_begin_list(struct oc_config_reader *r, int key, enum oc_config_level level, const char *where);

/* The number of a key by its YAML name, or of a flag (without dashes; a unit at its end is passed over); -1:
 * none. */
int oc_config_find_key(struct oc_str name);
int oc_config_find_flag(struct oc_str name);
/* The nearest of all keys or flags, NULL when none is near. */
const char *oc_config_nearest(struct oc_str name, bool flags);

/* Text for people: at most 80 bytes, valid UTF-8, no control characters. */
const char *oc_config_quote(struct oc_str text, char out[96]);

/* Appends the value as YAML that reads back equal. */
void oc_config_write_value(const struct oc_server_config *c, int key, struct oc_buf *out);

/* Reads a YAML text into r. */
void oc_config_read_yaml(struct oc_config_reader *r, struct oc_str text, const char *name);
void oc_config_read_old_env(struct oc_config_reader *r);
void oc_config_read_env(struct oc_config_reader *r);
const char *oc_config_getenv(const struct oc_config_world *w, const char *name);

/* oc_server_config_read() with the world given. */
OC_MUST_CHECK enum oc_err oc_config_read_in(const struct oc_config_world *w, int argc, char **argv,
                                            struct oc_server_config *out, bool *show, struct oc_errinfo *ei,
                                            struct oc_buf *all_faults);

#endif
