/* kernels/x86/amx_dot.h - role D by AMX, over the instructions of whoever includes it, as amx_tile.h is.
 *
 * Weights as signed bytes are operand A, 16 rows of 64 k; digits of x (struct oc_dot_digits) are operand B,
 * so a product is the exact sum of a group in 32 bits, one for each digit. The includer defines, besides what
 * amx_tile.h wants, AMX_DP_BYTES(c, a, b).
 *
 * Loads of what was stored a moment ago wait until it has reached the cache, tile loads as others after tile
 * stores. So an item of work (16 rows of W by 128 k by up to 8 rows of x) is unpacked two items before it is
 * multiplied and added up an item after that, and the buffers of an item and of the next one differ in the
 * address within 4 KiB. */
#ifndef OC_KERNELS_X86_AMX_DOT_H
#define OC_KERNELS_X86_AMX_DOT_H

#include "kernels/x86/digits.h"

#define AMX_DOT_BLOCKS (OC_D_SLICE / OC_DIGITS_BLOCK)

struct amx_dot {
    _Alignas(4096) oc_digits_w a[4];
    _Alignas(4096) oc_digits_c c[2][2]; /* by columns, item */
    _Alignas(64) oc_digits_groups scales[2], zero_biases;
    _Alignas(64) float acc[AMX_DOT_BLOCKS][2][2][256]; /* of 16 rows of W, 4 rows of x */
    _Alignas(64) float z[OC_D_SLICE][OC_D_NB];
};

/* One call, and where it stands. */
struct amx_dot_call {
    const struct oc_weight *w;
    const struct oc_dot_digits *x;
    int64_t row;
    int m, n, n_blocks;
    int tiles_of_group;                                   /* of 64 k */
    const uint8_t *lead, *lead_scales, *lead_zero_biases; /* next to prefetch */
    struct amx_dot *s;
};

/* Products that are to be added up. */
struct amx_dot_products {
    int n_groups, block, half, slot;
    const float (*scales)[OC_D_NB];
};

/* All at once prefetches would wait for each other, and what follows for them: a few lines at a time. */
static inline void amx_dot_lead(struct amx_dot_call *d, int n) {
    for (int i = 0; i < n; i++, d->lead += 64) __builtin_prefetch(d->lead, 0, 2);
}

static inline void amx_dot_lead_groups(struct amx_dot_call *d) {
    __builtin_prefetch(d->lead_scales, 0, 2);
    __builtin_prefetch(d->lead_zero_biases, 0, 2);
    d->lead_scales += 64;
    d->lead_zero_biases += 64;
}

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

/* Products of one group, n_tiles times 64 k, with the digits of one tile's columns. */
#define AMX_DOT_ONE(name, ct, bt)                                                                            \
    static inline void name(const uint8_t(*a)[16][64], const int8_t *b, size_t row, int n_tiles,             \
                            int32_t *c) {                                                                    \
        AMX_ZERO(ct);                                                                                        \
        for (int t = 0; t < n_tiles; t++, b += 16 * row) {                                                   \
            AMX_LOAD(bt, b, row);                                                                            \
            AMX_LOAD(4, a[t][0], 64);                                                                        \
            AMX_DP_BYTES(ct, 4, bt);                                                                         \
        }                                                                                                    \
        AMX_STORE(ct, c, row);                                                                               \
    }

AMX_DOT_ONE(amx_dot_even, 0, 6)
AMX_DOT_ONE(amx_dot_odd, 1, 7)

