#include "cli/report.h"

#include <math.h>
#include <sys/random.h>
#include <time.h>

#include "base/json.h"
#include "base/limits.h"

static const char *const finish_names[] = {"stop", "length", "abort"};

static size_t n_picks(const struct oc_cli_answer *a) {
    return a->picks.n_bytes / sizeof(struct oc_lm_sample_pick);
}

static const struct oc_lm_sample_pick *picks(const struct oc_cli_answer *a) {
    return (const struct oc_lm_sample_pick *)(const void *)a->picks.data;
}

/* Gigabytes of weights a second: tokens that came with another's step read none. */
static double weight_rate(const struct oc_cli_answer *a, const struct oc_engine_info *info) {
    double n = a->n_tokens - 1;
    return n > 0 ? oc_cli_generate_tok_s(a) * (n - a->n_accepted) / n * (double)info->decode_weight_bytes / 1e9 : 0;
}

/* Tokens a second; 0 when no time was measured. */
static double rate(int n_tokens, double ms) {
    return ms > 0 ? n_tokens * 1000.0 / ms : 0;
}

/* ---- JSON ---------------------------------------------------------------------------------------------- */

/* Not finite: -9999, as OpenAI says "impossible". */
static void put_logprob(struct oc_buf *b, double p) {
    oc_buf_add_str(b, ",\"logprob\":");
    oc_json_write_double(b, isfinite(p) ? p : -9999.0);
}

/* "token":"...","logprob":...,"bytes":[...] */
static void put_token(struct oc_buf *b, const struct oc_chat_tokenizer *t, int32_t id, double logprob) {
    struct oc_str bytes = oc_chat_tokenizer_bytes(t, (uint32_t)id);
    oc_buf_add_str(b, "\"token\":");
    oc_json_write_str(b, bytes);
    put_logprob(b, logprob);
    oc_buf_add_str(b, ",\"bytes\":[");
    for (size_t i = 0; i < bytes.n; i++) oc_buf_printf(b, "%s%d", i ? "," : "", (unsigned char)bytes.p[i]);
    oc_buf_add_str(b, "]");
}

static void put_logprobs(struct oc_buf *b, const struct oc_cli_report *r) {
    if (r->sample->n_logprobs < 0) {
        oc_buf_add_str(b, ",\"logprobs\":null");
        return;
    }
    oc_buf_add_str(b, ",\"logprobs\":{\"content\":[");
    for (size_t i = 0; i < n_picks(r->answer); i++) {
        const struct oc_lm_sample_pick *p = &picks(r->answer)[i];
        oc_buf_add_str(b, i ? ",{" : "{");
        put_token(b, r->tokenizer, p->token, p->logprob);
        oc_buf_add_str(b, ",\"top_logprobs\":[");
        for (int k = 0; k < p->n_top; k++) {
            oc_buf_add_str(b, k ? ",{" : "{");
            put_token(b, r->tokenizer, p->top[k].token, p->top[k].logprob);
            oc_buf_add_str(b, "}");
        }
        oc_buf_add_str(b, "]}");
    }
    oc_buf_add_str(b, "],\"refusal\":null}");
}

