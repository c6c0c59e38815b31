#include "server/budget.h"

#include <string.h>

#include "base/arena.h"
#include "base/json.h"
#include "base/limits.h"

/* The least recently used idle model that is not taken yet, or -1. */
static int oldest_idle(const struct oc_server_resident *r, int n, const int *taken, int n_taken) {
    int best = -1;
    for (int i = 0; i < n; i++) {
        bool is_taken = false;
        for (int k = 0; k < n_taken; k++) is_taken |= taken[k] == i;
        if (is_taken || !r[i].idle || r[i].going) continue;
        if (best < 0 || r[i].last_used_ms < r[best].last_used_ms) best = i;
    }
    return best;
}

enum oc_server_verdict oc_server_budget_decide(int64_t budget_bytes, int64_t need_bytes, int max_models,
                                               const struct oc_server_resident *r, int n, int *victims,
                                               int *n_victims) {
    int64_t used = 0, leaving = 0;
    int n_leaving = 0;
    *n_victims = 0;
    if (need_bytes > budget_bytes) return OC_BUDGET_NEVER;
    for (int i = 0; i < n; i++) {
        used += r[i].bytes;
        leaving += r[i].going ? r[i].bytes : 0;
        n_leaving += r[i].going;
    }
    if (used + need_bytes <= budget_bytes && n < max_models) return OC_BUDGET_FITS;
    int64_t over =
        used + need_bytes - leaving - budget_bytes; /* what has to go besides those that leave already */
    int too_many = n + 1 - n_leaving - max_models;
    if (over <= 0 && too_many <= 0) return OC_BUDGET_WAIT;
    int count = 0;
    while (over > 0 || too_many > 0) {
        int i = oldest_idle(r, n, victims, count);
        if (i < 0) return OC_BUDGET_WAIT;
        victims[count++] = i;
        over -= r[i].bytes;
        too_many--;
    }
    *n_victims = count;
    return OC_BUDGET_EVICT;
}

#define KV_SHARE 4 /* a quarter of the budget */
#define PAGE_TOKENS 16

static enum oc_err read_figure(const struct oc_json *j, const char *name, int64_t least, int64_t *out,
                               struct oc_errinfo *ei) {
    const struct oc_json *v = oc_json_get(j, name);
    *out = v && v->type == OC_JSON_INT ? v->i : -1;
    if (*out >= least && *out <= INT64_MAX / 64) return OC_OK;
    return oc_fail(ei, OC_ERR_FORMAT, "the measurement of the model has no valid %s", name);
}

/* A figure that need not be there. */
static enum oc_err read_if(const struct oc_json *j, const char *name, int64_t *out, struct oc_errinfo *ei) {
    *out = 0;
    return oc_json_get(j, name) ? read_figure(j, name, 0, out, ei) : OC_OK;
}

static enum oc_err read_device(const struct oc_json *j, struct oc_server_measure *out, struct oc_errinfo *ei) {
    const struct oc_json *name = oc_json_get(j, "device");
    const struct oc_json *why = oc_json_get(j, "device_why");
    if ((name && (name->type != OC_JSON_STR || name->str.n >= sizeof out->device)) || (why && why->type != OC_JSON_STR))
        return oc_fail(ei, OC_ERR_FORMAT, "the measurement of the model has no valid device");
    if (name) memcpy(out->device, name->str.p, name->str.n);
    if (why) memcpy(out->device_why, why->str.p, why->str.n < sizeof out->device_why ? why->str.n : sizeof out->device_why - 1);
    OC_TRY(read_if(j, "device_bytes", &out->device_bytes, ei));
    OC_TRY(read_if(j, "device_free_bytes", &out->device_free_bytes, ei));
    OC_TRY(read_if(j, "host_bytes", &out->host_bytes, ei));
    if (out->device_bytes == 0 || out->device_bytes >= out->kv_bytes) return OC_OK;
    return oc_fail(ei, OC_ERR_FORMAT, "the measurement of the model has more KV than there is on its device");
}

