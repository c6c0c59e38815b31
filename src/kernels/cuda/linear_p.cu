/* Role P of the linear ops: many rows of x, on f16 tensor cores with f32 sums.
 *
 * f16 has the 11 bits of TF32 at twice its rate; what it lacks is range, and that is given back by powers of two: each row of x
 * and each row of W is multiplied by the 2^e that puts its largest element into 2^14 .. 2^15, and the sum is divided again. Only what
 * is below 2^-29 of its row's largest element has fewer bits.
 *
 * Weights of bf16 and quantised ones, and the x they meet, are rounded to 11 bits, once. Where a weight is f32 or f16, both are sums of
 * two f16 (22 bits), and the products low x high, high x low and high x high go into one sum in this order; f16 weights have no low.
 *
 * An element is the sum over k in order, by products of 16 k, whatever tile it lies in: tiles move no k. W is kept expanded
 * while there is room for it, else expanded in slices of its rows into a workspace at each call: the same bits. */
#include "kernels/cuda/linear_p.cuh"

#define TILE_K 64
#define STAGES 3
#define THREADS 128

/* Tiles of M rows of x by N rows of W; four warps, a quarter each. */
template <int M, int N>
struct tile {
    static constexpr int stage_bytes = (M + N) * TILE_K * 2, bytes = STAGES * stage_bytes;
    static_assert(M * (N + 4) * 4 <= bytes, "the sums fit where the tiles were");
    static constexpr int rows = M / 32, columns = N / 16; /* of a warp, in products of 16 by 8 */
};

struct narrow {
    const float *x;
    int64_t ldx, k, blocks, x_rows;
    bool aligned; /* rows of x to 16 bytes */
    __half *high, *low; /* low may be NULL */
    float *scales;
};

