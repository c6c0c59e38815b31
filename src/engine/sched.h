/* engine/sched.h - what the files of the scheduler share; its public face is engine/scheduler.h.
 *
 *   scheduler.c      the queue, the choice of the next slice, the end of a task
 *   sched_task.c     a job as the scheduler keeps it: checked, copied, with the keys of its pages
 *   sched_admit.c    which waiting tasks may start, and what they get
 *   sched_encode.c   slices of a vision encoder pass
 *   sched_prefill.c  chunks of prompts and slices of their pass
 *   sched_decode.c   the batch of decoding tasks, with drafts, and picking tokens
 *   sched_cost.c     slices: what work costs here, and so how much fits in one
 *
 * A task that ended stays in place until the slice is over, and longer while its rows are in a prefill pass. */
#ifndef OC_ENGINE_SCHED_H
#define OC_ENGINE_SCHED_H

#include "base/arena.h"
#include "engine/embed_cache.h"
#include "engine/engine.h"
#include "engine/ngram.h"
#include "engine/prefix_cache.h"
#include "engine/scheduler.h"
#include "engine/speculate.h"

#define OC_SCHED_MAX_OVERTAKES 8  /* a task that is passed by so often is next */
#define OC_SCHED_LOOK_AHEAD 32    /* waiting tasks that are tried behind one that does not fit */
#define OC_SCHED_ADMIT_MAX 4      /* tasks started in one step: each takes memory, which takes time */
#define OC_SCHED_SHARED_ROWS 128  /* rows of a chunk while others decode or wait: none of them waits long for it. On a device of */
#define OC_SCHED_SHARED_MS 50.0   /* its own as many as take so long, if that is more: there few rows cost as much as many */
#define OC_SCHED_FILL_ROWS 64     /* a chunk of fewer takes rows of the next prompts too */
#define OC_SCHED_DEVICE_ROWS 128  /* the same on a device of its own: fewer take about as long */
#define OC_SCHED_MIN_ROWS 32      /* of a piece of a pass: with fewer, turning weights to panels is most of the work */
#define OC_SCHED_ALONE_MS 100.0   /* a slice while nothing decodes: how long a cancel may have to wait */
#define OC_SCHED_DEVICE_MS 10.0   /* at least, of a slice on a device of its own. A step of a small batch takes 1 to 5 ms there; slices as
                                   * short would be mostly launches, waiting and pieces of too few rows. With a step it makes
                                   * less than the 25 ms between two tokens beyond which reading is not smooth */
#define OC_SCHED_MARGIN 0.8       /* of the time left is planned with: a slice also leaves caches cold behind it */

struct oc_sched_view { /* a picture of a task */
    struct oc_sched_picture p;
    struct oc_engine_embed_key key;
    int from;                              /* slot of its first placeholder */
    struct oc_engine_embedding *embedding; /* held; NULL before admission and when no longer needed */
    bool is_told;                          /* on_picture was called */
    bool is_own;                           /* this task had it encoded */
    bool is_passed;                        /* its KV is there */
};

struct oc_sched_task {
    struct oc_sched_task *next; /* in the queue */
    struct oc_arena arena;      /* tokens, pictures, biases, keys */
    uint64_t id, order;
    int priority;
    int32_t *tokens; /* [n_prompt], placeholders repeated */
    int n_prompt, max_tokens;
    struct oc_sched_view *pictures;
    int n_pictures;
    struct oc_lm_sample_params sample;
    int32_t eos[OC_MAX_EOS];
    int n_eos;
    uint8_t salt[OC_SCHED_SALT_BYTES];
    struct oc_engine_prefix_key *keys; /* [n_keys], of its full pages, as far as they can be shared */
    int n_keys;
    int n_overtaken, n_passed; /* at admission, at prefill */
    /* From admission on. */
    struct oc_session *session; /* its n_tokens are those whose KV is written */
    struct oc_lm_sampler *sampler;
    struct oc_engine_ngram ngram; /* empty when drafts are off */
    bool is_decoding, in_pass, is_ended, is_reported;
    int32_t last_token; /* picked, not yet run */
    struct oc_sched_done done;
    uint64_t added_ns, encode_ns, prefill_ns, first_ns, last_ns; /* 0: not yet */
};

/* A prompt's part of a prefill pass: rows at .. at+n-1 of the chunk. */
struct oc_sched_part {
    struct oc_sched_task *task;
    int at, n;
};

