/* How much scratch the tiled drivers need. */
#include "kernels/tiled/tiled.h"

size_t oc_tiled_scratch_bytes(int64_t max_m, int64_t max_k, int max_hd, int n_threads) {
    size_t gemm = oc_tiled_gemm_thread_bytes() * (size_t)n_threads;
    size_t attn = oc_tiled_attn_thread_bytes(max_hd) * (size_t)n_threads;
    size_t gemv = oc_tiled_gemv_bytes(max_m < OC_D_SLICE ? max_m : OC_D_SLICE, max_k);
    size_t most = gemm > attn ? gemm : attn;
    most = most > gemv ? most : gemv;
    /* Of drivers that this ISA has no use for too, so that the need does not depend on the ISA chosen. */
    size_t bf16 = oc_tiled_gemm_bf16_bytes(max_m, max_k, n_threads);
    size_t tiles = oc_tiled_gemm_tiles_bytes(max_m, max_k, n_threads);
    size_t int16 = oc_tiled_gemm_int16_bytes(max_m, max_k, n_threads);
    most = most > bf16 ? most : bf16;
    size_t bytes = oc_tiled_gemm_bytes_bytes(max_m, max_k, n_threads);
    most = most > bytes ? most : bytes;
    most = most > int16 ? most : int16;
    return most > tiles ? most : tiles;
}
