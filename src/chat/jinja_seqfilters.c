/* Filters on sequences and dicts. */
#include "chat/jinja.h"

#include <stdlib.h>

#include "base/limits.h"

static struct jval as_list(struct jctx *cx, struct jseq s, enum jtype type) {
    return jinja_seq(cx, type, s.items, s.n);
}

static struct jval f_length(struct jctx *cx, struct jval self, const struct jargs *args) {
    (void)args;
    int64_t n = jinja_len(self);
    return n < 0 ? jinja_fail(cx, OC_ERR_FORMAT, "a %s has no length", jinja_type_name(self)) : jinja_int(n);
}

static struct jval f_list(struct jctx *cx, struct jval self, const struct jargs *args) {
    (void)args;
    return as_list(cx, jinja_iterate(cx, self), JV_LIST);
}

static struct jval f_first(struct jctx *cx, struct jval self, const struct jargs *args) {
    (void)args;
    if (self.type == JV_GEN)
        return self.seq->pos < self.seq->n ? self.seq->items[self.seq->pos++]
                                           : jinja_undef(cx, "first of nothing");
    struct jseq s = jinja_iterate(cx, self);
    return s.n ? s.items[0] : jinja_undef(cx, "first: the sequence is empty");
}

static struct jval f_last(struct jctx *cx, struct jval self, const struct jargs *args) {
    (void)args;
    if (self.type == JV_GEN)
        return jinja_fail(cx, OC_ERR_FORMAT, "last of a generator: make it a list first");
    struct jseq s = jinja_iterate(cx, self);
    return s.n ? s.items[s.n - 1] : jinja_undef(cx, "last: the sequence is empty");
}

static struct jval f_reverse(struct jctx *cx, struct jval self, const struct jargs *args) {
    (void)args;
    struct jseq s = jinja_iterate(cx, self);
    struct jval *items = jinja_step(cx, s.n / 8) ? jinja_alloc(cx, s.n, sizeof *items) : NULL;
    if (!items) return self;
    for (size_t i = 0; i < s.n; i++) items[i] = s.items[s.n - 1 - i];
    if (self.type == JV_STR)
        return jinja_str_join(cx, jinja_lit(""), (struct jseq){.items = items, .n = s.n}, true);
    return jinja_seq(cx, self.type == JV_GEN ? JV_LIST : JV_GEN, items, s.n);
}

/* One step of a dotted attribute path: item first, then attribute; digits are an index. */
static struct jval path_step(struct jctx *cx, struct jval v, struct jval part) {
    int64_t i = 0;
    bool digits = part.n > 0 && part.n < 10;
    for (size_t k = 0; k < part.n && digits; k++) {
        digits = part.p[k] >= '0' && part.p[k] <= '9';
        i = i * 10 + (part.p[k] - '0');
    }
    return jinja_getitem(cx, v, digits ? jinja_int(i) : part);
}

static struct jval path_get(struct jctx *cx, struct jval v, struct jval path, const struct jval *fallback) {
    if (path.type == JV_INT) return jinja_getitem(cx, v, path);
    if (path.type != JV_STR)
        return jinja_fail(cx, OC_ERR_FORMAT, "an attribute must be named by a string or a number");
    for (size_t at = 0; at <= path.n && !cx->err;) {
        const char *dot = path.n > at ? memchr(path.p + at, '.', path.n - at) : NULL;
        size_t end = dot ? (size_t)(dot - path.p) : path.n;
        v = path_step(cx, v, jinja_sub(path, at, end));
        if (v.type == JV_UNDEF && fallback && !cx->err) v = *fallback;
        at = end + 1;
    }
    return v;
}

static struct jval f_join(struct jctx *cx, struct jval self, const struct jargs *args) {
    const struct jval *a[2];
    if (!jinja_bind(cx, "join", args, "d,attribute", a)) return self;
    struct jseq s = jinja_iterate(cx, self);
    if (a[1] && a[1]->type != JV_NONE) {
        struct jval *items = jinja_alloc(cx, s.n, sizeof *items);
        for (size_t i = 0; items && i < s.n && !cx->err; i++)
            items[i] = path_get(cx, s.items[i], *a[1], NULL);
        s.items = items;
    }
    if (cx->err) return self;
    return jinja_str_join(cx, a[0] ? jinja_to_str(cx, *a[0]) : jinja_lit(""), s, true);
}

