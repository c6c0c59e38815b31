/* Attention of many rows: attn_segments, and role P of attn_paged. Tiles of 64 or 128 queries by 64 keys on bf16 tensor cores.
 *
 * q, k, v and the probabilities are sums of two bf16 (16 bits), multiplied without the product of the low ones; sums and the softmax
 * are f32 (what the CPU's AMX kernels do too). Keys that are bf16 themselves have no low part. Tiles of keys start at slot 0 of
 * the sequence, or at the segment's first row; a key that a row does not see has probability 0, and adding 0 changes nothing: so a
 * row's bits do not depend on the rows that share its tile.
 * (Dao 2023: "FlashAttention-2"; here without its parallelism over keys.) */
#include "kernels/cuda/cuda.cuh"

#define KEYS 64
#define WIDE_THREADS 128

/* Rows of one kind: f32 with a leading dimension, or pages. */
struct flash {
    const float *q, *k, *v;
    float *y;
    int64_t ldq, ldk, ldv, ldy;
    float scale;
    int hd, group; /* query heads of a KV head */
    bool paged, aligned;
    struct oc_kv_layer kv;
    const struct cu_row *rows;
    const int32_t *pages;
    const struct cu_tile *tiles;    /* of queries: first row and how many */
    const struct cu_tile *segments; /* of each tile, its keys: first row and how many; NULL when paged */
    const uint8_t *cut;             /* k and v as split_kernel leaves them, or NULL */
    int64_t cut_rows;
};

/* A block of threads: 16 queries a warp. In shared memory: q high, q low, k high, v high, and k low and v low where there are such. */
template <int HD, int WARPS>
struct shape {
    static constexpr int threads = 32 * WARPS, queries = 16 * WARPS;
    static constexpr int stride = HD * 2 + 16; /* bytes of a row: eight rows' 16 bytes are in different banks */
    static constexpr int q_bytes = queries * stride, k_bytes = KEYS * stride;
    static constexpr int q = 0, k = 2 * q_bytes, v = k + k_bytes, low = 2 * k_bytes; /* from high to low of k and v */
    static constexpr int bytes(bool lows) { return 2 * q_bytes + (lows ? 4 : 2) * k_bytes; }
};

/* Eight floats as bf16, high and low. */
__device__ __forceinline__ void store8(uint8_t *high, uint8_t *low, const float x[8]) {
    uint32_t h[4], l[4];
#pragma unroll
    for (int i = 0; i < 4; i++) cu_split_bf16(x[2 * i], x[2 * i + 1], &h[i], &l[i]);
    *(uint4 *)high = make_uint4(h[0], h[1], h[2], h[3]);
    *(uint4 *)low = make_uint4(l[0], l[1], l[2], l[3]);
}

/* Elements d .. d+7 of a row of f32; zeros past its end. */
__device__ __forceinline__ void load8(const float *row, int d, int hd, bool aligned, float out[8]) {
    if (aligned && d + 8 <= hd) {
        float4 a = *(const float4 *)(row + d), b = *(const float4 *)(row + d + 4);
        out[0] = a.x, out[1] = a.y, out[2] = a.z, out[3] = a.w, out[4] = b.x, out[5] = b.y, out[6] = b.z, out[7] = b.w;
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++) out[i] = d + i < hd ? row[d + i] : 0.0f;
    }
}

template <int HD, int WARPS>
__device__ static void load_queries(uint8_t *smem, const struct flash &a, struct cu_tile tile, int head) {
    using S = shape<HD, WARPS>;
    constexpr int chunks = HD / 8;
    for (int i = threadIdx.x; i < S::queries * chunks; i += S::threads) {
        int row = i / chunks, d = i % chunks * 8;
        float x[8] = {0, 0, 0, 0, 0, 0, 0, 0};
        if (row < tile.n) load8(a.q + (tile.row + row) * a.ldq + (int64_t)head * a.hd, d, a.hd, a.aligned, x);
        uint8_t *to = smem + row * S::stride + d * 2;
        store8(to, to + S::q_bytes, x);
    }
}

