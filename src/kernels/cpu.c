/* What this machine's processor offers, and whether the system saves the registers. */
#define _GNU_SOURCE
#include "kernels/ops.h"

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

/* Where products of bytes beat FMAs for one stream too: Intel's vector units share two ports among all that unpacks and
 * multiplies; AMD's have more, and there memory keeps one stream back (docs/KERNELS.md, "Role D by bytes"). */
static bool bytes_are_quicker(void) {
    unsigned a, b, c, d;
    return __get_cpuid(0, &a, &b, &c, &d) && b == signature_INTEL_ebx && c == signature_INTEL_ecx && d == signature_INTEL_edx;
}

unsigned oc_cpu_features(void) {
    const unsigned leaf1_need = bit_FMA | bit_F16C | bit_OSXSAVE | bit_AVX;
    const unsigned leaf7_512 = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
    const unsigned leaf7_amx = 1u << 22 | 1u << 24 | 1u << 25; /* EDX: AMX-BF16, AMX-TILE, AMX-INT8 */
    const uint64_t ymm_saved = 0x6, zmm_saved = 0xe6, tiles_saved = 0x60000;
    unsigned a, b, c, d, found = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & leaf1_need) != leaf1_need) return 0;
    uint64_t saved = saved_registers();
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    if ((saved & ymm_saved) != ymm_saved || !(b & bit_AVX2) || !(b & bit_BMI2)) return 0;
    found |= OC_CPU_AVX2;
    if ((saved & zmm_saved) != zmm_saved || (b & leaf7_512) != leaf7_512) return found;
    found |= OC_CPU_AVX512;
    if (c & bit_AVX512VNNI) found |= OC_CPU_AVX512VNNI | (bytes_are_quicker() ? OC_CPU_BYTES : 0);
    bool has_amx = (d & leaf7_amx) == leaf7_amx && (c & bit_AVX512VBMI) && (saved & tiles_saved) == tiles_saved;
    if (!__get_cpuid_count(7, 1, &a, &b, &c, &d) || !(a & bit_AVX512BF16)) return found;
    found |= OC_CPU_AVX512BF16;
    if (has_amx && amx_allowed()) found |= OC_CPU_AMX;
    return found;
}

#elif defined(__aarch64__)

unsigned oc_cpu_features(void) {
    return OC_CPU_NEON; /* part of the base architecture */
}

#else

unsigned oc_cpu_features(void) {
    return 0;
}

#endif