/* The rest of map's or select's arguments, for the filter or test that it names. */
static struct jargs rest_of(const struct jargs *args, size_t from) {
    struct jargs r = *args;
    if (from) r.pos += from;
    r.n_pos -= from;
    return r;
}

/* map and select take anything that is false for nothing. */
static struct jseq iterate_true(struct jctx *cx, struct jval v) {
    return jinja_truth(v) ? jinja_iterate(cx, v) : (struct jseq){0};
}

static struct jval f_map(struct jctx *cx, struct jval self, const struct jargs *args) {
    const struct jval *a[2] = {NULL, NULL};
    const struct jfunc *filter = NULL;
    struct jargs rest = {0};
    if (args->n_pos) {
        if (args->pos[0].type == JV_STR)
            filter = jinja_filter_find((struct oc_str){args->pos[0].p, args->pos[0].n});
        if (!filter) return jinja_fail(cx, OC_ERR_UNSUPPORTED, "map: no such filter");
        rest = rest_of(args, 1);
    } else if (!jinja_bind(cx, "map", args, "attribute,default", a)) {
        return self;
    }
    if (!filter && !a[0]) return jinja_fail(cx, OC_ERR_FORMAT, "map wants a filter or an attribute");
    struct jseq s = iterate_true(cx, self);
    struct jval *items = jinja_alloc(cx, s.n, sizeof *items);
    for (size_t i = 0; items && i < s.n && jinja_step(cx, 1); i++) {
        items[i] = filter ? filter->call(cx, s.items[i], &rest) : path_get(cx, s.items[i], *a[0], a[1]);
    }
    return items ? jinja_seq(cx, JV_GEN, items, s.n) : self;
}

static struct jval select_where(struct jctx *cx, struct jval self, const struct jargs *args, bool by_attr,
                                bool keep) {
    size_t used = by_attr;
    const struct jtest *test = NULL;
    if (args->n_pos < used) return jinja_fail(cx, OC_ERR_FORMAT, "the name of the attribute is missing");
    if (args->n_pos > used) {
        struct jval name = args->pos[used];
        if (name.type == JV_STR) test = jinja_test_find((struct oc_str){name.p, name.n});
        if (!test) return jinja_fail(cx, OC_ERR_UNSUPPORTED, "select: no such test");
    }
    struct jargs rest = rest_of(args, used + (test != NULL));
    struct jseq s = iterate_true(cx, self);
    struct jval *items = jinja_alloc(cx, s.n, sizeof *items);
    size_t n = 0;
    for (size_t i = 0; items && i < s.n && jinja_step(cx, 1); i++) {
        struct jval v = by_attr ? path_get(cx, s.items[i], args->pos[0], NULL) : s.items[i];
        if (cx->err) break;
        if ((test ? jinja_test_call(cx, test, v, &rest) : jinja_truth(v)) == keep) items[n++] = s.items[i];
    }
    return items ? jinja_seq(cx, JV_GEN, items, n) : self;
}

static struct jval f_select(struct jctx *cx, struct jval self, const struct jargs *args) {
    return select_where(cx, self, args, false, true);
}

static struct jval f_reject(struct jctx *cx, struct jval self, const struct jargs *args) {
    return select_where(cx, self, args, false, false);
}

static struct jval f_selectattr(struct jctx *cx, struct jval self, const struct jargs *args) {
    return select_where(cx, self, args, true, true);
}

static struct jval f_rejectattr(struct jctx *cx, struct jval self, const struct jargs *args) {
    return select_where(cx, self, args, true, false);
}

static struct jval f_items(struct jctx *cx, struct jval self, const struct jargs *args) {
    static const struct jargs none = {0};
    bool found;
    (void)args;
    if (self.type == JV_UNDEF) return jinja_seq(cx, JV_GEN, NULL, 0);
    if (self.type != JV_DICT) return jinja_fail(cx, OC_ERR_FORMAT, "items of a %s", jinja_type_name(self));
    struct jval m = jinja_method_get(cx, self, OC_STR("items"), &found);
    struct jval v = cx->err ? m : jinja_call(cx, m, &none);
    if (!cx->err) v.type = JV_GEN;
    return v;
}

struct keyed {
    struct jval key, item;
};

