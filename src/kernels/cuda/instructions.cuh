/* kernels/cuda/instructions.cuh - instructions that the language has no words for.
 *
 * Fragments: lane 4 g + t of a warp holds of A [16, 16] rows g and g + 8, columns 2t, 2t + 1 and 2t + 8, 2t + 9 (registers in the order
 * row, then column); of B [16, 8] rows 2t, 2t + 1 and 2t + 8, 2t + 9 of column g; of C [16, 8] columns 2t, 2t + 1 of rows g and g + 8. */
#ifndef OC_KERNELS_CUDA_INSTRUCTIONS_CUH
#define OC_KERNELS_CUDA_INSTRUCTIONS_CUH

#include <stdint.h>

/* Launches a kernel that begins with cu_begin(): on Hopper and newer its blocks may start, as far as that, while the kernel before it
 * ends. Of `s` it takes stream and overlaps. */
template <class S, class... P, class... A>
static inline void cu_launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t smem, const S *s, const A &...args) {
    cudaLaunchAttribute overlap;
    overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    overlap.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t c = {};
    c.gridDim = grid, c.blockDim = block, c.dynamicSmemBytes = smem, c.stream = s->stream;
    c.attrs = &overlap, c.numAttrs = s->overlaps ? 1 : 0;
    cudaLaunchKernelEx(&c, kernel, P(args)...);
}

/* Waits for the end of the kernels before this one, whose results it may then read; what they do not write may be read sooner. */
__device__ __forceinline__ void cu_begin(void) {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/* c += a b. */
__device__ __forceinline__ void cu_mma_bf16(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ void cu_mma_f16(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* Four 8 x 8 matrices of 16 bits; lane i's address is row i % 8 of matrix i / 8. The second transposes. */
__device__ __forceinline__ void cu_ldmatrix4(uint32_t r[4], uint32_t at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

__device__ __forceinline__ void cu_ldmatrix4_t(uint32_t r[4], uint32_t at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

/* The address that the instructions above and below want. */
__device__ __forceinline__ uint32_t cu_smem(const void *p) {
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* 16 bytes to shared memory, in the background; a commit ends a group, a wait leaves at most N groups under way. */
__device__ __forceinline__ void cu_copy16(uint32_t to, const void *from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}

__device__ __forceinline__ void cu_copies_commit(void) {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int N>
__device__ __forceinline__ void cu_copies_wait(void) {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/* 16 bytes that nobody else will want. */
__device__ __forceinline__ uint4 cu_load_once(const uint8_t *p) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
    return v;
}

/* a b + c of two bf16. */
__device__ __forceinline__ uint32_t cu_fma_bf16(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t d;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
}

#endif
