/* Global functions, methods of dicts and lists, and % formatting. */
#include "chat/jinja.h"

#include <stdio.h>

#define MAX_RANGE 100000 /* jinja2's sandbox has the same */

static struct jval g_range(struct jctx *cx, struct jval self, const struct jargs *args) {
    int64_t v[3] = {0, 0, 1};
    if (args->n_kw || args->n_pos < 1 || args->n_pos > 3)
        return jinja_fail(cx, OC_ERR_FORMAT, "range takes 1 to 3 numbers");
    for (size_t i = 0; i < args->n_pos; i++) {
        if (args->pos[i].type == JV_NONE || !jinja_arg_int(cx, "range", &args->pos[i], 0, &v[i])) {
            return jinja_fail(cx, OC_ERR_FORMAT, "range takes integers");
        }
    }
    if (args->n_pos == 1) {
        v[1] = v[0];
        v[0] = 0;
    }
    if (v[2] == 0) return jinja_fail(cx, OC_ERR_FORMAT, "range: the step is zero");
    __int128 span = v[2] > 0 ? (__int128)v[1] - v[0] : (__int128)v[0] - v[1];
    __int128 step = v[2] > 0 ? v[2] : -(__int128)v[2];
    __int128 n = span <= 0 ? 0 : (span - 1) / step + 1;
    if (n > MAX_RANGE) return jinja_fail(cx, OC_ERR_LIMIT, "range: more than %d numbers", MAX_RANGE);
    struct jval *items = jinja_alloc(cx, (size_t)n, sizeof *items);
    if (!items || !jinja_step(cx, (size_t)n / 8)) return self;
    for (size_t i = 0; i < (size_t)n; i++)
        items[i] = jinja_int((int64_t)(v[0] + (__int128)v[2] * (__int128)i));
    struct jval r = jinja_seq(cx, JV_RANGE, items, (size_t)n);
    if (r.type != JV_RANGE) return r;
    r.seq->start = v[0];
    r.seq->stop = v[1];
    r.seq->step = v[2];
    return r;
}

/* namespace(...) and dict(...): named arguments, after a dict or pairs. */
static struct jval make_dict(struct jctx *cx, const struct jargs *args, enum jtype type) {
    struct jdict *d = jinja_alloc(cx, 1, sizeof *d);
    if (!d) return jinja_none();
    if (args->n_pos > 1)
        return jinja_fail(cx, OC_ERR_FORMAT, "dict and namespace take one positional argument");
    if (args->n_pos && args->pos[0].type == JV_DICT) {
        const struct jdict *from = args->pos[0].dict;
        for (size_t i = 0; i < from->n && !cx->err; i++)
            jinja_dict_put(cx, d, from->pairs[i].key, from->pairs[i].value);
    } else if (args->n_pos) {
        struct jseq s = jinja_iterate(cx, args->pos[0]);
        for (size_t i = 0; i < s.n && !cx->err; i++) {
            struct jval p = s.items[i];
            if ((p.type != JV_TUPLE && p.type != JV_LIST) || p.seq->n != 2 ||
                !jinja_hashable(p.seq->items[0])) {
                return jinja_fail(cx, OC_ERR_FORMAT, "dict: element %zu is not a pair", i);
            }
            jinja_dict_put(cx, d, p.seq->items[0], p.seq->items[1]);
        }
    }
    for (size_t i = 0; i < args->n_kw && !cx->err; i++)
        jinja_dict_put(cx, d, args->kw[i].key, args->kw[i].value);
    return (struct jval){.type = (uint8_t)type, .trusted = 1, .dict = d};
}

static struct jval g_namespace(struct jctx *cx, struct jval self, const struct jargs *args) {
    (void)self;
    return make_dict(cx, args, JV_NS);
}

static struct jval g_dict(struct jctx *cx, struct jval self, const struct jargs *args) {
    (void)self;
    return make_dict(cx, args, JV_DICT);
}

static struct jval g_cycler(struct jctx *cx, struct jval self, const struct jargs *args) {
    (void)self;
    if (!args->n_pos || args->n_kw) return jinja_fail(cx, OC_ERR_FORMAT, "cycler wants at least one value");
    struct jval *items = jinja_alloc(cx, args->n_pos, sizeof *items);
    if (!items) return jinja_none();
    memcpy(items, args->pos, args->n_pos * sizeof *items);
    return jinja_seq(cx, JV_CYCLER, items, args->n_pos);
}

static struct jval g_joiner(struct jctx *cx, struct jval self, const struct jargs *args) {
    const struct jval *a[1];
    if (!jinja_bind(cx, "joiner", args, "sep", a)) return self;
    struct jval *items = jinja_alloc(cx, 1, sizeof *items);
    if (!items) return self;
    items[0] = a[0] ? *a[0] : jinja_lit(", ");
    return jinja_seq(cx, JV_JOINER, items, 1);
}

