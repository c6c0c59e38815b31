/* kernels/x86/amx_gemm.h - a strip of x times panels of W (oc_simd_tiles.strip), over the macros that amx_tile.h describes.
 *
 * Tiles 0 to 3 are 32 x 32 of y, 4 and 5 the strip's upper and lower 16 rows, 6 and 7 the panel's left and right 16
 * columns. A tile product takes 16 cycles and its sum is ready after 52, so four sums in turn keep the unit busy; loads
 * stand between products. Two parts of x and one of W: 6 loads for 8 products, all parts: 8 for 12, none twice. All of k is
 * summed in the tiles, both operands come from L2. */
#ifndef OC_KERNELS_X86_AMX_GEMM_H
#define OC_KERNELS_X86_AMX_GEMM_H

#include "kernels/x86/x86.h"

#define AMX_INLINE static inline __attribute__((always_inline))

enum { AMX_HALF = OC_TILES_STEP / 2, AMX_C = 256 }; /* elements of a tile of bf16, and of f32 */

/* Loads the tiles of a and b that are asked for, and their four products, loads as late as may be. */
AMX_INLINE void amx_quarter(const uint16_t *a, const uint16_t *b, const bool load_a, const bool load_b, const bool lower) {
    if (load_b) AMX_LOAD(6, b, 64);
    if (load_a) AMX_LOAD(4, a, 64);
    AMX_DP(0, 4, 6);
    if (load_b) AMX_LOAD(7, b + AMX_HALF, 64);
    AMX_DP(1, 4, 7);
    if (!lower) return;
    if (load_a) AMX_LOAD(5, a + AMX_HALF, 64);
    AMX_DP(2, 5, 6);
    AMX_DP(3, 5, 7);
}

/* 32 of k. */
AMX_INLINE void amx_step(const uint16_t *a, const uint16_t *b, const int a_parts, const int b_parts, const bool lower) {
    if (b_parts == 2) amx_quarter(a, b + OC_TILES_STEP, true, true, lower);
    amx_quarter(a, b, b_parts == 1, true, lower);
    if (a_parts == 2) amx_quarter(a + OC_TILES_STEP, b, true, false, lower);
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

/* What is done beside a step's products: lines of the next strip come from L3 or memory to L2, and the strip before gets its
 * place in y. */
AMX_INLINE void amx_beside(const struct oc_tiles_strip *t, const char **next) {
    if (*next) {
        for (int i = 0; i < t->n_next; i++) __builtin_prefetch(*next + 64 * i, 0, 2);
        *next += 64 * t->n_next;
    }
    if (t->end->row < t->end->rows) t->finish(t->end, t->n_end);
}

AMX_INLINE void amx_strip_of(const struct oc_tiles_strip *t, const int a_parts, const int b_parts, const bool lower) {
    const uint16_t *b = t->b;
    const char *next = (const char *)t->next;
    for (int panel = 0; panel < t->n_panels; panel++) {
        const uint16_t *a = t->a;
        float *c = t->c + panel * 4 * AMX_C;
        if (t->first) {
            amx_clear_c();
        } else {
            amx_load_c(c, lower);
        }
        for (int s = 0; s < t->steps; s++, a += a_parts * OC_TILES_STEP, b += b_parts * OC_TILES_STEP) {
            amx_step(a, b, a_parts, b_parts, lower);
            amx_beside(t, &next);
        }
        amx_store_c(c, lower);
    }
}

/* ---- Quantised W as whole numbers ---------------------------------------------------------------------------------------
 * The tiles' sums of a group wait in acc for two groups and are scaled some rows at each step, when no store of them is under way
 * any more. A tile store waits for its products, and what is loaded meanwhile from an address that agrees in its last 12 bits
 * waits for the store: four tiles agree with everything. So the tiles that the next group begins with are loaded before. ---- */

AMX_INLINE void amx_load_first(const uint16_t *a, const uint16_t *b, const bool lower) {
    AMX_LOAD(6, b, 64);
    AMX_LOAD(4, a, 64);
    AMX_LOAD(7, b + AMX_HALF, 64);
    if (lower) AMX_LOAD(5, a + AMX_HALF, 64);
}

/* n rows of the older group. */
AMX_INLINE void amx_scale_some(const struct oc_tiles_strip *t, const struct oc_tiles_scale *g, int row, int n) {
    if (g->c) t->scale(g, row, n);
}

/* One group, whose first tiles are loaded; n rows of the older group are scaled at each of its steps. */
AMX_INLINE void amx_group(const struct oc_tiles_strip *t, const uint16_t *a, const uint16_t *b, const struct oc_tiles_scale *older,
                          const char **next, int n, const bool lower) {
    amx_clear_c();
    for (int i = 0; i < t->group; i++, a += 2 * OC_TILES_STEP, b += OC_TILES_STEP) {
        amx_quarter(a, b, i > 0, i > 0, lower);
        amx_quarter(a + OC_TILES_STEP, b, true, false, lower);
        amx_scale_some(t, older, i * n, n);
        amx_beside(t, next);
    }
}

AMX_INLINE void amx_strip_grouped(const struct oc_tiles_strip *t, const bool lower) {
    const int n_rows = lower ? 32 : 16, n_groups = t->steps / t->group, n_all = t->n_panels * n_groups;
    const char *next = (const char *)t->next;
    struct oc_tiles_scale older = {0}, newer = {0};
    amx_load_first(t->a, t->b, lower);
    for (int i = 0, g = 0, panel = 0; i < n_all; i++) {
        float *acc = t->acc + i % 2 * 4 * AMX_C;
        amx_group(t, t->a + g * t->group * 2 * OC_TILES_STEP, t->b + (int64_t)i * t->group * OC_TILES_STEP, &older, &next, n_rows / t->group, lower);
        older = newer;
        newer = (struct oc_tiles_scale){.acc = acc, .c = t->c + panel * 4 * AMX_C, .first = t->first && g == 0};
        newer.scales = t->scales + (int64_t)i * 2 * OC_TILES_N;
        newer.sums = t->sums + g * OC_TILES_N;
        if (++g == n_groups) g = 0, panel++;
        if (i + 1 < n_all) amx_load_first(t->a + g * t->group * 2 * OC_TILES_STEP, t->b + (int64_t)(i + 1) * t->group * OC_TILES_STEP, lower);
        amx_store_c(acc, lower);
    }
    amx_scale_some(t, &older, 0, n_rows);
    amx_scale_some(t, &newer, 0, n_rows);
}

static void amx_strip(const struct oc_tiles_strip *t) {
    if (t->group > 0) {
        if (t->lower) amx_strip_grouped(t, true);
        if (!t->lower) amx_strip_grouped(t, false);
    } else if (!t->lower) {
        if (t->b_parts == 2) amx_strip_of(t, 2, 2, false);
        if (t->b_parts == 1 && t->a_parts == 2) amx_strip_of(t, 2, 1, false);
        if (t->a_parts == 1) amx_strip_of(t, 1, 1, false);
    } else {
        if (t->b_parts == 2) amx_strip_of(t, 2, 2, true);
        if (t->b_parts == 1 && t->a_parts == 2) amx_strip_of(t, 2, 1, true);
        if (t->a_parts == 1) amx_strip_of(t, 1, 1, true);
    }
}

#endif
