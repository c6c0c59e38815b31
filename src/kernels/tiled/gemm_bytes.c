/* Role P by tiles of bytes: y = x W^T for bf16 and quantised weights, x and W as numbers of 16 bits (tiled.h says how).
 *
 * x is cut once per slice of rows, block of k by block of k. A thread takes a few panels of W and, for each block of k, leads
 * all strips of x, whose block stays in L2, past one panel after the other, which is in L1; meanwhile the next one is made. Sums of
 * blocks wait in the thread's scratch, in L2 too. A panel's last block is followed by bias, activation and its place in y.
 * An element's bits depend on its own row of x and of W only: blocks are exact, and added in order. */
#include "kernels/tiled/tiled.h"

struct job {
    const struct oc_simd_bytes *t;
    const struct oc_multi_linear *a;
    int64_t m0, m;  /* the slice of rows of x that is cut */
    int64_t nb, mb; /* rows of W (of each of a gated pair) and of x in a unit */
    int64_t n_row_blocks, n_col_blocks[3], n_strips, n_blocks;
    long n_units;
    long next, next_strip; /* shared counters */
    int8_t *x;             /* [blocks of k][strips][steps][OC_BYTES_X_STEP] */
    float *scales;         /* [blocks of k][strips][OC_BYTES_M] */
    uint8_t *spaces;
};

enum {
    SLICE = 1024, /* rows of x that are cut at a time, at most: what a block of k of them takes in L2 */
    C_FLOATS = 128 * 1024,
    C_PANEL = OC_BYTES_N * OC_BYTES_N,
    PAIR = 2 * OC_BYTES_M, /* rows of two strips, whose sums are a panel of c */
    PAGE = 4096,
    BLOCK_STEPS = OC_BYTES_BLOCK / OC_BYTES_K,
    W_BYTES = BLOCK_STEPS * OC_BYTES_W_STEP,
    ROWS = W_BYTES / 2,
    ACC = 2 * 4 * OC_BYTES_M * OC_BYTES_M,
};

/* A thread's part of the scratch. */
struct space {
    int8_t *w[2]; /* panels: at work, and in the making */
    int8_t *rows;
    int32_t *acc;
    float *scales[2]; /* of the panels */
    float *c;      /* [pairs of strips][panels][C_PANEL] */
};

static int64_t steps_of(int64_t k) {
    return (k + OC_BYTES_K - 1) / OC_BYTES_K;
}

static int64_t slice_rows(int64_t m) {
    int64_t slices = (m + SLICE - 1) / SLICE;
    return m > 0 ? (int64_t)oc_round_up((size_t)((m + slices - 1) / slices), PAIR) : PAIR;
}

static size_t x_bytes(int64_t m, int64_t k) {
    return oc_round_up((size_t)(slice_rows(m) / OC_BYTES_M * steps_of(k) * OC_BYTES_X_STEP), PAGE);
}

static size_t scale_bytes(int64_t m, int64_t k) {
    int64_t blocks = (k + OC_BYTES_BLOCK - 1) / OC_BYTES_BLOCK;
    return oc_round_up((size_t)(slice_rows(m) * blocks) * sizeof(float), PAGE);
}

static size_t thread_bytes(void) {
    return 2 * W_BYTES + ROWS + ACC * sizeof(int32_t) + PAGE + C_FLOATS * sizeof(float);
}

size_t oc_tiled_gemm_bytes_bytes(int64_t m, int64_t k, int n_threads) {
    m = m < SLICE ? m : SLICE;
    return x_bytes(m, k) + scale_bytes(m, k) + thread_bytes() * (size_t)n_threads;
}

static struct space thread_space(const struct job *j, int thread) {
    uint8_t *at = j->spaces + (size_t)thread * thread_bytes();
    struct space sp = {.w = {(int8_t *)at, (int8_t *)at + W_BYTES}, .rows = (int8_t *)at + 2 * W_BYTES};
    sp.acc = (int32_t *)(void *)(at + 2 * W_BYTES + ROWS);
    sp.scales[0] = (float *)(void *)(sp.acc + ACC);
    sp.scales[1] = sp.scales[0] + OC_BYTES_N;
    sp.c = sp.scales[0] + PAGE / sizeof(float);
    return sp;
}

struct unit {
    int which;
    int64_t n0, m0;
    int nn, mm; /* rows of W and of x */
    int n_all;  /* panels; of a gated pair gate and up in turn */
};

static int at_most(int64_t n, int64_t most) {
    return (int)(n < most ? n : most);
}

static struct unit unit_at(const struct job *j, long u) {
    struct unit t = {0};
    int64_t col = u / j->n_row_blocks;
    while (col >= j->n_col_blocks[t.which]) col -= j->n_col_blocks[t.which++];
    t.n0 = col * j->nb;
    t.m0 = u % j->n_row_blocks * j->mb;
    t.nn = at_most(j->a->w[t.which]->n - t.n0, j->nb);
    t.mm = at_most(j->m - t.m0, j->mb);
    t.n_all = (t.nn + OC_BYTES_N - 1) / OC_BYTES_N * (j->a->glu ? 2 : 1);
    return t;
}

