#define _GNU_SOURCE
#include "base/pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/topology.h"

#define SPINS_BEFORE_SLEEP 20000 /* some 50 us: longer than the gap between two ops of one step */

struct worker {
    struct oc_pool *pool;
    pthread_t thread;
    int index;
    _Alignas(64) atomic_uint taken; /* the last job whose part `index` somebody took */
};

struct oc_pool {
    int n_threads, n_started;
    struct worker *workers;
    oc_pool_fn *fn;
    void *arg;
    _Alignas(64) atomic_uint generation; /* a new value starts a job */
    _Alignas(64) atomic_int n_busy;
    _Alignas(64) atomic_bool stop;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    atomic_int n_asleep;
};

static inline void spin_pause(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void wait_for_job(struct oc_pool *p, unsigned seen) {
    for (int i = 0; i < SPINS_BEFORE_SLEEP; i++) {
        if (atomic_load_explicit(&p->generation, memory_order_acquire) != seen) return;
        spin_pause();
    }
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->n_asleep, 1);
    while (atomic_load(&p->generation) == seen) pthread_cond_wait(&p->wake, &p->lock);
    atomic_fetch_sub(&p->n_asleep, 1);
    pthread_mutex_unlock(&p->lock);
}

/* Runs part w->index of job `job` if nobody has taken it yet. A job stays open until whoever took a part has done it, so fn
 * and arg are those of this job. */
static void run_part(struct oc_pool *p, struct worker *w, unsigned job) {
    unsigned before = atomic_load_explicit(&w->taken, memory_order_relaxed);
    if ((int)(job - before) <= 0) return; /* this job or, to a thread that comes late, a later one */
    if (!atomic_compare_exchange_strong_explicit(&w->taken, &before, job, memory_order_acq_rel, memory_order_relaxed)) return;
    p->fn(p->arg, w->index, p->n_threads);
    atomic_fetch_sub_explicit(&p->n_busy, 1, memory_order_release);
}

static void *worker_main(void *arg) {
    struct worker *w = arg;
    struct oc_pool *p = w->pool;
    unsigned seen = 0;
    for (;;) {
        wait_for_job(p, seen);
        seen = atomic_load_explicit(&p->generation, memory_order_acquire);
        if (atomic_load(&p->stop)) return NULL;
        run_part(p, w, seen);
    }
}

static void start_job(struct oc_pool *p) {
    atomic_fetch_add(&p->generation, 1);
    if (atomic_load(&p->n_asleep) == 0) return;
    pthread_mutex_lock(&p->lock);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
}

/* The quota of the cgroup in CPUs rounded up, or 0 when there is none. */
static int cgroup_cpus(void) {
    long quota = -1, period = 0;
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "re");
    if (f) {
        if (fscanf(f, "%ld %ld", &quota, &period) != 2) quota = -1;
        fclose(f);
    } else {
        FILE *q = fopen("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "re");
        FILE *t = fopen("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "re");
        if (!q || !t || fscanf(q, "%ld", &quota) != 1 || fscanf(t, "%ld", &period) != 1) quota = -1;
        if (q) fclose(q);
        if (t) fclose(t);
    }
    return quota > 0 && period > 0 ? (int)((quota + period - 1) / period) : 0;
}

/* Threads stay on their NUMA node, so that what they write first is near; within it the system may move them, for on
 * a machine that others use too a thread bound to one CPU waits for it while another is idle. */
static void bind_to_nodes(struct oc_pool *p, const struct oc_topology *t) {
    if (t->n_nodes < 2) return;
    for (int i = 1; i <= p->n_started; i++) {
        const struct oc_topology_node *node = &t->nodes[oc_topology_node_of(t, i, p->n_threads)];
        (void)pthread_setaffinity_np(p->workers[i].thread, sizeof node->cpus, &node->cpus);
    }
}

static int usable_cpus(const struct oc_topology *t) {
    int n = t->n_cores, quota = cgroup_cpus();
    if (quota > 0 && quota < n) n = quota;
    if (n > OC_LIMIT_THREADS) n = OC_LIMIT_THREADS;
    return n > 0 ? n : 1;
}

int oc_pool_usable_cpus(void) {
    struct oc_topology t;
    oc_topology_read_own(&t);
    return usable_cpus(&t);
}

enum oc_err oc_pool_open(int n_threads, struct oc_pool **out, struct oc_errinfo *ei) {
    *out = NULL;
    if (n_threads < 0 || n_threads > OC_LIMIT_THREADS)
        return oc_fail(ei, OC_ERR_USAGE, "%d threads: give 1 to %d, or 0 for all", n_threads, OC_LIMIT_THREADS);
    struct oc_topology t;
    oc_topology_read_own(&t);
    if (n_threads == 0) n_threads = usable_cpus(&t);
    struct oc_pool *p = aligned_alloc(64, (sizeof *p + 63) / 64 * 64);
    if (!p) return oc_fail(ei, OC_ERR_NOMEM, "out of memory for the thread pool");
    memset(p, 0, sizeof *p);
    p->n_threads = n_threads;
    p->workers = aligned_alloc(64, (size_t)n_threads * sizeof *p->workers);
    if (p->workers) memset(p->workers, 0, (size_t)n_threads * sizeof *p->workers);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    for (int i = 1; p->workers && i < n_threads; i++) {
        p->workers[i].pool = p;
        p->workers[i].index = i;
        if (pthread_create(&p->workers[i].thread, NULL, worker_main, &p->workers[i]) != 0) {
            oc_pool_close(p);
            return oc_fail(ei, OC_ERR_IO, "cannot start thread %d of %d: try --threads with less", i + 1, n_threads);
        }
        p->n_started = i;
    }
    if (!p->workers) {
        oc_pool_close(p);
        return oc_fail(ei, OC_ERR_NOMEM, "out of memory for the thread pool");
    }
    bind_to_nodes(p, &t);
    *out = p;
    return OC_OK;
}

void oc_pool_close(struct oc_pool *p) {
    if (!p) return;
    atomic_store(&p->stop, true);
    start_job(p);
    pthread_mutex_lock(&p->lock);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    for (int i = 1; i <= p->n_started; i++) pthread_join(p->workers[i].thread, NULL);
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->wake);
    free(p->workers);
    free(p);
}

int oc_pool_n_threads(const struct oc_pool *p) {
    return p->n_threads;
}

void oc_pool_run(struct oc_pool *p, oc_pool_fn *fn, void *arg) {
    if (p->n_threads == 1) {
        fn(arg, 0, 1);
        return;
    }
    p->fn = fn;
    p->arg = arg;
    atomic_store_explicit(&p->n_busy, p->n_threads - 1, memory_order_relaxed);
    start_job(p);
    unsigned job = atomic_load_explicit(&p->generation, memory_order_relaxed);
    fn(arg, 0, p->n_threads);
    /* The parts of threads that the system has not let run yet: nobody waits for those. */
    for (int i = 1; i < p->n_threads; i++) run_part(p, &p->workers[i], job);
    for (int i = 0; atomic_load_explicit(&p->n_busy, memory_order_acquire) > 0; i++) {
        if (i < SPINS_BEFORE_SLEEP) spin_pause();
        else sched_yield();
    }
}

void oc_pool_split(long n, long unit, int thread, int n_threads, long *lo, long *hi) {
    long units = (n + unit - 1) / unit;
    long from = units * thread / n_threads * unit, to = units * (thread + 1) / n_threads * unit;
    *lo = from < n ? from : n;
    *hi = to < n ? to : n;
}
