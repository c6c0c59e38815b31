/* check_engine [--device WHAT] MODEL_DIR: what the engine promises whatever the model is: a row's bits depend on its own sequence and role
 * alone; cut sequences go on as if nothing had been; a decode step allocates nothing. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <execinfo.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/engine.h"
#include "golden_device.h"
#include "engine/sched.h"

#define N_PROMPT 70
#define N_DECODE 8

static const char *model_dir;
static atomic_long n_allocations;

/* While somebody watches: who asked for memory, at most N_SEEN of them. */
enum { N_SEEN = 4, N_FRAMES = 16 };
static atomic_bool watching;
static atomic_int n_seen;
static struct seen {
    void *frames[N_FRAMES];
    int n_frames, thread;
    size_t bytes;
} seen[N_SEEN];

/* A GPU's driver has threads of its own, which allocate when they like; what it allocates in ours counts. */
static bool is_drivers_own(const void *caller) {
    Dl_info about;
    return gettid() != getpid() && dladdr(caller, &about) && about.dli_fname && strstr(about.dli_fname, "/libcuda.so");
}

static void count(size_t n, const void *caller) {
    if (atomic_load(&watching) && is_drivers_own(caller)) return;
    atomic_fetch_add(&n_allocations, 1);
    if (!atomic_load(&watching)) return;
    int i = atomic_fetch_add(&n_seen, 1);
    if (i >= N_SEEN) return;
    seen[i].bytes = n, seen[i].thread = gettid();
    seen[i].n_frames = backtrace(seen[i].frames, N_FRAMES);
}

static long watch(void) {
    void *frames[1];
    backtrace(frames, 1); /* its own first allocation */
    atomic_store(&n_seen, 0);
    atomic_store(&watching, true);
    return atomic_load(&n_allocations);
}

static long end_watch(void) {
    long n = atomic_load(&n_allocations);
    atomic_store(&watching, false);
    for (int i = 0; i < atomic_load(&n_seen) && i < N_SEEN; i++) {
        printf("%zu bytes asked for by thread %d (the test's is %d):\n", seen[i].bytes, seen[i].thread, gettid());
        fflush(stdout);
        backtrace_symbols_fd(seen[i].frames, seen[i].n_frames, STDOUT_FILENO);
    }
    return n;
}

/* Counts what goes through malloc and its kin in this process, kernels and engine included. */
extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t count, size_t n);
extern void *__libc_realloc(void *p, size_t n);
void *malloc(size_t n) {
    count(n, __builtin_return_address(0));
    return __libc_malloc(n);
}
void *calloc(size_t n_items, size_t n) {
    count(n_items * n, __builtin_return_address(0));
    return __libc_calloc(n_items, n);
}
void *realloc(void *p, size_t n) {
    count(n, __builtin_return_address(0));
    return __libc_realloc(p, n);
}

static struct oc_engine *open_engine(int n_sessions, int n_threads) {
    struct oc_engine *e;
    struct oc_errinfo ei;
    struct oc_engine_params p = {.model_dir = model_dir, .ctx_tokens = 1024, .n_sessions = n_sessions, .n_threads = n_threads};
    golden_device_set(&p);
    if (oc_engine_open(&p, &e, &ei) != OC_OK) fail_msg("%s", ei.msg);
    return e;
}

static void fill_tokens(int32_t *tokens, int n, int seed) {
    for (int i = 0; i < n; i++) tokens[i] = (i * 37 + seed * 101 + 5) % 490;
}

static struct oc_session *open_session(struct oc_engine *e) {
    struct oc_session *s;
    assert_int_equal(oc_session_open(e, 160, &s, NULL), OC_OK);
    return s;
}

static void prefill(struct oc_session *s, const int32_t *tokens, int n) {
    assert_int_equal(oc_session_prefill(s, &(struct oc_prompt){.tokens = tokens, .n_tokens = n}, NULL, NULL, NULL), OC_OK);
}

static float *copy_logits(const struct oc_engine *e, const float *logits) {
    size_t bytes = (size_t)oc_engine_info(e)->n_vocab * sizeof(float);
    return memcpy(malloc(bytes), logits, bytes);
}