/* With those of two. */
#define AMX_DOT_TWO(name, c0, c1, at)                                                                        \
    static inline void name(const uint8_t(*a)[16][64], const int8_t *b0, size_t row0, const int8_t *b1,      \
                            size_t row1, int n_tiles, int32_t *sum0, int32_t *sum1) {                        \
        AMX_ZERO(c0);                                                                                        \
        AMX_ZERO(c1);                                                                                        \
        for (int t = 0; t < n_tiles; t++, b0 += 16 * row0, b1 += 16 * row1) {                                \
            AMX_LOAD(6, b0, row0);                                                                           \
            AMX_LOAD(at, a[t][0], 64);                                                                       \
            AMX_DP_BYTES(c0, at, 6);                                                                         \
            AMX_LOAD(7, b1, row1);                                                                           \
            AMX_DP_BYTES(c1, at, 7);                                                                         \
        }                                                                                                    \
        AMX_STORE(c0, sum0, row0);                                                                           \
        AMX_STORE(c1, sum1, row1);                                                                           \
    }

AMX_DOT_TWO(amx_dot_two_even, 0, 1, 4)
AMX_DOT_TWO(amx_dot_two_odd, 2, 3, 5)

/* n_groups groups of 16 rows of W at w, from k0 on, with the rows of x of a block; `lines` are prefetched. */
static void amx_dot_multiply(struct amx_dot_call *d, oc_digits_w w, int64_t k0, int n_groups, int block,
                             int slot, int lines) {
    int first = block * OC_DIGITS_BLOCK, width = oc_digits_width(d->m, first),
        width1 = oc_digits_width(d->m, first + 4);
    const int8_t *b0 = d->x->q + first * 4 * d->x->k + k0 * 4 * width;
    const int8_t *b1 = d->x->q + (first + 4) * 4 * d->x->k + k0 * 4 * width1;
    const size_t row0 = (size_t)(16 * width), row1 = (size_t)(16 * width1);
    const int n_tiles = d->tiles_of_group;
    const uint8_t(*a)[16][64] = (const uint8_t(*)[16][64])w;
    int32_t *c0 = d->s->c[0][slot][0], *c1 = d->s->c[1][slot][0];
    if (width1) {
        amx_dot_two_even(a, b0, row0, b1, row1, n_tiles, c0, c1);
        amx_dot_lead(d, lines / 2);
        if (n_groups == 2)
            amx_dot_two_odd(a + 1, b0 + 16 * row0, row0, b1 + 16 * row1, row1, 1, c0 + 256, c1 + 256);
    } else {
        amx_dot_even(a, b0, row0, n_tiles, c0);
        amx_dot_lead(d, lines / 2);
        if (n_groups == 2) amx_dot_odd(a + 1, b0 + 16 * row0, row0, 1, c0 + 256);
    }
    amx_dot_lead(d, lines - lines / 2);
}

static void amx_dot_add(struct amx_dot_call *d, const struct amx_dot_products *p, int lines) {
    for (int j = 0; j < 2 && p->n_groups > 0; j++) {
        int width = oc_digits_width(d->m, p->block * OC_DIGITS_BLOCK + 4 * j);
        if (width > 0)
            oc_avx512vbmi_digits_add(d->s->c[j][p->slot][0], p->n_groups, p->scales,
                                     d->s->acc[p->block][p->half][j], width);
    }
    amx_dot_lead(d, lines);
}

/* Half `half` of the rows at step k0, if there is such a step, to a; `lines` are prefetched. */
static void amx_dot_unpack(struct amx_dot_call *d, int half, int64_t k0, oc_digits_w a, int lines) {
    int64_t left = d->w->k - k0;
    int kk = left < OC_DIGITS_STEP ? (int)left : OC_DIGITS_STEP,
        n = d->n - 16 * half < 16 ? d->n - 16 * half : 16;
    if (left <= 0) return;
    oc_avx512vbmi_digits_unpack(d->w, d->row + 16 * half, n < 8 ? n : 8, k0, kk, a[0]);
    amx_dot_lead(d, lines / 2);
    if (n > 8) oc_avx512vbmi_digits_unpack(d->w, d->row + 16 * half + 8, n - 8, k0, kk, a[0] + 8);
    amx_dot_lead(d, lines - lines / 2);
}

