/* server/prompt.c - the prompt of a request: template and tokens on a crew, limits, and the jobs for the
 * worker. */
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/digest.h"
#include "chat/messages.h"
#include "server/record.h"
#include "server/request.h"

/* ---- Template and tokenizer ---------------------------------------------------------------------------- */

static enum oc_err encode_chat(struct oc_server_request *r, struct oc_errinfo *ei) {
    const struct oc_chat_model *chat = r->model->chat;
    struct oc_chat_messages m;
    if (!chat->template_) {
        *ei = chat->template_error;
        return oc_fail_prefix(ei, OC_ERR_UNSUPPORTED, "this model cannot chat");
    }
    OC_TRY(oc_chat_messages_prepare(&r->arena, &r->api.messages, oc_chat_template_takes_text(chat->template_),
                                    oc_chat_template_takes_parts(chat->template_), &m, ei));
    if (m.n_images != r->api.n_pictures)
        return oc_fail(ei, OC_ERR_FORMAT, "%zu picture parts, but %zu of them name a picture", m.n_images,
                       r->api.n_pictures);
    return oc_chat_model_encode(chat, &m.list, r->api.chat_template_kwargs, r->api.add_generation_prompt,
                                &r->ids, ei);
}

static enum oc_err encode_text(struct oc_server_request *r, struct oc_errinfo *ei) {
    const struct oc_chat_tokenizer *tok = r->model->chat->tokenizer;
    const struct oc_api_request *a = &r->api;
    if (!a->prompt_tokens) {
        if (a->echo && !oc_buf_add(&r->echo, a->prompt.p, a->prompt.n))
            return oc_fail(ei, OC_ERR_LIMIT, "the prompt is too long to be echoed");
        return oc_chat_tokenizer_encode(tok, a->prompt, NULL, OC_CHAT_ENCODE_ADD_SPECIAL, &r->ids, ei);
    }
    for (size_t i = 0; i < a->n_prompt_tokens; i++) {
        int32_t t = a->prompt_tokens[i];
        if (t < 0) return oc_fail(ei, OC_ERR_FORMAT, "prompt[%zu] is no token: %d", i, t);
        OC_TRY(oc_chat_ids_push(&r->ids, (uint32_t)t, ei));
    }
    return a->echo ? oc_chat_detok_all(tok, r->ids.v, r->ids.n, false, &r->echo, ei) : OC_OK;
}

static void run_prompt(struct oc_server_work *w) {
    struct oc_server_request *r =
        (struct oc_server_request *)((char *)w - offsetof(struct oc_server_request, work));
    uint64_t start = oc_clock_ns();
    r->prompt_err = r->is_chat ? encode_chat(r, &r->prompt_ei) : encode_text(r, &r->prompt_ei);
    r->prompt_ms = oc_clock_ms_since(start);
}

static void done_prompt(struct oc_server_work *w) {
    struct oc_server_request *r =
        (struct oc_server_request *)((char *)w - offsetof(struct oc_server_request, work));
    struct oc_api_error e = {0};
    if (!oc_server_request_unpin(r)) return;
    if (!r->prompt_err) {
        oc_metrics_observe(r->s->metrics, OC_M_PROMPT_TIME, r->model->id, NULL, r->prompt_ms / 1e3);
        oc_server_request_part_done(r);
        return;
    }
    oc_api_fail(&e, oc_api_problem_of(r->prompt_err), r->is_chat ? "messages" : "prompt", "%s",
                r->prompt_ei.msg);
    oc_server_request_fail(r, &e);
}

void oc_server_prompt_start(struct oc_server_request *r) {
    r->work = (struct oc_server_work){.run = run_prompt, .done = done_prompt};
    r->n_pins++;
    oc_server_crew_post(r->s->quick, &r->work);
}

/* ---- Limits -------------------------------------------------------------------------------------------- */

static bool check_ids(struct oc_server_request *r, struct oc_api_error *e) {
    const struct oc_ipc_ready *ready = &r->model->ready;
    size_t n_slots = 0;
    for (size_t i = 0; i < r->ids.n; i++) {
        if (r->ids.v[i] >= (uint32_t)ready->n_vocab)
            return oc_api_fail(e, OC_API_BAD_REQUEST, "prompt",
                               "token %u is not in the model's vocabulary of %d", r->ids.v[i],
                               ready->n_vocab);
        n_slots += ready->rules.kind != 0 && r->ids.v[i] == (uint32_t)ready->image_token;
    }
    if (n_slots != r->n_pictures)
        return oc_api_fail(
            e, OC_API_BAD_REQUEST, r->is_chat ? "messages" : "prompt",
            "the prompt has places for %zu pictures, and the request %zu: the chat template does not "
            "put every picture in",
            n_slots, r->n_pictures);
    for (size_t i = 0; i < r->api.n_biases; i++)
        if (r->api.biases[i].token < 0 || r->api.biases[i].token >= ready->n_vocab)
            return oc_api_fail(e, OC_API_BAD_REQUEST, "logit_bias",
                               "token %d is not in the model's vocabulary of %d", r->api.biases[i].token,
                               ready->n_vocab);
    return true;
}

