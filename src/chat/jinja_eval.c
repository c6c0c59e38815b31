/* Evaluation of expressions. */
#include "chat/jinja.h"

#include "base/limits.h"

#define MAX_EVAL_DEPTH 400 /* expressions, statements and macros together */

static struct jval eval_name(struct jctx *cx, const struct jnode *n) {
    for (const struct jscope *s = cx->scope; s; s = s->parent) {
        const struct jval *v = jinja_dict_find_str(&s->vars, n->name);
        if (v) return *v;
    }
    const struct jval *v = jinja_dict_find_str(cx->vars, n->name);
    if (v) return *v;
    const struct jfunc *fn = jinja_global_find(n->name);
    if (fn) return (struct jval){.type = JV_FUNC, .trusted = 1, .fn = fn};
    return jinja_undef(cx, "'%.*s' is undefined", (int)(n->name.n < 80 ? n->name.n : 80), n->name.p);
}

static size_t count_kids(const struct jnode *kid) {
    size_t n = 0;
    for (; kid; kid = kid->next) n++;
    return n;
}

static struct jval eval_sequence(struct jctx *cx, const struct jnode *n) {
    size_t k = 0;
    struct jval *items = jinja_alloc(cx, count_kids(n->kids), sizeof *items);
    for (const struct jnode *kid = n->kids; items && kid && !cx->err; kid = kid->next)
        items[k++] = jinja_eval(cx, kid);
    return jinja_seq(cx, n->type == N_TUPLE ? JV_TUPLE : JV_LIST, items, k);
}

static struct jval eval_dict(struct jctx *cx, const struct jnode *n) {
    struct jdict *d = jinja_alloc(cx, 1, sizeof *d);
    for (const struct jnode *kid = n->kids; d && kid && !cx->err; kid = kid->next->next) {
        struct jval key = jinja_eval(cx, kid), value = jinja_eval(cx, kid->next);
        if (!jinja_hashable(key))
            return jinja_fail(cx, OC_ERR_FORMAT, "a %s cannot be the key of a dict", jinja_type_name(key));
        jinja_dict_put(cx, d, key, value);
    }
    return (struct jval){.type = JV_DICT, .trusted = 1, .dict = d};
}

static struct jval eval_slice(struct jctx *cx, struct jval v, const struct jnode *s) {
    struct jval part[3] = {jinja_none(), jinja_none(), jinja_none()};
    if (s->a) part[0] = jinja_eval(cx, s->a);
    if (s->b) part[1] = jinja_eval(cx, s->b);
    if (s->c) part[2] = jinja_eval(cx, s->c);
    return cx->err ? v : jinja_slice(cx, v, part[0], part[1], part[2]);
}

static bool spread_star(struct jctx *cx, struct jval v, struct jargs *out, size_t room) {
    struct jseq s = jinja_iterate(cx, v);
    struct jval *pos = jinja_alloc(cx, out->n_pos + s.n + room, sizeof *pos);
    if (cx->err) return false;
    if (out->n_pos) memcpy(pos, out->pos, out->n_pos * sizeof *pos);
    if (s.n) memcpy(pos + out->n_pos, s.items, s.n * sizeof *pos);
    out->pos = pos;
    out->n_pos += s.n;
    return true;
}

static bool spread_dict(struct jctx *cx, struct jval v, struct jargs *out, size_t room) {
    if (v.type != JV_DICT) {
        jinja_fail(cx, OC_ERR_FORMAT, "** wants a dict and got a %s", jinja_type_name(v));
        return false;
    }
    struct jpair *kw = jinja_alloc(cx, out->n_kw + v.dict->n + room, sizeof *kw);
    if (!kw) return false;
    if (out->n_kw) memcpy(kw, out->kw, out->n_kw * sizeof *kw);
    for (size_t i = 0; i < v.dict->n; i++) {
        if (v.dict->pairs[i].key.type != JV_STR) {
            jinja_fail(cx, OC_ERR_FORMAT, "** with a key that is not a string");
            return false;
        }
        kw[out->n_kw++] = v.dict->pairs[i];
    }
    out->kw = kw;
    return true;
}

