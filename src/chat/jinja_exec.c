/* Execution of statements. */
#include "chat/jinja.h"

#include "base/limits.h"

#define MAX_EXEC_DEPTH 100 /* blocks and macros within each other */

static enum jflow exec_in_scope(struct jctx *cx, const struct jnode *body, struct jscope *scope) {
    struct jscope *outer = cx->scope;
    cx->scope = scope;
    enum jflow f = jinja_exec(cx, body);
    cx->scope = outer;
    return f;
}

struct jscope *jinja_scope_push(struct jctx *cx) {
    struct jscope *s = jinja_alloc(cx, 1, sizeof *s);
    if (s) s->parent = cx->scope;
    return s;
}

/* The text that a body writes, in a new scope with `scope` as its parent. */
static struct jval capture(struct jctx *cx, const struct jnode *body, struct jscope *scope) {
    struct jout b = {0}, *outer = cx->out;
    if (!scope) return jinja_none();
    cx->out = &b;
    exec_in_scope(cx, body, scope);
    cx->out = outer;
    return jinja_done(&b);
}

static void assign_name(struct jctx *cx, struct jscope *s, struct oc_str name, struct jval v) {
    jinja_dict_put(cx, &s->vars, jinja_str(name.p, name.n, 1), v);
}

static void assign_ns(struct jctx *cx, const struct jnode *target, struct jval v) {
    struct jnode name = {.type = N_NAME, .line = target->line, .name = target->name};
    struct jval ns = jinja_eval(cx, &name);
    if (cx->err) return;
    if (ns.type == JV_NS)
        jinja_dict_put(cx, ns.dict, jinja_str(target->name2.p, target->name2.n, 1), v);
    else
        jinja_fail(cx, OC_ERR_FORMAT, "only a namespace takes attributes, '%.*s' is a %s",
                   (int)target->name.n, target->name.p, jinja_type_name(ns));
}

static void assign(struct jctx *cx, struct jscope *s, const struct jnode *target, struct jval v) {
    if (cx->err) return;
    if (target->type == N_NAME) {
        assign_name(cx, s, target->name, v);
        return;
    }
    if (target->type == N_NSREF) {
        assign_ns(cx, target, v);
        return;
    }
    struct jseq parts = v.type == JV_UNDEF ? (struct jseq){0} : jinja_iterate(cx, v);
    size_t i = 0, n = 0;
    for (const struct jnode *kid = target->kids; kid; kid = kid->next) n++;
    if (!cx->err && n != parts.n) jinja_fail(cx, OC_ERR_FORMAT, "%zu names for %zu values", n, parts.n);
    for (const struct jnode *kid = target->kids; kid && !cx->err; kid = kid->next)
        assign(cx, s, kid, parts.items[i++]);
}

/* ---- loops */

static struct jval loop_cycle(struct jctx *cx, struct jval self, const struct jargs *args) {
    if (!args->n_pos) return jinja_fail(cx, OC_ERR_FORMAT, "loop.cycle wants at least one value");
    return args->pos[self.loop->index0 % args->n_pos];
}

static struct jval loop_changed(struct jctx *cx, struct jval self, const struct jargs *args) {
    struct jloop *l = self.loop;
    struct jval *copy = jinja_alloc(cx, args->n_pos, sizeof *copy);
    if (!copy) return self;
    if (args->n_pos) memcpy(copy, args->pos, args->n_pos * sizeof *copy);
    struct jval now = jinja_seq(cx, JV_TUPLE, copy, args->n_pos);
    if (cx->err || (l->has_changed && jinja_equal(cx, l->last_changed, now))) return jinja_bool(false);
    l->last_changed = now;
    l->has_changed = true;
    return jinja_bool(true);
}

