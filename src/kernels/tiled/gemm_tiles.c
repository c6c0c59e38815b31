/* Role P by hardware tiles: y = x W^T for bf16 and quantised weights.
 *
 * x is cut to bf16 once per slice of rows, into strips. A thread takes a block of W's rows and one pass of k, makes it bf16 in
 * its own scratch, where it stays in L2, and leads strips of x past it, the next one fetched to L2 meanwhile. While one strip
 * is multiplied the one before gets its bias, activation and place in y, a few pieces at each step of k, so nobody waits for
 * stores. Sums of several passes wait in scratch.
 * An element's bits depend on its own row of x and of W only: it is one sum over k in order, kept in f32 between passes. */
#include "kernels/tiled/tiled.h"

struct job {
    const struct oc_simd_tiles *t;
    const struct oc_multi_linear *a;
    int a_parts, b_parts;
    int64_t m0, m;     /* the slice of rows of x that is cut */
    int64_t pass_k;
    int64_t nb, mb; /* rows of W (of each of a gated pair) and of x in a unit */
    int64_t n_row_blocks, n_col_blocks[3];
    long n_units;
    long next, next_strip; /* shared counters */
    uint16_t *x;    /* strips [steps][parts][OC_TILES_STEP] */
    float *sums;    /* of each strip, [steps][OC_TILES_N] */
    uint8_t *spaces;
};

enum {
    SLICE = 1536, /* rows of x that are cut at a time, at most, which bounds the scratch */
    C_FLOATS = 512 * 1024,
    C_PANEL = OC_TILES_N * OC_TILES_N,
    MAX_COLS = 1024, /* of a unit */
    SUMS = OC_TILES_MAX_K, /* [groups][OC_TILES_N], the smallest group is 32 */
    SCALES = OC_TILES_MAX_W / 32 * 2,
};

/* A thread's part of the scratch. */
struct space {
    uint16_t *w;    /* panels [steps][parts][OC_TILES_STEP] */
    float *sums;    /* of the strip at work: [groups][OC_TILES_N] */
    float *scales;  /* [panels][groups][2][OC_TILES_N] */
    float *acc;     /* [2][C_PANEL] */
    float *c;       /* [strips][panels][C_PANEL], two strips if there is one pass over k */
};

static int steps_of(int64_t k) {
    return (int)((k + OC_TILES_K - 1) / OC_TILES_K);
}

static int64_t slice_rows(int64_t m) {
    int64_t slices = (m + SLICE - 1) / SLICE;
    return (int64_t)oc_round_up((size_t)((m + slices - 1) / slices), OC_TILES_N);
}

/* Of the cut slice, with two parts. */
static size_t cut_elements(int64_t m, int64_t k) {
    return (size_t)slice_rows(m > 0 ? m : 1) * (size_t)steps_of(k) * OC_TILES_K * 2;
}

static size_t sums_bytes(int64_t m, int64_t k) {
    return (size_t)slice_rows(m > 0 ? m : 1) * (size_t)steps_of(k) * sizeof(float);
}

static size_t thread_bytes(void) {
    size_t bytes = OC_TILES_MAX_W * sizeof(uint16_t) + (C_FLOATS + 2 * C_PANEL + SUMS + SCALES) * sizeof(float);
    return oc_round_up(bytes, 4096);
}

size_t oc_tiled_gemm_tiles_bytes(int64_t m, int64_t k, int n_threads) {
    m = m < SLICE ? m : SLICE;
    return cut_elements(m, k) * sizeof(uint16_t) + oc_round_up(sums_bytes(m, k), 64) + thread_bytes() * (size_t)n_threads;
}

static struct space thread_space(const struct job *j, int thread) {
    struct space sp;
    sp.w = (uint16_t *)(void *)(j->spaces + (size_t)thread * thread_bytes());
    sp.acc = (float *)(void *)(sp.w + OC_TILES_MAX_W);
    sp.sums = sp.acc + 2 * C_PANEL;
    sp.scales = sp.sums + SUMS;
    sp.c = sp.scales + SCALES;
    return sp;
}

struct unit {
    int which;
    int64_t n0, m0;
    int nn, mm; /* rows of W and of x */
    int n_panels, n_all; /* of one weight, and of both of a gated pair */
    int group;           /* steps of a group of quantised weights that are taken as whole numbers, or 0 */
    int b_parts;
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
    t.n_panels = (t.nn + OC_TILES_N - 1) / OC_TILES_N;
    t.n_all = j->a->glu ? 2 * t.n_panels : t.n_panels;
    t.group = j->t->grouped ? j->a->w[t.which]->group / OC_TILES_K : 0;
    t.b_parts = t.group ? 1 : j->b_parts;
    return t;
}

