/* kernels/tiled/tiled.h - the drivers that the vector ISAs share: blocking, threads, epilogues.
 *
 * An ISA provides a handful of primitives (struct oc_simd); the drivers build the large ops from them, so that
 * an order over K, a block size or a thread split is written once. Called by the ISA's thin op functions only.
 *
 * Role P: W is dequantised block by block into f32 panels, and a register tile of FMA runs over them.
 * Role D: each weight row is read once from the mapping and dotted with all rows of x (at most OC_D_SLICE).
 * Attention: both products are the same register tile, with a running softmax between them. */
#ifndef OC_KERNELS_TILED_H
#define OC_KERNELS_TILED_H

#include "kernels/convert.h"
#include "kernels/impl.h"

#define OC_TILE_MAX_MR 16
#define OC_TILE_MAX_NR 64

/* Role P blocking: a panel block of KB x NB f32 (256 KiB) stays in L2 while MB rows of x pass over it. */
#define OC_P_KB 256
#define OC_P_NB 256
#define OC_P_MB 384

/* Attention blocking: query rows and keys per block in role P, keys per block in role D. */
#define OC_ATTN_QB 384
#define OC_ATTN_KB 192
#define OC_ATTN_D_KB 48

/* Columns of one unit of work in role D. */
#define OC_D_NB 32

/* c[r, j] = or += sum over k < kk of a[r*lda + k] * b[k*ldb + j] for r < mr, j < nv vectors of columns.
 * The sum runs over k in order in one accumulator per element; `add` adds the finished sum to c. */
struct oc_tile {
    const float *a;
    int64_t lda;
    const float *b;
    int64_t ldb;
    int64_t kk;
    float *c;
    int64_t ldc;
    int mr; /* 1 .. isa mr */
    int nv; /* 1 or 2; 2 is nr columns */
    bool add;
};

/* Rows of x made ready for role D, zero-padded: [m, ldx], and the sum of each quantisation group, [m, lds].
 *
 * A vector of quantised weights is `lanes` uint32 of `per` = 32/bits weights each. The kernel takes weight j of
 * every word at once by a mask, without a shift but for one by 16 between the half words, so it sees
 * q * 2^(bits * (j mod per/2)); x is stored so that this is undone exactly: x[c*lanes*per + j*lanes + i] =
 * 2^(-bits * (j mod per/2)) * original[c*lanes*per + i*per + j]. For plain weights x is the original. */
struct oc_dot_x {
    const float *x;
    int64_t ldx;
    const float *sums;
    int64_t lds;
};

struct oc_simd {
    int mr, nr; /* the register tile; nr is two vectors */
    int lanes;  /* of a vector of float: nr / 2 */

    void (*tile)(const struct oc_tile *t);

    /* out[kk][nr] = columns of W^T: rows n0 .. n0+n-1 (n <= nr) of w, k0 .. k0+kk-1, the columns from n on zero.
     * tmp holds nr * kk floats. k0 is a multiple of OC_P_KB. */
    void (*panel)(const struct oc_weight *w, int64_t n0, int n, int64_t k0, int kk, float *out, float *tmp);

    /* out[kk][nr] = transpose of rows in[n][ld], kk long; columns from n on zero. */
    void (*transpose)(const float *in, int64_t ld, int n, int kk, float *out);

    void (*widen)(const uint8_t *in, enum oc_dtype t, int64_t n, float *out);

    /* out[i*ldo + r] = x row i dot row n0+r of w, for i < m, r < n. The order over k is fixed. */
    void (*dot)(const struct oc_weight *w, int64_t n0, int n, const struct oc_dot_x *x, int m, float *out,
                int64_t ldo);

    /* v[i] = act(v[i]). */
    void (*act_row)(enum oc_act act, float *v, int64_t n);

    float (*max_row)(const float *v, int64_t n);

    /* v[i] = exp(v[i]*scale - max); returns the sum. */
    float (*exp_row)(float *v, int64_t n, float scale, float max);
};

void oc_tiled_linear(const struct oc_simd *s, const struct oc_kctx *ctx, const struct oc_linear *a);
void oc_tiled_linear_glu(const struct oc_simd *s, const struct oc_kctx *ctx, const struct oc_linear_glu *a);
void oc_tiled_linear3(const struct oc_simd *s, const struct oc_kctx *ctx, const struct oc_linear3 *a);
void oc_tiled_attn_paged(const struct oc_simd *s, const struct oc_kctx *ctx, const struct oc_attn_paged *a);
void oc_tiled_attn_segments(const struct oc_simd *s, const struct oc_kctx *ctx,
                            const struct oc_attn_segments *a);

/* Up to three linears over one x, as the drivers see them. */
struct oc_multi_linear {
    enum oc_role role;
    int64_t m;
    const float *x;
    int64_t ldx;
    int n_w; /* 1, 3, or 2 for a gated pair: y[0] = act(w[0]) * w[1] */
    bool glu;
    const struct oc_weight *w[3];
    float *y[3];
    int64_t ldy[3];
    enum oc_act act;
    bool add;
};

void oc_tiled_gemm(const struct oc_simd *s, const struct oc_kctx *ctx, const struct oc_multi_linear *a);
void oc_tiled_gemv(const struct oc_simd *s, const struct oc_kctx *ctx, const struct oc_multi_linear *a);

/* One output row's end: v[n] = act(v + bias) (* gate partner), stored or added. */
void oc_tiled_store_row(const struct oc_simd *s, const struct oc_multi_linear *a, int which, int64_t row,
                        int64_t n0, int n, float *v, const float *up);

/* One row of x made ready for oc_simd.dot with weights in w's format: see struct oc_dot_x. */
void oc_tiled_dot_prepare(const struct oc_weight *w, int lanes, const float *x, float *xp, int64_t ldx, float *sums,
                          int64_t lds);

/* Scratch per thread of oc_tiled_gemm, and of the attention ops. */
size_t oc_tiled_gemm_thread_bytes(void);
size_t oc_tiled_attn_thread_bytes(int max_hd);

/* Scratch, shared by the threads, of oc_tiled_gemv for one slice of m rows. */
size_t oc_tiled_gemv_bytes(int64_t m, int64_t k);

/* The scratch of any of the above. */
size_t oc_tiled_scratch_bytes(int64_t max_m, int64_t max_k, int max_hd, int n_threads);

#endif
