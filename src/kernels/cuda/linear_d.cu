/* Role D of the linear ops: few rows of x, each weight read once for up to 8 of them, products exact in f32.
 *
 * y^T = W x^T by tensor cores. A weight is operand A: q of 4 or 8 bits and bf16 are exact in bf16, f16 is the sum of two bf16,
 * f32 of three. x is the sum of three bf16 (24 bits) and is operand B, its 8 columns the rows of x. So each product is exact in the
 * accumulator's f32; products of which both parts are small (under 2^-24 of the whole) are left out. Parts of x have accumulators
 * of their own. After each group of 64 k (32 where scales ask for it) these are added up, smallest first, and taken into the sum:
 * sum = fma(scale, group, sum), sum = fma(zero_bias, x's sum over the group, sum).
 *
 * A block of threads has two blocks of 16 rows of W (of a glu: one of the gate and one of the up). Its warps take blocks of 64 k in
 * turn, and their sums are added in the order of the warps. Nothing of this depends on how many rows x has: a column of a product
 * never meets another. More than 8 rows are so many slices, side by side in the grid. */
#include "kernels/cuda/cuda.cuh"

#define MANY_WARPS 16

/* x as operand B: for each block of 64 k, part and pair of products, 16 bytes a lane; and its sums over each 32 k. */
#define COLUMN_BLOCK_BYTES (3 * 2 * 512)

struct columns {
    const float *x;
    int64_t ldx, m, k, blocks;
    uint8_t *out;
    float *sums; /* [slice][block][2][8] */
};

