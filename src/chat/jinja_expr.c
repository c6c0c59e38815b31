#include "chat/jinja.h"

#include "base/limits.h"

/* Left-leaning chains (a + b + c ...) do not nest in the source but do in the tree. */
#define MAX_TREE_DEPTH 300

static struct jnode *parse_or(struct jparser *ps);
static struct jnode *parse_unary(struct jparser *ps, bool with_filter);
static struct jnode *parse_primary(struct jparser *ps);

static uint16_t list_depth(const struct jnode *n) {
    uint16_t d = 0;
    for (; n; n = n->next) {
        if (n->depth > d) d = n->depth;
    }
    return d;
}

struct jnode *jinja_node_done(struct jparser *ps, struct jnode *n) {
    if (!n || ps->err) return NULL;
    uint16_t d = list_depth(n->kids), e = list_depth(n->kids2);
    if (e > d) d = e;
    const struct jnode *own[3] = {n->a, n->b, n->type == N_IF ? NULL : n->c};
    for (int i = 0; i < 3; i++) {
        if (own[i] && own[i]->depth > d) d = own[i]->depth;
    }
    n->depth = (uint16_t)(d + 1);
    if (n->depth > MAX_TREE_DEPTH) return jinja_parse_fail(ps, OC_ERR_LIMIT, "an expression nested too deep");
    return n;
}

static struct jnode *binary(struct jparser *ps, enum jnode_type type, uint8_t op, struct jnode *a,
                            struct jnode *b) {
    struct jnode *n = jinja_node(ps, type);
    if (!n || !a || !b) return NULL;
    n->op = op;
    n->a = a;
    n->b = b;
    return jinja_node_done(ps, n);
}

static struct jnode *parse_const(struct jparser *ps) {
    const struct jtoken *t = ps->t;
    struct jnode *n = jinja_node(ps, N_CONST);
    if (!n) return NULL;
    if (t->type == T_INT) n->val = jinja_int(t->i);
    if (t->type == T_FLOAT) n->val = jinja_float(t->d);
    if (t->type == T_STR) n->val = jinja_str(t->s.p, t->s.n, 1);
    ps->t++;
    if (t->type != T_STR || ps->t->type != T_STR) return jinja_node_done(ps, n);
    size_t total = 0; /* adjacent strings are one, as in Python */
    for (const struct jtoken *q = t; q->type == T_STR; q++) total += q->s.n;
    char *p = oc_arena_alloc(ps->a, total);
    if (!p) return jinja_parse_fail(ps, OC_ERR_NOMEM, "the template is too large");
    n->val = jinja_str(p, total, 1);
    for (ps->t = t; ps->t->type == T_STR; ps->t++) {
        memcpy(p, ps->t->s.p, ps->t->s.n);
        p += ps->t->s.n;
    }
    return jinja_node_done(ps, n);
}

static struct jnode *parse_name(struct jparser *ps) {
    static const struct {
        const char *name;
        int kind;
    } constants[] = {{"true", 1}, {"True", 1}, {"false", 0}, {"False", 0}, {"none", 2}, {"None", 2}};
    struct jnode *n = jinja_node(ps, N_NAME);
    if (!n) return NULL;
    n->name = ps->t->s;
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++) {
        if (!jinja_at_name(ps, constants[i].name)) continue;
        n->type = N_CONST;
        n->val = constants[i].kind == 2 ? jinja_none() : jinja_bool(constants[i].kind);
    }
    ps->t++;
    return jinja_node_done(ps, n);
}

/* [a, b] or the inside of a dict, past the opening bracket. */
static struct jnode *parse_display(struct jparser *ps, enum jnode_type type, const char *close) {
    struct jnode *n = jinja_node(ps, type);
    if (!n) return NULL;
    struct jnode **tail = &n->kids;
    while (!ps->err && !jinja_at_op(ps, close)) {
        if (n->kids && !jinja_expect_op(ps, ",")) return NULL;
        if (jinja_at_op(ps, close)) break;
        for (int i = 0; i < (type == N_DICT ? 2 : 1); i++) {
            if (i == 1 && !jinja_expect_op(ps, ":")) return NULL;
            *tail = jinja_parse_expr(ps, true);
            if (!*tail) return NULL;
            tail = &(*tail)->next;
        }
    }
    if (!jinja_expect_op(ps, close)) return NULL;
    return jinja_node_done(ps, n);
}

