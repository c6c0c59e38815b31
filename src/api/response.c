#include "api/response.h"

#include <math.h>
#include <stdio.h>

#include "base/json.h"

/* ---- Pieces -------------------------------------------------------------------------------------------- */

static void put_text(struct oc_buf *b, const char *before, struct oc_str s) {
    oc_buf_add_str(b, before);
    oc_json_write_str(b, s);
}

static void put_int(struct oc_buf *b, const char *before, int64_t i) {
    oc_buf_printf(b, "%s%lld", before, (long long)i);
}

static void put_bool(struct oc_buf *b, const char *before, bool value) {
    oc_buf_printf(b, "%s%s", before, value ? "true" : "false");
}

/* {"id":...,"object":...,"created":...,"model":...,"system_fingerprint":... */
static void put_head(struct oc_buf *b, const struct oc_api_answer *a, const char *object) {
    put_text(b, "{\"id\":", oc_str_from(a->id));
    put_text(b, ",\"object\":", oc_str_from(object));
    put_int(b, ",\"created\":", a->created);
    put_text(b, ",\"model\":", a->model);
    oc_buf_add_str(b, ",\"system_fingerprint\":");
    if (a->fingerprint)
        oc_json_write_str(b, oc_str_from(a->fingerprint));
    else
        oc_buf_add_str(b, "null");
}

static void put_finish(struct oc_buf *b, enum oc_api_finish finish) {
    static const char *const names[] = {[OC_API_FINISH_NONE] = "null",
                                        [OC_API_FINISH_STOP] = "\"stop\"",
                                        [OC_API_FINISH_LENGTH] = "\"length\""};
    oc_buf_printf(b, ",\"finish_reason\":%s}", names[finish]);
}

/* ---- Log-probabilities --------------------------------------------------------------------------------- */

/* Not finite: -9999, as OpenAI says "impossible". */
static void put_logprob(struct oc_buf *b, double p) {
    oc_json_write_double(b, isfinite(p) ? p : -9999.0);
}

/* {"token":...,"logprob":...,"bytes":[...] */
static void put_chat_token(struct oc_buf *b, const struct oc_api_logprob *t) {
    put_text(b, "{\"token\":", t->bytes);
    oc_buf_add_str(b, ",\"logprob\":");
    put_logprob(b, t->logprob);
    oc_buf_add_str(b, ",\"bytes\":[");
    for (size_t i = 0; i < t->bytes.n; i++) oc_buf_printf(b, "%s%d", i ? "," : "", (uint8_t)t->bytes.p[i]);
    oc_buf_add_str(b, "]");
}

static void put_chat_logprobs(struct oc_buf *b, const struct oc_api_choice *c) {
    oc_buf_add_str(b, "{\"content\":[");
    for (size_t i = 0; i < c->n_logprobs; i++) {
        const struct oc_api_token_logprobs *t = &c->logprobs[i];
        if (i) oc_buf_add_char(b, ',');
        put_chat_token(b, &t->token);
        oc_buf_add_str(b, ",\"top_logprobs\":[");
        for (int k = 0; k < t->n_top; k++) {
            if (k) oc_buf_add_char(b, ',');
            put_chat_token(b, &t->top[k]);
            oc_buf_add_char(b, '}');
        }
        oc_buf_add_str(b, "]}");
    }
    oc_buf_add_str(b, "],\"refusal\":null}");
}

/* A token as the old form has it, which has no bytes: those that are no text are written "bytes:\xf0\x9f". */
static void put_old_token(struct oc_buf *b, struct oc_str bytes) {
    if (oc_utf8_valid(bytes.p, bytes.n)) {
        oc_json_write_str(b, bytes);
        return;
    }
    oc_buf_add_str(b, "\"bytes:");
    for (size_t i = 0; i < bytes.n; i++) oc_buf_printf(b, "\\\\x%02x", (uint8_t)bytes.p[i]);
    oc_buf_add_char(b, '"');
}

static bool is_listed(const struct oc_api_token_logprobs *t, int n, struct oc_str bytes) {
    for (int k = 0; k < n; k++)
        if (oc_str_eq(t->top[k].bytes, bytes)) return true;
    return false;
}

