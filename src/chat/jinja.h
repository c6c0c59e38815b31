/* chat/jinja.h - inside of the template half of room chat: values, syntax tree, rendering state.
 *
 * Only template.c, messages.c and the jinja_*.c files include it; the names start with `jinja_` and `struct
 * j`. A template is lexed (jinja_lex.c) and parsed (jinja_parse.c statements, jinja_expr.c expressions) once
 * into an immutable tree in the template's arena; a rendering walks that tree (jinja_eval.c, jinja_exec.c)
 * with all its values in an arena of its own. Semantics are those of Python's jinja2 3.1 in transformers'
 * set-up (ImmutableSandboxedEnvironment, trim_blocks, lstrip_blocks, loop controls, `generation` blocks).
 *
 * Errors of a rendering: the first one is kept in jctx.err, functions then return an undefined value, and
 * every loop checks the flag. Each byte of a string has an origin: 1 for template text, literals and special
 * token strings, 0 for anything that came in as data. */
#ifndef OC_CHAT_JINJA_H
#define OC_CHAT_JINJA_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/json.h"
#include "base/str.h"

enum jtype {
    JV_UNDEF, /* jinja2 Undefined; p, n is the sentence that says what is missing */
    JV_NONE,
    JV_BOOL,   /* flag */
    JV_INT,    /* i */
    JV_BIGINT, /* an integer of the data past 64 bits: p, n is its source text */
    JV_FLOAT,  /* d */
    JV_STR,    /* p, n bytes of UTF-8; o: one origin byte each, or NULL when all have origin `trusted` */
    JV_LIST,   /* seq */
    JV_TUPLE,  /* seq */
    JV_GEN,    /* seq: a Python generator or iterator, already computed; can be walked once */
    JV_VIEW,   /* seq: dict.keys(), values(), items(); flag is 'k', 'v' or 'i' */
    JV_RANGE,  /* seq */
    JV_DICT,   /* dict */
    JV_NS,     /* dict: namespace(), the one mutable value */
    JV_FUNC,   /* fn: a global function */
    JV_METHOD, /* method: a bound method */
    JV_MACRO,  /* macro */
    JV_LOOP,   /* loop: the `loop` variable */
    JV_CYCLER, /* seq, pos moves */
    JV_JOINER, /* seq: one item, the separator; pos counts calls */
};

struct jval {
    uint8_t type;
    uint8_t trusted; /* origin of a scalar, and of a string without o */
    uint8_t flag;
    union {
        int64_t i;
        double d;
        struct {
            const char *p;
            size_t n;
            const uint8_t *o;
        };
        struct jseq *seq;
        struct jdict *dict;
        const struct jfunc *fn;
        struct jmethod *method;
        struct jmacro *macro;
        struct jloop *loop;
    };
};

struct jseq {
    struct jval *items;
    size_t n;
    size_t pos;                /* JV_GEN, JV_CYCLER, JV_JOINER */
    int64_t start, stop, step; /* JV_RANGE */
};

struct jpair {
    struct jval key, value;
};

struct jdict {
    struct jpair *pairs;
    size_t n, cap;
};

/* Arguments of a call, filter, test or macro. */
struct jargs {
    struct jval *pos;
    size_t n_pos;
    struct jpair *kw; /* keys are strings */
    size_t n_kw;
};

struct jctx;
typedef struct jval jinja_fn(struct jctx *cx, struct jval self, const struct jargs *args);
typedef bool jinja_test_fn(struct jctx *cx, struct jval self, const struct jargs *args);

struct jfunc {
    const char *name;
    jinja_fn *call;
};

struct jtest {
    const char *name;
    jinja_test_fn *call;
};

struct jmethod {
    struct jval self;
    const struct jfunc *fn;
};

struct jscope {
    struct jscope *parent;
    struct jdict vars;
};

struct jmacro {
    const struct jnode *node; /* N_MACRO */
    struct jscope *scope;     /* where it was defined */
};

struct jloop {
    const struct jnode *node; /* N_FOR */
    struct jscope *scope;
    struct jseq items;
    size_t index0;
    int depth0;
    struct jval last_changed;
    bool has_changed;
};

