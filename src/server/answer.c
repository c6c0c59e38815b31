/* server/answer.c - tokens of the worker to text, text to the client: whole answers and streams.
 *
 * A stream's headers leave with its first text or its first ping, which may come while it still waits. Where
 * the client reads slowly, what comes is held up to a bound, and past it the request is cancelled: a slow reader
 * costs itself only. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/digest.h"
#include "http/sse.h"
#include "server/record.h"
#include "server/request.h"

#define TEXT_BYTES (64 * OC_MIB) /* of one whole answer */
#define CHUNK_BYTES (4 * OC_MIB) /* what one message of the worker becomes */

/* ---- Choices ------------------------------------------------------------------------------------------- */

static enum oc_err open_choice(struct oc_server_request *r, int i, struct oc_errinfo *ei) {
    struct oc_server_choice *c = &r->choices[i];
    c->r = r;
    c->index = i;
    c->job.ev = &oc_server_answer_events;
    oc_buf_init(&c->text, TEXT_BYTES);
    if (r->api.has_seed)
        c->seed = r->api.seed + (uint64_t)i;
    else
        oc_random_bytes(&c->seed, sizeof c->seed);
    oc_chat_detok_init(&c->detok, r->model->chat->tokenizer, true);
    return r->api.n_stop ? oc_chat_stop_open(r->api.stop, r->api.n_stop, &c->stop, ei) : OC_OK;
}

enum oc_err oc_server_answer_open(struct oc_server_request *r, struct oc_errinfo *ei) {
    int n = r->api.n > 0 ? r->api.n : 1;
    r->choices = calloc((size_t)n, sizeof *r->choices);
    if (!r->choices) return oc_fail(ei, OC_ERR_NOMEM, "no memory for %d answers", n);
    r->n_choices = n;
    for (int i = 0; i < n; i++) OC_TRY(open_choice(r, i, ei));
    return OC_OK;
}

/* Seeds stay: the second run gives the same text. */
void oc_server_answer_reset(struct oc_server_request *r) {
    struct oc_errinfo ei;
    r->n_finished = 0;
    for (int i = 0; i < r->n_choices; i++) {
        struct oc_server_choice *c = &r->choices[i];
        oc_server_worker_cancel(&c->job);
        oc_buf_clear(&c->text);
        oc_chat_detok_init(&c->detok, r->model->chat->tokenizer, true);
        oc_chat_stop_close(c->stop);
        c->stop = NULL;
        if (r->api.n_stop && oc_chat_stop_open(r->api.stop, r->api.n_stop, &c->stop, &ei)) c->stop = NULL;
        c->n_fed = c->n_out = c->n_chars = c->n_logprobs = 0;
        c->stopped = c->finished = c->has_done = false;
        c->n_tokens = 0;
        c->last_ns = 0;
    }
}

void oc_server_answer_close(struct oc_server_request *r) {
    for (int i = 0; i < r->n_choices; i++) {
        struct oc_server_choice *c = &r->choices[i];
        oc_buf_free(&c->text);
        if (c->stop) oc_chat_stop_close(c->stop);
        free(c->logprobs);
    }
    free(r->choices);
    r->choices = NULL;
    r->n_choices = 0;
}

static struct oc_api_answer answer_of(const struct oc_server_request *r) {
    struct oc_str model = r->api.model.n ? r->api.model : oc_str_from(r->model->id);
    return (struct oc_api_answer){.is_chat = r->is_chat,
                                  .id = r->id,
                                  .created = r->created,
                                  .model = model,
                                  .fingerprint = r->s->fingerprint,
                                  .include_usage = r->api.include_usage};
}

/* ---- Sending ------------------------------------------------------------------------------------------- */

static void begin_stream(struct oc_server_request *r) {
    struct oc_http_exchange *x = r->user.x;
    if (oc_http_stream_begun(x)) return;
    oc_server_request_headers(r);
    oc_http_header(x, "Cache-Control", "no-cache");
    oc_http_header(x, "X-Accel-Buffering", "no");
    oc_http_stream_begin(x, 200, "text/event-stream; charset=utf-8");
}

