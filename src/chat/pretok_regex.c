#define PCRE2_CODE_UNIT_WIDTH 8
#include "chat/pretok_regex.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "chat/unicode.h"

#define N_CODE_POINTS 0x110000u
#define MAX_GROUPS 64
#define MAX_CLASSES 128 /* each takes a walk over all of Unicode */
#define MATCH_LIMIT 1000000
#define JIT_STACK_BYTES (512 * 1024)

struct oc_chat_regex {
    pcre2_code *code;
    bool jit;
};

/* A set of code points, while a class is read. */
struct charset {
    uint8_t bits[N_CODE_POINTS / 8];
};

struct rewriter {
    const char *p, *end;
    struct oc_buf *out;
    struct charset *set, *item;
    bool caseless[MAX_GROUPS]; /* (?i: of each open group */
    int depth, n_classes;
    struct oc_errinfo *ei;
};

static enum oc_err refuse(struct rewriter *rw, const char *what) {
    return oc_fail(rw->ei, OC_ERR_UNSUPPORTED, "tokenizer: the pre-tokenizer pattern uses %s, which is not supported",
                   what);
}

static void set_add(struct charset *s, uint32_t lo, uint32_t hi) {
    for (uint32_t c = lo; c <= hi && c < N_CODE_POINTS; c++) s->bits[c >> 3] |= (uint8_t)(1u << (c & 7));
}

static bool set_has(const struct charset *s, uint32_t c) {
    return s->bits[c >> 3] >> (c & 7) & 1;
}

static void set_join(struct charset *to, const struct charset *from, bool negated) {
    for (size_t i = 0; i < sizeof to->bits; i++) to->bits[i] |= negated ? (uint8_t)~from->bits[i] : from->bits[i];
}

/* Bits of the code points of one table block. */
static void block_bits(const uint8_t *prop, uint32_t categories, uint8_t flag, uint8_t bits[32]) {
    memset(bits, 0, 32);
    for (unsigned k = 0; k < 256; k++)
        if ((prop[k] & flag) || (categories >> (prop[k] & OC_PROP_CATEGORY) & 1)) bits[k >> 3] |= (uint8_t)(1u << (k & 7));
}

/* Most of Unicode's 4352 blocks share a few tables: each is worked out once. */
static void set_add_props(struct charset *s, uint32_t categories, uint8_t flag) {
    uint8_t bits[256][32];
    bool known[256] = {false};
    for (unsigned i = 0; i < N_CODE_POINTS / 256; i++) {
        unsigned block = oc_chat_category_index[i];
        if (!known[block]) block_bits(oc_chat_category_block[block], categories, flag, bits[block]);
        known[block] = true;
        for (unsigned k = 0; k < 32; k++) s->bits[32 * i + k] |= bits[block][k];
    }
}

/* Category bits of a name such as "L", "Lu", "Letter"; 0 when unknown. */
static uint32_t categories_of(struct oc_str name) {
    static const char two[] = "CnCcCfCoCsLlLmLoLtLuMcMeMnNdNlNoPcPdPePfPiPoPsScSkSmSoZlZpZs";
    static const struct {
        const char *name;
        char major;
    } longs[] = {{"Letter", 'L'}, {"Mark", 'M'}, {"Number", 'N'}, {"Punctuation", 'P'}, {"Symbol", 'S'},
                 {"Separator", 'Z'}, {"Other", 'C'}};
    uint32_t bits = 0;
    char major = name.n == 1 ? name.p[0] : 0;
    for (size_t i = 0; i < sizeof longs / sizeof *longs; i++)
        if (oc_str_is(name, longs[i].name)) major = longs[i].major;
    for (int i = 0; i < OC_CAT_COUNT; i++)
        if (two[2 * i] == major || (name.n == 2 && memcmp(two + 2 * i, name.p, 2) == 0)) bits |= 1u << i;
    return bits;
}

static uint32_t take_cp(struct rewriter *rw) {
    uint32_t cp;
    rw->p += oc_chat_unicode_next(rw->p, &cp);
    return cp;
}

static bool looking_at(const struct rewriter *rw, const char *lit) {
    return oc_str_starts((struct oc_str){rw->p, (size_t)(rw->end - rw->p)}, oc_str_from(lit));
}

