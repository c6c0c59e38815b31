/* check_scheduler [--device WHAT] MODEL_DIR [TEST]: what engine/scheduler.h promises: a job answers as it does alone, whatever runs beside it, however
 * work is cut, whatever was cached; everything is bounded, and comes back. */
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

#define EMBED_BYTES ((size_t)100 * 256 * sizeof(float)) /* two or three pictures of the world */

static const char *model_dir;

/* ---- Answers ---------------------------------------------------------------------------------------------- */

static void run_and_check(struct world *w, bool prefix_cache, size_t embed_bytes, bool random_slices) {
    world_forget(w);
    world_start(w, prefix_cache, embed_bytes);
    if (random_slices) world_random_slices(w);
    world_run(w);
    world_check(w);
    world_check_empty(w);
    world_stop(w);
}

static void jobs_answer_as_alone(int n, int n_sessions, int kv_tokens, uint64_t seed) {
    struct world w;
    world_open(&w, model_dir, n_sessions, kv_tokens);
    world_make_cases(&w, n, seed, true);
    for (int how = 0; how < 4; how++) run_and_check(&w, how % 2, how % 2 ? EMBED_BYTES : 0, how / 2);
    world_close(&w);
}

static void one_job_answers_as_alone(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed < 7; seed++) jobs_answer_as_alone(1, 1, CTX, seed);
}

static void eight_jobs_answer_as_alone(void **state) {
    (void)state;
    for (uint64_t seed = 20; seed < 22; seed++) jobs_answer_as_alone(8, 8, 8 * CTX, seed);
}

static void sixty_four_jobs_answer_as_alone(void **state) {
    (void)state;
    jobs_answer_as_alone(64, 64, 64 * CTX, 40);
}

/* Few sessions and pages for many jobs: they queue, and none fails. */
static void jobs_that_must_queue_answer_as_alone(void **state) {
    (void)state;
    jobs_answer_as_alone(64, 5, CTX, 50);
    jobs_answer_as_alone(40, 40, CTX + 50, 51);
}

/* ---- Caches ----------------------------------------------------------------------------------------------- */

static void add_and_finish(struct world *w, struct job_case *c) {
    world_add(w, c);
    world_finish(w, 100000);
}

/* Two questions about one picture: text, the picture, more text. The second differs at its end alone. */
static void make_questions(struct world *w, int picture) {
    world_make_cases(w, 2, 60, false);
    for (int i = 0; i < 2; i++) {
        struct job_case *c = &w->cases[i];
        memset(c->pictures, 0, sizeof c->pictures);
        c->job.n_tokens = 60;
        c->job.n_pictures = 1;
        c->job.max_tokens = 10;
        c->job.priority = 0;
        for (int k = 0; k < 60; k++) c->tokens[k] = (k * 31 + (k > 50 ? i * 7 : 0)) % 490;
        c->tokens[20] = w->e->info.image_token;
        c->picture_ids[0] = picture;
        c->pictures[0] = (struct oc_sched_picture){.plan = w->pictures[picture].plan, .patches = world_patches(w, picture)};
        if (picture < N_PICTURES - 1) memset(c->pictures[0].digest, picture + 1, OC_SCHED_DIGEST_BYTES);
        c->want = (struct answer){.n = 0};
        world_answer_alone(w, c);
    }
}

static void answer_again(struct world *w, struct job_case *c) {
    c->want = (struct answer){.n = 0};
    world_answer_alone(w, c);
}

static void show_other_picture(struct world *w, struct job_case *c, int picture) {
    c->picture_ids[0] = picture;
    c->pictures[0] = (struct oc_sched_picture){.plan = w->pictures[picture].plan, .patches = world_patches(w, picture)};
    memset(c->pictures[0].digest, picture + 1, OC_SCHED_DIGEST_BYTES);
    answer_again(w, c);
}