/* {"token":logprob,...}, the chosen one too; of two tokens that read the same the likelier one is listed. */
static void put_old_top(struct oc_buf *b, const struct oc_api_token_logprobs *t) {
    bool any = false;
    oc_buf_add_char(b, '{');
    for (int k = 0; k <= t->n_top; k++) {
        const struct oc_api_logprob *p = k < t->n_top ? &t->top[k] : &t->token;
        if (is_listed(t, k, p->bytes)) continue;
        if (any) oc_buf_add_char(b, ',');
        any = true;
        put_old_token(b, p->bytes);
        oc_buf_add_char(b, ':');
        put_logprob(b, p->logprob);
    }
    oc_buf_add_char(b, '}');
}

/* Characters that begin in bytes. */
static size_t n_characters(struct oc_str bytes) {
    size_t n = 0;
    for (size_t i = 0; i < bytes.n; i++) n += ((uint8_t)bytes.p[i] & 0xC0) != 0x80;
    return n;
}

static void put_old_logprobs(struct oc_buf *b, const struct oc_api_choice *c) {
    size_t offset = c->text_offset;
    bool any_top = false;
    oc_buf_add_str(b, "{\"tokens\":[");
    for (size_t i = 0; i < c->n_logprobs; i++) {
        if (i) oc_buf_add_char(b, ',');
        put_old_token(b, c->logprobs[i].token.bytes);
        any_top |= c->logprobs[i].n_top > 0;
    }
    oc_buf_add_str(b, "],\"token_logprobs\":[");
    for (size_t i = 0; i < c->n_logprobs; i++) {
        if (i) oc_buf_add_char(b, ',');
        put_logprob(b, c->logprobs[i].token.logprob);
    }
    oc_buf_add_str(b, any_top ? "],\"top_logprobs\":[" : "],\"top_logprobs\":null");
    for (size_t i = 0; any_top && i < c->n_logprobs; i++) {
        if (i) oc_buf_add_char(b, ',');
        put_old_top(b, &c->logprobs[i]);
    }
    oc_buf_add_str(b, any_top ? "],\"text_offset\":[" : ",\"text_offset\":[");
    for (size_t i = 0; i < c->n_logprobs; i++) {
        put_int(b, i ? "," : "", (int64_t)offset);
        offset += n_characters(c->logprobs[i].token.bytes);
    }
    oc_buf_add_str(b, "]}");
}

static void put_logprobs(struct oc_buf *b, bool is_chat, const struct oc_api_choice *c) {
    oc_buf_add_str(b, ",\"logprobs\":");
    if (!c->logprobs)
        oc_buf_add_str(b, "null");
    else if (is_chat)
        put_chat_logprobs(b, c);
    else
        put_old_logprobs(b, c);
}

/* ---- Usage, timings, images ---------------------------------------------------------------------------- */

static double rate(int64_t n_tokens, double ms) {
    return n_tokens > 0 && ms > 0 ? (double)n_tokens * 1000 / ms : 0;
}

/* chat: tokens_per_sec, which the clients of the first server read: answer tokens by the time from prefill
 * on. */
static void put_usage(struct oc_buf *b, bool is_chat, const struct oc_api_usage *u,
                      const struct oc_api_timings *t) {
    put_int(b, ",\"usage\":{\"prompt_tokens\":", u->prompt_tokens);
    put_int(b, ",\"completion_tokens\":", u->completion_tokens);
    put_int(b, ",\"total_tokens\":", u->prompt_tokens + u->completion_tokens);
    put_int(b, ",\"prompt_tokens_details\":{\"cached_tokens\":", u->cached_tokens);
    put_int(b, ",\"image_tokens\":", u->image_tokens);
    oc_buf_add_char(b, '}');
    if (is_chat && t) {
        oc_buf_add_str(b, ",\"tokens_per_sec\":");
        oc_json_write_double(b, round(rate(u->completion_tokens, t->prefill_ms + t->decode_ms) * 100) / 100);
    }
    oc_buf_add_char(b, '}');
}

