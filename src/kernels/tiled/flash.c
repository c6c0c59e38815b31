#include "kernels/tiled/flash.h"

#include <math.h>

static size_t padded(int hd) {
    return oc_round_up((size_t)hd, OC_TILE_MAX_NR);
}

enum {
    SCORE_FLOATS = OC_TILE_MAX_NR * OC_ATTN_KB,
    P16_FLOATS = 2 * OC_FLASH_ROWS * OC_ATTN_KB, /* high and low: two of 16 bits for one float */
    TMP_FLOATS = OC_BF16_COLS * OC_P_KB,
};

size_t oc_tiled_attn_thread_bytes(int max_hd) {
    size_t ld = padded(max_hd);
    size_t floats = 2 * OC_ATTN_WIDE_QB * ld + 3 * OC_ATTN_WIDE_QB + 4 * OC_ATTN_KB * ld + SCORE_FLOATS + P16_FLOATS + TMP_FLOATS;
    return floats * sizeof(float);
}

static float *take(float **at, size_t n) {
    float *p = *at;
    *at += n;
    return p;
}

static uint16_t *bf16_at(float *p) {
    return (uint16_t *)(void *)p;
}

/* The buffers of two bf16; those of the query rows and keys lie where the f32 ones would, which no unit needs as well. */
static void open_bf16(struct oc_flash *f, float **at, size_t room) {
    f->bf16 = f->s->bf16 && f->s->bf16->exp_row ? f->s->bf16 : NULL;
    f->q16 = bf16_at(f->q), f->q16_low = f->q16 + OC_ATTN_WIDE_QB * room;
    f->k16 = bf16_at(f->k), f->k16_low = f->k16 + OC_ATTN_KB * room;
    f->v16 = bf16_at(take(at, OC_ATTN_KB * room)), f->v16_low = f->v16 + OC_ATTN_KB * room;
    f->p16 = bf16_at(take(at, P16_FLOATS)), f->p16_low = f->p16 + P16_FLOATS;
    f->tmp = bf16_at(take(at, TMP_FLOATS));
    if (!f->bf16) return;
    OC_ASSERT(f->bf16->mr <= OC_FLASH_ROWS && f->ld % OC_BF16_K == 0 && OC_ATTN_KB % OC_BF16_K == 0);
    memset(f->p16, 0, P16_FLOATS * sizeof(float)); /* rows past the last one of a unit are multiplied too */
}

void oc_flash_open(struct oc_flash *f, const struct oc_simd *s, const struct oc_kctx *ctx, int thread, int hd,
                   float scale) {
    OC_ASSERT(hd > 0 && hd <= OC_MAX_HD && scale > 0);
    size_t bytes = oc_tiled_attn_thread_bytes(hd), room = padded(hd);
    OC_ASSERT(bytes * (size_t)oc_pool_n_threads(ctx->pool) <= ctx->scratch_bytes);
    float *at = (float *)(void *)(ctx->scratch + (size_t)thread * bytes);
    f->s = s;
    f->hd = hd;
    f->ld = (int)oc_round_up((size_t)hd, (size_t)s->nr);
    f->scale = scale;
    oc_flash_forget(f);
    f->q = take(&at, OC_ATTN_WIDE_QB * room);
    f->acc = take(&at, OC_ATTN_WIDE_QB * room);
    f->max = take(&at, OC_ATTN_WIDE_QB);
    f->sum = take(&at, OC_ATTN_WIDE_QB);
    f->valid = (int32_t *)(void *)take(&at, OC_ATTN_WIDE_QB);
    f->k = take(&at, OC_ATTN_KB * room);
    f->v = take(&at, OC_ATTN_KB * room);
    f->rows = take(&at, OC_ATTN_KB * room);
    f->score = take(&at, SCORE_FLOATS);
    open_bf16(f, &at, room);
    /* Columns from hd to ld are never written again: the padding of a row's keys and values, which must be finite. */
    for (int j = 0; j < OC_ATTN_KB && f->ld != hd; j++) {
        memset(f->rows + (int64_t)j * f->ld + hd, 0, (size_t)(f->ld - hd) * sizeof(float));
        memset(f->v + (int64_t)j * f->ld + hd, 0, (size_t)(f->ld - hd) * sizeof(float));
    }
}

