#include "base/json.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/limits.h"

#define INDEX_FROM_MEMBERS 9 /* objects smaller than this are searched in order */

struct parser {
    struct oc_arena *arena;
    const char *name;
    const char *begin, *p, *end;
    int depth;
    size_t open_bytes; /* items of lists whose bracket is still open; they go to the arena when it closes */
    struct oc_errinfo *ei;
};

static enum oc_err parse_value(struct parser *ps, struct oc_json *out);

static enum oc_err syntax(struct parser *ps, const char *what) {
    int line = 1, col = 1;
    for (const char *q = ps->begin; q < ps->p && q < ps->end; q++) {
        col++;
        if (*q == '\n') line++, col = 1;
    }
    return oc_fail(ps->ei, OC_ERR_FORMAT, "%s: not valid JSON: %s at line %d, column %d", ps->name, what, line, col);
}

static enum oc_err no_memory(struct parser *ps) {
    return oc_fail(ps->ei, OC_ERR_NOMEM, "%s: too large to hold in the memory allowed for it", ps->name);
}

static void skip_space(struct parser *ps) {
    while (ps->p < ps->end && (*ps->p == ' ' || *ps->p == '\n' || *ps->p == '\t' || *ps->p == '\r')) ps->p++;
}

static bool take(struct parser *ps, char c) {
    if (ps->p == ps->end || *ps->p != c) return false;
    ps->p++;
    return true;
}

static bool take_digits(struct parser *ps) {
    const char *from = ps->p;
    while (ps->p < ps->end && *ps->p >= '0' && *ps->p <= '9') ps->p++;
    return ps->p > from;
}

/* The integer in [p, p+n) saturated to 64 bits. */
static int64_t parse_int(const char *p, size_t n) {
    bool neg = *p == '-';
    uint64_t v = 0, limit = neg ? (uint64_t)1 << 63 : INT64_MAX;
    for (size_t i = neg; i < n; i++) {
        uint64_t digit = (uint64_t)(p[i] - '0');
        if (v > (limit - digit) / 10) {
            v = limit;
            break;
        }
        v = v * 10 + digit;
    }
    return neg ? (int64_t)(0 - v) : (int64_t)v;
}

static enum oc_err parse_number(struct parser *ps, struct oc_json *out) {
    const char *from = ps->p;
    bool integer = true;
    take(ps, '-');
    if (!take(ps, '0') && !take_digits(ps)) return syntax(ps, "a number without digits");
    if (take(ps, '.')) {
        integer = false;
        if (!take_digits(ps)) return syntax(ps, "no digits after the decimal point");
    }
    if (ps->p < ps->end && (*ps->p == 'e' || *ps->p == 'E')) {
        integer = false;
        ps->p++;
        if (!take(ps, '+')) take(ps, '-');
        if (!take_digits(ps)) return syntax(ps, "no digits in the exponent");
    }
    size_t n = (size_t)(ps->p - from);
    char small[64], *text = small;
    if (n >= sizeof small) text = oc_arena_alloc(ps->arena, n + 1);
    if (!text) return no_memory(ps);
    memcpy(text, from, n);
    text[n] = '\0';
    out->type = integer ? OC_JSON_INT : OC_JSON_DOUBLE;
    out->d = strtod(text, NULL);
    out->i = integer ? parse_int(text, n) : 0;
    out->num = (struct oc_str){text == small ? oc_arena_strndup(ps->arena, text, n) : text, n};
    return out->num.p ? OC_OK : no_memory(ps);
}

static int hex4(const char *p) {
    int v = 0;
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (digit < 0) return -1;
        v = v << 4 | digit;
    }
    return v;
}

/* \uXXXX at ps->p (past the u); pairs of surrogates join, a lone one becomes U+FFFD. */
static bool take_unicode_escape(struct parser *ps, uint32_t *cp) {
    int v = ps->end - ps->p >= 4 ? hex4(ps->p) : -1;
    if (v < 0) return false;
    ps->p += 4;
    *cp = (uint32_t)v;
    if (v < 0xD800 || v > 0xDBFF || ps->end - ps->p < 6 || ps->p[0] != '\\' || ps->p[1] != 'u') return true;
    int low = hex4(ps->p + 2);
    if (low < 0xDC00 || low > 0xDFFF) return true;
    ps->p += 6;
    *cp = 0x10000u + (((uint32_t)v - 0xD800u) << 10) + ((uint32_t)low - 0xDC00u);
    return true;
}

