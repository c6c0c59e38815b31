/* Attention of role D: a few rows over their own pages, exact in f32, bound by reading the cache.
 *
 * A row's slots are cut into pieces of 64, 128, ... slots, the length by which there are at most 32 of them: chosen by the row's own
 * length. A block of threads takes a piece for up to 8 query heads of one KV head, 64 slots at a time with a running softmax; parts of
 * rows of several pieces are added in the order of the pieces by a second kernel. */
#include "kernels/cuda/cuda.cuh"

#define THREADS 128
#define KEYS 64
#define HEADS 8
#define MAX_PIECES 32

struct decode {
    const float *q;
    float *y, *parts;
    int64_t ldq, ldy;
    const struct cu_row *rows;
    const int32_t *pages, *list; /* list: numbers of rows, or NULL for all in order */
    struct oc_kv_layer kv;
    int n_heads, first; /* the first row of the list that this launch does */
    float scale;
    bool aligned;
};

/* Slots of a piece of a row with n slots. */
__host__ __device__ static int piece_slots(int n) {
    int slots = KEYS;
    while ((n + slots - 1) / slots > MAX_PIECES) slots *= 2;
    return slots;
}

__host__ __device__ static int pieces_of(int n) {
    int slots = piece_slots(n);
    return (n + slots - 1) / slots;
}

/* Elements d .. d+7 of a row of hd, zeros past its end. */
__device__ __forceinline__ void load8(const uint8_t *row, int dtype, int d, int hd, bool aligned, float out[8]) {
    if (dtype == OC_BF16 && aligned) {
        uint4 v = *(const uint4 *)(row + 2 * d);
        uint32_t w[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (int i = 0; i < 4; i++) out[2 * i] = __uint_as_float(w[i] << 16), out[2 * i + 1] = __uint_as_float(w[i] & 0xffff0000u);
    } else if (aligned) {
        float4 a = *(const float4 *)(row + 4 * d), b = *(const float4 *)(row + 4 * d + 16);
        out[0] = a.x, out[1] = a.y, out[2] = a.z, out[3] = a.w, out[4] = b.x, out[5] = b.y, out[6] = b.z, out[7] = b.w;
    } else {
#pragma unroll
        for (int i = 0; i < 8; i++) {
            bool in = d + i < hd;
            if (dtype == OC_BF16) {
                out[i] = in ? __uint_as_float((uint32_t)((const uint16_t *)row)[d + i] << 16) : 0.0f;
            } else {
                out[i] = in ? ((const float *)row)[d + i] : 0.0f;
            }
        }
    }
}

/* Where a slot's row of KV head `head` lies, from the start of K or V. */
__device__ __forceinline__ int64_t slot_at(const struct decode &a, const int32_t *pages, int slot, int head) {
    int size = a.kv.dtype == OC_BF16 ? 2 : 4;
    return (int64_t)pages[slot / a.kv.page_tokens] * (int64_t)a.kv.page_stride_bytes +
           (int64_t)(head * a.kv.page_tokens + slot % a.kv.page_tokens) * a.kv.hd * size;
}

struct __align__(16) shared {
    float q[HEADS][OC_MAX_HD];
    float p[HEADS][KEYS];
    float max[HEADS], sum[HEADS], shrink[HEADS];
    float acc[THREADS * HEADS * 8];
};

/* What a thread reads of 64 slots: of keys 4 slots, an eighth of each; of values every so many slots a chunk of 8. Where rows are bf16 and
 * aligned all of it is on its way before any is used. */
template <bool FAST>
struct rows {
    uint4 k[4][2], v[8];

    __device__ __forceinline__ void fetch(const struct decode &a, const int32_t *pages, int head, int first, int n, int chunks, int subset, int subsets) {
        if (!FAST) return;
        int lane = threadIdx.x % 8, chunk = threadIdx.x % chunks;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int j = threadIdx.x / 8 + i * (THREADS / 8);
            if (j >= n) break;
            const uint8_t *row = a.kv.k + slot_at(a, pages, first + j, head);
#pragma unroll
            for (int u = 0; u < 2; u++)
                if (lane + 8 * u < chunks) k[i][u] = *(const uint4 *)(row + 16 * (lane + 8 * u));
        }
#pragma unroll
        for (int i = 0; i < 8; i++) {
            int j = subset + i * subsets;
            if (j >= n || subset >= subsets) break;
            v[i] = *(const uint4 *)(a.kv.v + slot_at(a, pages, first + j, head) + 16 * chunk);
        }
    }
};

