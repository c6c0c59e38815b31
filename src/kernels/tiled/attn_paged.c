/* Causal attention over the paged KV cache.
 *
 * Role P: consecutive rows of one sequence form a block of query rows with all heads that share a KV head, so that
 * keys and values are widened once per block. Role D: one row and the heads that share a KV head; keys stay rows
 * and stand on the left of the product, so that nothing is transposed but a few scores. Each role walks blocks of
 * its own fixed size from slot 0. */
#include "kernels/tiled/flash.h"

struct job {
    const struct oc_simd *s;
    const struct oc_kctx *ctx;
    const struct oc_attn_paged *a;
    int d_heads; /* query heads of one unit in role D */
    long next;
};

/* Rows of the batch that one unit takes. */
struct span {
    int64_t row;
    int n;
    enum oc_role role;
};

static const uint8_t *key_row(const struct oc_kv_layer *kv, const int32_t *pages, int head, int slot, const uint8_t *base) {
    return base + (size_t)pages[slot / kv->page_tokens] * kv->page_stride_bytes +
           (size_t)(head * kv->page_tokens + slot % kv->page_tokens) * (size_t)kv->hd * oc_dtype_bytes(kv->dtype);
}

/* Keys and values of role D are prefetched a block ahead, a few lines at each of the steps of a block: hardware loses the
 * thread at every page, and all at once they would have the arithmetic wait. */
struct ahead {
    const struct oc_kv_layer *kv;
    const int32_t *pages;
    int head, slot, n_slots;
    size_t at, row_bytes; /* of the slot's row */
    const uint8_t *k, *v;
};

static void ahead_open(struct ahead *h, const struct oc_attn_paged *a, const struct oc_kv_row *row, int head) {
    const struct oc_kv_layer *kv = &a->kv;
    *h = (struct ahead){.kv = kv, .pages = row->pages, .head = head, .n_slots = row->slot + 1};
    h->row_bytes = (size_t)kv->hd * oc_dtype_bytes(kv->dtype);
    h->k = key_row(kv, h->pages, head, 0, kv->k);
    h->v = key_row(kv, h->pages, head, 0, kv->v);
}

/* The next n lines of both, but no slot from `end` on. */
static void ahead_go(struct ahead *h, int n, int end) {
    if (end > h->n_slots) end = h->n_slots;
    for (; n > 0 && h->slot < end; n--) {
        __builtin_prefetch(h->k + h->at);
        __builtin_prefetch(h->v + h->at);
        h->at += 64;
        if (h->at < h->row_bytes) continue;
        h->at = 0;
        if (++h->slot == h->n_slots) return;
        h->k = key_row(h->kv, h->pages, h->head, h->slot, h->kv->k);
        h->v = key_row(h->kv, h->pages, h->head, h->slot, h->kv->v);
    }
}

/* Widens slots first .. first+n-1 of KV head `head` to rows of f->ld. */
static void gather(const struct oc_flash *f, const struct oc_kv_layer *kv, const uint8_t *base,
                   const int32_t *pages, int head, int first, int n, float *out) {
    for (int j = 0; j < n; j++) {
        f->s->widen(key_row(kv, pages, head, first + j, base), kv->dtype, kv->hd, out + (int64_t)j * f->ld);
    }
}

/* The same, with a quarter of a row's lines prefetched for each. */
static void gather_d(const struct oc_flash *f, struct ahead *h, const uint8_t *base, int first, int n, float *out) {
    int lines = (int)(h->row_bytes / 256), end = first + 2 * OC_ATTN_D_KB;
    for (int j = 0; j < n; j++) {
        f->s->widen(key_row(h->kv, h->pages, h->head, first + j, base), h->kv->dtype, h->kv->hd, out + (int64_t)j * f->ld);
        ahead_go(h, lines, end);
    }
}