/* A warp for each half block: lane 4 g + t writes what it will read, of column g. */
__global__ static void columns_kernel(struct columns a) {
    cu_begin();
    int64_t half = (int64_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (half >= a.blocks * 2) return;
    int lane = threadIdx.x % 32, t = lane % 4;
    int64_t row = (int64_t)blockIdx.y * CU_MAX_COLUMNS + lane / 4, k0 = half * 32;
    float x[8], sum = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        int64_t k = k0 + i / 4 * 16 + i / 2 % 2 * 8 + 2 * t + i % 2;
        x[i] = row < a.m && k < a.k ? a.x[row * a.ldx + k] : 0.0f;
        sum += x[i];
    }
    sum += __shfl_xor_sync(~0u, sum, 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
    int64_t slice_block = blockIdx.y * a.blocks + half / 2;
    if (t == 0) a.sums[slice_block * 16 + half % 2 * 8 + lane / 4] = sum;
    __align__(16) uint32_t out[3][4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float v0 = x[2 * i], v1 = x[2 * i + 1];
#pragma unroll
        for (int part = 0; part < 3; part++) {
            out[part][i] = cu_pack_bf16(v0, v1);
            v0 -= __uint_as_float(out[part][i] << 16);
            v1 -= __uint_as_float(out[part][i] & 0xffff0000u);
        }
    }
    uint8_t *to = a.out + slice_block * COLUMN_BLOCK_BYTES + half % 2 * 512 + lane * 16;
#pragma unroll
    for (int part = 0; part < 3; part++) *(uint4 *)(to + part * 1024) = *(const uint4 *)out[part];
}

struct weight_view {
    const uint8_t *data, *scales;
    const float *bias;
    float *y;
    int64_t ldy, n, first_block; /* of threads that is this weight's */
};

struct linear {
    int64_t m, blocks;
    const uint8_t *columns;
    const float *sums;
    int n_w;
    struct weight_view w[3];
    int act;
    bool add, glu;
};

template <int FORMAT, int SETS>
struct format {
    static constexpr int chunks = FORMAT == OC_CU_Q4 ? 1 : FORMAT == OC_CU_Q8 ? 2 : FORMAT == OC_CU_F32 ? 8 : 4;
    static constexpr int parts = FORMAT == OC_CU_F32 ? 3 : FORMAT == OC_CU_F16 ? 2 : 1;
    static constexpr int depth = FORMAT == OC_CU_Q4 ? (SETS == 1 ? 4 : 2) : FORMAT == OC_CU_Q8 && SETS == 1 ? 2 : 1; /* blocks of 64 k on their way */
    static constexpr bool quantised = FORMAT == OC_CU_Q4 || FORMAT == OC_CU_Q8;
};

#define BF16_ONES 0x3f803f80u

__device__ __forceinline__ uint32_t word_of(const uint4 &v, int i) {
    return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

/* Two nibbles at 0 and 16 of a word as bf16: 128 + q by its bits, less 128. */
__device__ __forceinline__ uint32_t nibbles(uint32_t word) {
    return cu_fma_bf16((word & 0x000f000fu) | 0x43004300u, BF16_ONES, 0xc300c300u);
}

/* Two bytes at 0 and 16: 2048 + 16 high - 2176, plus 128 + low; every step is exact. */
__device__ __forceinline__ uint32_t bytes(uint32_t word) {
    uint32_t high = cu_fma_bf16((word >> 4 & 0x000f000fu) | 0x45004500u, BF16_ONES, 0xc508c508u);
    return cu_fma_bf16((word & 0x000f000fu) | 0x43004300u, BF16_ONES, high);
}

/* The registers of operand A for product `step` of a block, in the parts that the format has. */
template <int FORMAT>
__device__ __forceinline__ void unpack(const uint4 *w, int step, uint32_t a[][4]) {
#pragma unroll
    for (int r = 0; r < 4; r++) {
        if (FORMAT == OC_CU_Q4) {
            a[0][r] = nibbles(word_of(w[0], step) >> 4 * r);
        } else if (FORMAT == OC_CU_Q8) {
            a[0][r] = bytes(word_of(w[step / 2], step % 2 * 2 + r / 2) >> r % 2 * 8);
        } else if (FORMAT == OC_CU_BF16) {
            a[0][r] = word_of(w[step], r);
        } else if (FORMAT == OC_CU_F16) {
            uint32_t word = word_of(w[step], r);
            float2 v = __half22float2(*(const __half2 *)&word);
            cu_split_bf16(v.x, v.y, &a[0][r], &a[1][r]);
        } else {
            int at = (4 * step + r) * 2;
            float v0 = __uint_as_float(word_of(w[at / 4], at % 4)), v1 = __uint_as_float(word_of(w[at / 4], at % 4 + 1));
            a[0][r] = cu_pack_bf16(v0, v1);
            v0 -= __uint_as_float(a[0][r] << 16), v1 -= __uint_as_float(a[0][r] & 0xffff0000u);
            cu_split_bf16(v0, v1, &a[1][r], &a[2][r]);
        }
    }
}

/* Scales of rows g and g + 8: {scale, zero bias, scale, zero bias}. */
template <int SETS>
struct pairs {
    uint4 raw[SETS];
    __device__ __forceinline__ void load(const uint8_t *set, int g) {
        if (SETS == 1) {
            uint2 v = *(const uint2 *)(set + g * 8);
            raw[0].x = v.x, raw[0].y = v.y;
        } else {
#pragma unroll
            for (int i = 0; i < SETS; i++) raw[i] = *(const uint4 *)(set + i * 128 + g * 16);
        }
    }
    __device__ __forceinline__ float4 get(int i) const {
        if (SETS == 1) {
            return make_float4(__uint_as_float(raw[0].x << 16), __uint_as_float(raw[0].x & 0xffff0000u),
                               __uint_as_float(raw[0].y << 16), __uint_as_float(raw[0].y & 0xffff0000u));
        }
        return make_float4(__uint_as_float(raw[i].x), __uint_as_float(raw[i].y), __uint_as_float(raw[i].z), __uint_as_float(raw[i].w));
    }
};

/* sum[4] += scale * group + zero bias * x's sums, group being the sums of three parts. */
__device__ __forceinline__ void take_group(float sum[4], const float group[3][4], float4 scale, float2 x_sum, bool quantised) {
    float all[4];
#pragma unroll
    for (int i = 0; i < 4; i++) all[i] = group[0][i] + (group[1][i] + group[2][i]);
    if (!quantised) {
#pragma unroll
        for (int i = 0; i < 4; i++) sum[i] += all[i];
        return;
    }
    sum[0] = fmaf(scale.y, x_sum.x, fmaf(scale.x, all[0], sum[0]));
    sum[1] = fmaf(scale.y, x_sum.y, fmaf(scale.x, all[1], sum[1]));
    sum[2] = fmaf(scale.w, x_sum.x, fmaf(scale.z, all[2], sum[2]));
    sum[3] = fmaf(scale.w, x_sum.y, fmaf(scale.z, all[3], sum[3]));
}

/* Two 16 x 8 sums over this warp's blocks of k. */
template <int FORMAT, int SETS>
struct walk {
    using F = format<FORMAT, SETS>;
    uint4 w[F::depth][2][F::chunks];
    pairs<SETS> s[F::depth][2];
    const uint8_t *data[2], *scales[2];
    int64_t blocks;
    int lane;

    __device__ __forceinline__ void load(int slot, int64_t block) {
        if (block >= blocks) return;
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const uint8_t *p = data[r] + block * (512 * F::chunks) + lane * 16;
#pragma unroll
            for (int c = 0; c < F::chunks; c++) w[slot][r][c] = cu_load_once(p + 512 * c);
            if (F::quantised) s[slot][r].load(scales[r] + block * (SETS == 1 ? 64 : 256), lane / 4);
        }
    }

    __device__ __forceinline__ void half(int slot, int pair, const uint4 b[3], float group[2][3][4]) const {
#pragma unroll
        for (int i = 0; i < 2; i++) {
#pragma unroll
            for (int r = 0; r < 2; r++) {
                uint32_t a[F::parts][4];
                unpack<FORMAT>(w[slot][r], 2 * pair + i, a);
#pragma unroll
                for (int wp = F::parts - 1; wp >= 0; wp--) {
#pragma unroll
                    for (int xp = 2 - wp; xp >= 0; xp--) {
                        cu_mma_bf16(group[r][wp + xp], a[wp], i ? b[xp].z : b[xp].x, i ? b[xp].w : b[xp].y);
                    }
                }
            }
        }
    }
};

__device__ __forceinline__ void clear(float group[2][3][4]) {
#pragma unroll
    for (int i = 0; i < 24; i++) (&group[0][0][0])[i] = 0.0f;
}

/* The three parts of x for a pair of products; lanes of columns that are not used have zeros. */
__device__ __forceinline__ void load_x(uint4 x[3], const uint8_t *from, bool used) {
#pragma unroll
    for (int p = 0; p < 3; p++) {
        x[p] = make_uint4(0, 0, 0, 0);
        if (used) x[p] = *(const uint4 *)(from + p * 1024);
    }
}

/* Writes y of the rows that this block of threads has, from the sums of its warps. */
__device__ static void finish(const struct linear &a, const struct weight_view &w, const float *sums, int n_warps, int64_t block, int64_t m0) {
    for (int i = threadIdx.x; i < (a.glu ? 128 : 256); i += blockDim.x) {
        int column = i / (a.glu ? 16 : 32), r = i % (a.glu ? 16 : 32), at = r % 16 * 8 + column;
        int64_t n = block * (a.glu ? 16 : 32) + r, m = m0 + column;
        float v = 0.0f, up = 0.0f;
        for (int k = 0; k < n_warps; k++) {
            v += sums[k * 256 + r / 16 * 128 + at];
            if (a.glu) up += sums[k * 256 + 128 + at];
        }
        if (n >= w.n || m >= a.m) continue;
        if (w.bias) v += w.bias[n];
        v = cu_act(a.act, v);
        if (a.glu) v *= a.w[1].bias ? up + a.w[1].bias[n] : up;
        float *y = w.y + m * w.ldy + n;
        *y = a.add ? *y + v : v;
    }
}

template <int FORMAT, int SETS>
__global__ __launch_bounds__(32 * MANY_WARPS, 1) static void linear_kernel(const __grid_constant__ struct linear a) {
    using F = format<FORMAT, SETS>;
    __shared__ float sums[MANY_WARPS][2][128];
    int which = 0, lane = threadIdx.x % 32, warp = threadIdx.x / 32, n_warps = blockDim.x / 32;
    int64_t block = blockIdx.y, m0 = (int64_t)blockIdx.x * CU_MAX_COLUMNS;
    while (!a.glu && which + 1 < a.n_w && block >= a.w[which + 1].first_block) which++;
    block -= a.w[which].first_block;
    walk<FORMAT, SETS> k;
    k.blocks = a.blocks, k.lane = lane;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const struct weight_view &w = a.w[a.glu ? r : which];
        int64_t row_block = a.glu ? block : 2 * block + r;
        k.data[r] = w.data + row_block * a.blocks * (512 * F::chunks);
        k.scales[r] = w.scales + row_block * a.blocks * (SETS == 1 ? 64 : 256);
    }
#pragma unroll
    for (int d = 0; d < F::depth; d++) k.load(d, warp + d * n_warps);
    cu_begin(); /* the weights do not wait for what comes before */
    const uint8_t *columns = a.columns + blockIdx.x * a.blocks * COLUMN_BLOCK_BYTES + lane * 16;
    const float *x_sums = a.sums + blockIdx.x * a.blocks * 16 + lane % 4 * 2;
    bool used = m0 + lane / 4 < a.m;
    float sum[2][4] = {{0, 0, 0, 0}, {0, 0, 0, 0}};
    for (int64_t first = warp; first < a.blocks; first += F::depth * n_warps) {
#pragma unroll
        for (int d = 0; d < F::depth; d++) {
            int64_t at = first + d * n_warps;
            if (at >= a.blocks) break;
            float group[2][3][4];
            float2 x_sum[2];
            if (F::quantised) x_sum[0] = *(const float2 *)(x_sums + at * 16), x_sum[1] = *(const float2 *)(x_sums + at * 16 + 8);
            if (SETS == 1) x_sum[1].x += x_sum[0].x, x_sum[1].y += x_sum[0].y;
            clear(group);
#pragma unroll
            for (int pair = 0; pair < 2; pair++) {
                uint4 x[3];
                load_x(x, columns + at * COLUMN_BLOCK_BYTES + pair * 512, used);
                k.half(d, pair, x, group);
                if (pair == 0 && !(F::quantised && SETS == 2)) continue;
#pragma unroll
                for (int r = 0; r < 2; r++) take_group(sum[r], group[r], k.s[d][r].get(SETS == 2 ? pair : 0), x_sum[pair], F::quantised);
                clear(group);
            }
            k.load(d, at + F::depth * n_warps);
        }
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float *to = sums[warp][r] + lane / 4 * 8 + lane % 4 * 2;
        to[0] = sum[r][0], to[1] = sum[r][1], to[64] = sum[r][2], to[65] = sum[r][3];
    }
    __syncthreads();
    finish(a, a.w[which], &sums[0][0][0], n_warps, block, m0);
}

