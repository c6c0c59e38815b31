#include "lm/sample.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"

#define BLOCKS_BYTES (OC_MIB + 32 * OC_KIB) /* what an arena of these arrays may leave unused, and the allocator beneath it */

/* A token that is still in the running. */
struct candidate {
    float score;
    int32_t id;
};

struct oc_lm_sampler {
    struct oc_lm_sample_params p;
    struct oc_arena arena;
    int n_vocab;
    uint64_t n_draws;
    float *scores;          /* [n_vocab] logits as the steps change them */
    struct candidate *heap; /* [n_vocab] */
    int32_t *n_output;      /* [n_vocab] how often a token was picked */
    bool *is_seen;          /* [n_vocab] in prompt or output */
    int32_t *seen;          /* the tokens of is_seen, so that penalties need not walk the vocabulary */
    int n_seen;
};

struct oc_lm_sample_params oc_lm_sample_defaults(void) {
    return (struct oc_lm_sample_params){.top_p = 1, .repetition_penalty = 1, .n_logprobs = -1};
}

enum oc_err oc_lm_sample_check(const struct oc_lm_sample_params *p, int n_vocab, struct oc_errinfo *ei) {
    if (!(p->temperature >= 0) || !isfinite(p->temperature))
        return oc_fail(ei, OC_ERR_USAGE, "temperature is %g, but must be 0 or more", (double)p->temperature);
    if (p->top_k < 0) return oc_fail(ei, OC_ERR_USAGE, "top_k is %d, but must be 0 (off) or more", p->top_k);
    if (!(p->top_p > 0 && p->top_p <= 1))
        return oc_fail(ei, OC_ERR_USAGE, "top_p is %g, but must be over 0 and at most 1", (double)p->top_p);
    if (!(p->min_p >= 0 && p->min_p <= 1))
        return oc_fail(ei, OC_ERR_USAGE, "min_p is %g, but must be from 0 to 1", (double)p->min_p);
    if (!(p->repetition_penalty > 0) || !isfinite(p->repetition_penalty))
        return oc_fail(ei, OC_ERR_USAGE, "repetition_penalty is %g, but must be over 0",
                       (double)p->repetition_penalty);
    if (!isfinite(p->presence_penalty) || !isfinite(p->frequency_penalty))
        return oc_fail(ei, OC_ERR_USAGE, "presence_penalty and frequency_penalty must be finite numbers");
    if (p->n_logprobs > OC_LIMIT_TOP_LOGPROBS)
        return oc_fail(ei, OC_ERR_USAGE, "%d logprobs were asked for, but at most %d can be given",
                       p->n_logprobs, OC_LIMIT_TOP_LOGPROBS);
    for (int i = 0; i < p->n_biases; i++) {
        int32_t t = p->biases[i].token;
        if (t < 0 || t >= n_vocab)
            return oc_fail(ei, OC_ERR_USAGE, "logit_bias names token %d, but the vocabulary has %d", t,
                           n_vocab);
        if (!isfinite(p->biases[i].bias))
            return oc_fail(ei, OC_ERR_USAGE, "logit_bias of token %d is not a finite number",
                           p->biases[i].token);
    }
    return OC_OK;
}

