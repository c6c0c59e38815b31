/* bench_tiles [THREADS [TURNS]]: parts of role P on AMX in turn, many times, so that the machine's state is the same for all: per
 * 32 x 32 x 64 products of x and W the nanoseconds, and the median of the ratio to what the tile products of two bf16 take in the same turn.
 * Then whole linears and attention by table, in turn too. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "kernels/x86/x86.h"

#include "kernels/x86/amx_instructions.h"
#include "kernels/x86/amx_tile.h"

#include "median.h"

#define MIB ((size_t)1 << 20)

enum { MAX_THREADS = 64, MAX_TURNS = 200, OWN_MIB = 12 };

static struct lab {
    struct oc_kctx ctx;
    int n_threads;
    uint8_t *memory;
    size_t bytes;
    double units[MAX_THREADS]; /* done by a thread in this call */
} lab;

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void stop(const char *what) {
    fprintf(stderr, "bench_tiles: %s\n", what);
    exit(1);
}

/* Tame numbers of any type. */
static void fill(uint8_t *p, size_t bytes) {
    uint64_t u = 1;
    for (size_t i = 0; i < bytes; i += 8) {
        u = u * 6364136223846793005u + 1442695040888963407u;
        uint64_t tame = ((u ^ u >> 29) & 0x8f8f8f8f8f8f8f8fu) | 0x3030303030303030u;
        memcpy(p + i, &tame, 8);
    }
}

static uint8_t *own(int thread) {
    return lab.memory + (size_t)thread * OWN_MIB * MIB;
}

/* ---- Products from registers ---- */

static void load_operands(int thread) {
    AMX_LOAD(4, own(thread), 64);
    AMX_LOAD(5, own(thread) + 1024, 64);
    AMX_LOAD(6, own(thread) + 2048, 64);
    AMX_LOAD(7, own(thread) + 3072, 64);
}

enum { LOOPS = 4000 };

static double bf16_products(int thread) {
    load_operands(thread);
    amx_clear_c();
    for (int i = 0; i < LOOPS; i++) {
        for (int r = 0; r < 4; r++) amx_products(true, true);
    }
    return LOOPS;
}

static double byte_products(int thread) {
    load_operands(thread);
    amx_clear_c();
    for (int i = 0; i < LOOPS; i++) {
        for (int r = 0; r < 3; r++) {
            AMX_DP_BYTES(0, 4, 6);
            AMX_DP_BYTES(1, 4, 7);
            AMX_DP_BYTES(2, 5, 6);
            AMX_DP_BYTES(3, 5, 7);
        }
    }
    return LOOPS;
}

static double byte_chains(int thread) {
    load_operands(thread);
    amx_clear_c();
    for (int i = 0; i < 2 * LOOPS; i++) {
        AMX_DP_BYTES(1, 5, 6);
        AMX_DP_BYTES(3, 5, 7);
        AMX_DP_BYTES(0, 4, 6);
        AMX_DP_BYTES(1, 4, 5);
        AMX_DP_BYTES(3, 4, 6);
        AMX_DP_BYTES(2, 4, 7);
    }
    return LOOPS;
}

/* 24 products and 4 stores of tiles, as a block of 256 k has them. */
static double byte_stores(int thread) {
    load_operands(thread);
    for (int i = 0; i < LOOPS / 2; i++) {
        amx_clear_c();
        for (int r = 0; r < 6; r++) {
            AMX_DP_BYTES(0, 4, 6);
            AMX_DP_BYTES(1, 4, 7);
            AMX_DP_BYTES(2, 5, 6);
            AMX_DP_BYTES(3, 5, 7);
        }
        uint8_t *acc = own(thread) + 8192 + i % 2 * 4096;
        AMX_STORE(0, acc, 64);
        AMX_STORE(1, acc + 1024, 64);
        AMX_STORE(2, acc + 2048, 64);
        AMX_STORE(3, acc + 3072, 64);
    }
    return LOOPS;
}

