/* The jail from inside: a child enters it and tries what it must not; how it ends tells. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/limits.h"
#include "worker/jail.h"

enum { REFUSED = 42, ALLOWED = 43, NO_JAIL = 44 };

static enum oc_err enter_maker(struct oc_errinfo *ei) {
    OC_TRY(oc_worker_jail_limit(ei));
    return oc_worker_jail_filter(ei);
}

/* How a child ends that runs `inside`, which enters a jail and tries something. */
static int child_status(int (*inside)(enum oc_err (*enter)(struct oc_errinfo *ei), int (*try)(void)),
                        enum oc_err (*enter)(struct oc_errinfo *ei), int (*try)(void)) {
    fflush(NULL);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) _exit(inside(enter, try));
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static int enter_and_try(enum oc_err (*enter)(struct oc_errinfo *ei), int (*try)(void)) {
    struct oc_errinfo ei;
    if (enter(&ei) == OC_OK) return try();
    dprintf(2, "%s\n", ei.msg);
    return NO_JAIL;
}

/* Runs `try` in a child jailed as an image-worker; the child's status. */
static int in_jail(int (*try)(void)) {
    return child_status(enter_and_try, enter_maker, try);
}

/* In a child jailed as a worker, by its main thread. */
static int in_worker_jail(int (*try)(void)) {
    return child_status(enter_and_try, oc_worker_jail_filter_threads, try);
}

struct other_thread {
    pthread_mutex_t lock;
    int (*try)(void);
};

static void *wait_and_try(void *arg) {
    struct other_thread *o = arg;
    pthread_mutex_lock(&o->lock);
    return (void *)(intptr_t)o->try();
}

/* By a thread that was there before the jail, which the main thread enters. */
static int enter_and_let_try(enum oc_err (*enter)(struct oc_errinfo *ei), int (*try)(void)) {
    struct other_thread o = {PTHREAD_MUTEX_INITIALIZER, try};
    struct oc_errinfo ei;
    pthread_t thread;
    void *result;
    pthread_mutex_lock(&o.lock);
    if (pthread_create(&thread, NULL, wait_and_try, &o) != 0) return NO_JAIL;
    if (enter(&ei) != OC_OK) return NO_JAIL;
    pthread_mutex_unlock(&o.lock);
    pthread_join(thread, &result);
    return (int)(intptr_t)result;
}

static int in_worker_thread(int (*try)(void)) {
    return child_status(enter_and_let_try, oc_worker_jail_filter_threads, try);
}

#define TRY(name, expression)                                                                                 \
    static int name(void) {                                                                                   \
        return (expression) < 0 ? REFUSED : ALLOWED;                                                          \
    }
