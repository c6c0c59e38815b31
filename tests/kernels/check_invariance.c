/* A row's bits must not depend on how many rows come with it, on chunking, or on the number of threads. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "check.h"

/* Runs rows lo .. hi-1 of `x` through the op into y. */
typedef void run_rows(struct chk *c, const void *arg, int64_t lo, int64_t hi, int threads, const struct mat *x,
                      struct mat *y);

/* All rows at once on one thread, then each chunking and thread count: equal bits or a failure. */
static void same_bits(struct chk *c, run_rows *run, const void *arg, const struct mat *x, int64_t out_cols) {
    struct mat want = mat_new(x->rows, out_cols, out_cols), got = mat_new(x->rows, out_cols, out_cols);
    run(c, arg, 0, x->rows, 1, x, &want);
    for (int threads = 1; threads <= 4; threads++) {
        for (int kind = 0; kind < 4; kind++) { /* all; one by one; random chunks; another random cut */
            mat_poison(&got);
            for (int64_t lo = 0, hi; lo < x->rows; lo = hi) {
                hi = kind == 0 ? x->rows : lo + (kind == 1 ? 1 : rnd_int(c, 1, 23));
                if (hi > x->rows) hi = x->rows;
                run(c, arg, lo, hi, threads, x, &got);
            }
            for (int64_t i = 0; i < x->rows; i++) {
                if (memcmp(want.p + i * out_cols, got.p + i * out_cols, (size_t)out_cols * 4) == 0) continue;
                fail(c, "row %d of %d differs, %d threads, cut %d", (int)i, (int)x->rows, threads, kind);
                break;
            }
        }
    }
    c->n_cases++;
    mat_free(&want), mat_free(&got);
}

struct linear_arg {
    enum oc_role role;
    const struct weight *w, *up;
};

static void run_linear(struct chk *c, const void *arg, int64_t lo, int64_t hi, int threads, const struct mat *x,
                       struct mat *y) {
    const struct linear_arg *l = arg;
    const struct oc_weight *w = &l->w->w;
    struct oc_linear a = {l->role, hi - lo, x->p + lo * x->ld, x->ld,       w,
                          y->p + lo * y->ld, y->ld, OC_ACT_SILU, false};
    c->ops.linear(&c->contexts[threads - 1], &a);
}

static void run_glu(struct chk *c, const void *arg, int64_t lo, int64_t hi, int threads, const struct mat *x,
                    struct mat *y) {
    const struct linear_arg *l = arg;
    const struct oc_weight *w = &l->w->w;
    struct oc_linear_glu a = {l->role, hi - lo, x->p + lo * x->ld, x->ld,      w,
                              &l->up->w, y->p + lo * y->ld, y->ld, OC_ACT_SILU};
    c->ops.linear_glu(&c->contexts[threads - 1], &a);
}

static void invariant_linear(struct chk *c, enum oc_role role, enum wformat f, int64_t rows) {
    int64_t k = 64 * rnd_int(c, 3, 20), n = rnd_int(c, 30, 150);
    struct weight w = weight_new(c, f, n, k, rnd(c) % 2 ? 32 : 64, OC_BF16, true);
    struct weight up = weight_new(c, f, n, k, 64, OC_BF16, false);
    struct mat x = mat_new(rows, k, k + 4);
    mat_random(c, &x);
    struct linear_arg arg = {role, &w, &up};
    same_bits(c, run_linear, &arg, &x, n);
    same_bits(c, run_glu, &arg, &x, n);
    mat_free(&x);
    weight_free(&w), weight_free(&up);
}

struct paged_arg {
    const struct oc_kv_layer *kv;
    const struct oc_kv_row *rows;
    int heads;
};

static void run_paged(struct chk *c, const void *arg, int64_t lo, int64_t hi, int threads, const struct mat *x,
                      struct mat *y) {
    const struct paged_arg *p = arg;
    struct oc_attn_paged a = {hi - lo, p->heads, 0.09f, x->p + lo * x->ld, x->ld, p->rows + lo, *p->kv,
                              y->p + lo * y->ld, y->ld};
    c->ops.attn_paged(&c->contexts[threads - 1], &a);
}

static void invariant_paged(struct chk *c, enum oc_role role) {
    enum { ROWS = 64, PAGES = 24, PAGE = 16 };
    static const int groups[] = {1, 2, 7, 8}, hds[] = {128, 80, 64};
    int hd = RND_OF(c, hds), kv_heads = 2, heads = kv_heads * RND_OF(c, groups);
    int64_t cols = (int64_t)heads * hd;
    size_t page = (size_t)(kv_heads * PAGE * hd) * 4;
    struct mat kv_mem = mat_new(2 * PAGES * PAGE, (int64_t)kv_heads * hd, (int64_t)kv_heads * hd);
    mat_random(c, &kv_mem);
    struct oc_kv_layer kv = {kv_mem.mem.p, kv_mem.mem.p + page * PAGES, page, OC_F32, kv_heads, hd, PAGE};
    int32_t pages[PAGES];
    for (int i = 0; i < PAGES; i++) pages[i] = (i * 7 + 3) % PAGES;
    struct oc_kv_row rows[ROWS];
    int first = rnd_int(c, 0, PAGES * PAGE - ROWS);
    for (int i = 0; i < ROWS; i++) rows[i] = (struct oc_kv_row){pages, first + i, role};
    struct mat q = mat_new(ROWS, cols, cols);
    mat_random(c, &q);
    struct paged_arg arg = {&kv, rows, heads};
    same_bits(c, run_paged, &arg, &q, cols);
    mat_free(&q), mat_free(&kv_mem);
}

