/* Role D: runs of weight rows, each read once and dotted with all rows of x.
 *
 * Threads take runs in the order of memory from a counter, each half of what would be its share of the rest: long
 * runs for the prefetchers at first, single units at the end, where a thread that lost its core for a moment would
 * hold the others up. */
#include "kernels/int16.h"
#include "kernels/tiled/tiled.h"

struct job {
    const struct oc_simd *s;
    const struct oc_multi_linear *a;
    struct oc_dot_x x[3]; /* per weight; weights of one format share the memory */
    struct oc_dot_x8 x8[3]; /* instead, where x is rounded */
    struct oc_dot_digits xd[3]; /* instead, where W meets tiles of bytes */
    bool digits;            /* whether there are such weights */
    int x_digits;           /* of x as whole numbers, 0 where x is f32 */
    int64_t m0, m;        /* the slice of rows */
    int64_t nb;           /* columns of a unit */
    int64_t n_units[3];
    long n_all; /* units in all */
    long next;  /* shared counter */
};

/* Floats of a prepared row: k padded for the widest vectors, or to whole spans of bytes; and sums and scales of the
 * smallest groups. */
static int64_t row_floats(int64_t k) {
    size_t exact = oc_round_up((size_t)k, 128) + 16, rounded = oc_round_up((size_t)k, OC_INT8_SPAN * 128) * OC_MAX_DIGITS / 4;
    return (int64_t)(exact > rounded ? exact : rounded);
}

static int64_t sum_floats(int64_t k) {
    return (int64_t)oc_round_up((size_t)k / 32 + 1, 16);
}

size_t oc_tiled_gemv_bytes(int64_t m, int64_t k) {
    return 3 * sizeof(float) * (size_t)(oc_digits_rows(m) * row_floats(k) + m * 2 * sum_floats(k));
}

/* Fills job.x: one prepared copy of x for each format among the weights. */
struct prepare_job {
    struct job *j;
    int n_formats;
    int first[3]; /* a weight of each format */
    float *x[3], *sums[3], *scales[3];
};

static bool is_rounded(const struct job *j, const struct oc_weight *w) {
    return j->x_digits != 0 && w->bits != 0;
}

static bool is_digits(const struct job *j, const struct oc_weight *w) {
    return j->s->digits && w->bits != 0 && w->group % 64 == 0 && j->x_digits != 1;
}

/* Row `row` of the slice; x NULL for one that fills up a tile. */
static void prepare_digits(const struct job *j, const struct oc_weight *w, int64_t row, const float *x, float *out,
                           float *scale) {
    int64_t first = row & ~(int64_t)3;
    int width = oc_digits_width((int)j->m, (int)first);
    j->s->digits->prepare(w, x, (int8_t *)out + first * 4 * w->k, width, (int)(row - first), scale);
}

static void prepare_rows(void *arg, int thread, int n_threads) {
    const struct prepare_job *p = arg;
    const struct job *j = p->j;
    long lo, hi;
    oc_pool_split((long)j->m, 1, thread, n_threads, &lo, &hi);
    for (int f = 0; f < p->n_formats; f++) {
        const struct oc_weight *w = j->a->w[p->first[f]];
        int64_t ldx = row_floats(w->k), lds = sum_floats(w->k);
        for (int64_t i = lo; i < hi; i++) {
            const float *x = j->a->x + (j->m0 + i) * j->a->ldx;
            float *out = p->x[f] + i * ldx, *sums = p->sums[f] + i * lds;
            if (is_digits(j, w)) {
                prepare_digits(j, w, i, x, p->x[f], p->scales[f] + i * lds);
                oc_tiled_group_sums(w, x, sums, lds);
            } else if (is_rounded(j, w) && j->s->prepare8) {
                j->s->prepare8(w, x, j->x_digits, (int8_t *)out, 4 * ldx, p->scales[f] + i * lds, sums, lds);
            } else if (is_rounded(j, w)) {
                oc_tiled_dot8_prepare(j->s, w, x, j->x_digits, (int8_t *)out, 4 * ldx, p->scales[f] + i * lds, sums, lds);
            } else {
                j->s->dot_prepare(w, x, out, ldx, sums, lds);
            }
        }
        if (lo == hi || hi != j->m || !is_digits(j, w)) continue;
        for (int64_t i = j->m; i < oc_digits_rows(j->m); i++) {
            prepare_digits(j, w, i, NULL, p->x[f], NULL);
        }
    }
}

static void prepare(struct job *j, const struct oc_kctx *ctx) {
    struct prepare_job p = {.j = j};
    float *at = (float *)(void *)ctx->scratch;
    for (int i = 0; i < j->a->n_w; i++) {
        const struct oc_weight *w = j->a->w[i];
        int f = 0;
        while (f < p.n_formats && (j->a->w[p.first[f]]->bits != w->bits || j->a->w[p.first[f]]->group != w->group))
            f++;
        if (f == p.n_formats) {
            p.first[f] = i;
            p.x[f] = at;
            p.sums[f] = at + oc_digits_rows(j->m) * row_floats(w->k);
            p.scales[f] = p.sums[f] + j->m * sum_floats(w->k);
            at = p.scales[f] + j->m * sum_floats(w->k);
            p.n_formats++;
        }
        int64_t ldx = row_floats(w->k), lds = sum_floats(w->k);
        j->x[i] = (struct oc_dot_x){p.x[f], ldx, p.sums[f], lds};
        j->x8[i] = (struct oc_dot_x8){(const int8_t *)p.x[f], 4 * ldx, p.scales[f], p.sums[f], lds, j->x_digits};
        j->xd[i] = (struct oc_dot_digits){(const int8_t *)p.x[f], w->k, p.scales[f], p.sums[f], lds};
        j->digits = j->digits || is_digits(j, w);
    }
    oc_run_sized(ctx, j->m * j->a->w[0]->k, prepare_rows, &p);
}

