#define _GNU_SOURCE /* seals */
#include "worker/jobs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "image/patchify.h"
#include "worker/convert.h"

struct oc_worker_job *oc_worker_jobs_find(const struct oc_worker_jobs *t, uint64_t id) {
    for (int i = 0; i < t->n; i++)
        if (t->live[i]->id == id) return t->live[i];
    return NULL;
}

enum oc_err oc_worker_jobs_add(struct oc_worker_jobs *t, uint64_t id, int n_pictures, struct oc_worker_job **out,
                               struct oc_errinfo *ei) {
    *out = NULL;
    if (id == 0 || oc_worker_jobs_find(t, id))
        return oc_fail(ei, OC_ERR_USAGE, "a job with id %llu, which is %s", (unsigned long long)id, id ? "taken" : "none");
    if (t->n == OC_LIMIT_SCHED_JOBS) return oc_fail(ei, OC_ERR_LIMIT, "%d jobs wait or run already", t->n);
    *out = calloc(1, sizeof **out + (size_t)n_pictures * sizeof(struct oc_worker_picture));
    if (!*out) return oc_fail(ei, OC_ERR_NOMEM, "no memory for a job");
    (*out)->id = id;
    (*out)->n_pictures = n_pictures;
    t->live[t->n++] = *out;
    return OC_OK;
}

static void free_job(struct oc_worker_job *j) {
    for (int i = 0; i < j->n_pictures; i++) oc_worker_jobs_unmap(j, i);
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

/* Patches are made where they are read: as pixels they are an eighth of the bytes to hand over, to hold and to map. */
static void make_patches(void *arg, int from, int to, float *out) {
    const struct oc_worker_picture *p = arg;
    OC_ASSERT(p->rgb);
    oc_image_patchify_rows(p->rgb, &p->plan, from, to, out);
}

static enum oc_err check_file(int fd, size_t n_bytes, struct oc_errinfo *ei) {
    const off_t size = lseek(fd, 0, SEEK_END); /* fstat() may be a call that the jail denies */
    if (size < 0 && errno == ESPIPE) return oc_fail(ei, OC_ERR_FORMAT, "the pixels of a picture are not a file");
    if (size < 0) return oc_fail(ei, OC_ERR_IO, "the pixels of a picture: %s", strerror(errno));
    if ((uint64_t)size != n_bytes)
        return oc_fail(ei, OC_ERR_FORMAT, "the pixels of a picture take %lld bytes, but its plan says %zu",
                       (long long)size, n_bytes);
    const int seals = fcntl(fd, F_GET_SEALS);
    if (seals >= 0 && (seals & F_SEAL_SHRINK)) return OC_OK;
    return oc_fail(ei, OC_ERR_FORMAT, "the pixels of a picture are not sealed against shrinking");
}

enum oc_err oc_worker_jobs_map(struct oc_worker_job *j, int fd, const struct oc_picture_plan *plan, struct oc_vision_patches *out,
                               struct oc_errinfo *ei) {
    const size_t n_bytes = oc_worker_convert_pixel_bytes(plan);
    OC_ASSERT(j->n_mapped < j->n_pictures);
    OC_TRY(check_file(fd, n_bytes, ei));
    void *rgb = mmap(NULL, n_bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (rgb == MAP_FAILED)
        return oc_fail(ei, OC_ERR_IO, "the pixels of a picture cannot be mapped: %s", strerror(errno));
    struct oc_worker_picture *p = &j->pictures[j->n_mapped++];
    *p = (struct oc_worker_picture){rgb, *plan};
    *out = (struct oc_vision_patches){.make = make_patches, .arg = p};
    return OC_OK;
}

void oc_worker_jobs_unmap(struct oc_worker_job *j, int picture) {
    if (picture < 0 || picture >= j->n_pictures || !j->pictures[picture].rgb) return;
    munmap(j->pictures[picture].rgb, oc_worker_convert_pixel_bytes(&j->pictures[picture].plan));
    j->pictures[picture].rgb = NULL;
}
