/* The instructions of src/kernels/cuda/wgmma.cuh, as their manual has them, for the model. A copy lands no sooner than its barrier is looked
 * at, a product is done no sooner than its group is waited for. */
#ifndef OC_KERNELS_CUDA_WGMMA_CUH
#define OC_KERNELS_CUDA_WGMMA_CUH

#include <stdint.h>

void cu_barrier_make(uint32_t at, int n);
static inline void cu_barriers_made(void) {}
void cu_barrier_arrive(uint32_t at);
void cu_barrier_expect(uint32_t at, int bytes);
void cu_barrier_wait(uint32_t at, uint32_t parity);
void cu_bulk_copy(uint32_t to, const void *from, int bytes, uint32_t barrier);

void model_meet_threads(int n);
template <int N>
static inline void cu_meet(void) {
    model_meet_threads(N);
}

template <int N>
static inline void cu_registers_down(void) {}
template <int N>
static inline void cu_registers_up(void) {}

static inline uint64_t cu_operand(uint32_t at) {
    return (uint64_t)(at & 0x3ffff) >> 4 | (uint64_t)1 << 16 | (uint64_t)64 << 32 | (uint64_t)1 << 62;
}

static inline void cu_wgmma_begin(void) {}
void cu_wgmma_commit(void);
void model_wgmma_wait(int left);
template <int LEFT>
static inline void cu_wgmma_wait(void) {
    model_wgmma_wait(LEFT);
}

void model_wgmma(float *c, int n, uint64_t a, uint64_t b);
template <int N>
static inline void cu_wgmma(float c[N / 2], uint64_t a, uint64_t b) {
    model_wgmma(c, N, a, b);
}

#endif