static void a_second_question_reuses_the_prefix(void **state) {
    (void)state;
    struct world w;
    world_open(&w, model_dir, 2, 3 * CTX);
    make_questions(&w, 1);
    world_start(&w, true, 0);
    int n_image = w.pictures[1].plan.n_tokens, n_prompt = 59 + n_image;
    add_and_finish(&w, &w.cases[0]);
    assert_int_equal(w.cases[0].done.n_cached, 0);
    assert_int_equal(w.cases[0].done.n_image, n_image);
    assert_int_equal(w.cases[0].done.n_image_cached, 0);
    add_and_finish(&w, &w.cases[1]);
    assert_int_equal(w.cases[1].done.n_prompt, n_prompt);
    assert_int_equal(w.cases[1].done.n_cached, (50 + n_image) / OC_LM_PAGE_TOKENS * OC_LM_PAGE_TOKENS);
    assert_int_equal(w.cases[1].done.n_image_cached, n_image);
    assert_int_equal(w.s->figures.n_image_tokens, (uint64_t)n_image); /* encoded once */
    world_check(&w);
    world_forget(&w); /* the very same again: all but the last token, at most */
    add_and_finish(&w, &w.cases[0]);
    assert_int_equal(w.cases[0].done.n_cached, (n_prompt - 1) / OC_LM_PAGE_TOKENS * OC_LM_PAGE_TOKENS);
    add_and_finish(&w, &w.cases[1]);
    world_check(&w);
    world_check_empty(&w);
    world_close(&w);
}

/* Prompts whose length is a whole number of pages: the last token is run again nevertheless. */
static void the_last_token_is_always_run(void **state) {
    (void)state;
    struct world w;
    world_open(&w, model_dir, 1, CTX);
    world_make_cases(&w, 1, 61, false);
    struct job_case *c = &w.cases[0];
    c->job.n_pictures = 0;
    c->job.n_tokens = 64;
    for (int i = 0; i < 64; i++) c->tokens[i] = i * 5 % 490;
    world_answer_alone(&w, c);
    world_start(&w, true, 0);
    for (int i = 0; i < 3; i++) {
        world_forget(&w);
        add_and_finish(&w, c);
        world_check(&w);
        assert_int_equal(c->done.n_cached, i ? 48 : 0);
    }
    world_close(&w);
}

static void an_embedding_is_reused_alone(void **state) {
    (void)state;
    struct world w;
    world_open(&w, model_dir, 2, 2 * CTX);
    make_questions(&w, 2);
    world_start(&w, false, EMBED_BYTES);
    int n_image = w.pictures[2].plan.n_tokens;
    for (int i = 0; i < 2; i++) {
        add_and_finish(&w, &w.cases[i]);
        assert_int_equal(w.cases[i].done.n_cached, 0);
        assert_int_equal(w.cases[i].done.n_image_cached, i ? n_image : 0);
    }
    world_check(&w);
    assert_int_equal(w.s->figures.n_embed_queries, 2);
    assert_int_equal(w.s->figures.n_embed_hits, 1);
    world_close(&w);
}

/* Another salt, and a picture without a digest: nothing is shared. */
static void what_may_not_be_shared_is_not(void **state) {
    (void)state;
    struct world w;
    world_open(&w, model_dir, 2, 3 * CTX);
    make_questions(&w, 1);
    w.cases[1].job.salt[5] = 1;
    world_start(&w, true, EMBED_BYTES);
    for (int i = 0; i < 2; i++) add_and_finish(&w, &w.cases[i]);
    assert_int_equal(w.cases[1].done.n_cached, 0);
    assert_int_equal(w.cases[1].done.n_image_cached, 0);
    world_check(&w);
    world_stop(&w);
    make_questions(&w, N_PICTURES - 1);
    world_start(&w, true, EMBED_BYTES);
    for (int i = 0; i < 2; i++) add_and_finish(&w, &w.cases[i]);
    assert_int_equal(w.cases[1].done.n_cached, 16); /* the page before the picture */
    assert_int_equal(w.cases[1].done.n_image_cached, 0);
    world_check(&w);
    world_close(&w);
}

/* The same picture asked about by several at once is encoded once, with both caches off. */
static void jobs_at_once_share_an_embedding(void **state) {
    (void)state;
    struct world w;
    world_open(&w, model_dir, 2, 2 * CTX);
    make_questions(&w, 3);
    world_start(&w, false, 0);
    world_random_slices(&w);
    for (int i = 0; i < 2; i++) world_add(&w, &w.cases[i]);
    world_finish(&w, 100000);
    world_check(&w);
    assert_int_equal(w.s->figures.n_image_tokens, (uint64_t)w.pictures[3].plan.n_tokens);
    world_close(&w);
}

