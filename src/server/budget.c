#include "server/budget.h"

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
    int64_t over = used + need_bytes - leaving - budget_bytes; /* what has to go besides those that leave already */
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

enum oc_err oc_server_budget_parse_measure(const char *text, uint64_t n_bytes, int64_t *need_bytes,
                                           struct oc_errinfo *ei) {
    static const char *const parts[] = {"weight_bytes", "kv_bytes", "workspace_bytes", "embed_cache_bytes"};
    struct oc_arena a;
    struct oc_json j;
    oc_arena_init(&a, OC_MIB);
    *need_bytes = 0;
    enum oc_err err = oc_json_parse(&a, (struct oc_str){text, n_bytes}, "the measurement", &j, ei);
    for (size_t i = 0; !err && i < sizeof parts / sizeof *parts; i++) {
        int64_t v = oc_json_int_or(oc_json_get(&j, parts[i]), i == 0 ? -1 : 0);
        if (v < 0 || v > INT64_MAX / 8)
            err = oc_fail(ei, OC_ERR_FORMAT, "the measurement of the model has no valid %s", parts[i]);
        *need_bytes += v;
    }
    oc_arena_free(&a);
    return err;
}
