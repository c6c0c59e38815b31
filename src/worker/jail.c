#define _GNU_SOURCE
#include "worker/jail.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/limits.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

#define MAX_DESCRIPTORS 16
/* Per pixel at most: 3 bytes decoded, 3 turned upright, 12 of coefficients or rows inside a decoder, 6 of resampling. */
#define BYTES_PER_PIXEL 24u
#define OTHER_BYTES OC_GIB /* stacks, libraries, strips; what is handed over is written to its file, not mapped */

bool oc_worker_jail_is_possible(void) {
    return !SANITIZED;
}

/* ---- Limits ----------------------------------------------------------------------------------------------- */

/* The first number of /proc/self/statm: pages of address space in use, which the limit counts too. */
static size_t mapped_bytes(void) {
    FILE *f = fopen("/proc/self/statm", "re");
    unsigned long pages = 0;
    if (f && fscanf(f, "%lu", &pages) != 1) pages = 0;
    if (f) fclose(f);
    return pages ? pages * (size_t)sysconf(_SC_PAGESIZE) : OC_GIB;
}

static enum oc_err limit(int what, rlim_t value, const char *name, struct oc_errinfo *ei) {
    struct rlimit r;
    if (getrlimit(what, &r) == 0) {
        if (r.rlim_max != RLIM_INFINITY && r.rlim_max < value) value = r.rlim_max;
        r.rlim_cur = r.rlim_max = value;
        if (setrlimit(what, &r) == 0) return OC_OK;
    }
    return oc_fail(ei, OC_ERR_IO, "the limit %s cannot be set: %s", name, strerror(errno));
}

enum oc_err oc_worker_jail_limit(struct oc_errinfo *ei) {
    const rlim_t as = mapped_bytes() + OC_LIMIT_IMAGE_PIXELS * BYTES_PER_PIXEL + OC_LIMIT_IMAGE_BYTES + OTHER_BYTES;
    OC_TRY(limit(RLIMIT_CORE, 0, "RLIMIT_CORE", ei));
    OC_TRY(limit(RLIMIT_NOFILE, MAX_DESCRIPTORS, "RLIMIT_NOFILE", ei));
    OC_TRY(limit(RLIMIT_FSIZE, OC_LIMIT_IPC_PIXEL_BYTES, "RLIMIT_FSIZE", ei));
    OC_TRY(limit(RLIMIT_AS, as, "RLIMIT_AS", ei));
    signal(SIGXFSZ, SIG_IGN); /* too large a file is an error of the call */
    if (prctl(PR_SET_DUMPABLE, 0) == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0) return OC_OK;
    return oc_fail(ei, OC_ERR_IO, "the process cannot give up its privileges: %s", strerror(errno));
}

/* ---- System calls ----------------------------------------------------------------------------------------- */

/* A call, and which values of one or two arguments are allowed. */
struct rule {
    int call;
    unsigned n_args;
    struct scmp_arg_cmp args[2];
};

#define CALL(name) {SCMP_SYS(name), 0, {{0}}}
#define CALL1(name, a) {SCMP_SYS(name), 1, {a}}
#define NO_CODE {2, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0}
#define FCNTL(command) {1, SCMP_CMP_EQ, (command), 0}

static const struct rule allowed[] = {
    CALL(read), CALL(write), CALL(writev), CALL(pread64), CALL(lseek), CALL(close), CALL(recvmsg), CALL(sendmsg), CALL(poll),
    CALL(ppoll), CALL(fstat),
    CALL1(mmap, NO_CODE), CALL1(mprotect, NO_CODE), CALL(munmap), CALL(mremap), CALL(madvise), CALL(brk),
    CALL1(fcntl, FCNTL(F_GET_SEALS)), CALL1(fcntl, FCNTL(F_GETFD)), CALL1(fcntl, FCNTL(F_GETFL)),
    CALL(futex), CALL(sched_yield), CALL(restart_syscall), CALL(clock_gettime), CALL(gettimeofday), CALL(getrandom),
    CALL(rt_sigprocmask), CALL(rt_sigaction), CALL(rt_sigreturn), CALL(getpid), CALL(gettid), CALL(exit), CALL(exit_group),
};

/* An image-worker makes the memfds of pixels; a worker only reads them. */
static const struct rule allowed_maker[] = {
    CALL(memfd_create), CALL(ftruncate), CALL(fallocate), CALL1(fcntl, FCNTL(F_ADD_SEALS)),
};

/* A worker's threads may just be starting. */
static const struct rule allowed_threads[] = {
    CALL(set_robust_list), CALL(rseq),
};

/* Asked by the C library now and then; it can do without. */
static const struct rule denied[] = {
    CALL(sysinfo), CALL(uname), CALL(getcpu), CALL(sched_getaffinity), CALL(ioctl), CALL(newfstatat), CALL(statx), CALL(getrusage),
    CALL(prlimit64), CALL(getrlimit), CALL(sigaltstack), CALL(clock_nanosleep), CALL(clock_getres), CALL(times), CALL(getppid),
    CALL(getuid), CALL(geteuid), CALL(getgid), CALL(getegid),
};

/* What the library of a GPU's driver does besides, whenever it likes: it talks to the device's files, starts threads of its own,
 * looks things up. Files are not made, and nothing that comes in becomes code. */
