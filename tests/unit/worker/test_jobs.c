/* The table of live jobs, and what may be mapped as patches. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "worker/jobs.h"

static struct oc_worker_jobs *make(void) {
    struct oc_worker_jobs *t = calloc(1, sizeof *t);
    assert_non_null(t);
    return t;
}

static void test_table(void **state) {
    (void)state;
    struct oc_worker_jobs *t = make();
    struct oc_worker_job *j;
    struct oc_errinfo ei;
    assert_int_equal(oc_worker_jobs_add(t, 0, &j, &ei), OC_ERR_USAGE);
    for (uint64_t id = 1; id <= OC_LIMIT_SCHED_JOBS; id++) assert_int_equal(oc_worker_jobs_add(t, id, &j, &ei), OC_OK);
    assert_int_equal(oc_worker_jobs_add(t, 5, &j, &ei), OC_ERR_USAGE);
    assert_null(j);
    assert_int_equal(oc_worker_jobs_add(t, UINT64_MAX, &j, &ei), OC_ERR_LIMIT);
    for (uint64_t id = 1; id <= OC_LIMIT_SCHED_JOBS; id += 2) oc_worker_jobs_remove(t, oc_worker_jobs_find(t, id));
    assert_int_equal(t->n, OC_LIMIT_SCHED_JOBS / 2);
    for (uint64_t id = 1; id <= OC_LIMIT_SCHED_JOBS; id++) {
        j = oc_worker_jobs_find(t, id);
        if (id % 2) assert_null(j);
        else assert_int_equal(j->id, id);
    }
    assert_int_equal(oc_worker_jobs_add(t, UINT64_MAX, &j, &ei), OC_OK);
    oc_worker_jobs_free(t);
    assert_int_equal(t->n, 0);
    free(t);
}

static void test_patches(void **state) {
    (void)state;
    struct oc_worker_jobs *t = make();
    struct oc_worker_job *j;
    struct oc_errinfo ei;
    const float *p;
    const float values[2] = {1.5f, -2};
    int pipes[2];
    assert_int_equal(oc_worker_jobs_add(t, 1, &j, &ei), OC_OK);
    int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_int_equal(write(fd, values, sizeof values), sizeof values);
    assert_int_equal(oc_worker_jobs_map(j, fd, sizeof values, &p, &ei), OC_ERR_FORMAT); /* may shrink */
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW), 0);
    assert_int_equal(oc_worker_jobs_map(j, fd, sizeof values, &p, &ei), OC_ERR_FORMAT);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
    assert_int_equal(oc_worker_jobs_map(j, fd, sizeof values - 4, &p, &ei), OC_ERR_FORMAT);
    assert_int_equal(oc_worker_jobs_map(j, fd, sizeof values + 4, &p, &ei), OC_ERR_FORMAT);
    assert_int_equal(j->n_maps, 0);
    assert_int_equal(oc_worker_jobs_map(j, fd, sizeof values, &p, &ei), OC_OK);
    close(fd);
    assert_true(p[0] == 1.5f && p[1] == -2);
    oc_worker_jobs_unmap(j, 0);
    oc_worker_jobs_unmap(j, 0); /* once is enough, twice no harm */
    oc_worker_jobs_unmap(j, 1);
    oc_worker_jobs_unmap(j, -1);
    assert_int_equal(pipe(pipes), 0);
    assert_int_equal(oc_worker_jobs_map(j, pipes[0], 8, &p, &ei), OC_ERR_FORMAT);
    close(pipes[0]);
    close(pipes[1]);
    assert_int_equal(oc_worker_jobs_map(j, pipes[0], 8, &p, &ei), OC_ERR_IO);
    int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC); /* an ordinary file cannot be sealed */
    assert_int_equal(oc_worker_jobs_map(j, file, (size_t)lseek(file, 0, SEEK_END), &p, &ei), OC_ERR_FORMAT);
    close(file);
    oc_worker_jobs_free(t);
    free(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_table), cmocka_unit_test(test_patches)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