/* Role P: all query heads of KV head `head` for the rows of the span; query row = row * group + head in group. */
static void unit_p(struct oc_flash *f, const struct oc_attn_paged *a, const struct span *sp, int head) {
    const struct oc_kv_layer *kv = &a->kv;
    int group = a->n_heads / kv->n_kv_heads, n = sp->n * group, last = 0;
    const struct oc_kv_row *rows = a->rows + sp->row;
    oc_flash_begin(f, n);
    for (int i = 0; i < n; i++) {
        oc_flash_query(f, i, a->q + (sp->row + i / group) * a->ldq + (int64_t)(head * group + i % group) * kv->hd);
        if (rows[i / group].slot > last) last = rows[i / group].slot;
    }
    for (int first = 0; first <= last; first += OC_ATTN_KB) {
        int keys = last + 1 - first < OC_ATTN_KB ? last + 1 - first : OC_ATTN_KB;
        gather(f, kv, kv->k, rows[0].pages, head, first, keys, f->rows);
        oc_flash_keys(f, f->rows, f->ld, keys);
        gather(f, kv, kv->v, rows[0].pages, head, first, keys, f->v);
        oc_flash_values(f, f->v, f->ld, keys);
        for (int i = 0; i < n; i++) {
            int see = rows[i / group].slot + 1 - first;
            f->valid[i] = see < 0 ? 0 : see < keys ? see : keys;
        }
        oc_flash_block(f, n);
    }
    oc_flash_end(f);
    for (int i = 0; i < n; i++) {
        oc_flash_finish(f, i, a->y + (sp->row + i / group) * a->ldy + (int64_t)(head * group + i % group) * kv->hd);
    }
}

/* score[keys, nr/2] = k[keys, hd] q^T with the few query rows as columns, then its transpose. */
static void scores_d(struct oc_flash *f, struct ahead *h, int end, int keys, int n, float *transposed) {
    for (int j = 0; f->s->pair_scores && j < keys; j += 16) {
        ahead_go(h, 3 * (int)(h->row_bytes / 64), end);
        f->s->pair_scores(f->rows + (int64_t)j * f->ld, f->ld, keys - j < 16 ? keys - j : 16, f->q, (f->hd + 1) / 2,
                          transposed + j, OC_ATTN_D_KB);
    }
    if (f->s->pair_scores) return;
    int mr = f->s->mr, lanes = f->s->lanes;
    struct oc_tile t = {.lda = f->ld, .b = f->q, .ldb = lanes, .kk = f->hd, .ldc = lanes, .nv = 1};
    for (int j = 0; j < keys; j += mr) {
        t.a = f->rows + (int64_t)j * f->ld;
        t.c = f->score + (int64_t)j * lanes;
        t.mr = keys - j < mr ? keys - j : mr;
        f->s->tile(&t);
    }
    for (int i = 0; i < n; i++) {
        for (int j = 0; j < keys; j++) transposed[i * OC_ATTN_D_KB + j] = f->score[j * lanes + i];
    }
}

/* acc[n, hd] += p[n, keys] v[keys, hd]. */
static void values_d(struct oc_flash *f, struct ahead *ahead, int end, int keys, int n, const float *p) {
    int mr = f->s->mr, nr = f->s->nr;
    struct oc_tile t = {.lda = OC_ATTN_D_KB, .ldb = f->ld, .kk = keys, .ldc = f->ld, .nv = 2};
    t.add = true;
    for (int h = 0; h < n; h += mr) {
        t.mr = n - h < mr ? n - h : mr;
        for (int d = 0; d < f->ld; d += nr) {
            ahead_go(ahead, 2 * (int)(ahead->row_bytes / 64), end);
            t.a = p + (int64_t)h * OC_ATTN_D_KB;
            t.b = f->v + d;
            t.c = f->acc + (int64_t)h * f->ld + d;
            f->s->tile(&t);
        }
    }
}

/* f->q = n query rows, head after head, as columns; or as columns of pairs. */
static void turn_queries(struct oc_flash *f, const float *q, int n) {
    int lanes = f->s->lanes;
    memset(f->q, 0, (size_t)((f->hd + 1) * lanes) * sizeof(float));
    for (int h = 0; h < n; h++, q += f->hd) {
        for (int d = 0; d < f->hd; d++) {
            int at = f->s->pair_scores ? d / 2 * lanes + 2 * h + d % 2 : d * lanes + h;
            f->q[at] = q[d];
        }
    }
}

