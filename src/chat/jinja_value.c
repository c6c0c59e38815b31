#include "chat/jinja.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/limits.h"

#define MAX_VALUE_DEPTH (OC_LIMIT_JSON_DEPTH + OC_LIMIT_TEMPLATE_DEPTH)

struct jval jinja_fail(struct jctx *cx, enum oc_err code, const char *fmt, ...) {
    if (!cx->err) {
        char what[300];
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(what, sizeof what, fmt, ap);
        va_end(ap);
        cx->err = oc_fail(cx->ei, code, "chat template, line %d: %s", cx->line, what);
    }
    return (struct jval){.type = JV_UNDEF};
}

bool jinja_step(struct jctx *cx, size_t n) {
    if (cx->err) return false;
    if (n > cx->steps_left) {
        cx->steps_left = 0;
        jinja_fail(cx, OC_ERR_LIMIT, "the rendering takes too many steps");
        return false;
    }
    cx->steps_left -= n;
    return true;
}

void *jinja_alloc(struct jctx *cx, size_t count, size_t size_bytes) {
    void *p = oc_arena_array(cx->a, count, size_bytes);
    if (!p) jinja_fail(cx, OC_ERR_LIMIT, "the rendering takes more memory than it may have");
    return p;
}

struct jval jinja_undef(struct jctx *cx, const char *fmt, ...) {
    char what[200];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    size_t len = n < 0 ? 0 : (size_t)n < sizeof what ? (size_t)n : sizeof what - 1;
    const char *p = oc_arena_strndup(cx->a, what, len);
    if (!p) jinja_fail(cx, OC_ERR_LIMIT, "the rendering takes more memory than it may have");
    return (struct jval){.type = JV_UNDEF, .p = p ? p : "", .n = p ? len : 0};
}

struct jval jinja_none(void) {
    return (struct jval){.type = JV_NONE, .trusted = 1};
}

struct jval jinja_bool(bool b) {
    return (struct jval){.type = JV_BOOL, .trusted = 1, .flag = b};
}

struct jval jinja_int(int64_t i) {
    return (struct jval){.type = JV_INT, .trusted = 1, .i = i};
}

struct jval jinja_float(double d) {
    return (struct jval){.type = JV_FLOAT, .trusted = 1, .d = d};
}

struct jval jinja_str(const char *p, size_t n, uint8_t trusted) {
    return (struct jval){.type = JV_STR, .trusted = trusted, .p = p, .n = n};
}

struct jval jinja_lit(const char *s) {
    return jinja_str(s, strlen(s), 1);
}

struct jval jinja_sub(struct jval s, size_t from_byte, size_t to_byte) {
    s.p += from_byte;
    s.n = to_byte - from_byte;
    if (s.o) s.o += from_byte;
    return s;
}

struct jval jinja_seq(struct jctx *cx, enum jtype type, struct jval *items, size_t n) {
    struct jseq *s = jinja_alloc(cx, 1, sizeof *s);
    if (!s) return (struct jval){.type = JV_UNDEF};
    s->items = items;
    s->n = n;
    return (struct jval){.type = (uint8_t)type, .trusted = 1, .seq = s};
}

static struct jval number_from_json(const struct oc_json *j) {
    if (j->type == OC_JSON_DOUBLE) return (struct jval){.type = JV_FLOAT, .d = j->d};
    bool fits = (j->i != INT64_MAX && j->i != INT64_MIN) || oc_str_is(j->num, "9223372036854775807") ||
                oc_str_is(j->num, "-9223372036854775808");
    if (fits) return (struct jval){.type = JV_INT, .i = j->i};
    return (struct jval){.type = JV_BIGINT, .p = j->num.p, .n = j->num.n};
}

static struct jval object_from_json(struct jctx *cx, const struct oc_json *j, int depth) {
    struct jdict *d = jinja_alloc(cx, 1, sizeof *d);
    struct jpair *pairs = jinja_alloc(cx, j->n_members, sizeof *pairs);
    if (!d || !pairs) return jinja_none();
    *d = (struct jdict){.pairs = pairs, .cap = j->n_members};
    for (size_t i = 0; i < j->n_members && !cx->err; i++) {
        const struct oc_json_member *m = &j->members[i];
        pairs[d->n++] =
            (struct jpair){jinja_str(m->key.p, m->key.n, 0), jinja_from_json(cx, &m->value, depth + 1)};
    }
    return (struct jval){.type = JV_DICT, .dict = d};
}

