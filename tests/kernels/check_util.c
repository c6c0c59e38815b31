#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"

#define CANARY 0xa5
#define POISON 0x7fc0dead /* a NaN that no kernel makes */

struct fenced fenced_new(size_t bytes, unsigned shift) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t body = oc_round_up(bytes + shift + 64, page);
    struct fenced f = {.map_bytes = body + page, .bytes = bytes};
    f.map = mmap(NULL, f.map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    OC_ASSERT(f.map != MAP_FAILED && mprotect(f.map + body, page, PROT_NONE) == 0);
    f.p = f.map + body - shift - bytes;
    memset(f.map, CANARY, body);
    return f;
}

bool fenced_ok(const struct fenced *f) {
    const uint8_t *end = f->map + f->map_bytes - (size_t)sysconf(_SC_PAGESIZE);
    for (const uint8_t *p = f->p - 64; p < f->p; p++) {
        if (*p != CANARY) return false;
    }
    for (const uint8_t *p = f->p + f->bytes; p < end; p++) {
        if (*p != CANARY) return false;
    }
    return true;
}

void fenced_free(struct fenced *f) {
    if (f->map) munmap(f->map, f->map_bytes);
    f->map = NULL;
}

uint64_t rnd(struct chk *c) { /* splitmix64, Steele et al. 2014 */
    uint64_t z = c->rng += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

int rnd_int(struct chk *c, int lo, int hi) {
    return lo + (int)(rnd(c) % (uint64_t)(hi - lo + 1));
}

float rnd_float(struct chk *c) {
    uint64_t u = rnd(c);
    float sum = (float)(u & 0xffff) + (float)(u >> 16 & 0xffff) + (float)(u >> 32 & 0xffff) + (float)(u >> 48);
    return (sum * 0x1p-16f - 2.0f) * 1.7320508f;
}

struct mat mat_new(int64_t rows, int64_t cols, int64_t ld) {
    struct mat m = {.rows = rows, .cols = cols, .ld = ld};
    m.mem = fenced_new((size_t)((rows - 1) * ld + cols) * sizeof(float), 0);
    m.p = (float *)(void *)m.mem.p;
    mat_poison(&m);
    return m;
}

void mat_poison(struct mat *m) {
    for (size_t i = 0; i < m->mem.bytes / 4; i++) m->p[i] = oc_f32_from_bits(POISON);
}

void mat_random(struct chk *c, struct mat *m) {
    for (int64_t i = 0; i < m->rows; i++) {
        for (int64_t j = 0; j < m->cols; j++) m->p[i * m->ld + j] = rnd_float(c);
    }
}

bool mat_written(const struct mat *m) {
    for (size_t i = 0; i < m->mem.bytes / 4; i++) {
        bool gap = (int64_t)i % m->ld >= m->cols;
        if ((oc_f32_bits(m->p[i]) == POISON) != gap) return false;
    }
    return fenced_ok(&m->mem);
}

void mat_free(struct mat *m) {
    fenced_free(&m->mem);
}

const char *wformat_name(enum wformat f) {
    static const char *const names[] = {"f32", "f16", "bf16", "q4", "q8"};
    return names[f];
}

/* One random float of the type, sized `size`; f16 by its bits, a few subnormal. */
static void put_float(struct chk *c, uint8_t *p, enum oc_dtype t, float size) {
    float f = rnd_float(c) * size;
    uint16_t h;
    if (t == OC_F32) {
        memcpy(p, &f, 4);
        return;
    }
    if (t == OC_BF16) {
        h = oc_f32_to_bf16(f);
    } else {
        int exp = rnd_int(c, 0, 15) == 0 ? 0 : rnd_int(c, 9, 14);
        h = (uint16_t)((rnd(c) & 1) << 15 | (uint64_t)exp << 10 | (rnd(c) & 0x3ff));
    }
    memcpy(p, &h, 2);
}

struct weight weight_new(struct chk *c, enum wformat f, int64_t n, int64_t k, int group, enum oc_dtype scales,
                         bool bias) {
    static const enum oc_dtype plain[] = {OC_F32, OC_F16, OC_BF16};
    struct weight w = {.w = {.n = n, .k = k}};
    bool quantised = f == W_Q4 || f == W_Q8;
    w.w.dtype = quantised ? scales : plain[f];
    w.w.bits = f == W_Q4 ? 4 : f == W_Q8 ? 8 : 0;
    w.data = fenced_new((size_t)n * oc_weight_row_bytes(&w.w), rnd(c) % 2 ? (unsigned)rnd_int(c, 1, 7) : 0);
    w.w.w = w.data.p;
    size_t size = oc_dtype_bytes(w.w.dtype);
    if (quantised) {
        w.w.group = (uint16_t)group;
        for (size_t i = 0; i < w.data.bytes; i++) w.data.p[i] = (uint8_t)rnd(c);
        size_t groups = (size_t)(n * (k / group));
        w.scales = fenced_new(groups * size, (unsigned)rnd_int(c, 0, 3));
        w.zero_biases = fenced_new(groups * size, (unsigned)rnd_int(c, 0, 3));
        for (size_t i = 0; i < groups; i++) {
            put_float(c, w.scales.p + i * size, scales, 0.02f);
            put_float(c, w.zero_biases.p + i * size, scales, 0.2f);
        }
        w.w.scales = w.scales.p;
        w.w.zero_biases = w.zero_biases.p;
    } else {
        for (size_t i = 0; i < (size_t)(n * k); i++) put_float(c, w.data.p + i * size, w.w.dtype, 0.5f);
    }
    if (bias) {
        w.bias = fenced_new((size_t)n * 4, 0);
        for (int64_t i = 0; i < n; i++) put_float(c, w.bias.p + 4 * i, OC_F32, 1.0f);
        w.w.bias = (const float *)(void *)w.bias.p;
    }
    return w;
}

void weight_free(struct weight *w) {
    fenced_free(&w->data);
    fenced_free(&w->scales);
    fenced_free(&w->zero_biases);
    fenced_free(&w->bias);
}

void weight_row_double(const struct oc_weight *w, int64_t row, double *out) {
    for (int64_t i = 0; i < w->k; i++) {
        if (w->bits == 0) {
            out[i] = oc_load_float(w->w, w->dtype, row * w->k + i);
            continue;
        }
        uint32_t per = 32u / w->bits;
        uint32_t word = oc_load_u32(w->w + 4 * ((row * w->k + i) / per));
        uint32_t q = word >> (uint32_t)(i % per) * w->bits & ((1u << w->bits) - 1);
        int64_t g = row * (w->k / w->group) + i / w->group;
        out[i] = (double)oc_load_float(w->scales, w->dtype, g) * q + (double)oc_load_float(w->zero_biases, w->dtype, g);
    }
}

struct run_ctx run_ctx_new(struct chk *c, int threads, int64_t m, int64_t k, int64_t n, int hd) {
    struct run_ctx r;
    size_t bytes = oc_ops_scratch_bytes(m, k, n, hd, threads);
    r.scratch = fenced_new(bytes, 0);
    memset(r.scratch.p, 0xff, bytes);
    r.k = (struct oc_kctx){.pool = c->pools[threads - 1], .scratch = r.scratch.p, .scratch_bytes = bytes, .int8 = c->ops.int8, .device = c->device};
    OC_ASSERT((uintptr_t)r.k.scratch % 64 == 0);
    return r;
}

bool run_ctx_free(struct run_ctx *r) {
    bool ok = fenced_ok(&r->scratch);
    fenced_free(&r->scratch);
    return ok;
}

double act_double(enum oc_act act, double x) {
    switch (act) {
    case OC_ACT_SILU:
        return x / (1 + exp(-x));
    case OC_ACT_GELU:
        return 0.5 * x * erfc(-x * M_SQRT1_2);
    case OC_ACT_GELU_TANH:
        return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case OC_ACT_QUICK_GELU:
        return x / (1 + exp(-1.702 * x));
    case OC_ACT_NONE:
        break;
    }
    return x;
}

enum isa_bf16 isa_bf16(const char *isa) {
    if (strcmp(isa, "cuda") == 0) return F16_ROUND;
    if (strcmp(isa, "avx512bf16") == 0 || strncmp(isa, "amxbf16", 7) == 0) return BF16_ROUND;
    if (strncmp(isa, "amxint16", 8) == 0) return INT16_BLOCKS;
    return strncmp(isa, "amx", 3) == 0 || strncmp(isa, "neonmm", 6) == 0 ? BF16_SPLIT : BF16_NONE;
}

enum isa_bf16 isa_attn_bf16(const char *isa, int hd) {
    if (strcmp(isa, "cuda") == 0) return hd <= 128 ? BF16_SPLIT : BF16_NONE; /* wider heads go a slow, exact way */
    return strncmp(isa, "amx", 3) == 0 ? BF16_SPLIT : BF16_NONE;
}

/* The nearest value of 11 bits, ties to even; exponents have no end, since rows are scaled into f16's range. */
static double round_to_11_bits(float f) {
    uint32_t u = oc_f32_bits(f);
    return oc_f32_from_bits((u + 0xfffu + (u >> 13 & 1u)) & ~0x1fffu);
}

struct parts parts_of(double v, enum isa_bf16 how) {
    if (how == BF16_NONE) return (struct parts){v, 0};
    if (how == F16_ROUND) return (struct parts){round_to_11_bits((float)v), 0};
    float f = (float)v, high = oc_bf16_to_f32(oc_f32_to_bf16(f));
    return (struct parts){high, how == BF16_SPLIT ? oc_bf16_to_f32(oc_f32_to_bf16(f - high)) : 0};
}

bool ops_by_name(struct oc_ops *ops, const char *name, struct oc_errinfo *ei) {
    char isa[32];
    size_t n = strlen(name);
    bool int8 = n > 5 && n < sizeof isa && strcmp(name + n - 5, "-int8") == 0;
    if (!int8) return oc_ops_for_isa(ops, name, ei) == OC_OK;
    memcpy(isa, name, n - 5);
    isa[n - 5] = '\0';
    if (oc_ops_for_wishes(ops, isa, OC_CPU_INT8, ei) != OC_OK) return false;
    if (!ops->int8) snprintf(ei->msg, sizeof ei->msg, "%s has no int8 kernels here", isa);
    return ops->int8;
}

void op_begin(struct chk *c, const char *name) {
    c->op = name;
    c->worst = 0;
    c->n_cases = 0;
}

void op_error(struct chk *c, double got, double want, double magnitude) {
    double e = fabs(got - want) / (magnitude + 1e-30) * 0x1p24;
    if (isnan(e) || e > c->worst) c->worst = e; /* a NaN stays: nothing is greater */
}

void op_end(struct chk *c, double bound_eps) {
    bool ok = c->worst <= bound_eps;
    printf("%-11s %-34s %5d cases  worst %8.2f eps  bound %6.1f  %s\n", c->ops.isa, c->op, c->n_cases, c->worst,
           bound_eps, ok ? "ok" : "FAIL");
    fflush(stdout);
    if (!ok) c->n_failures++;
}

void fail(struct chk *c, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    printf("FAIL %s %s: ", c->ops.isa, c->op);
    vprintf(fmt, args);
    printf("\n");
    va_end(args);
    c->n_failures++;
}
