/* bench_amx [THREADS [SECONDS]]: where the cycles of role P go on AMX: the peak of tile products, tile loads by level of the
 * cache, each step of the linears alone, and whole linears by several blockings.
 *
 * The share is of the peak measured in the same run; both count products of parts (two or three for one of f32). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "kernels/x86/x86.h"

#include "kernels/x86/amx_instructions.h"
#include "kernels/x86/amx_tile.h"

#define MIB ((size_t)1 << 20)
#define MAX_THREADS 64
#define STEP_FLOPS (2.0 * 32 * 32 * 32)

struct lab {
    struct oc_kctx ctx;
    int n_threads;
    double budget_s; /* of one measurement */
    double ghz, peak_tf; /* of one core; of all threads */
    uint8_t *memory[2];  /* of 4 KiB and of 2 MiB pages */
    size_t memory_bytes;
};

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void stop(const char *what) {
    fprintf(stderr, "bench_amx: %s\n", what);
    exit(1);
}

static uint8_t *map(size_t bytes, int advice) {
    uint8_t *p = mmap(NULL, bytes + 2 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) stop("no memory");
    p = (uint8_t *)(((uintptr_t)p + 2 * MIB - 1) / (2 * MIB) * (2 * MIB));
    (void)madvise(p, bytes, advice);
    /* Tame numbers of any type: subnormal ones cost Intel's cores 150 cycles each. */
    uint64_t u = 1;
    for (size_t i = 0; i < bytes; i += 8) {
        u = u * 6364136223846793005u + 1442695040888963407u;
        uint64_t tame = ((u ^ u >> 29) & 0x8f8f8f8f8f8f8f8fu) | 0x3030303030303030u;
        memcpy(p + i, &tame, 8);
    }
    return p;
}

/* Best seconds of fn on all threads, at least three turns. */
static double best_of(const struct lab *l, oc_pool_fn *fn, void *arg) {
    double begin = now_s(), best = 0;
    for (int turn = 0; turn < 3 || now_s() - begin < l->budget_s; turn++) {
        double t = now_s();
        oc_pool_run(l->ctx.pool, fn, arg);
        t = now_s() - t;
        if (turn == 0 || t < best) best = t;
    }
    return best;
}

/* ---- Limits ------------------------------------------------------------------------------------------------- */

enum { CHAIN = 2000000, PEAK_TURNS = 10000 };

static void chain(void *arg, int thread, int n_threads) {
    uint64_t v = (uint64_t)n_threads;
    for (int i = 0; i < CHAIN; i++) __asm__ volatile("imul %0, %0" : "+r"(v)); /* 3 cycles each */
    ((uint64_t *)arg)[thread] = v;
}

/* Of numbers, not zeros: a processor short of power does zeros times zeros up to three times as fast. */
static void products(void *arg, int thread, int n_threads) {
    const struct lab *l = arg;
    (void)thread, (void)n_threads;
    amx_begin();
    amx_clear_c();
    AMX_LOAD(4, l->memory[1], 64);
    AMX_LOAD(5, l->memory[1] + 1024, 64);
    AMX_LOAD(6, l->memory[1] + 2048, 64);
    AMX_LOAD(7, l->memory[1] + 3072, 64);
    for (int t = 0; t < PEAK_TURNS; t++) amx_products(true, true);
    amx_end();
}

static double tile_peak(struct lab *l) {
    return STEP_FLOPS * PEAK_TURNS * l->n_threads / best_of(l, products, l) * 1e-12;
}

static void limits(struct lab *l) {
    uint64_t sink[MAX_THREADS];
    l->ghz = 3e-9 * CHAIN / best_of(l, chain, sink);
    l->peak_tf = tile_peak(l);
    printf("core %.2f GHz; tile products %.2f TFLOP/s\n", l->ghz, l->peak_tf);
}

