/* worker/jail.h - what a process gives up before it works on what strangers sent.
 *
 * Afterwards it can compute, take memory within bounds, and talk over the descriptors that it has: no files, no
 * network, no other processes, no new code. */
#ifndef OC_WORKER_JAIL_H
#define OC_WORKER_JAIL_H

#include <stdbool.h>

#include "base/err.h"

/* False in a build with a sanitizer, whose run time needs what the jail forbids. */
bool oc_worker_jail_is_possible(void);

/* Limits of the process: memory, descriptors, size of files, no core dumps; not dumpable, no new privileges. Errors:
 * OC_ERR_IO. */
OC_MUST_CHECK enum oc_err oc_worker_jail_limit(struct oc_errinfo *ei);

/* Only the system calls that decoding needs, from now on: another one ends the process (SIGSYS), save a few harmless
 * ones, which fail with EPERM. For the calling thread and those it starts. Errors: OC_ERR_UNSUPPORTED with what to do. */
OC_MUST_CHECK enum oc_err oc_worker_jail_filter(struct oc_errinfo *ei);

/* The same for a worker once its model is loaded, less the making of memfds, and for all threads that it has. There are no
 * limits: what it may take was measured. Threads should share one arena of malloc, or the C library opens a file to see
 * whether it may shrink another. Errors: as above. */
OC_MUST_CHECK enum oc_err oc_worker_jail_filter_threads(struct oc_errinfo *ei);

/* The same for a worker whose model is on a GPU, whose driver needs more: it may open files that are there, talk to devices and start
 * threads. What is not allowed fails with EPERM and does not end the process: no network, no programs, no other
 * processes, no new files, no new code. Errors: as above. */
OC_MUST_CHECK enum oc_err oc_worker_jail_filter_device(struct oc_errinfo *ei);

#endif
