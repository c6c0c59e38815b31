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

/* ---- Sizes ------------------------------------------------------------------------------------------------ */

static const int most_rows[OC_SCHED_N_SIZES] = {64, 128, 256, 512, 1024, INT32_MAX};

static int size_of(const struct oc_scheduler *s, int rows) {
    int size = 0;
    while (!s->e->dev->is_host && rows > most_rows[size]) size++;
    return size;
}

static double piece_ms(double cost, double macs) {
    return cost * macs * 1e-6;
}

static bool is_known(const struct oc_sched_cost *c) {
    for (int i = 0; i < OC_SCHED_N_SIZES; i++)
        if (c->by_size[i] > 0) return true;
    return false;
}

/* What a piece will take. Of a size that was never measured: as long as one of the next size that was, or else by the rows of the
 * one before; both are too long rather than too short. 0: nothing is known. */
static double plan_ms(const struct oc_scheduler *s, const struct oc_sched_cost *c, double macs_per_row, int rows) {
    int size = size_of(s, rows), larger = size, smaller = size;
    if (c->by_size[size] > 0) return piece_ms(c->by_size[size], macs_per_row * rows);
    while (larger < OC_SCHED_N_SIZES && c->by_size[larger] <= 0) larger++;
    while (smaller >= 0 && c->by_size[smaller] <= 0) smaller--;
    if (larger < OC_SCHED_N_SIZES) return piece_ms(c->by_size[larger], macs_per_row * (most_rows[larger - 1] + 1));
    return smaller >= 0 ? piece_ms(c->by_size[smaller], macs_per_row * rows) : 0;
}

/* ---- Slices ----------------------------------------------------------------------------------------------- */

void oc_sched_slice_begin(const struct oc_scheduler *s, struct oc_sched_slice *l, struct oc_sched_cost *costs) {
    *l = (struct oc_sched_slice){.costs = costs, .left_ms = oc_sched_cost_budget_ms(s), .start_ns = oc_clock_ns()};
}

void oc_sched_slice_settle(struct oc_sched_slice *l, double ms) {
    double all = 0;
    for (int i = 0; i < OC_SCHED_MAX_STAGES; i++)
        for (int k = 0; k < OC_SCHED_N_SIZES; k++) all += l->open[i][k].ms;
    for (int i = 0; i < OC_SCHED_MAX_STAGES; i++) {
        for (int k = 0; k < OC_SCHED_N_SIZES; k++) {
            if (l->open[i][k].macs <= 0) continue;
            oc_sched_cost_learn(&l->costs[i].by_size[k], l->open[i][k].macs, all > 0 ? ms * l->open[i][k].ms / all : ms);
            l->open[i][k].macs = l->open[i][k].ms = 0;
        }
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

/* Equal pieces: no small one at the end. */
static int rows_on_cpu(double cost, double macs_per_row, double left_ms, int max) {
    double fits = cost > 0 ? left_ms / piece_ms(cost, macs_per_row) : OC_SCHED_MIN_ROWS;
    if (fits >= max || max <= OC_SCHED_MIN_ROWS) return max;
    int rows = fits > OC_SCHED_MIN_ROWS ? (int)fits : OC_SCHED_MIN_ROWS, n_pieces = (max + rows - 1) / rows;
    return (max + n_pieces - 1) / n_pieces;
}

int oc_sched_slice_rows(const struct oc_scheduler *s, const struct oc_sched_slice *l, int stage, double macs_per_row, int max) {
    const struct oc_sched_cost *c = &l->costs[stage];
    if (s->hook.rows) return s->hook.rows(s->hook.arg, max);
    if (s->e->dev->is_host) return rows_on_cpu(c->by_size[0], macs_per_row, l->left_ms, max);
    int rows = max;
    while (rows > OC_SCHED_DEVICE_ROWS && (!is_known(c) || plan_ms(s, c, macs_per_row, rows) > l->left_ms)) rows = (rows + 1) / 2;
    return rows;
}

/* On the CPU a piece of the fewest rows must fit; elsewhere, where it would take about as long, all that is left of the stage. A
 * stage that was never measured has a slice of its own. */
bool oc_sched_slice_fits(const struct oc_scheduler *s, const struct oc_sched_slice *l, int stage, double macs_per_row, int max) {
    const struct oc_sched_cost *c = &l->costs[stage];
    if (s->hook.rows || !is_known(c)) return false;
    int rows = max < OC_SCHED_MIN_ROWS || !s->e->dev->is_host ? max : OC_SCHED_MIN_ROWS;
    return plan_ms(s, c, macs_per_row, rows) <= l->left_ms;
}

void oc_sched_slice_did(const struct oc_scheduler *s, struct oc_sched_slice *l, int stage, double macs_per_row, int rows) {
    double ms = plan_ms(s, &l->costs[stage], macs_per_row, rows);
    int size = size_of(s, rows);
    l->open[stage][size].macs += macs_per_row * rows;
    l->open[stage][size].ms += ms;
    l->planned_ms += ms;
    l->left_ms -= ms;
    if (s->e->dev->is_host || ms <= 0) measure(s, l);
}

double oc_sched_slice_end(const struct oc_scheduler *s, struct oc_sched_slice *l) {
    if (l->planned_ms > 0) measure(s, l);
    return l->spent_ms;
}