/* As many warps as let all blocks of threads be on the device at once: chosen by the weight, never by x. */
static int warps_of(const struct cu_state *s, int64_t blocks_of_rows, int64_t blocks) {
    int n = blocks_of_rows <= s->n_sms ? MANY_WARPS : MANY_WARPS / 2;
    return blocks < n ? (int)blocks : n;
}

template <int FORMAT, int SETS>
static void launch(struct cu_state *s, const struct linear *a, int64_t blocks_of_rows) {
    dim3 grid((unsigned)((a->m + CU_MAX_COLUMNS - 1) / CU_MAX_COLUMNS), (unsigned)blocks_of_rows);
    cu_launch(linear_kernel<FORMAT, SETS>, grid, 32 * warps_of(s, blocks_of_rows, a->blocks), 0, s, *a);
    cu_launched("a linear of role D");
}

typedef void launch_fn(struct cu_state *s, const struct linear *a, int64_t blocks_of_rows);

static launch_fn *launcher(int format, int sets) {
    static launch_fn *const table[OC_CU_N_FORMATS][2] = {
        {launch<OC_CU_Q4, 1>, launch<OC_CU_Q4, 2>},     {launch<OC_CU_Q8, 1>, launch<OC_CU_Q8, 2>},
        {launch<OC_CU_BF16, 1>, launch<OC_CU_BF16, 1>}, {launch<OC_CU_F16, 1>, launch<OC_CU_F16, 1>},
        {launch<OC_CU_F32, 1>, launch<OC_CU_F32, 1>},
    };
    return table[format][sets == 2];
}

