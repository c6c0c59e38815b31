/* The board: written on one mapping, read on the other; what is no board is refused. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "ipc/board.h"

static void test_shared(void **state) {
    (void)state;
    struct oc_ipc_board *a, *b;
    struct oc_errinfo ei;
    int fd;
    assert_int_equal(oc_ipc_board_create(&a, &fd, &ei), OC_OK);
    assert_int_equal(oc_ipc_board_map(fd, &b, &ei), OC_OK);
    assert_ptr_not_equal(a, b);
    assert_int_equal(atomic_load(&b->heartbeat_ns), 0);
    atomic_store(&b->heartbeat_ns, UINT64_MAX);
    atomic_store(&b->rss_bytes, 12345);
    assert_true(atomic_load(&a->heartbeat_ns) == UINT64_MAX);
    assert_int_equal(atomic_load(&a->rss_bytes), 12345);
    assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    assert_int_equal(ftruncate(fd, 0), -1); /* nobody can pull it away */
    oc_ipc_board_unmap(b);
    close(fd);
    assert_int_equal(atomic_load(&a->rss_bytes), 12345);
    oc_ipc_board_unmap(a);
    oc_ipc_board_unmap(NULL);
}

static void test_what_is_no_board(void **state) {
    (void)state;
    struct oc_ipc_board *b;
    struct oc_errinfo ei;
    int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING), pipes[2];
    assert_int_equal(oc_ipc_board_map(fd, &b, &ei), OC_ERR_FORMAT);
    assert_null(b);
    assert_int_equal(ftruncate(fd, sizeof *b), 0);
    assert_int_equal(oc_ipc_board_map(fd, &b, &ei), OC_ERR_FORMAT); /* could still shrink */
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
    assert_int_equal(oc_ipc_board_map(fd, &b, &ei), OC_OK);
    oc_ipc_board_unmap(b);
    close(fd);
    assert_int_equal(oc_ipc_board_map(fd, &b, &ei), OC_ERR_IO);
    assert_int_equal(pipe(pipes), 0);
    assert_int_equal(oc_ipc_board_map(pipes[0], &b, &ei), OC_ERR_FORMAT);
    close(pipes[0]);
    close(pipes[1]);
}

static void test_names(void **state) {
    (void)state;
    assert_string_equal(oc_ipc_doing_name(OC_IPC_DOING_LOADING), "loading");
    assert_string_equal(oc_ipc_doing_name(OC_IPC_DOING_EXIT), "exit");
    assert_string_equal(oc_ipc_doing_name(99), "?");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shared),
        cmocka_unit_test(test_what_is_no_board),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