/* The unit's rows of W, kk long from k0 on, gate before up. */
static void load_panels(const struct job *j, const struct space *sp, const struct unit *u, int64_t k0, int kk) {
    size_t panel = (size_t)(steps_of(kk) * u->b_parts * OC_TILES_STEP);
    for (int i = 0; i < u->n_all; i++) {
        int in_weight = i % u->n_panels * OC_TILES_N, n = at_most(u->nn - in_weight, OC_TILES_N);
        const struct oc_weight *w = j->a->w[j->a->glu ? i / u->n_panels : u->which];
        uint16_t *out = sp->w + (size_t)i * panel;
        if (u->group) {
            j->t->numbers(w, u->n0 + in_weight, n, k0, kk, out, sp->scales + i * (kk / w->group) * 2 * OC_TILES_N);
        } else {
            j->t->panel(w, u->n0 + in_weight, n, k0, kk, u->b_parts, out);
        }
    }
}

/* Part `strip` of the slice as the tiles take it. */
static uint16_t *strip_at(const struct job *j, int64_t strip) {
    return j->x + strip * steps_of(j->a->w[0]->k) * j->a_parts * OC_TILES_STEP;
}

static void cut_strips(void *arg, int thread, int n_threads) {
    struct job *j = arg;
    int64_t k = j->a->w[0]->k, strips = (j->m + OC_TILES_N - 1) / OC_TILES_N;
    (void)thread, (void)n_threads;
    for (;;) {
        int64_t i = __atomic_fetch_add(&j->next_strip, 1, __ATOMIC_RELAXED);
        if (i >= strips) return;
        struct oc_tiles_cut c = {.ldx = j->a->ldx, .k = (int)k, .steps = steps_of(k), .parts = j->a_parts};
        c.x = j->a->x + (j->m0 + i * OC_TILES_N) * j->a->ldx;
        c.n = at_most(j->m - i * OC_TILES_N, OC_TILES_N);
        c.rows = c.n > 16 ? 32 : 16;
        c.out = strip_at(j, i);
        c.sums = j->sums ? j->sums + i * c.steps * OC_TILES_N : NULL;
        j->t->cut(&c);
    }
}

/* The sums of groups of steps from `from` on. */
static void group_sums(const struct job *j, const struct space *sp, const struct unit *u, int64_t strip, int from, int n_steps) {
    const float *in = j->sums + (strip * steps_of(j->a->w[0]->k) + from) * OC_TILES_N;
    for (int g = 0; g < n_steps / u->group; g++) {
        float *out = sp->sums + g * OC_TILES_N;
        memcpy(out, in + g * u->group * OC_TILES_N, OC_TILES_N * sizeof *out);
        for (int s = 1; s < u->group; s++) {
            for (int r = 0; r < OC_TILES_N; r++) out[r] += in[(g * u->group + s) * OC_TILES_N + r];
        }
    }
}

/* The strip of rows from m of the unit, whose sums are in c, is to be finished. */
static struct oc_tiles_end end_at(const struct job *j, const struct unit *u, int m, const float *c) {
    const struct oc_multi_linear *a = j->a;
    struct oc_tiles_end e = {.c = c, .rows = at_most(u->mm - m, OC_TILES_N), .cols = u->nn, .n_panels = u->n_panels};
    e.act = a->act, e.add = a->add, e.ldy = a->ldy[u->which];
    e.bias = a->w[u->which]->bias ? a->w[u->which]->bias + u->n0 : NULL;
    if (a->glu) {
        e.up = c + u->n_panels * C_PANEL;
        e.up_bias = a->w[1]->bias ? a->w[1]->bias + u->n0 : NULL;
    }
    e.y = a->y[u->which] + (j->m0 + u->m0 + m) * e.ldy + u->n0;
    return e;
}

static int share(int pieces, int steps) {
    return (pieces + steps - 1) / steps;
}