static void cut_slow_reader(struct oc_server_request *r) {
    oc_metrics_add(r->s->metrics, OC_M_STREAMS_CUT, "slow_reader", NULL, 1);
    struct oc_http_exchange *x = oc_server_call_detach(&r->user);
    if (x) oc_http_stream_abort(x);
    oc_server_request_end(r, 499, "the client reads too slowly");
}

/* Bytes to the client, or into what is held for it. May end the request. */
static void send_out(struct oc_server_request *r, const struct oc_buf *b) {
    struct oc_str bytes = {oc_buf_str(b), b->n_bytes};
    if (!r->user.x || oc_server_request_has_ended(r) || !bytes.n) return;
    begin_stream(r);
    r->last_sent_ms = oc_server_now_ms();
    if (r->slow) {
        if (!oc_buf_add(&r->held, bytes.p, bytes.n)) cut_slow_reader(r);
        return;
    }
    r->slow = oc_http_stream_write(r->user.x, bytes) > OC_LIMIT_HTTP_OUT_HIGH_BYTES;
}

void oc_server_answer_drained(struct oc_server_request *r) {
    if (oc_server_request_has_ended(r) || !r->user.x || !r->slow) return;
    r->slow = false;
    if (!r->held.n_bytes) return;
    struct oc_str bytes = {oc_buf_str(&r->held), r->held.n_bytes};
    r->slow = oc_http_stream_write(r->user.x, bytes) > OC_LIMIT_HTTP_OUT_HIGH_BYTES;
    oc_buf_clear(&r->held);
}

/* The rest of a stream: bounded by the hold, so it may go out at once. */
static void finish_stream(struct oc_server_request *r, const struct oc_buf *last) {
    struct oc_http_exchange *x = oc_server_call_detach(&r->user);
    if (r->held.n_bytes) oc_http_stream_write(x, (struct oc_str){oc_buf_str(&r->held), r->held.n_bytes});
    oc_http_stream_write(x, (struct oc_str){oc_buf_str(last), last->n_bytes});
    oc_http_stream_end(x);
}

void oc_server_answer_ping(struct oc_server_request *r) {
    struct oc_buf b;
    oc_buf_init(&b, 64);
    oc_http_sse_comment(&b, "ping");
    send_out(r, &b);
    oc_buf_free(&b);
}

void oc_server_answer_error(struct oc_server_request *r, const struct oc_api_error *e) {
    struct oc_buf json, event;
    oc_buf_init(&json, 64 * OC_KIB);
    oc_buf_init(&event, 128 * OC_KIB);
    oc_api_error_write(&json, e);
    if (oc_http_stream_begun(r->user.x)) {
        oc_http_sse_event(&event, (struct oc_str){oc_buf_str(&json), json.n_bytes});
        finish_stream(r, &event);
    } else {
        struct oc_http_exchange *x = r->user.x;
        oc_server_request_headers(r);
        oc_server_call_retry_header(x, e);
        oc_server_call_detach(&r->user);
        oc_http_respond(x, oc_api_error_status(e->problem), "application/json",
                        (struct oc_str){oc_buf_str(&json), json.n_bytes});
    }
    oc_buf_free(&json);
    oc_buf_free(&event);
}

/* ---- Log-probabilities --------------------------------------------------------------------------------- */

static struct oc_api_logprob logprob_of(const struct oc_server_choice *c, int32_t token, float logprob) {
    struct oc_str bytes = oc_chat_tokenizer_bytes(c->detok.tok, (uint32_t)token);
    return (struct oc_api_logprob){.bytes = bytes.p ? bytes : (struct oc_str){"", 0}, .logprob = logprob};
}

/* Keeps a token's log-probabilities until its text is certain. Out of memory leaves them out. */
static void keep_logprob(struct oc_server_choice *c, const struct oc_ipc_pick *p) {
    if (!c->r->api.logprobs) return;
    if (c->n_logprobs == c->cap_logprobs) {
        size_t cap = c->cap_logprobs ? 2 * c->cap_logprobs : 16;
        void *v = realloc(c->logprobs, cap * sizeof *c->logprobs);
        if (!v) return;
        c->logprobs = v;
        c->cap_logprobs = cap;
    }
    struct oc_api_logprob *top = oc_arena_array(&c->r->arena, p->n_top, sizeof *top);
    struct oc_server_logprob *l = &c->logprobs[c->n_logprobs++];
    *l = (struct oc_server_logprob){.lp = {.token = logprob_of(c, p->token, p->logprob), .top = top},
                                    .start = c->n_fed};
    for (uint32_t i = 0; top && i < p->n_top; i++) top[i] = logprob_of(c, p->top[i].token, p->top[i].logprob);
    l->lp.n_top = top ? (int)p->n_top : 0;
}

