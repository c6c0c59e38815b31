/* Role P by whole numbers: y = x W^T for quantised weights, x rounded to 16 bits for each of their groups (kernels/int16.h).
 *
 * x is rounded once per call, OC_P_KB of k of OC_INT16_ROWS rows side by side. A thread takes a block of W's rows and of x's, and for
 * each OC_P_KB of k makes one panel of W after the other, which stays in L1 while the rows of x pass over it; the panel that is
 * next comes from memory meanwhile. Sums of y stay in L2.
 * An element's bits depend on its own row of x and of W only: within a group the sum is an integer, and groups are added in order. */
#include "kernels/tiled/tiled.h"

#define ROWS OC_INT16_ROWS
#define SLICE (256 * ROWS) /* rows of x that are rounded at a time, which bounds the scratch */
#define MAX_MB 384         /* rows of x in a unit, a multiple of ROWS */
#define MIN_GROUP 32
#define BLOCK (ROWS * OC_P_KB)                      /* numbers of a tile's rows */
#define BLOCK_SCALES (OC_P_KB / MIN_GROUP * 2 * ROWS) /* room for their scales and sums */
#define PAGE 4096

struct job {
    const struct oc_simd *s;
    const struct oc_simd_int16 *p;
    const struct oc_kctx *ctx;
    const struct oc_multi_linear *a;
    int64_t k;
    int group;
    int64_t m0, m;  /* the slice of rows of x that is rounded */
    int64_t n_tiles; /* of its rows */
    int16_t *x;     /* [k / OC_P_KB][tiles][ROWS][OC_P_KB] */
    float *scales;  /* [k / OC_P_KB][tiles][groups][2][ROWS], BLOCK_SCALES from one tile to the next */
    uint8_t *spaces;
    int64_t nb, mb; /* rows of W and of x in a unit */
    int64_t n_row_blocks, n_col_blocks[3];
    long n_units;
    long next, next_tile; /* shared counters */
};

/* A thread's part of the scratch. */
struct space {
    int16_t *panel;  /* [OC_P_KB / 2][cols][2] */
    float *w_scales; /* [panels of the block][OC_INT16_SCALES][2][cols] */
    float *c[2];     /* [mb][OC_P_NB], of the gate or only weight, and of up */
};

enum {
    PANEL = OC_P_KB * OC_INT16_MAX_COLS,
    W_SCALES = OC_P_NB * OC_INT16_SCALES * 2,
    C_FLOATS = MAX_MB * OC_P_NB,
};

static size_t thread_bytes(void) {
    return oc_round_up(PANEL * sizeof(int16_t) + (W_SCALES + 2 * C_FLOATS) * sizeof(float), PAGE);
}

static int64_t blocks_of(int64_t k) {
    return (k + OC_P_KB - 1) / OC_P_KB;
}

static int64_t tiles_of(int64_t m) {
    return (m + ROWS - 1) / ROWS;
}

static int at_most(int64_t n, int64_t most) {
    return (int)(n < most ? n : most);
}

static int64_t slice_rows(int64_t m) {
    int64_t slices = (m + SLICE - 1) / SLICE;
    return tiles_of((m + slices - 1) / slices) * ROWS;
}

static size_t x_bytes(int64_t m, int64_t k) {
    return oc_round_up((size_t)(tiles_of(m) * blocks_of(k) * BLOCK) * sizeof(int16_t), PAGE);
}

static size_t scales_bytes(int64_t m, int64_t k) {
    return oc_round_up((size_t)(tiles_of(m) * blocks_of(k) * BLOCK_SCALES) * sizeof(float), PAGE);
}

size_t oc_tiled_gemm_int16_bytes(int64_t m, int64_t k, int n_threads) {
    int64_t most = m < 1 ? 1 : at_most(m, SLICE);
    return x_bytes(most, k) + scales_bytes(most, k) + thread_bytes() * (size_t)n_threads;
}

static struct space thread_space(const struct job *j, int thread) {
    struct space sp = {.panel = (int16_t *)(void *)(j->spaces + (size_t)thread * thread_bytes())};
    sp.w_scales = (float *)(void *)(sp.panel + PANEL);
    sp.c[0] = sp.w_scales + W_SCALES;
    sp.c[1] = sp.c[0] + C_FLOATS;
    return sp;
}

/* Where block k0 of k of the tile of rows is. */
static int64_t tile_at(const struct job *j, int64_t tile, int64_t k0) {
    return k0 / OC_P_KB * j->n_tiles + tile;
}