/* What is slow when the machine is: short loops in turn, their times over a second or two. */
static void fmas(void *arg, int thread, int n_threads) {
    (void)thread, (void)n_threads;
    (void)arg;
    __asm__ volatile("vpxord %%zmm16, %%zmm16, %%zmm16\n\tvmovaps %%zmm16, %%zmm17\n\tvmovaps %%zmm16, %%zmm18\n\tvmovaps %%zmm16, %%zmm19\n\t"
                     "vmovaps %%zmm16, %%zmm20\n\tvmovaps %%zmm16, %%zmm21\n\tvmovaps %%zmm16, %%zmm22\n\tvmovaps %%zmm16, %%zmm23\n\t"
                     "vmovaps %%zmm16, %%zmm24\n\tvmovaps %%zmm16, %%zmm25" ::);
    for (int i = 0; i < 20000; i++)
        __asm__ volatile("vfmadd231ps %%zmm16, %%zmm17, %%zmm18\n\tvfmadd231ps %%zmm16, %%zmm17, %%zmm19\n\tvfmadd231ps %%zmm16, %%zmm17, %%zmm20\n\t"
                         "vfmadd231ps %%zmm16, %%zmm17, %%zmm21\n\tvfmadd231ps %%zmm16, %%zmm17, %%zmm22\n\tvfmadd231ps %%zmm16, %%zmm17, %%zmm23\n\t"
                         "vfmadd231ps %%zmm16, %%zmm17, %%zmm24\n\tvfmadd231ps %%zmm16, %%zmm17, %%zmm25" ::);
}

static void adds(void *arg, int thread, int n_threads) {
    (void)arg, (void)thread, (void)n_threads;
    for (int i = 0; i < 40000; i++)
        __asm__ volatile("add $1, %%r8\n\tadd $1, %%r9\n\tadd $1, %%r10\n\tadd $1, %%r11\n\tadd $1, %%rsi\n\tadd $1, %%rdi\n\tadd $1, %%rcx\n\tadd $1, %%rdx" ::
                             : "r8", "r9", "r10", "r11", "rsi", "rdi", "rcx", "rdx");
}

static void chains(void *arg, int thread, int n_threads) {
    uint64_t v = 1;
    (void)arg, (void)thread, (void)n_threads;
    for (int i = 0; i < 40000; i++) __asm__ volatile("imul %0, %0" : "+r"(v));
}

static void l1_tiles(void *arg, int thread, int n_threads) {
    const struct lab *l = arg;
    const uint8_t *p = l->memory[1] + (size_t)thread * MIB;
    (void)n_threads;
    amx_begin();
    for (int t = 0; t < 8000; t++) AMX_LOAD(4, p + t % 8 * 1024, 64);
    amx_end();
}

static void both(void *arg, int thread, int n_threads) {
    const struct lab *l = arg;
    const uint16_t *p = (const uint16_t *)(const void *)(l->memory[1] + (size_t)thread * MIB);
    (void)n_threads;
    amx_begin();
    amx_clear_c();
    for (int t = 0; t < 750; t++) {
        amx_load_first(amx_high(p, t % 4, 2), p + 8192 + t % 4 * 1024, true);
        amx_step(p, t % 4, 2, true);
    }
    amx_end();
}