static bool eval_args(struct jctx *cx, const struct jnode *kids, struct jargs *out) {
    size_t n = count_kids(kids), left = n;
    *out = (struct jargs){0};
    if (!n) return !cx->err;
    out->pos = jinja_alloc(cx, n, sizeof *out->pos);
    out->kw = jinja_alloc(cx, n, sizeof *out->kw);
    for (; kids && !cx->err; kids = kids->next, left--) {
        struct jval v = jinja_eval(cx, kids->a);
        if (cx->err) return false;
        if (kids->op == 0) out->pos[out->n_pos++] = v;
        if (kids->op == '=')
            out->kw[out->n_kw++] = (struct jpair){jinja_str(kids->name.p, kids->name.n, 1), v};
        if (kids->op == '*' && !spread_star(cx, v, out, left)) return false;
        if (kids->op == 'd' && !spread_dict(cx, v, out, left)) return false;
    }
    return !cx->err;
}

static struct jval call_joiner(struct jval j) {
    bool first = j.seq->pos == 0;
    j.seq->pos = 1;
    return first ? jinja_lit("") : j.seq->items[0];
}

struct jval jinja_call(struct jctx *cx, struct jval callee, const struct jargs *args) {
    if (!jinja_step(cx, 1)) return callee;
    switch (callee.type) {
    case JV_FUNC:
        return callee.fn->call(cx, jinja_none(), args);
    case JV_METHOD:
        return callee.method->fn->call(cx, callee.method->self, args);
    case JV_MACRO:
        return jinja_macro_call(cx, callee.macro, args);
    case JV_LOOP:
        return jinja_loop_recurse(cx, callee.loop, args);
    case JV_JOINER:
        return call_joiner(callee);
    case JV_UNDEF:
        return jinja_fail(cx, OC_ERR_FORMAT, "%.*s", (int)callee.n, callee.n ? callee.p : "");
    default:
        return jinja_fail(cx, OC_ERR_FORMAT, "a %s cannot be called", jinja_type_name(callee));
    }
}

static struct jval eval_call(struct jctx *cx, const struct jnode *n) {
    struct jargs args;
    struct jval callee = jinja_eval(cx, n->a);
    if (!eval_args(cx, n->kids, &args)) return callee;
    cx->line = n->line;
    return jinja_call(cx, callee, &args);
}

static struct jval filter_call(struct jctx *cx, const struct jnode *n, struct jval self) {
    struct jargs args;
    if (cx->err || !eval_args(cx, n->kids, &args) || !jinja_step(cx, 1)) return self;
    cx->line = n->line;
    return n->filter->call(cx, self, &args);
}

/* The chain of a filter block: its innermost filter, without operand, gets the captured text. */
struct jval jinja_apply_filter(struct jctx *cx, const struct jnode *n, struct jval self) {
    if (n->a) self = jinja_apply_filter(cx, n->a, self); /* as deep as the parser allows trees to be */
    return filter_call(cx, n, self);
}

static struct jval eval_test(struct jctx *cx, const struct jnode *n) {
    struct jargs args;
    struct jval self = jinja_eval(cx, n->a);
    if (!eval_args(cx, n->kids, &args)) return self;
    bool yes = jinja_test_call(cx, n->test, self, &args);
    return jinja_bool(yes);
}

static struct jval eval_unary(struct jctx *cx, const struct jnode *n) {
    struct jval v = jinja_eval(cx, n->a);
    if (cx->err) return v;
    if (n->op == '!') return jinja_bool(!jinja_truth(v));
    if (v.type == JV_UNDEF) return jinja_fail(cx, OC_ERR_FORMAT, "%.*s", (int)v.n, v.n ? v.p : "");
    if (!jinja_is_number(v)) return jinja_fail(cx, OC_ERR_FORMAT, "a sign before a %s", jinja_type_name(v));
    if (v.type == JV_FLOAT) {
        if (n->op == '-') v.d = -v.d;
        return v;
    }
    return jinja_binary(cx, n->op, jinja_int(0), v);
}