/* \p{Name}, \P{Name}, \p{^Name} past the p: adds to the item set. */
static enum oc_err take_property(struct rewriter *rw, bool negated) {
    const char *close = rw->p < rw->end && *rw->p == '{' ? memchr(rw->p, '}', (size_t)(rw->end - rw->p)) : NULL;
    if (!close) return refuse(rw, "\\p without braces");
    struct oc_str name = {rw->p + 1, (size_t)(close - rw->p - 1)};
    if (name.n && name.p[0] == '^') {
        negated = !negated;
        name.p++, name.n--;
    }
    uint32_t cats = categories_of(name);
    if (!cats)
        return oc_fail(rw->ei, OC_ERR_UNSUPPORTED,
                       "tokenizer: the pre-tokenizer pattern uses \\p{%.*s}; only general categories are supported",
                       (int)(name.n < 40 ? name.n : 40), name.p);
    bool cased = (cats & (1u << OC_CAT_LU | 1u << OC_CAT_LL | 1u << OC_CAT_LT)) && !(cats & 1u << OC_CAT_LO);
    if (cased && rw->caseless[rw->depth]) return refuse(rw, "\\p{Lu}, \\p{Ll} or \\p{Lt} where case is ignored");
    memset(rw->item, 0, sizeof *rw->item);
    set_add_props(rw->item, cats, 0);
    set_join(rw->set, rw->item, negated);
    rw->p = close + 1;
    return OC_OK;
}

/* An escape past its backslash. A class joins the set (*cp = UINT32_MAX); a literal comes back in *cp. */
static enum oc_err take_escape(struct rewriter *rw, uint32_t *cp) {
    static const char from[] = "nrtfvae", to[] = "\n\r\t\f\v\a\x1b";
    if (rw->p == rw->end) return refuse(rw, "a backslash at its end");
    if (strchr("pPsSdD", *rw->p) && ++rw->n_classes > MAX_CLASSES) return refuse(rw, "over 128 character classes");
    uint32_t c = take_cp(rw);
    *cp = UINT32_MAX;
    if (c == 'p' || c == 'P') return take_property(rw, c == 'P');
    memset(rw->item, 0, sizeof *rw->item);
    if (c == 's' || c == 'S') set_add_props(rw->item, 0, OC_PROP_SPACE);
    else if (c == 'd' || c == 'D') set_add_props(rw->item, 1u << OC_CAT_ND, 0);
    else if (c < 0x80 && c && strchr(from, (int)c)) return *cp = (uint32_t)to[strchr(from, (int)c) - from], OC_OK;
    else if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
        return refuse(rw, "an escape other than \\s \\S \\d \\D \\p \\P \\n \\r \\t \\f \\v \\a \\e");
    else return *cp = c, OC_OK;
    set_join(rw->set, rw->item, c == 'S' || c == 'D');
    return OC_OK;
}

/* The first code point from c on that is in the set, or not in it, or is the first surrogate or the end. */
static uint32_t set_scan(const struct charset *s, uint32_t c, bool in) {
    uint8_t whole = in ? 0 : 0xFF; /* a byte that holds nothing of what is sought */
    while (c < N_CODE_POINTS && c != 0xD800 && set_has(s, c) != in)
        c += c % 8 == 0 && s->bits[c >> 3] == whole ? 8 : 1;
    return c;
}

/* Writes the set as a PCRE2 class of ranges; surrogates are left out, PCRE2 does not take them. */
static void emit_set(struct rewriter *rw, bool negated) {
    oc_buf_add_str(rw->out, negated ? "[^" : "[");
    for (uint32_t c = 0; c < N_CODE_POINTS;) {
        if (c == 0xD800) c = 0xE000;
        uint32_t from = set_scan(rw->set, c, true);
        c = from;
        if (from == 0xD800 || from == N_CODE_POINTS) continue;
        c = set_scan(rw->set, from, false);
        oc_buf_printf(rw->out, c - 1 > from ? "\\x{%x}-\\x{%x}" : "\\x{%x}", from, c - 1);
    }
    oc_buf_add_char(rw->out, ']');
}

static bool set_is_empty(const struct charset *s) {
    for (size_t i = 0; i < sizeof s->bits; i++)
        if (s->bits[i]) return false;
    return true;
}

static enum oc_err take_class(struct rewriter *rw) {
    if (++rw->n_classes > MAX_CLASSES) return refuse(rw, "over 128 character classes");
    memset(rw->set, 0, sizeof *rw->set);
    bool negated = rw->p < rw->end && *rw->p == '^';
    if (negated) rw->p++;
    if (rw->p < rw->end && *rw->p == ']') return refuse(rw, "a class that begins with ']'");
    while (rw->p < rw->end && *rw->p != ']') {
        if (*rw->p == '[') return refuse(rw, "a class inside a class");
        if (looking_at(rw, "&&")) return refuse(rw, "an intersection of classes (&&)");
        uint32_t lo = take_cp(rw), hi;
        if (lo == '\\') OC_TRY(take_escape(rw, &lo));
        if (lo == UINT32_MAX) {
            if (rw->p + 1 < rw->end && rw->p[0] == '-' && rw->p[1] != ']')
                return refuse(rw, "a range that begins with a class");
            continue;
        }
        hi = lo;
        if (rw->p + 1 < rw->end && rw->p[0] == '-' && rw->p[1] != ']') {
            rw->p++;
            if (*rw->p == '[') return refuse(rw, "a class inside a class");
            hi = take_cp(rw);
            if (hi == '\\') OC_TRY(take_escape(rw, &hi));
            if (hi == UINT32_MAX || hi < lo) return refuse(rw, "a range out of order");
        }
        set_add(rw->set, lo, hi);
    }
    if (rw->p == rw->end) return refuse(rw, "an unclosed class");
    rw->p++;
    if (set_is_empty(rw->set)) return refuse(rw, "an empty class");
    emit_set(rw, negated);
    return OC_OK;
}

