/* api/value.h - typed looks at the JSON values of a request; each refusal names the field and what it may be.
 *
 * Only api/ includes this. null is absent: the readers return true then and leave *out as it was. A whole
 * number may be written 5.0; a number in quotes is a string and refused. Pure functions, any thread. */
#ifndef OC_API_VALUE_H
#define OC_API_VALUE_H

#include "api/error.h"
#include "base/json.h"

/* "a string", "a number", ... for messages; "nothing" when absent. */
const char *oc_api_value_kind(const struct oc_json *v);

/* Fills *e with 400 and "'param' must be <what>, not <kind of v>", and returns false. */
bool oc_api_value_refuse(const struct oc_json *v, const char *param, const char *what,
                         struct oc_api_error *e);

bool oc_api_value_number(const struct oc_json *v, const char *param, double min, double max, double *out,
                         struct oc_api_error *e);
bool oc_api_value_int(const struct oc_json *v, const char *param, int64_t min, int64_t max, int64_t *out,
                      struct oc_api_error *e);
bool oc_api_value_bool(const struct oc_json *v, const char *param, bool *out, struct oc_api_error *e);
bool oc_api_value_text(const struct oc_json *v, const char *param, struct oc_str *out,
                       struct oc_api_error *e);

/* True if v is a JSON number without a fraction. */
bool oc_api_value_is_whole(const struct oc_json *v);

/* An array of token ids (param "x[i]" names a wrong one), at most OC_LIMIT_CTX_TOKENS, into the arena. */
bool oc_api_value_tokens(struct oc_arena *a, const struct oc_json *v, const char *param, const int32_t **out,
                         size_t *n, struct oc_api_error *e);

/* 413: the request does not fit into the memory that one may use. */
bool oc_api_value_no_memory(struct oc_api_error *e);

#endif
