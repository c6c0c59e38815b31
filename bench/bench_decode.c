/* bench_decode MODEL_DIR [THREADS [CONTEXT [STEPS [STREAMS [ISA,ISA...]]]]]: one decode step of 1 to 64 streams, op by op, beside reads
 * measured between the steps. Of several ISAs each makes a step in turn.
 *
 * Every round reads a part of the mapped weights, makes one step at the context and picks greedily, so that the share of the
 * limit is a ratio within one run, whatever else the machine does. Keys and values are made up: they cost what true ones do. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/engine.h"
#include "lm/sample.h"
#include "median.h"
#include "../tests/kernels/bench_reads.h"

#define MAX_STEPS 2000
#define MAX_ISAS 4
#define MAX_STREAMS 64
#define READ_BYTES ((size_t)96 << 20)

enum { EMBED, NORM, QKV, ROPE, APPEND, ATTEND, LINEAR, GLU, HEAD, N_OPS };
static const char *const op_names[N_OPS] = {"embed", "rmsnorm", "linear3", "rope", "kv_append", "attn_paged", "linear o, down", "linear_glu", "head"};

struct bench {
    struct oc_engine *e;
    struct oc_session *s[MAX_STREAMS];
    int n_streams;
    struct oc_ops real;
    double op_us[N_OPS][MAX_STEPS];
    double step_ms[MAX_STEPS], pick_ms[MAX_STEPS], read_gb_s[MAX_STEPS];
    int step;
    const uint8_t *lo, *hi, *at; /* the weights, and where the next reads begin */
};

static struct bench benches[MAX_ISAS], *bench; /* the wrapped ops have no argument of their own */

static void stop(const char *what) {
    fprintf(stderr, "bench_decode: %s\n", what);
    exit(1);
}

/* ---- Reads ------------------------------------------------------------------------------------------------ */

static double measure_reads(struct bench *b) {
    static struct read_job r;
    size_t all = (size_t)(b->hi - b->lo), bytes = all < READ_BYTES ? all : READ_BYTES;
    if (b->at + bytes > b->hi) b->at = b->lo;
    r.p = b->at;
    r.bytes = bytes;
    b->at += bytes;
    uint64_t start = oc_clock_ns();
    oc_pool_run(b->e->pool, read_work, &r);
    return (double)bytes / 1e6 / oc_clock_ms_since(start);
}

/* The largest weight, the vocabulary: one piece of memory, while others may lie in other files. */
static void read_from(struct bench *b, const struct oc_weight *w) {
    b->lo = (const uint8_t *)(((uintptr_t)w->w + 63) & ~(uintptr_t)63);
    b->hi = w->w + (size_t)(w->n * w->k) * (w->bits ? w->bits : 16) / 8;
    b->at = b->lo;
}

/* ---- Ops -------------------------------------------------------------------------------------------------- */

static uint64_t op_start;

static void begin(void) {
    op_start = oc_clock_ns();
}

static void end(int op) {
    bench->op_us[op][bench->step] += (double)(oc_clock_ns() - op_start) / 1e3;
}

#define WRAP(name, op)                                                                                                  \
    static void timed_##name(const struct oc_kctx *ctx, const struct oc_##name *a) {                                    \
        begin();                                                                                                        \
        bench->real.name(ctx, a);                                                                                        \
        end(op);                                                                                                        \
    }

WRAP(embed, EMBED)
WRAP(rmsnorm, NORM)
WRAP(linear3, QKV)
WRAP(rope, ROPE)
WRAP(kv_append, APPEND)
WRAP(attn_paged, ATTEND)
WRAP(linear, a->add ? LINEAR : HEAD)
WRAP(linear_glu, GLU)

static void wrap(struct bench *b) {
    struct oc_ops *o = &b->e->dev->ops;
    b->real = *o;
    o->embed = timed_embed;
    o->rmsnorm = timed_rmsnorm;
    o->linear3 = timed_linear3;
    o->rope = timed_rope;
    o->kv_append = timed_kv_append;
    o->attn_paged = timed_attn_paged;
    o->linear = timed_linear;
    o->linear_glu = timed_linear_glu;
}

/* ---- Steps ------------------------------------------------------------------------------------------------ */

/* n tokens stand in each session, as if a prompt had been read. */
static void fill_session(struct bench *b, int n) {
    struct oc_lm_kv_cache *kv = &b->e->kv;
    uint64_t state = 88172645463325252u;
    if (kv->dtype != OC_F32) stop("the cache is not f32");
    for (size_t i = 0; i < kv->mem_bytes; i += 4) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        float f = (float)(int32_t)state * 0x1p-31f;
        memcpy(kv->mem + i, &f, 4);
    }
    for (int i = 0; i < n; i++) {
        int32_t token = i % 1000, pos[1][3] = {{i, i, i}};
        for (int j = 0; j < b->n_streams; j++) oc_engine_session_commit(b->s[j], &token, (const int32_t(*)[3])pos, 1);
    }
}

/* The next token of every stream, in one step. */
static void decode(struct bench *b) {
    struct oc_errinfo ei;
    struct oc_row rows[MAX_STREAMS];
    for (int j = 0; j < b->n_streams; j++) rows[j] = oc_engine_session_row(b->s[j], 0, 5 + (b->step + 7 * j) % 100);
    if (oc_engine_step(b->e, rows, b->n_streams, &ei) != OC_OK) stop(ei.msg);
}

