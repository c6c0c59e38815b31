/* kernels/tiled/flash.h - attention of a block of query rows, key block by key block, in one thread's scratch.
 *
 * Used by the tiled attention drivers. A query row is one (token, head); its result depends on its own keys and
 * on the key blocks' size only, never on which rows share the block. */
#ifndef OC_KERNELS_TILED_FLASH_H
#define OC_KERNELS_TILED_FLASH_H

#include "kernels/tiled/tiled.h"

/* Rows that are needed next. A head's part of a row is a few lines, far from the next row's: hardware prefetches none of it. So by
 * bf16 tiles a few lines are fetched at each step of a block. */
struct oc_flash_ahead {
    struct oc_flash_far {
        const float *p;
        int64_t ld;
        int n;
    } of[3];
    int n_of, quota; /* lines at a time */
    int at, row, line;
};

/* The running softmax of up to OC_ATTN_QB rows, of OC_ATTN_WIDE_QB by bf16 tiles: acc and sum are relative to exp(max).
 *
 * Where the ISA has the means (bf16 is set), role P multiplies sums of two bf16, high and low: queries, keys and values
 * are cut as they are loaded, probabilities as they are made; scores, softmax and acc are f32 as ever. */
struct oc_flash {
    const struct oc_simd *s;
    int hd, ld; /* head size; the same rounded up to nr: the stride of q, acc and v */
    float scale;
    float *q;       /* [OC_ATTN_WIDE_QB, ld] */
    float *acc;     /* [OC_ATTN_WIDE_QB, ld] */
    float *max;     /* [OC_ATTN_WIDE_QB] */
    float *sum;     /* [OC_ATTN_WIDE_QB] */
    int32_t *valid; /* [OC_ATTN_WIDE_QB]: how many keys of the present block each row sees */
    float *k;       /* panels of nr keys: [hd, nr] each; or [OC_ATTN_KB, ld] rows in role D */
    float *v;       /* [OC_ATTN_KB, ld] */
    float *score;   /* [OC_TILE_MAX_MR, OC_ATTN_KB]; two of OC_FLASH_ROWS by bf16; in role D [keys, nr] and its transpose */
    float *rows;    /* [OC_ATTN_KB, ld]: keys gathered before they become panels */

    const struct oc_simd_bf16 *bf16; /* or NULL: role P is f32 */
    bool first;                      /* no block taken yet: acc is yet to be written */
    uint16_t *q16, *q16_low;         /* [OC_ATTN_WIDE_QB, ld], in place of q */
    uint16_t *k16, *k16_low;         /* panels of OC_BF16_COLS keys, [ld/2][OC_BF16_COLS][2] each, in place of k */
    uint16_t *v16, *v16_low;         /* panels of OC_BF16_COLS columns, [OC_ATTN_KB/2][OC_BF16_COLS][2] each */
    uint16_t *p16, *p16_low;         /* two of [OC_FLASH_ROWS, OC_ATTN_KB]: probabilities of one tile of rows */
    uint16_t *tmp;
    struct oc_flash_ahead ahead;
};

/* Rows of a tile of either kind. */
#define OC_FLASH_ROWS 32

/* Lays the buffers out in thread's part of the scratch. */
void oc_flash_open(struct oc_flash *f, const struct oc_simd *s, const struct oc_kctx *ctx, int thread, int hd,
                   float scale);

/* Empties the softmax of n rows. */
void oc_flash_start(struct oc_flash *f, int n);

/* Role P, in this order. A unit of n query rows begins; its rows are given one by one; blocks of n_keys keys and values are
 * loaded (v may be f->v, then already in place) and taken into rows 0 .. n-1, valid[] being set; the unit ends. */
void oc_flash_begin(struct oc_flash *f, int n);
void oc_flash_query(struct oc_flash *f, int row, const float *q);
void oc_flash_keys(struct oc_flash *f, const float *k, int64_t ldk, int n_keys);
void oc_flash_values(struct oc_flash *f, const float *v, int64_t ldv, int n_keys);
void oc_flash_block(struct oc_flash *f, int n);
void oc_flash_end(struct oc_flash *f);

/* Before oc_flash_block(f, n) on n_keys keys: n_rows rows that are to be fetched meanwhile. oc_flash_forget: none are. */
void oc_flash_forget(struct oc_flash *f);
void oc_flash_fetch(struct oc_flash *f, const float *p, int64_t ld, int n_rows, int n, int n_keys);

/* New maximum, acc and sum scaled to it, scores turned to exp(score - max) and summed; those from `valid` to
 * n_keys become 0. */
void oc_flash_softmax(struct oc_flash *f, int row, float *score, int valid, int n_keys);

/* y[hd] = acc / sum of one row. */
void oc_flash_finish(const struct oc_flash *f, int row, float *y);

#endif
