/* worker/jobs.h - the live jobs of a worker: their pictures while they are mapped, their tokens until they are sent.
 *
 * Owned by the worker's main loop, one thread. A job is in the table from JOB to DONE. */
#ifndef OC_WORKER_JOBS_H
#define OC_WORKER_JOBS_H

#include <stdint.h>

#include "base/err.h"
#include "ipc/messages.h"

#define OC_WORKER_JOB_PICKS 8 /* tokens that wait to be sent together; a step makes one, or as many when it verifies drafts */

struct oc_worker_job {
    uint64_t id;
    struct oc_worker_map {
        void *p; /* NULL: given back already */
        size_t n_bytes;
    } maps[OC_LIMIT_IMAGES_PER_PROMPT];
    int n_maps;
    struct oc_ipc_pick picks[OC_WORKER_JOB_PICKS];
    struct oc_ipc_choice top[OC_WORKER_JOB_PICKS][OC_LIMIT_TOP_LOGPROBS];
    int n_picks;
};

struct oc_worker_jobs {
    struct oc_worker_job *live[OC_LIMIT_SCHED_JOBS];
    int n;
};

struct oc_worker_job *oc_worker_jobs_find(const struct oc_worker_jobs *t, uint64_t id); /* NULL: none */

/* Errors: OC_ERR_LIMIT (the table is full), OC_ERR_USAGE (id 0, or one that is live), OC_ERR_NOMEM. */
OC_MUST_CHECK enum oc_err oc_worker_jobs_add(struct oc_worker_jobs *t, uint64_t id, struct oc_worker_job **out,
                                             struct oc_errinfo *ei);
void oc_worker_jobs_remove(struct oc_worker_jobs *t, struct oc_worker_job *j);
void oc_worker_jobs_free(struct oc_worker_jobs *t);

/* Maps a memfd of exactly n_bytes, read-only, as the job's next picture. It must be sealed against shrinking, or its
 * maker could end this process with a bus error. The descriptor stays the caller's. Errors: OC_ERR_FORMAT, OC_ERR_IO. */
OC_MUST_CHECK enum oc_err oc_worker_jobs_map(struct oc_worker_job *j, int fd, size_t n_bytes, const float **out,
                                             struct oc_errinfo *ei);
void oc_worker_jobs_unmap(struct oc_worker_job *j, int picture);

#endif
