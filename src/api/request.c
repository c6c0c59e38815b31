#include "api/request_impl.h"

/* ---- The body ------------------------------------------------------------------------------------------ */

/* True if values nest deeper than `levels`. */
static bool deeper_than(const struct oc_json *v, int levels) {
    if (v->type != OC_JSON_ARR && v->type != OC_JSON_OBJ) return false;
    if (levels == 0) return true;
    for (size_t i = 0; v->type == OC_JSON_ARR && i < v->n_items; i++)
        if (deeper_than(&v->items[i], levels - 1)) return true;
    for (size_t i = 0; v->type == OC_JSON_OBJ && i < v->n_members; i++)
        if (deeper_than(&v->members[i].value, levels - 1)) return true;
    return false;
}

static bool too_deep(struct oc_api_error *e) {
    return oc_api_fail(e, OC_API_BAD_REQUEST, NULL, "the body nests deeper than %d levels",
                       OC_LIMIT_API_JSON_DEPTH);
}

static bool parse_body(struct oc_arena *a, struct oc_str text, struct oc_json *out, struct oc_api_error *e) {
    struct oc_errinfo ei = {0};
    if (text.n > OC_LIMIT_JSON_BYTES) return oc_api_value_no_memory(e);
    enum oc_err err = oc_json_parse(a, text, "the body", out, &ei);
    if (err == OC_ERR_NOMEM) return oc_api_value_no_memory(e);
    if (err == OC_ERR_LIMIT) return too_deep(e);
    if (err) return oc_api_fail(e, OC_API_BAD_REQUEST, NULL, "%s", ei.msg);
    if (out->type != OC_JSON_OBJ)
        return oc_api_fail(e, OC_API_BAD_REQUEST, NULL, "the body must be a JSON object, not %s",
                           oc_api_value_kind(out));
    return deeper_than(out, OC_LIMIT_API_JSON_DEPTH) ? too_deep(e) : true;
}

/* ---- Completions --------------------------------------------------------------------------------------- */

static bool read_messages(struct oc_arena *a, const struct oc_json *body, size_t max_pictures,
                          struct oc_api_request *out, struct oc_api_error *e) {
    struct oc_api_message_list list = {.max_pictures = max_pictures};
    if (!oc_api_request_messages(a, oc_json_get(body, "messages"), &list, e)) return false;
    out->messages = list.messages;
    out->pictures = list.pictures;
    out->n_pictures = list.n_pictures;
    return true;
}

bool oc_api_request_parse(struct oc_arena *a, struct oc_str body, bool is_chat, size_t max_pictures,
                          struct oc_api_request *out, struct oc_api_error *err) {
    struct oc_json json;
    *out = (struct oc_api_request){.is_chat = is_chat,
                                   .messages = {.type = OC_JSON_NULL},
                                   .add_generation_prompt = true,
                                   .model = OC_STR(""),
                                   .prompt = OC_STR(""),
                                   .user = OC_STR("")};
    if (!parse_body(a, body, &json, err)) return false;
    if (!oc_api_request_fields(a, &json, out, err)) return false;
    if (!oc_api_request_features(&json, out, err)) return false;
    return is_chat ? read_messages(a, &json, max_pictures, out, err)
                   : oc_api_request_prompt(a, &json, out, err);
}

/* ---- Tokens -------------------------------------------------------------------------------------------- */

bool oc_api_tokenize_parse(struct oc_arena *a, struct oc_str body, struct oc_api_tokenize *out,
                           struct oc_api_error *err) {
    struct oc_json json;
    *out = (struct oc_api_tokenize){.model = OC_STR(""),
                                    .prompt = OC_STR(""),
                                    .messages = {.type = OC_JSON_NULL},
                                    .add_generation_prompt = true,
                                    .parse_special = true};
    if (!parse_body(a, body, &json, err)) return false;
    const struct oc_json *prompt = oc_json_get(&json, "prompt"), *messages = oc_json_get(&json, "messages");
    if (oc_json_is_null(prompt) == oc_json_is_null(messages))
        return oc_api_fail(err, OC_API_BAD_REQUEST, "prompt", "send either 'prompt' or 'messages'");
    if (!oc_api_value_text(oc_json_get(&json, "model"), "model", &out->model, err) ||
        !oc_api_value_text(prompt, "prompt", &out->prompt, err) ||
        !oc_api_value_bool(oc_json_get(&json, "add_generation_prompt"), "add_generation_prompt",
                           &out->add_generation_prompt, err) ||
        !oc_api_value_bool(oc_json_get(&json, "parse_special"), "parse_special", &out->parse_special, err))
        return false;
    if (out->prompt.n > OC_LIMIT_PROMPT_BYTES)
        return oc_api_fail(err, OC_API_TOO_LARGE, "prompt", "'prompt' has %zu bytes, but may have %zu",
                           out->prompt.n, (size_t)OC_LIMIT_PROMPT_BYTES);
    if (oc_json_is_null(messages)) return true;
    struct oc_api_message_list list = {.max_pictures = OC_LIMIT_IMAGES_PER_PROMPT};
    if (!oc_api_request_messages(a, messages, &list, err)) return false;
    out->messages = list.messages;
    return true;
}

bool oc_api_detokenize_parse(struct oc_arena *a, struct oc_str body, struct oc_api_detokenize *out,
                             struct oc_api_error *err) {
    struct oc_json json;
    *out = (struct oc_api_detokenize){.model = OC_STR("")};
    if (!parse_body(a, body, &json, err)) return false;
    if (!oc_api_value_text(oc_json_get(&json, "model"), "model", &out->model, err)) return false;
    const struct oc_json *tokens = oc_json_get(&json, "tokens");
    if (!tokens || tokens->type != OC_JSON_ARR)
        return oc_api_value_refuse(tokens, "tokens", "an array of token ids", err);
    return oc_api_value_tokens(a, tokens, "tokens", &out->tokens, &out->n_tokens, err);
}
