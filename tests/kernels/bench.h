/* tests/kernels/bench.h - times kernels beside the limits measured in the same run. */
#ifndef OC_TESTS_KERNELS_BENCH_H
#define OC_TESTS_KERNELS_BENCH_H

#include <stdio.h>

#include "check.h"

/* What this machine can do with the threads of the pool. */
struct peaks {
    double read_gb_s;   /* sequential reads of memory larger than any cache */
    double fma_tflop_s; /* f32, widest vectors of the ISA */
    double bf16_tflop_s; /* its bf16 products, 0 where it has none */
    double int16_tflop_s; /* products of 16-bit numbers, 0 where role P takes none */
};

struct bench {
    bool quick;
    struct oc_ops ops;
    struct oc_kctx ctx;
    struct peaks peaks;
    FILE *csv; /* or NULL */
    struct chk rng;
    uint8_t *pile; /* random bytes that weights are cut from, larger than any cache */
    size_t pile_bytes, pile_at;
};

/* Seconds of the wall clock; or of CPU time, which is fairer to one thread on a busy machine. */
double now_s(bool cpu_time);

struct peaks measure_peaks(struct oc_pool *pool, const char *isa, const uint8_t *pile, size_t pile_bytes);

/* Turns of inner loops that measure_peaks runs: a millisecond or so, short enough to fall between other work. */
#define FMA_TURNS 3000000

/* FLOPs per call of `peak`, and the loop itself, for the bf16 products of an ISA; NULL where it has none. */
typedef float peak_fn(float f);
peak_fn *bf16_peak(const char *isa, double *flops);

/* The same for products of 16-bit numbers. */
peak_fn *int16_peak(const char *isa, double *flops);

#endif