/* All strips of the unit past its panels of one pass. */
static void pass(const struct job *j, const struct space *sp, const struct unit *u, int64_t k0) {
    const struct oc_simd_tiles *t = j->t;
    int64_t k = j->a->w[0]->k, from = k0 / OC_TILES_K * j->a_parts * OC_TILES_STEP;
    int kk = at_most(k - k0, j->pass_k), steps = steps_of(kk);
    bool last = k0 + kk == k, only = j->pass_k >= k;
    load_panels(j, sp, u, k0, kk);
    struct oc_tiles_end end = {0};
    struct oc_tiles_strip s = {.b = sp->w, .a_parts = j->a_parts, .b_parts = u->b_parts, .steps = steps, .n_panels = u->n_all};
    s.first = k0 == 0;
    s.group = u->group, s.scales = sp->scales, s.sums = sp->sums, s.acc = sp->acc, s.scale = t->scale;
    s.finish = t->finish, s.end = &end;
    int64_t strip = u->m0 / OC_TILES_N;
    for (int m = 0, i = 0; m < u->mm; m += OC_TILES_N, i++, strip++) {
        s.a = strip_at(j, strip) + from;
        s.next = m + OC_TILES_N < u->mm ? strip_at(j, strip + 1) + from : NULL;
        s.n_next = share(steps * j->a_parts * OC_TILES_N, u->n_all * steps); /* a line is a row of a step */
        s.c = sp->c + (only ? i % 2 : i) * u->n_all * C_PANEL; /* with one pass two strips' sums are all that is needed */
        s.lower = u->mm - m > 16;
        s.n_end = share(end.rows * end.n_panels, u->n_all * steps);
        if (u->group) group_sums(j, sp, u, strip, (int)(k0 / OC_TILES_K), steps);
        t->strip(&s);
        t->finish(&end, INT32_MAX);
        if (last) end = end_at(j, u, m, s.c);
    }
    t->finish(&end, INT32_MAX);
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
        for (int64_t k0 = 0; k0 < j->a->w[0]->k; k0 += j->pass_k) pass(j, &sp, &u, k0);
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
    j->mb = (int64_t)oc_round_up((size_t)rows, OC_TILES_N);
    j->n_row_blocks = (j->m + j->mb - 1) / j->mb;
}

/* Blocks of W as large as fit; smaller ones, and then fewer rows of x, where threads would be idle; equal ones. */
static void cut_work(struct job *j, int n_threads) {
    const struct oc_multi_linear *a = j->a;
    int64_t k = a->w[0]->k, n_most = a->w[0]->n, pair = a->glu ? 2 : 1, most = j->t->k_most[j->b_parts - 1];
    int64_t passes = (k + most - 1) / most;
    j->pass_k = (int64_t)oc_round_up((size_t)((k + passes - 1) / passes), OC_TILES_UNIT_K);
    for (int i = 1; i < a->n_w; i++) n_most = a->w[i]->n > n_most ? a->w[i]->n : n_most;
    j->nb = at_most(j->t->w_elements / (j->pass_k * j->b_parts * pair), MAX_COLS / pair) / OC_TILES_N * OC_TILES_N;
    OC_ASSERT(j->nb > 0);
    int64_t rows_most = C_FLOATS / (j->nb * pair) / OC_TILES_N * OC_TILES_N;
    set_rows(j, j->pass_k >= k ? 1 : (j->m + rows_most - 1) / rows_most);
    for (count_units(j); j->n_units < 2L * n_threads && j->nb > 64; count_units(j)) {
        j->nb = (int64_t)oc_round_up((size_t)(j->nb / 2), OC_TILES_N);
    }
    for (; j->n_units < 2L * n_threads && j->mb > 64; count_units(j)) set_rows(j, 2 * j->n_row_blocks);
    int64_t blocks = (n_most + j->nb - 1) / j->nb;
    while (blocks * j->n_row_blocks % n_threads != 0 && n_most / (blocks + 1) >= 64) blocks++;
    j->nb = (int64_t)oc_round_up((size_t)((n_most + blocks - 1) / blocks), OC_TILES_N);
    count_units(j);
}

void oc_tiled_gemm_tiles(const struct oc_simd *s, const struct oc_kctx *ctx, const struct oc_multi_linear *a) {
    int n_threads = oc_pool_n_threads(ctx->pool);
    int64_t k = a->w[0]->k, slice = slice_rows(a->m);
    OC_ASSERT(oc_tiled_gemm_tiles_bytes(a->m, k, n_threads) <= ctx->scratch_bytes && s->tiles->w_elements <= OC_TILES_MAX_W);
    struct job j = {.t = s->tiles, .a = a, .a_parts = s->tiles->split ? 2 : 1, .b_parts = 1, .x = (uint16_t *)(void *)ctx->scratch};
    uint8_t *at = ctx->scratch + cut_elements(a->m, k) * sizeof *j.x;
    for (int i = 0; i < a->n_w && s->tiles->split; i++) {
        if (a->w[i]->bits != 0 && s->tiles->grouped) j.sums = (float *)(void *)at;
        if (a->w[i]->bits != 0 && !s->tiles->grouped) j.b_parts = 2;
    }
    j.spaces = at + oc_round_up(sums_bytes(a->m, k), 64);
    for (; j.m0 < a->m; j.m0 += slice) {
        j.m = at_most(a->m - j.m0, slice);
        j.next = j.next_strip = 0;
        cut_work(&j, n_threads);
        oc_pool_run(ctx->pool, cut_strips, &j);
        oc_pool_run(ctx->pool, work, &j);
    }
}

/* As oc_tiled_may_bf16; and a gated pair, which shares its blocks, is of one kind. */
bool oc_tiled_may_tiles(const struct oc_multi_linear *a) {
    return oc_tiled_may_bf16(a) && (!a->glu || a->w[0]->group == a->w[1]->group);
}
