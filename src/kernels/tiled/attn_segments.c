/* Bidirectional attention inside segments: units of (segment, block of query rows, head). */
#include "kernels/tiled/flash.h"

struct job {
    const struct oc_simd *s;
    const struct oc_kctx *ctx;
    const struct oc_attn_segments *a;
    int64_t qb; /* query rows of a unit, at most */
    long next;
};

/* Query rows q0 .. q0+n-1 of segment s, head h. */
struct unit {
    int s, h, n; /* n is 0 behind the last unit */
    int64_t q0;
};

/* A walk over blocks of query rows in order: each is n_heads units, of which the first has the number `at`. */
struct walk {
    int s;
    int64_t q0;
    long at;
};

static int64_t rows_from(const struct oc_attn_segments *a, int s) {
    return a->seg[s] > a->q_from ? a->seg[s] : a->q_from;
}

static int64_t rows_to(const struct oc_attn_segments *a, int s) {
    return a->q_to && a->q_to < a->seg[s + 1] ? a->q_to : a->seg[s + 1];
}

/* The next unit that nobody has. */
static struct unit take(struct job *j, struct walk *w) {
    const struct oc_attn_segments *a = j->a;
    long mine = __atomic_fetch_add(&j->next, 1, __ATOMIC_RELAXED);
    while (w->s < a->n_segs && (w->q0 >= rows_to(a, w->s) || mine >= w->at + a->n_heads)) {
        if (w->q0 < rows_to(a, w->s)) {
            w->q0 += j->qb;
            w->at += a->n_heads;
        } else if (++w->s < a->n_segs) {
            w->q0 = rows_from(a, w->s);
        }
    }
    if (w->s == a->n_segs) return (struct unit){0};
    int64_t left = rows_to(a, w->s) - w->q0;
    return (struct unit){w->s, (int)(mine - w->at), (int)(left < j->qb ? left : j->qb), w->q0};
}

static int keys_at(const struct oc_attn_segments *a, int s, int64_t first) {
    return (int)(a->seg[s + 1] - first < OC_ATTN_KB ? a->seg[s + 1] - first : OC_ATTN_KB);
}

/* While n query rows meet n_keys keys, a unit's keys and values from `first` on are fetched. */
static void fetch_keys(struct oc_flash *f, const struct oc_attn_segments *a, const struct unit *u, int64_t first, int n, int n_keys) {
    int64_t at = (int64_t)u->h * a->hd;
    oc_flash_fetch(f, a->k + first * a->ldk + at, a->ldk, keys_at(a, u->s, first), n, n_keys);
    oc_flash_fetch(f, a->v + first * a->ldv + at, a->ldv, keys_at(a, u->s, first), n, n_keys);
}

/* One unit; what `then`, the thread's next one, needs first is fetched at the end. */
static void unit(struct oc_flash *f, const struct oc_attn_segments *a, const struct unit *u, const struct unit *then) {
    int64_t at = (int64_t)u->h * a->hd, end = a->seg[u->s + 1];
    oc_flash_begin(f, u->n);
    for (int i = 0; i < u->n; i++) oc_flash_query(f, i, a->q + (u->q0 + i) * a->ldq + at);
    for (int64_t j = a->seg[u->s]; j < end; j += OC_ATTN_KB) {
        int keys = keys_at(a, u->s, j);
        oc_flash_keys(f, a->k + j * a->ldk + at, a->ldk, keys);
        oc_flash_values(f, a->v + j * a->ldv + at, a->ldv, keys);
        for (int i = 0; i < u->n; i++) f->valid[i] = keys;
        oc_flash_forget(f);
        if (j + keys < end) {
            fetch_keys(f, a, u, j + keys, u->n, keys);
        } else if (then->n > 0) {
            fetch_keys(f, a, then, a->seg[then->s], u->n, keys);
            oc_flash_fetch(f, a->q + then->q0 * a->ldq + (int64_t)then->h * a->hd, a->ldq, then->n, u->n, keys);
        }
        oc_flash_block(f, u->n);
    }
    oc_flash_end(f);
    for (int i = 0; i < u->n; i++) oc_flash_finish(f, i, a->y + (u->q0 + i) * a->ldy + at);
}

static void work(void *arg, int thread, int n_threads) {
    struct job *j = arg;
    struct oc_flash f;
    struct walk w = {0, 0, 0};
    (void)n_threads;
    oc_flash_open(&f, j->s, j->ctx, thread, j->a->hd, j->a->scale);
    w.q0 = rows_from(j->a, 0);
    for (struct unit u = take(j, &w); u.n > 0;) {
        struct unit then = take(j, &w);
        unit(&f, j->a, &u, &then);
        u = then;
    }
}

void oc_tiled_attn_segments(const struct oc_simd *s, const struct oc_kctx *ctx,
                            const struct oc_attn_segments *a) {
    struct job j = {.s = s, .ctx = ctx, .a = a, .qb = OC_ATTN_QB};
    int64_t rows = (a->q_to ? a->q_to : a->seg[a->n_segs]) - a->q_from;
    /* The more rows share packed keys and values the better, while there are units enough for all threads. */
    if (s->bf16 && s->bf16->exp_row && rows * a->n_heads >= OC_ATTN_WIDE_QB * 4L * oc_pool_n_threads(ctx->pool)) j.qb = OC_ATTN_WIDE_QB;
    oc_pool_run(ctx->pool, work, &j);
}