/* Eight elements of a row from k on, those past its end being zeros. */
__device__ __forceinline__ void eight(float v[8], const struct narrow &a, const float *x, int64_t k) {
    if (a.aligned && k + 8 <= a.k) {
        *(float4 *)v = *(const float4 *)(x + k), *(float4 *)(v + 4) = *(const float4 *)(x + k + 4);
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = k + i < a.k ? x[k + i] : 0.0f;
}

/* A block a row of x: its scale, then its elements in f16, 16 bytes a thread. */
__global__ __launch_bounds__(256) static void narrow_kernel(struct narrow a) {
    cu_begin();
    __shared__ float parts[8];
    int64_t row = blockIdx.x;
    const float *x = a.x + row * a.ldx;
    __align__(16) float v[8];
    float most = 0.0f;
    for (int64_t i = threadIdx.x; i < a.blocks * 8; i += 256) {
        eight(v, a, x, i * 8);
#pragma unroll
        for (int e = 0; e < 8; e++) most = fmaxf(most, fabsf(v[e]));
    }
    for (int i = 16; i > 0; i /= 2) most = fmaxf(most, __shfl_xor_sync(~0u, most, i));
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = most;
    __syncthreads();
    most = parts[0];
    for (int i = 1; i < 8; i++) most = fmaxf(most, parts[i]);
    int exponent = 15;
    if (most > 0.0f && isfinite(most)) frexpf(most, &exponent);
    int e = min(max(15 - exponent, -126), 126);
    float up = ldexpf(1.0f, e);
    if (threadIdx.x == 0) a.scales[row] = ldexpf(1.0f, -e);
    for (int64_t i = threadIdx.x; i < a.blocks * 8; i += 256) {
        __align__(16) __half2 high[4], low[4];
        int64_t to = (i / 8 * a.x_rows + row) * 8 + (i % 8 ^ (row & 7));
        eight(v, a, x, i * 8);
#pragma unroll
        for (int p = 0; p < 4; p++) {
            float v0 = v[2 * p] * up, v1 = v[2 * p + 1] * up;
            high[p] = __floats2half2_rn(v0, v1);
            low[p] = __floats2half2_rn(v0 - __low2float(high[p]), v1 - __high2float(high[p]));
        }
        ((uint4 *)a.high)[to] = *(const uint4 *)high;
        if (a.low) ((uint4 *)a.low)[to] = *(const uint4 *)low;
    }
}

/* Where 16 bytes `chunk` of a tile's row lie: chunks are exchanged by the row, so that eight rows' are in different banks. */
__device__ __forceinline__ uint32_t at_tile(uint32_t tile, int row, int chunk) {
    return tile + row * 128 + (chunk ^ (row & 7)) * 16;
}

/* What a thread copies: 16 bytes of every 16th row of x, and of W, whose tile is of a glu half gate and half up. */
struct source {
    const __half *x_high, *x_low, *w_high[2], *w_low[2];
    int64_t x_block; /* elements of a block of x */
};

/* Where row n of W begins: of its first block of k. */
__device__ __forceinline__ int64_t row_at(int64_t blocks, int64_t n) {
    return n / 64 * blocks * 4096 + n % 64 * 64;
}

template <int M, int N>
__device__ __forceinline__ void load_tile(const struct source &s, uint32_t stage, int pass, int n_passes, int64_t block) {
    bool last = n_passes - pass == 1, w_low = n_passes == 3 && pass == 1, x_high = last || w_low;
    const __half *x = (x_high ? s.x_high : s.x_low) + block * s.x_block;
    const __half *w[2] = {(w_low ? s.w_low[0] : s.w_high[0]) + block * 4096, (w_low ? s.w_low[1] : s.w_high[1]) + block * 4096};
    uint32_t to = stage + threadIdx.x * 16;
#pragma unroll
    for (int i = 0; i < M / 16; i++) cu_copy16(to + i * 2048, x + i * 1024);
#pragma unroll
    for (int i = 0; i < N / 16; i++) cu_copy16(to + M * 128 + i * 2048, w[i / (N / 32)] + i % (N / 32) * 1024);
}

/* The row of the W tile at which the warp's 8 columns j begin: of a glu, the first half of them are the gate's. */
template <int N>
__device__ __forceinline__ int w_row(bool glu, int warp_n, int j) {
    return glu ? j / (N / 32) * (N / 2) + warp_n * (N / 4) + j % (N / 32) * 8 : warp_n * (N / 2) + j * 8;
}

template <int M, int N>
__device__ __forceinline__ void multiply(uint32_t stage, bool glu, float c[M / 32][N / 16][4]) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warp_m = warp / 2, warp_n = warp % 2;
#pragma unroll
    for (int step = 0; step < TILE_K / 16; step++) {
        uint32_t a[M / 32][4], b[N / 32][4];
#pragma unroll
        for (int i = 0; i < M / 32; i++)
            cu_ldmatrix4(a[i], at_tile(stage, warp_m * (M / 2) + i * 16 + lane % 16, step * 2 + lane / 16));
#pragma unroll
        for (int j = 0; j < N / 32; j++) {
            int row = w_row<N>(glu, warp_n, 2 * j) + lane % 8 + lane / 16 * 8;
            cu_ldmatrix4(b[j], at_tile(stage + M * 128, row, step * 2 + lane / 8 % 2));
        }
#pragma unroll
        for (int i = 0; i < M / 32; i++) {
#pragma unroll
            for (int j = 0; j < N / 16; j++) cu_mma_f16(c[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
        }
    }
}

/* The sums of a tile go to shared memory, rows of N + 4, and from there in whole rows to y: bounds, scales, bias and activation then
 * cost a short loop, not code for each of 128 sums. */
template <int M, int N>
__device__ __forceinline__ void put_down(float *sums, bool glu, const float c[M / 32][N / 16][4]) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int i = 0; i < M / 32; i++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float *row = sums + (warp / 2 * (M / 2) + i * 16 + half * 8 + lane / 4) * (N + 4) + lane % 4 * 2;
#pragma unroll
            for (int j = 0; j < N / 16; j++)
                *(float2 *)(row + w_row<N>(glu, warp % 2, j)) = make_float2(c[i][j][half * 2], c[i][j][half * 2 + 1]);
        }
    }
}

