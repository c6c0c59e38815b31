#include <stdlib.h>

#include "kernels/device.h"

static void walked(struct oc_device_walk *k, uint64_t n_bytes) {
    k->n_bytes += n_bytes;
    if (k->progress) k->progress(k->arg, k->n_bytes);
}

enum oc_err oc_device_walk_floats(struct oc_device_walk *k, const float **v, int64_t n, struct oc_errinfo *ei) {
    if (!*v) return OC_OK;
    if (k->d) OC_TRY(k->d->take_floats(k->d, v, n, ei));
    walked(k, (uint64_t)n * sizeof **v);
    return OC_OK;
}

/* A device may bring the bias along with its weight, or leave it to be brought. */
enum oc_err oc_device_walk_weight(struct oc_device_walk *k, struct oc_weight *w, struct oc_errinfo *ei) {
    const float *bias = w->bias;
    if (k->d) OC_TRY(k->d->take_weight(k->d, w, ei));
    if (k->d && bias && w->bias == bias) OC_TRY(k->d->take_floats(k->d, &w->bias, w->n, ei));
    walked(k, oc_weight_bytes(w) + (bias ? (uint64_t)w->n * sizeof *bias : 0));
    return OC_OK;
}

const float *oc_device_look(struct oc_device *d, const float *x, int64_t n, float **copy) {
    *copy = NULL;
    if (d->is_host) return x;
    *copy = malloc((size_t)n * sizeof **copy);
    OC_ASSERT(*copy);
    d->get(d, *copy, x, (size_t)n * sizeof **copy);
    return *copy;
}
