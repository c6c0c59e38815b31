/* The peak of bf16 products: VDPBF16PS or AMX tiles from registers. */
#include "bench.h"

#if defined(__x86_64__)
#include <immintrin.h>

__attribute__((target("avx512f,avx512bf16"))) static float products_avx512(float f) {
    __m512 acc[12];
    for (int i = 0; i < 12; i++) acc[i] = _mm512_set1_ps(f + (float)i);
    __m512bh a = (__m512bh)_mm512_set1_epi32(0x3f7f3f7f), b = (__m512bh)_mm512_set1_epi32(0x3a803a80);
    for (int t = 0; t < FMA_TURNS / 12; t++) {
#pragma GCC unroll 12
        for (int i = 0; i < 12; i++) acc[i] = _mm512_dpbf16_ps(acc[i], a, b);
    }
    for (int i = 1; i < 12; i++) acc[0] = _mm512_add_ps(acc[0], acc[i]);
    return _mm512_cvtss_f32(acc[0]);
}

peak_fn *bf16_peak(const char *isa, double *flops) {
    if (strcmp(isa, "avx512bf16") != 0) return NULL;
    *flops = 64.0 * (FMA_TURNS / 12 * 12);
    return products_avx512;
}
#endif