static double bytes_l1(int thread) {
    const int8_t *p = (const int8_t *)own(thread);
    amx_clear_c();
    for (int i = 0; i < 2 * LOOPS; i++) amx_bytes_step(p + i % 4 * OC_BYTES_X_STEP, p + 8192 + i % 4 * OC_BYTES_W_STEP, NULL, false);
    return LOOPS;
}

/* Do loads of tiles wait for stores whose addresses agree in their last 12 bits? Per loop: four tiles from L1, four products, 16
 * stores of lines at `at` within other pages. */
static double aliased(int thread, int at) {
    uint8_t *p = own(thread), *to = p + 65536 + at;
    amx_clear_c();
    for (int i = 0; i < LOOPS; i++) {
        for (int r = 0; r < 4; r++) {
            AMX_LOAD(4, p, 64);
            AMX_LOAD(5, p + 1024, 64);
            AMX_DP(0, 4, 6);
            AMX_DP(1, 4, 7);
            AMX_DP(2, 5, 6);
            AMX_DP(3, 5, 7);
            for (int s = 0; s < 8; s++)
                __asm__ volatile("vmovups %%zmm16, (%0)\n\tvmovups %%zmm16, 64(%0)" ::"r"(to + (s + r * 8) % 8 * 128 + (r % 2) * 4096) : "memory");
        }
    }
    return LOOPS;
}

static double alias_none(int thread) {
    return aliased(thread, 2048);
}

static double alias_all(int thread) {
    return aliased(thread, 0);
}

static struct oc_weight weight_at(uint8_t *at, int bits, int64_t n, int64_t k) {
    struct oc_weight w = {.n = n, .k = k, .dtype = OC_BF16, .bits = (uint8_t)bits, .group = bits ? 64 : 0, .w = at + 3};
    size_t bytes = (size_t)n * oc_weight_row_bytes(&w) + 64;
    w.scales = at + bytes + 5;
    w.zero_biases = w.scales + n * k / 32;
    return w;
}

/* ---- Strips past W ---- */

static struct oc_bytes_run run_of(int thread, int steps) {
    uint8_t *p = own(thread);
    struct oc_bytes_run r = {.w = (const int8_t *)p, .steps = steps, .n_strips = 32, .ldc = 6 * 1024, .rows = 512};
    r.x = (const int8_t *)p + MIB;
    r.x_scales = (const float *)(const void *)(p + MIB / 2);
    r.w_scales = (const float *)(const void *)(p + MIB / 2 + 8192);
    r.acc = (int32_t *)(void *)(p + MIB / 2 + 16384);
    r.c = (float *)(void *)(p + 3 * MIB);
    r.add = oc_avx512vbmi_bytes_add, r.finish = oc_avx512_finish;
    return r;
}

static double units_of(const struct oc_bytes_run *r) {
    return r->n_strips * r->steps / 2.0;
}

static double run_256(int thread) {
    struct oc_bytes_run r = run_of(thread, 4);
    for (int i = 0; i < 24; i++) {
        amx_bytes_run(&r);
        r.c += i % 6 == 5 ? -5 * 1024 : 1024;
    }
    return 24 * units_of(&r);
}

/* c from L2 at best once. */
static double run_cold(int thread) {
    struct oc_bytes_run r = run_of(thread, 4);
    for (int i = 0; i < 6; i++, r.c += 1024) amx_bytes_run(&r);
    return 6 * units_of(&r);
}

static double run_512(int thread) {
    struct oc_bytes_run r = run_of(thread, 8);
    for (int i = 0; i < 12; i++) {
        amx_bytes_run(&r);
        r.c += i % 3 == 2 ? -2 * 1024 : 1024;
    }
    return 12 * units_of(&r);
}

