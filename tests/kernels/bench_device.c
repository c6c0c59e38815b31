/* check_kernels --bench --device: ops and whole passes at the shapes of Qwen2.5-VL 3B and 7B beside the device's copy rate. */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "check.h"
#include "device_ops.h"

enum { SETS = 4, PAGE = 16, CONTEXT = 1300, MAX_M = 4800 };

struct dims {
    const char *name;
    int64_t dim, inter, vocab;
    int layers, heads, kv_heads;
};

static const struct dims dims_3b = {"3B", 2048, 11008, 151936, 36, 16, 2};
static const struct dims dims_7b = {"7B", 3584, 18944, 152064, 28, 28, 4};

struct bench_dev {
    struct oc_device *d;
    struct oc_kctx ctx;
    struct chk rng;
    uint8_t *pile; /* random bytes that weights are cut from */
    size_t pile_bytes, pile_at;
    float *x, *y, *z, *cos, *sin; /* on the device */
    double copy_gb_s;
};

static void *on_device(struct bench_dev *b, size_t bytes) {
    struct oc_errinfo ei;
    void *p = NULL;
    if (b->d->alloc(b->d, bytes, &p, &ei) != OC_OK) {
        printf("%s\n", ei.msg);
        exit(1);
    }
    return p;
}

static float *random_floats(struct bench_dev *b, size_t n) {
    float *host = malloc(n * sizeof *host), *p = on_device(b, n * sizeof *p);
    OC_ASSERT(host);
    for (size_t i = 0; i < n; i++) host[i] = i < 65536 ? rnd_float(&b->rng) : host[i - 65536 + i % 7];
    b->d->put(b->d, p, host, n * sizeof *host);
    free(host);
    return p;
}

static const uint8_t *from_pile(struct bench_dev *b, size_t bytes) {
    if (b->pile_at + bytes + 64 > b->pile_bytes) b->pile_at = b->pile_at % 977; /* another address each time round */
    const uint8_t *p = b->pile + b->pile_at;
    b->pile_at += bytes + 61;
    return p;
}

static struct oc_weight weight_of(struct bench_dev *b, int bits, int64_t n, int64_t k) {
    struct oc_weight w = {.n = n, .k = k, .dtype = bits == 32 ? OC_F32 : bits == 17 ? OC_F16 : OC_BF16};
    struct oc_errinfo ei;
    w.bits = bits < 16 ? (uint8_t)bits : 0;
    w.group = w.bits ? 64 : 0;
    w.w = from_pile(b, (size_t)n * oc_weight_row_bytes(&w));
    if (w.bits) w.scales = from_pile(b, (size_t)(n * k / 64) * 2), w.zero_biases = from_pile(b, (size_t)(n * k / 64) * 2);
    if (b->d->take_weight(b->d, &w, &ei) != OC_OK) {
        printf("%s\n", ei.msg);
        exit(1);
    }
    return w;
}

static double weight_bytes(int bits, int64_t n, int64_t k) {
    return (double)n * (double)k * (bits < 16 ? bits / 8.0 + 4.0 / 64 : bits == 32 ? 4.0 : 2.0);
}

/* Seconds of one call: batches of calls between two waits, the best of some. */
typedef void job(struct bench_dev *b, void *arg, int turn);

static double seconds_of(struct bench_dev *b, job *fn, void *arg, double expected_s) {
    int n = (int)(0.02 / expected_s) + 1, turn = 0;
    double best = 1e30;
    if (n > 200) n = 200;
    for (int i = 0; i < 2; i++) fn(b, arg, turn++);
    for (int round = 0; round < 4; round++) {
        b->d->wait(b->d);
        uint64_t start = oc_clock_ns();
        for (int i = 0; i < n; i++) fn(b, arg, turn++);
        b->d->wait(b->d);
        double s = (double)(oc_clock_ns() - start) * 1e-9 / n;
        best = s < best ? s : best;
    }
    return best;
}

static void report(struct bench_dev *b, const char *what, const char *shape, double s, double bytes, double flops) {
    printf("%-18s %-30s %10.1f us %8.1f GB/s %5.1f%% %8.2f TFLOP/s\n", what, shape, s * 1e6, bytes / s * 1e-9,
           100 * bytes / s * 1e-9 / b->copy_gb_s, flops / s * 1e-12);
    fflush(stdout);
}

