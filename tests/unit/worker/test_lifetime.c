/* Ends of a child process: which descriptors it keeps, signals that wait to be read, parents that are gone. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "worker/lifetime.h"

static int in_child(int (*fn)(void)) {
    int status;
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0) _exit(fn());
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static bool is_open(int fd) {
    return fcntl(fd, F_GETFD) >= 0;
}

static int keeps_two(void) {
    static const int pairs[][2] = {{3, 4}, {9, 20}, {20, 9}, {7, 7}, {0, 9}, {2, 2}, {100, 30}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        for (int fd = 3; fd < 128; fd++) dup2(0, fd);
        oc_worker_lifetime_close_others(pairs[i][0], pairs[i][1]);
        for (int fd = 0; fd < 128; fd++)
            if (is_open(fd) != (fd < 3 || fd == pairs[i][0] || fd == pairs[i][1])) return (int)i + 1;
    }
    return 0;
}

static int reads_signals(void) {
    struct oc_errinfo ei;
    int fd;
    if (oc_worker_lifetime_watch_signals(&fd, &ei)) return 1;
    if (oc_worker_lifetime_signal_came(fd)) return 2;
    raise(SIGINT);
    raise(SIGHUP);
    raise(SIGPIPE);
    if (oc_worker_lifetime_signal_came(fd)) return 3;
    raise(SIGTERM);
    if (!oc_worker_lifetime_signal_came(fd)) return 4;
    return oc_worker_lifetime_signal_came(fd) ? 5 : 0;
}

static int sees_its_parent(void) {
    if (!oc_worker_lifetime_bind(0) || !oc_worker_lifetime_bind((int)getppid())) return 1;
    return oc_worker_lifetime_bind((int)getpid()) ? 2 : 0;
}

static void test_descriptors(void **state) {
    (void)state;
    assert_int_equal(in_child(keeps_two), 0);
}

static void test_signals(void **state) {
    (void)state;
    assert_int_equal(in_child(reads_signals), 0);
}

static void test_parent(void **state) {
    (void)state;
    assert_int_equal(in_child(sees_its_parent), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_descriptors), cmocka_unit_test(test_signals), cmocka_unit_test(test_parent)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
