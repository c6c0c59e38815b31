/* check_kernels --bench: GB/s and TFLOP/s of the shapes of Qwen2.5-VL 3B, beside the limits of this machine. */
#include "bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

enum peak { FMA, BF16, INT16, N_PEAKS };
static const char *const peak_names[N_PEAKS] = {"fma", "bf16", "int16"};

/* One line: seconds per call, bytes that must be read, FLOPs that must be done, and their share of the limits. */
static void report(const struct bench *b, enum peak peak, const char *kernel, const char *shape, double seconds,
                   double bytes, double flops) {
    double gb = bytes / seconds * 1e-9, tf = flops / seconds * 1e-12;
    const double limits[N_PEAKS] = {b->peaks.fma_tflop_s, b->peaks.bf16_tflop_s, b->peaks.int16_tflop_s};
    double gb_share = 100 * gb / b->peaks.read_gb_s, tf_share = 100 * tf / limits[peak];
    printf("%-10s %-20s %-26s %10.1f us %7.2f GB/s %4.0f%%  %7.3f TFLOP/s %4.0f%%\n", b->ops.isa, kernel, shape,
           seconds * 1e6, gb, gb_share, tf, tf_share);
    fflush(stdout);
    if (!b->csv) return;
    fprintf(b->csv, "%s,%d,%s,%s,%.1f,%.2f,%.1f,%.4f,%.1f,%s\n", b->ops.isa, oc_pool_n_threads(b->ctx.pool), kernel, shape,
            seconds * 1e6, gb, gb_share, tf, tf_share, peak_names[peak]);
}

static enum peak peak_of(const struct bench *b, enum oc_role role, enum wformat f) {
    if (role == OC_ROLE_P && b->ops.int16 && (f == W_Q4 || f == W_Q8) && b->peaks.int16_tflop_s > 0) return INT16;
    bool cut = role == OC_ROLE_P && f != W_F32 && f != W_F16 && b->peaks.bf16_tflop_s > 0;
    return cut ? BF16 : FMA;
}

static enum peak peak_of_attn(const struct bench *b, enum oc_role role) {
    return role == OC_ROLE_P && isa_attn_bf16(b->ops.isa, 128) != BF16_NONE && b->peaks.bf16_tflop_s > 0 ? BF16 : FMA;
}

/* Bytes from the pile, in turn, so that a weight is not in the cache when its turn comes. */
static const uint8_t *from_pile(struct bench *b, size_t bytes) {
    OC_ASSERT(bytes + 64 <= b->pile_bytes);
    if (b->pile_at + bytes + 64 > b->pile_bytes) b->pile_at = 0;
    const uint8_t *p = b->pile + b->pile_at + 3; /* odd, as in a real checkpoint */
    b->pile_at = (b->pile_at + bytes + 63) / 64 * 64;
    return p;
}

static struct oc_weight weight_of(struct bench *b, enum wformat f, int64_t n, int64_t k) {
    struct oc_weight w = {.n = n, .k = k, .dtype = f == W_F32 ? OC_F32 : f == W_F16 ? OC_F16 : OC_BF16};
    w.bits = f == W_Q4 ? 4 : f == W_Q8 ? 8 : 0;
    w.group = w.bits ? 64 : 0;
    w.w = from_pile(b, (size_t)n * oc_weight_row_bytes(&w));
    if (w.bits) {
        w.scales = from_pile(b, (size_t)(n * k / 64) * 2);
        w.zero_biases = from_pile(b, (size_t)(n * k / 64) * 2);
    }
    return w;
}

static double weight_bytes(const struct oc_weight *w) {
    return (double)w->n * (double)oc_weight_row_bytes(w) + (w->bits ? (double)(w->n * w->k / 64 * 4) : 0);
}

