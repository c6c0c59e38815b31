/* tests/kernels/bench.h - times kernels beside the limits measured in the same run. */
#ifndef OC_TESTS_KERNELS_BENCH_H
#define OC_TESTS_KERNELS_BENCH_H

#include "check.h"

/* What this machine can do with the threads of the pool. */
struct peaks {
    double read_gb_s;   /* sequential reads of memory larger than any cache */
    double fma_tflop_s; /* f32, widest vectors of the ISA */
};

struct bench {
    bool quick;
    struct oc_ops ops;
    struct oc_kctx ctx;
    struct peaks peaks;
    struct chk rng;
    uint8_t *pile; /* random bytes that weights are cut from, larger than any cache */
    size_t pile_bytes, pile_at;
};

#define OC_LIMIT_BENCH_THREADS 64

/* Seconds of the wall clock; or of CPU time, which is fairer to one thread on a busy machine. */
double now_s(bool cpu_time);

struct peaks measure_peaks(struct oc_pool *pool, const char *isa, const uint8_t *pile, size_t pile_bytes);

/* One line: seconds per call, bytes that must be read, FLOPs that must be done. */
void report(const struct bench *b, const char *name, double seconds, double bytes, double flops);

#endif
