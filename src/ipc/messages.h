/* ipc/messages.h - every message between the orchestrator, its workers and its image-workers.
 *
 * The one list. Each message is a plain struct; write appends its payload to a buffer, read makes the struct
 * from a payload, arrays and strings borrowed from it or copied to the arena. Readers trust nothing: counts
 * and sizes are checked against the payload and the limits, so a broken worker costs its own requests only.
 * Descriptors are listed beside the message that carries them. Numbers are little-endian, floats IEEE. */
#ifndef OC_IPC_MESSAGES_H
#define OC_IPC_MESSAGES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/limits.h"
#include "base/str.h"

#define OC_IPC_VERSION 4
#define OC_IPC_MAX_EOS 8
#define OC_IPC_DIGEST_BYTES 32

/* X(NAME, name, from): the type's number is its place in the list. */
#define OC_IPC_MESSAGES(X)                                                                                   \
    X(READY, ready, "worker")           /* the model is loaded */                                            \
    X(REFUSED, refused, "worker")       /* it could not be loaded; the worker exits */                       \
    X(JOB, job, "orchestrator")         /* fds: one memfd of pixels per picture, as SEEN brought it */       \
    X(CANCEL, cancel, "orchestrator")                                                                        \
    X(STAGE, stage, "worker")           /* a job entered a stage */                                          \
    X(TOKENS, tokens, "worker")                                                                              \
    X(DONE, done, "worker")             /* the last message of a job */                                      \
    X(SHUTDOWN, shutdown, "orchestrator") /* finish nothing, exit 0 */                                       \
    X(LOOK, look, "orchestrator")       /* image-worker: fds: the picture's bytes */                         \
    X(SEEN, seen, "image-worker")       /* fds: sealed memfd of RGB pixels [plan.height, plan.width, 3] */   \
    X(UNSEEN, unseen, "image-worker")   /* the picture was refused */

enum oc_ipc_type {
    OC_IPC_NONE = 0,
#define X(NAME, name, from) OC_IPC_##NAME,
    OC_IPC_MESSAGES(X)
#undef X
        OC_IPC_N_TYPES
};

/* Mirrors struct oc_picture_rules of include/ocellus.h, which ipc/ must not know. */
struct oc_ipc_picture_rules {
    int32_t kind; /* which rule: the family's, see models/pictures.h; 0: no vision */
    int32_t patch, merge, temporal, resample, max_tokens;
    int64_t min_pixels, max_pixels;
    double rescale, mean[3], std[3];
};

/* Mirrors struct oc_picture_plan. */
struct oc_ipc_picture_plan {
    int32_t width, height, resample;
    double rescale, mean[3], std[3];
    int32_t patch, merge, temporal, grid_t, grid_h, grid_w, n_patches, patch_dim, n_tokens;
};

struct oc_ipc_ready {
    int32_t version; /* OC_IPC_VERSION */
    struct oc_str architecture, family, isa;
    struct oc_str device, device_name, device_why; /* as of struct oc_engine_info */
    int32_t throughput; /* 1: computed in throughput mode (struct oc_engine_info), else 0 */
    int32_t n_threads, n_vocab, ctx_tokens, model_ctx_tokens, n_sessions, kv_tokens;
    int32_t image_max_tokens, image_token;
    uint64_t n_params, weight_bytes, kv_bytes, workspace_bytes, decode_weight_bytes, device_bytes;
    double load_ms;
    struct oc_ipc_picture_rules rules;
};

struct oc_ipc_refused {
    int32_t err; /* enum oc_err */
    struct oc_str message;
};

struct oc_ipc_sampling {
    float temperature, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty;
    int32_t top_k;
    int32_t n_logprobs; /* -1: none */
    uint64_t seed;
};

struct oc_ipc_bias {
    int32_t token;
    float bias;
};

struct oc_ipc_job_picture {
    struct oc_ipc_picture_plan plan;
    uint8_t digest[OC_IPC_DIGEST_BYTES]; /* of pixels and preprocessing: the cache key */
};

