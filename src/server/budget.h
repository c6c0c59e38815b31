/* server/budget.h - may another model come into memory, and which must go for it. Pure. */
#ifndef OC_SERVER_BUDGET_H
#define OC_SERVER_BUDGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct oc_server_resident { /* a model in memory, or on its way in or out */
    int64_t bytes;
    uint64_t last_used_ms;
    bool idle;  /* may be unloaded now */
    bool going; /* is being unloaded */
};

enum oc_server_verdict {
    OC_BUDGET_FITS,  /* start it now */
    OC_BUDGET_EVICT, /* unload these first */
    OC_BUDGET_WAIT,  /* it fits once models that are busy now, or leaving, are gone */
    OC_BUDGET_NEVER, /* it cannot fit even alone: nothing is unloaded */
};

/* Decides for a model of need_bytes against budget_bytes and at most max_models models. For EVICT, victims
 * gets the indices of the least recently used idle ones, as few as suffice, *n_victims of them (room for n).
 */
enum oc_server_verdict oc_server_budget_decide(int64_t budget_bytes, int64_t need_bytes, int max_models,
                                               const struct oc_server_resident *r, int n, int *victims,
                                               int *n_victims);

/* What a model takes, as `ocellus worker --measure` says it. On a device with a memory of its own, weights, KV and workspace
 * are there (device_bytes of device_free_bytes), and host_bytes stand for them in the process. */
struct oc_server_measure {
    int64_t weight_bytes, kv_bytes, workspace_bytes, embed_cache_bytes, jobs_bytes;
    int64_t device_bytes, device_free_bytes, host_bytes; /* 0 on the CPU */
    int64_t ctx_tokens, kv_tokens, n_sessions;
    char device[16];      /* "cpu", "cuda:0"; "" when nothing was said */
    char device_why[256]; /* why that one, where there is a reason to tell */
};

/* Reads that line of JSON. Errors: OC_ERR_FORMAT. */
OC_MUST_CHECK enum oc_err oc_server_budget_parse_measure(const char *text, size_t n_bytes,
                                                         struct oc_server_measure *out,
                                                         struct oc_errinfo *ei);

/* The KV pool for a model whose size nobody chose, in tokens: a whole context for each sequence, or as much
 * of that as a quarter of the budget holds (of the device's free memory, and no more than the model leaves of it), but
 * always one context. Then what the model needs of the host's memory with it. */
int64_t oc_server_budget_kv_tokens(const struct oc_server_measure *m, int64_t budget_bytes);
int64_t oc_server_budget_need(const struct oc_server_measure *m, int64_t kv_tokens);

#endif