static void put_timings(struct oc_buf *b, const struct oc_api_timings *t) {
    const struct {
        const char *name;
        double ms;
    } stages[] = {
        {"queue_ms", t->queue_ms},   {"fetch_ms", t->fetch_ms},     {"image_ms", t->image_ms},
        {"vision_ms", t->encode_ms}, {"prefill_ms", t->prefill_ms}, {"ttft_ms", t->ttft_ms},
        {"decode_ms", t->decode_ms},
    };
    oc_buf_add_str(b, ",\"timings\":{");
    for (size_t i = 0; i < sizeof stages / sizeof *stages; i++)
        oc_buf_printf(b, "\"%s\":%.3f,", stages[i].name, isfinite(stages[i].ms) ? stages[i].ms : 0);
    oc_buf_printf(b, "\"n_prompt\":%d,\"n_cached\":%d,\"n_image\":%d,\"n_decode\":%d,", t->n_prompt,
                  t->n_cached, t->n_image, t->n_decode);
    oc_buf_printf(b, "\"prefill_tok_s\":%.3f,\"decode_tok_s\":%.3f}",
                  rate((int64_t)t->n_prompt - t->n_cached, t->prefill_ms),
                  rate((int64_t)t->n_decode - 1, t->decode_ms));
}

static void put_images(struct oc_buf *b, const struct oc_api_image_report *images, size_t n) {
    oc_buf_add_str(b, ",\"images\":[");
    for (size_t i = 0; i < n; i++) {
        const struct oc_api_image_report *p = &images[i];
        oc_buf_printf(b, "%s{\"original\":[%d,%d],\"resized\":[%d,%d],\"grid\":[%d,%d,%d],\"tokens\":%d}",
                      i ? "," : "", p->width, p->height, p->resized_width, p->resized_height, p->grid_t,
                      p->grid_h, p->grid_w, p->n_tokens);
    }
    oc_buf_add_char(b, ']');
}

/* What ends a whole answer and a stream alike. */
static void put_figures(struct oc_buf *b, const struct oc_api_answer *a, const struct oc_api_usage *u,
                        const struct oc_api_timings *t, const struct oc_api_image_report *images,
                        size_t n_images) {
    put_usage(b, a->is_chat, u, t);
    if (t) put_timings(b, t);
    if (a->is_chat || n_images) put_images(b, images, n_images);
    oc_buf_add_char(b, '}');
}

/* {"text":...,"index":... */
static void put_old_text(struct oc_buf *b, const struct oc_api_choice *c) {
    put_text(b, "{\"text\":", c->text);
    put_int(b, ",\"index\":", c->index);
}

/* ---- Streams ------------------------------------------------------------------------------------------- */

static void begin_chunk(struct oc_buf *b, const struct oc_api_answer *a) {
    put_head(b, a, a->is_chat ? "chat.completion.chunk" : "text_completion");
    oc_buf_add_str(b, ",\"choices\":[");
}

static void end_chunk(struct oc_buf *b, const struct oc_api_answer *a) {
    oc_buf_add_str(b, a->include_usage ? "],\"usage\":null}" : "]}");
}

void oc_api_write_role_chunk(struct oc_buf *b, const struct oc_api_answer *a, int index) {
    if (!a->is_chat) return;
    begin_chunk(b, a);
    put_int(b, "{\"index\":", index);
    oc_buf_add_str(b, ",\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null");
    put_finish(b, OC_API_FINISH_NONE);
    end_chunk(b, a);
}

/* A delta always has content, "" where there is no text: some clients look for it in the last chunk too. */
static void put_delta(struct oc_buf *b, const struct oc_api_choice *c) {
    put_int(b, "{\"index\":", c->index);
    put_text(b, ",\"delta\":{\"content\":", c->text);
    oc_buf_add_char(b, '}');
}

void oc_api_write_chunk(struct oc_buf *b, const struct oc_api_answer *a, const struct oc_api_choice *c) {
    begin_chunk(b, a);
    if (!a->is_chat)
        put_old_text(b, c);
    else
        put_delta(b, c);
    put_logprobs(b, a->is_chat, c);
    put_finish(b, c->finish);
    end_chunk(b, a);
}

