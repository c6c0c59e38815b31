/* api/response.h - answers as JSON: whole objects, stream chunks, usage, models.
 *
 * Pure functions into buffers; any thread. Field order and spelling follow OpenAI's API; what we add
 * (`timings`, `images`, prompt_tokens_details.image_tokens) is named in docs/API.md. */
#ifndef OC_API_RESPONSE_H
#define OC_API_RESPONSE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/str.h"

/* What all objects of one answer share. */
struct oc_api_answer {
    bool is_chat;
    const char *id;    /* "chatcmpl-..." or "cmpl-..." */
    int64_t created;   /* unix seconds */
    struct oc_str model; /* as asked */
    const char *fingerprint; /* system_fingerprint */
    bool include_usage; /* stream: other chunks carry "usage":null */
};

struct oc_api_usage {
    int64_t prompt_tokens, completion_tokens, cached_tokens, image_tokens;
};

struct oc_api_timings { /* milliseconds */
    double queue_ms, fetch_ms, image_ms, encode_ms, prefill_ms, ttft_ms, decode_ms;
    int n_prompt, n_cached, n_image, n_decode;
};

struct oc_api_image_report {
    int width, height, resized_width, resized_height, grid_t, grid_h, grid_w, n_tokens;
};

/* One token's log-probability. bytes is the token's own text, possibly a part of a character. */
struct oc_api_logprob {
    struct oc_str bytes;
    double logprob;
};
struct oc_api_token_logprobs {
    struct oc_api_logprob token;
    const struct oc_api_logprob *top;
    int n_top;
};

enum oc_api_finish { OC_API_FINISH_NONE, OC_API_FINISH_STOP, OC_API_FINISH_LENGTH };

struct oc_api_choice {
    int index;
    struct oc_str text;
    const struct oc_api_token_logprobs *logprobs; /* NULL: "logprobs":null */
    size_t n_logprobs;
    size_t text_offset; /* completions' logprobs: where the first token begins in the whole, in characters */
    enum oc_api_finish finish;
};

/* Stream: the first chunk of a chat choice {"role":"assistant","content":""}; nothing for completions. */
void oc_api_write_role_chunk(struct oc_buf *b, const struct oc_api_answer *a, int index);
/* Stream: text (and its logprobs) and/or a finish_reason. A chat chunk always has content, "" without text. */
void oc_api_write_chunk(struct oc_buf *b, const struct oc_api_answer *a, const struct oc_api_choice *c);
/* Stream: the last chunk, "choices":[] with usage, timings and images. */
void oc_api_write_usage_chunk(struct oc_buf *b, const struct oc_api_answer *a, const struct oc_api_usage *u,
                              const struct oc_api_timings *t, const struct oc_api_image_report *images, size_t n_images);
/* A whole answer. */
void oc_api_write_answer(struct oc_buf *b, const struct oc_api_answer *a, const struct oc_api_choice *choices,
                         size_t n_choices, const struct oc_api_usage *u, const struct oc_api_timings *t,
                         const struct oc_api_image_report *images, size_t n_images);

struct oc_api_model {
    struct oc_str id, owned_by;
    int64_t created;
    bool loaded, vision;
    int ctx_tokens; /* 0: not known yet */
};
void oc_api_write_model(struct oc_buf *b, const struct oc_api_model *m);
void oc_api_write_models(struct oc_buf *b, const struct oc_api_model *m, size_t n);
void oc_api_write_tokens(struct oc_buf *b, const int32_t *tokens, size_t n, int max_model_len);
void oc_api_write_detokenized(struct oc_buf *b, struct oc_str text);

/* "chatcmpl-" or "cmpl-" and 24 hex digits of 12 random bytes. */
void oc_api_make_id(bool is_chat, const uint8_t random[12], char out[40]);

#endif
