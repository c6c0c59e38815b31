/* tests/kernels/bench_reads.h - sequential reads by all threads of a pool, the limit that decoding is measured against. */
#ifndef OC_TESTS_KERNELS_BENCH_READS_H
#define OC_TESTS_KERNELS_BENCH_READS_H

#include "base/pool.h"

#define OC_LIMIT_BENCH_THREADS 64

struct read_job {
    const uint8_t *p;
    size_t bytes;
    uint64_t sink[OC_LIMIT_BENCH_THREADS][8]; /* a cache line each */
};

typedef uint64_t vec2 __attribute__((vector_size(16)));

static void read_work(void *arg, int thread, int n_threads) {
    struct read_job *j = arg;
    long lo, hi;
    oc_pool_split((long)(j->bytes / 64), 1, thread, n_threads, &lo, &hi);
    vec2 sum[4] = {{0}};
    for (const uint8_t *p = j->p + 64 * lo; p < j->p + 64 * hi; p += 64) {
        __builtin_prefetch(p + 2048);
        for (int i = 0; i < 4; i++) sum[i] ^= *(const vec2 *)(const void *)(p + 16 * i);
    }
    j->sink[thread % OC_LIMIT_BENCH_THREADS][0] = sum[0][0] ^ sum[1][0] ^ sum[2][1] ^ sum[3][1];
}

#endif
