/* check_drafts [--device WHAT] MODEL_DIR [TEST]: tokens that are verified together give the bits that they give one by one, whatever drafts
 * are right, whatever runs beside them, and wherever the answer ends. For any model, with pictures or without. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "golden_device.h"
#include "sched_world.h"

#define N_SAID 70 /* crosses borders of KV pages wherever the prompt ends */

static const char *model_dir;

/* ---- Logits ----------------------------------------------------------------------------------------------- */

/* A sequence that says given tokens, and the logits behind each when they are run one by one. */
struct story {
    struct oc_session *s;
    int32_t tokens[N_SAID];
    float *want; /* [N_SAID, n_vocab] */
    int n_prompt, n_done;
};

/* Text, and a picture in it when the model sees. The room is exactly what is said. */
static void begin(struct world *w, struct story *st, int i) {
    struct oc_prompt_picture picture = {w->pictures[i].plan, w->pictures[i].embedding};
    int32_t ids[40], tokens[CTX];
    struct oc_prompt prompt = {.tokens = tokens, .pictures = &picture};
    for (int k = 0; k < 20 + i; k++) ids[k] = draw_int(&w->rng, 0, 489);
    if (w->e->info.has_vision) ids[9] = w->e->info.image_token, prompt.n_pictures = 1;
    assert_int_equal(oc_prompt_expand(w->e, ids, 20 + i, &picture.plan, prompt.n_pictures, tokens, CTX, &prompt.n_tokens, NULL), OC_OK);
    st->n_prompt = prompt.n_tokens;
    assert_int_equal(oc_session_open(w->e, prompt.n_tokens + N_SAID, &st->s, NULL), OC_OK);
    assert_int_equal(oc_session_prefill(st->s, &prompt, NULL, NULL, NULL), OC_OK);
}

static void tell_one_by_one(struct world *w, struct story *st) {
    size_t n_vocab = (size_t)w->e->info.n_vocab;
    st->want = malloc(N_SAID * n_vocab * sizeof(float));
    assert_non_null(st->want);
    for (int i = 0; i < N_SAID; i++) {
        st->tokens[i] = draw_int(&w->rng, 0, 489);
        assert_int_equal(oc_session_decode(st->s, st->tokens[i], NULL), OC_OK);
        memcpy(st->want + (size_t)i * n_vocab, oc_session_logits(st->s), n_vocab * sizeof(float));
    }
    oc_session_truncate(st->s, st->n_prompt);
    st->n_done = 0;
}

static void finish(struct story *st) {
    oc_session_close(st->s);
    free(st->want);
}

static void assert_logits(struct world *w, const struct story *st, int at, const float *got) {
    size_t n_vocab = (size_t)w->e->info.n_vocab;
    assert_memory_equal(got, st->want + (size_t)at * n_vocab, n_vocab * sizeof(float));
}

/* 1 + d tokens, of which the first is right and some of the others are; returns how many are. */
static int with_drafts(struct world *w, const struct story *st, int most, int32_t *out, int *n) {
    int left = N_SAID - st->n_done;
    *n = draw_int(&w->rng, 1, left < most ? left : most);
    int n_right = draw_int(&w->rng, 1, *n);
    for (int i = 0; i < *n; i++) {
        int32_t right = st->tokens[st->n_done + i];
        out[i] = i < n_right ? right : (right + 1 + draw_int(&w->rng, 0, 400)) % 490;
    }
    return n_right;
}

