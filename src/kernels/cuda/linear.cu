/* linear, linear_glu and linear3: told apart here, done by role. */
#include "kernels/cuda/cuda.cuh"

static void by_role(const struct oc_kctx *ctx, enum oc_role role, const struct cu_linear *a) {
    struct cu_state *s = cu_state_of(ctx);
    if (a->m == 0) return;
    if (role == OC_ROLE_D) {
        cu_linear_d(s, a);
    } else {
        cu_linear_p(s, a);
    }
}

void cu_linear(const struct oc_kctx *ctx, const struct oc_linear *a) {
    struct cu_linear l = {a->m, a->x, a->ldx, 1, {a->w}, {a->y}, {a->ldy}, a->act, a->add, false};
    by_role(ctx, a->role, &l);
}

void cu_linear_glu(const struct oc_kctx *ctx, const struct oc_linear_glu *a) {
    struct cu_linear l = {a->m, a->x, a->ldx, 2, {a->gate, a->up}, {a->y}, {a->ldy}, a->act, false, true};
    by_role(ctx, a->role, &l);
}

void cu_linear3(const struct oc_kctx *ctx, const struct oc_linear3 *a) {
    struct cu_linear l = {a->m, a->x, a->ldx, 3, {a->w[0], a->w[1], a->w[2]}, {a->y[0], a->y[1], a->y[2]},
                          {a->ldy[0], a->ldy[1], a->ldy[2]}, OC_ACT_NONE, false, false};
    by_role(ctx, a->role, &l);
}
