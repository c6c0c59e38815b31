/* Role P with VDPBF16PS: rounding x and W to bf16, and the register tile of 12 rows of W by 32 rows of x; at the end what
 * attention by bf16 tiles needs. */
#include "kernels/x86/avx512bf16.h"

static inline __attribute__((always_inline)) void tile(const struct oc_bf16_tile *t, const int mr, const int nv) {
    __m512 acc[12][2];
    const int64_t lda = t->lda, ldc = t->ldc;
#pragma GCC unroll 12
    for (int r = 0; r < mr; r++) {
#pragma GCC unroll 2
        for (int v = 0; v < nv; v++) {
            acc[r][v] = t->first ? _mm512_setzero_ps() : _mm512_loadu_ps(t->c + r * ldc + 16 * v);
        }
    }
    const uint16_t *b = t->b, *a[12 / 3]; /* every third row: the two between are addressed from it */
#pragma GCC unroll 12
    for (int r = 0; r < mr; r += 3) a[r / 3] = t->a + r * lda;
    for (int k = t->kk; k > 0; k -= 2, b += 2 * OC_BF16_COLS) {
        __m512i bv[2];
#pragma GCC unroll 2
        for (int v = 0; v < nv; v++) bv[v] = _mm512_loadu_si512(b + 32 * v);
#pragma GCC unroll 12
        for (int r = 0; r < mr; r++) {
            int32_t pair;
            memcpy(&pair, a[r / 3] + r % 3 * lda, sizeof pair);
            __m512i av = _mm512_set1_epi32(pair);
#pragma GCC unroll 2
            for (int v = 0; v < nv; v++) acc[r][v] = _mm512_dpbf16_ps(acc[r][v], (__m512bh)av, (__m512bh)bv[v]);
        }
#pragma GCC unroll 12
        for (int r = 0; r < mr; r += 3) a[r / 3] += 2;
    }
#pragma GCC unroll 12
    for (int r = 0; r < mr; r++) {
#pragma GCC unroll 2
        for (int v = 0; v < nv; v++) _mm512_storeu_ps(t->c + r * ldc + 16 * v, acc[r][v]);
    }
}

/* Four rows at a time where a whole tile does not fit: its order of sums is the same. */
static void some_rows(struct oc_bf16_tile t) {
    for (int left = t.mr; left > 0; left -= 4) {
        if (left >= 4) {
            if (t.nv == 2) tile(&t, 4, 2);
            if (t.nv == 1) tile(&t, 4, 1);
            t.a += 4 * t.lda;
            t.c += 4 * t.ldc;
            continue;
        }
        for (int r = 0; r < left; r++, t.a += t.lda, t.c += t.ldc) {
            if (t.nv == 2) tile(&t, 1, 2);
            if (t.nv == 1) tile(&t, 1, 1);
        }
    }
}

static void product(const struct oc_bf16_tile *t) {
    if (t->mr < 12) {
        some_rows(*t);
    } else if (t->nv == 2) {
        tile(t, 12, 2);
    } else {
        tile(t, 12, 1);
    }
}

/* (With low parts it is no faster than f32: there for the sake of the contract.) */
void oc_avx512bf16_tile(const struct oc_bf16_tile *t) {
    struct oc_bf16_tile low = *t;
    product(t);
    low.first = false;
    if (t->b_low) {
        low.b = t->b_low;
        product(&low);
        low.b = t->b;
    }
    if (t->a_low) {
        low.a = t->a_low;
        product(&low);
    }
}

/* out[i] = x[i] as bf16, i < n, and out_low[i] what that took away. */
static void round_row(const float *x, int n, uint16_t *out, uint16_t *out_low) {
    for (int i = 0; i < n; i += 32) {
        __mmask16 first = oc_avx512_mask(n - i), second = n - i > 16 ? oc_avx512_mask(n - i - 16) : 0;
        __mmask32 both = (__mmask32)second << 16 | first;
        __m512 lo = _mm512_maskz_loadu_ps(first, x + i), hi = _mm512_maskz_loadu_ps(second, x + i + 16);
        __m512bh v = _mm512_cvtne2ps_pbh(hi, lo);
        _mm512_mask_storeu_epi16(out + i, both, (__m512i)v);
        if (out_low) _mm512_mask_storeu_epi16(out_low + i, both, (__m512i)oc_avx512bf16_low_part(lo, hi, v));
    }
}

