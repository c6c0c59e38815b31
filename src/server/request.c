#include "server/request.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/digest.h"
#include "base/limits.h"
#include "server/record.h"

#define INLINE_PARSE_BYTES (64 * OC_KIB) /* bigger bodies are parsed on a crew */
#define ARENA_BYTES (1 * OC_GIB)

static void resolve(struct oc_server_request *r);
static void enter_queue(struct oc_server_request *r, struct oc_server_model *m);
static void load(struct oc_server_request *r);
static void run(struct oc_server_request *r);

const char *oc_server_request_stage_name(enum oc_server_stage stage) {
    static const char *const names[] = {"parse", "resolve", "queue", "load", "prepare", "run", "ended"};
    return names[stage];
}

/* ---- Beginning and end --------------------------------------------------------------------------------- */

static void on_gone(struct oc_server_user *u) {
    struct oc_server_request *r = (struct oc_server_request *)u;
    u->x = NULL;
    oc_server_request_end(r, 499, "the client left");
}

static void on_drain(struct oc_server_user *u) {
    oc_server_answer_drained((struct oc_server_request *)u);
}

static void link_live(struct oc_server_request *r) {
    struct oc_server *s = r->s;
    r->next = s->requests;
    if (r->next) r->next->prev = r;
    s->requests = r;
    s->n_requests++;
}

static void unlink_live(struct oc_server_request *r) {
    struct oc_server *s = r->s;
    *(r->prev ? &r->prev->next : &s->requests) = r->next;
    if (r->next) r->next->prev = r->prev;
    r->prev = NULL;
    r->next = s->ended;
    s->ended = r;
    s->n_requests--;
}

static void free_request(struct oc_server_request *r) {
    if (r->want.model) oc_server_model_release(&r->want); /* a crew was using its tokenizer to the last */
    oc_server_answer_close(r);
    oc_server_pictures_close(r);
    oc_chat_ids_free(&r->ids);
    oc_buf_free(&r->echo);
    oc_buf_free(&r->held);
    oc_buf_free(&r->body);
    oc_arena_free(&r->arena);
    free(r);
}

void oc_server_requests_reap(struct oc_server *s) {
    for (struct oc_server_request **at = &s->ended; *at;) {
        struct oc_server_request *r = *at;
        if (r->n_pins) {
            at = &r->next;
            continue;
        }
        *at = r->next;
        free_request(r);
    }
}

bool oc_server_request_unpin(struct oc_server_request *r) {
    r->n_pins--;
    if (oc_server_request_has_ended(r)) oc_server_progress(r->s);
    return !oc_server_request_has_ended(r);
}

static void queue_headers(struct oc_server_request *r) {
    char text[24];
    if (!r->was_queued) return;
    bool is_over = r->has_slot || oc_server_request_has_ended(r);
    double waited_ms = is_over ? r->queue_ms : (double)(oc_server_now_ms() - r->ticket.entered_ms);
    snprintf(text, sizeof text, "%lld", (long long)(waited_ms + 0.5));
    oc_http_header(r->user.x, "X-Queue-Wait-Ms", text);
    snprintf(text, sizeof text, "%d", r->ticket.position);
    oc_http_header(r->user.x, "X-Queue-Position", text);
}

void oc_server_request_headers(struct oc_server_request *r) {
    oc_http_header(r->user.x, "X-Request-Id", r->id);
    queue_headers(r);
}

void oc_server_request_end(struct oc_server_request *r, int status, const char *reason) {
    if (oc_server_request_has_ended(r)) return;
    oc_server_record_request_ended(r, status, reason);
    atomic_store_explicit(&r->cancelled, true, memory_order_relaxed);
    r->stage = OC_STAGE_ENDED;
    oc_server_call_detach(&r->user);
    for (int i = 0; i < r->n_choices; i++) oc_server_worker_cancel(&r->choices[i].job);
    oc_server_pictures_cancel(r);
    if (r->want.model && !(r->want.state == OC_WANT_HELD && r->n_pins)) oc_server_model_release(&r->want);
    if (r->model) oc_admission_leave(r->model->admission, &r->ticket, oc_server_now_ms());
    unlink_live(r);
    oc_server_progress(r->s);
}

