/* The fields of a request that are one value each, and those made of a few: stop, logit_bias, logprobs. */
#include <math.h>
#include <stdio.h>

#include "api/request_impl.h"

/* ---- One value each ------------------------------------------------------------------------------------ */

enum kind { NUMBER, BOOL, TEXT };
enum { CHAT = 1, COMPLETIONS = 2, BOTH = 3 };

struct field {
    const char *name;
    enum kind kind;
    int on;
    size_t at;
    double min, max;
};

#define AT(field) offsetof(struct oc_api_request, field)
static const struct field fields[] = {
    {"model", TEXT, BOTH, AT(model), 0, 0},
    {"temperature", NUMBER, BOTH, AT(temperature), 0, 2},
    {"top_p", NUMBER, BOTH, AT(top_p), 0, 1},
    {"min_p", NUMBER, BOTH, AT(min_p), 0, 1},
    {"repetition_penalty", NUMBER, BOTH, AT(repetition_penalty), 0.1, 5},
    {"presence_penalty", NUMBER, BOTH, AT(presence_penalty), -2, 2},
    {"frequency_penalty", NUMBER, BOTH, AT(frequency_penalty), -2, 2},
    {"stream", BOOL, BOTH, AT(stream), 0, 0},
    {"ignore_eos", BOOL, BOTH, AT(ignore_eos), 0, 0},
    {"echo", BOOL, COMPLETIONS, AT(echo), 0, 0},
    {"add_generation_prompt", BOOL, CHAT, AT(add_generation_prompt), 0, 0},
    {"user", TEXT, BOTH, AT(user), 0, 0},
};

static bool read_field(const struct oc_json *v, const struct field *f, struct oc_api_request *out,
                       struct oc_api_error *e) {
    void *to = (char *)out + f->at;
    struct oc_api_number *number = to;
    if (oc_json_is_null(v)) return true;
    if (f->kind == BOOL) return oc_api_value_bool(v, f->name, to, e);
    if (f->kind == TEXT) return oc_api_value_text(v, f->name, to, e);
    number->given = true;
    return oc_api_value_number(v, f->name, f->min, f->max, &number->value, e);
}

/* ---- Those with rules of their own --------------------------------------------------------------------- */

#define TOP_P_LEAST 1e-9 /* what 0 stands for: the likeliest token alone */

static bool read_top_p(struct oc_arena *a, const struct oc_json *body, struct oc_api_request *out,
                       struct oc_api_error *e) {
    (void)a, (void)body, (void)e;
    if (out->top_p.given && out->top_p.value < TOP_P_LEAST) out->top_p.value = TOP_P_LEAST;
    return true;
}

/* -1 is off, as in vLLM; so is 0. */
static bool read_top_k(struct oc_arena *a, const struct oc_json *body, struct oc_api_request *out,
                       struct oc_api_error *e) {
    (void)a;
    const struct oc_json *v = oc_json_get(body, "top_k");
    int64_t k = 0;
    if (oc_json_is_null(v)) return true;
    if (!oc_api_value_int(v, "top_k", -1, INT32_MAX, &k, e)) return false;
    out->top_k = (struct oc_api_number){true, k > 0 ? (double)k : 0};
    return true;
}

/* max_completion_tokens is the newer name and wins. */
static bool read_max_tokens(struct oc_arena *a, const struct oc_json *body, struct oc_api_request *out,
                            struct oc_api_error *e) {
    (void)a;
    static const char *const names[] = {"max_tokens", "max_completion_tokens"};
    for (size_t i = 0; i < 2; i++)
        if (!oc_api_value_int(oc_json_get(body, names[i]), names[i], 1, INT32_MAX, &out->max_tokens, e))
            return false;
    return true;
}

static bool read_n(struct oc_arena *a, const struct oc_json *body, struct oc_api_request *out,
                   struct oc_api_error *e) {
    (void)a;
    int64_t n = 1;
    if (!oc_api_value_int(oc_json_get(body, "n"), "n", 1, OC_LIMIT_API_CHOICES, &n, e)) return false;
    out->n = (int)n;
    return true;
}

