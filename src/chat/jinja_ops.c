/* Operators, attributes, items and slices with Python's rules. */
#include "chat/jinja.h"

#include <math.h>

static struct jval bad_types(struct jctx *cx, const char *op, struct jval x, struct jval y) {
    struct jval u = x.type == JV_UNDEF ? x : y;
    if (u.type == JV_UNDEF && u.n) return jinja_fail(cx, OC_ERR_FORMAT, "%.*s", (int)u.n, u.p);
    return jinja_fail(cx, OC_ERR_FORMAT, "'%s' does not work on a %s and a %s", op, jinja_type_name(x),
                      jinja_type_name(y));
}

static struct jval too_big(struct jctx *cx) {
    return jinja_fail(cx, OC_ERR_LIMIT, "an integer grows past 64 bits");
}

static struct jval int_power(struct jctx *cx, int64_t x, int64_t y) {
    int64_t r = 1;
    if (x == 0 || x == 1) return jinja_int(y == 0 ? 1 : x);
    if (x == -1) return jinja_int(y % 2 ? -1 : 1);
    for (; y > 0; y--) {
        if (__builtin_mul_overflow(r, x, &r)) return too_big(cx);
    }
    return jinja_int(r);
}

static struct jval int_divide(struct jctx *cx, uint8_t op, int64_t x, int64_t y) {
    if (y == 0) return jinja_fail(cx, OC_ERR_FORMAT, "a division by zero");
    if (op == '/') return jinja_float((double)x / (double)y);
    if (x == INT64_MIN && y == -1) return op == '%' ? jinja_int(0) : too_big(cx);
    int64_t q = x / y, r = x % y;
    if (r != 0 && (r < 0) != (y < 0)) {
        q--;
        r += y;
    }
    return jinja_int(op == '%' ? r : q);
}

static struct jval int_op(struct jctx *cx, uint8_t op, int64_t x, int64_t y) {
    int64_t r = 0;
    bool over = false;
    switch (op) {
    case '+':
        over = __builtin_add_overflow(x, y, &r);
        break;
    case '-':
        over = __builtin_sub_overflow(x, y, &r);
        break;
    case '*':
        over = __builtin_mul_overflow(x, y, &r);
        break;
    case 'p':
        if (y < 0 && x == 0) return jinja_fail(cx, OC_ERR_FORMAT, "a division by zero");
        return y < 0 ? jinja_float(pow((double)x, (double)y)) : int_power(cx, x, y);
    default:
        return int_divide(cx, op, x, y);
    }
    return over ? too_big(cx) : jinja_int(r);
}

static struct jval float_op(struct jctx *cx, uint8_t op, double x, double y) {
    if (op == '+') return jinja_float(x + y);
    if (op == '-') return jinja_float(x - y);
    if (op == '*') return jinja_float(x * y);
    if (y == 0 && op != 'p') return jinja_fail(cx, OC_ERR_FORMAT, "a division by zero");
    if (op == '/') return jinja_float(x / y);
    if (op == 'p') {
        double r = pow(x, y);
        if ((x == 0 && y < 0) || (x < 0 && floor(y) != y) || (isinf(r) && isfinite(x) && isfinite(y))) {
            return jinja_fail(cx, OC_ERR_FORMAT, "a power that is no number");
        }
        return jinja_float(r);
    }
    double m = fmod(x, y);
    if (m != 0 && (m < 0) != (y < 0))
        m += y;
    else if (m == 0)
        m = copysign(0.0, y);
    if (op == '%') return jinja_float(m);
    double q = (x - m) / y, f = floor(q);
    if (q == 0) return jinja_float(copysign(0.0, x / y));
    return jinja_float(q - f > 0.5 ? f + 1 : f);
}

static struct jval numbers(struct jctx *cx, uint8_t op, struct jval x, struct jval y) {
    struct jval r;
    if (x.type == JV_FLOAT || y.type == JV_FLOAT) {
        r = float_op(cx, op, jinja_to_double(x), jinja_to_double(y));
    } else if (x.type == JV_BIGINT || y.type == JV_BIGINT) {
        return too_big(cx);
    } else {
        r = int_op(cx, op, x.type == JV_BOOL ? x.flag : x.i, y.type == JV_BOOL ? y.flag : y.i);
    }
    r.trusted = x.trusted & y.trusted;
    return r;
}

