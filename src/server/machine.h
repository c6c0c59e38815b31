/* server/machine.h - what this machine has, as far as this process may use it. Any thread; no state. */
#ifndef OC_SERVER_MACHINE_H
#define OC_SERVER_MACHINE_H

#include <stdint.h>

/* Physical memory, or the lowest limit of the cgroups this process is in. 32 GiB when nothing can be found out. */
int64_t oc_machine_memory(void);

/* The same, with the two trees at other places. For tests. */
int64_t oc_machine_memory_in(const char *proc, const char *cgroup, int64_t physical_bytes);

#endif