template <int M, int N>
__device__ __forceinline__ void store(const struct gemm &a, const struct target &w, const float *sums, int64_t m0, int64_t n0) {
    int columns = a.glu ? N / 2 : N;
    for (int at = threadIdx.x * 4; at < M * columns; at += THREADS * 4) {
        int row = at / columns, column = at % columns;
        int64_t m = m0 + row, n = n0 + column;
        if (m >= a.m || n >= w.n) continue;
        float4 c = *(const float4 *)(sums + row * (N + 4) + column), c2 = c;
        if (a.glu) c2 = *(const float4 *)(sums + row * (N + 4) + N / 2 + column);
        float v[4] = {c.x, c.y, c.z, c.w}, up[4] = {c2.x, c2.y, c2.z, c2.w}, x_scale = a.x_scale[m], *y = w.y + m * w.ldy + n;
#pragma unroll
        for (int e = 0; e < 4; e++) {
            if (n + e >= w.n) continue;
            v[e] = cu_act(a.act, finished(w, v[e], x_scale, n + e));
            if (a.glu) v[e] *= finished(a.w[1], up[e], x_scale, n + e);
            if (a.add) v[e] += y[e];
        }
        if (w.aligned && n + 4 <= w.n) {
            *(float4 *)y = make_float4(v[0], v[1], v[2], v[3]);
            continue;
        }
        for (int e = 0; e < 4 && n + e < w.n; e++) y[e] = v[e];
    }
}

/* Tiles of the same rows of W follow each other in the grid: W then comes from the cache. */
template <int M, int N>
__global__ __launch_bounds__(THREADS, 2) static void gemm_kernel(const __grid_constant__ struct gemm a) {
    using T = tile<M, N>;
    cu_begin();
    extern __shared__ __align__(128) uint8_t smem[];
    int64_t m0 = (int64_t)blockIdx.x * M, tile_n = blockIdx.y;
    int which = 0;
    while (!a.glu && which + 1 < a.n_w && tile_n >= a.w[which + 1].first_tile) which++;
    const struct target &w = a.w[which];
    int64_t n0 = (tile_n - w.first_tile) * (a.glu ? N / 2 : N);
    const struct target &second = a.glu ? a.w[1] : w;
    int64_t mine = threadIdx.x * 8, x_at = m0 * 64 + mine, w_at = row_at(a.blocks, n0) + mine;
    int64_t second_at = row_at(a.blocks, a.glu ? n0 : n0 + N / 2) + mine;
    struct source s = {a.x_high + x_at, a.x_low + x_at, {w.high + w_at, second.high + second_at}, {w.low + w_at, second.low + second_at},
                       a.x_rows * 64};
    float c[T::rows][T::columns][4];
#pragma unroll
    for (int i = 0; i < T::rows * T::columns * 4; i++) (&c[0][0][0])[i] = 0.0f;
    int pass_to_load = 0;
    int64_t block_to_load = 0, total = a.passes * a.blocks;
    uint32_t base = cu_smem(smem);
    for (int i = 0; i < STAGES - 1; i++) {
        if (pass_to_load < a.passes) load_tile<M, N>(s, base + i * T::stage_bytes, pass_to_load, a.passes, block_to_load);
        if (++block_to_load == a.blocks) block_to_load = 0, pass_to_load++;
        cu_copies_commit();
    }
    int stage = 0;
    for (int64_t i = 0; i < total; i++) {
        cu_copies_wait<STAGES - 2>();
        __syncthreads();
        int ahead = stage == 0 ? STAGES - 1 : stage - 1;
        if (pass_to_load < a.passes) load_tile<M, N>(s, base + ahead * T::stage_bytes, pass_to_load, a.passes, block_to_load);
        if (++block_to_load == a.blocks) block_to_load = 0, pass_to_load++;
        cu_copies_commit();
        multiply<M, N>(base + stage * T::stage_bytes, a.glu, c);
        stage = stage + 1 == STAGES ? 0 : stage + 1;
    }
    __syncthreads();
    put_down<M, N>((float *)(void *)smem, a.glu, c);
    __syncthreads();
    store<M, N>(a, w, (const float *)(const void *)smem, m0, n0);
}

