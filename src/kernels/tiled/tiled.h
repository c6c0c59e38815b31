/* kernels/tiled/tiled.h - the drivers that the vector ISAs share: blocking, threads, epilogues.
 *
 * An ISA provides a handful of primitives (struct oc_simd); the drivers build the large ops from them, so that
 * an order over K, a block size or a thread split is written once. Called by the ISA's thin op functions only.
 *
 * Role P: W is dequantised block by block into f32 panels, and a register tile of FMA runs over them; or, where the
 * ISA can, bf16 and quantised weights and x are rounded to bf16 and multiplied by its bf16 tile.
 * Role D: each weight row is read once from the mapping and dotted with all rows of x (at most OC_D_SLICE).
 * Attention: both products are the same register tile, or in role P the bf16 one, with a running softmax between. */
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
#define OC_ATTN_WIDE_QB 1024 /* query rows by bf16 tiles, which wait longer for packed keys and values than for queries from L2 */
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

/* Rows of x made ready for role D as oc_tiled_dot_prepare does it, zero-padded: [m, ldx], and the sum of each quantisation group, [m, lds].
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

/* Role P in bf16. A panel of x holds OC_BF16_COLS rows of x as columns, [k/2][OC_BF16_COLS][2]; k is padded with
 * zeros to a multiple of OC_BF16_K. At most OC_BF16_SLICE rows of x are packed at a time, which bounds the scratch. */
#define OC_BF16_COLS 32
#define OC_BF16_K 32
#define OC_BF16_SLICE 1536
#define OC_BF16_MB 384 /* rows of x per unit of work, a multiple of OC_BF16_COLS */

/* c[r, j] = (first) or += sum over k < kk of a[r*lda + k] * b[k/2][j][k%2], for r < mr, j < 16 nv, in an order of
 * k of the ISA's own. kk is a multiple of OC_BF16_K. And, where given, the same for a and b_low, and for a_low and b. */
struct oc_bf16_tile {
    const uint16_t *a, *a_low;
    int64_t lda;
    const uint16_t *b, *b_low;
    int kk;
    float *c;
    int64_t ldc;
    int mr, nv; /* 1 .. isa mr; 1 or 2 */
    bool first;
    void (*beside)(void *arg); /* or NULL: called again and again between products of hardware tiles */
    void *arg;
};

struct oc_simd_bf16 {
    int mr;       /* rows of a tile */
    int pad_rows; /* rows of `a` that tile reads and rows of `c` that it writes are mr rounded up to this */

    /* Begins and ends a thread's use of `tile`; NULL where there is nothing to set. */
    void (*begin)(void);
    void (*end)(void);

    /* out = the panel of n <= OC_BF16_COLS rows of x, kk long, rounded to nearest even; out_low, if not NULL, of what
     * rounding took away. tmp holds 2 * OC_BF16_COLS * OC_P_KB. */
    void (*pack)(const float *x, int64_t ldx, int n, int kk, uint16_t *out, uint16_t *out_low, uint16_t *tmp);

    /* out[kk] = a row of w from k0 on, rounded once; out_low, if not NULL, what rounding took away (only when
     * quantised: plain bf16 loses nothing). When quantised k0 and kk are multiples of the group. */
    void (*row)(const struct oc_weight *w, int64_t row, int64_t k0, int kk, uint16_t *out, uint16_t *out_low);

    void (*tile)(const struct oc_bf16_tile *t);

    /* out[k*nr + r] = in[r*ld + k] for r < n, k < kk; columns from n to nr on zero. */
    void (*turn)(const float *in, int64_t ld, int n, int kk, float *out, int nr);

    /* What attention of role P needs besides; exp_row NULL leaves it in f32. It takes two bf16. */

    /* out[n] = x[n] rounded to nearest even, out_low of what rounding took away, both zero from n to `whole`, a multiple
     * of OC_BF16_K. */
    void (*round_row)(const float *x, int n, int whole, uint16_t *out, uint16_t *out_low);

    /* Panels of OC_BF16_COLS columns of n rows v, `panel` elements from one to the next: element (j, d) stands, rounded, at
     * [d / OC_BF16_COLS][j/2][d % OC_BF16_COLS][j%2]; out_low takes what rounding took away. Zero from column cols to its
     * panel's end and from row n to a multiple of OC_BF16_K. */
    void (*pack_pairs)(const float *v, int64_t ldv, int n, int cols, int64_t panel, uint16_t *out, uint16_t *out_low);

