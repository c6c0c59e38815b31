/* Sizes and names of number formats. Apart from ops.c, because plug-ins hold this file too. */
#include "kernels/ops.h"

size_t oc_dtype_bytes(enum oc_dtype t) {
    switch (t) {
    case OC_F32:
    case OC_U32:
    case OC_I32:
        return 4;
    case OC_F16:
    case OC_BF16:
        return 2;
    case OC_U8:
        return 1;
    case OC_I64:
        return 8;
    case OC_OTHER:
        break;
    }
    return 0;
}

const char *oc_dtype_name(enum oc_dtype t) {
    static const char *const names[] = {"F32", "F16", "BF16", "U32", "U8", "I32", "I64", "other"};
    return (unsigned)t <= OC_OTHER ? names[t] : "other";
}
