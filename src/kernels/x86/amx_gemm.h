/* kernels/x86/amx_gemm.h - a strip of x times panels of W (oc_simd_tiles.strip), over the macros that amx_tile.h describes.
 *
 * Tiles 0 to 3 are 32 x 32 of y, 4 and 5 the strip's upper and lower 16 rows, 6 and 7 the panel's left and right 16
 * columns. A tile product takes 16 cycles and its sum is ready after 52, so four sums in turn keep the unit busy. Two parts
 * of x: 6 loads for 8 products. All of k is summed in the tiles, both operands come from L2.
 *
 * The tiles that a step begins with are loaded before anything is stored beside the step before, and what is loaded within a step, the
 * low part of the strip, lies in another half of 4 KiB than what was stored (struct oc_tiles_cut), so that no load agrees with a
 * waiting store in its last 12 bits. No gain from that was seen (docs/KERNELS.md). */
#ifndef OC_KERNELS_X86_AMX_GEMM_H
#define OC_KERNELS_X86_AMX_GEMM_H

#include "kernels/x86/x86.h"

#define AMX_INLINE static inline __attribute__((always_inline))

enum { AMX_HALF = OC_TILES_STEP / 2, AMX_C = 256 }; /* elements of a tile of bf16, and of f32 */

/* The strip's high and low part of step s. */
AMX_INLINE const uint16_t *amx_high(const uint16_t *a, int s, const int parts) {
    return parts == 1 ? a + s * OC_TILES_STEP : a + s * 2 * OC_TILES_STEP + (s % 2 ? 0 : OC_TILES_STEP);
}

AMX_INLINE const uint16_t *amx_low(const uint16_t *a, int s) {
    return a + s * 2 * OC_TILES_STEP + (s % 2 ? OC_TILES_STEP : 0);
}

AMX_INLINE void amx_load_first(const uint16_t *high, const uint16_t *b, const bool lower) {
    AMX_LOAD(6, b, 64);
    AMX_LOAD(4, high, 64);
    AMX_LOAD(7, b + AMX_HALF, 64);
    if (lower) AMX_LOAD(5, high + AMX_HALF, 64);
}

AMX_INLINE void amx_four(const bool lower) {
    AMX_DP(0, 4, 6);
    AMX_DP(1, 4, 7);
    if (!lower) return;
    AMX_DP(2, 5, 6);
    AMX_DP(3, 5, 7);
}

/* 32 of k, whose first tiles are loaded. */
AMX_INLINE void amx_step(const uint16_t *a, int s, const int parts, const bool lower) {
    amx_four(lower);
    if (parts == 1) return;
    const uint16_t *low = amx_low(a, s);
    AMX_LOAD(4, low, 64);
    AMX_DP(0, 4, 6);
    AMX_DP(1, 4, 7);
    if (!lower) return;
    AMX_LOAD(5, low + AMX_HALF, 64);
    AMX_DP(2, 5, 6);
    AMX_DP(3, 5, 7);
}

AMX_INLINE void amx_load_c(const float *c, const bool lower) {
    AMX_LOAD(0, c, 64);
    AMX_LOAD(1, c + AMX_C, 64);
    if (!lower) return;
    AMX_LOAD(2, c + 2 * AMX_C, 64);
    AMX_LOAD(3, c + 3 * AMX_C, 64);
}

AMX_INLINE void amx_store_c(float *c, const bool lower) {
    AMX_STORE(0, c, 64);
    AMX_STORE(1, c + AMX_C, 64);
    if (!lower) return;
    AMX_STORE(2, c + 2 * AMX_C, 64);
    AMX_STORE(3, c + 3 * AMX_C, 64);
}

static inline void amx_clear_c(void) {
    AMX_ZERO(0);
    AMX_ZERO(1);
    AMX_ZERO(2);
    AMX_ZERO(3);
}

/* What is done beside products: lines of the next strip and of the next panel's sums come to L2 from L3 or memory, and the strip
 * before gets its place in y. */
struct amx_beside {
    const char *next, *c;
    int n_c, turn;
};

AMX_INLINE void amx_work_beside(const struct oc_tiles_strip *t, struct amx_beside *w) {
    enum { EVERY = 8 }; /* stores are better made together: a load may have to wait for each */
    if (w->next) {
        for (int i = 0; i < t->n_next; i++) __builtin_prefetch(w->next + 64 * i, 0, 2);
        w->next += 64 * t->n_next;
    }
    for (int i = 0; i < w->n_c; i++, w->c += 64) __builtin_prefetch(w->c, 1, 2);
    if (++w->turn % EVERY == 0 && t->end->row < t->end->rows) t->finish(t->end, EVERY * t->n_end);
}

