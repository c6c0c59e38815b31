/* Filters on strings, numbers and single values; jinja_seqfilters.c has those on sequences. */
#include "chat/jinja.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static struct jval f_trim(struct jctx *cx, struct jval self, const struct jargs *args) {
    const struct jval *a[1];
    return jinja_bind(cx, "trim", args, "chars", a)
               ? jinja_str_strip(cx, jinja_to_str(cx, self), a[0], true, true)
               : self;
}

static struct jval cased(struct jctx *cx, const char *who, struct jval self, const struct jargs *args,
                         enum jcase how) {
    const struct jval *a[1];
    return jinja_bind(cx, who, args, "", a) ? jinja_case(cx, jinja_to_str(cx, self), how) : self;
}

static struct jval f_upper(struct jctx *cx, struct jval self, const struct jargs *args) {
    return cased(cx, "upper", self, args, J_UPPER);
}

static struct jval f_lower(struct jctx *cx, struct jval self, const struct jargs *args) {
    return cased(cx, "lower", self, args, J_LOWER);
}

static struct jval f_capitalize(struct jctx *cx, struct jval self, const struct jargs *args) {
    return cased(cx, "capitalize", self, args, J_CAPITALIZE);
}

static bool begins_word(uint32_t cp) {
    return cp == '-' || cp == '(' || cp == '{' || cp == '[' || cp == '<' || jinja_is_space(cp);
}

/* The filter's own notion of words: after white space, hyphens and opening brackets; the first letter goes to
 * upper case, not title case. */
static struct jval f_title(struct jctx *cx, struct jval self, const struct jargs *args) {
    const struct jval *a[1];
    if (!jinja_bind(cx, "title", args, "", a)) return self;
    struct jval s = jinja_to_str(cx, self), part;
    struct jout b = {0};
    for (size_t i = 0; i < s.n && jinja_step(cx, 1);) {
        uint32_t cp;
        size_t k = oc_utf8_decode(s.p + i, s.n - i, &cp), end = i + k;
        bool gap = begins_word(cp);
        while (end < s.n) {
            size_t w = oc_utf8_decode(s.p + end, s.n - end, &cp);
            if (begins_word(cp) != gap) break;
            end += w;
        }
        part = jinja_case(cx, jinja_sub(s, i, i + k), J_UPPER);
        jinja_put_sub(cx, &b, part, 0, part.n);
        part = jinja_case(cx, jinja_sub(s, i + k, end), J_LOWER);
        jinja_put_sub(cx, &b, part, 0, part.n);
        i = end;
    }
    return jinja_done(&b);
}

static struct jval f_string(struct jctx *cx, struct jval self, const struct jargs *args) {
    (void)args;
    return jinja_to_str(cx, self);
}

static struct jval f_safe(struct jctx *cx, struct jval self, const struct jargs *args) {
    (void)args;
    return jinja_to_str(cx, self); /* autoescape is off, so markup is plain text */
}

static struct jval f_escape(struct jctx *cx, struct jval self, const struct jargs *args) {
    struct jval s = jinja_to_str(cx, self);
    struct jout b = {0};
    (void)args;
    for (size_t i = 0; i < s.n && !cx->err; i++) {
        const char *e = s.p[i] == '&'    ? "&amp;"
                        : s.p[i] == '<'  ? "&lt;"
                        : s.p[i] == '>'  ? "&gt;"
                        : s.p[i] == '\'' ? "&#39;"
                        : s.p[i] == '"'  ? "&#34;"
                                         : NULL;
        if (e)
            jinja_put(cx, &b, e, strlen(e), jinja_origin(s, i));
        else
            jinja_put_sub(cx, &b, s, i, i + 1);
    }
    return jinja_done(&b);
}