static float *floats(struct bench *b, int64_t n) {
    float *p = aligned_alloc(64, oc_round_up((size_t)n * sizeof(float), 64));
    OC_ASSERT(p);
    for (int64_t i = 0; i < n; i++) p[i] = rnd_float(&b->rng);
    return p;
}

/* Turns of one measurement: at least three, then until the time is up. */
struct watch {
    double budget_s;
    bool cpu_time;
    double begin, start, best;
    int turns;
};

static struct watch watch_new(const struct bench *b, double budget_s) {
    return (struct watch){.budget_s = budget_s, .cpu_time = oc_pool_n_threads(b->ctx.pool) == 1};
}


static bool watch_again(struct watch *w) {
    double t = now_s(w->cpu_time);
    if (w->turns > 0) w->best = w->turns == 1 ? t - w->start : fmin(w->best, t - w->start);
    if (w->turns == 0) w->begin = t;
    if (w->turns >= 3 && (t - w->begin > w->budget_s || w->turns >= 400)) return false;
    w->turns++;
    w->start = now_s(w->cpu_time);
    return true;
}

static void bench_linear(struct bench *b, enum oc_role role, enum wformat f, int64_t m, int64_t n, int64_t k) {
    float *x = floats(b, m * k), *y = floats(b, m * n);
    struct oc_weight w = weight_of(b, f, n, k);
    struct oc_linear a = {role, m, x, k, &w, y, n, OC_ACT_NONE, false};
    char name[80], kernel[40];
    struct watch t = watch_new(b, 0.25);
    while (watch_again(&t)) {
        w = weight_of(b, f, n, k);
        b->ops.linear(&b->ctx, &a);
    }
    snprintf(kernel, sizeof kernel, "linear %s %s", role == OC_ROLE_D ? "D" : "P", wformat_name(f));
    snprintf(name, sizeof name, "m %d n %d k %d", (int)m, (int)n, (int)k);
    report(b, peak_of(b, role, f), kernel, name, t.best, weight_bytes(&w), 2.0 * (double)(m * n * k));
    free(x), free(y);
}

static void bench_glu(struct bench *b, enum oc_role role, enum wformat f, int64_t m, int64_t n, int64_t k) {
    float *x = floats(b, m * k), *y = floats(b, m * n);
    char name[80], kernel[40];
    struct watch t = watch_new(b, 0.25);
    struct oc_weight gate, up;
    while (watch_again(&t)) {
        gate = weight_of(b, f, n, k), up = weight_of(b, f, n, k);
        struct oc_linear_glu a = {role, m, x, k, &gate, &up, y, n, OC_ACT_SILU};
        b->ops.linear_glu(&b->ctx, &a);
    }
    snprintf(kernel, sizeof kernel, "linear_glu %s %s", role == OC_ROLE_D ? "D" : "P", wformat_name(f));
    snprintf(name, sizeof name, "m %d n %d x 2 k %d", (int)m, (int)n, (int)k);
    report(b, peak_of(b, role, f), kernel, name, t.best, weight_bytes(&gate) + weight_bytes(&up), 4.0 * (double)(m * n * k));
    free(x), free(y);
}

enum { DIM = 2048, KV = 256, INTER = 11008, LAYERS = 36, VOCAB = 151936, N_PARTS = 5 };

/* The linears of one decode step of the 3B in MLX 4-bit, m streams, and the best time of each. */
struct token {
    int64_t m;
    float *x, *h, *q, *kv, *logits;
    double best_s[N_PARTS]; /* qkv, o, gate and up, down, head */
    double bytes, params;
};

static void part_done(struct token *k, int part, double start, bool cpu_time) {
    double took = now_s(cpu_time) - start;
    if (k->best_s[part] == 0 || took < k->best_s[part]) k->best_s[part] = took;
}

static void count(struct token *k, const struct oc_weight *w, int n) {
    for (int i = 0; i < n; i++) k->bytes += weight_bytes(&w[i]), k->params += (double)(w[i].n * w[i].k);
}

