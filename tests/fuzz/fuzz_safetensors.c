/* Any bytes as a safetensors file: refused with a message, or every view lies inside the file. */
#include <stdint.h>
#include <string.h>

#include "base/err.h"
#include "weights/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct oc_arena a;
    struct oc_safetensors f;
    struct oc_errinfo ei = {0};
    oc_arena_init(&a, 64 * OC_MIB);
    enum oc_err err = oc_weights_safetensors_parse(&a, data, n, "fuzz", &f, &ei);
    if (err != OC_OK) {
        OC_ASSERT(ei.code == err && ei.msg[0] != '\0');
    } else {
        size_t total = 0;
        for (size_t i = 0; i < f.n_tensors; i++) {
            const struct oc_tensor_view *t = &f.tensors[i];
            OC_ASSERT(t->data >= data && t->data + t->n_bytes <= data + n);
            OC_ASSERT(strlen(t->name) <= n && t->n_dims <= OC_LIMIT_TENSOR_DIMS);
            total += t->n_bytes;
        }
        OC_ASSERT(total <= n);
    }
    oc_arena_free(&a);
    return 0;
}
