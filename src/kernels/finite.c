#include "kernels/finite.h"

#include <string.h>

#define BLOCK 4096 /* looked at before the first look whether it was enough */

/* The largest bits without sign: at and over those of infinity is what is not finite. Without a way out, so that it becomes a
 * few vector instructions. */
static int32_t largest_bits(const float *x, int64_t n) {
    int32_t most = 0;
    for (int64_t i = 0; i < n; i++) {
        int32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bits &= 0x7fffffff;
        most = bits > most ? bits : most;
    }
    return most;
}

bool oc_finite_all(const float *x, int64_t n) {
    for (int64_t at = 0; at < n; at += BLOCK)
        if (largest_bits(x + at, n - at < BLOCK ? n - at : BLOCK) >= 0x7f800000) return false;
    return true;
}