static struct jnode *parse_paren(struct jparser *ps) {
    if (jinja_skip_op(ps, ")")) return jinja_node_done(ps, jinja_node(ps, N_TUPLE));
    struct jnode *n = jinja_parse_tuple(ps, true, NULL);
    if (!n || !jinja_expect_op(ps, ")")) return NULL;
    n->next = NULL;
    return n;
}

static struct jnode *parse_primary(struct jparser *ps) {
    switch (ps->t->type) {
    case T_NAME:
        return parse_name(ps);
    case T_STR:
    case T_INT:
    case T_FLOAT:
        return parse_const(ps);
    default:
        break;
    }
    if (jinja_skip_op(ps, "(")) return parse_paren(ps);
    if (jinja_skip_op(ps, "[")) return parse_display(ps, N_LIST, "]");
    if (jinja_skip_op(ps, "{")) return parse_display(ps, N_DICT, "}");
    return jinja_parse_fail(ps, OC_ERR_FORMAT, "an expression is missing or cut short");
}

static struct jnode *parse_slice_part(struct jparser *ps) {
    if (jinja_at_op(ps, ":") || jinja_at_op(ps, "]") || jinja_at_op(ps, ",")) return NULL;
    return jinja_parse_expr(ps, true);
}

static struct jnode *parse_index(struct jparser *ps) {
    struct jnode *start = parse_slice_part(ps);
    if (ps->err) return NULL;
    if (start && !jinja_at_op(ps, ":")) return start;
    struct jnode *n = jinja_node(ps, N_SLICE);
    if (!n || !jinja_expect_op(ps, ":")) return NULL;
    n->a = start;
    n->b = parse_slice_part(ps);
    if (!ps->err && jinja_skip_op(ps, ":")) n->c = parse_slice_part(ps);
    return jinja_node_done(ps, n);
}

static struct jnode *parse_subscript(struct jparser *ps, struct jnode *of) {
    if (jinja_skip_op(ps, "[")) {
        struct jnode *index = parse_index(ps);
        if (!index) return NULL;
        if (jinja_at_op(ps, ","))
            return jinja_parse_fail(ps, OC_ERR_UNSUPPORTED, "an index of several values");
        if (!jinja_expect_op(ps, "]")) return NULL;
        return binary(ps, N_GETITEM, 0, of, index);
    }
    ps->t++; /* the dot */
    if (ps->t->type == T_INT) return binary(ps, N_GETITEM, 0, of, parse_const(ps));
    if (ps->t->type != T_NAME) return jinja_parse_fail(ps, OC_ERR_FORMAT, "a name is expected after the dot");
    struct jnode *n = jinja_node(ps, N_GETATTR);
    if (!n) return NULL;
    n->a = of;
    n->name = ps->t->s;
    ps->t++;
    return jinja_node_done(ps, n);
}

static struct jnode *parse_arg(struct jparser *ps) {
    struct jnode *n = jinja_node(ps, N_ARG);
    if (!n) return NULL;
    if (jinja_skip_op(ps, "**")) {
        n->op = 'd';
    } else if (jinja_skip_op(ps, "*")) {
        n->op = '*';
    } else if (ps->t->type == T_NAME && ps->t[1].type == T_OP && oc_str_is(ps->t[1].s, "=")) {
        n->op = '=';
        n->name = ps->t->s;
        ps->t += 2;
    }
    n->a = jinja_parse_expr(ps, true);
    return jinja_node_done(ps, n);
}

