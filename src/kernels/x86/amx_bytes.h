/* kernels/x86/amx_bytes.h - strips of x past a panel of W by products of bytes (oc_simd_bytes.run), over the macros that amx_tile.h
 * describes.
 *
 * Tiles 0 and 1 are 16 x 16 of y, its sums of 2^16 and of 2^8, 2 and 3 the same of the next 16 columns, 4 to 7 operands: 6 loads and 6
 * products for 64 k. A block of W stays in L1 while all of x passes, two bytes of x come from L2 for three products. The sums of a
 * block are stored, and added to c beside the products of the strip after the next. */
#ifndef OC_KERNELS_X86_AMX_BYTES_H
#define OC_KERNELS_X86_AMX_BYTES_H

#include "kernels/x86/x86.h"

#define AMX_BYTES_INLINE static inline __attribute__((always_inline))

/* A sum takes a product every 16 cycles but is ready after 52, and a store of it holds the products up for 16: those of 2^16 go first,
 * so that at a strip's end they are ready while those of 2^8 take their last. `acc`: where the sums of the strip before go, if this is
 * the first step of a strip; each leaves just before its next product. */
AMX_BYTES_INLINE void amx_bytes_step(const int8_t *x, const int8_t *w, int32_t *acc, const bool begins) {
    AMX_LOAD_ONCE(4, x, 64);
    AMX_LOAD(6, w, 64);
    if (begins && acc) AMX_STORE(0, acc, 64);
    if (begins) AMX_ZERO(0);
    AMX_DP_BYTES(0, 4, 6);
    AMX_LOAD(7, w + 2 * OC_BYTES_TILE, 64);
    if (begins && acc) AMX_STORE(2, acc + 512, 64);
    if (begins) AMX_ZERO(2);
    AMX_DP_BYTES(2, 4, 7);
    AMX_LOAD_ONCE(5, x + OC_BYTES_TILE, 64);
    if (begins && acc) AMX_STORE(1, acc + 256, 64);
    if (begins) AMX_ZERO(1);
    AMX_DP_BYTES(1, 5, 6);
    if (begins && acc) AMX_STORE(3, acc + 768, 64);
    if (begins) AMX_ZERO(3);
    AMX_DP_BYTES(3, 5, 7);
    AMX_LOAD(6, w + OC_BYTES_TILE, 64);
    AMX_DP_BYTES(1, 4, 6);
    AMX_LOAD(7, w + 3 * OC_BYTES_TILE, 64);
    AMX_DP_BYTES(3, 4, 7);
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

static inline int32_t *amx_bytes_acc(const struct oc_bytes_run *t, int strip) {
    return t->acc + strip % 2 * 1024;
}

/* What is to be done for a strip whose sums are stored; nothing before the first. */
static inline struct oc_bytes_add amx_bytes_add_of(const struct oc_bytes_run *t, int strip) {
    struct oc_bytes_add a = {.w_scales = t->w_scales, .first = t->first};
    if (strip < 0) return a;
    a.acc = amx_bytes_acc(t, strip);
    a.x_scales = t->x_scales + strip * OC_BYTES_M;
    a.c = amx_bytes_c(t, strip);
    if (strip + 1 < t->n_strips) a.ahead = amx_bytes_c(t, strip + 1);
    return a;
}

/* What is done beside the products of a strip's step: a share of the sums of the strip before last, of two strips' way to y, of the
 * next panel of W, of what is fetched. */
struct amx_bytes_beside {
    struct oc_bytes_add add;
    struct oc_tiles_end end;
    const char *next;
    int pairs, pieces; /* pairs of strips that have begun to end; pieces of the next panel for a step */
};

static inline void amx_bytes_work(const struct oc_bytes_run *t, struct amx_bytes_beside *b, int strip, int step) {
    int from = step * OC_BYTES_M / t->steps, n = (step + 1) * OC_BYTES_M / t->steps - from;
    if (b->add.acc) t->add(&b->add, from, n);
    if (b->end.row < b->end.rows) t->finish(&b->end, n);
    for (int l = 0; b->next && l < t->n_next; l++, b->next += 64) __builtin_prefetch(b->next, 0, 2);
    if (t->ahead) t->panel(t->ahead, b->pieces);
    if (t->end) amx_bytes_fetch_y(t, strip * OC_BYTES_M + from, n);
}

/* The next pair of strips, whose c is complete. */
static inline void amx_bytes_next_end(const struct oc_bytes_run *t, struct amx_bytes_beside *b) {
    t->finish(&b->end, INT32_MAX);
    amx_bytes_end_at(t, b->pairs++, &b->end);
}

/* After the last product. */
static void amx_bytes_rest(const struct oc_bytes_run *t, struct amx_bytes_beside *b) {
    int32_t *acc = amx_bytes_acc(t, t->n_strips - 1);
    AMX_STORE(0, acc, 64);
    AMX_STORE(2, acc + 512, 64);
    AMX_STORE(1, acc + 256, 64);
    AMX_STORE(3, acc + 768, 64);
    for (int strip = t->n_strips > 1 ? t->n_strips - 2 : 0; strip < t->n_strips; strip++) {
        struct oc_bytes_add add = amx_bytes_add_of(t, strip);
        t->add(&add, 0, OC_BYTES_M);
    }
    if (t->ahead) t->panel(t->ahead, OC_BYTES_PIECES);
    while (t->end && b->pairs < (t->n_strips + 1) / 2) amx_bytes_next_end(t, b);
    t->finish(&b->end, INT32_MAX);
}

static void amx_bytes_run(const struct oc_bytes_run *t) {
    const int8_t *x = t->x;
    struct amx_bytes_beside b = {.next = t->next};
    b.pieces = (OC_BYTES_PIECES + t->n_strips * t->steps - 1) / (t->n_strips * t->steps);
    for (int i = 0; i < t->n_strips; i++) {
        const int8_t *w = t->w;
        b.add = amx_bytes_add_of(t, i - 2);
        amx_bytes_fetch(t, i);
        amx_bytes_step(x, w, i > 0 ? amx_bytes_acc(t, i - 1) : NULL, true);
        amx_bytes_work(t, &b, i, 0);
        for (int s = 1; s < t->steps; s++) {
            amx_bytes_step(x += OC_BYTES_X_STEP, w += OC_BYTES_W_STEP, NULL, false);
            amx_bytes_work(t, &b, i, s);
        }
        x += OC_BYTES_X_STEP;
        if (t->end && i % 2 == 1 && i >= 3) amx_bytes_next_end(t, &b);
    }
    amx_bytes_rest(t, &b);
}

#endif