/* Everything made from data has origin 0, numbers and keys included. */
struct jval jinja_from_json(struct jctx *cx, const struct oc_json *j, int depth) {
    struct jval v = {.type = JV_NONE};
    if (!j || j->type == OC_JSON_NULL) return v;
    if (depth > OC_LIMIT_JSON_DEPTH) return jinja_fail(cx, OC_ERR_LIMIT, "data nested too deep");
    switch (j->type) {
    case OC_JSON_BOOL:
        return (struct jval){.type = JV_BOOL, .flag = j->b};
    case OC_JSON_INT:
    case OC_JSON_DOUBLE:
        return number_from_json(j);
    case OC_JSON_STR:
        return jinja_str(j->str.p, j->str.n, 0);
    case OC_JSON_OBJ:
        return object_from_json(cx, j, depth);
    default:
        break;
    }
    struct jval *items = jinja_alloc(cx, j->n_items, sizeof *items);
    for (size_t i = 0; items && i < j->n_items && !cx->err; i++)
        items[i] = jinja_from_json(cx, &j->items[i], depth + 1);
    return items ? jinja_seq(cx, JV_LIST, items, j->n_items) : v;
}

const char *jinja_type_name(struct jval v) {
    static const char *const names[] = {"undefined", "None",  "bool", "int",       "int",
                                        "float",     "str",   "list", "tuple",     "generator",
                                        "dict view", "range", "dict", "namespace", "function",
                                        "method",    "macro", "loop", "cycler",    "joiner"};
    return names[v.type];
}

bool jinja_is_seq(struct jval v) {
    return v.type == JV_LIST || v.type == JV_TUPLE || v.type == JV_GEN || v.type == JV_VIEW ||
           v.type == JV_RANGE;
}

bool jinja_truth(struct jval v) {
    switch (v.type) {
    case JV_UNDEF:
    case JV_NONE:
        return false;
    case JV_BOOL:
        return v.flag;
    case JV_INT:
        return v.i != 0;
    case JV_FLOAT:
        return v.d != 0;
    case JV_STR:
        return v.n > 0;
    case JV_LIST:
    case JV_TUPLE:
    case JV_VIEW:
    case JV_RANGE:
        return v.seq->n > 0;
    case JV_DICT:
        return v.dict->n > 0;
    default:
        return true;
    }
}

bool jinja_is_number(struct jval v) {
    return v.type == JV_BOOL || v.type == JV_INT || v.type == JV_BIGINT || v.type == JV_FLOAT;
}

double jinja_to_double(struct jval v) {
    if (v.type == JV_BOOL) return v.flag;
    if (v.type == JV_INT) return (double)v.i;
    if (v.type == JV_FLOAT) return v.d;
    char text[400];
    size_t n = v.n < sizeof text - 1 ? v.n : sizeof text - 1;
    memcpy(text, v.p, n);
    text[n] = '\0';
    return strtod(text, NULL);
}

/* Exact order of an integer and a double, as Python has it; 2 when d is not a number. */
static int compare_int_double(int64_t i, double d) {
    if (isnan(d)) return 2;
    if (d >= 9223372036854775808.0) return -1;
    if (d < -9223372036854775808.0) return 1;
    int64_t t = (int64_t)d;
    if (i != t) return i < t ? -1 : 1;
    double frac = d - (double)t;
    return frac > 0 ? -1 : frac < 0 ? 1 : 0;
}

static int compare_numbers(struct jval x, struct jval y) {
    if (x.type == JV_BIGINT && y.type == JV_BIGINT &&
        oc_str_eq((struct oc_str){x.p, x.n}, (struct oc_str){y.p, y.n}))
        return 0;
    bool xi = x.type == JV_INT || x.type == JV_BOOL, yi = y.type == JV_INT || y.type == JV_BOOL;
    int64_t a = x.type == JV_BOOL ? x.flag : x.i, b = y.type == JV_BOOL ? y.flag : y.i;
    if (xi && yi) return a < b ? -1 : a > b;
    if (xi && y.type == JV_FLOAT) return compare_int_double(a, y.d);
    if (yi && x.type == JV_FLOAT) {
        int c = compare_int_double(b, x.d);
        return c == 2 ? 2 : -c;
    }
    double p = jinja_to_double(x), q = jinja_to_double(y);
    return p < q ? -1 : p > q ? 1 : p == q ? 0 : 2;
}

