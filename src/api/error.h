/* api/error.h - the one table from errors to HTTP statuses, and OpenAI's error object.
 *
 * Called by server/ from any thread. {"error":{"message","type","param","code"}} stands in every answer that is
 * not a success, on both ports, and in the SSE event that ends a broken stream. */
#ifndef OC_API_ERROR_H
#define OC_API_ERROR_H

#include "base/buf.h"
#include "base/err.h"

enum oc_api_problem {
    OC_API_BAD_REQUEST,      /* 400 invalid_request_error */
    OC_API_CONTEXT_LENGTH,   /* 400 invalid_request_error, code context_length_exceeded */
    OC_API_UNSUPPORTED,      /* 400 invalid_request_error, code unsupported_value */
    OC_API_BAD_IMAGE,        /* 400 invalid_request_error, code invalid_image */
    OC_API_UNAUTHENTICATED,  /* 401 authentication_error, code invalid_api_key */
    OC_API_FORBIDDEN,        /* 403 permission_error */
    OC_API_NOT_FOUND,        /* 404 not_found_error */
    OC_API_MODEL_NOT_FOUND,  /* 404 not_found_error, code model_not_found */
    OC_API_METHOD,           /* 405 invalid_request_error */
    OC_API_TIMEOUT,          /* 408 invalid_request_error */
    OC_API_CONFLICT,         /* 409 invalid_request_error */
    OC_API_TOO_LARGE,        /* 413 invalid_request_error, code request_too_large */
    OC_API_MEDIA_TYPE,       /* 415 invalid_request_error */
    OC_API_HEADERS_TOO_LARGE, /* 431 */
    OC_API_RATE_LIMIT,       /* 429 rate_limit_error, code rate_limit_exceeded */
    OC_API_INTERNAL,         /* 500 server_error */
    OC_API_NOT_IMPLEMENTED,  /* 501 server_error */
    OC_API_OVERLOADED,       /* 503 unavailable_error, code queue_full */
    OC_API_QUEUE_TIMEOUT,    /* 503 unavailable_error, code queue_timeout */
    OC_API_DRAINING,         /* 503 unavailable_error, code shutting_down */
    OC_API_WORKER_LOST,      /* 503 unavailable_error, code worker_lost: it died while answering */
    OC_API_MODEL_LOADING,    /* 503 unavailable_error, code model_not_ready: it could not be loaded in time */
    OC_API_NO_MEMORY,        /* 503 unavailable_error, code memory_budget: the model cannot fit */
    OC_API_HTTP_VERSION,     /* 505 */
    OC_API_N_PROBLEMS
};

struct oc_api_error {
    enum oc_api_problem problem;
    char param[128];   /* "messages[2].content[1].image_url"; "": null */
    char message[OC_ERRINFO_MAX];
    int retry_after_s; /* > 0: a Retry-After header */
};

/* Fills *e and returns false, for `return oc_api_fail(...)`. param may be NULL. */
bool oc_api_fail(struct oc_api_error *e, enum oc_api_problem problem, const char *param, const char *fmt, ...)
    OC_PRINTF(4, 5);

/* From an oc_err that arose while a request was read or a picture looked at: FORMAT, UNSUPPORTED, LIMIT, USAGE and
 * NOT_FOUND are the client's (400), the rest ours (500). */
enum oc_api_problem oc_api_problem_of(enum oc_err err);

/* The problem whose status an HTTP-level error has; OC_API_BAD_REQUEST for others. */
enum oc_api_problem oc_api_problem_of_status(int status);

int oc_api_error_status(enum oc_api_problem problem);
const char *oc_api_error_type(enum oc_api_problem problem);
const char *oc_api_error_code(enum oc_api_problem problem); /* NULL: null */

/* Appends {"error":{...}} without a newline. */
void oc_api_error_write(struct oc_buf *b, const struct oc_api_error *e);

#endif
