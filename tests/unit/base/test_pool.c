/* The thread pool: every thread runs every job once, waking from sleep too, and the split covers all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/limits.h"
#include "base/pool.h"

#define MAX_THREADS 8

struct job {
    long n_runs[MAX_THREADS][16]; /* a cache line each; written by its own thread only */
    atomic_int n_inside, n_threads_seen;
};

static void count(void *arg, int thread, int n_threads) {
    struct job *j = arg;
    j->n_runs[thread][0]++;
    atomic_store(&j->n_threads_seen, n_threads);
}

static void test_every_thread_every_job(void **state) {
    (void)state;
    for (int n = 1; n <= MAX_THREADS; n++) {
        struct oc_pool *p;
        struct oc_errinfo ei;
        struct job *j = calloc(1, sizeof *j);
        assert_int_equal(oc_pool_open(n, &p, &ei), OC_OK);
        assert_int_equal(oc_pool_n_threads(p), n);
        long n_jobs = n <= 2 ? 3000 : 100;
        for (long i = 0; i < n_jobs; i++) oc_pool_run(p, count, j);
        for (int t = 0; t < MAX_THREADS; t++) assert_int_equal(j->n_runs[t][0], t < n ? n_jobs : 0);
        assert_int_equal(atomic_load(&j->n_threads_seen), n);
        oc_pool_close(p);
        free(j);
    }
}

/* A thread enters, and leaves only when all are inside: only true parallelism ends this. */
static void rendezvous(void *arg, int thread, int n_threads) {
    struct job *j = arg;
    (void)thread;
    atomic_fetch_add(&j->n_inside, 1);
    while (atomic_load(&j->n_inside) < n_threads) usleep(50);
}

static void test_runs_in_parallel_after_sleep(void **state) {
    (void)state;
    struct oc_pool *p;
    struct oc_errinfo ei;
    assert_int_equal(oc_pool_open(4, &p, &ei), OC_OK);
    for (int i = 0; i < 20; i++) {
        struct job j = {0};
        if (i % 2) usleep(5000); /* long enough that the others sleep */
        oc_pool_run(p, rendezvous, &j);
        assert_int_equal(atomic_load(&j.n_inside), 4);
    }
    oc_pool_close(p);
}

static void test_open_close_idle(void **state) {
    (void)state;
    struct oc_errinfo ei;
    for (int i = 0; i < 50; i++) {
        struct oc_pool *p;
        assert_int_equal(oc_pool_open(3, &p, &ei), OC_OK);
        if (i % 2) usleep(1000);
        oc_pool_close(p);
    }
    oc_pool_close(NULL);
}

static void test_sizes(void **state) {
    (void)state;
    struct oc_pool *p;
    struct oc_errinfo ei;
    assert_in_range(oc_pool_usable_cpus(), 1, OC_LIMIT_THREADS);
    assert_int_equal(oc_pool_open(0, &p, &ei), OC_OK);
    assert_int_equal(oc_pool_n_threads(p), oc_pool_usable_cpus());
    oc_pool_close(p);
    assert_int_equal(oc_pool_open(-1, &p, &ei), OC_ERR_USAGE);
    assert_null(p);
    assert_int_equal(oc_pool_open(OC_LIMIT_THREADS + 1, &p, &ei), OC_ERR_USAGE);
    assert_non_null(strstr(ei.msg, "257 threads"));
}

static void test_split(void **state) {
    (void)state;
    for (long n = 0; n < 70; n++)
        for (long unit = 1; unit <= 16; unit *= 4)
            for (int threads = 1; threads <= 9; threads++) {
                long at = 0, least = n, most = 0;
                for (int t = 0; t < threads; t++) {
                    long lo, hi;
                    oc_pool_split(n, unit, t, threads, &lo, &hi);
                    assert_int_equal(lo, at);
                    assert_true(hi >= lo && (hi % unit == 0 || hi == n));
                    if (hi - lo < least) least = hi - lo;
                    if (hi - lo > most) most = hi - lo;
                    at = hi;
                }
                assert_int_equal(at, n);
                assert_true(most - least <= 2 * unit - 1);
            }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_thread_every_job),
        cmocka_unit_test(test_runs_in_parallel_after_sleep),
        cmocka_unit_test(test_open_close_idle),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_split),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
