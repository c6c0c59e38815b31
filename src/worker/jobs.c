#define _GNU_SOURCE /* seals */
#include "worker/jobs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct oc_worker_job *oc_worker_jobs_find(const struct oc_worker_jobs *t, uint64_t id) {
    for (int i = 0; i < t->n; i++)
        if (t->live[i]->id == id) return t->live[i];
    return NULL;
}

enum oc_err oc_worker_jobs_add(struct oc_worker_jobs *t, uint64_t id, struct oc_worker_job **out, struct oc_errinfo *ei) {
    *out = NULL;
    if (id == 0 || oc_worker_jobs_find(t, id))
        return oc_fail(ei, OC_ERR_USAGE, "a job with id %llu, which is %s", (unsigned long long)id, id ? "taken" : "none");
    if (t->n == OC_LIMIT_SCHED_JOBS) return oc_fail(ei, OC_ERR_LIMIT, "%d jobs wait or run already", t->n);
    *out = calloc(1, sizeof **out);
    if (!*out) return oc_fail(ei, OC_ERR_NOMEM, "no memory for a job");
    (*out)->id = id;
    t->live[t->n++] = *out;
    return OC_OK;
}

static void free_job(struct oc_worker_job *j) {
    for (int i = 0; i < j->n_maps; i++) oc_worker_jobs_unmap(j, i);
    free(j);
}

void oc_worker_jobs_remove(struct oc_worker_jobs *t, struct oc_worker_job *j) {
    for (int i = 0; i < t->n; i++) {
        if (t->live[i] != j) continue;
        t->live[i] = t->live[--t->n];
        free_job(j);
        return;
    }
}

void oc_worker_jobs_free(struct oc_worker_jobs *t) {
    while (t->n > 0) free_job(t->live[--t->n]);
}

enum oc_err oc_worker_jobs_map(struct oc_worker_job *j, int fd, size_t n_bytes, const float **out, struct oc_errinfo *ei) {
    OC_ASSERT(j->n_maps < OC_LIMIT_IMAGES_PER_PROMPT);
    const off_t size = lseek(fd, 0, SEEK_END); /* fstat() may be a call that the jail denies */
    if (size < 0 && errno == ESPIPE) return oc_fail(ei, OC_ERR_FORMAT, "the patches of a picture are not a file");
    if (size < 0) return oc_fail(ei, OC_ERR_IO, "the patches of a picture: %s", strerror(errno));
    if ((uint64_t)size != n_bytes)
        return oc_fail(ei, OC_ERR_FORMAT, "the patches of a picture take %lld bytes, but its plan says %zu",
                       (long long)size, n_bytes);
    const int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || !(seals & F_SEAL_SHRINK))
        return oc_fail(ei, OC_ERR_FORMAT, "the patches of a picture are not sealed against shrinking");
    void *p = mmap(NULL, n_bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        return oc_fail(ei, OC_ERR_IO, "the patches of a picture cannot be mapped: %s", strerror(errno));
    j->maps[j->n_maps++] = (struct oc_worker_map){p, n_bytes};
    *out = p;
    return OC_OK;
}

void oc_worker_jobs_unmap(struct oc_worker_job *j, int picture) {
    if (picture < 0 || picture >= j->n_maps || !j->maps[picture].p) return;
    munmap(j->maps[picture].p, j->maps[picture].n_bytes);
    j->maps[picture].p = NULL;
}
