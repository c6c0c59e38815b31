#include "engine/sched.h"

#include "base/clock.h"

struct picking {
    struct oc_scheduler *s;
    int n;
    long next;
};

/* One row's choice depends on its own sampler and logits alone, so threads may share them out in any way. */
static void pick_some(void *arg, int thread, int n_threads) {
    struct picking *p = arg;
    (void)thread, (void)n_threads;
    for (;;) {
        long i = __atomic_fetch_add(&p->next, 1, __ATOMIC_RELAXED);
        if (i >= p->n) return;
        struct oc_sched_picked *k = &p->s->picked[i];
        k->ei.code = OC_OK;
        k->ei.code = oc_lm_sample_pick(k->task->sampler, oc_engine_logits(p->s->e, (int)i), NULL, &k->pick, &k->ei);
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

static void hand_on(struct oc_scheduler *s, struct oc_sched_picked *k) {
    struct oc_sched_task *t = k->task;
    if (t->is_ended) return;
    if (k->ei.code != OC_OK) {
        oc_sched_task_end(s, t, OC_SCHED_ERROR, &k->ei);
        return;
    }
    if (!t->is_decoding) begin_decoding(s, t);
    t->last_ns = oc_clock_ns();
    t->last_token = k->pick.token;
    t->done.n_output++;
    s->figures.n_output_tokens++;
    if (is_end_token(t, k->pick.token)) {
        oc_sched_task_end(s, t, OC_SCHED_STOP, NULL);
        return;
    }
    if (s->ev.on_token) s->ev.on_token(s->ev.arg, t->id, &k->pick);
    if (t->done.n_output == t->max_tokens) oc_sched_task_end(s, t, OC_SCHED_LENGTH, NULL);
}

void oc_sched_decode_pick(struct oc_scheduler *s, int n) {
    struct picking p = {.s = s, .n = n};
    if (n > 1) oc_pool_run(s->e->pool, pick_some, &p);
    else pick_some(&p, 0, 1);
    for (int i = 0; i < n; i++) hand_on(s, &s->picked[i]);
}

static int fill_rows(struct oc_scheduler *s) {
    int n = 0;
    for (int i = 0; i < s->n_running; i++) {
        struct oc_sched_task *t = s->running[i];
        if (!t->is_decoding) continue;
        int32_t at = oc_engine_session_next_pos(t->session);
        s->rows[n] = (struct oc_row){.session = t->session,
                                     .slot = t->session->n_tokens,
                                     .pos = {at, at, at},
                                     .role = OC_ROW_DECODE,
                                     .token = t->last_token,
                                     .output = OC_ROW_LOGITS};
        s->picked[n++].task = t;
    }
    return n;
}

static void measure(struct oc_scheduler *s, uint64_t start_ns, int n) {
    uint64_t now_ns = oc_clock_ns();
    double ms = (double)(now_ns - start_ns) / 1e6, *average = &s->costs.decode_ms;
    *average += (*average > 0 ? 0.2 : 1.0) * (ms - *average);
    if (s->last_decode_ns) {
        double tok_s = n * 1e9 / (double)(now_ns - s->last_decode_ns + 1), *speed = &s->figures.decode_tok_s;
        *speed += (*speed > 0 ? 0.1 : 1.0) * (tok_s - *speed);
    }
    s->last_decode_ns = now_ns;
}

void oc_sched_decode_step(struct oc_scheduler *s) {
    struct oc_errinfo ei;
    uint64_t start_ns = oc_clock_ns();
    int n = fill_rows(s);
    OC_ASSERT(n > 0 && n == s->n_decoding);
    oc_sched_beat(s, OC_SCHED_DECODE, s->picked[0].task);
    enum oc_err err = oc_engine_step(s->e, s->rows, n, &ei);
    OC_ASSERT(err == OC_OK); /* tokens and slots are the scheduler's own */
    for (int i = 0; i < n; i++)
        oc_engine_session_commit(s->rows[i].session, &s->rows[i].token, (const int32_t(*)[3]) & s->rows[i].pos, 1);
    oc_sched_decode_pick(s, n);
    measure(s, start_ns, n);
    if (s->n_decoding == 0) s->last_decode_ns = 0;
}