static int compare_times(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void states(struct lab *l) {
    enum { LOOPS = 6, TURNS = 400 };
    static oc_pool_fn *const loops[LOOPS] = {chains, adds, fmas, products, l1_tiles, both};
    static const char *const names[LOOPS] = {"imul chain (3 cycles each)", "adds (1/5 of a cycle)", "512-bit FMA (1/2)", "products of numbers (16)",
                                             "tile loads from L1 (8)", "products, tiles from L1 (16)"};
    static const double counts[LOOPS] = {40000, 320000, 160000, 4.0 * PEAK_TURNS, 8000, 6000};
    static double took[LOOPS][TURNS];
    for (int t = 0; t < TURNS; t++) {
        for (int i = 0; i < LOOPS; i++) {
            double start = now_s();
            loops[i](l, 0, 1);
            took[i][t] = 1e9 * (now_s() - start) / counts[i];
        }
    }
    printf("nanoseconds of one, over %d turns:            least     10 %%     25 %%   median     75 %%     90 %%\n", TURNS);
    for (int i = 0; i < LOOPS; i++) {
        double *v = took[i];
        qsort(v, TURNS, sizeof *v, compare_times);
        printf("  %-40s %8.3f %8.3f %8.3f %8.3f %8.3f %8.3f\n", names[i], v[0], v[TURNS / 10], v[TURNS / 4], v[TURNS / 2], v[TURNS * 3 / 4], v[TURNS * 9 / 10]);
    }
    fflush(stdout);
}

/* ---- Steps of the linears alone ----------------------------------------------------------------------------- */

static struct oc_weight weight_at(uint8_t *at, int bits, int64_t n, int64_t k) {
    struct oc_weight w = {.n = n, .k = k, .dtype = OC_BF16, .bits = (uint8_t)bits, .group = bits ? 64 : 0, .w = at + 3};
    size_t bytes = (size_t)n * oc_weight_row_bytes(&w) + 64;
    w.scales = at + bytes + 5;
    w.zero_biases = w.scales + n * k / 32;
    return w;
}

struct alone {
    struct lab *l;
    struct oc_weight w;
    bool gated;
    int group;
    int turns;
    double ns[MAX_THREADS]; /* of a product, the best strip */
};

enum { ALONE_K = 1280, ALONE_PANELS = 6 };

/* A thread's memory for these: W, two strips, scales, c, sums and acc, then x. */
static uint8_t *own(const struct alone *j, int thread) {
    return j->l->memory[1] + (size_t)thread * 16 * MIB;
}

static void panels_alone(void *arg, int thread, int n_threads) {
    const struct alone *j = arg;
    (void)n_threads;
    for (int t = 0; t < j->turns; t++) {
        float *scales = (float *)(void *)(own(j, thread) + 5 * MIB);
        for (int i = 0; i < ALONE_PANELS && j->group; i++)
            oc_avx512bf16_numbers(&j->w, 32 * i, 32, 0, ALONE_K, (uint16_t *)(void *)own(j, thread) + i * ALONE_K * 32, scales + i * ALONE_K);
        for (int i = 0; i < ALONE_PANELS && !j->group; i++)
            oc_avx512bf16_panel(&j->w, 32 * i, 32, 0, ALONE_K, (uint16_t *)(void *)own(j, thread) + i * ALONE_K * 32);
    }
}

static void cut_alone(void *arg, int thread, int n_threads) {
    const struct alone *j = arg;
    (void)n_threads;
    for (int t = 0; t < j->turns; t++) {
        uint8_t *p = own(j, thread);
        struct oc_tiles_cut c = {.ldx = ALONE_K, .n = 32, .rows = 32, .k = ALONE_K, .steps = ALONE_K / 32, .parts = 2};
        c.out = (uint16_t *)(void *)(p + 4 * MIB) + t % 2 * 2 * ALONE_K * 32;
        c.x = (const float *)(const void *)(p + 8 * MIB) + t % 32 * 32 * ALONE_K;
        c.sums = j->group ? (float *)(void *)(p + 7 * MIB) : NULL;
        oc_avx512bf16_cut(&c);
    }
}

static void finish_alone(void *arg, int thread, int n_threads) {
    const struct alone *j = arg;
    (void)n_threads;
    float *c = (float *)(void *)(own(j, thread) + 6 * MIB), *y = c + MIB;
    for (int t = 0; t < j->turns; t++) {
        struct oc_tiles_end e = {.c = c, .up = j->gated ? c : NULL, .rows = 32, .cols = 32 * ALONE_PANELS, .n_panels = ALONE_PANELS};
        e.act = j->gated ? OC_ACT_SILU : OC_ACT_NONE;
        e.ldy = 3840;
        e.y = y;
        oc_avx512_finish(&e, INT32_MAX);
    }
}

static void strips_alone(void *arg, int thread, int n_threads) {
    struct alone *j = arg;
    (void)n_threads;
    uint8_t *p = own(j, thread);
    struct oc_tiles_end end = {0};
    struct oc_tiles_strip s = {.b = (uint16_t *)(void *)p, .a_parts = 2, .steps = ALONE_K / 32, .n_panels = ALONE_PANELS};
    s.c = (float *)(void *)(p + 6 * MIB);
    s.first = s.lower = true;
    s.finish = oc_avx512_finish, s.end = &end;
    s.group = j->group, s.scale = oc_avx512bf16_scale;
    s.scales = (const float *)(const void *)(p + 5 * MIB);
    s.sums = (const float *)(const void *)(p + 7 * MIB);
    s.acc = (float *)(void *)(p + 7 * MIB + 32768 + 2048);
    amx_begin();
    for (int t = 0; t < j->turns; t++) {
        s.a = (uint16_t *)(void *)(p + 4 * MIB) + (t + 1) % 2 * 2 * ALONE_K * 32;
        double start = now_s();
        amx_strip(&s);
        double ns = 1e9 * (now_s() - start) / (8 * s.steps * s.n_panels);
        if (j->ns[thread] == 0 || ns < j->ns[thread]) j->ns[thread] = ns;
    }
    amx_end();
}

static void steps_alone(struct lab *l) {
    struct alone j = {.l = l, .turns = 6};
    double elements = 32.0 * ALONE_K * ALONE_PANELS * j.turns;
    static const char *const kinds[] = {"bf16", "4-bit, rounded", "4-bit, numbers", "8-bit, numbers"};
    static const int bits[] = {0, 4, 4, 8};
    for (int kind = 0; kind < 4; kind++) {
        j.group = kind >= 2 ? 2 : 0;
        j.w = weight_at(l->memory[0] + 4 * MIB, bits[kind], 32 * ALONE_PANELS, ALONE_K);
        printf("panels of W, %-22s %6.2f elements a cycle\n", kinds[kind], elements / best_of(l, panels_alone, &j) / l->ghz * 1e-9);
    }
    j.turns = 64;
    for (j.group = 0; j.group <= 2; j.group += 2) {
        printf("strips of x, %-22s %6.2f elements a cycle\n", j.group ? "with sums" : "from L3 or memory",
               32.0 * ALONE_K * j.turns / best_of(l, cut_alone, &j) / l->ghz * 1e-9);
    }
    j.group = 0;
    for (int gated = 0; gated < 2; gated++) {
        j.gated = gated;
        printf("end of a block, %-19s %6.2f elements a cycle\n", gated ? "gated by silu" : "plain",
               1024.0 * ALONE_PANELS * j.turns / best_of(l, finish_alone, &j) / l->ghz * 1e-9);
    }
    j.turns = 200;
    for (j.group = 0; j.group <= 2; j.group += 2) {
        memset(j.ns, 0, sizeof j.ns);
        double flops = STEP_FLOPS * 2 * (ALONE_K / 32) * ALONE_PANELS * j.turns * l->n_threads, s = best_of(l, strips_alone, &j), best = 0;
        for (int i = 0; i < l->n_threads; i++) best = j.ns[i] > best ? j.ns[i] : best;
        printf("strips past W in L2%-16s %5.1f %% of the peak, the best strip %5.1f %%\n", j.group ? ", scales" : "", 100 * flops * 1e-12 / s / l->peak_tf,
               100 * STEP_FLOPS / 4e3 * l->n_threads / best / l->peak_tf);
    }
    fflush(stdout);
}

/* ---- Whole linears -------------------------------------------------------------------------------------------- */

struct shape {
    const char *name;
    int bits;
    int64_t m, n, k;
    bool glu, add;
};

static const struct shape shapes[] = {
    {"vision qkv", 0, 4800, 3840, 1280, false, false},   {"vision proj", 0, 4800, 1280, 1280, false, true},
    {"vision gate, up", 0, 4800, 3420, 1280, true, false}, {"vision down", 0, 4800, 1280, 3420, false, true},
    {"lm q, o", 4, 1230, 2048, 2048, false, true},        {"lm gate, up", 4, 1230, 11008, 2048, true, false},
    {"lm down", 4, 1230, 2048, 11008, false, true},       {"lm gate, up of 512 rows", 4, 512, 11008, 2048, true, false},
};

enum { N_SHAPES = sizeof shapes / sizeof shapes[0], Q_AND_O = 4 };

/* The driver's steps, timed: seconds of all threads, and each strip's nanoseconds a product. */
enum phase { CUT, PANELS, STRIPS, ENDS, N_PHASES };
enum { MAX_STRIPS = 1 << 20 };

static struct clocks {
    double s[N_PHASES][MAX_THREADS];
    float *strip_ns;
    int n_strips, n_threads;
} clocks;

static int me(void) {
    static _Thread_local int mine = -1;
    if (mine < 0) mine = __atomic_fetch_add(&clocks.n_threads, 1, __ATOMIC_RELAXED) % MAX_THREADS;
    return mine;
}

static void timed_cut(const struct oc_tiles_cut *c) {
    double t = now_s();
    oc_avx512bf16_cut(c);
    clocks.s[CUT][me()] += now_s() - t;
}

static void timed_panel(const struct oc_weight *w, int64_t n0, int n, int64_t k0, int kk, uint16_t *out) {
    double t = now_s();
    oc_avx512bf16_panel(w, n0, n, k0, kk, out);
    clocks.s[PANELS][me()] += now_s() - t;
}

static void timed_numbers(const struct oc_weight *w, int64_t n0, int n, int64_t k0, int kk, uint16_t *out, float *scales) {
    double t = now_s();
    oc_avx512bf16_numbers(w, n0, n, k0, kk, out, scales);
    clocks.s[PANELS][me()] += now_s() - t;
}

static void timed_strip(const struct oc_tiles_strip *s) {
    double t = now_s();
    amx_strip(s);
    t = now_s() - t;
    clocks.s[STRIPS][me()] += t;
    int at = __atomic_fetch_add(&clocks.n_strips, 1, __ATOMIC_RELAXED);
    int products = s->a_parts * 4 * s->steps * s->n_panels;
    if (at < MAX_STRIPS && s->lower) clocks.strip_ns[at] = (float)(1e9 * t / products);
}

static void timed_finish(struct oc_tiles_end *e, int n) {
    if (n < INT32_MAX) {
        oc_avx512_finish(e, n);
        return;
    }
    double t = now_s();
    oc_avx512_finish(e, n);
    clocks.s[ENDS][me()] += now_s() - t;
}

static int compare(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

struct result {
    double best_s, flops;
    double share[N_PHASES]; /* of the threads' time */
    double fast, middle;    /* strips: nanoseconds a product, the fastest tenth and the median */
};

static struct result linear_s(const struct lab *l, struct oc_simd_tiles tiles, const struct shape *sh, int huge) {
    struct oc_simd simd = amx_simds[AMX_SPLIT];
    struct result r = {0};
    tiles.cut = timed_cut, tiles.panel = timed_panel, tiles.numbers = timed_numbers, tiles.strip = timed_strip, tiles.finish = timed_finish;
    simd.tiles = &tiles;
    struct oc_kctx ctx = l->ctx;
    ctx.scratch = l->memory[huge];
    ctx.scratch_bytes = oc_tiled_gemm_tiles_bytes(sh->m, sh->k, l->n_threads);
    uint8_t *at = ctx.scratch + oc_round_up(ctx.scratch_bytes, 2 * MIB);
    struct oc_weight w[2];
    for (int i = 0; i < 2; i++) {
        w[i] = weight_at(at, sh->bits, sh->n, sh->k);
        at += oc_round_up((size_t)(sh->n * sh->k) * (sh->bits ? 5 : 16) / 8 + 4096, 4096);
    }
    float *x = (float *)(void *)at, *y = x + sh->m * sh->k;
    if ((uint8_t *)(y + sh->m * sh->n) > l->memory[huge] + l->memory_bytes) stop("memory of the bench is too small");
    struct oc_linear one = {OC_ROLE_P, sh->m, x, sh->k, &w[0], y, sh->n, OC_ACT_NONE, sh->add};
    struct oc_linear_glu two = {OC_ROLE_P, sh->m, x, sh->k, &w[0], &w[1], y, sh->n, OC_ACT_SILU};
    float *strip_ns = clocks.strip_ns;
    memset(clocks.s, 0, sizeof clocks.s);
    clocks.n_strips = 0;
    clocks.strip_ns = strip_ns;
    double begin = now_s(), all = 0;
    for (int turn = 0; turn < 2 || (now_s() - begin < l->budget_s && turn < 20); turn++) {
        double t = now_s();
        if (sh->glu) {
            oc_tiled_linear_glu(&simd, &ctx, &two);
        } else {
            oc_tiled_linear(&simd, &ctx, &one);
        }
        t = now_s() - t;
        all += t * l->n_threads;
        if (turn == 0 || t < r.best_s) r.best_s = t;
    }
    r.flops = 2.0 * (double)(sh->m * sh->n * sh->k) * (sh->glu ? 2 : 1) * 2;
    for (int p = 0; p < N_PHASES; p++) {
        for (int i = 0; i < MAX_THREADS; i++) r.share[p] += clocks.s[p][i] / all;
    }
    int n = clocks.n_strips < MAX_STRIPS ? clocks.n_strips : MAX_STRIPS;
    qsort(strip_ns, (size_t)n, sizeof *strip_ns, compare);
    r.fast = strip_ns[n / 10], r.middle = strip_ns[n / 2];
    return r;
}

/* One line: for each shape the share of the peak, and of that time what strips took; then strips alone, the fastest tenth; and
 * what all linears of a picture of 4800 patches and of 1230 tokens take. */
static void line(struct lab *l, const struct oc_simd_tiles *t, const char *what, int huge) {
    double total[2] = {0, 0}, fast[2] = {0, 0}, peak_tf = tile_peak(l), ideal_ns = STEP_FLOPS / 4e3 * l->n_threads / l->peak_tf;
    printf("%-34s", what);
    for (int i = 0; i < N_SHAPES; i++) {
        struct result r = linear_s(l, *t, &shapes[i], huge);
        printf(" |%3.0f %3.0f %3.0f", 100 * r.flops * 1e-12 / r.best_s / l->peak_tf, 100 * r.share[STRIPS], 100 * ideal_ns / r.fast);
        if (shapes[i].m == 512) continue;
        double layers = (shapes[i].bits ? 36 : 32) * (i == Q_AND_O ? 2.25 : 1); /* a quarter for k and v */
        total[shapes[i].bits != 0] += r.best_s * layers;
        fast[shapes[i].bits != 0] += r.flops / (STEP_FLOPS / 4) * r.fast * 1e-9 / l->n_threads / r.share[STRIPS] * layers;
    }
    printf(" | %.2f %.2f s; as the fastest tenth of strips %.2f %.2f s; peak now %.2f\n", total[0], total[1], fast[0], fast[1], peak_tf);
    fflush(stdout);
}

static void phases(const struct lab *l) {
    for (int i = 0; i < N_SHAPES; i++) {
        struct result r = linear_s(l, amx_split, &shapes[i], 1);
        printf("%-24s %8.2f ms, %4.1f %% of the peak; time of threads: cutting x %4.1f %%, panels of W %4.1f %%, strips %4.1f %%, ends %4.1f %%, "
               "rest %4.1f %%; a product %.2f ns, the fastest tenth %.2f\n",
               shapes[i].name, r.best_s * 1e3, 100 * r.flops * 1e-12 / r.best_s / l->peak_tf, 100 * r.share[CUT], 100 * r.share[PANELS],
               100 * r.share[STRIPS], 100 * r.share[ENDS], 100 * (1 - r.share[CUT] - r.share[PANELS] - r.share[STRIPS] - r.share[ENDS]), r.middle, r.fast);
        fflush(stdout);
    }
}

/* Several turns of all blockings one after another: the machine may be busier at one time than at another. */
static void whole(struct lab *l) {
    static const struct {
        int w_kib, k;
    } blocks[] = {{768, 1024}, {768, 1280}, {512, 640}, {384, 512}};
    phases(l);
    for (int turn = 0; turn < 2; turn++) {
        limits(l);
        printf("whole linears, shares: of the peak, strips of the time, of the peak in strips;");
        for (int i = 0; i < N_SHAPES; i++) printf(" %s;", shapes[i].name);
        printf(" vision, prefill\n");
        for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++) {
            char what[64];
            struct oc_simd_tiles t = amx_split;
            t.w_elements = blocks[i].w_kib * 512;
            t.k_most = blocks[i].k;
            snprintf(what, sizeof what, "W %4d KiB, k %4d", blocks[i].w_kib, blocks[i].k);
            line(l, &t, what, 1);
        }
        line(l, &amx_split, "as built, 4 KiB pages", 0);
    }
}

/* ---- Attention ------------------------------------------------------------------------------------------------ */

enum { HEADS = 16, HD = 80, PATCHES = 4800, COLS = HEADS * HD };

/* One layer of a picture's attention, all patches or windows of 64. */
static void segments(const struct lab *l, int segment) {
    struct oc_ops ops;
    memset(&ops, 0, sizeof ops);
    amx_set(&ops, AMX_SPLIT);
    struct oc_kctx ctx = l->ctx;
    ctx.scratch = l->memory[1];
    ctx.scratch_bytes = oc_tiled_attn_thread_bytes(HD) * (size_t)l->n_threads;
    int32_t seg[PATCHES / 64 + 1];
    int n = 0;
    for (seg[0] = 0; seg[n] < PATCHES; n++) seg[n + 1] = seg[n] + segment < PATCHES ? seg[n] + segment : PATCHES;
    const float *q = (const float *)(const void *)(l->memory[1] + 32 * MIB);
    float *y = (float *)(void *)(l->memory[1] + 128 * MIB);
    struct oc_attn_segments a = {HEADS, HD, 0.11f, q, q + COLS, q + 2 * COLS, 3 * COLS, 3 * COLS, 3 * COLS, seg, n, y, COLS, 0, 0};
    double best = 0;
    for (int turn = 0; turn < 3; turn++) {
        double t = now_s();
        ops.attn_segments(&ctx, &a);
        t = now_s() - t;
        if (turn == 0 || t < best) best = t;
    }
    double pairs = (double)HEADS * PATCHES * segment, flops = 2.0 * 3 * (96 + 80);
    printf("attention, head of 80, %4d patches, segments of %4d: %8.2f ms, %.2f cycles a pair of patches and core, %.1f %% of the peak\n",
           PATCHES, segment, best * 1e3, best * l->ghz * 1e9 * l->n_threads / pairs, 100 * pairs * flops * 1e-12 / best / l->peak_tf);
    fflush(stdout);
}

int main(int argc, char **argv) {
    struct lab l = {.n_threads = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 0, .budget_s = argc > 2 ? strtod(argv[2], NULL) : 0.1};
    struct oc_errinfo ei;
    if (!(oc_cpu_features() & OC_CPU_AMX)) stop("no AMX here");
    if (oc_pool_open(l.n_threads, &l.ctx.pool, &ei) != OC_OK) stop(ei.msg);
    l.n_threads = oc_pool_n_threads(l.ctx.pool);
    if (l.n_threads > MAX_THREADS) stop("too many threads");
    l.memory_bytes = 320 * MIB + (size_t)l.n_threads * 16 * MIB;
    l.memory[0] = map(l.memory_bytes, MADV_NOHUGEPAGE);
    l.memory[1] = map(l.memory_bytes, MADV_HUGEPAGE);
    printf("%d threads\n", l.n_threads);
    clocks.strip_ns = malloc(MAX_STRIPS * sizeof *clocks.strip_ns);
    if (!clocks.strip_ns) stop("no memory");
    limits(&l);
    states(&l);
    steps_alone(&l);
    segments(&l, PATCHES);
    segments(&l, 64);
    whole(&l);
    oc_pool_close(l.ctx.pool);
    return 0;
}
