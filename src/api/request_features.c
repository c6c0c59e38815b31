/* Fields that clients know and this server does not serve: a value that turns nothing on passes, another is
 * refused by name, because an answer that silently lacks it would be wrong. */
#include "api/request_impl.h"

enum {               /* values that turn nothing on, besides null */
       NO_EMPTY = 1, /* [], {}, "" */
       NO_FALSE = 2,
       NO_TRUE = 4,
       NO_ZERO = 8,
       NO_ONE = 16,
       NO_WORD = 32,  /* one of `words` */
       NO_TEXT = 64,  /* {} or {"type":"text"} */
       NO_WORDS = 128 /* an array of nothing but `words` */
};

struct feature {
    const char *name;
    int no;
    const char *words[2];
    const char *allowed; /* what the message offers instead; NULL: leaving it out */
};

static const struct feature features[] = {
    {"tools", NO_EMPTY, {0}, "[]"},
    {"functions", NO_EMPTY, {0}, "[]"},
    {"tool_choice", NO_WORD, {"none", "auto"}, "\"none\" or \"auto\""},
    {"function_call", NO_WORD, {"none", "auto"}, "\"none\" or \"auto\""},
    {"response_format", NO_TEXT, {0}, "{\"type\": \"text\"}"},
    {"modalities", NO_WORDS, {"text", 0}, "[\"text\"]"},
    {"audio", 0, {0}, NULL},
    {"prediction", 0, {0}, NULL},
    {"web_search_options", 0, {0}, NULL},
    {"reasoning_effort", NO_WORD, {"none", 0}, "\"none\""},
    {"suffix", NO_EMPTY, {0}, "\"\""},
    /* those of other servers */
    {"chat_template", 0, {0}, NULL},
    {"documents", NO_EMPTY, {0}, "[]"},
    {"continue_final_message", NO_FALSE, {0}, "false"},
    {"guided_json", 0, {0}, NULL},
    {"guided_regex", 0, {0}, NULL},
    {"guided_choice", 0, {0}, NULL},
    {"guided_grammar", 0, {0}, NULL},
    {"structured_outputs", 0, {0}, NULL},
    {"grammar", NO_EMPTY, {0}, "\"\""},
    {"json_schema", NO_EMPTY, {0}, NULL},
    {"stop_token_ids", NO_EMPTY, {0}, "[]"},
    {"bad_words", NO_EMPTY, {0}, "[]"},
    {"min_tokens", NO_ZERO, {0}, "0"},
    {"use_beam_search", NO_FALSE, {0}, "false"},
    {"include_stop_str_in_output", NO_FALSE, {0}, "false"},
    {"skip_special_tokens", NO_TRUE, {0}, "true"},
    {"prompt_logprobs", NO_FALSE, {0}, NULL},
    {"mirostat", NO_ZERO, {0}, "0"},
    {"typical_p", NO_ONE, {0}, "1"},
    {"dry_multiplier", NO_ZERO, {0}, "0"},
    {"xtc_probability", NO_ZERO, {0}, "0"},
};

static bool is_word(const struct feature *f, const struct oc_json *v) {
    for (size_t i = 0; i < 2 && f->words[i]; i++)
        if (v->type == OC_JSON_STR && oc_str_is(v->str, f->words[i])) return true;
    return false;
}

static bool are_words(const struct feature *f, const struct oc_json *v) {
    for (size_t i = 0; i < v->n_items; i++)
        if (!is_word(f, &v->items[i])) return false;
    return true;
}

static bool is_text_format(const struct oc_json *v) {
    const struct oc_json *type = oc_json_get(v, "type");
    return oc_json_is_null(type) ? v->n_members == 0
                                 : type->type == OC_JSON_STR && oc_str_is(type->str, "text");
}

/* True if v turns nothing on. */
static bool is_off(const struct feature *f, const struct oc_json *v) {
    switch (v->type) {
    case OC_JSON_NULL:
        return true;
    case OC_JSON_BOOL:
        return f->no & (v->b ? NO_TRUE : NO_FALSE);
    case OC_JSON_INT:
    case OC_JSON_DOUBLE:
        return (f->no & NO_ZERO && v->d == 0) || (f->no & NO_ONE && v->d == 1);
    case OC_JSON_STR:
        return (f->no & NO_EMPTY && v->str.n == 0) || (f->no & NO_WORD && is_word(f, v));
    case OC_JSON_ARR:
        return (f->no & NO_EMPTY && v->n_items == 0) || (f->no & NO_WORDS && are_words(f, v));
    case OC_JSON_OBJ:
        return (f->no & NO_EMPTY && v->n_members == 0) || (f->no & NO_TEXT && is_text_format(v));
    }
    return false;
}

static bool check(const struct oc_json *body, const struct feature *f, struct oc_api_error *e) {
    const struct oc_json *v = oc_json_get(body, f->name);
    if (!v || is_off(f, v)) return true;
    return oc_api_fail(e, OC_API_UNSUPPORTED, f->name, "'%s' is not supported here: leave it out%s%s",
                       f->name, f->allowed ? ", or send " : "", f->allowed ? f->allowed : "");
}

/* Choosing the best of more answers than are returned is not done; as many as are returned is no choice. */
static bool check_best_of(const struct oc_json *body, const struct oc_api_request *out,
                          struct oc_api_error *e) {
    int64_t best_of = out->n;
    if (out->is_chat) return true;
    if (!oc_api_value_int(oc_json_get(body, "best_of"), "best_of", 1, INT32_MAX, &best_of, e)) return false;
    if (best_of < out->n)
        return oc_api_fail(e, OC_API_BAD_REQUEST, "best_of", "'best_of' is less than 'n', which is %d",
                           out->n);
    if (best_of > out->n)
        return oc_api_fail(e, OC_API_UNSUPPORTED, "best_of",
                           "'best_of' over 'n' is not supported here: leave it out");
    return true;
}

/* The prompt's own log-probabilities are not computed. */
static bool check_echo(const struct oc_api_request *out, struct oc_api_error *e) {
    if (!out->echo || !out->logprobs) return true;
    return oc_api_fail(e, OC_API_UNSUPPORTED, "echo",
                       "'echo' together with 'logprobs' is not supported here");
}

bool oc_api_request_features(const struct oc_json *body, const struct oc_api_request *out,
                             struct oc_api_error *e) {
    for (size_t i = 0; i < sizeof features / sizeof *features; i++)
        if (!check(body, &features[i], e)) return false;
    return check_best_of(body, out, e) && check_echo(out, e);
}
