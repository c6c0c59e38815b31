#include "chat/jinja.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/limits.h"

static struct jnode *parse_body(struct jparser *ps, const char *const *ends);

void *jinja_parse_fail(struct jparser *ps, enum oc_err code, const char *fmt, ...) {
    if (ps->err) return NULL;
    char what[200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    ps->err = oc_fail(ps->ei, code, "chat template, line %d: %s", ps->t->line, what);
    return NULL;
}

struct jnode *jinja_node(struct jparser *ps, enum jnode_type type) {
    if (ps->err) return NULL;
    struct jnode *n = oc_arena_alloc(ps->a, sizeof *n);
    if (!n) return jinja_parse_fail(ps, OC_ERR_NOMEM, "the template is too large");
    n->type = (uint8_t)type;
    n->line = ps->t->line;
    return n;
}

bool jinja_at_op(const struct jparser *ps, const char *op) {
    return ps->t->type == T_OP && oc_str_is(ps->t->s, op);
}

bool jinja_at_name(const struct jparser *ps, const char *name) {
    return ps->t->type == T_NAME && oc_str_is(ps->t->s, name);
}

bool jinja_skip_op(struct jparser *ps, const char *op) {
    bool yes = jinja_at_op(ps, op);
    ps->t += yes;
    return yes;
}

bool jinja_skip_name(struct jparser *ps, const char *name) {
    bool yes = jinja_at_name(ps, name);
    ps->t += yes;
    return yes;
}

bool jinja_expect_op(struct jparser *ps, const char *op) {
    if (ps->err) return false;
    if (jinja_skip_op(ps, op)) return true;
    jinja_parse_fail(ps, OC_ERR_FORMAT, "'%s' is expected here", op);
    return false;
}

static bool expect_name(struct jparser *ps, const char *name) {
    if (ps->err) return false;
    if (jinja_skip_name(ps, name)) return true;
    jinja_parse_fail(ps, OC_ERR_FORMAT, "'%s' is expected here", name);
    return false;
}

static bool expect_block_end(struct jparser *ps) {
    if (ps->err) return false;
    if (ps->t->type == T_BLOCK_END) {
        ps->t++;
        return true;
    }
    jinja_parse_fail(ps, OC_ERR_FORMAT, "the tag has something after its end");
    return false;
}

/* The body up to one of `ends`, whose name is the current token after; expects the end of the opening tag. */
static struct jnode *parse_block(struct jparser *ps, const char *const *ends) {
    if (!expect_block_end(ps)) return NULL;
    return parse_body(ps, ends);
}

/* One name, or name.attribute, or (a, b) of a set or for. */
static struct jnode *parse_target_one(struct jparser *ps, bool allow_ns) {
    if (jinja_skip_op(ps, "(")) {
        struct jnode *n = jinja_node(ps, N_TUPLE);
        struct jnode **tail = n ? &n->kids : NULL;
        while (n && !ps->err && !jinja_at_op(ps, ")")) {
            if (n->kids && !jinja_expect_op(ps, ",")) return NULL;
            if (jinja_at_op(ps, ")")) break;
            if (ps->t->type != T_NAME) return jinja_parse_fail(ps, OC_ERR_FORMAT, "a name is expected here");
            *tail = parse_target_one(ps, false);
            if (!*tail) return NULL;
            tail = &(*tail)->next;
        }
        return jinja_expect_op(ps, ")") ? jinja_node_done(ps, n) : NULL;
    }
    if (ps->t->type != T_NAME) return jinja_parse_fail(ps, OC_ERR_FORMAT, "the name to assign to is missing");
    static const char *const fixed[] = {"true", "false", "none", "True", "False", "None", "not",
                                        "and",  "or",    "if",   "else", "is",    "in"};
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) {
        if (jinja_at_name(ps, fixed[i]))
            return jinja_parse_fail(ps, OC_ERR_FORMAT, "cannot assign to '%s'", fixed[i]);
    }
    struct jnode *n = jinja_node(ps, N_NAME);
    if (!n) return NULL;
    n->name = ps->t->s;
    ps->t++;
    if (allow_ns && jinja_skip_op(ps, ".")) {
        if (ps->t->type != T_NAME)
            return jinja_parse_fail(ps, OC_ERR_FORMAT, "a name is expected after the dot");
        n->type = N_NSREF;
        n->name2 = ps->t->s;
        ps->t++;
    }
    return jinja_node_done(ps, n);
}