static struct jval f_replace(struct jctx *cx, struct jval self, const struct jargs *args) {
    const struct jval *a[3];
    int64_t count;
    if (!jinja_bind(cx, "replace", args, "old,new,count", a) ||
        !jinja_arg_int(cx, "replace", a[2], -1, &count))
        return self;
    if (!a[0] || !a[1]) return jinja_fail(cx, OC_ERR_FORMAT, "replace wants two strings");
    return jinja_str_replace(cx, jinja_to_str(cx, self), jinja_to_str(cx, *a[0]), jinja_to_str(cx, *a[1]),
                             count);
}

static struct jval f_default(struct jctx *cx, struct jval self, const struct jargs *args) {
    const struct jval *a[2];
    if (!jinja_bind(cx, "default", args, "default_value,boolean", a)) return self;
    bool use = self.type == JV_UNDEF || (jinja_arg_bool(a[1], false) && !jinja_truth(self));
    return !use ? self : a[0] ? *a[0] : jinja_lit("");
}

/* Text as Python's int() and float() take it: trimmed, underscores between digits. False when too long. */
static bool number_text(struct jctx *cx, struct jval s, char *out, size_t size) {
    s = jinja_str_strip(cx, s, NULL, true, true);
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        bool gap = s.p[i] == '_' && i && i + 1 < s.n && s.p[i - 1] >= '0' && s.p[i - 1] <= '9' &&
                   s.p[i + 1] >= '0' && s.p[i + 1] <= '9';
        if (gap) continue;
        if (n + 1 >= size) return false;
        out[n++] = s.p[i];
    }
    out[n] = '\0';
    return n > 0;
}

static bool parse_double(struct jctx *cx, struct jval s, double *out) {
    char t[400], *end;
    if (!number_text(cx, s, t, sizeof t) || strpbrk(t, "xXpP_(")) return false;
    *out = strtod(t, &end);
    return *end == '\0';
}

static bool parse_whole(struct jctx *cx, struct jval s, int64_t base, int64_t *out, bool *over) {
    char t[400], *end;
    *over = false;
    if (!number_text(cx, s, t, sizeof t)) return false;
    const char *p = t + (*t == '-' || *t == '+');
    if (base != 16 && !(*p >= '0' && *p <= '9') && base <= 10) return false;
    if (*p == '-' || *p == '+' || *p == ' ') return false;
    errno = 0;
    *out = strtoll(t, &end, (int)base);
    *over = errno == ERANGE;
    return *end == '\0' && end > p;
}

static struct jval whole_of(struct jctx *cx, struct jval self, double d, struct jval fallback) {
    if (!isfinite(d)) return fallback;
    if (!(d > -9.2e18 && d < 9.2e18)) return jinja_fail(cx, OC_ERR_LIMIT, "an integer grows past 64 bits");
    struct jval v = jinja_int((int64_t)d);
    v.trusted = self.trusted;
    return v;
}

static struct jval f_int(struct jctx *cx, struct jval self, const struct jargs *args) {
    const struct jval *a[2];
    int64_t base, i;
    double d;
    bool over;
    if (!jinja_bind(cx, "int", args, "default,base", a) || !jinja_arg_int(cx, "int", a[1], 10, &base))
        return self;
    struct jval fallback = a[0] ? *a[0] : jinja_int(0);
    if (base != 10 && base != 16 && base != 8 && base != 2)
        return jinja_fail(cx, OC_ERR_UNSUPPORTED, "int: a base other than 2, 8, 10 and 16");
    if (self.type == JV_UNDEF)
        return jinja_fail(cx, OC_ERR_FORMAT, "%.*s", (int)self.n, self.n ? self.p : "");
    if (self.type == JV_INT || self.type == JV_BIGINT) return self;
    if (self.type == JV_BOOL || self.type == JV_FLOAT)
        return whole_of(cx, self, jinja_to_double(self), fallback);
    if (self.type != JV_STR) return fallback;
    uint8_t origin = self.n ? jinja_origin(self, 0) : 1;
    if (parse_whole(cx, self, base, &i, &over)) {
        if (over) return jinja_fail(cx, OC_ERR_LIMIT, "an integer grows past 64 bits");
        return (struct jval){.type = JV_INT, .trusted = origin, .i = i};
    }
    self.trusted = origin;
    return parse_double(cx, self, &d) ? whole_of(cx, self, d, fallback) : fallback;
}

