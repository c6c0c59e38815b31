/* engine/scheduler.h - many requests on one engine: continuous batching, pictures in slices, prefix reuse.
 *
 * Driven by one thread (worker/'s main loop, bench): add jobs, call step until it says there is nothing to do.
 * A step is one bounded slice of work: a token for every decoding sequence (more where drafts come true), or a slice of
 * a prefill pass (rows of one or more prompts) or of a vision encoder pass. While sequences decode, the two kinds alternate and slices are
 * sized from measured costs so that the time between two tokens stays under OC_SCHED_ITL_FACTOR times its quiet
 * value. docs/SCHEDULER.md says how.
 *
 * What a job answers depends on itself alone: not on its neighbours, the sizes of slices or what was cached
 * (only pages written by prefill are reused, and prefill is chunk-invariant). */
#ifndef OC_ENGINE_SCHEDULER_H
#define OC_ENGINE_SCHEDULER_H

#include "lm/sample.h"
#include "ocellus.h"
#include "vision/patches.h"

#define OC_SCHED_ITL_FACTOR 2.0
#define OC_SCHED_DIGEST_BYTES 32
#define OC_SCHED_SALT_BYTES 16

struct oc_scheduler;

struct oc_sched_picture {
    struct oc_picture_plan plan;
    uint8_t digest[OC_SCHED_DIGEST_BYTES]; /* of pixels and preprocessing; all zero: not cached */
    struct oc_vision_patches patches; /* plan.n_patches rows of plan.patch_dim, read until on_picture says so, or on_done */
};

struct oc_sched_job {
    uint64_t id; /* the caller's, unique among live jobs */
    const int32_t *tokens; /* one placeholder per picture; copied */
    int n_tokens;
    const struct oc_sched_picture *pictures; /* the array is copied */
    int n_pictures;
    struct oc_lm_sample_params sample; /* biases are copied */
    const int32_t *eos; /* copied */
    int n_eos;          /* at most OC_MAX_EOS */
    int max_tokens;     /* of the answer, at least 1 */
    int priority;       /* 0 first; within one, first come first served */
    uint8_t salt[OC_SCHED_SALT_BYTES];
};

enum oc_sched_stage { OC_SCHED_ENCODE, OC_SCHED_PREFILL, OC_SCHED_DECODE };
enum oc_sched_finish { OC_SCHED_STOP, OC_SCHED_LENGTH, OC_SCHED_CANCELLED, OC_SCHED_ERROR };

struct oc_sched_done {
    enum oc_sched_finish finish;
    struct oc_errinfo error; /* of OC_SCHED_ERROR */
    int n_prompt, n_cached, n_image, n_image_cached, n_output; /* tokens; n_output counts an end token too */
    double queue_ms, encode_ms, prefill_ms, decode_ms; /* decode: from the first token to the last */
};

/* Called from within oc_scheduler_step and _cancel; must not call the scheduler back, except oc_scheduler_cancel
 * from on_token. */
struct oc_sched_events {
    void *arg;
    void (*on_stage)(void *arg, uint64_t id, enum oc_sched_stage stage, int n_prompt, int n_cached);
    void (*on_picture)(void *arg, uint64_t id, int picture); /* its patches are no longer needed */
    void (*on_token)(void *arg, uint64_t id, const struct oc_lm_sample_pick *pick); /* never an end token */
    void (*on_done)(void *arg, uint64_t id, const struct oc_sched_done *done);
    void (*on_beat)(void *arg, enum oc_sched_stage stage, uint64_t id); /* before each slice of work; may be NULL */
};

struct oc_sched_params {
    size_t embed_cache_bytes; /* embeddings of pictures kept for reuse; 0: none */
    bool prefix_cache;        /* keep KV pages of prompts for reuse */
    bool speculate;           /* verify drafts where that pays: see engine/speculate.h */
    int max_jobs;             /* waiting and running; 0: OC_LIMIT_SCHED_JOBS */
};

/* The engine must have no open session and is the scheduler's alone from now on. Errors: OC_ERR_NOMEM. */
OC_MUST_CHECK enum oc_err oc_scheduler_open(struct oc_engine *e, const struct oc_sched_params *p,
                                            const struct oc_sched_events *ev, struct oc_scheduler **out,
                                            struct oc_errinfo *ei);
/* The most memory that a scheduler's jobs take at once, over what the engine holds: samplers, sequences, embeddings of
 * pictures that are held (the cache of idle ones aside), the pixels of the picture that is encoded, the books of the
 * prefix cache. */
uint64_t oc_scheduler_jobs_bytes(const struct oc_engine *e);

void oc_scheduler_close(struct oc_scheduler *s);

/* Queues a job. Errors (on_done is not called then): OC_ERR_LIMIT (prompt and answer exceed the context, too
 * many jobs: says the figures), OC_ERR_FORMAT (placeholders, token ids, a plan that is not this model's, pictures for
 * a text model), OC_ERR_USAGE (sampling, max_tokens, an id that is live), OC_ERR_NOMEM. */
OC_MUST_CHECK enum oc_err oc_scheduler_add(struct oc_scheduler *s, const struct oc_sched_job *job,
                                           struct oc_errinfo *ei);

/* Ends a job before the next slice; on_done (CANCELLED) is called at once, or at the end of the running slice
 * when called from a callback. Unknown ids are ignored. What the job held comes back with it; but pages and session
 * of one whose rows are in a prefill pass with another's only when that pass is done. */
void oc_scheduler_cancel(struct oc_scheduler *s, uint64_t id);

/* Does one slice; false when no job is left. */
bool oc_scheduler_step(struct oc_scheduler *s);

struct oc_sched_figures {
    int n_running, n_waiting;
    int kv_pages, kv_pages_used, kv_pages_cached;  /* in a session's hands; kept for reuse and in nobody's */
    uint64_t n_steps, n_prompt_tokens, n_output_tokens, n_image_tokens; /* run, not cached; encoded, not cached */
    uint64_t n_prefix_queries, n_prefix_hits;      /* tokens of prompts, of jobs that are done */
    uint64_t n_embed_queries, n_embed_hits;        /* pictures */
    uint64_t embed_bytes, embed_evictions, kv_evictions;
    uint64_t n_drafts, n_drafted, n_accepted;      /* times a job had drafts in a step; their tokens; those that came true */
    double decode_tok_s; /* moving average, all jobs together */
};
void oc_scheduler_figures(const struct oc_scheduler *s, struct oc_sched_figures *out);

#endif