    /* out + out_low = exp(v[i]*scale - max) as round_row has it; returns the sum of the unrounded. */
    float (*exp_row)(const float *v, int n, int whole, float scale, float max, uint16_t *out, uint16_t *out_low);
};

/* Role P by hardware tiles: y = x W^T. x comes in strips of OC_TILES_N rows, W in panels of as many, both in steps of
 * OC_TILES_K of k, zero-padded; x as a sum of one or two bf16 (`parts`). Of the layouts below only sizes matter to the driver: they are
 * AMX's, and NEON has others within a step and within a panel of c (arm/neon_tiles.h). */
#define OC_TILES_N 32
#define OC_TILES_K 32
#define OC_TILES_STEP (OC_TILES_N * OC_TILES_K) /* elements of one part of a step */
#define OC_TILES_UNIT_K 128                     /* passes over k begin at its multiples, which are those of any group */

/* A strip of x on its way to bf16: out[steps][parts][OC_TILES_N][OC_TILES_K]; of two parts the low one is the first in even steps, the
 * second in odd ones (x86/amx_gemm.h says why). */
struct oc_tiles_cut {
    const float *x;
    int64_t ldx;
    int n, rows; /* rows of x; and as many as are written, those from n on with zeros */
    int k, steps;
    int parts;
    uint16_t *out;
    float *sums; /* [steps][OC_TILES_N]: the sum of what is written of a row, or NULL */
};

/* A strip of c becomes y[rows, cols] = act(c + bias) (* (up + up_bias)) (+ y), piece by piece (a row of a panel). */
struct oc_tiles_end {
    const float *c, *up; /* panels; up: or NULL */
    const float *bias, *up_bias;
    int rows, cols, n_panels;
    enum oc_act act;
    bool add;
    float *y;
    int64_t ldy;
    int row, panel; /* the next piece; all are done when row == rows */
};

#define OC_TILES_ACC_BELOW 1024

/* c = (first) or += acc * scale of the column + sum of the row * zero bias of the column, for a panel of c: a group of k. acc's
 * lower two tiles stand OC_TILES_ACC_BELOW behind its upper two, a page's half between. */
struct oc_tiles_scale {
    const float *acc;
    const float *scales; /* [2][OC_TILES_N] */
    const float *sums;   /* [OC_TILES_N] */
    float *c;
    bool first;
};

/* c[n_panels][tiles 2 x 2][16][16] = (first) or += a strip of x times panels of W [n_panels][steps][2][16][16][2]: of each
 * tile of W, pairs of k side by side. */
struct oc_tiles_strip {
    const uint16_t *a, *b;
    int a_parts;
    int steps, n_panels;
    float *c;
    bool first, lower; /* lower: there are more than 16 rows */
    int group;           /* 0, or steps of a group: then W is whole numbers, and sums of a group are scaled, see struct oc_tiles_scale */
    const float *scales; /* [n_panels][groups][2][OC_TILES_N]: scales, then zero biases */
    const float *sums;   /* of the strip, [groups][OC_TILES_N] */
    float *acc;          /* three of them, each in the second halves of two pages */
    void (*scale)(const struct oc_tiles_scale *g, int row, int n);
    const uint16_t *next; /* the next strip, of which so many lines are fetched to L2 at each step; or NULL */
    int n_next;
    void (*finish)(struct oc_tiles_end *end, int n); /* meanwhile the strip before is finished, so many pieces at each step */
    struct oc_tiles_end *end;
    int n_end;
};

