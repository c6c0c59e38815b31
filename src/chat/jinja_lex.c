#include "chat/jinja.h"

#include <stdlib.h>

#include "base/limits.h"

struct lexer {
    struct oc_arena *a;
    struct oc_errinfo *ei;
    const char *src;
    size_t n, pos;
    int line;
    bool line_starting; /* the last match ended in a newline, or nothing was matched yet */
    struct jtoken *tokens;
    size_t n_tokens, cap;
};

static enum oc_err fail_at(struct lexer *lx, enum oc_err code, const char *what) {
    return oc_fail(lx->ei, code, "chat template, line %d: %s", lx->line, what);
}

static struct jtoken *push(struct lexer *lx, enum jtoken_type type) {
    if (lx->n_tokens == lx->cap) {
        size_t cap = lx->cap ? lx->cap * 2 : 256;
        struct jtoken *t = oc_arena_array(lx->a, cap, sizeof *t);
        if (!t) {
            fail_at(lx, OC_ERR_NOMEM, "the template is too large");
            return NULL;
        }
        if (lx->n_tokens) memcpy(t, lx->tokens, lx->n_tokens * sizeof *t);
        lx->tokens = t;
        lx->cap = cap;
    }
    struct jtoken *t = &lx->tokens[lx->n_tokens++];
    *t = (struct jtoken){.type = (uint8_t)type, .line = lx->line};
    return t;
}

static bool at(const struct lexer *lx, size_t pos, const char *s) {
    size_t k = strlen(s);
    return lx->n - pos >= k && memcmp(lx->src + pos, s, k) == 0;
}

static size_t skip_space(const struct lexer *lx, size_t pos) {
    while (pos < lx->n) {
        uint32_t cp;
        size_t k = oc_utf8_decode(lx->src + pos, lx->n - pos, &cp);
        if (!jinja_is_space(cp)) break;
        pos += k;
    }
    return pos;
}

/* Moves to `to`, counting lines. */
static void advance(struct lexer *lx, size_t to) {
    if (to > lx->pos) lx->line_starting = lx->src[to - 1] == '\n';
    for (; lx->pos < to; lx->pos++) lx->line += lx->src[lx->pos] == '\n';
}

/* End of text [from, to) once trailing white space is taken off. */
static size_t trim_end(const struct lexer *lx, size_t from, size_t to) {
    size_t end = from;
    for (size_t i = from; i < to;) {
        uint32_t cp;
        i += oc_utf8_decode(lx->src + i, to - i, &cp);
        if (!jinja_is_space(cp)) end = i;
    }
    return end;
}

/* Where the text before a tag ends: `-` strips it, lstrip_blocks takes the indent of a tag alone so far. */
static size_t text_end(const struct lexer *lx, size_t from, size_t to, char sign, bool is_variable) {
    if (sign == '-') return trim_end(lx, from, to);
    if (sign == '+' || is_variable) return to;
    size_t bol = to;
    while (bol > from && lx->src[bol - 1] != '\n') bol--;
    if (bol == from && !lx->line_starting) return to;
    return skip_space(lx, bol) >= to ? bol : to;
}

static enum oc_err push_text(struct lexer *lx, size_t from, size_t to) {
    if (to <= from) return OC_OK;
    struct jtoken *t = push(lx, T_DATA);
    if (!t) return OC_ERR_NOMEM;
    t->s = (struct oc_str){lx->src + from, to - from};
    return OC_OK;
}

/* If a `{% raw %}` starts at pos (just past "{%" and sign), the position past it, else 0. */
static size_t raw_begin(const struct lexer *lx, size_t pos) {
    pos = skip_space(lx, pos);
    if (!at(lx, pos, "raw")) return 0;
    pos = skip_space(lx, pos + 3);
    if (at(lx, pos, "-%}")) return skip_space(lx, pos + 3);
    return at(lx, pos, "%}") ? pos + 2 : 0;
}

