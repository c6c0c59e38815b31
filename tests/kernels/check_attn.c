/* attn_segments and attn_paged against double precision. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "check.h"

/* a b as the kernel multiplies it. */
static double product(double a, double b, enum isa_bf16 how) {
    struct parts x = parts_of(a, how), y = parts_of(b, how);
    return x.high * y.high + x.low * y.high + x.high * y.low;
}

/* What two bf16 lose of p v, in units of mag: p to 2^-17 of it and the product of lows, 2^-16 at most, of which the
 * oracle knows neither, since p's last bits decide; 12 units are the bound. Over many keys it averages out: `root` is of the
 * sum of squares. */
static double lost_by_cut(double sum, double root) {
    const double most = (0x1p-17 + 0x1p-16) * 0x1p24 / 12;
    return most * fmin(sum, 1.5 * root);
}

/* One query over n keys; key j and value j are rows of hd given by the caller in double. mag[d] is the sum of
 * p |v| times what an error of the scores does to p. */
static void attend_double(const double *q, const double *k, const double *v, int hd, int n, double scale,
                          enum isa_bf16 how, double *out, double *mag) {
    double *p = malloc((size_t)n * sizeof(double)), max = -INFINITY, sum = 0, most = 0;
    OC_ASSERT(p);
    for (int j = 0; j < n; j++) {
        double s = 0, a = 0;
        for (int d = 0; d < hd; d++) {
            s += product(q[d], k[j * hd + d], how);
            a += fabs(q[d] * k[j * hd + d]);
        }
        p[j] = s * scale;
        max = fmax(max, p[j]);
        most = fmax(most, a * scale);
    }
    for (int j = 0; j < n; j++) sum += p[j] = exp(p[j] - max);
    for (int d = 0; d < hd; d++) {
        double sizes = 0, squares = 0;
        out[d] = 0;
        for (int j = 0; j < n; j++) {
            struct parts x = parts_of(v[j * hd + d], how);
            double part = p[j] / sum * (x.high + x.low);
            out[d] += part;
            sizes += fabs(part);
            squares += part * part;
        }
        mag[d] = sizes * (1 + most) + (how == BF16_SPLIT ? lost_by_cut(sizes, sqrt(squares)) : 0);
    }
    free(p);
}

static void to_double(const float *in, int64_t n, double *out) {
    for (int64_t i = 0; i < n; i++) out[i] = in[i];
}

static void compare_segment(struct chk *c, const struct oc_attn_segments *a, int seg, int h) {
    int64_t lo = a->seg[seg], n = a->seg[seg + 1] - lo, at = (int64_t)h * a->hd;
    double *k = malloc((size_t)(n * a->hd) * sizeof(double)), *v = malloc((size_t)(n * a->hd) * sizeof(double));
    double q[OC_MAX_HD], want[OC_MAX_HD], mag[OC_MAX_HD];
    OC_ASSERT(k && v);
    for (int64_t j = 0; j < n; j++) {
        to_double(a->k + (lo + j) * a->ldk + at, a->hd, k + j * a->hd);
        to_double(a->v + (lo + j) * a->ldv + at, a->hd, v + j * a->hd);
    }
    for (int64_t i = 0; i < n; i += n > 300 ? 37 : 1) {
        to_double(a->q + (lo + i) * a->ldq + at, a->hd, q);
        attend_double(q, k, v, a->hd, (int)n, a->scale, isa_attn_bf16(c->ops.isa, a->hd), want, mag);
        for (int d = 0; d < a->hd; d++) op_error(c, a->y[(lo + i) * a->ldy + at + d], want[d], mag[d]);
    }
    free(k), free(v);
}

