/* Drafts from what a sequence holds: the latest place wins, pictures are in none, and the odds follow what came. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "engine/ngram.h"

#define PICTURE 99
#define MOST 7

static void open_with(struct oc_engine_ngram *g, int max_tokens, const int32_t *prompt, int n) {
    assert_int_equal(oc_engine_ngram_open(g, max_tokens, PICTURE, NULL), OC_OK);
    oc_engine_ngram_prompt(g, prompt, n);
}

static void push_all(struct oc_engine_ngram *g, const int32_t *tokens, int n) {
    for (int i = 0; i < n; i++) oc_engine_ngram_push(g, tokens[i]);
}

static void assert_draft(const struct oc_engine_ngram *g, int most, const int32_t *want, int n) {
    int32_t got[MOST];
    float odds[MOST];
    assert_int_equal(oc_engine_ngram_draft(g, most, got, odds), n);
    if (n) assert_memory_equal(got, want, (size_t)n * sizeof *got);
    for (int i = 0; i < n; i++) assert_true(odds[i] > 0 && odds[i] < 1 && (i == 0 || odds[i] <= odds[i - 1]));
}

#define N(a) ((int)(sizeof(a) / sizeof(a)[0]))

static void what_is_new_has_no_draft(void **state) {
    (void)state;
    static const int32_t prompt[] = {1, 2, 3, 4, 5, 6};
    struct oc_engine_ngram g;
    open_with(&g, 16, prompt, N(prompt));
    assert_draft(&g, MOST, NULL, 0);
    oc_engine_ngram_push(&g, 3); /* 6 3 is new too */
    assert_draft(&g, MOST, NULL, 0);
    oc_engine_ngram_close(&g);
}

static void the_continuation_of_the_latest_place_is_the_draft(void **state) {
    (void)state;
    static const int32_t prompt[] = {1, 2, 3, 10, 11, 1, 2, 3, 20, 21, 22, 1, 2, 3};
    static const int32_t want[] = {20, 21, 22, 1, 2, 3, 20};
    struct oc_engine_ngram g;
    open_with(&g, 32, prompt, N(prompt));
    assert_draft(&g, MOST, want, MOST); /* beyond the end it goes on with itself */
    assert_draft(&g, 2, want, 2);
    assert_draft(&g, 0, want, 0);
    oc_engine_ngram_push(&g, 20);
    assert_draft(&g, 3, want + 1, 3);
    oc_engine_ngram_close(&g);
}

/* Three tokens weigh more than two that came later. */
static void three_tokens_go_before_two(void **state) {
    (void)state;
    static const int32_t prompt[] = {1, 2, 3, 10, 9, 2, 3, 20, 1, 2, 3}, want[] = {10};
    static const int32_t two[] = {1, 2, 3, 10, 8, 7, 2, 3};
    struct oc_engine_ngram g;
    open_with(&g, 32, prompt, N(prompt));
    assert_draft(&g, 1, want, 1);
    oc_engine_ngram_close(&g);
    open_with(&g, 32, two, N(two));
    assert_draft(&g, 1, want, 1);
    oc_engine_ngram_close(&g);
}

static void a_token_over_and_over_is_drafted(void **state) {
    (void)state;
    static const int32_t prompt[] = {5, 5, 5, 5}, want[] = {5, 5, 5, 5, 5, 5, 5};
    struct oc_engine_ngram g;
    open_with(&g, 8, prompt, N(prompt));
    assert_draft(&g, MOST, want, MOST);
    push_all(&g, want, 4); /* to the last place of its room */
    assert_draft(&g, MOST, want, MOST);
    oc_engine_ngram_close(&g);
}

