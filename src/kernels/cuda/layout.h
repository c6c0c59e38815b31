/* kernels/cuda/layout.h - where each bit of a weight lies on the device. Plain C: the CPU's tests read it too.
 *
 * A weight [n, k] is cut into blocks of 16 rows by 64 k, padded with zeros, blocks of the same rows one after the other. A block
 * is what 32 lanes of a warp feed to four products of 16 x 16 by 16 x 8 (mma.m16n8k16, the weight being A): each lane reads
 * 16 bytes at a time, and finds in them the registers of the product, whatever the format. Lane 4 g + t holds rows g and g + 8,
 * and of each 16 k the pairs 2t, 2t + 1 and 2t + 8, 2t + 9. */
#ifndef OC_KERNELS_CUDA_LAYOUT_H
#define OC_KERNELS_CUDA_LAYOUT_H

#include <stdint.h>

#ifdef __CUDACC__
#define OC_CU_FN static __host__ __device__ __forceinline__
#else
#define OC_CU_FN static inline
#endif

/* How weights are stored on the device. */
enum oc_cu_format { OC_CU_Q4, OC_CU_Q8, OC_CU_BF16, OC_CU_F16, OC_CU_F32, OC_CU_N_FORMATS };

OC_CU_FN int oc_cu_bits(int format) {
    return format == OC_CU_Q4 ? 4 : format == OC_CU_Q8 ? 8 : format == OC_CU_F32 ? 32 : 16;
}

/* Bytes of a block of 16 x 64. */
OC_CU_FN int oc_cu_block_bytes(int format) {
    return 128 * oc_cu_bits(format);
}

/* Where element (row, k) of a block lies: in the product of k's 16 (step), register reg of lane, half `half`. */
struct oc_cu_place {
    int step, lane, reg, half;
};

OC_CU_FN struct oc_cu_place oc_cu_place_of(int row, int k) {
    struct oc_cu_place p;
    int kk = k % 16;
    p.step = k / 16;
    p.lane = row % 8 * 4 + kk % 8 / 2;
    p.reg = row / 8 + kk / 8 * 2;
    p.half = kk & 1;
    return p;
}

/* The inverse: row and k (of the block) that a place holds. */
OC_CU_FN int oc_cu_row_of(struct oc_cu_place p) {
    return p.lane / 4 + 8 * (p.reg & 1);
}

OC_CU_FN int oc_cu_k_of(struct oc_cu_place p) {
    return 16 * p.step + 2 * (p.lane % 4) + 8 * (p.reg >> 1) + p.half;
}

/* The bit at which the element starts, counted from the start of the block. Words of a lane are 16 bytes of 512, the next
 * words of it 512 bytes on. Nibbles of a word: register r's halves at 4r and 4r + 16. Bytes: even registers' at 0 and 16,
 * odd ones' at 8 and 24. */
OC_CU_FN int oc_cu_bit_of(int format, struct oc_cu_place p) {
    int word, shift;
    if (format == OC_CU_Q4) {
        word = p.step, shift = 4 * p.reg + 16 * p.half;
    } else if (format == OC_CU_Q8) {
        word = 2 * p.step + (p.reg >> 1), shift = 8 * (p.reg & 1) + 16 * p.half;
    } else if (format == OC_CU_F32) {
        word = (4 * p.step + p.reg) * 2 + p.half, shift = 0;
    } else {
        word = 4 * p.step + p.reg, shift = 16 * p.half;
    }
    return (word / 4 * 512 + p.lane * 16 + word % 4 * 4) * 8 + shift;
}

/* The place that starts at `bit` of a block: the inverse of the last. */
OC_CU_FN struct oc_cu_place oc_cu_place_at(int format, int bit) {
    struct oc_cu_place p;
    int byte = bit / 8, word = byte / 512 * 4 + byte % 16 / 4, shift = bit % 32;
    p.lane = byte % 512 / 16;
    if (format == OC_CU_Q4) {
        p.step = word, p.reg = shift % 16 / 4, p.half = shift / 16;
    } else if (format == OC_CU_Q8) {
        p.step = word / 2, p.reg = word % 2 * 2 + shift % 16 / 8, p.half = shift / 16;
    } else if (format == OC_CU_F32) {
        p.step = word / 8, p.reg = word / 2 % 4, p.half = word % 2;
    } else {
        p.step = word / 4, p.reg = word % 4, p.half = shift / 16;
    }
    return p;
}

/* Scales of quantised weights: a set of 16 pairs (scale, zero_bias) for each block, or for each half block of 32 k when
 * `sets` is 2. Rows g and g + 8 lie side by side. Index of a row's pair in a set: */
OC_CU_FN int oc_cu_pair_of(int row) {
    return row % 8 * 2 + row / 8;
}

#endif
