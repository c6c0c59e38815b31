#include "engine/sched.h"

#include "base/clock.h"

/* A piece takes a + b * rows: the weights become panels once, whatever the rows. Dividing its time by its rows alone makes
 * the rows of the next pieces go to (budget - a) / b, which is what fits; so one figure for each stage is enough. */

_Static_assert(OC_LM_N_STAGES <= OC_SCHED_MAX_STAGES && OC_VISION_N_STAGES <= OC_SCHED_MAX_STAGES, "a slice has room for all stages");

double oc_sched_cost_budget_ms(const struct oc_scheduler *s) {
    if (s->n_decoding == 0) return OC_SCHED_ALONE_MS;
    double ms = OC_SCHED_MARGIN * (OC_SCHED_ITL_FACTOR - 1) * s->costs.decode_ms;
    return s->e->dev->is_host || ms > OC_SCHED_DEVICE_MS ? ms : OC_SCHED_DEVICE_MS;
}

/* What was first measured may have been another kind of moment: memory touched for the first time, a kernel that was loaded, a
 * clock that had gone down. A device then needs many slices of too few rows until the average has forgotten it. */
void oc_sched_cost_learn(double *cost, double macs, double ms) {
    double now = ms / (macs * 1e-6);
    if (*cost <= 0) *cost = now;
    else if (now < *cost / 2) *cost = now * 2;
    else *cost += (now > *cost ? 0.5 : 0.2) * (now - *cost);
}

/* ---- Slices ----------------------------------------------------------------------------------------------- */

static double piece_ms(double cost, double macs) {
    return cost * macs * 1e-6;
}

void oc_sched_slice_begin(const struct oc_scheduler *s, struct oc_sched_slice *l, double *costs) {
    *l = (struct oc_sched_slice){.costs = costs, .left_ms = oc_sched_cost_budget_ms(s), .start_ns = oc_clock_ns()};
}

void oc_sched_slice_settle(struct oc_sched_slice *l, double ms) {
    double all = 0;
    for (int i = 0; i < OC_SCHED_MAX_STAGES; i++)
        if (l->macs[i] > 0) all += piece_ms(l->costs[i], l->macs[i]);
    for (int i = 0; i < OC_SCHED_MAX_STAGES; i++) {
        if (l->macs[i] <= 0) continue;
        oc_sched_cost_learn(&l->costs[i], l->macs[i], all > 0 ? ms * piece_ms(l->costs[i], l->macs[i]) / all : ms);
        l->macs[i] = 0;
    }
    l->left_ms += l->planned_ms - ms;
    l->spent_ms += ms;
    l->planned_ms = 0;
}

static void measure(const struct oc_scheduler *s, struct oc_sched_slice *l) {
    s->e->dev->wait(s->e->dev);
    uint64_t now_ns = oc_clock_ns();
    oc_sched_slice_settle(l, (double)(now_ns - l->start_ns) / 1e6);
    l->start_ns = now_ns;
}

int oc_sched_slice_rows(const struct oc_scheduler *s, const struct oc_sched_slice *l, int stage, double macs_per_row, int max) {
    double cost = l->costs[stage];
    if (s->hook.rows) return s->hook.rows(s->hook.arg, max);
    double fits = cost > 0 ? l->left_ms / piece_ms(cost, macs_per_row) : OC_SCHED_MIN_ROWS;
    if (fits >= max || max <= OC_SCHED_MIN_ROWS) return max;
    int rows = fits > OC_SCHED_MIN_ROWS ? (int)fits : OC_SCHED_MIN_ROWS, n_pieces = (max + rows - 1) / rows;
    return (max + n_pieces - 1) / n_pieces; /* equal pieces: no small one at the end */
}

bool oc_sched_slice_fits(const struct oc_scheduler *s, const struct oc_sched_slice *l, int stage, double macs_per_row, int max) {
    double cost = l->costs[stage];
    if (s->hook.rows || cost <= 0) return false; /* a stage that was never measured has a slice of its own */
    int rows = max < OC_SCHED_MIN_ROWS ? max : OC_SCHED_MIN_ROWS;
    return rows * piece_ms(cost, macs_per_row) <= l->left_ms;
}

void oc_sched_slice_did(const struct oc_scheduler *s, struct oc_sched_slice *l, int stage, double macs) {
    double ms = piece_ms(l->costs[stage], macs);
    l->macs[stage] += macs;
    if (s->e->dev->is_host || ms <= 0) {
        measure(s, l);
        return;
    }
    l->planned_ms += ms;
    l->left_ms -= ms;
}

double oc_sched_slice_end(const struct oc_scheduler *s, struct oc_sched_slice *l) {
    if (l->planned_ms > 0) measure(s, l);
    return l->spent_ms;
}
