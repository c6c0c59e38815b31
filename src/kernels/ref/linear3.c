/* Reference linear3: three linears. */
#include "kernels/ref/ref.h"

void oc_ref_linear3(const struct oc_kctx *ctx, const struct oc_linear3 *a) {
    for (int i = 0; i < 3; i++) {
        struct oc_linear one = {.role = a->role,
                                .m = a->m,
                                .x = a->x,
                                .ldx = a->ldx,
                                .w = a->w[i],
                                .y = a->y[i],
                                .ldy = a->ldy[i],
                                .act = OC_ACT_NONE};
        oc_ref_linear(ctx, &one);
    }
}