static double run_384(int thread) {
    struct oc_bytes_run r = run_of(thread, 6);
    for (int i = 0; i < 4; i++, r.c += 1024) amx_bytes_run(&r);
    return 4 * units_of(&r);
}

static void add_nothing(const struct oc_bytes_add *a, int row, int n) {
    (void)a, (void)row, (void)n;
}

static double run_no_add(int thread) {
    struct oc_bytes_run r = run_of(thread, 4);
    r.add = add_nothing;
    for (int i = 0; i < 6; i++, r.c += 1024) amx_bytes_run(&r);
    return 6 * units_of(&r);
}

static double run_512_no_add(int thread) {
    struct oc_bytes_run r = run_of(thread, 8);
    r.add = add_nothing;
    for (int i = 0; i < 3; i++, r.c += 1024) amx_bytes_run(&r);
    return 3 * units_of(&r);
}

/* x in L1 too. */
static double run_same_x(int thread) {
    struct oc_bytes_run r = run_of(thread, 4);
    r.n_strips = 1;
    for (int i = 0; i < 192; i++) amx_bytes_run(&r);
    return 192 * units_of(&r);
}

static double run_prefetch(int thread) {
    struct oc_bytes_run r = run_of(thread, 4);
    r.next = (const char *)own(thread) + 6 * MIB, r.n_next = 6;
    for (int i = 0; i < 6; i++, r.c += 1024) amx_bytes_run(&r);
    return 6 * units_of(&r);
}

static double run_unpack(int thread) {
    struct oc_bytes_run r = run_of(thread, 4);
    struct oc_weight w = weight_at(own(thread) + 8 * MIB, 4, 192, 2048);
    r.panel = oc_avx512vbmi_bytes_panel;
    for (int i = 0; i < 6; i++, r.c += 1024) {
        struct oc_bytes_panel p = {.w = &w, .n0 = 32 * i, .n = 32, .kk = 256, .rows = (int8_t *)own(thread) + 65536};
        p.out = (int8_t *)own(thread) + (i + 1) % 2 * 16384;
        p.scales = (float *)(void *)(own(thread) + MIB / 2 + 8192);
        r.w = (const int8_t *)own(thread) + i % 2 * 16384;
        r.ahead = &p;
        amx_bytes_run(&r);
    }
    return 6 * units_of(&r);
}

static double end_of(int thread, enum oc_act act) {
    struct oc_bytes_run r = run_of(thread, 4);
    struct oc_tiles_end e = {.cols = 32, .n_panels = 1, .ldy = 2048, .act = act};
    for (int i = 0; i < 6; i++, r.c += 1024) {
        e.c = r.c, e.y = (float *)(void *)(own(thread) + 7 * MIB) + 32 * i;
        e.up = act ? r.c : NULL;
        r.end = &e;
        amx_bytes_run(&r);
    }
    return 6 * units_of(&r);
}

static double run_end(int thread) {
    return end_of(thread, OC_ACT_NONE);
}

static double run_silu(int thread) {
    return end_of(thread, OC_ACT_SILU);
}

/* Without the sums' stores and what follows them. */
static double bare(int thread, const bool ahead) {
    struct oc_bytes_run r = run_of(thread, 4);
    amx_clear_c();
    for (int panel = 0; panel < 6; panel++) {
        const int8_t *x = r.x;
        for (int i = 0; i < r.n_strips; i++) {
            const int8_t *w = r.w;
            for (int s = 0; s < 4; s++, x += OC_BYTES_X_STEP, w += OC_BYTES_W_STEP) {
                for (int l = 0; ahead && l < 32; l++) __builtin_prefetch(x + 2 * OC_BYTES_X_STEP + 64 * l, 0, 3);
                amx_bytes_step(x, w, NULL, false);
            }
        }
    }
    return 6 * units_of(&r);
}

static double bare_run(int thread) {
    return bare(thread, false);
}

static double bare_ahead(int thread) {
    return bare(thread, true);
}