static void dot(const struct job *j, int i, int64_t n0, int n, float *out, const struct oc_dot_next *next) {
    const struct oc_weight *w = j->a->w[i];
    if (is_digits(j, w)) {
        j->s->digits->dot(w, n0, n, &j->xd[i], (int)j->m, out, OC_D_NB, next);
    } else if (is_rounded(j, w)) {
        j->s->dot8(w, n0, n, &j->x8[i], (int)j->m, out, OC_D_NB);
    } else {
        j->s->dot(w, n0, n, &j->x[i], (int)j->m, out, OC_D_NB);
    }
}

/* Columns of one unit of work: n0 .. n0+n-1 of output `which`. */
struct unit {
    int which;
    int64_t n0;
    int n;
};

static struct unit unit_of(const struct job *j, long u) {
    struct unit r = {0};
    while (u >= j->n_units[r.which]) u -= (long)j->n_units[r.which++];
    r.n0 = u * j->nb;
    int64_t left = j->a->w[r.which]->n - r.n0;
    r.n = (int)(left < j->nb ? left : j->nb);
    return r;
}

static struct oc_dot_next rows_of(const struct oc_weight *w, int64_t n0) {
    struct oc_dot_next r = {.w = w->w + (size_t)n0 * oc_weight_row_bytes(w)};
    if (w->bits == 0) return r;
    size_t groups = (size_t)(n0 * (w->k / w->group)) * oc_dtype_bytes(w->dtype);
    r.scales = w->scales + groups;
    r.zero_biases = w->zero_biases + groups;
    return r;
}

/* Unit u; `after`, -1 for none, is the next of this thread. */
static void do_unit(const struct job *j, long u, long after) {
    float out[OC_D_SLICE * OC_D_NB], up[OC_D_SLICE * OC_D_NB];
    const struct oc_multi_linear *a = j->a;
    struct unit at = unit_of(j, u);
    struct oc_dot_next next = {0};
    if (after >= 0) {
        struct unit then = unit_of(j, after);
        next = rows_of(a->w[then.which], then.n0);
    }
    if (a->glu) {
        struct oc_dot_next partner = rows_of(a->w[1], at.n0);
        dot(j, 0, at.n0, at.n, out, &partner);
        dot(j, 1, at.n0, at.n, up, &next);
    } else {
        dot(j, at.which, at.n0, at.n, out, &next);
    }
    for (int64_t i = 0; i < j->m; i++) {
        oc_tiled_store_row(j->s, a, at.which, j->m0 + i, at.n0, at.n, out + i * OC_D_NB, up + i * OC_D_NB);
    }
}

/* Takes the next run of units: *lo .. *hi-1, empty when all are taken. */
static void take_run(struct job *j, int n_threads, long *lo, long *hi) {
    *lo = __atomic_load_n(&j->next, __ATOMIC_RELAXED);
    do {
        long left = j->n_all - *lo, run = left / (2L * n_threads);
        *hi = *lo + (run > 1 ? run : left > 0 ? 1 : 0);
    } while (!__atomic_compare_exchange_n(&j->next, lo, *hi, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
}

/* The unit after those of the run *lo .. *hi-1, of a new run when it is empty; -1 at the end. */
static long take_unit(struct job *j, int n_threads, long *lo, long *hi) {
    if (*lo == *hi) take_run(j, n_threads, lo, hi);
    return *lo == *hi ? -1 : (*lo)++;
}

/* Where kernels prefetch as told, a unit is taken while the one before it is at work. */
static void work(void *arg, int thread, int n_threads) {
    struct job *j = arg;
    (void)thread;
    long lo = 0, hi = 0, u = take_unit(j, n_threads, &lo, &hi);
    if (j->digits) j->s->digits->begin((int)j->m);
    while (u >= 0) {
        long after = j->digits ? take_unit(j, n_threads, &lo, &hi) : -1;
        do_unit(j, u, after);
        u = j->digits ? after : take_unit(j, n_threads, &lo, &hi);
    }
    if (j->digits) j->s->digits->end();
}

void oc_tiled_gemv(const struct oc_simd *s, const struct oc_kctx *ctx, const struct oc_multi_linear *a) {
    int n_outputs = a->glu ? 1 : a->n_w;
    struct job j = {.s = s, .a = a, .nb = OC_D_NB, .x_digits = ctx->int8 && s->dot8 ? 1 : s->x_digits};
    for (int i = 0; i < n_outputs; i++) {
        j.n_units[i] = (a->w[i]->n + j.nb - 1) / j.nb;
        j.n_all += (long)j.n_units[i];
    }
    for (j.m0 = 0; j.m0 < a->m; j.m0 += OC_D_SLICE) {
        j.m = a->m - j.m0 < OC_D_SLICE ? a->m - j.m0 : OC_D_SLICE;
        OC_ASSERT(oc_tiled_gemv_bytes(j.m, a->w[0]->k) <= ctx->scratch_bytes);
        j.next = 0;
        prepare(&j, ctx);
        oc_pool_run(ctx->pool, work, &j);
    }
}
