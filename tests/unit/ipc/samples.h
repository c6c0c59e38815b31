/* One full example of every message, for tests: ordinary and with extreme values. */
#ifndef OC_TESTS_UNIT_IPC_SAMPLES_H
#define OC_TESTS_UNIT_IPC_SAMPLES_H

#include <float.h>
#include <limits.h>
#include <math.h>
#include <string.h>

#include "ipc/messages.h"

#define SAMPLE_RULES                                                                                          \
    {.kind = 1, .patch = 14, .merge = 2, .temporal = 2, .resample = 3, .max_tokens = 4096, .min_pixels = 3136, \
     .max_pixels = INT64_MAX, .rescale = 1 / 255.0, .mean = {0.1, -0.2, 0.3}, .std = {DBL_MIN, 1, DBL_MAX}}
#define SAMPLE_PLAN                                                                                           \
    {.width = 28, .height = 56, .resample = 3, .rescale = 1 / 255.0, .mean = {0.5, 0.5, 0.5}, .std = {1, 2, 3}, \
     .patch = 14, .merge = 2, .temporal = 2, .grid_t = 1, .grid_h = 4, .grid_w = 2, .n_patches = 8,            \
     .patch_dim = 1176, .n_tokens = INT32_MIN}

static const struct oc_ipc_picture_plan sample_plan = SAMPLE_PLAN;
static struct oc_ipc_job_picture sample_pictures[] = {{.plan = SAMPLE_PLAN, .digest = {1, 2, 255}}, {.plan = SAMPLE_PLAN, .digest = {9}}};
static const int32_t sample_ids[] = {0, 1, INT32_MAX, INT32_MIN, 151655};
static const struct oc_ipc_bias sample_biases[] = {{7, -100}, {8, FLT_MAX}};
static const struct oc_ipc_choice sample_top[] = {{1, -0.5f}, {2, -INFINITY}};
static const struct oc_ipc_pick sample_picks[] = {{1, -0.5f, 2, sample_top}, {INT32_MAX, 0, 0, NULL}};

static const struct oc_ipc_ready sample_ready = {
    .version = OC_IPC_VERSION, .architecture = {"SomeModel", 9}, .family = {"some", 4}, .isa = {"", 0}, .device = {"cuda:0", 6},
    .device_name = {"a card", 6}, .device_why = {"", 0}, .throughput = 1, .n_threads = OC_LIMIT_THREADS,
    .n_vocab = OC_LIMIT_VOCAB, .ctx_tokens = OC_LIMIT_CTX_TOKENS, .model_ctx_tokens = INT32_MAX, .n_sessions = 64, .kv_tokens = INT32_MAX,
    .image_max_tokens = 0, .image_token = -1, .n_params = UINT64_MAX, .weight_bytes = 1, .kv_bytes = 1ull << 40, .workspace_bytes = 3,
    .decode_weight_bytes = 4, .device_bytes = 1ull << 36, .load_ms = 0.25, .rules = SAMPLE_RULES};
static const struct oc_ipc_refused sample_refused = {.err = OC_ERR_NOT_FOUND, .message = {"no such model", 13}};
static const struct oc_ipc_job sample_job = {
    .tokens = sample_ids, .n_tokens = 5,
    .pictures = sample_pictures, .n_pictures = 2,
    .sampling = {.temperature = 0.7f, .top_p = FLT_MIN, .min_p = 1, .repetition_penalty = FLT_MAX, .presence_penalty = -2,
                 .frequency_penalty = 2, .top_k = INT32_MAX, .n_logprobs = -1, .seed = UINT64_MAX},
    .biases = sample_biases, .n_biases = 2, .eos = {5, 6, 7, 8, 9, 10, 11, 12}, .n_eos = OC_IPC_MAX_EOS, .max_tokens = OC_LIMIT_CTX_TOKENS,
    .priority = 2, .salt = {0xff, 0, 1}};
static const struct oc_ipc_stage_entered sample_stage = {.stage = OC_IPC_STAGE_DECODE, .n_prompt = OC_LIMIT_CTX_TOKENS, .n_cached = 16};
static const struct oc_ipc_tokens sample_tokens = {.picks = sample_picks, .n_picks = 2};
static const struct oc_ipc_done sample_done = {
    .finish = OC_IPC_FINISH_ERROR, .err = OC_ERR_CANCELLED, .message = {"a\0b", 3}, .n_prompt = 1, .n_cached = 2, .n_image = 3,
    .n_output = 4, .n_image_cached = 5, .queue_ms = DBL_MAX, .encode_ms = -0.0, .prefill_ms = 1e-300, .decode_ms = 7};
static const struct oc_ipc_look sample_look = {
    .rules = SAMPLE_RULES, .min_pixels = INT64_MIN, .max_pixels = INT64_MAX, .max_tokens = INT32_MAX, .max_bytes = UINT64_MAX,
    .max_image_pixels = 5, .max_side_px = 6};
static const struct oc_ipc_seen sample_seen = {
    .width = OC_LIMIT_IMAGE_SIDE_PX, .height = 1, .plan = SAMPLE_PLAN, .digest = {3}, .decode_ms = 1.5, .resize_ms = 2.5};
static const struct oc_ipc_unseen sample_unseen = {.err = OC_ERR_FORMAT, .message = {"broken", 6}};

/* X(name, its struct) of every message that has a payload. */
#define SAMPLES(X)                                                                                            \
    X(ready, oc_ipc_ready)                                                                                    \
    X(refused, oc_ipc_refused)                                                                                \
    X(job, oc_ipc_job)                                                                                        \
    X(stage, oc_ipc_stage_entered)                                                                            \
    X(tokens, oc_ipc_tokens)                                                                                  \
    X(done, oc_ipc_done)                                                                                      \
    X(look, oc_ipc_look)                                                                                      \
    X(seen, oc_ipc_seen)                                                                                      \
    X(unseen, oc_ipc_unseen)

#endif