static void round_tiles(void *arg, int thread, int n_threads) {
    struct job *j = arg;
    (void)thread, (void)n_threads;
    for (;;) {
        int64_t tile = __atomic_fetch_add(&j->next_tile, 1, __ATOMIC_RELAXED);
        if (tile >= j->n_tiles) return;
        for (int r = 0; r < at_most(j->m - tile * ROWS, ROWS); r++) {
            const float *x = j->a->x + (j->m0 + tile * ROWS + r) * j->a->ldx;
            for (int64_t k0 = 0; k0 < j->k; k0 += OC_P_KB) {
                int64_t at = tile_at(j, tile, k0);
                j->p->round(x + k0, at_most(j->k - k0, OC_P_KB), j->group, j->x + at * BLOCK + r * OC_P_KB,
                            j->scales + at * BLOCK_SCALES + r);
            }
        }
    }
}

struct unit {
    const struct oc_weight *w;
    int64_t n0, m0; /* m0: in the slice */
    int nn, mm;
};

/* Bytes of the panel after this one, row `row` of it, come to L2. */
static void lead(const struct job *j, const struct unit *u, int64_t n, int64_t k0, int row) {
    n += j->p->cols;
    if (n >= u->nn) n = 0, k0 += OC_P_KB;
    if (k0 >= j->k || n + row >= u->nn) return;
    const uint8_t *p = u->w->w + (size_t)(u->n0 + n + row) * oc_weight_row_bytes(u->w) + (size_t)k0 * u->w->bits / 8;
    int bytes = at_most(j->k - k0, OC_P_KB) * u->w->bits / 8;
    for (int i = 0; i < bytes; i += 64) __builtin_prefetch(p + i, 0, 2);
    __builtin_prefetch(p + bytes - 1, 0, 2);
}

/* The numbers of a tile's rows come to L1. Hardware ends its streams with a page, here with every other tile. */
static void lead_x(const int16_t *x) {
    const char *p = (const char *)x;
    for (size_t i = 0; i < BLOCK * sizeof *x; i += 64) __builtin_prefetch(p + i, 0, 3);
}

/* All rows of the unit past the panel of W's rows from n on. */
static void multiply(const struct job *j, const struct space *sp, const struct unit *u, int64_t n, int64_t k0, float *c) {
    struct oc_int16_tile t = {.w = sp->panel, .kk = at_most(j->k - k0, OC_P_KB), .group = j->group, .ldc = OC_P_NB, .first = k0 == 0};
    t.w_scales = sp->w_scales + (n * OC_INT16_SCALES + k0 / j->group % OC_INT16_SCALES * j->p->cols) * 2;
    int row = 0, rows = (j->p->cols * ROWS + u->mm - 1) / u->mm; /* of W, to be led beside a tile */
    for (int i = 0; i < u->mm; i += ROWS) {
        int64_t at = tile_at(j, (u->m0 + i) / ROWS, k0);
        for (int r = 0; r < rows; r++) lead(j, u, n, k0, row++);
        t.x = j->x + at * BLOCK;
        if (n == 0 && i + ROWS < u->mm) lead_x(t.x + BLOCK); /* later panels find it in L2 */
        t.scales = j->scales + at * BLOCK_SCALES;
        t.c = c + i * OC_P_NB + n;
        t.mr = at_most(u->mm - i, ROWS);
        j->p->tile(&t);
    }
}

/* c[mm, nn] = x's rows times W's, transposed. */
static void block(const struct job *j, const struct space *sp, const struct unit *u, float *c) {
    const int cols = j->p->cols, group_k = OC_INT16_SCALES * j->group;
    for (int64_t k0 = 0; k0 < j->k; k0 += OC_P_KB) {
        for (int64_t n = 0; n < u->nn; n += cols) {
            int there = at_most(u->nn - n, cols);
            if (k0 % group_k == 0) {
                j->p->scales(u->w, u->n0 + n, there, k0 / j->group, at_most((j->k - k0) / j->group, OC_INT16_SCALES),
                             sp->w_scales + n * OC_INT16_SCALES * 2);
            }
            j->p->numbers(u->w, u->n0 + n, there, k0, at_most(j->k - k0, OC_P_KB), sp->panel);
            multiply(j, sp, u, n, k0, c);
        }
    }
}