static struct jval sort_key(struct jctx *cx, struct jval v, bool fold) {
    return fold && v.type == JV_STR ? jinja_case(cx, v, J_LOWER) : v;
}

/* Stable merge sort by key; `reverse` keeps equal items in their order, as Python does. */
static void merge_sort(struct jctx *cx, struct keyed *v, struct keyed *tmp, size_t n, bool reverse) {
    for (size_t width = 1; width < n && !cx->err; width *= 2) {
        for (size_t lo = 0; lo < n; lo += 2 * width) {
            size_t mid = lo + width < n ? lo + width : n, hi = lo + 2 * width < n ? lo + 2 * width : n;
            size_t i = lo, j = mid;
            for (size_t k = lo; k < hi; k++) {
                bool right = j < hi && i < mid && !cx->err &&
                             (reverse ? jinja_compare(cx, v[i].key, v[j].key)
                                      : jinja_compare(cx, v[j].key, v[i].key)) == -1;
                tmp[k] = i >= mid || right ? v[j++] : v[i++];
            }
        }
        memcpy(v, tmp, n * sizeof *v);
    }
}

/* Key of one item for unique, min and max: the item or an attribute of it. */
static struct jval key_of(struct jctx *cx, struct jval item, const struct jval *attribute, bool fold) {
    if (!attribute || attribute->type == JV_NONE) return sort_key(cx, item, fold);
    return sort_key(cx, path_get(cx, item, *attribute, NULL), fold);
}

/* Key for sort: the list of the item, or of its attributes. A list, since lists compare equal parts first. */
static struct jval keys_of(struct jctx *cx, struct jval item, const struct jval *attribute, bool fold) {
    size_t n = 1, k = 0;
    if (!attribute || attribute->type != JV_STR) {
        struct jval *one = jinja_alloc(cx, 1, sizeof *one);
        if (one) one[0] = key_of(cx, item, attribute, fold);
        return jinja_seq(cx, JV_LIST, one, one != NULL);
    }
    for (size_t i = 0; i < attribute->n; i++) n += attribute->p[i] == ',';
    struct jval *parts = jinja_alloc(cx, n, sizeof *parts);
    for (size_t at = 0; parts && k < n && !cx->err; k++) {
        const char *comma = attribute->n > at ? memchr(attribute->p + at, ',', attribute->n - at) : NULL;
        size_t end = comma ? (size_t)(comma - attribute->p) : attribute->n;
        parts[k] = sort_key(cx, path_get(cx, item, jinja_sub(*attribute, at, end), NULL), fold);
        at = end + 1;
    }
    return jinja_seq(cx, JV_LIST, parts, k);
}

static struct jval sorted(struct jctx *cx, struct jseq s, const struct jval *attribute, bool fold,
                          bool reverse) {
    struct keyed *v = jinja_alloc(cx, s.n, sizeof *v), *tmp = jinja_alloc(cx, s.n, sizeof *tmp);
    struct jval *items = jinja_alloc(cx, s.n, sizeof *items);
    if (!v || !tmp || !items) return jinja_none();
    for (size_t i = 0; i < s.n && !cx->err; i++)
        v[i] = (struct keyed){keys_of(cx, s.items[i], attribute, fold), s.items[i]};
    merge_sort(cx, v, tmp, s.n, reverse);
    for (size_t i = 0; i < s.n; i++) items[i] = v[i].item;
    return jinja_seq(cx, JV_LIST, items, s.n);
}

static struct jval f_sort(struct jctx *cx, struct jval self, const struct jargs *args) {
    const struct jval *a[3];
    if (!jinja_bind(cx, "sort", args, "reverse,case_sensitive,attribute", a)) return self;
    return sorted(cx, jinja_iterate(cx, self), a[2], !jinja_arg_bool(a[1], false),
                  jinja_arg_bool(a[0], false));
}

