/* tests/kernels/check.h - the kernel checker: every op of every ISA against double precision and against ref.
 *
 * Inputs end at an unreadable page, outputs are poisoned with NaN and fenced with canaries, and scratch is exactly
 * as long as oc_ops_scratch_bytes says. Errors are in units of 2^-24 of the sum of the absolute values that went
 * into an element ("eps"); each bound stands beside the worst error observed. */
#ifndef OC_TESTS_KERNELS_CHECK_H
#define OC_TESTS_KERNELS_CHECK_H

#include "kernels/convert.h"
#include "kernels/impl.h"

struct chk {
    uint64_t rng;
    bool quick, few; /* few: two cases of each, no bits; for the model of a device, which is slow */
    struct oc_ops ops; /* under test */
    void *device;      /* for their contexts: the device under test, or NULL */
    struct oc_pool *pools[4];  /* of 1 .. 4 threads */
    struct oc_kctx contexts[4]; /* the same, with scratch large enough for check_invariance */
    int n_cases, n_failures;
    const char *op;
    double worst; /* error of the op so far, in eps */
};

/* Memory that ends (but for `shift` canary bytes) at an unreadable page. */
struct fenced {
    uint8_t *map;
    size_t map_bytes;
    uint8_t *p;
    size_t bytes;
};

struct fenced fenced_new(size_t bytes, unsigned shift);
void fenced_free(struct fenced *f);
/* The canaries before and after are whole. */
bool fenced_ok(const struct fenced *f);

uint64_t rnd(struct chk *c);
int rnd_int(struct chk *c, int lo, int hi); /* both ends in */
float rnd_float(struct chk *c);             /* about normal, |x| < 3.5 */
#define RND_OF(c, array) ((array)[rnd_int((c), 0, (int)(sizeof(array) / sizeof((array)[0])) - 1)])

/* A matrix of f32 in fenced memory; `ld` may exceed `cols`, the gaps are NaN. */
struct mat {
    struct fenced mem;
    float *p;
    int64_t rows, cols, ld;
};

struct mat mat_new(int64_t rows, int64_t cols, int64_t ld);
void mat_random(struct chk *c, struct mat *m);
void mat_poison(struct mat *m);
/* Gaps and canaries untouched, nothing of the matrix still poison. */
bool mat_written(const struct mat *m);
void mat_free(struct mat *m);

/* A weight of random values in fenced memory at odd addresses. */
struct weight {
    struct oc_weight w;
    struct fenced data, scales, zero_biases, bias;
};

enum wformat { W_F32, W_F16, W_BF16, W_Q4, W_Q8, N_WFORMATS };
const char *wformat_name(enum wformat f);
struct weight weight_new(struct chk *c, enum wformat f, int64_t n, int64_t k, int group, enum oc_dtype scales,
                         bool bias);
void weight_free(struct weight *w);
/* w[row, :] in double, dequantised exactly: out[k]. */
void weight_row_double(const struct oc_weight *w, int64_t row, double *out);

/* A context with fenced, poisoned scratch of just the promised length. */
struct run_ctx {
    struct oc_kctx k;
    struct fenced scratch;
};
struct run_ctx run_ctx_new(struct chk *c, int threads, int64_t m, int64_t k, int64_t n, int hd);
bool run_ctx_free(struct run_ctx *r); /* false if a canary of the scratch is broken */

double act_double(enum oc_act act, double x);

/* The AMX kernels over a model of the instructions, by the names "amx-model", "amxmany-model" and "amxbf16-model"; false for another name
 * or where even their packing cannot run. */
bool amx_model_ops(struct oc_ops *ops, const char *name);

/* What role P of this ISA does to bf16 and quantised weights, and to the x they meet: nothing; rounds them to bf16; makes
 * x a sum of two bf16 (of attention also what it meets, without the product of the second ones); rounds them to the 11 bits
 * of f16 and TF32; or whole numbers of 16 bits, blocks of k with a scale each. */
enum isa_bf16 { BF16_NONE, BF16_ROUND, BF16_SPLIT, F16_ROUND, INT16_BLOCKS };
enum isa_bf16 isa_bf16(const char *isa);

/* The same of the attention of role P, whose queries, keys, values and probabilities are cut, for heads of this size. */
enum isa_bf16 isa_attn_bf16(const char *isa, int hd);

/* A value as the product sees it: one bf16, or two of which the second is of what the first took away. */
struct parts {
    double high, low;
};
struct parts parts_of(double v, enum isa_bf16 how);

/* Fills the table for an ISA by its name, "-int8" behind it asking for the wish; false with a sentence when it cannot be had. */
bool ops_by_name(struct oc_ops *ops, const char *name, struct oc_errinfo *ei);

void op_begin(struct chk *c, const char *name);
void op_error(struct chk *c, double got, double want, double magnitude);
/* Prints the line of the op; fails it when its worst error is over the bound. */
void op_end(struct chk *c, double bound_eps);
void fail(struct chk *c, const char *fmt, ...) OC_PRINTF(2, 3);

void check_linear(struct chk *c);
void check_attn(struct chk *c);
void check_small(struct chk *c);
void check_invariance(struct chk *c);
/* One row of x of a linear of [n, k] in groups of 64 gets an infinity or a NaN: that must show, in its own row only. */
void check_not_finite(struct chk *c, enum oc_role role, enum wformat f, int m, int n, int k);

void check_int8(struct chk *c);
void check_int16(struct chk *c);
void bench(const char *isa, bool quick, bool decode_only, int n_threads, const char *csv_path); /* 0 threads: all */

#endif
