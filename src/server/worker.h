/* server/worker.h - the orchestrator's view of one worker process: its state, its jobs, its heartbeat.
 *
 * Owned by a model (model.h), loop's thread only. A worker starts, becomes ready or refuses, runs jobs, and
 * dies; its death is seen at once (SIGCHLD) and ends all its jobs. Messages are matched to jobs by id, so
 * nothing of an ended job reaches another. */
#ifndef OC_SERVER_WORKER_H
#define OC_SERVER_WORKER_H

#include "ipc/board.h"
#include "ipc/messages.h"
#include "server/server.h"

struct oc_server_worker;

/* STOPPING: it takes no jobs any more; its death follows. */
enum oc_server_worker_state { OC_WORKER_STARTING, OC_WORKER_READY, OC_WORKER_STOPPING, OC_WORKER_DEAD };

struct oc_server_job;

struct oc_server_job_events {
    void (*on_stage)(struct oc_server_job *j, const struct oc_ipc_stage_entered *m);
    void (*on_tokens)(struct oc_server_job *j, const struct oc_ipc_tokens *m);
    void (*on_done)(struct oc_server_job *j, const struct oc_ipc_done *m); /* the job is out already */
    /* The worker died; out already. `blamed`: the job was encoding or prefilling and may be the cause. */
    void (*on_lost)(struct oc_server_job *j, bool blamed);
};

/* Embedded in a choice of a request; zero it first. */
struct oc_server_job {
    struct oc_server_job *next, **back; /* among the worker's jobs of the same bucket */
    struct oc_server_worker *worker;    /* NULL: not running */
    uint64_t id;
    int stage; /* enum oc_ipc_stage, -1 before the first */
    bool has_pictures;
    const struct oc_server_job_events *ev;
};

struct oc_server_worker_events {
    void *arg;
    void (*on_ready)(void *arg, struct oc_server_worker *w, const struct oc_ipc_ready *m);
    void (*on_refused)(void *arg, struct oc_server_worker *w, enum oc_err err, struct oc_str message);
    /* The process is gone. Its jobs are told after this. The worker is freed later by itself. */
    void (*on_dead)(void *arg, struct oc_server_worker *w, const char *how);
};

/* Starts a worker for a model directory with a KV pool of so many tokens, on the device that was measured. Errors: OC_ERR_IO, OC_ERR_NOMEM. */
OC_MUST_CHECK enum oc_err oc_server_worker_start(struct oc_server *s, const char *model_dir,
                                                 int64_t kv_tokens, const char *device,
                                                 const struct oc_server_worker_events *ev,
                                                 struct oc_server_worker **out, struct oc_errinfo *ei);
/* Asks it to exit; it is killed when it has not within a few seconds. */
void oc_server_worker_stop(struct oc_server_worker *w);
void oc_server_worker_kill(struct oc_server_worker *w, const char *why);

/* Sends a job; fds are taken over in any case. Errors: OC_ERR_IO (it is not ready or just died),
 * OC_ERR_LIMIT. */
OC_MUST_CHECK enum oc_err oc_server_worker_send(struct oc_server_worker *w, struct oc_server_job *j,
                                                const struct oc_ipc_job *m, const int *fds, int n_fds,
                                                struct oc_errinfo *ei);
/* Ends a job: nothing more is heard of it. Nothing when it is not running. */
void oc_server_worker_cancel(struct oc_server_job *j);

/* Asks the worker to end a job whose DONE is still wanted. */
void oc_server_worker_finish(struct oc_server_job *j);

/* Once a second: kills a worker whose heartbeat stands still. */
void oc_server_worker_watch(struct oc_server_worker *w);
/* A heartbeat older than half of the allowed time. */
bool oc_server_worker_is_stuck(const struct oc_server_worker *w);

enum oc_server_worker_state oc_server_worker_state(const struct oc_server_worker *w);
const struct oc_ipc_board *oc_server_worker_board(const struct oc_server_worker *w);
int oc_server_worker_id(const struct oc_server_worker *w);
int oc_server_worker_pid(const struct oc_server_worker *w);
bool oc_server_worker_has_stalled(const struct oc_server_worker *w); /* that is why it was killed */
bool oc_server_worker_lost_files(const struct oc_server_worker *w);  /* it died because the weights it maps are gone */
int oc_server_worker_n_jobs(const struct oc_server_worker *w);
double
oc_server_worker_load_s(const struct oc_server_worker *w); /* from start to ready; so far while it loads */

/* `device` NULL or "": auto. The options that a worker of this configuration gets after `ocellus worker`, for it and for --measure; at
 * most OC_SERVER_WORKER_ARGS pointers with the NULL at the end, numbers written to text. */
#define OC_SERVER_WORKER_ARGS 32
struct oc_server_worker_argv {
    char *v[OC_SERVER_WORKER_ARGS];
    char text[OC_SERVER_WORKER_ARGS][24];
    int n;
};
void oc_server_worker_make_argv(const struct oc_server_config *c, const char *model_dir, int64_t kv_tokens,
                                const char *device, bool measure, struct oc_server_worker_argv *out);

#endif
