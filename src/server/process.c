#include "server/process.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "server/models.h"

int64_t oc_server_process_rss(int pid) {
    char path[64], text[128];
    if (pid)
        snprintf(path, sizeof path, "/proc/%d/statm", pid);
    else
        snprintf(path, sizeof path, "/proc/self/statm");
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
    if (fd >= 0) close(fd);
    if (n <= 0) return 0;
    text[n] = 0;
    char *second;
    strtoll(text, &second, 10);
    return strtoll(second, NULL, 10) * sysconf(_SC_PAGESIZE);
}

int oc_server_process_n_fds(void) {
    DIR *d = opendir("/proc/self/fd");
    int n = 0;
    while (d && readdir(d)) n++;
    if (d) closedir(d);
    return n > 3 ? n - 3 : 0; /* ".", "..", and the directory's own */
}

double oc_server_process_cpu_s(void) {
    struct rusage u;
    if (getrusage(RUSAGE_SELF, &u)) return 0;
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

int64_t oc_server_process_workers_rss(const struct oc_server *s) {
    int64_t sum = 0;
    for (const struct oc_server_model *m = s->models->first; m; m = m->next)
        if (m->worker) sum += oc_server_process_rss(oc_server_worker_pid(m->worker));
    return sum;
}
