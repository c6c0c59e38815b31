#include "server/machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/limits.h"

#define UNKNOWN_BYTES ((int64_t)(32 * OC_GIB))

/* The number in a file; INT64_MAX when there is none ("max" included). */
static int64_t read_limit(const char *path) {
    char text[32] = "";
    FILE *f = fopen(path, "re");
    if (!f) return INT64_MAX;
    char *got = fgets(text, sizeof text, f), *end = text;
    fclose(f);
    long long v = got ? strtoll(text, &end, 10) : 0;
    return end == text || v <= 0 ? INT64_MAX : v;
}

/* The lowest limit in a group's directory and those above it, up to the root of the tree. */
static int64_t lowest_above(const char *root, const char *group, const char *file) {
    int64_t lowest = INT64_MAX;
    char dir[OC_LIMIT_PATH_BYTES], path[OC_LIMIT_PATH_BYTES + 64];
    if (snprintf(dir, sizeof dir, "%s%s", root, group) >= (int)sizeof dir) return lowest;
    size_t n_root = strlen(root);
    for (;;) {
        snprintf(path, sizeof path, "%s/%s", dir, file);
        int64_t v = read_limit(path);
        if (v < lowest) lowest = v;
        char *slash = strrchr(dir, '/');
        if (strlen(dir) <= n_root || !slash || slash < dir + n_root) return lowest;
        *slash = '\0';
    }
}

int64_t oc_machine_memory_in(const char *proc, const char *cgroup, int64_t physical_bytes) {
    int64_t lowest = physical_bytes > 0 ? physical_bytes : INT64_MAX;
    char path[OC_LIMIT_PATH_BYTES], v1[OC_LIMIT_PATH_BYTES], line[OC_LIMIT_PATH_BYTES];
    snprintf(path, sizeof path, "%s/self/cgroup", proc);
    snprintf(v1, sizeof v1, "%s/memory", cgroup);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f)) { /* "0::/group" in v2, "4:memory:/group" in v1 */
        line[strcspn(line, "\n")] = '\0';
        char *first = strchr(line, ':'), *second = first ? strchr(first + 1, ':') : NULL;
        if (!second || strstr(second, "/..")) continue;
        int64_t v = INT64_MAX;
        if (second == first + 1)
            v = lowest_above(cgroup, second + 1, "memory.max");
        else if (!strncmp(first, ":memory:", 8))
            v = lowest_above(v1, second + 1, "memory.limit_in_bytes");
        if (v < lowest) lowest = v;
    }
    if (f) fclose(f);
    return lowest == INT64_MAX ? UNKNOWN_BYTES : lowest;
}

int64_t oc_machine_memory(void) {
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGE_SIZE);
    int64_t physical = pages > 0 && page > 0 ? (int64_t)pages * page : 0;
    return oc_machine_memory_in("/proc", "/sys/fs/cgroup", physical);
}