struct oc_simd_tiles {
    bool split; /* x is two parts; quantised W is whole numbers, and sums are scaled group by group. Else both are rounded once */
    int w_elements; /* of bf16 that a thread has of W at a time, in L2; OC_TILES_MAX_W at most */
    int k_most;     /* k of a pass; a multiple of OC_TILES_UNIT_K, OC_TILES_MAX_K at most */
    void (*begin)(void); /* of a thread's use of `strip` */
    void (*end)(void);
    /* out = a panel of n <= OC_TILES_N rows of w from n0 on, kk long from k0 on. */
    void (*panel)(const struct oc_weight *w, int64_t n0, int n, int64_t k0, int kk, uint16_t *out);
    /* The same of the quantised numbers less 2^(bits - 1), exactly, and the scales, and zero biases that make up for that. */
    void (*numbers)(const struct oc_weight *w, int64_t n0, int n, int64_t k0, int kk, uint16_t *out, float *scales);
    void (*scale)(const struct oc_tiles_scale *g, int row, int n);
    void (*cut)(const struct oc_tiles_cut *c);
    void (*strip)(const struct oc_tiles_strip *s);
    void (*finish)(struct oc_tiles_end *e, int n);
};

#define OC_TILES_MAX_W (640 * 1024)
#define OC_TILES_MAX_K 2048

/* Role P by tiles of bytes: y = x W^T, both as whole numbers of 16 bits.
 *
 * A row of x and a row of W have one scale for each OC_BYTES_BLOCK k: the largest absolute value there becomes OC_INT16_MOST, and
 * q is the nearest integer, ties to even; q = 256 high + low, both signed bytes. A block's product is 2^16 high high + 2^8 (high low +
 * low high), exact integers; low low, some 2^-17 of a product of two largest values, is left out. Sums of blocks are added in f32, in order.
 *
 * Operand A is 16 rows of x (a strip), operand B 32 rows of W (a panel), in steps of 64 k, zero-padded. */
#define OC_BYTES_M 16
#define OC_BYTES_N 32
#define OC_BYTES_K 64
#define OC_BYTES_BLOCK 256
#define OC_BYTES_TILE 1024
#define OC_BYTES_X_STEP (2 * OC_BYTES_TILE) /* high, low */
#define OC_BYTES_W_STEP (4 * OC_BYTES_TILE) /* of the left 16 rows high and low, of the right 16 */

/* c = (first) or += the sums of a block, for some rows of a strip. */
struct oc_bytes_add {
    const int32_t *acc; /* tiles as W's: of the left columns 2^16 and 2^8, of the right */
    const float *x_scales, *w_scales; /* [OC_BYTES_M], [OC_BYTES_N] */
    float *c;                         /* two tiles */
    const float *ahead;               /* c of another strip, to be prefetched */
    bool first;
};

/* A panel in the making: kk k from k0 on of n rows of W, piece by piece. */
struct oc_bytes_panel {
    const struct oc_weight *w;
    int64_t n0, k0;
    int n, kk;
    int8_t *out;   /* [steps][4][16][64], quads of k side by side */
    float *scales; /* [OC_BYTES_N] */
    int8_t *rows;  /* room: 16 rows [high, low][steps][16][64] */
    int next;      /* piece; all are done when it is OC_BYTES_PIECES */
};

#define OC_BYTES_PIECES (2 * (OC_BYTES_M + 2 * OC_BYTES_BLOCK / OC_BYTES_K)) /* of each half its rows, then its tiles */

/* All strips past one panel, a block of k. */
struct oc_bytes_run {
    const int8_t *x, *w;              /* [strips][steps][2][16][64]; a panel */
    const float *x_scales, *w_scales; /* [strips][OC_BYTES_M]; [OC_BYTES_N] */
    int steps, n_strips;
    int32_t *acc; /* two of four tiles */
    float *c;     /* of two strips: tiles 2 x 2, as struct oc_tiles_end has it */
    int64_t ldc;  /* to those of the next two */
    bool first;
    void (*add)(const struct oc_bytes_add *a, int row, int n);
    void (*finish)(struct oc_tiles_end *end, int n);
    const struct oc_tiles_end *end; /* of the first two strips, whose c is finished after this; or NULL */
    int rows;                       /* of x in all */
    const char *next;               /* lines to be fetched to L2 meanwhile, so many at each step; or NULL */
    int n_next;
    const uint8_t *far; /* and n_far rows of W, of so many bytes, from memory */
    int64_t far_stride;
    int n_far, far_bytes;
    struct oc_bytes_panel *ahead; /* the panel after this one, made meanwhile; or NULL */
    void (*panel)(struct oc_bytes_panel *p, int n);
};