static struct jnode *parse_target(struct jparser *ps, bool allow_ns) {
    struct jnode *first = parse_target_one(ps, allow_ns);
    if (!first || !jinja_at_op(ps, ",")) return first;
    struct jnode *n = jinja_node(ps, N_TUPLE);
    if (!n) return NULL;
    n->kids = first;
    for (struct jnode *last = first;
         jinja_skip_op(ps, ",") && ps->t->type == T_NAME && !jinja_at_name(ps, "in"); last = last->next) {
        last->next = parse_target_one(ps, allow_ns);
        if (!last->next) return NULL;
    }
    return jinja_node_done(ps, n);
}

static struct jnode *parse_for(struct jparser *ps) {
    static const char *const ends[] = {"endfor", "else", NULL}, *const end[] = {"endfor", NULL};
    struct jnode *n = jinja_node(ps, N_FOR);
    if (!n) return NULL;
    n->a = parse_target(ps, false);
    if (!expect_name(ps, "in")) return NULL;
    n->b = jinja_parse_tuple(ps, false, "recursive");
    if (!n->b) return NULL;
    if (jinja_skip_name(ps, "if")) n->c = jinja_parse_expr(ps, true);
    n->op = jinja_skip_name(ps, "recursive");
    ps->loops++;
    n->kids = parse_block(ps, ends);
    ps->loops--;
    if (!ps->err && jinja_skip_name(ps, "else")) n->kids2 = parse_block(ps, end);
    if (!expect_name(ps, "endfor")) return NULL;
    return jinja_node_done(ps, n);
}

static struct jnode *parse_if(struct jparser *ps) {
    static const char *const ends[] = {"elif", "else", "endif", NULL}, *const end[] = {"endif", NULL};
    struct jnode *first = NULL, **link = &first;
    for (;;) {
        struct jnode *n = jinja_node(ps, N_IF);
        if (!n) return NULL;
        n->a = jinja_parse_tuple(ps, false, NULL);
        if (!n->a) return NULL;
        n->kids = parse_block(ps, ends);
        *link = n;
        link = &n->c;
        if (!ps->err && jinja_skip_name(ps, "elif")) {
            if (!jinja_node_done(ps, n)) return NULL;
            continue;
        }
        if (!ps->err && jinja_skip_name(ps, "else")) n->kids2 = parse_block(ps, end);
        if (!expect_name(ps, "endif") || !jinja_node_done(ps, n)) return NULL;
        return first;
    }
}

static struct jnode *parse_set(struct jparser *ps) {
    static const char *const end[] = {"endset", NULL};
    struct jnode *target = parse_target(ps, true);
    struct jnode *n = jinja_node(ps, N_SET);
    if (!n || !target) return NULL;
    n->a = target;
    if (jinja_skip_op(ps, "=")) {
        n->b = jinja_parse_tuple(ps, true, NULL);
        return jinja_node_done(ps, n);
    }
    n->type = N_SETBLOCK;
    if (jinja_skip_op(ps, "|")) n->b = jinja_parse_filters(ps, NULL, true);
    n->kids = parse_block(ps, end);
    if (!expect_name(ps, "endset")) return NULL;
    return jinja_node_done(ps, n);
}

