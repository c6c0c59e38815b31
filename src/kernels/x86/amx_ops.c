/* The AMX table, over the AVX-512 one. Not run on hardware yet: checked by the model in tests/kernels/amx_model.c. */
#include <immintrin.h>

#include "kernels/x86/x86.h"

#define AMX_CONFIG(p) _tile_loadconfig(p)
#define AMX_RELEASE() _tile_release()
#define AMX_ZERO(t) _tile_zero(t)
#define AMX_LOAD(t, p, stride) _tile_loadd(t, p, stride)
#define AMX_STORE(t, p, stride) _tile_stored(t, p, stride)
#define AMX_DP(c, a, b) _tile_dpbf16ps(c, a, b)

#include "kernels/x86/amx_tile.h"

void oc_ops_set_amx(struct oc_ops *ops, bool rounded) {
    ops->isa = rounded ? "amxbf16" : "amx";
    amx_set(ops, rounded);
}