enum jnode_type {
    /* expressions */
    N_CONST,   /* val */
    N_NAME,    /* name */
    N_LIST,    /* kids */
    N_TUPLE,   /* kids */
    N_DICT,    /* kids: key, value, key, value */
    N_GETATTR, /* a . name */
    N_GETITEM, /* a [ b ] */
    N_SLICE,   /* a : b : c, each may be NULL; only as b of N_GETITEM */
    N_CALL,    /* a ( kids: N_ARG ) */
    N_ARG,     /* op: 0 positional, '=' keyword name, '*', 'd' for **; value a */
    N_FILTER,  /* a | name ( kids: N_ARG ); a is NULL for the captured text of a block */
    N_TEST,    /* a is name ( kids: N_ARG ) */
    N_UNARY,   /* op: '!', '-', '+' */
    N_BINARY,  /* op: + - * / 'f' (//) % 'p' (**) */
    N_AND,
    N_OR,
    N_COMPARE, /* a, then kids: N_ARG with op: = ! < > 'l' (<=) 'g' (>=) 'i' (in) 'n' (not in) */
    N_CONCAT,  /* kids */
    N_COND,    /* b if a else c (c may be NULL) */
    N_NSREF,   /* target name.name2 of a set */
    /* statements */
    N_TEXT,        /* val */
    N_OUTPUT,      /* a */
    N_FOR,         /* for a in b if c: kids; else kids2; op: recursive */
    N_IF,          /* a: kids; else kids2; c: the next elif */
    N_SET,         /* a = b */
    N_SETBLOCK,    /* a = kids through filter b (or NULL) */
    N_MACRO,       /* name, kids: N_ARG parameters with default a or NULL; kids2 body */
    N_CALLBLOCK,   /* a: the call; b: N_MACRO of the caller */
    N_FILTERBLOCK, /* a: filter chain; kids */
    N_WITH,        /* kids: N_SET; kids2 body */
    N_GENERATION,  /* kids */
    N_BREAK,
    N_CONTINUE,
};

struct jnode {
    uint8_t type;
    uint8_t op;
    uint16_t depth; /* of the tree below */
    int line;
    struct jnode *next; /* sibling in kids */
    struct jnode *a, *b, *c;
    struct jnode *kids, *kids2;
    struct oc_str name;
    union {
        struct jval val;
        const struct jfunc *filter;
        const struct jtest *test;
        struct oc_str name2;
    };
};

enum jtoken_type {
    T_DATA,
    T_VAR_BEGIN,
    T_VAR_END,
    T_BLOCK_BEGIN,
    T_BLOCK_END,
    T_NAME,
    T_STR,
    T_INT,
    T_FLOAT,
    T_OP,
    T_EOF
};

struct jtoken {
    uint8_t type;
    int line;
    struct oc_str s; /* T_DATA, T_NAME, T_OP: source; T_STR: the string's value */
    int64_t i;
    double d;
};

/* A string under construction, text and origin side by side in the rendering's arena. */
struct jout {
    char *p;
    uint8_t *o;
    size_t n, cap;
};

struct jctx {
    struct oc_arena *a;
    struct oc_errinfo *ei;
    enum oc_err err;
    int line;
    int depth;
    int exec_depth; /* statement bodies within each other */
    uint64_t steps_left;
    size_t max_output_bytes;
    time_t now; /* already in the wanted zone */
    struct jscope *scope;
    struct jdict *vars; /* what the caller passed in */
    struct jout *out;
};

/* ---- jinja_lex.c */
/* Turns source into tokens, all memory from the arena, which must outlive the tree. */
OC_MUST_CHECK enum oc_err jinja_lex(struct oc_arena *a, struct oc_str source, struct jtoken **tokens,
                                    size_t *n_tokens, struct oc_errinfo *ei);

/* ---- jinja_parse.c and jinja_expr.c */
struct jparser {
    struct oc_arena *a;
    struct oc_errinfo *ei;
    enum oc_err err;
    const struct jtoken *t; /* current token; the last one is T_EOF */
    int depth;
    int loops; /* loops around the current statement, within its macro */
};

/* Parses into a list of statements. */
OC_MUST_CHECK enum oc_err jinja_parse(struct oc_arena *a, struct oc_str source, struct jnode **body,
                                      struct oc_errinfo *ei);