enum oc_err oc_lm_sample_open(const struct oc_lm_sample_params *p, int n_vocab, struct oc_lm_sampler **out,
                              struct oc_errinfo *ei) {
    *out = NULL;
    OC_ASSERT(n_vocab > 0);
    OC_TRY(oc_lm_sample_check(p, n_vocab, ei));
    struct oc_lm_sampler *s = calloc(1, sizeof *s);
    if (!s) return oc_fail(ei, OC_ERR_NOMEM, "no memory for a sampler");
    size_t n = (size_t)n_vocab, n_biases = (size_t)(p->n_biases > 0 ? p->n_biases : 0);
    s->p = *p;
    s->n_vocab = n_vocab;
    oc_arena_init(&s->arena, n * 32 + n_biases * sizeof *p->biases + OC_MIB);
    s->scores = oc_arena_array(&s->arena, n, sizeof *s->scores);
    s->heap = oc_arena_array(&s->arena, n, sizeof *s->heap);
    s->n_output = oc_arena_array(&s->arena, n, sizeof *s->n_output);
    s->is_seen = oc_arena_array(&s->arena, n, sizeof *s->is_seen);
    s->seen = oc_arena_array(&s->arena, n, sizeof *s->seen);
    struct oc_lm_sample_bias *biases = oc_arena_array(&s->arena, n_biases, sizeof *biases);
    if (!s->scores || !s->heap || !s->n_output || !s->is_seen || !s->seen || !biases) {
        oc_lm_sample_close(s);
        return oc_fail(ei, OC_ERR_NOMEM, "no memory for a sampler of %d tokens", n_vocab);
    }
    if (n_biases) memcpy(biases, p->biases, n_biases * sizeof *biases);
    s->p.biases = biases;
    *out = s;
    return OC_OK;
}

size_t oc_lm_sample_bytes(int n_vocab) {
    const struct oc_lm_sampler *s = NULL;
    const size_t a_token = sizeof *s->scores + sizeof *s->heap + sizeof *s->n_output + sizeof *s->is_seen + sizeof *s->seen;
    return sizeof *s + (size_t)n_vocab * a_token + BLOCKS_BYTES;
}

void oc_lm_sample_close(struct oc_lm_sampler *s) {
    if (!s) return;
    oc_arena_free(&s->arena);
    free(s);
}

static void see(struct oc_lm_sampler *s, int32_t token) {
    if (token < 0 || token >= s->n_vocab || s->is_seen[token]) return;
    s->is_seen[token] = true;
    s->seen[s->n_seen++] = token;
}

void oc_lm_sample_prompt(struct oc_lm_sampler *s, const int32_t *tokens, int n_tokens) {
    for (int i = 0; i < n_tokens; i++) see(s, tokens[i]);
}

/* ---- Random numbers and exp ---------------------------------------------------------------------------- */

void oc_lm_sample_random(const uint32_t key[2], const uint32_t counter[4], uint32_t out[4]) {
    uint32_t k0 = key[0], k1 = key[1];
    uint32_t c[4] = {counter[0], counter[1], counter[2], counter[3]};
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * c[0], b = (uint64_t)0xCD9E8D57u * c[2];
        uint32_t next[4] = {(uint32_t)(b >> 32) ^ c[1] ^ k0, (uint32_t)b, (uint32_t)(a >> 32) ^ c[3] ^ k1,
                            (uint32_t)a};
        memcpy(c, next, sizeof c);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    memcpy(out, c, sizeof c);
}

/* Uniform in [0, 1), 53 bits. */
static double draw(struct oc_lm_sampler *s) {
    uint32_t key[2] = {(uint32_t)s->p.seed, (uint32_t)(s->p.seed >> 32)};
    uint32_t counter[4] = {(uint32_t)s->n_draws, (uint32_t)(s->n_draws >> 32), 0, 0}, r[4];
    s->n_draws++;
    oc_lm_sample_random(key, counter, r);
    return (double)((((uint64_t)r[0] << 32) | r[1]) >> 11) * 0x1p-53;
}

double oc_lm_sample_exp(double x) {
    if (!(x > -708)) return 0;
    /* x = n ln 2 + r with |r| <= ln 2 / 2, ln 2 in two parts so that n*hi is exact; then Taylor's series of
     * e^r, whose term 14 is below 1e-17. */
    const double inv_ln2 = 1.4426950408889634, ln2_hi = 6.93147180369123816490e-01,
                 ln2_lo = 1.90821492927058770002e-10;
    double n = floor(x * inv_ln2 + 0.5);
    double r = (x - n * ln2_hi) - n * ln2_lo;
    double sum = 1;
    for (int i = 13; i > 0; i--) sum = 1 + r * sum / i;
    union {
        uint64_t bits;
        double d;
    } scale = {.bits = (uint64_t)(1023 + (int64_t)n) << 52};
    return sum * scale.d;
}