static struct jval repeat(struct jctx *cx, struct jval v, int64_t times) {
    if (times < 0) times = 0;
    if (v.type == JV_STR) {
        struct jout b = {0};
        if (!v.n || !jinja_step(cx, (size_t)times)) return jinja_sub(v, 0, 0);
        for (int64_t i = 0; i < times && !cx->err; i++) jinja_put_sub(cx, &b, v, 0, v.n);
        return jinja_done(&b);
    }
    size_t n;
    if (__builtin_mul_overflow(v.seq->n, (size_t)times, &n)) n = SIZE_MAX;
    if (!jinja_step(cx, n)) return v;
    struct jval *items = jinja_alloc(cx, n, sizeof *items);
    for (size_t i = 0; items && i < n; i++) items[i] = v.seq->items[i % v.seq->n];
    return items ? jinja_seq(cx, (enum jtype)v.type, items, n) : v;
}

static struct jval add_sequences(struct jctx *cx, struct jval x, struct jval y) {
    if (x.type == JV_STR) {
        struct jout b = {0};
        jinja_put_sub(cx, &b, x, 0, x.n);
        jinja_put_sub(cx, &b, y, 0, y.n);
        return jinja_done(&b);
    }
    size_t n = x.seq->n + y.seq->n;
    struct jval *items = jinja_step(cx, n / 8) ? jinja_alloc(cx, n, sizeof *items) : NULL;
    if (!items) return x;
    for (size_t i = 0; i < n; i++) items[i] = i < x.seq->n ? x.seq->items[i] : y.seq->items[i - x.seq->n];
    return jinja_seq(cx, (enum jtype)x.type, items, n);
}

struct jval jinja_binary(struct jctx *cx, uint8_t op, struct jval x, struct jval y) {
    static const char *const names[] = {['p'] = "**", ['f'] = "//"};
    char one[2] = {(char)op, 0};
    if (jinja_is_number(x) && jinja_is_number(y)) return numbers(cx, op, x, y);
    bool listy = x.type == JV_STR || x.type == JV_LIST || x.type == JV_TUPLE;
    if (op == '+' && listy && x.type == y.type) return add_sequences(cx, x, y);
    if (op == '%' && x.type == JV_STR) {
        bool tuple = y.type == JV_TUPLE;
        return jinja_format_percent(cx, x, tuple ? y.seq->items : &y, tuple ? y.seq->n : 1,
                                    y.type == JV_DICT ? y.dict : NULL);
    }
    if (op == '*' && listy && (y.type == JV_INT || y.type == JV_BOOL))
        return repeat(cx, x, y.type == JV_INT ? y.i : y.flag);
    if (op == '*' && (x.type == JV_INT || x.type == JV_BOOL) &&
        (y.type == JV_STR || y.type == JV_LIST || y.type == JV_TUPLE)) {
        return repeat(cx, y, x.type == JV_INT ? x.i : x.flag);
    }
    return bad_types(cx, op == 'p' || op == 'f' ? names[op] : one, x, y);
}

static struct jval missing(struct jctx *cx, struct jval v, struct oc_str name) {
    return jinja_undef(cx, "a %s has no attribute '%.*s'", jinja_type_name(v),
                       (int)(name.n < 80 ? name.n : 80), name.p);
}

static struct jval undefined_used(struct jctx *cx, struct jval v) {
    return jinja_fail(cx, OC_ERR_FORMAT, "%.*s", (int)v.n, v.n ? v.p : "");
}

/* Python's x[key], with false in *found where it would raise. */
static struct jval item_of(struct jctx *cx, struct jval v, struct jval key, bool *found) {
    *found = false;
    if (v.type == JV_DICT && jinja_hashable(key)) {
        struct jval *hit = jinja_dict_find(cx, v.dict, key);
        *found = hit != NULL;
        return hit ? *hit : key;
    }
    if ((key.type != JV_INT && key.type != JV_BOOL)) return key;
    int64_t i = key.type == JV_INT ? key.i : key.flag;
    bool seq = v.type == JV_LIST || v.type == JV_TUPLE || v.type == JV_RANGE;
    if (!seq && v.type != JV_STR) return key;
    int64_t n = jinja_len(v);
    if (i < 0) i += n;
    if (i < 0 || i >= n) return key;
    *found = true;
    if (seq) return v.seq->items[i];
    if (!jinja_step(cx, 1 + v.n / 4096)) return v;
    size_t from = jinja_cp_offset(v, (size_t)i);
    uint32_t cp;
    return jinja_sub(v, from, from + oc_utf8_decode(v.p + from, v.n - from, &cp));
}

struct jval jinja_getitem(struct jctx *cx, struct jval v, struct jval key) {
    bool found;
    if (cx->err) return v;
    if (v.type == JV_UNDEF) return undefined_used(cx, v);
    struct jval r = item_of(cx, v, key, &found);
    if (found || cx->err) return r;
    if (key.type != JV_STR) return jinja_undef(cx, "a %s has no such element", jinja_type_name(v));
    struct oc_str name = {key.p, key.n};
    r = jinja_method_get(cx, v, name, &found);
    return found ? r : missing(cx, v, name);
}