TRY(open_file, syscall(SYS_openat, AT_FDCWD, "/etc/passwd", O_RDONLY))
TRY(create_file, syscall(SYS_openat, AT_FDCWD, "/tmp/ocellus-test-jail", O_CREAT | O_WRONLY, 0600))
TRY(openat2_file, syscall(SYS_openat2, AT_FDCWD, "/etc/passwd", NULL, 0))
TRY(remove_file, syscall(SYS_unlinkat, AT_FDCWD, "/tmp/ocellus-test-jail", 0))
TRY(rename_file, syscall(SYS_renameat2, AT_FDCWD, "/tmp/a", AT_FDCWD, "/tmp/b", 0))
TRY(read_link, syscall(SYS_readlinkat, AT_FDCWD, "/proc/self/exe", NULL, 0))
TRY(list_folder, syscall(SYS_getdents64, 0, NULL, 0))
TRY(change_mode, syscall(SYS_fchmodat, AT_FDCWD, "/tmp/a", 0))
TRY(make_socket, socket(AF_INET, SOCK_STREAM, 0))
TRY(make_unix_socket, socket(AF_UNIX, SOCK_STREAM, 0))
TRY(make_pair, syscall(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, NULL))
TRY(connect_somewhere, connect(0, NULL, 0))
TRY(bind_somewhere, bind(0, NULL, 0))
TRY(send_to, syscall(SYS_sendto, 0, NULL, 0, 0, NULL, 0))
TRY(run_program, execl("/bin/true", "true", (char *)NULL))
TRY(run_program_at, syscall(SYS_execveat, 0, "", NULL, NULL, AT_EMPTY_PATH))
TRY(split_off, fork())
TRY(split_off_3, syscall(SYS_clone3, NULL, 0))
TRY(make_thread, syscall(SYS_clone, CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD, NULL, NULL, NULL, 0))
TRY(kill_parent, kill(getpid(), 0))
TRY(kill_group, kill(0, 0))
TRY(signal_init, syscall(SYS_tgkill, 1, 1, 0))
TRY(signal_init_abort, syscall(SYS_tgkill, 1, 1, SIGABRT))
TRY(trace_parent, ptrace(PTRACE_ATTACH, 1, NULL, NULL))
TRY(read_other_process, process_vm_readv(1, NULL, 0, NULL, 0, 0))
TRY(write_other_process, process_vm_writev(1, NULL, 0, NULL, 0, 0))
TRY(open_process, syscall(SYS_pidfd_open, 1, 0))
TRY(take_descriptor, syscall(SYS_pidfd_getfd, 0, 0, 0))
TRY(change_process, prctl(PR_SET_DUMPABLE, 1))
TRY(raise_limit, syscall(SYS_setrlimit, RLIMIT_NOFILE, NULL))
TRY(mount_something, syscall(SYS_mount, "a", "/tmp", "tmpfs", 0, NULL))
TRY(make_namespace, unshare(CLONE_NEWUSER))
TRY(enter_namespace, syscall(SYS_setns, 0, 0))
TRY(use_ring, syscall(SYS_io_uring_setup, 1, NULL))
TRY(use_bpf, syscall(SYS_bpf, 0, NULL, 0))
TRY(use_keys, syscall(SYS_keyctl, 0, 0, 0, 0, 0))
TRY(use_events, syscall(SYS_perf_event_open, NULL, 0, 0, 0, 0))
TRY(fault_by_hand, syscall(SYS_userfaultfd, 0))
TRY(use_memory_as_code, mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0)
TRY(make_memory_code, mprotect((void *)((uintptr_t)&in_jail & ~(uintptr_t)4095), 4096, PROT_READ | PROT_WRITE | PROT_EXEC))
TRY(duplicate, syscall(SYS_fcntl, 0, F_DUPFD, 100))
TRY(own_signals, syscall(SYS_fcntl, 0, F_SETOWN, 1))
TRY(name_group, setpgid(0, 0))
TRY(become_other, setuid(1))
TRY(change_root, chroot("/"))
TRY(share_memory, syscall(SYS_shmget, 1, 4096, 0))
TRY(change_host, sethostname("x", 1))
TRY(wait_child, syscall(SYS_wait4, -1, NULL, WNOHANG, NULL))

static void test_forbidden_calls_end_the_process(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int (*try)(void);
    } tries[] = {
#define T(name) {#name, name}
        T(open_file), T(create_file), T(openat2_file), T(remove_file), T(rename_file), T(read_link), T(list_folder), T(change_mode),
        T(make_socket), T(make_unix_socket), T(make_pair), T(connect_somewhere), T(bind_somewhere), T(send_to),
        T(run_program), T(run_program_at), T(split_off), T(split_off_3), T(make_thread), T(kill_parent), T(kill_group), T(signal_init),
        T(signal_init_abort), T(trace_parent), T(read_other_process), T(write_other_process), T(open_process), T(take_descriptor),
        T(change_process), T(raise_limit), T(mount_something), T(make_namespace), T(enter_namespace), T(use_ring), T(use_bpf), T(use_keys),
        T(use_events), T(fault_by_hand), T(use_memory_as_code), T(make_memory_code), T(duplicate), T(own_signals), T(name_group),
        T(become_other), T(change_root), T(share_memory), T(change_host), T(wait_child),
#undef T
    };
    for (size_t i = 0; i < sizeof tries / sizeof *tries; i++) {
        int (*const jails[])(int (*)(void)) = {in_jail, in_worker_jail, in_worker_thread};
        for (size_t k = 0; k < sizeof jails / sizeof *jails; k++) {
            const int status = jails[k](tries[i].try);
            if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS) fail_msg("%s in jail %zu: status %#x", tries[i].name, k, status);
        }
    }
}

