/* server/tokens.c - POST /tokenize and /detokenize: a model's tokenizer without its worker. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "api/request.h"
#include "api/response.h"
#include "base/limits.h"
#include "chat/detok.h"
#include "chat/messages.h"
#include "server/endpoints.h"
#include "server/models.h"

struct job {
    struct oc_server_user user;
    struct oc_server *s;
    const char *endpoint;
    uint64_t received_ns;
    bool decode, pinned; /* pinned: a crew works on it */
    struct oc_server_work work;
    struct oc_server_lookup lookup;
    struct oc_server_want want;
    struct oc_arena arena;
    struct oc_buf body, text;
    struct oc_api_tokenize encode_args;
    struct oc_api_detokenize decode_args;
    struct oc_chat_ids ids;
    struct oc_api_error error;
    bool ok;
};

/* ---- The end ------------------------------------------------------------------------------------------- */

static void finish(struct job *j) {
    if (j->want.model) oc_server_model_release(&j->want);
    oc_arena_free(&j->arena);
    oc_buf_free(&j->body);
    oc_buf_free(&j->text);
    oc_chat_ids_free(&j->ids);
    j->s->n_calls--;
    oc_server_progress(j->s);
    free(j);
}

static void fail(struct job *j, const struct oc_api_error *e) {
    struct oc_http_exchange *x = oc_server_call_detach(&j->user);
    if (x) oc_server_call_reply_error(j->s, x, j->endpoint, e, j->received_ns);
    finish(j);
}

static void on_gone(struct oc_server_user *u) {
    struct job *j = (struct job *)u;
    if (!j->pinned) finish(j); /* else when the crew is done with it */
}

static void answer(struct job *j) {
    struct oc_buf b;
    oc_buf_init(&b, 2 * OC_LIMIT_PROMPT_BYTES);
    if (j->decode)
        oc_api_write_detokenized(&b, (struct oc_str){oc_buf_str(&j->text), j->text.n_bytes});
    else
        oc_api_write_tokens(&b, (const int32_t *)j->ids.v, j->ids.n,
                            oc_server_model_ctx_tokens(j->want.model));
    oc_server_call_reply_json(j->s, oc_server_call_detach(&j->user), j->endpoint, 200, &b, j->received_ns);
    oc_buf_free(&b);
    finish(j);
}

/* ---- Work ---------------------------------------------------------------------------------------------- */

static enum oc_err encode(struct job *j, const struct oc_chat_model *chat, struct oc_errinfo *ei) {
    struct oc_chat_messages m;
    const struct oc_api_tokenize *t = &j->encode_args;
    if (t->messages.type == OC_JSON_NULL) {
        const uint8_t *origin = t->parse_special ? NULL : oc_arena_alloc(&j->arena, t->prompt.n + 1);
        if (!t->parse_special && !origin) return oc_fail(ei, OC_ERR_NOMEM, "no memory for the prompt");
        return oc_chat_tokenizer_encode(chat->tokenizer, t->prompt, origin, 0, &j->ids, ei);
    }
    if (!chat->template_) {
        *ei = chat->template_error;
        return oc_fail_prefix(ei, OC_ERR_UNSUPPORTED, "this model cannot chat");
    }
    OC_TRY(oc_chat_messages_prepare(&j->arena, &t->messages, oc_chat_template_takes_text(chat->template_),
                                    oc_chat_template_takes_parts(chat->template_), &m, ei));
    return oc_chat_model_encode(chat, &m.list, NULL, t->add_generation_prompt, &j->ids, ei);
}

static void run(struct oc_server_work *w) {
    struct job *j = (struct job *)((char *)w - offsetof(struct job, work));
    const struct oc_chat_model *chat = j->want.model->chat;
    struct oc_errinfo ei;
    enum oc_err err = j->decode ? oc_chat_detok_all(chat->tokenizer, (const uint32_t *)j->decode_args.tokens,
                                                    j->decode_args.n_tokens, false, &j->text, &ei)
                                : encode(j, chat, &ei);
    j->ok = !err;
    if (err) oc_api_fail(&j->error, oc_api_problem_of(err), NULL, "%s", ei.msg);
}

