/* Values from text and back, one kind after the other. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/json.h"
#include "base/limits.h"
#include "server/config_impl.h"

/* ---- Text to value ------------------------------------------------------------------------------------- */

/* The digits at the start of *s, which are taken off; false when there are none or too many. */
static bool take_digits(struct oc_str *s, int64_t *out) {
    int64_t v = 0;
    size_t i = 0;
    for (; i < s->n && s->p[i] >= '0' && s->p[i] <= '9'; i++) {
        if (v > (INT64_MAX - 9) / 10) return false;
        v = v * 10 + (s->p[i] - '0');
    }
    *out = v;
    *s = (struct oc_str){s->p + i, s->n - i};
    return i > 0;
}

static bool parse_whole(struct oc_str s, int64_t *out) {
    bool minus = s.n && s.p[0] == '-';
    if (minus) s = (struct oc_str){s.p + 1, s.n - 1};
    if (!take_digits(&s, out) || s.n) return false;
    if (minus) *out = -*out;
    return true;
}

struct unit {
    const char *name;
    int64_t factor;
};

static int64_t factor_of(const struct unit *units, int n, struct oc_str s) {
    for (int i = 0; i < n; i++)
        if (s.n == strlen(units[i].name) && strncasecmp(units[i].name, s.p, s.n) == 0) return units[i].factor;
    return 0;
}

/* "8GiB", "1.5 GB", "4096". As in systemd and Docker a bare letter means the power of two. */
static bool parse_bytes(struct oc_str s, int64_t *out) {
    static const struct unit units[] = {
        {"", 1},
        {"B", 1},
        {"K", 1ll << 10},
        {"KiB", 1ll << 10},
        {"KB", 1000},
        {"M", 1ll << 20},
        {"MiB", 1ll << 20},
        {"MB", 1000000},
        {"G", 1ll << 30},
        {"GiB", 1ll << 30},
        {"GB", 1000000000},
        {"T", 1ll << 40},
        {"TiB", 1ll << 40},
        {"TB", 1000000000000},
    };
    int64_t whole;
    double fraction = 0, place = 0.1;
    if (!take_digits(&s, &whole)) return false;
    if (s.n > 1 && s.p[0] == '.') {
        size_t i = 1;
        for (; i < s.n && s.p[i] >= '0' && s.p[i] <= '9'; i++, place /= 10)
            fraction += (s.p[i] - '0') * place;
        if (i == 1) return false;
        s = (struct oc_str){s.p + i, s.n - i};
    }
    if (s.n && s.p[0] == ' ') s = (struct oc_str){s.p + 1, s.n - 1};
    int64_t factor = factor_of(units, sizeof units / sizeof units[0], s);
    if (!factor || whole > INT64_MAX / 2 / factor) return false;
    *out = whole * factor + (int64_t)llround(fraction * (double)factor);
    return true;
}

/* "30", "30s", "1h30m". */
static bool parse_time(struct oc_str s, int64_t *out) {
    static const struct unit units[] = {{"s", 1}, {"m", 60}, {"min", 60}, {"h", 3600}, {"d", 86400}};
    int64_t sum = 0, v;
    if (parse_whole(s, out)) return true;
    if (!s.n) return false;
    while (s.n) {
        size_t n = 0;
        if (!take_digits(&s, &v)) return false;
        while (n < s.n && (s.p[n] < '0' || s.p[n] > '9')) n++;
        int64_t factor = factor_of(units, sizeof units / sizeof units[0], (struct oc_str){s.p, n});
        if (!factor || v > INT32_MAX || sum > INT32_MAX) return false;
        sum += v * factor;
        s = (struct oc_str){s.p + n, s.n - n};
    }
    *out = sum;
    return true;
}

static bool parse_num(struct oc_str s, double *out) {
    char text[64], *end;
    if (!s.n || s.n >= sizeof text) return false;
    for (size_t i = 0; i < s.n; i++)
        if (!strchr("0123456789+-.eE", s.p[i])) return false; /* no nan, inf, hexadecimal */
    memcpy(text, s.p, s.n);
    text[s.n] = '\0';
    *out = strtod(text, &end);
    return end == text + s.n && isfinite(*out);
}

static bool parse_bool(struct oc_str s, enum oc_config_level level, bool *out) {
    static const char *const words[] = {"false", "true", "False", "True", "FALSE", "TRUE", "0", "1"};
    int n = level == OC_CONFIG_FILE ? 6 : 8; /* a file has types: 1 is a number there */
    for (int i = 0; i < n; i++) {
        if (!oc_str_is(s, words[i])) continue;
        *out = i & 1;
        return true;
    }
    return false;
}

