/* The AMX table, over the AVX-512 one. tests/kernels/amx_model.c checks it where there is no AMX. */
#include "kernels/x86/x86.h"

#include "kernels/x86/amx_instructions.h"
#include "kernels/x86/amx_tile.h"

void oc_ops_set_amx(struct oc_ops *ops, unsigned wishes) {
    /* With the 8 bits of throughput mode role P stays exact: its error is close to its bound as it is. */
    bool int16 = (wishes & OC_CPU_INT16) && !(wishes & OC_CPU_INT8);
    enum amx_kind kind = wishes & OC_CPU_ROUND ? AMX_ROUNDED : int16 ? AMX_INT16 : wishes & OC_CPU_MANY ? AMX_MANY : AMX_SPLIT;
    ops->isa = amx_names[kind];
    amx_set(ops, kind);
}
