/* server/process.h - figures of this process and its children out of /proc. Any thread but for the last. */
#ifndef OC_SERVER_PROCESS_H
#define OC_SERVER_PROCESS_H

#include <stdint.h>

#include "server/server.h"

int64_t oc_server_process_rss(int pid); /* bytes; pid 0: this one; 0 when there is no such process */
int oc_server_process_n_fds(void);
double oc_server_process_cpu_s(void);
/* Resident memory of all workers together. */
int64_t oc_server_process_workers_rss(const struct oc_server *s);

#endif