static int compare_strings(struct jval x, struct jval y) {
    size_t n = x.n < y.n ? x.n : y.n;
    int c = n ? memcmp(x.p, y.p, n) : 0; /* UTF-8 keeps the order of code points */
    return c ? (c < 0 ? -1 : 1) : x.n < y.n ? -1 : x.n > y.n;
}

static bool equal_at(struct jctx *cx, struct jval x, struct jval y, int depth);

static bool equal_dicts(struct jctx *cx, const struct jdict *x, const struct jdict *y, int depth) {
    if (x->n != y->n) return false;
    for (size_t i = 0; i < x->n; i++) {
        const struct jval *v = jinja_dict_find(cx, y, x->pairs[i].key);
        if (!v || !equal_at(cx, x->pairs[i].value, *v, depth + 1)) return false;
    }
    return true;
}

static bool equal_at(struct jctx *cx, struct jval x, struct jval y, int depth) {
    if (!jinja_step(cx, 1)) return false;
    if (depth > MAX_VALUE_DEPTH) {
        jinja_fail(cx, OC_ERR_LIMIT, "values nested too deep to compare");
        return false;
    }
    if (jinja_is_number(x) && jinja_is_number(y)) return compare_numbers(x, y) == 0;
    if (x.type != y.type) return false;
    switch (x.type) {
    case JV_UNDEF:
    case JV_NONE:
        return true;
    case JV_STR:
        return oc_str_eq((struct oc_str){x.p, x.n}, (struct oc_str){y.p, y.n});
    case JV_DICT:
        return equal_dicts(cx, x.dict, y.dict, depth);
    case JV_LIST:
    case JV_TUPLE:
    case JV_RANGE:
    case JV_VIEW:
        break;
    default:
        return x.seq == y.seq; /* identity */
    }
    if (x.seq->n != y.seq->n) return false;
    for (size_t i = 0; i < x.seq->n; i++) {
        if (!equal_at(cx, x.seq->items[i], y.seq->items[i], depth + 1)) return false;
    }
    return true;
}

bool jinja_equal(struct jctx *cx, struct jval x, struct jval y) {
    return equal_at(cx, x, y, 0);
}

static int compare_at(struct jctx *cx, struct jval x, struct jval y, int depth) {
    if (!jinja_step(cx, 1)) return 0;
    if (jinja_is_number(x) && jinja_is_number(y)) return compare_numbers(x, y);
    if (x.type == JV_STR && y.type == JV_STR) return compare_strings(x, y);
    if (x.type != y.type || (x.type != JV_LIST && x.type != JV_TUPLE) || depth > MAX_VALUE_DEPTH) {
        jinja_fail(cx, OC_ERR_FORMAT, "a %s and a %s have no order", jinja_type_name(x), jinja_type_name(y));
        return 0;
    }
    for (size_t i = 0; i < x.seq->n && i < y.seq->n; i++) {
        if (equal_at(cx, x.seq->items[i], y.seq->items[i], depth + 1)) continue;
        return cx->err ? 0 : compare_at(cx, x.seq->items[i], y.seq->items[i], depth + 1);
    }
    return x.seq->n < y.seq->n ? -1 : x.seq->n > y.seq->n;
}

int jinja_compare(struct jctx *cx, struct jval x, struct jval y) {
    return compare_at(cx, x, y, 0);
}

bool jinja_hashable(struct jval v) {
    if (v.type == JV_TUPLE) {
        for (size_t i = 0; i < v.seq->n; i++) {
            if (!jinja_is_number(v.seq->items[i]) && v.seq->items[i].type != JV_STR &&
                v.seq->items[i].type != JV_NONE)
                return false;
        }
    }
    return v.type != JV_LIST && v.type != JV_DICT;
}

