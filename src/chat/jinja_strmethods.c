#define _GNU_SOURCE /* memmem */
/* Methods of strings, and the string work that filters share. */
#define _GNU_SOURCE /* memmem */
#include "chat/jinja.h"

#include <stdio.h>

static bool has_char(struct jval set, const char *p, size_t n) {
    for (size_t i = 0; i < set.n;) {
        uint32_t cp;
        size_t k = oc_utf8_decode(set.p + i, set.n - i, &cp);
        if (k == n && memcmp(set.p + i, p, n) == 0) return true;
        i += k;
    }
    return false;
}

static bool strips(struct jval s, size_t at, size_t n, const struct jval *chars) {
    if (chars) return has_char(*chars, s.p + at, n);
    uint32_t cp;
    oc_utf8_decode(s.p + at, n, &cp);
    return jinja_is_space(cp);
}

struct jval jinja_str_strip(struct jctx *cx, struct jval s, const struct jval *chars, bool left, bool right) {
    if (chars && chars->type == JV_NONE) chars = NULL;
    if (chars && chars->type != JV_STR)
        return jinja_fail(cx, OC_ERR_FORMAT, "strip wants a string and got a %s", jinja_type_name(*chars));
    size_t from = 0, to = s.n;
    while (left && from < to) {
        uint32_t cp;
        size_t k = oc_utf8_decode(s.p + from, to - from, &cp);
        if (!strips(s, from, k, chars)) break;
        from += k;
    }
    while (right && to > from) {
        size_t at = to - 1;
        while (at > from && ((uint8_t)s.p[at] & 0xC0) == 0x80) at--;
        if (!strips(s, at, to - at, chars)) break;
        to = at;
    }
    if (!jinja_step(cx, (s.n - (to - from)) / 256 * (chars ? 1 + chars->n : 1))) return s;
    return jinja_sub(s, from, to);
}

struct jval jinja_str_replace(struct jctx *cx, struct jval s, struct jval old, struct jval with,
                              int64_t count) {
    struct jout b = {0};
    size_t at = 0;
    if (!old.n) { /* between all characters */
        while (count != 0 && !cx->err) {
            jinja_put_sub(cx, &b, with, 0, with.n);
            count--;
            if (at >= s.n) break;
            uint32_t cp;
            size_t k = oc_utf8_decode(s.p + at, s.n - at, &cp);
            jinja_put_sub(cx, &b, s, at, at + k);
            at += k;
        }
        jinja_put_sub(cx, &b, s, at, s.n);
        return jinja_done(&b);
    }
    if (!jinja_step(cx, s.n / 256)) return s;
    for (; count != 0 && !cx->err; count--) {
        const char *hit = s.n - at ? memmem(s.p + at, s.n - at, old.p, old.n) : NULL;
        if (!hit) break;
        size_t to = (size_t)(hit - s.p);
        jinja_put_sub(cx, &b, s, at, to);
        jinja_put_sub(cx, &b, with, 0, with.n);
        at = to + old.n;
    }
    if (!at) return s;
    jinja_put_sub(cx, &b, s, at, s.n);
    return jinja_done(&b);
}

struct jval jinja_str_join(struct jctx *cx, struct jval sep, struct jseq items, bool to_str) {
    struct jout b = {0};
    for (size_t i = 0; i < items.n && jinja_step(cx, 1); i++) {
        if (!to_str && items.items[i].type != JV_STR) {
            return jinja_fail(cx, OC_ERR_FORMAT, "join: element %zu is a %s, not a string", i,
                              jinja_type_name(items.items[i]));
        }
        if (i) jinja_put_sub(cx, &b, sep, 0, sep.n);
        jinja_put_str(cx, &b, items.items[i]);
    }
    return jinja_done(&b);
}

struct parts {
    struct jval *items;
    size_t n, cap;
};