static void token_layer(struct bench *b, struct token *k, bool cpu_time) {
    struct oc_weight w[7] = {
        weight_of(b, W_Q4, DIM, DIM),   weight_of(b, W_Q4, KV, DIM),    weight_of(b, W_Q4, KV, DIM),
        weight_of(b, W_Q4, DIM, DIM),   weight_of(b, W_Q4, INTER, DIM), weight_of(b, W_Q4, INTER, DIM),
        weight_of(b, W_Q4, DIM, INTER),
    };
    int64_t m = k->m;
    struct oc_linear3 qkv = {OC_ROLE_D,        m,
                             k->x,             DIM,
                             {&w[0], &w[1], &w[2]}, {k->q, k->kv, k->kv + m * KV},
                             {DIM, KV, KV}};
    struct oc_linear o = {OC_ROLE_D, m, k->q, DIM, &w[3], k->x, DIM, OC_ACT_NONE, false};
    struct oc_linear_glu glu = {OC_ROLE_D, m, k->x, DIM, &w[4], &w[5], k->h, INTER, OC_ACT_SILU};
    struct oc_linear down = {OC_ROLE_D, m, k->h, INTER, &w[6], k->x, DIM, OC_ACT_NONE, false};
    double t = now_s(cpu_time);
    b->ops.linear3(&b->ctx, &qkv);
    part_done(k, 0, t, cpu_time), t = now_s(cpu_time);
    b->ops.linear(&b->ctx, &o);
    part_done(k, 1, t, cpu_time), t = now_s(cpu_time);
    b->ops.linear_glu(&b->ctx, &glu);
    part_done(k, 2, t, cpu_time), t = now_s(cpu_time);
    b->ops.linear(&b->ctx, &down);
    part_done(k, 3, t, cpu_time);
    count(k, w, 7);
    for (int64_t i = 0; i < m * DIM; i++) k->x[i] = 0.01f * (float)(i % 100); /* keep the values tame */
}

/* 36 layers and the head, never twice the same bytes in a row. Two lines: the best whole token, and the sum of the
 * best times of its parts, which is the token of a machine without other work. */
static void bench_token(struct bench *b, int64_t m) {
    struct token k = {.m = m, .x = floats(b, m * DIM), .h = floats(b, m * INTER), .q = floats(b, m * DIM)};
    k.kv = floats(b, m * 2 * KV), k.logits = floats(b, m * VOCAB);
    struct watch t = watch_new(b, 0.5);
    while (watch_again(&t)) {
        k.bytes = k.params = 0;
        for (int layer = 0; layer < LAYERS; layer++) token_layer(b, &k, t.cpu_time);
        struct oc_weight head = weight_of(b, W_Q4, VOCAB, DIM);
        struct oc_linear a = {OC_ROLE_D, m, k.x, DIM, &head, k.logits, VOCAB, OC_ACT_NONE, false};
        double start = now_s(t.cpu_time);
        b->ops.linear(&b->ctx, &a);
        part_done(&k, 4, start, t.cpu_time);
        count(&k, &head, 1);
    }
    double parts = LAYERS * (k.best_s[0] + k.best_s[1] + k.best_s[2] + k.best_s[3]) + k.best_s[4];
    char name[80];
    snprintf(name, sizeof name, "m %d: %.2f tok/s", (int)m, (double)m / t.best);
    report(b, FMA, "3B token", name, t.best, k.bytes, 2 * k.params * (double)m);
    snprintf(name, sizeof name, "m %d: %.2f tok/s", (int)m, (double)m / parts);
    report(b, FMA, "3B token, best parts", name, parts, k.bytes, 2 * k.params * (double)m);
    free(k.x), free(k.h), free(k.q), free(k.kv), free(k.logits);
}