struct jval jinja_loop_attr(struct jctx *cx, struct jloop *l, struct oc_str name, bool *found) {
    static const char *const names[] = {"index",  "index0", "revindex", "revindex0", "first",   "last",
                                        "length", "depth",  "depth0",   "previtem",  "nextitem"};
    size_t k = 0, i = l->index0, n = l->items.n;
    *found = true;
    while (k < sizeof names / sizeof *names && !oc_str_is(name, names[k])) k++;
    switch (k) {
    case 0:
        return jinja_int((int64_t)i + 1);
    case 1:
        return jinja_int((int64_t)i);
    case 2:
        return jinja_int((int64_t)(n - i));
    case 3:
        return jinja_int((int64_t)(n - i) - 1);
    case 4:
        return jinja_bool(i == 0);
    case 5:
        return jinja_bool(i + 1 == n);
    case 6:
        return jinja_int((int64_t)n);
    case 7:
        return jinja_int(l->depth0 + 1);
    case 8:
        return jinja_int(l->depth0);
    case 9:
        return i ? l->items.items[i - 1] : jinja_undef(cx, "there is no previous item");
    case 10:
        return i + 1 < n ? l->items.items[i + 1] : jinja_undef(cx, "there is no next item");
    default:
        break;
    }
    static const struct jfunc calls[] = {{"cycle", loop_cycle}, {"changed", loop_changed}};
    const struct jfunc *fn = oc_str_is(name, "cycle")     ? &calls[0]
                             : oc_str_is(name, "changed") ? &calls[1]
                                                          : NULL;
    struct jmethod *m = fn ? jinja_alloc(cx, 1, sizeof *m) : NULL;
    *found = fn != NULL;
    if (!m) return jinja_none();
    *m = (struct jmethod){{.type = JV_LOOP, .trusted = 1, .loop = l}, fn};
    return (struct jval){.type = JV_METHOD, .trusted = 1, .method = m};
}

static struct jseq filtered(struct jctx *cx, const struct jnode *n, struct jseq in) {
    struct jseq out = {.items = jinja_alloc(cx, in.n, sizeof *out.items)};
    struct jscope *outer = cx->scope;
    for (size_t i = 0; out.items && i < in.n && jinja_step(cx, 1); i++) {
        cx->scope = outer;
        cx->scope = jinja_scope_push(cx);
        if (!cx->scope) break;
        assign(cx, cx->scope, n->a, in.items[i]);
        bool keep = !cx->err && jinja_truth(jinja_eval(cx, n->c));
        if (!keep || cx->err) continue;
        out.items[out.n] = in.items[i];
        if (n->a->type == N_TUPLE) { /* jinja2's filter hands on the tuple of the names */
            struct jseq parts = jinja_iterate(cx, in.items[i]);
            out.items[out.n] = jinja_seq(cx, JV_TUPLE, parts.items, parts.n);
        }
        out.n++;
    }
    cx->scope = outer;
    return out;
}

static enum jflow run_loop(struct jctx *cx, const struct jnode *n, struct jval over, int depth0) {
    struct jloop *l = jinja_alloc(cx, 1, sizeof *l);
    struct jseq items = jinja_iterate(cx, over);
    if (!l || cx->err) return J_NEXT;
    if (n->c) items = filtered(cx, n, items);
    *l = (struct jloop){.node = n, .scope = cx->scope, .items = items, .depth0 = depth0};
    struct jval loop = {.type = JV_LOOP, .trusted = 1, .loop = l};
    for (; l->index0 < items.n && jinja_step(cx, 1); l->index0++) {
        struct jscope *s = jinja_scope_push(cx);
        if (!s) return J_NEXT;
        assign_name(cx, s, OC_STR("loop"), loop);
        assign(cx, s, n->a, items.items[l->index0]);
        if (!cx->err && exec_in_scope(cx, n->kids, s) == J_BREAK) break;
    }
    if (items.n || cx->err || !n->kids2) return J_NEXT;
    struct jscope *s = jinja_scope_push(cx);
    return s ? exec_in_scope(cx, n->kids2, s) : J_NEXT;
}