/* The number modulo 2^64, so that every integer is a seed and small negative ones are two's complement. */
static uint64_t wrap(struct oc_str digits) {
    uint64_t v = 0;
    bool negative = digits.n && digits.p[0] == '-';
    for (size_t i = negative; i < digits.n; i++) v = v * 10 + (uint64_t)(digits.p[i] - '0');
    return negative ? 0 - v : v;
}

static bool read_seed(struct oc_arena *a, const struct oc_json *body, struct oc_api_request *out,
                      struct oc_api_error *e) {
    (void)a;
    const struct oc_json *v = oc_json_get(body, "seed");
    if (oc_json_is_null(v)) return true;
    bool is_int = v->type == OC_JSON_INT;
    int64_t i = 0;
    if (!is_int && !oc_api_value_int(v, "seed", -(INT64_C(1) << 53), INT64_C(1) << 53, &i, e)) return false;
    out->has_seed = true;
    out->seed = is_int ? wrap(v->num) : (uint64_t)i;
    return true;
}

static bool add_stop(const struct oc_json *v, const char *param, struct oc_api_request *out,
                     struct oc_api_error *e) {
    if (v->type != OC_JSON_STR) return oc_api_value_refuse(v, param, "a string", e);
    if (v->str.n == 0) return oc_api_fail(e, OC_API_BAD_REQUEST, param, "'%s' is an empty string", param);
    if (v->str.n > OC_LIMIT_STOP_BYTES)
        return oc_api_fail(e, OC_API_BAD_REQUEST, param, "'%s' has %zu bytes, but a stop string may have %d",
                           param, v->str.n, OC_LIMIT_STOP_BYTES);
    out->stop[out->n_stop++] = v->str;
    return true;
}

static bool read_stop(struct oc_arena *a, const struct oc_json *body, struct oc_api_request *out,
                      struct oc_api_error *e) {
    (void)a;
    const struct oc_json *v = oc_json_get(body, "stop");
    char name[32];
    if (oc_json_is_null(v)) return true;
    if (v->type == OC_JSON_STR) return add_stop(v, "stop", out, e);
    if (v->type != OC_JSON_ARR) return oc_api_value_refuse(v, "stop", "a string or an array of strings", e);
    if (v->n_items > OC_LIMIT_STOP_STRINGS)
        return oc_api_fail(e, OC_API_BAD_REQUEST, "stop", "'stop' has %zu strings, but may have at most %d",
                           v->n_items, OC_LIMIT_STOP_STRINGS);
    for (size_t i = 0; i < v->n_items; i++) {
        snprintf(name, sizeof name, "stop[%zu]", i);
        if (!add_stop(&v->items[i], name, out, e)) return false;
    }
    return true;
}

/* A token id as a key: decimal digits without sign, space or leading zero; -1 for others. */
static int32_t token_of_key(struct oc_str key) {
    int32_t id = 0;
    if (key.n == 0 || key.n > 7 || (key.p[0] == '0' && key.n > 1)) return -1;
    for (size_t i = 0; i < key.n; i++) {
        if (key.p[i] < '0' || key.p[i] > '9') return -1;
        id = id * 10 + (key.p[i] - '0');
    }
    return id < OC_LIMIT_VOCAB ? id : -1;
}

static bool read_bias(const struct oc_json_member *m, struct oc_api_bias *out, struct oc_api_error *e) {
    char name[32];
    double bias = 0;
    out->token = token_of_key(m->key);
    if (out->token < 0)
        return oc_api_fail(e, OC_API_BAD_REQUEST, "logit_bias",
                           "'logit_bias' has the key '%.*s', which is no token id",
                           (int)(m->key.n < 40 ? m->key.n : 40), m->key.p);
    snprintf(name, sizeof name, "logit_bias.%d", out->token);
    if (!oc_api_value_number(&m->value, name, -100, 100, &bias, e)) return false;
    out->bias = (float)bias;
    return true;
}