static void ran(struct oc_server_work *w) {
    struct job *j = (struct job *)((char *)w - offsetof(struct job, work));
    j->pinned = false;
    if (!j->user.x)
        finish(j);
    else if (j->ok)
        answer(j);
    else
        fail(j, &j->error);
}

static void post(struct job *j, void (*run_it)(struct oc_server_work *),
                 void (*done)(struct oc_server_work *)) {
    j->pinned = true;
    j->work = (struct oc_server_work){.run = run_it, .done = done};
    oc_server_crew_post(j->s->quick, &j->work);
}

static void on_have(struct oc_server_want *w, const struct oc_api_error *err) {
    struct job *j = (struct job *)((char *)w - offsetof(struct job, want));
    if (err)
        fail(j, err);
    else
        post(j, run, ran);
}

static void found(struct job *j, struct oc_server_model *m, const struct oc_api_error *err) {
    if (err) {
        fail(j, err);
        return;
    }
    j->want.on_have = on_have;
    if (oc_server_model_want(m, &j->want)) post(j, run, ran);
}

static void looked_up(struct oc_server_lookup *l, struct oc_server_model *m, const struct oc_api_error *err) {
    struct job *j = (struct job *)((char *)l - offsetof(struct job, lookup));
    j->pinned = false;
    if (j->user.x)
        found(j, m, err);
    else
        finish(j);
}

static void run_parse(struct oc_server_work *w) {
    struct job *j = (struct job *)((char *)w - offsetof(struct job, work));
    struct oc_str body = {oc_buf_str(&j->body), j->body.n_bytes};
    j->ok = j->decode ? oc_api_detokenize_parse(&j->arena, body, &j->decode_args, &j->error)
                      : oc_api_tokenize_parse(&j->arena, body, &j->encode_args, &j->error);
}

static void parsed(struct oc_server_work *w) {
    struct job *j = (struct job *)((char *)w - offsetof(struct job, work));
    struct oc_server_model *m;
    struct oc_api_error e;
    j->pinned = false;
    if (!j->user.x) {
        finish(j);
    } else if (!j->ok) {
        fail(j, &j->error);
    } else {
        j->lookup.done = looked_up;
        struct oc_str model = j->decode ? j->decode_args.model : j->encode_args.model;
        j->pinned = !oc_server_models_find(&j->lookup, j->s, model, &m, &e);
        if (!j->pinned) found(j, m, m ? NULL : &e);
    }
}

static void start(struct oc_server_ask *a, bool decode) {
    struct job *j = calloc(1, sizeof *j);
    if (!j) {
        struct oc_api_error e = {0};
        oc_api_fail(&e, OC_API_INTERNAL, NULL, "out of memory");
        oc_server_ask_fail(a, &e);
        return;
    }
    j->s = a->s;
    j->s->n_calls++;
    j->endpoint = a->endpoint;
    j->received_ns = a->h->received_ns;
    j->decode = decode;
    j->user.on_gone = on_gone;
    oc_arena_init(&j->arena, OC_LIMIT_JSON_BYTES);
    oc_buf_init(&j->body, 0);
    oc_buf_init(&j->text, OC_LIMIT_PROMPT_BYTES);
    oc_chat_ids_init(&j->ids, OC_LIMIT_PROMPT_BYTES);
    oc_server_call_attach(&j->user, a->x);
    oc_http_take_body(a->x, &j->body);
    post(j, run_parse, parsed);
}

void oc_server_tokens_encode(struct oc_server_ask *a) {
    start(a, false);
}

void oc_server_tokens_decode(struct oc_server_ask *a) {
    start(a, true);
}
