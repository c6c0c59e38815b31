/* Read bandwidth and FMA peak of this machine, measured with all threads of the pool. */
#include <math.h>
#include <time.h>

#include "bench.h"
#include "bench_reads.h"

double now_s(bool cpu_time) {
    struct timespec t;
    clock_gettime(cpu_time ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#if defined(__x86_64__)
#include <immintrin.h>

__attribute__((target("avx2,fma"))) static float fma_avx2(float f) {
    __m256 acc[12];
    for (int i = 0; i < 12; i++) acc[i] = _mm256_set1_ps(f + (float)i);
    __m256 a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(f);
    for (int t = 0; t < FMA_TURNS / 12; t++) {
#pragma GCC unroll 12
        for (int i = 0; i < 12; i++) acc[i] = _mm256_fmadd_ps(acc[i], a, b);
    }
    for (int i = 1; i < 12; i++) acc[0] = _mm256_add_ps(acc[0], acc[i]);
    return _mm256_cvtss_f32(acc[0]);
}

__attribute__((target("avx512f"))) static float fma_avx512(float f) {
    __m512 acc[12];
    for (int i = 0; i < 12; i++) acc[i] = _mm512_set1_ps(f + (float)i);
    __m512 a = _mm512_set1_ps(0.999f), b = _mm512_set1_ps(f);
    for (int t = 0; t < FMA_TURNS / 12; t++) {
#pragma GCC unroll 12
        for (int i = 0; i < 12; i++) acc[i] = _mm512_fmadd_ps(acc[i], a, b);
    }
    for (int i = 1; i < 12; i++) acc[0] = _mm512_add_ps(acc[0], acc[i]);
    return _mm512_cvtss_f32(acc[0]);
}
#endif

typedef float vec4 __attribute__((vector_size(16)));

static float fma_plain(float f) {
    vec4 acc[12];
    for (int i = 0; i < 12; i++) acc[i] = (vec4){f, f, f, (float)i};
    for (int t = 0; t < FMA_TURNS / 12; t++) {
#pragma GCC unroll 12
        for (int i = 0; i < 12; i++) acc[i] = acc[i] * 0.999f + f;
    }
    for (int i = 1; i < 12; i++) acc[0] += acc[i];
    return acc[0][0];
}

struct fma_job {
    const char *isa;
    float sink[OC_LIMIT_BENCH_THREADS][16];
};

static bool is_512(const char *isa) {
    return strncmp(isa, "avx512", 6) == 0 || strncmp(isa, "amx", 3) == 0;
}

static void fma_work(void *arg, int thread, int n_threads) {
    struct fma_job *j = arg;
    float f = (float)n_threads * 1e-3f;
#if defined(__x86_64__)
    if (is_512(j->isa)) {
        j->sink[thread][0] = fma_avx512(f);
        return;
    }
    if (strncmp(j->isa, "avx2", 4) == 0 || strncmp(j->isa, "avxvnni", 7) == 0) {
        j->sink[thread][0] = fma_avx2(f);
        return;
    }
#endif
    j->sink[thread][0] = fma_plain(f);
}

struct products_job {
    peak_fn *fn;
    float sink[OC_LIMIT_BENCH_THREADS][16];
};

static void products_work(void *arg, int thread, int n_threads) {
    struct products_job *j = arg;
    j->sink[thread][0] = j->fn((float)n_threads * 1e-3f);
}

static double lanes_of(const char *isa) {
    return is_512(isa) ? 16 : strncmp(isa, "avx2", 4) == 0 || strncmp(isa, "avxvnni", 7) == 0 ? 8 : 4;
}

#if !defined(__x86_64__)
peak_fn *bf16_peak(const char *isa, double *flops) {
    (void)isa, (void)flops;
    return NULL;
}

peak_fn *int16_peak(const char *isa, double *flops) {
    return bf16_peak(isa, flops);
}
#endif

/* TFLOP/s of one run of the job, `flops` a thread. */
static double products_rate(struct oc_pool *pool, struct products_job *j, double flops, bool cpu_time) {
    if (!j->fn) return 0;
    double start = now_s(cpu_time);
    oc_pool_run(pool, products_work, j);
    return flops * oc_pool_n_threads(pool) / (now_s(cpu_time) - start) * 1e-12;
}

struct peaks measure_peaks(struct oc_pool *pool, const char *isa, const uint8_t *pile, size_t pile_bytes) {
    static struct read_job read;
    static struct fma_job fma;
    static struct products_job bf16, int16;
    double bf16_flops = 0, int16_flops = 0;
    struct peaks best = {0};
    fma.isa = isa;
    bf16.fn = bf16_peak(isa, &bf16_flops);
    int16.fn = int16_peak(isa, &int16_flops);
    OC_ASSERT(oc_pool_n_threads(pool) <= OC_LIMIT_BENCH_THREADS);
    size_t part = pile_bytes / 24 / 64 * 64;
    bool cpu_time = oc_pool_n_threads(pool) == 1;
    for (int i = 0; i < 72; i++) {
        read = (struct read_job){.p = pile + part * (size_t)(i % 24), .bytes = part};
        double t0 = now_s(cpu_time);
        oc_pool_run(pool, read_work, &read);
        double t1 = now_s(cpu_time);
        oc_pool_run(pool, fma_work, &fma);
        double t2 = now_s(cpu_time), flops = 2 * lanes_of(isa) * (FMA_TURNS / 12 * 12) * oc_pool_n_threads(pool);
        best.bf16_tflop_s = fmax(best.bf16_tflop_s, products_rate(pool, &bf16, bf16_flops, cpu_time));
        best.int16_tflop_s = fmax(best.int16_tflop_s, products_rate(pool, &int16, int16_flops, cpu_time));
        best.read_gb_s = fmax(best.read_gb_s, (double)part / (t1 - t0) * 1e-9);
        best.fma_tflop_s = fmax(best.fma_tflop_s, flops / (t2 - t1) * 1e-12);
    }
    return best;
}
