#define _GNU_SOURCE /* memmem */
#define _GNU_SOURCE /* memmem */
#include "chat/jinja.h"

#include <math.h>
#include <stdio.h>

#include "base/limits.h"

#define MAX_VALUE_DEPTH (OC_LIMIT_JSON_DEPTH + OC_LIMIT_TEMPLATE_DEPTH)

static bool make_room(struct jctx *cx, struct jout *b, size_t n) {
    if (cx->err) return false;
    if (n > cx->max_output_bytes || b->n > cx->max_output_bytes - n) {
        jinja_fail(cx, OC_ERR_LIMIT, "the text grows past %zu bytes", cx->max_output_bytes);
        return false;
    }
    if (b->n + n <= b->cap) return true;
    size_t cap = b->cap ? b->cap * 2 : 64;
    while (cap < b->n + n) cap *= 2;
    char *p = jinja_alloc(cx, cap, 2);
    if (!p) return false;
    if (b->n) {
        memcpy(p, b->p, b->n);
        memcpy(p + cap, b->o, b->n);
    }
    b->p = p;
    b->o = (uint8_t *)p + cap;
    b->cap = cap;
    return true;
}

void jinja_put(struct jctx *cx, struct jout *b, const char *p, size_t n, uint8_t origin) {
    if (!n || !make_room(cx, b, n)) return;
    memcpy(b->p + b->n, p, n);
    memset(b->o + b->n, origin, n);
    b->n += n;
}

void jinja_put_sub(struct jctx *cx, struct jout *b, struct jval s, size_t from, size_t to) {
    if (to <= from || !make_room(cx, b, to - from)) return;
    memcpy(b->p + b->n, s.p + from, to - from);
    if (s.o)
        memcpy(b->o + b->n, s.o + from, to - from);
    else
        memset(b->o + b->n, s.trusted, to - from);
    b->n += to - from;
}

void jinja_put_cp(struct jctx *cx, struct jout *b, uint32_t cp, uint8_t origin) {
    char utf8[4];
    size_t n = oc_utf8_encode(cp, utf8);
    jinja_put(cx, b, utf8, n, origin);
}

struct jval jinja_done(const struct jout *b) {
    struct jval v = jinja_str(b->p ? b->p : "", b->n, 1);
    v.o = b->o;
    return v;
}

/* repr(float): shortest digits that read back. JSON writes the same, save for what is not finite. */
void jinja_put_double(struct jctx *cx, struct jout *b, double d, uint8_t origin) {
    if (!isfinite(d)) {
        const char *s = isnan(d) ? "nan" : d < 0 ? "-inf" : "inf";
        jinja_put(cx, b, s, strlen(s), origin);
        return;
    }
    struct oc_buf t;
    oc_buf_init(&t, 64);
    oc_json_write_double(&t, d);
    jinja_put(cx, b, oc_buf_str(&t), t.n_bytes, origin);
    oc_buf_free(&t);
}

static void put_lit(struct jctx *cx, struct jout *b, const char *s) {
    jinja_put(cx, b, s, strlen(s), 0);
}

/* repr(str), with Python's choice of quote. Each escape takes the origin of what it stands for. */
static void put_repr_str(struct jctx *cx, struct jout *b, struct jval s) {
    bool single = s.n && memchr(s.p, '\'', s.n), dbl = s.n && memchr(s.p, '"', s.n);
    char quote = single && !dbl ? '"' : '\'', esc[16];
    jinja_put(cx, b, &quote, 1, 0);
    for (size_t i = 0; i < s.n && !cx->err;) {
        uint32_t cp;
        size_t k = oc_utf8_decode(s.p + i, s.n - i, &cp);
        int n = 0;
        if (cp == (uint32_t)quote || cp == '\\')
            n = snprintf(esc, sizeof esc, "\\%c", (char)cp);
        else if (cp == '\n' || cp == '\r' || cp == '\t')
            n = snprintf(esc, sizeof esc, "\\%c", cp == '\n' ? 'n' : cp == '\r' ? 'r' : 't');
        else if (cp < 0x20 || cp == 0x7F)
            n = snprintf(esc, sizeof esc, "\\x%02x", (unsigned)cp);
        else if (cp > 0x7F && !jinja_is_printable(cp)) {
            n = snprintf(esc, sizeof esc,
                         cp <= 0xFF     ? "\\x%02x"
                         : cp <= 0xFFFF ? "\\u%04x"
                                        : "\\U%08x",
                         (unsigned)cp);
        }
        if (n)
            jinja_put(cx, b, esc, (size_t)n, jinja_origin(s, i));
        else
            jinja_put_sub(cx, b, s, i, i + k);
        i += k;
    }
    jinja_put(cx, b, &quote, 1, 0);
}