static void bench_segments(struct bench *b, int m, int segment) {
    enum { HEADS = 16, HD = 80, COLS = HEADS * HD };
    float *qkv = floats(b, (int64_t)m * 3 * COLS), *y = floats(b, (int64_t)m * COLS);
    int32_t *seg = malloc(((size_t)(m / segment) + 2) * sizeof *seg);
    int n = 0;
    OC_ASSERT(seg);
    for (seg[0] = 0; seg[n] < m; n++) seg[n + 1] = seg[n] + segment < m ? seg[n] + segment : m;
    struct oc_attn_segments a = {HEADS,    HD,       0.11f,    qkv, qkv + COLS, qkv + 2 * COLS,
                                 3 * COLS, 3 * COLS, 3 * COLS, seg, n,          y,
                                 COLS,     0,        0};
    struct watch t = watch_new(b, 0.25);
    double pairs = 0;
    for (int s = 0; s < n; s++) pairs += pow(seg[s + 1] - seg[s], 2);
    while (watch_again(&t)) b->ops.attn_segments(&b->ctx, &a);
    char name[80];
    snprintf(name, sizeof name, "%d rows in segments of %d", m, segment);
    report(b, peak_of_attn(b, OC_ROLE_P), "attn_segments", name, t.best, 16.0 * m * COLS, 4.0 * pairs * COLS);
    free(qkv), free(y), free(seg);
}

/* m rows ending at context `ctx`. */
static void bench_paged(struct bench *b, enum oc_role role, int m, int ctx, enum oc_dtype t) {
    enum { HEADS = 16, KV_HEADS = 2, HD = 128, PAGE = 16, MAX_PAGES = 1024 };
    size_t page = (size_t)KV_HEADS * PAGE * HD * oc_dtype_bytes(t);
    int32_t pages[MAX_PAGES];
    int n_pages = (ctx + PAGE - 1) / PAGE;
    float *q = floats(b, (int64_t)m * HEADS * HD), *y = floats(b, (int64_t)m * HEADS * HD);
    float *values = floats(b, (int64_t)2 * n_pages * KV_HEADS * PAGE * HD);
    struct oc_kv_row *rows = malloc((size_t)m * sizeof *rows);
    OC_ASSERT(rows && n_pages <= MAX_PAGES);
    if (t == OC_BF16) {
        uint16_t *half = (uint16_t *)(void *)values;
        for (int64_t i = 0; i < (int64_t)2 * n_pages * KV_HEADS * PAGE * HD; i++) half[i] = oc_f32_to_bf16(values[i]);
    }
    for (int i = 0; i < n_pages; i++) pages[i] = i;
    for (int i = 0; i < m; i++) rows[i] = (struct oc_kv_row){pages, ctx - m + i, role};
    uint8_t *k = (uint8_t *)values;
    struct oc_kv_layer kv = {k, k + (size_t)n_pages * page, page, t, KV_HEADS, HD, PAGE};
    struct oc_attn_paged a = {m, HEADS, 0.088f, q, HEADS * HD, rows, kv, y, HEADS * HD};
    struct watch w = watch_new(b, 0.25);
    double pairs = 0;
    for (int i = 0; i < m; i++) pairs += rows[i].slot + 1;
    while (watch_again(&w)) b->ops.attn_paged(&b->ctx, &a);
    char name[80];
    snprintf(name, sizeof name, "m %d context %d %s", m, ctx, oc_dtype_name(t));
    report(b, peak_of_attn(b, role), role == OC_ROLE_D ? "attn_paged D" : "attn_paged P", name, w.best,
           (double)page * n_pages * 2, 4.0 * pairs * HEADS * HD);
    free(q), free(y), free(values), free(rows);
}

