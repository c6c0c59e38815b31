/* kernels/x86/amx_dot.h - role D by AMX, over the instructions of whoever includes it, as amx_tile.h is.
 *
 * Weights as signed bytes are operand A, 16 rows of 64 k; digits of x (struct oc_dot_digits) are operand B, so a product is the exact
 * sum of a group in 32 bits, one for each digit. The includer defines, besides what amx_tile.h wants, AMX_DP_BYTES(c, a, b).
 *
 * What depends on one another is a step apart: W is unpacked a step ahead of its products, for a tile load waits until
 * what was stored has reached the cache, and products are added up when the next ones are under way. */
#ifndef OC_KERNELS_X86_AMX_DOT_H
#define OC_KERNELS_X86_AMX_DOT_H

#include "kernels/x86/digits.h"

#define AMX_BLOCKS (OC_D_SLICE / OC_DIGITS_BLOCK)

struct amx_dot {
    _Alignas(64) oc_digits_w a[2];
    _Alignas(64) oc_digits_c c[2];
    _Alignas(64) oc_digits_groups scales[2], zero_biases;
    _Alignas(64) float acc[AMX_BLOCKS][4][256]; /* tile 2i + j: 16 rows of W i, 4 rows of x j */
    _Alignas(64) float z[OC_D_SLICE][OC_D_NB];
};

/* One call, and where it stands. */
struct amx_dot_call {
    const struct oc_weight *w;
    const struct oc_dot_digits *x;
    int m, n, n_blocks;
    int tiles_of_group; /* of 64 k */
};

/* Products of a block of x's rows with a step of W: what is to be added up. */
struct amx_dot_products {
    int n_groups, block;
    const int32_t *c;
    const float (*scales)[OC_D_NB];
};

/* Tiles: sums 0 to 3, W 4 and 5, digits 6 and 7. */
static void amx_dot_begin(int m) {
    struct amx_config_bytes {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } c = {.palette = 1};
    int width[2] = {oc_digits_width(m, 0), oc_digits_width(m, 4)};
    if (width[1] == 0) width[1] = width[0];
    for (int t = 0; t < 8; t++) {
        c.rows[t] = 16;
        c.row_bytes[t] = (uint16_t)(t == 4 || t == 5 ? 64 : 16 * width[t % 2]);
    }
    AMX_CONFIG(&c);
}

static void amx_dot_end(void) {
    AMX_RELEASE();
}

#define AMX_DOT_W(t) (a + (size_t)(t) * 1024)
#define AMX_DOT_LOWER 2048 /* bytes to the lower 16 rows of W */

/* One group's products with one tile of digits, b; c and d are the accumulators. */
#define AMX_DOT_ONE(name, c0, c1, bt)                                                                                  \
    static inline void name(const uint8_t *a, const int8_t *b, size_t row, int n_tiles, bool lower, int32_t *c) {      \
        AMX_ZERO(c0);                                                                                                  \
        if (lower) AMX_ZERO(c1);                                                                                       \
        for (int t = 0; t < n_tiles; t++, a += 1024, b += 16 * row) {                                                  \
            AMX_LOAD(bt, b, row);                                                                                      \
            AMX_LOAD(4, a, 64);                                                                                        \
            AMX_DP_BYTES(c0, 4, bt);                                                                                   \
            if (!lower) continue;                                                                                      \
            AMX_LOAD(5, a + AMX_DOT_LOWER, 64);                                                                        \
            AMX_DP_BYTES(c1, 5, bt);                                                                                   \
        }                                                                                                              \
        AMX_STORE(c0, c, row);                                                                                         \
        if (lower) AMX_STORE(c1, c + 2 * 256, row);                                                                    \
    }

AMX_DOT_ONE(amx_dot_even, 0, 2, 6)
AMX_DOT_ONE(amx_dot_odd, 1, 3, 7)

/* With two of them. */
static inline void amx_dot_both(const uint8_t *a, const int8_t *b0, size_t row0, const int8_t *b1, size_t row1, int n_tiles,
                                bool lower, int32_t *c) {
    AMX_ZERO(0);
    AMX_ZERO(1);
    AMX_ZERO(2);
    AMX_ZERO(3);
    for (int t = 0; t < n_tiles; t++, a += 1024, b0 += 16 * row0, b1 += 16 * row1) {
        AMX_LOAD(6, b0, row0);
        AMX_LOAD(4, a, 64);
        AMX_DP_BYTES(0, 4, 6);
        AMX_LOAD(7, b1, row1);
        AMX_DP_BYTES(1, 4, 7);
        if (!lower) continue;
        AMX_LOAD(5, a + AMX_DOT_LOWER, 64);
        AMX_DP_BYTES(2, 5, 6);
        AMX_DP_BYTES(3, 5, 7);
    }
    AMX_STORE(0, c, row0);
    AMX_STORE(1, c + 256, row1);
    if (!lower) return;
    AMX_STORE(2, c + 2 * 256, row0);
    AMX_STORE(3, c + 3 * 256, row1);
}

