/* The tojson filter of transformers: json.dumps with its own defaults (ensure_ascii off, nothing escaped for
 * HTML). Punctuation and numbers count as data; bytes of strings keep their origin. */
#include "chat/jinja.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/limits.h"

struct writer {
    struct jctx *cx;
    struct jout b;
    bool ascii, sort_keys, has_indent;
    struct jval indent, item_sep, key_sep;
};

static void put_value(struct writer *w, struct jval v, int depth);

static void put_lit(struct writer *w, const char *s) {
    jinja_put(w->cx, &w->b, s, strlen(s), 0);
}

static void put_string(struct writer *w, struct jval s) {
    static const char names[] = {
        ['\n'] = 'n', ['\r'] = 'r', ['\t'] = 't', ['\f'] = 'f', ['\b'] = 'b', ['"'] = '"', ['\\'] = '\\'};
    put_lit(w, "\"");
    for (size_t i = 0; i < s.n && !w->cx->err;) {
        uint32_t cp;
        char esc[16];
        size_t k = oc_utf8_decode(s.p + i, s.n - i, &cp);
        int n = 0;
        if (cp < sizeof names && names[cp])
            n = snprintf(esc, sizeof esc, "\\%c", names[cp]);
        else if (cp < 0x20)
            n = snprintf(esc, sizeof esc, "\\u%04x", (unsigned)cp);
        else if (w->ascii && cp > 0xFFFF) {
            n = snprintf(esc, sizeof esc, "\\u%04x\\u%04x", 0xD800 + ((unsigned)(cp - 0x10000) >> 10),
                         0xDC00 + ((unsigned)(cp - 0x10000) & 0x3FF));
        } else if (w->ascii && cp > 0x7E && cp != 0x7F)
            n = snprintf(esc, sizeof esc, "\\u%04x", (unsigned)cp);
        if (n)
            jinja_put(w->cx, &w->b, esc, (size_t)n, jinja_origin(s, i));
        else
            jinja_put_sub(w->cx, &w->b, s, i, i + k);
        i += k;
    }
    put_lit(w, "\"");
}

static void put_newline(struct writer *w, int depth) {
    if (!w->has_indent) return;
    put_lit(w, "\n");
    for (int i = 0; i < depth && !w->cx->err; i++) jinja_put_sub(w->cx, &w->b, w->indent, 0, w->indent.n);
}

static void put_double(struct writer *w, double d) {
    if (isfinite(d))
        jinja_put_double(w->cx, &w->b, d, 0);
    else
        put_lit(w, isnan(d) ? "NaN" : d < 0 ? "-Infinity" : "Infinity");
}

static void put_key(struct writer *w, struct jval k) {
    if (k.type == JV_STR) {
        put_string(w, k);
        return;
    }
    if (!jinja_is_number(k) && k.type != JV_NONE) {
        jinja_fail(w->cx, OC_ERR_FORMAT, "tojson: a %s cannot be a key", jinja_type_name(k));
        return;
    }
    put_lit(w, "\"");
    put_value(w, k, 0);
    put_lit(w, "\"");
}

static int compare_keys(const void *a, const void *b) {
    const struct jval *x = &((const struct jpair *)a)->key, *y = &((const struct jpair *)b)->key;
    size_t n = x->n < y->n ? x->n : y->n;
    int c = n ? memcmp(x->p, y->p, n) : 0;
    return c ? c : x->n < y->n ? -1 : x->n > y->n;
}

static struct jpair *sorted_pairs(struct writer *w, const struct jdict *d) {
    struct jpair *p = jinja_alloc(w->cx, d->n, sizeof *p);
    if (!p) return d->pairs;
    for (size_t i = 0; i < d->n; i++) {
        p[i] = d->pairs[i];
        if (p[i].key.type == JV_STR) continue;
        jinja_fail(w->cx, OC_ERR_UNSUPPORTED, "tojson: sort_keys with keys that are not strings");
        return d->pairs;
    }
    if (d->n) qsort(p, d->n, sizeof *p, compare_keys);
    return p;
}

