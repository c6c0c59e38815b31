#include "engine/sched.h"

#include <string.h>

#include "base/clock.h"

/* ---- Whose turn it is ------------------------------------------------------------------------------------- */

/* Its prompt is not done and nothing stands in its way. */
static bool is_ready(const struct oc_sched_task *t) {
    if (t->is_ended || t->in_pass || t->session->n_tokens >= t->n_prompt) return false;
    for (int i = 0; i < t->n_pictures; i++)
        if (t->pictures[i].embedding && !t->pictures[i].embedding->is_ready) return false;
    return true;
}

static int rows_left(const struct oc_sched_task *t) {
    return t->n_prompt - t->session->n_tokens;
}

int oc_sched_prefill_priority(const struct oc_scheduler *s) {
    int best = OC_SCHED_NO_WORK;
    for (int i = 0; i < s->n_running; i++) {
        const struct oc_sched_task *t = s->running[i];
        if ((t->in_pass || is_ready(t)) && t->priority < best) best = t->priority;
    }
    return best;
}

/* Whether a task of this chunk makes the very page that t would make next: t had better wait for it. */
static bool is_made(const struct oc_scheduler *s, const struct oc_sched_task *t) {
    int page = t->session->n_tokens / OC_LM_PAGE_TOKENS;
    if (t->session->n_tokens % OC_LM_PAGE_TOKENS || page >= t->n_keys || !s->p.prefix_cache) return false;
    for (int i = 0; i < s->prefill.n_parts; i++) {
        const struct oc_sched_task *o = s->prefill.parts[i].task;
        int first = o->session->n_tokens / OC_LM_PAGE_TOKENS;
        int end = (o->session->n_tokens + s->prefill.parts[i].n) / OC_LM_PAGE_TOKENS;
        if (page >= first && page < end && page < o->n_keys && memcmp(&o->keys[page], &t->keys[page], sizeof t->keys[page]) == 0) return true;
    }
    return false;
}

/* The first by priority and order; but one whose prompt is much shorter may pass it a bounded number of times. */
static struct oc_sched_task *choose(const struct oc_scheduler *s) {
    struct oc_sched_task *first = NULL, *quick;
    for (int i = 0; i < s->n_running; i++) {
        struct oc_sched_task *t = s->running[i];
        if (is_ready(t) && !is_made(s, t) && (!first || oc_sched_before(t, first))) first = t;
    }
    quick = first;
    for (int i = 0; first && first->n_passed < OC_SCHED_MAX_OVERTAKES && i < s->n_running; i++) {
        struct oc_sched_task *t = s->running[i];
        if (!is_ready(t) || is_made(s, t) || t->priority != first->priority || 4 * rows_left(t) > rows_left(first)) continue;
        if (rows_left(t) < rows_left(quick)) quick = t;
    }
    if (quick != first) first->n_passed++;
    return quick;
}

/* ---- Making a chunk --------------------------------------------------------------------------------------- */

/* The embedding row of a slot that a picture covers, else NULL. */
static const float *embedding_at(const struct oc_scheduler *s, const struct oc_sched_task *t, int slot) {
    if (t->tokens[slot] != s->e->info.image_token) return NULL;
    for (int i = 0; i < t->n_pictures; i++) {
        const struct oc_sched_view *v = &t->pictures[i];
        if (slot >= v->from && slot < v->from + v->p.plan.n_tokens) return v->embedding->rows + (int64_t)(slot - v->from) * s->e->info.dim;
    }
    OC_ASSERT(!"a placeholder without a picture");
    return NULL;
}

static void begin_task(struct oc_scheduler *s, struct oc_sched_task *t) {
    t->prefill_ns = oc_clock_ns();
    if (s->ev.on_stage) s->ev.on_stage(s->ev.arg, t->id, OC_SCHED_PREFILL, t->n_prompt, t->done.n_cached);
}

static void add_rows(struct oc_scheduler *s, struct oc_sched_task *t, int n) {
    struct oc_sched_prefill *c = &s->prefill;
    struct oc_session *q = t->session;
    c->parts[c->n_parts++] = (struct oc_sched_part){t, c->n_rows, n};
    t->in_pass = true;
    for (int i = 0; i < n; i++) {
        int slot = q->n_tokens + i, r = c->n_rows++;
        OC_ASSERT(s->e->kv.n_holders[q->pages[slot / OC_LM_PAGE_TOKENS]] == 1); /* a shared page is read only */
        c->tokens[r] = t->tokens[slot];
        c->embeddings[r] = embedding_at(s, t, slot);
        memcpy(c->pos[r], q->pos[slot], sizeof c->pos[r]);
        c->kv_rows[r] = (struct oc_kv_row){.pages = q->pages, .slot = slot, .role = OC_ROLE_P};
        if (slot == t->n_prompt - 1) c->outputs[c->n_outputs++] = r;
    }
    if (!t->prefill_ns) begin_task(s, t);
}

static int shared_rows(const struct oc_scheduler *s) {
    double row_ms = s->costs.prefill_row_ms;
    if (s->e->dev->is_host || OC_SCHED_SHARED_MS < OC_SCHED_SHARED_ROWS * row_ms) return OC_SCHED_SHARED_ROWS;
    return OC_SCHED_SHARED_MS < OC_ENGINE_CHUNK_ROWS * row_ms ? (int)(OC_SCHED_SHARED_MS / row_ms) : OC_ENGINE_CHUNK_ROWS;
}

