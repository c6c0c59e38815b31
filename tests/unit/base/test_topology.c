/* CPUs, cores and NUMA nodes, from trees like /sys that the tests write. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/topology.h"

static int set_up(void **state) {
    char *dir = malloc(128);
    snprintf(dir, 128, "%s/topology-XXXXXX", OC_TEST_TMP);
    assert_non_null(mkdtemp(dir));
    *state = dir;
    return 0;
}

static int tear_down(void **state) {
    char command[256];
    snprintf(command, sizeof command, "rm -rf '%s'", (char *)*state);
    assert_int_equal(system(command), 0);
    free(*state);
    return 0;
}

static void put(const char *dir, const char *name, const char *text) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    for (char *p = path + strlen(dir) + 1; (p = strchr(p, '/')); *p++ = '/') {
        *p = 0;
        (void)mkdir(path, 0700);
    }
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void put_siblings(const char *dir, int cpu, const char *list) {
    char name[128];
    snprintf(name, sizeof name, "devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    put(dir, name, list);
}

static cpu_set_t range(int lo, int hi) {
    cpu_set_t s;
    CPU_ZERO(&s);
    for (int i = lo; i <= hi; i++) CPU_SET(i, &s);
    return s;
}

static void nothing_to_read_is_one_core_a_cpu(void **state) {
    struct oc_topology t;
    cpu_set_t allowed = range(2, 7);
    oc_topology_read(*state, &allowed, &t);
    assert_int_equal(t.n_cores, 6);
    assert_int_equal(t.n_nodes, 1);
    assert_true(CPU_EQUAL(&t.nodes[0].cpus, &allowed));
}

static void siblings_are_one_core(void **state) {
    struct oc_topology t;
    cpu_set_t all = range(0, 7), some = range(3, 5);
    const char *lists[] = {"0,4\n", "1,5\n", "2,6\n", "3,7\n"};
    for (int i = 0; i < 8; i++) put_siblings(*state, i, lists[i % 4]);
    oc_topology_read(*state, &all, &t);
    assert_int_equal(t.n_cores, 4);
    oc_topology_read(*state, &some, &t); /* 3, 4 and 5 share no core */
    assert_int_equal(t.n_cores, 3);
    CPU_SET(0, &some);
    oc_topology_read(*state, &some, &t);
    assert_int_equal(t.n_cores, 3);
}

/* 64 cores of two threads on two nodes, the second threads numbered after all first ones. */
static void put_large(const char *dir) {
    char list[32];
    put(dir, "devices/system/node/node0/cpulist", "0-31,64-95\n");
    put(dir, "devices/system/node/node1/cpulist", "32-63,96-127\n");
    for (int i = 0; i < 128; i++) {
        snprintf(list, sizeof list, "%d,%d\n", i % 64, i % 64 + 64);
        put_siblings(dir, i, list);
    }
}

static void nodes_share_out_the_threads(void **state) {
    struct oc_topology t;
    cpu_set_t all = range(0, 127), few = range(24, 47);
    put_large(*state);
    oc_topology_read(*state, &all, &t);
    assert_int_equal(t.n_cores, 64);
    assert_int_equal(t.n_nodes, 2);
    assert_int_equal(t.nodes[1].n_cores, 32);
    assert_int_equal(CPU_COUNT(&t.nodes[1].cpus), 64);
    assert_false(CPU_ISSET(31, &t.nodes[1].cpus));
    for (int i = 0; i < 64; i++) assert_int_equal(oc_topology_node_of(&t, i, 64), i / 32);
    for (int i = 0; i < 6; i++) assert_int_equal(oc_topology_node_of(&t, i, 6), i / 3);
    for (int i = 0; i < 128; i++) assert_int_equal(oc_topology_node_of(&t, i, 128), i / 64);
    oc_topology_read(*state, &few, &t); /* 8 cores of the first node, 16 of the second */
    assert_int_equal(t.n_cores, 24);
    for (int i = 0; i < 24; i++) assert_int_equal(oc_topology_node_of(&t, i, 24), i >= 8);
}

static void a_node_without_usable_cpus_is_left_out(void **state) {
    struct oc_topology t;
    cpu_set_t second = range(32, 63);
    put_large(*state);
    oc_topology_read(*state, &second, &t);
    assert_int_equal(t.n_nodes, 1);
    assert_int_equal(t.nodes[0].id, 1);
    assert_int_equal(t.n_cores, 32);
}

static void what_cannot_be_understood_is_one_node(void **state) {
    const char *const lists[] = {"", "\n", "x\n", "3-1\n", "0-\n", "-3\n", "0;1\n", "0-99999\n", "0-1,\377\n", "0-1\n"};
    cpu_set_t allowed = range(0, 3);
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        struct oc_topology t;
        put(*state, "devices/system/node/node0/cpulist", lists[i]);
        oc_topology_read(*state, &allowed, &t);
        assert_int_equal(t.n_nodes, 1);
        assert_int_equal(t.n_cores, 4);
    }
}

static void this_machine(void **state) {
    struct oc_topology t;
    (void)state;
    oc_topology_read_own(&t);
    assert_in_range(t.n_cores, 1, CPU_SETSIZE);
    assert_in_range(t.n_nodes, 1, OC_TOPOLOGY_MAX_NODES);
    oc_topology_interleave(&t, true);
    oc_topology_interleave(&t, false);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        CASE(nothing_to_read_is_one_core_a_cpu),
        CASE(siblings_are_one_core),
        CASE(nodes_share_out_the_threads),
        CASE(a_node_without_usable_cpus_is_left_out),
        CASE(what_cannot_be_understood_is_one_node),
        CASE(this_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