void oc_server_request_fail(struct oc_server_request *r, const struct oc_api_error *e) {
    if (oc_server_request_has_ended(r)) return;
    int status = oc_api_error_status(e->problem);
    if (r->user.x) oc_server_answer_error(r, e);
    oc_server_request_end(r, status, e->message);
}

/* ---- PARSE --------------------------------------------------------------------------------------------- */

static void parse(struct oc_server_request *r) {
    struct oc_str body = {oc_buf_str(&r->body), r->body.n_bytes};
    size_t max_pictures = (size_t)r->s->config->max_images;
    r->parsed_ok = oc_api_request_parse(&r->arena, body, r->is_chat, max_pictures, &r->api, &r->parse_error);
}

static void run_parse(struct oc_server_work *w) {
    parse((struct oc_server_request *)((char *)w - offsetof(struct oc_server_request, work)));
}

static void parsed(struct oc_server_request *r) {
    if (r->parsed_ok)
        resolve(r);
    else
        oc_server_request_fail(r, &r->parse_error);
}

static void done_parse(struct oc_server_work *w) {
    struct oc_server_request *r =
        (struct oc_server_request *)((char *)w - offsetof(struct oc_server_request, work));
    if (oc_server_request_unpin(r)) parsed(r);
}

static struct oc_server_request *make(struct oc_server *s, const struct oc_http_request *h, bool is_chat) {
    struct oc_server_request *r = calloc(1, sizeof *r);
    uint8_t random[12];
    if (!r) return NULL;
    r->s = s;
    r->is_chat = is_chat;
    r->endpoint = is_chat ? "chat" : "completions";
    r->received_ns = h->received_ns;
    r->created = (int64_t)time(NULL);
    r->last_sent_ms = oc_server_now_ms();
    r->user.on_gone = on_gone;
    r->user.on_drain = on_drain;
    struct oc_str priority = oc_http_request_header(h, "X-Priority");
    r->priority = oc_admission_parse_priority(priority.p, priority.n);
    oc_random_bytes(random, sizeof random);
    oc_api_make_id(is_chat, random, r->id);
    oc_arena_init(&r->arena, ARENA_BYTES);
    oc_buf_init(&r->body, (size_t)s->config->max_body_bytes);
    oc_buf_init(&r->held, OC_LIMIT_SERVER_HELD_BYTES);
    oc_buf_init(&r->echo, OC_LIMIT_PROMPT_BYTES);
    oc_chat_ids_init(&r->ids, OC_LIMIT_CTX_TOKENS + 1);
    return r;
}

void oc_server_request_start(struct oc_server *s, struct oc_http_exchange *x, const struct oc_http_request *h,
                             bool is_chat, int key, const uint8_t salt[16]) {
    struct oc_server_request *r = make(s, h, is_chat);
    if (!r) {
        struct oc_api_error e = {0};
        oc_api_fail(&e, OC_API_INTERNAL, NULL, "out of memory");
        oc_server_call_reply_error(s, x, is_chat ? "chat" : "completions", &e, h->received_ns);
        return;
    }
    r->key = key;
    memcpy(r->salt, salt, sizeof r->salt);
    oc_server_call_attach(&r->user, x);
    link_live(r);
    oc_server_record_request_started(r);
    oc_http_take_body(x, &r->body);
    if (r->body.n_bytes <= INLINE_PARSE_BYTES) {
        parse(r);
        parsed(r);
        return;
    }
    r->n_pins++;
    r->work = (struct oc_server_work){.run = run_parse, .done = done_parse};
    oc_server_crew_post(s->quick, &r->work);
}

/* ---- RESOLVE ------------------------------------------------------------------------------------------- */

