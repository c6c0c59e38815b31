/* server/model.h - one model: from its files to a worker that runs it, and back.
 *
 * States, in order: UNLOADED; PREPARING (files found again, tokenizer and template opened, on a crew);
 * MEASURING (a child says what memory it takes); WAITING (for room in the budget); LOADING; READY; STOPPING.
 * Whoever needs a model holds a `want`: all wants of a model share one load, and a load that fails answers
 * them all. A model with no wants held is idle and may be unloaded. Loop's thread only. */
#ifndef OC_SERVER_MODEL_H
#define OC_SERVER_MODEL_H

#include "api/error.h"
#include "chat/model.h"
#include "ipc/messages.h"
#include "server/admission.h"
#include "server/server.h"
#include "server/worker.h"

enum oc_server_model_state {
    OC_MODEL_UNLOADED,
    OC_MODEL_PREPARING,
    OC_MODEL_MEASURING,
    OC_MODEL_WAITING,
    OC_MODEL_LOADING,
    OC_MODEL_READY,
    OC_MODEL_STOPPING
};

struct oc_server_model;
struct oc_server_child;

/* Embedded in a request or an admin call; zero it first. */
struct oc_server_want {
    struct oc_server_want *prev, *next;
    struct oc_server_model *model;
    enum { OC_WANT_OUT, OC_WANT_WAITING, OC_WANT_HELD } state;
    bool worker; /* else only its tokenizer and template */
    /* Called when it had to wait: the model is there and held (err NULL), or cannot be had (out then). */
    void (*on_have)(struct oc_server_want *w, const struct oc_api_error *err);
};

/* Embedded in an admin call. */
struct oc_server_unload {
    struct oc_server_unload *next;
    void (*done)(struct oc_server_unload *u, int64_t freed_bytes);
};

struct oc_server_model {
    struct oc_server *s;
    struct oc_server_model *next;
    char *id;   /* what clients call it */
    char *name; /* what oc_server_facts_read takes */
    char *dir;
    char architecture[64];
    bool registered; /* by -m, or embedded: always allowed, listed first */
    bool vision;
    int file_ctx_tokens;
    int64_t created;
    enum oc_server_model_state state;
    struct oc_chat_model *chat; /* NULL: not open */
    struct oc_server_worker *worker;
    struct oc_server_child *measure; /* while MEASURING */
    struct oc_ipc_ready ready;       /* of the worker while READY; strings below */
    char family[32], isa[32], device[16], device_name[64], device_why[256];
    bool measure_again; /* what was measured does not hold any more: a device refused it */
    int64_t need_bytes; /* measured; 0: not yet */
    int64_t kv_tokens;  /* of the KV pool, chosen from that */
    char measured_device[16]; /* the one that was measured for */
    struct oc_server_want *first, *last;
    int n_wants_waiting, n_held;
    uint64_t last_used_ms, state_since_ms;
    bool stop_when_idle;     /* new wants wait until it has gone */
    const char *stop_reason; /* label of metrics: asked, idle, room */
    struct oc_server_unload *unloads;
    struct oc_admission *admission;
    int n_refs; /* work on a crew */
    bool files_changed; /* under its last worker, which died of it; until the next one starts */
    /* figures */
    uint64_t n_loads, n_deaths, seen_output_tokens;
    double load_s, ttft_ms; /* of the last load, of the last answer */
};

/* Adds a model to the registry's list; strings are copied. Errors: OC_ERR_NOMEM, those of oc_admission_open.
 */
struct oc_server_facts;
OC_MUST_CHECK enum oc_err oc_server_model_make(struct oc_server *s, const char *id, const char *name,
                                               const struct oc_server_facts *facts, bool registered,
                                               struct oc_server_model **out, struct oc_errinfo *ei);
void oc_server_model_free(struct oc_server_model *m); /* UNLOADED, no wants, no work */

/* True: held at once. False: on_have follows, unless it is released first. */
bool oc_server_model_want(struct oc_server_model *m, struct oc_server_want *w);
/* Gives back what is held or waited for. Nothing when it is out. */
void oc_server_model_release(struct oc_server_want *w);

bool oc_server_model_is_resident(
    const struct oc_server_model *m); /* has a worker, starting and stopping included */
bool oc_server_model_is_usable(const struct oc_server_model *m); /* its worker takes jobs */
bool oc_server_model_is_idle(const struct oc_server_model *m);
/* Unloads it once nobody holds it; u may be NULL. Only while it is resident. reason: asked, idle, room. */
void oc_server_model_unload(struct oc_server_model *m, const char *reason, struct oc_server_unload *u);
/* Ends its processes, for a shutdown: whatever they do. */
void oc_server_model_stop(struct oc_server_model *m);
/* Goes on with a load as far as it can: called when room was made. */
void oc_server_model_advance(struct oc_server_model *m);
/* Once a second: time limits, idle unload. */
void oc_server_model_tick(struct oc_server_model *m, uint64_t now_ms);
/* Fails all that wait, for a shutdown. */
void oc_server_model_fail_wants(struct oc_server_model *m, const struct oc_api_error *err);
/* Closes tokenizer and template when nobody uses them. */
void oc_server_model_close_chat(struct oc_server_model *m);

const char *oc_server_model_state_name(enum oc_server_model_state st); /* "ready" */
int oc_server_model_ctx_tokens(const struct oc_server_model *m);       /* of the worker, else of the files */

#endif