static enum oc_err take_escape(struct parser *ps, char **out) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (ps->p == ps->end) return syntax(ps, "an unfinished escape");
    char c = *ps->p++;
    if (c == 'u') {
        uint32_t cp;
        if (!take_unicode_escape(ps, &cp)) return syntax(ps, "a bad \\u escape");
        *out += oc_utf8_encode(cp, *out);
        return OC_OK;
    }
    const char *hit = c ? strchr(from, c) : NULL;
    if (!hit) return syntax(ps, "an unknown escape");
    *(*out)++ = to[hit - from];
    return OC_OK;
}

/* Index of the closing quote from ps->p, or NULL; *plain is false when there are escapes. */
static const char *find_quote(const struct parser *ps, bool *plain) {
    *plain = true;
    for (const char *q = ps->p; q < ps->end; q++) {
        if (*q == '"') return q;
        if (*q == '\\') {
            *plain = false;
            q++;
        }
    }
    return NULL;
}

static enum oc_err parse_string(struct parser *ps, struct oc_str *out) {
    bool plain;
    const char *close = find_quote(ps, &plain);
    if (!close) return syntax(ps, "a string without its closing quote");
    for (const char *q = ps->p; q < close; q++) {
        if ((unsigned char)*q >= 0x20) continue;
        ps->p = q;
        return syntax(ps, "a control character inside a string");
    }
    if (!oc_utf8_valid(ps->p, (size_t)(close - ps->p))) return syntax(ps, "a string that is not UTF-8");
    char *dst = oc_arena_alloc(ps->arena, (size_t)(close - ps->p) + 1);
    if (!dst) return no_memory(ps);
    out->p = dst;
    if (plain) {
        out->n = (size_t)(close - ps->p);
        memcpy(dst, ps->p, out->n);
        ps->p = close + 1;
        return OC_OK;
    }
    while (ps->p < close) {
        char c = *ps->p++;
        if (c != '\\') *dst++ = c;
        else OC_TRY(take_escape(ps, &dst));
    }
    *dst = '\0';
    out->n = (size_t)(dst - out->p);
    ps->p = close + 1;
    return OC_OK;
}

/* Growing list of the values being read; moved to the arena when its bracket closes. */
struct list {
    char *data;
    size_t n, cap, item_bytes;
};

/* NULL also when the arena could not take what is open: memory stays bounded before the bracket closes, too. */
static void *list_add(struct parser *ps, struct list *l) {
    ps->open_bytes += l->item_bytes;
    if (ps->open_bytes > ps->arena->max_bytes - ps->arena->used_bytes) return NULL;
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 8;
        char *p = realloc(l->data, cap * l->item_bytes);
        if (!p) return NULL;
        l->data = p;
        l->cap = cap;
    }
    void *item = l->data + l->n++ * l->item_bytes;
    memset(item, 0, l->item_bytes);
    return item;
}

static void *list_finish(struct parser *ps, struct list *l) {
    ps->open_bytes -= l->n * l->item_bytes;
    void *p = oc_arena_array(ps->arena, l->n, l->item_bytes);
    if (p && l->n) memcpy(p, l->data, l->n * l->item_bytes);
    return p;
}

static enum oc_err parse_items(struct parser *ps, struct list *l) {
    skip_space(ps);
    if (take(ps, ']')) return OC_OK;
    for (;;) {
        struct oc_json v = {0};
        OC_TRY(parse_value(ps, &v));
        struct oc_json *slot = list_add(ps, l);
        if (!slot) return no_memory(ps);
        *slot = v;
        skip_space(ps);
        if (take(ps, ']')) return OC_OK;
        if (!take(ps, ',')) return syntax(ps, "expected ',' or ']'");
    }
}

static enum oc_err parse_array(struct parser *ps, struct oc_json *out) {
    struct list l = {.item_bytes = sizeof(struct oc_json)};
    enum oc_err err = parse_items(ps, &l);
    if (err == OC_OK) {
        *out = (struct oc_json){.type = OC_JSON_ARR, .n_items = l.n, .items = list_finish(ps, &l)};
        if (!out->items) err = no_memory(ps);
    }
    free(l.data);
    return err;
}

