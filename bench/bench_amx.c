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

enum { CHAIN = 2000000, PEAK_TURNS = 30000 };

static void chain(void *arg, int thread, int n_threads) {
    uint64_t v = (uint64_t)n_threads;
    for (int i = 0; i < CHAIN; i++) __asm__ volatile("imul %0, %0" : "+r"(v)); /* 3 cycles each */
    ((uint64_t *)arg)[thread] = v;
}

static void products(void *arg, int thread, int n_threads) {
    (void)arg, (void)thread, (void)n_threads;
    amx_begin();
    amx_clear_c();
    AMX_ZERO(4);
    AMX_ZERO(5);
    AMX_ZERO(6);
    AMX_ZERO(7);
    for (int t = 0; t < PEAK_TURNS; t++) amx_products(true, true);
    amx_end();
}

static void limits(struct lab *l) {
    uint64_t sink[MAX_THREADS];
    l->ghz = 3e-9 * CHAIN / best_of(l, chain, sink);
    double s = best_of(l, products, NULL);
    l->peak_tf = STEP_FLOPS * PEAK_TURNS * l->n_threads / s * 1e-12;
    printf("core %.2f GHz; tile products %.2f TFLOP/s, %.1f cycles each\n", l->ghz, l->peak_tf, s * l->ghz * 1e9 / PEAK_TURNS / 4);
}

struct load_job {
    const uint8_t *p;
    size_t bytes, stride; /* per thread; between rows of a tile: 64 is a tile of 1 KiB in one piece */
    int turns;
    bool fetch;
};

/* Tile loads over all of the bytes, row block by row block where rows are apart. */
static void loads(void *arg, int thread, int n_threads) {
    const struct load_job *j = arg;
    (void)n_threads;
    const uint8_t *p = j->p + (size_t)thread * j->bytes;
    size_t block = 16 * j->stride;
    amx_begin();
    for (int t = 0; t < j->turns; t++) {
        for (size_t at = 0; at + block <= j->bytes; at += block) {
            for (size_t k = 0; k + 256 <= (j->stride == 64 ? block : j->stride); k += j->stride == 64 ? block : 256) {
                const uint8_t *q = p + at + k;
                if (j->fetch) amx_fetch(q + 2048, 1024);
                AMX_LOAD(4, q, j->stride);
                if (j->stride == 64) continue;
                AMX_LOAD(5, q + 64, j->stride);
                AMX_LOAD(6, q + 128, j->stride);
                AMX_LOAD(7, q + 192, j->stride);
            }
        }
    }
    amx_end();
}

static void tile_loads(const struct lab *l) {
    static const size_t sizes[] = {16 << 10, 256 << 10, 512 << 10, 768 << 10, 1 << 20, 1280 << 10, 1536 << 10, 1792 << 10, 24 << 20};
    static const size_t strides[] = {64, 576, 2560};
    printf("tile loads, bytes a cycle and core    64 B rows  +prefetch  576 B rows  2560 B rows\n");
    for (int page = 0; page < 2; page++) {
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            printf("  %5zu KiB %s pages            ", sizes[i] >> 10, page ? "2 MiB" : "4 KiB");
            for (int k = 0; k < 4; k += page ? 1 : 3) {
                int which = k == 0 ? 0 : k - 1;
                struct load_job j = {l->memory[page], sizes[i], strides[which], (int)(24 * MIB / sizes[i]), k == 1};
                if (strides[which] != 64) j.bytes = sizes[i] / (16 * strides[which]) * 16 * strides[which];
                if (j.bytes == 0) {
                    printf("%12s", "-");
                    continue;
                }
                double read = (double)(strides[which] == 64 ? j.bytes : j.bytes / strides[which] * (strides[which] / 256 * 256));
                double s = best_of(l, loads, &j);
                printf("%12.1f", read * j.turns / s / l->ghz * 1e-9);
            }
            printf("\n");
        }
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
    int parts, group;
    int chunk, ahead, n_cut;
    int turns;
};

enum { ALONE_K = 1280, ALONE_PANELS = 6 };

/* A thread's memory for these: W, two strips, c, y, then x. */
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
            oc_avx512bf16_panel(&j->w, 32 * i, 32, 0, ALONE_K, j->parts, (uint16_t *)(void *)own(j, thread) + i * ALONE_K * 32 * j->parts);
    }
}

static struct oc_tiles_cut strip_cut(const struct alone *j, int thread, int t) {
    uint8_t *p = own(j, thread);
    struct oc_tiles_cut c = {.ldx = ALONE_K, .n = 32, .rows = 32, .k = ALONE_K, .steps = ALONE_K / 32, .parts = 2};
    c.out = (uint16_t *)(void *)(p + 4 * MIB) + t % 2 * 2 * ALONE_K * 32;
    c.group = j->group;
    c.sums = (float *)(void *)(p + 7 * MIB) + t % 2 * ALONE_K;
    c.x = (const float *)(const void *)(p + 8 * MIB) + t % 32 * 32 * ALONE_K;
    return c;
}