/* The log-probabilities whose text begins in what was passed on; at the end, all but those a stop string
 * took. */
static size_t n_certain(const struct oc_server_choice *c, bool at_end) {
    size_t n = 0;
    while (n < c->n_logprobs && (c->logprobs[n].start < c->n_out || (at_end && !c->stopped))) n++;
    return n;
}

static size_t n_characters(struct oc_str s) {
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) n += ((unsigned char)s.p[i] & 0xC0) != 0x80;
    return n;
}

/* ---- Stream chunks ------------------------------------------------------------------------------------- */

static void add_event(struct oc_buf *out, struct oc_buf *json) {
    oc_http_sse_event(out, (struct oc_str){oc_buf_str(json), json->n_bytes});
    oc_buf_clear(json);
}

static void add_role(struct oc_server_choice *c, struct oc_buf *out, struct oc_buf *json) {
    struct oc_api_answer a = answer_of(c->r);
    if (c->role_sent) return;
    c->role_sent = true;
    if (!c->r->is_chat) {
        if (!c->r->api.echo || !c->r->echo.n_bytes) return;
        struct oc_api_choice echo = {.index = c->index,
                                     .text = {oc_buf_str(&c->r->echo), c->r->echo.n_bytes}};
        oc_api_write_chunk(json, &a, &echo);
    } else {
        oc_api_write_role_chunk(json, &a, c->index);
    }
    add_event(out, json);
}

/* A chunk with text and/or the end. */
static void add_chunk(struct oc_server_choice *c, struct oc_str text, enum oc_api_finish finish,
                      struct oc_buf *out) {
    struct oc_api_answer a = answer_of(c->r);
    struct oc_buf json;
    oc_buf_init(&json, CHUNK_BYTES);
    size_t n = n_certain(c, finish != OC_API_FINISH_NONE);
    struct oc_api_token_logprobs *lps = n ? malloc(n * sizeof *lps) : NULL;
    for (size_t i = 0; lps && i < n; i++) lps[i] = c->logprobs[i].lp;
    add_role(c, out, &json);
    struct oc_api_choice chunk = {.index = c->index,
                                  .text = text,
                                  .logprobs = lps,
                                  .n_logprobs = lps ? n : 0,
                                  .text_offset = c->n_chars - n_characters(text),
                                  .finish = finish};
    oc_api_write_chunk(&json, &a, &chunk);
    add_event(out, &json);
    if (n) memmove(c->logprobs, c->logprobs + n, (c->n_logprobs - n) * sizeof *c->logprobs);
    c->n_logprobs -= n;
    free(lps);
    oc_buf_free(&json);
}

/* ---- The end of an answer ------------------------------------------------------------------------------ */

static void fill_usage(const struct oc_server_request *r, struct oc_api_usage *u, struct oc_api_timings *t) {
    const struct oc_server_choice *c = &r->choices[0];
    *u = (struct oc_api_usage){.prompt_tokens = r->n_prompt, .image_tokens = r->n_image};
    for (int i = 0; i < r->n_choices; i++) { /* the worker is a few tokens ahead of a stop string */
        const struct oc_server_choice *o = &r->choices[i];
        u->completion_tokens += o->has_done && !o->stopped ? o->done.n_output : o->n_tokens;
    }
    *t = (struct oc_api_timings){.queue_ms = r->queue_ms,
                                 .ttft_ms = oc_server_request_ttft_ms(r),
                                 .n_prompt = (int)r->n_prompt,
                                 .n_image = (int)r->n_image,
                                 .n_decode = c->n_tokens};
    for (size_t i = 0; i < r->n_pictures; i++) {
        const struct oc_server_picture *p = &r->pictures[i]; /* side by side: the slowest counts */
        if (p->fetch_ms > t->fetch_ms) t->fetch_ms = p->fetch_ms;
        if (p->look_ms > t->image_ms) t->image_ms = p->look_ms;
    }
    if (!c->has_done) return;
    u->cached_tokens = c->done.n_cached;
    t->n_cached = c->done.n_cached;
    t->encode_ms = c->done.encode_ms;
    t->prefill_ms = c->done.prefill_ms;
    t->decode_ms = c->done.decode_ms;
}