static void one_segments(struct chk *c) {
    static const int sizes[] = {1, 5, 16, 33, 64, 64, 100, 193, 400, 700};
    static const int hds[] = {2, 6, 8, 21, 64, 72, 80, 80, 96, 128, 256};
    int hd = RND_OF(c, hds), heads = rnd_int(c, 1, 4), n_segs = rnd_int(c, 1, 4);
    int32_t seg[5] = {0};
    for (int s = 0; s < n_segs; s++) seg[s + 1] = seg[s] + RND_OF(c, sizes);
    int64_t m = seg[n_segs], cols = (int64_t)heads * hd;
    struct mat q = mat_new(m, cols, cols), k = mat_new(m, cols, cols + 2), v = mat_new(m, cols, cols + 7);
    struct mat y = mat_new(m, cols, cols + 1);
    mat_random(c, &q), mat_random(c, &k), mat_random(c, &v);
    struct run_ctx r = run_ctx_new(c, rnd_int(c, 1, 4), m, 8, 8, hd);
    struct oc_attn_segments a = {heads, hd, 1.0f / sqrtf((float)hd), q.p,    k.p, v.p, q.ld, k.ld, v.ld,
                                 seg,   n_segs, y.p, y.ld, 0,   0};
    c->ops.attn_segments(&r.k, &a);
    for (int s = 0; s < n_segs; s++) compare_segment(c, &a, s, rnd_int(c, 0, heads - 1));
    bool clean = mat_written(&y);
    if (!run_ctx_free(&r) || !clean) fail(c, "canary or poison, m %d hd %d", (int)m, hd);
    c->n_cases++;
    mat_free(&q), mat_free(&k), mat_free(&v), mat_free(&y);
}

enum { N_PAGES = 80, PAGE = 16 };

/* A KV layer with random pages; the slots past those written stay NaN. */
struct cache {
    struct fenced k, v;
    struct oc_kv_layer kv;
};

static struct cache cache_new(struct chk *c, enum oc_dtype t, int kv_heads, int hd) {
    struct cache x;
    size_t page = (size_t)(kv_heads * PAGE * hd) * oc_dtype_bytes(t);
    x.k = fenced_new(page * N_PAGES, 0), x.v = fenced_new(page * N_PAGES, 0);
    x.kv = (struct oc_kv_layer){x.k.p, x.v.p, page, t, kv_heads, hd, PAGE};
    memset(x.k.p, 0xff, x.k.bytes), memset(x.v.p, 0xff, x.v.bytes);
    (void)c;
    return x;
}

static size_t cache_at(const struct oc_kv_layer *kv, const int32_t *pages, int slot, int head) {
    return (size_t)pages[slot / PAGE] * kv->page_stride_bytes +
           (size_t)(head * PAGE + slot % PAGE) * (size_t)kv->hd * oc_dtype_bytes(kv->dtype);
}

static void cache_fill(struct chk *c, const struct oc_kv_layer *kv, const int32_t *pages, int n_slots) {
    for (int slot = 0; slot < n_slots; slot++) {
        for (int h = 0; h < kv->n_kv_heads; h++) {
            for (int d = 0; d < kv->hd; d++) {
                float f[2] = {rnd_float(c), rnd_float(c)};
                uint16_t b[2] = {oc_f32_to_bf16(f[0]), oc_f32_to_bf16(f[1])};
                size_t size = oc_dtype_bytes(kv->dtype), at = cache_at(kv, pages, slot, h) + (size_t)d * size;
                memcpy(kv->k + at, kv->dtype == OC_F32 ? (void *)&f[0] : (void *)&b[0], size);
                memcpy(kv->v + at, kv->dtype == OC_F32 ? (void *)&f[1] : (void *)&b[1], size);
            }
        }
    }
}