static void cut_alone(void *arg, int thread, int n_threads) {
    const struct alone *j = arg;
    (void)n_threads;
    for (int t = 0; t < j->turns; t++) {
        struct oc_tiles_cut c = strip_cut(j, thread, t);
        oc_avx512bf16_cut(&c, INT32_MAX);
    }
}

static void finish_alone(void *arg, int thread, int n_threads) {
    const struct alone *j = arg;
    (void)n_threads;
    float *c = (float *)(void *)(own(j, thread) + 6 * MIB), *y = c + MIB;
    for (int t = 0; t < j->turns; t++) {
        struct oc_tiles_end e = {.c = c, .up = j->parts == 2 ? c : NULL, .rows = 32, .cols = 32 * ALONE_PANELS, .n_panels = ALONE_PANELS};
        e.act = j->parts == 2 ? OC_ACT_SILU : OC_ACT_NONE;
        e.ldy = 4096;
        e.y = y;
        oc_avx512_finish(&e, INT32_MAX);
    }
}

static void strips_alone(void *arg, int thread, int n_threads) {
    const struct alone *j = arg;
    (void)n_threads;
    uint8_t *p = own(j, thread);
    struct oc_tiles_cut next = {0};
    struct oc_tiles_end end = {0};
    struct oc_tiles_strip s = {.b = (uint16_t *)(void *)p, .a_parts = 2, .b_parts = j->parts, .steps = ALONE_K / 32, .n_panels = ALONE_PANELS};
    if (j->parts == 2) s.n_panels /= 2;
    s.chunk = j->chunk, s.ahead = j->ahead, s.n_cut = j->n_cut;
    s.c = (float *)(void *)(p + 6 * MIB);
    s.first = s.lower = true;
    s.cut = oc_avx512bf16_cut, s.next = &next, s.finish = oc_avx512_finish, s.end = &end;
    s.group = j->group, s.scale = oc_avx512bf16_scale;
    s.scales = (const float *)(const void *)(p + 5 * MIB);
    s.acc = (float *)(void *)(p + 7 * MIB) + 4 * ALONE_K;
    amx_begin();
    for (int t = 0; t < j->turns; t++) {
        s.sums = (const float *)(const void *)(p + 7 * MIB) + (t + 1) % 2 * ALONE_K;
        s.a = (uint16_t *)(void *)(p + 4 * MIB) + (t + 1) % 2 * 2 * ALONE_K * 32;
        if (j->n_cut) next = strip_cut(j, thread, t);
        amx_strip(&s);
    }
    amx_end();
}

