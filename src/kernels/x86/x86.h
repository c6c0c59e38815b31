/* kernels/x86/x86.h - AVX2 primitives that the AVX-512 table uses too, with its own panel width. */
#ifndef OC_KERNELS_X86_X86_H
#define OC_KERNELS_X86_X86_H

#include "kernels/tiled/tiled.h"

/* oc_simd.widen, oc_simd.transpose and oc_simd.panel, for panels of nr columns (a multiple of 8). */
void oc_avx2_widen(const uint8_t *in, enum oc_dtype t, int64_t n, float *out);
void oc_avx2_transpose_to(const float *in, int64_t ld, int n, int kk, float *out, int nr);
void oc_avx2_panel_to(const struct oc_weight *w, int64_t n0, int n, int64_t k0, int kk, float *out, float *tmp,
                      int nr);

#endif
