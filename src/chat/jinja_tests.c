/* The tests after `is`, as jinja2.tests has them. */
#include "chat/jinja.h"

static bool is_defined(struct jctx *cx, struct jval v, const struct jargs *args) {
    (void)cx, (void)args;
    return v.type != JV_UNDEF;
}

static bool is_undefined(struct jctx *cx, struct jval v, const struct jargs *args) {
    (void)cx, (void)args;
    return v.type == JV_UNDEF;
}

static bool is_none(struct jctx *cx, struct jval v, const struct jargs *args) {
    (void)cx, (void)args;
    return v.type == JV_NONE;
}

static bool is_boolean(struct jctx *cx, struct jval v, const struct jargs *args) {
    (void)cx, (void)args;
    return v.type == JV_BOOL;
}

static bool is_true(struct jctx *cx, struct jval v, const struct jargs *args) {
    (void)cx, (void)args;
    return v.type == JV_BOOL && v.flag;
}

static bool is_false(struct jctx *cx, struct jval v, const struct jargs *args) {
    (void)cx, (void)args;
    return v.type == JV_BOOL && !v.flag;
}

static bool is_integer(struct jctx *cx, struct jval v, const struct jargs *args) {
    (void)cx, (void)args;
    return v.type == JV_INT || v.type == JV_BIGINT;
}

static bool is_float(struct jctx *cx, struct jval v, const struct jargs *args) {
    (void)cx, (void)args;
    return v.type == JV_FLOAT;
}

static bool is_number(struct jctx *cx, struct jval v, const struct jargs *args) {
    (void)cx, (void)args;
    return jinja_is_number(v);
}

static bool is_string(struct jctx *cx, struct jval v, const struct jargs *args) {
    (void)cx, (void)args;
    return v.type == JV_STR;
}

static bool is_mapping(struct jctx *cx, struct jval v, const struct jargs *args) {
    (void)cx, (void)args;
    return v.type == JV_DICT;
}

static bool is_iterable(struct jctx *cx, struct jval v, const struct jargs *args) {
    (void)cx, (void)args;
    return v.type == JV_UNDEF || v.type == JV_STR || v.type == JV_DICT || v.type == JV_LOOP ||
           jinja_is_seq(v);
}

static bool is_sequence(struct jctx *cx, struct jval v, const struct jargs *args) {
    (void)cx, (void)args;
    return v.type == JV_STR || v.type == JV_DICT || v.type == JV_LIST || v.type == JV_TUPLE ||
           v.type == JV_RANGE || v.type == JV_UNDEF;
}

static bool is_callable(struct jctx *cx, struct jval v, const struct jargs *args) {
    (void)cx, (void)args;
    return v.type == JV_FUNC || v.type == JV_METHOD || v.type == JV_MACRO || v.type == JV_LOOP ||
           v.type == JV_JOINER || v.type == JV_UNDEF;
}

static bool one_arg(struct jctx *cx, const char *who, const struct jargs *args, struct jval *out) {
    if (args->n_pos != 1 || args->n_kw) {
        jinja_fail(cx, OC_ERR_FORMAT, "the test '%s' takes one argument", who);
        return false;
    }
    *out = args->pos[0];
    return true;
}

static bool is_eq(struct jctx *cx, struct jval v, const struct jargs *args) {
    struct jval x;
    return one_arg(cx, "equalto", args, &x) && jinja_equal(cx, v, x);
}

static bool is_ne(struct jctx *cx, struct jval v, const struct jargs *args) {
    struct jval x;
    return one_arg(cx, "ne", args, &x) && !jinja_equal(cx, v, x);
}

static bool is_lt(struct jctx *cx, struct jval v, const struct jargs *args) {
    struct jval x;
    return one_arg(cx, "lt", args, &x) && jinja_compare(cx, v, x) == -1;
}

static bool is_gt(struct jctx *cx, struct jval v, const struct jargs *args) {
    struct jval x;
    return one_arg(cx, "gt", args, &x) && jinja_compare(cx, v, x) == 1;
}

static bool is_le(struct jctx *cx, struct jval v, const struct jargs *args) {
    struct jval x;
    return one_arg(cx, "le", args, &x) && jinja_compare(cx, v, x) <= 0;
}

static bool is_ge(struct jctx *cx, struct jval v, const struct jargs *args) {
    struct jval x;
    if (!one_arg(cx, "ge", args, &x)) return false;
    int c = jinja_compare(cx, v, x);
    return c == 0 || c == 1;
}

static bool is_in(struct jctx *cx, struct jval v, const struct jargs *args) {
    struct jval x;
    return one_arg(cx, "in", args, &x) && jinja_contains(cx, v, x);
}

