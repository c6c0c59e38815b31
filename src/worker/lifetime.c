#define _GNU_SOURCE /* close_range */
#include "worker/lifetime.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

bool oc_worker_lifetime_bind(int parent_pid) {
    const pid_t parent = parent_pid > 0 ? parent_pid : getppid();
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0) return false;
    return getppid() == parent; /* else it died before the line above, which then sees nothing */
}

enum oc_err oc_worker_lifetime_watch_signals(int *fd, struct oc_errinfo *ei) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    signal(SIGINT, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    *fd = -1;
    if (sigprocmask(SIG_BLOCK, &set, NULL) == 0) *fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    return *fd >= 0 ? OC_OK : oc_fail(ei, OC_ERR_IO, "no descriptor for signals: %s", strerror(errno));
}

bool oc_worker_lifetime_signal_came(int fd) {
    struct signalfd_siginfo info;
    return read(fd, &info, sizeof info) == (ssize_t)sizeof info;
}

static void close_from_to(int first, int last) {
    if (first < 3) first = 3;
    if (first <= last) close_range((unsigned)first, (unsigned)last, 0);
}

void oc_worker_lifetime_close_others(int fd, int other_fd) {
    const int low = fd < other_fd ? fd : other_fd, high = fd < other_fd ? other_fd : fd;
    close_from_to(3, low - 1);
    close_from_to(low + 1, high - 1);
    close_from_to(high + 1, INT_MAX);
}