struct linear_job {
    enum oc_role role;
    int64_t m, n, k;
    struct oc_weight w[2 * SETS];
    bool glu;
};

static void linear_turn(struct bench_dev *b, void *arg, int turn) {
    struct linear_job *j = arg;
    const struct oc_weight *w = &j->w[turn % SETS * 2];
    if (j->glu) {
        struct oc_linear_glu a = {j->role, j->m, b->x, j->k, &w[0], &w[1], b->y, j->n, OC_ACT_SILU};
        b->d->ops.linear_glu(&b->ctx, &a);
    } else {
        struct oc_linear a = {j->role, j->m, b->x, j->k, &w[0], b->y, j->n, OC_ACT_NONE, false};
        b->d->ops.linear(&b->ctx, &a);
    }
}

static void bench_linear(struct bench_dev *b, int bits, int64_t n, int64_t k, bool glu, const int *d_rows, const int *p_rows) {
    struct linear_job j = {.n = n, .k = k, .glu = glu};
    double times = glu ? 2 : 1;
    for (int i = 0; i < 2 * SETS; i++) {
        if (glu || i % 2 == 0) j.w[i] = weight_of(b, bits, n, k);
    }
    for (int role = 0; role < 2; role++) {
        const int *rows = role ? p_rows : d_rows;
        for (int i = 0; rows[i]; i++) {
            char what[40], shape[80];
            j.role = role ? OC_ROLE_P : OC_ROLE_D, j.m = rows[i];
            snprintf(what, sizeof what, "%s %s %d bit", glu ? "glu" : "linear", role ? "P" : "D", bits);
            snprintf(shape, sizeof shape, "m %d n %d k %d", rows[i], (int)n, (int)k);
            double flops = 2.0 * times * (double)(j.m * n * k);
            report(b, what, shape, seconds_of(b, linear_turn, &j, 2e-5 + flops / 2e14), times * weight_bytes(bits, n, k), flops);
        }
    }
}

struct attn_job {
    struct oc_attn_paged a;
    struct oc_kv_append append;
    struct oc_kv_row *rows;
};

static void attn_turn(struct bench_dev *b, void *arg, int turn) {
    (void)turn;
    b->d->ops.attn_paged(&b->ctx, &((struct attn_job *)arg)->a);
}

/* m rows: of as many sequences when they decode, of one when they prefill. */
static struct attn_job attn_new(struct bench_dev *b, const struct dims *s, enum oc_role role, int m, int context, enum oc_dtype t) {
    int per = context / PAGE + 1, n_pages = role == OC_ROLE_D ? m * per : per;
    size_t page = (size_t)(s->kv_heads * PAGE * 128) * oc_dtype_bytes(t);
    struct oc_kv_layer kv = {on_device(b, page * (size_t)n_pages), on_device(b, page * (size_t)n_pages), page, t, s->kv_heads, 128, PAGE};
    int32_t *pages = malloc((size_t)n_pages * sizeof *pages);
    struct attn_job j = {.rows = malloc((size_t)m * sizeof *j.rows)};
    OC_ASSERT(pages && j.rows);
    for (int i = 0; i < n_pages; i++) pages[i] = i;
    for (int i = 0; i < m; i++) {
        bool d = role == OC_ROLE_D;
        j.rows[i] = (struct oc_kv_row){pages + (d ? i * per : 0), d ? context - 1 : context - m + i, role};
    }
    j.a = (struct oc_attn_paged){m, s->heads, 0.088f, b->x, (int64_t)s->heads * 128, j.rows, kv, b->y, (int64_t)s->heads * 128};
    j.append = (struct oc_kv_append){m, b->x, b->x, (int64_t)s->kv_heads * 128, (int64_t)s->kv_heads * 128, j.rows, kv};
    return j;
}

static void attn_free(struct bench_dev *b, struct attn_job *j) {
    b->d->free(b->d, j->a.kv.k, 0), b->d->free(b->d, j->a.kv.v, 0);
    free((void *)(uintptr_t)j->rows[0].pages), free(j->rows);
}

