#include "engine/sched.h"

/* A piece takes a + b * rows: the weights become panels once, whatever the rows. Dividing its time by its rows alone makes
 * the rows of the next pieces go to (budget - a) / b, which is what fits; so one figure for each stage is enough. */

double oc_sched_cost_budget_ms(const struct oc_scheduler *s) {
    if (s->n_decoding == 0) return OC_SCHED_ALONE_MS;
    return OC_SCHED_MARGIN * (OC_SCHED_ITL_FACTOR - 1) * s->costs.decode_ms;
}

static double row_ms(double cost, double macs_per_row) {
    return cost * macs_per_row * 1e-6;
}

int oc_sched_cost_rows(const struct oc_scheduler *s, double cost, double macs_per_row, double left_ms, int max) {
    if (s->hook.rows) return s->hook.rows(s->hook.arg, max);
    double fits = cost > 0 ? left_ms / row_ms(cost, macs_per_row) : OC_SCHED_MIN_ROWS;
    if (fits >= max || max <= OC_SCHED_MIN_ROWS) return max;
    int rows = fits > OC_SCHED_MIN_ROWS ? (int)fits : OC_SCHED_MIN_ROWS, n_pieces = (max + rows - 1) / rows;
    return (max + n_pieces - 1) / n_pieces; /* equal pieces: no small one at the end */
}

bool oc_sched_cost_fits(const struct oc_scheduler *s, double cost, double macs_per_row, double left_ms, int max) {
    if (s->hook.rows || cost <= 0) return false;
    int rows = max < OC_SCHED_MIN_ROWS ? max : OC_SCHED_MIN_ROWS;
    return rows * row_ms(cost, macs_per_row) <= left_ms;
}

void oc_sched_cost_learn(double *cost, double macs, double ms) {
    double now = ms / (macs * 1e-6);
    if (*cost <= 0) *cost = now;
    else *cost += (now > *cost ? 0.5 : 0.2) * (now - *cost);
}