static void bench_small(struct bench *b, int64_t m) {
    enum { COLS = 1280, HD = 80 };
    float *x = floats(b, m * COLS), *y = floats(b, m * COLS), *c = floats(b, m * HD / 2), *s = floats(b, m * HD / 2);
    struct oc_rmsnorm norm = {m, COLS, x, COLS, c, 1e-6f, y, COLS};
    struct oc_rope rope = {m, COLS / HD, HD, y, COLS, c, s};
    struct watch t = watch_new(b, 0.1), t2 = t;
    char name[80];
    while (watch_again(&t)) b->ops.rmsnorm(&b->ctx, &norm);
    snprintf(name, sizeof name, "%d x %d", (int)m, COLS);
    report(b, FMA, "rmsnorm", name, t.best, 8.0 * (double)m * COLS, 4.0 * (double)m * COLS);
    while (watch_again(&t2)) b->ops.rope(&b->ctx, &rope);
    report(b, FMA, "rope", name, t2.best, 8.0 * (double)m * COLS, 3.0 * (double)m * COLS);
    free(x), free(y), free(c), free(s);
}

static void bench_decode(struct bench *b) {
    static const int streams[] = {1, 8, 2, 4, 64};
    for (int i = 0; i < (b->quick ? 2 : 5); i++) bench_token(b, streams[i]);
    bench_linear(b, OC_ROLE_D, W_Q4, 1, 2048, 2048);
    bench_linear(b, OC_ROLE_D, W_Q4, 1, 2048, 11008);
    bench_linear(b, OC_ROLE_D, W_Q4, 1, 151936, 2048);
    bench_glu(b, OC_ROLE_D, W_Q4, 1, 11008, 2048);
    bench_linear(b, OC_ROLE_D, W_Q8, 1, 11008, 2048);
    bench_linear(b, OC_ROLE_D, W_BF16, 1, 11008, 2048);
    bench_linear(b, OC_ROLE_D, W_F16, 1, 11008, 2048);
    bench_linear(b, OC_ROLE_D, W_F32, 1, 11008, 2048);
    bench_paged(b, OC_ROLE_D, 1, 1300, OC_BF16);
    bench_paged(b, OC_ROLE_D, 1, 1300, OC_F32);
    bench_paged(b, OC_ROLE_D, 1, 8192, OC_BF16);
    bench_paged(b, OC_ROLE_D, 8, 1300, OC_BF16);
}

static void bench_prefill(struct bench *b) {
    int64_t m = b->quick ? 512 : 1230, patches = b->quick ? 1024 : 4800;
    bench_linear(b, OC_ROLE_P, W_Q4, 64, 2048, 2048);
    bench_linear(b, OC_ROLE_P, W_Q4, 512, 2048, 2048);
    bench_linear(b, OC_ROLE_P, W_Q4, m, 2048, 11008);
    bench_glu(b, OC_ROLE_P, W_Q4, m, 11008, 2048);
    bench_linear(b, OC_ROLE_P, W_Q8, 512, 2048, 2048);
    bench_linear(b, OC_ROLE_P, W_BF16, patches, 3840, 1280);
    bench_linear(b, OC_ROLE_P, W_BF16, patches, 1280, 3420);
    bench_linear(b, OC_ROLE_P, W_F32, patches, 1280, 1176);
    bench_glu(b, OC_ROLE_P, W_BF16, patches, 3420, 1280);
    bench_segments(b, (int)patches, 64);
    bench_segments(b, (int)patches, (int)patches);
    bench_paged(b, OC_ROLE_P, (int)m, (int)m, OC_BF16);
    bench_small(b, patches);
}

