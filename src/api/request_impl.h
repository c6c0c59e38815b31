/* api/request_impl.h - what the files that read a request share; nobody else includes it. */
#ifndef OC_API_REQUEST_IMPL_H
#define OC_API_REQUEST_IMPL_H

#include "api/request.h"
#include "api/value.h"

/* All fields but messages and prompt. */
bool oc_api_request_fields(struct oc_arena *a, const struct oc_json *body, struct oc_api_request *out,
                           struct oc_api_error *e);

/* Refuses what asks for something that is not built; out->n is known. */
bool oc_api_request_features(const struct oc_json *body, const struct oc_api_request *out,
                             struct oc_api_error *e);

/* Checks and normalises `messages`: roles, content, parts; lists the pictures in order. */
struct oc_api_message_list {
    struct oc_json messages;
    struct oc_api_picture *pictures;
    size_t n_pictures, max_pictures;
};
bool oc_api_request_messages(struct oc_arena *a, const struct oc_json *messages,
                             struct oc_api_message_list *out, struct oc_api_error *e);

/* The one prompt of a completion. */
bool oc_api_request_prompt(struct oc_arena *a, const struct oc_json *body, struct oc_api_request *out,
                           struct oc_api_error *e);

#endif
