/* server/runtime.h - the runtime directory: which processes belong to which orchestrator.
 *
 * Each instance has one file there, `<pid>.children`, locked while it lives: a line with the boot id, then a
 * line "pid start-time" for each child. A file whose lock can be had belongs to an orchestrator that was
 * killed: its children that still live (same boot, same start time, same program) are ended at the next
 * start. Instances side by side do not touch each other. Loop's thread only. */
#ifndef OC_SERVER_RUNTIME_H
#define OC_SERVER_RUNTIME_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/str.h"

struct oc_server_runtime;

/* Makes the directory (0700) when it is not there, ends leftovers (*n_ended of them) and takes the lock.
 * Errors: OC_ERR_IO (also: the directory belongs to someone else or is open to others), OC_ERR_NOMEM. */
OC_MUST_CHECK enum oc_err oc_server_runtime_open(const char *dir, struct oc_server_runtime **out,
                                                 int *n_ended, struct oc_errinfo *ei);
/* Removes this instance's file. NULL is allowed. */
void oc_server_runtime_close(struct oc_server_runtime *r);

/* Writes the list down; a write that fails costs only what a killed orchestrator leaves behind. */
void oc_server_runtime_add(struct oc_server_runtime *r, pid_t pid);
void oc_server_runtime_remove(struct oc_server_runtime *r, pid_t pid);

/* Field 22 of /proc/PID/stat, 0 when there is no such process. */
uint64_t oc_server_runtime_start_time(pid_t pid);
/* The same from the text of such a file; 0 when it is none. */
uint64_t oc_server_runtime_parse_stat(struct oc_str text);

/* One line "pid start-time"; false when it is none. */
bool oc_server_runtime_parse_child(struct oc_str line, pid_t *pid, uint64_t *start_time);

#endif
