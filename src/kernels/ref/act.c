/* Activations of MLPs. */
#include <math.h>

#include "kernels/ref/ref.h"

float oc_ref_act(enum oc_act act, float x) {
    switch (act) {
    case OC_ACT_NONE:
        return x;
    case OC_ACT_SILU:
        return x / (1.0f + expf(-x));
    case OC_ACT_GELU: /* x * Phi(x); erfc keeps the left tail's relative accuracy, which 1 + erf loses */
        return 0.5f * x * erfcf(-x * (float)M_SQRT1_2);
    case OC_ACT_GELU_TANH: { /* 0.5 x (1 + tanh(u)) = x / (1 + exp(-2u)), u = sqrt(2/pi) (x + 0.044715 x^3) */
        float u = 0.7978845608f * (x + 0.044715f * x * x * x);
        return x / (1.0f + expf(-2.0f * u));
    }
    case OC_ACT_QUICK_GELU:
        return x / (1.0f + expf(-1.702f * x));
    }
    OC_ASSERT(!"known activation");
    return x;
}
