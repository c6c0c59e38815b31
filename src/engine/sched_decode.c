#include "engine/sched.h"

#include "base/clock.h"

/* ---- Picking ---------------------------------------------------------------------------------------------- */

struct picking {
    struct oc_scheduler *s;
    int n;
    long next;
};

/* Token by token, as without drafts, as long as each is the one that the next row was run with. So the sampler sees what
 * is said and nothing else. */
static void pick_turn(struct oc_scheduler *s, struct oc_sched_turn *t) {
    const struct oc_sched_hook *hook = &s->hook;
    t->n_picked = 0;
    for (int i = t->first;; i++) {
        struct oc_lm_sample_pick *pick = &s->picks[i];
        t->n_kept = i - t->first + 1;
        t->ei.code = OC_OK;
        t->ei.code = oc_lm_sample_pick(t->task->sampler, oc_engine_logits(s->e, i), NULL, pick, &t->ei);
        if (t->ei.code != OC_OK) return;
        if (hook->token) pick->token = hook->token(hook->arg, t->task, t->task->done.n_output + t->n_picked, pick->token);
        t->n_picked++;
        if (i == t->first + t->n_drafted || pick->token != s->rows[i + 1].token) return;
    }
}

/* A task's choice depends on its own sampler and logits alone, so threads may share them out in any way. */
static void pick_some(void *arg, int thread, int n_threads) {
    struct picking *p = arg;
    (void)thread, (void)n_threads;
    for (;;) {
        long i = __atomic_fetch_add(&p->next, 1, __ATOMIC_RELAXED);
        if (i >= p->n) return;
        pick_turn(p->s, &p->s->turns[i]);
    }
}

static bool is_end_token(const struct oc_sched_task *t, int32_t token) {
    for (int i = 0; i < t->n_eos; i++)
        if (t->eos[i] == token) return true;
    return false;
}

static void begin_decoding(struct oc_scheduler *s, struct oc_sched_task *t) {
    t->first_ns = oc_clock_ns();
    t->is_decoding = true;
    s->n_decoding++;
    if (s->ev.on_stage) s->ev.on_stage(s->ev.arg, t->id, OC_SCHED_DECODE, t->n_prompt, t->done.n_cached);
}

static void hand_on_token(struct oc_scheduler *s, struct oc_sched_task *t, const struct oc_lm_sample_pick *pick) {
    if (!t->is_decoding) begin_decoding(s, t);
    t->last_ns = oc_clock_ns();
    t->last_token = pick->token;
    t->done.n_output++;
    s->figures.n_output_tokens++;
    if (is_end_token(t, pick->token)) {
        oc_sched_task_end(s, t, OC_SCHED_STOP, NULL);
        return;
    }
    if (t->ngram.tokens) oc_engine_ngram_push(&t->ngram, pick->token);
    if (s->ev.on_token) s->ev.on_token(s->ev.arg, t->id, pick);
    if (t->done.n_output == t->max_tokens) oc_sched_task_end(s, t, OC_SCHED_LENGTH, NULL);
}

static void hand_on(struct oc_scheduler *s, const struct oc_sched_turn *turn) {
    struct oc_sched_task *t = turn->task;
    for (int i = 0; i < turn->n_picked && !t->is_ended; i++) hand_on_token(s, t, &s->picks[turn->first + i]);
    if (turn->ei.code != OC_OK) oc_sched_task_end(s, t, OC_SCHED_ERROR, &turn->ei);
}

static void pick_all(struct oc_scheduler *s, int n) {
    struct picking p = {.s = s, .n = n};
    if (n > 1) oc_pool_run(s->e->pool, pick_some, &p);
    else pick_some(&p, 0, 1);
}

void oc_sched_decode_pick(struct oc_scheduler *s, int n) {
    pick_all(s, n);
    for (int i = 0; i < n; i++) hand_on(s, &s->turns[i]);
}

/* ---- Rows ------------------------------------------------------------------------------------------------- */

/* What may follow the token that a task runs next. The answer's last token needs no row. */
static void draft(const struct oc_scheduler *s, const struct oc_sched_task *t, int most, struct oc_engine_draft *d) {
    int left = t->max_tokens - t->done.n_output - 1;
    if (most > left) most = left;
    if (s->hook.draft) d->n = s->hook.draft(s->hook.arg, t, d->tokens, most);
    else d->n = oc_engine_ngram_draft(&t->ngram, most, d->tokens, d->odds);
    oc_engine_speculate_cut(d, t->eos, t->n_eos);
}

