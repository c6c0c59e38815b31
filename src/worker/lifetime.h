/* worker/lifetime.h - how a child process ends with its parent, and on request.
 *
 * Called first by both roles, before any thread exists. */
#ifndef OC_WORKER_LIFETIME_H
#define OC_WORKER_LIFETIME_H

#include <stdbool.h>

#include "base/err.h"

/* From now on the process is killed when its parent dies. False when that has happened already. parent_pid 0: whoever
 * is the parent now. */
bool oc_worker_lifetime_bind(int parent_pid);

/* Blocks SIGTERM, in this thread and those it starts, and gives a descriptor that can be polled for it; SIGINT and
 * SIGHUP, which a terminal sends to parent and child alike, are ignored: the parent decides. Errors: OC_ERR_IO. */
OC_MUST_CHECK enum oc_err oc_worker_lifetime_watch_signals(int *fd, struct oc_errinfo *ei);

/* True when SIGTERM came to such a descriptor; does not wait. */
bool oc_worker_lifetime_signal_came(int fd);

/* Closes every descriptor from 3 on but these two, which may be the same: whatever else was inherited by mistake must
 * not stay open for as long as this process lives. */
void oc_worker_lifetime_close_others(int fd, int other_fd);

#endif