static void caches_stay_within_bounds(void **state) {
    (void)state;
    struct world w;
    struct oc_sched_figures f;
    world_open(&w, model_dir, 4, 2 * CTX);
    world_make_cases(&w, 60, 70, true);
    world_start(&w, true, EMBED_BYTES);
    world_run(&w);
    world_check(&w);
    oc_scheduler_figures(w.s, &f);
    assert_true(f.embed_evictions > 0 && f.kv_evictions > 0 && f.n_prefix_hits > 0 && f.n_embed_hits > 0);
    assert_true(w.most_idle_bytes > 0 && w.most_idle_bytes <= EMBED_BYTES && f.embed_bytes <= EMBED_BYTES);
    assert_int_equal(f.kv_pages, w.e->kv.n_pages);
    assert_int_equal(f.kv_pages_cached + w.e->kv.n_free, f.kv_pages);
    world_check_empty(&w);
    world_close(&w);
}

/* ---- The queue -------------------------------------------------------------------------------------------- */

static struct job_case *plain_case(struct world *w, int i, int n_tokens, int max_tokens, int priority) {
    struct job_case *c = &w->cases[i];
    c->job.n_pictures = 0;
    c->job.n_tokens = n_tokens;
    c->job.max_tokens = max_tokens;
    c->job.priority = priority;
    c->job.n_eos = 0;
    for (int k = 0; k < n_tokens; k++) c->tokens[k] = (k * 13 + i * 29) % 490;
    return c;
}

static void better_priority_goes_first(void **state) {
    (void)state;
    static const int priorities[] = {1, 2, 1, 0, 2, 0}, order[] = {4, 6, 1, 3, 2, 5};
    struct world w;
    world_open(&w, model_dir, 1, CTX);
    world_make_cases(&w, 6, 80, false);
    world_start(&w, true, 0);
    for (int i = 0; i < 6; i++) world_add(&w, plain_case(&w, i, 20, 5, priorities[i]));
    world_finish(&w, 100000);
    for (int i = 0; i < 6; i++) assert_int_equal(w.order[i], order[i]);
    world_close(&w);
}

static bool is_waiting(const struct world *w, uint64_t id) {
    for (const struct oc_sched_task *t = w->s->waiting; t; t = t->next)
        if (t->id == id) return true;
    return false;
}

/* Small jobs may pass a large one that does not fit yet, but only so often; there are always enough of them to keep it out. */
static void a_large_job_is_not_starved(void **state) {
    (void)state;
    struct world w;
    world_open(&w, model_dir, 6, CTX);
    world_make_cases(&w, 60, 81, false);
    world_start(&w, false, 0);
    for (int i = 0; i < 4; i++) world_add(&w, plain_case(&w, i, 30, 20, 1));
    for (int i = 0; i < 2; i++) oc_scheduler_step(w.s);
    world_add(&w, plain_case(&w, 4, 285, 30, 1));
    for (int i = 5; i < 60; i++) world_add(&w, plain_case(&w, i, 20 + i % 9, 5 + i % 7, 1));
    while (is_waiting(&w, 5)) oc_scheduler_step(w.s);
    int n_before = (int)w.s->n_added - w.s->n_waiting - 1 - 4;
    assert_true(n_before > 0);                                               /* it was passed, */
    assert_true(n_before < OC_SCHED_MAX_OVERTAKES + OC_SCHED_ADMIT_MAX); /* a bounded number of times; then they followed it */
    world_finish(&w, 100000);
    world_check_empty(&w);
    world_close(&w);
}

/* While one prompt is long, short ones pass it at prefill, but only so often. */
static void a_long_prompt_is_passed_a_bounded_number_of_times(void **state) {
    (void)state;
    struct world w;
    world_open(&w, model_dir, 40, 40 * CTX);
    world_make_cases(&w, 30, 85, false);
    world_start(&w, false, 0);
    world_add(&w, plain_case(&w, 0, 300, 1, 1));
    for (int i = 1; i < 30; i++) world_add(&w, plain_case(&w, i, 30, 1, 1));
    world_finish(&w, 100000);
    int at = 0;
    while (w.order[at] != 1) at++;
    assert_true(at > 0 && at <= OC_SCHED_MAX_OVERTAKES);
    world_check_empty(&w);
    world_close(&w);
}

/* Priority decides at prefill too: what came late with a better one is read first. */
static void better_priority_is_read_first(void **state) {
    (void)state;
    struct world w;
    world_open(&w, model_dir, 3, 3 * CTX);
    world_make_cases(&w, 3, 86, false);
    world_start(&w, false, 0);
    for (int i = 0; i < 3; i++) world_add(&w, plain_case(&w, i, 200, 1, 2 - i));
    world_finish(&w, 100000);
    for (int i = 0; i < 3; i++) assert_int_equal(w.order[i], 3 - i);
    world_close(&w);
}