/* Parameters with defaults, past the opening parenthesis. */
static struct jnode *parse_params(struct jparser *ps) {
    struct jnode *first = NULL, **tail = &first;
    while (!ps->err && !jinja_at_op(ps, ")")) {
        if (first && !jinja_expect_op(ps, ",")) return NULL;
        if (jinja_at_op(ps, ")")) break;
        if (ps->t->type != T_NAME)
            return jinja_parse_fail(ps, OC_ERR_FORMAT, "the name of a parameter is missing");
        struct jnode *arg = jinja_node(ps, N_ARG);
        if (!arg) return NULL;
        arg->name = ps->t->s;
        ps->t++;
        if (jinja_skip_op(ps, "="))
            arg->a = jinja_parse_expr(ps, true);
        else if (tail != &first && first->op == '=')
            return jinja_parse_fail(ps, OC_ERR_FORMAT, "a parameter without default after one with");
        if (arg->a) arg->op = '=';
        if (arg->a && first) first->op = '=';
        *tail = jinja_node_done(ps, arg);
        if (!*tail) return NULL;
        tail = &arg->next;
    }
    return jinja_expect_op(ps, ")") ? first : NULL;
}

static struct jnode *parse_macro_body(struct jparser *ps, struct jnode *n, const char *end) {
    const char *const ends[] = {end, NULL};
    int loops = ps->loops;
    ps->loops = 0;
    n->kids2 = parse_block(ps, ends);
    ps->loops = loops;
    if (!expect_name(ps, end)) return NULL;
    return jinja_node_done(ps, n);
}

static struct jnode *parse_macro(struct jparser *ps) {
    struct jnode *n = jinja_node(ps, N_MACRO);
    if (!n || ps->t->type != T_NAME)
        return jinja_parse_fail(ps, OC_ERR_FORMAT, "the name of the macro is missing");
    n->name = ps->t->s;
    ps->t++;
    if (!jinja_expect_op(ps, "(")) return NULL;
    n->kids = parse_params(ps);
    return ps->err ? NULL : parse_macro_body(ps, n, "endmacro");
}

static struct jnode *parse_call_block(struct jparser *ps) {
    struct jnode *n = jinja_node(ps, N_CALLBLOCK), *m = jinja_node(ps, N_MACRO);
    if (!n || !m) return NULL;
    m->name = OC_STR("caller");
    if (jinja_skip_op(ps, "(")) m->kids = parse_params(ps);
    n->a = jinja_parse_expr(ps, true);
    if (n->a && n->a->type != N_CALL)
        return jinja_parse_fail(ps, OC_ERR_FORMAT, "a call is expected after 'call'");
    n->b = parse_macro_body(ps, m, "endcall");
    return jinja_node_done(ps, n);
}

static struct jnode *parse_filter_block(struct jparser *ps) {
    static const char *const end[] = {"endfilter", NULL};
    struct jnode *n = jinja_node(ps, N_FILTERBLOCK);
    if (!n) return NULL;
    n->a = jinja_parse_filters(ps, NULL, true);
    n->kids = parse_block(ps, end);
    if (!expect_name(ps, "endfilter")) return NULL;
    return jinja_node_done(ps, n);
}

static struct jnode *parse_with(struct jparser *ps) {
    static const char *const end[] = {"endwith", NULL};
    struct jnode *n = jinja_node(ps, N_WITH);
    if (!n) return NULL;
    struct jnode **tail = &n->kids;
    while (!ps->err && ps->t->type != T_BLOCK_END) {
        if (n->kids && !jinja_expect_op(ps, ",")) return NULL;
        struct jnode *s = jinja_node(ps, N_SET);
        if (!s) return NULL;
        s->a = parse_target_one(ps, false);
        if (!jinja_expect_op(ps, "=")) return NULL;
        s->b = jinja_parse_expr(ps, true);
        *tail = jinja_node_done(ps, s);
        if (!*tail) return NULL;
        tail = &s->next;
    }
    n->kids2 = parse_block(ps, end);
    if (!expect_name(ps, "endwith")) return NULL;
    return jinja_node_done(ps, n);
}

/* A generation block is the body of a call block in transformers: a scope of its own, no break out of it. */
static struct jnode *parse_generation(struct jparser *ps) {
    static const char *const end[] = {"endgeneration", NULL};
    struct jnode *n = jinja_node(ps, N_GENERATION);
    if (!n) return NULL;
    int loops = ps->loops;
    ps->loops = 0;
    n->kids = parse_block(ps, end);
    ps->loops = loops;
    if (!expect_name(ps, "endgeneration")) return NULL;
    return jinja_node_done(ps, n);
}