/* Position past the end of a tag at pos ("-%}" and white space, "+%}", "%}" and a newline), or 0. */
static size_t tag_end(const struct lexer *lx, size_t pos, const char *close, bool trims_newline) {
    if (lx->n - pos > 2 && lx->src[pos] == '-' && at(lx, pos + 1, close)) return skip_space(lx, pos + 3);
    if (trims_newline && lx->n - pos > 2 && lx->src[pos] == '+' && at(lx, pos + 1, close)) return pos + 3;
    if (!at(lx, pos, close)) return 0;
    pos += 2;
    return trims_newline && pos < lx->n && lx->src[pos] == '\n' ? pos + 1 : pos;
}

static enum oc_err lex_comment(struct lexer *lx) {
    for (size_t i = lx->pos; i < lx->n; i++) {
        size_t end = tag_end(lx, i, "#}", true);
        if (!end) continue;
        advance(lx, end);
        return OC_OK;
    }
    return fail_at(lx, OC_ERR_FORMAT, "a comment that starts here does not end (no #})");
}

static enum oc_err lex_raw(struct lexer *lx) {
    for (size_t i = lx->pos; i < lx->n; i++) {
        if (!at(lx, i, "{%")) continue;
        char sign = i + 2 < lx->n ? lx->src[i + 2] : 0;
        size_t p = skip_space(lx, i + 2 + (sign == '-' || sign == '+'));
        if (!at(lx, p, "endraw")) continue;
        size_t end = tag_end(lx, skip_space(lx, p + 6), "%}", true);
        if (!end) continue;
        OC_TRY(push_text(lx, lx->pos, text_end(lx, lx->pos, i, sign, false)));
        advance(lx, end);
        return OC_OK;
    }
    return fail_at(lx, OC_ERR_FORMAT, "a raw block that starts here does not end (no {% endraw %})");
}