static void nothing_seen(struct oc_flash *f, int n) {
    for (int i = 0; i < n; i++) {
        f->max[i] = -INFINITY;
        f->sum[i] = 0;
    }
}

void oc_flash_start(struct oc_flash *f, int n) {
    memset(f->acc, 0, (size_t)n * (size_t)f->ld * sizeof(float));
    nothing_seen(f, n);
}

/* The row's new maximum; what the row has so far is made relative to it. */
static float raise_max(struct oc_flash *f, int row, const float *score, int valid) {
    float old = f->max[row], max = fmaxf(old, f->s->max_row(score, valid) * f->scale);
    if (max != old && f->sum[row] != 0) {
        float *acc = f->acc + (int64_t)row * f->ld, shrink = expf(old - max);
        f->sum[row] *= shrink;
        for (int d = 0; d < f->hd; d++) acc[d] *= shrink;
    }
    return f->max[row] = max;
}

void oc_flash_softmax(struct oc_flash *f, int row, float *score, int valid, int n_keys) {
    if (valid > 0) {
        float max = raise_max(f, row, score, valid);
        f->sum[row] += f->s->exp_row(score, valid, f->scale, max);
    }
    for (int j = valid; j < n_keys; j++) score[j] = 0;
}

/* How many keys the rows from i on see, the most. */
static int most_valid(const struct oc_flash *f, int i, int mr) {
    int most = 0;
    for (int r = 0; r < mr; r++) most = f->valid[i + r] > most ? f->valid[i + r] : most;
    return most;
}

/* A tile of rows on its way through a block: scores, softmax, values. */
struct flash_rows {
    int i, mr, n_keys, whole;
    float *score;
    uint16_t *p, *p_low;
    int n_soft; /* rows whose softmax is done */
};

/* `whole` depends on the other rows of the tile: but what is added for keys that a row does not see are zeros, whole steps of
 * OC_BF16_K of them. */
static struct flash_rows rows_at(const struct oc_flash *f, int tile, int n) {
    int mr = f->bf16->mr, i = tile * mr;
    if (tile < 0 || i >= n) return (struct flash_rows){0};
    struct flash_rows r = {.i = i, .mr = n - i < mr ? n - i : mr};
    r.n_keys = most_valid(f, i, r.mr);
    r.whole = (int)oc_round_up((size_t)r.n_keys, OC_BF16_K);
    r.score = f->score + tile % 2 * OC_FLASH_ROWS * OC_ATTN_KB;
    r.p = f->p16 + tile % 2 * OC_FLASH_ROWS * OC_ATTN_KB;
    r.p_low = f->p16_low + tile % 2 * OC_FLASH_ROWS * OC_ATTN_KB;
    if (r.n_keys == 0) r.mr = 0;
    return r;
}

/* The next row's probabilities, in two bf16, zero up to `whole` keys. */
static void soften_row(struct oc_flash *f, struct flash_rows *t) {
    int r = t->n_soft++, valid = f->valid[t->i + r];
    const float *score = t->score + (int64_t)r * OC_ATTN_KB;
    float max = valid > 0 ? raise_max(f, t->i + r, score, valid) : 0;
    f->sum[t->i + r] += f->bf16->exp_row(score, valid, t->whole, f->scale, max, t->p + r * OC_ATTN_KB, t->p_low + r * OC_ATTN_KB);
}

static int lines_of(const struct oc_flash *f) {
    return (f->hd * (int)sizeof(float) + 63) / 64;
}

void oc_flash_forget(struct oc_flash *f) {
    f->ahead = (struct oc_flash_ahead){0};
}