/* Some weight is f32 or f16: then the whole op is done with 22 bits. */
static bool is_exact(const struct cu_linear *a) {
    for (int i = 0; i < a->n_w; i++) {
        int format = cu_weight_of(a->w[i])->format;
        if (format == OC_CU_F32 || format == OC_CU_F16) return true;
    }
    return false;
}

static int passes_of(const struct cu_linear *a) {
    if (!is_exact(a)) return 1;
    for (int i = 0; i < a->n_w; i++) {
        int format = cu_weight_of(a->w[i])->format;
        if (format != OC_CU_F16 && format != OC_CU_BF16) return 3;
    }
    return 2;
}

/* Rows of x that the workspace holds, a multiple of the tile. */
static int64_t rows_at_once(int64_t blocks, int parts) {
    size_t row = (size_t)blocks * 128 * (size_t)parts + sizeof(float);
    return (int64_t)(CU_X_BYTES / row) / CU_ROW_TILE * CU_ROW_TILE - CU_X_PADDING;
}

static void narrow_x(struct cu_state *s, struct gemm *g, const struct cu_linear *a, int64_t m0) {
    g->x_rows = cu_up(g->m, CU_ROW_TILE) + CU_X_PADDING;
    int64_t elements = g->x_rows * g->blocks * 64;
    __half *high = (__half *)(void *)s->x, *low = g->passes > 1 ? high + elements : NULL;
    float *scales = (float *)(void *)(high + elements * (g->passes > 1 ? 2 : 1));
    const float *x = a->x + m0 * a->ldx;
    struct narrow n = {x, a->ldx, a->w[0]->k, g->blocks, g->x_rows, a->ldx % 4 == 0 && (uintptr_t)x % 16 == 0, high, low, scales};
    cu_launch(narrow_kernel, (unsigned)g->m, 256, 0, s, n);
    cu_launched("a linear of role P");
    g->x_high = high, g->x_low = low, g->x_scale = scales;
}

template <int M, int N>
static void prepare(void) {
    cu_check("a linear of role P", cudaFuncSetAttribute(gemm_kernel<M, N>, cudaFuncAttributeMaxDynamicSharedMemorySize, tile<M, N>::bytes));
}

void cu_linear_p_prepare(const struct cu_state *s) {
    prepare<64, 64>();
    prepare<128, 128>();
#ifdef OC_CUDA_WGMMA
    if (s->has_wgmma) cu_wgmma_prepare();
#else
    (void)s;
#endif
}

template <int M, int N>
static void launch_tiles(struct cu_state *s, struct gemm *g, int64_t tiles) {
    int64_t at = 0;
    for (int i = 0; i < g->n_w && !g->glu; i++) g->w[i].first_tile = at, at += (g->w[i].n + N - 1) / N;
    cu_launch(gemm_kernel<M, N>, dim3((unsigned)((g->m + M - 1) / M), (unsigned)tiles), THREADS, tile<M, N>::bytes, s, *g);
    cu_launched("a linear of role P");
}

static int64_t tiles_of(const struct gemm *g, int64_t columns) {
    int64_t n = 0;
    if (g->glu) return (g->w[0].n + columns / 2 - 1) / (columns / 2);
    for (int i = 0; i < g->n_w; i++) n += (g->w[i].n + columns - 1) / columns;
    return n;
}