bool jinja_contains(struct jctx *cx, struct jval item, struct jval in) {
    if (in.type == JV_STR) {
        if (item.type == JV_STR) return jinja_find(cx, in, item, 0) != SIZE_MAX;
        jinja_fail(cx, OC_ERR_FORMAT, "'in' looks for a %s in a string", jinja_type_name(item));
        return false;
    }
    if (in.type == JV_DICT) {
        if (jinja_hashable(item)) return jinja_dict_find(cx, in.dict, item) != NULL;
        jinja_fail(cx, OC_ERR_FORMAT, "a %s cannot be the key of a dict", jinja_type_name(item));
        return false;
    }
    if (in.type == JV_VIEW && in.flag == 'k' && !jinja_hashable(item)) {
        jinja_fail(cx, OC_ERR_FORMAT, "a %s cannot be the key of a dict", jinja_type_name(item));
        return false;
    }
    struct jseq s = jinja_iterate(cx, in);
    for (size_t i = 0; i < s.n && !cx->err; i++) {
        if (jinja_equal(cx, s.items[i], item)) return true;
    }
    return false;
}

struct jval *jinja_dict_find_str(const struct jdict *d, struct oc_str key) {
    for (size_t i = 0; i < d->n; i++) {
        const struct jval *k = &d->pairs[i].key;
        if (k->type == JV_STR && k->n == key.n && (!key.n || memcmp(k->p, key.p, key.n) == 0))
            return &d->pairs[i].value;
    }
    return NULL;
}

struct jval *jinja_dict_find(struct jctx *cx, const struct jdict *d, struct jval key) {
    if (!jinja_step(cx, d->n / 16)) return NULL;
    if (key.type == JV_STR) return jinja_dict_find_str(d, (struct oc_str){key.p, key.n});
    for (size_t i = 0; i < d->n; i++) {
        if (jinja_equal(cx, d->pairs[i].key, key)) return &d->pairs[i].value;
    }
    return NULL;
}

void jinja_dict_put(struct jctx *cx, struct jdict *d, struct jval key, struct jval value) {
    struct jval *old = jinja_dict_find(cx, d, key);
    if (cx->err) return;
    if (old) {
        *old = value;
        return;
    }
    if (d->n == d->cap) {
        size_t cap = d->cap ? d->cap * 2 : 4;
        struct jpair *pairs = jinja_alloc(cx, cap, sizeof *pairs);
        if (!pairs) return;
        if (d->n) memcpy(pairs, d->pairs, d->n * sizeof *pairs);
        d->pairs = pairs;
        d->cap = cap;
    }
    d->pairs[d->n++] = (struct jpair){key, value};
}

static struct jseq chars_of(struct jctx *cx, struct jval s) {
    struct jseq out = {.n = 0};
    size_t n = jinja_cp_count(s);
    if (!jinja_step(cx, n)) return out;
    out.items = jinja_alloc(cx, n, sizeof *out.items);
    for (size_t i = 0; out.items && i < s.n && out.n < n;) {
        uint32_t cp;
        size_t k = oc_utf8_decode(s.p + i, s.n - i, &cp);
        out.items[out.n++] = jinja_sub(s, i, i + k);
        i += k;
    }
    return out;
}

struct jseq jinja_iterate(struct jctx *cx, struct jval v) {
    struct jseq out = {.n = 0};
    if (cx->err || v.type == JV_UNDEF) return out;
    if (v.type == JV_STR) return chars_of(cx, v);
    if (v.type == JV_DICT) {
        out.items = jinja_alloc(cx, v.dict->n, sizeof *out.items);
        for (size_t i = 0; out.items && i < v.dict->n; i++) out.items[out.n++] = v.dict->pairs[i].key;
        return out;
    }
    if (v.type == JV_GEN) {
        out.items = v.seq->pos ? v.seq->items + v.seq->pos : v.seq->items;
        out.n = v.seq->n - v.seq->pos;
        v.seq->pos = v.seq->n;
        return out;
    }
    if (jinja_is_seq(v)) return *v.seq;
    jinja_fail(cx, OC_ERR_FORMAT, "a %s cannot be iterated", jinja_type_name(v));
    return out;
}

int64_t jinja_len(struct jval v) {
    if (v.type == JV_UNDEF) return 0;
    if (v.type == JV_STR) return (int64_t)jinja_cp_count(v);
    if (v.type == JV_DICT) return (int64_t)v.dict->n;
    if (v.type != JV_GEN && jinja_is_seq(v)) return (int64_t)v.seq->n;
    return -1;
}
