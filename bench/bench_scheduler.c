/* bench_scheduler [--device cuda:PLUGIN] MODEL_DIR [THREADS [PROMPT_TOKENS [WIDTH HEIGHT [STREAMS]]]]: time between tokens while nothing, a picture or a long prompt comes in.
 *
 * Some sequences (two, unless told otherwise) decode. The gaps between their tokens are measured quiet, while a picture is encoded, and while a long
 * prompt is read; the ratio to the quiet median is what OC_SCHED_ITL_FACTOR bounds. Then the work alone, for what the
 * slices cost. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "bench_device.h"
#include "engine/sched.h"

#define MAX_STREAMS 32
#define MAX_GAPS 20000
#define MAX_PROMPT 4000

struct gaps {
    double ms[MAX_GAPS];
    int n;
};

struct bench {
    struct oc_engine *e;
    struct oc_scheduler *s;
    struct gaps *gaps; /* where the gaps of sequence 1 go now, or NULL */
    uint64_t last_ns;
    int n_done;
    struct oc_sched_done done; /* of the last job */
    struct oc_picture_plan plan;
    float *patches;
    int32_t tokens[MAX_PROMPT];
    int n_long, n_streams;
    uint64_t next_id;
};

static void stop(const char *what) {
    fprintf(stderr, "bench_scheduler: %s\n", what);
    exit(1);
}

static void on_token(void *arg, uint64_t id, const struct oc_lm_sample_pick *pick) {
    struct bench *b = arg;
    (void)pick;
    if (id != 1) return;
    uint64_t now_ns = oc_clock_ns();
    if (b->gaps && b->last_ns && b->gaps->n < MAX_GAPS) b->gaps->ms[b->gaps->n++] = (double)(now_ns - b->last_ns) / 1e6;
    b->last_ns = now_ns;
}