static void resolved(struct oc_server_request *r, struct oc_server_model *m, const struct oc_api_error *err) {
    struct oc_api_error e = {0};
    if (err) {
        oc_server_request_fail(r, err);
    } else if (r->api.n_pictures && !m->vision) {
        oc_api_fail(&e, OC_API_UNSUPPORTED, r->api.pictures[0].param, "the model %.100s takes no pictures",
                    m->id);
        oc_server_request_fail(r, &e);
    } else {
        enter_queue(r, m);
    }
}

static void looked_up(struct oc_server_lookup *l, struct oc_server_model *m, const struct oc_api_error *err) {
    struct oc_server_request *r =
        (struct oc_server_request *)((char *)l - offsetof(struct oc_server_request, lookup));
    if (oc_server_request_unpin(r)) resolved(r, m, err);
}

static void resolve(struct oc_server_request *r) {
    struct oc_server_model *m;
    struct oc_api_error e;
    r->stage = OC_STAGE_RESOLVE;
    r->lookup.done = looked_up;
    if (oc_server_models_find(&r->lookup, r->s, r->api.model, &m, &e))
        resolved(r, m, m ? NULL : &e);
    else
        r->n_pins++;
}

/* ---- QUEUE --------------------------------------------------------------------------------------------- */

static struct oc_server_request *of_ticket(struct oc_ticket *t) {
    return (struct oc_server_request *)((char *)t - offsetof(struct oc_server_request, ticket));
}

static void got_slot(struct oc_server_request *r) {
    r->has_slot = true;
    r->slot_ns = oc_clock_ns();
    r->queue_ms = (double)(oc_server_now_ms() - r->ticket.entered_ms);
    oc_server_record_slot(r);
    load(r);
}

void oc_server_request_on_slot(void *arg, struct oc_ticket *t) {
    (void)arg;
    got_slot(of_ticket(t));
}

/* Ends a request that waited as long as its priority may. */
static void end_wait(struct oc_server_request *r, struct oc_api_error *e, int retry_after_s) {
    e->retry_after_s = retry_after_s;
    oc_metrics_add(r->s->metrics, OC_M_QUEUE_TIMEOUTS, r->model->id, oc_admission_priority_name(r->priority), 1);
    oc_server_request_fail(r, e);
}

void oc_server_request_on_queue_timeout(void *arg, struct oc_ticket *t) {
    struct oc_server_request *r = of_ticket(t);
    struct oc_api_error e = {0};
    (void)arg;
    r->queue_ms = (double)(oc_server_now_ms() - t->entered_ms);
    if (r->s->draining)
        oc_api_fail(&e, OC_API_DRAINING, NULL, "the server is shutting down");
    else
        oc_api_fail(&e, OC_API_QUEUE_TIMEOUT, NULL,
                    "the request waited %.0f ms for a free slot, which is the limit of its "
                    "priority",
                    r->queue_ms);
    end_wait(r, &e, r->s->draining ? 5 : 30);
}

static void turn_away(struct oc_server_request *r, enum oc_admit how) {
    struct oc_api_error e = {0};
    oc_gate_give(r->s->gate, r->key); /* it got nothing for its token */
    r->s->totals.n_queue_rejects++;
    oc_metrics_add(r->s->metrics, OC_M_QUEUE_REJECTS, r->model->id,
                   how == OC_ADMIT_FULL ? "full" : "draining", 1);
    if (how == OC_ADMIT_FULL)
        oc_api_fail(&e, OC_API_OVERLOADED, NULL,
                    "the queue of the model %.100s is full (%d waiting): try again shortly", r->model->id,
                    r->s->config->queue_depth);
    else
        oc_api_fail(&e, OC_API_DRAINING, NULL, "the server is shutting down");
    e.retry_after_s = how == OC_ADMIT_FULL ? 30 : 5;
    oc_server_request_fail(r, &e);
}

static void enter_queue(struct oc_server_request *r, struct oc_server_model *m) {
    r->stage = OC_STAGE_QUEUE;
    r->model = m;
    r->was_queued = true;
    enum oc_admit how = oc_admission_enter(m->admission, &r->ticket, r->priority, oc_server_now_ms());
    if (how == OC_ADMIT_NOW)
        got_slot(r);
    else if (how != OC_ADMIT_QUEUED)
        turn_away(r, how);
}

