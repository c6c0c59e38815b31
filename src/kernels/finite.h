/* kernels/finite.h - whether numbers in the host's memory are finite. Any thread; no state. */
#ifndef OC_KERNELS_FINITE_H
#define OC_KERNELS_FINITE_H

#include <stdbool.h>
#include <stdint.h>

/* Whether none of x [n] is a NaN or an infinity. */
bool oc_finite_all(const float *x, int64_t n);

#endif