static int hex_value(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* Up to `max` digits of a base at p; the count is exact for \x, \u and \U (need), else 1 or more. */
static size_t read_digits(const char *p, const char *end, int base, size_t max, uint32_t *v) {
    size_t k = 0;
    *v = 0;
    while (k < max && p + k < end && hex_value(p[k]) >= 0 && hex_value(p[k]) < base) {
        *v = *v * (uint32_t)base + (uint32_t)hex_value(p[k++]);
    }
    return k;
}

/* One escape at p (past the backslash) into out; returns the bytes read, 0 when it is malformed. */
static size_t unescape(const char *p, const char *end, char *out, size_t *n_out) {
    static const char plain[] = "\\\\''\"\"a\ab\bf\fn\nr\rt\tv\v";
    uint32_t cp;
    *n_out = 0;
    if (*p == '\n') return 1;
    for (const char *q = plain; *q; q += 2) {
        if (*q != *p) continue;
        out[(*n_out)++] = q[1];
        return 1;
    }
    size_t want = *p == 'x' ? 2 : *p == 'u' ? 4 : *p == 'U' ? 8 : 0;
    if (want) {
        if (read_digits(p + 1, end, 16, want, &cp) != want || cp > 0x10FFFF || (cp >= 0xD800 && cp <= 0xDFFF))
            return 0;
        *n_out = oc_utf8_encode(cp, out);
        return want + 1;
    }
    size_t k = read_digits(p, end, 8, 3, &cp);
    if (k) {
        *n_out = oc_utf8_encode(cp, out);
        return k;
    }
    if (*p == 'N') return 0;
    out[(*n_out)++] = '\\';
    out[(*n_out)++] = *p;
    return 1;
}

static enum oc_err lex_string(struct lexer *lx) {
    char quote = lx->src[lx->pos];
    size_t end = lx->pos + 1;
    while (end < lx->n && lx->src[end] != quote) end += lx->src[end] == '\\' ? 2 : 1;
    if (end >= lx->n) return fail_at(lx, OC_ERR_FORMAT, "a string that starts here does not end");
    struct jtoken *t = push(lx, T_STR);
    char *out = oc_arena_alloc(lx->a, 2 * (end - lx->pos) + 4);
    if (!t || !out) return fail_at(lx, OC_ERR_NOMEM, "the template is too large");
    size_t n = 0;
    for (const char *p = lx->src + lx->pos + 1, *stop = lx->src + end; p < stop;) {
        if (*p != '\\') {
            out[n++] = *p++;
            continue;
        }
        size_t made, took = unescape(p + 1, stop, out + n, &made);
        if (!took)
            return fail_at(lx, OC_ERR_UNSUPPORTED,
                           "a \\x, \\u, \\U or \\N escape that this build cannot read");
        p += took + 1;
        n += made;
    }
    t->s = (struct oc_str){out, n};
    advance(lx, end + 1);
    return OC_OK;
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static size_t digits_end(const struct lexer *lx, size_t pos) {
    while (pos < lx->n && (is_digit(lx->src[pos]) ||
                           (lx->src[pos] == '_' && pos + 1 < lx->n && is_digit(lx->src[pos + 1])))) {
        pos++;
    }
    return pos;
}

static enum oc_err lex_number(struct lexer *lx, bool after_dot) {
    size_t end = digits_end(lx, lx->pos);
    bool is_float = false;
    if (!after_dot && end + 1 < lx->n && lx->src[end] == '.' && is_digit(lx->src[end + 1])) {
        end = digits_end(lx, end + 1);
        is_float = true;
    }
    if (!after_dot && end < lx->n && (lx->src[end] | 32) == 'e') {
        size_t e = end + 1;
        if (e < lx->n && (lx->src[e] == '+' || lx->src[e] == '-')) e++;
        if (e < lx->n && is_digit(lx->src[e])) {
            end = digits_end(lx, e);
            is_float = true;
        }
    }
    char text[400];
    size_t n = 0;
    for (size_t i = lx->pos; i < end; i++) {
        if (lx->src[i] == '_') continue;
        if (n + 1 >= sizeof text) return fail_at(lx, OC_ERR_LIMIT, "a number with too many digits");
        text[n++] = lx->src[i];
    }
    text[n] = '\0';
    struct jtoken *t = push(lx, is_float ? T_FLOAT : T_INT);
    if (!t) return OC_ERR_NOMEM;
    t->s = (struct oc_str){lx->src + lx->pos, end - lx->pos};
    if (is_float) t->d = strtod(text, NULL);
    for (size_t i = 0; !is_float && i < n; i++) {
        if (__builtin_mul_overflow(t->i, 10, &t->i) || __builtin_add_overflow(t->i, text[i] - '0', &t->i)) {
            return fail_at(lx, OC_ERR_LIMIT, "an integer past 64 bits");
        }
    }
    if (!is_float && n > 1 && text[0] == '0' && t->i != 0)
        return fail_at(lx, OC_ERR_FORMAT, "an integer that starts with 0");
    advance(lx, end);
    return OC_OK;
}

static bool is_name_byte(char c) {
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           (unsigned char)c >= 0x80;
}

static enum oc_err lex_op(struct lexer *lx, char *stack, size_t *n_stack) {
    static const char *const ops[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
                                      "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};
    size_t k = 0;
    while (k < sizeof ops / sizeof *ops && !at(lx, lx->pos, ops[k])) k++;
    if (k == sizeof ops / sizeof *ops) {
        return oc_fail(lx->ei, OC_ERR_FORMAT, "chat template, line %d: unexpected character '%c'", lx->line,
                       (unsigned char)lx->src[lx->pos] < 0x20 ? '?' : lx->src[lx->pos]);
    }
    char c = ops[k][0];
    if (c == '(' || c == '[' || c == '{') {
        if (*n_stack == OC_LIMIT_TEMPLATE_DEPTH) return fail_at(lx, OC_ERR_LIMIT, "brackets nested too deep");
        stack[(*n_stack)++] = c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if (c == ')' || c == ']' || c == '}') {
        if (!*n_stack || stack[*n_stack - 1] != c)
            return fail_at(lx, OC_ERR_FORMAT, "a bracket that closes nothing");
        (*n_stack)--;
    }
    struct jtoken *t = push(lx, T_OP);
    if (!t) return OC_ERR_NOMEM;
    t->s = (struct oc_str){lx->src + lx->pos, strlen(ops[k])};
    advance(lx, lx->pos + t->s.n);
    return OC_OK;
}

/* The tokens of one {{ }} or {% %}, up to and with its end. */
static enum oc_err lex_inside(struct lexer *lx, bool is_block) {
    char stack[OC_LIMIT_TEMPLATE_DEPTH];
    size_t n_stack = 0;
    int first_line = lx->line;
    while (lx->pos < lx->n) {
        size_t end = n_stack ? 0 : tag_end(lx, lx->pos, is_block ? "%}" : "}}", is_block);
        if (end) {
            if (!push(lx, is_block ? T_BLOCK_END : T_VAR_END)) return OC_ERR_NOMEM;
            advance(lx, end);
            return OC_OK;
        }
        size_t p = skip_space(lx, lx->pos);
        char c = lx->src[lx->pos];
        if (p > lx->pos) {
            advance(lx, p);
        } else if (c == '"' || c == '\'') {
            OC_TRY(lex_string(lx));
        } else if (is_digit(c)) {
            OC_TRY(lex_number(lx, lx->src[lx->pos - 1] == '.'));
        } else if (is_name_byte(c)) {
            for (p = lx->pos; p < lx->n && is_name_byte(lx->src[p]) && skip_space(lx, p) == p;) p++;
            struct jtoken *t = push(lx, T_NAME);
            if (!t) return OC_ERR_NOMEM;
            t->s = (struct oc_str){lx->src + lx->pos, p - lx->pos};
            advance(lx, p);
        } else {
            OC_TRY(lex_op(lx, stack, &n_stack));
        }
    }
    lx->line = first_line;
    return fail_at(lx, OC_ERR_FORMAT,
                   is_block ? "a {% tag that starts here does not end (no %})"
                            : "a {{ expression that starts here does not end (no }})");
}

/* The text before the next tag, and the tag. */
static enum oc_err lex_root(struct lexer *lx) {
    size_t from = lx->pos, i = from;
    while (i < lx->n && !at(lx, i, "{%") && !at(lx, i, "{{") && !at(lx, i, "{#")) i++;
    if (i >= lx->n) {
        OC_TRY(push_text(lx, from, lx->n));
        advance(lx, lx->n);
        return OC_OK;
    }
    char kind = lx->src[i + 1], sign = i + 2 < lx->n ? lx->src[i + 2] : 0;
    size_t inside = i + 2 + (sign == '-' || sign == '+');
    OC_TRY(push_text(lx, from, text_end(lx, from, i, sign, kind == '{')));
    size_t raw = kind == '%' ? raw_begin(lx, inside) : 0;
    if (raw) {
        advance(lx, raw);
        return lex_raw(lx);
    }
    advance(lx, inside);
    lx->line_starting = false;
    if (kind == '#') return lex_comment(lx);
    if (!push(lx, kind == '%' ? T_BLOCK_BEGIN : T_VAR_BEGIN)) return OC_ERR_NOMEM;
    return lex_inside(lx, kind == '%');
}

/* Line ends become \n, and one at the very end is dropped, as jinja2 does. */
static bool normalise(struct lexer *lx, struct oc_str source) {
    char *p = oc_arena_alloc(lx->a, source.n + 1);
    if (!p) return false;
    size_t n = 0;
    for (size_t i = 0; i < source.n; i++) {
        if (source.p[i] == '\r' && i + 1 < source.n && source.p[i + 1] == '\n') continue;
        p[n++] = source.p[i] == '\r' ? '\n' : source.p[i];
    }
    if (n && p[n - 1] == '\n') n--;
    lx->src = p;
    lx->n = n;
    return true;
}

enum oc_err jinja_lex(struct oc_arena *a, struct oc_str source, struct jtoken **tokens, size_t *n_tokens,
                      struct oc_errinfo *ei) {
    struct lexer lx = {.a = a, .ei = ei, .line = 1, .line_starting = true};
    if (!oc_utf8_valid(source.p, source.n))
        return fail_at(&lx, OC_ERR_FORMAT, "the template is not valid UTF-8");
    if (!normalise(&lx, source)) return fail_at(&lx, OC_ERR_NOMEM, "the template is too large");
    while (lx.pos < lx.n) OC_TRY(lex_root(&lx));
    if (!push(&lx, T_EOF)) return OC_ERR_NOMEM;
    *tokens = lx.tokens;
    *n_tokens = lx.n_tokens;
    return OC_OK;
}