/* x to the workspace, in the order of operand B. */
static void send_columns(struct cu_state *s, struct linear *k, const float *x, int64_t ldx, int64_t n_k) {
    int64_t slices = (k->m + CU_MAX_COLUMNS - 1) / CU_MAX_COLUMNS;
    size_t bytes = (size_t)(slices * k->blocks) * COLUMN_BLOCK_BYTES;
    OC_ASSERT(bytes + (size_t)(slices * k->blocks) * 64 <= CU_COLUMNS_BYTES);
    struct columns c = {x, ldx, k->m, n_k, k->blocks, s->columns, (float *)(void *)(s->columns + bytes)};
    cu_launch(columns_kernel, dim3((unsigned)((k->blocks * 2 + 3) / 4), (unsigned)slices), 128, 0, s, c);
    cu_launched("a linear of role D");
    k->columns = c.out, k->sums = c.sums;
}

/* Rows of x that fit the workspace at once. */
static int64_t rows_at_once(int64_t blocks) {
    return (int64_t)(CU_COLUMNS_BYTES / ((size_t)blocks * (COLUMN_BLOCK_BYTES + 64))) * CU_MAX_COLUMNS;
}

static bool alike(const struct oc_weight *a, const struct oc_weight *b) {
    const struct cu_weight *x = cu_weight_of(a), *y = cu_weight_of(b);
    return x->format == y->format && x->sets == y->sets;
}