static int block_k(const struct job *j, int64_t block) {
    return at_most(j->a->w[0]->k - block * OC_BYTES_BLOCK, OC_BYTES_BLOCK);
}

static int8_t *x_at(const struct job *j, int64_t block, int64_t strip) {
    return j->x + (block * j->n_strips * BLOCK_STEPS + strip * steps_of(block_k(j, block))) * OC_BYTES_X_STEP;
}

static float *scales_at(const struct job *j, int64_t block, int64_t strip) {
    return j->scales + (block * j->n_strips + strip) * OC_BYTES_M;
}

static void cut_strips(void *arg, int thread, int n_threads) {
    struct job *j = arg;
    (void)thread, (void)n_threads;
    for (;;) {
        int64_t i = __atomic_fetch_add(&j->next_strip, 1, __ATOMIC_RELAXED);
        if (i >= j->n_strips) return;
        int n = at_most(j->m - i * OC_BYTES_M, OC_BYTES_M);
        const float *x = j->a->x + (j->m0 + i * OC_BYTES_M) * j->a->ldx;
        for (int64_t b = 0; b < j->n_blocks; b++)
            j->t->cut(x + b * OC_BYTES_BLOCK, j->a->ldx, n, block_k(j, b), x_at(j, b, i), scales_at(j, b, i));
    }
}

/* A panel of the unit. */
struct panel {
    const struct oc_weight *w;
    int64_t n0;
    int n, in_unit; /* rows; where they stand in the unit's */
};

static struct panel panel_at(const struct job *j, const struct unit *u, int i) {
    int in_unit = (j->a->glu ? i / 2 : i) * OC_BYTES_N;
    return (struct panel){j->a->w[j->a->glu ? i % 2 : u->which], u->n0 + in_unit, at_most(u->nn - in_unit, OC_BYTES_N), in_unit};
}

/* The first two strips' end, whose sums of panel i, or of it and the one before, are complete. */
static struct oc_tiles_end end_at(const struct job *j, const struct unit *u, const struct panel *p, const float *c) {
    const struct oc_multi_linear *a = j->a;
    const struct oc_weight *w = a->w[u->which];
    struct oc_tiles_end e = {.c = a->glu ? c - C_PANEL : c, .up = a->glu ? c : NULL, .cols = p->n, .n_panels = 1};
    e.act = a->act, e.add = a->add, e.ldy = a->ldy[u->which];
    e.bias = w->bias ? w->bias + p->n0 : NULL;
    e.up_bias = a->glu && a->w[1]->bias ? a->w[1]->bias + p->n0 : NULL;
    e.y = a->y[u->which] + (j->m0 + u->m0) * e.ldy + p->n0;
    return e;
}

/* A unit's panels in the order of work: block for block of k. */
struct at {
    int64_t block;
    int i;
};

static struct at after(const struct unit *u, struct at at) {
    return at.i + 1 < u->n_all ? (struct at){at.block, at.i + 1} : (struct at){at.block + 1, 0};
}

/* What the panel at `at` needs from memory is fetched. */
static void fetch_panel(const struct job *j, const struct unit *u, struct at at, struct oc_bytes_run *r) {
    r->n_far = 0;
    if (at.block >= j->n_blocks) return;
    struct panel p = panel_at(j, u, at.i);
    size_t row = oc_weight_row_bytes(p.w), bits = p.w->bits ? p.w->bits : 16;
    r->far = p.w->w + (size_t)p.n0 * row + (size_t)at.block * OC_BYTES_BLOCK * bits / 8;
    r->far_stride = (int64_t)row;
    r->far_bytes = (int)((size_t)block_k(j, at.block) * bits / 8);
    r->n_far = p.n;
}

static struct oc_bytes_panel begin_panel(const struct job *j, const struct space *sp, const struct unit *u, struct at at, int turn) {
    struct panel p = panel_at(j, u, at.i);
    struct oc_bytes_panel b = {.w = p.w, .n0 = p.n0, .n = p.n, .k0 = at.block * OC_BYTES_BLOCK, .kk = block_k(j, at.block)};
    b.out = sp->w[turn % 2], b.scales = sp->scales[turn % 2], b.rows = sp->rows;
    return b;
}

