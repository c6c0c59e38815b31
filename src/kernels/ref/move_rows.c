/* Rows copied to other places. */
#include <string.h>

#include "kernels/ref/ref.h"

void oc_ref_move_rows(const struct oc_kctx *ctx, const struct oc_move_rows *a) {
    (void)ctx;
    for (int64_t i = 0; i < a->m; i++) memcpy(a->y + a->to[i] * a->ldy, a->x + i * a->ldx, (size_t)a->d * sizeof *a->y);
}
