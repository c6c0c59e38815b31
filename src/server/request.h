/* server/request.h - the life of one completion request, from its body to its last byte.
 *
 * A small state machine on the loop's thread: PARSE, RESOLVE (which model), QUEUE (a slot of it), LOAD,
 * PREPARE (pictures and prompt, side by side), RUN, then the end. Whatever happens - the answer is finished,
 * the client leaves, a worker dies, time runs out - oc_server_request_end ends it once and gives back all
 * that it holds. Memory is freed a turn of the loop later, when no crew works on it any more, so callbacks
 * may end it at any point.
 *
 * pictures.c, prompt.c and answer.c hold its parts; this header is theirs. */
#ifndef OC_SERVER_REQUEST_H
#define OC_SERVER_REQUEST_H

#include <stdatomic.h>

#include "api/request.h"
#include "api/response.h"
#include "chat/detok.h"
#include "chat/stop.h"
#include "http/http.h"
#include "server/call.h"
#include "server/images.h"
#include "server/models.h"

enum oc_server_stage {
    OC_STAGE_PARSE,
    OC_STAGE_RESOLVE,
    OC_STAGE_QUEUE,
    OC_STAGE_LOAD,
    OC_STAGE_PREPARE,
    OC_STAGE_RUN,
    OC_STAGE_ENDED
};

struct oc_server_picture {
    struct oc_server_request *r;
    struct oc_server_work work; /* the fetch */
    bool fetching, on_slow, is_seen;
    struct oc_server_look look;
    int bytes_fd, pixels_fd; /* -1: none */
    uint64_t n_bytes, look_ns;
    int64_t room_bytes; /* its part of the request's place, before it was seen */
    uint8_t bytes_digest[32]; /* before decoding */
    enum oc_err err;
    struct oc_errinfo ei;
    double fetch_ms, look_ms;
    struct oc_ipc_seen seen;
};

/* A token's log-probability, and where its text begins in the answer. */
struct oc_server_logprob {
    struct oc_api_token_logprobs lp;
    size_t start;
};

struct oc_server_choice {
    struct oc_server_job job;
    struct oc_server_request *r;
    int index;
    uint64_t seed;
    struct oc_chat_detok detok;
    struct oc_chat_stop *stop;          /* NULL: no stop strings */
    struct oc_buf text;                 /* of an answer that is not streamed */
    size_t n_fed, n_out;                /* bytes out of the detokenizer, out of the stop filter */
    size_t n_chars;                     /* characters out of the stop filter */
    struct oc_server_logprob *logprobs; /* not sent yet */
    size_t n_logprobs, cap_logprobs;
    bool role_sent, stopped, finished; /* stopped: by a stop string, the end of the job is awaited */
    enum oc_api_finish finish;
    int n_tokens;
    uint64_t last_ns; /* of its last token */
    bool has_done;
    struct oc_ipc_done done; /* without its message */
};

struct oc_server_request {
    struct oc_server_user user; /* first: what the exchange points to */
    struct oc_server_request *prev, *next;
    struct oc_server *s;
    enum oc_server_stage stage;
    const char *endpoint; /* "chat", "completions" */
    bool is_chat;
    char id[40];
    int key;
    uint8_t salt[16];
    enum oc_priority priority;
    uint64_t received_ns, slot_ns, first_ns, last_sent_ms;
    int64_t created;
    int n_pins; /* works that hold it */
    atomic_bool cancelled;
    struct oc_arena arena;
    struct oc_buf body;
    struct oc_api_request api;
    struct oc_api_error parse_error;
    bool parsed_ok;
    struct oc_server_work work; /* the parse, then the prompt */
    struct oc_server_lookup lookup;
    struct oc_server_model *model;
    struct oc_ticket ticket;
    bool was_queued, has_slot; /* for the X-Queue headers */
    double queue_ms;
    struct oc_server_want want;
    struct oc_server_picture *pictures;
    size_t n_pictures;
    struct oc_server_place place; /* room for their pixels */
    uint64_t place_ms;            /* since when it waits for that */
    int n_open; /* parts of PREPARE that are not done */
    struct oc_chat_ids ids;
    struct oc_buf echo; /* the prompt's text, when asked for */
    enum oc_err prompt_err;
    struct oc_errinfo prompt_ei;
    double prompt_ms;
    int64_t n_prompt, n_image, max_tokens;
    struct oc_server_choice *choices;
    int n_choices, n_finished;
    int n_replays;
    bool text_sent, slow; /* slow: the client reads too slowly, what comes is held */
    struct oc_buf held;
};