/* The logits after the prompt and N_DECODE tokens, run alone. */
static float *alone(struct oc_engine *e, int seed) {
    int32_t tokens[N_PROMPT + N_DECODE];
    fill_tokens(tokens, N_PROMPT + N_DECODE, seed);
    struct oc_session *s = open_session(e);
    prefill(s, tokens, N_PROMPT);
    for (int i = 0; i < N_DECODE; i++) assert_int_equal(oc_session_decode(s, tokens[N_PROMPT + i], NULL), OC_OK);
    float *logits = copy_logits(e, oc_session_logits(s));
    oc_session_close(s);
    return logits;
}

static void assert_same_bits(const struct oc_engine *e, const float *a, const float *b) {
    assert_memory_equal(a, b, (size_t)oc_engine_info(e)->n_vocab * sizeof(float));
}

static void a_session_among_others_gives_the_same_bits(void **state) {
    (void)state;
    enum { N = 5 };
    struct oc_engine *e = open_engine(N, 2);
    float *want[N];
    struct oc_session *s[N];
    int32_t tokens[N][N_PROMPT + N_DECODE];
    for (int i = 0; i < N; i++) want[i] = alone(e, i);
    for (int i = 0; i < N; i++) {
        fill_tokens(tokens[i], N_PROMPT + N_DECODE, i);
        s[i] = open_session(e);
        prefill(s[i], tokens[i], N_PROMPT);
    }
    for (int step = 0; step < N_DECODE; step++) {
        struct oc_row rows[N];
        for (int i = 0; i < N; i++) {
            int32_t at = N_PROMPT + step;
            rows[i] = (struct oc_row){.session = s[i], .slot = at, .pos = {at, at, at}, .role = OC_ROW_DECODE,
                                      .token = tokens[i][at], .output = OC_ROW_LOGITS};
        }
        assert_int_equal(oc_engine_step(e, rows, N, NULL), OC_OK);
    }
    for (int i = 0; i < N; i++) {
        assert_same_bits(e, oc_engine_logits(e, i), want[i]);
        oc_session_close(s[i]);
        free(want[i]);
    }
    oc_engine_close(e);
}

/* One session prefills while another decodes in the same step. */
static void mixed_roles_do_not_disturb_each_other(void **state) {
    (void)state;
    struct oc_engine *e = open_engine(2, 2);
    int32_t a[N_PROMPT + N_DECODE], b[N_PROMPT];
    fill_tokens(a, N_PROMPT + N_DECODE, 1);
    fill_tokens(b, N_PROMPT, 2);
    float *want_a = alone(e, 1);
    struct oc_session *sa = open_session(e), *sb = open_session(e);
    prefill(sb, b, N_PROMPT);
    float *want_b = copy_logits(e, oc_session_logits(sb));
    oc_session_truncate(sb, 0);
    prefill(sa, a, N_PROMPT);
    for (int step = 0; step < N_DECODE; step++) {
        struct oc_row rows[1 + N_PROMPT];
        int lo = N_PROMPT * step / N_DECODE, hi = N_PROMPT * (step + 1) / N_DECODE, n = 0;
        for (int i = lo; i < hi; i++)
            rows[n++] = (struct oc_row){.session = sb, .slot = i, .pos = {i, i, i}, .token = b[i],
                                        .output = i == N_PROMPT - 1 ? OC_ROW_LOGITS : OC_ROW_NONE};
        int at = N_PROMPT + step;
        rows[n++] = (struct oc_row){.session = sa, .slot = at, .pos = {at, at, at}, .role = OC_ROW_DECODE, .token = a[at],
                                    .output = OC_ROW_LOGITS};
        assert_int_equal(oc_engine_step(e, rows, n, NULL), OC_OK);
    }
    assert_same_bits(e, oc_engine_logits(e, 0), want_b);
    assert_same_bits(e, oc_engine_logits(e, 1), want_a);
    free(want_a);
    free(want_b);
    oc_session_close(sa);
    oc_session_close(sb);
    oc_engine_close(e);
}