static void add_part(struct jctx *cx, struct parts *out, struct jval v) {
    if (!jinja_step(cx, 1)) return;
    if (out->n == out->cap) {
        size_t cap = out->cap ? out->cap * 2 : 8;
        struct jval *items = jinja_alloc(cx, cap, sizeof *items);
        if (!items) return;
        if (out->n) memcpy(items, out->items, out->n * sizeof *items);
        out->items = items;
        out->cap = cap;
    }
    out->items[out->n++] = v;
}

static bool is_line_end(uint32_t cp) {
    return (cp >= 10 && cp <= 13) || (cp >= 28 && cp <= 30) || cp == 0x85 || cp == 0x2028 || cp == 0x2029;
}

struct jval jinja_str_splitlines(struct jctx *cx, struct jval s, bool keep_ends) {
    struct parts out = {0};
    size_t from = 0;
    for (size_t i = 0; i < s.n && !cx->err;) {
        uint32_t cp;
        size_t end = i;
        i += oc_utf8_decode(s.p + i, s.n - i, &cp);
        if (!is_line_end(cp)) continue;
        if (cp == '\r' && i < s.n && s.p[i] == '\n') i++;
        add_part(cx, &out, jinja_sub(s, from, keep_ends ? i : end));
        from = i;
    }
    if (from < s.n) add_part(cx, &out, jinja_sub(s, from, s.n));
    return jinja_seq(cx, JV_LIST, out.items, out.n);
}

static void split_spaces(struct jctx *cx, struct parts *out, struct jval s, int64_t max) {
    size_t i = 0;
    while (!cx->err) {
        struct jval rest = jinja_str_strip(cx, jinja_sub(s, i, s.n), NULL, true, false);
        if (!rest.n) return;
        if (max-- == 0) { /* the tail keeps its inner spaces but not those at its end */
            add_part(cx, out, jinja_str_strip(cx, rest, NULL, false, true));
            return;
        }
        size_t k = 0;
        uint32_t cp;
        while (k < rest.n) {
            size_t w = oc_utf8_decode(rest.p + k, rest.n - k, &cp);
            if (jinja_is_space(cp)) break;
            k += w;
        }
        add_part(cx, out, jinja_sub(rest, 0, k));
        i = (size_t)(rest.p - s.p) + k;
    }
}

static struct jval m_split(struct jctx *cx, struct jval s, const struct jargs *args) {
    const struct jval *a[2];
    struct parts out = {0};
    int64_t max;
    if (!jinja_bind(cx, "split", args, "sep,maxsplit", a) || !jinja_arg_int(cx, "split", a[1], -1, &max))
        return s;
    if (!a[0] || a[0]->type == JV_NONE) {
        split_spaces(cx, &out, s, max);
        return jinja_seq(cx, JV_LIST, out.items, out.n);
    }
    struct jval sep;
    if (!jinja_arg_str(cx, "split", a[0], s, &sep)) return s;
    if (!sep.n) return jinja_fail(cx, OC_ERR_FORMAT, "split: the separator is empty");
    size_t at = 0;
    for (; max != 0 && !cx->err; max--) {
        const char *hit = s.n > at ? memmem(s.p + at, s.n - at, sep.p, sep.n) : NULL;
        if (!hit) break;
        size_t to = (size_t)(hit - s.p);
        add_part(cx, &out, jinja_sub(s, at, to));
        at = to + sep.n;
    }
    if (jinja_step(cx, s.n / 256)) add_part(cx, &out, jinja_sub(s, at, s.n));
    return jinja_seq(cx, JV_LIST, out.items, out.n);
}

/* Last occurrence that ends at or before byte `to`. */
static size_t find_last(struct jctx *cx, struct jval s, struct jval needle, size_t to) {
    if (needle.n > to || !jinja_step(cx, 1 + (to - needle.n) / 1024)) return SIZE_MAX;
    for (size_t i = to - needle.n + 1; i-- > 0;) {
        if (((uint8_t)(i < s.n ? s.p[i] : 0) & 0xC0) != 0x80 && memcmp(s.p + i, needle.p, needle.n) == 0)
            return i;
    }
    return SIZE_MAX;
}

