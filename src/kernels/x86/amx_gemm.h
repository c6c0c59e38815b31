/* kernels/x86/amx_gemm.h - a strip of x times panels of W (oc_simd_tiles.strip), over the macros that amx_tile.h describes.
 *
 * Tiles 0 to 3 are 32 x 32 of y, 4 and 5 the strip's upper and lower 16 rows, 6 and 7 the panel's left and right 16
 * columns. A tile product takes 16 cycles and its sum is ready after 52, so four sums in turn keep the unit busy; loads
 * stand between products. Two parts of x and one of W: 6 loads for 8 products, all parts: 8 for 12, none twice. A chunk of
 * the strip stays in L1 while W comes from L2, prefetched into L1 because a tile load waits for all of its lines. */
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

AMX_INLINE void amx_fetch(const void *p, const int bytes) {
    for (int i = 0; i < bytes; i += 64) __builtin_prefetch((const char *)p + i);
}

/* What is done beside a step's products. */
AMX_INLINE void amx_beside(const struct oc_tiles_strip *t) {
    if (t->next->row < t->next->rows) t->cut(t->next, t->n_cut);
    if (t->end->row < t->end->rows) t->finish(t->end, t->n_end);
}

/* Steps `from` to `to` of one panel. What the next panel needs first is fetched with the last steps. */
AMX_INLINE void amx_chunk(const struct oc_tiles_strip *t, int panel, int from, int to, const int a_parts, const int b_parts,
                          const bool lower) {
    const int a_step = a_parts * OC_TILES_STEP, b_step = b_parts * OC_TILES_STEP;
    const uint16_t *a = t->a + from * a_step, *b = t->b + ((int64_t)panel * t->steps + from) * b_step;
    int64_t jump = panel + 1 < t->n_panels ? (int64_t)t->steps * b_step : (int64_t)(1 - t->n_panels) * t->steps * b_step + (to - from) * b_step;
    float *c = t->c + panel * 4 * AMX_C;
    const char *c_next = (const char *)(panel + 1 < t->n_panels ? c + 4 * AMX_C : t->c);
    if (t->first && from == 0) {
        amx_clear_c();
    } else {
        amx_load_c(c, lower);
    }
    for (int s = from; s < to; s++, a += a_step, b += b_step) {
        int ahead = s + t->ahead;
        if (t->ahead > 0) amx_fetch(b + t->ahead * b_step + (ahead < to ? 0 : jump - (to - from) * b_step), b_step * 2);
        for (int at = (s - from) * 1024; t->ahead > 0 && at < (s - from) * 1024 + 1024 && at < 4096; at += 64) __builtin_prefetch(c_next + at);
        amx_step(a, b, a_parts, b_parts, lower);
        amx_beside(t);
    }
    amx_store_c(c, lower);
}

/* ---- Quantised W as whole numbers: the tiles' sums of a group wait in acc while the next group is multiplied, and are scaled a
 * few rows at a time meanwhile. ---- */

/* Rows of acc that are scaled after each half of a step. */
AMX_INLINE void amx_scale_some(const struct oc_tiles_strip *t, struct oc_tiles_scale *g, int *row, int n, int n_rows) {
    if (*row >= n_rows) return;
    t->scale(g, *row, n);
    *row += n;
}

/* Groups of steps `from` to `to` of one panel; *g and *row are what is left to scale. */
AMX_INLINE void amx_chunk_grouped(const struct oc_tiles_strip *t, struct oc_tiles_scale *g, int *row, int panel, int from, int to,
                                  const bool lower) {
    const int n_rows = lower ? 32 : 16, n = n_rows / (2 * t->group), n_groups = t->steps / t->group;
    const uint16_t *a = t->a + from * 2 * OC_TILES_STEP, *b = t->b + ((int64_t)panel * t->steps + from) * OC_TILES_STEP;
    int64_t jump = panel + 1 < t->n_panels ? (int64_t)t->steps * OC_TILES_STEP : (int64_t)(1 - t->n_panels) * t->steps * OC_TILES_STEP + (to - from) * OC_TILES_STEP;
    float *c = t->c + panel * 4 * AMX_C;
    const char *c_next = (const char *)(panel + 1 < t->n_panels ? c + 4 * AMX_C : t->c);
    for (int s = from; s < to; s += t->group) {
        amx_clear_c();
        for (int i = s; i < s + t->group; i++, a += 2 * OC_TILES_STEP, b += OC_TILES_STEP) {
            if (t->ahead > 0) {
                amx_fetch(b + t->ahead * OC_TILES_STEP + (i + t->ahead < to ? 0 : jump - (to - from) * OC_TILES_STEP), 2 * OC_TILES_STEP);
                for (int at = (i - from) * 512; at < (i - from) * 512 + 512 && at < 4096; at += 64) __builtin_prefetch(c_next + at);
            }
            amx_quarter(a, b, true, true, lower);
            amx_scale_some(t, g, row, n, n_rows);
            amx_quarter(a + OC_TILES_STEP, b, true, false, lower);
            amx_scale_some(t, g, row, n, n_rows);
            amx_beside(t);
        }
        amx_store_c(t->acc, lower);
        g->scales = t->scales + ((int64_t)panel * n_groups + s / t->group) * 2 * OC_TILES_N;
        g->sums = t->sums + s / t->group * OC_TILES_N;
        g->c = c;
        g->first = t->first && s == 0;
        *row = 0;
    }
}

AMX_INLINE void amx_strip_grouped(const struct oc_tiles_strip *t, const bool lower) {
    struct oc_tiles_scale g = {.acc = t->acc};
    int row = 32, chunk = (t->chunk + t->group - 1) / t->group * t->group, n_rows = lower ? 32 : 16;
    for (int from = 0; from < t->steps; from += chunk) {
        int to = from + chunk < t->steps ? from + chunk : t->steps;
        for (int panel = 0; panel < t->n_panels; panel++) amx_chunk_grouped(t, &g, &row, panel, from, to, lower);
    }
    for (; row < n_rows; row += 2) t->scale(&g, row, 2);
}

AMX_INLINE void amx_strip_of(const struct oc_tiles_strip *t, const int a_parts, const int b_parts, const bool lower) {
    for (int from = 0; from < t->steps; from += t->chunk) {
        int to = from + t->chunk < t->steps ? from + t->chunk : t->steps;
        for (int panel = 0; panel < t->n_panels; panel++) amx_chunk(t, panel, from, to, a_parts, b_parts, lower);
    }
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
