#include "chat/pretok.h"

#include <string.h>

#include "chat/pretok_regex.h"
#include "chat/pretok_scan.h"

#define MAX_NESTING 4

static const char gpt2_pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
static const char one_digit_pattern[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|"
    "\\s+(?!\\S)|\\s+";
static const char three_digits_pattern[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

static enum oc_err add_stage(struct oc_chat_pretok *pt, struct oc_chat_pretok_stage stage, struct oc_errinfo *ei) {
    if (pt->n_stages == OC_CHAT_PRETOK_STAGES) {
        oc_chat_regex_close(stage.regex);
        return oc_fail(ei, OC_ERR_LIMIT, "tokenizer: more than %d pre-tokenizer stages", OC_CHAT_PRETOK_STAGES);
    }
    pt->stage[pt->n_stages++] = stage;
    return OC_OK;
}

/* A Split's behaviour: which of matches and gaps stay. `invert` swaps the two. */
static enum oc_err read_behaviour(const struct oc_json *spec, struct oc_chat_pretok_stage *stage,
                                  struct oc_errinfo *ei) {
    struct oc_str behaviour = oc_json_str_or(oc_json_get(spec, "behavior"), OC_STR(""));
    bool invert = oc_json_bool_or(oc_json_get(spec, "invert"), false);
    stage->keep_match = stage->keep_gap = true;
    if (oc_str_is(behaviour, "Removed")) {
        stage->keep_match = invert;
        stage->keep_gap = !invert;
    } else if (!oc_str_is(behaviour, "Isolated")) {
        return oc_fail(ei, OC_ERR_UNSUPPORTED,
                       "tokenizer: Split behaviour '%.*s' is not supported; Isolated and Removed are",
                       (int)(behaviour.n < 64 ? behaviour.n : 64), behaviour.p);
    }
    return OC_OK;
}

static enum oc_err open_split(struct oc_chat_pretok *pt, const struct oc_json *spec, struct oc_errinfo *ei) {
    struct oc_chat_pretok_stage stage = {.scan = OC_SCAN_REGEX};
    OC_TRY(read_behaviour(spec, &stage, ei));
    const struct oc_json *pattern = oc_json_get(spec, "pattern");
    const struct oc_json *regex = oc_json_get(pattern, "Regex"), *plain = oc_json_get(pattern, "String");
    if (!regex && !plain)
        return oc_fail(ei, OC_ERR_FORMAT, "tokenizer: a Split without a Regex or String pattern");
    struct oc_str text = oc_json_str_or(regex ? regex : plain, OC_STR(""));
    if (regex && oc_str_is(text, gpt2_pattern)) stage.scan = OC_SCAN_GPT2;
    else if (regex && oc_str_is(text, one_digit_pattern)) stage.scan = OC_SCAN_ONE_DIGIT;
    else if (regex && oc_str_is(text, three_digits_pattern)) stage.scan = OC_SCAN_THREE_DIGITS;
    else OC_TRY(oc_chat_regex_open(text, !regex, &stage.regex, ei));
    return add_stage(pt, stage, ei);
}

static enum oc_err open_byte_level(struct oc_chat_pretok *pt, const struct oc_json *spec, struct oc_errinfo *ei) {
    if (oc_json_bool_or(oc_json_get(spec, "add_prefix_space"), true)) {
        if (pt->n_stages > 0)
            return oc_fail(ei, OC_ERR_UNSUPPORTED,
                           "tokenizer: add_prefix_space after another pre-tokenizer is not supported");
        pt->add_prefix_space = true;
    }
    pt->byte_level = true;
    if (!oc_json_bool_or(oc_json_get(spec, "use_regex"), true)) return OC_OK;
    return add_stage(pt, (struct oc_chat_pretok_stage){OC_SCAN_GPT2, true, true, NULL}, ei);
}

static enum oc_err open_spec(struct oc_chat_pretok *pt, const struct oc_json *spec, int depth, struct oc_errinfo *ei) {
    struct oc_str type = oc_json_str_or(oc_json_get(spec, "type"), OC_STR("(none)"));
    if (pt->byte_level)
        return oc_fail(ei, OC_ERR_UNSUPPORTED, "tokenizer: a pre-tokenizer after ByteLevel is not supported");
    if (oc_str_is(type, "ByteLevel")) return open_byte_level(pt, spec, ei);
    if (oc_str_is(type, "Split")) return open_split(pt, spec, ei);
    if (oc_str_is(type, "Digits")) {
        bool single = oc_json_bool_or(oc_json_get(spec, "individual_digits"), false);
        return add_stage(
            pt, (struct oc_chat_pretok_stage){single ? OC_SCAN_DIGIT : OC_SCAN_DIGITS, true, true, NULL}, ei);
    }
    if (!oc_str_is(type, "Sequence"))
        return oc_fail(ei, OC_ERR_UNSUPPORTED,
                       "tokenizer: pre-tokenizer '%.*s' is not supported; ByteLevel, Split, Digits and Sequence are",
                       (int)(type.n < 64 ? type.n : 64), type.p);
    const struct oc_json *list = oc_json_get(spec, "pretokenizers");
    if (!list || list->type != OC_JSON_ARR || depth == MAX_NESTING)
        return oc_fail(ei, OC_ERR_FORMAT, "tokenizer: a Sequence without a list, or nested too deep");
    for (size_t i = 0; i < list->n_items; i++) OC_TRY(open_spec(pt, &list->items[i], depth + 1, ei));
    return OC_OK;
}

enum oc_err oc_chat_pretok_open(const struct oc_json *spec, struct oc_chat_pretok *out, struct oc_errinfo *ei) {
    memset(out, 0, sizeof *out);
    enum oc_err err = OC_OK;
    if (oc_json_is_null(spec)) err = oc_fail(ei, OC_ERR_UNSUPPORTED, "tokenizer: no pre-tokenizer; ByteLevel is needed");
    else err = open_spec(out, spec, 0, ei);
    if (err == OC_OK && !out->byte_level)
        err = oc_fail(ei, OC_ERR_UNSUPPORTED, "tokenizer: the pre-tokenizer does not end in ByteLevel, so this is not "
                                              "a byte-level BPE, the only kind supported");
    if (err != OC_OK) oc_chat_pretok_close(out);
    return err;
}

void oc_chat_pretok_close(struct oc_chat_pretok *pt) {
    for (int i = 0; i < pt->n_stages; i++) oc_chat_regex_close(pt->stage[i].regex);
    memset(pt, 0, sizeof *pt);
}

struct run {
    const struct oc_chat_pretok *pt;
    struct oc_chat_pretok_scratch *scratch;
    oc_chat_pretok_fn *fn;
    void *arg;
    struct oc_errinfo *ei;
};

/* The next match of a stage in s from byte `from`; *start == s.n when there is none. */
static enum oc_err next_match(struct run *r, const struct oc_chat_pretok_stage *stage, struct oc_str s, size_t from,
                              size_t *start, size_t *stop) {
    const char *p = s.p + from, *end = s.p + s.n;
    size_t len = 0;
    bool found = true;
    *start = from;
    switch (stage->scan) {
    case OC_SCAN_GPT2: len = oc_chat_scan_gpt2(p, end); break;
    case OC_SCAN_ONE_DIGIT: len = oc_chat_scan_caseless(p, end, 1); break;
    case OC_SCAN_THREE_DIGITS: len = oc_chat_scan_caseless(p, end, 3); break;
    case OC_SCAN_DIGIT:
    case OC_SCAN_DIGITS:
        for (; p < end; p++) {
            bool lead = ((unsigned char)*p & 0xC0) != 0x80;
            if (lead && (len = oc_chat_scan_digits(p, end, stage->scan == OC_SCAN_DIGIT)) > 0) break;
        }
        *start = (size_t)(p - s.p);
        break;
    case OC_SCAN_REGEX:
        OC_TRY(oc_chat_regex_find(stage->regex, r->scratch, s, from, &found, start, stop, r->ei));
        if (!found) *start = *stop = s.n;
        return OC_OK;
    }
    *stop = *start + len;
    return OC_OK;
}

static enum oc_err run_stage(struct run *r, int i_stage, struct oc_str s) {
    if (s.n == 0) return OC_OK;
    if (i_stage == r->pt->n_stages) return r->fn(r->arg, s);
    const struct oc_chat_pretok_stage *stage = &r->pt->stage[i_stage];
    for (size_t at = 0; at < s.n;) {
        size_t start, stop;
        OC_TRY(next_match(r, stage, s, at, &start, &stop));
        if (stage->keep_gap) OC_TRY(run_stage(r, i_stage + 1, (struct oc_str){s.p + at, start - at}));
        if (stage->keep_match) OC_TRY(run_stage(r, i_stage + 1, (struct oc_str){s.p + start, stop - start}));
        at = stop;
    }
    return OC_OK;
}

enum oc_err oc_chat_pretok_run(const struct oc_chat_pretok *pt, struct oc_chat_pretok_scratch *scratch,
                               struct oc_str text, oc_chat_pretok_fn *fn, void *arg, struct oc_errinfo *ei) {
    struct run r = {pt, scratch, fn, arg, ei};
    return run_stage(&r, 0, text);
}