struct oc_ipc_job {
    const int32_t *tokens; /* one placeholder per picture, not yet repeated */
    uint32_t n_tokens;
    struct oc_ipc_job_picture *pictures;
    uint32_t n_pictures;
    struct oc_ipc_sampling sampling;
    const struct oc_ipc_bias *biases;
    uint32_t n_biases;
    int32_t eos[OC_IPC_MAX_EOS];
    uint32_t n_eos;
    int32_t max_tokens; /* of the answer, at least 1 */
    int32_t priority;   /* 0 high, 1 normal, 2 low */
    uint8_t salt[16];   /* caches are shared among jobs of equal salt only */
};

struct oc_ipc_cancel {
    uint8_t none;
};

enum oc_ipc_stage { OC_IPC_STAGE_ENCODE, OC_IPC_STAGE_PREFILL, OC_IPC_STAGE_DECODE };

struct oc_ipc_stage_entered {
    int32_t stage;
    int32_t n_prompt, n_cached; /* known from PREFILL on */
};

struct oc_ipc_choice {
    int32_t token;
    float logprob;
};

struct oc_ipc_pick {
    int32_t token;
    float logprob; /* 0 without logprobs */
    uint32_t n_top;
    const struct oc_ipc_choice *top;
};

struct oc_ipc_tokens {
    const struct oc_ipc_pick *picks; /* an end token is not among them */
    uint32_t n_picks;
};

enum oc_ipc_finish { OC_IPC_FINISH_STOP, OC_IPC_FINISH_LENGTH, OC_IPC_FINISH_CANCELLED, OC_IPC_FINISH_ERROR };

struct oc_ipc_done {
    int32_t finish;
    int32_t err;           /* enum oc_err of FINISH_ERROR */
    struct oc_str message; /* its sentence */
    int32_t n_prompt, n_cached, n_image, n_output; /* tokens; n_output counts an end token too */
    int32_t n_image_cached;                        /* image tokens whose embedding was in the cache */
    double queue_ms, encode_ms, prefill_ms, decode_ms; /* time in each stage; decode from first to last token */
};

struct oc_ipc_shutdown {
    uint8_t none;
};

/* To an image-worker: look at one picture. */
struct oc_ipc_look {
    struct oc_ipc_picture_rules rules;
    int64_t min_pixels, max_pixels; /* of the request; 0: the model's */
    int32_t max_tokens;             /* of the request (detail: low); 0: the model's */
    uint64_t max_bytes, max_image_pixels;
    int32_t max_side_px;
};

struct oc_ipc_seen {
    int32_t width, height; /* of the picture, upright */
    struct oc_ipc_picture_plan plan;
    uint8_t digest[OC_IPC_DIGEST_BYTES];
    double decode_ms, resize_ms;
};

struct oc_ipc_unseen {
    int32_t err;
    struct oc_str message;
};

/* oc_ipc_<name>_write: false when the buffer is full. oc_ipc_<name>_read: OC_ERR_FORMAT (says which field),
 * OC_ERR_LIMIT, OC_ERR_NOMEM. (The struct of STAGE is oc_ipc_stage_entered.) */
#define OC_IPC_DECLARE(name, type)                                                                                 \
    bool oc_ipc_##name##_write(struct oc_buf *b, const struct type *m);                                            \
    OC_MUST_CHECK enum oc_err oc_ipc_##name##_read(struct oc_arena *a, const uint8_t *payload, size_t n_bytes,     \
                                                   struct type *m, struct oc_errinfo *ei);
OC_IPC_DECLARE(ready, oc_ipc_ready)
OC_IPC_DECLARE(refused, oc_ipc_refused)
OC_IPC_DECLARE(job, oc_ipc_job)
OC_IPC_DECLARE(stage, oc_ipc_stage_entered)
OC_IPC_DECLARE(tokens, oc_ipc_tokens)
OC_IPC_DECLARE(done, oc_ipc_done)
OC_IPC_DECLARE(look, oc_ipc_look)
OC_IPC_DECLARE(seen, oc_ipc_seen)
OC_IPC_DECLARE(unseen, oc_ipc_unseen)

const char *oc_ipc_type_name(uint16_t type); /* "JOB"; "?" for none of the list */

#endif
