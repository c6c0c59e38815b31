/* The instructions of src/kernels/cuda/instructions.cuh, as their manual has them, for the model. */
#ifndef OC_KERNELS_CUDA_INSTRUCTIONS_CUH
#define OC_KERNELS_CUDA_INSTRUCTIONS_CUH

#include "cuda_bf16.h"
#include "cuda_fp16.h"

template <class S, class... P, class... A>
static inline void cu_launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t smem, const S *, const A &...args) {
    model_launch([&] { kernel(P(args)...); }, grid, block, smem);
}

static inline void cu_begin(void) {}

struct model_mma {
    float *c;
    const uint32_t *a;
    uint32_t b[2];
    bool bf16;
};

static inline float model_value(uint32_t pair, int half, bool bf16) {
    uint32_t bits = half ? pair >> 16 : pair & 0xffffu;
    return bf16 ? __uint_as_float(bits << 16) : __half2float(__ushort_as_half((unsigned short)bits));
}

static inline void model_do_mma(void *const *all) {
    float a[16][16], b[16][8];
    for (int lane = 0; lane < 32; lane++) {
        const struct model_mma *m = (const struct model_mma *)all[lane];
        int g = lane / 4, t = lane % 4;
        for (int half = 0; half < 2; half++) {
            a[g][2 * t + half] = model_value(m->a[0], half, m->bf16);
            a[g + 8][2 * t + half] = model_value(m->a[1], half, m->bf16);
            a[g][2 * t + 8 + half] = model_value(m->a[2], half, m->bf16);
            a[g + 8][2 * t + 8 + half] = model_value(m->a[3], half, m->bf16);
            b[2 * t + half][g] = model_value(m->b[0], half, m->bf16);
            b[2 * t + 8 + half][g] = model_value(m->b[1], half, m->bf16);
        }
    }
    for (int lane = 0; lane < 32; lane++) {
        float *c = ((const struct model_mma *)all[lane])->c;
        for (int i = 0; i < 4; i++) {
            int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
            double sum = 0;
            for (int k = 0; k < 16; k++) sum += (double)a[row][k] * b[k][column];
            c[i] = (float)(c[i] + sum);
        }
    }
}

static inline void cu_mma_bf16(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1) {
    struct model_mma m = {c, a, {b0, b1}, true};
    model_meet(&m, model_do_mma);
}

static inline void cu_mma_f16(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1) {
    struct model_mma m = {c, a, {b0, b1}, false};
    model_meet(&m, model_do_mma);
}

struct model_matrix {
    uint32_t *r, at;
    bool transpose;
};

/* Of the model: aborts when the 16 bytes are not shared memory of the block or not aligned. */
const uint8_t *model_shared(uint32_t at, size_t bytes);

static inline void model_do_ldmatrix(void *const *all) {
    uint16_t rows[32][8];
    for (int i = 0; i < 32; i++) memcpy(rows[i], model_shared(((struct model_matrix *)all[i])->at, 16), 16);
    for (int lane = 0; lane < 32; lane++) {
        struct model_matrix *m = (struct model_matrix *)all[lane];
        for (int i = 0; i < 4; i++) {
            int g = lane / 4, t = 2 * (lane % 4);
            uint32_t low = m->transpose ? rows[i * 8 + t][g] : rows[i * 8 + g][t];
            uint32_t high = m->transpose ? rows[i * 8 + t + 1][g] : rows[i * 8 + g][t + 1];
            m->r[i] = low | high << 16;
        }
    }
}

static inline void cu_ldmatrix4(uint32_t r[4], uint32_t at) {
    struct model_matrix m = {r, at, false};
    model_meet(&m, model_do_ldmatrix);
}

static inline void cu_ldmatrix4_t(uint32_t r[4], uint32_t at) {
    struct model_matrix m = {r, at, true};
    model_meet(&m, model_do_ldmatrix);
}

static inline uint32_t cu_smem(const void *p) {
    return (uint32_t)((const uint8_t *)p - model_smem);
}

/* A copy lands when its group is waited for, no sooner. */
void cu_copy16(uint32_t to, const void *from);
void cu_copies_commit(void);
void model_copies_wait(int left);
template <int N>
static inline void cu_copies_wait(void) {
    model_copies_wait(N);
}

static inline uint4 cu_load_once(const uint8_t *p) {
    return *(const uint4 *)p;
}

static inline uint32_t cu_fma_bf16(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t out = 0;
    for (int half = 0; half < 2; half++) {
        double v = (double)model_value(a, half, true) * model_value(b, half, true) + model_value(c, half, true);
        out |= (uint32_t)__float2bfloat16_rn((float)v).bits << 16 * half;
    }
    return out;
}

#endif