static void bench_attn(struct bench_dev *b, enum oc_role role, int m, int context, enum oc_dtype t) {
    struct attn_job j = attn_new(b, &dims_7b, role, m, context, t);
    double pairs = role == OC_ROLE_D ? (double)m * context : (double)m * (context - m / 2.0), size = (double)oc_dtype_bytes(t);
    char shape[80];
    snprintf(shape, sizeof shape, "m %d context %d %s", m, context, oc_dtype_name(t));
    report(b, role == OC_ROLE_D ? "attn_paged D" : "attn_paged P", shape, seconds_of(b, attn_turn, &j, 5e-5),
           (role == OC_ROLE_D ? m : 1.0) * context * 4 * 128 * 2 * size, pairs * 28 * 128 * 4);
    attn_free(b, &j);
}

static void segments_turn(struct bench_dev *b, void *arg, int turn) {
    (void)turn;
    b->d->ops.attn_segments(&b->ctx, arg);
}

static double bench_segments(struct bench_dev *b, int m, int segment, int from, int to) {
    int32_t seg[MAX_M + 1] = {0};
    int n = 0;
    char shape[80];
    for (; seg[n] < m; n++) seg[n + 1] = seg[n] + segment < m ? seg[n] + segment : m;
    struct oc_attn_segments a = {16, 80, 0.11f, b->x, b->x + 1280, b->x + 2560, 3840, 3840, 3840, seg, n, b->y, 1280, from, to};
    snprintf(shape, sizeof shape, "%d rows of %d in %d", to ? to - from : m, m, segment);
    double s = seconds_of(b, segments_turn, &a, 1e-3), rows = to ? to - from : m;
    report(b, "attn_segments", shape, s, rows * 1280 * 16, rows * segment * 16 * 80 * 4);
    return s;
}

/* A whole pass of the text model, embedding and sampling left out: all that the engine asks for a step of m rows. */
struct pass {
    const struct dims *s;
    enum oc_role role;
    int64_t m;
    struct oc_weight layers[SETS][7], head;
    struct attn_job attn;
    int n_head_rows;
};

static void pass_layer(struct bench_dev *b, struct pass *p, const struct oc_weight *w) {
    const struct dims *s = p->s;
    int64_t m = p->m, kv = s->kv_heads * 128, q = (int64_t)s->heads * 128;
    float *q_at = b->y, *k_at = q_at + m * q, *v_at = k_at + m * kv;
    struct oc_rmsnorm norm = {m, s->dim, b->x, s->dim, b->cos, 1e-6f, b->z, s->dim};
    struct oc_linear3 qkv = {p->role, m, b->z, s->dim, {&w[0], &w[1], &w[2]}, {q_at, k_at, v_at}, {q, kv, kv}};
    struct oc_rope turn_q = {m, s->heads, 128, q_at, q, b->cos, b->sin}, turn_k = {m, s->kv_heads, 128, k_at, kv, b->cos, b->sin};
    struct oc_kv_append append = p->attn.append;
    struct oc_attn_paged attn = p->attn.a;
    append.k = k_at, append.v = v_at;
    attn.q = q_at, attn.y = b->z, attn.ldy = q;
    struct oc_linear o = {p->role, m, b->z, q, &w[3], b->x, s->dim, OC_ACT_NONE, false};
    struct oc_linear_glu glu = {p->role, m, b->z, s->dim, &w[4], &w[5], b->y, s->inter, OC_ACT_SILU};
    struct oc_linear down = {p->role, m, b->y, s->inter, &w[6], b->x, s->dim, OC_ACT_NONE, false};
    b->d->ops.rmsnorm(&b->ctx, &norm);
    b->d->ops.linear3(&b->ctx, &qkv);
    b->d->ops.rope(&b->ctx, &turn_q), b->d->ops.rope(&b->ctx, &turn_k);
    b->d->ops.kv_append(&b->ctx, &append);
    b->d->ops.attn_paged(&b->ctx, &attn);
    b->d->ops.linear(&b->ctx, &o);
    b->d->ops.rmsnorm(&b->ctx, &norm);
    b->d->ops.linear_glu(&b->ctx, &glu);
    b->d->ops.linear(&b->ctx, &down);
}

