/* api/request.h - the bodies of POST /v1/chat/completions and /v1/completions as structs.
 *
 * The only place that knows their JSON. Parsing is a pure function; server/ runs it on its thread pool for
 * bodies over 64 KiB. Rules: unknown fields are ignored; null means absent; a value that turns on a feature
 * which is not there is refused with its name in `param`, one that turns it off is accepted. */
#ifndef OC_API_REQUEST_H
#define OC_API_REQUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "api/error.h"
#include "base/arena.h"
#include "base/json.h"
#include "base/limits.h"

enum oc_api_detail { OC_API_DETAIL_AUTO, OC_API_DETAIL_LOW, OC_API_DETAIL_HIGH };
#define OC_API_LOW_DETAIL_TOKENS 256

/* One picture, in the order of the prompt. */
struct oc_api_picture {
    struct oc_str url;   /* data:, http(s):, file: or a path, as the client wrote it */
    const char *param;   /* "messages[2].content[1].image_url" */
    enum oc_api_detail detail;
    int64_t min_pixels, max_pixels; /* 0: not given */
};

struct oc_api_bias {
    int32_t token;
    float bias;
};

/* A number that may be absent. */
struct oc_api_number {
    bool given;
    double value;
};

struct oc_api_request {
    bool is_chat;
    struct oc_str model; /* empty when absent */
    /* Chat: messages as oc_chat_messages_prepare takes them (an array; a message's own fields are passed on). */
    struct oc_json messages;
    const struct oc_json *chat_template_kwargs; /* an object, or NULL */
    bool add_generation_prompt;                 /* default true */
    /* Completions: one prompt, as text or as token ids. */
    struct oc_str prompt;
    const int32_t *prompt_tokens; /* NULL: text */
    size_t n_prompt_tokens;
    bool echo;
    struct oc_api_picture *pictures;
    size_t n_pictures;
    int64_t max_tokens; /* max_completion_tokens, else max_tokens; 0: not given */
    struct oc_api_number temperature, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty;
    struct oc_api_number top_k;
    bool has_seed;
    uint64_t seed;
    struct oc_str stop[OC_LIMIT_STOP_STRINGS];
    size_t n_stop;
    const struct oc_api_bias *biases;
    size_t n_biases;
    bool logprobs;
    int top_logprobs; /* 0 to OC_LIMIT_TOP_LOGPROBS */
    int n;            /* choices, 1 to OC_LIMIT_API_CHOICES */
    bool stream, include_usage;
    bool ignore_eos; /* as vLLM's */
    struct oc_str user;
};

/* Parses a body. Everything in *out lives in the arena or in `body`. False with *err filled (400 with the field in
 * `param`; 413 past a limit; a missing `model` is no error here). max_pictures: of a request. */
bool oc_api_request_parse(struct oc_arena *a, struct oc_str body, bool is_chat, size_t max_pictures,
                          struct oc_api_request *out, struct oc_api_error *err);

/* Bodies of POST /tokenize {model, prompt | messages, add_special_tokens} and /detokenize {model, tokens}. */
struct oc_api_tokenize {
    struct oc_str model;
    struct oc_str prompt;
    struct oc_json messages; /* null type when `prompt` was given */
    bool add_generation_prompt;
    bool parse_special; /* the prompt's special tokens count (vLLM's add_special_tokens does not matter here) */
};
bool oc_api_tokenize_parse(struct oc_arena *a, struct oc_str body, struct oc_api_tokenize *out,
                           struct oc_api_error *err);
struct oc_api_detokenize {
    struct oc_str model;
    const int32_t *tokens;
    size_t n_tokens;
};
bool oc_api_detokenize_parse(struct oc_arena *a, struct oc_str body, struct oc_api_detokenize *out,
                             struct oc_api_error *err);

#endif