static void drafts_of_a_session_give_the_same_logits(void **state) {
    (void)state;
    struct world w;
    world_open(&w, model_dir, 1, CTX);
    for (int i = 0; i < N_PICTURES; i++) {
        struct story st;
        begin(&w, &st, i);
        tell_one_by_one(&w, &st);
        for (int round = 0; round < 3; round++) {
            oc_session_truncate(st.s, st.n_prompt);
            for (st.n_done = 0; st.n_done < N_SAID;) {
                int32_t tokens[OC_ENGINE_DRAFT_ROWS + 1];
                int n, n_right = with_drafts(&w, &st, OC_ENGINE_DRAFT_ROWS + 1, tokens, &n);
                assert_int_equal(oc_session_decode_several(st.s, tokens, n, NULL), OC_OK);
                for (int k = 0; k < n_right; k++) assert_logits(&w, &st, st.n_done + k, oc_engine_logits(w.e, k));
                st.n_done += n_right;
                oc_session_truncate(st.s, st.n_prompt + st.n_done);
            }
            assert_int_equal(oc_session_n_tokens(st.s), oc_session_max_tokens(st.s));
        }
        finish(&st);
    }
    world_close(&w);
}

/* Rows of several sequences, each with drafts of its own, in one step. */
static void drafts_among_others_give_the_same_logits(void **state) {
    (void)state;
    enum { N = 3 };
    struct world w;
    struct story st[N];
    world_open(&w, model_dir, N, N * CTX);
    for (int i = 0; i < N; i++) begin(&w, &st[i], i), tell_one_by_one(&w, &st[i]);
    for (bool more = true; more;) {
        struct oc_row rows[N + OC_ENGINE_DRAFT_ROWS];
        int n_rows = 0, first[N], n_right[N];
        more = false;
        for (int i = 0; i < N; i++) {
            int32_t tokens[3];
            int n = 0;
            first[i] = n_rows;
            n_right[i] = st[i].n_done < N_SAID ? with_drafts(&w, &st[i], 3, tokens, &n) : 0;
            for (int k = 0; k < n; k++) rows[n_rows++] = oc_engine_session_row(st[i].s, k, tokens[k]);
        }
        assert_int_equal(oc_engine_step(w.e, rows, n_rows, NULL), OC_OK);
        for (int i = 0; i < N; i++) {
            for (int k = 0; k < n_right[i]; k++) {
                const struct oc_row *r = &rows[first[i] + k];
                assert_logits(&w, &st[i], st[i].n_done + k, oc_engine_logits(w.e, first[i] + k));
                oc_engine_session_commit(st[i].s, &r->token, (const int32_t(*)[3]) & r->pos, 1);
            }
            st[i].n_done += n_right[i];
            more = more || st[i].n_done < N_SAID;
        }
    }
    for (int i = 0; i < N; i++) finish(&st[i]);
    world_close(&w);
}

static void too_many_tokens_are_refused(void **state) {
    (void)state;
    struct world w;
    struct oc_session *s;
    int32_t tokens[CTX] = {0};
    world_open(&w, model_dir, 1, CTX);
    assert_int_equal(oc_session_open(w.e, 12, &s, NULL), OC_OK);
    assert_int_equal(oc_session_prefill(s, &(struct oc_prompt){.tokens = tokens, .n_tokens = 5}, NULL, NULL, NULL), OC_OK);
    assert_int_equal(oc_session_decode_several(s, tokens, 0, NULL), OC_ERR_LIMIT);
    assert_int_equal(oc_session_decode_several(s, tokens, 8, NULL), OC_ERR_LIMIT);
    assert_int_equal(oc_session_decode_several(s, tokens, OC_ENGINE_DRAFT_ROWS + 2, NULL), OC_ERR_LIMIT);
    assert_int_equal(oc_session_n_tokens(s), 5);
    assert_int_equal(oc_session_decode_several(s, tokens, 7, NULL), OC_OK);
    assert_int_equal(oc_session_n_tokens(s), 12);
    oc_session_close(s);
    world_close(&w);
}

/* ---- Jobs ------------------------------------------------------------------------------------------------- */

static void start_speculating(struct world *w, bool prefix_cache) {
    world_forget(w);
    w->speculate = true;
    world_start(w, prefix_cache, 0);
}