/* The arguments, past the opening parenthesis, as a list of N_ARG. NULL without ps->err is an empty list. */
struct jnode *jinja_parse_call_args(struct jparser *ps) {
    struct jnode *first = NULL, **tail = &first;
    bool named = false;
    while (!jinja_at_op(ps, ")")) {
        if (first && !jinja_expect_op(ps, ",")) return NULL;
        if (jinja_at_op(ps, ")")) break;
        struct jnode *arg = parse_arg(ps);
        if (!arg) return NULL;
        if (named && (arg->op == 0 || arg->op == '*')) {
            return jinja_parse_fail(ps, OC_ERR_FORMAT, "a positional argument after a named one");
        }
        named |= arg->op == '=' || arg->op == 'd';
        *tail = arg;
        tail = &arg->next;
    }
    return jinja_expect_op(ps, ")") ? first : NULL;
}

static struct jnode *parse_call(struct jparser *ps, struct jnode *callee) {
    struct jnode *n = jinja_node(ps, N_CALL);
    if (!n) return NULL;
    ps->t++; /* ( */
    n->a = callee;
    n->kids = jinja_parse_call_args(ps);
    return jinja_node_done(ps, n);
}

struct jnode *jinja_parse_postfix(struct jparser *ps, struct jnode *n) {
    while (n && !ps->err) {
        if (jinja_at_op(ps, ".") || jinja_at_op(ps, "["))
            n = parse_subscript(ps, n);
        else if (jinja_at_op(ps, "("))
            n = parse_call(ps, n);
        else
            return n;
    }
    return NULL;
}

static struct jnode *parse_filter(struct jparser *ps, struct jnode *of) {
    if (ps->t->type != T_NAME) return jinja_parse_fail(ps, OC_ERR_FORMAT, "the name of a filter is missing");
    struct jnode *n = jinja_node(ps, N_FILTER);
    if (!n) return NULL;
    n->a = of;
    n->name = ps->t->s;
    n->filter = jinja_filter_find(n->name);
    if (!n->filter) {
        return jinja_parse_fail(ps, OC_ERR_UNSUPPORTED, "this build has no filter '%.*s'", (int)n->name.n,
                                n->name.p);
    }
    ps->t++;
    if (jinja_skip_op(ps, "(")) n->kids = jinja_parse_call_args(ps);
    return jinja_node_done(ps, n);
}

static bool starts_test_arg(const struct jparser *ps) {
    if (jinja_at_name(ps, "else") || jinja_at_name(ps, "or") || jinja_at_name(ps, "and")) return false;
    return ps->t->type == T_NAME || ps->t->type == T_STR || ps->t->type == T_INT || ps->t->type == T_FLOAT ||
           jinja_at_op(ps, "[") || jinja_at_op(ps, "{");
}

static struct jnode *parse_test(struct jparser *ps, struct jnode *of) {
    bool negated = jinja_skip_name(ps, "not");
    if (ps->t->type != T_NAME)
        return jinja_parse_fail(ps, OC_ERR_FORMAT, "the name of a test is missing after 'is'");
    struct jnode *n = jinja_node(ps, N_TEST);
    if (!n) return NULL;
    n->a = of;
    n->name = ps->t->s;
    n->test = jinja_test_find(n->name);
    if (!n->test) {
        return jinja_parse_fail(ps, OC_ERR_UNSUPPORTED, "this build has no test '%.*s'", (int)n->name.n,
                                n->name.p);
    }
    ps->t++;
    if (jinja_skip_op(ps, "(")) {
        n->kids = jinja_parse_call_args(ps);
    } else if (starts_test_arg(ps)) {
        if (jinja_at_name(ps, "is"))
            return jinja_parse_fail(ps, OC_ERR_FORMAT, "tests cannot be chained with 'is'");
        n->kids = jinja_node(ps, N_ARG);
        if (!n->kids) return NULL;
        n->kids->a = jinja_parse_postfix(ps, parse_primary(ps));
        n->kids = jinja_node_done(ps, n->kids);
    }
    n = jinja_node_done(ps, n);
    if (!n || !negated) return n;
    struct jnode *no = jinja_node(ps, N_UNARY);
    if (!no) return NULL;
    no->op = '!';
    no->a = n;
    return jinja_node_done(ps, no);
}

