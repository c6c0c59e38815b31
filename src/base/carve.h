/* base/carve.h - laying arrays into one piece of memory whose size is asked first.
 *
 * Write one function that carves everything; run it with mem NULL to measure, then again to lay out. */
#ifndef OC_BASE_CARVE_H
#define OC_BASE_CARVE_H

#include <stddef.h>
#include <stdint.h>

#define OC_CARVE_ALIGN 64 /* every array starts on a cache line */

/* The next n_bytes of mem at *at, which moves on; NULL when mem is NULL. */
static inline void *oc_carve(uint8_t *mem, size_t *at, size_t n_bytes) {
    size_t from = *at;
    *at += (n_bytes + OC_CARVE_ALIGN - 1) / OC_CARVE_ALIGN * OC_CARVE_ALIGN;
    return mem ? mem + from : NULL;
}

/* The same for n floats. */
static inline float *oc_carve_floats(uint8_t *mem, size_t *at, int64_t n) {
    return oc_carve(mem, at, (size_t)n * sizeof(float));
}

#endif