/* n_groups groups of W at a with the rows of x of a block. */
static void amx_dot_multiply(const struct amx_dot_call *d, oc_digits_w w, int64_t k0, int n_groups, int block, oc_digits_c c) {
    int first = block * OC_DIGITS_BLOCK, width = oc_digits_width(d->m, first), width1 = oc_digits_width(d->m, first + 4);
    const int8_t *b0 = d->x->q + first * 4 * d->x->k + k0 * 4 * width;
    const int8_t *b1 = d->x->q + (first + 4) * 4 * d->x->k + k0 * 4 * width1;
    const size_t row0 = (size_t)(16 * width), row1 = (size_t)(16 * width1);
    const bool lower = d->n > 16;
    for (int g = 0; g < n_groups; g++) {
        int t = g * d->tiles_of_group;
        const uint8_t *a = w[0][t][0];
        if (width1) {
            amx_dot_both(a, b0 + 16 * row0 * (size_t)t, row0, b1 + 16 * row1 * (size_t)t, row1, d->tiles_of_group, lower, c[g][0]);
        } else if (g == 0) {
            amx_dot_even(a, b0 + 16 * row0 * (size_t)t, row0, d->tiles_of_group, lower, c[g][0]);
        } else {
            amx_dot_odd(a, b0 + 16 * row0 * (size_t)t, row0, d->tiles_of_group, lower, c[g][0]);
        }
    }
}

static void amx_dot_add(const struct amx_dot_call *d, const struct amx_dot_products *p, float (*acc)[4][256]) {
    if (p->n_groups == 0) return;
    for (int j = 0; j < 2; j++) {
        int width = oc_digits_width(d->m, p->block * OC_DIGITS_BLOCK + 4 * j);
        for (int i = 0; 16 * i < d->n && width > 0; i++) {
            oc_avx512vbmi_digits_add(p->c + 256 * (2 * i + j), p->n_groups, (const float(*)[OC_D_NB])(p->scales[0] + 16 * i),
                                     acc[p->block][2 * i + j], width);
        }
    }
}

static void amx_dot_walk(const struct amx_dot_call *d, int64_t row, const struct oc_dot_next *next, struct amx_dot *s) {
    const int64_t k = d->w->k, n_groups = k / d->w->group;
    const uint8_t *lead = next->w ? next->w : d->w->w;
    struct amx_dot_products before = {0};
    int item = 0;
    oc_avx512vbmi_digits_unpack(d->w, row, d->n, 0, k < OC_DIGITS_STEP ? (int)k : OC_DIGITS_STEP, s->a[0], &lead);
    for (int64_t k0 = 0; k0 < k; k0 += OC_DIGITS_STEP) {
        int64_t g = k0 / d->w->group, then = k - k0 - OC_DIGITS_STEP, step = k0 / OC_DIGITS_STEP;
        int count = (int)((k - k0 < OC_DIGITS_STEP ? k - k0 : OC_DIGITS_STEP) / d->w->group);
        oc_digits_groups *scales = &s->scales[g / OC_DIGITS_SPAN % 2];
        if (then > 0)
            oc_avx512vbmi_digits_unpack(d->w, row, d->n, k0 + OC_DIGITS_STEP, then < OC_DIGITS_STEP ? (int)then : OC_DIGITS_STEP,
                                        s->a[(step + 1) % 2], &lead);
        if (g % OC_DIGITS_SPAN == 0) {
            int span = n_groups - g < OC_DIGITS_SPAN ? (int)(n_groups - g) : OC_DIGITS_SPAN;
            oc_avx512vbmi_digits_groups(d->w, row, d->n, g, span, *scales, s->zero_biases, next);
            oc_avx512vbmi_digits_zero(s->zero_biases, span, d->x->sums + g, d->x->lds, d->m, s->z);
        }
        for (int b = 0; b < d->n_blocks; b++, item ^= 1) {
            amx_dot_multiply(d, s->a[step % 2], k0, count, b, s->c[item]);
            amx_dot_add(d, &before, s->acc);
            before = (struct amx_dot_products){count, b, s->c[item][0][0], (const float(*)[OC_D_NB])(*scales)[g % OC_DIGITS_SPAN]};
        }
    }
    amx_dot_add(d, &before, s->acc);
}

static void amx_dot(const struct oc_weight *w, int64_t n0, int n, const struct oc_dot_digits *x, int m, float *out, int64_t ldo,
                    const struct oc_dot_next *next) {
    struct amx_dot s;
    struct amx_dot_call d = {w, x, m, n, (m + OC_DIGITS_BLOCK - 1) / OC_DIGITS_BLOCK, w->group / 64};
    OC_ASSERT(n <= OC_D_NB && m <= OC_D_SLICE);
    memset(s.acc, 0, sizeof s.acc[0] * (size_t)d.n_blocks);
    memset(s.z, 0, sizeof s.z[0] * (size_t)m);
    amx_dot_walk(&d, n0, next, &s);
    for (int first = 0; first < m; first += 4) {
        int width = oc_digits_width(m, first), n_x = m - first < width ? m - first : width;
        for (int r = 0; r < n; r += 16) {
            oc_avx512vbmi_digits_finish(s.acc[first / OC_DIGITS_BLOCK][2 * (r / 16) + first / 4 % 2], width, n_x,
                                        x->scales + first * x->lds, x->lds, (const float(*)[OC_D_NB])(s.z[first] + r),
                                        out + first * ldo + r, ldo, n - r);
        }
    }
}

static const struct oc_simd_digits amx_digits = {amx_dot_begin, amx_dot_end, oc_avx512vbmi_digits_prepare, amx_dot};

#endif
