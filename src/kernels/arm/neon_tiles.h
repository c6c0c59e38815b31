/* kernels/arm/neon_tiles.h - how NEON lays out what struct oc_simd_tiles leaves to it.
 *
 * A step, 32 k of 32 rows of x or of W: [4 blocks of 8 rows][8 quads of k][8 rows][4 k], so that a vector is 4 k of two rows, as
 * BFMMLA wants both its operands. Of a strip the high part is first, then the low one. A panel of c: [4 blocks of rows][4 blocks of
 * columns][4 pairs of rows][4 pairs of columns][2][2], as BFMMLA leaves its sums. */
#ifndef OC_KERNELS_ARM_NEON_TILES_H
#define OC_KERNELS_ARM_NEON_TILES_H

#include "kernels/arm/neon.h"

enum {
    NEON_BLOCK = 8,
    NEON_QUAD = 4 * NEON_BLOCK, /* elements of a quad of k of a block */
    NEON_BLOCK_ELEMENTS = OC_TILES_K * NEON_BLOCK,
};

/* Where 4 k from k on, a multiple of 4, of a row stand in a step. */
static inline int neon_tiles_at(int row, int k) {
    return row / NEON_BLOCK * NEON_BLOCK_ELEMENTS + k / 4 * NEON_QUAD + row % NEON_BLOCK * 4;
}

/* Where an element stands in a panel of c. */
static inline int neon_tiles_c(int row, int column) {
    int block = row / NEON_BLOCK * (OC_TILES_N / NEON_BLOCK) + column / NEON_BLOCK;
    int vector = row % NEON_BLOCK / 2 * (NEON_BLOCK / 2) + column % NEON_BLOCK / 2;
    return block * NEON_BLOCK * NEON_BLOCK + vector * 4 + row % 2 * 2 + column % 2;
}

void oc_neon_tiles_panel(const struct oc_weight *w, int64_t n0, int n, int64_t k0, int kk, uint16_t *out);
void oc_neon_tiles_numbers(const struct oc_weight *w, int64_t n0, int n, int64_t k0, int kk, uint16_t *out, float *scales);
void oc_neon_tiles_finish(struct oc_tiles_end *e, int n);

/* The code needs FEAT_BF16. */
void oc_neon_bf16_cut(const struct oc_tiles_cut *c);
void oc_neon_bf16_strip(const struct oc_tiles_strip *t);

#endif
