/* How many drafted rows a step gets: from odds, and from costs that are learnt; here a machine whose costs are given. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "engine/speculate.h"

typedef double cost_fn(int n_rows);

/* The first rows cost next to nothing: weights are read from memory once. */
static double memory_bound(int n_rows) {
    return 10 + 0.4 * n_rows;
}

/* Every row costs as much as the first. */
static double arithmetic_bound(int n_rows) {
    return 3.0 * n_rows;
}

static struct oc_engine_draft draft_of(float odds, int n) {
    struct oc_engine_draft d = {.n = n};
    float all = 1;
    for (int i = 0; i < n; i++) d.odds[i] = all *= odds;
    return d;
}

/* One step of n sequences with these odds on this machine; returns how many rows were drafted. */
static int step(struct oc_engine_speculation *s, cost_fn *cost, const float *odds, int n, int most, int *each) {
    struct oc_engine_draft d[OC_ENGINE_DRAFT_SEQUENCES + 1];
    int n_drafted = 0;
    for (int i = 0; i < n; i++) d[i] = draft_of(odds[i], most);
    oc_engine_speculate_choose(s, d, n);
    for (int i = 0; i < n; i++) {
        assert_true(d[i].n >= 0 && d[i].n <= most);
        n_drafted += d[i].n;
        if (each) each[i] = d[i].n;
    }
    assert_true(n_drafted <= OC_ENGINE_DRAFT_ROWS);
    oc_engine_speculate_learn(s, n, n_drafted, cost(n + n_drafted));
    return n_drafted;
}

/* Rows drafted in the last 100 of so many steps of one sequence. */
static int drafted_rows(cost_fn *cost, float odds, int n_steps) {
    struct oc_engine_speculation s = {0};
    int sum = 0;
    for (int i = 0; i < n_steps; i++) {
        int n = step(&s, cost, &odds, 1, OC_ENGINE_DRAFT_ROWS, NULL);
        if (i >= n_steps - 100) sum += n;
    }
    return sum;
}

static void an_end_token_needs_no_row(void **state) {
    (void)state;
    static const int32_t ends[] = {7, 9};
    const struct oc_engine_draft draft = {.tokens = {1, 2, 9, 7, 3}, .n = 5};
    struct oc_engine_draft d = draft;
    oc_engine_speculate_cut(&d, ends, 0);
    assert_int_equal(d.n, 5);
    oc_engine_speculate_cut(&d, ends, 1);
    assert_int_equal(d.n, 3);
    d = draft;
    oc_engine_speculate_cut(&d, ends, 2);
    assert_int_equal(d.n, 2);
    d.tokens[0] = 7;
    oc_engine_speculate_cut(&d, ends, 2);
    assert_int_equal(d.n, 0);
    oc_engine_speculate_cut(&d, ends, 2);
    assert_int_equal(d.n, 0);
}

static void where_rows_are_cheap_drafts_are_run(void **state) {
    (void)state;
    assert_true(drafted_rows(memory_bound, 0.95f, 300) > 600);
    assert_true(drafted_rows(memory_bound, 0.5f, 300) > 100);
}

static void where_rows_are_dear_they_are_not(void **state) {
    (void)state;
    assert_true(drafted_rows(arithmetic_bound, 0.95f, 300) < 15);
    assert_int_equal(drafted_rows(memory_bound, 0.03f, 300), 0);
}

/* Sure drafts on a machine where they gain nothing: what trying them costs is under 3 % of the time. */
static void trying_costs_little(void **state) {
    (void)state;
    struct oc_engine_speculation s = {0};
    double plain = 0, spent = 0;
    const float odds = 0.8f;
    for (int i = 0; i < 3000; i++) {
        int n = step(&s, arithmetic_bound, &odds, 1, OC_ENGINE_DRAFT_ROWS, NULL);
        double came = 0, all = 1;
        for (int k = 0; k < n; k++) came += all *= odds;
        spent += arithmetic_bound(1 + n);
        plain += (1 + came) * arithmetic_bound(1);
    }
    assert_true(spent < 1.03 * plain);
}