static enum oc_err take_group(struct rewriter *rw) {
    static const char *const heads[] = {"?:", "?i:", "?=", "?!", "?<=", "?<!", "?>"};
    bool caseless = rw->caseless[rw->depth];
    if (rw->depth + 1 == MAX_GROUPS) return refuse(rw, "groups nested too deep");
    const char *head = "";
    if (looking_at(rw, "?")) {
        size_t i = 0, n = sizeof heads / sizeof *heads;
        while (i < n && !looking_at(rw, heads[i])) i++;
        if (i == n) return refuse(rw, "a group other than (?: (?i: (?= (?! (?<= (?<! (?>");
        head = heads[i];
        if (i == 1) caseless = true;
        rw->p += strlen(head);
    } else if (looking_at(rw, "*")) {
        return refuse(rw, "a verb");
    }
    rw->caseless[++rw->depth] = caseless;
    oc_buf_add_char(rw->out, '(');
    oc_buf_add_str(rw->out, head);
    return OC_OK;
}

/* {n}, {n,}, {n,m} past the brace. */
static enum oc_err take_count(struct rewriter *rw) {
    const char *close = memchr(rw->p, '}', (size_t)(rw->end - rw->p));
    const char *q = rw->p;
    if (!close || *q < '0' || *q > '9') return refuse(rw, "a brace that is not a repeat count");
    int n_commas = 0;
    for (; q < close; q++) {
        if (*q == ',') n_commas++;
        else if (*q < '0' || *q > '9') n_commas = 2;
    }
    if (n_commas > 1) return refuse(rw, "a brace that is not a repeat count");
    oc_buf_add_char(rw->out, '{');
    oc_buf_add(rw->out, rw->p, (size_t)(close + 1 - rw->p));
    rw->p = close + 1;
    if (rw->p < rw->end && (*rw->p == '+' || *rw->p == '?')) return refuse(rw, "{n,m}+ or {n,m}?");
    return OC_OK;
}

static enum oc_err take_one(struct rewriter *rw) {
    uint32_t cp = take_cp(rw);
    switch (cp) {
    case '[': return take_class(rw);
    case '(': return take_group(rw);
    case '{': return take_count(rw);
    case ')':
        if (rw->depth == 0) return refuse(rw, "an unmatched parenthesis");
        rw->depth--;
        oc_buf_add_char(rw->out, ')');
        return OC_OK;
    case '^':
    case '$': return refuse(rw, "^ or $");
    case '.': return oc_buf_add_str(rw->out, "[^\\n]"), OC_OK;
    case '|': case '*': case '+': case '?': return oc_buf_add_char(rw->out, (char)cp), OC_OK;
    case '\\':
        memset(rw->set, 0, sizeof *rw->set);
        OC_TRY(take_escape(rw, &cp));
        if (cp == UINT32_MAX) return emit_set(rw, false), OC_OK;
        break;
    default: break;
    }
    oc_buf_printf(rw->out, "\\x{%x}", cp);
    return OC_OK;
}

enum oc_err oc_chat_regex_rewrite(struct oc_str pattern, struct oc_buf *out, struct oc_errinfo *ei) {
    struct rewriter rw = {.p = pattern.p, .end = pattern.p + pattern.n, .out = out, .ei = ei};
    enum oc_err err = OC_OK;
    if (pattern.n > 4096) return refuse(&rw, "more than 4096 bytes");
    if (!oc_utf8_valid(pattern.p, pattern.n)) return refuse(&rw, "ill-formed UTF-8");
    rw.set = malloc(sizeof *rw.set);
    rw.item = malloc(sizeof *rw.item);
    if (!rw.set || !rw.item) err = oc_fail(ei, OC_ERR_NOMEM, "tokenizer: out of memory for a pattern");
    while (err == OC_OK && rw.p < rw.end) err = take_one(&rw);
    if (err == OC_OK && out->failed) err = oc_fail(ei, OC_ERR_LIMIT, "tokenizer: pre-tokenizer pattern too large");
    free(rw.set);
    free(rw.item);
    return err;
}