/* Two bf16: strips past 6 panels of 1024 k. */
static double strips(int thread, int group, int parts, void (*scale)(const struct oc_tiles_scale *g, int row, int n)) {
    uint8_t *p = own(thread);
    struct oc_tiles_end end = {0};
    struct oc_tiles_strip s = {.b = (uint16_t *)(void *)p, .a_parts = parts, .steps = 32, .n_panels = 6, .group = group, .scale = scale};
    s.c = (float *)(void *)(p + 3 * MIB);
    s.first = s.lower = true;
    s.finish = oc_avx512_finish, s.end = &end;
    s.scales = (const float *)(const void *)(p + 5 * MIB);
    s.sums = (const float *)(const void *)(p + 6 * MIB);
    s.acc = (float *)(void *)(p + 6 * MIB + 32768 + 2048);
    for (int t = 0; t < 4; t++) {
        s.a = (uint16_t *)(void *)(p + MIB) + t % 4 * 65536;
        amx_strip(&s);
    }
    return 4 * 16 * 6;
}

static void scale_nothing(const struct oc_tiles_scale *g, int row, int n) {
    (void)g, (void)row, (void)n;
}

static double strips_plain(int thread) {
    return strips(thread, 0, 2, NULL);
}

static double strips_one(int thread) {
    return strips(thread, 0, 1, NULL);
}

static double strips_grouped(int thread) {
    return strips(thread, 2, 2, oc_avx512bf16_scale);
}

static double strips_unscaled(int thread) {
    return strips(thread, 2, 2, scale_nothing);
}

/* ---- Cutting and unpacking, a unit as 2048 weights or x ---- */

static double panels(int thread, int bits) {
    struct oc_weight w = weight_at(own(thread) + 8 * MIB, bits, 32, 2048);
    for (int i = 0; i < 16; i++) {
        struct oc_bytes_panel p = {.w = &w, .n = 32, .k0 = i % 8 * 256, .kk = 256, .out = (int8_t *)own(thread), .rows = (int8_t *)own(thread) + 65536};
        p.scales = (float *)(void *)(own(thread) + MIB / 2);
        oc_avx512vbmi_bytes_panel(&p, OC_BYTES_PIECES);
    }
    return 16 * 4;
}

static double panels_q4(int thread) {
    return panels(thread, 4);
}

static double panels_q8(int thread) {
    return panels(thread, 8);
}

static double panels_bf16(int thread) {
    return panels(thread, 0);
}

static double panels_numbers(int thread) {
    struct oc_weight w = weight_at(own(thread) + 8 * MIB, 4, 32, 2048);
    for (int i = 0; i < 2; i++)
        oc_avx512bf16_numbers(&w, 0, 32, 0, 2048, (uint16_t *)(void *)own(thread), (float *)(void *)(own(thread) + MIB / 2));
    return 2 * 32;
}

static double cut(int thread) {
    const float *x = (const float *)(const void *)(own(thread) + 8 * MIB);
    for (int i = 0; i < 32; i++)
        oc_avx512vbmi_bytes_cut(x + i % 8 * 256 + i / 8 * 16 * 2048, 2048, 16, 256, (int8_t *)own(thread), (float *)(void *)(own(thread) + MIB / 2));
    return 32 * 2;
}

static double cut_bf16(int thread) {
    struct oc_tiles_cut c = {.ldx = 2048, .n = 32, .rows = 32, .k = 2048, .steps = 64, .parts = 2};
    c.out = (uint16_t *)(void *)own(thread);
    c.x = (const float *)(const void *)(own(thread) + 8 * MIB);
    oc_avx512bf16_cut(&c);
    return 32;
}

/* ---- All in turn ---- */