bool oc_server_prompt_check(struct oc_server_request *r, struct oc_api_error *e) {
    const struct oc_ipc_ready *ready = &r->model->ready;
    if (!check_ids(r, e)) return false;
    r->n_image = 0;
    for (size_t i = 0; i < r->n_pictures; i++) r->n_image += r->pictures[i].seen.plan.n_tokens;
    r->n_prompt = (int64_t)r->ids.n - (int64_t)r->n_pictures + r->n_image;
    const char *param = r->is_chat ? "messages" : "prompt";
    if (r->n_prompt == 0) return oc_api_fail(e, OC_API_BAD_REQUEST, param, "the prompt is empty");
    int ctx =
        ready->kv_tokens > 0 && ready->kv_tokens < ready->ctx_tokens ? ready->kv_tokens : ready->ctx_tokens;
    int64_t room = ctx - r->n_prompt;
    if (room < 1)
        return oc_api_fail(
            e, OC_API_CONTEXT_LENGTH, param,
            "the context of this model is %d tokens, but the prompt has %lld (%lld of them for pictures) "
            "and an answer needs at least one",
            ctx, (long long)r->n_prompt, (long long)r->n_image);
    if (r->api.max_tokens > room)
        return oc_api_fail(
            e, OC_API_CONTEXT_LENGTH, "max_tokens",
            "the context of this model is %d tokens, but the prompt has %lld (%lld of them for pictures) "
            "and max_tokens asks for %lld more: %lld are left",
            ctx, (long long)r->n_prompt, (long long)r->n_image, (long long)r->api.max_tokens, (long long)room);
    r->max_tokens = r->api.max_tokens > 0 ? r->api.max_tokens : room;
    return true;
}

/* ---- Jobs ---------------------------------------------------------------------------------------------- */

/* The request's values, else the model's own: greedy where its files do not ask for sampling. */
static void set_sampling(const struct oc_server_request *r, struct oc_ipc_sampling *s) {
    const struct oc_api_request *a = &r->api;
    const struct oc_chat_generation *g = &r->model->chat->generation;
#define GIVEN_OR(field, other) ((float)(a->field.given ? a->field.value : (other)))
    s->temperature = GIVEN_OR(temperature, g->do_sample ? g->temperature : 0);
    s->top_p = GIVEN_OR(top_p, g->do_sample ? g->top_p : 1);
    s->min_p = GIVEN_OR(min_p, g->do_sample ? g->min_p : 0);
    s->repetition_penalty = GIVEN_OR(repetition_penalty, g->repetition_penalty);
    s->presence_penalty = GIVEN_OR(presence_penalty, 0);
    s->frequency_penalty = GIVEN_OR(frequency_penalty, 0);
#undef GIVEN_OR
    double top_k = a->top_k.given ? a->top_k.value : g->do_sample ? g->top_k : 0;
    s->top_k = top_k > 0 && top_k < INT_MAX ? (int32_t)top_k : 0;
    s->n_logprobs = a->logprobs ? a->top_logprobs : -1;
}

static void fill_job(struct oc_server_request *r, const struct oc_server_choice *c,
                     struct oc_ipc_bias *biases, struct oc_ipc_job_picture *pictures, struct oc_ipc_job *m) {
    const struct oc_chat_generation *g = &r->model->chat->generation;
    *m = (struct oc_ipc_job){.tokens = (const int32_t *)r->ids.v,
                             .n_tokens = (uint32_t)r->ids.n,
                             .pictures = pictures,
                             .n_pictures = (uint32_t)r->n_pictures,
                             .biases = biases,
                             .n_biases = (uint32_t)r->api.n_biases,
                             .max_tokens = (int32_t)r->max_tokens,
                             .priority = (int32_t)r->priority};
    for (size_t i = 0; i < r->n_pictures; i++) {
        pictures[i].plan = r->pictures[i].seen.plan;
        memcpy(pictures[i].digest, r->pictures[i].seen.digest, OC_IPC_DIGEST_BYTES);
    }
    for (size_t i = 0; i < r->api.n_biases; i++)
        biases[i] = (struct oc_ipc_bias){r->api.biases[i].token, r->api.biases[i].bias};
    for (int i = 0; !r->api.ignore_eos && i < g->n_eos && i < OC_IPC_MAX_EOS; i++)
        m->eos[m->n_eos++] = g->eos[i];
    memcpy(m->salt, r->salt, sizeof m->salt);
    set_sampling(r, &m->sampling);
    m->sampling.seed = c->seed;
}

/* Duplicates for one job: the request keeps its own for a replay. */
static enum oc_err dup_pixels(const struct oc_server_request *r, int *fds, struct oc_errinfo *ei) {
    for (size_t i = 0; i < r->n_pictures; i++) {
        fds[i] = fcntl(r->pictures[i].pixels_fd, F_DUPFD_CLOEXEC, 0);
        if (fds[i] >= 0) continue;
        while (i > 0) close(fds[--i]);
        return oc_fail(ei, OC_ERR_NOMEM, "out of file descriptors");
    }
    return OC_OK;
}

enum oc_err oc_server_prompt_send(struct oc_server_request *r, struct oc_errinfo *ei) {
    struct oc_ipc_bias biases[OC_LIMIT_API_BIASES];
    struct oc_ipc_job_picture pictures[OC_LIMIT_IMAGES_PER_PROMPT];
    int fds[OC_LIMIT_IMAGES_PER_PROMPT];
    struct oc_ipc_job m;
    if (r->api.n_biases > OC_LIMIT_API_BIASES || r->n_pictures > OC_LIMIT_IMAGES_PER_PROMPT)
        return oc_fail(ei, OC_ERR_LIMIT, "too many pictures or biases");
    for (int i = 0; i < r->n_choices; i++) {
        struct oc_server_choice *c = &r->choices[i];
        fill_job(r, c, biases, pictures, &m);
        OC_TRY(dup_pixels(r, fds, ei));
        OC_TRY(oc_server_worker_send(r->model->worker, &c->job, &m, fds, (int)r->n_pictures, ei));
    }
    return OC_OK;
}