static bool compare_one(struct jctx *cx, uint8_t op, struct jval x, struct jval y) {
    int c;
    switch (op) {
    case '=':
        return jinja_equal(cx, x, y);
    case '!':
        return !jinja_equal(cx, x, y);
    case 'i':
        return jinja_contains(cx, x, y);
    case 'n':
        return !jinja_contains(cx, x, y);
    default:
        break;
    }
    if (x.type == JV_UNDEF || y.type == JV_UNDEF) {
        struct jval u = x.type == JV_UNDEF ? x : y;
        jinja_fail(cx, OC_ERR_FORMAT, "%.*s", (int)u.n, u.n ? u.p : "");
        return false;
    }
    c = jinja_compare(cx, x, y); /* 2: not a number, all orders false */
    return op == '<' ? c == -1 : op == '>' ? c == 1 : op == 'l' ? c <= 0 : c == 0 || c == 1;
}

static struct jval eval_compare(struct jctx *cx, const struct jnode *n) {
    struct jval x = jinja_eval(cx, n->a);
    for (const struct jnode *kid = n->kids; kid; kid = kid->next) {
        struct jval y = jinja_eval(cx, kid->a);
        if (cx->err) return x;
        bool yes = compare_one(cx, kid->op, x, y);
        if (!yes || cx->err) return jinja_bool(false);
        x = y;
    }
    return jinja_bool(true);
}

static struct jval eval_concat(struct jctx *cx, const struct jnode *n) {
    struct jout b = {0};
    for (const struct jnode *kid = n->kids; kid && !cx->err; kid = kid->next)
        jinja_put_str(cx, &b, jinja_eval(cx, kid));
    return jinja_done(&b);
}

static struct jval eval_binary(struct jctx *cx, const struct jnode *n) {
    struct jval x = jinja_eval(cx, n->a), y = jinja_eval(cx, n->b);
    return cx->err ? x : jinja_binary(cx, n->op, x, y);
}

static struct jval eval_cond(struct jctx *cx, const struct jnode *n) {
    bool yes = jinja_truth(jinja_eval(cx, n->a));
    if (cx->err) return jinja_none();
    if (yes) return jinja_eval(cx, n->b);
    return n->c ? jinja_eval(cx, n->c) : jinja_undef(cx, "an inline if without else was false");
}

static struct jval eval_logic(struct jctx *cx, const struct jnode *n) {
    struct jval x = jinja_eval(cx, n->a);
    return cx->err || jinja_truth(x) == (n->type == N_OR) ? x : jinja_eval(cx, n->b);
}

static struct jval eval_node(struct jctx *cx, const struct jnode *n) {
    struct jval v;
    switch (n->type) {
    case N_CONST:
        return n->val;
    case N_NAME:
        return eval_name(cx, n);
    case N_LIST:
    case N_TUPLE:
        return eval_sequence(cx, n);
    case N_DICT:
        return eval_dict(cx, n);
    case N_GETATTR:
        v = jinja_eval(cx, n->a);
        cx->line = n->line;
        return jinja_getattr(cx, v, n->name);
    case N_GETITEM:
        v = jinja_eval(cx, n->a);
        if (cx->err) return v;
        return n->b->type == N_SLICE ? eval_slice(cx, v, n->b) : jinja_getitem(cx, v, jinja_eval(cx, n->b));
    case N_CALL:
        return eval_call(cx, n);
    case N_FILTER:
        v = jinja_eval(cx, n->a);
        return filter_call(cx, n, v);
    case N_TEST:
        return eval_test(cx, n);
    case N_UNARY:
        return eval_unary(cx, n);
    case N_BINARY:
        return eval_binary(cx, n);
    case N_AND:
    case N_OR:
        return eval_logic(cx, n);
    case N_COMPARE:
        return eval_compare(cx, n);
    case N_CONCAT:
        return eval_concat(cx, n);
    case N_COND:
        return eval_cond(cx, n);
    default:
        return jinja_fail(cx, OC_ERR_UNSUPPORTED, "an expression that this build cannot evaluate");
    }
}

struct jval jinja_eval(struct jctx *cx, const struct jnode *n) {
    if (!jinja_step(cx, 1)) return (struct jval){.type = JV_UNDEF};
    if (cx->depth >= MAX_EVAL_DEPTH)
        return jinja_fail(cx, OC_ERR_LIMIT, "expressions, blocks and macros nested too deep");
    cx->depth++;
    cx->line = n->line;
    struct jval v = eval_node(cx, n);
    cx->depth--;
    return v;
}
