/* base/json.h - bounded JSON: parse into an arena, look up, write.
 *
 * One value type serves config files, tokenizer.json, messages and the API. Strict RFC 8259: UTF-8 checked, no
 * NaN, no comments, one value; a duplicate key replaces the first value in the first place, as a Python dict
 * does. Numbers keep their source text, so an integer past 2^63 survives. Values are immutable and live as
 * long as their arena. Any thread. */
#ifndef OC_BASE_JSON_H
#define OC_BASE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"

enum oc_json_type { OC_JSON_NULL, OC_JSON_BOOL, OC_JSON_INT, OC_JSON_DOUBLE, OC_JSON_STR, OC_JSON_ARR, OC_JSON_OBJ };

struct oc_json_member;

struct oc_json {
    enum oc_json_type type;
    union {
        bool b;
        struct {
            int64_t i;         /* OC_JSON_INT: the value, saturated when it does not fit */
            double d;          /* OC_JSON_INT and OC_JSON_DOUBLE: the nearest double */
            struct oc_str num; /* the source text */
        };
        struct oc_str str; /* unescaped UTF-8; may hold NUL bytes; str.p[str.n] is NUL */
        struct {
            struct oc_json *items; /* OC_JSON_ARR */
            size_t n_items;
        };
        struct {
            struct oc_json_member *members; /* OC_JSON_OBJ, in source order */
            size_t n_members;
            uint32_t *index; /* hash index of members past a few, else NULL */
            uint32_t index_mask;
        };
    };
};

struct oc_json_member {
    struct oc_str key;
    struct oc_json value;
};

/* Parses text (not kept) into *out, all memory from the arena. `name` stands in messages, which give line and
 * column. Errors: OC_ERR_FORMAT, OC_ERR_LIMIT (depth, size), OC_ERR_NOMEM. */
OC_MUST_CHECK enum oc_err oc_json_parse(struct oc_arena *a, struct oc_str text, const char *name,
                                        struct oc_json *out, struct oc_errinfo *ei);

/* Reads and parses a file. Errors: those of oc_file_read and oc_json_parse. */
OC_MUST_CHECK enum oc_err oc_json_load(struct oc_arena *a, const char *path, size_t max_bytes,
                                       struct oc_json *out, struct oc_errinfo *ei);

/* The member's value, or NULL when obj is NULL, not an object, or has no such key. */
const struct oc_json *oc_json_get(const struct oc_json *obj, const char *key);
const struct oc_json *oc_json_get_str(const struct oc_json *obj, struct oc_str key);

/* The first of a NULL-terminated path of keys, e.g. oc_json_path(j, "text_config", "rope", NULL). */
const struct oc_json *oc_json_path(const struct oc_json *obj, ...) __attribute__((sentinel));

/* True if v is absent (NULL) or JSON null. */
static inline bool oc_json_is_null(const struct oc_json *v) {
    return !v || v->type == OC_JSON_NULL;
}

/* Reads a number/bool/string with a fallback when v is absent, null or of another type. An integral double
 * (1e3, 2.0) counts as an integer. */
int64_t oc_json_int_or(const struct oc_json *v, int64_t fallback);
double oc_json_double_or(const struct oc_json *v, double fallback);
bool oc_json_bool_or(const struct oc_json *v, bool fallback);
struct oc_str oc_json_str_or(const struct oc_json *v, struct oc_str fallback);

/* Appends a quoted JSON string: escapes only what RFC 8259 requires; ill-formed UTF-8 becomes U+FFFD. */
void oc_json_write_str(struct oc_buf *b, struct oc_str s);

/* Appends a double as Python's repr does: shortest text that reads back equal, "1.0", "1e-07", "1e+16". Not
 * finite: null. */
void oc_json_write_double(struct oc_buf *b, double d);

/* Appends a value; separators "," and ":" (item_sep, key_sep give others: Python's default is ", " and ": "). */
void oc_json_write(struct oc_buf *b, const struct oc_json *v, const char *item_sep, const char *key_sep);

#endif
