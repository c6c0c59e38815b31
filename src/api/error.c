#include "api/error.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/json.h"

struct row {
    int status;
    const char *type, *code; /* code NULL: null */
};

#define INVALID "invalid_request_error"
#define UNAVAILABLE "unavailable_error"

static const struct row rows[OC_API_N_PROBLEMS] = {
    [OC_API_BAD_REQUEST] = {400, INVALID, NULL},
    [OC_API_CONTEXT_LENGTH] = {400, INVALID, "context_length_exceeded"},
    [OC_API_UNSUPPORTED] = {400, INVALID, "unsupported_value"},
    [OC_API_BAD_IMAGE] = {400, INVALID, "invalid_image"},
    [OC_API_UNAUTHENTICATED] = {401, "authentication_error", "invalid_api_key"},
    [OC_API_FORBIDDEN] = {403, "permission_error", NULL},
    [OC_API_NOT_FOUND] = {404, "not_found_error", NULL},
    [OC_API_MODEL_NOT_FOUND] = {404, "not_found_error", "model_not_found"},
    [OC_API_METHOD] = {405, INVALID, NULL},
    [OC_API_TIMEOUT] = {408, INVALID, NULL},
    [OC_API_CONFLICT] = {409, INVALID, NULL},
    [OC_API_TOO_LARGE] = {413, INVALID, "request_too_large"},
    [OC_API_MEDIA_TYPE] = {415, INVALID, NULL},
    [OC_API_HEADERS_TOO_LARGE] = {431, INVALID, NULL},
    [OC_API_RATE_LIMIT] = {429, "rate_limit_error", "rate_limit_exceeded"},
    [OC_API_INTERNAL] = {500, "server_error", NULL},
    [OC_API_NOT_IMPLEMENTED] = {501, "server_error", NULL},
    [OC_API_OVERLOADED] = {503, UNAVAILABLE, "queue_full"},
    [OC_API_QUEUE_TIMEOUT] = {503, UNAVAILABLE, "queue_timeout"},
    [OC_API_DRAINING] = {503, UNAVAILABLE, "shutting_down"},
    [OC_API_WORKER_LOST] = {503, UNAVAILABLE, "worker_lost"},
    [OC_API_MODEL_LOADING] = {503, UNAVAILABLE, "model_not_ready"},
    [OC_API_NO_MEMORY] = {503, UNAVAILABLE, "memory_budget"},
    [OC_API_HTTP_VERSION] = {505, INVALID, NULL},
};

static const struct row *row_of(enum oc_api_problem problem) {
    OC_ASSERT((unsigned)problem < OC_API_N_PROBLEMS);
    return &rows[problem];
}

bool oc_api_fail(struct oc_api_error *e, enum oc_api_problem problem, const char *param, const char *fmt,
                 ...) {
    va_list ap;
    *e = (struct oc_api_error){.problem = problem};
    if (param) snprintf(e->param, sizeof e->param, "%s", param);
    va_start(ap, fmt);
    vsnprintf(e->message, sizeof e->message, fmt, ap);
    va_end(ap);
    return false;
}

enum oc_api_problem oc_api_problem_of(enum oc_err err) {
    static const enum oc_api_problem of[] = {
        [OC_OK] = OC_API_INTERNAL,
        [OC_ERR_USAGE] = OC_API_BAD_REQUEST,
        [OC_ERR_IO] = OC_API_INTERNAL,
        [OC_ERR_NOT_FOUND] = OC_API_BAD_REQUEST,
        [OC_ERR_FORMAT] = OC_API_BAD_REQUEST,
        [OC_ERR_UNSUPPORTED] = OC_API_UNSUPPORTED,
        [OC_ERR_LIMIT] = OC_API_BAD_REQUEST,
        [OC_ERR_NOMEM] = OC_API_INTERNAL,
        [OC_ERR_CANCELLED] = OC_API_INTERNAL,
    };
    return (unsigned)err < sizeof of / sizeof *of ? of[err] : OC_API_INTERNAL;
}

enum oc_api_problem oc_api_problem_of_status(int status) {
    for (int i = 0; i < OC_API_N_PROBLEMS; i++)
        if (rows[i].status == status) return (enum oc_api_problem)i;
    return OC_API_BAD_REQUEST;
}

int oc_api_error_status(enum oc_api_problem problem) {
    return row_of(problem)->status;
}

const char *oc_api_error_type(enum oc_api_problem problem) {
    return row_of(problem)->type;
}

const char *oc_api_error_code(enum oc_api_problem problem) {
    return row_of(problem)->code;
}

static void put(struct oc_buf *b, const char *before, const char *value) {
    oc_buf_add_str(b, before);
    if (value && *value)
        oc_json_write_str(b, oc_str_from(value));
    else
        oc_buf_add_str(b, "null");
}

void oc_api_error_write(struct oc_buf *b, const struct oc_api_error *e) {
    oc_buf_add_str(b, "{\"error\":{\"message\":");
    oc_json_write_str(b, oc_str_from(e->message));
    put(b, ",\"type\":", oc_api_error_type(e->problem));
    put(b, ",\"param\":", e->param);
    put(b, ",\"code\":", oc_api_error_code(e->problem));
    oc_buf_add_str(b, "}}");
}
