#include "ipc/messages.h"

#include "ipc/wire.h"

/* One line a field, in the order of the payload. */
#define RAW(type, field, count) {.name = #field, .kind = OC_IPC_WIRE_RAW, .offset = offsetof(struct type, field), .n = (count)}
#define I32S(type, field, count, least, most)                                                                 \
    {.name = #field, .kind = OC_IPC_WIRE_I32, .offset = offsetof(struct type, field), .n = (count), .min = (least), .max = (most)}
#define I32(type, field, least, most) I32S(type, field, 1, least, most)
#define INT(type, field) I32S(type, field, 1, INT32_MIN, INT32_MAX)
#define F32(type, field) {.name = #field, .kind = OC_IPC_WIRE_N32, .offset = offsetof(struct type, field), .n = 1}
#define N64S(type, field, count) {.name = #field, .kind = OC_IPC_WIRE_N64, .offset = offsetof(struct type, field), .n = (count)}
#define N64(type, field) N64S(type, field, 1)
#define STR(type, field)                                                                                      \
    {.name = #field, .kind = OC_IPC_WIRE_STR, .offset = offsetof(struct type, field), .max = OC_LIMIT_IPC_STRING_BYTES}
#define SUB(type, field, layout) {.name = #field, .kind = OC_IPC_WIRE_SUB, .offset = offsetof(struct type, field), .sub = &(layout)}
#define MANY(kind_, type, field, count, layout, most)                                                         \
    {.name = #field, .kind = (kind_), .offset = offsetof(struct type, field), .max = (most),                   \
     .count_offset = offsetof(struct type, count), .sub = &(layout)}
#define ARRAY(type, field, count, layout, most) MANY(OC_IPC_WIRE_ARRAY, type, field, count, layout, most)
#define FIXED(type, field, count, layout, most) MANY(OC_IPC_WIRE_FIXED, type, field, count, layout, most)
#define LAYOUT(name_, type, fields_)                                                                          \
    {.name = (name_), .n_bytes = sizeof(struct type), .fields = (fields_), .n_fields = (int)(sizeof(fields_) / sizeof *(fields_))}

/* ---- Parts of messages ------------------------------------------------------------------------------------ */

static const struct oc_ipc_wire_field int_fields[] = {
    {.name = "number", .kind = OC_IPC_WIRE_I32, .n = 1, .min = INT32_MIN, .max = INT32_MAX}};
static const struct oc_ipc_wire_layout int_layout = {"number", sizeof(int32_t), int_fields, 1};

#define T oc_ipc_picture_rules
static const struct oc_ipc_wire_field rules_fields[] = {
    INT(T, kind),       INT(T, patch),        INT(T, merge),      INT(T, temporal),  INT(T, resample), INT(T, max_tokens),
    N64(T, min_pixels), N64(T, max_pixels),   N64(T, rescale),    N64S(T, mean, 3),  N64S(T, std, 3),
};
static const struct oc_ipc_wire_layout rules_layout = LAYOUT("rules", T, rules_fields);
#undef T

#define T oc_ipc_picture_plan
static const struct oc_ipc_wire_field plan_fields[] = {
    INT(T, width),    INT(T, height), INT(T, resample), N64(T, rescale), N64S(T, mean, 3),  N64S(T, std, 3),   INT(T, patch),
    INT(T, merge),    INT(T, temporal), INT(T, grid_t), INT(T, grid_h),  INT(T, grid_w),    INT(T, n_patches), INT(T, patch_dim),
    INT(T, n_tokens),
};
static const struct oc_ipc_wire_layout plan_layout = LAYOUT("plan", T, plan_fields);
#undef T

#define T oc_ipc_sampling
static const struct oc_ipc_wire_field sampling_fields[] = {
    F32(T, temperature),      F32(T, top_p),           F32(T, min_p),
    F32(T, repetition_penalty), F32(T, presence_penalty), F32(T, frequency_penalty),
    I32(T, top_k, 0, INT32_MAX), I32(T, n_logprobs, -1, OC_LIMIT_TOP_LOGPROBS), N64(T, seed),
};
static const struct oc_ipc_wire_layout sampling_layout = LAYOUT("sampling", T, sampling_fields);
#undef T

static const struct oc_ipc_wire_field bias_fields[] = {INT(oc_ipc_bias, token), F32(oc_ipc_bias, bias)};
static const struct oc_ipc_wire_layout bias_layout = LAYOUT("bias", oc_ipc_bias, bias_fields);

static const struct oc_ipc_wire_field job_picture_fields[] = {
    SUB(oc_ipc_job_picture, plan, plan_layout),
    RAW(oc_ipc_job_picture, digest, OC_IPC_DIGEST_BYTES),
};
static const struct oc_ipc_wire_layout job_picture_layout = LAYOUT("picture", oc_ipc_job_picture, job_picture_fields);

static const struct oc_ipc_wire_field choice_fields[] = {INT(oc_ipc_choice, token), F32(oc_ipc_choice, logprob)};
static const struct oc_ipc_wire_layout choice_layout = LAYOUT("choice", oc_ipc_choice, choice_fields);

static const struct oc_ipc_wire_field pick_fields[] = {
    INT(oc_ipc_pick, token),
    F32(oc_ipc_pick, logprob),
    ARRAY(oc_ipc_pick, top, n_top, choice_layout, OC_LIMIT_TOP_LOGPROBS),
};
static const struct oc_ipc_wire_layout pick_layout = LAYOUT("pick", oc_ipc_pick, pick_fields);

/* ---- Messages --------------------------------------------------------------------------------------------- */

#define MAX_ERR OC_ERR_CANCELLED

#define T oc_ipc_ready
static const struct oc_ipc_wire_field ready_fields[] = {
    INT(T, version),
    STR(T, architecture),
    STR(T, family),
    STR(T, isa),
    STR(T, device),
    STR(T, device_name),
    STR(T, device_why),
    I32(T, throughput, 0, 1),
    I32(T, n_threads, 0, OC_LIMIT_THREADS),
    I32(T, n_vocab, 0, OC_LIMIT_VOCAB),
    I32(T, ctx_tokens, 0, OC_LIMIT_CTX_TOKENS),
    I32(T, model_ctx_tokens, 0, INT32_MAX),
    I32(T, n_sessions, 0, INT32_MAX),
    I32(T, kv_tokens, 0, INT32_MAX),
    I32(T, image_max_tokens, 0, OC_LIMIT_CTX_TOKENS),
    I32(T, image_token, -1, OC_LIMIT_VOCAB),
    N64(T, n_params),
    N64(T, weight_bytes),
    N64(T, kv_bytes),
    N64(T, workspace_bytes),
    N64(T, decode_weight_bytes),
    N64(T, device_bytes),
    N64(T, load_ms),
    SUB(T, rules, rules_layout),
};
static const struct oc_ipc_wire_layout ready_layout = LAYOUT("READY", T, ready_fields);
#undef T

static const struct oc_ipc_wire_field refused_fields[] = {I32(oc_ipc_refused, err, 0, MAX_ERR), STR(oc_ipc_refused, message)};
static const struct oc_ipc_wire_layout refused_layout = LAYOUT("REFUSED", oc_ipc_refused, refused_fields);

#define T oc_ipc_job
static const struct oc_ipc_wire_field job_fields[] = {
    ARRAY(T, tokens, n_tokens, int_layout, OC_LIMIT_CTX_TOKENS),
    ARRAY(T, pictures, n_pictures, job_picture_layout, OC_LIMIT_IMAGES_PER_PROMPT),
    SUB(T, sampling, sampling_layout),
    ARRAY(T, biases, n_biases, bias_layout, OC_LIMIT_API_BIASES),
    FIXED(T, eos, n_eos, int_layout, OC_IPC_MAX_EOS),
    I32(T, max_tokens, 1, OC_LIMIT_CTX_TOKENS),
    I32(T, priority, 0, 2),
    RAW(T, salt, 16),
};
static const struct oc_ipc_wire_layout job_layout = LAYOUT("JOB", T, job_fields);
#undef T

#define T oc_ipc_stage_entered
static const struct oc_ipc_wire_field stage_fields[] = {
    I32(T, stage, 0, OC_IPC_STAGE_DECODE),
    I32(T, n_prompt, 0, OC_LIMIT_CTX_TOKENS),
    I32(T, n_cached, 0, OC_LIMIT_CTX_TOKENS),
};
static const struct oc_ipc_wire_layout stage_layout = LAYOUT("STAGE", T, stage_fields);
#undef T

static const struct oc_ipc_wire_field tokens_fields[] = {
    ARRAY(oc_ipc_tokens, picks, n_picks, pick_layout, OC_LIMIT_CTX_TOKENS)};
static const struct oc_ipc_wire_layout tokens_layout = LAYOUT("TOKENS", oc_ipc_tokens, tokens_fields);

#define T oc_ipc_done
static const struct oc_ipc_wire_field done_fields[] = {
    I32(T, finish, 0, OC_IPC_FINISH_ERROR),
    I32(T, err, 0, MAX_ERR),
    STR(T, message),
    I32(T, n_prompt, 0, OC_LIMIT_CTX_TOKENS),
    I32(T, n_cached, 0, OC_LIMIT_CTX_TOKENS),
    I32(T, n_image, 0, OC_LIMIT_CTX_TOKENS),
    I32(T, n_output, 0, OC_LIMIT_CTX_TOKENS),
    I32(T, n_image_cached, 0, OC_LIMIT_CTX_TOKENS),
    N64(T, queue_ms),
    N64(T, encode_ms),
    N64(T, prefill_ms),
    N64(T, decode_ms),
};
static const struct oc_ipc_wire_layout done_layout = LAYOUT("DONE", T, done_fields);
#undef T

#define T oc_ipc_look
static const struct oc_ipc_wire_field look_fields[] = {
    SUB(T, rules, rules_layout), N64(T, min_pixels), N64(T, max_pixels),       I32(T, max_tokens, 0, INT32_MAX),
    N64(T, max_bytes),           N64(T, max_image_pixels), I32(T, max_side_px, 0, INT32_MAX),
};
static const struct oc_ipc_wire_layout look_layout = LAYOUT("LOOK", T, look_fields);
#undef T

#define T oc_ipc_seen
static const struct oc_ipc_wire_field seen_fields[] = {
    I32(T, width, 1, OC_LIMIT_IMAGE_SIDE_PX), I32(T, height, 1, OC_LIMIT_IMAGE_SIDE_PX), SUB(T, plan, plan_layout),
    RAW(T, digest, OC_IPC_DIGEST_BYTES),      N64(T, decode_ms),                         N64(T, resize_ms),
};
static const struct oc_ipc_wire_layout seen_layout = LAYOUT("SEEN", T, seen_fields);
#undef T

static const struct oc_ipc_wire_field unseen_fields[] = {I32(oc_ipc_unseen, err, 0, MAX_ERR), STR(oc_ipc_unseen, message)};
static const struct oc_ipc_wire_layout unseen_layout = LAYOUT("UNSEEN", oc_ipc_unseen, unseen_fields);

/* ---- The functions of the header -------------------------------------------------------------------------- */

#define DEFINE(name, type)                                                                                    \
    bool oc_ipc_##name##_write(struct oc_buf *b, const struct type *m) {                                      \
        return oc_ipc_wire_write(b, &name##_layout, m);                                                       \
    }                                                                                                         \
    enum oc_err oc_ipc_##name##_read(struct oc_arena *a, const uint8_t *payload, size_t n_bytes, struct type *m,\
                                     struct oc_errinfo *ei) {                                                 \
        return oc_ipc_wire_read(a, &name##_layout, payload, n_bytes, m, ei);                                  \
    }
DEFINE(ready, oc_ipc_ready)
DEFINE(refused, oc_ipc_refused)
DEFINE(job, oc_ipc_job)
DEFINE(stage, oc_ipc_stage_entered)
DEFINE(tokens, oc_ipc_tokens)
DEFINE(done, oc_ipc_done)
DEFINE(look, oc_ipc_look)
DEFINE(seen, oc_ipc_seen)
DEFINE(unseen, oc_ipc_unseen)

const char *oc_ipc_type_name(uint16_t type) {
    static const char *const names[] = {
        "?",
#define X(NAME, name, from) #NAME,
        OC_IPC_MESSAGES(X)
#undef X
    };
    return type < sizeof names / sizeof *names ? names[type] : "?";
}