/* Role D: query heads h0 .. h0+n-1 of one row; n is at most one vector. f->q holds q^T, [hd, lanes]. */
static void unit_d(struct oc_flash *f, const struct oc_attn_paged *a, int64_t row, int h0, int n) {
    const struct oc_kv_layer *kv = &a->kv;
    const struct oc_kv_row *at = &a->rows[row];
    int head = h0 / (a->n_heads / kv->n_kv_heads);
    float *p = f->score + OC_ATTN_D_KB * f->s->lanes;
    struct ahead ahead;
    ahead_open(&ahead, a, at, head);
    ahead_go(&ahead, INT32_MAX, OC_ATTN_D_KB);
    turn_queries(f, a->q + row * a->ldq + (int64_t)h0 * kv->hd, n);
    oc_flash_start(f, n);
    for (int first = 0; first <= at->slot; first += OC_ATTN_D_KB) {
        int keys = at->slot + 1 - first < OC_ATTN_D_KB ? at->slot + 1 - first : OC_ATTN_D_KB, end = first + 2 * OC_ATTN_D_KB;
        gather_d(f, &ahead, kv->k, first, keys, f->rows);
        scores_d(f, &ahead, end, keys, n, p);
        for (int h = 0; h < n; h++) {
            ahead_go(&ahead, (int)(ahead.row_bytes / 64), end);
            oc_flash_softmax(f, h, p + h * OC_ATTN_D_KB, keys, keys);
        }
        gather_d(f, &ahead, kv->v, first, keys, f->v);
        values_d(f, &ahead, end, keys, n, p);
        ahead_go(&ahead, INT32_MAX, end);
    }
    for (int h = 0; h < n; h++) oc_flash_finish(f, h, a->y + row * a->ldy + (int64_t)(h0 + h) * kv->hd);
}

/* The span that starts at `row`: a decode row alone, or prefill rows of one sequence. */
static struct span next_span(const struct oc_attn_paged *a, int64_t row) {
    const struct oc_kv_row *r = &a->rows[row];
    struct span sp = {row, 1, r->role};
    int most = OC_ATTN_QB / (a->n_heads / a->kv.n_kv_heads);
    if (r->role == OC_ROLE_D) return sp;
    while (sp.n < most && row + sp.n < a->m && r[sp.n].pages == r->pages && r[sp.n].role == OC_ROLE_P) sp.n++;
    return sp;
}

static void work(void *arg, int thread, int n_threads) {
    struct job *j = arg;
    const struct oc_attn_paged *a = j->a;
    int group = a->n_heads / a->kv.n_kv_heads;
    struct oc_flash f;
    struct span sp;
    (void)n_threads;
    oc_flash_open(&f, j->s, j->ctx, thread, a->kv.hd, a->scale);
    long at = 0, mine = __atomic_fetch_add(&j->next, 1, __ATOMIC_RELAXED);
    for (int64_t row = 0; row < a->m; row += sp.n) {
        sp = next_span(a, row);
        int step = sp.role == OC_ROLE_D ? j->d_heads : group;
        for (int head = 0; head < a->kv.n_kv_heads; head++) {
            for (int h = 0; h < group; h += step, at++) {
                if (at != mine) continue;
                if (sp.role == OC_ROLE_D) {
                    unit_d(&f, a, row, head * group + h, group - h < step ? group - h : step);
                } else {
                    unit_p(&f, a, &sp, head);
                }
                mine = __atomic_fetch_add(&j->next, 1, __ATOMIC_RELAXED);
            }
        }
    }
}

void oc_tiled_attn_paged(const struct oc_simd *s, const struct oc_kctx *ctx, const struct oc_attn_paged *a) {
    struct job j = {.s = s, .ctx = ctx, .a = a};
    int group = a->n_heads / a->kv.n_kv_heads, n_threads = oc_pool_n_threads(ctx->pool);
    OC_ASSERT(a->n_heads % a->kv.n_kv_heads == 0 && group <= OC_ATTN_QB);
    /* Few rows and many threads: share a KV head's queries out, reading its keys more than once (from cache). */
    int most = s->pair_scores ? s->lanes / 2 : s->lanes;
    j.d_heads = group < most ? group : most;
    while (j.d_heads > 2 && a->m * a->kv.n_kv_heads * ((group + j.d_heads - 1) / j.d_heads) < n_threads) {
        j.d_heads = (j.d_heads + 1) / 2;
    }
    oc_pool_run(ctx->pool, work, &j);
}