static struct jval f_float(struct jctx *cx, struct jval self, const struct jargs *args) {
    const struct jval *a[1];
    double d;
    if (!jinja_bind(cx, "float", args, "default", a)) return self;
    struct jval fallback = a[0] ? *a[0] : jinja_float(0);
    if (jinja_is_number(self))
        return (struct jval){.type = JV_FLOAT, .trusted = self.trusted, .d = jinja_to_double(self)};
    if (self.type == JV_UNDEF)
        return jinja_fail(cx, OC_ERR_FORMAT, "%.*s", (int)self.n, self.n ? self.p : "");
    if (self.type != JV_STR || !parse_double(cx, self, &d)) return fallback;
    return (struct jval){.type = JV_FLOAT, .trusted = self.n ? jinja_origin(self, 0) : 1, .d = d};
}

static struct jval f_abs(struct jctx *cx, struct jval self, const struct jargs *args) {
    (void)args;
    if (!jinja_is_number(self) || self.type == JV_BIGINT)
        return jinja_fail(cx, OC_ERR_FORMAT, "abs of a %s", jinja_type_name(self));
    if (self.type == JV_FLOAT) self.d = fabs(self.d);
    if (self.type == JV_BOOL) return jinja_int(self.flag);
    if (self.type == JV_INT && self.i < 0) {
        if (self.i == INT64_MIN) return jinja_fail(cx, OC_ERR_LIMIT, "an integer grows past 64 bits");
        self.i = -self.i;
    }
    return self;
}

/* round(value, precision) through the decimal text, which rounds the exact binary value half to even. */
static double round_common(double d, int64_t precision) {
    char t[400];
    if (!isfinite(d) || precision > 300) return d;
    if (precision >= 0) {
        snprintf(t, sizeof t, "%.*f", (int)precision, d);
        return strtod(t, NULL);
    }
    double scale = pow(10, (double)-precision);
    return isfinite(scale) ? nearbyint(d / scale) * scale : copysign(0.0, d);
}

static struct jval f_round(struct jctx *cx, struct jval self, const struct jargs *args) {
    const struct jval *a[2];
    int64_t precision;
    struct jval method;
    if (!jinja_bind(cx, "round", args, "precision,method", a) ||
        !jinja_arg_int(cx, "round", a[0], 0, &precision) ||
        !jinja_arg_str(cx, "round", a[1], jinja_lit("common"), &method)) {
        return self;
    }
    if (!jinja_is_number(self) || self.type == JV_BIGINT)
        return jinja_fail(cx, OC_ERR_FORMAT, "round of a %s", jinja_type_name(self));
    struct oc_str how = {method.p, method.n};
    bool up = oc_str_is(how, "ceil"), down = oc_str_is(how, "floor");
    if (!up && !down && !oc_str_is(how, "common"))
        return jinja_fail(cx, OC_ERR_FORMAT, "round: the method must be common, ceil or floor");
    double d = jinja_to_double(self);
    if (!up && !down && self.type != JV_FLOAT) {
        if (precision < 0) return jinja_fail(cx, OC_ERR_UNSUPPORTED, "round of an integer to tens");
        return self.type == JV_BOOL ? jinja_int(self.flag) : self;
    }
    double scale = pow(10, (double)precision);
    double r = up ? ceil(d * scale) / scale : down ? floor(d * scale) / scale : round_common(d, precision);
    return (struct jval){.type = JV_FLOAT, .trusted = self.trusted, .d = r};
}