static struct jval f_dictsort(struct jctx *cx, struct jval self, const struct jargs *args) {
    const struct jval *a[3];
    struct jval by;
    if (!jinja_bind(cx, "dictsort", args, "case_sensitive,by,reverse", a) ||
        !jinja_arg_str(cx, "dictsort", a[1], jinja_lit("key"), &by)) {
        return self;
    }
    struct jval pairs = self.type == JV_DICT
                            ? f_items(cx, self, args)
                            : jinja_fail(cx, OC_ERR_FORMAT, "dictsort of a %s", jinja_type_name(self));
    struct oc_str what = {by.p, by.n};
    if (!oc_str_is(what, "key") && !oc_str_is(what, "value"))
        return jinja_fail(cx, OC_ERR_FORMAT, "dictsort: by must be key or value");
    struct jval at = jinja_int(oc_str_is(what, "value"));
    return sorted(cx, jinja_iterate(cx, pairs), &at, !jinja_arg_bool(a[0], false),
                  jinja_arg_bool(a[2], false));
}

static struct jval f_unique(struct jctx *cx, struct jval self, const struct jargs *args) {
    const struct jval *a[2];
    if (!jinja_bind(cx, "unique", args, "case_sensitive,attribute", a)) return self;
    struct jseq s = jinja_iterate(cx, self);
    struct jval *items = jinja_alloc(cx, s.n, sizeof *items), *keys = jinja_alloc(cx, s.n, sizeof *keys);
    size_t n = 0;
    for (size_t i = 0; items && keys && i < s.n && !cx->err; i++) {
        struct jval key = key_of(cx, s.items[i], a[1], !jinja_arg_bool(a[0], false));
        bool seen = false;
        if (!jinja_hashable(key))
            return jinja_fail(cx, OC_ERR_FORMAT, "unique of a %s", jinja_type_name(key));
        for (size_t k = 0; k < n && !seen && !cx->err; k++) seen = jinja_equal(cx, keys[k], key);
        if (seen) continue;
        keys[n] = key;
        items[n++] = s.items[i];
    }
    return jinja_seq(cx, JV_GEN, items, n);
}

static struct jval extreme(struct jctx *cx, struct jval self, const struct jargs *args, int want) {
    const struct jval *a[2];
    if (!jinja_bind(cx, "min or max", args, "case_sensitive,attribute", a)) return self;
    struct jseq s = jinja_iterate(cx, self);
    if (!s.n) return jinja_undef(cx, "min or max of nothing");
    bool fold = !jinja_arg_bool(a[0], false);
    struct jval best = s.items[0], key = key_of(cx, best, a[1], fold);
    for (size_t i = 1; i < s.n && !cx->err; i++) {
        struct jval k = key_of(cx, s.items[i], a[1], fold);
        if (cx->err || jinja_compare(cx, k, key) != want) continue;
        best = s.items[i];
        key = k;
    }
    return best;
}

static struct jval f_min(struct jctx *cx, struct jval self, const struct jargs *args) {
    return extreme(cx, self, args, -1);
}

static struct jval f_max(struct jctx *cx, struct jval self, const struct jargs *args) {
    return extreme(cx, self, args, 1);
}

static struct jval f_sum(struct jctx *cx, struct jval self, const struct jargs *args) {
    const struct jval *a[2];
    if (!jinja_bind(cx, "sum", args, "attribute,start", a)) return self;
    struct jseq s = jinja_iterate(cx, self);
    struct jval total = a[1] ? *a[1] : jinja_int(0);
    bool by_attr = a[0] && a[0]->type != JV_NONE;
    for (size_t i = 0; i < s.n && !cx->err; i++) {
        struct jval v = by_attr ? path_get(cx, s.items[i], *a[0], NULL) : s.items[i];
        if (total.type == JV_STR) return jinja_fail(cx, OC_ERR_FORMAT, "sum of strings");
        total = jinja_binary(cx, '+', total, v);
    }
    return total;
}

const struct jfunc *jinja_seqfilter_find(struct oc_str name) {
    static const struct jfunc filters[] = {
        {"length", f_length},
        {"count", f_length},
        {"list", f_list},
        {"first", f_first},
        {"last", f_last},
        {"reverse", f_reverse},
        {"join", f_join},
        {"map", f_map},
        {"select", f_select},
        {"reject", f_reject},
        {"selectattr", f_selectattr},
        {"rejectattr", f_rejectattr},
        {"items", f_items},
        {"sort", f_sort},
        {"dictsort", f_dictsort},
        {"unique", f_unique},
        {"min", f_min},
        {"max", f_max},
        {"sum", f_sum},
    };
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++) {
        if (oc_str_is(name, filters[i].name)) return &filters[i];
    }
    return NULL;
}
