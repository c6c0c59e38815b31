/* The ops that move and turn rows: rmsnorm, rope, kv_append, move_rows. All are bound by memory, and small. */
#include "kernels/cuda/cuda.cuh"

#define NORM_THREADS 256

struct norm {
    int64_t d, ldx, ldy;
    const float *x, *w;
    float *y;
    float eps;
};

/* A block a row; each thread sums its own elements in order, then warps and the block are added in a fixed order. */
__global__ __launch_bounds__(NORM_THREADS) static void rmsnorm_kernel(struct norm a) {
    cu_begin();
    __shared__ float parts[NORM_THREADS / 32];
    const float *x = a.x + blockIdx.x * a.ldx;
    float *y = a.y + blockIdx.x * a.ldy, sum = 0.0f;
    for (int64_t i = threadIdx.x; i < a.d; i += NORM_THREADS) sum = fmaf(x[i], x[i], sum);
    for (int i = 16; i > 0; i /= 2) sum += __shfl_xor_sync(~0u, sum, i);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = sum;
    __syncthreads();
    sum = 0.0f;
    for (int i = 0; i < NORM_THREADS / 32; i++) sum += parts[i];
    float scale = 1.0f / sqrtf(sum / (float)a.d + a.eps);
    for (int64_t i = threadIdx.x; i < a.d; i += NORM_THREADS) y[i] = x[i] * scale * a.w[i];
}

void cu_rmsnorm(const struct oc_kctx *ctx, const struct oc_rmsnorm *a) {
    struct cu_state *s = cu_state_of(ctx);
    struct norm n = {a->d, a->ldx, a->ldy, a->x, a->w, a->y, a->eps};
    if (a->m == 0) return;
    cu_launch(rmsnorm_kernel, (unsigned)a->m, NORM_THREADS, 0, s, n);
    cu_launched("rmsnorm");
}

struct rope {
    int64_t ldx, pairs; /* pairs of a row: n_heads * half */
    int half;
    float *x;
    const float *cos, *sin;
};

__global__ static void rope_kernel(struct rope a) {
    cu_begin();
    int64_t row = blockIdx.y, at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= a.pairs) return;
    int i = (int)(at % a.half);
    float *x = a.x + row * a.ldx + at / a.half * 2 * a.half + i;
    float c = a.cos[row * a.half + i], s = a.sin[row * a.half + i], low = x[0], high = x[a.half];
    x[0] = low * c - high * s;
    x[a.half] = high * c + low * s;
}

void cu_rope(const struct oc_kctx *ctx, const struct oc_rope *a) {
    struct cu_state *s = cu_state_of(ctx);
    int half = a->hd / 2;
    int64_t pairs = (int64_t)a->n_heads * half;
    for (int64_t done = 0; done < a->m && pairs; done += 32768) {
        int64_t m = a->m - done < 32768 ? a->m - done : 32768;
        struct rope r = {a->ldx, pairs, half, a->x + done * a->ldx, a->cos + done * half, a->sin + done * half};
        cu_launch(rope_kernel, dim3((unsigned)((pairs + 127) / 128), (unsigned)m), 128, 0, s, r);
        cu_launched("rope");
    }
}

struct append {
    const float *k, *v;
    int64_t ldk, ldv;
    const struct cu_row *rows;
    const int32_t *pages;
    struct oc_kv_layer kv;
};

/* A block a row. */
__global__ static void append_kernel(struct append a) {
    cu_begin();
    struct cu_row row = a.rows[blockIdx.x];
    const struct oc_kv_layer &kv = a.kv;
    int64_t page = a.pages[row.first_page + row.slot / kv.page_tokens];
    for (int i = threadIdx.x; i < kv.n_kv_heads * kv.hd; i += blockDim.x) {
        int64_t at = (int64_t)(i / kv.hd * kv.page_tokens + row.slot % kv.page_tokens) * kv.hd + i % kv.hd;
        float k = a.k[blockIdx.x * a.ldk + i], v = a.v[blockIdx.x * a.ldv + i];
        uint8_t *pk = kv.k + page * kv.page_stride_bytes, *pv = kv.v + page * kv.page_stride_bytes;
        if (kv.dtype == OC_F32) {
            ((float *)pk)[at] = k, ((float *)pv)[at] = v;
        } else {
            ((__nv_bfloat16 *)pk)[at] = __float2bfloat16_rn(k), ((__nv_bfloat16 *)pv)[at] = __float2bfloat16_rn(v);
        }
    }
}

void cu_kv_append(const struct oc_kctx *ctx, const struct oc_kv_append *a) {
    struct cu_state *s = cu_state_of(ctx);
    if (a->m == 0) return;
    const struct cu_rows *rows = cu_send_rows(s, a->rows, a->m, a->kv.page_tokens);
    struct append k = {a->k, a->v, a->ldk, a->ldv, rows->rows, rows->pages, a->kv};
    cu_launch(append_kernel, (unsigned)a->m, 256, 0, s, k);
    cu_launched("kv_append");
}

struct move {
    int64_t d, ldx, ldy;
    const float *x;
    const int32_t *to;
    float *y;
};

__global__ static void move_kernel(struct move a) {
    cu_begin();
    const float *x = a.x + blockIdx.x * a.ldx;
    float *y = a.y + a.to[blockIdx.x] * a.ldy;
    for (int64_t i = threadIdx.x; i < a.d; i += blockDim.x) y[i] = x[i];
}

void cu_move_rows(const struct oc_kctx *ctx, const struct oc_move_rows *a) {
    struct cu_state *s = cu_state_of(ctx);
    if (a->m == 0) return;
    const int32_t *to = (const int32_t *)cu_send(s, a->to, (size_t)a->m * sizeof *to);
    struct move k = {a->d, a->ldx, a->ldy, a->x, to, a->y};
    cu_launch(move_kernel, (unsigned)a->m, 256, 0, s, k);
    cu_launched("move_rows");
}