struct oc_simd_bytes {
    void (*begin)(void); /* of a thread's use of `run` */
    void (*end)(void);
    /* One block, k <= OC_BYTES_BLOCK, of n rows of x, as a strip; zeros for the rows from n on. */
    void (*cut)(const float *x, int64_t ldx, int n, int k, int8_t *out, float *scales);
    /* The next n pieces of a panel. */
    void (*panel)(struct oc_bytes_panel *p, int n);
    void (*add)(const struct oc_bytes_add *a, int row, int n);
    void (*run)(const struct oc_bytes_run *r);
    void (*finish)(struct oc_tiles_end *e, int n);
};

/* Rows of x as whole numbers for role D (kernels/int8.h), m of them, each number one to three signed bytes, its digits: bytes
 * [m, ldq], scales and sums of the rounded groups [m, lds], 0 beyond the last group.
 *
 * Groups come in spans of 16, one for each lane of a vector of 32-bit sums: lane 4p + i is group 4i + p, as it falls out
 * when the 16 pieces of a span are transposed as 4 x 4. For each four of a group, in order: vectors of 64 bytes, 4 for each
 * lane, a vector for each digit, the lowest first; of 4-bit weights each eight come as the even ones, then the odd ones. */
#define OC_INT8_SPAN 16

struct oc_dot_x8 {
    const int8_t *q;
    int64_t ldq;
    const float *scales, *sums;
    int64_t lds;
    int n_digits;
};

static inline int oc_int8_lane(int group_in_span) {
    return 4 * (group_in_span % 4) + group_in_span / 4;
}

/* Rows of x as integers, for role D by tiles of bytes (AMX) with quantised weights whose groups are whole tiles of 64 k.
 *
 * x is scaled by a power of two until its largest value lies in 2^29 .. 2^30 and rounded to the nearest integer, so that
 * what lies within 2^-6 of the largest stays exact; the integer is a sum of four signed digits, d0 + 2^8 d1 + 2^16 d2 +
 * 2^24 d3. A tile of digits is 16 rows of 4 k (in the order in which the kernel unpacks W) by columns (row of x, digit).
 * Four rows of x share a tile, in calls of few rows one or two: tiles of `width` rows from row `first` on stand at q + first*4k,
 * [k/64][16][width][4 digits][4 k]. The last rows up to oc_digits_rows(m) are zeros. */
struct oc_dot_digits {
    const int8_t *q;
    int64_t k;
    const float *scales; /* of row i at i*lds: what d3 is worth, NaN where x has a NaN or an infinity */
    const float *sums;   /* of groups of x, [m, lds] */
    int64_t lds;
};

#define OC_DIGITS_BLOCK 8 /* rows of x that are multiplied at a time */

/* Rows of x of the tiles from row `first`, a multiple of 4, on; 0 where there are none. */
static inline int oc_digits_width(int m, int first) {
    if (m > OC_DIGITS_BLOCK) return first < m + OC_DIGITS_BLOCK - 1 - (m - 1) % OC_DIGITS_BLOCK ? 4 : 0;
    return first >= m ? 0 : m - first >= 3 ? 4 : m - first;
}

/* m with the rows that fill up its tiles. */
static inline int64_t oc_digits_rows(int64_t m) {
    if (m > OC_DIGITS_BLOCK) return (m + OC_DIGITS_BLOCK - 1) / OC_DIGITS_BLOCK * OC_DIGITS_BLOCK;
    return m == 3 || m == 7 ? m + 1 : m;
}

/* The rows of W that a thread takes next, to be prefetched; w NULL where nothing is known. */
struct oc_dot_next {
    const uint8_t *w, *scales, *zero_biases;
};

struct oc_simd_digits {
    /* Begins and ends a thread's use of `dot` with m rows of x. */
    void (*begin)(int m);
    void (*end)(void);

    /* Writes row `slot` of the tiles at q for weights in w's format, and its scale; x NULL is a row of zeros. */
    void (*prepare)(const struct oc_weight *w, const float *x, int8_t *q, int width, int slot, float *scale);

    /* out[i*ldo + r] = x row i dot row n0+r of w, for i < m, r < n <= OC_D_NB. Within a group the sum is exact; groups are
     * added in order, for each digit and for the zero biases apart, and these at the end. */
    void (*dot)(const struct oc_weight *w, int64_t n0, int n, const struct oc_dot_digits *x, int m, float *out, int64_t ldo,
                const struct oc_dot_next *next);
};