static bool read_logit_bias(struct oc_arena *a, const struct oc_json *body, struct oc_api_request *out,
                            struct oc_api_error *e) {
    const struct oc_json *v = oc_json_get(body, "logit_bias");
    if (oc_json_is_null(v)) return true;
    if (v->type != OC_JSON_OBJ) return oc_api_value_refuse(v, "logit_bias", "an object of token ids", e);
    if (v->n_members > OC_LIMIT_API_BIASES)
        return oc_api_fail(e, OC_API_BAD_REQUEST, "logit_bias",
                           "'logit_bias' has %zu tokens, but may have at most %d", v->n_members,
                           OC_LIMIT_API_BIASES);
    struct oc_api_bias *biases = oc_arena_array(a, v->n_members, sizeof *biases);
    if (!biases) return oc_api_value_no_memory(e);
    for (size_t i = 0; i < v->n_members; i++)
        if (!read_bias(&v->members[i], &biases[i], e)) return false;
    out->biases = biases;
    out->n_biases = v->n_members;
    return true;
}

/* Chat: logprobs says whether, top_logprobs how many alternatives. Completions: logprobs is that number
 * itself. */
static bool read_logprobs(struct oc_arena *a, const struct oc_json *body, struct oc_api_request *out,
                          struct oc_api_error *e) {
    (void)a;
    const struct oc_json *v = oc_json_get(body, "logprobs");
    const char *count = out->is_chat ? "top_logprobs" : "logprobs";
    int64_t n = 0;
    if (out->is_chat) {
        if (!oc_api_value_bool(v, "logprobs", &out->logprobs, e)) return false;
        v = oc_json_get(body, "top_logprobs");
    } else if (oc_json_is_null(v) || (v->type == OC_JSON_BOOL && !v->b)) {
        return true;
    } else {
        out->logprobs = true;
    }
    if (!oc_api_value_int(v, count, 0, OC_LIMIT_TOP_LOGPROBS, &n, e)) return false;
    if (n > 0 && !out->logprobs)
        return oc_api_fail(e, OC_API_BAD_REQUEST, count, "'top_logprobs' needs 'logprobs' to be true");
    out->top_logprobs = (int)n;
    return true;
}

static bool read_stream_options(struct oc_arena *a, const struct oc_json *body, struct oc_api_request *out,
                                struct oc_api_error *e) {
    (void)a;
    const struct oc_json *v = oc_json_get(body, "stream_options");
    if (oc_json_is_null(v)) return true;
    if (v->type != OC_JSON_OBJ) return oc_api_value_refuse(v, "stream_options", "an object", e);
    return oc_api_value_bool(oc_json_get(v, "include_usage"), "stream_options.include_usage",
                             &out->include_usage, e);
}

/* Variables for the chat template; those that stand for the conversation itself are not the client's to set.
 */
static bool read_template_kwargs(struct oc_arena *a, const struct oc_json *body, struct oc_api_request *out,
                                 struct oc_api_error *e) {
    (void)a;
    static const char *const ours[] = {"messages", "tools", "documents"};
    const struct oc_json *v = oc_json_get(body, "chat_template_kwargs");
    if (!out->is_chat || oc_json_is_null(v)) return true;
    if (v->type != OC_JSON_OBJ) return oc_api_value_refuse(v, "chat_template_kwargs", "an object", e);
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        if (oc_json_get(v, ours[i]))
            return oc_api_fail(e, OC_API_UNSUPPORTED, "chat_template_kwargs",
                               "'chat_template_kwargs' may not set '%s'", ours[i]);
    out->chat_template_kwargs = v;
    return true;
}

typedef bool read_fn(struct oc_arena *a, const struct oc_json *body, struct oc_api_request *out,
                     struct oc_api_error *e);
static read_fn *const readers[] = {
    read_top_p,    read_top_k,          read_max_tokens,      read_n, read_seed, read_stop, read_logit_bias,
    read_logprobs, read_stream_options, read_template_kwargs,
};

bool oc_api_request_fields(struct oc_arena *a, const struct oc_json *body, struct oc_api_request *out,
                           struct oc_api_error *e) {
    int on = out->is_chat ? CHAT : COMPLETIONS;
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (fields[i].on & on && !read_field(oc_json_get(body, fields[i].name), &fields[i], out, e))
            return false;
    for (size_t i = 0; i < sizeof readers / sizeof *readers; i++)
        if (!readers[i](a, body, out, e)) return false;
    return true;
}