static void on_done(void *arg, uint64_t id, const struct oc_sched_done *done) {
    struct bench *b = arg;
    (void)id;
    b->n_done++;
    b->done = *done;
    if (done->finish == OC_SCHED_ERROR) stop(done->error.msg);
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(struct gaps *g, double q) {
    if (g->n == 0) return 0;
    qsort(g->ms, (size_t)g->n, sizeof *g->ms, compare);
    return g->ms[(int)(q * (g->n - 1))];
}

static void add(struct bench *b, int n_tokens, bool picture, int max_tokens) {
    struct oc_errinfo ei;
    int32_t tokens[MAX_PROMPT + 1];
    struct oc_sched_picture p = {.plan = b->plan, .patches.all = b->patches};
    struct oc_sched_job job = {.id = ++b->next_id, .tokens = tokens, .pictures = &p, .max_tokens = max_tokens};
    memcpy(tokens, b->tokens, (size_t)n_tokens * sizeof *tokens);
    tokens[0] = (int32_t)b->next_id; /* no two begin alike */
    job.n_tokens = n_tokens;
    if (picture) tokens[job.n_tokens++] = b->e->info.image_token, job.n_pictures = 1;
    job.sample = oc_lm_sample_defaults();
    if (oc_scheduler_add(b->s, &job, &ei) != OC_OK) stop(ei.msg);
}

/* Runs until n more jobs are done, with gaps going to g. */
static void run(struct bench *b, int n, struct gaps *g) {
    int goal = b->n_done + n;
    b->gaps = g;
    b->last_ns = 0;
    while (b->n_done < goal && oc_scheduler_step(b->s)) {}
    b->gaps = NULL;
}

static void report(const char *what, const char *unit, struct gaps *g) {
    printf("%-26s %5d gaps, %s: p50 %.2f  p95 %.2f  p99 %.2f\n", what, g->n, unit, quantile(g, 0.5), quantile(g, 0.95), quantile(g, 0.99));
}

/* The median gap while nothing else is asked. */
static double quiet_ms(struct bench *b, struct gaps *all) {
    static struct gaps now;
    now.n = 0;
    b->gaps = &now;
    b->last_ns = 0;
    for (int i = 0; i < 40; i++) oc_scheduler_step(b->s);
    b->gaps = NULL;
    double median = quantile(&now, 0.5);
    for (int i = 0; i < now.n && all->n < MAX_GAPS; i++) all->ms[all->n++] = now.ms[i] / median;
    return median;
}

/* Gaps while one more job runs, each divided by what was quiet just before: other programs slow both. */
static void disturb(struct bench *b, bool picture, struct gaps *quiet, struct gaps *all, struct gaps *ms) {
    static struct gaps now;
    double median = quiet_ms(b, quiet);
    now.n = 0;
    add(b, picture ? 8 : b->n_long, picture, 1);
    run(b, 1, &now);
    for (int i = 0; i < now.n && all->n < MAX_GAPS; i++) {
        all->ms[all->n++] = now.ms[i] / median;
        ms->ms[ms->n++] = now.ms[i];
    }
    printf("quiet gap %.1f ms; %s beside it: encode %.0f ms, prefill %.0f ms\n", median, picture ? "picture" : "prompt",
           b->done.encode_ms, b->done.prefill_ms);
}

static void measure(struct bench *b) {
    static struct gaps quiet, picture, prompt, picture_ms, prompt_ms;
    int max = b->e->info.ctx_tokens - 64; /* they outlast the measurement */
    for (int i = 0; i < b->n_streams; i++) add(b, 32, false, max);
    while (b->s->n_decoding < b->n_streams) oc_scheduler_step(b->s);
    for (int i = 0; i < 5; i++) {
        disturb(b, true, &quiet, &picture, &picture_ms);
        disturb(b, false, &quiet, &prompt, &prompt_ms);
    }
    report("quiet", "in quiet ones", &quiet);
    report("while a picture comes in", "in quiet ones", &picture);
    report("while a prompt comes in", "in quiet ones", &prompt);
    report("while a picture comes in", "in ms", &picture_ms);
    report("while a prompt comes in", "in ms", &prompt_ms);
    for (uint64_t id = 1; id <= (uint64_t)b->n_streams; id++) oc_scheduler_cancel(b->s, id);
    add(b, 8, true, 1);
    run(b, 1, NULL);
    printf("alone: picture of %d tokens: encode %.0f ms, prefill %.0f ms\n", b->plan.n_tokens, b->done.encode_ms, b->done.prefill_ms);
    add(b, b->n_long, false, 1);
    run(b, 1, NULL);
    printf("alone: prompt of %d tokens: prefill %.0f ms\n", b->n_long, b->done.prefill_ms);
}

/* Tokens a second of n sequences together. */
static void throughput(struct bench *b, int n) {
    enum { N_TOKENS = 64 };
    uint64_t start_ns = oc_clock_ns();
    for (int i = 0; i < n; i++) add(b, 32, false, N_TOKENS);
    run(b, n, NULL);
    printf("%2d sequences: %.1f tokens/s\n", n, n * N_TOKENS * 1e3 / oc_clock_ms_since(start_ns));
}

static int number(int argc, char **argv, int at, int otherwise) {
    return argc > at ? (int)strtol(argv[at], NULL, 10) : otherwise;
}

int main(int argc, char **argv) {
    static struct bench b;
    struct oc_errinfo ei;
    struct oc_engine_params p = {.ctx_tokens = 4096, .n_sessions = 32 + 1};
    if (!bench_device(&argc, argv, &p) || argc < 2) stop("usage: bench_scheduler [--device cuda:PLUGIN] MODEL_DIR [THREADS [PROMPT_TOKENS [WIDTH HEIGHT [STREAMS]]]]");
    b.n_long = number(argc, argv, 3, 2000);
    if (b.n_long < 8 || b.n_long > MAX_PROMPT) stop("PROMPT_TOKENS: 8 to 4000");
    b.n_streams = number(argc, argv, 6, 2);
    if (b.n_streams < 1 || b.n_streams > MAX_STREAMS) stop("STREAMS: 1 to 32");
    p.kv_tokens = 32768 + 4096 * b.n_streams;
    p.model_dir = argv[1];
    p.n_threads = number(argc, argv, 2, 0);
    struct oc_sched_events ev = {.arg = &b, .on_token = on_token, .on_done = on_done};
    if (oc_engine_open(&p, &b.e, &ei) != OC_OK) stop(ei.msg);
    if (oc_scheduler_open(b.e, &(struct oc_sched_params){.prefix_cache = true}, &ev, &b.s, &ei) != OC_OK) stop(ei.msg);
    if (oc_engine_plan_picture(b.e, number(argc, argv, 4, 1355), number(argc, argv, 5, 710), NULL, &b.plan, &ei) != OC_OK) stop(ei.msg);
    b.patches = calloc((size_t)b.plan.n_patches * (size_t)b.plan.patch_dim, sizeof *b.patches);
    if (!b.patches) stop("no memory for a picture");
    for (int i = 0; i < MAX_PROMPT; i++) b.tokens[i] = 1000 + i % 7919;
    measure(&b);
    for (int n = 1; n <= 32; n *= 4) throughput(&b, n);
    oc_scheduler_close(b.s);
    oc_engine_close(b.e);
    free(b.patches);
    return 0;
}
