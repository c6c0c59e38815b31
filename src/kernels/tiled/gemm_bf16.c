/* Role P in bf16, rounded once: y^T = W x^T by register tiles, for bf16 and quantised weights.
 *
 * x is rounded to bf16 once per call, in panels of OC_BF16_COLS rows of x as columns, pairs of k side by side; W is
 * rounded row by row, as it lies, into a block that stays in L2 (so nothing of W is transposed). Work is cut in units
 * of (block of W's rows, block of x's rows), taken from a counter. An element's bits depend on its own row of x and
 * of W only: it is one sum over k in order, kept in c between blocks of k. */
#include "kernels/tiled/tiled.h"

struct job {
    const struct oc_simd *s;
    const struct oc_kctx *ctx;
    const struct oc_multi_linear *a;
    int64_t m0, m;  /* the slice of rows of x that is packed */
    int64_t kp;     /* k padded */
    uint16_t *x;    /* panels [kp/2][OC_BF16_COLS][2] */
    int64_t nb, mb; /* rows of W and of x in a unit */
    int64_t n_row_blocks, n_col_blocks[3];
    long n_units;
    long next, next_panel; /* shared counters */
};

/* A thread's part of the scratch. */
struct space {
    uint16_t *w;  /* [nb][W_STRIDE] */
    float *c[2];  /* [nb][ldc]: y^T of the gate or only weight, and of up */
    float *rows[2]; /* [ROWS][OC_P_NB]: the same, turned back, a few rows of x */
    uint16_t *tmp;
};

#define W_STRIDE (OC_P_KB + 32) /* not a multiple of 4 KiB, nor of a power of two of lines */
#define ROWS 16

static int64_t padded_k(int64_t k) {
    return (int64_t)oc_round_up((size_t)k, OC_BF16_K);
}

static size_t c_floats(void) {
    return (size_t)OC_P_NB * (size_t)(OC_BF16_MB + 16);
}

static size_t thread_bytes(void) {
    size_t floats = 2 * c_floats() + 2 * ROWS * OC_P_NB;
    return floats * sizeof(float) + (size_t)(OC_P_NB * W_STRIDE + OC_BF16_COLS * OC_P_KB) * sizeof(uint16_t);
}

static int64_t slice_rows(int64_t m) {
    int64_t slices = (m + OC_BF16_SLICE - 1) / OC_BF16_SLICE;
    return (int64_t)oc_round_up((size_t)((m + slices - 1) / slices), OC_BF16_COLS);
}

static size_t packed_bytes(int64_t m, int64_t k) {
    size_t bytes = (size_t)(slice_rows(m) * padded_k(k)) * sizeof(uint16_t);
    return oc_round_up(bytes, 4096);
}

size_t oc_tiled_gemm_bf16_bytes(int64_t m, int64_t k, int n_threads) {
    int64_t most = m < OC_BF16_SLICE ? m : OC_BF16_SLICE;
    return packed_bytes(most > 0 ? most : 1, k) + thread_bytes() * (size_t)n_threads;
}

static struct space thread_space(const struct job *j, int thread) {
    uint8_t *p = j->ctx->scratch + packed_bytes(j->a->m, j->a->w[0]->k) + (size_t)thread * thread_bytes();
    struct space sp;
    sp.c[0] = (float *)(void *)p;
    sp.c[1] = sp.c[0] + c_floats();
    sp.rows[0] = sp.c[1] + c_floats();
    sp.rows[1] = sp.rows[0] + ROWS * OC_P_NB;
    sp.w = (uint16_t *)(void *)(sp.rows[1] + ROWS * OC_P_NB);
    sp.tmp = sp.w + OC_P_NB * W_STRIDE;
    return sp;
}

static void pack_panels(void *arg, int thread, int n_threads) {
    struct job *j = arg;
    (void)n_threads;
    struct space sp = thread_space(j, thread);
    for (;;) {
        int64_t at = __atomic_fetch_add(&j->next_panel, 1, __ATOMIC_RELAXED) * OC_BF16_COLS;
        if (at >= j->m) return;
        int n = (int)(j->m - at < OC_BF16_COLS ? j->m - at : OC_BF16_COLS);
        const float *x = j->a->x + (j->m0 + at) * j->a->ldx;
        for (int64_t k0 = 0; k0 < j->a->w[0]->k; k0 += OC_P_KB) {
            int kk = (int)(j->a->w[0]->k - k0 < OC_P_KB ? j->a->w[0]->k - k0 : OC_P_KB);
            int64_t to = at * j->kp + k0 * OC_BF16_COLS;
            j->s->bf16->pack(x + k0, j->a->ldx, n, kk, j->x + to, NULL, sp.tmp);
        }
    }
}

/* Elements `from` to `to` of each of rows r0 .. r1-1 of a block of W become 0. */
static void clear(uint16_t *w, int64_t r0, int64_t r1, int from, int to) {
    for (int64_t r = r0; r < r1; r++) memset(w + r * W_STRIDE + from, 0, (size_t)(to - from) * sizeof *w);
}

/* Rows n0 .. of w from k0 on into sp->w, zeros from k on and from the last row to a whole tile. */
static void load_rows(const struct job *j, struct space *sp, const struct oc_weight *w, int64_t n0, int64_t nn,
                      int64_t k0, int kk, int kk_padded) {
    const struct oc_simd_bf16 *b = j->s->bf16;
    int64_t whole = (int64_t)oc_round_up((size_t)nn, (size_t)b->pad_rows);
    for (int64_t r = 0; r < nn; r++) b->row(w, n0 + r, k0, kk, sp->w + r * W_STRIDE, NULL);
    clear(sp->w, 0, nn, kk, kk_padded);
    clear(sp->w, nn, whole, 0, kk_padded);
}