struct jnode *jinja_parse_filters(struct jparser *ps, struct jnode *n, bool start_inline) {
    if (start_inline) n = parse_filter(ps, NULL);
    while ((n || start_inline) && !ps->err) {
        if (jinja_skip_op(ps, "|"))
            n = parse_filter(ps, n);
        else if (!start_inline && jinja_skip_name(ps, "is"))
            n = parse_test(ps, n);
        else if (!start_inline && jinja_at_op(ps, "("))
            n = parse_call(ps, n);
        else
            return n;
    }
    return NULL;
}

static struct jnode *parse_signed(struct jparser *ps, uint8_t op) {
    struct jnode *n = jinja_node(ps, N_UNARY);
    if (!n) return NULL;
    ps->t++;
    n->op = op;
    n->a = parse_unary(ps, false);
    return jinja_node_done(ps, n);
}

static struct jnode *parse_unary(struct jparser *ps, bool with_filter) {
    if (++ps->depth > 4 * OC_LIMIT_TEMPLATE_DEPTH)
        return jinja_parse_fail(ps, OC_ERR_LIMIT, "an expression nested too deep");
    struct jnode *n = jinja_at_op(ps, "-")   ? parse_signed(ps, '-')
                      : jinja_at_op(ps, "+") ? parse_signed(ps, '+')
                                             : parse_primary(ps);
    n = jinja_parse_postfix(ps, n);
    if (n && with_filter) n = jinja_parse_filters(ps, n, false);
    ps->depth--;
    return n;
}

static struct jnode *parse_pow(struct jparser *ps) {
    struct jnode *n = parse_unary(ps, true);
    while (n && jinja_skip_op(ps, "**")) n = binary(ps, N_BINARY, 'p', n, parse_unary(ps, true));
    return n;
}

static struct jnode *parse_product(struct jparser *ps) {
    struct jnode *n = parse_pow(ps);
    while (n) {
        if (jinja_skip_op(ps, "*"))
            n = binary(ps, N_BINARY, '*', n, parse_pow(ps));
        else if (jinja_skip_op(ps, "/"))
            n = binary(ps, N_BINARY, '/', n, parse_pow(ps));
        else if (jinja_skip_op(ps, "//"))
            n = binary(ps, N_BINARY, 'f', n, parse_pow(ps));
        else if (jinja_skip_op(ps, "%"))
            n = binary(ps, N_BINARY, '%', n, parse_pow(ps));
        else
            return n;
    }
    return NULL;
}

static struct jnode *parse_concat(struct jparser *ps) {
    struct jnode *first = parse_product(ps);
    if (!first || !jinja_at_op(ps, "~")) return first;
    struct jnode *n = jinja_node(ps, N_CONCAT);
    if (!n) return NULL;
    n->kids = first;
    for (struct jnode *last = first; jinja_skip_op(ps, "~"); last = last->next) {
        last->next = parse_product(ps);
        if (!last->next) return NULL;
    }
    return jinja_node_done(ps, n);
}

static struct jnode *parse_sum(struct jparser *ps) {
    struct jnode *n = parse_concat(ps);
    while (n) {
        if (jinja_skip_op(ps, "+"))
            n = binary(ps, N_BINARY, '+', n, parse_concat(ps));
        else if (jinja_skip_op(ps, "-"))
            n = binary(ps, N_BINARY, '-', n, parse_concat(ps));
        else
            return n;
    }
    return NULL;
}

