#include "server/alerts.h"

#include <stdarg.h>
#include <stdio.h>

#include "server/models.h"
#include "server/process.h"

static const struct {
    const char *name, *severity;
} kinds[OC_ALERT_N] = {
    [OC_ALERT_MEMORY] = {"memory_warning", "warning"},
    [OC_ALERT_MEMORY_FULL] = {"memory_critical", "critical"},
    [OC_ALERT_SLOW_DECODE] = {"slow_decode", "warning"},
    [OC_ALERT_SLOW_LOAD] = {"slow_load", "warning"},
    [OC_ALERT_STUCK] = {"worker_stuck", "critical"},
};

const char *oc_server_alert_name(enum oc_server_alert a) {
    return kinds[a].name;
}

const char *oc_server_alert_severity(enum oc_server_alert a) {
    return kinds[a].severity;
}

static void set(struct oc_server *s, enum oc_server_alert a, bool on, const char *fmt, ...) OC_PRINTF(4, 5);

static void set(struct oc_server *s, enum oc_server_alert a, bool on, const char *fmt, ...) {
    struct oc_server_alert_state *st = &s->alerts->v[a];
    va_list ap;
    va_start(ap, fmt);
    if (on) vsnprintf(st->message, sizeof st->message, fmt, ap);
    va_end(ap);
    if (on && !st->on) oc_log(s->log, OC_LOG_WARN, st->message, OC_LOG_S("alert", kinds[a].name));
    if (!on && st->on) oc_log(s->log, OC_LOG_INFO, "an alert is over", OC_LOG_S("alert", kinds[a].name));
    st->on = on;
    oc_metrics_set(s->metrics, OC_M_ALERT, kinds[a].name, NULL, on);
}

#define SLOW_STAYS_MS 60000 /* slow decoding is told so long after it was seen */

/* The slowest load, the first stuck worker. */
struct findings {
    double load_s;
    const char *loading, *stuck;
};

/* A model that gave tokens since the last look, slowly. */
static void look_at_speed(struct oc_server *s, struct oc_server_model *m) {
    const struct oc_ipc_board *b = oc_server_worker_board(m->worker);
    uint64_t n = atomic_load_explicit(&b->n_output_tokens, memory_order_relaxed);
    double tok_s = (double)atomic_load_explicit(&b->decode_mtok_s, memory_order_relaxed) / 1e3;
    bool decoded = n != m->seen_output_tokens;
    m->seen_output_tokens = n;
    if (!decoded || tok_s <= 0 || tok_s >= s->config->alert_tok_s) return;
    s->alerts->slow_ms = oc_server_now_ms();
    s->alerts->slow_tok_s = tok_s;
    snprintf(s->alerts->slow_model, sizeof s->alerts->slow_model, "%s", m->id);
}

static void look(struct oc_server *s, struct oc_server_model *m, struct findings *f) {
    if (m->worker && oc_server_worker_is_stuck(m->worker)) f->stuck = m->id;
    double load_s = m->state == OC_MODEL_LOADING ? oc_server_worker_load_s(m->worker)
                    : m->worker                  ? m->load_s
                                                 : 0;
    if (load_s > f->load_s) {
        f->load_s = load_s;
        f->loading = m->id;
    }
    if (m->state == OC_MODEL_READY) look_at_speed(s, m);
}

void oc_server_alerts_tick(struct oc_server *s) {
    const struct oc_server_config *c = s->config;
    struct findings f = {0};
    double budget = (double)s->models->budget_bytes, used = (double)oc_server_process_workers_rss(s);
    for (struct oc_server_model *m = s->models->first; m; m = m->next) look(s, m, &f);
    double share = budget > 0 ? used / budget : 0;
    bool full = share > OC_ALERT_MEMORY_CRITICAL;
    set(s, OC_ALERT_MEMORY, share > OC_ALERT_MEMORY_WARNING && !full,
        "models use %.0f %% of the memory budget", share * 100);
    set(s, OC_ALERT_MEMORY_FULL, full, "models use %.0f %% of the memory budget", share * 100);
    const struct oc_server_alerts *al = s->alerts;
    set(s, OC_ALERT_SLOW_DECODE, al->slow_ms && oc_server_now_ms() - al->slow_ms < SLOW_STAYS_MS,
        "%.60s decoded %.1f tokens a second, under the %.1f of alert_tok_s", al->slow_model, al->slow_tok_s,
        c->alert_tok_s);
    set(s, OC_ALERT_SLOW_LOAD, c->alert_load_s > 0 && f.load_s > c->alert_load_s, "%.60s took %.1f s to load",
        f.loading ? f.loading : "", f.load_s);
    set(s, OC_ALERT_STUCK, f.stuck != NULL, "the worker of %.60s shows no progress", f.stuck ? f.stuck : "");
}
