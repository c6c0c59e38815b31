/* kernels/ops.h - the arithmetic of ocellus behind one table of function pointers.
 *
 * Called by lm/, vision/ and tests from the engine's thread; an op spreads over the threads of ctx->pool itself
 * and returns when its output is complete. Nothing here allocates: scratch comes with the context. The table is
 * built by a pure function of feature bits: filled with `ref` (plain C, the definition of right), then
 * overridden by better kernels, best last.
 *
 * Activations are f32, row-major, accumulated in f32. A leading dimension `ld*` counts elements between rows.
 * Weights are used where the checkpoint is mapped, in its own layout, at any byte alignment: a weight pointer
 * is bytes, never a typed pointer.
 *
 * Batch invariance: the bits of an output row depend on that row's input and on its role, never on how many rows
 * come with it, on the number of threads, or on chunking. */
#ifndef OC_KERNELS_OPS_H
#define OC_KERNELS_OPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/pool.h"

enum oc_dtype { OC_F32, OC_F16, OC_BF16, OC_U32, OC_U8, OC_I32, OC_I64, OC_OTHER };

/* Bytes of one element; 0 for OC_OTHER. */
size_t oc_dtype_bytes(enum oc_dtype t);
const char *oc_dtype_name(enum oc_dtype t);

/* A matrix W of n outputs and k inputs, row-major [n, k].
 * bits == 0: plain, `w` holds n*k elements of dtype (F32, F16, BF16).
 * bits == 4 or 8: MLX affine quantisation. `w` holds n rows of k*bits/32 little-endian uint32, the first weight
 * in the lowest bits; value = scale*q + zero_bias in f32, with one scale and zero_bias (dtype F32/F16/BF16) per
 * `group` (32, 64 or 128, dividing k) consecutive k: scales, zero_biases are [n, k/group]. */
struct oc_weight {
    int64_t n, k;
    enum oc_dtype dtype; /* of w when plain, of scales and zero_biases when quantised */
    uint8_t bits;        /* 0, 4 or 8 */
    uint16_t group;      /* 0 when plain */
    const uint8_t *w, *scales, *zero_biases;
    const float *bias; /* [n] f32, aligned, or NULL */
};

/* Bytes of w, scales and zero biases; the bias is not among them. */
uint64_t oc_weight_bytes(const struct oc_weight *w);

/* A role has one kernel family per ISA: P for prefill and vision (many rows), D for decode and verify (few). */
enum oc_role { OC_ROLE_P, OC_ROLE_D };

enum oc_act { OC_ACT_NONE, OC_ACT_SILU, OC_ACT_GELU, OC_ACT_GELU_TANH, OC_ACT_QUICK_GELU };

/* What every op gets. The scratch is 64-byte aligned and at least oc_ops_scratch_bytes() long; the table of a device that is not
 * the host brings its own, and finds none here. */
struct oc_kctx {
    struct oc_pool *pool;
    uint8_t *scratch;
    size_t scratch_bytes;
    bool int8; /* role D rounds the x of quantised weights to 8 bits (kernels/int8.h); only where the table's int8 is set */
    void *device; /* the state of the struct oc_device whose ops these are; the CPU's ops do not look at it */
};

/* y[m, n] = act(x[m, k] W^T + bias) (+ y when add). */
struct oc_linear {
    enum oc_role role;
    int64_t m;
    const float *x; /* [m, k] */
    int64_t ldx;
    const struct oc_weight *w;
    float *y; /* [m, n] */
    int64_t ldy;
    enum oc_act act;
    bool add; /* residual: y += instead of y = */
};

/* y[m, n] = act(x Wg^T + bg) * (x Wu^T + bu): the gated MLP's first half; both weights [n, k]. */
struct oc_linear_glu {
    enum oc_role role;
    int64_t m;
    const float *x;
    int64_t ldx;
    const struct oc_weight *gate, *up;
    float *y;
    int64_t ldy;
    enum oc_act act;
};

/* Three projections of one input, e.g. Q, K and V. */
struct oc_linear3 {
    enum oc_role role;
    int64_t m;
    const float *x;
    int64_t ldx;
    const struct oc_weight *w[3];
    float *y[3];
    int64_t ldy[3];
};

/* y = x / rms(x) * w over rows of d, rms = sqrt(mean(x^2) + eps); w [d] f32. x == y allowed. */
struct oc_rmsnorm {
    int64_t m, d;
    const float *x;
    int64_t ldx;
    const float *w;
    float eps;
    float *y;
    int64_t ldy;
};

/* Rotary embedding, "rotate half" form, in place: for i < hd/2, (x[i], x[i+hd/2]) turns by the angle whose
 * cosine and sine are cos[row, i], sin[row, i] ([m, hd/2] f32). x is [m, n_heads*hd]. */
struct oc_rope {
    int64_t m;
    int n_heads, hd;
    float *x;
    int64_t ldx;
    const float *cos, *sin;
};

/* One layer's part of the paged KV cache. Page p of K is n_kv_heads * page_tokens * hd elements at
 * k + p*page_stride_bytes, ordered [kv_head][token][hd]; V alike. dtype F32 or BF16 (rounded to nearest even). */
struct oc_kv_layer {
    uint8_t *k, *v;
    size_t page_stride_bytes;
    enum oc_dtype dtype;
    int n_kv_heads, hd, page_tokens;
};

/* Where one row of a ragged batch stands. */
struct oc_kv_row {
    const int32_t *pages; /* the session's page table */
    int32_t slot;         /* index of this token in its sequence: page pages[slot / page_tokens] */
    enum oc_role role;
};

