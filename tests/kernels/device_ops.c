/* Ops of a device for the checker: each puts its inputs and outputs there, runs the device's op, and gets the outputs back with all that
 * lies around them, so that the same oracles, canaries and poison serve. */
#include "device_ops.h"

#include <stdio.h>
#include <stdlib.h>

#include "check.h"

#define FENCE 256 /* bytes of canary around each array on the device */
#define FENCE_BYTE 0x5a

/* A weight that was taken, with the copy it was taken from: a checker's weights come and go at the same addresses. */
struct taken {
    struct taken *next;
    struct oc_weight host, device;
    uint8_t *copy[4];
};

struct under_test {
    struct oc_device *d;
    uint8_t *arena; /* on the device */
    size_t arena_bytes, at;
    struct taken *weights;
};

/* An array on the device that was copied from the host's. */
struct there {
    uint8_t *p;
    void *host;
    size_t bytes;
};

static void broken(const char *what) {
    printf("FAIL device: %s\n", what);
    fflush(stdout);
    exit(1);
}

static struct under_test *begin(const struct oc_kctx *ctx) {
    struct under_test *t = ctx->device;
    OC_ASSERT(t);
    t->at = 0;
    return t;
}

static struct oc_kctx context(const struct under_test *t) {
    return (struct oc_kctx){.device = t->d->state};
}

static struct there bring(struct under_test *t, const void *host, size_t bytes) {
    uint8_t fence[FENCE];
    struct there a = {t->arena + t->at + FENCE, (void *)(uintptr_t)host, bytes};
    t->at += oc_round_up(bytes, 256) + 2 * FENCE;
    if (t->at > t->arena_bytes) broken("the checker's arena is too small");
    memset(fence, FENCE_BYTE, sizeof fence);
    t->d->put(t->d, a.p - FENCE, fence, FENCE);
    t->d->put(t->d, a.p, host, bytes);
    t->d->put(t->d, a.p + bytes, fence, FENCE);
    return a;
}

static float *bring_rows(struct under_test *t, const float *p, int64_t m, int64_t cols, int64_t ld, struct there *out) {
    *out = bring(t, p, (size_t)((m - 1) * ld + cols) * sizeof(float));
    return (float *)(void *)out->p;
}

static bool all_fence(const uint8_t *p) {
    for (int i = 0; i < FENCE; i++) {
        if (p[i] != FENCE_BYTE) return false;
    }
    return true;
}

/* Back to the host; the canaries of the device must be whole. */
static void fetch(struct under_test *t, const struct there *a) {
    uint8_t fence[FENCE];
    t->d->get(t->d, a->host, a->p, a->bytes);
    t->d->get(t->d, fence, a->p - FENCE, FENCE);
    if (!all_fence(fence)) broken("an op wrote before its output");
    t->d->get(t->d, fence, a->p + a->bytes, FENCE);
    if (!all_fence(fence)) broken("an op wrote behind its output");
}

static uint8_t *copy_of(const void *p, size_t bytes) {
    size_t shift = (uintptr_t)p % 16; /* odd addresses stay odd */
    uint8_t *c = aligned_alloc(64, oc_round_up(bytes + shift, 64));
    OC_ASSERT(c);
    memcpy(c + shift, p, bytes);
    return c;
}

static size_t scale_bytes(const struct oc_weight *w) {
    return w->bits ? (size_t)(w->n * (w->k / w->group)) * oc_dtype_bytes(w->dtype) : 0;
}

static bool same_part(const uint8_t *copy, const void *p, size_t bytes) {
    return bytes == 0 || memcmp(copy + (uintptr_t)p % 16, p, bytes) == 0;
}

static bool same_weight(const struct taken *t, const struct oc_weight *w) {
    const struct oc_weight *h = &t->host;
    if (h->n != w->n || h->k != w->k || h->dtype != w->dtype || h->bits != w->bits || h->group != w->group) return false;
    if ((h->bias == NULL) != (w->bias == NULL)) return false;
    return (uintptr_t)h->w % 16 == (uintptr_t)w->w % 16 && (uintptr_t)h->scales % 16 == (uintptr_t)w->scales % 16 &&
           (uintptr_t)h->zero_biases % 16 == (uintptr_t)w->zero_biases % 16 &&
           same_part(t->copy[0], w->w, (size_t)w->n * oc_weight_row_bytes(w)) &&
           same_part(t->copy[1], w->scales, scale_bytes(w)) && same_part(t->copy[2], w->zero_biases, scale_bytes(w)) &&
           same_part(t->copy[3], w->bias, w->bias ? (size_t)w->n * 4 : 0);
}