/* Role P of quantised weights by whole numbers: x as 16 bits (kernels/int16.h), W as the unsigned numbers that it is made of,
 * in panels of `cols` rows of W, OC_INT16_ROWS rows of x at a time. Within each 8 of k the order is 0 4, 1 5, 2 6, 3 7, as pairs,
 * in both. Sums of a group are exact. */
#define OC_INT16_ROWS 6
#define OC_INT16_MAX_COLS 64
#define OC_INT16_SCALES 16 /* groups whose scales are turned at a time */

/* c[r, j] = (first ? 0 : c) + for each group in order: sum of the rounded x * zero bias, then scale * (sum * x's scale). */
struct oc_int16_tile {
    const int16_t *x;      /* [mr][OC_P_KB] */
    const float *scales;   /* of x: [groups][2][OC_INT16_ROWS], scales and sums of what was rounded */
    const int16_t *w;      /* [kk/2][cols][2] */
    const float *w_scales; /* [groups][2][cols], scales and zero biases */
    int kk, group;
    float *c;
    int64_t ldc;
    int mr; /* 1 .. OC_INT16_ROWS */
    bool first;
};

struct oc_simd_int16 {
    int cols; /* of a panel, a divisor of OC_P_NB */

    /* q[kk] = a row's x, rounded; scales[groups][2][OC_INT16_ROWS], of which one column is written. */
    void (*round)(const float *x, int kk, int group, int16_t *q, float *scales);

    /* out = a panel of n <= cols rows of w from n0 on, kk long from k0 on, multiples of the group; zeros for rows not there. */
    void (*numbers)(const struct oc_weight *w, int64_t n0, int n, int64_t k0, int kk, int16_t *out);

    /* out[n_groups][2][cols] = the scales and zero biases of n_groups <= OC_INT16_SCALES groups. */
    void (*scales)(const struct oc_weight *w, int64_t n0, int n, int64_t group, int n_groups, float *out);

    void (*tile)(const struct oc_int16_tile *t);
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

    /* One row of x made ready for `dot` with weights in w's format; xp holds ldx floats, sums lds. */
    void (*dot_prepare)(const struct oc_weight *w, const float *x, float *xp, int64_t ldx, float *sums, int64_t lds);

    /* out[i*ldo + r] = x row i dot row n0+r of w, for i < m, r < n. The order over k is fixed. */
    void (*dot)(const struct oc_weight *w, int64_t n0, int n, const struct oc_dot_x *x, int m, float *out,
                int64_t ldo);

    /* The same with rounded rows, or NULL. Bits are those of ref: exact within a group (of three digits the sum is
     * fma(256, (float)sum of the upper two, (float)sum of the lowest)); then, group for group in its lane, acc = fma(scale, sum * x's scale, acc), acc = fma(zero_bias, x's sum, acc); lanes in the order of groups are added
     * in halves. */
    void (*dot8)(const struct oc_weight *w, int64_t n0, int n, const struct oc_dot_x8 *x, int m, float *out, int64_t ldo);

    /* One row of x for dot8, in an order of its own (q holds ldq bytes; scales and sums, lds of them, stand by group); NULL: as struct
     * oc_dot_x8 has it. */
    void (*prepare8)(const struct oc_weight *w, const float *x, int digits, int8_t *q, int64_t ldq, float *scales, float *sums,
                     int64_t lds);

    /* Where prepare8 is NULL: rounds a group as oc_int_round_group does to so many digits: q is the part of one lane in struct oc_dot_x8. */
    void (*round8)(const float *x, int group, int bits, int digits, int8_t *q, float *scale, float *sum);
    int x_digits; /* of x in role D with quantised weights: 2 or 3, by dot8; 0: x is f32 */

    /* v[i] = act(v[i]). */
    void (*act_row)(enum oc_act act, float *v, int64_t n);

    /* Scores of role D, or NULL, which leaves them to `tile`: p[h*ldp + j] = k row j dot query row h, for h < lanes/2 and j
     * < n_keys rounded up to 16 (what stands beyond n_keys is of no meaning). The query rows come as pairs, q[i][h][2] =
     * columns 2i and 2i+1, i < n_pairs, and each half of a vector's lanes has a sum of its own. */
    void (*pair_scores)(const float *k, int64_t ldk, int n_keys, const float *q, int n_pairs, float *p, int64_t ldp);