/* The comparison operator at the current token, which is skipped, or 0. */
static uint8_t take_compare_op(struct jparser *ps) {
    static const struct {
        const char *s;
        uint8_t op;
    } ops[] = {{"==", '='}, {"!=", '!'}, {"<", '<'}, {"<=", 'l'}, {">", '>'}, {">=", 'g'}};
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        if (jinja_skip_op(ps, ops[i].s)) return ops[i].op;
    }
    if (jinja_skip_name(ps, "in")) return 'i';
    if (jinja_at_name(ps, "not") && ps->t[1].type == T_NAME && oc_str_is(ps->t[1].s, "in")) {
        ps->t += 2;
        return 'n';
    }
    return 0;
}

static struct jnode *parse_compare(struct jparser *ps) {
    struct jnode *first = parse_sum(ps);
    if (!first) return NULL;
    struct jnode *n = NULL, **tail = NULL;
    for (uint8_t op; (op = take_compare_op(ps));) {
        if (!n) {
            n = jinja_node(ps, N_COMPARE);
            if (!n) return NULL;
            n->a = first;
            tail = &n->kids;
        }
        struct jnode *arg = jinja_node(ps, N_ARG);
        if (!arg) return NULL;
        arg->op = op;
        arg->a = parse_sum(ps);
        *tail = jinja_node_done(ps, arg);
        if (!*tail) return NULL;
        tail = &arg->next;
    }
    return n ? jinja_node_done(ps, n) : first;
}

static struct jnode *parse_not(struct jparser *ps) {
    size_t nots = 0;
    while (jinja_skip_name(ps, "not")) nots++;
    struct jnode *n = parse_compare(ps);
    for (; n && nots; nots--) {
        struct jnode *no = jinja_node(ps, N_UNARY);
        if (!no) return NULL;
        no->op = '!';
        no->a = n;
        n = jinja_node_done(ps, no);
    }
    return n;
}

static struct jnode *parse_and(struct jparser *ps) {
    struct jnode *n = parse_not(ps);
    while (n && jinja_skip_name(ps, "and")) n = binary(ps, N_AND, 0, n, parse_not(ps));
    return n;
}

static struct jnode *parse_or(struct jparser *ps) {
    struct jnode *n = parse_and(ps);
    while (n && jinja_skip_name(ps, "or")) n = binary(ps, N_OR, 0, n, parse_and(ps));
    return n;
}

static struct jnode *parse_cond(struct jparser *ps) {
    struct jnode *n = parse_or(ps);
    while (n && jinja_skip_name(ps, "if")) {
        struct jnode *c = jinja_node(ps, N_COND);
        if (!c) return NULL;
        c->b = n;
        c->a = parse_or(ps);
        if (!c->a) return NULL;
        if (jinja_skip_name(ps, "else")) c->c = jinja_parse_expr(ps, true);
        n = jinja_node_done(ps, c);
    }
    return n;
}

struct jnode *jinja_parse_expr(struct jparser *ps, bool with_cond) {
    if (ps->err) return NULL;
    if (++ps->depth > 4 * OC_LIMIT_TEMPLATE_DEPTH)
        return jinja_parse_fail(ps, OC_ERR_LIMIT, "an expression nested too deep");
    struct jnode *n = with_cond ? parse_cond(ps) : parse_or(ps);
    ps->depth--;
    return n;
}

static bool tuple_ends(const struct jparser *ps, const char *end_name) {
    return ps->t->type == T_VAR_END || ps->t->type == T_BLOCK_END || jinja_at_op(ps, ")") ||
           jinja_at_op(ps, "=") || (end_name && jinja_at_name(ps, end_name));
}

struct jnode *jinja_parse_tuple(struct jparser *ps, bool with_cond, const char *end_name) {
    struct jnode *first = jinja_parse_expr(ps, with_cond);
    if (!first || !jinja_at_op(ps, ",")) return first;
    struct jnode *n = jinja_node(ps, N_TUPLE);
    if (!n) return NULL;
    n->kids = first;
    for (struct jnode *last = first; jinja_skip_op(ps, ",") && !tuple_ends(ps, end_name); last = last->next) {
        last->next = jinja_parse_expr(ps, with_cond);
        if (!last->next) return NULL;
    }
    return jinja_node_done(ps, n);
}