void oc_flash_fetch(struct oc_flash *f, const float *p, int64_t ld, int n_rows, int n, int n_keys) {
    if (!f->bf16) return;
    struct oc_flash_ahead *a = &f->ahead;
    int tiles = (n + f->bf16->mr - 1) / f->bf16->mr, steps = (n_keys + OC_BF16_COLS - 1) / OC_BF16_COLS;
    int turns = tiles * steps * (f->ld / OC_BF16_K + (f->hd + OC_BF16_COLS - 1) / OC_BF16_COLS) * 3;
    a->of[a->n_of++] = (struct oc_flash_far){p, ld, n_rows};
    int rows = 0;
    for (int i = 0; i < a->n_of; i++) rows += a->of[i].n;
    a->quota = rows * lines_of(f) / turns + 1;
}

static void fetch_some(struct oc_flash *f) {
    struct oc_flash_ahead *a = &f->ahead;
    for (int i = 0; i < a->quota && a->at < a->n_of; i++) {
        const struct oc_flash_far *far = &a->of[a->at];
        __builtin_prefetch(far->p + a->row * far->ld + 16 * a->line, 0, 2);
        if (++a->line < lines_of(f)) continue;
        a->line = 0;
        if (++a->row < far->n) continue;
        a->row = 0;
        a->at++;
    }
}

/* The softmax of one tile of rows beside the products of others: a row every few products. */
struct flash_beside {
    struct oc_flash *f;
    struct flash_rows *rows;
    int turn;
};

static void soften_some(void *arg) {
    enum { EVERY = 3 }; /* 96 products of a block for a row's 192 scores, some 150 cycles of work for 190 of products */
    struct flash_beside *b = arg;
    fetch_some(b->f);
    if (++b->turn % EVERY == 0 && b->rows->n_soft < b->rows->mr) soften_row(b->f, b->rows);
}

static void score_rows(struct oc_flash *f, const struct flash_rows *r, struct flash_beside *beside) {
    struct oc_bf16_tile t = {.lda = f->ld, .kk = f->ld, .ldc = OC_ATTN_KB, .mr = r->mr, .first = true};
    t.beside = soften_some, t.arg = beside;
    t.a = f->q16 + (int64_t)r->i * f->ld;
    t.a_low = f->q16_low + (int64_t)r->i * f->ld;
    for (int j = 0; j < r->n_keys && r->mr; j += OC_BF16_COLS) {
        t.b = f->k16 + (int64_t)j * f->ld;
        t.b_low = f->k16_low + (int64_t)j * f->ld;
        t.c = r->score + j;
        t.nv = r->n_keys - j > OC_BF16_COLS / 2 ? 2 : 1;
        f->bf16->tile(&t);
    }
}

static void add_values(struct oc_flash *f, const struct flash_rows *r, struct flash_beside *beside) {
    struct oc_bf16_tile t = {.a = r->p, .a_low = r->p_low, .lda = OC_ATTN_KB, .kk = r->whole, .ldc = f->ld, .mr = r->mr};
    t.beside = soften_some, t.arg = beside;
    t.first = f->first;
    for (int d = 0; d < f->hd && r->mr; d += OC_BF16_COLS) {
        t.b = f->v16 + (int64_t)d * OC_ATTN_KB;
        t.b_low = f->v16_low + (int64_t)d * OC_ATTN_KB;
        t.c = f->acc + (int64_t)r->i * f->ld + d;
        t.nv = f->hd - d > OC_BF16_COLS / 2 ? 2 : 1;
        f->bf16->tile(&t);
    }
}

/* A tile's softmax is done beside the products of its neighbours: the scores of the next and the values of the one before. */
static void block_bf16(struct oc_flash *f, int n) {
    struct flash_rows before = {0}, now = {0};
    for (int tile = 0; (tile - 2) * f->bf16->mr < n; tile++) {
        struct flash_rows next = rows_at(f, tile, n);
        struct flash_beside beside = {f, &now, 0};
        score_rows(f, &next, &beside);
        add_values(f, &before, &beside);
        while (now.n_soft < now.mr) soften_row(f, &now);
        before = now, now = next;
    }
}

