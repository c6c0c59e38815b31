/* base/pool.h - the compute threads of one engine.
 *
 * A pool runs one job at a time: the calling thread takes part as index 0, the others wait spinning for a
 * short while, then asleep. One barrier at the end of each job: the caller does the parts of threads that have
 * not begun when its own is done, so a thread that the system keeps from running holds nobody up unless it was
 * stopped amid its part. Only one thread may call oc_pool_run. */
#ifndef OC_BASE_POOL_H
#define OC_BASE_POOL_H

#include "base/err.h"

struct oc_pool;

/* Called once for each 0 <= thread < n_threads, the number of a part; one thread may do several. Must not call oc_pool_run. */
typedef void oc_pool_fn(void *arg, int thread, int n_threads);

/* n_threads of 0: oc_pool_usable_cpus(). On a machine of several NUMA nodes each thread but the caller's stays on one.
 * Errors: OC_ERR_USAGE (over OC_LIMIT_THREADS), OC_ERR_NOMEM, OC_ERR_IO (thread creation). */
OC_MUST_CHECK enum oc_err oc_pool_open(int n_threads, struct oc_pool **out, struct oc_errinfo *ei);
void oc_pool_close(struct oc_pool *p);

int oc_pool_n_threads(const struct oc_pool *p);

/* Runs fn on every thread and returns when all are done. Allocates nothing. */
void oc_pool_run(struct oc_pool *p, oc_pool_fn *fn, void *arg);

/* Threads worth using: the physical cores of the affinity mask (two threads of one core share its multipliers and its way to
 * memory), at most the cgroup v1/v2 CPU quota rounded up, at least 1. */
int oc_pool_usable_cpus(void);

/* Splits [0, n) in n_threads nearly equal runs, multiples of `unit` but for the last: *lo, *hi for `thread`. */
void oc_pool_split(long n, long unit, int thread, int n_threads, long *lo, long *hi);

#endif