static struct oc_api_image_report *image_reports(struct oc_server_request *r) {
    struct oc_api_image_report *v = oc_arena_array(&r->arena, r->n_pictures, sizeof *v);
    for (size_t i = 0; v && i < r->n_pictures; i++) {
        const struct oc_ipc_seen *s = &r->pictures[i].seen;
        v[i] = (struct oc_api_image_report){.width = s->width,
                                            .height = s->height,
                                            .resized_width = s->plan.width,
                                            .resized_height = s->plan.height,
                                            .grid_t = s->plan.grid_t,
                                            .grid_h = s->plan.grid_h,
                                            .grid_w = s->plan.grid_w,
                                            .n_tokens = s->plan.n_tokens};
    }
    return v;
}

static void end_stream(struct oc_server_request *r) {
    struct oc_api_answer a = answer_of(r);
    struct oc_api_usage u;
    struct oc_api_timings t;
    struct oc_buf json, out;
    oc_buf_init(&json, OC_MIB);
    oc_buf_init(&out, 2 * OC_MIB);
    fill_usage(r, &u, &t);
    if (r->api.include_usage) {
        const struct oc_api_image_report *images = image_reports(r);
        oc_api_write_usage_chunk(&json, &a, &u, &t, images, images ? r->n_pictures : 0);
        add_event(&out, &json);
    }
    oc_http_sse_event(&out, OC_STR("[DONE]"));
    finish_stream(r, &out);
    oc_buf_free(&json);
    oc_buf_free(&out);
}

/* The text of a choice, behind the prompt where that is echoed. */
static bool whole_text(struct oc_server_request *r, const struct oc_server_choice *c, struct oc_str *out) {
    *out = (struct oc_str){oc_buf_str(&c->text), c->text.n_bytes};
    if (!r->echo.n_bytes) return true;
    size_t n = r->echo.n_bytes + c->text.n_bytes;
    char *both = oc_arena_alloc(&r->arena, n);
    if (!both) return false;
    memcpy(both, oc_buf_str(&r->echo), r->echo.n_bytes);
    memcpy(both + r->echo.n_bytes, out->p, out->n);
    *out = (struct oc_str){both, n};
    return true;
}

static bool fill_choices(struct oc_server_request *r, struct oc_api_choice *choices) {
    for (int i = 0; i < r->n_choices; i++) {
        struct oc_server_choice *c = &r->choices[i];
        struct oc_str text;
        size_t n = n_certain(c, true);
        struct oc_api_token_logprobs *lps = oc_arena_array(&r->arena, n, sizeof *lps);
        if (!lps) return false;
        for (size_t k = 0; k < n; k++) lps[k] = c->logprobs[k].lp;
        if (!whole_text(r, c, &text)) return false;
        choices[i] = (struct oc_api_choice){.index = i,
                                            .text = text,
                                            .logprobs = r->api.logprobs ? lps : NULL,
                                            .n_logprobs = r->api.logprobs ? n : 0,
                                            .finish = c->finish};
    }
    return true;
}

static void respond_whole(struct oc_server_request *r) {
    struct oc_api_answer a = answer_of(r);
    struct oc_api_usage u;
    struct oc_api_timings t;
    struct oc_buf out;
    struct oc_api_choice *choices = oc_arena_array(&r->arena, (size_t)r->n_choices, sizeof *choices);
    const struct oc_api_image_report *images = image_reports(r);
    oc_buf_init(&out, (size_t)r->n_choices * TEXT_BYTES);
    fill_usage(r, &u, &t);
    if (choices && fill_choices(r, choices))
        oc_api_write_answer(&out, &a, choices, (size_t)r->n_choices, &u, &t, images,
                            images ? r->n_pictures : 0);
    else
        out.failed = true;
    oc_server_request_headers(r);
    struct oc_http_exchange *x = oc_server_call_detach(&r->user);
    if (out.failed)
        oc_http_respond(
            x, 500, "application/json",
            OC_STR("{\"error\":{\"message\":\"out of memory\",\"type\":\"server_error\",\"param\":null,"
                   "\"code\":null}}"));
    else
        oc_http_respond(x, 200, "application/json", (struct oc_str){oc_buf_str(&out), out.n_bytes});
    oc_buf_free(&out);
}