/* FNV-1a: a table lookup, not an identity. */
static uint32_t key_hash(struct oc_str s) {
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < s.n; i++) h = (h ^ (uint8_t)s.p[i]) * 16777619u;
    return h ^ h >> 15;
}

/* Slot of `key` in the index: of the member that has it, or an empty one (UINT32_MAX). *steps grows by what was
 * passed over. */
static uint32_t *index_slot(const struct oc_json *o, struct oc_str key, size_t *steps) {
    uint32_t i = key_hash(key) & o->index_mask;
    for (; o->index[i] != UINT32_MAX && !oc_str_eq(o->members[o->index[i]].key, key); ++*steps)
        i = (i + 1) & o->index_mask;
    return &o->index[i];
}

/* Steps that n keys may take into a table twice as large: far over what chance needs (about n / 2), far under the
 * n * n / 2 of keys that were made to collide. */
static size_t steps_allowed(size_t n) {
    return 32 * n + 4096;
}

/* Drops duplicate keys, the last value winning in the first place. */
static enum oc_err index_build(struct parser *ps, struct oc_json *o) {
    size_t steps = 0;
    if (o->n_members > UINT32_MAX / 4) return no_memory(ps);
    uint32_t cap = 16;
    while (cap < o->n_members * 2) cap *= 2;
    o->index = oc_arena_array(ps->arena, cap, sizeof *o->index);
    if (!o->index) return no_memory(ps);
    memset(o->index, 0xFF, cap * sizeof *o->index);
    o->index_mask = cap - 1;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < o->n_members; i++) {
        uint32_t *slot = index_slot(o, o->members[i].key, &steps);
        if (steps > steps_allowed(o->n_members))
            return oc_fail(ps->ei, OC_ERR_LIMIT, "%s: an object with keys that were made to collide", ps->name);
        if (*slot != UINT32_MAX) {
            o->members[*slot].value = o->members[i].value;
            continue;
        }
        o->members[kept] = o->members[i];
        *slot = kept++;
    }
    o->n_members = kept;
    return OC_OK;
}

static void drop_duplicates(struct oc_json *o) {
    size_t kept = 0;
    for (size_t i = 0; i < o->n_members; i++) {
        size_t at = 0;
        while (at < kept && !oc_str_eq(o->members[at].key, o->members[i].key)) at++;
        if (at == kept) o->members[kept++] = o->members[i];
        else o->members[at].value = o->members[i].value;
    }
    o->n_members = kept;
}

static enum oc_err parse_members(struct parser *ps, struct list *l) {
    skip_space(ps);
    if (take(ps, '}')) return OC_OK;
    for (;;) {
        struct oc_json_member m = {0};
        skip_space(ps);
        if (!take(ps, '"')) return syntax(ps, "expected a key in double quotes");
        OC_TRY(parse_string(ps, &m.key));
        skip_space(ps);
        if (!take(ps, ':')) return syntax(ps, "expected ':'");
        OC_TRY(parse_value(ps, &m.value));
        struct oc_json_member *slot = list_add(ps, l);
        if (!slot) return no_memory(ps);
        *slot = m;
        skip_space(ps);
        if (take(ps, '}')) return OC_OK;
        if (!take(ps, ',')) return syntax(ps, "expected ',' or '}'");
    }
}

static enum oc_err parse_object(struct parser *ps, struct oc_json *out) {
    struct list l = {.item_bytes = sizeof(struct oc_json_member)};
    enum oc_err err = parse_members(ps, &l);
    if (err == OC_OK) {
        *out = (struct oc_json){.type = OC_JSON_OBJ, .n_members = l.n, .members = list_finish(ps, &l)};
        if (!out->members) err = no_memory(ps);
        else if (l.n < INDEX_FROM_MEMBERS) drop_duplicates(out);
        else err = index_build(ps, out);
    }
    free(l.data);
    return err;
}

static enum oc_err parse_word(struct parser *ps, struct oc_json *out) {
    struct oc_str rest = {ps->p, (size_t)(ps->end - ps->p)};
    if (oc_str_starts(rest, OC_STR("true"))) {
        *out = (struct oc_json){.type = OC_JSON_BOOL, .b = true};
        ps->p += 4;
    } else if (oc_str_starts(rest, OC_STR("false"))) {
        *out = (struct oc_json){.type = OC_JSON_BOOL, .b = false};
        ps->p += 5;
    } else if (oc_str_starts(rest, OC_STR("null"))) {
        *out = (struct oc_json){.type = OC_JSON_NULL};
        ps->p += 4;
    } else {
        return syntax(ps, "expected a value");
    }
    return OC_OK;
}

