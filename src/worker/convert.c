#include "worker/convert.h"

#include <math.h>
#include <string.h>

_Static_assert((int)OC_IPC_STAGE_ENCODE == OC_SCHED_ENCODE && (int)OC_IPC_STAGE_PREFILL == OC_SCHED_PREFILL &&
                   (int)OC_IPC_STAGE_DECODE == OC_SCHED_DECODE,
               "stages have the same numbers on both sides");
_Static_assert((int)OC_IPC_FINISH_STOP == OC_SCHED_STOP && (int)OC_IPC_FINISH_LENGTH == OC_SCHED_LENGTH &&
                   (int)OC_IPC_FINISH_CANCELLED == OC_SCHED_CANCELLED && (int)OC_IPC_FINISH_ERROR == OC_SCHED_ERROR,
               "ends have the same numbers on both sides");
_Static_assert(OC_IPC_DIGEST_BYTES == OC_SCHED_DIGEST_BYTES && OC_IPC_MAX_EOS == OC_MAX_EOS, "sizes agree");

/* ---- Pictures --------------------------------------------------------------------------------------------- */

static bool all_finite(double rescale, const double mean[3], const double std[3]) {
    bool ok = isfinite(rescale);
    for (int i = 0; i < 3; i++) ok = ok && isfinite(mean[i]) && isfinite(std[i]) && std[i] != 0;
    return ok;
}

static bool is_filter(int32_t resample) {
    return resample >= OC_RESAMPLE_NEAREST && resample <= OC_RESAMPLE_BICUBIC;
}

enum oc_err oc_worker_convert_rules(const struct oc_ipc_picture_rules *in, struct oc_picture_rules *out,
                                    struct oc_errinfo *ei) {
    if (!is_filter(in->resample)) return oc_fail(ei, OC_ERR_FORMAT, "picture rules with filter %d", in->resample);
    if (in->kind && !all_finite(in->rescale, in->mean, in->std))
        return oc_fail(ei, OC_ERR_FORMAT, "picture rules whose values are no numbers");
    *out = (struct oc_picture_rules){.kind = in->kind, .patch = in->patch, .merge = in->merge, .temporal = in->temporal,
                                     .resample = (enum oc_resample)in->resample, .max_tokens = in->max_tokens,
                                     .min_pixels = in->min_pixels, .max_pixels = in->max_pixels, .rescale = in->rescale};
    memcpy(out->mean, in->mean, sizeof out->mean);
    memcpy(out->std, in->std, sizeof out->std);
    return OC_OK;
}

void oc_worker_convert_rules_out(const struct oc_picture_rules *in, struct oc_ipc_picture_rules *out) {
    *out = (struct oc_ipc_picture_rules){.kind = in->kind, .patch = in->patch, .merge = in->merge, .temporal = in->temporal,
                                         .resample = (int32_t)in->resample, .max_tokens = in->max_tokens,
                                         .min_pixels = in->min_pixels, .max_pixels = in->max_pixels, .rescale = in->rescale};
    memcpy(out->mean, in->mean, sizeof out->mean);
    memcpy(out->std, in->std, sizeof out->std);
}

/* The parts agree, and nothing overflows: sides are small, so products fit in 64 bits. */
static bool is_consistent(const struct oc_ipc_picture_plan *p) {
    if (p->patch < 1 || p->merge < 1 || p->temporal < 1 || p->grid_t < 1 || p->grid_h < 1 || p->grid_w < 1) return false;
    if (p->width < 1 || p->width > OC_LIMIT_IMAGE_SIDE_PX || p->height < 1 || p->height > OC_LIMIT_IMAGE_SIDE_PX) return false;
    if (p->patch > OC_LIMIT_IMAGE_SIDE_PX || p->merge > p->grid_h || p->merge > p->grid_w || p->temporal > OC_LIMIT_PATCH_FRAMES)
        return false;
    if ((int64_t)p->grid_h * p->patch != p->height || (int64_t)p->grid_w * p->patch != p->width) return false;
    if (p->grid_h % p->merge || p->grid_w % p->merge) return false;
    const int64_t per_frame = (int64_t)p->grid_h * p->grid_w;
    if (p->grid_t > OC_LIMIT_PATCH_FRAMES || per_frame * p->grid_t != p->n_patches) return false;
    if ((int64_t)3 * p->temporal * p->patch * p->patch != p->patch_dim) return false;
    return p->n_patches / (p->merge * p->merge) == p->n_tokens;
}

