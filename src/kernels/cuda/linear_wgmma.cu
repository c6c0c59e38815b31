/* The product of role P by wgmma, for compute capability 9.0; linear_p.cu has what goes before it and the sums' definition, which are the
 * same here: an element is the sum over k in order, by products of 16 k, whatever its tile.
 *
 * Transposed: 128 or 256 rows of W by N rows of x, so that N, which fits the tiles to the device, goes in small steps. A block is two
 * groups of four warps, each with 64 rows of W or twice that, and one that sends the copies. A stage of the ring is 64 k; its barrier
 * `full` counts the bytes, `empty` the eight warps that have done with it. Of a glu a group has 64 rows of the gate and the same of the up. */
#include "kernels/cuda/linear_p.cuh"
#include "kernels/cuda/wgmma.cuh"

#define CONSUMERS 256
#define THREADS (CONSUMERS + 128)
#define SMEM (227 * 1024)
#define BARRIERS 2048 /* bytes in front of the ring, whose tiles begin at multiples of 1024 */
#define MAX_STAGES 8
#define ROWS 4

/* W: products of 64 rows of W that a group has; N: rows of x. */
template <int W, int N>
struct tile {
    static constexpr int w_bytes = W * 2 * 8192, stage_bytes = w_bytes + N * 128;
    static constexpr int scales_at = BARRIERS / 2; /* of rows of x */
    static constexpr int fit = (SMEM - BARRIERS) / stage_bytes, stages = fit < MAX_STAGES ? fit : MAX_STAGES;
    static constexpr int stride = 128 * W + 4; /* of a row of sums, when they lie where the ring was */
    static constexpr int ring_bytes = stages * stage_bytes, sums_bytes = N * stride * 4;
    static constexpr int bytes = BARRIERS + (ring_bytes > sums_bytes ? ring_bytes : sums_bytes);
    static_assert(bytes <= SMEM, "it fits");
};

__device__ __forceinline__ uint32_t full_at(uint32_t smem, int stage) {
    return smem + stage * 16;
}

__device__ __forceinline__ uint32_t empty_at(uint32_t smem, int stage) {
    return smem + stage * 16 + 8;
}

/* One thread sends all copies of the tile. Rows of W past its end are its last ones once more: nobody takes their sums. */
template <int W, int N>
__device__ static void produce(const struct gemm &a, const struct target &w, uint32_t smem, int64_t m0, int64_t n0) {
    using T = tile<W, N>;
    const __half *high[2 * W], *low[2 * W];
#pragma unroll
    for (int q = 0; q < 2 * W; q++) {
        const struct target &t = a.glu ? a.w[q % 2] : w;
        int64_t at = n0 / 64 + (a.glu ? q / 2 : q), last = (t.n + CU_ROW_TILE - 1) / CU_ROW_TILE * (CU_ROW_TILE / 64) - 1;
        at = (at < last ? at : last) * a.blocks * 4096;
        high[q] = t.high + at, low[q] = t.low + at;
    }
    int stage = 0;
    uint32_t parity = 1;
    for (int pass = 0; pass < a.passes; pass++) {
        bool last = a.passes - pass == 1, w_low = a.passes == 3 && pass == 1;
        const __half *x = (last || w_low ? a.x_high : a.x_low) + m0 * 64;
        for (int64_t block = 0; block < a.blocks; block++) {
            uint32_t to = smem + BARRIERS + stage * T::stage_bytes, full = full_at(smem, stage);
            cu_barrier_wait(empty_at(smem, stage), parity);
            cu_barrier_expect(full, T::stage_bytes);
#pragma unroll
            for (int q = 0; q < 2 * W; q++) cu_bulk_copy(to + q * 8192, (w_low ? low[q] : high[q]) + block * 4096, 8192, full);
            cu_bulk_copy(to + T::w_bytes, x + block * a.x_rows * 64, N * 128, full);
            if (++stage == T::stages) stage = 0, parity ^= 1;
        }
    }
}

/* The sums of a group's rows over all of k. */
template <int W, int N>
__device__ __forceinline__ void consume(uint32_t smem, int64_t total, float c[W][N / 2]) {
    using T = tile<W, N>;
    int group = threadIdx.x / 128, stage = 0, before = 0;
    uint32_t parity = 0;
    bool speaks = threadIdx.x % 32 == 0;
    for (int64_t i = 0; i < total; i++) {
        uint32_t at = smem + BARRIERS + stage * T::stage_bytes;
        uint64_t w = cu_operand(at + group * W * 8192), x = cu_operand(at + T::w_bytes);
        cu_barrier_wait(full_at(smem, stage), parity);
        cu_wgmma_begin();
#pragma unroll
        for (int step = 0; step < 4; step++) {
#pragma unroll
            for (int p = 0; p < W; p++) cu_wgmma<N>(c[p], w + p * 512 + step * 2, x + step * 2);
        }
        cu_wgmma_commit();
        cu_wgmma_wait<1>();
        if (i > 0 && speaks) cu_barrier_arrive(empty_at(smem, before));
        before = stage;
        if (++stage == T::stages) stage = 0, parity ^= 1;
    }
    cu_wgmma_wait<0>();
}