TRY(ask_terminal, syscall(SYS_ioctl, 0, 0x5401, NULL))
TRY(stat_file, syscall(SYS_newfstatat, AT_FDCWD, "/etc/passwd", NULL, 0))
TRY(ask_limits, syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, NULL))

static void test_harmless_calls_fail(void **state) {
    (void)state;
    static int (*const tries[])(void) = {ask_terminal, stat_file, ask_limits};
    for (size_t i = 0; i < sizeof tries / sizeof *tries; i++) {
        const int status = in_jail(tries[i]);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), REFUSED);
    }
}

/* What decoding does: memory small and large, files of memory, an assertion that fails. */
static int work(void) {
    for (size_t n = 16; n < (256u << 20); n *= 3) {
        char *p = malloc(n);
        if (!p) return 1;
        memset(p, 1, n < 65536 ? n : 65536);
        p = realloc(p, n * 2);
        if (!p) return 2;
        free(p);
    }
    int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || fallocate(fd, 0, 0, 65536) || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) || lseek(fd, 0, SEEK_END) != 65536) return 3;
    char *p = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) return 4;
    p[65535] = 'x';
    char c;
    if (pread(fd, &c, 1, 65535) != 1 || c != 'x' || munmap(p, 65536) || close(fd)) return 5;
    return 0;
}

/* What a worker does: memory, messages, pictures of others, threads that meet and end. */
static int memory_of_others = -1, sockets[2];