static struct jval m_rsplit(struct jctx *cx, struct jval s, const struct jargs *args) {
    const struct jval *a[2];
    struct parts out = {0};
    struct jval sep;
    int64_t max;
    if (!jinja_bind(cx, "rsplit", args, "sep,maxsplit", a) || !jinja_arg_int(cx, "rsplit", a[1], -1, &max))
        return s;
    if (!a[0] || a[0]->type == JV_NONE) {
        if (max < 0) return m_split(cx, s, args);
        return jinja_fail(cx, OC_ERR_UNSUPPORTED, "rsplit by white space with a maximum");
    }
    if (!jinja_arg_str(cx, "rsplit", a[0], s, &sep)) return s;
    if (!sep.n) return jinja_fail(cx, OC_ERR_FORMAT, "rsplit: the separator is empty");
    size_t end = s.n;
    for (; max != 0 && !cx->err; max--) {
        size_t at = find_last(cx, s, sep, end);
        if (at == SIZE_MAX) break;
        add_part(cx, &out, jinja_sub(s, at + sep.n, end));
        end = at;
    }
    add_part(cx, &out, jinja_sub(s, 0, end));
    for (size_t i = 0; i < out.n / 2; i++) {
        struct jval t = out.items[i];
        out.items[i] = out.items[out.n - 1 - i];
        out.items[out.n - 1 - i] = t;
    }
    return jinja_seq(cx, JV_LIST, out.items, out.n);
}

static struct jval partition_at(struct jctx *cx, struct jval s, const struct jargs *args, bool last) {
    const struct jval *a[1];
    struct jval sep, *items = jinja_alloc(cx, 3, sizeof *items);
    if (!items || !jinja_bind(cx, "partition", args, "sep", a) ||
        !jinja_arg_str(cx, "partition", a[0], jinja_none(), &sep))
        return s;
    if (!sep.n) return jinja_fail(cx, OC_ERR_FORMAT, "partition: the separator is empty");
    size_t at = last ? find_last(cx, s, sep, s.n) : jinja_find(cx, s, sep, 0);
    bool hit = at != SIZE_MAX;
    if (!hit) at = last ? 0 : s.n;
    items[0] = jinja_sub(s, 0, at);
    items[1] = hit ? sep : jinja_lit("");
    items[2] = jinja_sub(s, hit ? at + sep.n : at, s.n);
    return jinja_seq(cx, JV_TUPLE, items, 3);
}

static struct jval m_partition(struct jctx *cx, struct jval s, const struct jargs *args) {
    return partition_at(cx, s, args, false);
}

static struct jval m_rpartition(struct jctx *cx, struct jval s, const struct jargs *args) {
    return partition_at(cx, s, args, true);
}

static struct jval strip_with(struct jctx *cx, struct jval s, const struct jargs *args, bool l, bool r) {
    const struct jval *a[1];
    return jinja_bind(cx, "strip", args, "chars", a) ? jinja_str_strip(cx, s, a[0], l, r) : s;
}

static struct jval m_strip(struct jctx *cx, struct jval s, const struct jargs *args) {
    return strip_with(cx, s, args, true, true);
}

static struct jval m_lstrip(struct jctx *cx, struct jval s, const struct jargs *args) {
    return strip_with(cx, s, args, true, false);
}

static struct jval m_rstrip(struct jctx *cx, struct jval s, const struct jargs *args) {
    return strip_with(cx, s, args, false, true);
}

/* The part of s that the optional start and end arguments leave; *from is its first code point. A start past
 * the end gives false: nothing is found there, not even the empty string. */
