#define _GNU_SOURCE
#include "base/topology.h"

#include <linux/mempolicy.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* "0-3,8,10-11" and a newline; false when the file is not there or says something else. */
static bool read_list(const char *path, cpu_set_t *out) {
    char text[4096];
    FILE *f = fopen(path, "re");
    CPU_ZERO(out);
    if (!f) return false;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = 0;
    for (char *p = text; *p && *p != '\n';) {
        char *end;
        long lo = strtol(p, &end, 10), hi = lo;
        if (end == p) return false;
        if (*end == '-') {
            p = end + 1;
            hi = strtol(p, &end, 10);
            if (end == p) return false;
        }
        if (lo < 0 || hi < lo || hi >= CPU_SETSIZE) return false;
        for (long i = lo; i <= hi; i++) CPU_SET((int)i, out);
        p = *end == ',' ? end + 1 : end;
        if (*end && *end != ',' && *end != '\n') return false;
    }
    return CPU_COUNT(out) > 0;
}

/* One CPU stands for its core: the first of the core that may be used. */
static bool stands_for_core(const char *sys, int cpu, const cpu_set_t *allowed) {
    char path[256];
    cpu_set_t siblings;
    snprintf(path, sizeof path, "%.180s/devices/system/cpu/cpu%d/topology/thread_siblings_list", sys, cpu);
    if (!read_list(path, &siblings)) return true;
    for (int i = 0; i < cpu; i++)
        if (CPU_ISSET(i, &siblings) && CPU_ISSET(i, allowed)) return false;
    return true;
}

static int count_cores(const char *sys, const cpu_set_t *cpus, const cpu_set_t *allowed) {
    int n = 0;
    for (int i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, cpus)) n += stands_for_core(sys, i, allowed);
    return n;
}

void oc_topology_read(const char *sys, const cpu_set_t *allowed, struct oc_topology *out) {
    cpu_set_t left = *allowed;
    memset(out, 0, sizeof *out);
    for (int id = 0; id < OC_TOPOLOGY_MAX_NODES; id++) {
        char path[256];
        struct oc_topology_node *node = &out->nodes[out->n_nodes];
        snprintf(path, sizeof path, "%.180s/devices/system/node/node%d/cpulist", sys, id);
        if (!read_list(path, &node->cpus)) continue;
        CPU_AND(&node->cpus, &node->cpus, &left);
        if (CPU_COUNT(&node->cpus) == 0) continue;
        CPU_XOR(&left, &left, &node->cpus);
        node->id = id;
        node->n_cores = count_cores(sys, &node->cpus, allowed);
        out->n_cores += node->n_cores;
        out->n_nodes++;
    }
    if (CPU_COUNT(&left) == 0) return;
    /* CPUs of no node, or no nodes at all: the machine is taken for one node. */
    out->n_nodes = 1;
    out->nodes[0] = (struct oc_topology_node){.cpus = *allowed, .n_cores = count_cores(sys, allowed, allowed)};
    out->n_cores = out->nodes[0].n_cores;
}

void oc_topology_read_own(struct oc_topology *out) {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) != 0 || CPU_COUNT(&set) == 0) CPU_SET(0, &set);
    oc_topology_read("/sys", &set, out);
}

int oc_topology_node_of(const struct oc_topology *t, int i, int n_threads) {
    long core = (long)i * t->n_cores / n_threads;
    for (int k = 0; k < t->n_nodes; k++) {
        if (core < t->nodes[k].n_cores) return k;
        core -= t->nodes[k].n_cores;
    }
    return t->n_nodes - 1;
}

void oc_topology_interleave(const struct oc_topology *t, bool on) {
    unsigned long mask = 0;
    if (t->n_nodes < 2) return;
    for (int k = 0; k < t->n_nodes; k++) mask |= 1UL << t->nodes[k].id;
    /* Refused in some containers; then pages lie where they are first used, which is slower, not wrong. */
    (void)syscall(SYS_set_mempolicy, on ? MPOL_INTERLEAVE : MPOL_DEFAULT, on ? &mask : NULL, on ? sizeof mask * 8 + 1 : 0);
}