/* One key or value row's 8 elements to shared memory. */
__device__ __forceinline__ void load_key(uint8_t *to, int low, const struct flash &a, const float *flat, const uint8_t *page_row, int d, bool in) {
    if (a.paged && a.kv.dtype == OC_BF16) { /* as it is; there is no low part */
        uint4 v = make_uint4(0, 0, 0, 0);
        if (in && a.aligned && d < a.hd) {
            v = *(const uint4 *)(page_row + 2 * d);
        } else if (in) {
            uint32_t e[8];
#pragma unroll
            for (int i = 0; i < 8; i++) e[i] = d + i < a.hd ? ((const uint16_t *)page_row)[d + i] : 0u;
            v = make_uint4(e[0] | e[1] << 16, e[2] | e[3] << 16, e[4] | e[5] << 16, e[6] | e[7] << 16);
        }
        *(uint4 *)to = v;
        return;
    }
    float x[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    if (in) load8(a.paged ? (const float *)page_row : flat, d, a.hd, a.aligned, x);
    store8(to, to + low, x);
}

/* Keys first .. first+63 and their values, those from `end` on being zeros. */
template <int HD, int WARPS>
__device__ static void load_keys(uint8_t *smem, const struct flash &a, const int32_t *pages, int64_t base, int first, int end, int kv_head) {
    using S = shape<HD, WARPS>;
    constexpr int chunks = HD / 8;
    for (int i = threadIdx.x; i < KEYS * chunks; i += S::threads) {
        int row = i / chunks, d = i % chunks * 8, key = first + row;
        bool in = key < end;
        const uint8_t *pk = NULL, *pv = NULL;
        const float *fk = NULL, *fv = NULL;
        if (in && a.paged) {
            int size = a.kv.dtype == OC_BF16 ? 2 : 4;
            int64_t at = (int64_t)pages[key / a.kv.page_tokens] * (int64_t)a.kv.page_stride_bytes +
                         (int64_t)(kv_head * a.kv.page_tokens + key % a.kv.page_tokens) * a.hd * size;
            pk = a.kv.k + at, pv = a.kv.v + at;
        } else if (in) {
            fk = a.k + (base + key) * a.ldk + (int64_t)kv_head * a.hd, fv = a.v + (base + key) * a.ldv + (int64_t)kv_head * a.hd;
        }
        uint8_t *to = smem + S::k + row * S::stride + d * 2;
        load_key(to, S::low, a, fk, pk, d, in);
        load_key(to + S::k_bytes, S::low, a, fv, pv, d, in);
    }
}

/* All of k and v as bf16: [k high, v high, k low, v low][head][row][HD]. */
struct split {
    const float *k, *v;
    int64_t ldk, ldv, rows;
    int hd, width, n_heads;
    bool aligned;
    uint8_t *out;
};

/* Eight elements a thread. */
__global__ static void split_kernel(const __grid_constant__ struct split a) {
    cu_begin();
    int chunks = a.width / 8;
    int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, part = (int64_t)a.n_heads * a.rows * a.width * 2;
    if (at >= a.rows * a.n_heads * chunks) return;
    int64_t row = at / (a.n_heads * chunks);
    int head = (int)(at / chunks % a.n_heads), d = (int)(at % chunks) * 8;
    uint8_t *to = a.out + ((head * a.rows + row) * a.width + d) * 2;
    float x[8];
    load8(a.k + row * a.ldk + (int64_t)head * a.hd, d, a.hd, a.aligned, x);
    store8(to, to + 2 * part, x);
    load8(a.v + row * a.ldv + (int64_t)head * a.hd, d, a.hd, a.aligned, x);
    store8(to + part, to + 3 * part, x);
}

/* Keys (part 0) or values (1) first .. first+63 are sent for, from pages of bf16 or from what split_kernel left. */
template <int HD, int WARPS>
__device__ __forceinline__ void send_keys(uint8_t *smem, const struct flash &a, int part, const int32_t *pages, int64_t base, int first, int end,
                                          int kv_head) {
    using S = shape<HD, WARPS>;
    constexpr int chunks = HD / 8;
    int64_t array = (int64_t)gridDim.x * a.cut_rows * HD * 2;
    for (int i = threadIdx.x; i < KEYS * chunks; i += S::threads) {
        int row = i / chunks, d = i % chunks * 8, key = first + row;
        uint8_t *to = smem + S::k + part * S::k_bytes + row * S::stride + d * 2;
        bool in = key < end && (a.cut || d < a.hd);
        if (in && a.cut) {
            const uint8_t *from = a.cut + part * array + ((kv_head * a.cut_rows + base + key) * HD + d) * 2;
            cu_copy16(cu_smem(to), from);
            cu_copy16(cu_smem(to + S::low), from + 2 * array);
        } else if (in) {
            int64_t at = (int64_t)pages[key / a.kv.page_tokens] * (int64_t)a.kv.page_stride_bytes +
                         ((int64_t)(kv_head * a.kv.page_tokens + key % a.kv.page_tokens) * a.hd + d) * 2;
            cu_copy16(cu_smem(to), (part ? a.kv.v : a.kv.k) + at);
        } else {
            *(uint4 *)to = make_uint4(0, 0, 0, 0);
            if (a.cut) *(uint4 *)(to + S::low) = make_uint4(0, 0, 0, 0);
        }
    }
}

/* s[8][4] = 16 queries by 64 keys of this warp. */
template <int HD, int WARPS>
__device__ __forceinline__ void score_tile(uint32_t smem, bool low, float s[8][4]) {
    using S = shape<HD, WARPS>;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    uint32_t q_at = smem + (warp * 16 + lane % 16) * S::stride + lane / 16 * 16;
    uint32_t k_at = smem + S::k + (lane % 8 + lane / 16 * 8) * S::stride + lane / 8 % 2 * 16;
#pragma unroll
    for (int i = 0; i < 32; i++) (&s[0][0])[i] = 0.0f;
#pragma unroll
    for (int step = 0; step < HD / 16; step++) {
        uint32_t q_high[4], q_low[4];
        cu_ldmatrix4(q_high, q_at + step * 32);
        cu_ldmatrix4(q_low, q_at + S::q_bytes + step * 32);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            uint32_t k[4];
            if (low) {
                cu_ldmatrix4(k, k_at + S::low + j * 16 * S::stride + step * 32);
                cu_mma_bf16(s[2 * j], q_high, k[0], k[1]);
                cu_mma_bf16(s[2 * j + 1], q_high, k[2], k[3]);
            }
            cu_ldmatrix4(k, k_at + j * 16 * S::stride + step * 32);
            cu_mma_bf16(s[2 * j], q_low, k[0], k[1]);
            cu_mma_bf16(s[2 * j + 1], q_low, k[2], k[3]);
            cu_mma_bf16(s[2 * j], q_high, k[0], k[1]);
            cu_mma_bf16(s[2 * j + 1], q_high, k[2], k[3]);
        }
    }
}

