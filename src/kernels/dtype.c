/* Sizes and names of number formats, sizes of weights. Apart from ops.c, because plug-ins hold this file too. */
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

uint64_t oc_weight_bytes(const struct oc_weight *w) {
    uint64_t n = (uint64_t)w->n * (uint64_t)w->k;
    if (w->bits == 0) return n * oc_dtype_bytes(w->dtype);
    return n * w->bits / 8 + n / w->group * 2 * oc_dtype_bytes(w->dtype);
}
