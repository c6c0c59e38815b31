/* check_kernels [--isa X] [--quick] [--seed N] [--bench [--decode] [--threads N] [--csv FILE]]: checks (or times) the kernels this machine can run. */
#include <stdio.h>
#include <stdlib.h>

#include "check.h"

static int check_isa(const char *isa, bool quick, uint64_t seed) {
    struct oc_errinfo ei;
    struct chk c = {.rng = seed, .quick = quick};
    bool model = amx_model_ops(&c.ops, isa ? isa : "");
    if (!model && !ops_by_name(&c.ops, isa ? isa : "auto", &ei)) {
        printf("%s\n", ei.msg);
        return 1;
    }
    for (int i = 0; i < 4; i++) {
        if (oc_pool_open(i + 1, &c.pools[i], &ei) != OC_OK) {
            printf("%s\n", ei.msg);
            exit(1);
        }
    }
    if (!model && !c.ops.int8) check_small(&c); /* a model has another ISA's, int8 changes the linears only */
    check_linear(&c);
    if (!c.ops.int8) check_attn(&c);
    if (c.ops.int8) check_int8(&c);
    if (!model || !quick) check_invariance(&c);
    for (int i = 0; i < 4; i++) oc_pool_close(c.pools[i]);
    return c.n_failures;
}

int main(int argc, char **argv) {
    static const char *const names[] = {"ref",  "ref-int8",  "avx2", "avx2-int8", "avx512",        "avx512-int8", "avx512bf16",
                                        "amx-model", "amx",  "amxmany", "amxmany-model", "amxbf16", "amxbf16-model", "neon"};
    const char *only = NULL, *csv = NULL;
    bool quick = false, timing = false, decode_only = false;
    int n_threads = 0;
    uint64_t seed = 1;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--quick") == 0) {
            quick = true;
        } else if (strcmp(argv[i], "--bench") == 0) {
            timing = true;
        } else if (strcmp(argv[i], "--decode") == 0) {
            decode_only = true;
        } else if (strcmp(argv[i], "--isa") == 0 && i + 1 < argc) {
            only = argv[++i];
        } else if (strcmp(argv[i], "--threads") == 0 && i + 1 < argc) {
            n_threads = atoi(argv[++i]);
        } else if (strcmp(argv[i], "--csv") == 0 && i + 1 < argc) {
            csv = argv[++i];
        } else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc) {
            seed = strtoull(argv[++i], NULL, 10);
        } else {
            fprintf(stderr, "usage: check_kernels [--isa X] [--quick] [--seed N] [--bench [--decode] [--threads N] [--csv FILE]]\n");
            return 2;
        }
    }
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