static inline struct amx_beside amx_begin_beside(const struct oc_tiles_strip *t) {
    struct amx_beside w = {.next = (const char *)t->next, .c = (const char *)(t->c + 4 * AMX_C)};
    if (!t->first) w.n_c = (64 + t->steps - 1) / t->steps;
    return w;
}

AMX_INLINE void amx_strip_of(const struct oc_tiles_strip *t, const int parts, const bool lower) {
    const uint16_t *b = t->b;
    struct amx_beside w = amx_begin_beside(t);
    amx_load_first(amx_high(t->a, 0, parts), b, lower);
    for (int panel = 0; panel < t->n_panels; panel++) {
        float *c = t->c + panel * 4 * AMX_C;
        if (t->first) {
            amx_clear_c();
        } else {
            amx_load_c(c, lower);
        }
        for (int s = 0; s < t->steps; s++) {
            bool last = s + 1 == t->steps;
            amx_step(t->a, s, parts, lower);
            b += OC_TILES_STEP;
            if (!last || panel + 1 < t->n_panels) amx_load_first(amx_high(t->a, last ? 0 : s + 1, parts), b, lower);
            amx_work_beside(t, &w);
        }
        amx_store_c(c, lower);
    }
}

/* ---- Quantised W as whole numbers: the tiles' sums of a group wait in acc for two groups and are scaled some rows at each step,
 * when no store of them is under way any more. ---- */

/* n rows of the older group. */
AMX_INLINE void amx_scale_some(const struct oc_tiles_strip *t, const struct oc_tiles_scale *g, int row, int n) {
    if (g->c) t->scale(g, row, n);
}

AMX_INLINE void amx_store_acc(float *acc, const bool lower) {
    AMX_STORE(0, acc, 64);
    AMX_STORE(1, acc + AMX_C, 64);
    if (!lower) return;
    AMX_STORE(2, acc + OC_TILES_ACC_BELOW, 64);
    AMX_STORE(3, acc + OC_TILES_ACC_BELOW + AMX_C, 64);
}

AMX_INLINE void amx_strip_grouped(const struct oc_tiles_strip *t, const bool lower) {
    const int n_rows = lower ? 32 : 16, n_groups = t->steps / t->group, n_all = t->n_panels * n_groups, n = n_rows / t->group;
    const uint16_t *b = t->b;
    struct amx_beside w = amx_begin_beside(t);
    struct oc_tiles_scale older = {0}, newer = {0};
    amx_load_first(amx_high(t->a, 0, 2), b, lower);
    for (int i = 0, s = 0, panel = 0; i < n_all; i++) {
        float *acc = t->acc + i % 3 * 2 * OC_TILES_ACC_BELOW;
        amx_clear_c();
        struct oc_tiles_scale now = {.acc = acc, .c = t->c + panel * 4 * AMX_C, .first = t->first && s == 0};
        now.scales = t->scales + (int64_t)i * 2 * OC_TILES_N;
        now.sums = t->sums + s / t->group * OC_TILES_N;
        for (int k = 0; k < t->group; k++) {
            bool last = k + 1 == t->group;
            amx_step(t->a, s, 2, lower);
            b += OC_TILES_STEP;
            if (++s == t->steps) s = 0, panel++;
            if (!last || i + 1 < n_all) amx_load_first(amx_high(t->a, s, 2), b, lower);
            if (last) amx_store_acc(acc, lower);
            amx_scale_some(t, &older, k * n, n);
            amx_work_beside(t, &w);
        }
        older = newer;
        newer = now;
    }
    amx_scale_some(t, &older, 0, n_rows);
    amx_scale_some(t, &newer, 0, n_rows);
}

static void amx_strip(const struct oc_tiles_strip *t) {
    if (t->lower) {
        if (t->group) amx_strip_grouped(t, true);
        if (!t->group && t->a_parts == 2) amx_strip_of(t, 2, true);
        if (t->a_parts == 1) amx_strip_of(t, 1, true);
    } else {
        if (t->group) amx_strip_grouped(t, false);
        if (!t->group && t->a_parts == 2) amx_strip_of(t, 2, false);
        if (t->a_parts == 1) amx_strip_of(t, 1, false);
    }
}

#endif