/* Rows i .. i+mr-1, one register tile high. */
static void tile_rows(struct oc_flash *f, int i, int mr) {
    int n_keys = most_valid(f, i, mr), nr = f->s->nr;
    if (n_keys == 0) return;
    struct oc_tile t = {.a = f->q + (int64_t)i * f->ld, .lda = f->ld, .ldb = nr, .kk = f->hd};
    t.ldc = OC_ATTN_KB;
    t.mr = mr;
    t.nv = 2;
    for (int j = 0; j < n_keys; j += nr) {
        t.b = f->k + (int64_t)j * f->hd;
        t.c = f->score + j;
        f->s->tile(&t);
    }
    for (int r = 0; r < mr; r++) {
        oc_flash_softmax(f, i + r, f->score + (int64_t)r * OC_ATTN_KB, f->valid[i + r], n_keys);
    }
    t.a = f->score;
    t.lda = OC_ATTN_KB;
    t.ldb = t.ldc = f->ld;
    t.kk = n_keys;
    t.add = true;
    for (int d = 0; d < f->ld; d += nr) {
        t.b = f->v + d;
        t.c = f->acc + (int64_t)i * f->ld + d;
        f->s->tile(&t);
    }
}

void oc_flash_block(struct oc_flash *f, int n) {
    if (f->bf16) {
        block_bf16(f, n);
    } else {
        for (int i = 0; i < n; i += f->s->mr) tile_rows(f, i, n - i < f->s->mr ? n - i : f->s->mr);
    }
    f->first = false;
}

void oc_flash_begin(struct oc_flash *f, int n) {
    if (!f->bf16) {
        oc_flash_start(f, n);
        return;
    }
    f->first = true;
    nothing_seen(f, n);
    /* The rows that fill the last tile up. */
    size_t whole = oc_round_up((size_t)n, (size_t)f->bf16->pad_rows), more = (whole - (size_t)n) * (size_t)f->ld;
    memset(f->q16 + (int64_t)n * f->ld, 0, more * sizeof *f->q16);
    memset(f->q16_low + (int64_t)n * f->ld, 0, more * sizeof *f->q16);
    if (f->bf16->begin) f->bf16->begin();
}

void oc_flash_end(struct oc_flash *f) {
    if (f->bf16 && f->bf16->end) f->bf16->end();
}

void oc_flash_query(struct oc_flash *f, int row, const float *q) {
    int64_t at = (int64_t)row * f->ld;
    if (f->bf16) {
        f->bf16->round_row(q, f->hd, f->ld, f->q16 + at, f->q16_low + at);
    } else {
        memcpy(f->q + at, q, (size_t)f->hd * sizeof(float));
    }
}

void oc_flash_keys(struct oc_flash *f, const float *k, int64_t ldk, int n_keys) {
    int nr = f->bf16 ? OC_BF16_COLS : f->s->nr;
    for (int j = 0; j < n_keys; j += nr, k += nr * ldk) {
        int n = n_keys - j < nr ? n_keys - j : nr;
        int64_t at = (int64_t)j * f->ld;
        if (f->bf16) {
            f->bf16->pack(k, ldk, n, f->hd, f->k16 + at, f->k16_low + at, f->tmp);
        } else {
            f->s->transpose(k, ldk, n, f->hd, f->k + (int64_t)j * f->hd);
        }
    }
}

void oc_flash_values(struct oc_flash *f, const float *v, int64_t ldv, int n_keys) {
    if (f->bf16) {
        f->bf16->pack_pairs(v, ldv, n_keys, f->hd, OC_ATTN_KB * OC_BF16_COLS, f->v16, f->v16_low);
        return;
    }
    for (int j = 0; j < n_keys && v != f->v; j++)
        memcpy(f->v + (int64_t)j * f->ld, v + j * ldv, (size_t)f->hd * sizeof(float));
}

void oc_flash_finish(const struct oc_flash *f, int row, float *y) {
    const float *acc = f->acc + (int64_t)row * f->ld;
    float inv = 1.0f / f->sum[row];
    /* Adding 0 makes -0 into +0, the one bit that rows sharing a tile could otherwise leave behind. */
    for (int d = 0; d < f->hd; d++) y[d] = acc[d] * inv + 0.0f;
}
