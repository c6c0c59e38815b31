/* worker/jobs.h - the live jobs of a worker: their pictures while they are mapped, their tokens until they are sent.
 *
 * Owned by the worker's main loop, one thread. A job is in the table from JOB to DONE. */
#ifndef OC_WORKER_JOBS_H
#define OC_WORKER_JOBS_H

#include <stdint.h>

#include "base/err.h"
#include "engine/scheduler.h"
#include "ipc/messages.h"

#define OC_WORKER_JOB_PICKS 8 /* tokens that wait to be sent together; a step makes one, or as many when it verifies drafts */

struct oc_worker_picture {
    void *rgb; /* mapped: [plan.height, plan.width, 3]; NULL: not yet, or given back already */
    struct oc_picture_plan plan;
};

struct oc_worker_job {
    uint64_t id;
    struct oc_ipc_pick picks[OC_WORKER_JOB_PICKS];
    struct oc_ipc_choice top[OC_WORKER_JOB_PICKS][OC_LIMIT_TOP_LOGPROBS];
    int n_picks;
    int n_pictures, n_mapped;
    struct oc_worker_picture pictures[]; /* n_pictures of them */
};

struct oc_worker_jobs {
    struct oc_worker_job *live[OC_LIMIT_SCHED_JOBS];
    int n;
};

struct oc_worker_job *oc_worker_jobs_find(const struct oc_worker_jobs *t, uint64_t id); /* NULL: none */

/* A job of so many pictures, none of them mapped. Errors: OC_ERR_LIMIT (the table is full), OC_ERR_USAGE (id 0, or one that
 * is live), OC_ERR_NOMEM. */
OC_MUST_CHECK enum oc_err oc_worker_jobs_add(struct oc_worker_jobs *t, uint64_t id, int n_pictures, struct oc_worker_job **out,
                                             struct oc_errinfo *ei);
void oc_worker_jobs_remove(struct oc_worker_jobs *t, struct oc_worker_job *j);
void oc_worker_jobs_free(struct oc_worker_jobs *t);

/* Maps a memfd of the pixels of a converted plan, exactly so many bytes, read-only, as the job's next picture. It must be
 * sealed against shrinking, or its maker could end this process with a bus error. The descriptor stays the caller's. *out
 * makes patches of it until it is unmapped. Errors: OC_ERR_FORMAT, OC_ERR_IO. */
OC_MUST_CHECK enum oc_err oc_worker_jobs_map(struct oc_worker_job *j, int fd, const struct oc_picture_plan *plan,
                                             struct oc_vision_patches *out, struct oc_errinfo *ei);
void oc_worker_jobs_unmap(struct oc_worker_job *j, int picture);

#endif
