/* cli/run.c - `ocellus run`: one question, one answer. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/limits.h"
#include "cli/chat_model.h"
#include "cli/commands.h"
#include "cli/device.h"
#include "cli/generate.h"
#include "cli/interrupt.h"
#include "cli/out.h"
#include "cli/pictures.h"
#include "cli/prompt.h"
#include "cli/report.h"
#include "cli/run_options.h"

struct run {
    struct oc_cli_run_options o;
    struct oc_arena arena;
    struct oc_cli_prompt prompt;
    struct oc_cli_chat_model model;
    struct oc_cli_pictures pictures;
    struct oc_prompt expanded;
    int32_t *tokens;
    struct oc_prompt_picture *embeddings;
    struct oc_lm_sample_params sample;
    struct oc_cli_answer answer;
    struct oc_cli_out out;
    uint64_t start_ns; /* of the request, after loading */
};

static int or_zero(int64_t n) {
    return n > 0 ? (int)n : 0;
}

static enum oc_err open_model(struct run *r, struct oc_errinfo *ei) {
    const struct oc_cli_run_options *o = &r->o;
    struct oc_engine_params p = {.device = o->device,
                                 .cuda_plugin = oc_cli_device_plugin(&r->arena),
                                 .isa = o->isa,
                                 .batch_mode = o->batch_mode,
                                 .n_threads = or_zero(o->threads),
                                 .ctx_tokens = or_zero(o->ctx),
                                 .image_max_tokens = or_zero(o->image_max_tokens)};
    OC_TRY(oc_cli_chat_model_open(&r->model, o->model, !o->raw, &p, ei));
    if (p.batch_mode && strcmp(p.batch_mode, "throughput") == 0) {
        bool there = oc_engine_info(r->model.engine)->throughput;
        fprintf(stderr, "ocellus: %s\n", there ? OC_THROUGHPUT_SENTENCE : OC_NO_THROUGHPUT_SENTENCE);
    }
    r->sample = oc_cli_chat_model_sampling(&r->model);
    return oc_cli_run_options_sampling(o, &r->sample, ei);
}

/* Pictures -> embeddings, and every placeholder repeated as often as its picture has tokens. */
static enum oc_err expand(struct run *r, struct oc_errinfo *ei) {
    struct oc_engine *e = r->model.engine;
    struct oc_picture_limits lim = {.min_pixels = or_zero(r->o.min_pixels),
                                    .max_pixels = or_zero(r->o.max_pixels)};
    OC_TRY(
        oc_cli_pictures_encode(e, &r->arena, r->prompt.sources, r->prompt.n_sources, &lim, &r->pictures, ei));
    int n = r->pictures.n, n_ids = (int)r->prompt.ids.n;
    struct oc_picture_plan *plans = oc_arena_array(&r->arena, (size_t)n, sizeof *plans);
    r->embeddings = oc_arena_array(&r->arena, (size_t)n, sizeof *r->embeddings);
    int cap = n_ids + r->pictures.n_tokens;
    r->tokens = calloc((size_t)cap + 1, sizeof *r->tokens);
    if (!plans || !r->embeddings || !r->tokens)
        return oc_fail(ei, OC_ERR_NOMEM, "no memory for %d tokens", cap);
    for (int i = 0; i < n; i++) {
        plans[i] = r->pictures.items[i].plan;
        r->embeddings[i] = (struct oc_prompt_picture){plans[i], r->pictures.items[i].embedding};
    }
    const int32_t *ids = (const int32_t *)r->prompt.ids.v;
    r->expanded = (struct oc_prompt){.tokens = r->tokens, .pictures = r->embeddings, .n_pictures = n};
    return oc_prompt_expand(e, ids, n_ids, plans, n, r->tokens, cap, &r->expanded.n_tokens, ei);
}

static enum oc_err stream(void *arg, const char *p, size_t n, struct oc_errinfo *ei) {
    struct run *r = arg;
    return r->o.json ? OC_OK : oc_cli_out_write(&r->out, p, n, ei);
}