/* c[nn, mm] = rows n0.. of w times x's packed rows from m0 on. */
static void block(const struct job *j, struct space *sp, const struct oc_weight *w, int64_t n0, int64_t nn,
                  int64_t m0, int64_t mm, float *c) {
    const struct oc_simd_bf16 *b = j->s->bf16;
    int64_t ldc = OC_BF16_MB + 16;
    for (int64_t k0 = 0; k0 < w->k; k0 += OC_P_KB) {
        int kk = (int)(w->k - k0 < OC_P_KB ? w->k - k0 : OC_P_KB), kk_padded = (int)padded_k(kk);
        load_rows(j, sp, w, n0, nn, k0, kk, kk_padded);
        struct oc_bf16_tile t = {.lda = W_STRIDE, .kk = kk_padded, .ldc = ldc, .first = k0 == 0};
        for (int64_t i = 0; i < mm; i += OC_BF16_COLS) {
            int64_t from = (m0 + i) * j->kp + k0 * OC_BF16_COLS;
            t.b = j->x + from;
            t.nv = mm - i > OC_BF16_COLS / 2 ? 2 : 1;
            for (int64_t r = 0; r < nn; r += b->mr) {
                t.mr = (int)(nn - r < b->mr ? nn - r : b->mr);
                t.a = sp->w + r * W_STRIDE;
                t.c = c + r * ldc + i;
                b->tile(&t);
            }
        }
    }
}

/* Turns c's columns i .. back into rows of y and finishes them. */
static void store(const struct job *j, struct space *sp, int which, int64_t n0, int64_t nn, int64_t m0, int64_t mm) {
    const struct oc_simd_bf16 *b = j->s->bf16;
    int64_t ldc = OC_BF16_MB + 16;
    for (int64_t i = 0; i < mm; i += ROWS) {
        b->turn(sp->c[0] + i, ldc, (int)nn, ROWS, sp->rows[0], OC_P_NB);
        if (j->a->glu) b->turn(sp->c[1] + i, ldc, (int)nn, ROWS, sp->rows[1], OC_P_NB);
        for (int64_t r = 0; r < ROWS && i + r < mm; r++) {
            oc_tiled_store_row(j->s, j->a, which, j->m0 + m0 + i + r, n0, (int)nn, sp->rows[0] + r * OC_P_NB,
                               sp->rows[1] + r * OC_P_NB);
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
        if (u >= j->n_units) break;
        int64_t col = u / j->n_row_blocks, m0 = u % j->n_row_blocks * j->mb;
        int which = 0;
        while (col >= j->n_col_blocks[which]) col -= j->n_col_blocks[which++];
        int64_t n0 = col * j->nb, nn = a->w[which]->n - n0 < j->nb ? a->w[which]->n - n0 : j->nb;
        int64_t mm = j->m - m0 < j->mb ? j->m - m0 : j->mb;
        block(j, &sp, a->w[which], n0, nn, m0, mm, sp.c[0]);
        if (a->glu) block(j, &sp, a->w[1], n0, nn, m0, mm, sp.c[1]);
        store(j, &sp, which, n0, nn, m0, mm);
    }
}

/* Equal blocks of x's rows, at most mb; W's blocks as high as the buffer, lower when that would leave threads idle. */
static void cut(struct job *j) {
    const struct oc_multi_linear *a = j->a;
    int64_t most = OC_BF16_MB, blocks = (j->m + most - 1) / most;
    j->mb = (int64_t)oc_round_up((size_t)((j->m + blocks - 1) / blocks), OC_BF16_COLS);
    j->n_row_blocks = (j->m + j->mb - 1) / j->mb;
    int n_outputs = a->glu ? 1 : a->n_w;
    long enough = 3L * oc_pool_n_threads(j->ctx->pool);
    for (j->nb = OC_P_NB;; j->nb /= 2) {
        j->n_units = 0;
        for (int i = 0; i < n_outputs; i++) {
            j->n_col_blocks[i] = (a->w[i]->n + j->nb - 1) / j->nb;
            j->n_units += (long)(j->n_col_blocks[i] * j->n_row_blocks);
        }
        if (j->n_units >= enough || j->nb <= 64) return;
    }
}

void oc_tiled_gemm_bf16(const struct oc_simd *s, const struct oc_kctx *ctx, const struct oc_multi_linear *a) {
    OC_ASSERT(oc_tiled_gemm_bf16_bytes(a->m, a->w[0]->k, oc_pool_n_threads(ctx->pool)) <= ctx->scratch_bytes);
    struct job j = {.s = s, .ctx = ctx, .a = a, .kp = padded_k(a->w[0]->k), .x = (uint16_t *)(void *)ctx->scratch};
    int64_t slice = slice_rows(a->m);
    for (j.m0 = 0; j.m0 < a->m; j.m0 += slice) {
        j.m = a->m - j.m0 < slice ? a->m - j.m0 : slice;
        j.next = j.next_panel = 0;
        cut(&j);
        oc_pool_run(ctx->pool, pack_panels, &j);
        oc_pool_run(ctx->pool, work, &j);
    }
}

bool oc_tiled_may_bf16(const struct oc_multi_linear *a) {
    for (int i = 0; i < a->n_w; i++) {
        if (a->w[i]->bits == 0 && a->w[i]->dtype != OC_BF16) return false;
    }
    return true;
}