/* Begins with a whole request; the body is taken over. */
void oc_server_request_start(struct oc_server *s, struct oc_http_exchange *x, const struct oc_http_request *h,
                             bool is_chat, int key, const uint8_t salt[16]);
/* Ends it with an error: a status, or an event in a stream that has begun. Nothing when it has ended. */
void oc_server_request_fail(struct oc_server_request *r, const struct oc_api_error *e);
/* Gives everything back. status: what it counts as; 499: the client left. reason: for the log. */
void oc_server_request_end(struct oc_server_request *r, int status, const char *reason);
static inline bool oc_server_request_has_ended(const struct oc_server_request *r) {
    return r->stage == OC_STAGE_ENDED;
}
/* Milliseconds from its first byte to its first token; 0 before that. */
static inline double oc_server_request_ttft_ms(const struct oc_server_request *r) {
    return r->first_ns ? (double)(r->first_ns - r->received_ns) / 1e6 : 0;
}
/* X-Request-Id and the X-Queue headers, before the answer's first byte. */
void oc_server_request_headers(struct oc_server_request *r);
/* A work that held it is done; false when the request has ended and must not be touched. */
bool oc_server_request_unpin(struct oc_server_request *r);
const char *oc_server_request_stage_name(enum oc_server_stage stage);

/* Parts of PREPARE call it when they are done. */
void oc_server_request_part_done(struct oc_server_request *r);
/* The worker died under it, or took no job: once more on the next one, or an error. */
void oc_server_request_lost(struct oc_server_request *r);

/* Callbacks of admission; the ticket is the request's. */
void oc_server_request_on_slot(void *arg, struct oc_ticket *t);
void oc_server_request_on_queue_timeout(void *arg, struct oc_ticket *t);

/* Ten times a second: pings, time limits. */
void oc_server_requests_tick(struct oc_server *s, uint64_t now_ms);
/* Ends all with an error, when a drain takes too long. */
void oc_server_requests_fail_all(struct oc_server *s, const struct oc_api_error *e);
/* Frees what has ended; each turn of the loop. */
void oc_server_requests_reap(struct oc_server *s);

/* ---- pictures.c: fetch and look ---- */
void oc_server_pictures_start(struct oc_server_request *r);
void oc_server_pictures_cancel(struct oc_server_request *r);
void oc_server_pictures_close(struct oc_server_request *r);  /* descriptors */
void oc_server_pictures_forget(struct oc_server_request *r); /* pixels: no replay can follow */
void oc_server_pictures_blame(struct oc_server_request *r);  /* a worker died over them */
void oc_server_pictures_clear(struct oc_server_request *r);  /* they went through */
bool oc_server_pictures_refused(struct oc_server_request *r, struct oc_api_error *e);

/* ---- prompt.c: template, tokens, limits, jobs ---- */
void oc_server_prompt_start(struct oc_server_request *r);
/* Checks the whole against the context; false with *e. */
bool oc_server_prompt_check(struct oc_server_request *r, struct oc_api_error *e);
/* Sends a job for each choice. Errors: those of oc_server_worker_send. */
OC_MUST_CHECK enum oc_err oc_server_prompt_send(struct oc_server_request *r, struct oc_errinfo *ei);

/* ---- answer.c: tokens to text to HTTP ---- */
OC_MUST_CHECK enum oc_err oc_server_answer_open(struct oc_server_request *r,
                                                struct oc_errinfo *ei); /* choices */
void oc_server_answer_reset(struct oc_server_request *r);               /* for a replay */
void oc_server_answer_close(struct oc_server_request *r);
void oc_server_answer_ping(struct oc_server_request *r);
void oc_server_answer_drained(struct oc_server_request *r);
void oc_server_answer_error(struct oc_server_request *r, const struct oc_api_error *e);
extern const struct oc_server_job_events oc_server_answer_events;

#endif