static bool window(struct jctx *cx, struct jval *s, const struct jval *start, const struct jval *end,
                   int64_t *from) {
    int64_t n = jinja_len(*s), lo, hi;
    if (!jinja_arg_int(cx, "start", start, 0, &lo) || !jinja_arg_int(cx, "end", end, n, &hi)) return false;
    if (lo < 0) lo = lo < -n ? 0 : lo + n;
    if (hi < 0) hi = hi < -n ? 0 : hi + n;
    if (hi > n) hi = n;
    if (lo > hi) return false;
    *from = lo;
    size_t to = jinja_cp_offset(*s, (size_t)hi);
    *s = jinja_sub(*s, jinja_cp_offset(*s, (size_t)lo), to);
    return true;
}

static struct jval starts_or_ends(struct jctx *cx, struct jval s, const struct jargs *args, bool ends) {
    const struct jval *a[3];
    int64_t from;
    const char *who = ends ? "endswith" : "startswith";
    if (!jinja_bind(cx, who, args, "prefix,start,end", a)) return s;
    struct jval one = a[0] ? *a[0] : jinja_none(), *all = &one;
    size_t n = 1;
    if (one.type == JV_TUPLE) {
        all = one.seq->items;
        n = one.seq->n;
    }
    bool open = (!a[1] && !a[2]) || window(cx, &s, a[1], a[2], &from), hit = false;
    for (size_t i = 0; i < n && !hit; i++) {
        struct jval x;
        if (!jinja_arg_str(cx, who, &all[i], s, &x)) return s;
        struct oc_str whole = {s.p, s.n}, part = {x.p, x.n};
        hit = open && (ends ? oc_str_ends(whole, part) : oc_str_starts(whole, part));
    }
    return jinja_bool(hit);
}

static struct jval m_startswith(struct jctx *cx, struct jval s, const struct jargs *args) {
    return starts_or_ends(cx, s, args, false);
}

static struct jval m_endswith(struct jctx *cx, struct jval s, const struct jargs *args) {
    return starts_or_ends(cx, s, args, true);
}

static int64_t find_in(struct jctx *cx, struct jval s, const struct jargs *args, bool last) {
    const struct jval *a[3];
    struct jval x;
    int64_t from = 0;
    if (!jinja_bind(cx, "find", args, "sub,start,end", a) ||
        !jinja_arg_str(cx, "find", a[0], jinja_none(), &x))
        return -1;
    if ((a[1] || a[2]) && !window(cx, &s, a[1], a[2], &from)) return -1;
    size_t at = last ? find_last(cx, s, x, s.n) : jinja_find(cx, s, x, 0);
    return at == SIZE_MAX ? -1 : from + (int64_t)jinja_cp_count(jinja_sub(s, 0, at));
}

static struct jval m_find(struct jctx *cx, struct jval s, const struct jargs *args) {
    return jinja_int(find_in(cx, s, args, false));
}

static struct jval m_rfind(struct jctx *cx, struct jval s, const struct jargs *args) {
    return jinja_int(find_in(cx, s, args, true));
}

static struct jval m_index(struct jctx *cx, struct jval s, const struct jargs *args) {
    int64_t i = find_in(cx, s, args, false);
    return i < 0 ? jinja_fail(cx, OC_ERR_FORMAT, "index: the string was not found") : jinja_int(i);
}

static struct jval m_count(struct jctx *cx, struct jval s, const struct jargs *args) {
    const struct jval *a[3];
    struct jval x;
    int64_t from = 0, n = 0;
    if (!jinja_bind(cx, "count", args, "sub,start,end", a) ||
        !jinja_arg_str(cx, "count", a[0], jinja_none(), &x))
        return s;
    if ((a[1] || a[2]) && !window(cx, &s, a[1], a[2], &from)) return jinja_int(0);
    if (!x.n) return jinja_int(jinja_len(s) + 1);
    if (!jinja_step(cx, s.n / 256)) return s;
    for (size_t at = 0; s.n > at;) {
        const char *hit = memmem(s.p + at, s.n - at, x.p, x.n);
        if (!hit) break;
        at = (size_t)(hit - s.p) + x.n;
        n++;
    }
    return jinja_int(n);
}

