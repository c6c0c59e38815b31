#include "engine/ngram.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define LOOK_BACK 32 /* tokens before a match that are compared */
#define MEMORY 24    /* tokens of a class after which older ones fade */

/* ---- Opening ---------------------------------------------------------------------------------------------- */

/* Of each table, which is at most half full. */
static size_t n_places(int max_tokens) {
    size_t n = 256;
    while (n < 2 * (size_t)max_tokens) n *= 2;
    return n;
}

uint64_t oc_engine_ngram_bytes(int max_tokens) {
    const struct oc_engine_ngram *g = NULL;
    return (uint64_t)max_tokens * (sizeof *g->tokens + sizeof *g->came) + n_places(max_tokens) * (sizeof *g->last[0] + sizeof *g->last[1]);
}

enum oc_err oc_engine_ngram_open(struct oc_engine_ngram *g, int max_tokens, int32_t never, struct oc_errinfo *ei) {
    static const float first_odds[OC_ENGINE_NGRAM_CLASSES] = {0.3f, 0.5f, 0.2f, 0.3f, 0.6f, 0.2f, 0.4f, 0.7f, 0.3f,
                                                              0.5f, 0.8f, 0.3f, 0.7f, 0.9f, 0.4f, 0.9f, 0.95f, 0.5f};
    const size_t n = n_places(max_tokens);
    *g = (struct oc_engine_ngram){.max_tokens = max_tokens, .never = never, .mask = (uint32_t)n - 1};
    memcpy(g->odds, first_odds, sizeof g->odds);
    g->tokens = malloc((size_t)max_tokens * sizeof *g->tokens);
    g->came = malloc((size_t)max_tokens);
    g->last[0] = calloc(n, sizeof *g->last[0]);
    g->last[1] = calloc(n, sizeof *g->last[1]);
    if (g->tokens && g->came && g->last[0] && g->last[1]) return OC_OK;
    oc_engine_ngram_close(g);
    return oc_fail(ei, OC_ERR_NOMEM, "out of memory for the drafts of %d tokens", max_tokens);
}

void oc_engine_ngram_close(struct oc_engine_ngram *g) {
    free(g->tokens);
    free(g->came);
    free(g->last[0]);
    free(g->last[1]);
    *g = (struct oc_engine_ngram){0};
}

/* ---- Where it stood before -------------------------------------------------------------------------------- */

/* The place in the table for the last n tokens; NULL when there are none of which drafts are made. */
static uint32_t *place(struct oc_engine_ngram *g, int table) {
    int n = 3 - table;
    uint32_t h = 0;
    if (g->n_tokens < n) return NULL;
    for (int i = g->n_tokens - n; i < g->n_tokens; i++) {
        if (g->tokens[i] == g->never) return NULL;
        h = (h ^ (uint32_t)g->tokens[i]) * 0x9E3779B1u;
        h ^= h >> 15;
    }
    return &g->last[table][h & g->mask];
}

/* How many tokens before `end` agree with the last ones. */
static int count_agree(const struct oc_engine_ngram *g, int end) {
    int n = 0;
    while (n < LOOK_BACK && n < end && g->tokens[end - 1 - n] == g->tokens[g->n_tokens - 1 - n] && g->tokens[end - 1 - n] != g->never) n++;
    return n;
}

/* Looks up what ends the sequence now; `otherwise`: the place to go on at when it is new, 0: none. Then enters it. */
static void look_up(struct oc_engine_ngram *g, bool is_wanted, int otherwise) {
    for (int table = 0; table < 2; table++) {
        uint32_t *p = place(g, table);
        int n = p && is_wanted && !g->at && *p ? count_agree(g, (int)*p) : 0;
        if (n >= 3 - table) {
            g->at = (int)*p;
            g->agree = n;
        } else if (table == 0 && !g->at && otherwise) {
            g->at = otherwise;
            g->agree = 0;
        }
        if (p) *p = (uint32_t)g->n_tokens;
    }
    if (g->at && g->tokens[g->at] == g->never) g->at = 0;
}

/* ---- What came -------------------------------------------------------------------------------------------- */

/* By the tokens before it that agree, and by whether it was expected where it stood before: what has repeated itself once
 * is the frame of a table rather than a value in it. */
static int class_of(int agree, uint8_t came) {
    static const uint8_t classes[] = {0, 0, 1, 2, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4, 4, 5};
    return 3 * classes[agree < 16 ? agree : 16] + came;
}

/* The first odds weigh as four tokens. */
static void count(struct oc_engine_ngram *g, bool came_true) {
    int k = class_of(g->agree, g->came[g->at]);
    if (g->n_seen[k] < MEMORY - 4) g->n_seen[k]++;
    g->odds[k] += ((came_true ? 1.0f : 0.0f) - g->odds[k]) / (float)(g->n_seen[k] + 4);
}

void oc_engine_ngram_prompt(struct oc_engine_ngram *g, const int32_t *tokens, int n) {
    OC_ASSERT(n <= g->max_tokens - g->n_tokens);
    for (int i = 0; i < n; i++) {
        g->at = 0;
        g->came[g->n_tokens] = 0;
        g->tokens[g->n_tokens++] = tokens[i];
        look_up(g, i == n - 1, 0);
    }
}

void oc_engine_ngram_push(struct oc_engine_ngram *g, int32_t token) {
    int otherwise = 0;
    uint8_t came = 0;
    OC_ASSERT(g->n_tokens < g->max_tokens);
    if (g->at) {
        bool came_true = g->tokens[g->at] == token;
        count(g, came_true);
        came = came_true ? 1 : 2;
        if (!came_true && g->agree > 3) otherwise = g->at + 1; /* one value in a row of like ones */
        g->at = came_true ? g->at + 1 : 0;
        g->agree++;
    }
    g->came[g->n_tokens] = came;
    g->tokens[g->n_tokens++] = token;
    look_up(g, true, otherwise);
}

int oc_engine_ngram_draft(const struct oc_engine_ngram *g, int most, int32_t *out, float *odds) {
    float all = 1;
    if (!g->at) return 0;
    for (int i = 0; i < most; i++) {
        int at = g->at + i;
        bool is_there = at < g->n_tokens; /* or it is of the draft itself: what repeats itself goes on to */
        int32_t token = is_there ? g->tokens[at] : out[at - g->n_tokens];
        if (token == g->never) return i;
        all *= g->odds[class_of(g->agree + i, is_there ? g->came[at] : 1)];
        out[i] = token;
        odds[i] = all;
    }
    return most;
}