/* ---- LOAD ---------------------------------------------------------------------------------------------- */

static void prepare(struct oc_server_request *r) {
    struct oc_api_error e = {0};
    if (oc_server_pictures_refused(r, &e)) { /* also on the way to a replay */
        oc_server_request_fail(r, &e);
        return;
    }
    if (r->choices) { /* a replay: pictures and prompt are there */
        run(r);
        return;
    }
    r->stage = OC_STAGE_PREPARE;
    r->n_open = 1 + (int)r->api.n_pictures;
    oc_server_prompt_start(r);
    if (!oc_server_request_has_ended(r)) oc_server_pictures_start(r);
}

static void on_have(struct oc_server_want *w, const struct oc_api_error *err) {
    struct oc_server_request *r =
        (struct oc_server_request *)((char *)w - offsetof(struct oc_server_request, want));
    if (err)
        oc_server_request_fail(r, err);
    else
        prepare(r);
}

static void load(struct oc_server_request *r) {
    r->stage = OC_STAGE_LOAD;
    r->want.worker = true;
    r->want.on_have = on_have;
    if (oc_server_model_want(r->model, &r->want)) prepare(r);
}

/* ---- Slimming ------------------------------------------------------------------------------------------ */

static bool copy_str(struct oc_arena *a, struct oc_str *s) {
    char *copy = oc_arena_strndup(a, s->p ? s->p : "", s->n);
    if (copy) s->p = copy;
    return copy != NULL;
}

/* What the rest of the request's life needs of its fields, into another arena. */
static bool copy_fields(struct oc_arena *a, struct oc_api_request *q) {
    struct oc_api_picture *pictures = oc_arena_array(a, q->n_pictures, sizeof *pictures);
    struct oc_api_bias *biases = oc_arena_array(a, q->n_biases, sizeof *biases);
    if (!pictures || !biases || !copy_str(a, &q->model)) return false;
    for (size_t i = 0; i < q->n_pictures; i++) {
        pictures[i] = q->pictures[i];
        pictures[i].url = OC_STR("");
        pictures[i].param = oc_arena_strndup(a, q->pictures[i].param, strlen(q->pictures[i].param));
        if (!pictures[i].param) return false;
    }
    for (size_t i = 0; i < q->n_biases; i++) biases[i] = q->biases[i];
    for (size_t i = 0; i < q->n_stop; i++)
        if (!copy_str(a, &q->stop[i])) return false;
    q->pictures = pictures;
    q->biases = biases;
    q->messages = (struct oc_json){.type = OC_JSON_NULL};
    q->chat_template_kwargs = NULL;
    q->prompt = q->user = OC_STR("");
    q->prompt_tokens = NULL;
    q->n_prompt_tokens = 0;
    return true;
}

/* Pictures in base64 and long texts have done their part once the prompt is made: the body goes before the
 * model runs, which may take minutes. */
static void slim(struct oc_server_request *r) {
    struct oc_api_request q = r->api;
    struct oc_arena a;
    if (r->body.n_bytes < INLINE_PARSE_BYTES) return;
    oc_arena_init(&a, ARENA_BYTES);
    if (!copy_fields(&a, &q)) {
        oc_arena_free(&a);
        return;
    }
    oc_arena_free(&r->arena);
    oc_buf_free(&r->body);
    r->arena = a;
    r->api = q;
}

/* ---- RUN ----------------------------------------------------------------------------------------------- */

static void run(struct oc_server_request *r) {
    struct oc_api_error e = {0};
    struct oc_errinfo ei;
    if (!oc_server_model_is_usable(
            r->model)) { /* its worker died meanwhile: the next one has done nothing for it yet */
        oc_server_model_release(&r->want);
        load(r);
        return;
    }
    r->stage = OC_STAGE_RUN;
    enum oc_err err = oc_server_prompt_send(r, &ei);
    if (!err) return;
    if (err == OC_ERR_IO) {
        oc_server_request_lost(r);
        return;
    }
    oc_api_fail(&e, oc_api_problem_of(err), NULL, "%s", ei.msg);
    oc_server_request_fail(r, &e);
}