void oc_avx512bf16_pack(const float *x, int64_t ldx, int n, int kk, uint16_t *out, uint16_t *out_low, uint16_t *tmp) {
    const int whole = (int)oc_round_up((size_t)kk, OC_BF16_K);
    uint16_t *low = out_low ? tmp + OC_BF16_COLS * OC_P_KB : NULL;
    for (int r = 0; r < n; r++) {
        int64_t at = (int64_t)r * whole;
        round_row(x + r * ldx, kk, tmp + at, low ? low + at : NULL);
        memset(tmp + at + kk, 0, (size_t)(whole - kk) * sizeof *tmp);
        if (low) memset(low + at + kk, 0, (size_t)(whole - kk) * sizeof *tmp);
    }
    /* A pair is moved as if it were a float. */
    oc_avx2_transpose_to((const float *)(const void *)tmp, whole / 2, n, whole / 2, (float *)(void *)out, OC_BF16_COLS);
    if (low)
        oc_avx2_transpose_to((const float *)(const void *)low, whole / 2, n, whole / 2, (float *)(void *)out_low,
                             OC_BF16_COLS);
}

/* A group of 4-bit weights: q picks one of the group's 16 values. The table is doubled, so that the bit above a nibble
 * may hold anything. */
static inline void group_q4(const uint8_t *in, __m512 scale, __m512 zero, int n, uint16_t *out, uint16_t *out_low) {
    const __m512 q = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512 values = _mm512_fmadd_ps(scale, q, zero);
    __m512bh table = _mm512_cvtne2ps_pbh(values, values), low = oc_avx512bf16_low_part(values, values, table);
    for (int i = 0; i < n; i += 32) {
        __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)(in + i / 2)));
        __m512i index = _mm512_or_si512(bytes, _mm512_slli_epi32(bytes, 12));
        _mm512_storeu_si512(out + i, _mm512_permutexvar_epi16(index, (__m512i)table));
        if (out_low) _mm512_storeu_si512(out_low + i, _mm512_permutexvar_epi16(index, (__m512i)low));
    }
}

static inline __m512 bytes16(const uint8_t *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)));
}

static inline void group_q8(const uint8_t *in, __m512 scale, __m512 zero, int n, uint16_t *out, uint16_t *out_low) {
    for (int i = 0; i < n; i += 32) {
        __m512 lo = _mm512_fmadd_ps(scale, bytes16(in + i), zero), hi = _mm512_fmadd_ps(scale, bytes16(in + i + 16), zero);
        __m512bh v = _mm512_cvtne2ps_pbh(hi, lo);
        _mm512_storeu_si512(out + i, (__m512i)v);
        if (out_low) _mm512_storeu_si512(out_low + i, (__m512i)oc_avx512bf16_low_part(lo, hi, v));
    }
}

void oc_avx512bf16_row(const struct oc_weight *w, int64_t row, int64_t k0, int kk, uint16_t *out, uint16_t *out_low) {
    const uint8_t *in = w->w + (size_t)row * oc_weight_row_bytes(w);
    if (w->bits == 0) {
        memcpy(out, in + 2 * k0, (size_t)kk * sizeof *out);
        return;
    }
    int64_t at = row * (w->k / w->group) + k0 / w->group;
    in += (size_t)k0 * w->bits / 8;
    for (int g = 0; g < kk; g += w->group, at++) {
        __m512 scale = _mm512_set1_ps(oc_load_float(w->scales, w->dtype, at));
        __m512 zero = _mm512_set1_ps(oc_load_float(w->zero_biases, w->dtype, at));
        uint16_t *low = out_low ? out_low + g : NULL;
        if (w->bits == 4) group_q4(in + g / 2, scale, zero, w->group, out + g, low);
        if (w->bits == 8) group_q8(in + g, scale, zero, w->group, out + g, low);
    }
}

void oc_avx512bf16_round_row(const float *x, int n, int whole, uint16_t *out, uint16_t *out_low) {
    round_row(x, n, out, out_low);
    memset(out + n, 0, (size_t)(whole - n) * sizeof *out);
    memset(out_low + n, 0, (size_t)(whole - n) * sizeof *out_low);
}

