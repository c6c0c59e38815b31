#include "fake_device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TAG ((uintptr_t)1 << 50) /* over any address that a process has, and not where pointers carry marks */
#define SCRATCH_BYTES oc_ops_scratch_bytes(4096, 8192, 1 << 18, 256, 64)

struct taken {
    const void *from;
    void *there;
    struct taken *next;
};

struct fake {
    struct oc_ops real;
    uint8_t *scratch;
    size_t scratch_bytes;
    struct taken *taken;
    int fail_alloc, fail_weight; /* -1: never */
    struct fake_device_figures f;
};

/* ---- Pointers --------------------------------------------------------------------------------------------- */

/* A device's pointer as the host sees its memory. */
static void *here(const void *p) {
    if (!p) return NULL;
    OC_ASSERT((uintptr_t)p >> 50 == 1);
    return (void *)((uintptr_t)p - TAG);
}

static void *there(const void *p) {
    return p ? (void *)((uintptr_t)p + TAG) : NULL;
}

static const void *host(const void *p) {
    OC_ASSERT((uintptr_t)p < TAG);
    return p;
}

/* ---- Ops -------------------------------------------------------------------------------------------------- */

static struct fake *begin(const struct oc_kctx *ctx, struct oc_kctx *own) {
    struct fake *f = ctx->device;
    OC_ASSERT(f && !ctx->scratch);
    *own = *ctx;
    own->scratch = f->scratch;
    own->scratch_bytes = f->scratch_bytes;
    return f;
}

static struct oc_weight weight(const struct oc_weight *w) {
    struct oc_weight own = *(const struct oc_weight *)host(w);
    own.w = here(w->w);
    own.scales = here(w->scales);
    own.zero_biases = here(w->zero_biases);
    own.bias = here(w->bias);
    return own;
}

static struct oc_kv_layer kv(struct oc_kv_layer l) {
    l.k = here(l.k);
    l.v = here(l.v);
    return l;
}

static void check_rows(const struct oc_kv_row *rows, int64_t m) {
    host(rows);
    for (int64_t i = 0; i < m; i++) host(rows[i].pages);
}

#define BEGIN(name)                                                                                                     \
    struct oc_kctx own;                                                                                                 \
    struct fake *f = begin(ctx, &own);                                                                                  \
    struct oc_##name b = *a

static void fake_linear(const struct oc_kctx *ctx, const struct oc_linear *a) {
    BEGIN(linear);
    struct oc_weight w = weight(a->w);
    b.x = here(a->x), b.y = here(a->y), b.w = &w;
    f->real.linear(&own, &b);
}

static void fake_linear_glu(const struct oc_kctx *ctx, const struct oc_linear_glu *a) {
    BEGIN(linear_glu);
    struct oc_weight gate = weight(a->gate), up = weight(a->up);
    b.x = here(a->x), b.y = here(a->y), b.gate = &gate, b.up = &up;
    f->real.linear_glu(&own, &b);
}

static void fake_linear3(const struct oc_kctx *ctx, const struct oc_linear3 *a) {
    BEGIN(linear3);
    struct oc_weight w[3];
    b.x = here(a->x);
    for (int i = 0; i < 3; i++) w[i] = weight(a->w[i]), b.w[i] = &w[i], b.y[i] = here(a->y[i]);
    f->real.linear3(&own, &b);
}

static void fake_rmsnorm(const struct oc_kctx *ctx, const struct oc_rmsnorm *a) {
    BEGIN(rmsnorm);
    b.x = here(a->x), b.w = here(a->w), b.y = here(a->y);
    f->real.rmsnorm(&own, &b);
}

static void fake_rope(const struct oc_kctx *ctx, const struct oc_rope *a) {
    BEGIN(rope);
    b.x = here(a->x), b.cos = here(a->cos), b.sin = here(a->sin);
    f->real.rope(&own, &b);
}

static void fake_kv_append(const struct oc_kctx *ctx, const struct oc_kv_append *a) {
    BEGIN(kv_append);
    check_rows(a->rows, a->m);
    b.k = here(a->k), b.v = here(a->v), b.kv = kv(a->kv);
    f->real.kv_append(&own, &b);
}

static void fake_attn_paged(const struct oc_kctx *ctx, const struct oc_attn_paged *a) {
    BEGIN(attn_paged);
    check_rows(a->rows, a->m);
    b.q = here(a->q), b.y = here(a->y), b.kv = kv(a->kv);
    f->real.attn_paged(&own, &b);
}

static void fake_attn_segments(const struct oc_kctx *ctx, const struct oc_attn_segments *a) {
    BEGIN(attn_segments);
    host(a->seg);
    b.q = here(a->q), b.k = here(a->k), b.v = here(a->v), b.y = here(a->y);
    f->real.attn_segments(&own, &b);
}

static void fake_embed(const struct oc_kctx *ctx, const struct oc_embed *a) {
    BEGIN(embed);
    struct oc_weight w = weight(a->w);
    host(a->ids);
    b.w = &w, b.y = here(a->y);
    f->real.embed(&own, &b);
}

static void fake_move_rows(const struct oc_kctx *ctx, const struct oc_move_rows *a) {
    BEGIN(move_rows);
    host(a->to);
    b.x = here(a->x), b.y = here(a->y);
    f->real.move_rows(&own, &b);
}

/* ---- Memory ----------------------------------------------------------------------------------------------- */

