/* kernels/x86/x86.h - primitives that more than one table uses. */
#ifndef OC_KERNELS_X86_X86_H
#define OC_KERNELS_X86_X86_H

#include "kernels/tiled/tiled.h"

/* oc_simd.widen, oc_simd.transpose and oc_simd.panel, for panels of nr columns (a multiple of 8). */
void oc_avx2_widen(const uint8_t *in, enum oc_dtype t, int64_t n, float *out);
void oc_avx2_transpose_to(const float *in, int64_t ld, int n, int kk, float *out, int nr);
void oc_avx2_panel_to(const struct oc_weight *w, int64_t n0, int n, int64_t k0, int kk, float *out, float *tmp,
                      int nr);

/* The AVX-512 primitives, which the tables above it keep. */
void oc_avx512_transpose(const float *in, int64_t ld, int n, int kk, float *out);
void oc_avx512_panel(const struct oc_weight *w, int64_t n0, int n, int64_t k0, int kk, float *out, float *tmp);
void oc_avx512_tile(const struct oc_tile *t);
void oc_avx512_dot_prepare(const struct oc_weight *w, const float *x, float *xp, int64_t ldx, float *sums, int64_t lds);
void oc_avx512_dot(const struct oc_weight *w, int64_t n0, int n, const struct oc_dot_x *x, int m, float *out,
                   int64_t ldo);
/* Needs AVX512_VNNI. */
void oc_avx512vnni_round8(const float *x, int group, int bits, int digits, int8_t *q, float *scale, float *sum);
void oc_avx512vnni_dot8(const struct oc_weight *w, int64_t n0, int n, const struct oc_dot_x8 *x, int m, float *out,
                        int64_t ldo);
void oc_avx512_widen(const uint8_t *in, enum oc_dtype t, int64_t n, float *out);
void oc_avx512_pair_scores(const float *k, int64_t ldk, int n_keys, const float *q, int n_pairs, float *p, int64_t ldp);
void oc_avx512_act_row(enum oc_act act, float *v, int64_t n);
float oc_avx512_max_row(const float *v, int64_t n);
float oc_avx512_exp_row(float *v, int64_t n, float scale, float max);

void oc_avx512_finish(struct oc_tiles_end *e, int n);

/* Of oc_simd_tiles. */
void oc_avx512bf16_panel(const struct oc_weight *w, int64_t n0, int n, int64_t k0, int kk, uint16_t *out);
void oc_avx512bf16_numbers(const struct oc_weight *w, int64_t n0, int n, int64_t k0, int kk, uint16_t *out, float *scales);
void oc_avx512bf16_scale(const struct oc_tiles_scale *g, int row, int n);
void oc_avx512bf16_cut(const struct oc_tiles_cut *c);

/* oc_simd_bf16.pack and .row; the code needs AVX512_BF16. */
void oc_avx512bf16_pack(const float *x, int64_t ldx, int n, int kk, uint16_t *out, uint16_t *out_low, uint16_t *tmp);
void oc_avx512bf16_row(const struct oc_weight *w, int64_t row, int64_t k0, int kk, uint16_t *out, uint16_t *out_low);
void oc_avx512bf16_tile(const struct oc_bf16_tile *t);

/* oc_simd_bf16.round_row, .pack_pairs and .exp_row. */
void oc_avx512bf16_round_row(const float *x, int n, int whole, uint16_t *out, uint16_t *out_low);
void oc_avx512bf16_pack_pairs(const float *v, int64_t ldv, int n, int cols, int64_t panel, uint16_t *out,
                              uint16_t *out_low);
float oc_avx512bf16_exp_row(const float *v, int n, int whole, float scale, float max, uint16_t *out, uint16_t *out_low);

#endif
