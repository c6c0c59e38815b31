#include "cli/generate.h"

#include <string.h>

#include "base/clock.h"
#include "base/limits.h"
#include "chat/detok.h"
#include "chat/stop.h"
#include "cli/interrupt.h"
#include "engine/ngram.h"
#include "engine/speculate.h"

/* What one run of the loop holds. */
struct loop {
    const struct oc_cli_generate_job *job;
    struct oc_cli_answer *out;
    struct oc_session *session;
    struct oc_lm_sampler *sampler;
    struct oc_chat_detok detok;
    struct oc_chat_stop *stop;
    struct oc_buf piece, sure; /* text of one token; what of it cannot be part of a stop string */
    int max_tokens;
    bool stopped; /* a stop string came */
    struct oc_engine_ngram ngram;
    struct oc_engine_speculation speculation;
    struct oc_engine_draft draft; /* that was run behind the last token */
    int32_t rows[1 + OC_ENGINE_DRAFT_ROWS];
    int at; /* of these rows the one whose logits are next */
};

static bool keep_going(void *arg, int n_done, int n_all) {
    (void)arg, (void)n_done, (void)n_all;
    return !oc_cli_interrupt_came();
}

static enum oc_err open_stops(struct loop *l, struct oc_errinfo *ei) {
    struct oc_str strings[OC_CLI_LIST_MAX];
    const struct oc_cli_list *stops = l->job->stops;
    for (int i = 0; i < stops->n; i++) strings[i] = oc_str_from(stops->items[i]);
    return oc_chat_stop_open(strings, (size_t)stops->n, &l->stop, ei);
}

/* The prompt must leave room for at least one token. */
static enum oc_err open_all(struct loop *l, struct oc_errinfo *ei) {
    const struct oc_cli_generate_job *job = l->job;
    const struct oc_engine_info *info = oc_engine_info(job->engine);
    int room = info->ctx_tokens - job->prompt->n_tokens;
    if (room < 1)
        return oc_fail(
            ei, OC_ERR_LIMIT,
            "the prompt has %d tokens, but the context holds %d with the answer: use a larger --ctx, a "
            "smaller --image-max-tokens, or a shorter prompt",
            job->prompt->n_tokens, info->ctx_tokens);
    l->max_tokens = job->max_tokens > 0 && job->max_tokens < room ? (int)job->max_tokens : room;
    oc_buf_init(&l->piece, OC_LIMIT_PROMPT_BYTES);
    oc_buf_init(&l->sure, OC_LIMIT_PROMPT_BYTES);
    oc_chat_detok_init(&l->detok, job->tokenizer, true);
    OC_TRY(open_stops(l, ei));
    OC_TRY(oc_lm_sample_open(job->sample, info->n_vocab, &l->sampler, ei));
    oc_lm_sample_prompt(l->sampler, job->prompt->tokens, job->prompt->n_tokens);
    if (job->speculate) {
        OC_TRY(oc_engine_ngram_open(&l->ngram, job->prompt->n_tokens + l->max_tokens, info->image_token, ei));
        oc_engine_ngram_prompt(&l->ngram, job->prompt->tokens, job->prompt->n_tokens);
    }
    return oc_session_open(job->engine, job->prompt->n_tokens + l->max_tokens, &l->session, ei);
}

static void close_all(struct loop *l) {
    oc_session_close(l->session);
    oc_lm_sample_close(l->sampler);
    oc_engine_ngram_close(&l->ngram);
    oc_chat_stop_close(l->stop);
    oc_buf_free(&l->piece);
    oc_buf_free(&l->sure);
}

/* Gives l->sure, which is part of the answer for certain, to the caller. */
static enum oc_err emit(struct loop *l, struct oc_errinfo *ei) {
    struct oc_buf *text = &l->out->text;
    if (l->sure.n_bytes == 0) return OC_OK;
    if (!oc_buf_add(text, l->sure.data, l->sure.n_bytes))
        return oc_fail(ei, OC_ERR_LIMIT, "the answer is over %zu MiB", text->max_bytes >> 20);
    OC_TRY(l->job->on_text(l->job->arg, l->sure.data, l->sure.n_bytes, ei));
    oc_buf_clear(&l->sure);
    return OC_OK;
}

/* Passes l->piece through the stop strings and on. */
static enum oc_err pass_on(struct loop *l, struct oc_errinfo *ei) {
    int hit = -1;
    struct oc_str piece = {oc_buf_str(&l->piece), l->piece.n_bytes};
    OC_TRY(oc_chat_stop_feed(l->stop, piece, &l->sure, &hit, ei));
    oc_buf_clear(&l->piece);
    l->stopped = hit >= 0;
    return emit(l, ei);
}

/* The text of one token. */
static enum oc_err say(struct loop *l, const struct oc_lm_sample_pick *pick, struct oc_errinfo *ei) {
    if (l->job->sample->n_logprobs >= 0 && !oc_buf_add(&l->out->picks, pick, sizeof *pick))
        return oc_fail(ei, OC_ERR_LIMIT, "the log-probabilities are over %zu MiB",
                       l->out->picks.max_bytes >> 20);
    OC_TRY(oc_chat_detok_feed(&l->detok, (uint32_t)pick->token, &l->piece, ei));
    return pass_on(l, ei);
}