#define OC_SCHED_MAX_STAGES 8
#define OC_SCHED_N_SIZES 6 /* of pieces by their rows: up to 64, 128, 256, 512, 1024, and more */

/* Milliseconds for a million multiplications; 0: not yet known. On a device of its own a piece of few rows takes about as long
 * as one of many, so each size has a cost of its own; on the CPU the first one is all there is. */
struct oc_sched_cost {
    double by_size[OC_SCHED_N_SIZES];
};

struct oc_sched_costs {
    struct oc_sched_cost vision[OC_VISION_N_STAGES], lm[OC_LM_N_STAGES];
    double decode_ms; /* a decode step, picking included */
    double prefill_row_ms; /* a row of a chunk of as many rows as are allowed, all stages together */
};

/* A slice of encoding or prefill while it is made. The time of a piece is known when the device is done with it. The CPU is at
 * once; another device is asked once for all pieces of a slice, for waiting after each would leave it idle between them. Only a
 * piece of a stage that was never measured is waited for. */
struct oc_sched_slice {
    struct oc_sched_cost *costs; /* by stage */
    double left_ms, spent_ms;
    uint64_t start_ns; /* of the pieces that are not measured yet */
    struct {
        double macs, ms; /* theirs, and what was planned for them */
    } open[OC_SCHED_MAX_STAGES][OC_SCHED_N_SIZES];
    double planned_ms; /* for all of them */
};

/* For tests and measurements; what is NULL changes nothing. */
struct oc_sched_hook {
    void *arg;
    int (*rows)(void *arg, int max); /* how many of max rows (or tokens of a chunk) are taken, in place of the clock */
    int (*draft)(void *arg, const struct oc_sched_task *t, int32_t *out, int max); /* drafts in place of ours, all run */
    int32_t (*token)(void *arg, const struct oc_sched_task *t, int n_output, int32_t picked); /* what is said instead */
};

struct oc_sched_prefill {
    struct oc_lm_workspace ws;
    struct oc_lm_pass pass;
    bool is_on;
    struct oc_sched_part *parts; /* [n_sessions] */
    int n_parts, n_rows;
    double ms; /* that the pass has taken */
    /* [OC_ENGINE_CHUNK_ROWS], borrowed by the pass */
    int32_t *tokens, *outputs;
    const float **embeddings;
    int32_t (*pos)[3];
    struct oc_kv_row *kv_rows;
    int n_outputs;
};

struct oc_sched_encode {
    struct oc_vision_pass pass;
    struct oc_engine_embedding *embedding; /* NULL: no pass is on */
    struct oc_sched_task *task;            /* whose patches are read; NULL after stage EMBED */
};

/* One decoding task in a step, or one prompt's end: its outputs are first .. first + n_drafted. */
struct oc_sched_turn {
    struct oc_sched_task *task;
    int first, n_drafted;
    int n_kept;   /* rows whose token is the answer's: the first, and drafts that came true */
    int n_picked; /* of s->picks, from first on */
    struct oc_errinfo ei; /* what ended the picking; code OC_OK: nothing did */
};

struct oc_scheduler {
    struct oc_engine *e;
    struct oc_sched_params p;
    struct oc_sched_events ev;
    struct oc_arena arena; /* the arrays below */
    struct oc_engine_prefix_cache prefix;
    struct oc_engine_embed_cache embeds;
    struct oc_sched_task *waiting; /* by priority, then order */
    struct oc_sched_task **running; /* [n_sessions], in order of admission */
    int n_waiting, n_running, n_decoding;
    bool admit_again; /* something changed that may let a waiting task in */
    bool in_step, decode_next, encode_next;
    uint64_t n_added;
    struct oc_sched_prefill prefill;
    struct oc_sched_encode encode;
    struct oc_sched_costs costs;
    struct oc_sched_hook hook;
    struct oc_row *rows;             /* [max_outputs] of a decode step */
    struct oc_sched_turn *turns;     /* [n_sessions] */
    struct oc_lm_sample_pick *picks; /* [max_outputs] */
    struct oc_engine_draft *drafts;  /* [n_sessions] */
    struct oc_engine_speculation speculation;
    uint64_t last_decode_ns;         /* end of the step before, 0: none decoded then */
    struct oc_sched_figures figures; /* the counters */
};

static inline bool oc_sched_before(const struct oc_sched_task *a, const struct oc_sched_task *b) {
    return a->priority < b->priority || (a->priority == b->priority && a->order < b->order);
}