/* The weight on the device, taken from a copy that stays where it is. */
static const struct oc_weight *taken(struct under_test *u, const struct oc_weight *w) {
    struct oc_errinfo ei;
    struct taken *t = u->weights;
    while (t && !same_weight(t, w)) t = t->next;
    if (t) return &t->device;
    t = calloc(1, sizeof *t);
    OC_ASSERT(t);
    t->copy[0] = copy_of(w->w, (size_t)w->n * oc_weight_row_bytes(w));
    if (w->bits) t->copy[1] = copy_of(w->scales, scale_bytes(w)), t->copy[2] = copy_of(w->zero_biases, scale_bytes(w));
    if (w->bias) t->copy[3] = copy_of(w->bias, (size_t)w->n * 4);
    t->host = t->device = *w;
    t->device.w = t->copy[0] + (uintptr_t)w->w % 16;
    if (w->bits) t->device.scales = t->copy[1] + (uintptr_t)w->scales % 16;
    if (w->bits) t->device.zero_biases = t->copy[2] + (uintptr_t)w->zero_biases % 16;
    if (w->bias) t->device.bias = (const float *)(void *)(t->copy[3] + (uintptr_t)w->bias % 16);
    struct oc_weight again = t->device;
    if (u->d->take_weight(u->d, &t->device, &ei) != OC_OK || u->d->take_weight(u->d, &again, &ei) != OC_OK) broken(ei.msg);
    if (memcmp(&again, &t->device, sizeof again) != 0) broken("a weight was brought twice");
    t->next = u->weights;
    u->weights = t;
    return &t->device;
}

static void run_linear(const struct oc_kctx *ctx, const struct oc_linear *in) {
    struct under_test *t = begin(ctx);
    struct oc_linear a = *in;
    struct oc_kctx k = context(t);
    struct there x, y;
    a.w = taken(t, in->w);
    a.x = bring_rows(t, in->x, a.m, a.w->k, a.ldx, &x);
    a.y = bring_rows(t, in->y, a.m, a.w->n, a.ldy, &y);
    t->d->ops.linear(&k, &a);
    fetch(t, &y);
}

static void run_linear_glu(const struct oc_kctx *ctx, const struct oc_linear_glu *in) {
    struct under_test *t = begin(ctx);
    struct oc_linear_glu a = *in;
    struct oc_kctx k = context(t);
    struct there x, y;
    a.gate = taken(t, in->gate), a.up = taken(t, in->up);
    a.x = bring_rows(t, in->x, a.m, a.gate->k, a.ldx, &x);
    a.y = bring_rows(t, in->y, a.m, a.gate->n, a.ldy, &y);
    t->d->ops.linear_glu(&k, &a);
    fetch(t, &y);
}

static void run_linear3(const struct oc_kctx *ctx, const struct oc_linear3 *in) {
    struct under_test *t = begin(ctx);
    struct oc_linear3 a = *in;
    struct oc_kctx k = context(t);
    struct there x, y[3];
    for (int i = 0; i < 3; i++) {
        a.w[i] = taken(t, in->w[i]);
        a.y[i] = bring_rows(t, in->y[i], a.m, a.w[i]->n, a.ldy[i], &y[i]);
    }
    a.x = bring_rows(t, in->x, a.m, a.w[0]->k, a.ldx, &x);
    t->d->ops.linear3(&k, &a);
    for (int i = 0; i < 3; i++) fetch(t, &y[i]);
}

static void run_rmsnorm(const struct oc_kctx *ctx, const struct oc_rmsnorm *in) {
    struct under_test *t = begin(ctx);
    struct oc_rmsnorm a = *in;
    struct oc_kctx k = context(t);
    struct there x, y, w;
    a.x = bring_rows(t, in->x, a.m, a.d, a.ldx, &x);
    a.w = bring_rows(t, in->w, 1, a.d, a.d, &w);
    y = x;
    a.y = in->y == in->x ? (float *)(void *)x.p : bring_rows(t, in->y, a.m, a.d, a.ldy, &y);
    t->d->ops.rmsnorm(&k, &a);
    fetch(t, &y);
}

