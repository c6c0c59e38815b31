#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "golden_device.h"
#include "sched_world.h"

uint64_t draw(uint64_t *rng) {
    uint64_t z = (*rng += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

int draw_int(uint64_t *rng, int lo, int hi) {
    return lo + (int)(draw(rng) % (uint64_t)(hi - lo + 1));
}

/* ---- The world -------------------------------------------------------------------------------------------- */

static void make_picture(struct world *w, int i) {
    static const int sizes[N_PICTURES][2] = {{90, 60}, {200, 130}, {60, 300}, {260, 260}, {56, 56}};
    struct picture_case *p = &w->pictures[i];
    uint64_t rng = (uint64_t)i + 77;
    assert_int_equal(oc_engine_plan_picture(w->e, sizes[i][0], sizes[i][1], NULL, &p->plan, NULL), OC_OK);
    int64_t n = (int64_t)p->plan.n_patches * p->plan.patch_dim;
    p->patches = malloc((size_t)n * sizeof(float));
    p->embedding = malloc((size_t)p->plan.n_tokens * (size_t)w->e->info.dim * sizeof(float));
    assert_true(p->patches && p->embedding);
    for (int64_t k = 0; k < n; k++) p->patches[k] = (float)draw_int(&rng, -1000, 1000) / 700.0f;
    assert_int_equal(oc_engine_encode_picture(w->e, &p->plan, p->patches, p->embedding, NULL), OC_OK);
}

void world_open(struct world *w, const char *model_dir, int n_sessions, int kv_tokens) {
    struct oc_errinfo ei;
    *w = (struct world){.rng = 1};
    struct oc_engine_params p = {.model_dir = model_dir, .ctx_tokens = CTX, .kv_tokens = kv_tokens, .n_sessions = n_sessions,
                                 .image_max_tokens = 80, .n_threads = n_sessions == 8 ? 2 : 1}; /* threads change nothing: check_engine, and the test of 8 */
    golden_device_set(&p);
    if (oc_engine_open(&p, &w->e, &ei) != OC_OK) fail_msg("%s", ei.msg);
    for (int i = 0; i < N_PICTURES && w->e->info.has_vision; i++) make_picture(w, i);
}

void world_close(struct world *w) {
    world_stop(w);
    for (int i = 0; i < N_PICTURES; i++) {
        free(w->pictures[i].patches);
        free(w->pictures[i].embedding);
    }
    free(w->cases);
    oc_engine_close(w->e);
}

/* ---- Cases ------------------------------------------------------------------------------------------------ */

static void draw_sampling(struct job_case *c, uint64_t *rng) {
    c->job.sample = oc_lm_sample_defaults();
    c->job.sample.n_logprobs = draw_int(rng, 0, 3);
    if (draw_int(rng, 0, 2) == 0) return;
    c->job.sample.temperature = (float)draw_int(rng, 5, 15) / 10.0f;
    c->job.sample.top_p = (float)draw_int(rng, 5, 10) / 10.0f;
    c->job.sample.top_k = draw_int(rng, 0, 30);
    c->job.sample.seed = draw(rng);
    if (draw_int(rng, 0, 1)) c->job.sample.presence_penalty = 0.5f, c->job.sample.repetition_penalty = 1.2f;
}

static void add_text(struct job_case *c, uint64_t *rng, int n) {
    for (int i = 0; i < n; i++) c->tokens[c->job.n_tokens++] = draw_int(rng, 0, 499);
}

static void make_patches(void *arg, int from, int to, float *out) {
    const struct picture_case *p = arg;
    const size_t dim = (size_t)p->plan.patch_dim;
    memcpy(out, p->patches + (size_t)from * dim, (size_t)(to - from) * dim * sizeof *out);
}

struct oc_vision_patches world_patches(struct world *w, int id) {
    if (id % 2) return (struct oc_vision_patches){.make = make_patches, .arg = &w->pictures[id]};
    return (struct oc_vision_patches){.all = w->pictures[id].patches};
}

static void add_picture(struct world *w, struct job_case *c, int id) {
    struct oc_sched_picture *p = &c->pictures[c->job.n_pictures];
    c->picture_ids[c->job.n_pictures++] = id;
    *p = (struct oc_sched_picture){.plan = w->pictures[id].plan, .patches = world_patches(w, id)};
    if (id != N_PICTURES - 1) memset(p->digest, id + 1, sizeof p->digest); /* the last one is never shared */
    c->tokens[c->job.n_tokens++] = w->e->info.image_token;
}

void world_make_case(struct world *w, struct job_case *c, int i, uint64_t seed, bool want) {
    uint64_t rng = seed * 1000003 + (uint64_t)i, common = seed + (uint64_t)draw_int(&rng, 0, 1);
    *c = (struct job_case){.job = {.id = (uint64_t)i + 1, .tokens = c->tokens, .pictures = c->pictures, .eos = &c->eos, .n_eos = 1}};
    if (draw_int(&rng, 0, 1)) add_text(c, &common, draw_int(&common, 20, 50)); /* some begin alike */
    int n_pictures = draw_int(&rng, -1, 2);
    for (int k = w->e->info.has_vision ? n_pictures : 0; k > 0; k--) {
        add_picture(w, c, draw_int(&rng, 0, N_PICTURES - 1));
        add_text(c, &rng, draw_int(&rng, 0, 5));
    }
    add_text(c, &rng, draw_int(&rng, 1, 60));
    draw_sampling(c, &rng);
    c->eos = draw_int(&rng, 0, 499);
    c->job.max_tokens = draw_int(&rng, 1, 24);
    c->job.priority = draw_int(&rng, 0, 2);
    c->last_stage = -1;
    if (want) world_answer_alone(w, c);
}

void world_make_cases(struct world *w, int n, uint64_t seed, bool want) {
    free(w->cases);
    w->cases = calloc((size_t)n, sizeof *w->cases);
    assert_non_null(w->cases);
    w->n_cases = n;
    w->n_finished = 0;
    for (int i = 0; i < n; i++) world_make_case(w, &w->cases[i], i, seed, want);
}

/* Runs an opened session to its end. */
static void answer(struct job_case *c, struct oc_session *q, struct oc_lm_sampler *sampler) {
    struct oc_lm_sample_pick pick;
    c->want.finish = OC_SCHED_LENGTH;
    for (int n = 0; n < c->job.max_tokens; n++) {
        assert_int_equal(oc_lm_sample_pick(sampler, oc_session_logits(q), NULL, &pick, NULL), OC_OK);
        if (pick.token == c->eos) {
            c->want.finish = OC_SCHED_STOP;
            return;
        }
        c->want.tokens[c->want.n] = pick.token;
        c->want.logprobs[c->want.n++] = pick.logprob;
        if (n + 1 < c->job.max_tokens) assert_int_equal(oc_session_decode(q, pick.token, NULL), OC_OK);
    }
}

void world_answer_alone(struct world *w, struct job_case *c) {
    struct oc_prompt_picture pictures[MAX_PICTURES];
    struct oc_picture_plan plans[MAX_PICTURES];
    int32_t tokens[CTX];
    struct oc_session *q;
    struct oc_lm_sampler *sampler;
    for (int i = 0; i < c->job.n_pictures; i++) {
        plans[i] = c->pictures[i].plan;
        pictures[i] = (struct oc_prompt_picture){plans[i], w->pictures[c->picture_ids[i]].embedding};
    }
    struct oc_prompt prompt = {.tokens = tokens, .pictures = pictures, .n_pictures = c->job.n_pictures};
    assert_int_equal(oc_prompt_expand(w->e, c->tokens, c->job.n_tokens, plans, c->job.n_pictures, tokens, CTX, &prompt.n_tokens, NULL), OC_OK);
    assert_int_equal(oc_session_open(w->e, prompt.n_tokens + c->job.max_tokens, &q, NULL), OC_OK);
    assert_int_equal(oc_lm_sample_open(&c->job.sample, w->e->info.n_vocab, &sampler, NULL), OC_OK);
    oc_lm_sample_prompt(sampler, tokens, prompt.n_tokens);
    assert_int_equal(oc_session_prefill(q, &prompt, NULL, NULL, NULL), OC_OK);
    answer(c, q, sampler);
    oc_lm_sample_close(sampler);
    oc_session_close(q);
}

/* ---- Events ----------------------------------------------------------------------------------------------- */

struct job_case *world_case(struct world *w, uint64_t id) {
    assert_true(id >= 1 && id <= (uint64_t)w->n_cases);
    return &w->cases[id - 1];
}

static void on_stage(void *arg, uint64_t id, enum oc_sched_stage stage, int n_prompt, int n_cached) {
    struct job_case *c = world_case(arg, id);
    assert_true((int)stage > c->last_stage && c->n_done == 0);
    assert_true(n_cached >= 0 && n_cached < n_prompt && n_cached % OC_LM_PAGE_TOKENS == 0);
    c->last_stage = (int)stage;
}

static void on_picture(void *arg, uint64_t id, int picture) {
    struct job_case *c = world_case(arg, id);
    assert_true(picture >= 0 && picture < c->job.n_pictures && c->n_done == 0);
    c->n_told[picture]++;
}

static void on_token(void *arg, uint64_t id, const struct oc_lm_sample_pick *pick) {
    struct world *w = arg;
    struct job_case *c = world_case(w, id);
    assert_true(c->n_done == 0 && c->got.n < MAX_ANSWER && c->last_stage == OC_SCHED_DECODE);
    c->got.tokens[c->got.n] = pick->token;
    c->got.logprobs[c->got.n++] = pick->logprob;
    if (w->cancel_on_token != id || c->got.n < w->cancel_at) return;
    w->cancel_on_token = 0;
    oc_scheduler_cancel(w->s, id);
}

static void on_done(void *arg, uint64_t id, const struct oc_sched_done *done) {
    struct world *w = arg;
    struct job_case *c = world_case(w, id);
    c->n_done++;
    c->done = *done;
    c->got.finish = done->finish;
    if (w->n_finished < 64) w->order[w->n_finished] = id;
    w->n_finished++;
}

void world_start(struct world *w, bool prefix_cache, size_t embed_cache_bytes) {
    struct oc_errinfo ei;
    struct oc_sched_params p = {.embed_cache_bytes = embed_cache_bytes, .prefix_cache = prefix_cache, .speculate = w->speculate};
    struct oc_sched_events ev = {w, on_stage, on_picture, on_token, on_done, NULL};
    if (oc_scheduler_open(w->e, &p, &ev, &w->s, &ei) != OC_OK) fail_msg("%s", ei.msg);
}

void world_stop(struct world *w) {
    oc_scheduler_close(w->s);
    w->s = NULL;
    assert_int_equal(w->e->kv.n_free, w->e->kv.n_pages); /* caches have given back everything */
}

void world_forget(struct world *w) {
    for (int i = 0; i < w->n_cases; i++) {
        struct job_case *c = &w->cases[i];
        c->got = (struct answer){.n = 0};
        c->n_done = 0;
        c->last_stage = -1;
        c->is_added = false;
        memset(c->n_told, 0, sizeof c->n_told);
    }
    w->n_finished = 0;
}

/* ---- Running ---------------------------------------------------------------------------------------------- */

void world_add(struct world *w, struct job_case *c) {
    struct oc_errinfo ei;
    if (oc_scheduler_add(w->s, &c->job, &ei) != OC_OK) fail_msg("%s", ei.msg);
    c->is_added = true;
}

static bool step(struct world *w) {
    bool more = oc_scheduler_step(w->s);
    if (w->s->embeds.idle_bytes > w->most_idle_bytes) w->most_idle_bytes = w->s->embeds.idle_bytes;
    return more;
}

void world_finish(struct world *w, int most) {
    for (int i = 0; step(w); i++) assert_true(i < most);
}

void world_run(struct world *w) {
    int next = 0, n_steps = 0;
    while (next < w->n_cases) {
        for (int n = draw_int(&w->rng, 0, 3); n > 0 && next < w->n_cases; n--) world_add(w, &w->cases[next++]);
        for (int n = draw_int(&w->rng, 1, 6); n > 0; n--) step(w);
        assert_true(n_steps++ < 100000);
    }
    world_finish(w, 1000000);
}

void world_check(const struct world *w) {
    for (int i = 0; i < w->n_cases; i++) {
        const struct job_case *c = &w->cases[i];
        assert_int_equal(c->n_done, 1);
        if (c->got.finish == OC_SCHED_ERROR) fail_msg("job %d: %s", i, c->done.error.msg);
        assert_int_equal(c->got.finish, c->want.finish);
        assert_int_equal(c->got.n, c->want.n);
        assert_memory_equal(c->got.tokens, c->want.tokens, (size_t)c->want.n * sizeof *c->want.tokens);
        assert_memory_equal(c->got.logprobs, c->want.logprobs, (size_t)c->want.n * sizeof *c->want.logprobs);
        assert_int_equal(c->done.n_output, c->got.n + (c->got.finish == OC_SCHED_STOP));
        for (int k = 0; k < c->job.n_pictures; k++) assert_int_equal(c->n_told[k], 1);
    }
}

void world_check_empty(const struct world *w) {
    struct oc_sched_figures f;
    oc_scheduler_figures(w->s, &f);
    assert_int_equal(f.n_running, 0);
    assert_int_equal(f.n_waiting, 0);
    assert_int_equal(f.kv_pages_used, 0);
    assert_int_equal(w->s->embeds.held_bytes, 0);
    for (int i = 0; i < w->e->n_sessions; i++) assert_null(w->e->sessions[i].engine);
}

static int random_rows(void *arg, int max) {
    struct world *w = arg;
    int n = draw_int(&w->rng, 0, 3) ? draw_int(&w->rng, 1, 40) : max;
    return n < max ? n : max;
}

/* The i-th token of the answer alone, its end token among them; what would come later is made up. */
static int32_t wanted(struct world *w, const struct job_case *c, int i) {
    if (i < c->want.n) return c->want.tokens[i];
    return i == c->want.n && c->want.finish == OC_SCHED_STOP ? c->eos : draw_int(&w->rng, 0, 499);
}

static int own_drafts(void *arg, const struct oc_sched_task *t, int32_t *out, int max) {
    float odds[OC_ENGINE_DRAFT_ROWS];
    (void)arg;
    return oc_engine_ngram_draft(&t->ngram, max, out, odds);
}

static int right_drafts(void *arg, const struct oc_sched_task *t, int32_t *out, int max) {
    for (int i = 0; i < max; i++) out[i] = wanted(arg, world_case(arg, t->id), t->done.n_output + i);
    return max > 0 ? max : 0;
}

static int random_drafts(void *arg, const struct oc_sched_task *t, int32_t *out, int max) {
    struct world *w = arg;
    int n = draw_int(&w->rng, 0, right_drafts(arg, t, out, max)), n_right = draw_int(&w->rng, 0, n);
    for (int i = n_right; i < n; i++) out[i] = draw_int(&w->rng, 0, 499);
    return n;
}

void world_draft(struct world *w, enum world_drafts drafts) {
    w->s->hook.arg = w;
    w->s->hook.draft = drafts == WORLD_DRAFTS_OWN ? own_drafts : drafts == WORLD_DRAFTS_RIGHT ? right_drafts : random_drafts;
}

void world_random_slices(struct world *w) {
    w->s->hook.arg = w;
    w->s->hook.rows = random_rows;
}