static enum oc_err read_measure(const struct oc_json *j, struct oc_server_measure *out,
                                struct oc_errinfo *ei) {
    OC_TRY(read_figure(j, "weight_bytes", 0, &out->weight_bytes, ei));
    OC_TRY(read_figure(j, "kv_bytes", 0, &out->kv_bytes, ei));
    OC_TRY(read_figure(j, "workspace_bytes", 0, &out->workspace_bytes, ei));
    OC_TRY(read_figure(j, "embed_cache_bytes", 0, &out->embed_cache_bytes, ei));
    OC_TRY(read_figure(j, "jobs_bytes", 0, &out->jobs_bytes, ei));
    OC_TRY(read_figure(j, "ctx_tokens", 1, &out->ctx_tokens, ei));
    OC_TRY(read_figure(j, "kv_tokens", 1, &out->kv_tokens, ei));
    OC_TRY(read_figure(j, "n_sessions", 1, &out->n_sessions, ei));
    OC_TRY(read_device(j, out, ei));
    if (out->ctx_tokens > OC_LIMIT_CTX_TOKENS || out->kv_tokens > (int64_t)OC_LIMIT_KV_TOKENS ||
        out->n_sessions > OC_LIMIT_SCHED_JOBS)
        return oc_fail(ei, OC_ERR_FORMAT, "the measurement of the model is over the limits");
    return OC_OK;
}

enum oc_err oc_server_budget_parse_measure(const char *text, size_t n_bytes, struct oc_server_measure *out,
                                           struct oc_errinfo *ei) {
    struct oc_arena a;
    struct oc_json j;
    oc_arena_init(&a, OC_MIB);
    *out = (struct oc_server_measure){0};
    enum oc_err err = oc_json_parse(&a, (struct oc_str){text, n_bytes}, "the measurement", &j, ei);
    if (!err) err = read_measure(&j, out, ei);
    oc_arena_free(&a);
    return err;
}

/* KV bytes of n tokens, rounded up. */
static int64_t kv_bytes_of(const struct oc_server_measure *m, int64_t n) {
    return (int64_t)((double)m->kv_bytes * ((double)n / (double)m->kv_tokens)) + 1;
}

/* Of a device's memory: somewhat more than the engine wants to see free beside what it asks for (engine/device.c). */
#define DEVICE_SPARE_BYTES ((int64_t)1536 << 20)

static double kv_share(const struct oc_server_measure *m, int64_t budget_bytes) {
    if (!m->device_bytes) return (double)budget_bytes / KV_SHARE;
    double left = (double)(m->device_free_bytes - DEVICE_SPARE_BYTES) - (double)(m->device_bytes - m->kv_bytes);
    double quarter = (double)m->device_free_bytes / KV_SHARE;
    return left < 0 ? 0 : left < quarter ? left : quarter;
}

int64_t oc_server_budget_kv_tokens(const struct oc_server_measure *m, int64_t budget_bytes) {
    int64_t most = m->ctx_tokens * m->n_sessions;
    if (most > (int64_t)OC_LIMIT_KV_TOKENS) most = (int64_t)OC_LIMIT_KV_TOKENS;
    double per_token = (double)m->kv_bytes / (double)m->kv_tokens, share = kv_share(m, budget_bytes);
    int64_t fits =
        per_token * (double)most <= share ? most : (int64_t)(share / per_token) / PAGE_TOKENS * PAGE_TOKENS;
    return fits < m->ctx_tokens ? m->ctx_tokens : fits;
}

int64_t oc_server_budget_need(const struct oc_server_measure *m, int64_t kv_tokens) {
    if (m->device_bytes) return m->host_bytes + m->embed_cache_bytes + m->jobs_bytes;
    return m->weight_bytes + kv_bytes_of(m, kv_tokens) + m->workspace_bytes + m->embed_cache_bytes +
           m->jobs_bytes;
}