static int compute(void) {
    char *patches = mmap(NULL, 4096, PROT_READ, MAP_SHARED, memory_of_others, 0), *p = malloc(64u << 20), c = 'x';
    if (patches == MAP_FAILED || !p) return 1;
    memset(p, 1, 64u << 20);
    free(p);
    struct iovec v = {&c, 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
    if (sendmsg(sockets[0], &m, MSG_NOSIGNAL) != 1 || recvmsg(sockets[1], &m, 0) != 1) return 2;
    if (fcntl(memory_of_others, F_GET_SEALS) < 0 || lseek(memory_of_others, 0, SEEK_END) != 4096) return 3;
    return munmap(patches, 4096) || close(memory_of_others) ? 4 : 0;
}

static int make_memfd(void) {
    return memfd_create("test", 0) < 0 ? REFUSED : ALLOWED;
}

static void test_a_workers_work(void **state) {
    (void)state;
    memory_of_others = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_int_equal(ftruncate(memory_of_others, 4096), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
    int (*const jails[])(int (*)(void)) = {in_worker_jail, in_worker_thread};
    for (size_t k = 0; k < 2; k++) {
        int status = jails[k](compute);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) fail_msg("jail %zu: status %#x", k, status);
        status = jails[k](make_memfd);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
    }
    close(memory_of_others);
    close(sockets[0]);
    close(sockets[1]);
}

/* A GPU's driver may: open what is there, talk to it, start threads, which do the same. */
static void *open_and_ask(void *arg) {
    int fd = open("/dev/null", O_RDWR), *result = arg;
    *result = fd < 0 ? 1 : ioctl(fd, 0x5401, NULL) == 0 || errno != ENOTTY ? 2 : close(fd) ? 3 : 0;
    return NULL;
}

static int drive(void) {
    pthread_t thread;
    int here = -1, there = -1;
    open_and_ask(&here);
    if (here || pthread_create(&thread, NULL, open_and_ask, &there) || pthread_join(thread, NULL)) return 1;
    return there ? 2 : compute();
}

static void test_a_workers_work_on_a_device(void **state) {
    (void)state;
    /* Not those that the driver needs, nor two that ask about a descriptor of the process itself. */
    static const struct {
        const char *name;
        int (*try)(void);
    } tries[] = {
#define T(name) {#name, name}
        T(create_file), T(openat2_file), T(remove_file), T(rename_file), T(change_mode), T(make_socket), T(make_unix_socket), T(make_pair),
        T(connect_somewhere), T(bind_somewhere), T(send_to), T(run_program), T(run_program_at), T(split_off), T(split_off_3), T(kill_parent),
        T(kill_group), T(signal_init), T(signal_init_abort), T(trace_parent), T(read_other_process), T(write_other_process), T(open_process),
        T(take_descriptor), T(change_process), T(raise_limit), T(mount_something), T(make_namespace), T(enter_namespace), T(use_ring), T(use_bpf),
        T(use_keys), T(use_events), T(fault_by_hand), T(use_memory_as_code), T(make_memory_code), T(name_group), T(become_other), T(change_root),
        T(share_memory), T(change_host), T(wait_child), T(make_memfd),
#undef T
    };
    for (size_t i = 0; i < sizeof tries / sizeof *tries; i++) {
        const int status = child_status(enter_and_try, oc_worker_jail_filter_device, tries[i].try);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != REFUSED) fail_msg("%s: status %#x", tries[i].name, status);
    }
    memory_of_others = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_int_equal(ftruncate(memory_of_others, 4096), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
    const int status = child_status(enter_and_try, oc_worker_jail_filter_device, drive);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) fail_msg("status %#x", status);
    close(memory_of_others);
    close(sockets[0]);
    close(sockets[1]);
}

static int abort_in_jail(void) {
    abort();
}

static void test_allowed_work(void **state) {
    (void)state;
    int status = in_jail(work);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    status = in_jail(abort_in_jail);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
    assert_false(WCOREDUMP(status));
}

static int take_all_memory(void) {
    const size_t step = 64u << 20;
    for (size_t n = 0; n < (64ull << 30); n += step)
        if (mmap(NULL, step, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) == MAP_FAILED)
            return n > (3ull << 30) ? 0 : 1; /* enough for the largest picture, and an end */
    return 2;
}

static int take_all_descriptors(void) {
    for (int i = 0; i < 100; i++)
        if (memfd_create("test", 0) < 0) return errno == EMFILE && i <= 16 ? 0 : 1;
    return 2;
}

static int make_large_file(void) {
    int fd = memfd_create("test", 0);
    if (ftruncate(fd, (off_t)OC_LIMIT_IPC_PIXEL_BYTES) < 0) return 1;
    if (ftruncate(fd, (off_t)OC_LIMIT_IPC_PIXEL_BYTES + 1) == 0) return 2;
    return errno == EFBIG ? 0 : 3;
}

static void test_limits(void **state) {
    (void)state;
    static int (*const tries[])(void) = {take_all_memory, take_all_descriptors, make_large_file};
    for (size_t i = 0; i < sizeof tries / sizeof *tries; i++) {
        const int status = in_jail(tries[i]);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) fail_msg("limit %zu: status %#x", i, status);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forbidden_calls_end_the_process),
        cmocka_unit_test(test_harmless_calls_fail),
        cmocka_unit_test(test_allowed_work),
        cmocka_unit_test(test_a_workers_work),
        cmocka_unit_test(test_a_workers_work_on_a_device),
        cmocka_unit_test(test_limits),
    };
    if (!oc_worker_jail_is_possible()) {
        print_message("skipped: this build has a sanitizer, which the jail leaves out\n");
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