static struct weight_view view_of(const struct cu_linear *a, int i, int64_t m0, int64_t first_block) {
    const struct cu_weight *w = cu_weight_of(a->w[i]);
    float *y = a->y[i] ? a->y[i] + m0 * a->ldy[i] : NULL;
    return (struct weight_view){w->data, w->scales, a->w[i]->bias, y, a->ldy[i], w->n, first_block};
}

/* Weights first .. end-1, which are alike, in one launch. */
static void run(struct cu_state *s, const struct cu_linear *a, struct linear *k, int first, int end, int64_t m0) {
    const struct cu_weight *w = cu_weight_of(a->w[first]);
    int64_t blocks_of_rows = 0;
    k->n_w = end - first;
    for (int i = first; i < end; i++) {
        k->w[i - first] = view_of(a, i, m0, a->glu ? 0 : blocks_of_rows);
        blocks_of_rows += cu_weight_of(a->w[i])->row_blocks / 2;
    }
    launcher(w->format, w->sets)(s, k, a->glu ? w->row_blocks : blocks_of_rows);
}

struct product {
    const float *gate, *up;
    float *y;
    int64_t n, ldy;
    int act;
};

__global__ static void product_kernel(struct product a) {
    cu_begin();
    int64_t n = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, m = blockIdx.y;
    if (n < a.n) a.y[m * a.ldy + n] = cu_act(a.act, a.gate[m * a.n + n]) * a.up[m * a.n + n];
}

/* A glu whose weights are of two formats: two linears into the workspace, then their product. */
static void unlike_glu(struct cu_state *s, const struct cu_linear *a) {
    int64_t n = a->w[0]->n, most = (int64_t)(CU_PARTS_BYTES / (2 * sizeof(float))) / n;
    float *gate = (float *)(void *)s->parts;
    for (int64_t m0 = 0; m0 < a->m; m0 += most) {
        int64_t m = a->m - m0 < most ? a->m - m0 : most;
        float *up = gate + m * n;
        struct cu_linear two = {m, a->x + m0 * a->ldx, a->ldx, 2, {a->w[0], a->w[1]}, {gate, up}, {n, n}, OC_ACT_NONE, false, false};
        cu_linear_d(s, &two);
        struct product p = {gate, up, a->y[0] + m0 * a->ldy[0], n, a->ldy[0], a->act};
        cu_launch(product_kernel, dim3((unsigned)((n + 255) / 256), (unsigned)m), 256, 0, s, p);
        cu_launched("a linear of role D");
    }
}

void cu_linear_d(struct cu_state *s, const struct cu_linear *a) {
    if (a->glu && !alike(a->w[0], a->w[1])) {
        unlike_glu(s, a);
        return;
    }
    int64_t blocks = cu_weight_of(a->w[0])->blocks, most = rows_at_once(blocks);
    for (int64_t m0 = 0; m0 < a->m; m0 += most) {
        struct linear k = {a->m - m0 < most ? a->m - m0 : most, blocks};
        k.act = a->act, k.add = a->add, k.glu = a->glu;
        send_columns(s, &k, a->x + m0 * a->ldx, a->ldx, a->w[0]->k);
        for (int first = 0, end; first < a->n_w; first = end) {
            for (end = first + 1; end < a->n_w && alike(a->w[first], a->w[end]); end++) continue;
            run(s, a, &k, first, end, m0);
        }
    }
}
