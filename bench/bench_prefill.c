/* bench_prefill MODEL_DIR [THREADS [TOKENS [RUNS [ISA]]]]: a picture of 1355 x 710 through the encoder, then a prompt, op by op. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/engine.h"

enum { EMBED, NORM, QKV, LINEAR, ADD, GLU, ROPE, APPEND, PAGED, WINDOWS, FULL, N_OPS };
static const char *const op_names[N_OPS] = {"embed",   "rmsnorm",   "linear3",     "linear",             "linear, added", "linear_glu",
                                            "rope", "kv_append", "attn_paged", "attn_segments, many", "attn_segments, few"};

static struct bench {
    struct oc_engine *e;
    struct oc_ops real;
    double ms[N_OPS];
} bench; /* the wrapped ops have no argument of their own */

static void stop(const char *what) {
    fprintf(stderr, "bench_prefill: %s\n", what);
    exit(1);
}

#define WRAP(name, op)                                                                                                  \
    static void timed_##name(const struct oc_kctx *ctx, const struct oc_##name *a) {                                    \
        uint64_t start = oc_clock_ns();                                                                                 \
        bench.real.name(ctx, a);                                                                                        \
        bench.ms[op] += oc_clock_ms_since(start);                                                                       \
    }

WRAP(embed, EMBED)
WRAP(rmsnorm, NORM)
WRAP(linear3, QKV)
WRAP(linear, a->add ? ADD : LINEAR)
WRAP(linear_glu, GLU)
WRAP(rope, ROPE)
WRAP(kv_append, APPEND)
WRAP(attn_paged, PAGED)
WRAP(attn_segments, a->n_segs > 8 ? WINDOWS : FULL)

static void wrap(struct bench *b) {
    struct oc_ops *o = &b->e->dev->ops;
    b->real = *o;
    o->embed = timed_embed;
    o->rmsnorm = timed_rmsnorm;
    o->linear3 = timed_linear3;
    o->linear = timed_linear;
    o->linear_glu = timed_linear_glu;
    o->rope = timed_rope;
    o->kv_append = timed_kv_append;
    o->attn_paged = timed_attn_paged;
    o->attn_segments = timed_attn_segments;
}

static void report(const char *what, double all_ms) {
    double rest = all_ms;
    printf("%s: %.1f ms\n", what, all_ms);
    for (int i = 0; i < N_OPS; i++) {
        if (bench.ms[i] > 0) printf("  %-20s %9.1f ms\n", op_names[i], bench.ms[i]);
        rest -= bench.ms[i];
    }
    printf("  %-20s %9.1f ms\n", "other", rest);
    fflush(stdout);
    memset(bench.ms, 0, sizeof bench.ms);
}

static float *floats(int64_t n) {
    float *p = malloc((size_t)n * sizeof *p);
    uint64_t u = 88172645463325252u;
    if (!p) stop("out of memory");
    for (int64_t i = 0; i < n; i++) {
        u ^= u << 13, u ^= u >> 7, u ^= u << 17;
        p[i] = (float)(int32_t)u * 0x1p-31f;
    }
    return p;
}

static void picture(struct oc_engine *e) {
    struct oc_errinfo ei;
    struct oc_picture_plan plan;
    if (oc_engine_plan_picture(e, 1355, 710, NULL, &plan, &ei) != OC_OK) stop(ei.msg);
    float *patches = floats((int64_t)plan.n_patches * plan.patch_dim), *out = floats((int64_t)plan.n_tokens * e->info.dim);
    char what[64];
    snprintf(what, sizeof what, "picture of %d patches", plan.n_patches);
    uint64_t start = oc_clock_ns();
    if (oc_engine_encode_picture(e, &plan, patches, out, &ei) != OC_OK) stop(ei.msg);
    report(what, oc_clock_ms_since(start));
    free(patches), free(out);
}

static void prompt(struct oc_engine *e, int n) {
    struct oc_errinfo ei;
    struct oc_session *s;
    int32_t *tokens = malloc((size_t)n * sizeof *tokens);
    if (!tokens) stop("out of memory");
    for (int i = 0; i < n; i++) tokens[i] = 5 + i % 1000;
    const struct oc_prompt p = {.tokens = tokens, .n_tokens = n};
    if (oc_session_open(e, n + 16, &s, &ei) != OC_OK) stop(ei.msg);
    char what[64];
    snprintf(what, sizeof what, "prompt of %d tokens", n);
    uint64_t start = oc_clock_ns();
    if (oc_session_prefill(s, &p, NULL, NULL, &ei) != OC_OK) stop(ei.msg);
    report(what, oc_clock_ms_since(start));
    oc_session_close(s);
    free(tokens);
}

static int number(int argc, char **argv, int at, int otherwise) {
    return argc > at ? (int)strtol(argv[at], NULL, 10) : otherwise;
}

int main(int argc, char **argv) {
    struct oc_errinfo ei;
    if (argc < 2) stop("usage: bench_prefill MODEL_DIR [THREADS [TOKENS [RUNS [ISA]]]]");
    int n = number(argc, argv, 3, 1230), runs = number(argc, argv, 4, 2);
    if (n < 1) stop("a prompt of one token at least");
    struct oc_engine_params p = {.model_dir = argv[1], .isa = argc > 5 ? argv[5] : NULL, .n_threads = number(argc, argv, 2, 0), .ctx_tokens = n < 4096 ? 8192 : 2 * n, .image_max_tokens = 2048};
    if (oc_engine_open(&p, &bench.e, &ei) != OC_OK) stop(ei.msg);
    printf("%d threads, %s\n", bench.e->info.n_threads, bench.e->info.isa);
    wrap(&bench);
    for (int i = 0; i < runs; i++) {
        if (bench.e->info.has_vision) picture(bench.e);
        prompt(bench.e, n);
    }
    oc_engine_close(bench.e);
    return 0;
}