/* Writes the first error of a parse, with the current line; returns NULL. */
void *jinja_parse_fail(struct jparser *ps, enum oc_err code, const char *fmt, ...) OC_PRINTF(3, 4);
struct jnode *jinja_node(struct jparser *ps, enum jnode_type type);
/* Sets n->depth from its children and bounds it; NULL when too deep. */
struct jnode *jinja_node_done(struct jparser *ps, struct jnode *n);
bool jinja_at_op(const struct jparser *ps, const char *op);
bool jinja_at_name(const struct jparser *ps, const char *name);
bool jinja_skip_op(struct jparser *ps, const char *op);
bool jinja_skip_name(struct jparser *ps, const char *name);
bool jinja_expect_op(struct jparser *ps, const char *op);
struct jnode *jinja_parse_expr(struct jparser *ps, bool with_cond);
/* A tuple or a single expression; with_cond as above; stops before the name `end_name` (or NULL). */
struct jnode *jinja_parse_tuple(struct jparser *ps, bool with_cond, const char *end_name);
struct jnode *jinja_parse_call_args(struct jparser *ps);
struct jnode *jinja_parse_postfix(struct jparser *ps, struct jnode *n);
/* The `|name(args)` chain after n; n is NULL for block filters, which start with the name. */
struct jnode *jinja_parse_filters(struct jparser *ps, struct jnode *n, bool start_inline);

/* ---- jinja_value.c */
struct jval jinja_fail(struct jctx *cx, enum oc_err code, const char *fmt, ...) OC_PRINTF(3, 4);
/* Counts n steps against the rendering's limit; false (and the error set) past it. */
bool jinja_step(struct jctx *cx, size_t n);
void *jinja_alloc(struct jctx *cx, size_t count, size_t size_bytes);

struct jval jinja_undef(struct jctx *cx, const char *fmt, ...) OC_PRINTF(2, 3);
struct jval jinja_none(void);
struct jval jinja_bool(bool b);
struct jval jinja_int(int64_t i);
struct jval jinja_float(double d);
struct jval jinja_lit(const char *s);                                   /* trusted */
struct jval jinja_str(const char *p, size_t n, uint8_t trusted);        /* borrowed */
struct jval jinja_sub(struct jval s, size_t from_byte, size_t to_byte); /* borrowed part of s */
struct jval jinja_seq(struct jctx *cx, enum jtype type, struct jval *items, size_t n);
struct jval jinja_from_json(struct jctx *cx, const struct oc_json *j, int depth);

const char *jinja_type_name(struct jval v);
bool jinja_truth(struct jval v);
bool jinja_equal(struct jctx *cx, struct jval x, struct jval y);
/* -1, 0, 1; an error when Python could not order the two. */
int jinja_compare(struct jctx *cx, struct jval x, struct jval y);
bool jinja_contains(struct jctx *cx, struct jval item, struct jval in);
bool jinja_is_number(struct jval v); /* int, float or bool */
double jinja_to_double(struct jval v);
bool jinja_hashable(struct jval v);

struct jval *jinja_dict_find(struct jctx *cx, const struct jdict *d, struct jval key);
struct jval *jinja_dict_find_str(const struct jdict *d, struct oc_str key);
void jinja_dict_put(struct jctx *cx, struct jdict *d, struct jval key, struct jval value);

/* The items that Python's iter(v) walks; a generator is used up. An error for what cannot be iterated. */
struct jseq jinja_iterate(struct jctx *cx, struct jval v);
/* len(v), or -1 when it has none. */
int64_t jinja_len(struct jval v);
bool jinja_is_seq(struct jval v); /* holds a jseq with items */

/* ---- jinja_text.c: strings under construction, str() and repr() */
void jinja_put(struct jctx *cx, struct jout *b, const char *p, size_t n, uint8_t origin);
void jinja_put_sub(struct jctx *cx, struct jout *b, struct jval s, size_t from, size_t to);
void jinja_put_cp(struct jctx *cx, struct jout *b, uint32_t cp, uint8_t origin);
/* str(v) */
void jinja_put_str(struct jctx *cx, struct jout *b, struct jval v);
void jinja_put_repr(struct jctx *cx, struct jout *b, struct jval v, int depth);
struct jval jinja_done(const struct jout *b);
struct jval jinja_to_str(struct jctx *cx, struct jval v);
void jinja_put_double(struct jctx *cx, struct jout *b, double d, uint8_t origin);
static inline uint8_t jinja_origin(struct jval s, size_t i) {
    return s.o ? s.o[i] : s.trusted;
}
bool jinja_is_space(uint32_t cp); /* str.isspace */
size_t jinja_cp_count(struct jval s);
/* Byte offset of code point i (or the end). */
size_t jinja_cp_offset(struct jval s, size_t i);
/* First occurrence at or after byte `from`, or SIZE_MAX. */
size_t jinja_find(struct jctx *cx, struct jval s, struct jval needle, size_t from);