struct jval jinja_getattr(struct jctx *cx, struct jval v, struct oc_str name) {
    bool found;
    if (cx->err) return v;
    if (v.type == JV_UNDEF) return undefined_used(cx, v);
    struct jval r = jinja_method_get(cx, v, name, &found);
    if (found || cx->err) return r;
    r = item_of(cx, v, jinja_str(name.p, name.n, 1), &found);
    return found || cx->err ? r : missing(cx, v, name);
}

/* slice.indices(n) of Python, and how many indices that makes. */
struct span {
    int64_t first, stop, step, count;
};

static bool slice_range(struct jctx *cx, const struct jval *part, int64_t n, struct span *out) {
    int64_t lo, hi;
    if (!jinja_arg_int(cx, "a slice", &part[2], 1, &out->step)) return false;
    if (out->step == 0) {
        jinja_fail(cx, OC_ERR_FORMAT, "a slice with a step of zero");
        return false;
    }
    bool back = out->step < 0;
    if (!jinja_arg_int(cx, "a slice", &part[0], back ? INT64_MAX : 0, &lo)) return false;
    if (!jinja_arg_int(cx, "a slice", &part[1], back ? INT64_MIN : INT64_MAX, &hi)) return false;
    int64_t low = back ? -1 : 0, high = back ? n - 1 : n;
    if (lo < 0) lo = lo < -n ? -1 : lo + n;
    if (hi < 0 && part[1].type != JV_NONE) hi = hi < -n ? -1 : hi + n;
    lo = lo < low ? low : lo > high ? high : lo;
    hi = hi < low ? low : hi > high ? high : hi;
    out->first = lo;
    out->stop = hi;
    int64_t span = back ? lo - hi : hi - lo;
    uint64_t width = back ? 0 - (uint64_t)out->step : (uint64_t)out->step;
    out->count = span <= 0 ? 0 : (int64_t)(((uint64_t)span - 1) / width) + 1;
    return true;
}

static struct jval slice_str(struct jctx *cx, struct jval v, int64_t first, int64_t count, int64_t step) {
    if (count == 0) return jinja_sub(v, 0, 0);
    if (!jinja_step(cx, 1 + v.n / 4096)) return v;
    if (step == 1) {
        size_t from = jinja_cp_offset(v, (size_t)first);
        struct jval rest = jinja_sub(v, from, v.n);
        return jinja_sub(rest, 0, jinja_cp_offset(rest, (size_t)count));
    }
    struct jseq chars = jinja_iterate(cx, v);
    struct jout b = {0};
    for (int64_t i = 0; i < count && !cx->err; i++) {
        struct jval c = chars.items[first + i * step];
        jinja_put_sub(cx, &b, c, 0, c.n);
    }
    return jinja_done(&b);
}

struct jval jinja_slice(struct jctx *cx, struct jval v, struct jval start, struct jval stop,
                        struct jval step_v) {
    if (v.type == JV_UNDEF) return undefined_used(cx, v);
    if (v.type != JV_STR && v.type != JV_LIST && v.type != JV_TUPLE && v.type != JV_RANGE) {
        return jinja_fail(cx, OC_ERR_FORMAT, "a %s has no slices", jinja_type_name(v));
    }
    struct jval parts[3] = {start, stop, step_v};
    struct span sp;
    if (!slice_range(cx, parts, jinja_len(v), &sp)) return v;
    int64_t first = sp.first, count = sp.count, step = sp.step;
    if (v.type == JV_STR) return slice_str(cx, v, first, count, step);
    struct jval *items = step == 1 ? (count ? v.seq->items + first : v.seq->items)
                                   : jinja_alloc(cx, (size_t)count, sizeof *items);
    for (int64_t i = 0; items && step != 1 && i < count; i++) items[i] = v.seq->items[first + i * step];
    struct jval r = jinja_seq(cx, (enum jtype)v.type, items, (size_t)count);
    if (v.type == JV_RANGE && r.type == JV_RANGE) {
        struct jseq *q = r.seq;
        bool over = __builtin_mul_overflow(v.seq->step, step, &q->step);
        over |= __builtin_mul_overflow(v.seq->step, sp.first, &q->start) ||
                __builtin_add_overflow(q->start, v.seq->start, &q->start);
        over |= __builtin_mul_overflow(v.seq->step, sp.stop, &q->stop) ||
                __builtin_add_overflow(q->stop, v.seq->start, &q->stop);
        if (over) return too_big(cx);
    }
    return r;
}
