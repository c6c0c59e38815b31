/* What this machine's processor offers, and whether the system saves the registers. */
#define _GNU_SOURCE
#include "kernels/impl.h"

/* Bits of Linux's AT_HWCAP and AT_HWCAP2, here by number so that every machine can test what is made of them. */
enum { ASIMD = 1 << 1, ASIMDDP = 1 << 20, I8MM_OF_2 = 1 << 13, BF16_OF_2 = 1 << 14 };

unsigned oc_cpu_arm_features(uint64_t hwcap, uint64_t hwcap2) {
    unsigned found = OC_CPU_NEON;
    if (!(hwcap & ASIMD)) return 0;
    if (hwcap & ASIMDDP) found |= OC_CPU_DOTPROD | OC_CPU_BYTES;
    if ((hwcap & ASIMDDP) && (hwcap2 & I8MM_OF_2)) found |= OC_CPU_I8MM;
    if (hwcap2 & BF16_OF_2) found |= OC_CPU_BFMMLA;
    return found;
}

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

/* XCR0 by xgetbv: which register files the system saves on a context switch. */
static uint64_t saved_registers(void) {
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

/* AMX tiles are 8 KiB of state that a process must ask Linux (5.16 on) for; a refusal is an answer. */
static bool amx_allowed(void) {
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 }; /* ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA */
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

unsigned oc_cpu_features(void) {
    const unsigned leaf1_need = bit_FMA | bit_F16C | bit_OSXSAVE | bit_AVX;
    const unsigned leaf7_512 = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
    const unsigned leaf7_amx = 1u << 22 | 1u << 24 | 1u << 25; /* EDX: AMX-BF16, AMX-TILE, AMX-INT8 */
    const uint64_t ymm_saved = 0x6, zmm_saved = 0xe6, tiles_saved = 0x60000;
    const unsigned avx_vnni = 1u << 4; /* EAX of leaf 7.1 */
    unsigned a, b, c, d, e = 0, f, g, h, found = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & leaf1_need) != leaf1_need) return 0;
    uint64_t saved = saved_registers();
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    if ((saved & ymm_saved) != ymm_saved || !(b & bit_AVX2) || !(b & bit_BMI2)) return 0;
    found |= OC_CPU_AVX2;
    (void)__get_cpuid_count(7, 1, &e, &f, &g, &h); /* leaves 0 in e where there is no such leaf */
    if (e & avx_vnni) found |= OC_CPU_AVXVNNI | OC_CPU_BYTES;
    if ((saved & zmm_saved) != zmm_saved || (b & leaf7_512) != leaf7_512) return found;
    found |= OC_CPU_AVX512;
    if (c & bit_AVX512VNNI) found |= OC_CPU_AVX512VNNI | OC_CPU_BYTES;
    bool has_amx = (d & leaf7_amx) == leaf7_amx && (c & bit_AVX512VBMI) && (saved & tiles_saved) == tiles_saved;
    if (!(e & bit_AVX512BF16)) return found;
    found |= OC_CPU_AVX512BF16;
    if (has_amx && amx_allowed()) found |= OC_CPU_AMX | OC_CPU_INT16;
    return found;
}

#elif defined(__aarch64__)
#include <sys/auxv.h>

_Static_assert(HWCAP_ASIMD == ASIMD && HWCAP_ASIMDDP == ASIMDDP, "AT_HWCAP");
_Static_assert(HWCAP2_I8MM == I8MM_OF_2 && HWCAP2_BF16 == BF16_OF_2, "AT_HWCAP2");

unsigned oc_cpu_features(void) {
    return oc_cpu_arm_features(getauxval(AT_HWCAP), getauxval(AT_HWCAP2));
}

#else

unsigned oc_cpu_features(void) {
    return 0;
}

#endif
