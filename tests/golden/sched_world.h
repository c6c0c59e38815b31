/* sched_world.h - jobs drawn from a seed, what each answers alone, and a scheduler that runs them; for check_scheduler. */
#ifndef SCHED_WORLD_H
#define SCHED_WORLD_H

#include "engine/sched.h"

#define MAX_ANSWER 40
#define MAX_PICTURES 3
#define N_PICTURES 5 /* different ones in a world */
#define CTX 320

struct answer {
    int32_t tokens[MAX_ANSWER]; /* end tokens are not among them */
    double logprobs[MAX_ANSWER];
    int n;
    enum oc_sched_finish finish;
};

struct job_case {
    struct oc_sched_job job;
    int32_t tokens[CTX];
    struct oc_sched_picture pictures[MAX_PICTURES];
    int picture_ids[MAX_PICTURES];
    int32_t eos;
    struct answer want, got;
    struct oc_sched_done done;
    int n_done, n_told[MAX_PICTURES], last_stage;
    bool is_added;
};

struct picture_case {
    struct oc_picture_plan plan;
    float *patches, *embedding;
};

struct world {
    struct oc_engine *e;
    struct oc_scheduler *s;
    struct picture_case pictures[N_PICTURES];
    struct job_case *cases;
    int n_cases, n_finished;
    uint64_t rng;
    uint64_t cancel_on_token; /* an id that is cancelled by its next token; 0: none */
    int cancel_at;            /* by its token of this number instead; 0: the next */
    bool speculate;           /* of the schedulers that are started from now on */
    uint64_t order[64];       /* ids as they finished */
    size_t most_idle_bytes;   /* of the embedding cache, ever */
};

uint64_t draw(uint64_t *rng);
int draw_int(uint64_t *rng, int lo, int hi); /* both ends in */

/* Opens the model with these sizes and encodes the world's pictures. */
void world_open(struct world *w, const char *model_dir, int n_sessions, int kv_tokens);
void world_close(struct world *w);

/* Of picture `id`: all of them, or made as they are needed; jobs get both kinds. */
struct oc_vision_patches world_patches(struct world *w, int id);

/* The i-th job of a seed; its answer alone when want is set. Ids are i + 1. */
void world_make_case(struct world *w, struct job_case *c, int i, uint64_t seed, bool want);

/* n cases of a seed, in place of those before. */
void world_make_cases(struct world *w, int n, uint64_t seed, bool want);

/* Answers c alone, by the session calls. */
void world_answer_alone(struct world *w, struct job_case *c);

void world_start(struct world *w, bool prefix_cache, size_t embed_cache_bytes);
void world_stop(struct world *w);

/* Forgets what the cases answered, so that they may run again. */
void world_forget(struct world *w);

void world_add(struct world *w, struct job_case *c);
struct job_case *world_case(struct world *w, uint64_t id);

/* Steps until no job is left; fails the test when that takes more than most steps. */
void world_finish(struct world *w, int most);

/* Adds all cases at random moments and runs them. */
void world_run(struct world *w);

/* Every case is done and answered as alone. */
void world_check(const struct world *w);

/* No page, embedding or session is in use. */
void world_check_empty(const struct world *w);

/* Drafts from now on, whatever they cost: those that the sequence itself gives, or tokens of the answer alone of which a
 * random number is right, or that are all right. Needs cases with what they want. */
enum world_drafts { WORLD_DRAFTS_OWN, WORLD_DRAFTS_RANDOM, WORLD_DRAFTS_RIGHT };
void world_draft(struct world *w, enum world_drafts drafts);

/* Makes every slice a random number of rows from now on. */
void world_random_slices(struct world *w);

#endif