static void pictures_are_in_no_draft(void **state) {
    (void)state;
    static const int32_t inside[] = {PICTURE, PICTURE, PICTURE, PICTURE, 1};
    static const int32_t before[] = {1, PICTURE, 2, 3, 1, PICTURE, 2}, want[] = {4};
    static const int32_t behind[] = {1, 2, 3, 4, PICTURE, 5, 1, 2, 3};
    struct oc_engine_ngram g;
    open_with(&g, 32, inside, N(inside));
    oc_engine_ngram_push(&g, PICTURE);
    oc_engine_ngram_push(&g, PICTURE);
    assert_draft(&g, MOST, NULL, 0);
    oc_engine_ngram_close(&g);
    open_with(&g, 32, before, N(before));
    assert_draft(&g, MOST, NULL, 0);
    oc_engine_ngram_close(&g);
    open_with(&g, 32, behind, N(behind));
    assert_draft(&g, MOST, want, 1); /* up to the picture */
    oc_engine_ngram_push(&g, 4);
    assert_draft(&g, MOST, NULL, 0);
    oc_engine_ngram_close(&g);
}

/* A row of a table whose value differs: the draft goes on behind the value. */
static void one_value_does_not_end_a_row(void **state) {
    (void)state;
    static const int32_t prompt[] = {1, 2, 3, 4, 50, 6, 7, 8, 1, 2, 3}, next[] = {4, 51}, want[] = {6, 7, 8};
    struct oc_engine_ngram g;
    open_with(&g, 32, prompt, N(prompt));
    push_all(&g, next, N(next));
    assert_draft(&g, 3, want, 3);
    oc_engine_ngram_close(&g);
}

static float first_odds(const struct oc_engine_ngram *g) {
    int32_t token;
    float odds = -1;
    assert_int_equal(oc_engine_ngram_draft(g, 1, &token, &odds), 1);
    return odds;
}

static void odds_follow_what_came(void **state) {
    (void)state;
    static const int32_t cycle[] = {1, 2, 3, 4, 5};
    struct oc_engine_ngram g;
    open_with(&g, 1024, cycle, N(cycle));
    for (int i = 0; i < 40; i++) push_all(&g, cycle, N(cycle));
    assert_true(first_odds(&g) > 0.97f);
    oc_engine_ngram_close(&g);
    open_with(&g, 1024, cycle, 2); /* what follows 1 2 is always another token */
    for (int i = 0; i < 60; i++) {
        oc_engine_ngram_push(&g, 100 + i);
        oc_engine_ngram_push(&g, 1);
        oc_engine_ngram_push(&g, 2);
    }
    assert_true(first_odds(&g) < 0.1f);
    oc_engine_ngram_close(&g);
}

/* Against a search of all places, for random sequences of few different tokens. */
static void drafts_begin_behind_a_place_that_agrees(void **state) {
    (void)state;
    uint32_t x = 1;
    for (int round = 0; round < 50; round++) {
        struct oc_engine_ngram g;
        int32_t tokens[200], got[MOST];
        float odds[MOST];
        int n_drafts = 0;
        assert_int_equal(oc_engine_ngram_open(&g, 200, 3, NULL), OC_OK);
        for (int n = 0; n < 200; n++) {
            x = x * 1664525u + 1013904223u;
            tokens[n] = (int32_t)(x >> 24) % (4 + round % 5);
            oc_engine_ngram_push(&g, tokens[n]);
            int k = oc_engine_ngram_draft(&g, MOST, got, odds);
            n_drafts += k > 0;
            for (int i = 0; i < k; i++) assert_true(got[i] != 3);
            for (int i = 0; i < k && g.at + i <= n; i++) assert_int_equal(got[i], tokens[g.at + i]);
            for (int i = 0; k && g.agree >= 2 && i < 2; i++) assert_int_equal(tokens[g.at - 1 - i], tokens[n - i]);
        }
        assert_true(n_drafts > 20);
        oc_engine_ngram_close(&g);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_new_has_no_draft),
        cmocka_unit_test(the_continuation_of_the_latest_place_is_the_draft),
        cmocka_unit_test(three_tokens_go_before_two),
        cmocka_unit_test(a_token_over_and_over_is_drafted),
        cmocka_unit_test(pictures_are_in_no_draft),
        cmocka_unit_test(one_value_does_not_end_a_row),
        cmocka_unit_test(odds_follow_what_came),
        cmocka_unit_test(drafts_begin_behind_a_place_that_agrees),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