/* All strips past the panel, and meanwhile the next panel is made and the one after it fetched. */
static void one_panel(const struct job *j, const struct space *sp, const struct unit *u, struct at at, int turn) {
    const bool last = at.block + 1 == j->n_blocks;
    const int64_t strip = u->m0 / OC_BYTES_M;
    struct oc_bytes_run r = {.w = sp->w[turn % 2], .w_scales = sp->scales[turn % 2], .acc = sp->acc, .first = at.block == 0, .rows = u->mm};
    r.x = x_at(j, at.block, strip), r.x_scales = scales_at(j, at.block, strip);
    r.steps = (int)steps_of(block_k(j, at.block)), r.n_strips = (u->mm + OC_BYTES_M - 1) / OC_BYTES_M;
    r.c = sp->c + at.i * C_PANEL, r.ldc = (int64_t)u->n_all * C_PANEL;
    r.add = j->t->add, r.finish = j->t->finish, r.panel = j->t->panel;
    struct oc_tiles_end end;
    if (last && (!j->a->glu || at.i % 2)) {
        struct panel p = panel_at(j, u, at.i);
        end = end_at(j, u, &p, r.c);
        r.end = &end;
    }
    r.n_next = (OC_BYTES_X_STEP / 64 + u->n_all - 1) / u->n_all;
    if (!last) r.next = (const char *)x_at(j, at.block + 1, strip) + (int64_t)at.i * r.n_strips * r.steps * r.n_next * 64;
    struct at next = after(u, at);
    struct oc_bytes_panel ahead;
    if (next.block < j->n_blocks) {
        ahead = begin_panel(j, sp, u, next, turn + 1);
        r.ahead = &ahead;
    }
    fetch_panel(j, u, after(u, next), &r);
    j->t->run(&r);
}

static void one_unit(const struct job *j, const struct space *sp, const struct unit *u) {
    struct oc_bytes_panel first = begin_panel(j, sp, u, (struct at){0, 0}, 0);
    j->t->panel(&first, OC_BYTES_PIECES);
    int turn = 0;
    for (struct at at = {0, 0}; at.block < j->n_blocks; at = after(u, at)) one_panel(j, sp, u, at, turn++);
}

static void work(void *arg, int thread, int n_threads) {
    struct job *j = arg;
    (void)n_threads;
    struct space sp = thread_space(j, thread);
    j->t->begin();
    for (;;) {
        long at = __atomic_fetch_add(&j->next, 1, __ATOMIC_RELAXED);
        if (at >= j->n_units) break;
        struct unit u = unit_at(j, at);
        one_unit(j, &sp, &u);
    }
    j->t->end();
}

static void count_units(struct job *j) {
    int n_outputs = j->a->glu ? 1 : j->a->n_w;
    j->n_units = 0;
    for (int i = 0; i < n_outputs; i++) {
        j->n_col_blocks[i] = (j->a->w[i]->n + j->nb - 1) / j->nb;
        j->n_units += (long)(j->n_col_blocks[i] * j->n_row_blocks);
    }
}

static void set_rows(struct job *j, int64_t blocks) {
    int64_t rows = (j->m + blocks - 1) / blocks;
    j->mb = (int64_t)oc_round_up((size_t)rows, PAIR);
    j->n_row_blocks = (j->m + j->mb - 1) / j->mb;
}

/* As many rows of W as c has room for; fewer, and then fewer rows of x, where threads would be idle; equal blocks. */
static void cut_work(struct job *j, int n_threads) {
    const struct oc_multi_linear *a = j->a;
    int64_t n_most = a->w[0]->n, pair = a->glu ? 2 : 1, pairs = (j->m + PAIR - 1) / PAIR;
    j->n_strips = 2 * pairs;
    j->n_blocks = (a->w[0]->k + OC_BYTES_BLOCK - 1) / OC_BYTES_BLOCK;
    for (int i = 1; i < a->n_w; i++) n_most = a->w[i]->n > n_most ? a->w[i]->n : n_most;
    j->nb = at_most(C_FLOATS / (pairs * C_PANEL * pair), 16) * OC_BYTES_N;
    OC_ASSERT(j->nb > 0);
    set_rows(j, 1);
    for (count_units(j); j->n_units < 2L * n_threads && j->nb > OC_BYTES_N; count_units(j)) {
        j->nb = (int64_t)oc_round_up((size_t)(j->nb / 2), OC_BYTES_N);
    }
    for (; j->n_units < 2L * n_threads && j->mb > 2 * PAIR; count_units(j)) set_rows(j, 2 * j->n_row_blocks);
    int64_t blocks = (n_most + j->nb - 1) / j->nb;
    while (blocks * j->n_row_blocks % n_threads != 0 && n_most / (blocks + 1) >= 2 * OC_BYTES_N) blocks++;
    j->nb = (int64_t)oc_round_up((size_t)((n_most + blocks - 1) / blocks), OC_BYTES_N);
    count_units(j);
}

void oc_tiled_gemm_bytes(const struct oc_simd *s, const struct oc_kctx *ctx, const struct oc_multi_linear *a) {
    int n_threads = oc_pool_n_threads(ctx->pool);
    int64_t k = a->w[0]->k, slice = slice_rows(a->m);
    OC_ASSERT(oc_tiled_gemm_bytes_bytes(a->m, k, n_threads) <= ctx->scratch_bytes);
    struct job j = {.t = s->bytes, .a = a, .x = (int8_t *)ctx->scratch};
    uint8_t *at = ctx->scratch + x_bytes(a->m, k);
    j.scales = (float *)(void *)at;
    j.spaces = at + scale_bytes(a->m, k);
    for (; j.m0 < a->m; j.m0 += slice) {
        j.m = at_most(a->m - j.m0, slice);
        j.next = j.next_strip = 0;
        cut_work(&j, n_threads);
        oc_pool_run(ctx->pool, cut_strips, &j);
        oc_pool_run(ctx->pool, work, &j);
    }
}