/* loop(items) of a recursive loop: the text of the same loop over other items. */
struct jval jinja_loop_recurse(struct jctx *cx, struct jloop *l, const struct jargs *args) {
    if (!l->node->op || args->n_pos != 1 || args->n_kw)
        return jinja_fail(cx, OC_ERR_FORMAT, "only a recursive loop can be called, with what to walk");
    if (cx->exec_depth >= MAX_EXEC_DEPTH) return jinja_fail(cx, OC_ERR_LIMIT, "loops recurse too deep");
    struct jout b = {0}, *outer = cx->out;
    struct jscope *scope = cx->scope;
    cx->out = &b;
    cx->scope = l->scope;
    cx->exec_depth++;
    run_loop(cx, l->node, args->pos[0], l->depth0 + 1);
    cx->exec_depth--;
    cx->scope = scope;
    cx->out = outer;
    return jinja_done(&b);
}

/* ---- macros */

static bool is_parameter(const struct jnode *macro, struct oc_str name) {
    for (const struct jnode *p = macro->kids; p; p = p->next) {
        if (oc_str_eq(p->name, name)) return true;
    }
    return false;
}

static void bind_parameters(struct jctx *cx, const struct jmacro *m, const struct jargs *args,
                            struct jscope *s) {
    size_t i = 0;
    for (size_t k = 0; k < args->n_kw && !cx->err; k++) {
        struct oc_str name = {args->kw[k].key.p, args->kw[k].key.n};
        if (is_parameter(m->node, name) || oc_str_is(name, "caller"))
            assign_name(cx, s, name, args->kw[k].value);
        else
            jinja_fail(cx, OC_ERR_FORMAT, "the macro has no parameter '%.*s'",
                       (int)(name.n < 60 ? name.n : 60), name.p);
    }
    for (const struct jnode *p = m->node->kids; p && !cx->err; p = p->next, i++) {
        const struct jval *named = jinja_dict_find_str(&s->vars, p->name);
        if (i < args->n_pos) {
            if (named) jinja_fail(cx, OC_ERR_FORMAT, "the macro got '%.*s' twice", (int)p->name.n, p->name.p);
            assign_name(cx, s, p->name, args->pos[i]);
        } else if (!named) {
            struct jval v =
                p->a ? jinja_eval(cx, p->a)
                     : jinja_undef(cx, "parameter '%.*s' was not provided", (int)p->name.n, p->name.p);
            assign_name(cx, s, p->name, v);
        }
    }
    if (i < args->n_pos)
        jinja_fail(cx, OC_ERR_FORMAT, "the macro takes %zu arguments and got %zu", i, args->n_pos);
}

struct jval jinja_macro_call(struct jctx *cx, const struct jmacro *m, const struct jargs *args) {
    struct jscope *outer = cx->scope;
    int line = cx->line;
    cx->scope = m->scope;
    struct jscope *s = jinja_scope_push(cx);
    cx->scope = s;
    if (s) bind_parameters(cx, m, args, s);
    struct jval v = cx->err ? jinja_none() : capture(cx, m->node->kids2, s);
    cx->scope = outer;
    if (!cx->err) cx->line = line;
    return v;
}

static struct jval make_macro(struct jctx *cx, const struct jnode *n) {
    struct jmacro *m = jinja_alloc(cx, 1, sizeof *m);
    if (m) *m = (struct jmacro){n, cx->scope};
    return (struct jval){.type = JV_MACRO, .trusted = 1, .macro = m};
}

/* ---- statements */

/* {% call %}: the call gets one more named argument, the body as a macro. */
static void exec_call_block(struct jctx *cx, const struct jnode *n) {
    struct jnode call = *n->a, arg = {.type = N_ARG, .op = '=', .line = n->line, .name = OC_STR("caller")},
                 value = {.type = N_CONST};
    value.line = n->line;
    value.val = make_macro(cx, n->b);
    arg.a = &value;
    struct jnode copies[OC_LIMIT_TEMPLATE_DEPTH];
    size_t k = 0;
    for (const struct jnode *kid = call.kids; kid && k < OC_LIMIT_TEMPLATE_DEPTH; kid = kid->next, k++)
        copies[k] = *kid;
    if (k == OC_LIMIT_TEMPLATE_DEPTH) {
        jinja_fail(cx, OC_ERR_LIMIT, "a call with too many arguments");
        return;
    }
    for (size_t i = 0; i < k; i++) copies[i].next = i + 1 < k ? &copies[i + 1] : &arg;
    call.kids = k ? copies : &arg;
    jinja_put_str(cx, cx->out, jinja_eval(cx, &call));
}

