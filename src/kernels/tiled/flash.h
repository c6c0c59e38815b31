/* kernels/tiled/flash.h - attention of a block of query rows, key block by key block, in one thread's scratch.
 *
 * Used by the tiled attention drivers. A query row is one (token, head); its result depends on its own keys and
 * on the key blocks' size only, never on which rows share the block. */
#ifndef OC_KERNELS_TILED_FLASH_H
#define OC_KERNELS_TILED_FLASH_H

#include "kernels/tiled/tiled.h"

/* The running softmax of up to OC_ATTN_QB rows: acc and sum are relative to exp(max). */
struct oc_flash {
    const struct oc_simd *s;
    int hd, ld; /* head size; the same rounded up to nr: the stride of q, acc and v */
    float scale;
    float *q;       /* [OC_ATTN_QB, ld] */
    float *acc;     /* [OC_ATTN_QB, ld] */
    float *max;     /* [OC_ATTN_QB] */
    float *sum;     /* [OC_ATTN_QB] */
    int32_t *valid; /* [OC_ATTN_QB]: how many keys of the present block each row sees */
    float *k;       /* panels of nr keys: [hd, nr] each; or [OC_ATTN_KB, ld] rows in role D */
    float *v;       /* [OC_ATTN_KB, ld] */
    float *score;   /* [OC_TILE_MAX_MR, OC_ATTN_KB]; in role D [keys, nr] and its transpose */
    float *rows;    /* [OC_ATTN_KB, ld]: keys gathered before they become panels */
};

/* Lays the buffers out in thread's part of the scratch. */
void oc_flash_open(struct oc_flash *f, const struct oc_simd *s, const struct oc_kctx *ctx, int thread, int hd,
                   float scale);

/* Empties the softmax of n rows. */
void oc_flash_start(struct oc_flash *f, int n);

/* Takes the block in k (panels) and v into rows 0 .. n-1; valid[] is set. */
void oc_flash_block(struct oc_flash *f, int n);

/* New maximum, acc and sum scaled to it, scores turned to exp(score - max) and summed; those from `valid` to
 * n_keys become 0. */
void oc_flash_softmax(struct oc_flash *f, int row, float *score, int valid, int n_keys);

/* y[hd] = acc / sum of one row. */
void oc_flash_finish(const struct oc_flash *f, int row, float *y);

#endif
