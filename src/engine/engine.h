/* engine/engine.h - what the files of this room share; the public face is include/ocellus.h.
 *
 * The engine owns the device, the model, the KV pages, the sessions and two blocks of working memory, all sized when it
 * opens. One thread drives it. Activations and KV pages are in the device's memory, which only ops, put and get of the
 * device may touch; what rows are made of and what comes out (embeddings, patches, logits) is in the host's. */
#ifndef OC_ENGINE_ENGINE_H
#define OC_ENGINE_ENGINE_H

#include "lm/decoder.h"
#include "lm/kv_cache.h"
#include "engine/prefix_cache.h"
#include "engine/speculate.h"
#include "models/model.h"
#include "ocellus.h"
#include "vision/encoder.h"

#define OC_ENGINE_CHUNK_ROWS 512     /* rows of one prefill step: enough to spread the cost of dequantising */
#define OC_ENGINE_DEFAULT_CTX 16384
#define OC_ENGINE_MAX_SESSIONS 1024

struct oc_session {
    struct oc_engine *engine; /* NULL when the place is free */
    int max_tokens, n_tokens;
    int32_t *pages;     /* [ceil(max_tokens / OC_LM_PAGE_TOKENS)] */
    int32_t *tokens;    /* [max_tokens] */
    int32_t *next_pos;  /* [max_tokens]: the position of a token that would follow this one */
    int32_t (*pos)[3];  /* [max_tokens]: scratch of a prefill */
    float *logits;      /* of the last row; points into the engine */
};

/* Arrays a step fills before it calls the decoder; every one has room for max_rows. */
struct oc_engine_step_arrays {
    int32_t *tokens, *outputs;
    const float **embeddings;
    int32_t (*pos)[3];
    struct oc_kv_row *kv_rows;
    int32_t *order; /* order[i]: which of the caller's rows the decoder's row i is */
    struct oc_row *rows; /* what prefill hands to a step */
};

struct oc_engine {
    struct oc_engine_info info;
    struct oc_model *model;
    struct oc_device *dev; /* owned */
    char device[16], device_why[256];
    struct oc_pool *pool;
    struct oc_kctx ctx;
    struct oc_lm_kv_cache kv;
    struct oc_lm_workspace lm_ws;
    uint8_t *lm_ws_mem, *lm_staging;
    struct oc_engine_prefix_cache *prefix_cache; /* a scheduler's, while there is one; else NULL */
    struct oc_vision_workspace vision_ws;
    struct oc_engine_step_arrays step;
    struct oc_arena arena; /* step arrays, session places */
    struct oc_session *sessions;
    int n_sessions, max_rows, max_outputs; /* outputs: one of each session, and those of drafted rows */
    float *logits; /* [max_outputs, n_vocab], the host's */
    uint8_t *mem, *host_mem; /* the device's: workspaces, and the CPU's scratch; the host's: lists, logits, staging */
    size_t mem_bytes, host_mem_bytes;
    const struct oc_lm_trace *lm_trace; /* set by tests that compare stage by stage, else NULL */
    const struct oc_vision_trace *vision_trace;
};

/* Opens the device that the parameters name into e->dev, with e->device and e->device_why; sizes are chosen already. Errors: those
 * of oc_engine_open. */
OC_MUST_CHECK enum oc_err oc_engine_device_open(struct oc_engine *e, const struct oc_engine_params *p, bool throughput,
                                                struct oc_errinfo *ei);

/* What the model takes in the memory of a device that is not the host: weights, KV, workspaces. */
uint64_t oc_engine_device_bytes(const struct oc_engine *e);

/* Uses everything once on a device of its own, so that the first request finds it ready; the engine is as it was. Errors:
 * OC_ERR_NOMEM. */
OC_MUST_CHECK enum oc_err oc_engine_warm_up(struct oc_engine *e, struct oc_errinfo *ei);

/* Divides the working memory of steps: those of oc_engine_step have room for max_outputs rows from now on (a row of each
 * session, and drafts), and *prefill is laid out for passes of OC_ENGINE_CHUNK_ROWS rows that go on while steps are made.
 * join undoes it. */
void oc_engine_workspace_split(struct oc_engine *e, struct oc_lm_workspace *prefill);
void oc_engine_workspace_join(struct oc_engine *e);

/* oc_session_open with n_prefix pages that stand before the session's own. The caller's hold on them becomes the
 * session's, but for an error. What they hold is told with oc_engine_session_commit. */
OC_MUST_CHECK enum oc_err oc_engine_session_open(struct oc_engine *e, int max_tokens, const int32_t *prefix, int n_prefix,
                                                 struct oc_session **out, struct oc_errinfo *ei);

/* Notes n tokens whose KV now stands in the session, with their positions. */
void oc_engine_session_commit(struct oc_session *s, const int32_t *tokens, const int32_t (*pos)[3], int n);

/* The row of a decoded token that stands `ahead` places behind the next one. */
struct oc_row oc_engine_session_row(struct oc_session *s, int ahead, int32_t token);

/* The position of the token that would come next. */
int32_t oc_engine_session_next_pos(const struct oc_session *s);

/* Pages that n tokens take. */
int oc_engine_session_n_pages(int n_tokens);

#endif
