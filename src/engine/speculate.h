/* engine/speculate.h - how many drafted tokens a decode step verifies.
 *
 * A step may run, behind the row of each sequence, rows of tokens that are drafted to follow (engine/ngram.h). What is
 * picked from the rows of a sequence is what it would pick one by one, as long as each pick is the next row's token; the
 * KV of the other rows is written over later. So drafts change how long an answer takes, never what it is.
 *
 * More rows cost more, and how much depends on the machine and the model. So it is measured: the cost of a step by
 * sequences and drafted rows, in steps of those sequences without drafts. With the odds of each draft that gives tokens
 * for time. One owner, one thread; allocates nothing. */
#ifndef OC_ENGINE_SPECULATE_H
#define OC_ENGINE_SPECULATE_H

#include <stdbool.h>
#include <stdint.h>

#define OC_ENGINE_DRAFT_ROWS 7       /* drafted rows of a step, of all sequences together */
#define OC_ENGINE_DRAFT_SEQUENCES 32 /* with more, a step is bound by arithmetic: drafts gain nothing */

struct oc_engine_speculation {
    struct oc_engine_draft_cost {
        double plain_ms;                    /* a step without drafts; 0: not known */
        double ratio[OC_ENGINE_DRAFT_ROWS]; /* of one with i + 1 drafted rows to that; 0: not known, or no longer */
        int age[OC_ENGINE_DRAFT_ROWS];      /* steps since it was measured */
        int n_seen[OC_ENGINE_DRAFT_ROWS];   /* how often it was, up to MAX_SEEN */
        int n_plain, n_since_plain;
    } costs[OC_ENGINE_DRAFT_SEQUENCES]; /* [n - 1] of n sequences */
};

/* What a sequence has to offer. */
struct oc_engine_draft {
    int32_t tokens[OC_ENGINE_DRAFT_ROWS];
    float odds[OC_ENGINE_DRAFT_ROWS]; /* that all tokens up to this one come true */
    int n;
};

/* Cuts a draft before the first of these end tokens: nothing follows one, so it needs no row. */
void oc_engine_speculate_cut(struct oc_engine_draft *d, const int32_t *eos, int n_eos);

/* Leaves of each of n drafts (one for each sequence of the step, n >= 1) as many tokens as pay. All zero at first. */
void oc_engine_speculate_choose(struct oc_engine_speculation *s, struct oc_engine_draft *drafts, int n);

/* A step of n sequences with n_drafted rows more took ms, tokens not picked yet. */
void oc_engine_speculate_learn(struct oc_engine_speculation *s, int n, int n_drafted, double ms);

#endif