static void choose_drafts(struct oc_scheduler *s, int n) {
    int left = OC_ENGINE_DRAFT_ROWS; /* of drafts that a test gives */
    bool is_on = s->hook.draft || (s->p.speculate && n <= OC_ENGINE_DRAFT_SEQUENCES);
    for (int i = 0; i < n; i++) {
        s->drafts[i].n = 0;
        if (is_on) draft(s, s->turns[i].task, left, &s->drafts[i]);
        if (s->hook.draft) left -= s->drafts[i].n;
    }
    if (is_on && !s->hook.draft) oc_engine_speculate_choose(&s->speculation, s->drafts, n);
}

/* The rows of n turns; returns how many. */
static int fill_rows(struct oc_scheduler *s, int n) {
    int n_rows = 0;
    for (int i = 0; i < n; i++) {
        struct oc_sched_turn *turn = &s->turns[i];
        struct oc_sched_task *t = turn->task;
        const struct oc_engine_draft *d = &s->drafts[i];
        turn->first = n_rows;
        turn->n_drafted = d->n;
        s->rows[n_rows++] = oc_engine_session_row(t->session, 0, t->last_token);
        for (int k = 0; k < d->n; k++) s->rows[n_rows++] = oc_engine_session_row(t->session, k + 1, d->tokens[k]);
        s->figures.n_drafts += d->n > 0;
        s->figures.n_drafted += (uint64_t)d->n;
    }
    return n_rows;
}

/* The KV of other rows is in slots that are written again before anything reads them. */
static void commit(struct oc_scheduler *s, const struct oc_sched_turn *turn) {
    for (int i = turn->first; i < turn->first + turn->n_kept; i++)
        oc_engine_session_commit(turn->task->session, &s->rows[i].token, (const int32_t(*)[3]) & s->rows[i].pos, 1);
    s->figures.n_accepted += (uint64_t)turn->n_kept - 1;
}

/* ---- A step ----------------------------------------------------------------------------------------------- */

static void measure(struct oc_scheduler *s, uint64_t start_ns, uint64_t n_tokens) {
    uint64_t now_ns = oc_clock_ns();
    double ms = (double)(now_ns - start_ns) / 1e6, *average = &s->costs.decode_ms;
    *average += (*average > 0 ? 0.2 : 1.0) * (ms - *average);
    if (s->last_decode_ns) {
        double tok_s = (double)n_tokens * 1e9 / (double)(now_ns - s->last_decode_ns + 1), *speed = &s->figures.decode_tok_s;
        *speed += (*speed > 0 ? 0.1 : 1.0) * (tok_s - *speed);
    }
    s->last_decode_ns = now_ns;
}

static int fill_turns(struct oc_scheduler *s) {
    int n = 0;
    for (int i = 0; i < s->n_running; i++)
        if (s->running[i]->is_decoding) s->turns[n++] = (struct oc_sched_turn){.task = s->running[i]};
    return n;
}

void oc_sched_decode_step(struct oc_scheduler *s) {
    struct oc_errinfo ei;
    uint64_t start_ns = oc_clock_ns(), n_before = s->figures.n_output_tokens;
    int n = fill_turns(s);
    OC_ASSERT(n > 0 && n == s->n_decoding);
    oc_sched_beat(s, OC_SCHED_DECODE, s->turns[0].task);
    choose_drafts(s, n);
    int n_rows = fill_rows(s, n);
    uint64_t forward_ns = oc_clock_ns();
    enum oc_err err = oc_engine_step(s->e, s->rows, n_rows, &ei);
    OC_ASSERT(err == OC_OK); /* tokens and slots are the scheduler's own */
    oc_engine_speculate_learn(&s->speculation, n, n_rows - n, oc_clock_ms_since(forward_ns));
    pick_all(s, n);
    for (int i = 0; i < n; i++) commit(s, &s->turns[i]);
    for (int i = 0; i < n; i++) hand_on(s, &s->turns[i]);
    measure(s, start_ns, s->figures.n_output_tokens - n_before);
    if (s->n_decoding == 0) s->last_decode_ns = 0;
}