static void one_step(struct bench *b, struct oc_lm_sampler *sampler) {
    struct oc_errinfo ei;
    struct oc_lm_sample_pick pick;
    b->read_gb_s[b->step] = measure_reads(b);
    uint64_t start = oc_clock_ns();
    decode(b);
    b->step_ms[b->step] = oc_clock_ms_since(start);
    start = oc_clock_ns();
    for (int j = 0; j < b->n_streams; j++)
        if (oc_lm_sample_pick(sampler, oc_engine_logits(b->e, j), NULL, &pick, &ei) != OC_OK) stop(ei.msg);
    b->pick_ms[b->step] = oc_clock_ms_since(start);
}

static void report(struct bench *b, int n, int context) {
    const struct oc_engine_info *info = &b->e->info;
    double bytes = (double)info->decode_weight_bytes + (double)b->n_streams * context * (double)info->kv_bytes_per_token, ops = 0, share[MAX_STEPS];
    for (int i = 0; i < n; i++) share[i] = 100 * bytes / 1e6 / (b->step_ms[i] + b->pick_ms[i]) / b->read_gb_s[i];
    double step = median(b->step_ms, n), pick = median(b->pick_ms, n), reads = median(b->read_gb_s, n);
    printf("%d threads, %s, %d streams, context %d: %.1f MB a step; reads %.1f GB/s (%.1f to %.1f)\n", info->n_threads, info->isa,
           b->n_streams, context, bytes / 1e6, reads, b->read_gb_s[0], b->read_gb_s[n - 1]);
    for (int i = 0; i < N_OPS; i++) {
        double us = median(b->op_us[i], n);
        ops += us / 1e3;
        printf("  %-16s %8.1f us\n", op_names[i], us);
    }
    printf("  %-16s %8.1f us\n  %-16s %8.1f us\n", "other", 1e3 * (step - ops), "picking", 1e3 * pick);
    printf("step %.2f ms, with picking %.2f tok/s, %.1f GB/s; medians: %.1f %% of reads; step by step %.1f %%\n", step, b->n_streams * 1e3 / (step + pick),
           bytes / 1e6 / (step + pick), 100 * bytes / 1e6 / (step + pick) / reads, median(share, n));
}

static int number(int argc, char **argv, int at, int otherwise) {
    return argc > at ? (int)strtol(argv[at], NULL, 10) : otherwise;
}

static void open_bench(struct bench *b, const struct oc_engine_params *p, int context) {
    struct oc_errinfo ei;
    if (oc_engine_open(p, &b->e, &ei) != OC_OK) stop(ei.msg);
    for (int j = 0; j < b->n_streams; j++)
        if (oc_session_open(b->e, context + 16, &b->s[j], &ei) != OC_OK) stop(ei.msg);
    const struct oc_lm *lm = &b->e->model->lm;
    read_from(b, &lm->head);
    fill_session(b, context);
}

static void close_bench(struct bench *b) {
    for (int j = 0; j < b->n_streams; j++) oc_session_close(b->s[j]);
    oc_engine_close(b->e);
}

/* Names between commas; NULL for none. */
static int split_names(char *list, const char *names[MAX_ISAS]) {
    int n = 0;
    char *rest = NULL;
    names[0] = NULL;
    for (char *name = list ? strtok_r(list, ",", &rest) : NULL; name && n < MAX_ISAS; name = strtok_r(NULL, ",", &rest)) names[n++] = name;
    return n > 0 ? n : 1;
}

int main(int argc, char **argv) {
    struct oc_errinfo ei;
    const char *isas[MAX_ISAS];
    if (argc < 2) stop("usage: bench_decode MODEL_DIR [THREADS [CONTEXT [STEPS [STREAMS [ISA,ISA...]]]]]");
    int threads = number(argc, argv, 2, 0), context = number(argc, argv, 3, 1300), n = number(argc, argv, 4, 100);
    int n_streams = number(argc, argv, 5, 1), n_isas = split_names(argc > 6 ? argv[6] : NULL, isas);
    if (n < 1 || n > MAX_STEPS || context < 1) stop("1 to 2000 steps, a context of 1 at least");
    if (n_streams < 1 || n_streams > MAX_STREAMS) stop("1 to 64 streams");
    for (int i = 0; i < n_isas; i++) {
        struct oc_engine_params p = {.model_dir = argv[1], .isa = isas[i], .n_threads = threads, .ctx_tokens = context + 16,
                                     .kv_tokens = n_streams * (context + 32), .n_sessions = n_streams};
        benches[i].n_streams = n_streams;
        open_bench(&benches[i], &p, context);
    }
    struct oc_lm_sampler *sampler;
    struct oc_lm_sample_params greedy = oc_lm_sample_defaults();
    greedy.temperature = 0;
    if (oc_lm_sample_open(&greedy, benches[0].e->model->lm.n_vocab, &sampler, &ei) != OC_OK) stop(ei.msg);
    for (int step = -3; step < n; step++) {
        for (int i = 0; i < n_isas; i++) {
            bench = &benches[i];
            bench->step = step < 0 ? 0 : step;
            if (step == 0) wrap(bench);
            one_step(bench, sampler);
        }
    }
    for (int i = 0; i < n_isas; i++) report(&benches[i], n, context);
    oc_lm_sample_close(sampler);
    for (int i = 0; i < n_isas; i++) close_bench(&benches[i]);
    return 0;
}
