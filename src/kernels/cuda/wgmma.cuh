/* kernels/cuda/wgmma.cuh - instructions of compute capability 9.0a alone: barriers in shared memory, bulk copies, and products of a group of
 * four warps. For files that are compiled for that and nothing else. */
#ifndef OC_KERNELS_CUDA_WGMMA_CUH
#define OC_KERNELS_CUDA_WGMMA_CUH

#include <stdint.h>

/* A barrier of `n` arrivals; phases end in turn, of parity 0 first. After cu_barriers_made() and a __syncthreads() all may use it. */
__device__ __forceinline__ void cu_barrier_make(uint32_t at, int n) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(at), "r"(n) : "memory");
}

__device__ __forceinline__ void cu_barriers_made(void) {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

__device__ __forceinline__ void cu_barrier_arrive(uint32_t at) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(at) : "memory");
}

/* Arrives; the phase ends no sooner than `bytes` have been copied. */
__device__ __forceinline__ void cu_barrier_expect(uint32_t at, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(at), "r"(bytes) : "memory");
}

/* Returns when a phase of this parity has ended: at once when none of the other parity has begun. */
__device__ __forceinline__ void cu_barrier_wait(uint32_t at, uint32_t parity) {
    uint32_t done;
    do {
        asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.b32 %0, 1, 0, p;\n}"
                     : "=r"(done)
                     : "r"(at), "r"(parity)
                     : "memory");
    } while (!done);
}

/* Bytes of device memory into shared memory in the background, counted by a barrier; multiples of 16. */
__device__ __forceinline__ void cu_bulk_copy(uint32_t to, const void *from, int bytes, uint32_t barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to), "l"(from), "r"(bytes),
                 "r"(barrier)
                 : "memory");
}

/* Threads 0 .. n-1 of the block meet, n a multiple of 32. */
template <int N>
__device__ __forceinline__ void cu_meet(void) {
    asm volatile("bar.sync 1, %0;" ::"n"(N) : "memory");
}

/* Gives up or takes registers, as many as a thread then has; all threads of a group of four warps. */
template <int N>
__device__ __forceinline__ void cu_registers_down(void) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

template <int N>
__device__ __forceinline__ void cu_registers_up(void) {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}

/* A tile of rows of 128 bytes, swizzled, as an operand. */
__device__ __forceinline__ uint64_t cu_operand(uint32_t at) {
    return (uint64_t)(at & 0x3ffff) >> 4 | (uint64_t)1 << 16 | (uint64_t)64 << 32 | (uint64_t)1 << 62;
}

__device__ __forceinline__ void cu_wgmma_begin(void) {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ __forceinline__ void cu_wgmma_commit(void) {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/* At most LEFT groups of products are under way. */
template <int LEFT>
__device__ __forceinline__ void cu_wgmma_wait(void) {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
}

/* c [64, N] += a [64, 16] b [N, 16]^T of f16. Warp w of the group has rows 16 w .. 16 w + 15, in fragments as instructions.cuh describes them,
 * one for each 8 columns. */
template <int N>
__device__ __forceinline__ void cu_wgmma(float c[N / 2], uint64_t a, uint64_t b);

#define C8(i) \
    "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3]), "+f"(c[i + 4]), "+f"(c[i + 5]), "+f"(c[i + 6]), "+f"(c[i + 7])
#define C16(i) C8(i), C8(i + 8)
#define C32(i) C16(i), C16(i + 16)
#define C64(i) C32(i), C32(i + 32)
#define R0 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15"
#define R16 ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define R32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47"
#define R48 ",%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define R64 ",%64,%65,%66,%67,%68,%69,%70,%71"
#define R72 ",%72,%73,%74,%75,%76,%77,%78,%79"
#define R80 ",%80,%81,%82,%83,%84,%85,%86,%87"
#define CU_WGMMA(n, registers, operands, ...)                                                                                                 \
    template <>                                                                                                                               \
    __device__ __forceinline__ void cu_wgmma<n>(float c[n / 2], uint64_t a, uint64_t b) {                                                     \
        asm volatile("{\n.reg .pred p;\nsetp.eq.u32 p, 1, 1;\nwgmma.mma_async.sync.aligned.m64n" #n "k16.f32.f16.f16 {" registers "}, " operands \
                     ", p, 1, 1, 0, 0;\n}"                                                                                                    \
                     : __VA_ARGS__                                                                                                            \
                     : "l"(a), "l"(b));                                                                                                       \
    }
CU_WGMMA(32, R0, "%16, %17", C16(0))
CU_WGMMA(64, R0 R16, "%32, %33", C32(0))
CU_WGMMA(96, R0 R16 R32, "%48, %49", C32(0), C16(32))
CU_WGMMA(128, R0 R16 R32 R48, "%64, %65", C64(0))
CU_WGMMA(144, R0 R16 R32 R48 R64, "%72, %73", C64(0), C8(64))
CU_WGMMA(160, R0 R16 R32 R48 R64 R72, "%80, %81", C64(0), C16(64))
CU_WGMMA(176, R0 R16 R32 R48 R64 R72 R80, "%88, %89", C64(0), C16(64), C8(80))
#undef CU_WGMMA
#undef C8
#undef C16
#undef C32
#undef C64
#undef R0
#undef R16
#undef R32
#undef R48
#undef R64
#undef R72
#undef R80

#endif
