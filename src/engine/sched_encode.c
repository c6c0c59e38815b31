#include "engine/sched.h"

#include "base/clock.h"
#include "kernels/finite.h"

/* The first picture of a task that the encoder has to do; -1: none. */
static int wanted_picture(const struct oc_sched_task *t) {
    for (int i = 0; i < t->n_pictures && !t->is_ended; i++)
        if (t->pictures[i].embedding && !t->pictures[i].embedding->is_ready) return i;
    return -1;
}

int oc_sched_encode_priority(const struct oc_scheduler *s) {
    int best = OC_SCHED_NO_WORK;
    for (int i = 0; i < s->n_running; i++)
        if (wanted_picture(s->running[i]) >= 0 && s->running[i]->priority < best) best = s->running[i]->priority;
    return best;
}

/* The best task that has a picture to encode, after a look whether the prefix cache has made it needless. */
static struct oc_sched_task *choose(struct oc_scheduler *s) {
    for (;;) {
        struct oc_sched_task *best = NULL;
        for (int i = 0; i < s->n_running; i++) {
            struct oc_sched_task *t = s->running[i];
            if (wanted_picture(t) >= 0 && (!best || oc_sched_before(t, best))) best = t;
        }
        if (!best) return NULL;
        int want = wanted_picture(best);
        oc_sched_task_refresh(s, best);
        if (wanted_picture(best) == want) return best;
    }
}

static bool begin(struct oc_scheduler *s) {
    struct oc_sched_task *t = choose(s);
    if (!t) return false;
    struct oc_sched_view *v = &t->pictures[wanted_picture(t)];
    const struct oc_picture_plan *plan = &v->p.plan;
    v->is_own = true;
    s->encode.task = t;
    s->encode.embedding = v->embedding;
    oc_vision_encoder_begin(&s->encode.pass, &s->e->model->vision, s->e->dev, &s->e->ctx, &s->e->vision_ws, &v->p.patches,
                            plan->grid_t, plan->grid_h, plan->grid_w, v->embedding->rows, s->e->vision_trace);
    if (!t->encode_ns) {
        t->encode_ns = oc_clock_ns();
        if (s->ev.on_stage) s->ev.on_stage(s->ev.arg, t->id, OC_SCHED_ENCODE, t->n_prompt, t->done.n_cached);
    }
    return true;
}

/* Calls fn for each live task and picture whose embedding this is. */
static void for_holders(struct oc_scheduler *s, const struct oc_engine_embedding *e,
                        void (*fn)(struct oc_scheduler *s, struct oc_sched_task *t, int picture)) {
    for (int i = 0; i < s->n_running; i++) {
        struct oc_sched_task *t = s->running[i];
        for (int k = 0; k < t->n_pictures; k++)
            if (t->pictures[k].embedding == e) fn(s, t, k);
    }
}

static void end_not_finite(struct oc_scheduler *s, struct oc_sched_task *t, int picture) {
    struct oc_errinfo ei;
    oc_fail(&ei, OC_ERR_FORMAT, "picture %d encodes to numbers that are not finite: its pixels or the model's weights are damaged",
            picture + 1);
    oc_sched_task_end(s, t, OC_SCHED_ERROR, &ei);
}

/* Numbers that are not finite must not get near the pages that others may share. */
static void finish(struct oc_scheduler *s) {
    struct oc_engine_embedding *e = s->encode.embedding;
    s->encode.embedding = NULL;
    s->encode.task = NULL;
    s->figures.n_image_tokens += (uint64_t)e->n_tokens;
    for_holders(s, e, oc_sched_task_tell_picture);
    e->is_ready = oc_finite_all(e->rows, (int64_t)e->n_tokens * s->e->info.dim);
    if (!e->is_ready) for_holders(s, e, end_not_finite);
}

static const struct oc_sched_task *first_holder(const struct oc_scheduler *s, const struct oc_engine_embedding *e) {
    for (int i = 0; i < s->n_running; i++)
        for (int k = 0; k < s->running[i]->n_pictures; k++)
            if (s->running[i]->pictures[k].embedding == e) return s->running[i];
    OC_ASSERT(!"a pass for nobody");
    return NULL;
}

void oc_sched_encode_slice(struct oc_scheduler *s) {
    struct oc_sched_encode *en = &s->encode;
    struct oc_vision_piece next;
    if (!en->embedding && !begin(s)) return;
    oc_sched_beat(s, OC_SCHED_ENCODE, first_holder(s, en->embedding));
    struct oc_sched_slice slice;
    oc_sched_slice_begin(s, &slice, s->costs.vision);
    bool go_on = true;
    while (go_on && oc_vision_encoder_next(&en->pass, &next)) {
        int64_t before = en->pass.row;
        int rows = oc_sched_slice_rows(s, &slice, next.stage, next.macs_per_row, (int)next.n_rows);
        oc_vision_encoder_step(&en->pass, rows);
        int64_t done = en->pass.stage == next.stage && en->pass.row > before ? en->pass.row - before : next.n_rows;
        oc_sched_slice_did(s, &slice, next.stage, next.macs_per_row, (int)done);
        if (en->task && en->pass.stage > OC_VISION_EMBED) {
            en->task = NULL;
            for_holders(s, en->embedding, oc_sched_task_tell_picture);
        }
        go_on = oc_vision_encoder_next(&en->pass, &next) &&
                oc_sched_slice_fits(s, &slice, next.stage, next.macs_per_row, (int)next.n_rows);
    }
    oc_sched_slice_end(s, &slice);
    if (en->pass.stage == OC_VISION_N_STAGES) finish(s);
}

void oc_sched_encode_leave(struct oc_scheduler *s, const struct oc_sched_task *t, const struct oc_engine_embedding *e) {
    if (s->encode.embedding != e || (s->encode.task != t && e->n_holders > 1)) return;
    s->encode.embedding = NULL;
    s->encode.task = NULL;
}