static const struct part {
    const char *name;
    double (*run)(int thread);
} parts[] = {
    {"products of two bf16 (16), registers", bf16_products},
    {"products of bytes (12), registers", byte_products},
    {"the same in their order", byte_chains},
    {"bytes, and tile stores of 256 k", byte_stores},
    {"bytes, six tiles from L1 a step", bytes_l1},
    {"bytes, x from L2, W from L1", bare_run},
    {"  x prefetched to L1", bare_ahead},
    {"  stores, no adding", run_no_add},
    {"  all", run_256},
    {"  all, c from L3 or memory", run_cold},
    {"  all, x in L1", run_same_x},
    {"  all, 6 lines to L2 a step", run_prefetch},
    {"  all, and the next panel of 4 bits", run_unpack},
    {"  all, and its place in y", run_end},
    {"  all, and gated silu", run_silu},
    {"  block of 384", run_384},
    {"  block of 512", run_512},
    {"  block of 512, no adding", run_512_no_add},
    {"two bf16, all k in tiles", strips_plain},
    {"one bf16, all k in tiles", strips_one},
    {"two bf16, groups of 64", strips_grouped},
    {"  stores, no scaling", strips_unscaled},
    {"16 products, 8 tiles from L1, 64 stores", alias_none},
    {"  addresses that agree", alias_all},
    {"panel of 2048 weights, 4 bits", panels_q4},
    {"  8 bits", panels_q8},
    {"  bf16", panels_bf16},
    {"  4 bits to two bf16", panels_numbers},
    {"2048 of x to bytes", cut},
    {"  to two bf16", cut_bf16},
};

enum { N_PARTS = sizeof parts / sizeof parts[0] };

static void call(void *arg, int thread, int n_threads) {
    const struct part *p = arg;
    (void)n_threads;
    amx_begin();
    lab.units[thread] = p->run(thread);
    amx_end();
}

static double ns_of(const struct part *p) {
    double t = now_s();
    oc_pool_run(lab.ctx.pool, call, (void *)(uintptr_t)p);
    return 1e9 * (now_s() - t) / lab.units[0];
}

static void in_turn(int turns) {
    static double ns[N_PARTS][MAX_TURNS], ratio[N_PARTS][MAX_TURNS];
    for (int t = 0; t < turns; t++) {
        for (int i = 0; i < N_PARTS; i++) ns[i][t] = ns_of(&parts[i]);
        for (int i = 0; i < N_PARTS; i++) ratio[i][t] = ns[i][t] / ns[0][t];
    }
    printf("32 x 32 x 64 by %d threads, %d turns:              median ns, least; median ratio\n", lab.n_threads, turns);
    for (int i = 0; i < N_PARTS; i++) {
        double middle = median(ns[i], turns), least = ns[i][0];
        printf("  %-42s %8.1f %8.1f %8.2f\n", parts[i].name, middle, least, median(ratio[i], turns));
    }
    fflush(stdout);
}

/* ---- Whole linears ---- */

static const struct shape {
    const char *name;
    int bits;
    int64_t m, n, k;
    bool glu, add;
    double layers;
} shapes[] = {
    {"vision qkv", 0, 4800, 3840, 1280, false, false, 32},   {"vision proj", 0, 4800, 1280, 1280, false, true, 32},
    {"vision gate, up", 0, 4800, 3420, 1280, true, false, 32}, {"vision down", 0, 4800, 1280, 3420, false, true, 32},
    {"lm q, o", 4, 1230, 2048, 2048, false, true, 36 * 2.25},  {"lm gate, up", 4, 1230, 11008, 2048, true, false, 36},
    {"lm down", 4, 1230, 2048, 11008, false, true, 36},
    {"lm gate, up of 512", 4, 512, 11008, 2048, true, false, 0}, {"lm down of 512", 4, 512, 2048, 11008, false, true, 0},
};

enum { N_SHAPES = sizeof shapes / sizeof shapes[0] };