static enum oc_err answer(struct run *r, struct oc_errinfo *ei) {
    const struct oc_chat_model *chat = &r->model.chat;
    struct oc_cli_generate_job job = {
        .engine = r->model.engine,
        .tokenizer = r->model.chat.tokenizer,
        .prompt = &r->expanded,
        .ends = r->o.ignore_eos ? NULL : chat,
        .sample = &r->sample,
        .stops = &r->o.stops,
        .max_tokens = r->o.max_tokens > 0 ? r->o.max_tokens : chat->generation.max_new_tokens,
        .speculate = !r->o.speculate || strcmp(r->o.speculate, "off") != 0,
        .start_ns = r->start_ns,
        .on_text = stream,
        .arg = r,
    };
    return oc_cli_generate(&job, &r->answer, ei);
}

/* What comes after the answer: the JSON, or a newline; then the figures. */
static enum oc_err finish(struct run *r, struct oc_errinfo *ei) {
    struct oc_cli_report report = {
        .model = r->model.name,
        .info = oc_engine_info(r->model.engine),
        .pictures = &r->pictures,
        .answer = &r->answer,
        .tokenizer = r->model.chat.tokenizer,
        .sample = &r->sample,
        .load_ms = r->model.load_ms,
    };
    struct oc_buf json;
    oc_buf_init(&json, OC_GIB);
    enum oc_err err = OC_OK;
    if (r->o.json) {
        err = oc_cli_report_json(&report, &json, ei);
        if (!err) err = oc_cli_out_write(&r->out, json.data, json.n_bytes, ei);
    } else if (!r->out.at_line_start || r->answer.text.n_bytes == 0) {
        err = oc_cli_out_write(&r->out, "\n", 1, ei);
    }
    oc_buf_free(&json);
    if (!err) err = oc_cli_out_close(&r->out, ei);
    if (!err && !r->o.json && r->o.n_logprobs >= 0) oc_cli_report_logprobs(&report, stderr);
    if (!err && r->o.stats) oc_cli_report_stats(&report, stderr);
    return err;
}

static enum oc_err run(struct run *r, int argc, char **argv, struct oc_errinfo *ei) {
    OC_TRY(oc_cli_run_options_parse(&r->o, argc, argv, ei));
    OC_TRY(oc_cli_prompt_read(&r->prompt, &r->o, &r->arena, ei));
    OC_TRY(open_model(r, ei));
    oc_cli_interrupt_catch();
    r->start_ns = oc_clock_ns();
    OC_TRY(oc_cli_prompt_encode(&r->prompt, &r->model, &r->arena, ei));
    OC_TRY(expand(r, ei));
    OC_TRY(answer(r, ei));
    return finish(r, ei);
}

static int exit_code(const struct run *r, enum oc_err err, const struct oc_errinfo *ei) {
    if (err == OC_ERR_CANCELLED ||
        (!err && oc_cli_interrupt_came() && r->answer.finish == OC_CLI_FINISH_ABORT))
        return OC_CLI_EXIT_INTERRUPT;
    if (!err) return OC_CLI_EXIT_OK;
    return r->out.reader_gone ? OC_CLI_EXIT_ERROR : oc_cli_main_fail(ei, "run");
}

int oc_cli_run_main(int argc, char **argv) {
    struct run r = {0};
    struct oc_errinfo ei;
    oc_arena_init(&r.arena, OC_GIB);
    oc_cli_out_init(&r.out, STDOUT_FILENO);
    enum oc_err err = run(&r, argc, argv, &ei);
    int code = exit_code(&r, err, &ei);
    oc_cli_generate_free(&r.answer);
    oc_cli_pictures_free(&r.pictures);
    free(r.tokens);
    oc_cli_prompt_free(&r.prompt);
    oc_cli_chat_model_close(&r.model);
    oc_arena_free(&r.arena);
    return code;
}