/* y += p v for 16 queries. */
template <int HD, int WARPS>
__device__ __forceinline__ void value_tile(uint32_t smem, bool low, const float p[8][4], float y[HD / 8][4]) {
    using S = shape<HD, WARPS>;
    int lane = threadIdx.x % 32;
    uint32_t v_at = smem + S::v + lane % 16 * S::stride + lane / 16 * 16;
#pragma unroll
    for (int step = 0; step < KEYS / 16; step++) {
        uint32_t high[4], small[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float *c = p[2 * step + i / 2] + i % 2 * 2;
            cu_split_bf16(c[0], c[1], &high[i], &small[i]);
        }
#pragma unroll
        for (int j = 0; j < HD / 16; j++) {
            uint32_t v[4];
            if (low) {
                cu_ldmatrix4_t(v, v_at + S::low + step * 16 * S::stride + j * 32);
                cu_mma_bf16(y[2 * j], high, v[0], v[1]);
                cu_mma_bf16(y[2 * j + 1], high, v[2], v[3]);
            }
            cu_ldmatrix4_t(v, v_at + step * 16 * S::stride + j * 32);
            cu_mma_bf16(y[2 * j], small, v[0], v[1]);
            cu_mma_bf16(y[2 * j + 1], small, v[2], v[3]);
            cu_mma_bf16(y[2 * j], high, v[0], v[1]);
            cu_mma_bf16(y[2 * j + 1], high, v[2], v[3]);
        }
    }
}

/* Scores of a tile become probabilities against the running maximum; y and the sum shrink to it. A row is four lanes. */
template <int HD>
__device__ __forceinline__ void soften(float s[8][4], float y[HD / 8][4], float most[2], float sum[2], const int limit[2], int first, float scale) {
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float top = most[half];
#pragma unroll
        for (int i = 0; i < 16; i++) {
            int key = first + i / 2 * 8 + lane % 4 * 2 + i % 2;
            float *v = &s[i / 2][half * 2 + i % 2];
            *v = key < limit[half] ? *v * scale : -INFINITY;
            top = fmaxf(top, *v);
        }
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
        float shrink = expf(most[half] - top), part = 0.0f;
        most[half] = top;
#pragma unroll
        for (int i = 0; i < 16; i++) {
            float *v = &s[i / 2][half * 2 + i % 2];
            *v = expf(*v - top);
            part += *v;
        }
        sum[half] = sum[half] * shrink + part;
#pragma unroll
        for (int j = 0; j < HD / 8; j++) y[j][half * 2] *= shrink, y[j][half * 2 + 1] *= shrink;
    }
}