static double linear_ms(enum amx_kind kind, const struct shape *sh) {
    struct oc_kctx ctx = lab.ctx;
    ctx.scratch = lab.memory;
    size_t scratch = oc_tiled_scratch_bytes(sh->m, sh->k, 128, lab.n_threads);
    ctx.scratch_bytes = scratch;
    uint8_t *at = ctx.scratch + oc_round_up(scratch, 2 * MIB);
    struct oc_weight w[2];
    for (int i = 0; i < 2; i++) {
        w[i] = weight_at(at, sh->bits, sh->n, sh->k);
        at += oc_round_up((size_t)(sh->n * sh->k) * (sh->bits ? 5 : 16) / 8 + 4096, 4096);
    }
    float *x = (float *)(void *)at, *y = x + sh->m * sh->k;
    if ((uint8_t *)(y + sh->m * sh->n) > lab.memory + lab.bytes) stop("memory is too small");
    struct oc_linear one = {OC_ROLE_P, sh->m, x, sh->k, &w[0], y, sh->n, OC_ACT_NONE, sh->add};
    struct oc_linear_glu two = {OC_ROLE_P, sh->m, x, sh->k, &w[0], &w[1], y, sh->n, OC_ACT_SILU};
    struct oc_ops ops;
    amx_set(&ops, kind);
    double t = now_s();
    if (sh->glu) {
        ops.linear_glu(&ctx, &two);
    } else {
        ops.linear(&ctx, &one);
    }
    return 1e3 * (now_s() - t);
}

static double peak_ns(void) {
    return ns_of(&parts[0]);
}

static void whole(int turns) {
    static const enum amx_kind kinds[] = {AMX_SPLIT, AMX_INT16, AMX_ROUNDED};
    enum { N = sizeof kinds / sizeof kinds[0] };
    double total[2][N] = {{0}}, limit[2] = {0};
    printf("ms, best and median of %d in turn; the limit of two bf16 at the peak of that time, median:\n%-20s", turns, "");
    for (int i = 0; i < N; i++) printf(" %18s", amx_names[kinds[i]]);
    printf("\n");
    fill(lab.memory, lab.bytes);
    for (int s = 0; s < N_SHAPES; s++) {
        double ms[N][MAX_TURNS], peak[MAX_TURNS];
        for (int t = 0; t < turns; t++) {
            peak[t] = peak_ns();
            for (int i = 0; i < N; i++) ms[i][t] = linear_ms(kinds[i], &shapes[s]);
        }
        double units = (double)shapes[s].m * (double)(shapes[s].n * shapes[s].k) * (shapes[s].glu ? 2 : 1) / (32 * 32 * 64);
        double at_peak = median(peak, turns) * units / lab.n_threads * 1e-6;
        printf("%-20s", shapes[s].name);
        for (int i = 0; i < N; i++) {
            double middle = median(ms[i], turns);
            printf("  %8.2f %8.2f", ms[i][0], middle);
            total[shapes[s].bits != 0][i] += middle * shapes[s].layers * 1e-3;
        }
        limit[shapes[s].bits != 0] += at_peak * shapes[s].layers * 1e-3;
        printf("; %8.2f\n", at_peak);
        fflush(stdout);
    }
    for (int b = 0; b < 2; b++) {
        printf("%-20s", b ? "1230 tokens, s" : "4800 patches, s");
        for (int i = 0; i < N; i++) printf("           %8.2f", total[b][i]);
        printf("; %8.2f\n", limit[b]);
    }
    fflush(stdout);
}

/* ---- Attention ---- */

enum { HEADS = 16, HD = 80, PATCHES = 4800, COLS = HEADS * HD };

static void tile_nothing(const struct oc_bf16_tile *t) {
    int groups = t->kk / 32 * 3;
    for (int i = 0; i < groups && t->beside; i++) t->beside(t->arg);
}

static float exp_nothing(const float *v, int n, int whole_n, float scale, float max, uint16_t *out, uint16_t *out_low) {
    (void)v, (void)n, (void)whole_n, (void)scale, (void)max, (void)out, (void)out_low;
    return 1;
}

