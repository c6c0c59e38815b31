/* kernels/x86/avx512bf16.h - primitives for AVX-512 with BF16, over those of avx512.h.
 *
 * Included by x86/avx512bf16_*.c only, which are the files compiled for these. */
#ifndef OC_KERNELS_X86_AVX512BF16_H
#define OC_KERNELS_X86_AVX512BF16_H

#include "kernels/x86/avx512.h"

void oc_avx512bf16_pack(const float *x, int64_t ldx, int n, int kk, uint16_t *out, uint16_t *tmp);
void oc_avx512bf16_row(const struct oc_weight *w, int64_t row, int64_t k0, int kk, uint16_t *out);
void oc_avx512bf16_tile(const struct oc_bf16_tile *t);

#endif