static void chunks_of_a_prompt_do_not_matter(void **state) {
    (void)state;
    static const int sizes[] = {1, 3, 16, 17, 33};
    struct oc_engine *e = open_engine(1, 2);
    int32_t tokens[N_PROMPT];
    fill_tokens(tokens, N_PROMPT, 3);
    struct oc_session *s = open_session(e);
    prefill(s, tokens, N_PROMPT);
    float *want = copy_logits(e, oc_session_logits(s));
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
        oc_session_truncate(s, 0);
        for (int at = 0; at < N_PROMPT; at += sizes[k])
            prefill(s, tokens + at, N_PROMPT - at < sizes[k] ? N_PROMPT - at : sizes[k]);
        assert_same_bits(e, oc_session_logits(s), want);
    }
    free(want);
    oc_session_close(s);
    oc_engine_close(e);
}

static void threads_do_not_matter(void **state) {
    static const int counts[] = {2, 3, 64}; /* more than there is work for, too */
    (void)state;
    struct oc_engine *e1 = open_engine(1, 1);
    float *want = alone(e1, 4);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        struct oc_engine *e = open_engine(1, counts[i]);
        float *got = alone(e, 4);
        assert_same_bits(e1, want, got);
        free(got);
        oc_engine_close(e);
    }
    free(want);
    oc_engine_close(e1);
}

static void a_cut_sequence_goes_on(void **state) {
    (void)state;
    struct oc_engine *e = open_engine(1, 2);
    int32_t tokens[N_PROMPT + N_DECODE];
    fill_tokens(tokens, N_PROMPT + N_DECODE, 5);
    float *want = alone(e, 5);
    struct oc_session *s = open_session(e);
    prefill(s, tokens, N_PROMPT);
    for (int i = 0; i < 20; i++) assert_int_equal(oc_session_decode(s, 7 + i, NULL), OC_OK);
    oc_session_truncate(s, N_PROMPT);
    for (int i = 0; i < N_DECODE; i++) assert_int_equal(oc_session_decode(s, tokens[N_PROMPT + i], NULL), OC_OK);
    assert_same_bits(e, oc_session_logits(s), want);
    free(want);
    oc_session_close(s);
    oc_engine_close(e);
}

static void a_decode_step_allocates_nothing(void **state) {
    (void)state;
    struct oc_engine *e = open_engine(1, 2);
    int32_t tokens[N_PROMPT];
    fill_tokens(tokens, N_PROMPT, 6);
    struct oc_session *s = open_session(e);
    prefill(s, tokens, N_PROMPT);
    long before = atomic_load(&n_allocations);
    free(malloc(1));
    assert_true(atomic_load(&n_allocations) > before); /* the counter counts */
    before = watch();
    for (int i = 0; i < 40; i++) {
        enum oc_err err = oc_session_decode(s, 9 + i, NULL);
        if (err != OC_OK) fail();
    }
    assert_int_equal(end_watch() - before, 0);
    oc_session_close(s);
    oc_engine_close(e);
}

static void ignore_done(void *arg, uint64_t id, const struct oc_sched_done *done) {
    (void)id;
    if (done->finish != OC_SCHED_LENGTH) fail_msg("%s", done->error.msg);
    (*(int *)arg)++;
}

static int all_rows(void *arg, int max) {
    (void)arg;
    return max;
}

static int all_drafts(void *arg, const struct oc_sched_task *t, int32_t *out, int max) {
    float odds[OC_ENGINE_DRAFT_ROWS];
    (void)arg;
    return oc_engine_ngram_draft(&t->ngram, max, out, odds);
}

/* Steps of a scheduler that only decode: five jobs, of which four sample in their own ways. Prompts run whole, so that
 * the first job does not reach its end while a slow machine still cuts the last prompt into pieces. */
