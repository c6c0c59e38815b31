/* kernels/x86/avx512bf16.h - what the files compiled for AVX512_BF16 share. */
#ifndef OC_KERNELS_X86_AVX512BF16_H
#define OC_KERNELS_X86_AVX512BF16_H

#include "kernels/x86/avx512.h"

/* What rounding to `high` took from 32 values. */
static inline __m512bh oc_avx512bf16_low_part(__m512 lo, __m512 hi, __m512bh high) {
    __m512i h = (__m512i)high;
    __m512i of_lo = _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(h)), 16);
    __m512i of_hi = _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(h, 1)), 16);
    return _mm512_cvtne2ps_pbh(_mm512_sub_ps(hi, _mm512_castsi512_ps(of_hi)), _mm512_sub_ps(lo, _mm512_castsi512_ps(of_lo)));
}

#endif