/* At every moment of its life, beside another job that must not notice: one that asks about the same picture, another one,
 * or none (-1: a long text, whose rows share chunks with the first's). */
static void cancel_at_every_step(int picture, int other) {
    struct world w;
    world_open(&w, model_dir, 3, 3 * CTX);
    make_questions(&w, picture);
    if (other >= 0) show_other_picture(&w, &w.cases[1], other);
    else answer_again(&w, plain_case(&w, 1, 280, 10, 0));
    bool is_over = false;
    for (int at = 0, n = 0; !is_over; at += 3, n++) {
        world_forget(&w);
        world_start(&w, n % 4 == 0, n % 3 == 0 ? EMBED_BYTES : 0);
        world_random_slices(&w);
        for (int i = 0; i < 2; i++) world_add(&w, &w.cases[i]);
        for (int i = 0; i < at; i++) oc_scheduler_step(w.s);
        is_over = w.cases[0].n_done == 1; /* it was through before: all its moments have been tried */
        oc_scheduler_cancel(w.s, 1);
        oc_scheduler_cancel(w.s, 99); /* unknown: nothing */
        assert_int_equal(w.cases[0].n_done, 1);
        world_finish(&w, 100000);
        w.cases[0].want.n = w.cases[0].got.n, w.cases[0].want.finish = w.cases[0].got.finish;
        assert_int_equal(w.cases[1].n_done, 1);
        assert_int_equal(w.cases[1].got.n, w.cases[1].want.n);
        assert_memory_equal(w.cases[1].got.tokens, w.cases[1].want.tokens, (size_t)w.cases[1].want.n * sizeof(int32_t));
        world_check_empty(&w);
        world_stop(&w);
    }
    world_close(&w);
}

static void a_cancelled_job_leaves_nothing(void **state) {
    (void)state;
    cancel_at_every_step(3, 3);
    cancel_at_every_step(0, 1);
    cancel_at_every_step(1, -1);
}

/* Steps until a pass has rows of both jobs, of which those of job 1 that stand for a picture are still to be read. */
static bool step_to_shared_pass(struct world *w) {
    const struct oc_sched_prefill *c = &w->s->prefill;
    while (w->cases[0].n_done + w->cases[1].n_done == 0) {
        oc_scheduler_step(w->s);
        bool shared = c->is_on && c->n_parts == 2 && c->parts[0].task->id == 1 && c->pass.stage == OC_LM_EMBED && c->pass.row > 0;
        for (int r = c->pass.row; shared && r < c->parts[0].n; r++)
            if (c->embeddings[r]) return true;
    }
    return false;
}

/* Job 1 is cancelled while its rows are in a pass with job 2's: its embedding stays until the pass is done. */
static void a_pass_goes_on_without_a_cancelled_job(void **state) {
    (void)state;
    struct world w;
    int n_seen = 0;
    world_open(&w, model_dir, 2, 2 * CTX);
    make_questions(&w, 1);
    answer_again(&w, plain_case(&w, 1, 280, 10, 0));
    for (int i = 0; i < 200 && n_seen < 5; i++) {
        world_forget(&w);
        world_start(&w, false, 0);
        world_random_slices(&w);
        for (int k = 0; k < 2; k++) world_add(&w, &w.cases[k]);
        bool seen = step_to_shared_pass(&w);
        oc_scheduler_cancel(w.s, 1);
        assert_int_equal(w.cases[0].n_done, 1);
        if (seen) assert_true(w.s->n_running == 2 && w.s->embeds.held_bytes > 0);
        n_seen += seen;
        world_finish(&w, 100000);
        assert_int_equal(w.cases[1].got.n, w.cases[1].want.n);
        assert_memory_equal(w.cases[1].got.tokens, w.cases[1].want.tokens, (size_t)w.cases[1].want.n * sizeof(int32_t));
        world_check_empty(&w);
        world_stop(&w);
    }
    assert_int_equal(n_seen, 5);
    world_close(&w);
}

static void make_own_patches(void *arg, int from, int to, float *out) {
    struct picture_case *own = arg;
    const size_t dim = (size_t)own->plan.patch_dim;
    memcpy(out, own->patches + (size_t)from * dim, (size_t)(to - from) * dim * sizeof *out);
}