static void scheduled_steps_allocate_nothing(bool speculate, int n_steps) {
    enum { N = 5 };
    struct oc_engine *e = open_engine(N, 2);
    struct oc_scheduler *s;
    int n_done = 0;
    struct oc_sched_params p = {.prefix_cache = true, .embed_cache_bytes = 1 << 20, .speculate = speculate};
    assert_int_equal(oc_scheduler_open(e, &p, &(struct oc_sched_events){.arg = &n_done, .on_done = ignore_done}, &s, NULL), OC_OK);
    s->hook.rows = all_rows;
    if (speculate) s->hook.draft = all_drafts;
    for (int i = 0; i < N; i++) {
        int32_t tokens[N_PROMPT];
        fill_tokens(tokens, N_PROMPT, i);
        struct oc_sched_job job = {.id = (uint64_t)i, .tokens = tokens, .n_tokens = N_PROMPT, .max_tokens = 100};
        job.sample = oc_lm_sample_defaults();
        job.sample.temperature = (float)i;
        job.sample.top_k = i == 2 ? 10 : 0;
        job.sample.top_p = i == 3 ? 0.9f : 1;
        job.sample.n_logprobs = i;
        assert_int_equal(oc_scheduler_add(s, &job, NULL), OC_OK);
    }
    struct oc_sched_figures f;
    while (s->n_decoding < N) assert_true(oc_scheduler_step(s));
    oc_scheduler_figures(s, &f);
    long before = watch();
    for (int i = 0; i < n_steps; i++)
        if (!oc_scheduler_step(s)) fail();
    long after = end_watch();
    uint64_t n_before = f.n_output_tokens - f.n_accepted;
    oc_scheduler_figures(s, &f);
    assert_int_equal(after - before, 0);
    assert_int_equal(f.n_output_tokens - f.n_accepted - n_before, n_steps * N);
    assert_true((f.n_drafted > 0) == speculate);
    while (oc_scheduler_step(s)) {}
    assert_int_equal(n_done, N);
    oc_scheduler_close(s);
    oc_engine_close(e);
}

static void a_scheduled_decode_step_allocates_nothing(void **state) {
    (void)state;
    scheduled_steps_allocate_nothing(false, 40);
    scheduled_steps_allocate_nothing(true, 10);
}

/* Encoding stops after any number of rows, and other sequences run in between. */
static void slices_of_a_picture_do_not_matter(void **state) {
    (void)state;
    struct oc_engine *e = open_engine(1, 2);
    struct oc_picture_plan plan;
    assert_int_equal(oc_engine_plan_picture(e, 280, 200, NULL, &plan, NULL), OC_OK);
    size_t n_in = (size_t)plan.n_patches * (size_t)plan.patch_dim, n_out = (size_t)plan.n_tokens * (size_t)e->info.dim;
    float *patches = malloc(n_in * sizeof *patches), *want = malloc(n_out * sizeof *want), *got = malloc(n_out * sizeof *got);
    for (size_t i = 0; i < n_in; i++) patches[i] = (float)(i * 2654435761u % 2001) / 1000.0f - 1;
    assert_int_equal(oc_engine_encode_picture(e, &plan, patches, want, NULL), OC_OK);
    struct oc_session *s = open_session(e);
    int32_t tokens[4] = {5, 6, 7, 8};
    prefill(s, tokens, 4);
    for (int size = 1; size < plan.n_patches; size = size * 2 + 3) {
        struct oc_vision_pass p;
        struct oc_vision_piece next;
        memset(got, 0, n_out * sizeof *got);
        const struct oc_vision_patches all = {.all = patches};
        oc_vision_encoder_begin(&p, &e->model->vision, e->dev, &e->ctx, &e->vision_ws, &all, plan.grid_t, plan.grid_h,
                                plan.grid_w, got, NULL);
        for (int n = 0; oc_vision_encoder_next(&p, &next); n++) {
            oc_vision_encoder_step(&p, 1 + (n * 7 + size) % size);
            if (n % 50) continue;
            oc_session_truncate(s, 4);
            assert_int_equal(oc_session_decode(s, 9, NULL), OC_OK);
        }
        assert_memory_equal(got, want, n_out * sizeof *got);
    }
    free(patches), free(want), free(got);
    oc_session_close(s);
    oc_engine_close(e);
}