template <int HD>
__device__ __forceinline__ void finish(const struct flash &a, struct cu_tile tile, int head, const float y[HD / 8][4], const float sum[2]) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float all = sum[half];
        all += __shfl_xor_sync(~0u, all, 1);
        all += __shfl_xor_sync(~0u, all, 2);
        int row = warp * 16 + half * 8 + lane / 4;
        if (row >= tile.n) continue;
        float inverse = 1.0f / all, *to = a.y + (tile.row + row) * a.ldy + (int64_t)head * a.hd;
#pragma unroll
        for (int j = 0; j < HD / 8; j++) {
            int d = j * 8 + lane % 4 * 2;
            if (d < a.hd) to[d] = y[j][half * 2] * inverse;
            if (d + 1 < a.hd) to[d + 1] = y[j][half * 2 + 1] * inverse;
        }
    }
}

/* Grid: query heads, tiles of queries from the last one on, which has most keys. SENT: keys come while the values before them are at work,
 * and values while keys are. */
template <int HD, int WARPS, bool SENT>
__global__ __launch_bounds__(32 * WARPS, WARPS == 8 ? 2 : HD == 80 ? 4 : 3) static void flash_kernel(const __grid_constant__ struct flash a) {
    cu_begin();
    extern __shared__ __align__(16) uint8_t smem[];
    int64_t number = gridDim.y - 1 - blockIdx.y;
    struct cu_tile tile = a.tiles[number];
    int head = blockIdx.x, kv_head = head / a.group, lane = threadIdx.x % 32, warp = threadIdx.x / 32, end, limit[2], warp_limit;
    const int32_t *pages = NULL;
    int64_t base = 0;
    if (a.paged) {
        struct cu_row first = a.rows[tile.row];
        pages = a.pages + first.first_page;
        end = first.slot + tile.n;
        warp_limit = min(first.slot + warp * 16 + 16, end);
        for (int half = 0; half < 2; half++) limit[half] = min(first.slot + warp * 16 + half * 8 + lane / 4 + 1, end);
    } else {
        struct cu_tile keys = a.segments[number];
        base = keys.row, end = keys.n;
        limit[0] = limit[1] = warp_limit = end;
    }
    bool low = !(a.paged && a.kv.dtype == OC_BF16);
    float y[HD / 8][4], most[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
#pragma unroll
    for (int i = 0; i < HD / 2; i++) (&y[0][0])[i] = 0.0f;
    load_queries<HD, WARPS>(smem, a, tile, head);
    if (SENT) {
        for (int part = 0; part < 2; part++) {
            send_keys<HD, WARPS>(smem, a, part, pages, base, 0, end, kv_head);
            cu_copies_commit();
        }
    }
    for (int first = 0; SENT && first < end; first += KEYS) {
        float s[8][4];
        bool seen = warp * 16 < tile.n && first < warp_limit; /* else nobody here sees these keys */
        cu_copies_wait<1>();
        __syncthreads();
        if (seen) score_tile<HD, WARPS>(cu_smem(smem), low, s);
        __syncthreads();
        if (first + KEYS < end) send_keys<HD, WARPS>(smem, a, 0, pages, base, first + KEYS, end, kv_head);
        cu_copies_commit();
        if (seen) soften<HD>(s, y, most, sum, limit, first, a.scale);
        cu_copies_wait<1>();
        __syncthreads();
        if (seen) value_tile<HD, WARPS>(cu_smem(smem), low, s, y);
        __syncthreads();
        if (first + KEYS < end) send_keys<HD, WARPS>(smem, a, 1, pages, base, first + KEYS, end, kv_head);
        cu_copies_commit();
    }
    for (int first = 0; !SENT && first < end; first += KEYS) {
        float s[8][4];
        __syncthreads();
        load_keys<HD, WARPS>(smem, a, pages, base, first, end, kv_head);
        __syncthreads();
        if (warp * 16 >= tile.n || first >= warp_limit) continue;
        score_tile<HD, WARPS>(cu_smem(smem), low, s);
        soften<HD>(s, y, most, sum, limit, first, a.scale);
        value_tile<HD, WARPS>(cu_smem(smem), low, s, y);
    }
    finish<HD>(a, tile, head, y, sum);
}

/* Heads wider than those above: a warp a row and head, exact in f32, slow. */
__global__ static void wide_kernel(const __grid_constant__ struct flash a) {
    cu_begin();
    struct cu_tile tile = a.tiles[blockIdx.x], keys = a.segments[blockIdx.x];
    int lane = threadIdx.x % 32, head = blockIdx.y;
    for (int i = threadIdx.x / 32; i < tile.n; i += WIDE_THREADS / 32) {
        const float *q = a.q + (tile.row + i) * a.ldq + (int64_t)head * a.hd;
        float acc[OC_MAX_HD / 32], most = -INFINITY, sum = 0.0f;
#pragma unroll
        for (int d = 0; d < OC_MAX_HD / 32; d++) acc[d] = 0.0f;
        for (int64_t j = keys.row; j < keys.row + keys.n; j++) {
            const float *k = a.k + j * a.ldk + (int64_t)head * a.hd, *v = a.v + j * a.ldv + (int64_t)head * a.hd;
            float dot = 0.0f;
            for (int d = lane; d < a.hd; d += 32) dot = fmaf(q[d], k[d], dot);
            for (int o = 16; o > 0; o /= 2) dot += __shfl_xor_sync(~0u, dot, o);
            float top = fmaxf(most, dot * a.scale), shrink = expf(most - top), p = expf(dot * a.scale - top);
            most = top, sum = sum * shrink + p;
#pragma unroll
            for (int d = 0; d < OC_MAX_HD / 32; d++)
                if (d * 32 + lane < a.hd) acc[d] = fmaf(p, v[d * 32 + lane], acc[d] * shrink);
        }
        float *y = a.y + (tile.row + i) * a.ldy + (int64_t)head * a.hd;
#pragma unroll
        for (int d = 0; d < OC_MAX_HD / 32; d++)
            if (d * 32 + lane < a.hd) y[d * 32 + lane] = acc[d] * (1.0f / sum);
    }
}

template <int HD, int WARPS, bool SENT>
static void launch_kernel(struct cu_state *s, const struct flash *a, int64_t n_tiles, int n_heads) {
    int bytes = shape<HD, WARPS>::bytes(!(a->paged && a->kv.dtype == OC_BF16));
    cu_launch(flash_kernel<HD, WARPS, SENT>, dim3((unsigned)n_heads, (unsigned)n_tiles), 32 * WARPS, bytes, s, *a);
    cu_launched("attention");
}

template <int HD, int WARPS>
static void prepare(void) {
    int bytes = shape<HD, WARPS>::bytes(true);
    cu_check("attention", cudaFuncSetAttribute(flash_kernel<HD, WARPS, false>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
    cu_check("attention", cudaFuncSetAttribute(flash_kernel<HD, WARPS, true>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
}

void cu_attn_prepare(void) {
    prepare<80, 4>();
    prepare<80, 8>();
    prepare<128, 4>();
}

template <int HD, int WARPS>
static void launch(struct cu_state *s, const struct flash *a, int64_t n_tiles, int n_heads) {
    bool sent = a->cut || (a->paged && a->kv.dtype == OC_BF16 && a->aligned);
    (sent ? launch_kernel<HD, WARPS, true> : launch_kernel<HD, WARPS, false>)(s, a, n_tiles, n_heads);
}

/* Queries of a tile: 128 of heads up to 80, which then share keys that had to be cut into two bf16; 64 where there are no more, and of
 * wider heads, for whose sums 8 warps have no registers. */
static int queries_of(int hd, bool few) {
    return hd <= 80 && !few ? 128 : 64;
}

static void run(struct cu_state *s, const struct flash *a, int64_t n_tiles, int n_heads, int queries) {
    if (n_tiles == 0) return;
    if (a->hd > CU_FLASH_HD) {
        cu_launch(wide_kernel, dim3((unsigned)n_tiles, (unsigned)n_heads), WIDE_THREADS, 0, s, *a);
        cu_launched("attention");
    } else if (a->hd > 80) {
        launch<128, 4>(s, a, n_tiles, n_heads);
    } else {
        (queries == 64 ? launch<80, 4> : launch<80, 8>)(s, a, n_tiles, n_heads);
    }
}

void cu_attn_p(struct cu_state *s, const struct oc_attn_paged *a, const struct cu_rows *rows) {
    const struct oc_kv_layer *kv = &a->kv;
    struct flash f = {a->q, NULL, NULL, a->y, a->ldq, 0, 0, a->ldy, a->scale, kv->hd, a->n_heads / kv->n_kv_heads, true};
    f.kv = *kv, f.rows = rows->rows, f.pages = rows->pages, f.tiles = rows->tiles;
    uintptr_t all = (uintptr_t)a->q | (uintptr_t)kv->k | (uintptr_t)kv->v | kv->page_stride_bytes;
    f.aligned = kv->hd % 8 == 0 && a->ldq % 4 == 0 && all % 16 == 0;
    run(s, &f, rows->n_tiles, a->n_heads, 64);
}

void cu_attn_paged(const struct oc_kctx *ctx, const struct oc_attn_paged *a) {
    struct cu_state *s = cu_state_of(ctx);
    if (a->m == 0) return;
    const struct cu_rows *rows = cu_send_rows(s, a->rows, a->m, a->kv.page_tokens);
    bool wide = a->kv.hd > CU_FLASH_HD;
    if (wide || rows->n_d > 0) cu_attn_d(s, a, rows, wide);
    if (!wide) cu_attn_p(s, a, rows);
}

/* Tiles of the queries q_from .. q_to-1, cut at segments, and the keys of each. */
static int64_t list_tiles(const struct oc_attn_segments *a, int queries, struct cu_tile *tiles, struct cu_tile *keys) {
    int64_t n = 0, last = a->q_to ? a->q_to : a->seg[a->n_segs];
    for (int i = 0; i < a->n_segs; i++) {
        int64_t from = a->seg[i] > a->q_from ? a->seg[i] : a->q_from, to = a->seg[i + 1] < last ? a->seg[i + 1] : last;
        for (; from < to; from += queries, n++) {
            if (!tiles) continue;
            tiles[n].row = (int32_t)from, tiles[n].n = (int32_t)(to - from < queries ? to - from : queries);
            keys[n].row = a->seg[i], keys[n].n = a->seg[i + 1] - a->seg[i];
        }
    }
    return n;
}

/* Keys that several tiles of queries see are cut into two bf16 once, if the workspace has room for them. */
static void cut_keys(struct cu_state *s, struct flash *f, const struct oc_attn_segments *a) {
    int64_t rows = a->seg[a->n_segs], width = a->hd <= 80 ? 80 : CU_FLASH_HD;
    if (a->hd > CU_FLASH_HD || (size_t)(rows * a->n_heads * width) * 8 > CU_X_BYTES) return;
    struct split p = {a->k, a->v, a->ldk, a->ldv, rows, a->hd, (int)width, a->n_heads, f->aligned, s->x};
    cu_launch(split_kernel, (unsigned)((rows * a->n_heads * (width / 8) + 255) / 256), 256, 0, s, p);
    cu_launched("attention");
    f->cut = s->x, f->cut_rows = rows;
}

void cu_attn_segments(const struct oc_kctx *ctx, const struct oc_attn_segments *a) {
    struct cu_state *s = cu_state_of(ctx);
    struct flash f = {a->q, a->k, a->v, a->y, a->ldq, a->ldk, a->ldv, a->ldy, a->scale, a->hd, 1, false};
    bool small = true; /* windows */
    for (int i = 0; i < a->n_segs; i++) small = small && a->seg[i + 1] - a->seg[i] <= 64;
    int queries = queries_of(a->hd, small);
    int64_t n = list_tiles(a, queries, NULL, NULL);
    OC_ASSERT(a->hd <= OC_MAX_HD);
    if (n == 0) return;
    struct cu_tile *list = (struct cu_tile *)cu_scratch(s, 2 * (size_t)n * sizeof *list);
    list_tiles(a, queries, list, list + n);
    f.tiles = (const struct cu_tile *)cu_send(s, list, 2 * (size_t)n * sizeof *list);
    f.segments = f.tiles + n;
    uintptr_t all = (uintptr_t)a->q | (uintptr_t)a->k | (uintptr_t)a->v;
    f.aligned = a->hd % 8 == 0 && (a->ldq | a->ldk | a->ldv) % 4 == 0 && all % 16 == 0;
    if (!small) cut_keys(s, &f, a);
    run(s, &f, n, a->n_heads, queries);
}