static void run_rope(const struct oc_kctx *ctx, const struct oc_rope *in) {
    struct under_test *t = begin(ctx);
    struct oc_rope a = *in;
    struct oc_kctx k = context(t);
    struct there x, c, s;
    a.x = bring_rows(t, in->x, a.m, (int64_t)a.n_heads * a.hd, a.ldx, &x);
    a.cos = bring_rows(t, in->cos, a.m, a.hd / 2, a.hd / 2, &c);
    a.sin = bring_rows(t, in->sin, a.m, a.hd / 2, a.hd / 2, &s);
    t->d->ops.rope(&k, &a);
    fetch(t, &x);
}

/* Bytes of the pages that these rows reach. */
static size_t pages_bytes(const struct oc_kv_layer *kv, const struct oc_kv_row *rows, int64_t m) {
    int32_t most = 0;
    for (int64_t i = 0; i < m; i++) {
        for (int p = 0; p <= rows[i].slot / kv->page_tokens; p++) most = rows[i].pages[p] > most ? rows[i].pages[p] : most;
    }
    return ((size_t)most + 1) * kv->page_stride_bytes;
}

static struct oc_kv_layer bring_pages(struct under_test *t, const struct oc_kv_layer *kv, size_t bytes, struct there *k, struct there *v) {
    struct oc_kv_layer out = *kv;
    *k = bring(t, kv->k, bytes), *v = bring(t, kv->v, bytes);
    out.k = k->p, out.v = v->p;
    return out;
}

static void run_kv_append(const struct oc_kctx *ctx, const struct oc_kv_append *in) {
    struct under_test *t = begin(ctx);
    struct oc_kv_append a = *in;
    struct oc_kctx c = context(t);
    struct there k, v, pk, pv;
    int64_t cols = (int64_t)a.kv.n_kv_heads * a.kv.hd;
    a.kv = bring_pages(t, &in->kv, pages_bytes(&in->kv, in->rows, in->m), &pk, &pv);
    a.k = bring_rows(t, in->k, a.m, cols, a.ldk, &k);
    a.v = bring_rows(t, in->v, a.m, cols, a.ldv, &v);
    t->d->ops.kv_append(&c, &a);
    fetch(t, &pk), fetch(t, &pv);
}

static void run_attn_paged(const struct oc_kctx *ctx, const struct oc_attn_paged *in) {
    struct under_test *t = begin(ctx);
    struct oc_attn_paged a = *in;
    struct oc_kctx c = context(t);
    struct there q, y, pk, pv;
    int64_t cols = (int64_t)a.n_heads * a.kv.hd;
    a.kv = bring_pages(t, &in->kv, pages_bytes(&in->kv, in->rows, in->m), &pk, &pv);
    a.q = bring_rows(t, in->q, a.m, cols, a.ldq, &q);
    a.y = bring_rows(t, in->y, a.m, cols, a.ldy, &y);
    t->d->ops.attn_paged(&c, &a);
    fetch(t, &y);
}

static void run_attn_segments(const struct oc_kctx *ctx, const struct oc_attn_segments *in) {
    struct under_test *t = begin(ctx);
    struct oc_attn_segments a = *in;
    struct oc_kctx c = context(t);
    struct there q, k, v, y;
    int64_t m = a.seg[a.n_segs], cols = (int64_t)a.n_heads * a.hd;
    a.q = bring_rows(t, in->q, m, cols, a.ldq, &q);
    a.k = bring_rows(t, in->k, m, cols, a.ldk, &k);
    a.v = bring_rows(t, in->v, m, cols, a.ldv, &v);
    a.y = bring_rows(t, in->y, m, cols, a.ldy, &y);
    t->d->ops.attn_segments(&c, &a);
    fetch(t, &y);
}

static void run_embed(const struct oc_kctx *ctx, const struct oc_embed *in) {
    struct under_test *t = begin(ctx);
    struct oc_embed a = *in;
    struct oc_kctx c = context(t);
    struct there y;
    a.w = taken(t, in->w);
    a.y = bring_rows(t, in->y, a.m, a.w->k, a.ldy, &y);
    t->d->ops.embed(&c, &a);
    fetch(t, &y);
}

