/* kernels/x86/amx_instructions.h - the instructions of the hardware under the names that amx_tile.h uses. */
#ifndef OC_KERNELS_X86_AMX_INSTRUCTIONS_H
#define OC_KERNELS_X86_AMX_INSTRUCTIONS_H

#include <immintrin.h>

/* gcc 12's _tile_loadconfig() says that it reads 8 bytes of the 64, so the other 56 are never written; its
 * _tile_loadd() does not say that it reads memory at all. */
#define AMX_CONFIG(p) __asm__ volatile("ldtilecfg %0" ::"m"(*(const uint8_t(*)[64])(p)))
#define AMX_RELEASE() _tile_release()
#define AMX_ZERO(t) _tile_zero(t)
#define AMX_LOAD(t, p, stride)                                                                                         \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #t ::"r"(p), "r"((int64_t)(stride)) : "memory")
/* The same of what is read once: it need not stay in L1. */
#define AMX_LOAD_ONCE(t, p, stride)                                                                                    \
    __asm__ volatile("tileloaddt1 (%0,%1,1), %%tmm" #t ::"r"(p), "r"((int64_t)(stride)) : "memory")
#define AMX_STORE(t, p, stride) _tile_stored(t, p, stride)
#define AMX_DP(c, a, b) _tile_dpbf16ps(c, a, b)
#define AMX_DP_BYTES(c, a, b) _tile_dpbssd(c, a, b) /* needs AMX-INT8 */

#endif