struct making {
    const float *patches;
    size_t dim;
    uint8_t *n_made; /* of each row */
};

static void make_patches(void *arg, int from, int to, float *out) {
    const struct making *m = arg;
    OC_ASSERT(from < to);
    memcpy(out, m->patches + (size_t)from * m->dim, (size_t)(to - from) * m->dim * sizeof *out);
    for (int i = from; i < to; i++) m->n_made[i]++;
}

/* As all at once, however many are asked for: no more are made than there is room for, and each only once. */
static void patches_are_made_as_they_are_needed(void **state) {
    (void)state;
    static const int sizes[] = {60, 999, 1024, 1027, 100000};
    struct oc_engine *e;
    struct oc_picture_plan plan;
    struct oc_engine_params params = {.model_dir = model_dir, .ctx_tokens = 1024, .n_threads = 3, .image_max_tokens = 400};
    golden_device_set(&params);
    assert_int_equal(oc_engine_open(&params, &e, NULL), OC_OK);
    const struct oc_picture_limits lim = {.max_pixels = 560 * 532};
    assert_int_equal(oc_engine_plan_picture(e, 560, 532, &lim, &plan, NULL), OC_OK);
    assert_true(plan.n_patches > e->vision_ws.staged_rows && e->vision_ws.max_patches > e->vision_ws.staged_rows);
    size_t n_in = (size_t)plan.n_patches * (size_t)plan.patch_dim, n_out = (size_t)plan.n_tokens * (size_t)e->info.dim;
    float *patches = malloc(n_in * sizeof *patches), *want = malloc(n_out * sizeof *want), *got = malloc(n_out * sizeof *got);
    uint8_t *n_made = malloc((size_t)plan.n_patches);
    assert_true(patches && want && got && n_made);
    for (size_t i = 0; i < n_in; i++) patches[i] = (float)(i * 2654435761u % 2001) / 1000.0f - 1;
    assert_int_equal(oc_engine_encode_picture(e, &plan, patches, want, NULL), OC_OK);
    struct making m = {patches, (size_t)plan.patch_dim, n_made};
    const struct oc_vision_patches made = {.make = make_patches, .arg = &m};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        struct oc_vision_pass p;
        struct oc_vision_piece next;
        memset(got, 0, n_out * sizeof *got);
        memset(n_made, 0, (size_t)plan.n_patches);
        oc_vision_encoder_begin(&p, &e->model->vision, e->dev, &e->ctx, &e->vision_ws, &made, plan.grid_t, plan.grid_h,
                                plan.grid_w, got, NULL);
        while (oc_vision_encoder_next(&p, &next)) {
            oc_vision_encoder_step(&p, next.stage == OC_VISION_EMBED ? sizes[k] : next.n_rows);
            for (int i = 0; i < plan.n_patches; i++)
                assert_int_equal(n_made[i], p.stage > OC_VISION_EMBED || (p.stage == OC_VISION_EMBED && i < p.row));
        }
        assert_memory_equal(got, want, n_out * sizeof *got);
    }
    free(patches), free(want), free(got), free(n_made);
    oc_engine_close(e);
}

static void limits_are_errors_and_change_nothing(void **state) {
    (void)state;
    struct oc_engine *e = open_engine(1, 1);
    struct oc_session *s, *other;
    struct oc_errinfo ei;
    int32_t tokens[N_PROMPT], bad[2] = {1, 100000};
    fill_tokens(tokens, N_PROMPT, 7);
    assert_int_equal(oc_session_open(e, 5000, &s, &ei), OC_ERR_LIMIT);
    assert_int_equal(oc_session_open(e, N_PROMPT + 1, &s, &ei), OC_OK);
    assert_int_equal(oc_session_open(e, 10, &other, &ei), OC_ERR_LIMIT);
    assert_int_equal(oc_session_prefill(s, &(struct oc_prompt){.tokens = bad, .n_tokens = 2}, NULL, NULL, &ei), OC_ERR_FORMAT);
    assert_int_equal(oc_session_n_tokens(s), 0);
    prefill(s, tokens, N_PROMPT);
    assert_int_equal(oc_session_prefill(s, &(struct oc_prompt){.tokens = tokens, .n_tokens = 2}, NULL, NULL, &ei), OC_ERR_LIMIT);
    assert_int_equal(oc_session_decode(s, -1, &ei), OC_ERR_FORMAT);
    assert_int_equal(oc_session_decode(s, 1, &ei), OC_OK);
    assert_int_equal(oc_session_decode(s, 1, &ei), OC_ERR_LIMIT);
    assert_int_equal(oc_session_n_tokens(s), N_PROMPT + 1);
    oc_session_close(s);
    oc_engine_close(e);
}