    float (*max_row)(const float *v, int64_t n);

    /* v[i] = exp(v[i]*scale - max); returns the sum. */
    float (*exp_row)(float *v, int64_t n, float scale, float max);

    const struct oc_simd_bf16 *bf16; /* or NULL: role P is f32 for every weight */
    const struct oc_simd_tiles *tiles; /* or NULL; linears go this way where they may be cut to bf16 */
    const struct oc_simd_bytes *bytes; /* or NULL; the same, before tiles */
    const struct oc_simd_int16 *int16; /* or NULL; where role P takes quantised weights as whole numbers */
    const struct oc_simd_digits *digits; /* or NULL: role D has `dot` for every weight */
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

/* Role P in bf16, and whether all weights of the call may be cut to it: bf16 and quantised ones may. */
void oc_tiled_gemm_bf16(const struct oc_simd *s, const struct oc_kctx *ctx, const struct oc_multi_linear *a);
void oc_tiled_gemm_tiles(const struct oc_simd *s, const struct oc_kctx *ctx, const struct oc_multi_linear *a);
void oc_tiled_gemm_bytes(const struct oc_simd *s, const struct oc_kctx *ctx, const struct oc_multi_linear *a);
bool oc_tiled_may_tiles(const struct oc_multi_linear *a);
bool oc_tiled_may_bf16(const struct oc_multi_linear *a);

/* Role P by whole numbers, of what in the call is quantised; `rest` is what is not and goes another way, n_w 0 where all is done. */
void oc_tiled_gemm_int16(const struct oc_simd *s, const struct oc_kctx *ctx, const struct oc_multi_linear *a, struct oc_multi_linear *rest);

/* One output row's end: v[n] = act(v + bias) (* gate partner), stored or added. */
void oc_tiled_store_row(const struct oc_simd *s, const struct oc_multi_linear *a, int which, int64_t row,
                        int64_t n0, int n, float *v, const float *up);

/* oc_simd.dot_prepare for kernels that take x as struct oc_dot_x says, `lanes` words at a time. */
void oc_tiled_dot_prepare(const struct oc_weight *w, int lanes, const float *x, float *xp, int64_t ldx, float *sums,
                          int64_t lds);

/* sums[g] = the sum of x over quantisation group g, 0 from the last on: lds of them. */
void oc_tiled_group_sums(const struct oc_weight *w, const float *x, float *sums, int64_t lds);

/* One row of x for dot8 with weights in w's format: q holds ldq bytes, scales and sums lds. */
void oc_tiled_dot8_prepare(const struct oc_simd *s, const struct oc_weight *w, const float *x, int digits, int8_t *q, int64_t ldq,
                           float *scales, float *sums, int64_t lds);

/* oc_simd.round8 in plain C. */
void oc_tiled_round8(const float *x, int group, int bits, int digits, int8_t *q, float *scale, float *sum);

/* Scratch per thread of oc_tiled_gemm, and of the attention ops. */
size_t oc_tiled_gemm_thread_bytes(void);
size_t oc_tiled_attn_thread_bytes(int max_hd);

/* Scratch, shared by the threads, of oc_tiled_gemv for one slice of m rows. */
size_t oc_tiled_gemv_bytes(int64_t m, int64_t k);

/* Scratch, in all, of oc_tiled_gemm_bf16. */
size_t oc_tiled_gemm_bf16_bytes(int64_t m, int64_t k, int n_threads);

/* The same of oc_tiled_gemm_tiles. */
size_t oc_tiled_gemm_tiles_bytes(int64_t m, int64_t k, int n_threads);

/* The same of oc_tiled_gemm_bytes. */
size_t oc_tiled_gemm_bytes_bytes(int64_t m, int64_t k, int n_threads);
/* The same of oc_tiled_gemm_int16. */
size_t oc_tiled_gemm_int16_bytes(int64_t m, int64_t k, int n_threads);

/* The scratch of any of the above. */
size_t oc_tiled_scratch_bytes(int64_t max_m, int64_t max_k, int max_hd, int n_threads);

#endif