/* The word of "a|b|c" that s is, in any case; its length is s.n. */
static const char *find_choice(const char *choices, struct oc_str s) {
    for (const char *p = choices; *p;) {
        size_t n = strcspn(p, "|");
        if (n == s.n && strncasecmp(p, s.p, n) == 0) return p;
        p += n + (p[n] == '|');
    }
    return NULL;
}

/* Text that a log, a terminal and a YAML file can hold. */
static bool is_clean(struct oc_str s) {
    if (!s.n || s.n >= OC_LIMIT_PATH_BYTES || !oc_utf8_valid(s.p, s.n)) return false;
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        i += oc_utf8_decode(s.p + i, s.n - i, &cp);
        if (cp < 0x20 || (cp >= 0x7F && cp < 0xA0) || cp == 0x2028 || cp == 0x2029 || cp == 0xFEFF ||
            cp == 0xFFFE || cp == 0xFFFF)
            return false;
    }
    return true;
}

/* ---- Setting ------------------------------------------------------------------------------------------- */

static void allowed(const struct oc_config_key *k, char *out, size_t cap) {
    switch (k->kind) {
    case OC_CONFIG_INT:
    case OC_CONFIG_COUNT:
        snprintf(out, cap, "a whole number from %.0f to %.0f", k->min, k->max);
        return;
    case OC_CONFIG_BYTES:
        snprintf(out, cap, "a size from %.0f to %.0f bytes, such as 8GiB, 500MB or 65536", k->min, k->max);
        return;
    case OC_CONFIG_TIME:
        snprintf(out, cap, "a time from %.0f to %.0f seconds, such as 30s, 5m or 1h30m", k->min, k->max);
        return;
    case OC_CONFIG_NUM:
        snprintf(out, cap, "a number from %g to %g", k->min, k->max);
        return;
    case OC_CONFIG_BOOL:
        snprintf(out, cap, "true or false");
        return;
    case OC_CONFIG_CHOICE:
        snprintf(out, cap, "one of %s", k->arg);
        return;
    default:
        snprintf(out, cap, "text without control characters, 1 to %d bytes long", OC_LIMIT_PATH_BYTES - 1);
    }
}

static bool in_range(const struct oc_config_key *k, double v) {
    return v >= k->min && v <= k->max;
}

static bool set_number(const struct oc_config_key *k, struct oc_str s, void *at) {
    int64_t v;
    bool ok = k->kind == OC_CONFIG_BYTES  ? parse_bytes(s, &v)
              : k->kind == OC_CONFIG_TIME ? parse_time(s, &v)
                                          : parse_whole(s, &v);
    if (!ok || !in_range(k, (double)v)) return false;
    if (k->kind == OC_CONFIG_INT || k->kind == OC_CONFIG_TIME)
        *(int *)at = (int)v;
    else
        *(int64_t *)at = v;
    return true;
}

static bool set_num(const struct oc_config_key *k, struct oc_str s, double *at) {
    double v;
    if (!parse_num(s, &v) || !in_range(k, v)) return false;
    *at = v;
    return true;
}

/* A copy in the arena; NULL with a fault when there is no room. */
static const char *copy(struct oc_config_reader *r, struct oc_str s) {
    const char *p = oc_arena_strndup(&r->c->arena, s.p, s.n);
    if (!p)
        oc_config_fault(r, OC_ERR_LIMIT, "the configuration is larger than %d bytes",
                        (int)OC_LIMIT_SERVER_CONFIG_BYTES);
    return p;
}

static bool set_text(struct oc_config_reader *r, const struct oc_config_key *k, struct oc_str s,
                     const char **at) {
    if (k->kind == OC_CONFIG_CHOICE) {
        s.p = find_choice(k->arg, s);
        if (!s.p) return false;
    } else if (!is_clean(s)) {
        return false;
    }
    const char *p = copy(r, s);
    if (p) *at = p;
    return true;
}

static bool add_item(struct oc_config_reader *r, struct oc_str s, struct oc_server_list *list,
                     const char *where) {
    if (!is_clean(s)) return false;
    if (list->n == OC_SERVER_MAX_LIST) {
        oc_config_fault(r, OC_ERR_USAGE, "%s: a list has at most %d items", where, OC_SERVER_MAX_LIST);
        return true;
    }
    const char *p = copy(r, s);
    if (p) list->items[list->n++] = p;
    return true;
}