__device__ __forceinline__ void widen(const uint4 &v, float out[8]) {
    uint32_t w[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; i++) out[2 * i] = __uint_as_float(w[i] << 16), out[2 * i + 1] = __uint_as_float(w[i] & 0xffff0000u);
}

/* dot[h] += q[h] of chunk c times k. */
__device__ __forceinline__ void take_chunk(const struct shared &s, int c, const float k[8], int n_heads, float dot[HEADS]) {
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
        if (h >= n_heads) break;
#pragma unroll
        for (int i = 0; i < 8; i++) dot[h] = fmaf(s.q[h][8 * c + i], k[i], dot[h]);
    }
}

/* Scores of slots first .. first+n-1: 8 lanes a slot, 8 elements each at a time. */
template <bool FAST>
__device__ static void scores(struct shared &s, const struct decode &a, const struct rows<FAST> &r, const int32_t *pages, int head, int n_heads,
                              int first, int n) {
    int lane = threadIdx.x % 8, chunks = (a.kv.hd + 7) / 8;
#pragma unroll
    for (int i = 0; i < KEYS * 8 / THREADS; i++) {
        int j = threadIdx.x / 8 + i * (THREADS / 8);
        float dot[HEADS], k[8];
#pragma unroll
        for (int h = 0; h < HEADS; h++) dot[h] = 0.0f;
        if (FAST) {
#pragma unroll
            for (int u = 0; u < 2; u++) {
                if (lane + 8 * u >= chunks || j >= n) continue;
                widen(r.k[i][u], k);
                take_chunk(s, lane + 8 * u, k, n_heads, dot);
            }
        } else {
            for (int c = lane; c < chunks && j < n; c += 8) {
                load8(a.kv.k + slot_at(a, pages, first + j, head), a.kv.dtype, 8 * c, a.kv.hd, a.aligned, k);
                take_chunk(s, c, k, n_heads, dot);
            }
        }
#pragma unroll
        for (int h = 0; h < HEADS; h++) {
            if (h >= n_heads) break;
            for (int o = 4; o > 0; o /= 2) dot[h] += __shfl_xor_sync(~0u, dot[h], o);
            if (lane == 0) s.p[h][j] = j < n ? dot[h] * a.scale : -INFINITY;
        }
    }
}

/* acc[h] += p[h] of slot j times v. */
__device__ __forceinline__ void take_value(const struct shared &s, int j, const float v[8], int n_heads, float acc[HEADS][8]) {
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
        if (h >= n_heads) break;
        float p = s.p[h][j];
#pragma unroll
        for (int i = 0; i < 8; i++) acc[h][i] = fmaf(p, v[i], acc[h][i]);
    }
}

/* Shrinks acc to the new maximum and takes n slots into it. */
template <bool FAST>
__device__ __forceinline__ void values(const struct shared &s, const struct decode &a, const struct rows<FAST> &r, const int32_t *pages, int head,
                                       int n_heads, int first, int n, int chunk, int subset, int subsets, float acc[HEADS][8]) {
    float v[8];
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
        float shrink = h < n_heads ? s.shrink[h] : 0.0f;
#pragma unroll
        for (int i = 0; i < 8; i++) acc[h][i] *= shrink;
    }
    if (subset >= subsets) return;
    if (FAST) {
#pragma unroll
        for (int i = 0; i < 8; i++) {
            if (subset + i * subsets >= n) break;
            widen(r.v[i], v);
            take_value(s, subset + i * subsets, v, n_heads, acc);
        }
        return;
    }
    for (int j = subset; j < n; j += subsets) {
        load8(a.kv.v + slot_at(a, pages, first + j, head), a.kv.dtype, 8 * chunk, a.kv.hd, a.aligned, v);
        take_value(s, j, v, n_heads, acc);
    }
}