static void finish_request(struct oc_server_request *r) {
    oc_server_pictures_clear(r);
    const char *reason = r->choices[0].finish == OC_API_FINISH_LENGTH ? "length" : "stop";
    if (r->api.stream)
        end_stream(r);
    else
        respond_whole(r);
    oc_server_request_end(r, 200, reason);
}

/* ---- Text ---------------------------------------------------------------------------------------------- */

static void fail_answer(struct oc_server_request *r, enum oc_api_problem problem, const char *what) {
    struct oc_api_error e = {0};
    oc_api_fail(&e, problem, NULL, "%s", what);
    oc_server_request_fail(r, &e);
}

/* A piece of text through the stop filter; *hit: a stop string was reached. */
static enum oc_err filter(struct oc_server_choice *c, struct oc_str piece, struct oc_buf *text, bool *hit,
                          struct oc_errinfo *ei) {
    int which = -1;
    c->n_fed += piece.n;
    if (!c->stop)
        return oc_buf_add(text, piece.p, piece.n) ? OC_OK
                                                  : oc_fail(ei, OC_ERR_LIMIT, "the answer is too long");
    enum oc_err err = oc_chat_stop_feed(c->stop, piece, text, &which, ei);
    *hit = which >= 0;
    return err;
}

/* New certain text: into the whole answer, or out as a chunk. */
static void pass_on(struct oc_server_choice *c, const struct oc_buf *text, struct oc_buf *out) {
    struct oc_str s = {oc_buf_str(text), text->n_bytes};
    if (!s.n) return;
    c->n_out += s.n;
    c->n_chars += n_characters(s);
    if (!c->r->api.stream) {
        oc_buf_add(&c->text, s.p, s.n);
        return;
    }
    if (!c->r->text_sent) oc_server_pictures_forget(c->r); /* no replay any more */
    c->r->text_sent = true;
    add_chunk(c, s, OC_API_FINISH_NONE, out);
}

static enum oc_err take_pick(struct oc_server_choice *c, const struct oc_ipc_pick *p, struct oc_buf *out,
                             struct oc_errinfo *ei) {
    struct oc_buf piece, text;
    bool hit = false;
    oc_buf_init(&piece, OC_MIB);
    oc_buf_init(&text, 2 * OC_MIB);
    keep_logprob(c, p);
    c->n_tokens++;
    enum oc_err err = oc_chat_detok_feed(&c->detok, (uint32_t)p->token, &piece, ei);
    if (!err) err = filter(c, (struct oc_str){oc_buf_str(&piece), piece.n_bytes}, &text, &hit, ei);
    if (!err) {
        c->stopped = hit;
        pass_on(c, &text, out);
    }
    oc_buf_free(&piece);
    oc_buf_free(&text);
    return err;
}

/* What was held back comes out at the end, unless a stop string ended it. */
static enum oc_err flush_text(struct oc_server_choice *c, struct oc_buf *out, struct oc_errinfo *ei) {
    struct oc_buf piece, text;
    bool hit = false;
    oc_buf_init(&piece, OC_MIB);
    oc_buf_init(&text, 2 * OC_MIB);
    enum oc_err err = oc_chat_detok_finish(&c->detok, &piece, ei);
    if (!err) err = filter(c, (struct oc_str){oc_buf_str(&piece), piece.n_bytes}, &text, &hit, ei);
    if (!err && c->stop && !hit) err = oc_chat_stop_finish(c->stop, &text, ei);
    if (!err) {
        c->stopped = hit;
        pass_on(c, &text, out);
    }
    oc_buf_free(&piece);
    oc_buf_free(&text);
    return err;
}

