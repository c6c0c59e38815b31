/* lm/sample.h - from logits to the next token.
 *
 * One sampler belongs to one sequence: it remembers what was said, for the penalties, and how often it drew.
 * Used by whoever owns the sequence, from that thread. All memory is taken when it is opened; a pick
 * allocates nothing.
 *
 * The order is that of transformers' generate(), with OpenAI's penalties between processors and warpers:
 *   1. repetition penalty r, on every token of prompt or output, once each: l < 0 ? l*r : l/r
 *   2. presence and frequency penalties, on output tokens: l -= count*frequency + presence
 *   3. logit bias: l += bias
 *   4. allow-mask: tokens outside it are gone
 *   5. temperature 0: the largest l, the lowest id among equals, and nothing below applies. Otherwise l /=
 * temperature
 *   6. top-k: tokens below the k-th largest l are gone (those equal to it stay)
 *   7. top-p, over what is left: a token stays while the tokens before it have less than p of the mass;
 * tokens stand in order of l, the lower id first among equals
 *   8. min-p: tokens less than min_p times as likely as the likeliest are gone
 *   9. one draw from what is left
 * Sums are doubles and exp is our own, so that the same logits and seed give the same token on any machine.
 * Logprobs are the log-softmax of the logits as the model gave them, before step 1. */
#ifndef OC_LM_SAMPLE_H
#define OC_LM_SAMPLE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/limits.h"

struct oc_lm_sampler;

struct oc_lm_sample_bias {
    int32_t token;
    float bias;
};

struct oc_lm_sample_params {
    float temperature;        /* >= 0; 0: greedy */
    int top_k;                /* 0: off */
    float top_p;              /* in (0, 1]; 1: off */
    float min_p;              /* in [0, 1]; 0: off */
    float repetition_penalty; /* > 0; 1: off */
    float presence_penalty, frequency_penalty;
    uint64_t seed;
    int n_logprobs; /* alternatives reported with each token, at most OC_LIMIT_TOP_LOGPROBS; -1: no logprobs
                       at all */
    const struct oc_lm_sample_bias *biases; /* copied */
    int n_biases;
};

/* Greedy, everything off, no logprobs. */
struct oc_lm_sample_params oc_lm_sample_defaults(void);

/* Errors: OC_ERR_USAGE (a parameter out of range, a bias for a token outside the vocabulary: named). */
OC_MUST_CHECK enum oc_err oc_lm_sample_check(const struct oc_lm_sample_params *p, int n_vocab,
                                             struct oc_errinfo *ei);

/* Errors: those of oc_lm_sample_check, OC_ERR_NOMEM. */
OC_MUST_CHECK enum oc_err oc_lm_sample_open(const struct oc_lm_sample_params *p, int n_vocab,
                                            struct oc_lm_sampler **out, struct oc_errinfo *ei);
void oc_lm_sample_close(struct oc_lm_sampler *s); /* NULL is allowed */

/* Memory that a sampler takes, biases aside. */
size_t oc_lm_sample_bytes(int n_vocab);

/* Tells the sampler which tokens the prompt holds; ids outside the vocabulary are ignored. */
void oc_lm_sample_prompt(struct oc_lm_sampler *s, const int32_t *tokens, int n_tokens);

struct oc_lm_sample_choice {
    int32_t token;
    double logprob;
};

struct oc_lm_sample_pick {
    int32_t token;
    double logprob; /* of token; 0 when no logprobs were asked for */
    int n_top;      /* likeliest first, the lower id first among equals */
    struct oc_lm_sample_choice top[OC_LIMIT_TOP_LOGPROBS];
};

/* Picks the next token of logits [n_vocab] f32 (only read) and counts it as output. allow: bit i%32 of word
 * i/32 permits token i; NULL permits all. Errors: OC_ERR_FORMAT (logits that are not finite numbers, a mask
 * that leaves no token); nothing is counted then. */
OC_MUST_CHECK enum oc_err oc_lm_sample_pick(struct oc_lm_sampler *s, const float *logits,
                                            const uint32_t *allow, struct oc_lm_sample_pick *out,
                                            struct oc_errinfo *ei);

/* 128 random bits: Philox4x32-10 ("Parallel random numbers: as easy as 1, 2, 3", Salmon et al. 2011). The
 * sampler's n-th draw takes the first 53 bits for the key that is its seed and the counter n, low words
 * first. */
void oc_lm_sample_random(const uint32_t key[2], const uint32_t counter[4], uint32_t out[4]);

/* e to the x, for x <= 0, the same bits on any machine; relative error below 1e-15. 0 below -708. */
double oc_lm_sample_exp(double x);

#endif