/* Scores become exp(score - max); a warp a head. */
__device__ static void soften(struct shared &s, int n_heads) {
    int lane = threadIdx.x % 32;
    for (int h = threadIdx.x / 32; h < n_heads; h += THREADS / 32) {
        float s0 = s.p[h][lane], s1 = s.p[h][lane + 32], most = fmaxf(s0, s1), old = s.max[h];
        for (int i = 16; i > 0; i /= 2) most = fmaxf(most, __shfl_xor_sync(~0u, most, i));
        most = fmaxf(most, old);
        float p0 = expf(s0 - most), p1 = expf(s1 - most), sum = p0 + p1, shrink = expf(old - most);
        for (int i = 16; i > 0; i /= 2) sum += __shfl_xor_sync(~0u, sum, i);
        s.p[h][lane] = p0, s.p[h][lane + 32] = p1;
        __syncwarp();
        if (lane == 0) s.max[h] = most, s.shrink[h] = shrink, s.sum[h] = s.sum[h] * shrink + sum;
    }
}

__device__ static void start(struct shared &s, const struct decode &a, int64_t row, int first_head, int n_heads) {
    int padded = (a.kv.hd + 7) / 8 * 8;
    for (int i = threadIdx.x; i < n_heads * padded; i += THREADS) {
        int h = i / padded, d = i % padded;
        s.q[h][d] = d < a.kv.hd ? a.q[row * a.ldq + (int64_t)(first_head + h) * a.kv.hd + d] : 0.0f;
    }
    if (threadIdx.x < HEADS) s.max[threadIdx.x] = -INFINITY, s.sum[threadIdx.x] = 0.0f;
}

/* Adds up what the subsets of slots have, in order, and stores it: as y when the row has one piece, else as a part. */
__device__ static void finish(struct shared &s, const struct decode &a, int64_t row, int item, int first_head, int n_heads, int subsets, int n_pieces) {
    int hd = a.kv.hd, padded = (hd + 7) / 8 * 8;
    for (int i = threadIdx.x; i < n_heads * hd; i += THREADS) {
        int h = i / hd, d = i % hd;
        float sum = 0.0f;
        for (int k = 0; k < subsets; k++) sum += s.acc[(k * HEADS + h) * padded + d];
        if (n_pieces == 1) {
            a.y[row * a.ldy + (int64_t)(first_head + h) * hd + d] = sum * (1.0f / s.sum[h]);
            continue;
        }
        float *part = a.parts + (((int64_t)item * a.n_heads + first_head + h) * MAX_PIECES + blockIdx.z) * (hd + 2);
        part[d] = sum;
        if (d == 0) part[hd] = s.max[h], part[hd + 1] = s.sum[h];
    }
}

/* Grid: rows, KV heads times eights of query heads, pieces. */
template <bool FAST>
__global__ __launch_bounds__(THREADS) static void decode_kernel(const __grid_constant__ struct decode a) {
    cu_begin();
    __shared__ struct shared s;
    int64_t row = a.list ? a.list[a.first + blockIdx.x] : a.first + blockIdx.x;
    struct cu_row at = a.rows[row];
    int n_slots = at.slot + 1, slots = piece_slots(n_slots), begin = blockIdx.z * slots;
    if (begin >= n_slots) return;
    int end = min(begin + slots, n_slots), group = a.n_heads / a.kv.n_kv_heads, eights = (group + HEADS - 1) / HEADS;
    int head = blockIdx.y / eights, first_head = head * group + blockIdx.y % eights * HEADS;
    int n_heads = min(HEADS, (head + 1) * group - first_head);
    const int32_t *pages = a.pages + at.first_page;
    int chunks = (a.kv.hd + 7) / 8, subsets = THREADS / chunks, chunk = threadIdx.x % chunks, subset = threadIdx.x / chunks;
    float acc[HEADS][8];
#pragma unroll
    for (int i = 0; i < HEADS * 8; i++) (&acc[0][0])[i] = 0.0f;
    start(s, a, row, first_head, n_heads);
    for (int first = begin; first < end; first += KEYS) {
        int n = min(KEYS, end - first);
        struct rows<FAST> r;
        r.fetch(a, pages, head, first, n, chunks, subset, subsets);
        __syncthreads();
        scores<FAST>(s, a, r, pages, head, n_heads, first, n);
        __syncthreads();
        soften(s, n_heads);
        __syncthreads();
        values<FAST>(s, a, r, pages, head, n_heads, first, n, chunk, subset, subsets, acc);
    }
    if (subset < subsets) {
#pragma unroll
        for (int h = 0; h < HEADS; h++) {
#pragma unroll
            for (int i = 0; i < 8; i++) s.acc[((subset * HEADS + h) * chunks + chunk) * 8 + i] = acc[h][i];
        }
    }
    __syncthreads();
    finish(s, a, row, blockIdx.x, first_head, n_heads, subsets, pieces_of(n_slots));
}