static bool set_value(struct oc_config_reader *r, const struct oc_config_key *k, struct oc_str s,
                      enum oc_config_level level, const char *where) {
    void *at = (char *)r->c + k->offset;
    switch (k->kind) {
    case OC_CONFIG_BOOL:
        return parse_bool(s, level, at);
    case OC_CONFIG_NUM:
        return set_num(k, s, at);
    case OC_CONFIG_STR:
    case OC_CONFIG_CHOICE:
        return set_text(r, k, s, at);
    case OC_CONFIG_LIST:
        return add_item(r, s, at, where);
    default:
        return set_number(k, s, at);
    }
}

static void note_source(struct oc_config_reader *r, int key, enum oc_config_level level, const char *where) {
    r->level[key] = (unsigned char)level;
    r->c->sources[key] = copy(r, oc_str_from(where));
}

void oc_config_set(struct oc_config_reader *r, int key, struct oc_str s, enum oc_config_level level,
                   const char *where) {
    const struct oc_config_key *k = &oc_config_keys[key];
    if (k->kind == OC_CONFIG_LIST && r->level[key] != level) oc_config_begin_list(r, key, level, where);
    if (set_value(r, k, s, level, where)) {
        if (k->kind != OC_CONFIG_LIST) note_source(r, key, level, where);
        return;
    }
    char text[96], may[160];
    allowed(k, may, sizeof may);
    oc_config_fault(r, OC_ERR_USAGE, "%s: %s cannot be '%s', it must be %s", where, k->key,
                    oc_config_quote(s, text), may);
}

void oc_config_begin_list(struct oc_config_reader *r, int key, enum oc_config_level level,
                          const char *where) {
    const struct oc_config_key *k = &oc_config_keys[key];
    void *at = (char *)r->c + k->offset;
    if (k->kind == OC_CONFIG_LIST)
        ((struct oc_server_list *)at)->n = 0;
    else if (k->kind == OC_CONFIG_STR && !k->def)
        *(const char **)at = NULL;
    else
        return; /* none makes no sense for the others: they stay as they are */
    note_source(r, key, level, where);
}

const char *oc_config_quote(struct oc_str text, char out[96]) {
    size_t n = 0, i = 0;
    while (i < text.n && n < 80) {
        uint32_t cp;
        i += oc_utf8_decode(text.p + i, text.n - i, &cp);
        n += oc_utf8_encode(cp < 0x20 || (cp >= 0x7F && cp < 0xA0) || cp == 0x2028 || cp == 0x2029 ? '?' : cp,
                            out + n);
    }
    memcpy(out + n, i < text.n ? "..." : "", i < text.n ? 4 : 1);
    return out;
}

/* ---- Value to text ------------------------------------------------------------------------------------- */

static void write_bytes(struct oc_buf *out, int64_t v) {
    static const char *const units[] = {"", "KiB", "MiB", "GiB", "TiB"};
    int u = 0;
    while (u < 4 && v && v % 1024 == 0) {
        v /= 1024;
        u++;
    }
    oc_buf_printf(out, "%lld%s", (long long)v, units[u]);
}

static void write_text(struct oc_buf *out, const char *s) {
    if (s)
        oc_json_write_str(out, oc_str_from(s));
    else
        oc_buf_add_str(out, "null");
}

static void write_items(struct oc_buf *out, const struct oc_server_list *list) {
    oc_buf_add_char(out, '[');
    for (int i = 0; i < list->n; i++) {
        if (i) oc_buf_add_str(out, ", ");
        write_text(out, list->items[i]);
    }
    oc_buf_add_char(out, ']');
}

void oc_config_write_value(const struct oc_server_config *c, int key, struct oc_buf *out) {
    const struct oc_config_key *k = &oc_config_keys[key];
    const void *at = (const char *)c + k->offset;
    switch (k->kind) {
    case OC_CONFIG_SECTION:
        break;
    case OC_CONFIG_STR:
    case OC_CONFIG_CHOICE:
        write_text(out, *(const char *const *)at);
        break;
    case OC_CONFIG_LIST:
        write_items(out, at);
        break;
    case OC_CONFIG_BOOL:
        oc_buf_add_str(out, *(const bool *)at ? "true" : "false");
        break;
    case OC_CONFIG_NUM:
        oc_json_write_double(out, *(const double *)at);
        break;
    case OC_CONFIG_INT:
        oc_buf_printf(out, "%d", *(const int *)at);
        break;
    case OC_CONFIG_TIME:
        oc_buf_printf(out, "%ds", *(const int *)at);
        break;
    case OC_CONFIG_COUNT:
        oc_buf_printf(out, "%lld", (long long)*(const int64_t *)at);
        break;
    case OC_CONFIG_BYTES:
        write_bytes(out, *(const int64_t *)at);
        break;
    }
}