/* The patches of a cancelled job may vanish at once: here they turn to NaN, and the other job's own are read. */
static void a_cancelled_jobs_patches_are_let_go(void **state) {
    (void)state;
    struct world w;
    world_open(&w, model_dir, 2, 2 * CTX);
    make_questions(&w, 3);
    struct picture_case own = {.plan = w.pictures[3].plan};
    size_t bytes = (size_t)own.plan.n_patches * (size_t)own.plan.patch_dim * sizeof(float);
    own.patches = malloc(bytes);
    assert_non_null(own.patches);
    const struct oc_vision_patches kinds[2] = {{.all = own.patches}, {.make = make_own_patches, .arg = &own}};
    for (int at = 1; at < 30; at++) {
        world_forget(&w);
        memcpy(own.patches, w.pictures[3].patches, bytes);
        w.cases[0].pictures[0].patches = kinds[at % 2];
        world_start(&w, false, 0);
        world_random_slices(&w);
        for (int i = 0; i < 2; i++) world_add(&w, &w.cases[i]);
        for (int i = 0; i < at; i++) oc_scheduler_step(w.s);
        oc_scheduler_cancel(w.s, 1);
        memset(own.patches, 0xff, bytes);
        world_finish(&w, 100000);
        assert_int_equal(w.cases[1].got.finish, w.cases[1].want.finish);
        assert_memory_equal(w.cases[1].got.tokens, w.cases[1].want.tokens, (size_t)w.cases[1].want.n * sizeof(int32_t));
        world_stop(&w);
    }
    free(own.patches);
    world_close(&w);
}

static void a_job_can_be_cancelled_by_its_token(void **state) {
    (void)state;
    struct world w;
    world_open(&w, model_dir, 2, 2 * CTX);
    world_make_cases(&w, 2, 82, false);
    world_start(&w, true, 0);
    for (int i = 0; i < 2; i++) world_add(&w, plain_case(&w, i, 20, 20, 1));
    w.cancel_on_token = 2;
    world_finish(&w, 100000);
    assert_int_equal(w.cases[1].got.finish, OC_SCHED_CANCELLED);
    assert_int_equal(w.cases[1].got.n, 1);
    assert_int_equal(w.cases[0].got.finish, OC_SCHED_LENGTH);
    assert_int_equal(w.cases[0].got.n, 20);
    world_check_empty(&w);
    world_close(&w);
}

/* ---- Errors ----------------------------------------------------------------------------------------------- */

static void bad_jobs_are_refused(void **state) {
    (void)state;
    struct world w;
    struct oc_errinfo ei;
    world_open(&w, model_dir, 1, CTX);
    make_questions(&w, 1);
    world_start(&w, true, 0);
    struct job_case *c = &w.cases[0];
    struct oc_sched_job good = c->job, bad;
    int32_t token = c->tokens[3];
    bad = good, bad.max_tokens = 0;
    assert_int_equal(oc_scheduler_add(w.s, &bad, &ei), OC_ERR_USAGE);
    bad = good, bad.max_tokens = CTX;
    assert_int_equal(oc_scheduler_add(w.s, &bad, &ei), OC_ERR_LIMIT);
    bad = good, bad.n_tokens = 0;
    assert_int_equal(oc_scheduler_add(w.s, &bad, &ei), OC_ERR_FORMAT);
    bad = good, bad.n_pictures = 0;
    assert_int_equal(oc_scheduler_add(w.s, &bad, &ei), OC_ERR_FORMAT);
    bad = good, bad.sample.temperature = -1;
    assert_int_equal(oc_scheduler_add(w.s, &bad, &ei), OC_ERR_USAGE);
    bad = good, bad.n_eos = OC_MAX_EOS + 1;
    assert_int_equal(oc_scheduler_add(w.s, &bad, &ei), OC_ERR_USAGE);
    c->tokens[3] = 512;
    assert_int_equal(oc_scheduler_add(w.s, &good, &ei), OC_ERR_FORMAT);
    c->tokens[3] = -1;
    assert_int_equal(oc_scheduler_add(w.s, &good, &ei), OC_ERR_FORMAT);
    c->tokens[3] = token;
    c->pictures[0].plan.grid_h += 2;
    assert_int_equal(oc_scheduler_add(w.s, &good, &ei), OC_ERR_FORMAT);
    c->pictures[0].plan.grid_h = 1 << 30;
    assert_int_equal(oc_scheduler_add(w.s, &good, &ei), OC_ERR_FORMAT);
    c->pictures[0].plan = w.pictures[1].plan;
    world_add(&w, c);
    assert_int_equal(oc_scheduler_add(w.s, &good, &ei), OC_ERR_USAGE); /* the id is live */
    world_finish(&w, 100000);
    assert_int_equal(c->n_done, 1);
    assert_int_equal(c->got.n, c->want.n);
    world_close(&w);
}