static void put_repr_seq(struct jctx *cx, struct jout *b, struct jval v, int depth) {
    static const char *const open[] = {[JV_LIST] = "[", [JV_TUPLE] = "("},
                             *const close[] = {[JV_LIST] = "]", [JV_TUPLE] = ")"};
    enum jtype as = v.type == JV_TUPLE ? JV_TUPLE : JV_LIST;
    if (v.type == JV_VIEW)
        put_lit(cx, b, v.flag == 'k' ? "dict_keys(" : v.flag == 'v' ? "dict_values(" : "dict_items(");
    put_lit(cx, b, open[as]);
    for (size_t i = 0; i < v.seq->n && !cx->err; i++) {
        if (i) put_lit(cx, b, ", ");
        jinja_put_repr(cx, b, v.seq->items[i], depth + 1);
    }
    if (v.type == JV_TUPLE && v.seq->n == 1) put_lit(cx, b, ",");
    put_lit(cx, b, close[as]);
    if (v.type == JV_VIEW) put_lit(cx, b, ")");
}

static void put_repr_dict(struct jctx *cx, struct jout *b, const struct jdict *d, int depth) {
    put_lit(cx, b, "{");
    for (size_t i = 0; i < d->n && !cx->err; i++) {
        if (i) put_lit(cx, b, ", ");
        jinja_put_repr(cx, b, d->pairs[i].key, depth + 1);
        put_lit(cx, b, ": ");
        jinja_put_repr(cx, b, d->pairs[i].value, depth + 1);
    }
    put_lit(cx, b, "}");
}

static void put_range(struct jctx *cx, struct jout *b, const struct jseq *s) {
    char t[100];
    int n = s->step == 1 ? snprintf(t, sizeof t, "range(%lld, %lld)", (long long)s->start, (long long)s->stop)
                         : snprintf(t, sizeof t, "range(%lld, %lld, %lld)", (long long)s->start,
                                    (long long)s->stop, (long long)s->step);
    jinja_put(cx, b, t, (size_t)n, 0);
}

static void put_scalar(struct jctx *cx, struct jout *b, struct jval v) {
    char t[32];
    const char *s = t;
    if (v.type == JV_NONE)
        s = "None";
    else if (v.type == JV_BOOL)
        s = v.flag ? "True" : "False";
    else if (v.type == JV_INT)
        snprintf(t, sizeof t, "%lld", (long long)v.i);
    if (v.type == JV_BIGINT)
        jinja_put_sub(cx, b, v, 0, v.n);
    else
        jinja_put(cx, b, s, strlen(s), v.trusted);
}

void jinja_put_repr(struct jctx *cx, struct jout *b, struct jval v, int depth) {
    if (!jinja_step(cx, 1)) return;
    if (depth > MAX_VALUE_DEPTH) {
        jinja_fail(cx, OC_ERR_LIMIT, "values nested too deep to print");
        return;
    }
    switch (v.type) {
    case JV_UNDEF:
        put_lit(cx, b, "Undefined");
        break;
    case JV_NONE:
    case JV_BOOL:
    case JV_BIGINT:
    case JV_INT:
        put_scalar(cx, b, v);
        break;
    case JV_FLOAT:
        jinja_put_double(cx, b, v.d, v.trusted);
        break;
    case JV_STR:
        put_repr_str(cx, b, v);
        break;
    case JV_LIST:
    case JV_TUPLE:
    case JV_VIEW:
        put_repr_seq(cx, b, v, depth);
        break;
    case JV_RANGE:
        put_range(cx, b, v.seq);
        break;
    case JV_DICT:
        put_repr_dict(cx, b, v.dict, depth);
        break;
    case JV_NS:
        put_lit(cx, b, "<Namespace ");
        put_repr_dict(cx, b, v.dict, depth);
        put_lit(cx, b, ">");
        break;
    default:
        jinja_fail(cx, OC_ERR_UNSUPPORTED, "a %s has no text to print", jinja_type_name(v));
    }
}

void jinja_put_str(struct jctx *cx, struct jout *b, struct jval v) {
    if (v.type == JV_STR)
        jinja_put_sub(cx, b, v, 0, v.n);
    else if (v.type != JV_UNDEF)
        jinja_put_repr(cx, b, v, 0);
}

struct jval jinja_to_str(struct jctx *cx, struct jval v) {
    if (v.type == JV_STR) return v;
    struct jout b = {0};
    jinja_put_str(cx, &b, v);
    return jinja_done(&b);
}

bool jinja_is_space(uint32_t c) {
    return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
           c == 0x3000;
}

size_t jinja_cp_count(struct jval s) {
    size_t n = 0; /* all strings are well-formed: count what is no continuation byte */
    for (size_t i = 0; i < s.n; i++) n += ((uint8_t)s.p[i] & 0xC0) != 0x80;
    return n;
}

size_t jinja_cp_offset(struct jval s, size_t i) {
    for (size_t at = 0; at < s.n; at++) {
        if (((uint8_t)s.p[at] & 0xC0) != 0x80 && i-- == 0) return at;
    }
    return s.n;
}

size_t jinja_find(struct jctx *cx, struct jval s, struct jval needle, size_t from) {
    if (from > s.n || needle.n > s.n - from || !jinja_step(cx, 1 + (s.n - from) / 4096)) return SIZE_MAX;
    if (!needle.n) return from;
    const char *hit = memmem(s.p + from, s.n - from, needle.p, needle.n);
    return hit ? (size_t)(hit - s.p) : SIZE_MAX;
}