/* A chunk of few rows takes about as long as one of many on a device, so it tells nothing. */
static void learn_row_ms(struct oc_scheduler *s) {
    double now = s->prefill.ms / s->prefill.n_rows, *row_ms = &s->costs.prefill_row_ms;
    if (2 * s->prefill.n_rows < shared_rows(s)) return;
    *row_ms = *row_ms > 0 ? (*row_ms + now) / 2 : now;
}

static int chunk_rows(const struct oc_scheduler *s, int left) {
    bool shared = s->n_decoding > 0 || s->n_running > 1 || s->waiting;
    int most = shared ? shared_rows(s) : OC_ENGINE_CHUNK_ROWS, n = left < most ? left : most;
    return s->hook.rows ? s->hook.rows(s->hook.arg, n) : n;
}

/* Rows of one prompt, and while they are few of the next ones: weights are turned to panels once for all. */
static bool begin(struct oc_scheduler *s) {
    struct oc_sched_prefill *c = &s->prefill;
    struct oc_sched_task *t;
    c->n_parts = c->n_rows = c->n_outputs = 0;
    c->ms = 0;
    while (c->n_rows < OC_SCHED_FILL_ROWS && (t = choose(s))) {
        oc_sched_task_refresh(s, t);
        int most = c->n_rows ? OC_SCHED_FILL_ROWS - c->n_rows : OC_ENGINE_CHUNK_ROWS, n = chunk_rows(s, rows_left(t));
        add_rows(s, t, n < most ? n : most);
    }
    if (c->n_rows == 0) return false;
    const struct oc_lm_batch batch = {
        .n_rows = c->n_rows,
        .tokens = c->tokens,
        .embeddings = c->embeddings,
        .pos = (const int32_t(*)[3])c->pos,
        .kv_rows = c->kv_rows,
        .outputs = c->outputs,
        .n_outputs = c->n_outputs,
        .logits = s->e->logits,
    };
    oc_lm_decoder_begin(&c->pass, &s->e->model->lm, s->e->dev, &s->e->ctx, &s->e->kv, &c->ws, &batch, s->e->lm_trace);
    c->is_on = true;
    return true;
}

/* ---- Its end ---------------------------------------------------------------------------------------------- */

static void finish_part(struct oc_scheduler *s, const struct oc_sched_part *p) {
    struct oc_sched_task *t = p->task;
    struct oc_session *q = t->session;
    struct oc_errinfo ei;
    t->in_pass = false;
    if (t->is_ended) return;
    int from = q->n_tokens / OC_LM_PAGE_TOKENS;
    oc_engine_session_commit(q, t->tokens + q->n_tokens, (const int32_t(*)[3])(q->pos + q->n_tokens), p->n);
    s->figures.n_prompt_tokens += (uint64_t)p->n;
    if (!oc_lm_decoder_is_finite(&s->prefill.pass, p->at, p->n)) {
        oc_fail(&ei, OC_ERR_FORMAT, "the model's numbers are not finite: its weights may be damaged");
        oc_sched_task_end(s, t, OC_SCHED_ERROR, &ei);
        return;
    }
    for (int i = from; i < q->n_tokens / OC_LM_PAGE_TOKENS && i < t->n_keys; i++)
        oc_engine_prefix_cache_enter(&s->prefix, &t->keys[i], q->pages[i]);
    oc_sched_task_pass_pictures(s, t, q->n_tokens);
}

static void finish(struct oc_scheduler *s) {
    struct oc_sched_prefill *c = &s->prefill;
    int n = 0;
    c->is_on = false;
    learn_row_ms(s);
    for (int i = 0; i < c->n_parts; i++) {
        const struct oc_sched_part *p = &c->parts[i];
        bool has_output = p->task->session->n_tokens + p->n == p->task->n_prompt;
        finish_part(s, p);
        if (has_output) s->turns[n] = (struct oc_sched_turn){.task = p->task, .first = n}, n++; /* outputs come in the order of parts */
    }
    OC_ASSERT(n == c->n_outputs);
    if (n) oc_sched_decode_pick(s, n);
}

void oc_sched_prefill_tidy(struct oc_scheduler *s) {
    struct oc_sched_prefill *c = &s->prefill;
    if (!c->is_on) return;
    for (int i = 0; i < c->n_parts; i++)
        if (!c->parts[i].task->is_ended) return;
    for (int i = 0; i < c->n_parts; i++) c->parts[i].task->in_pass = false;
    c->is_on = false;
}

void oc_sched_prefill_slice(struct oc_scheduler *s) {
    struct oc_sched_prefill *c = &s->prefill;
    struct oc_lm_piece next;
    if (!c->is_on && !begin(s)) return;
    oc_sched_beat(s, OC_SCHED_PREFILL, c->parts[0].task);
    struct oc_sched_slice slice;
    oc_sched_slice_begin(s, &slice, s->costs.lm);
    bool go_on = true;
    while (go_on && oc_lm_decoder_next(&c->pass, &next)) {
        bool is_head = next.stage == OC_LM_HEAD; /* reads all its weights, be it for one output or for all */
        int rows = is_head ? next.n_rows : oc_sched_slice_rows(s, &slice, next.stage, next.macs_per_row, next.n_rows);
        oc_lm_decoder_step(&c->pass, rows);
        oc_sched_slice_did(s, &slice, next.stage, next.macs_per_row, is_head ? 1 : rows);
        go_on = oc_lm_decoder_next(&c->pass, &next) &&
                oc_sched_slice_fits(s, &slice, next.stage, next.macs_per_row, next.stage == OC_LM_HEAD ? 1 : next.n_rows);
    }
    c->ms += oc_sched_slice_end(s, &slice);
    if (c->pass.stage == OC_LM_N_STAGES) finish(s);
}