/* ---- jinja_case.c */
enum jcase { J_UPPER, J_LOWER, J_TITLE, J_CAPITALIZE };
struct jval jinja_case(struct jctx *cx, struct jval s, enum jcase how);
bool jinja_is_printable(uint32_t cp);
bool jinja_is_class(uint32_t cp, char cls); /* 'd' digit, 'a' alpha, 'n' alnum, 'u' upper, 'l' lower */

/* ---- jinja_json.c */
struct jval jinja_filter_tojson(struct jctx *cx, struct jval self, const struct jargs *args);

/* ---- jinja_args.c */
/* Binds arguments to the names in `spec` ("a,b,c"); out[i] points at the value or is NULL. False on error. */
bool jinja_bind(struct jctx *cx, const char *who, const struct jargs *args, const char *spec,
                const struct jval **out);
bool jinja_arg_bool(const struct jval *v, bool fallback);
/* An int argument; false and an error for other types. None counts as absent when allowed by `fallback`. */
bool jinja_arg_int(struct jctx *cx, const char *who, const struct jval *v, int64_t fallback, int64_t *out);
bool jinja_arg_str(struct jctx *cx, const char *who, const struct jval *v, struct jval fallback,
                   struct jval *out);

/* ---- jinja_filters.c, jinja_seqfilters.c, jinja_tests.c, jinja_methods.c, jinja_globals.c */
const struct jfunc *jinja_filter_find(struct oc_str name);
const struct jfunc *jinja_seqfilter_find(struct oc_str name);
const struct jtest *jinja_test_find(struct oc_str name);
bool jinja_test_call(struct jctx *cx, const struct jtest *test, struct jval self, const struct jargs *args);
/* A bound method of v; undefined when v's type has none of that name (found is false) or it may not be used.
 */
struct jval jinja_method_get(struct jctx *cx, struct jval v, struct oc_str name, bool *found);
const struct jfunc *jinja_strmethod_find(struct oc_str name);
const struct jfunc *jinja_global_find(struct oc_str name);
struct jval jinja_format_percent(struct jctx *cx, struct jval fmt, const struct jval *args, size_t n_args,
                                 const struct jdict *named);
struct jval jinja_str_strip(struct jctx *cx, struct jval s, const struct jval *chars, bool left, bool right);
struct jval jinja_str_replace(struct jctx *cx, struct jval s, struct jval old, struct jval with,
                              int64_t count);
struct jval jinja_str_join(struct jctx *cx, struct jval sep, struct jseq items, bool to_str);
struct jval jinja_str_splitlines(struct jctx *cx, struct jval s, bool keep_ends);

/* ---- jinja_ops.c */
struct jval jinja_binary(struct jctx *cx, uint8_t op, struct jval x, struct jval y);
struct jval jinja_getattr(struct jctx *cx, struct jval v, struct oc_str name);
struct jval jinja_getitem(struct jctx *cx, struct jval v, struct jval key);
struct jval jinja_slice(struct jctx *cx, struct jval v, struct jval start, struct jval stop,
                        struct jval step);

/* ---- jinja_eval.c */
struct jval jinja_eval(struct jctx *cx, const struct jnode *n);
struct jval jinja_call(struct jctx *cx, struct jval callee, const struct jargs *args);
struct jval jinja_apply_filter(struct jctx *cx, const struct jnode *n, struct jval self);

/* ---- jinja_exec.c */
enum jflow { J_NEXT, J_BREAK, J_CONTINUE };
enum jflow jinja_exec(struct jctx *cx, const struct jnode *body);
struct jval jinja_macro_call(struct jctx *cx, const struct jmacro *m, const struct jargs *args);
struct jval jinja_loop_attr(struct jctx *cx, struct jloop *l, struct oc_str name, bool *found);
struct jval jinja_loop_recurse(struct jctx *cx, struct jloop *l, const struct jargs *args);
struct jscope *jinja_scope_push(struct jctx *cx);

#endif