/* What was held back: half a character, the beginning of a stop string. */
static enum oc_err say_rest(struct loop *l, struct oc_errinfo *ei) {
    if (l->stopped) return OC_OK;
    OC_TRY(oc_chat_detok_finish(&l->detok, &l->piece, ei));
    OC_TRY(pass_on(l, ei));
    if (l->stopped) return OC_OK;
    OC_TRY(oc_chat_stop_finish(l->stop, &l->sure, ei));
    return emit(l, ei);
}

static enum oc_err prefill(struct loop *l, struct oc_errinfo *ei) {
    uint64_t start_ns = oc_clock_ns();
    enum oc_err err = oc_session_prefill(l->session, l->job->prompt, keep_going, NULL, ei);
    l->out->prefill_ms = oc_clock_ms_since(start_ns);
    return err;
}

/* Runs a token, and what may follow it as far as that pays. */
static enum oc_err run_rows(struct loop *l, int32_t token, struct oc_errinfo *ei) {
    struct oc_engine_draft *d = &l->draft;
    int left = l->max_tokens - l->out->n_tokens - 1, most = left < OC_ENGINE_DRAFT_ROWS ? left : OC_ENGINE_DRAFT_ROWS;
    d->n = l->job->speculate ? oc_engine_ngram_draft(&l->ngram, most, d->tokens, d->odds) : 0;
    if (l->job->ends) oc_engine_speculate_cut(d, l->job->ends->generation.eos, l->job->ends->generation.n_eos);
    oc_engine_speculate_choose(&l->speculation, d, 1);
    l->rows[0] = token;
    memcpy(l->rows + 1, d->tokens, (size_t)d->n * sizeof *l->rows);
    uint64_t start_ns = oc_clock_ns();
    OC_TRY(oc_session_decode_several(l->session, l->rows, 1 + d->n, ei));
    oc_engine_speculate_learn(&l->speculation, 1, d->n, oc_clock_ms_since(start_ns));
    l->at = 0;
    l->out->n_drafted += d->n;
    return OC_OK;
}

/* Makes the logits behind `token` be at hand: it was drafted and run already, or is run now. */
static enum oc_err go_on(struct loop *l, int32_t token, struct oc_errinfo *ei) {
    if (l->job->speculate) oc_engine_ngram_push(&l->ngram, token);
    if (l->at < l->draft.n && l->draft.tokens[l->at] == token) {
        l->at++;
        l->out->n_accepted++;
        return OC_OK;
    }
    oc_session_truncate(l->session, oc_session_n_tokens(l->session) - (l->draft.n - l->at)); /* drafts that were wrong */
    return run_rows(l, token, ei);
}

/* Picks, says and decodes until the answer ends. */
static enum oc_err decode(struct loop *l, struct oc_errinfo *ei) {
    struct oc_cli_answer *a = l->out;
    uint64_t first_ns = 0;
    for (;;) {
        struct oc_lm_sample_pick pick;
        OC_TRY(oc_lm_sample_pick(l->sampler, oc_engine_logits(l->job->engine, l->at), NULL, &pick, ei));
        if (a->n_tokens++ == 0) {
            first_ns = oc_clock_ns();
            a->ttft_ms = oc_clock_ms_since(l->job->start_ns);
        }
        a->decode_ms = oc_clock_ms_since(first_ns);
        a->finish = OC_CLI_FINISH_STOP;
        if (l->job->ends && oc_chat_model_is_eos(l->job->ends, pick.token)) return OC_OK;
        OC_TRY(say(l, &pick, ei));
        if (l->stopped) return OC_OK;
        a->finish = OC_CLI_FINISH_LENGTH;
        if (a->n_tokens >= l->max_tokens) return OC_OK;
        a->finish = OC_CLI_FINISH_ABORT;
        if (oc_cli_interrupt_came()) return OC_OK;
        OC_TRY(go_on(l, pick.token, ei));
    }
}

enum oc_err oc_cli_generate(const struct oc_cli_generate_job *job, struct oc_cli_answer *out,
                            struct oc_errinfo *ei) {
    struct loop l = {.job = job, .out = out};
    *out = (struct oc_cli_answer){.n_prompt = job->prompt->n_tokens, .finish = OC_CLI_FINISH_ABORT};
    oc_buf_init(&out->text, OC_LIMIT_PROMPT_BYTES);
    oc_buf_init(&out->picks, OC_GIB);
    enum oc_err err = open_all(&l, ei);
    if (!err) err = prefill(&l, ei);
    if (!err) err = decode(&l, ei);
    if (!err) err = say_rest(&l, ei);
    if (err == OC_ERR_CANCELLED) err = OC_OK; /* Ctrl-C before the first token */
    close_all(&l);
    return err;
}

void oc_cli_generate_free(struct oc_cli_answer *a) {
    oc_buf_free(&a->text);
    oc_buf_free(&a->picks);
}

double oc_cli_generate_tok_s(const struct oc_cli_answer *a) {
    return a->n_tokens > 1 && a->decode_ms > 0 ? (a->n_tokens - 1) * 1000.0 / a->decode_ms : 0;
}