static void pass_turn(struct bench_dev *b, void *arg, int turn) {
    struct pass *p = arg;
    for (int l = 0; l < p->s->layers; l++) pass_layer(b, p, p->layers[(l + turn) % SETS]);
    struct oc_linear head = {OC_ROLE_D, p->n_head_rows, b->x, p->s->dim, &p->head, b->y, p->s->vocab, OC_ACT_NONE, false};
    b->d->ops.linear(&b->ctx, &head);
}

static void bench_pass(struct bench_dev *b, const struct dims *s, bool quick) {
    static const int d_rows[] = {1, 8, 64, 2, 4, 16, 0}, p_rows[] = {128, 512, 1230, 0};
    struct pass p = {.s = s, .head = weight_of(b, 4, s->vocab, s->dim)};
    int64_t kv = s->kv_heads * 128, shapes[7][2] = {{s->dim, s->dim}, {kv, s->dim}, {kv, s->dim}, {s->dim, s->dim},
                                                    {s->inter, s->dim}, {s->inter, s->dim}, {s->dim, s->inter}};
    double layer = 0, params = 0, head = weight_bytes(4, s->vocab, s->dim);
    for (int i = 0; i < SETS * 7; i++) {
        int64_t n = shapes[i % 7][0], k = shapes[i % 7][1];
        p.layers[i / 7][i % 7] = weight_of(b, 4, n, k);
        layer += weight_bytes(4, n, k) / SETS, params += (double)(n * k) / SETS;
    }
    for (int role = 0; role < 2; role++) {
        const int *rows = role ? p_rows : d_rows;
        for (int i = 0; rows[i] && i < (quick ? 3 : 6); i++) {
            char shape[80];
            int context = role && rows[i] > CONTEXT ? rows[i] : CONTEXT;
            p.role = role ? OC_ROLE_P : OC_ROLE_D, p.m = rows[i], p.n_head_rows = role ? 1 : rows[i];
            p.attn = attn_new(b, s, p.role, rows[i], context, OC_BF16);
            double took = seconds_of(b, pass_turn, &p, 5e-3);
            snprintf(shape, sizeof shape, "%s m %d: %.1f /s", s->name, rows[i], rows[i] / took);
            report(b, role ? "prefill, whole" : "step, whole", shape, took, layer * s->layers + head, 2 * params * s->layers * rows[i]);
            attn_free(b, &p.attn);
        }
    }
}

/* A block of the vision tower over m rows: all but the attention. */
struct vision {
    int64_t m;
    struct oc_weight qkv, o, gate, up, down;
};

static void vision_turn(struct bench_dev *b, void *arg, int turn) {
    (void)turn;
    struct vision *v = arg;
    struct oc_rmsnorm norm = {v->m, 1280, b->x, 1280, b->cos, 1e-6f, b->z, 1280};
    struct oc_rope rope = {v->m, 32, 80, b->y, 3840, b->cos, b->sin};
    struct oc_linear qkv = {OC_ROLE_P, v->m, b->z, 1280, &v->qkv, b->y, 3840, OC_ACT_NONE, false};
    struct oc_linear o = {OC_ROLE_P, v->m, b->z, 1280, &v->o, b->x, 1280, OC_ACT_NONE, false};
    struct oc_linear_glu glu = {OC_ROLE_P, v->m, b->z, 1280, &v->gate, &v->up, b->y, 3420, OC_ACT_SILU};
    struct oc_linear down = {OC_ROLE_P, v->m, b->y, 3420, &v->down, b->x, 1280, OC_ACT_NONE, false};
    b->d->ops.rmsnorm(&b->ctx, &norm);
    b->d->ops.linear(&b->ctx, &qkv);
    b->d->ops.rope(&b->ctx, &rope);
    b->d->ops.linear(&b->ctx, &o);
    b->d->ops.rmsnorm(&b->ctx, &norm);
    b->d->ops.linear_glu(&b->ctx, &glu);
    b->d->ops.linear(&b->ctx, &down);
}

