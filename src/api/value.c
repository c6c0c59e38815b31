#include "api/value.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "base/limits.h"

const char *oc_api_value_kind(const struct oc_json *v) {
    static const char *const kinds[] = {
        [OC_JSON_NULL] = "null",       [OC_JSON_BOOL] = "a boolean", [OC_JSON_INT] = "an integer",
        [OC_JSON_DOUBLE] = "a number", [OC_JSON_STR] = "a string",   [OC_JSON_ARR] = "an array",
        [OC_JSON_OBJ] = "an object",
    };
    return v ? kinds[v->type] : "nothing";
}

bool oc_api_value_refuse(const struct oc_json *v, const char *param, const char *what,
                         struct oc_api_error *e) {
    return oc_api_fail(e, OC_API_BAD_REQUEST, param, "'%s' must be %s, not %s", param, what,
                       oc_api_value_kind(v));
}

static bool is_number(const struct oc_json *v) {
    return v->type == OC_JSON_INT || v->type == OC_JSON_DOUBLE;
}

bool oc_api_value_is_whole(const struct oc_json *v) {
    return v && is_number(v) && isfinite(v->d) && v->d == floor(v->d);
}

bool oc_api_value_number(const struct oc_json *v, const char *param, double min, double max, double *out,
                         struct oc_api_error *e) {
    if (oc_json_is_null(v)) return true;
    if (!is_number(v)) return oc_api_value_refuse(v, param, "a number", e);
    if (!(v->d >= min && v->d <= max))
        return oc_api_fail(e, OC_API_BAD_REQUEST, param, "'%s' is %g, but must be from %g to %g", param, v->d,
                           min, max);
    *out = v->d;
    return true;
}

bool oc_api_value_int(const struct oc_json *v, const char *param, int64_t min, int64_t max, int64_t *out,
                      struct oc_api_error *e) {
    if (oc_json_is_null(v)) return true;
    if (!is_number(v)) return oc_api_value_refuse(v, param, "an integer", e);
    if (!oc_api_value_is_whole(v))
        return oc_api_fail(e, OC_API_BAD_REQUEST, param, "'%s' is %g, but must be a whole number", param,
                           v->d);
    int64_t i = v->type == OC_JSON_INT ? v->i : oc_json_int_or(v, v->d < 0 ? INT64_MIN : INT64_MAX);
    if (i < min || i > max)
        return oc_api_fail(e, OC_API_BAD_REQUEST, param,
                           "'%s' is %.17g, but must be from %" PRId64 " to %" PRId64, param, v->d, min, max);
    *out = i;
    return true;
}

bool oc_api_value_bool(const struct oc_json *v, const char *param, bool *out, struct oc_api_error *e) {
    if (oc_json_is_null(v)) return true;
    if (v->type != OC_JSON_BOOL) return oc_api_value_refuse(v, param, "true or false", e);
    *out = v->b;
    return true;
}

bool oc_api_value_text(const struct oc_json *v, const char *param, struct oc_str *out,
                       struct oc_api_error *e) {
    if (oc_json_is_null(v)) return true;
    if (v->type != OC_JSON_STR) return oc_api_value_refuse(v, param, "a string", e);
    *out = v->str;
    return true;
}

bool oc_api_value_no_memory(struct oc_api_error *e) {
    return oc_api_fail(e, OC_API_TOO_LARGE, NULL, "the request is too large for the memory that one may use");
}

bool oc_api_value_tokens(struct oc_arena *a, const struct oc_json *v, const char *param, const int32_t **out,
                         size_t *n, struct oc_api_error *e) {
    if (v->n_items > OC_LIMIT_CTX_TOKENS)
        return oc_api_fail(e, OC_API_BAD_REQUEST, param, "'%s' has %zu tokens, but at most %d may be sent",
                           param, v->n_items, OC_LIMIT_CTX_TOKENS);
    int32_t *tokens = oc_arena_array(a, v->n_items, sizeof *tokens);
    if (!tokens) return oc_api_value_no_memory(e);
    for (size_t i = 0; i < v->n_items; i++) {
        char name[64];
        int64_t token = 0;
        snprintf(name, sizeof name, "%s[%zu]", param, i);
        if (!is_number(&v->items[i])) return oc_api_value_refuse(&v->items[i], name, "a token id", e);
        if (!oc_api_value_int(&v->items[i], name, 0, OC_LIMIT_VOCAB - 1, &token, e)) return false;
        tokens[i] = (int32_t)token;
    }
    *out = tokens;
    *n = v->n_items;
    return true;
}