static void bench_isa(const char *isa, bool quick, bool decode_only, struct oc_pool *pool, uint8_t *pile, size_t pile_bytes, FILE *csv) {
    struct bench b = {.quick = quick, .csv = csv, .pile = pile, .pile_bytes = pile_bytes, .rng = {.rng = 7}};
    struct oc_errinfo ei;
    if (!ops_by_name(&b.ops, isa, &ei)) return;
    b.ctx.pool = pool;
    b.ctx.int8 = b.ops.int8;
    b.ctx.scratch_bytes = oc_ops_scratch_bytes(4800, 11008, 151936, 128, oc_pool_n_threads(pool));
    b.ctx.scratch = aligned_alloc(64, b.ctx.scratch_bytes);
    OC_ASSERT(b.ctx.scratch);
    memset(b.ctx.scratch, 0, b.ctx.scratch_bytes);
    b.peaks = measure_peaks(pool, isa, pile, pile_bytes);
    printf("%s: %d threads%s, reads %.1f GB/s, f32 FMA %.3f TFLOP/s, bf16 %.3f, 16-bit numbers %.3f TFLOP/s\n", isa, oc_pool_n_threads(pool),
           oc_pool_n_threads(pool) == 1 ? " (CPU time)" : "", b.peaks.read_gb_s, b.peaks.fma_tflop_s,
           b.peaks.bf16_tflop_s, b.peaks.int16_tflop_s);
    if (csv) {
        fprintf(csv, "%s,%d,peak,reads,,%.2f,100,,,\n", isa, oc_pool_n_threads(pool), b.peaks.read_gb_s);
        fprintf(csv, "%s,%d,peak,f32 FMA,,,,%.4f,100,fma\n", isa, oc_pool_n_threads(pool), b.peaks.fma_tflop_s);
        if (b.peaks.bf16_tflop_s > 0)
            fprintf(csv, "%s,%d,peak,bf16,,,,%.4f,100,bf16\n", isa, oc_pool_n_threads(pool), b.peaks.bf16_tflop_s);
        if (b.peaks.int16_tflop_s > 0)
            fprintf(csv, "%s,%d,peak,int16,,,,%.4f,100,int16\n", isa, oc_pool_n_threads(pool), b.peaks.int16_tflop_s);
    }
    bench_decode(&b);
    if (!decode_only && !b.ops.int8) bench_prefill(&b); /* int8 changes role D only */
    free(b.ctx.scratch);
}

void bench(const char *isa, bool quick, bool decode_only, int n_threads, const char *csv_path) {
    static const char *const names[] = {"avx2", "avx2-int8", "avxvnni", "avx512", "avx512-int8", "avx512vnni", "avx512vnni24", "avx512bf16", "amx",
                                        "amxint16", "amxmany", "amxbf16", "neon", "neondot", "neondot-int8", "neonmm"};
    FILE *csv = csv_path ? fopen(csv_path, "w") : NULL;
    if (csv_path && !csv) {
        printf("cannot write %s\n", csv_path);
        exit(1);
    }
    if (csv) fprintf(csv, "isa,threads,kernel,shape,us,gb_s,percent_of_reads,tflop_s,percent_of_peak,peak\n");
    struct oc_errinfo ei;
    struct oc_pool *pool;
    struct chk rng = {.rng = 3};
    size_t pile_bytes = (size_t)400 << 20;
    uint8_t *pile = mmap(NULL, pile_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    OC_ASSERT(pile != MAP_FAILED);
    /* Bytes that are tame floats of any type from any address on: subnormal ones cost Intel's cores 150 cycles each. */
    for (size_t i = 0; i < pile_bytes; i += 8) {
        uint64_t u = (rnd(&rng) & 0x8f8f8f8f8f8f8f8fu) | 0x3030303030303030u;
        memcpy(pile + i, &u, 8);
    }
    if (oc_pool_open(n_threads, &pool, &ei) != OC_OK) {
        printf("%s\n", ei.msg);
        exit(1);
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (!isa || strcmp(isa, names[i]) == 0) bench_isa(names[i], quick, decode_only, pool, pile, pile_bytes, csv);
    }
    if (isa && strncmp(isa, "ref", 3) == 0) bench_isa(isa, quick, decode_only, pool, pile, pile_bytes, csv);
    if (csv && fclose(csv) != 0) printf("cannot write all of %s\n", csv_path);
    oc_pool_close(pool);
    munmap(pile, pile_bytes);
}