static inline void oc_sched_beat(const struct oc_scheduler *s, enum oc_sched_stage stage, const struct oc_sched_task *t) {
    if (s->ev.on_beat) s->ev.on_beat(s->ev.arg, stage, t->id);
}

/* ---- sched_task.c */

/* Checks a job and copies it. Errors: those of oc_scheduler_add. */
OC_MUST_CHECK enum oc_err oc_sched_task_new(struct oc_scheduler *s, const struct oc_sched_job *job, struct oc_sched_task **out,
                                            struct oc_errinfo *ei);
void oc_sched_task_free(struct oc_sched_task *t); /* it must hold nothing of the engine */

/* Makes the keys of its pages. Errors: OC_ERR_NOMEM. */
OC_MUST_CHECK enum oc_err oc_sched_task_make_keys(struct oc_sched_task *t, struct oc_errinfo *ei);

/* Tells once that a picture's patches are no longer needed. */
void oc_sched_task_tell_picture(struct oc_scheduler *s, struct oc_sched_task *t, int picture);

/* Gives back the embeddings of pictures that stand before slot n_done, or all. */
void oc_sched_task_pass_pictures(struct oc_scheduler *s, struct oc_sched_task *t, int n_done);
void oc_sched_task_give_pictures(struct oc_scheduler *s, struct oc_sched_task *t);

/* Takes pages that have come into the cache meanwhile in place of its own that are not written yet. */
void oc_sched_task_refresh(struct oc_scheduler *s, struct oc_sched_task *t);

/* The first thing that ends a task decides; `error` of OC_SCHED_ERROR alone. */
void oc_sched_task_end(struct oc_scheduler *s, struct oc_sched_task *t, enum oc_sched_finish finish, const struct oc_errinfo *error);

/* ---- sched_admit.c */

/* Starts what fits, best first. */
void oc_sched_admit(struct oc_scheduler *s);

/* ---- sched_encode.c */

#define OC_SCHED_NO_WORK INT32_MAX

/* The best priority of what waits for the encoder; OC_SCHED_NO_WORK. */
int oc_sched_encode_priority(const struct oc_scheduler *s);
void oc_sched_encode_slice(struct oc_scheduler *s);

/* A task gives up an embedding: a pass that only it needs, or that reads its patches, is dropped. */
void oc_sched_encode_leave(struct oc_scheduler *s, const struct oc_sched_task *t, const struct oc_engine_embedding *e);

/* ---- sched_prefill.c */

int oc_sched_prefill_priority(const struct oc_scheduler *s);
void oc_sched_prefill_slice(struct oc_scheduler *s);

/* Drops a pass all of whose tasks have ended. */
void oc_sched_prefill_tidy(struct oc_scheduler *s);

/* ---- sched_decode.c */

void oc_sched_decode_step(struct oc_scheduler *s);

/* Picks the tokens of the first n of s->turns (task, first, n_drafted set) and hands them on. */
void oc_sched_decode_pick(struct oc_scheduler *s, int n);

/* ---- sched_cost.c */

/* Milliseconds that a slice of encoding or prefill may take now. */
double oc_sched_cost_budget_ms(const struct oc_scheduler *s);

/* Lets a measured piece move the average; a dearer one moves it faster, and one that cost less than half settles it. */
void oc_sched_cost_learn(double *cost, double macs, double ms);

/* Begins a slice of the pass whose stages have these costs. */
void oc_sched_slice_begin(const struct oc_scheduler *s, struct oc_sched_slice *l, struct oc_sched_cost *costs);

/* Rows of the next piece: what fits in the time left, at least OC_SCHED_MIN_ROWS (OC_SCHED_DEVICE_ROWS), at most max. */
int oc_sched_slice_rows(const struct oc_scheduler *s, const struct oc_sched_slice *l, int stage, double macs_per_row, int max);

/* Whether another piece is begun in this slice. */
bool oc_sched_slice_fits(const struct oc_scheduler *s, const struct oc_sched_slice *l, int stage, double macs_per_row, int max);

/* A piece of so many rows was asked for. */
void oc_sched_slice_did(const struct oc_scheduler *s, struct oc_sched_slice *l, int stage, double macs_per_row, int rows);

/* All pieces are done: the device is waited for. Returns the milliseconds that they took. */
double oc_sched_slice_end(const struct oc_scheduler *s, struct oc_sched_slice *l);

/* Shares the time that all pieces that are not measured yet took among them, as was planned, and learns. */
void oc_sched_slice_settle(struct oc_sched_slice *l, double ms);

#endif