/* ---- Logprobs ------------------------------------------------------------------------------------------ */

/* The n likeliest of logits into out->top, and log(sum(exp(logits - max))) + max. */
static double top_logits(const float *logits, int n_vocab, int n, struct oc_lm_sample_pick *out) {
    float max = -INFINITY;
    for (int i = 0; i < n_vocab; i++)
        if (logits[i] > max) max = logits[i];
    double sum = 0;
    out->n_top = 0;
    for (int i = 0; i < n_vocab; i++) {
        sum += oc_lm_sample_exp((double)logits[i] - max);
        if (n == 0 || (out->n_top == n && !(logits[i] > out->top[n - 1].logprob))) continue;
        int at = out->n_top < n ? out->n_top++ : n - 1;
        for (; at > 0 && logits[i] > out->top[at - 1].logprob; at--) out->top[at] = out->top[at - 1];
        out->top[at] = (struct oc_lm_sample_choice){i, logits[i]};
    }
    return log(sum) + max;
}

static void logprobs(const struct oc_lm_sampler *s, const float *logits, struct oc_lm_sample_pick *out) {
    double norm = top_logits(logits, s->n_vocab, s->p.n_logprobs, out);
    out->logprob = logits[out->token] - norm;
    for (int i = 0; i < out->n_top; i++) out->top[i].logprob -= norm;
}

/* ---- Steps 1 to 4 -------------------------------------------------------------------------------------- */

static void penalise(struct oc_lm_sampler *s) {
    const struct oc_lm_sample_params *p = &s->p;
    for (int i = 0; i < s->n_seen; i++) {
        int32_t t = s->seen[i];
        float l = s->scores[t];
        if (p->repetition_penalty != 1) l = l < 0 ? l * p->repetition_penalty : l / p->repetition_penalty;
        if (s->n_output[t]) l -= (float)s->n_output[t] * p->frequency_penalty + p->presence_penalty;
        s->scores[t] = l;
    }
    for (int i = 0; i < p->n_biases; i++) s->scores[p->biases[i].token] += p->biases[i].bias;
}

static void mask(float *scores, int n, const uint32_t *allow) {
    for (int i = 0; i < n; i++)
        if (!(allow[i / 32] >> (i % 32) & 1)) scores[i] = -INFINITY;
}

/* The lowest id among the largest scores; -1 when all are minus infinity, -2 when one is not a number. */
static int32_t best(const float *scores, int n) {
    int32_t at = -1;
    float max = -INFINITY;
    for (int i = 0; i < n; i++) {
        if (isnan(scores[i])) return -2;
        if (scores[i] > max) {
            max = scores[i];
            at = i;
        }
    }
    return at;
}

/* ---- Steps 6 to 9 -------------------------------------------------------------------------------------- */

static bool before(struct candidate a, struct candidate b) {
    return a.score > b.score || (a.score == b.score && a.id < b.id);
}

static void sift(struct candidate *h, int n, int at) {
    struct candidate c = h[at];
    for (int child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && before(h[child + 1], h[child])) child++;
        if (!before(h[child], c)) break;
        h[at] = h[child];
    }
    h[at] = c;
}

/* The first of a heap of n goes to its end; what is left is a heap of n - 1. */
static struct candidate pop(struct candidate *h, int n) {
    struct candidate first = h[0];
    h[0] = h[n - 1];
    h[n - 1] = first;
    sift(h, n - 1, 0);
    return first;
}

static double weight(const struct candidate *c, float max) {
    return oc_lm_sample_exp((double)c->score - max);
}