/* To shared memory, rows of x by rows of W. */
template <int W, int N>
__device__ __forceinline__ void put_down(float *sums, const float c[W][N / 2]) {
    int lane = threadIdx.x % 32, group = threadIdx.x / 128, warp = threadIdx.x / 32 % 4;
#pragma unroll
    for (int p = 0; p < W; p++) {
        float *to = sums + lane % 4 * 2 * tile<W, N>::stride + (group * W + p) * 64 + warp * 16 + lane / 4;
#pragma unroll
        for (int i = 0; i < N / 2; i++) to[(i / 4 * 8 + i % 2) * tile<W, N>::stride + i / 2 % 2 * 8] = c[p][i];
    }
}

/* Scale and bias of four rows of W. */
struct four {
    float scale[4], bias[4];
    __device__ __forceinline__ void load(const struct target &w, int64_t n) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
            scale[e] = w.row_scale[n + e]; /* there are more than n */
            bias[e] = n + e < w.n && w.bias ? w.bias[n + e] : 0.0f;
        }
    }
};

/* From there to y: a lane has four columns of y, a warp every eighth row, of which ROWS are under way at once. */
template <int W, int N>
__device__ __forceinline__ void store(const struct gemm &a, const struct target &w, const float *sums, const float *scales, int64_t m0, int64_t n0) {
    using T = tile<W, N>;
    int lane = threadIdx.x % 32, columns = a.glu ? 64 * W : 128 * W;
#pragma unroll 1
    for (int column = lane * 4; column < columns; column += 128) {
        int64_t n = n0 + column;
        if (n >= w.n) break;
        struct four one, two;
        one.load(w, n);
        if (a.glu) two.load(a.w[1], n);
        const float *from = sums + (a.glu ? column / 64 * 128 + column % 64 : column);
        bool whole = w.aligned && n + 4 <= w.n;
#pragma unroll 1
        for (int first = threadIdx.x / 32; first < N && m0 + first < a.m; first += ROWS * (CONSUMERS / 32)) {
            __align__(16) float v[ROWS][4], up[ROWS][4], old[ROWS][4];
            float *y[ROWS];
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                int row = first + r * (CONSUMERS / 32);
                y[r] = w.y + (m0 + row) * w.ldy + n;
                if (row < N) *(float4 *)v[r] = *(const float4 *)(from + row * T::stride);
                if (row < N && a.glu) *(float4 *)up[r] = *(const float4 *)(from + row * T::stride + 64);
                if (!a.add || row >= N || m0 + row >= a.m) continue;
                if (whole) *(float4 *)old[r] = *(const float4 *)y[r];
#pragma unroll
                for (int e = 0; e < 4; e++)
                    if (!whole && n + e < w.n) old[r][e] = y[r][e];
            }
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                int row = first + r * (CONSUMERS / 32);
                if (row >= N || m0 + row >= a.m) break;
                float x_scale = scales[row];
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    v[r][e] = cu_act(a.act, v[r][e] * x_scale * one.scale[e] + one.bias[e]);
                    if (a.glu) v[r][e] *= up[r][e] * x_scale * two.scale[e] + two.bias[e];
                    if (a.add) v[r][e] += old[r][e];
                }
                if (whole) *(float4 *)y[r] = *(const float4 *)v[r];
#pragma unroll
                for (int e = 0; e < 4; e++)
                    if (!whole && n + e < w.n) y[r][e] = v[r][e];
            }
        }
    }
}

/* Grid: tiles of x, tiles of W; those of the same rows of W follow each other. The third group of warps sends the copies by one thread; the
 * registers it gives up are what the sums of the others need. */