static enum oc_err compile(struct oc_str pattern, bool literal, struct oc_chat_regex *re, struct oc_errinfo *ei) {
    int code = 0;
    PCRE2_SIZE at = 0;
    uint32_t flags = PCRE2_UTF | PCRE2_NO_UTF_CHECK | (literal ? PCRE2_LITERAL : PCRE2_NEVER_BACKSLASH_C);
    re->code = pcre2_compile((PCRE2_SPTR)pattern.p, pattern.n, flags, &code, &at, NULL);
    if (!re->code) {
        char why[128];
        pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
        return oc_fail(ei, OC_ERR_UNSUPPORTED, "tokenizer: the pre-tokenizer pattern cannot be compiled: %s", why);
    }
    uint32_t match_empty = 1;
    pcre2_pattern_info(re->code, PCRE2_INFO_MATCHEMPTY, &match_empty);
    if (match_empty)
        return oc_fail(ei, OC_ERR_UNSUPPORTED, "tokenizer: the pre-tokenizer pattern can match nothing, which is not "
                                               "supported");
    re->jit = pcre2_jit_compile(re->code, PCRE2_JIT_COMPLETE) == 0;
    return OC_OK;
}

enum oc_err oc_chat_regex_open(struct oc_str pattern, bool literal, struct oc_chat_regex **out, struct oc_errinfo *ei) {
    struct oc_buf text;
    oc_buf_init(&text, OC_MIB);
    *out = NULL;
    struct oc_chat_regex *re = calloc(1, sizeof *re);
    enum oc_err err = OC_OK;
    if (!re) err = oc_fail(ei, OC_ERR_NOMEM, "tokenizer: out of memory for a pattern");
    else if (literal && !oc_utf8_valid(pattern.p, pattern.n))
        err = oc_fail(ei, OC_ERR_FORMAT, "tokenizer: a pre-tokenizer pattern that is not UTF-8");
    else if (!literal) err = oc_chat_regex_rewrite(pattern, &text, ei);
    if (err == OC_OK) err = compile(literal ? pattern : (struct oc_str){oc_buf_str(&text), text.n_bytes}, literal, re, ei);
    oc_buf_free(&text);
    if (err != OC_OK) {
        oc_chat_regex_close(re);
        return err;
    }
    *out = re;
    return OC_OK;
}

void oc_chat_regex_close(struct oc_chat_regex *re) {
    if (!re) return;
    pcre2_code_free(re->code);
    free(re);
}

static enum oc_err prepare(struct oc_chat_pretok_scratch *s, struct oc_errinfo *ei) {
    if (s->match_data && s->match_context) return OC_OK;
    if (!s->match_data) s->match_data = pcre2_match_data_create(1, NULL);
    if (!s->match_context) s->match_context = pcre2_match_context_create(NULL);
    if (!s->jit_stack) s->jit_stack = pcre2_jit_stack_create(32 * 1024, JIT_STACK_BYTES, NULL);
    if (!s->match_data || !s->match_context || !s->jit_stack)
        return oc_fail(ei, OC_ERR_NOMEM, "tokenizer: out of memory for a pattern");
    pcre2_set_match_limit(s->match_context, MATCH_LIMIT);
    pcre2_jit_stack_assign(s->match_context, NULL, s->jit_stack);
    return OC_OK;
}

enum oc_err oc_chat_regex_find(const struct oc_chat_regex *re, struct oc_chat_pretok_scratch *scratch,
                               struct oc_str text, size_t from, bool *found, size_t *start, size_t *stop,
                               struct oc_errinfo *ei) {
    OC_TRY(prepare(scratch, ei));
    int rc = pcre2_match(re->code, (PCRE2_SPTR)text.p, text.n, from, PCRE2_NO_UTF_CHECK, scratch->match_data,
                         scratch->match_context);
    *found = rc >= 0;
    if (rc == PCRE2_ERROR_NOMATCH) return OC_OK;
    if (rc < 0)
        return oc_fail(ei, OC_ERR_LIMIT, "tokenizer: the pre-tokenizer pattern needs too many steps on this text "
                                         "(PCRE2 error %d)", rc);
    const PCRE2_SIZE *span = pcre2_get_ovector_pointer(scratch->match_data);
    *start = span[0];
    *stop = span[1];
    if (*stop <= *start || *start < from)
        return oc_fail(ei, OC_ERR_UNSUPPORTED, "tokenizer: the pre-tokenizer pattern matched nothing");
    return OC_OK;
}

void oc_chat_pretok_scratch_free(struct oc_chat_pretok_scratch *s) {
    pcre2_match_data_free(s->match_data);
    pcre2_match_context_free(s->match_context);
    if (s->jit_stack) pcre2_jit_stack_free(s->jit_stack);
    memset(s, 0, sizeof *s);
}