/* Takes the k first of the heap, and those equal to the last of them, to its end; returns how many. */
static int take_top_k(struct candidate *h, int n, int k) {
    int n_taken = 0;
    struct candidate last = {0};
    while (n_taken < n && (n_taken < k || h[0].score == last.score)) last = pop(h, n - n_taken++);
    return n_taken;
}

/* Draws from n candidates c[0], c[step], ... whose weights sum to mass, in that order. */
static int32_t draw_from(struct oc_lm_sampler *s, const struct candidate *c, int step, int n, float max,
                         double mass) {
    double goal = draw(s) * mass, sum = 0;
    int32_t last = c->id;
    for (int i = 0; i < n; i++, c += step) {
        double w = weight(c, max);
        sum += w;
        if (sum > goal) return c->id;
        if (w > 0) last = c->id;
    }
    return last; /* rounding made the goal equal to the whole mass */
}

/* Draws from the candidates h[0..n), a heap; max is the largest score. The i-th in order comes to h[n-1-i].
 */
static int32_t draw_truncated(struct oc_lm_sampler *s, struct candidate *h, int n, float max) {
    const struct oc_lm_sample_params *p = &s->p;
    int n_popped = p->top_k > 0 ? take_top_k(h, n, p->top_k) : 0;
    int lowest = n_popped ? n - n_popped : 0;
    double total = 0;
    for (int i = n - 1; i >= lowest; i--) total += weight(&h[i], max);
    int n_limit = n_popped ? n_popped : n, n_kept = 0;
    double mass = 0;
    while (n_kept < n_limit && (n_kept == 0 || p->top_p >= 1 || mass < p->top_p * total)) {
        if (n_kept >= n_popped) pop(h, n - n_kept);
        double w = weight(&h[n - 1 - n_kept], max);
        if (n_kept > 0 && w < p->min_p) break; /* of the likeliest, whose weight is 1 */
        mass += w;
        n_kept++;
    }
    return draw_from(s, h + n - 1, -1, n_kept, max, mass);
}

static int32_t choose(struct oc_lm_sampler *s, float max) {
    int n = 0;
    max /= s->p.temperature;
    for (int i = 0; i < s->n_vocab; i++)
        if (s->scores[i] > -INFINITY) s->heap[n++] = (struct candidate){s->scores[i] / s->p.temperature, i};
    if (s->p.top_k == 0 && s->p.top_p >= 1 && s->p.min_p <= 0) {
        double mass = 0;
        for (int i = 0; i < n; i++) mass += weight(&s->heap[i], max);
        return draw_from(s, s->heap, 1, n, max, mass);
    }
    for (int i = n / 2 - 1; i >= 0; i--) sift(s->heap, n, i);
    return draw_truncated(s, s->heap, n, max);
}

enum oc_err oc_lm_sample_pick(struct oc_lm_sampler *s, const float *logits, const uint32_t *allow,
                              struct oc_lm_sample_pick *out, struct oc_errinfo *ei) {
    *out = (struct oc_lm_sample_pick){.token = -1};
    memcpy(s->scores, logits, (size_t)s->n_vocab * sizeof *s->scores);
    penalise(s);
    if (allow) mask(s->scores, s->n_vocab, allow);
    int32_t top = best(s->scores, s->n_vocab);
    if (top == -1 && allow) return oc_fail(ei, OC_ERR_FORMAT, "the mask of allowed tokens leaves none");
    if (top < 0 || isinf(s->scores[top]))
        return oc_fail(ei, OC_ERR_FORMAT,
                       "the model's logits are not finite numbers: its weights may be damaged");
    /* A temperature so small that scores overflow means greedy, as its limit does. */
    bool greedy = s->p.temperature == 0 || isinf(s->scores[top] / s->p.temperature);
    out->token = greedy ? top : choose(s, s->scores[top]);
    if (s->p.n_logprobs >= 0) logprobs(s, logits, out);
    see(s, out->token);
    s->n_output[out->token]++;
    return OC_OK;
}