void oc_server_request_part_done(struct oc_server_request *r) {
    struct oc_api_error e = {0};
    struct oc_errinfo ei;
    if (oc_server_request_has_ended(r) || --r->n_open) return;
    if (!oc_server_prompt_check(r, &e)) {
        oc_server_request_fail(r, &e);
    } else if (oc_server_answer_open(r, &ei)) {
        oc_api_fail(&e, oc_api_problem_of(ei.code), "stop", "%s", ei.msg);
        oc_server_request_fail(r, &e);
    } else {
        slim(r);
        run(r);
    }
}

void oc_server_request_lost(struct oc_server_request *r) {
    struct oc_api_error e = {0};
    if (oc_server_request_has_ended(r)) return;
    oc_server_model_release(&r->want);
    if (r->model->files_changed) { /* prompt and pictures may not be right for what is there now */
        oc_api_fail(&e, OC_API_WORKER_LOST, NULL,
                    "the model's files changed while they were in use: try again, it is loaded anew");
        e.retry_after_s = 1;
        oc_server_request_fail(r, &e);
        return;
    }
    if (r->text_sent || r->n_replays >= 1) {
        oc_api_fail(&e, OC_API_WORKER_LOST, NULL, "the worker died while it answered%s",
                    r->n_replays ? ", and once more when the request was run again" : "");
        e.retry_after_s = 1;
        oc_server_request_fail(r, &e);
        return;
    }
    r->n_replays++;
    oc_metrics_add(r->s->metrics, OC_M_REPLAYS, r->model->id, NULL, 1);
    oc_log(r->s->log, OC_LOG_WARN, "a request is run again on a new worker", OC_LOG_S("request", r->id),
           OC_LOG_S("model", r->model->id));
    oc_server_answer_reset(r);
    load(r);
}

/* ---- Time ---------------------------------------------------------------------------------------------- */

static void check_time(struct oc_server_request *r, uint64_t now_ms) {
    const struct oc_server_config *c = r->s->config;
    struct oc_api_error e = {0};
    if (oc_server_request_has_ended(r)) return;
    if (c->request_timeout_s > 0 && r->has_slot &&
        oc_clock_ms_since(r->slot_ns) > c->request_timeout_s * 1e3) {
        oc_api_fail(&e, OC_API_TIMEOUT, NULL, "the request took longer than the %d s that this server allows",
                    c->request_timeout_s);
        oc_server_request_fail(r, &e);
        return;
    }
    if (r->place.state == OC_PLACE_WAITING &&
        now_ms - r->place_ms >= (uint64_t)c->queue_timeout_s[r->priority] * 1000) {
        oc_api_fail(&e, OC_API_QUEUE_TIMEOUT, NULL,
                    "the request waited %d s for memory for its pictures, which is the limit of its priority: those of "
                    "requests before it take what there is",
                    c->queue_timeout_s[r->priority]);
        end_wait(r, &e, 30);
        return;
    }
    if (c->ping_s > 0 && r->stage >= OC_STAGE_QUEUE && r->api.stream && /* before that a crew may be parsing */
        now_ms - r->last_sent_ms >= (uint64_t)c->ping_s * 1000) {
        uint64_t due_ms = r->last_sent_ms + (uint64_t)c->ping_s * 1000;
        oc_server_answer_ping(r);
        r->last_sent_ms = due_ms; /* so that ticks do not add up */
    }
}

void oc_server_requests_tick(struct oc_server *s, uint64_t now_ms) {
    for (struct oc_server_request *r = s->requests, *next; r; r = next) {
        next = r->next; /* r may end and move to the other list */
        check_time(r, now_ms);
    }
}

void oc_server_requests_fail_all(struct oc_server *s, const struct oc_api_error *e) {
    while (s->requests) oc_server_request_fail(s->requests, e);
}