static struct jval g_raise(struct jctx *cx, struct jval self, const struct jargs *args) {
    const struct jval *a[1];
    if (!jinja_bind(cx, "raise_exception", args, "message", a)) return self;
    struct jval s = jinja_to_str(cx, a[0] ? *a[0] : jinja_none());
    return jinja_fail(cx, OC_ERR_USAGE, "the template refuses these messages: %.*s",
                      (int)(s.n < 200 ? s.n : 200), s.p);
}

/* datetime.strftime of a time without zone: %Z and %z are empty, %f is zero. */
static struct jval g_strftime_now(struct jctx *cx, struct jval self, const struct jargs *args) {
    const struct jval *a[1];
    struct jval fmt;
    if (!jinja_bind(cx, "strftime_now", args, "format", a) ||
        !jinja_arg_str(cx, "strftime_now", a[0], jinja_none(), &fmt))
        return self;
    char f[256], text[1024];
    size_t n = 0;
    for (size_t i = 0; i < fmt.n; i++) {
        char next = i + 1 < fmt.n ? fmt.p[i + 1] : 0;
        if (n + 8 > sizeof f || fmt.p[i] == '\0')
            return jinja_fail(cx, OC_ERR_LIMIT, "strftime_now: the format is too long");
        if (fmt.p[i] == '%' && (next == 'Z' || next == 'z' || next == 'f')) {
            if (next == 'f') n += (size_t)snprintf(f + n, sizeof f - n, "000000");
            i++;
            continue;
        }
        f[n++] = fmt.p[i];
        if (fmt.p[i] == '%' && next) f[n++] = fmt.p[++i];
    }
    f[n] = '\0';
    struct tm tm;
    if (!n || !gmtime_r(&cx->now, &tm)) return jinja_lit("");
    size_t len = strftime(text, sizeof text, f, &tm);
    if (!len || !oc_utf8_valid(text, len))
        return jinja_fail(cx, OC_ERR_LIMIT, "strftime_now: the format gives no text of at most 1023 bytes");
    struct jout b = {0};
    jinja_put(cx, &b, text, len, fmt.o ? 0 : fmt.trusted);
    return jinja_done(&b);
}

const struct jfunc *jinja_global_find(struct oc_str name) {
    static const struct jfunc functions[] = {
        {"range", g_range},   {"namespace", g_namespace},   {"dict", g_dict},
        {"cycler", g_cycler}, {"raise_exception", g_raise}, {"strftime_now", g_strftime_now},
        {"joiner", g_joiner},
    };
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        if (oc_str_is(name, functions[i].name)) return &functions[i];
    }
    return NULL;
}

static struct jval dict_view(struct jctx *cx, const struct jdict *d, char kind) {
    struct jval *items = jinja_step(cx, d->n / 8) ? jinja_alloc(cx, d->n, sizeof *items) : NULL;
    if (!items) return jinja_none();
    for (size_t i = 0; i < d->n && !cx->err; i++) {
        if (kind == 'k') items[i] = d->pairs[i].key;
        if (kind == 'v') items[i] = d->pairs[i].value;
        if (kind != 'i') continue;
        struct jval *pair = jinja_alloc(cx, 2, sizeof *pair);
        if (!pair) break;
        pair[0] = d->pairs[i].key;
        pair[1] = d->pairs[i].value;
        items[i] = jinja_seq(cx, JV_TUPLE, pair, 2);
    }
    struct jval v = jinja_seq(cx, JV_VIEW, items, d->n);
    v.flag = (uint8_t)kind;
    return v;
}

static struct jval d_keys(struct jctx *cx, struct jval self, const struct jargs *args) {
    (void)args;
    return dict_view(cx, self.dict, 'k');
}

static struct jval d_values(struct jctx *cx, struct jval self, const struct jargs *args) {
    (void)args;
    return dict_view(cx, self.dict, 'v');
}

static struct jval d_items(struct jctx *cx, struct jval self, const struct jargs *args) {
    (void)args;
    return dict_view(cx, self.dict, 'i');
}

static struct jval d_get(struct jctx *cx, struct jval self, const struct jargs *args) {
    const struct jval *a[2];
    if (!jinja_bind(cx, "get", args, "key,default", a)) return self;
    if (!a[0] || !jinja_hashable(*a[0]))
        return jinja_fail(cx, OC_ERR_FORMAT, "get: no key, or one of a kind that dicts do not have");
    const struct jval *hit = jinja_dict_find(cx, self.dict, *a[0]);
    return hit ? *hit : a[1] ? *a[1] : jinja_none();
}

static struct jval same(struct jctx *cx, struct jval self, const struct jargs *args) {
    (void)cx, (void)args;
    return self; /* copies of immutable values */
}

