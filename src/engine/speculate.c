#include "engine/speculate.h"

#include <stddef.h>

#define MIN_GAIN 1.05      /* expected, or the step is plain: odds and costs are estimates */
#define PLAIN_EVERY 24     /* a plain step at least so often, for the ratios are to its cost */
#define MIN_PLAIN 3        /* plain steps before the first draft */
#define GUESS 0.25         /* cost of a drafted row beside the share of one sequence, until it is measured */
#define RATE 0.25          /* of a measurement in an average */
#define FIRST_AGE 64       /* steps after which the first measurement of a ratio is forgotten, in case it was a bad moment; */
#define MAX_SEEN 3         /* twice as many after the second, and again */

static struct oc_engine_draft_cost *cost_of(struct oc_engine_speculation *s, int n) {
    return n <= OC_ENGINE_DRAFT_SEQUENCES ? &s->costs[n - 1] : NULL;
}

/* Between what was measured, and beyond it as steep as to there, or as the guess where that was less. */
static double ratio(const struct oc_engine_draft_cost *c, int n, int n_drafted) {
    int lo = n_drafted, hi = n_drafted;
    double slope = GUESS / n, low = 1;
    if (n_drafted == 0) return 1;
    if (c->ratio[n_drafted - 1] > 0) return c->ratio[n_drafted - 1];
    while (lo > 0 && c->ratio[lo - 1] <= 0) lo--;
    while (hi <= OC_ENGINE_DRAFT_ROWS && c->ratio[hi - 1] <= 0) hi++;
    if (lo > 0) low = c->ratio[lo - 1];
    if (hi <= OC_ENGINE_DRAFT_ROWS) slope = (c->ratio[hi - 1] - low) / (hi - lo);
    else if (lo > 0) slope = (low - 1) / lo > slope ? (low - 1) / lo : ((low - 1) / lo + slope) / 2;
    return low + slope * (n_drafted - lo);
}

/* The sequence whose next draft token is likeliest; -1: there is none. */
static int likeliest(const struct oc_engine_draft *drafts, const int *taken, int n) {
    int best = -1;
    for (int i = 0; i < n; i++)
        if (taken[i] < drafts[i].n && (best < 0 || drafts[i].odds[taken[i]] > drafts[best].odds[taken[best]])) best = i;
    return best;
}

void oc_engine_speculate_cut(struct oc_engine_draft *d, const int32_t *eos, int n_eos) {
    for (int i = 0; i < d->n; i++)
        for (int k = 0; k < n_eos; k++)
            if (d->tokens[i] == eos[k]) d->n = i;
}

void oc_engine_speculate_choose(struct oc_engine_speculation *s, struct oc_engine_draft *drafts, int n) {
    const struct oc_engine_draft_cost *c = cost_of(s, n);
    int taken[OC_ENGINE_DRAFT_SEQUENCES] = {0}, order[OC_ENGINE_DRAFT_ROWS], n_best = 0, at;
    if (c && c->n_plain >= MIN_PLAIN && c->n_since_plain < PLAIN_EVERY) {
        double tokens = n, best = n * MIN_GAIN;
        for (int i = 0; i < OC_ENGINE_DRAFT_ROWS && (at = likeliest(drafts, taken, n)) >= 0; i++) {
            order[i] = at;
            tokens += (double)drafts[at].odds[taken[at]++];
            double gain = tokens / ratio(c, n, i + 1);
            if (gain <= best) continue;
            best = gain;
            n_best = i + 1;
        }
    }
    for (int i = 0; i < n; i++) drafts[i].n = 0;
    for (int i = 0; i < n_best; i++) drafts[order[i]].n++;
}

/* One measurement out of line, as when another program has taken the processor, moves an average little. */
static double within(double value, double lo, double hi) {
    return value < lo ? lo : value > hi ? hi : value;
}

static void learn_plain(struct oc_engine_draft_cost *c, double ms) {
    c->n_since_plain = 0;
    if (c->n_plain < MIN_PLAIN) {
        c->n_plain++;
        if (c->plain_ms <= 0 || ms < c->plain_ms) c->plain_ms = ms; /* the first steps touch memory for the first time */
        return;
    }
    c->plain_ms += RATE * (within(ms, c->plain_ms / 2, c->plain_ms * 2) - c->plain_ms);
}

/* What was measured long ago, or once, is tried again: seldom, and only when drafts are likely. */
static void grow_older(struct oc_engine_draft_cost *c) {
    for (int i = 0; i < OC_ENGINE_DRAFT_ROWS; i++)
        if (c->n_seen[i] && ++c->age[i] > FIRST_AGE << (c->n_seen[i] - 1)) c->ratio[i] = 0;
}

static void learn_drafted(struct oc_engine_draft_cost *c, int i, double ratio) {
    c->n_since_plain++;
    c->age[i] = 0;
    if (c->n_seen[i] < MAX_SEEN) c->n_seen[i]++;
    if (c->ratio[i] > 0) c->ratio[i] += RATE * (ratio - c->ratio[i]);
    else c->ratio[i] = ratio;
}

void oc_engine_speculate_learn(struct oc_engine_speculation *s, int n, int n_drafted, double ms) {
    struct oc_engine_draft_cost *c = cost_of(s, n);
    if (!c || ms <= 0) return;
    grow_older(c);
    if (n_drafted == 0) learn_plain(c, ms);
    else if (c->plain_ms > 0) learn_drafted(c, n_drafted - 1, within(ms / c->plain_ms, 1, 1 + (double)n_drafted / n)); /* as one by one */
}