/* The sum of all sequences is bounded by kv_tokens, one by ctx_tokens. */
static void sequences_share_the_kv_pages(void **state) {
    (void)state;
    struct oc_engine *e;
    struct oc_errinfo ei;
    struct oc_session *s[4], *other;
    struct oc_engine_params p = {.model_dir = model_dir, .ctx_tokens = 100, .kv_tokens = 300, .n_sessions = 4, .n_threads = 1, .skip_prefetch = true};
    golden_device_set(&p);
    assert_int_equal(oc_engine_open(&p, &e, &ei), OC_OK);
    assert_int_equal(oc_engine_info(e)->kv_tokens, 300);
    assert_int_equal(oc_engine_info(e)->n_sessions, 4);
    assert_int_equal(e->kv.n_pages, 19 + 3);
    assert_int_equal(oc_session_open(e, 101, &other, &ei), OC_ERR_LIMIT);
    for (int i = 0; i < 3; i++) assert_int_equal(oc_session_open(e, 100, &s[i], &ei), OC_OK);
    assert_int_equal(oc_session_open(e, 100, &other, &ei), OC_ERR_LIMIT);
    assert_int_equal(oc_session_open(e, 16, &s[3], &ei), OC_OK);
    for (int i = 0; i < 4; i++) oc_session_close(s[i]);
    oc_engine_close(e);
    p.kv_tokens = 99;
    golden_device_set(&p);
    assert_int_equal(oc_engine_open(&p, &e, &ei), OC_ERR_USAGE);
}

/* A process that has the rules alone plans as the engine does. */
static void the_rules_alone_make_the_same_plan(void **state) {
    (void)state;
    struct oc_engine *e = open_engine(1, 1);
    struct oc_picture_rules r;
    oc_engine_picture_rules(e, &r);
    assert_int_equal(r.max_tokens, oc_engine_info(e)->image_max_tokens);
    for (int w = 1; w < 3000; w = w * 3 + 7) {
        for (int h = 1; h < 3000; h = h * 2 + 5) {
            struct oc_picture_plan a, b;
            memset(&a, 0, sizeof a), memset(&b, 0, sizeof b);
            enum oc_err err = oc_engine_plan_picture(e, w, h, NULL, &a, NULL);
            assert_int_equal(oc_picture_rules_plan(&r, w, h, NULL, 0, &b, NULL), err);
            if (err == OC_OK) assert_memory_equal(&a, &b, sizeof a);
        }
    }
    oc_engine_close(e);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_session_among_others_gives_the_same_bits),
        cmocka_unit_test(mixed_roles_do_not_disturb_each_other),
        cmocka_unit_test(chunks_of_a_prompt_do_not_matter),
        cmocka_unit_test(threads_do_not_matter),
        cmocka_unit_test(a_cut_sequence_goes_on),
        cmocka_unit_test(a_decode_step_allocates_nothing),
        cmocka_unit_test(a_scheduled_decode_step_allocates_nothing),
        cmocka_unit_test(slices_of_a_picture_do_not_matter),
        cmocka_unit_test(patches_are_made_as_they_are_needed),
        cmocka_unit_test(limits_are_errors_and_change_nothing),
        cmocka_unit_test(sequences_share_the_kv_pages),
        cmocka_unit_test(the_rules_alone_make_the_same_plan),
    };
    golden_device_read(&argc, argv);
    if (argc != 2) return 2;
    model_dir = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