static void finish_choice(struct oc_server_choice *c, enum oc_api_finish finish) {
    struct oc_server_request *r = c->r;
    struct oc_errinfo ei;
    struct oc_buf out;
    oc_buf_init(&out, CHUNK_BYTES);
    enum oc_err err = c->stopped ? OC_OK : flush_text(c, &out, &ei);
    c->finished = true;
    c->finish = c->stopped ? OC_API_FINISH_STOP : finish;
    if (!err && r->api.stream) {
        add_chunk(c, OC_STR(""), c->finish, &out);
        r->text_sent = true;
        send_out(r, &out);
    }
    oc_buf_free(&out);
    if (err) {
        fail_answer(r, OC_API_INTERNAL, ei.msg);
        return;
    }
    if (++r->n_finished == r->n_choices && !oc_server_request_has_ended(r)) finish_request(r);
}

/* ---- Events of a job ----------------------------------------------------------------------------------- */

static struct oc_server_choice *of_job(struct oc_server_job *j) {
    return (struct oc_server_choice *)((char *)j - offsetof(struct oc_server_choice, job));
}

static void on_stage(struct oc_server_job *j, const struct oc_ipc_stage_entered *m) {
    struct oc_server_choice *c = of_job(j);
    if (m->stage == OC_IPC_STAGE_DECODE) oc_server_pictures_clear(c->r);
}

static void count_tokens(struct oc_server_choice *c, uint32_t n) {
    struct oc_server_request *r = c->r;
    uint64_t now = oc_clock_ns();
    if (!r->first_ns) {
        r->first_ns = now;
        oc_server_record_first_token(r);
    }
    for (uint32_t i = 0; c->last_ns && i < n; i++) oc_server_record_token_gap(r, (now - c->last_ns) / n);
    c->last_ns = now;
}

static void on_tokens(struct oc_server_job *j, const struct oc_ipc_tokens *m) {
    struct oc_server_choice *c = of_job(j);
    struct oc_server_request *r = c->r;
    struct oc_errinfo ei;
    struct oc_buf out;
    enum oc_err err = OC_OK;
    if (c->stopped || !m->n_picks) return;
    oc_buf_init(&out, CHUNK_BYTES);
    count_tokens(c, m->n_picks);
    for (uint32_t i = 0; !err && !c->stopped && i < m->n_picks; i++)
        err = take_pick(c, &m->picks[i], &out, &ei);
    if (c->stopped && !err) oc_server_worker_finish(j); /* DONE follows with the figures */
    if (out.failed) err = oc_fail(&ei, OC_ERR_LIMIT, "too much text at once");
    if (!err) send_out(r, &out);
    oc_buf_free(&out);
    if (err) fail_answer(r, OC_API_INTERNAL, ei.msg);
}

static void on_done(struct oc_server_job *j, const struct oc_ipc_done *m) {
    struct oc_server_choice *c = of_job(j);
    char what[OC_ERRINFO_MAX];
    c->has_done = true;
    c->done = *m;
    c->done.message = (struct oc_str){"", 0};
    if (m->finish == OC_IPC_FINISH_STOP || (m->finish == OC_IPC_FINISH_CANCELLED && c->stopped)) {
        finish_choice(c, OC_API_FINISH_STOP);
    } else if (m->finish == OC_IPC_FINISH_LENGTH) {
        finish_choice(c, OC_API_FINISH_LENGTH);
    } else {
        snprintf(what, sizeof what, "%.*s", (int)m->message.n, m->message.n ? m->message.p : "");
        enum oc_api_problem p =
            m->finish == OC_IPC_FINISH_ERROR ? oc_api_problem_of((enum oc_err)m->err) : OC_API_INTERNAL;
        fail_answer(c->r, p, what[0] ? what : "the worker cancelled the request");
    }
}

static void on_lost(struct oc_server_job *j, bool blamed) {
    struct oc_server_choice *c = of_job(j);
    if (blamed) oc_server_pictures_blame(c->r);
    if (c->stopped) /* all its text is there */
        finish_choice(c, OC_API_FINISH_STOP);
    else
        oc_server_request_lost(c->r);
}

const struct oc_server_job_events oc_server_answer_events = {
    .on_stage = on_stage, .on_tokens = on_tokens, .on_done = on_done, .on_lost = on_lost};