static void the_first_steps_are_plain(void **state) {
    (void)state;
    struct oc_engine_speculation s = {0};
    const float odds = 0.99f;
    int n_plain = 0;
    while (step(&s, memory_bound, &odds, 1, OC_ENGINE_DRAFT_ROWS, NULL) == 0) assert_true(n_plain++ < 100);
    assert_true(n_plain >= 2);
    assert_int_equal(step(&s, memory_bound, (float[2]){0.99f, 0.99f}, 2, 3, NULL), 0); /* of two sequences nothing is known */
}

/* A plain step comes again and again, so that a machine that has become slower or faster is noticed. */
static void some_steps_stay_plain(void **state) {
    (void)state;
    struct oc_engine_speculation s = {0};
    const float odds = 0.99f;
    int since = 0, most = 0;
    for (int i = 0; i < 300; i++) {
        since = step(&s, memory_bound, &odds, 1, OC_ENGINE_DRAFT_ROWS, NULL) ? since + 1 : 0;
        most = since > most ? since : most;
    }
    assert_true(most > 10 && most < 40);
}

static void likelier_sequences_get_the_rows(void **state) {
    (void)state;
    struct oc_engine_speculation s = {0};
    const float odds[3] = {0.05f, 0.97f, 0.6f};
    int each[3], n = 0;
    for (int i = 0; i < 200; i++) n = step(&s, memory_bound, odds, 3, OC_ENGINE_DRAFT_ROWS, each);
    while (n == 0) n = step(&s, memory_bound, odds, 3, OC_ENGINE_DRAFT_ROWS, each);
    assert_int_equal(each[0], 0);
    assert_true(each[1] > each[2]);
}

static void too_many_sequences_get_none(void **state) {
    (void)state;
    struct oc_engine_speculation s = {0};
    float odds[OC_ENGINE_DRAFT_SEQUENCES + 1];
    for (int i = 0; i <= OC_ENGINE_DRAFT_SEQUENCES; i++) odds[i] = 0.99f;
    for (int i = 0; i < 20; i++)
        assert_int_equal(step(&s, memory_bound, odds, OC_ENGINE_DRAFT_SEQUENCES + 1, 2, NULL), 0);
    int sum = 0;
    for (int i = 0; i < 20; i++) sum += step(&s, memory_bound, odds, OC_ENGINE_DRAFT_SEQUENCES, 2, NULL);
    assert_true(sum > 0);
}

/* One measurement far out of line, at the worst moment, is got over. */
static void a_bad_moment_is_forgotten(void **state) {
    (void)state;
    struct oc_engine_speculation s = {0};
    const float odds = 0.95f;
    for (int i = 0; i < 3; i++) step(&s, memory_bound, &odds, 1, OC_ENGINE_DRAFT_ROWS, NULL);
    for (int n = 1; n <= OC_ENGINE_DRAFT_ROWS; n++) oc_engine_speculate_learn(&s, 1, n, 1e6);
    oc_engine_speculate_learn(&s, 1, 0, 1e6);
    int sum = 0;
    for (int i = 0; i < 2000; i++) {
        int n = step(&s, memory_bound, &odds, 1, OC_ENGINE_DRAFT_ROWS, NULL);
        if (i >= 1900) sum += n;
    }
    assert_true(sum > 400);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_end_token_needs_no_row),
        cmocka_unit_test(where_rows_are_cheap_drafts_are_run),
        cmocka_unit_test(where_rows_are_dear_they_are_not),
        cmocka_unit_test(trying_costs_little),
        cmocka_unit_test(the_first_steps_are_plain),
        cmocka_unit_test(some_steps_stay_plain),
        cmocka_unit_test(likelier_sequences_get_the_rows),
        cmocka_unit_test(too_many_sequences_get_none),
        cmocka_unit_test(a_bad_moment_is_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