static void work(void *arg, int thread, int n_threads) {
    struct job *j = arg;
    const struct oc_multi_linear *a = j->a;
    (void)n_threads;
    struct space sp = thread_space(j, thread);
    for (;;) {
        int64_t u = __atomic_fetch_add(&j->next, 1, __ATOMIC_RELAXED);
        if (u >= j->n_units) return;
        int64_t col = u / j->n_row_blocks, m0 = u % j->n_row_blocks * j->mb;
        int which = 0;
        while (col >= j->n_col_blocks[which]) col -= j->n_col_blocks[which++];
        struct unit t = {.w = a->w[which], .n0 = col * j->nb, .m0 = m0, .mm = at_most(j->m - m0, j->mb)};
        t.nn = at_most(t.w->n - t.n0, j->nb);
        block(j, &sp, &t, sp.c[0]);
        t.w = a->w[1];
        if (a->glu) block(j, &sp, &t, sp.c[1]);
        for (int64_t i = 0; i < t.mm; i++) {
            oc_tiled_store_row(j->s, a, which, j->m0 + m0 + i, t.n0, t.nn, sp.c[0] + i * OC_P_NB, sp.c[1] + i * OC_P_NB);
        }
    }
}

/* Equal blocks of x's rows, at most MAX_MB; W's blocks as wide as the buffer, narrower when that would leave threads idle. */
static void cut(struct job *j) {
    const struct oc_multi_linear *a = j->a;
    int64_t blocks = (j->m + MAX_MB - 1) / MAX_MB;
    j->mb = (j->n_tiles + blocks - 1) / blocks * ROWS;
    j->n_row_blocks = (j->m + j->mb - 1) / j->mb;
    int n_outputs = a->glu ? 1 : a->n_w;
    long enough = 3L * oc_pool_n_threads(j->ctx->pool);
    for (j->nb = OC_P_NB;; j->nb /= 2) {
        j->n_units = 0;
        for (int i = 0; i < n_outputs; i++) {
            j->n_col_blocks[i] = (a->w[i]->n + j->nb - 1) / j->nb;
            j->n_units += (long)(j->n_col_blocks[i] * j->n_row_blocks);
        }
        if (j->n_units >= enough || j->nb <= OC_INT16_MAX_COLS) return;
    }
}

/* Weights of one group size. */
static void run(const struct oc_simd *s, const struct oc_kctx *ctx, const struct oc_multi_linear *a) {
    int n_threads = oc_pool_n_threads(ctx->pool);
    struct job j = {.s = s, .p = s->int16, .ctx = ctx, .a = a, .k = a->w[0]->k, .group = a->w[0]->group};
    OC_ASSERT(oc_tiled_gemm_int16_bytes(a->m, j.k, n_threads) <= ctx->scratch_bytes && OC_P_NB % j.p->cols == 0);
    int64_t slice = slice_rows(a->m);
    j.x = (int16_t *)(void *)ctx->scratch;
    j.scales = (float *)(void *)(ctx->scratch + x_bytes(slice, j.k));
    j.spaces = ctx->scratch + x_bytes(slice, j.k) + scales_bytes(slice, j.k);
    for (j.m0 = 0; j.m0 < a->m; j.m0 += slice) {
        j.m = at_most(a->m - j.m0, slice);
        j.n_tiles = tiles_of(j.m);
        j.next = j.next_tile = 0;
        cut(&j);
        oc_pool_run(ctx->pool, round_tiles, &j);
        oc_pool_run(ctx->pool, work, &j);
    }
}

/* The outputs of a whose weights have this group. */
static struct oc_multi_linear of_group(const struct oc_multi_linear *a, int group) {
    struct oc_multi_linear part = *a;
    part.n_w = 0;
    for (int i = 0; i < a->n_w; i++) {
        if (a->w[i]->group != group) continue;
        part.w[part.n_w] = a->w[i], part.y[part.n_w] = a->y[i], part.ldy[part.n_w] = a->ldy[i];
        part.n_w++;
    }
    return part;
}

void oc_tiled_gemm_int16(const struct oc_simd *s, const struct oc_kctx *ctx, const struct oc_multi_linear *a, struct oc_multi_linear *rest) {
    static const int groups[] = {32, 64, 128};
    if (a->glu) {
        *rest = *a;
        if (a->w[0]->group == 0 || a->w[0]->group != a->w[1]->group) return;
        run(s, ctx, a);
        rest->n_w = 0;
        return;
    }
    for (size_t i = 0; i < sizeof groups / sizeof groups[0]; i++) {
        struct oc_multi_linear part = of_group(a, groups[i]);
        if (part.n_w > 0) run(s, ctx, &part);
    }
    *rest = of_group(a, 0);
}