static enum jflow exec_if(struct jctx *cx, const struct jnode *n) {
    for (; n; n = n->c) {
        bool yes = jinja_truth(jinja_eval(cx, n->a));
        if (cx->err) return J_NEXT;
        if (yes) return jinja_exec(cx, n->kids);
        if (!n->c) return jinja_exec(cx, n->kids2);
    }
    return J_NEXT;
}

static enum jflow exec_with(struct jctx *cx, const struct jnode *n) {
    struct jscope *s = jinja_scope_push(cx);
    for (const struct jnode *kid = n->kids; s && kid && !cx->err; kid = kid->next)
        assign(cx, s, kid->a, jinja_eval(cx, kid->b));
    return s && !cx->err ? exec_in_scope(cx, n->kids2, s) : J_NEXT;
}

static void exec_set_block(struct jctx *cx, const struct jnode *n) {
    struct jval v = capture(cx, n->kids, jinja_scope_push(cx));
    if (!cx->err && n->b) v = jinja_apply_filter(cx, n->b, v);
    assign(cx, cx->scope, n->a, v);
}

static enum jflow exec_one(struct jctx *cx, const struct jnode *n) {
    struct jval v;
    cx->line = n->line;
    switch (n->type) {
    case N_TEXT:
        jinja_put_sub(cx, cx->out, n->val, 0, n->val.n);
        break;
    case N_OUTPUT:
        v = jinja_eval(cx, n->a);
        if (!cx->err) jinja_put_str(cx, cx->out, v);
        break;
    case N_FOR:
        v = jinja_eval(cx, n->b);
        return cx->err ? J_NEXT : run_loop(cx, n, v, 0);
    case N_IF:
        return exec_if(cx, n);
    case N_SET:
        assign(cx, cx->scope, n->a, jinja_eval(cx, n->b));
        break;
    case N_SETBLOCK:
        exec_set_block(cx, n);
        break;
    case N_MACRO:
        assign_name(cx, cx->scope, n->name, make_macro(cx, n));
        break;
    case N_CALLBLOCK:
        exec_call_block(cx, n);
        break;
    case N_FILTERBLOCK:
        v = capture(cx, n->kids, jinja_scope_push(cx));
        if (!cx->err) v = jinja_apply_filter(cx, n->a, v);
        if (!cx->err && v.type != JV_STR)
            jinja_fail(cx, OC_ERR_FORMAT, "the filter block gives a %s, not text", jinja_type_name(v));
        if (!cx->err) jinja_put_str(cx, cx->out, v);
        break;
    case N_WITH:
        return exec_with(cx, n);
    case N_GENERATION:
        v = capture(cx, n->kids, jinja_scope_push(cx));
        if (!cx->err) jinja_put_str(cx, cx->out, v);
        break;
    case N_BREAK:
        return J_BREAK;
    case N_CONTINUE:
        return J_CONTINUE;
    default:
        jinja_fail(cx, OC_ERR_UNSUPPORTED, "a statement that this build cannot run");
    }
    return J_NEXT;
}

enum jflow jinja_exec(struct jctx *cx, const struct jnode *body) {
    enum jflow f = J_NEXT;
    if (cx->err) return f;
    if (cx->exec_depth >= MAX_EXEC_DEPTH) {
        jinja_fail(cx, OC_ERR_LIMIT, "blocks and macros nested too deep");
        return f;
    }
    cx->exec_depth++;
    for (; body && f == J_NEXT && jinja_step(cx, 1); body = body->next) f = exec_one(cx, body);
    cx->exec_depth--;
    return f;
}