static void run_move_rows(const struct oc_kctx *ctx, const struct oc_move_rows *in) {
    struct under_test *t = begin(ctx);
    struct oc_move_rows a = *in;
    struct oc_kctx c = context(t);
    struct there x, y;
    int64_t last = 0;
    for (int64_t i = 0; i < a.m; i++) last = a.to[i] > last ? a.to[i] : last;
    a.x = bring_rows(t, in->x, a.m, a.d, a.ldx, &x);
    a.y = bring_rows(t, in->y, last + 1, a.d, a.ldy, &y);
    t->d->ops.move_rows(&c, &a);
    fetch(t, &y);
}

bool device_ops(const char *path, struct oc_ops *ops, struct under_test **out, struct oc_errinfo *ei) {
    struct under_test *t = calloc(1, sizeof *t);
    OC_ASSERT(t);
    if (oc_device_open_plugin(path, 0, &t->d, ei) != OC_OK) {
        free(t);
        return false;
    }
    t->arena_bytes = (size_t)512 << 20;
    if (t->d->alloc(t->d, t->arena_bytes, (void **)&t->arena, ei) != OC_OK) broken(ei->msg);
    *ops = t->d->ops;
#define OC_OP(name) ops->name = run_##name;
#include "kernels/ops.def"
#undef OC_OP
    *out = t;
    return true;
}

struct oc_device *device_of(const struct under_test *t) {
    return t->d;
}

void device_ops_close(struct under_test *t) {
    for (struct taken *w = t->weights, *next; w; w = next) {
        next = w->next;
        for (int i = 0; i < 4; i++) free(w->copy[i]);
        free(w);
    }
    t->d->free(t->d, t->arena, t->arena_bytes);
    t->d->close(t->d);
    free(t);
}

/* Memory, and bytes there and back. */
void check_device(struct chk *c, struct oc_device *d) {
    enum { BYTES = 3 << 20 };
    uint8_t *host = malloc(BYTES), *back = malloc(BYTES);
    struct oc_errinfo ei;
    void *p = NULL;
    OC_ASSERT(host && back);
    op_begin(c, "memory, put, get");
    if (d->alloc(d, BYTES, &p, &ei) != OC_OK) broken(ei.msg);
    if ((uintptr_t)p % 256) fail(c, "memory is not aligned to 256");
    d->get(d, back, p, BYTES);
    for (int i = 0; i < BYTES; i++) {
        if (back[i] == 0) continue;
        fail(c, "memory is not zeroed");
        break;
    }
    for (int turn = 0; turn < 40; turn++) { /* many times around what puts pass through */
        size_t bytes = (size_t)rnd_int(c, 1, BYTES);
        for (size_t i = 0; i < bytes; i++) host[i] = (uint8_t)(i * 7 + (size_t)turn);
        d->put(d, p, host, bytes);
        memset(host, 0xee, bytes); /* what was put may change */
        d->get(d, back, p, bytes);
        for (size_t i = 0; i < bytes; i++) {
            if (back[i] == (uint8_t)(i * 7 + (size_t)turn)) continue;
            fail(c, "byte %d of %d came back wrong", (int)i, (int)bytes);
            break;
        }
        c->n_cases++;
    }
    d->wait(d);
    d->free(d, NULL, 0);
    d->free(d, p, BYTES);
    free(host), free(back);
    op_end(c, 0);
}

/* A linear or a glu at the shapes of real models. */
struct real {
    enum oc_role role;
    enum wformat format;
    int64_t n, k;
    bool glu;
};

static void run_real(struct oc_device *d, const struct real *r, const struct oc_weight *w, const float *x, float *y, int64_t m) {
    struct oc_kctx ctx = {.device = d->state};
    if (r->glu) {
        struct oc_linear_glu a = {r->role, m, x, r->k, &w[0], &w[1], y, r->n, OC_ACT_SILU};
        d->ops.linear_glu(&ctx, &a);
    } else {
        struct oc_linear a = {r->role, m, x, r->k, &w[0], y, r->n, OC_ACT_NONE, false};
        d->ops.linear(&ctx, &a);
    }
}