static void run_rmsnorm(struct chk *c, const void *arg, int64_t lo, int64_t hi, int threads, const struct mat *x,
                        struct mat *y) {
    const float *w = arg;
    struct oc_rmsnorm a = {hi - lo, x->cols, x->p + lo * x->ld, x->ld, w, 1e-6f, y->p + lo * y->ld, y->ld};
    c->ops.rmsnorm(&c->contexts[threads - 1], &a);
}

/* All query rows in ranges, in some order, across segments: the bits of the whole; and no row but those of a range
 * is touched. */
static void ranges_of_queries(struct chk *c, const struct oc_attn_segments *whole, int threads, const struct mat *want,
                              struct mat *got) {
    struct oc_attn_segments a = *whole;
    mat_poison(got);
    a.y = got->p;
    for (int64_t lo = 0, hi; lo < want->rows; lo = hi) {
        hi = lo + rnd_int(c, 1, lo % 2 ? 9 : 150);
        if (hi > want->rows) hi = want->rows;
        a.q_from = lo, a.q_to = hi;
        c->ops.attn_segments(&c->contexts[threads - 1], &a);
        if (memcmp(want->p, got->p, (size_t)(hi * want->ld) * sizeof(float)) != 0)
            fail(c, "segments: rows %d to %d differ, %d threads", (int)lo, (int)hi, threads);
        for (int64_t i = hi * want->ld; i < want->rows * want->ld; i++)
            if (!isnan(got->p[i])) {
                fail(c, "segments: rows %d to %d touch another", (int)lo, (int)hi);
                break;
            }
    }
}

/* Segments: a segment's rows may not depend on the other segments, nor on threads. */
static void invariant_segments(struct chk *c, int hd) {
    enum { HEADS = 2, M = 500 };
    int32_t seg[] = {0, 64, 100, 500}, alone[] = {0, 0};
    const int64_t cols = HEADS * hd;
    struct mat q = mat_new(M, cols, cols), k = mat_new(M, cols, cols),
               v = mat_new(M, cols, cols), y = mat_new(M, cols, cols),
               got = mat_new(M, cols, cols);
    mat_random(c, &q), mat_random(c, &k), mat_random(c, &v);
    struct oc_attn_segments a = {HEADS, hd, 0.11f, q.p, k.p, v.p, q.ld, k.ld, v.ld, seg, 3, y.p, y.ld, 0, 0};
    c->ops.attn_segments(&c->contexts[0], &a);
    for (int threads = 1; threads <= 4; threads++) {
        mat_poison(&got);
        for (int s = 0; s < 3; s++) {
            int64_t at = (int64_t)seg[s] * q.ld;
            alone[1] = seg[s + 1] - seg[s];
            struct oc_attn_segments one = {HEADS, hd,   0.11f, q.p + at, k.p + at,   v.p + at, q.ld,
                                           k.ld,  v.ld, alone, 1,        got.p + at, got.ld, 0, 0};
                    c->ops.attn_segments(&c->contexts[threads - 1], &one);
        }
        if (memcmp(y.p, got.p, y.mem.bytes) != 0) fail(c, "segments differ, %d threads", threads);
        ranges_of_queries(c, &a, threads, &y, &got);
    }
    c->n_cases++;
    mat_free(&q), mat_free(&k), mat_free(&v), mat_free(&y), mat_free(&got);
}

void check_invariance(struct chk *c) {
    static const int hds[] = {80, 128, 21};
    int n = c->quick ? 1 : 2;
    struct run_ctx r[4];
    for (int i = 0; i < 4; i++) {
        r[i] = run_ctx_new(c, i + 1, 500, 1500, 200, 128);
        c->contexts[i] = r[i].k;
    }
    op_begin(c, "bits: linear, glu (P, D)");
    for (enum wformat f = 0; f < N_WFORMATS; f++) {
        for (int i = 0; i < n; i++) {
            invariant_linear(c, OC_ROLE_D, f, 64);
            invariant_linear(c, OC_ROLE_P, f, c->quick ? 64 : 130);
        }
    }
    op_end(c, 0);
    op_begin(c, "bits: attn_paged (P, D)");
    for (int i = 0; i < 2 * n; i++) {
        invariant_paged(c, OC_ROLE_D);
        invariant_paged(c, OC_ROLE_P);
    }
    op_end(c, 0);
    op_begin(c, "bits: attn_segments");
    for (size_t i = 0; i < sizeof hds / sizeof hds[0]; i++) invariant_segments(c, hds[i]);
    op_end(c, 0);
    op_begin(c, "bits: rmsnorm");
    struct mat x = mat_new(64, 999, 1001), w = mat_new(1, 999, 999);
    mat_random(c, &x), mat_random(c, &w);
    same_bits(c, run_rmsnorm, w.p, &x, 999);
    mat_free(&x), mat_free(&w);
    op_end(c, 0);
    for (int i = 0; i < 4; i++) {
        if (!run_ctx_free(&r[i])) fail(c, "canary of the scratch");
    }
}