#define NO_NEW_FILE {2, SCMP_CMP_MASKED_EQ, O_CREAT, 0}
#define THREAD_ONLY {0, SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD}
static const struct rule allowed_device[] = {
    CALL(ioctl), CALL1(openat, NO_NEW_FILE), CALL1(clone, THREAD_ONLY), CALL(fcntl), CALL(readv), CALL(dup), CALL(dup3), CALL(eventfd2),
    CALL(pipe2), CALL(epoll_create1), CALL(epoll_ctl), CALL(epoll_wait), CALL(epoll_pwait), CALL(select), CALL(pselect6), CALL(nanosleep),
    CALL(clock_nanosleep), CALL(clock_getres), CALL(access), CALL(faccessat), CALL(faccessat2), CALL(stat), CALL(lstat), CALL(newfstatat), CALL(statx),
    CALL(readlink), CALL(readlinkat), CALL(getdents64), CALL(mlock), CALL(mlock2), CALL(munlock), CALL(mincore), CALL(mbind), CALL(get_mempolicy),
    CALL(set_mempolicy), CALL(membarrier), CALL(sysinfo), CALL(uname), CALL(getcpu), CALL(sched_getaffinity), CALL(sched_setaffinity),
    CALL(sched_getparam), CALL(sched_getscheduler), CALL(getrusage), CALL(getrlimit), CALL(times), CALL(sigaltstack), CALL(getppid), CALL(getuid),
    CALL(geteuid), CALL(getgid), CALL(getegid), CALL(set_tid_address),
};

/* clone3 hides its flags; the C library takes clone where there is no clone3. */
static const struct rule absent_device[] = {CALL(clone3)};

/* ---- Filters ---------------------------------------------------------------------------------------------- */

struct list {
    uint32_t action;
    const struct rule *rules;
    size_t n;
};

/* What a process may do: for calls in no list, `otherwise`. */
struct filter {
    uint32_t otherwise;
    bool all_threads; /* or this one alone, where there is no other */
    struct list lists[4];
};

#define LIST(action, rules) {action, rules, sizeof(rules) / sizeof *(rules)}

static const struct filter image_worker = {
    SCMP_ACT_KILL_PROCESS, false,
    {LIST(SCMP_ACT_ALLOW, allowed), LIST(SCMP_ACT_ALLOW, allowed_maker), LIST(SCMP_ACT_ERRNO(EPERM), denied)}};

static const struct filter cpu_worker = {
    SCMP_ACT_KILL_PROCESS, true,
    {LIST(SCMP_ACT_ALLOW, allowed), LIST(SCMP_ACT_ALLOW, allowed_threads), LIST(SCMP_ACT_ERRNO(EPERM), denied)}};

/* A driver that is refused something goes on without it, or says so; to kill it would be to guess what it needs. */
static const struct filter device_worker = {
    SCMP_ACT_ERRNO(EPERM), true,
    {LIST(SCMP_ACT_ALLOW, allowed), LIST(SCMP_ACT_ALLOW, allowed_threads), LIST(SCMP_ACT_ALLOW, allowed_device),
     LIST(SCMP_ACT_ERRNO(ENOSYS), absent_device)}};

static int add_list(scmp_filter_ctx ctx, const struct list *list) {
    for (const struct rule *rule = list->rules; rule < list->rules + list->n; rule++) {
        if (rule->call < 0) continue; /* this machine has no such call */
        int r = seccomp_rule_add_array(ctx, list->action, rule->call, rule->n_args, rule->args);
        if (r < 0) return r;
    }
    return 0;
}

/* abort() signals the process itself, and nobody else may be signalled. */
static int add_abort(scmp_filter_ctx ctx) {
    const struct scmp_arg_cmp args[2] = {{0, SCMP_CMP_EQ, (scmp_datum_t)getpid(), 0}, {2, SCMP_CMP_EQ, SIGABRT, 0}};
    return seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 2, args);
}

static int load(const struct filter *filter) {
    scmp_filter_ctx ctx = seccomp_init(filter->otherwise);
    int r = ctx ? 0 : -ENOMEM;
    for (size_t i = 0; !r && i < sizeof filter->lists / sizeof *filter->lists; i++) r = add_list(ctx, &filter->lists[i]);
    if (!r) r = add_abort(ctx);
    if (!r && filter->all_threads) r = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1); /* for all threads, or none */
    if (!r) r = seccomp_load(ctx);
    if (ctx) seccomp_release(ctx);
    return r;
}

static enum oc_err no_filter(int r, const char *what_to_do, struct oc_errinfo *ei) {
    return oc_fail(ei, OC_ERR_UNSUPPORTED, "system calls cannot be filtered (%s): this kernel or container has no seccomp; %s",
                   strerror(-r), what_to_do);
}

enum oc_err oc_worker_jail_filter(struct oc_errinfo *ei) {
    const int r = load(&image_worker);
    return r ? no_filter(r, "--no-jail goes on without", ei) : OC_OK;
}

enum oc_err oc_worker_jail_filter_threads(struct oc_errinfo *ei) {
    const int r = load(&cpu_worker);
    return r ? no_filter(r, "let the container have it", ei) : OC_OK;
}

enum oc_err oc_worker_jail_filter_device(struct oc_errinfo *ei) {
    const int r = load(&device_worker);
    return r ? no_filter(r, "let the container have it", ei) : OC_OK;
}