enum oc_err oc_worker_convert_plan(const struct oc_ipc_picture_plan *in, const struct oc_picture_rules *rules,
                                   struct oc_picture_plan *out, struct oc_errinfo *ei) {
    if (!is_filter(in->resample) || !all_finite(in->rescale, in->mean, in->std) || !is_consistent(in))
        return oc_fail(ei, OC_ERR_FORMAT, "a picture plan that contradicts itself: %d x %d pixels, grid %d x %d x %d",
                       in->width, in->height, in->grid_t, in->grid_h, in->grid_w);
    if (in->patch != rules->patch || in->merge != rules->merge || in->temporal != rules->temporal)
        return oc_fail(ei, OC_ERR_FORMAT, "a picture plan for another model: patch %d, merge %d, %d frames", in->patch,
                       in->merge, in->temporal);
    if (in->n_tokens > rules->max_tokens)
        return oc_fail(ei, OC_ERR_LIMIT, "a picture of %d tokens, at most %d are allowed", in->n_tokens, rules->max_tokens);
    *out = (struct oc_picture_plan){.width = in->width, .height = in->height, .resample = (enum oc_resample)in->resample,
                                    .rescale = in->rescale, .patch = in->patch, .merge = in->merge,
                                    .temporal = in->temporal, .grid_t = in->grid_t, .grid_h = in->grid_h,
                                    .grid_w = in->grid_w, .n_patches = in->n_patches, .patch_dim = in->patch_dim,
                                    .n_tokens = in->n_tokens};
    memcpy(out->mean, in->mean, sizeof out->mean);
    memcpy(out->std, in->std, sizeof out->std);
    return OC_OK;
}

void oc_worker_convert_plan_out(const struct oc_picture_plan *in, struct oc_ipc_picture_plan *out) {
    *out = (struct oc_ipc_picture_plan){.width = in->width, .height = in->height, .resample = (int32_t)in->resample,
                                        .rescale = in->rescale, .patch = in->patch, .merge = in->merge,
                                        .temporal = in->temporal, .grid_t = in->grid_t, .grid_h = in->grid_h,
                                        .grid_w = in->grid_w, .n_patches = in->n_patches, .patch_dim = in->patch_dim,
                                        .n_tokens = in->n_tokens};
    memcpy(out->mean, in->mean, sizeof out->mean);
    memcpy(out->std, in->std, sizeof out->std);
}

size_t oc_worker_convert_pixel_bytes(const struct oc_picture_plan *plan) {
    return (size_t)plan->width * (size_t)plan->height * 3;
}

/* ---- Jobs ------------------------------------------------------------------------------------------------- */

static enum oc_err convert_pictures(struct oc_arena *a, const struct oc_ipc_job *in, const struct oc_picture_rules *rules,
                                    struct oc_sched_picture **out, struct oc_errinfo *ei) {
    *out = NULL;
    if (in->n_pictures == 0) return OC_OK;
    if (rules->kind == 0) return oc_fail(ei, OC_ERR_UNSUPPORTED, "this model reads text only, it cannot look at pictures");
    *out = oc_arena_array(a, in->n_pictures, sizeof **out);
    if (!*out) return oc_fail(ei, OC_ERR_NOMEM, "no memory for %u pictures", in->n_pictures);
    for (uint32_t i = 0; i < in->n_pictures; i++) {
        OC_TRY(oc_worker_convert_plan(&in->pictures[i].plan, rules, &(*out)[i].plan, ei));
        memcpy((*out)[i].digest, in->pictures[i].digest, OC_SCHED_DIGEST_BYTES);
    }
    return OC_OK;
}

static enum oc_err convert_biases(struct oc_arena *a, const struct oc_ipc_job *in, const struct oc_lm_sample_bias **out,
                                  struct oc_errinfo *ei) {
    struct oc_lm_sample_bias *b = oc_arena_array(a, in->n_biases, sizeof *b);
    *out = b;
    if (!b) return oc_fail(ei, OC_ERR_NOMEM, "no memory for %u biases", in->n_biases);
    for (uint32_t i = 0; i < in->n_biases; i++)
        b[i] = (struct oc_lm_sample_bias){.token = in->biases[i].token, .bias = in->biases[i].bias};
    return OC_OK;
}

