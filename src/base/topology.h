/* base/topology.h - the machine's CPUs as a process may use them: physical cores and NUMA nodes.
 *
 * Source: Linux, Documentation/ABI/stable/sysfs-devices-system-cpu (topology/thread_siblings_list) and
 * sysfs-devices-node (nodeN/cpulist). What cannot be read counts as one core a CPU, all on one node. */
#ifndef OC_BASE_TOPOLOGY_H
#define OC_BASE_TOPOLOGY_H

#include <sched.h>
#include <stdbool.h>

#define OC_TOPOLOGY_MAX_NODES 64

struct oc_topology_node {
    int id, n_cores;
    cpu_set_t cpus; /* those that may be used */
};

struct oc_topology {
    int n_cores; /* that may be used; CPUs that share a core count once */
    int n_nodes; /* that have such cores, at least 1 */
    struct oc_topology_node nodes[OC_TOPOLOGY_MAX_NODES];
};

/* sys: where sysfs is mounted ("/sys"). allowed: an affinity mask with at least one CPU. */
void oc_topology_read(const char *sys, const cpu_set_t *allowed, struct oc_topology *out);

/* Of this machine, for the calling thread. */
void oc_topology_read_own(struct oc_topology *out);

/* The index in nodes[] of thread 0 <= i < n_threads: runs of threads, as long as the nodes have cores. */
int oc_topology_node_of(const struct oc_topology *t, int i, int n_threads);

/* on: the calling thread takes new pages, those of files included, from all nodes of t in turn; off: again from the node it
 * runs on. Nothing happens on a machine of one node. */
void oc_topology_interleave(const struct oc_topology *t, bool on);

#endif