static void amx_dot_walk(struct amx_dot_call *d, const struct oc_dot_next *next) {
    struct amx_dot *s = d->s;
    const int64_t k = d->w->k, n_groups = k / d->w->group;
    const int halves = d->n > 16 ? 2 : 1, lines = d->w->bits; /* a quarter of an item's */
    struct amx_dot_products before = {0};
    int slot = 0;
    d->lead = next->w ? next->w : d->w->w;
    d->lead_scales = next->scales ? next->scales : d->w->scales;
    d->lead_zero_biases = next->zero_biases ? next->zero_biases : d->w->zero_biases;
    for (int h = 0; h < halves; h++) amx_dot_unpack(d, h, 0, s->a[h], 0);
    for (int64_t k0 = 0, g = 0; k0 < k; k0 += OC_DIGITS_STEP) {
        int count = (int)((k - k0 < OC_DIGITS_STEP ? k - k0 : OC_DIGITS_STEP) / d->w->group);
        int step = (int)(k0 / OC_DIGITS_STEP) % 2;
        oc_digits_groups *scales = &s->scales[g / OC_DIGITS_SPAN % 2];
        if (g % OC_DIGITS_SPAN == 0) {
            int span = n_groups - g < OC_DIGITS_SPAN ? (int)(n_groups - g) : OC_DIGITS_SPAN;
            oc_avx512vbmi_digits_groups(d->w, d->row, d->n, g, span, *scales, s->zero_biases);
            oc_avx512vbmi_digits_zero(s->zero_biases, span, d->x->sums + g, d->x->lds, d->m, s->z);
        }
        for (int h = 0; h < halves; h++) {
            for (int b = 0; b < d->n_blocks; b++, slot ^= 1) {
                int few = b == 0 ? lines : 0;
                amx_dot_multiply(d, s->a[2 * step + h], k0, count, b, slot, 2 * few);
                if (b == 0) amx_dot_unpack(d, h, k0 + OC_DIGITS_STEP, s->a[2 - 2 * step + h], few);
                amx_dot_add(d, &before, few);
                if (b == 0) amx_dot_lead_groups(d);
                before = (struct amx_dot_products){.n_groups = count,
                                                   .block = b,
                                                   .half = h,
                                                   .slot = slot,
                                                   .scales = (const float(*)[OC_D_NB]) &
                                                             (*scales)[g % OC_DIGITS_SPAN][16 * h]};
            }
        }
        g += count;
    }
    amx_dot_add(d, &before, 0);
}

static void amx_dot(const struct oc_weight *w, int64_t n0, int n, const struct oc_dot_digits *x, int m,
                    float *out, int64_t ldo, const struct oc_dot_next *next) {
    struct amx_dot s;
    struct amx_dot_call d = {.w = w,
                             .x = x,
                             .row = n0,
                             .m = m,
                             .n = n,
                             .n_blocks = (m + OC_DIGITS_BLOCK - 1) / OC_DIGITS_BLOCK,
                             .tiles_of_group = w->group / 64,
                             .s = &s};
    OC_ASSERT(n <= OC_D_NB && m <= OC_D_SLICE);
    for (int first = 0; first < m; first += 4) {
        for (int h = 0; h < 2; h++)
            memset(s.acc[first / OC_DIGITS_BLOCK][h][first / 4 % 2], 0,
                   (size_t)(256 * oc_digits_width(m, first)));
    }
    memset(s.z, 0, sizeof s.z[0] * (size_t)m);
    amx_dot_walk(&d, next);
    for (int first = 0; first < m; first += 4) {
        int width = oc_digits_width(m, first), n_x = m - first < width ? m - first : width;
        for (int r = 0; r < n; r += 16) {
            oc_avx512vbmi_digits_finish(
                s.acc[first / OC_DIGITS_BLOCK][r / 16][first / 4 % 2], width, n_x, x->scales + first * x->lds,
                x->lds, (const float(*)[OC_D_NB])(s.z[first] + r), out + first * ldo + r, ldo, n - r);
        }
    }
}

static const struct oc_simd_digits amx_digits = {amx_dot_begin, amx_dot_end, oc_avx512vbmi_digits_prepare,
                                                 amx_dot};

#endif