static bool modulo_is(struct jctx *cx, struct jval v, int64_t by, int64_t want) {
    struct jval m = jinja_binary(cx, '%', v, jinja_int(by));
    return !cx->err && jinja_equal(cx, m, jinja_int(want));
}

static bool is_odd(struct jctx *cx, struct jval v, const struct jargs *args) {
    (void)args;
    return modulo_is(cx, v, 2, 1);
}

static bool is_even(struct jctx *cx, struct jval v, const struct jargs *args) {
    (void)args;
    return modulo_is(cx, v, 2, 0);
}

static bool is_divisibleby(struct jctx *cx, struct jval v, const struct jargs *args) {
    struct jval x;
    if (!one_arg(cx, "divisibleby", args, &x)) return false;
    struct jval m = jinja_binary(cx, '%', v, x);
    return !cx->err && jinja_equal(cx, m, jinja_int(0));
}

/* Identity: of the same type, and the same object or an equal plain value. */
static bool is_sameas(struct jctx *cx, struct jval v, const struct jargs *args) {
    struct jval x;
    if (!one_arg(cx, "sameas", args, &x) || x.type != v.type) return false;
    if (v.type <= JV_STR) return jinja_equal(cx, v, x);
    return v.seq == x.seq;
}

static bool all_cased(struct jval s, char want, char other) {
    bool any = false;
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        i += oc_utf8_decode(s.p + i, s.n - i, &cp);
        if (jinja_is_class(cp, other)) return false;
        any |= jinja_is_class(cp, want);
    }
    return any;
}

static bool is_lower(struct jctx *cx, struct jval v, const struct jargs *args) {
    (void)args;
    return all_cased(jinja_to_str(cx, v), 'l', 'u');
}

static bool is_upper(struct jctx *cx, struct jval v, const struct jargs *args) {
    (void)args;
    return all_cased(jinja_to_str(cx, v), 'u', 'l');
}

static bool is_filter(struct jctx *cx, struct jval v, const struct jargs *args) {
    (void)cx, (void)args;
    return v.type == JV_STR && jinja_filter_find((struct oc_str){v.p, v.n});
}

static bool is_test(struct jctx *cx, struct jval v, const struct jargs *args) {
    (void)cx, (void)args;
    return v.type == JV_STR && jinja_test_find((struct oc_str){v.p, v.n});
}

static bool is_escaped(struct jctx *cx, struct jval v, const struct jargs *args) {
    (void)cx, (void)v, (void)args;
    return false; /* no markup type here */
}

bool jinja_test_call(struct jctx *cx, const struct jtest *test, struct jval self, const struct jargs *args) {
    static jinja_test_fn *const with_argument[] = {is_eq, is_ne, is_lt,          is_gt,    is_le,
                                                   is_ge, is_in, is_divisibleby, is_sameas};
    bool takes = false;
    for (size_t i = 0; i < sizeof with_argument / sizeof *with_argument; i++)
        takes |= with_argument[i] == test->call;
    if (takes || (!args->n_pos && !args->n_kw)) return test->call(cx, self, args);
    jinja_fail(cx, OC_ERR_FORMAT, "the test '%s' takes no argument", test->name);
    return false;
}

const struct jtest *jinja_test_find(struct oc_str name) {
    static const struct jtest tests[] = {
        {"defined", is_defined},
        {"undefined", is_undefined},
        {"none", is_none},
        {"boolean", is_boolean},
        {"true", is_true},
        {"false", is_false},
        {"integer", is_integer},
        {"float", is_float},
        {"number", is_number},
        {"string", is_string},
        {"mapping", is_mapping},
        {"iterable", is_iterable},
        {"sequence", is_sequence},
        {"callable", is_callable},
        {"equalto", is_eq},
        {"eq", is_eq},
        {"==", is_eq},
        {"ne", is_ne},
        {"!=", is_ne},
        {"lt", is_lt},
        {"<", is_lt},
        {"lessthan", is_lt},
        {"gt", is_gt},
        {">", is_gt},
        {"greaterthan", is_gt},
        {"le", is_le},
        {"<=", is_le},
        {"ge", is_ge},
        {">=", is_ge},
        {"in", is_in},
        {"odd", is_odd},
        {"even", is_even},
        {"divisibleby", is_divisibleby},
        {"sameas", is_sameas},
        {"lower", is_lower},
        {"upper", is_upper},
        {"filter", is_filter},
        {"test", is_test},
        {"escaped", is_escaped},
    };
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
        if (oc_str_is(name, tests[i].name)) return &tests[i];
    }
    return NULL;
}