static float max_nothing(const float *v, int64_t n) {
    (void)v, (void)n;
    return 1;
}

static double attention_ms(const struct oc_simd *simd, int segment) {
    struct oc_kctx ctx = lab.ctx;
    ctx.scratch = lab.memory;
    ctx.scratch_bytes = oc_tiled_attn_thread_bytes(HD) * (size_t)lab.n_threads;
    int32_t seg[PATCHES / 64 + 1];
    int n = 0;
    for (seg[0] = 0; seg[n] < PATCHES; n++) seg[n + 1] = seg[n] + segment < PATCHES ? seg[n] + segment : PATCHES;
    const float *q = (const float *)(const void *)(lab.memory + 32 * MIB);
    float *y = (float *)(void *)(lab.memory + 128 * MIB);
    struct oc_attn_segments a = {HEADS, HD, 0.11f, q, q + COLS, q + 2 * COLS, 3 * COLS, 3 * COLS, 3 * COLS, seg, n, y, COLS, 0, 0};
    double t = now_s();
    oc_tiled_attn_segments(simd, &ctx, &a);
    return 1e3 * (now_s() - t);
}

static void attention(int turns) {
    static const char *const names[] = {"all", "no exp", "no exp, no maximum", "no products", "no products, exp, maximum"};
    enum { N = sizeof names / sizeof names[0] };
    struct oc_simd simd[N];
    struct oc_simd_bf16 tiles[N];
    for (int i = 0; i < N; i++) {
        simd[i] = amx_simds[AMX_SPLIT];
        tiles[i] = amx_attn;
        if (i == 1 || i == 2 || i == 4) tiles[i].exp_row = exp_nothing;
        if (i == 2 || i == 4) simd[i].max_row = max_nothing;
        if (i >= 3) tiles[i].tile = tile_nothing;
        simd[i].bf16 = &tiles[i];
    }
    for (int segment = 64; segment <= PATCHES; segment += PATCHES - 64) {
        double ms[N][MAX_TURNS];
        for (int t = 0; t < turns; t++) {
            for (int i = 0; i < N; i++) ms[i][t] = attention_ms(&simd[i], segment);
        }
        printf("attention of %d patches in segments of %d, ms of a layer:", PATCHES, segment);
        for (int i = 0; i < N; i++) printf(" %s %.1f;", names[i], median(ms[i], turns));
        printf("\n");
        fflush(stdout);
    }
}

int main(int argc, char **argv) {
    struct oc_errinfo ei;
    int turns = argc > 2 ? (int)strtol(argv[2], NULL, 10) : 40;
    if (turns < 1 || turns > MAX_TURNS) stop("1 to 200 turns");
    if (!(oc_cpu_features() & OC_CPU_AMX)) stop("no AMX here");
    if (oc_pool_open(argc > 1 ? (int)strtol(argv[1], NULL, 10) : 0, &lab.ctx.pool, &ei) != OC_OK) stop(ei.msg);
    lab.n_threads = oc_pool_n_threads(lab.ctx.pool);
    if (lab.n_threads > MAX_THREADS) stop("too many threads");
    lab.bytes = 384 * MIB + (size_t)lab.n_threads * OWN_MIB * MIB;
    uint8_t *p = mmap(NULL, lab.bytes + 2 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) stop("no memory");
    lab.memory = (uint8_t *)(((uintptr_t)p + 2 * MIB - 1) / (2 * MIB) * (2 * MIB));
    (void)madvise(lab.memory, lab.bytes, MADV_HUGEPAGE);
    fill(lab.memory, lab.bytes);
    if (argc > 3) {
        whole(turns < 7 ? turns : 7);
        return 0;
    }
    in_turn(turns);
    whole(turns < 7 ? turns : 7);
    attention(3);
    oc_pool_close(lab.ctx.pool);
    return 0;
}