static void *take(size_t bytes) {
    size_t n = (bytes + 255) / 256 * 256;
    void *p = aligned_alloc(256, n ? n : 256);
    OC_ASSERT(p);
    return memset(p, 0, n ? n : 256);
}

static bool fails(int *after) {
    return *after >= 0 && (*after)-- == 0;
}

static enum oc_err fake_alloc(struct oc_device *d, size_t bytes, void **out, struct oc_errinfo *ei) {
    struct fake *f = d->state;
    *out = NULL;
    if (fails(&f->fail_alloc)) return oc_fail(ei, OC_ERR_NOMEM, "the fake device has no %zu bytes left", bytes);
    f->f.n_allocations++;
    *out = there(take(bytes));
    return OC_OK;
}

static void fake_free(struct oc_device *d, void *p, size_t bytes) {
    struct fake *f = d->state;
    (void)bytes;
    f->f.n_allocations -= p != NULL;
    free(here(p));
}

static void fake_put(struct oc_device *d, void *dst, const void *src, size_t bytes) {
    ((struct fake *)d->state)->f.n_puts++;
    memcpy(here(dst), host(src), bytes);
}

static void fake_get(struct oc_device *d, void *dst, const void *src, size_t bytes) {
    struct fake *f = d->state;
    f->f.n_gets++;
    f->f.got_bytes += bytes;
    memcpy((void *)(uintptr_t)host(dst), here(src), bytes);
}

static void fake_wait(struct oc_device *d) {
    ((struct fake *)d->state)->f.n_waits++;
}

/* What was brought before is found again. */
static const void *bring(struct fake *f, const void *from, size_t bytes) {
    if (!from) return NULL;
    for (struct taken *t = f->taken; t; t = t->next)
        if (t->from == from) return there(t->there);
    struct taken *t = malloc(sizeof *t);
    OC_ASSERT(t);
    *t = (struct taken){host(from), take(bytes), f->taken};
    memcpy(t->there, from, bytes);
    f->taken = t;
    return there(t->there);
}

static enum oc_err fake_take_weight(struct oc_device *d, struct oc_weight *w, struct oc_errinfo *ei) {
    struct fake *f = d->state;
    size_t n = (size_t)w->n * (size_t)w->k, parts = w->bits ? n / w->group * oc_dtype_bytes(w->dtype) : 0;
    if (fails(&f->fail_weight)) return oc_fail(ei, OC_ERR_NOMEM, "the fake device has no room for a weight");
    f->f.n_weights++;
    w->w = bring(f, w->w, w->bits ? n * w->bits / 8 : n * oc_dtype_bytes(w->dtype));
    w->scales = bring(f, w->scales, parts);
    w->zero_biases = bring(f, w->zero_biases, parts);
    return OC_OK;
}

static enum oc_err fake_take_floats(struct oc_device *d, const float **v, int64_t n, struct oc_errinfo *ei) {
    struct fake *f = d->state;
    (void)ei;
    f->f.n_floats++;
    *v = bring(f, *v, (size_t)n * sizeof **v);
    return OC_OK;
}

static void fake_close(struct oc_device *d) {
    struct fake *f = d->state;
    OC_ASSERT(f->f.n_allocations == 0); /* all that was taken came back */
    for (struct taken *t = f->taken, *next; t; t = next) {
        next = t->next;
        free(t->there);
        free(t);
    }
    oc_device_host_free(f->scratch, f->scratch_bytes);
    free(f);
    free(d);
}

/* ---- Opening ---------------------------------------------------------------------------------------------- */

static const struct oc_ops ops = {
    .linear = fake_linear,         .linear_glu = fake_linear_glu, .linear3 = fake_linear3,
    .rmsnorm = fake_rmsnorm,       .rope = fake_rope,             .kv_append = fake_kv_append,
    .attn_paged = fake_attn_paged, .attn_segments = fake_attn_segments, .embed = fake_embed,
    .move_rows = fake_move_rows,
};

struct oc_device *fake_device_open(const char *isa) {
    struct oc_errinfo ei;
    struct oc_device *d = calloc(1, sizeof *d);
    struct fake *f = calloc(1, sizeof *f);
    OC_ASSERT(d && f);
    *f = (struct fake){.fail_alloc = -1, .fail_weight = -1, .scratch_bytes = SCRATCH_BYTES};
    f->scratch = oc_device_host_alloc(f->scratch_bytes);
    OC_ASSERT(f->scratch);
    if (oc_ops_for_isa(&f->real, isa, &ei) != OC_OK) {
        fprintf(stderr, "fake device: %s\n", ei.msg);
        exit(2);
    }
    *d = (struct oc_device){.kind = "fake", .name = "a device that is not the host", .total_bytes = (uint64_t)1 << 40,
                            .free_bytes = (uint64_t)1 << 40, .ops = ops, .state = f, .alloc = fake_alloc, .free = fake_free,
                            .put = fake_put, .get = fake_get, .wait = fake_wait, .take_weight = fake_take_weight,
                            .take_floats = fake_take_floats, .close = fake_close};
    d->ops.isa = f->real.isa;
    d->ops.x_digits = f->real.x_digits;
    return d;
}

struct fake_device_figures fake_device_figures(const struct oc_device *d) {
    return ((const struct fake *)d->state)->f;
}

void fake_device_fail_alloc(struct oc_device *d, int after) {
    ((struct fake *)d->state)->fail_alloc = after;
}

void fake_device_fail_weight(struct oc_device *d, int after) {
    ((struct fake *)d->state)->fail_weight = after;
}