void oc_api_write_usage_chunk(struct oc_buf *b, const struct oc_api_answer *a, const struct oc_api_usage *u,
                              const struct oc_api_timings *t, const struct oc_api_image_report *images,
                              size_t n_images) {
    put_head(b, a, a->is_chat ? "chat.completion.chunk" : "text_completion");
    oc_buf_add_str(b, ",\"choices\":[]");
    put_figures(b, a, u, t, images, n_images);
}

/* ---- Whole answers ------------------------------------------------------------------------------------- */

static void put_choice(struct oc_buf *b, bool is_chat, const struct oc_api_choice *c) {
    if (is_chat) {
        put_int(b, "{\"index\":", c->index);
        put_text(b, ",\"message\":{\"role\":\"assistant\",\"content\":", c->text);
        oc_buf_add_str(b, ",\"refusal\":null}");
    } else {
        put_old_text(b, c);
    }
    put_logprobs(b, is_chat, c);
    put_finish(b, c->finish);
}

void oc_api_write_answer(struct oc_buf *b, const struct oc_api_answer *a, const struct oc_api_choice *choices,
                         size_t n_choices, const struct oc_api_usage *u, const struct oc_api_timings *t,
                         const struct oc_api_image_report *images, size_t n_images) {
    put_head(b, a, a->is_chat ? "chat.completion" : "text_completion");
    oc_buf_add_str(b, ",\"choices\":[");
    for (size_t i = 0; i < n_choices; i++) {
        if (i) oc_buf_add_char(b, ',');
        put_choice(b, a->is_chat, &choices[i]);
    }
    oc_buf_add_char(b, ']');
    put_figures(b, a, u, t, images, n_images);
}

/* ---- Models, tokens, ids ------------------------------------------------------------------------------- */

void oc_api_write_model(struct oc_buf *b, const struct oc_api_model *m) {
    put_text(b, "{\"id\":", m->id);
    put_int(b, ",\"object\":\"model\",\"created\":", m->created);
    put_text(b, ",\"owned_by\":", m->owned_by);
    put_bool(b, ",\"loaded\":", m->loaded);
    put_bool(b, ",\"capabilities\":{\"text\":true,\"vision\":", m->vision);
    oc_buf_add_str(b, m->vision ? "},\"modalities\":[\"text\",\"image\"]" : "},\"modalities\":[\"text\"]");
    if (m->ctx_tokens > 0)
        put_int(b, ",\"max_model_len\":", m->ctx_tokens);
    else
        oc_buf_add_str(b, ",\"max_model_len\":null");
    oc_buf_add_char(b, '}');
}

void oc_api_write_models(struct oc_buf *b, const struct oc_api_model *m, size_t n) {
    oc_buf_add_str(b, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < n; i++) {
        if (i) oc_buf_add_char(b, ',');
        oc_api_write_model(b, &m[i]);
    }
    oc_buf_add_str(b, "]}");
}

void oc_api_write_tokens(struct oc_buf *b, const int32_t *tokens, size_t n, int max_model_len) {
    put_int(b, "{\"count\":", (int64_t)n);
    if (max_model_len > 0)
        put_int(b, ",\"max_model_len\":", max_model_len);
    else
        oc_buf_add_str(b, ",\"max_model_len\":null");
    oc_buf_add_str(b, ",\"tokens\":[");
    for (size_t i = 0; i < n; i++) put_int(b, i ? "," : "", tokens[i]);
    oc_buf_add_str(b, "]}");
}

void oc_api_write_detokenized(struct oc_buf *b, struct oc_str text) {
    put_text(b, "{\"prompt\":", text);
    oc_buf_add_char(b, '}');
}

void oc_api_make_id(bool is_chat, const uint8_t random[12], char out[40]) {
    int n = snprintf(out, 40, "%s", is_chat ? "chatcmpl-" : "cmpl-");
    for (int i = 0; i < 12; i++) n += snprintf(out + n, (size_t)(40 - n), "%02x", random[i]);
}