static void compare_paged(struct chk *c, const struct oc_attn_paged *a, int64_t i, int h) {
    const struct oc_kv_layer *kv = &a->kv;
    int n = a->rows[i].slot + 1, hd = kv->hd, head = h / (a->n_heads / kv->n_kv_heads);
    double *k = malloc((size_t)(n * hd) * sizeof(double)), *v = malloc((size_t)(n * hd) * sizeof(double));
    double q[OC_MAX_HD], want[OC_MAX_HD], mag[OC_MAX_HD];
    OC_ASSERT(k && v);
    for (int j = 0; j < n; j++) {
        size_t at = cache_at(kv, a->rows[i].pages, j, head);
        for (int d = 0; d < hd; d++) {
            k[j * hd + d] = oc_load_float(kv->k + at, kv->dtype, d);
            v[j * hd + d] = oc_load_float(kv->v + at, kv->dtype, d);
        }
    }
    to_double(a->q + i * a->ldq + (int64_t)h * hd, hd, q);
    enum isa_bf16 how = a->rows[i].role == OC_ROLE_P ? isa_attn_bf16(c->ops.isa, hd) : BF16_NONE;
    attend_double(q, k, v, hd, n, a->scale, how, want, mag);
    for (int d = 0; d < hd; d++) op_error(c, a->y[i * a->ldy + (int64_t)h * hd + d], want[d], mag[d]);
    free(k), free(v);
}

/* Two sequences in one batch: one prefills a chunk, the other decodes, and a third row pair verifies. */
static void one_paged(struct chk *c) {
    static const int hds[] = {8, 64, 80, 128, 128, 256};
    static const int groups[] = {1, 1, 2, 7, 8, 12};
    int hd = RND_OF(c, hds), kv_heads = rnd_int(c, 1, 3), group = RND_OF(c, groups), heads = kv_heads * group;
    int first = rnd_int(c, 0, 300), n_p = rnd_int(c, 0, 120), d_slot = rnd_int(c, 0, 500);
    int64_t m = n_p + 2, cols = (int64_t)heads * hd;
    struct cache x = cache_new(c, rnd(c) % 2 ? OC_F32 : OC_BF16, kv_heads, hd);
    int32_t pages[N_PAGES];
    for (int i = 0; i < N_PAGES; i++) pages[i] = (i * 37 + 5) % N_PAGES;
    int32_t *other = pages + N_PAGES / 2; /* the second sequence's pages */
    cache_fill(c, &x.kv, pages, first + n_p + 1);
    cache_fill(c, &x.kv, other, d_slot + 2);
    struct oc_kv_row rows[130];
    for (int i = 0; i < n_p; i++) rows[i] = (struct oc_kv_row){pages, first + i, OC_ROLE_P};
    rows[n_p] = (struct oc_kv_row){other, d_slot, OC_ROLE_D};
    rows[n_p + 1] = (struct oc_kv_row){other, d_slot + 1, OC_ROLE_D};
    struct mat q = mat_new(m, cols, cols + rnd_int(c, 0, 3)), y = mat_new(m, cols, cols + 1);
    mat_random(c, &q);
    struct run_ctx r = run_ctx_new(c, rnd_int(c, 1, 4), m, 8, 8, hd);
    struct oc_attn_paged a = {m, heads, 1.0f / sqrtf((float)hd), q.p, q.ld, rows, x.kv, y.p, y.ld};
    c->ops.attn_paged(&r.k, &a);
    for (int64_t i = 0; i < m; i += i + 7 < n_p ? 7 : 1) compare_paged(c, &a, i, rnd_int(c, 0, heads - 1));
    bool clean = mat_written(&y);
    if (!run_ctx_free(&r) || !clean) fail(c, "canary or poison, m %d hd %d heads %d/%d", (int)m, hd, heads, kv_heads);
    c->n_cases++;
    mat_free(&q), mat_free(&y);
    fenced_free(&x.k), fenced_free(&x.v);
}

void check_attn(struct chk *c) {
    int n = c->few ? 2 : c->quick ? 8 : 40;
    op_begin(c, "attn_segments");
    for (int i = 0; i < n; i++) one_segments(c);
    op_end(c, 12);
    op_begin(c, "attn_paged");
    for (int i = 0; i < n; i++) one_paged(c);
    op_end(c, 12);
}
