/* kernels/cuda/linear_p.cuh - role P of the linear ops: what its two products, of mma.sync and of wgmma, share.
 *
 * Both read f16 in tiles of 64 k, a row's 128 bytes behind each other and in them 16 bytes `c` at `c ^ row % 8`, so that eight rows' are in
 * different banks: that is how they lie in memory, a tile is one or a few copies of consecutive bytes, and it is the order that wgmma
 * calls a swizzle of 128 bytes. x is [block of 64 k][row][64], W is [64 rows][block of 64 k][row][64]. */
#ifndef OC_KERNELS_CUDA_LINEAR_P_CUH
#define OC_KERNELS_CUDA_LINEAR_P_CUH

#include "kernels/cuda/cuda.cuh"

#define CU_X_PADDING 256 /* rows behind those of x that tiles may read, into sums that nobody takes */

struct target {
    const __half *high, *low; /* W in tiles */
    const float *row_scale, *bias;
    float *y;
    int64_t ldy, n, first_tile; /* of columns of y */
    bool aligned;               /* rows of y to 16 bytes */
};

struct gemm {
    int64_t m, blocks, x_rows; /* of a block of x, the padding counted */
    const __half *x_high, *x_low;
    const float *x_scale;
    int64_t groups_x, n_groups; /* of wgmma: tiles, or clusters of them, in a row and in all */
    int passes; /* 1: high x high; 2: low x high first; 3: low x high, high x low first */
    int n_w;
    struct target w[3];
    int act;
    bool add, glu;
};

__device__ __forceinline__ float finished(const struct target &w, float v, float x_scale, int64_t n) {
    v = v * x_scale * w.row_scale[n];
    return w.bias ? v + w.bias[n] : v;
}

/* True when the product was launched by wgmma, which the device then has. In plug-ins that were built with it (OC_CUDA_WGMMA). */
bool cu_gemm_wgmma(struct cu_state *s, struct gemm *g);
void cu_wgmma_prepare(void);

#endif
