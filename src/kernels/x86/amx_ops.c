/* The AMX table, over the AVX-512 one. tests/kernels/amx_model.c checks it where there is no AMX. */
#include "kernels/x86/x86.h"

#include "kernels/x86/amx_instructions.h"
#include "kernels/x86/amx_tile.h"

void oc_ops_set_amx(struct oc_ops *ops, bool rounded, bool many) {
    ops->isa = rounded ? "amxbf16" : many ? "amxmany" : "amx";
    amx_set(ops, rounded, many);
}