/* Small tiles where large ones would leave much of the device idle; the sums are the same. */
static void launch(struct cu_state *s, struct gemm *g) {
#ifdef OC_CUDA_WGMMA
    if (cu_gemm_wgmma(s, g)) return;
#endif
    if ((g->m + 127) / 128 * tiles_of(g, 128) < 2 * s->n_sms) {
        launch_tiles<64, 64>(s, g, tiles_of(g, 64));
    } else {
        launch_tiles<128, 128>(s, g, tiles_of(g, 128));
    }
}

/* Weight i's rows n0 .. n0+n-1 as they stand in high and low. */
static struct target target_of(const struct cu_linear *a, int i, int64_t m0, int64_t n0, int64_t n, const __half *high, const __half *low) {
    const struct cu_weight *w = cu_weight_of(a->w[i]);
    float *y = a->y[i] ? a->y[i] + m0 * a->ldy[i] + n0 : NULL;
    const float *bias = a->w[i]->bias ? a->w[i]->bias + n0 : NULL;
    bool aligned = a->ldy[i] % 4 == 0 && (uintptr_t)y % 16 == 0;
    return (struct target){high, low, w->row_scale + n0, bias, y, a->ldy[i], n, 0, aligned};
}

/* All weights at once, from their expanded copies. */
static void run_kept(struct cu_state *s, struct gemm *g, const struct cu_linear *a, int64_t m0) {
    g->n_w = a->n_w;
    for (int i = 0; i < a->n_w; i++) {
        const struct cu_weight *w = cu_weight_of(a->w[i]);
        g->w[i] = target_of(a, i, m0, 0, w->n, w->high, w->low);
    }
    launch(s, g);
}

/* Weights first .. first+n_w-1 in slices of rows through the workspace. */
static void run_sliced(struct cu_state *s, struct gemm *g, const struct cu_linear *a, int first, int n_w, int64_t m0) {
    const struct cu_weight *w = cu_weight_of(a->w[first]);
    int64_t parts = g->passes == 3 ? 2 : 1, row = w->blocks * 64;
    int64_t most = (int64_t)CU_W_BYTES / (row * 2 * parts * n_w) / CU_ROW_TILE * CU_ROW_TILE;
    OC_ASSERT(most > 0);
    g->n_w = n_w;
    for (int64_t n0 = 0; n0 < w->n; n0 += most) {
        int64_t n = w->n - n0 < most ? w->n - n0 : most, padded = cu_up(n, CU_ROW_TILE);
        __half *at = (__half *)(void *)s->w;
        for (int i = 0; i < n_w; i++) {
            __half *high = at, *low = parts == 2 ? at + padded * row : NULL;
            cu_expand(s, cu_weight_of(a->w[first + i]), n0, padded, high, low);
            g->w[i] = target_of(a, first + i, m0, n0, n, high, low);
            at += padded * row * parts;
        }
        launch(s, g);
    }
}

void cu_linear_p(struct cu_state *s, const struct cu_linear *a) {
    struct gemm g = {0, cu_weight_of(a->w[0])->blocks, 0};
    g.passes = passes_of(a), g.act = a->act, g.add = a->add, g.glu = a->glu;
    bool kept = true;
    for (int i = 0; i < a->n_w; i++) kept = cu_keep_expanded(s, cu_weight_of(a->w[i]), g.passes == 3) && kept;
    int64_t most = rows_at_once(g.blocks, g.passes > 1 ? 2 : 1);
    OC_ASSERT(most > 0);
    for (int64_t m0 = 0; m0 < a->m; m0 += most) {
        g.m = a->m - m0 < most ? a->m - m0 : most;
        narrow_x(s, &g, a, m0);
        if (kept) {
            run_kept(s, &g, a, m0);
        } else if (a->glu) {
            run_sliced(s, &g, a, 0, 2, m0);
        } else {
            for (int i = 0; i < a->n_w; i++) run_sliced(s, &g, a, i, 1, m0);
        }
    }
}
