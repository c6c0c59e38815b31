/* server/models.h - all models that this server knows, and the memory they share.
 *
 * Registered ones (-m, the embedded one) from the start; others enter when a client first names them and they
 * are in the Hugging Face cache. Loop's thread only. */
#ifndef OC_SERVER_MODELS_H
#define OC_SERVER_MODELS_H

#include "server/budget.h"
#include "server/facts.h"
#include "server/model.h"

struct oc_server_models {
    struct oc_server *s;
    struct oc_server_model *first;
    int n;
    const char *default_id; /* NULL: a request must name its model */
    int64_t budget_bytes;
};

/* Registers what is configured. Blocking reads, before the loop runs. Errors: those of oc_server_facts_read
 * with the model's name; OC_ERR_USAGE: two models would have one id. */
OC_MUST_CHECK enum oc_err oc_server_models_open(struct oc_server *s, struct oc_server_models **out,
                                                struct oc_errinfo *ei);
void oc_server_models_close(struct oc_server_models *ms); /* all must be unloaded */

struct oc_server_model *oc_server_models_get(const struct oc_server_models *ms,
                                             struct oc_str id); /* NULL: not known */

/* A lookup of an id, possibly in the cache on disk; embedded. */
struct oc_server_lookup {
    struct oc_server_work work;
    struct oc_server *s;
    char id[256];
    struct oc_arena arena;
    struct oc_server_facts facts;
    enum oc_err err;
    struct oc_errinfo ei;
    void (*done)(struct oc_server_lookup *l, struct oc_server_model *m, const struct oc_api_error *err);
};
/* Finds the model `id` (empty: the default). True: *m or *err is filled now. False: done follows, always. */
bool oc_server_models_find(struct oc_server_lookup *l, struct oc_server *s, struct oc_str id,
                           struct oc_server_model **m, struct oc_api_error *err);

/* Decides for a model in state WAITING. EVICT has unloaded the victims already. *err is filled for NEVER. */
enum oc_server_verdict oc_server_models_room(struct oc_server_models *ms, struct oc_server_model *m,
                                             struct oc_api_error *err);
/* A model was unloaded or became idle: those that wait for room are looked at. */
void oc_server_models_room_made(struct oc_server_models *ms);

void oc_server_models_tick(struct oc_server_models *ms, uint64_t now_ms); /* once a second */
void oc_server_models_tick_queues(struct oc_server_models *ms, uint64_t now_ms);
/* What the pixels of waiting pictures may take: --picture-memory, or what resident models leave. */
int64_t oc_server_models_picture_bytes(const struct oc_server_models *ms);
int64_t
oc_server_models_used_bytes(const struct oc_server_models *ms); /* measured needs of resident models */
int oc_server_models_n_resident(const struct oc_server_models *ms);

#endif