static struct jval f_indent(struct jctx *cx, struct jval self, const struct jargs *args) {
    const struct jval *a[3];
    int64_t width = 4;
    if (!jinja_bind(cx, "indent", args, "width,first,blank", a)) return self;
    if (self.type != JV_STR) return jinja_fail(cx, OC_ERR_FORMAT, "indent of a %s", jinja_type_name(self));
    struct jval s = self, by = a[0] ? *a[0] : jinja_int(4);
    struct jout b = {0}, ind = {0};
    bool first = jinja_arg_bool(a[1], false), blank = jinja_arg_bool(a[2], false);
    if (by.type != JV_STR) {
        if (!jinja_arg_int(cx, "indent", &by, 4, &width)) return self;
        for (int64_t i = 0; i < width && !cx->err; i++) jinja_put(cx, &ind, " ", 1, 1);
        by = jinja_done(&ind);
    }
    jinja_put_sub(cx, &b, s, 0, s.n);
    jinja_put(cx, &b, "\n", 1, 1);
    struct jval lines = jinja_str_splitlines(cx, jinja_done(&b), false);
    if (cx->err) return self;
    b = (struct jout){0};
    for (size_t i = 0; i < lines.seq->n && !cx->err; i++) {
        struct jval line = lines.seq->items[i];
        if (i) jinja_put(cx, &b, "\n", 1, 1);
        if (i ? blank || line.n : first) jinja_put_sub(cx, &b, by, 0, by.n);
        jinja_put_sub(cx, &b, line, 0, line.n);
    }
    return jinja_done(&b);
}

static struct jval f_format(struct jctx *cx, struct jval self, const struct jargs *args) {
    struct jdict named = {.pairs = args->kw, .n = args->n_kw};
    struct jval s = jinja_to_str(cx, self);
    if (args->n_pos && args->n_kw)
        return jinja_fail(cx, OC_ERR_FORMAT, "format takes positional or named values, not both");
    return jinja_format_percent(cx, s, args->pos, args->n_pos, args->n_kw ? &named : NULL);
}

static struct jval f_attr(struct jctx *cx, struct jval self, const struct jargs *args) {
    const struct jval *a[1];
    struct jval name;
    bool found;
    if (self.type == JV_UNDEF)
        return jinja_fail(cx, OC_ERR_FORMAT, "%.*s", (int)self.n, self.n ? self.p : "");
    if (!jinja_bind(cx, "attr", args, "name", a) || !jinja_arg_str(cx, "attr", a[0], jinja_none(), &name))
        return self;
    struct jval v = jinja_method_get(cx, self, (struct oc_str){name.p, name.n}, &found);
    return found ? v : jinja_undef(cx, "a %s has no such attribute", jinja_type_name(self));
}

static struct jval f_wordcount(struct jctx *cx, struct jval self, const struct jargs *args) {
    struct jval s = jinja_to_str(cx, self);
    int64_t n = 0;
    bool in_word = false;
    (void)args;
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        i += oc_utf8_decode(s.p + i, s.n - i, &cp);
        bool word = cp == '_' || jinja_is_class(cp, 'n');
        n += word && !in_word;
        in_word = word;
    }
    return jinja_int(n);
}

const struct jfunc *jinja_filter_find(struct oc_str name) {
    static const struct jfunc filters[] = {
        {"trim", f_trim},
        {"upper", f_upper},
        {"lower", f_lower},
        {"capitalize", f_capitalize},
        {"title", f_title},
        {"string", f_string},
        {"safe", f_safe},
        {"escape", f_escape},
        {"e", f_escape},
        {"forceescape", f_escape},
        {"replace", f_replace},
        {"default", f_default},
        {"d", f_default},
        {"int", f_int},
        {"float", f_float},
        {"abs", f_abs},
        {"round", f_round},
        {"indent", f_indent},
        {"format", f_format},
        {"attr", f_attr},
        {"tojson", jinja_filter_tojson},
        {"wordcount", f_wordcount},
    };
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++) {
        if (oc_str_is(name, filters[i].name)) return &filters[i];
    }
    return jinja_seqfilter_find(name);
}
