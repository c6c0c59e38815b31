/* The sampler against an independent Python version of it (tools/sample_cases.py), and its edges. */
#include <malloc.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lm/sample.h"

#include "sample_cases.h"

#define N_CASE_VOCAB ((int)(sizeof case_logits / sizeof *case_logits))
#define N_CASES (sizeof sample_cases / sizeof *sample_cases)

static struct oc_lm_sampler *sampler(const struct oc_lm_sample_params *p, int n_vocab) {
    struct oc_lm_sampler *s;
    struct oc_errinfo ei;
    assert_int_equal(oc_lm_sample_open(p, n_vocab, &s, &ei), OC_OK);
    return s;
}

static struct oc_lm_sample_pick pick(struct oc_lm_sampler *s, const float *logits, const uint32_t *allow) {
    struct oc_lm_sample_pick out;
    struct oc_errinfo ei;
    assert_int_equal(oc_lm_sample_pick(s, logits, allow, &out, &ei), OC_OK);
    return out;
}

/* Published with Random123, the authors' implementation. */
static void philox_gives_the_published_numbers(void **state) {
    (void)state;
    static const struct {
        uint32_t key[2], counter[4], out[4];
    } known[] = {
        {{0, 0}, {0, 0, 0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{~0u, ~0u}, {~0u, ~0u, ~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0xa4093822, 0x299f31d0},
         {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        uint32_t out[4];
        oc_lm_sample_random(known[i].key, known[i].counter, out);
        assert_memory_equal(out, known[i].out, sizeof out);
    }
}

static void exp_is_exact_to_1e_15(void **state) {
    (void)state;
    assert_true(oc_lm_sample_exp(0) == 1);
    assert_true(oc_lm_sample_exp(-709) == 0);
    assert_true(oc_lm_sample_exp(-INFINITY) == 0);
    for (double x = 0; x > -700; x -= 0.37) {
        double want = exp(x), got = oc_lm_sample_exp(x);
        if (fabs(got / want - 1) > 1e-15) fail_msg("exp(%g): %.17g, not %.17g", x, got, want);
    }
}

static void same_tokens_as_the_python_version(void **state) {
    (void)state;
    for (size_t i = 0; i < N_CASES; i++) {
        const struct sample_case *c = &sample_cases[i];
        struct oc_lm_sampler *s = sampler(&c->p, N_CASE_VOCAB);
        oc_lm_sample_prompt(s, case_prompt, sizeof case_prompt / sizeof *case_prompt);
        for (int n = 0; n < CASE_DRAWS; n++) {
            int32_t got = pick(s, case_logits, NULL).token;
            if (got != c->tokens[n]) fail_msg("%s, draw %d: %d, not %d", c->name, n, got, c->tokens[n]);
        }
        oc_lm_sample_close(s);
    }
}

/* Frequencies over many seeds against the distribution: within 5 standard deviations, and nothing cut off
 * appears. */
static void frequencies_follow_the_distribution(void **state) {
    (void)state;
    enum { TRIES = 20000 };
    for (size_t i = 0; i < N_CASES; i++) {
        const struct sample_case *c = &sample_cases[i];
        int count[32] = {0};
        for (uint64_t seed = 0; seed < TRIES; seed++) {
            struct oc_lm_sample_params p = c->p;
            p.seed = seed;
            struct oc_lm_sampler *s = sampler(&p, N_CASE_VOCAB);
            oc_lm_sample_prompt(s, case_prompt, sizeof case_prompt / sizeof *case_prompt);
            count[pick(s, case_logits, NULL).token]++;
            oc_lm_sample_close(s);
        }
        for (int t = 0; t < N_CASE_VOCAB; t++) {
            double want = c->first[t] * TRIES, sd = sqrt(want * (1 - c->first[t]));
            if (fabs(count[t] - want) > 5 * sd + 1e-6)
                fail_msg("%s: token %d: %d, not %g", c->name, t, count[t], want);
        }
    }
}

static void the_lowest_id_wins_a_tie(void **state) {
    (void)state;
    static const float l[] = {1, 3, 3, 0, 3};
    struct oc_lm_sample_params p = oc_lm_sample_defaults();
    p.n_logprobs = 4;
    struct oc_lm_sampler *s = sampler(&p, 5);
    struct oc_lm_sample_pick out = pick(s, l, NULL);
    assert_int_equal(out.token, 1);
    assert_int_equal(out.n_top, 4);
    static const int32_t order[] = {1, 2, 4, 0};
    for (int i = 0; i < 4; i++) assert_int_equal(out.top[i].token, order[i]);
    oc_lm_sample_close(s);
    p.temperature = 1;
    p.top_p = 0.01f;
    for (p.seed = 0; p.seed < 50; p.seed++) {
        s = sampler(&p, 5);
        assert_int_equal(pick(s, l, NULL).token, 1);
        oc_lm_sample_close(s);
    }
}

static void logprobs_are_of_the_raw_logits(void **state) {
    (void)state;
    struct oc_lm_sample_bias bias = {3, 50};
    struct oc_lm_sample_params p = oc_lm_sample_defaults();
    p.temperature = 0.1f;
    p.repetition_penalty = 2;
    p.n_logprobs = N_CASE_VOCAB;
    p.biases = &bias;
    p.n_biases = 1;
    struct oc_lm_sampler *s = sampler(&p, N_CASE_VOCAB);
    oc_lm_sample_prompt(s, case_prompt, 5);
    struct oc_lm_sample_pick out = pick(s, case_logits, NULL);
    assert_int_equal(out.token, 3);
    assert_true(fabs(out.logprob - case_logprobs[3]) < 1e-9);
    assert_int_equal(out.n_top, N_CASE_VOCAB);
    for (int i = 0; i < out.n_top; i++) {
        assert_true(fabs(out.top[i].logprob - case_logprobs[out.top[i].token]) < 1e-9);
        if (i) assert_true(out.top[i].logprob <= out.top[i - 1].logprob);
    }
    oc_lm_sample_close(s);
}

static void the_mask_decides(void **state) {
    (void)state;
    float l[70];
    for (int i = 0; i < 70; i++) l[i] = (float)i;
    uint32_t allow[3] = {1u << 5, 1u << 1, 0}; /* tokens 5 and 33 */
    struct oc_lm_sample_params p = oc_lm_sample_defaults();
    struct oc_lm_sampler *s = sampler(&p, 70);
    assert_int_equal(pick(s, l, NULL).token, 69);
    assert_int_equal(pick(s, l, allow).token, 33);
    oc_lm_sample_close(s);
    p.temperature = 100;
    s = sampler(&p, 70);
    int n5 = 0, n33 = 0;
    for (int i = 0; i < 200; i++) {
        int32_t t = pick(s, l, allow).token;
        n5 += t == 5;
        n33 += t == 33;
    }
    assert_int_equal(n5 + n33, 200);
    assert_true(n5 > 20 && n33 > 20);
    memset(allow, 0, sizeof allow);
    struct oc_lm_sample_pick out;
    struct oc_errinfo ei;
    assert_int_equal(oc_lm_sample_pick(s, l, allow, &out, &ei), OC_ERR_FORMAT);
    assert_non_null(strstr(ei.msg, "mask"));
    oc_lm_sample_close(s);
}

static void logits_that_are_not_numbers_are_refused(void **state) {
    (void)state;
    struct oc_lm_sample_params p = oc_lm_sample_defaults();
    struct oc_lm_sampler *s = sampler(&p, 3);
    struct oc_lm_sample_pick out;
    struct oc_errinfo ei;
    float bad[][3] = {{1, NAN, 0}, {1, INFINITY, 0}, {-INFINITY, -INFINITY, -INFINITY}};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(oc_lm_sample_pick(s, bad[i], NULL, &out, &ei), OC_ERR_FORMAT);
        assert_non_null(strstr(ei.msg, "finite"));
    }
    float fine[3] = {-INFINITY, -3, -INFINITY};
    assert_int_equal(pick(s, fine, NULL).token, 1);
    oc_lm_sample_close(s);
}

static void extreme_temperatures_are_safe(void **state) {
    (void)state;
    static const float l[] = {-40, 30, 29.9999f, -1};
    struct oc_lm_sample_params p = oc_lm_sample_defaults();
    static const float cold[] = {1e-6f, 1e-30f, 1e-45f};
    for (int i = 0; i < 3; i++) {
        p.temperature = cold[i];
        struct oc_lm_sampler *s = sampler(&p, 4);
        for (int n = 0; n < 20; n++) assert_int_equal(pick(s, l, NULL).token, 1);
        oc_lm_sample_close(s);
    }
}

static void wrong_parameters_are_named(void **state) {
    (void)state;
    struct oc_lm_sample_bias outside = {7, 1}, infinite = {1, INFINITY};
    struct oc_lm_sample_params d = oc_lm_sample_defaults(), bad[11];
    static const char *const word[] = {"temperature", "temperature", "top_k",    "top_p",   "top_p",  "min_p",
                                       "repetition",  "presence",    "logprobs", "token 7", "token 1"};
    for (int i = 0; i < 11; i++) bad[i] = d;
    bad[0].temperature = -1;
    bad[1].temperature = NAN;
    bad[2].top_k = -1;
    bad[3].top_p = 0;
    bad[4].top_p = 1.5f;
    bad[5].min_p = 2;
    bad[6].repetition_penalty = 0;
    bad[7].presence_penalty = INFINITY;
    bad[8].n_logprobs = 21;
    bad[9].biases = &outside;
    bad[9].n_biases = 1;
    bad[10].biases = &infinite;
    bad[10].n_biases = 1;
    for (int i = 0; i < 11; i++) {
        struct oc_lm_sampler *s;
        struct oc_errinfo ei;
        assert_int_equal(oc_lm_sample_open(&bad[i], 4, &s, &ei), OC_ERR_USAGE);
        assert_null(s);
        if (!strstr(ei.msg, word[i])) fail_msg("case %d: '%s' does not name '%s'", i, ei.msg, word[i]);
    }
}

static void prompt_ids_outside_the_vocabulary_are_ignored(void **state) {
    (void)state;
    struct oc_lm_sample_params p = oc_lm_sample_defaults();
    p.repetition_penalty = 10;
    static const int32_t prompt[] = {-1, 3, 1000000, 1};
    static const float l[] = {4, 5, 3};
    struct oc_lm_sampler *s = sampler(&p, 3);
    oc_lm_sample_prompt(s, prompt, 4);
    assert_int_equal(pick(s, l, NULL).token, 0);
    oc_lm_sample_close(s);
}

/* What is told before is no less than what is taken, and not much more. */
static void bytes_are_those_taken(void **state) {
    (void)state;
    static const int vocabs[] = {1, 288, 5000, 100000, 131072, 152064, 262144};
    const struct oc_lm_sample_params p = oc_lm_sample_defaults();
    for (size_t i = 0; i < sizeof vocabs / sizeof *vocabs; i++) {
        const struct mallinfo2 before = mallinfo2();
        struct oc_lm_sampler *s = sampler(&p, vocabs[i]);
        const struct mallinfo2 after = mallinfo2();
        const size_t taken = after.uordblks + after.hblkhd - before.uordblks - before.hblkhd, told = oc_lm_sample_bytes(vocabs[i]);
        oc_lm_sample_close(s);
        if (taken == 0) skip(); /* another allocator: that of a sanitizer */
        if (taken > told || told - taken > OC_MIB + 32 * OC_KIB) fail_msg("%d tokens: took %zu bytes, told %zu", vocabs[i], taken, told);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_the_published_numbers),
        cmocka_unit_test(exp_is_exact_to_1e_15),
        cmocka_unit_test(same_tokens_as_the_python_version),
        cmocka_unit_test(frequencies_follow_the_distribution),
        cmocka_unit_test(the_lowest_id_wins_a_tie),
        cmocka_unit_test(logprobs_are_of_the_raw_logits),
        cmocka_unit_test(the_mask_decides),
        cmocka_unit_test(logits_that_are_not_numbers_are_refused),
        cmocka_unit_test(extreme_temperatures_are_safe),
        cmocka_unit_test(wrong_parameters_are_named),
        cmocka_unit_test(prompt_ids_outside_the_vocabulary_are_ignored),
        cmocka_unit_test(bytes_are_those_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
