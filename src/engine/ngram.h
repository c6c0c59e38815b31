/* engine/ngram.h - what a sequence may say next, looked up in what it holds already (prompt look-up).
 *
 * Tables remember where the last three (two) tokens stood before, the latest place wins; what followed there is the
 * draft. While the sequence goes on as at that place, the place is followed and nothing is looked up. How often drafts
 * came true is counted by how many tokens before them agreed. It is counted for every token, whether its draft was run or
 * not, so that knowing costs nothing. A token costs a few memory accesses, all memory is taken when it is opened. One
 * owner, one thread. */
#ifndef OC_ENGINE_NGRAM_H
#define OC_ENGINE_NGRAM_H

#include <stdint.h>

#include "base/err.h"

#define OC_ENGINE_NGRAM_CLASSES 18

struct oc_engine_ngram {
    int32_t *tokens; /* [max_tokens], all so far */
    uint8_t *came;   /* [max_tokens]: 1 the token was expected, 2 another one was, 0 none was */
    uint32_t *last[2]; /* [mask + 1]: number of tokens up to the latest end of a run of 3 (2) with this hash; 0: none */
    uint32_t mask;
    int n_tokens, max_tokens;
    int32_t never; /* a token that is in no draft, nor before one; -1: none */
    int at;        /* the next token is expected to be tokens[at]; 0: nothing is expected */
    int agree;     /* tokens before it that agree, as far as was looked; 0 behind one that did not */
    float odds[OC_ENGINE_NGRAM_CLASSES]; /* of a draft token, by class: see ngram.c */
    int n_seen[OC_ENGINE_NGRAM_CLASSES];
};

/* Room for max_tokens. Errors: OC_ERR_NOMEM. */
OC_MUST_CHECK enum oc_err oc_engine_ngram_open(struct oc_engine_ngram *g, int max_tokens, int32_t never, struct oc_errinfo *ei);
void oc_engine_ngram_close(struct oc_engine_ngram *g);

/* What oc_engine_ngram_open takes. */
uint64_t oc_engine_ngram_bytes(int max_tokens);

/* Tokens of the prompt: found later, but not counted as drafts. */
void oc_engine_ngram_prompt(struct oc_engine_ngram *g, const int32_t *tokens, int n);

/* The next token of the answer. */
void oc_engine_ngram_push(struct oc_engine_ngram *g, int32_t token);

/* At most `most` tokens that may come next into out; odds[i]: how likely all of them up to the i-th come true. Returns how
 * many. */
int oc_engine_ngram_draft(const struct oc_engine_ngram *g, int most, int32_t *out, float *odds);

#endif