static void put_dict(struct writer *w, const struct jdict *d, int depth) {
    const struct jpair *pairs = w->sort_keys ? sorted_pairs(w, d) : d->pairs;
    put_lit(w, "{");
    for (size_t i = 0; i < d->n && !w->cx->err; i++) {
        if (i) jinja_put_sub(w->cx, &w->b, w->item_sep, 0, w->item_sep.n);
        put_newline(w, depth + 1);
        put_key(w, pairs[i].key);
        jinja_put_sub(w->cx, &w->b, w->key_sep, 0, w->key_sep.n);
        put_value(w, pairs[i].value, depth + 1);
    }
    if (d->n) put_newline(w, depth);
    put_lit(w, "}");
}

static void put_list(struct writer *w, const struct jseq *s, int depth) {
    put_lit(w, "[");
    for (size_t i = 0; i < s->n && !w->cx->err; i++) {
        if (i) jinja_put_sub(w->cx, &w->b, w->item_sep, 0, w->item_sep.n);
        put_newline(w, depth + 1);
        put_value(w, s->items[i], depth + 1);
    }
    if (s->n) put_newline(w, depth);
    put_lit(w, "]");
}

static void put_value(struct writer *w, struct jval v, int depth) {
    char t[32];
    if (!jinja_step(w->cx, 1)) return;
    if (depth > OC_LIMIT_JSON_DEPTH + OC_LIMIT_TEMPLATE_DEPTH) {
        jinja_fail(w->cx, OC_ERR_LIMIT, "values nested too deep for tojson");
        return;
    }
    switch (v.type) {
    case JV_NONE:
        put_lit(w, "null");
        break;
    case JV_BOOL:
        put_lit(w, v.flag ? "true" : "false");
        break;
    case JV_INT:
        snprintf(t, sizeof t, "%lld", (long long)v.i);
        put_lit(w, t);
        break;
    case JV_BIGINT:
        jinja_put_sub(w->cx, &w->b, v, 0, v.n);
        break;
    case JV_FLOAT:
        put_double(w, v.d);
        break;
    case JV_STR:
        put_string(w, v);
        break;
    case JV_DICT:
        put_dict(w, v.dict, depth);
        break;
    case JV_LIST:
    case JV_TUPLE:
        put_list(w, v.seq, depth);
        break;
    default:
        jinja_fail(w->cx, OC_ERR_FORMAT, "tojson: a %s has no JSON form", jinja_type_name(v));
    }
}

static bool set_indent(struct writer *w, const struct jval *v) {
    if (!v || v->type == JV_NONE) return true;
    w->has_indent = true;
    w->item_sep = jinja_str(",", 1, 0);
    w->indent = *v;
    if (v->type == JV_STR) return true;
    int64_t n;
    if (!jinja_arg_int(w->cx, "tojson", v, 0, &n)) return false;
    struct jout b = {0};
    for (int64_t i = 0; i < n && !w->cx->err; i++) jinja_put(w->cx, &b, " ", 1, 0);
    w->indent = jinja_done(&b);
    return !w->cx->err;
}

static bool set_separators(struct writer *w, const struct jval *v) {
    if (!v || v->type == JV_NONE) return true;
    if ((v->type == JV_TUPLE || v->type == JV_LIST) && v->seq->n == 2 && v->seq->items[0].type == JV_STR &&
        v->seq->items[1].type == JV_STR) {
        w->item_sep = v->seq->items[0];
        w->key_sep = v->seq->items[1];
        return true;
    }
    jinja_fail(w->cx, OC_ERR_FORMAT, "tojson: separators must be two strings");
    return false;
}

struct jval jinja_filter_tojson(struct jctx *cx, struct jval self, const struct jargs *args) {
    const struct jval *a[4];
    if (!jinja_bind(cx, "tojson", args, "ensure_ascii,indent,separators,sort_keys", a)) return self;
    struct writer w = {.cx = cx,
                       .ascii = jinja_arg_bool(a[0], false),
                       .sort_keys = jinja_arg_bool(a[3], false),
                       .item_sep = jinja_str(", ", 2, 0),
                       .key_sep = jinja_str(": ", 2, 0)};
    if (!set_indent(&w, a[1]) || !set_separators(&w, a[2])) return self;
    put_value(&w, self, 0);
    return jinja_done(&w.b);
}