static void steps_alone(struct lab *l) {
    struct alone j = {.l = l, .turns = 6};
    double elements = 32.0 * ALONE_K * ALONE_PANELS * j.turns;
    static const char *const kinds[] = {"bf16", "4-bit, one part", "4-bit, two parts", "4-bit, numbers", "8-bit, numbers"};
    for (int kind = 0; kind < 5; kind++) {
        j.parts = kind == 2 ? 2 : 1;
        j.group = kind >= 3 ? 2 : 0;
        j.w = weight_at(l->memory[0] + 4 * MIB, kind == 0 ? 0 : kind == 4 ? 8 : 4, 32 * ALONE_PANELS, ALONE_K);
        printf("panels of W, %-22s %6.2f elements a cycle\n", kinds[kind], elements / best_of(l, panels_alone, &j) / l->ghz * 1e-9);
    }
    j.turns = 64;
    for (j.group = 0; j.group <= 2; j.group += 2) {
        printf("strips of x, %-22s %6.2f elements a cycle\n", j.group ? "with sums" : "from L3 or memory",
               32.0 * ALONE_K * j.turns / best_of(l, cut_alone, &j) / l->ghz * 1e-9);
    }
    j.group = 0;
    for (j.parts = 1; j.parts <= 2; j.parts++) {
        printf("end of a block, %-19s %6.2f elements a cycle\n", j.parts == 2 ? "gated by silu" : "plain",
               1024.0 * ALONE_PANELS * j.turns / best_of(l, finish_alone, &j) / l->ghz * 1e-9);
    }
    j.turns = 12;
    printf("strips past W in L2, share of the peak; chunk of k (steps of 32) by steps prefetched\n");
    for (int kind = 0; kind < 3; kind++) {
        static const int chunks[] = {6, 10, 40};
        j.parts = kind == 1 ? 2 : 1;
        j.group = kind == 2 ? 2 : 0;
        for (size_t i = 0; i < sizeof chunks / sizeof chunks[0]; i++) {
            j.chunk = chunks[i];
            printf("  %d products%s, chunk %2d:", 1 + j.parts, j.group ? " and scales" : "", j.chunk);
            for (int k = 0; k < 6; k += k == 2 ? 3 : 1) {
                j.ahead = k < 5 ? k : 1, j.n_cut = k < 5 ? 0 : j.parts == 2 ? 6 : 3;
                double flops = STEP_FLOPS * (1 + j.parts) * (ALONE_K / 32) * (ALONE_PANELS / j.parts) * j.turns * l->n_threads;
                printf("  %s%d %5.1f %%", k < 5 ? "" : "cutting, ", j.ahead, 100 * flops * 1e-12 / best_of(l, strips_alone, &j) / l->peak_tf);
            }
            printf("\n");
            fflush(stdout);
        }
    }
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

static double linear_s(const struct lab *l, const struct oc_simd_tiles *tiles, const struct shape *sh, int huge, double *flops) {
    struct oc_simd simd = amx_split_simd;
    simd.tiles = tiles;
    struct oc_kctx ctx = l->ctx;
    ctx.scratch = l->memory[huge];
    ctx.scratch_bytes = oc_tiled_gemm_tiles_bytes(l->n_threads);
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
    double begin = now_s(), best = 0;
    for (int turn = 0; turn < 2 || (now_s() - begin < l->budget_s && turn < 20); turn++) {
        double t = now_s();
        if (sh->glu) {
            oc_tiled_linear_glu(&simd, &ctx, &two);
        } else {
            oc_tiled_linear(&simd, &ctx, &one);
        }
        t = now_s() - t;
        if (turn == 0 || t < best) best = t;
    }
    *flops = 2.0 * (double)(sh->m * sh->n * sh->k) * (sh->glu ? 2 : 1) * (sh->bits && !tiles->grouped ? 3 : 2);
    return best;
}

/* One line: the share of the peak for each shape, and what all linears of a picture of 4800 patches and of 1230 tokens take. */
static void line(const struct lab *l, const struct oc_simd_tiles *t, const char *what, int huge) {
    double total[2] = {0, 0};
    printf("%-34s", what);
    for (int i = 0; i < N_SHAPES; i++) {
        double flops, s = linear_s(l, t, &shapes[i], huge, &flops);
        printf(" %5.1f", 100 * flops * 1e-12 / s / l->peak_tf);
        if (shapes[i].m == 512) continue;
        total[shapes[i].bits != 0] += s * (shapes[i].bits ? 36 : 32) * (i == Q_AND_O ? 2.25 : 1); /* a quarter for k and v */
    }
    printf("   %6.2f %6.2f\n", total[0], total[1]);
    fflush(stdout);
}

/* Several turns of all blockings one after another: the machine may be busier at one time than at another. */
static void whole(struct lab *l) {
    static const struct {
        int w_kib, k, chunk, ahead;
    } blocks[] = {
        {1024, 1280, 6, 1}, {768, 1280, 6, 1}, {512, 1280, 6, 1}, {384, 1280, 6, 1}, {512, 1024, 6, 1}, {384, 1024, 6, 1},
        {512, 640, 6, 1},   {384, 640, 6, 1},  {256, 640, 6, 1},  {384, 384, 6, 1},  {512, 1024, 8, 0}, {512, 640, 10, 2},
        {512, 640, 4, 1},   {512, 640, 20, 1},
    };
    for (int turn = 0; turn < 2; turn++) {
        limits(l);
        printf("whole linears, share of the peak: ");
        for (int i = 0; i < N_SHAPES; i++) printf(" %s;", shapes[i].name);
        printf(" vision s, prefill s\n");
        for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++) {
            char what[64];
            struct oc_simd_tiles t = amx_split;
            t.w_elements = blocks[i].w_kib * 512;
            t.k_most[0] = t.k_most[1] = blocks[i].k;
            t.chunk = blocks[i].chunk, t.ahead = blocks[i].ahead;
            snprintf(what, sizeof what, "W %4d KiB, k %4d, chunk %2d, %d", blocks[i].w_kib, blocks[i].k, t.chunk, t.ahead);
            line(l, &t, what, 1);
        }
        line(l, &amx_split, "as built, 4 KiB pages", 0);
        struct oc_simd_tiles three = amx_split;
        three.grouped = false;
        line(l, &three, "three products for 4-bit", 1);
    }
}

/* ---- Attention ------------------------------------------------------------------------------------------------ */

enum { HEADS = 16, HD = 80, PATCHES = 4800, COLS = HEADS * HD };

/* One layer of a picture's attention, all patches or windows of 64. */
static void segments(const struct lab *l, int segment) {
    struct oc_ops ops;
    memset(&ops, 0, sizeof ops);
    amx_set(&ops, false);
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
    l.memory_bytes = 256 * MIB + (size_t)l.n_threads * 16 * MIB;
    l.memory[0] = map(l.memory_bytes, MADV_NOHUGEPAGE);
    l.memory[1] = map(l.memory_bytes, MADV_HUGEPAGE);
    printf("%d threads\n", l.n_threads);
    limits(&l);
    tile_loads(&l);
    steps_alone(&l);
    segments(&l, PATCHES);
    segments(&l, 64);
    whole(&l);
    oc_pool_close(l.ctx.pool);
    return 0;
}