/* Stores rows k, v [m, n_kv_heads*hd] into their slots. */
struct oc_kv_append {
    int64_t m;
    const float *k, *v;
    int64_t ldk, ldv;
    const struct oc_kv_row *rows;
    struct oc_kv_layer kv;
};

/* Causal attention of rows q [m, n_heads*hd] over slots 0..rows[i].slot of their own sequence; query head h reads
 * KV head h / (n_heads / n_kv_heads). KV is walked from slot 0 in fixed blocks. y [m, n_heads*hd]. */
struct oc_attn_paged {
    int64_t m;
    int n_heads;
    float scale;
    const float *q;
    int64_t ldq;
    const struct oc_kv_row *rows; /* rows of one sequence that follow each other are consecutive where possible */
    struct oc_kv_layer kv;
    float *y;
    int64_t ldy;
};

/* Bidirectional attention inside segments: segment s is rows seg[s] .. seg[s+1]-1 of q, k, v [m, n_heads*hd].
 * y [m, n_heads*hd], not overlapping the inputs. Only the query rows q_from .. q_to-1 are done, with the bits that
 * they have among all; q_to of 0 means all rows. */
struct oc_attn_segments {
    int n_heads, hd;
    float scale;
    const float *q, *k, *v;
    int64_t ldq, ldk, ldv;
    const int32_t *seg;
    int n_segs;
    float *y;
    int64_t ldy;
    int64_t q_from, q_to;
};

/* y[i] = row ids[i] of w, dequantised to f32; ids in range (checked by the caller). */
struct oc_embed {
    int64_t m;
    const int32_t *ids;
    const struct oc_weight *w;
    float *y;
    int64_t ldy;
};

/* y[to[i]] = x[i] for rows of d; `to` has no number twice. Moves the merge blocks of a picture to and from window order. */
struct oc_move_rows {
    int64_t m, d;
    const float *x;
    int64_t ldx;
    const int32_t *to; /* [m] */
    float *y;          /* not overlapping x */
    int64_t ldy;
};

/* Generated from ops.def: one pointer per op. */
struct oc_ops {
    const char *isa; /* "ref", "avx2", "avx512", ...; "ref-int8", ... with int8 */
    int x_digits;    /* role D takes the x of quantised weights as whole numbers of so many bytes, a scale a group; 0: as f32 */
    bool int8;       /* asked for with OC_CPU_INT8, and these kernels have it: struct oc_kctx may say so too */
#define OC_OP(name) void (*name)(const struct oc_kctx *ctx, const struct oc_##name *a);
#include "kernels/ops.def"
#undef OC_OP
};

/* CPU features the kernels care about, as bits. */
enum oc_cpu_feature {
    OC_CPU_AVX2 = 1,   /* AVX2 and FMA and F16C, and the system saves the registers */
    OC_CPU_AVX512 = 2, /* AVX-512 F, BW, DQ, VL */
    OC_CPU_NEON = 4,
    OC_CPU_AVX512BF16 = 8, /* AVX-512 with BF16 */
    OC_CPU_AMX = 16,       /* AMX tiles, bf16 and bytes, AVX512_VBMI, and the system has allowed this process the tiles */
    /* Not of the machine but a wish: role P may round bf16 and quantised weights, and the x they meet, to bf16. Faster,
     * but outside the bounds of parity: oc_cpu_features never sets it. */
    OC_CPU_ROUND = 32,
    OC_CPU_AVX512VNNI = 64, /* AVX-512 with products of bytes */
    /* A wish as well: role D may round the x that quantised weights meet to 8 bits, one scale per group of the weight. Many
     * rows at once cost less then. Sets oc_ops.int8 where there are kernels for it; elsewhere all stays exact. */
    OC_CPU_INT8 = 128,
    /* One more: role D may take kernels for quantised weights that are quicker with four rows and more and slower with one, as exact
     * but with other last bits (AMX; not with OC_CPU_ROUND). */
    OC_CPU_MANY = 256,
    /* Role D takes the x that quantised weights meet as whole numbers of 16 bits (kernels/int16.h), for products of bytes. On Intel with
     * AVX512VNNI that is quicker than FMAs for one row as for many, so oc_cpu_features sets it there. "avx512" by name does without; AMX's
     * tables always take it so, but for that of OC_CPU_MANY. */
    OC_CPU_BYTES = 512,
    OC_CPU_BYTES24 = 1024, /* with OC_CPU_BYTES: 24 bits, within the bounds of f32; a wish, AVX512VNNI alone */
};

/* What this machine has. Asks the system for AMX, so call it before threads start. */
unsigned oc_cpu_features(void);

/* Pure: the table for these feature bits (0 gives ref). */
void oc_ops_init(struct oc_ops *ops, unsigned features);

/* The table for an ISA by name: "ref", "avx2", "avx512", "avx512vnni", "avx512vnni24", "amx", "amxmany" (with OC_CPU_MANY), "neon", the rounding "avx512bf16" and "amxbf16", or "auto"/NULL for the best here. Errors:
 * OC_ERR_USAGE for an unknown name (lists the known), OC_ERR_UNSUPPORTED for one this machine lacks. */
OC_MUST_CHECK enum oc_err oc_ops_for_isa(struct oc_ops *ops, const char *isa, struct oc_errinfo *ei);

/* The same with wishes, OC_CPU_INT8 or 0: whether it came true is said by ops->int8. */
OC_MUST_CHECK enum oc_err oc_ops_for_wishes(struct oc_ops *ops, const char *isa, unsigned wishes, struct oc_errinfo *ei);

/* Scratch that any op may need with these maxima: rows per call, the widest k and n of any weight, the head size,
 * and threads. */
size_t oc_ops_scratch_bytes(int64_t max_m, int64_t max_k, int64_t max_n, int max_hd, int n_threads);

#endif