static struct jval m_replace(struct jctx *cx, struct jval s, const struct jargs *args) {
    const struct jval *a[3];
    struct jval old, with;
    int64_t count;
    if (!jinja_bind(cx, "replace", args, "old,new,count", a)) return s;
    if (!jinja_arg_str(cx, "replace", a[0], jinja_none(), &old) ||
        !jinja_arg_str(cx, "replace", a[1], jinja_none(), &with) ||
        !jinja_arg_int(cx, "replace", a[2], -1, &count)) {
        return s;
    }
    return jinja_str_replace(cx, s, old, with, count);
}

static struct jval cased(struct jctx *cx, struct jval s, const struct jargs *args, enum jcase how) {
    const struct jval *a[1];
    return jinja_bind(cx, "a method without arguments", args, "", a) ? jinja_case(cx, s, how) : s;
}

static struct jval m_upper(struct jctx *cx, struct jval s, const struct jargs *args) {
    return cased(cx, s, args, J_UPPER);
}

static struct jval m_lower(struct jctx *cx, struct jval s, const struct jargs *args) {
    return cased(cx, s, args, J_LOWER);
}

static struct jval m_title(struct jctx *cx, struct jval s, const struct jargs *args) {
    return cased(cx, s, args, J_TITLE);
}

static struct jval m_capitalize(struct jctx *cx, struct jval s, const struct jargs *args) {
    return cased(cx, s, args, J_CAPITALIZE);
}

static struct jval m_join(struct jctx *cx, struct jval s, const struct jargs *args) {
    const struct jval *a[1];
    if (!jinja_bind(cx, "join", args, "iterable", a)) return s;
    return jinja_str_join(cx, s, jinja_iterate(cx, a[0] ? *a[0] : jinja_none()), false);
}

static struct jval m_splitlines(struct jctx *cx, struct jval s, const struct jargs *args) {
    const struct jval *a[1];
    return jinja_bind(cx, "splitlines", args, "keepends", a)
               ? jinja_str_splitlines(cx, s, jinja_arg_bool(a[0], false))
               : s;
}

static struct jval remove_affix(struct jctx *cx, struct jval s, const struct jargs *args, bool suffix) {
    const struct jval *a[1];
    struct jval x;
    if (!jinja_bind(cx, "removeprefix", args, "affix", a) ||
        !jinja_arg_str(cx, "removeprefix", a[0], jinja_none(), &x))
        return s;
    struct oc_str whole = {s.p, s.n}, part = {x.p, x.n};
    if (suffix) return oc_str_ends(whole, part) ? jinja_sub(s, 0, s.n - x.n) : s;
    return oc_str_starts(whole, part) ? jinja_sub(s, x.n, s.n) : s;
}

static struct jval m_removeprefix(struct jctx *cx, struct jval s, const struct jargs *args) {
    return remove_affix(cx, s, args, false);
}

static struct jval m_removesuffix(struct jctx *cx, struct jval s, const struct jargs *args) {
    return remove_affix(cx, s, args, true);
}

static struct jval all_of_class(struct jval s, char cls) {
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        i += oc_utf8_decode(s.p + i, s.n - i, &cp);
        if (cls == ' ' ? !jinja_is_space(cp) : !jinja_is_class(cp, cls)) return jinja_bool(false);
    }
    return jinja_bool(s.n > 0);
}

static struct jval m_isdigit(struct jctx *cx, struct jval s, const struct jargs *args) {
    (void)cx, (void)args;
    return all_of_class(s, 'd');
}

static struct jval m_isalpha(struct jctx *cx, struct jval s, const struct jargs *args) {
    (void)cx, (void)args;
    return all_of_class(s, 'a');
}

static struct jval m_isalnum(struct jctx *cx, struct jval s, const struct jargs *args) {
    (void)cx, (void)args;
    return all_of_class(s, 'n');
}

static struct jval m_isspace(struct jctx *cx, struct jval s, const struct jargs *args) {
    (void)cx, (void)args;
    return all_of_class(s, ' ');
}

