/* kernels/x86/amx_bytes.h - strips of x past a panel of W by products of bytes (oc_simd_bytes.run), over the macros that amx_tile.h
 * describes.
 *
 * Tiles 0 and 1 are 16 x 16 of y, its sums of 2^16 and of 2^8, 2 and 3 the same of the next 16 columns, 4 to 7 operands: 6 loads and 6
 * products for 64 k. A block of W stays in L1 while all of x passes, two bytes of x come from L2 for three products. The sums of a
 * block are stored, and added to c beside the products of the next strip. */
#ifndef OC_KERNELS_X86_AMX_BYTES_H
#define OC_KERNELS_X86_AMX_BYTES_H

#include "kernels/x86/x86.h"

#define AMX_BYTES_INLINE static inline __attribute__((always_inline))

/* A sum takes a product every 16 cycles but is ready after 52: those of 2^8, which take two of six, are kept apart. */
AMX_BYTES_INLINE void amx_bytes_step(const int8_t *x, const int8_t *w) {
    AMX_LOAD(5, x + OC_BYTES_TILE, 64);
    AMX_LOAD(6, w, 64);
    AMX_DP_BYTES(1, 5, 6);
    AMX_LOAD(7, w + 2 * OC_BYTES_TILE, 64);
    AMX_DP_BYTES(3, 5, 7);
    AMX_LOAD(4, x, 64);
    AMX_DP_BYTES(0, 4, 6);
    AMX_LOAD(5, w + OC_BYTES_TILE, 64);
    AMX_DP_BYTES(1, 4, 5);
    AMX_LOAD(6, w + 3 * OC_BYTES_TILE, 64);
    AMX_DP_BYTES(3, 4, 6);
    AMX_DP_BYTES(2, 4, 7);
}

/* The two strips before, whose c is complete, get their place in y beside products. */
AMX_BYTES_INLINE void amx_bytes_end_at(const struct oc_bytes_run *t, int pair, struct oc_tiles_end *end) {
    *end = *t->end;
    end->c += pair * t->ldc;
    if (end->up) end->up += pair * t->ldc;
    end->y += pair * 2 * OC_BYTES_M * end->ldy;
    end->rows = t->rows - pair * 2 * OC_BYTES_M < 2 * OC_BYTES_M ? t->rows - pair * 2 * OC_BYTES_M : 2 * OC_BYTES_M;
}

/* Rows of y that are finished two strips later. */
AMX_BYTES_INLINE void amx_bytes_fetch_y(const struct oc_bytes_run *t, int row, int n) {
    for (; n > 0 && row < t->rows; n--, row++) {
        const float *y = t->end->y + row * t->end->ldy;
        __builtin_prefetch(y, 1, 3);
        if (t->end->cols > 16) __builtin_prefetch(y + 16, 1, 3);
        __builtin_prefetch(y + t->end->cols - 1, 1, 3);
    }
}

AMX_BYTES_INLINE float *amx_bytes_c(const struct oc_bytes_run *t, int strip) {
    return t->c + strip / 2 * t->ldc + strip % 2 * 512;
}

/* Strip i's share of the far rows. */
static inline void amx_bytes_fetch(const struct oc_bytes_run *t, int i) {
    int rows = (t->n_far + t->n_strips - 1) / t->n_strips, to = (i + 1) * rows < t->n_far ? (i + 1) * rows : t->n_far;
    for (int r = i * rows; r < to; r++) {
        const uint8_t *p = t->far + r * t->far_stride;
        for (int b = 0; b < t->far_bytes + 63; b += 64) __builtin_prefetch(p + (b < t->far_bytes ? b : t->far_bytes - 1), 0, 2);
    }
}

static void amx_bytes_run(const struct oc_bytes_run *t) {
    const int8_t *x = t->x;
    const char *next = t->next;
    struct oc_bytes_add old = {.w_scales = t->w_scales, .first = t->first};
    struct oc_tiles_end end = {0};
    const int pieces = (OC_BYTES_PIECES + t->n_strips * t->steps - 1) / (t->n_strips * t->steps);
    for (int i = 0; i < t->n_strips; i++) {
        const int8_t *w = t->w;
        int32_t *acc = t->acc + i % 2 * 1024;
        AMX_ZERO(0);
        AMX_ZERO(1);
        AMX_ZERO(2);
        AMX_ZERO(3);
        old.ahead = amx_bytes_c(t, i);
        amx_bytes_fetch(t, i);
        for (int s = 0; s < t->steps; s++, x += OC_BYTES_X_STEP, w += OC_BYTES_W_STEP) {
            amx_bytes_step(x, w);
            int from = s * OC_BYTES_M / t->steps, to = (s + 1) * OC_BYTES_M / t->steps;
            if (old.acc) t->add(&old, from, to - from);
            if (end.row < end.rows) t->finish(&end, to - from);
            for (int l = 0; next && l < t->n_next; l++, next += 64) __builtin_prefetch(next, 0, 2);
            if (t->ahead) t->panel(t->ahead, pieces);
            if (t->end) amx_bytes_fetch_y(t, i * OC_BYTES_M + from, to - from);
        }
        AMX_STORE(0, acc, 64);
        AMX_STORE(1, acc + 256, 64);
        AMX_STORE(2, acc + 512, 64);
        AMX_STORE(3, acc + 768, 64);
        old.acc = acc, old.x_scales = t->x_scales + i * OC_BYTES_M, old.c = amx_bytes_c(t, i);
        if (t->end && i >= 2 && i % 2 == 0) {
            t->finish(&end, INT32_MAX);
            amx_bytes_end_at(t, i / 2 - 1, &end);
        }
    }
    old.ahead = NULL;
    t->add(&old, 0, OC_BYTES_M);
    if (t->ahead) t->panel(t->ahead, OC_BYTES_PIECES);
    if (!t->end) return;
    t->finish(&end, INT32_MAX);
    amx_bytes_end_at(t, (t->n_strips - 1) / 2, &end);
    t->finish(&end, INT32_MAX);
}

#endif