/* Rows of several pieces: a block a row and query head. A lane looks at each piece's maximum and sum. */
__global__ static void combine_kernel(const __grid_constant__ struct decode a) {
    cu_begin();
    __shared__ float weights[MAX_PIECES];
    int64_t row = a.list ? a.list[a.first + blockIdx.x] : a.first + blockIdx.x;
    int n = pieces_of(a.rows[row].slot + 1), hd = a.kv.hd, lane = threadIdx.x % 32;
    if (n == 1) return;
    const float *part = a.parts + ((int64_t)blockIdx.x * a.n_heads + blockIdx.y) * MAX_PIECES * (hd + 2);
    float most = lane < n ? part[lane * (hd + 2) + hd] : -INFINITY, own = most, sum = lane < n ? part[lane * (hd + 2) + hd + 1] : 0.0f;
    for (int i = 16; i > 0; i /= 2) most = fmaxf(most, __shfl_xor_sync(~0u, most, i));
    float weight = expf(own - most);
    sum *= weight;
    for (int i = 16; i > 0; i /= 2) sum += __shfl_xor_sync(~0u, sum, i);
    if (threadIdx.x < 32) weights[lane] = weight;
    __syncthreads();
    for (int d = threadIdx.x; d < hd; d += blockDim.x) {
        float v = 0.0f;
#pragma unroll 8
        for (int i = 0; i < n; i++) v = fmaf(part[i * (hd + 2) + d], weights[i], v);
        a.y[row * a.ldy + (int64_t)blockIdx.y * hd + d] = v * (1.0f / sum);
    }
}

static int most_pieces(int slots) {
    return slots <= KEYS * MAX_PIECES ? (slots + KEYS - 1) / KEYS : MAX_PIECES;
}

/* All rows of role D; or all rows whatsoever, where the head is too wide for role P's kernel. */
void cu_attn_d(struct cu_state *s, const struct oc_attn_paged *a, const struct cu_rows *rows, bool all) {
    const struct oc_kv_layer *kv = &a->kv;
    int64_t n = all ? rows->m : rows->n_d;
    int64_t at_once = (int64_t)(CU_PARTS_BYTES / ((size_t)a->n_heads * MAX_PIECES * (size_t)(kv->hd + 2) * sizeof(float)));
    int group = a->n_heads / kv->n_kv_heads, pieces = most_pieces((all ? rows->max_slot : rows->max_d_slot) + 1);
    size_t size = oc_dtype_bytes(kv->dtype);
    OC_ASSERT(at_once > 0 && kv->hd <= OC_MAX_HD);
    struct decode k = {a->q, a->y, (float *)(void *)s->parts, a->ldq, a->ldy, rows->rows, rows->pages, all ? NULL : rows->d, *kv,
                       a->n_heads, 0, a->scale};
    k.aligned = kv->hd % 8 == 0 && ((uintptr_t)kv->k | (uintptr_t)kv->v | kv->page_stride_bytes | (size_t)kv->hd * size) % 16 == 0;
    auto *kernel = k.aligned && kv->dtype == OC_BF16 && kv->hd <= 128 ? decode_kernel<true> : decode_kernel<false>;
    for (int64_t first = 0; first < n; first += at_once) {
        unsigned m = (unsigned)(n - first < at_once ? n - first : at_once);
        k.first = (int)first;
        cu_launch(kernel, dim3(m, (unsigned)(kv->n_kv_heads * ((group + HEADS - 1) / HEADS)), (unsigned)pieces), THREADS, 0, s, k);
        cu_launched("attn_paged");
        if (pieces == 1) continue;
        cu_launch(combine_kernel, dim3(m, (unsigned)a->n_heads), 128, 0, s, k);
        cu_launched("attn_paged");
    }
}