static struct jval l_index(struct jctx *cx, struct jval self, const struct jargs *args) {
    for (size_t i = 0; args->n_pos == 1 && i < self.seq->n && !cx->err; i++) {
        if (jinja_equal(cx, self.seq->items[i], args->pos[0])) return jinja_int((int64_t)i);
    }
    return jinja_fail(cx, OC_ERR_FORMAT, "index: the value is not in the list");
}

static struct jval l_count(struct jctx *cx, struct jval self, const struct jargs *args) {
    int64_t n = 0;
    if (args->n_pos != 1) return jinja_fail(cx, OC_ERR_FORMAT, "count takes one value");
    for (size_t i = 0; i < self.seq->n && !cx->err; i++)
        n += jinja_equal(cx, self.seq->items[i], args->pos[0]);
    return jinja_int(n);
}

static struct jval c_next(struct jctx *cx, struct jval self, const struct jargs *args) {
    (void)cx, (void)args;
    struct jval v = self.seq->items[self.seq->pos];
    self.seq->pos = (self.seq->pos + 1) % self.seq->n;
    return v;
}

static struct jval c_reset(struct jctx *cx, struct jval self, const struct jargs *args) {
    (void)cx, (void)args;
    self.seq->pos = 0;
    return jinja_none();
}

static const struct jfunc *find_in(const struct jfunc *f, size_t n, struct oc_str name) {
    for (size_t i = 0; i < n; i++) {
        if (oc_str_is(name, f[i].name)) return &f[i];
    }
    return NULL;
}

static const struct jfunc *method_of(struct jval v, struct oc_str name) {
    static const struct jfunc dicts[] = {
        {"items", d_items}, {"keys", d_keys}, {"values", d_values}, {"get", d_get}, {"copy", same}};
    static const struct jfunc lists[] = {{"index", l_index}, {"count", l_count}, {"copy", same}};
    static const struct jfunc cyclers[] = {{"next", c_next}, {"reset", c_reset}};
    if (v.type == JV_DICT) return find_in(dicts, 5, name);
    if (v.type == JV_LIST) return find_in(lists, 3, name);
    if (v.type == JV_TUPLE || v.type == JV_RANGE) return find_in(lists, 2, name);
    if (v.type == JV_CYCLER) return find_in(cyclers, 2, name);
    return v.type == JV_STR ? jinja_strmethod_find(name) : NULL;
}

/* Methods that Python has and the sandbox forbids: they change the object. */
static bool is_forbidden(struct jval v, struct oc_str name) {
    static const char *const words[] = {"append",  "clear", "extend",  "insert",     "pop",   "remove",
                                        "reverse", "sort",  "popitem", "setdefault", "update"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (!oc_str_is(name, words[i])) continue;
        bool both = oc_str_is(name, "clear") || oc_str_is(name, "pop");
        return v.type == JV_DICT ? i >= 8 || both : v.type == JV_LIST && i < 8;
    }
    return name.n > 4 && oc_str_starts(name, OC_STR("__")) && oc_str_ends(name, OC_STR("__"));
}

struct jval jinja_method_get(struct jctx *cx, struct jval v, struct oc_str name, bool *found) {
    *found = true;
    if (v.type == JV_LOOP) return jinja_loop_attr(cx, v.loop, name, found);
    if (v.type == JV_NS) {
        const struct jval *hit = jinja_dict_find_str(v.dict, name);
        *found = hit != NULL;
        return hit ? *hit : v;
    }
    if (v.type == JV_CYCLER && oc_str_is(name, "current")) return v.seq->items[v.seq->pos];
    if (is_forbidden(v, name)) {
        return jinja_undef(cx, "'%.*s' of a %s may not be used in a chat template",
                           (int)(name.n < 60 ? name.n : 60), name.p, jinja_type_name(v));
    }
    const struct jfunc *fn = method_of(v, name);
    *found = fn != NULL;
    struct jmethod *m = fn ? jinja_alloc(cx, 1, sizeof *m) : NULL;
    if (!m) return v;
    *m = (struct jmethod){v, fn};
    return (struct jval){.type = JV_METHOD, .trusted = 1, .method = m};
}

static struct jval padded(struct jctx *cx, struct jval text, int64_t width, bool left, char fill) {
    int64_t n = width - jinja_len(text);
    struct jout b = {0};
    if (n <= 0) return text;
    if (left) jinja_put_sub(cx, &b, text, 0, text.n);
    for (int64_t i = 0; i < n && !cx->err; i++) jinja_put(cx, &b, &fill, 1, 1);
    if (!left) jinja_put_sub(cx, &b, text, 0, text.n);
    return jinja_done(&b);
}

