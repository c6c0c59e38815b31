/* check_kernels [--isa X | --device cuda[:PLUGIN]] [--quick | --few] [--seed N] [--bench [--decode] [--threads N] [--csv FILE]]: checks (or times) the kernels this machine can run. */
#include <stdio.h>
#include <stdlib.h>

#include <string.h>
#include <unistd.h>

#include "base/limits.h"
#include "check.h"
#include "device_ops.h"

static void close_pools(struct chk *c) {
    for (int i = 0; i < 4; i++) oc_pool_close(c->pools[i]);
}

static void all_checks(struct chk *c, bool model) {
    struct oc_errinfo ei;
    for (int i = 0; i < 4; i++) {
        if (oc_pool_open(i + 1, &c->pools[i], &ei) != OC_OK) {
            printf("%s\n", ei.msg);
            exit(1);
        }
    }
    if (!model && !c->ops.int8) check_small(c); /* a model has another ISA's, int8 changes the linears only */
    check_linear(c);
    if (!c->ops.int8) check_attn(c);
    if (c->ops.int8 || c->ops.x_digits) check_int8(c);
    if (c->ops.int16) check_int16(c);
    if (!c->few && (!model || !c->quick)) check_invariance(c);
    close_pools(c);
}

static int check_isa(const char *isa, bool quick, uint64_t seed) {
    struct oc_errinfo ei;
    struct chk c = {.rng = seed, .quick = quick};
    bool model = amx_model_ops(&c.ops, isa ? isa : "");
    if (!model && !ops_by_name(&c.ops, isa ? isa : "auto", &ei)) {
        printf("%s\n", ei.msg);
        return 1;
    }
    all_checks(&c, model);
    return c.n_failures;
}

/* The plug-in that "cuda" stands for lies beside this program; "cuda:PATH" names another. */
static void plugin_path(const char *device, char *path, size_t bytes) {
    const char *colon = strchr(device, ':');
    char self[1024];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(self, '/');
    if (slash) *slash = '\0';
    if (colon) {
        snprintf(path, bytes, "%s", colon + 1);
    } else {
        snprintf(path, bytes, "%s/libocellus-%s.so", self, device);
    }
}

static int check_plugin(const char *device, bool quick, bool timing, bool few, uint64_t seed) {
    struct oc_errinfo ei;
    struct chk c = {.rng = seed, .quick = quick || few, .few = few};
    struct under_test *t;
    char path[1200];
    plugin_path(device, path, sizeof path);
    if (!device_ops(path, &c.ops, &t, &ei)) {
        printf("%s\n", ei.msg);
        return 1;
    }
    printf("%s, %.1f GiB free\n", device_of(t)->name, (double)device_of(t)->free_bytes / (double)OC_GIB);
    c.device = t;
    if (timing) {
        bench_device(device_of(t), quick);
    } else {
        check_device(&c, device_of(t));
        all_checks(&c, false);
        if (!few) check_real_bits(&c, t);
        check_refusal(&c, t);
        printf("%s: %s, %d failures\n", c.n_failures ? "FAIL" : "ok", device, c.n_failures);
    }
    device_ops_close(t);
    return c.n_failures;
}

int main(int argc, char **argv) {
    static const char *const names[] = {"ref",  "ref-int8",  "avx2", "avx2-int8", "avxvnni", "avx512",        "avx512-int8", "avx512vnni", "avx512vnni24", "avx512bf16",
                                        "amx-model", "amx", "amxint16", "amxint16-model", "amxmany", "amxmany-model", "amxbf16", "amxbf16-model",
                                        "neon", "neondot", "neondot-int8", "neonmm", "neonmm-int8"};
    const char *only = NULL, *csv = NULL, *device = NULL;
    bool quick = false, few = false, timing = false, decode_only = false;
    int n_threads = 0;
    uint64_t seed = 1;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--quick") == 0) {
            quick = true;
        } else if (strcmp(argv[i], "--few") == 0) {
            few = true;
        } else if (strcmp(argv[i], "--bench") == 0) {
            timing = true;
        } else if (strcmp(argv[i], "--decode") == 0) {
            decode_only = true;
        } else if (strcmp(argv[i], "--isa") == 0 && i + 1 < argc) {
            only = argv[++i];
        } else if (strcmp(argv[i], "--device") == 0 && i + 1 < argc) {
            device = argv[++i];
        } else if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc) {
            n_threads = atoi(argv[++i]);
        } else if (strcmp(argv[i], "--csv") == 0 && i + 1 < argc) {
            csv = argv[++i];
        } else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc) {
            seed = strtoull(argv[++i], NULL, 10);
        } else {
            fprintf(stderr, "usage: check_kernels [--isa X | --device cuda[:PLUGIN]] [--quick | --few] [--seed N] [--bench [--decode] [--threads N] [--csv FILE]]\n");
            return 2;
        }
    }
    if (device) return check_plugin(device, quick, timing, few, seed) ? 1 : 0;
    if (timing) {
        bench(only, quick, decode_only, n_threads, csv);
        return 0;
    }
    int failures = 0, n_isas = 0;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct oc_ops ops;
        struct oc_errinfo ei;
        if (only && strcmp(only, names[i]) != 0) continue;
        if (!only && !amx_model_ops(&ops, names[i]) && !ops_by_name(&ops, names[i], &ei)) continue;
        failures += check_isa(names[i], quick, seed);
        n_isas++;
    }
    if (n_isas == 0) failures += check_isa(only, quick, seed);
    printf("%s: %d ISAs, %d failures\n", failures ? "FAIL" : "ok", n_isas, failures);
    return failures ? 1 : 0;
}
