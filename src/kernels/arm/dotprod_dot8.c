/* Role D with x as whole numbers, by SDOT. */
#include "kernels/arm/neon_dot8.h"

void oc_neon_dot8_sdot(const struct oc_weight *w, int64_t n0, int n, const struct oc_dot_x8 *x, int m, float *out, int64_t ldo) {
    dot8_all(w, n0, n, x, m, out, ldo, false);
}