template <int W, int N>
__global__ __launch_bounds__(THREADS, 1) static void wgmma_kernel(const __grid_constant__ struct gemm a) {
    using T = tile<W, N>;
    extern __shared__ __align__(1024) uint8_t smem[];
    uint32_t base = cu_smem(smem);
    if (threadIdx.x == 0) {
        for (int i = 0; i < T::stages; i++) {
            cu_barrier_make(full_at(base, i), 1);
            cu_barrier_make(empty_at(base, i), CONSUMERS / 32);
        }
        cu_barriers_made();
    }
    __syncthreads();
    cu_begin();
    int which = 0;
    while (!a.glu && which + 1 < a.n_w && blockIdx.y >= a.w[which + 1].first_tile) which++;
    const struct target &w = a.w[which];
    int64_t m0 = (int64_t)blockIdx.x * N, n0 = (blockIdx.y - w.first_tile) * (a.glu ? 64 * W : 128 * W);
    if (threadIdx.x >= CONSUMERS) {
        cu_registers_down<56>();
        if (threadIdx.x == CONSUMERS) produce<W, N>(a, w, base, m0, n0);
        __syncwarp();
    } else {
        cu_registers_up<224>();
        float c[W][N / 2], *scales = (float *)(void *)(smem + T::scales_at);
        if (threadIdx.x < N) scales[threadIdx.x] = m0 + threadIdx.x < a.m ? a.x_scale[m0 + threadIdx.x] : 0.0f;
#pragma unroll
        for (int i = 0; i < W * N / 2; i++) (&c[0][0])[i] = 0.0f;
        consume<W, N>(base, a.passes * a.blocks, c);
        cu_meet<CONSUMERS>();
        float *sums = (float *)(void *)(smem + BARRIERS);
        put_down<W, N>(sums, c);
        cu_meet<CONSUMERS>();
        store<W, N>(a, w, sums, scales, m0, n0);
    }
}

static int64_t tiles_of(const struct gemm *g, int w) {
    int64_t n = 0;
    if (g->glu) return (g->w[0].n + 64 * w - 1) / (64 * w);
    for (int i = 0; i < g->n_w; i++) n += (g->w[i].n + 128 * w - 1) / (128 * w);
    return n;
}

template <int W, int N>
static void prepare(void) {
    cu_check("a linear of role P", cudaFuncSetAttribute(wgmma_kernel<W, N>, cudaFuncAttributeMaxDynamicSharedMemorySize, tile<W, N>::bytes));
}

template <int W, int N>
static void launch(struct cu_state *s, struct gemm *g) {
    using T = tile<W, N>;
    int64_t at = 0;
    for (int i = 0; i < g->n_w && !g->glu; i++) g->w[i].first_tile = at, at += (g->w[i].n + 128 * W - 1) / (128 * W);
    dim3 grid((unsigned)((g->m + N - 1) / N), (unsigned)tiles_of(g, W));
    cu_launch(wgmma_kernel<W, N>, grid, THREADS, T::bytes, s, *g);
    cu_launched("a linear of role P");
}

struct choice {
    int w, n;
    void (*launch)(struct cu_state *s, struct gemm *g);
    void (*prepare)(void);
};

#define ONE(w, n) {w, n, launch<w, n>, prepare<w, n>}
static const struct choice choices[] = {
    ONE(1, 32), ONE(1, 64), ONE(1, 96),  ONE(1, 128), ONE(1, 160), ONE(2, 32),
    ONE(2, 64), ONE(2, 96), ONE(2, 128), ONE(2, 144), ONE(2, 160), ONE(2, 176),
};
#undef ONE

void cu_wgmma_prepare(void) {
    for (size_t i = 0; i < sizeof choices / sizeof choices[0]; i++) choices[i].prepare();
}

/* Cycles that the whole product takes by these tiles, in turns of all multiprocessors: a block of 64 k is bound by the tensor cores (2,048
 * products a cycle) or by what comes from L2 (60 bytes a cycle, measured); a tile costs its beginning and its end beside that. */
static double cost_of(const struct cu_state *s, const struct gemm *g, const struct choice *c) {
    int64_t tiles = (g->m + c->n - 1) / c->n * tiles_of(g, c->w), turns = (tiles + s->n_sms - 1) / s->n_sms;
    double area = 128.0 * c->w * c->n, products = area / 32, bytes = (128.0 * c->w + c->n) * 128 / 60;
    return (double)turns * ((double)(g->passes * g->blocks) * (products > bytes ? products : bytes) + 4000 + area / 2);
}

bool cu_gemm_wgmma(struct cu_state *s, struct gemm *g) {
    const struct choice *best = NULL;
    double least = 0;
    if (!s->has_wgmma) return false;
    for (size_t i = 0; i < sizeof choices / sizeof choices[0]; i++) {
        if (g->glu && choices[i].w != 2) continue;
        double cost = cost_of(s, g, &choices[i]);
        if (!best || cost < least) best = &choices[i], least = cost;
    }
    best->launch(s, g);
    return true;
}