/* Returns how many drafts came true. */
static uint64_t run_and_check(struct world *w, enum world_drafts drafts, bool prefix_cache) {
    start_speculating(w, prefix_cache);
    world_random_slices(w);
    world_draft(w, drafts);
    world_run(w);
    world_check(w);
    world_check_empty(w);
    const struct oc_sched_figures f = w->s->figures;
    assert_true(f.n_accepted <= f.n_drafted && f.n_drafts <= f.n_drafted);
    world_stop(w);
    return f.n_accepted;
}

static void run_with_all_drafts(struct world *w) {
    for (int how = 0; how < 3; how++) assert_true(run_and_check(w, (enum world_drafts)how, how != 1) > 0 || how == WORLD_DRAFTS_OWN);
}

/* Words that repeat, so that there is something to look up; what is wanted then too. */
static void repeat_words(struct world *w) {
    for (int i = 0; i < w->n_cases; i++) {
        struct job_case *c = &w->cases[i];
        if (i % 3) continue;
        for (int k = 5; k < c->job.n_tokens; k++)
            if (c->tokens[k] != w->e->info.image_token && c->tokens[k - 5] != w->e->info.image_token) c->tokens[k] = c->tokens[k - 5];
    }
    for (int i = 0; i < w->n_cases; i++) {
        w->cases[i].want = (struct answer){.n = 0};
        world_answer_alone(w, &w->cases[i]);
    }
}

static void jobs_answer_as_alone(int n, int n_sessions, int kv_tokens, uint64_t seed) {
    struct world w;
    world_open(&w, model_dir, n_sessions, kv_tokens);
    world_make_cases(&w, n, seed, false);
    repeat_words(&w);
    run_with_all_drafts(&w);
    world_close(&w);
}

static void one_job_with_drafts_answers_as_alone(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed < 7; seed++) {
        struct world w;
        world_open(&w, model_dir, 1, CTX);
        world_make_cases(&w, 1, seed, false);
        w.cases[0].job.max_tokens = 24;
        repeat_words(&w);
        run_with_all_drafts(&w);
        world_close(&w);
    }
}

static void eight_jobs_with_drafts_answer_as_alone(void **state) {
    (void)state;
    jobs_answer_as_alone(8, 8, 8 * CTX, 20);
    jobs_answer_as_alone(30, 8, 3 * CTX, 21);
}

static void forty_jobs_with_drafts_answer_as_alone(void **state) {
    (void)state;
    jobs_answer_as_alone(40, 40, 40 * CTX, 40);
}

/* As it comes: what is run is decided by what steps cost here and now. */
static void jobs_that_choose_their_drafts_answer_as_alone(void **state) {
    (void)state;
    struct world w;
    world_open(&w, model_dir, 4, 4 * CTX);
    world_make_cases(&w, 30, 60, false);
    repeat_words(&w);
    start_speculating(&w, true);
    world_run(&w);
    world_check(&w);
    world_check_empty(&w);
    world_close(&w);
}

/* One job with one way to sample; long enough for several runs of drafts. */
static struct job_case *single_case(struct world *w, int how) {
    world_make_cases(w, 1, 70 + (uint64_t)how, false);
    struct job_case *c = &w->cases[0];
    c->job.sample = oc_lm_sample_defaults();
    c->job.sample.n_logprobs = 3;
    c->job.max_tokens = 24;
    c->eos = 499;
    if (how == 1) c->job.sample.repetition_penalty = 1.3f, c->job.sample.frequency_penalty = 0.4f;
    if (how == 2) c->job.sample.temperature = 0.9f, c->job.sample.seed = 7, c->job.sample.presence_penalty = 0.5f;
    world_answer_alone(w, c);
    return c;
}

/* The end token, and the limit, at every place of the runs that drafts make. */
static void an_answer_ends_where_it_would(void **state) {
    (void)state;
    struct world w;
    world_open(&w, model_dir, 1, CTX);
    for (int how = 0; how < 3; how++) {
        struct job_case *c = single_case(&w, how);
        struct answer whole = c->want;
        for (int n = 1; n < whole.n; n++) {
            for (int is_eos = 0; is_eos < 2; is_eos++) {
                c->job.max_tokens = is_eos ? 24 : n;
                c->eos = is_eos ? whole.tokens[n] : 499;
                c->want = (struct answer){.n = 0};
                world_answer_alone(&w, c);
                run_and_check(&w, n % 2 ? WORLD_DRAFTS_RIGHT : WORLD_DRAFTS_OWN, false);
            }
        }
    }
    world_close(&w);
}

