/* The peak of bf16 products, VDPBF16PS or AMX tiles from registers, and of 16-bit numbers, VPDPWSSD. */
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

#define AMX_TURNS 60000 /* of four tile products, 2 x 16 x 16 x 32 FLOPs each */

/* Numbers, not zeros: a processor short of power does zeros times zeros up to three times as fast. */
__attribute__((target("amx-tile,amx-bf16"))) static float products_amx(float f) {
    uint8_t config[64] = {[0] = 1};
    uint16_t in[16][32];
    float out[16][16];
    (void)f;
    for (int t = 0; t < 8; t++) config[16 + 2 * t] = 64, config[48 + t] = 16;
    for (int i = 0; i < 512; i++) in[i / 32][i % 32] = (uint16_t)(0x3c00 + (i * 40503 & 0x81ff)); /* either sign, 0.008 to 0.03 */
    __asm__ volatile("ldtilecfg %0" ::"m"(config));
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm4\n\ttileloadd (%0,%1,1), %%tmm5\n\ttileloadd (%0,%1,1), %%tmm6\n\ttileloadd (%0,%1,1), %%tmm7" ::"r"(in),
                     "r"((int64_t)sizeof in[0])
                     : "memory");
    for (int t = 0; t < AMX_TURNS; t++) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, out, 64);
    _tile_release();
    return out[0][0];
}

#define VPDPWSSD(encoding, r, i) encoding "vpdpwssd %%" r "mm13, %%" r "mm14, %%" r "mm" #i "\n\t"
#define TWELVE(encoding, r)                                                                                        \
    VPDPWSSD(encoding, r, 0) VPDPWSSD(encoding, r, 1) VPDPWSSD(encoding, r, 2) VPDPWSSD(encoding, r, 3)             \
    VPDPWSSD(encoding, r, 4) VPDPWSSD(encoding, r, 5) VPDPWSSD(encoding, r, 6) VPDPWSSD(encoding, r, 7)             \
    VPDPWSSD(encoding, r, 8) VPDPWSSD(encoding, r, 9) VPDPWSSD(encoding, r, 10) VPDPWSSD(encoding, r, 11)

__attribute__((target("avx2"))) static float products_vnni_ymm(float f) {
    for (int t = 0; t < FMA_TURNS / 12; t++) {
        __asm__ volatile(TWELVE("%{vex%} ", "y")::
                             : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11");
    }
    return f;
}

__attribute__((target("avx512f"))) static float products_vnni_zmm(float f) {
    for (int t = 0; t < FMA_TURNS / 12; t++) {
        __asm__ volatile(TWELVE("", "z")::
                             : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11");
    }
    return f;
}

peak_fn *int16_peak(const char *isa, double *flops) {
    bool zmm = strcmp(isa, "avx512vnni") == 0;
    *flops = (zmm ? 64.0 : 32.0) * (FMA_TURNS / 12 * 12);
    return zmm ? products_vnni_zmm : strcmp(isa, "avxvnni") == 0 ? products_vnni_ymm : NULL;
}

peak_fn *bf16_peak(const char *isa, double *flops) {
    if (strncmp(isa, "amx", 3) == 0) {
        *flops = 4 * 16384.0 * AMX_TURNS;
        return products_amx;
    }
    if (strcmp(isa, "avx512bf16") != 0) return NULL;
    *flops = 64.0 * (FMA_TURNS / 12 * 12);
    return products_avx512;
}
#endif
