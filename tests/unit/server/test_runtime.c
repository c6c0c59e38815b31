/* The list of children: parsing, the sweep of a dead owner's file, instances side by side. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/runtime.h"

static bool parse(const char *line, pid_t *pid, uint64_t *start) {
    return oc_server_runtime_parse_child(oc_str_from(line), pid, start);
}

static void lines(void **state) {
    static const char *const bad[] = {
        "",     "x",   "12",   "12 ",   "12 x", "12 5x",         " 12 5",
        "1 5",  "0 5", "-3 5", "12  5", "12 0", "99999999999 5", "12 99999999999999999999999",
        "12 5 "};
    pid_t pid;
    uint64_t start;
    (void)state;
    assert_true(parse("123 456789", &pid, &start));
    assert_int_equal(pid, 123);
    assert_int_equal(start, 456789);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (parse(bad[i], &pid, &start)) fail_msg("taken: '%s'", bad[i]);
}

static void stat_lines(void **state) {
    const char *plain = "7 (name) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 0 0";
    const char *nasty = "7 (a) R 9 (b) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4712 0 0";
    (void)state;
    assert_int_equal(oc_server_runtime_parse_stat(oc_str_from(plain)), 4711);
    assert_int_equal(oc_server_runtime_parse_stat(oc_str_from(nasty)), 4712);
    assert_int_equal(oc_server_runtime_parse_stat(oc_str_from("7 (name) S 1 2")), 0);
    assert_int_equal(oc_server_runtime_parse_stat(oc_str_from("")), 0);
    assert_true(oc_server_runtime_start_time(getpid()) > 0);
    assert_int_equal(oc_server_runtime_start_time(2147483647), 0);
}

static void make_dir(char *dir) {
    assert_non_null(mkdtemp(dir));
}

static pid_t sleeper(void) {
    pid_t pid = fork();
    if (pid == 0) {
        for (;;) pause();
    }
    assert_true(pid > 0);
    return pid;
}

static void write_file(const char *path, const char *boot, pid_t pid, uint64_t start) {
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f, "%s\n%ld %llu\n", boot, (long)pid, (unsigned long long)start);
    fclose(f);
}

static void boot_id(char *out, size_t n) {
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "r");
    assert_non_null(f);
    assert_non_null(fgets(out, (int)n, f));
    fclose(f);
    out[strcspn(out, "\n")] = 0;
}

static int open_and_close(const char *dir) {
    struct oc_server_runtime *r;
    struct oc_errinfo ei;
    int n;
    assert_int_equal(oc_server_runtime_open(dir, &r, &n, &ei), OC_OK);
    oc_server_runtime_close(r);
    return n;
}

static void leftovers_of_the_dead_are_ended(void **state) {
    char dir[] = OC_TEST_TMP "/runtime-XXXXXX", path[256], boot[64];
    int status;
    (void)state;
    make_dir(dir);
    boot_id(boot, sizeof boot);
    snprintf(path, sizeof path, "%s/999999.children", dir);
    pid_t pid = sleeper();
    uint64_t start = oc_server_runtime_start_time(pid);
    write_file(path, boot, pid, start + 1); /* another process of that number */
    assert_int_equal(open_and_close(dir), 0);
    assert_int_equal(kill(pid, 0), 0);
    assert_int_equal(access(path, F_OK), -1);
    write_file(path, "another-boot", pid, start);
    assert_int_equal(open_and_close(dir), 0);
    write_file(path, boot, pid, start);
    assert_int_equal(open_and_close(dir), 1);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_int_equal(rmdir(dir), 0);
}

static void the_living_are_left_alone(void **state) {
    char dir[] = OC_TEST_TMP "/runtime-XXXXXX", path[256], boot[64];
    (void)state;
    make_dir(dir);
    boot_id(boot, sizeof boot);
    snprintf(path, sizeof path, "%s/999998.children", dir);
    pid_t pid = sleeper();
    write_file(path, boot, pid, oc_server_runtime_start_time(pid));
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    assert_int_equal(open_and_close(dir), 0);
    assert_int_equal(kill(pid, 0), 0);
    assert_int_equal(access(path, F_OK), 0);
    close(fd);
    assert_int_equal(open_and_close(dir), 1);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(rmdir(dir), 0);
}

static void own_children_are_written_down(void **state) {
    char dir[] = OC_TEST_TMP "/runtime-XXXXXX", path[256], text[512];
    struct oc_server_runtime *r;
    struct oc_errinfo ei;
    int n;
    (void)state;
    make_dir(dir);
    assert_int_equal(oc_server_runtime_open(dir, &r, &n, &ei), OC_OK);
    pid_t pid = sleeper();
    oc_server_runtime_add(r, pid);
    snprintf(path, sizeof path, "%s/%ld.children", dir, (long)getpid());
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_non_null(fgets(text, sizeof text, f));
    assert_non_null(fgets(text, sizeof text, f));
    fclose(f);
    text[strcspn(text, "\n")] = 0;
    pid_t got;
    uint64_t start;
    assert_true(parse(text, &got, &start));
    assert_int_equal(got, pid);
    assert_int_equal(start, oc_server_runtime_start_time(pid));
    oc_server_runtime_remove(r, pid);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_true(st.st_size < 64);
    oc_server_runtime_close(r);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(rmdir(dir), 0);
}

static void a_directory_of_others_is_refused(void **state) {
    char dir[] = OC_TEST_TMP "/runtime-XXXXXX", link[256];
    struct oc_server_runtime *r;
    struct oc_errinfo ei;
    int n;
    (void)state;
    make_dir(dir);
    assert_int_equal(chmod(dir, 0777), 0);
    assert_int_equal(oc_server_runtime_open(dir, &r, &n, &ei), OC_ERR_IO);
    assert_int_equal(chmod(dir, 0700), 0);
    snprintf(link, sizeof link, "%s-link", dir);
    assert_int_equal(symlink(dir, link), 0);
    assert_int_equal(oc_server_runtime_open(link, &r, &n, &ei), OC_ERR_IO);
    unlink(link);
    assert_int_equal(rmdir(dir), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines),
        cmocka_unit_test(stat_lines),
        cmocka_unit_test(leftovers_of_the_dead_are_ended),
        cmocka_unit_test(the_living_are_left_alone),
        cmocka_unit_test(own_children_are_written_down),
        cmocka_unit_test(a_directory_of_others_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