enum oc_err oc_worker_convert_job(struct oc_arena *a, uint64_t id, const struct oc_ipc_job *in,
                                  const struct oc_picture_rules *rules, struct oc_sched_job *out,
                                  struct oc_sched_picture **pictures, struct oc_errinfo *ei) {
    const struct oc_ipc_sampling *s = &in->sampling;
    OC_TRY(convert_pictures(a, in, rules, pictures, ei));
    *out = (struct oc_sched_job){
        .id = id,
        .tokens = in->tokens,
        .n_tokens = (int)in->n_tokens,
        .pictures = *pictures,
        .n_pictures = (int)in->n_pictures,
        .sample = {.temperature = s->temperature, .top_k = s->top_k, .top_p = s->top_p, .min_p = s->min_p,
                   .repetition_penalty = s->repetition_penalty, .presence_penalty = s->presence_penalty,
                   .frequency_penalty = s->frequency_penalty, .seed = s->seed, .n_logprobs = s->n_logprobs,
                   .n_biases = (int)in->n_biases},
        .eos = in->eos,
        .n_eos = (int)in->n_eos,
        .max_tokens = in->max_tokens,
        .priority = in->priority,
    };
    memcpy(out->salt, in->salt, OC_SCHED_SALT_BYTES);
    return convert_biases(a, in, &out->sample.biases, ei);
}

/* ---- Answers ---------------------------------------------------------------------------------------------- */

static struct oc_str cut(const char *s) {
    struct oc_str out = oc_str_from(s ? s : "");
    if (out.n > OC_LIMIT_IPC_STRING_BYTES) out.n = OC_LIMIT_IPC_STRING_BYTES;
    return out;
}

void oc_worker_convert_ready(const struct oc_engine_info *in, const struct oc_picture_rules *rules,
                             struct oc_ipc_ready *out) {
    *out = (struct oc_ipc_ready){
        .version = OC_IPC_VERSION,
        .architecture = cut(in->architecture),
        .family = cut(in->family),
        .isa = cut(in->isa),
        .device = cut(in->device),
        .device_name = cut(in->device_name),
        .device_why = cut(in->device_why),
        .throughput = in->throughput,
        .n_threads = in->n_threads,
        .n_vocab = in->n_vocab,
        .ctx_tokens = in->ctx_tokens,
        .model_ctx_tokens = in->model_ctx_tokens,
        .n_sessions = in->n_sessions,
        .kv_tokens = in->kv_tokens,
        .image_max_tokens = in->image_max_tokens,
        .image_token = in->image_token,
        .n_params = in->n_params,
        .weight_bytes = in->weight_bytes,
        .kv_bytes = in->kv_bytes_per_token * (uint64_t)in->kv_tokens,
        .workspace_bytes = in->workspace_bytes,
        .decode_weight_bytes = in->decode_weight_bytes,
        .device_bytes = in->device_bytes,
        .load_ms = in->load_ms,
    };
    oc_worker_convert_rules_out(rules, &out->rules);
}

void oc_worker_convert_pick(const struct oc_lm_sample_pick *in, struct oc_ipc_choice *top, struct oc_ipc_pick *out) {
    OC_ASSERT(in->n_top >= 0 && in->n_top <= OC_LIMIT_TOP_LOGPROBS);
    for (int i = 0; i < in->n_top; i++)
        top[i] = (struct oc_ipc_choice){.token = in->top[i].token, .logprob = (float)in->top[i].logprob};
    *out = (struct oc_ipc_pick){
        .token = in->token, .logprob = (float)in->logprob, .n_top = (uint32_t)in->n_top, .top = top};
}

void oc_worker_convert_done(const struct oc_sched_done *in, struct oc_ipc_done *out) {
    const bool failed = in->finish == OC_SCHED_ERROR;
    *out = (struct oc_ipc_done){
        .finish = (int32_t)in->finish,
        .err = failed ? (int32_t)in->error.code : OC_OK,
        .message = failed ? cut(in->error.msg) : (struct oc_str){"", 0},
        .n_prompt = in->n_prompt,
        .n_cached = in->n_cached,
        .n_image = in->n_image,
        .n_output = in->n_output,
        .n_image_cached = in->n_image_cached,
        .queue_ms = in->queue_ms,
        .encode_ms = in->encode_ms,
        .prefill_ms = in->prefill_ms,
        .decode_ms = in->decode_ms,
    };
}