/* One conversion of a % format. */
static struct jval convert(struct jctx *cx, char kind, int precision, struct jval v) {
    char t[400];
    struct jout b = {0};
    if (kind == 's' || kind == 'r') {
        if (kind == 's')
            jinja_put_str(cx, &b, v);
        else
            jinja_put_repr(cx, &b, v, 0);
        struct jval s = jinja_done(&b);
        return precision < 0 ? s : jinja_sub(s, 0, jinja_cp_offset(s, (size_t)precision));
    }
    bool whole = kind == 'd' || kind == 'i' || kind == 'u', hex = kind == 'x' || kind == 'X';
    if (!jinja_is_number(v) || v.type == JV_BIGINT || (hex && v.type == JV_FLOAT) || precision > 60) {
        return jinja_fail(cx, OC_ERR_FORMAT, "%%%c wants a number and got a %s", kind, jinja_type_name(v));
    }
    if (whole || hex) {
        double d = jinja_to_double(v);
        if (v.type == JV_FLOAT && !(d > -9e18 && d < 9e18))
            return jinja_fail(cx, OC_ERR_LIMIT, "an integer grows past 64 bits");
        int64_t i = v.type == JV_INT ? v.i : v.type == JV_BOOL ? v.flag : (int64_t)d;
        uint64_t mag = i < 0 ? 0 - (uint64_t)i : (uint64_t)i;
        snprintf(t, sizeof t, hex ? kind == 'x' ? "%s%llx" : "%s%llX" : "%s%llu", i < 0 ? "-" : "",
                 (unsigned long long)mag);
    } else {
        const char fmt[] = {'%', '.', '*', kind, 0};
        int (*print)(char *, size_t, const char *, ...) = snprintf; /* the format is one of %.*e, f, g */
        print(t, sizeof t, fmt, precision < 0 ? 6 : precision, jinja_to_double(v));
    }
    jinja_put(cx, &b, t, strlen(t), v.trusted);
    return jinja_done(&b);
}

struct jval jinja_format_percent(struct jctx *cx, struct jval fmt, const struct jval *args, size_t n_args,
                                 const struct jdict *named) {
    struct jout b = {0};
    size_t used = 0;
    for (size_t i = 0; i < fmt.n && jinja_step(cx, 1);) {
        const char *hit = memchr(fmt.p + i, '%', fmt.n - i);
        size_t k = hit ? (size_t)(hit - fmt.p) : fmt.n;
        jinja_put_sub(cx, &b, fmt, i, k);
        if (k++ == fmt.n) break;
        const struct jval *v = NULL;
        if (k < fmt.n && fmt.p[k] == '(' && named) {
            const char *close = memchr(fmt.p + k, ')', fmt.n - k);
            if (!close) return jinja_fail(cx, OC_ERR_FORMAT, "a %% format with an open parenthesis");
            v = jinja_dict_find_str(named, (struct oc_str){fmt.p + k + 1, (size_t)(close - fmt.p) - k - 1});
            if (!v) return jinja_fail(cx, OC_ERR_FORMAT, "a %% format names a key that is missing");
            k = (size_t)(close - fmt.p) + 1;
            used = n_args;
        }
        bool left = false, zero = false;
        int64_t width = 0;
        int precision = -1;
        for (; k < fmt.n && (fmt.p[k] == '-' || fmt.p[k] == '0'); k++)
            *(fmt.p[k] == '-' ? &left : &zero) = true;
        for (; k < fmt.n && fmt.p[k] >= '0' && fmt.p[k] <= '9' && width < 100000; k++)
            width = width * 10 + (fmt.p[k] - '0');
        if (k < fmt.n && fmt.p[k] == '.') {
            precision = 0;
            for (k++; k < fmt.n && fmt.p[k] >= '0' && fmt.p[k] <= '9' && precision < 100000; k++)
                precision = precision * 10 + (fmt.p[k] - '0');
        }
        char kind = k < fmt.n ? fmt.p[k] : 0;
        i = k + 1;
        if (kind == '%') {
            jinja_put_sub(cx, &b, fmt, k, k + 1);
            continue;
        }
        if (!kind || !strchr("srdiuxXfFeEgG", kind) || (zero && width))
            return jinja_fail(cx, OC_ERR_UNSUPPORTED, "this build does not know that %% format");
        if (!v && used >= n_args) return jinja_fail(cx, OC_ERR_FORMAT, "a %% format with too few values");
        struct jval text = convert(cx, kind, precision, v ? *v : args[used++]);
        if (cx->err) return fmt;
        text = padded(cx, text, width, left, ' ');
        jinja_put_sub(cx, &b, text, 0, text.n);
    }
    if (used < n_args && !named && !cx->err)
        return jinja_fail(cx, OC_ERR_FORMAT, "a %% format with values left over");
    return jinja_done(&b);
}