static enum oc_err parse_value(struct parser *ps, struct oc_json *out) {
    skip_space(ps);
    if (ps->p == ps->end) return syntax(ps, "the text ends too early");
    char c = *ps->p;
    if (c == '-' || (c >= '0' && c <= '9')) return parse_number(ps, out);
    if (c != '{' && c != '[' && c != '"') return parse_word(ps, out);
    ps->p++;
    if (c == '"') {
        out->type = OC_JSON_STR;
        return parse_string(ps, &out->str);
    }
    if (++ps->depth > OC_LIMIT_JSON_DEPTH)
        return oc_fail(ps->ei, OC_ERR_LIMIT, "%s: JSON nested deeper than %d", ps->name, OC_LIMIT_JSON_DEPTH);
    enum oc_err err = c == '{' ? parse_object(ps, out) : parse_array(ps, out);
    ps->depth--;
    return err;
}

enum oc_err oc_json_parse(struct oc_arena *a, struct oc_str text, const char *name, struct oc_json *out,
                          struct oc_errinfo *ei) {
    if (text.n > OC_LIMIT_JSON_BYTES)
        return oc_fail(ei, OC_ERR_LIMIT, "%s: JSON larger than %zu bytes", name, OC_LIMIT_JSON_BYTES);
    struct parser ps = {.arena = a, .name = name, .begin = text.p, .p = text.p, .end = text.p + text.n, .ei = ei};
    OC_TRY(parse_value(&ps, out));
    skip_space(&ps);
    if (ps.p != ps.end) return syntax(&ps, "more text after the value");
    return OC_OK;
}

enum oc_err oc_json_load(struct oc_arena *a, const char *path, size_t max_bytes, struct oc_json *out,
                         struct oc_errinfo *ei) {
    struct oc_arena text_arena;
    struct oc_str text;
    oc_arena_init(&text_arena, max_bytes + OC_MIB);
    enum oc_err err = oc_file_read(&text_arena, path, max_bytes, &text, ei);
    if (err == OC_OK) err = oc_json_parse(a, text, path, out, ei);
    oc_arena_free(&text_arena);
    return err;
}

const struct oc_json *oc_json_get_str(const struct oc_json *obj, struct oc_str key) {
    if (!obj || obj->type != OC_JSON_OBJ) return NULL;
    if (obj->index) {
        size_t steps = 0;
        uint32_t at = *index_slot(obj, key, &steps);
        return at == UINT32_MAX ? NULL : &obj->members[at].value;
    }
    for (size_t i = 0; i < obj->n_members; i++)
        if (oc_str_eq(obj->members[i].key, key)) return &obj->members[i].value;
    return NULL;
}

const struct oc_json *oc_json_get(const struct oc_json *obj, const char *key) {
    return oc_json_get_str(obj, oc_str_from(key));
}

const struct oc_json *oc_json_path(const struct oc_json *obj, ...) {
    va_list ap;
    va_start(ap, obj);
    for (const char *key; obj && (key = va_arg(ap, const char *));) obj = oc_json_get(obj, key);
    va_end(ap);
    return obj;
}

int64_t oc_json_int_or(const struct oc_json *v, int64_t fallback) {
    if (!v) return fallback;
    if (v->type == OC_JSON_INT) return v->i;
    if (v->type == OC_JSON_DOUBLE && v->d == floor(v->d) && fabs(v->d) < 9e15) return (int64_t)v->d;
    return fallback;
}

double oc_json_double_or(const struct oc_json *v, double fallback) {
    return v && (v->type == OC_JSON_INT || v->type == OC_JSON_DOUBLE) ? v->d : fallback;
}

bool oc_json_bool_or(const struct oc_json *v, bool fallback) {
    return v && v->type == OC_JSON_BOOL ? v->b : fallback;
}

struct oc_str oc_json_str_or(const struct oc_json *v, struct oc_str fallback) {
    return v && v->type == OC_JSON_STR ? v->str : fallback;
}
