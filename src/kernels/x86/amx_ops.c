/* The AMX table, over the AVX-512 one. tests/kernels/amx_model.c checks it where there is no AMX. */
#include <immintrin.h>

#include "kernels/x86/x86.h"

/* gcc 12's _tile_loadconfig() says that it reads 8 bytes of the 64, so the other 56 are never written; its
 * _tile_loadd() does not say that it reads memory at all. */
#define AMX_CONFIG(p) __asm__ volatile("ldtilecfg %0" ::"m"(*(const uint8_t(*)[64])(p)))
#define AMX_RELEASE() _tile_release()
#define AMX_ZERO(t) _tile_zero(t)
#define AMX_LOAD(t, p, stride)                                                                                         \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #t ::"r"(p), "r"((int64_t)(stride)) : "memory")
#define AMX_STORE(t, p, stride) _tile_stored(t, p, stride)
#define AMX_DP(c, a, b) _tile_dpbf16ps(c, a, b)
#define AMX_DP_BYTES(c, a, b) _tile_dpbssd(c, a, b)

#include "kernels/x86/amx_tile.h"

void oc_ops_set_amx(struct oc_ops *ops, bool rounded, bool many) {
    ops->isa = rounded ? "amxbf16" : many ? "amxmany" : "amx";
    amx_set(ops, rounded, many);
}
