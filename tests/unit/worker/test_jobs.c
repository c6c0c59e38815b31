/* The table of live jobs, and what may be mapped as pixels. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "image/patchify.h"
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
    assert_int_equal(oc_worker_jobs_add(t, 0, 0, &j, &ei), OC_ERR_USAGE);
    for (uint64_t id = 1; id <= OC_LIMIT_SCHED_JOBS; id++) assert_int_equal(oc_worker_jobs_add(t, id, (int)(id % 3), &j, &ei), OC_OK);
    assert_int_equal(oc_worker_jobs_add(t, 5, 0, &j, &ei), OC_ERR_USAGE);
    assert_null(j);
    assert_int_equal(oc_worker_jobs_add(t, UINT64_MAX, 0, &j, &ei), OC_ERR_LIMIT);
    for (uint64_t id = 1; id <= OC_LIMIT_SCHED_JOBS; id += 2) oc_worker_jobs_remove(t, oc_worker_jobs_find(t, id));
    assert_int_equal(t->n, OC_LIMIT_SCHED_JOBS / 2);
    for (uint64_t id = 1; id <= OC_LIMIT_SCHED_JOBS; id++) {
        j = oc_worker_jobs_find(t, id);
        if (id % 2) assert_null(j);
        else assert_true(j->id == id && j->n_pictures == (int)(id % 3));
    }
    assert_int_equal(oc_worker_jobs_add(t, UINT64_MAX, 0, &j, &ei), OC_OK);
    oc_worker_jobs_free(t);
    assert_int_equal(t->n, 0);
    free(t);
}

/* Two by three patches of two pixels, twice over. */
static const struct oc_picture_plan plan = {.width = 6, .height = 4, .resample = OC_RESAMPLE_BICUBIC, .rescale = 1 / 255.0,
                                            .mean = {0.5, 0.25, 0}, .std = {0.5, 1, 2}, .patch = 2, .merge = 1, .temporal = 2,
                                            .grid_t = 2, .grid_h = 2, .grid_w = 3, .n_patches = 12, .patch_dim = 24, .n_tokens = 12};

static int make_pixels(uint8_t rgb[], size_t n) {
    for (size_t i = 0; i < n; i++) rgb[i] = (uint8_t)(i * 37);
    int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_int_equal(write(fd, rgb, n), n);
    return fd;
}

static void test_what_may_be_mapped(void **state) {
    (void)state;
    struct oc_worker_jobs *t = make();
    struct oc_worker_job *j;
    struct oc_errinfo ei;
    struct oc_vision_patches p;
    struct oc_picture_plan other = plan;
    uint8_t rgb[6 * 4 * 3];
    int pipes[2];
    assert_int_equal(oc_worker_jobs_add(t, 1, 2, &j, &ei), OC_OK);
    int fd = make_pixels(rgb, sizeof rgb);
    assert_int_equal(oc_worker_jobs_map(j, fd, &plan, &p, &ei), OC_ERR_FORMAT); /* may shrink */
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW), 0);
    assert_int_equal(oc_worker_jobs_map(j, fd, &plan, &p, &ei), OC_ERR_FORMAT);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
    for (other.height = 3; other.height <= 5; other.height += 2)
        assert_int_equal(oc_worker_jobs_map(j, fd, &other, &p, &ei), OC_ERR_FORMAT);
    assert_int_equal(j->n_mapped, 0);
    assert_int_equal(oc_worker_jobs_map(j, fd, &plan, &p, &ei), OC_OK);
    assert_int_equal(j->n_mapped, 1);
    close(fd);
    oc_worker_jobs_unmap(j, 0);
    oc_worker_jobs_unmap(j, 0); /* once is enough, twice no harm */
    oc_worker_jobs_unmap(j, 1);
    oc_worker_jobs_unmap(j, 2);
    oc_worker_jobs_unmap(j, -1);
    assert_int_equal(pipe(pipes), 0);
    assert_int_equal(oc_worker_jobs_map(j, pipes[0], &plan, &p, &ei), OC_ERR_FORMAT);
    close(pipes[0]);
    close(pipes[1]);
    assert_int_equal(oc_worker_jobs_map(j, pipes[0], &plan, &p, &ei), OC_ERR_IO);
    char path[] = "/tmp/ocellus-test-XXXXXX"; /* an ordinary file cannot be sealed */
    int file = mkstemp(path);
    assert_true(file >= 0);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(write(file, rgb, sizeof rgb), sizeof rgb);
    assert_int_equal(oc_worker_jobs_map(j, file, &plan, &p, &ei), OC_ERR_FORMAT);
    close(file);
    oc_worker_jobs_free(t);
    free(t);
}

/* From the mapping, whatever is asked for, and as image/ makes them of the whole picture. */
static void test_patches_are_made_of_it(void **state) {
    (void)state;
    struct oc_worker_jobs *t = make();
    struct oc_worker_job *j;
    struct oc_errinfo ei;
    struct oc_vision_patches p;
    uint8_t rgb[6 * 4 * 3];
    float want[12][24], got[12][24];
    assert_int_equal(oc_worker_jobs_add(t, 1, 1, &j, &ei), OC_OK);
    int fd = make_pixels(rgb, sizeof rgb);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
    assert_int_equal(oc_worker_jobs_map(j, fd, &plan, &p, &ei), OC_OK);
    close(fd);
    assert_null(p.all);
    const struct oc_image img = {plan.width, plan.height, rgb};
    assert_int_equal(oc_image_patchify(&img, &plan, want[0], &ei), OC_OK);
    for (int from = 0; from <= 12; from++) {
        for (int to = from; to <= 12; to++) {
            memset(got, 0, sizeof got);
            p.make(p.arg, from, to, got[from]);
            for (int i = 0; i < 12; i++)
                for (int k = 0; k < 24; k++) assert_true(got[i][k] == (i >= from && i < to ? want[i][k] : 0));
        }
    }
    oc_worker_jobs_free(t);
    free(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_what_may_be_mapped),
        cmocka_unit_test(test_patches_are_made_of_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
