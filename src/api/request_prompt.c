/* `prompt` of a completion: text or token ids, alone or as the only item of a list. */
#include "api/request_impl.h"

static bool read_text(struct oc_str s, const char *param, struct oc_api_request *out,
                      struct oc_api_error *e) {
    if (s.n == 0) return oc_api_fail(e, OC_API_BAD_REQUEST, param, "'%s' is empty", param);
    if (s.n > OC_LIMIT_PROMPT_BYTES)
        return oc_api_fail(e, OC_API_TOO_LARGE, param, "'%s' has %zu bytes, but may have %zu", param, s.n,
                           (size_t)OC_LIMIT_PROMPT_BYTES);
    out->prompt = s;
    return true;
}

static bool read_tokens(struct oc_arena *a, const struct oc_json *v, const char *param,
                        struct oc_api_request *out, struct oc_api_error *e) {
    if (v->n_items == 0) return oc_api_fail(e, OC_API_BAD_REQUEST, param, "'%s' is empty", param);
    return oc_api_value_tokens(a, v, param, &out->prompt_tokens, &out->n_prompt_tokens, e);
}

bool oc_api_request_prompt(struct oc_arena *a, const struct oc_json *body, struct oc_api_request *out,
                           struct oc_api_error *e) {
    const struct oc_json *v = oc_json_get(body, "prompt");
    if (v && v->type == OC_JSON_STR) return read_text(v->str, "prompt", out, e);
    if (!v || v->type != OC_JSON_ARR)
        return oc_api_value_refuse(v, "prompt", "a string or an array of token ids", e);
    const struct oc_json *first = v->n_items ? &v->items[0] : NULL;
    if (!first || (first->type != OC_JSON_STR && first->type != OC_JSON_ARR))
        return read_tokens(a, v, "prompt", out, e);
    if (v->n_items > 1)
        return oc_api_fail(e, OC_API_UNSUPPORTED, "prompt",
                           "'prompt' holds %zu prompts: send one in each request", v->n_items);
    return first->type == OC_JSON_STR ? read_text(first->str, "prompt[0]", out, e)
                                      : read_tokens(a, first, "prompt[0]", out, e);
}