/* Columns d .. d+15 of rows a and b, pairs side by side. */
static inline void pair_columns(__m512 a, __m512 b, uint16_t *out, uint16_t *out_low) {
    const __m512i in_turn = _mm512_setr_epi32(
        16 << 16, 17 << 16 | 1, 18 << 16 | 2, 19 << 16 | 3, 20 << 16 | 4, 21 << 16 | 5, 22 << 16 | 6, 23 << 16 | 7,
        24 << 16 | 8, 25 << 16 | 9, 26 << 16 | 10, 27 << 16 | 11, 28 << 16 | 12, 29 << 16 | 13, 30 << 16 | 14, 31 << 16 | 15);
    __m512bh high = _mm512_cvtne2ps_pbh(b, a);
    _mm512_storeu_si512(out, _mm512_permutexvar_epi16(in_turn, (__m512i)high));
    _mm512_storeu_si512(out_low, _mm512_permutexvar_epi16(in_turn, (__m512i)oc_avx512bf16_low_part(a, b, high)));
}

void oc_avx512bf16_pack_pairs(const float *v, int64_t ldv, int n, int cols, int64_t panel, uint16_t *out,
                              uint16_t *out_low) {
    const int whole = (int)oc_round_up((size_t)n, OC_BF16_K), wide = (int)oc_round_up((size_t)cols, OC_BF16_COLS);
    for (int j = 0; j < whole; j += 2, v += 2 * ldv) {
        for (int d = 0; d < wide; d += 16) {
            __mmask16 there = d < cols ? oc_avx512_mask(cols - d) : 0;
            __m512 a = _mm512_maskz_loadu_ps(j < n ? there : 0, v + d);
            __m512 b = _mm512_maskz_loadu_ps(j + 1 < n ? there : 0, v + ldv + d);
            int64_t at = d / OC_BF16_COLS * panel + j * OC_BF16_COLS + 2 * (d % OC_BF16_COLS);
            pair_columns(a, b, out + at, out_low + at);
        }
    }
}

/* exp(v*scale - max) of the lanes of `mask`, 0 in the others and for exponents under -87.3. As 2^t: VREDUCEPS leaves t's fraction
 * and VSCALEFPS takes its whole part, which saves five instructions of twenty. The polynomial is fitted to the relative error,
 * 2e-9 in exact arithmetic, and is 1 at 0: the largest of a row is 1. */
static inline __m512 exp16(const float *v, __mmask16 mask, __m512 scale, __m512 max) {
    enum { TO_FLOOR = 9 };
    __m512 x = _mm512_fmsub_ps(_mm512_maskz_loadu_ps(mask, v), scale, max);
    mask = _mm512_mask_cmp_ps_mask(mask, x, _mm512_set1_ps(-87.336540f), _CMP_NLT_UQ); /* true for NaN */
    __m512 t = _mm512_mul_ps(x, _mm512_set1_ps(1.44269504f));
    __m512 f = _mm512_reduce_ps(t, TO_FLOOR);
    __m512 p = _mm512_set1_ps(0x1.c5411ep-13f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.46d66ap-10f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.3d0b8ep-7f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.c68912p-5f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.ebfd58p-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.62e42cp-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    return _mm512_maskz_scalef_ps(mask, p, t);
}

float oc_avx512bf16_exp_row(const float *v, int n, int whole, float scale, float max, uint16_t *out, uint16_t *out_low) {
    const __m512 s = _mm512_set1_ps(scale), shift = _mm512_set1_ps(max);
    __m512 sum[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
    for (int i = 0; i < whole; i += 32) {
        __m512 lo = exp16(v + i, i < n ? oc_avx512_mask(n - i) : 0, s, shift);
        __m512 hi = exp16(v + i + 16, i + 16 < n ? oc_avx512_mask(n - i - 16) : 0, s, shift);
        __m512bh high = _mm512_cvtne2ps_pbh(hi, lo);
        sum[0] = _mm512_add_ps(sum[0], lo);
        sum[1] = _mm512_add_ps(sum[1], hi);
        _mm512_storeu_si512(out + i, (__m512i)high);
        _mm512_storeu_si512(out_low + i, (__m512i)oc_avx512bf16_low_part(lo, hi, high));
    }
    return oc_avx512_sum(_mm512_add_ps(sum[0], sum[1]));
}