static void put_choice(struct oc_buf *b, const struct oc_cli_report *r) {
    const struct oc_cli_answer *a = r->answer;
    oc_buf_add_str(b, ",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":");
    oc_json_write_str(b, (struct oc_str){oc_buf_str(&a->text), a->text.n_bytes});
    oc_buf_add_str(b, ",\"refusal\":null}");
    put_logprobs(b, r);
    oc_buf_printf(b, ",\"finish_reason\":\"%s\"}]", finish_names[a->finish]);
}

static void put_usage(struct oc_buf *b, const struct oc_cli_report *r) {
    const struct oc_cli_answer *a = r->answer;
    oc_buf_printf(b,
                  ",\"usage\":{\"prompt_tokens\":%d,\"completion_tokens\":%d,\"total_tokens\":%d,"
                  "\"prompt_tokens_details\":{\"cached_tokens\":0,\"image_tokens\":%d}}",
                  a->n_prompt, a->n_tokens, a->n_prompt + a->n_tokens, r->pictures->n_tokens);
}

static void put_ms(struct oc_buf *b, const char *name, double value) {
    oc_buf_printf(b, "\"%s\":%.3f,", name, value);
}

static void put_timings(struct oc_buf *b, const struct oc_cli_report *r) {
    const struct oc_cli_answer *a = r->answer;
    oc_buf_add_str(b, ",\"timings\":{");
    put_ms(b, "load_ms", r->load_ms);
    put_ms(b, "image_ms", r->pictures->image_ms);
    put_ms(b, "vision_ms", r->pictures->vision_ms);
    put_ms(b, "prefill_ms", a->prefill_ms);
    put_ms(b, "ttft_ms", a->ttft_ms);
    put_ms(b, "decode_ms", a->decode_ms);
    oc_buf_printf(b, "\"n_prompt\":%d,\"n_image\":%d,\"n_decode\":%d,", a->n_prompt, r->pictures->n_tokens,
                  a->n_tokens);
    if (a->n_drafted) oc_buf_printf(b, "\"draft_n\":%d,\"draft_n_accepted\":%d,", a->n_drafted, a->n_accepted);
    oc_buf_printf(b, "\"prefill_tok_s\":%.3f,\"decode_tok_s\":%.3f}", rate(a->n_prompt, a->prefill_ms),
                  oc_cli_generate_tok_s(a));
}

static void put_images(struct oc_buf *b, const struct oc_cli_pictures *all) {
    oc_buf_add_str(b, ",\"images\":[");
    for (int i = 0; i < all->n; i++) {
        const struct oc_cli_picture *p = &all->items[i];
        oc_buf_printf(b, "%s{\"original\":[%d,%d],\"resized\":[%d,%d],\"grid\":[%d,%d,%d],\"tokens\":%d}",
                      i ? "," : "", p->width, p->height, p->plan.width, p->plan.height, p->plan.grid_t,
                      p->plan.grid_h, p->plan.grid_w, p->plan.n_tokens);
    }
    oc_buf_add_str(b, "]");
}

enum oc_err oc_cli_report_json(const struct oc_cli_report *r, struct oc_buf *b, struct oc_errinfo *ei) {
    uint64_t id[2];
    if (getrandom(id, sizeof id, 0) != sizeof id)
        return oc_fail(ei, OC_ERR_IO, "the system gave no random bytes");
    oc_buf_printf(
        b, "{\"id\":\"chatcmpl-%016llx%016llx\",\"object\":\"chat.completion\",\"created\":%lld,\"model\":",
        (unsigned long long)id[0], (unsigned long long)id[1], (long long)time(NULL));
    oc_json_write_str(b, oc_str_from(r->model));
    oc_buf_printf(b, ",\"system_fingerprint\":\"ocellus-%s-%s\"", OC_VERSION, r->info->isa);
    put_choice(b, r);
    put_usage(b, r);
    put_timings(b, r);
    put_images(b, r->pictures);
    oc_buf_add_str(b, "}\n");
    return b->failed ? oc_fail(ei, OC_ERR_LIMIT, "the answer is over %zu MiB of JSON", b->max_bytes >> 20)
                     : OC_OK;
}

/* ---- Text ---------------------------------------------------------------------------------------------- */

void oc_cli_report_stats(const struct oc_cli_report *r, FILE *f) {
    const struct oc_cli_answer *a = r->answer;
    const struct oc_engine_info *info = r->info;
    fprintf(f, "model    %s, %s, %d thread%s, weights %.1f MB\n", r->model, info->isa, info->n_threads,
            info->n_threads == 1 ? "" : "s", (double)info->weight_bytes / 1e6);
    fprintf(f, "device   %s", info->device);
    if (*info->device_name) fprintf(f, ", %s, %.1f MB of its memory", info->device_name, (double)info->device_bytes / 1e6);
    fprintf(f, "%s%s\n", *info->device_why ? ", since " : "", info->device_why);
    fprintf(f, "load     %8.1f ms\n", r->load_ms);
    for (int i = 0; i < r->pictures->n; i++) {
        const struct oc_cli_picture *p = &r->pictures->items[i];
        fprintf(f, "picture  %dx%d -> %dx%d, %d tokens: %s\n", p->width, p->height, p->plan.width,
                p->plan.height, p->plan.n_tokens, p->name ? p->name : "");
    }
    if (r->pictures->n)
        fprintf(f, "image    %8.1f ms\nvision   %8.1f ms\n", r->pictures->image_ms, r->pictures->vision_ms);
    fprintf(f, "prefill  %8.1f ms, %d tokens, %.1f tok/s\n", a->prefill_ms, a->n_prompt,
            rate(a->n_prompt, a->prefill_ms));
    fprintf(f, "TTFT     %8.1f ms after loading\n", a->ttft_ms);
    fprintf(f, "decode   %8.1f ms, %d tokens, %.1f tok/s, %.2f GB/s of weights\n", a->decode_ms, a->n_tokens,
            oc_cli_generate_tok_s(a), weight_rate(a, info));
    if (a->n_drafted) fprintf(f, "drafts   %d tokens, %d came true\n", a->n_drafted, a->n_accepted);
    if (r->sample->temperature > 0) fprintf(f, "seed     %llu\n", (unsigned long long)r->sample->seed);
}

static void put_text(FILE *f, const struct oc_chat_tokenizer *t, int32_t id, double logprob) {
    struct oc_buf b;
    oc_buf_init(&b, OC_MIB);
    oc_json_write_str(&b, oc_chat_tokenizer_bytes(t, (uint32_t)id));
    fprintf(f, "%9.4f %s", logprob, oc_buf_str(&b));
    oc_buf_free(&b);
}

void oc_cli_report_logprobs(const struct oc_cli_report *r, FILE *f) {
    for (size_t i = 0; i < n_picks(r->answer); i++) {
        const struct oc_lm_sample_pick *p = &picks(r->answer)[i];
        put_text(f, r->tokenizer, p->token, p->logprob);
        for (int k = 0; k < p->n_top; k++) {
            fputs(k ? "," : "  |", f);
            put_text(f, r->tokenizer, p->top[k].token, p->top[k].logprob);
        }
        fputc('\n', f);
    }
}