static void too_many_jobs_are_refused(void **state) {
    (void)state;
    struct world w;
    struct oc_errinfo ei;
    world_open(&w, model_dir, 1, CTX);
    world_make_cases(&w, 9, 83, false);
    world_start(&w, true, 0);
    w.s->p.max_jobs = 8;
    for (int i = 0; i < 8; i++) world_add(&w, plain_case(&w, i, 5, 5, 1));
    assert_int_equal(oc_scheduler_add(w.s, &plain_case(&w, 8, 5, 5, 1)->job, &ei), OC_ERR_LIMIT);
    world_finish(&w, 100000);
    world_close(&w);
}

/* A picture that is not a number ends its own job; who began with the same words is not harmed, then or later. */
static void a_picture_of_nans_ends_its_job_alone(void **state) {
    (void)state;
    struct world w;
    world_open(&w, model_dir, 2, 3 * CTX);
    make_questions(&w, 1);
    const struct oc_picture_plan *plan = &w.pictures[1].plan;
    size_t n = (size_t)plan->n_patches * (size_t)plan->patch_dim;
    float *bad = calloc(n, sizeof *bad);
    assert_non_null(bad);
    bad[n / 2] = __builtin_nanf("");
    w.cases[0].pictures[0].patches = (struct oc_vision_patches){.all = bad};
    w.cases[0].pictures[0].digest[0] = 99;
    world_start(&w, true, EMBED_BYTES);
    for (int i = 0; i < 2; i++) world_add(&w, &w.cases[i]);
    world_finish(&w, 100000);
    assert_int_equal(w.cases[0].got.finish, OC_SCHED_ERROR);
    assert_int_equal(w.cases[0].done.error.code, OC_ERR_FORMAT);
    assert_non_null(strstr(w.cases[0].done.error.msg, "picture 1 encodes to numbers that are not finite"));
    assert_int_equal(w.cases[1].got.finish, w.cases[1].want.finish);
    assert_memory_equal(w.cases[1].got.tokens, w.cases[1].want.tokens, (size_t)w.cases[1].want.n * sizeof(int32_t));
    world_check_empty(&w);
    free(bad);
    world_close(&w);
}

/* The rows of an embedding matrix. */
static void fetch_embedding(struct oc_engine *e, const struct oc_weight *w, float *rows) {
    struct oc_device *d = e->dev;
    void *there;
    size_t row_bytes = (size_t)w->k * sizeof(float);
    assert_int_equal(d->alloc(d, row_bytes, &there, NULL), OC_OK);
    for (int32_t i = 0; i < w->n; i++) {
        d->ops.embed(&e->ctx, &(struct oc_embed){.m = 1, .ids = &i, .w = w, .y = there, .ldy = w->k});
        d->get(d, rows + i * w->k, there, row_bytes);
    }
    d->free(d, there, row_bytes);
}

/* A token whose embedding is damaged: pages that it may have spoilt are not kept, though their own key is innocent. */
static void damaged_weights_spoil_no_cache(void **state) {
    (void)state;
    struct world w;
    world_open(&w, model_dir, 2, 3 * CTX);
    world_make_cases(&w, 2, 84, false);
    for (int i = 0; i < 2; i++) plain_case(&w, i, 60, 8, 1);
    memcpy(w.cases[1].tokens, w.cases[0].tokens, 32 * sizeof(int32_t)); /* two pages; the next token is the damaged one */
    world_answer_alone(&w, &w.cases[1]);
    struct oc_lm *lm = &w.e->model->lm;
    struct oc_weight good = lm->embed;
    float *rows = malloc((size_t)good.n * (size_t)good.k * sizeof *rows);
    assert_non_null(rows);
    fetch_embedding(w.e, &good, rows);
    rows[491 * good.k] = __builtin_nanf("");
    lm->embed = (struct oc_weight){.n = good.n, .k = good.k, .dtype = OC_F32, .w = (const uint8_t *)rows};
    assert_int_equal(w.e->dev->take_weight(w.e->dev, &lm->embed, NULL), OC_OK);
    w.cases[0].tokens[32] = 491;
    world_start(&w, true, 0);
    add_and_finish(&w, &w.cases[0]);
    assert_int_equal(w.cases[0].got.finish, OC_SCHED_ERROR);
    add_and_finish(&w, &w.cases[1]);
    assert_int_equal(w.cases[1].got.finish, w.cases[1].want.finish);
    assert_memory_equal(w.cases[1].got.tokens, w.cases[1].want.tokens, (size_t)w.cases[1].want.n * sizeof(int32_t));
    world_stop(&w);
    lm->embed = good;
    free(rows);
    world_close(&w);
}

