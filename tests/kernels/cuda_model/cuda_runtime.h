/* A model of CUDA on the CPU, enough for src/kernels/cuda: its memory is ordinary memory, a kernel runs block by block, the threads of
 * a block are fibers. What the language has no words for is in kernels/cuda/instructions.cuh beside this. It is for checking indices,
 * barriers and sums, not for speed; rounding inside the tensor cores is that of f32 sums in order. */
#ifndef OC_TESTS_CUDA_MODEL_H
#define OC_TESTS_CUDA_MODEL_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <functional>

#define __host__
#define __device__
#define __global__
#define __shared__ static
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
struct __attribute__((aligned(8))) float2 { float x, y; };
struct __attribute__((aligned(16))) float4 { float x, y, z, w; };
struct __attribute__((aligned(8))) uint2 { uint32_t x, y; };
struct __attribute__((aligned(16))) uint4 { uint32_t x, y, z, w; };
static inline float2 make_float2(float x, float y) { return float2{x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return float4{x, y, z, w}; }
static inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return uint4{x, y, z, w}; }

extern dim3 threadIdx, blockIdx, blockDim, gridDim;
extern uint8_t *model_smem; /* dynamic shared memory of the block */
extern size_t model_smem_bytes;

typedef struct model_stream *cudaStream_t;
void model_launch(const std::function<void(void)> &kernel, dim3 grid, dim3 block, size_t smem);

void __syncthreads(void);
void __syncwarp(void);
/* All lanes of the warp meet; fn sees what each brought. */
void model_meet(void *mine, void (*fn)(void *const *all));

struct model_shuffle {
    float v, out;
    int mask;
};
static inline void model_do_shuffle(void *const *all) {
    for (int i = 0; i < 32; i++) {
        struct model_shuffle *s = (struct model_shuffle *)all[i];
        s->out = ((struct model_shuffle *)all[i ^ s->mask])->v;
    }
}
static inline float __shfl_xor_sync(unsigned, float v, int mask) {
    struct model_shuffle s = {v, 0, mask};
    model_meet(&s, model_do_shuffle);
    return s.out;
}

template <class T>
static inline T __ldg(const T *p) { return *p; }
static inline float __uint_as_float(uint32_t u) {
    float f;
    memcpy(&f, &u, 4);
    return f;
}
static inline uint32_t __float_as_uint(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}
static inline int min(int a, int b) { return a < b ? a : b; }
static inline int max(int a, int b) { return a > b ? a : b; }

enum cudaError_t { cudaSuccess = 0, cudaErrorMemoryAllocation = 2 };
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost };
enum { cudaStreamNonBlocking, cudaFuncAttributeMaxDynamicSharedMemorySize, cudaErrorInvalid };
struct cudaDeviceProp {
    char name[256];
    int multiProcessorCount, major, minor;
};
static inline const char *cudaGetErrorString(cudaError_t) { return "out of memory"; }
static inline cudaError_t cudaGetLastError(void) { return cudaSuccess; }
static inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
static inline cudaError_t cudaGetDeviceCount(int *n) { *n = 1; return cudaSuccess; }
static inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int) {
    *p = cudaDeviceProp{"model", 2, OC_CUDA_MODEL_MAJOR, 0};
    return cudaSuccess;
}
static inline cudaError_t cudaMemGetInfo(size_t *f, size_t *t) { *f = (size_t)1 << 30, *t = (size_t)1 << 30; return cudaSuccess; }
template <class T>
static inline cudaError_t cudaMalloc(T **p, size_t n) {
    if (n > (size_t)1 << 33) return cudaErrorMemoryAllocation;
    *p = (T *)aligned_alloc(256, (n + 255) / 256 * 256);
    return cudaSuccess;
}
template <class T>
static inline cudaError_t cudaMallocHost(T **p, size_t n) { return cudaMalloc(p, n); }
static inline cudaError_t cudaFree(void *p) { free(p); return cudaSuccess; }
static inline cudaError_t cudaFreeHost(void *p) { return cudaFree(p); }
static inline cudaError_t cudaMemcpyAsync(void *d, const void *s, size_t n, cudaMemcpyKind, cudaStream_t) { memcpy(d, s, n); return cudaSuccess; }
static inline cudaError_t cudaMemsetAsync(void *d, int v, size_t n, cudaStream_t) { memset(d, v, n); return cudaSuccess; }
static inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
static inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, int) { *s = nullptr; return cudaSuccess; }
static inline cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
typedef int cudaEvent_t;
enum { cudaEventDisableTiming };
static inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, int) { *e = 1; return cudaSuccess; }
static inline cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return cudaSuccess; }
static inline cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
static inline cudaError_t cudaEventDestroy(cudaEvent_t) { return cudaSuccess; }
template <class F>
static inline cudaError_t cudaFuncSetAttribute(F *, int, int) { return cudaSuccess; }

#endif