static void bench_vision(struct bench_dev *b) {
    struct vision v = {.qkv = weight_of(b, 16, 3840, 1280), .o = weight_of(b, 16, 1280, 1280), .gate = weight_of(b, 16, 3420, 1280),
                       .up = weight_of(b, 16, 3420, 1280), .down = weight_of(b, 16, 1280, 3420)};
    double params = 1280.0 * (3840 + 1280 + 3 * 3420), windows = bench_segments(b, MAX_M, 64, 0, 0), s = 0;
    double full = bench_segments(b, MAX_M, MAX_M, 0, 0);
    bench_segments(b, MAX_M, MAX_M, 1024, 2048);
    static const int rows[] = {512, 1024, MAX_M};
    for (int i = 0; i < 3; i++) {
        char shape[80];
        v.m = rows[i];
        s = seconds_of(b, vision_turn, &v, 1e-3);
        snprintf(shape, sizeof shape, "a block, m %d", rows[i]);
        report(b, "vision, no attn", shape, s, 2 * params, 2 * params * rows[i]);
    }
    printf("vision tower of 4800 patches: %.2f ms (32 blocks, 28 of them in windows)\n", (32 * s + 28 * windows + 4 * full) * 1e3);
}

static void copy_turn(struct bench_dev *b, void *arg, int turn) {
    (void)turn;
    struct oc_move_rows a = {4096, 16384, b->x, 16384, arg, b->y, 16384};
    b->d->ops.move_rows(&b->ctx, &a);
}

static void bench_copy(struct bench_dev *b) {
    int32_t to[4096];
    for (int i = 0; i < 4096; i++) to[i] = i;
    double s = seconds_of(b, copy_turn, to, 2e-4), bytes = 2.0 * 4096 * 16384 * 4;
    b->copy_gb_s = bytes / s * 1e-9;
    report(b, "move_rows", "256 MiB: the copy rate", s, bytes, 0);
}

void bench_device(struct oc_device *d, bool quick) {
    static const int few[] = {1, 8, 64, 0}, one[] = {1, 8, 0}, many[] = {128, 512, 1230, 0}, none[] = {0};
    struct bench_dev b = {.d = d, .ctx = {.device = d->state}, .rng = {.rng = 9}, .pile_bytes = (size_t)700 << 20};
    b.pile = malloc(b.pile_bytes);
    OC_ASSERT(b.pile);
    for (size_t i = 0; i < b.pile_bytes; i += 8) { /* tame floats of any type from any address on */
        uint64_t u = i < 1 << 20 ? (rnd(&b.rng) & 0x8f8f8f8f8f8f8f8fu) | 0x3030303030303030u : 0;
        if (i >= 1 << 20) memcpy(&u, b.pile + i - (1 << 20) + 8 * (i % 5), 8);
        memcpy(b.pile + i, &u, 8);
    }
    b.x = random_floats(&b, (size_t)4096 * 16384 + 1024), b.y = random_floats(&b, (size_t)4096 * 18944 + 1024);
    b.z = random_floats(&b, (size_t)MAX_M * 3840), b.cos = random_floats(&b, (size_t)MAX_M * 64), b.sin = random_floats(&b, (size_t)MAX_M * 64);
    bench_copy(&b);
    bench_pass(&b, &dims_7b, quick);
    bench_linear(&b, 4, 3584, 18944, false, few, many);
    bench_linear(&b, 4, 18944, 3584, true, few, many);
    bench_linear(&b, 4, 3584, 3584, false, one, many);
    bench_attn(&b, OC_ROLE_D, 1, CONTEXT, OC_BF16), bench_attn(&b, OC_ROLE_D, 8, CONTEXT, OC_BF16);
    bench_attn(&b, OC_ROLE_D, 64, CONTEXT, OC_BF16), bench_attn(&b, OC_ROLE_D, 8, 8192, OC_BF16);
    bench_attn(&b, OC_ROLE_P, 1230, 1230, OC_BF16), bench_attn(&b, OC_ROLE_P, 512, CONTEXT, OC_BF16);
    bench_vision(&b);
    if (quick) return;
    bench_pass(&b, &dims_3b, quick);
    bench_linear(&b, 8, 18944, 3584, false, one, many + 1);
    bench_linear(&b, 16, 18944, 3584, false, one, many + 1);
    bench_linear(&b, 17, 18944, 3584, false, one, many + 1);
    bench_linear(&b, 32, 18944, 3584, false, one, many + 1);
    bench_linear(&b, 4, 152064, 3584, false, one, none);
    bench_attn(&b, OC_ROLE_D, 8, CONTEXT, OC_F32);
}