static struct jnode *parse_loop_control(struct jparser *ps, enum jnode_type type) {
    if (!ps->loops) return jinja_parse_fail(ps, OC_ERR_FORMAT, "break or continue outside of a loop");
    return jinja_node_done(ps, jinja_node(ps, type));
}

static struct jnode *parse_print(struct jparser *ps) {
    struct jnode *n = jinja_node(ps, N_OUTPUT);
    if (!n) return NULL;
    n->a = jinja_parse_tuple(ps, true, NULL);
    return jinja_node_done(ps, n);
}

/* One statement, past its "{%"; its end tag's name is consumed, the closing "%}" is not. */
static struct jnode *parse_tag(struct jparser *ps) {
    if (jinja_skip_name(ps, "for")) return parse_for(ps);
    if (jinja_skip_name(ps, "if")) return parse_if(ps);
    if (jinja_skip_name(ps, "set")) return parse_set(ps);
    if (jinja_skip_name(ps, "macro")) return parse_macro(ps);
    if (jinja_skip_name(ps, "call")) return parse_call_block(ps);
    if (jinja_skip_name(ps, "filter")) return parse_filter_block(ps);
    if (jinja_skip_name(ps, "with")) return parse_with(ps);
    if (jinja_skip_name(ps, "generation")) return parse_generation(ps);
    if (jinja_skip_name(ps, "break")) return parse_loop_control(ps, N_BREAK);
    if (jinja_skip_name(ps, "continue")) return parse_loop_control(ps, N_CONTINUE);
    if (jinja_skip_name(ps, "print")) return parse_print(ps);
    int n = ps->t->type == T_NAME ? (int)ps->t->s.n : 0;
    return jinja_parse_fail(ps, OC_ERR_UNSUPPORTED, "this build knows no tag '%.*s' in this place",
                            n > 60 ? 60 : n, n ? ps->t->s.p : "");
}

static bool at_any(const struct jparser *ps, const char *const *names) {
    for (; names && *names; names++) {
        if (jinja_at_name(ps, *names)) return true;
    }
    return false;
}

static struct jnode *parse_item(struct jparser *ps) {
    if (ps->t->type == T_DATA) {
        struct jnode *n = jinja_node(ps, N_TEXT);
        if (!n) return NULL;
        n->val = jinja_str(ps->t->s.p, ps->t->s.n, 1);
        ps->t++;
        return n;
    }
    if (ps->t->type == T_VAR_BEGIN) {
        ps->t++;
        struct jnode *n = parse_print(ps);
        if (!n) return NULL;
        if (ps->t->type != T_VAR_END)
            return jinja_parse_fail(ps, OC_ERR_FORMAT, "the expression has something after its end");
        ps->t++;
        return n;
    }
    ps->t++;
    struct jnode *n = parse_tag(ps);
    return n && expect_block_end(ps) ? n : NULL;
}

static struct jnode *parse_body(struct jparser *ps, const char *const *ends) {
    struct jnode *first = NULL, **tail = &first;
    if (++ps->depth > OC_LIMIT_TEMPLATE_DEPTH)
        return jinja_parse_fail(ps, OC_ERR_LIMIT, "blocks nested too deep");
    while (ps->t->type != T_EOF) {
        if (ps->t->type == T_BLOCK_BEGIN) {
            ps->t++;
            if (at_any(ps, ends)) break;
            ps->t--;
        }
        *tail = parse_item(ps);
        if (!*tail) return NULL;
        tail = &(*tail)->next;
    }
    ps->depth--;
    if (ends && ps->t->type == T_EOF)
        return jinja_parse_fail(ps, OC_ERR_FORMAT, "the template ends before '%s'", ends[0]);
    return first;
}

enum oc_err jinja_parse(struct oc_arena *a, struct oc_str source, struct jnode **body,
                        struct oc_errinfo *ei) {
    struct jtoken *tokens;
    size_t n_tokens;
    OC_TRY(jinja_lex(a, source, &tokens, &n_tokens, ei));
    struct jparser ps = {.a = a, .ei = ei, .t = tokens};
    *body = parse_body(&ps, NULL);
    return ps.err;
}