static void a_job_can_be_cancelled_amid_its_drafts(void **state) {
    (void)state;
    struct world w;
    world_open(&w, model_dir, 1, CTX);
    struct job_case *c = single_case(&w, 0);
    for (int n = 1; n < c->want.n; n++) {
        start_speculating(&w, true);
        world_draft(&w, WORLD_DRAFTS_RIGHT);
        w.cancel_on_token = 1;
        w.cancel_at = n;
        world_add(&w, c);
        world_finish(&w, 100000);
        assert_int_equal(c->got.finish, OC_SCHED_CANCELLED);
        assert_int_equal(c->got.n, n);
        assert_int_equal(c->done.n_output, n);
        assert_memory_equal(c->got.tokens, c->want.tokens, (size_t)n * sizeof *c->got.tokens);
        world_check_empty(&w);
        world_stop(&w);
    }
    world_close(&w);
}

/* To be looked at; then world_stop or world_close. */
static void finish_with_right_drafts(struct world *w, struct job_case *c) {
    start_speculating(w, false);
    world_draft(w, WORLD_DRAFTS_RIGHT);
    world_add(w, c);
    world_finish(w, 100000);
    world_check(w);
}

/* A prompt that fills the context but for a few tokens. */
static void drafts_stop_at_the_end_of_the_context(void **state) {
    (void)state;
    struct world w;
    world_open(&w, model_dir, 1, CTX);
    struct job_case *c = single_case(&w, 0);
    memset(c->pictures, 0, sizeof c->pictures);
    c->job.n_pictures = 0;
    for (c->job.max_tokens = 1; c->job.max_tokens < 12; c->job.max_tokens++) {
        c->job.n_tokens = CTX - c->job.max_tokens;
        for (int k = 0; k < c->job.n_tokens; k++) c->tokens[k] = k * 7 % 90;
        c->want = (struct answer){.n = 0};
        world_answer_alone(&w, c);
        finish_with_right_drafts(&w, c);
        world_stop(&w);
    }
    world_close(&w);
}

/* Rows of right drafts make an answer in fewer steps: 24 tokens, of which the first comes with the prompt. */
static void right_drafts_save_steps(void **state) {
    (void)state;
    struct world w;
    world_open(&w, model_dir, 1, CTX);
    struct job_case *c = single_case(&w, 0);
    assert_int_equal(c->want.n, 24);
    finish_with_right_drafts(&w, c);
    assert_int_equal(w.s->figures.n_drafts, 3);
    assert_int_equal(w.s->figures.n_drafted, 20);
    assert_int_equal(w.s->figures.n_accepted, 20);
    world_close(&w);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(drafts_of_a_session_give_the_same_logits),
        cmocka_unit_test(drafts_among_others_give_the_same_logits),
        cmocka_unit_test(too_many_tokens_are_refused),
        cmocka_unit_test(one_job_with_drafts_answers_as_alone),
        cmocka_unit_test(eight_jobs_with_drafts_answer_as_alone),
        cmocka_unit_test(forty_jobs_with_drafts_answer_as_alone),
        cmocka_unit_test(jobs_that_choose_their_drafts_answer_as_alone),
        cmocka_unit_test(an_answer_ends_where_it_would),
        cmocka_unit_test(a_job_can_be_cancelled_amid_its_drafts),
        cmocka_unit_test(drafts_stop_at_the_end_of_the_context),
        cmocka_unit_test(right_drafts_save_steps),
    };
    golden_device_read(&argc, argv);
    if (argc != 2 && argc != 3) return 2;
    model_dir = argv[1];
    if (argc == 3) cmocka_set_test_filter(argv[2]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