/* Rows of many at once, against the same in uneven pieces. */
static void same_real_bits(struct chk *c, struct under_test *t, const struct real *r, int64_t rows) {
    static const int pieces[] = {1, 7, 64, 129, 1, 500, 16, 33};
    struct oc_device *d = t->d;
    struct weight weights[2] = {weight_new(c, r->format, r->n, r->k, 64, OC_BF16, true)};
    if (r->glu) weights[1] = weight_new(c, r->format, r->n, r->k, 64, OC_BF16, false);
    struct oc_weight w[2] = {*taken(t, &weights[0].w)};
    if (r->glu) w[1] = *taken(t, &weights[1].w);
    struct mat x = mat_new(rows, r->k, r->k), want = mat_new(rows, r->n, r->n), got = mat_new(rows, r->n, r->n);
    struct there dx, dy;
    mat_random(c, &x);
    t->at = 0;
    const float *px = bring_rows(t, x.p, rows, r->k, r->k, &dx);
    float *py = bring_rows(t, got.p, rows, r->n, r->n, &dy);
    run_real(d, r, w, px, py, rows);
    d->get(d, want.p, py, want.mem.bytes);
    d->put(d, py, got.p, got.mem.bytes);
    for (int64_t lo = 0, i = 0; lo < rows; i++) {
        int64_t m = pieces[i % 8] < rows - lo ? pieces[i % 8] : rows - lo;
        run_real(d, r, w, px + lo * r->k, py + lo * r->n, m);
        lo += m;
    }
    d->get(d, got.p, py, got.mem.bytes);
    if (memcmp(want.p, got.p, want.mem.bytes) != 0)
        fail(c, "bits depend on the rows together: role %s, %s, n %d k %d", r->role == OC_ROLE_P ? "P" : "D", wformat_name(r->format), (int)r->n, (int)r->k);
    c->n_cases++;
    mat_free(&x), mat_free(&want), mat_free(&got);
    weight_free(&weights[0]);
    if (r->glu) weight_free(&weights[1]);
}

void check_real_bits(struct chk *c, struct under_test *t) {
    static const struct real shapes[] = {
        {OC_ROLE_P, W_Q4, 3584, 3584, false},  {OC_ROLE_P, W_Q4, 512, 3584, false},  {OC_ROLE_P, W_Q4, 3584, 18944, false},
        {OC_ROLE_P, W_Q4, 18944, 3584, true},  {OC_ROLE_P, W_BF16, 3840, 1280, false}, {OC_ROLE_P, W_BF16, 3420, 1280, true},
        {OC_ROLE_P, W_BF16, 1280, 3420, false}, {OC_ROLE_P, W_F32, 1280, 1176, false}, {OC_ROLE_P, W_F16, 2048, 2048, false},
        {OC_ROLE_D, W_Q4, 3584, 18944, false}, {OC_ROLE_D, W_Q4, 18944, 3584, true}, {OC_ROLE_D, W_Q8, 3584, 3584, false},
    };
    op_begin(c, "bits: linear at real shapes");
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) same_real_bits(c, t, &shapes[i], shapes[i].role == OC_ROLE_P ? 1230 : 64);
    op_end(c, 0);
}

/* What cannot be had is refused, and what the device gives up to make room changes no bits. */
void check_refusal(struct chk *c, struct under_test *t) {
    enum { M = 70, N = 300, K = 704 };
    struct oc_errinfo ei;
    struct oc_kctx ctx = {.device = t};
    struct weight w[N_WFORMATS];
    struct mat x = mat_new(M, K, K), want[N_WFORMATS], got = mat_new(M, N, N);
    void *huge = NULL;
    mat_random(c, &x);
    op_begin(c, "memory refused");
    for (enum wformat f = 0; f < N_WFORMATS; f++) {
        w[f] = weight_new(c, f, N, K, 64, OC_BF16, true), want[f] = mat_new(M, N, N);
        struct oc_linear a = {OC_ROLE_P, M, x.p, K, &w[f].w, want[f].p, N, OC_ACT_SILU, false};
        run_linear(&ctx, &a);
    }
    if (t->d->alloc(t->d, (size_t)1 << 41, &huge, &ei) != OC_ERR_NOMEM || huge) fail(c, "2 TiB were not refused");
    for (enum wformat f = 0; f < N_WFORMATS; f++) {
        struct oc_linear a = {OC_ROLE_P, M, x.p, K, &w[f].w, got.p, N, OC_ACT_SILU, false};
        run_linear(&ctx, &a);
        if (memcmp(want[f].p, got.p, got.mem.bytes) != 0) fail(c, "%s: other bits after a refusal", wformat_name(f));
        c->n_cases++;
        mat_free(&want[f]), weight_free(&w[f]);
    }
    mat_free(&x), mat_free(&got);
    op_end(c, 0);
}