static struct jval m_islower(struct jctx *cx, struct jval s, const struct jargs *args) {
    static const struct jargs none = {0};
    (void)args;
    return jinja_bool(jinja_test_find(OC_STR("lower"))->call(cx, s, &none));
}

static struct jval m_isupper(struct jctx *cx, struct jval s, const struct jargs *args) {
    static const struct jargs none = {0};
    (void)args;
    return jinja_bool(jinja_test_find(OC_STR("upper"))->call(cx, s, &none));
}

/* The value that a {field} of str.format names: {}, {0} or {name}. */
static const struct jval *format_field(const struct jargs *args, struct oc_str field, size_t *next) {
    size_t i = 0;
    if (!field.n) i = (*next)++;
    for (size_t k = 0; k < field.n; k++) {
        if (field.p[k] >= '0' && field.p[k] <= '9' && i < 1000) {
            i = i * 10 + (size_t)(field.p[k] - '0');
            continue;
        }
        for (size_t j = 0; j < args->n_kw; j++) {
            if (oc_str_eq((struct oc_str){args->kw[j].key.p, args->kw[j].key.n}, field))
                return &args->kw[j].value;
        }
        return NULL;
    }
    return i < args->n_pos ? &args->pos[i] : NULL;
}

static struct jval m_format(struct jctx *cx, struct jval s, const struct jargs *args) {
    struct jout b = {0};
    size_t next = 0;
    for (size_t i = 0; i < s.n && jinja_step(cx, 1);) {
        size_t k = i;
        while (k < s.n && s.p[k] != '{' && s.p[k] != '}') k++;
        jinja_put_sub(cx, &b, s, i, k);
        if (k == s.n) break;
        if (k + 1 < s.n && s.p[k + 1] == s.p[k]) {
            jinja_put_sub(cx, &b, s, k, k + 1);
            i = k + 2;
            continue;
        }
        const char *close = s.p[k] == '{' ? memchr(s.p + k, '}', s.n - k) : NULL;
        if (!close) return jinja_fail(cx, OC_ERR_FORMAT, "format: a single brace");
        struct oc_str field = {s.p + k + 1, (size_t)(close - (s.p + k + 1))};
        if (memchr(field.p, ':', field.n) || memchr(field.p, '!', field.n) || memchr(field.p, '.', field.n) ||
            memchr(field.p, '[', field.n)) {
            return jinja_fail(cx, OC_ERR_UNSUPPORTED, "format: only {}, {0} and {name} are known");
        }
        const struct jval *v = format_field(args, field, &next);
        if (!v)
            return jinja_fail(cx, OC_ERR_FORMAT, "format: no value for {%.*s}",
                              (int)(field.n < 60 ? field.n : 60), field.p);
        jinja_put_str(cx, &b, *v);
        i = (size_t)(close - s.p) + 1;
    }
    return jinja_done(&b);
}

const struct jfunc *jinja_strmethod_find(struct oc_str name) {
    static const struct jfunc methods[] = {
        {"strip", m_strip},
        {"lstrip", m_lstrip},
        {"rstrip", m_rstrip},
        {"split", m_split},
        {"rsplit", m_rsplit},
        {"startswith", m_startswith},
        {"endswith", m_endswith},
        {"replace", m_replace},
        {"upper", m_upper},
        {"lower", m_lower},
        {"title", m_title},
        {"capitalize", m_capitalize},
        {"find", m_find},
        {"rfind", m_rfind},
        {"index", m_index},
        {"count", m_count},
        {"join", m_join},
        {"splitlines", m_splitlines},
        {"format", m_format},
        {"partition", m_partition},
        {"rpartition", m_rpartition},
        {"removeprefix", m_removeprefix},
        {"removesuffix", m_removesuffix},
        {"isdigit", m_isdigit},
        {"isalpha", m_isalpha},
        {"isalnum", m_isalnum},
        {"isspace", m_isspace},
        {"islower", m_islower},
        {"isupper", m_isupper},
    };
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        if (oc_str_is(name, methods[i].name)) return &methods[i];
    }
    return NULL;
}