/* Many jobs that come, are cancelled, wait and share: nothing leaks, every one is done once. */
static void a_long_day_leaks_nothing(void **state) {
    (void)state;
    enum { N = 10000 };
    struct world w;
    world_open(&w, model_dir, 6, 2 * CTX);
    world_make_cases(&w, N, 90, false);
    for (int i = 0; i < N; i++) {
        struct job_case *c = &w.cases[i];
        if (c->job.max_tokens > 4) c->job.max_tokens = 4;
        if (i % 20) { /* most are short, for the sake of time */
            plain_case(&w, i, 1 + i % 30, 1 + i % 3, i % 3);
            c->job.sample = oc_lm_sample_defaults();
        }
    }
    world_start(&w, true, EMBED_BYTES);
    for (int next = 0; next < N;) {
        for (int n = draw_int(&w.rng, 0, 12); n > 0 && next < N && w.s->n_waiting < 100; n--) world_add(&w, &w.cases[next++]);
        for (int n = draw_int(&w.rng, 1, 4); n > 0; n--) oc_scheduler_step(w.s);
        /* One of the last to come, of which most still wait or run, whatever a step took. */
        if (draw_int(&w.rng, 0, 9) == 0) oc_scheduler_cancel(w.s, (uint64_t)draw_int(&w.rng, next > 50 ? next - 50 : 1, next));
    }
    world_finish(&w, 10000000);
    int n_cancelled = 0;
    for (int i = 0; i < N; i++) {
        assert_int_equal(w.cases[i].n_done, 1);
        assert_true(w.cases[i].got.finish != OC_SCHED_ERROR);
        n_cancelled += w.cases[i].got.finish == OC_SCHED_CANCELLED;
    }
    assert_true(n_cancelled > 10);
    world_check_empty(&w);
    world_close(&w);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_job_answers_as_alone),
        cmocka_unit_test(eight_jobs_answer_as_alone),
        cmocka_unit_test(sixty_four_jobs_answer_as_alone),
        cmocka_unit_test(jobs_that_must_queue_answer_as_alone),
        cmocka_unit_test(a_second_question_reuses_the_prefix),
        cmocka_unit_test(the_last_token_is_always_run),
        cmocka_unit_test(an_embedding_is_reused_alone),
        cmocka_unit_test(what_may_not_be_shared_is_not),
        cmocka_unit_test(jobs_at_once_share_an_embedding),
        cmocka_unit_test(caches_stay_within_bounds),
        cmocka_unit_test(better_priority_goes_first),
        cmocka_unit_test(a_large_job_is_not_starved),
        cmocka_unit_test(a_long_prompt_is_passed_a_bounded_number_of_times),
        cmocka_unit_test(better_priority_is_read_first),
        cmocka_unit_test(a_cancelled_job_leaves_nothing),
        cmocka_unit_test(a_pass_goes_on_without_a_cancelled_job),
        cmocka_unit_test(a_cancelled_jobs_patches_are_let_go),
        cmocka_unit_test(a_job_can_be_cancelled_by_its_token),
        cmocka_unit_test(bad_jobs_are_refused),
        cmocka_unit_test(too_many_jobs_are_refused),
        cmocka_unit_test(a_picture_of_nans_ends_its_job_alone),
        cmocka_unit_test(damaged_weights_spoil_no_cache),
        cmocka_unit_test(a_long_day_leaks_nothing),
    };
    golden_device_read(&argc, argv);
    if (argc != 2 && argc != 3) return 2;
    model_dir = argv[1];
    if (argc == 3) cmocka_set_test_filter(argv[2]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
