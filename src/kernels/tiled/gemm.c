/* Role P: y = x W^T by register tiles over f32 panels of W.
 *
 * Work is cut in units of (block of columns, block of rows), taken from a counter: a unit's bits depend neither on
 * who computes it nor on how the blocks are cut, because each element is, in order over blocks of OC_P_KB of k,
 * the sum of that block's in-order sum. */
#include "kernels/tiled/tiled.h"

struct job {
    const struct oc_simd *s;
    const struct oc_kctx *ctx;
    const struct oc_multi_linear *a;
    int64_t nb, mb;         /* columns and rows of a unit */
    int64_t n_row_blocks;   /* of mb rows */
    int64_t n_col_blocks[3];
    long n_units;
    long next; /* shared counter */
};

/* A thread's part of the scratch. */
struct space {
    float *panel; /* OC_P_KB * OC_P_NB */
    float *c[2];  /* OC_P_MB * OC_P_NB each */
    float *x;     /* OC_TILE_MAX_MR * X_STRIDE */
    float *tmp;   /* OC_TILE_MAX_NR * OC_P_KB */
};

#define X_STRIDE (OC_P_KB + 16) /* not a multiple of 4 KiB: rows of a tile must not share cache sets */

enum {
    PANEL_FLOATS = OC_P_KB * OC_P_NB,
    C_FLOATS = OC_P_MB * OC_P_NB,
    X_FLOATS = OC_TILE_MAX_MR * X_STRIDE,
    TMP_FLOATS = OC_TILE_MAX_NR * OC_P_KB,
};

size_t oc_tiled_gemm_thread_bytes(void) {
    return sizeof(float) * (PANEL_FLOATS + 2 * C_FLOATS + X_FLOATS + TMP_FLOATS);
}

static struct space thread_space(const struct oc_kctx *ctx, int thread) {
    float *p = (float *)(void *)(ctx->scratch + (size_t)thread * oc_tiled_gemm_thread_bytes());
    struct space sp = {.panel = p};
    p += PANEL_FLOATS;
    sp.c[0] = p;
    p += C_FLOATS;
    sp.c[1] = p;
    p += C_FLOATS;
    sp.x = p;
    sp.tmp = p + X_FLOATS;
    return sp;
}

/* Rows m0 .. m0+mm-1 against the panels in sp->panel. */
static void multiply(const struct job *j, struct space *sp, int64_t m0, int64_t mm, int64_t k0, int kk,
                     int64_t nn, float *c) {
    const struct oc_simd *s = j->s;
    for (int64_t i = 0; i < mm; i += s->mr) {
        int mr = (int)(mm - i < s->mr ? mm - i : s->mr);
        for (int r = 0; r < mr; r++) {
            memcpy(sp->x + (int64_t)r * X_STRIDE, j->a->x + (m0 + i + r) * j->a->ldx + k0,
                   (size_t)kk * sizeof(float));
        }
        struct oc_tile t = {.a = sp->x, .lda = X_STRIDE, .ldb = s->nr, .kk = kk};
        t.ldc = OC_P_NB;
        t.mr = mr;
        t.nv = 2;
        t.add = k0 > 0;
        for (int64_t n = 0; n < nn; n += s->nr) {
            t.b = sp->panel + n * kk;
            t.c = c + i * OC_P_NB + n;
            s->tile(&t);
        }
    }
}

/* c[mm, nn] = x[m0.., :] times rows n0.. of w, transposed. */
static void block(const struct job *j, struct space *sp, const struct oc_weight *w, int64_t n0, int64_t nn,
                  int64_t m0, int64_t mm, float *c) {
    const struct oc_simd *s = j->s;
    for (int64_t k0 = 0; k0 < w->k; k0 += OC_P_KB) {
        int kk = (int)(w->k - k0 < OC_P_KB ? w->k - k0 : OC_P_KB);
        for (int64_t n = 0; n < nn; n += s->nr) {
            int cols = (int)(nn - n < s->nr ? nn - n : s->nr);
            s->panel(w, n0 + n, cols, k0, kk, sp->panel + n * kk, sp->tmp);
        }
        multiply(j, sp, m0, mm, k0, kk, nn, c);
    }
}

static void unit(const struct job *j, struct space *sp, int which, int64_t n0, int64_t m0) {
    const struct oc_multi_linear *a = j->a;
    const struct oc_weight *w = a->w[which];
    int64_t nn = w->n - n0 < j->nb ? w->n - n0 : j->nb;
    int64_t mm = a->m - m0 < j->mb ? a->m - m0 : j->mb;
    block(j, sp, w, n0, nn, m0, mm, sp->c[0]);
    if (a->glu) block(j, sp, a->w[1], n0, nn, m0, mm, sp->c[1]);
    for (int64_t i = 0; i < mm; i++) {
        oc_tiled_store_row(j->s, a, which, m0 + i, n0, (int)nn, sp->c[0] + i * OC_P_NB,
                           sp->c[1] + i * OC_P_NB);
    }
}

static void work(void *arg, int thread, int n_threads) {
    struct job *j = arg;
    (void)n_threads;
    struct space sp = thread_space(j->ctx, thread);
    for (;;) {
        int64_t u = __atomic_fetch_add(&j->next, 1, __ATOMIC_RELAXED);
        if (u >= j->n_units) return;
        int64_t col = u / j->n_row_blocks, row = u % j->n_row_blocks;
        int which = 0;
        while (col >= j->n_col_blocks[which]) col -= j->n_col_blocks[which++];
        unit(j, &sp, which, col * j->nb, row * j->mb);
    }
}

/* Rows of a unit: equal blocks of at most OC_P_MB. */
static void cut_rows(struct job *j) {
    int64_t m = j->a->m, mr = j->s->mr;
    int64_t blocks = (m + OC_P_MB - 1) / OC_P_MB;
    int64_t tiles = (m + mr - 1) / mr;
    j->mb = (tiles + blocks - 1) / blocks * mr;
    j->n_row_blocks = (m + j->mb - 1) / j->mb;
}

/* Columns of a unit: as wide as the panel block, narrower when that would leave threads idle. */
static void cut_columns(struct job *j) {
    const struct oc_multi_linear *a = j->a;
    int n_outputs = a->glu ? 1 : a->n_w;
    long enough = 3L * oc_pool_n_threads(j->ctx->pool);
    for (j->nb = OC_P_NB;; j->nb /= 2) {
        j->n_units = 0;
        for (int i = 0; i < n_outputs; i++) {
            j->n_col_blocks[i] = (a->w[i]->n + j->nb - 1) / j->nb;
            j->n_units += (long)(j->n_col_blocks[i] * j->n_row_blocks);
        }
        if (j->n_units >= enough || j->nb <= OC_TILE_MAX_NR) return;
    }
}

void oc_tiled_gemm(const struct oc_simd *s, const struct oc_kctx *ctx, const struct oc_multi_linear *a) {
    size_t need = oc_tiled_gemm_thread_bytes() * (size_t)oc_pool_n_threads(ctx->pool);
    OC_ASSERT(need <= ctx->scratch_bytes && OC_P_MB % s->mr == 0 && OC_P_NB % s->nr == 0);
    struct job j = {.s = s, .ctx = ctx, .a = a};
    cut_rows(&j);
    cut_columns(&j);
    oc_pool_run(ctx->pool, work, &j);
}
