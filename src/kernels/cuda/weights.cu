/* Weights on the device: brought in slices of rows, put into the order of layout.h there, expanded to f16 for role P. */
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.cuh"

#define VOCABULARY 65536 /* weights of more rows are embeddings and heads, which role P does not multiply */
#define TARGET_EXPONENT 15 /* a row's largest weight times 2^e is below 2^15: f16 ends at 65504 */

static int format_of(const struct oc_weight *w) {
    if (w->bits == 4) return OC_CU_Q4;
    if (w->bits == 8) return OC_CU_Q8;
    if (w->bits != 0) return -1;
    return w->dtype == OC_F32 ? OC_CU_F32 : w->dtype == OC_F16 ? OC_CU_F16 : w->dtype == OC_BF16 ? OC_CU_BF16 : -1;
}

__device__ static uint32_t load_u16(const uint8_t *p) {
    return p[0] | (uint32_t)p[1] << 8;
}

__device__ static uint32_t load_u32(const uint8_t *p) {
    return load_u16(p) | load_u16(p + 2) << 16;
}

/* Element i of an array at any address, as f32. */
__device__ static float load_float(const uint8_t *p, int dtype, int64_t i) {
    if (dtype == OC_F32) return __uint_as_float(load_u32(p + 4 * i));
    uint32_t h = load_u16(p + 2 * i);
    if (dtype == OC_BF16) return __uint_as_float(h << 16);
    return __half2float(__ushort_as_half((unsigned short)h));
}

/* The bits of element (row, k) as they stand in the checkpoint, rows of row_bytes from `raw`. */
__device__ static uint32_t raw_bits(const uint8_t *raw, int64_t row, int64_t k, int64_t row_bytes, int bits) {
    const uint8_t *p = raw + row * row_bytes;
    if (bits == 4) return p[k / 2] >> (k % 2 * 4) & 15u;
    if (bits == 8) return p[k];
    return bits == 16 ? load_u16(p + 2 * k) : load_u32(p + 4 * k);
}

struct repack {
    const uint8_t *raw;
    uint32_t *out; /* the blocks of row block first */
    int64_t rows, k, row_bytes, blocks, words; /* rows there are from `first` on; words to write */
    int format;
};

/* One word of a block for each thread. */
__global__ static void repack_kernel(struct repack a) {
    cu_begin();
    int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= a.words) return;
    int block_words = oc_cu_block_bytes(a.format) / 4, bits = oc_cu_bits(a.format);
    int64_t block = at / block_words, row_block = block / a.blocks, k_block = block % a.blocks;
    uint32_t word = 0;
    for (int shift = 0; shift < 32; shift += bits) {
        struct oc_cu_place p = oc_cu_place_at(a.format, (int)(at % block_words) * 32 + shift);
        int64_t row = row_block * 16 + oc_cu_row_of(p), k = k_block * 64 + oc_cu_k_of(p);
        if (row < a.rows && k < a.k) word |= raw_bits(a.raw, row, k, a.row_bytes, bits) << shift;
    }
    a.out[at] = word;
}

struct rescale {
    const uint8_t *scales, *zero_biases; /* [rows, groups] */
    uint8_t *out;
    int64_t rows, groups, blocks, pairs; /* pairs to write */
    int dtype, group, sets;
};

/* One pair (scale, zero bias) for each thread. */
__global__ static void rescale_kernel(struct rescale a) {
    cu_begin();
    int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= a.pairs) return;
    int64_t set = at / 16, row_block = set / (a.blocks * a.sets);
    int pair = (int)(at % 16);
    int64_t row = row_block * 16 + pair / 2 + pair % 2 * 8, k = set % (a.blocks * a.sets) * (64 / a.sets), g = k / a.group;
    bool inside = row < a.rows && g < a.groups;
    float scale = inside ? load_float(a.scales, a.dtype, row * a.groups + g) : 0.0f;
    float zero = inside ? load_float(a.zero_biases, a.dtype, row * a.groups + g) : 0.0f;
    if (a.sets == 2) {
        ((float2 *)a.out)[at] = make_float2(scale, zero);
    } else {
        ((uint32_t *)a.out)[at] = __float_as_uint(scale) >> 16 | (__float_as_uint(zero) & 0xffff0000u);
    }
}

/* What the device's functions need of a weight. */
struct view {
    const uint8_t *data, *scales;
    int64_t blocks, n, k;
    int format, sets;
};

static struct view view_of(const struct cu_weight *w) {
    struct view v = {w->data, w->scales, w->blocks, w->n, w->k, w->format, w->sets};
    return v;
}

/* Weight (row, k), dequantised with one rounding; 0 outside. */
__device__ static float value_at(const struct view &v, int64_t row, int64_t k) {
    if (row >= v.n || k >= v.k) return 0.0f;
    int64_t block = row / 16 * v.blocks + k / 64;
    int bits = oc_cu_bits(v.format), in_row = (int)(row % 16), in_k = (int)(k % 64);
    int bit = oc_cu_bit_of(v.format, oc_cu_place_of(in_row, in_k));
    uint32_t word = ((const uint32_t *)v.data)[block * (oc_cu_block_bytes(v.format) / 4) + bit / 32];
    if (v.format == OC_CU_F32) return __uint_as_float(word);
    uint32_t q = word >> bit % 32 & ((1u << bits) - 1u);
    if (v.format == OC_CU_BF16) return __uint_as_float(q << 16);
    if (v.format == OC_CU_F16) return __half2float(__ushort_as_half((unsigned short)q));
    int64_t pair = (block * v.sets + (v.sets == 2 ? in_k / 32 : 0)) * 16 + oc_cu_pair_of(in_row);
    if (v.sets == 2) {
        float2 s = ((const float2 *)v.scales)[pair];
        return fmaf(s.x, (float)q, s.y);
    }
    uint32_t s = ((const uint32_t *)v.scales)[pair];
    return fmaf(__uint_as_float(s << 16), (float)q, __uint_as_float(s & 0xffff0000u));
}

/* 2^-e of each row: its largest weight times 2^e is in 2^14 .. 2^15. A warp a row. */
__global__ static void row_scale_kernel(struct view v, float *out, int64_t rows) {
    cu_begin();
    int64_t row = (int64_t)blockIdx.x * 8 + threadIdx.x / 32;
    if (row >= rows) return;
    float most = 0.0f;
    for (int64_t k = threadIdx.x % 32; k < v.k; k += 32) most = fmaxf(most, fabsf(value_at(v, row, k)));
    for (int i = 16; i > 0; i /= 2) most = fmaxf(most, __shfl_xor_sync(~0u, most, i));
    int exponent = 0;
    if (most > 0.0f && isfinite(most)) frexpf(most, &exponent);
    int e = TARGET_EXPONENT - exponent;
    e = e > 126 ? 126 : e < -126 ? -126 : most > 0.0f ? e : 0;
    if (threadIdx.x % 32 == 0) out[row] = ldexpf(1.0f, -e);
}

struct expand {
    struct view v;
    const float *row_scale;
    __half *high, *low;
    int64_t first, n; /* rows, which may reach past the weight's own */
};

/* Eight k of a row for each thread, into the tiles that linear_p.cuh describes. */
__global__ static void expand_kernel(struct expand a) {
    cu_begin();
    int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, chunks = a.v.blocks * 8;
    if (at >= a.n * chunks) return;
    int64_t row = at / chunks, chunk = at % chunks, k = chunk * 8;
    int64_t to = ((row / 64 * a.v.blocks + chunk / 8) * 64 + row % 64) * 8 + (chunk % 8 ^ (row & 7));
    row += a.first;
    float up = row < a.v.n ? 1.0f / a.row_scale[row] : 1.0f;
    __align__(16) __half high[8], low[8];
#pragma unroll
    for (int i = 0; i < 8; i++) {
        float x = value_at(a.v, row, k + i) * up;
        high[i] = __float2half_rn(x);
        low[i] = __float2half_rn(x - __half2float(high[i]));
    }
    ((uint4 *)a.high)[to] = *(const uint4 *)high;
    if (a.low) ((uint4 *)a.low)[to] = *(const uint4 *)low;
}

static unsigned grid_of(int64_t items, int threads) {
    return (unsigned)((items + threads - 1) / threads);
}

void cu_expand(struct cu_state *s, const struct cu_weight *w, int64_t first, int64_t n, __half *high, __half *low) {
    struct expand a = {view_of(w), w->row_scale, high, low, first, n};
    cu_launch(expand_kernel, grid_of(n * w->blocks * 8, 256), 256, 0, s, a);
    cu_launched("expanding a weight");
}

/* Allocates if the budget and the card allow; no error, only NULL. */
static __half *try_room(struct cu_state *s, size_t bytes) {
    void *p = NULL;
    if (bytes > s->expand_left) return NULL;
    if (cudaMalloc(&p, bytes) != cudaSuccess) {
        cudaGetLastError();
        s->expand_left = 0;
        return NULL;
    }
    s->expand_left -= bytes;
    return (__half *)p;
}

bool cu_drop_expanded(struct cu_state *s) {
    bool any = false;
    cu_check("waiting", cudaStreamSynchronize(s->stream));
    for (struct cu_weight *w = s->weights; w; w = w->next) {
        any = any || w->high || w->low;
        cudaFree(w->high), cudaFree(w->low);
        w->high = w->low = NULL;
    }
    s->expand_left = 0;
    return any;
}

bool cu_keep_expanded(struct cu_state *s, const struct cu_weight *weight, bool with_low) {
    struct cu_weight *w = (struct cu_weight *)weight;
    int64_t rows = cu_up(w->n, CU_ROW_TILE);
    size_t bytes = (size_t)(rows * w->blocks) * 64 * sizeof(__half);
    if (w->high && (w->low || !with_low)) return true;
    bool more = false;
    if (!w->high) more = (w->high = try_room(s, bytes)) != NULL;
    if (w->high && with_low) more = (w->low = try_room(s, bytes)) != NULL || more;
    if (more) cu_expand(s, w, 0, rows, w->high, w->low);
    return w->high && (w->low || !with_low);
}

/* Rows first .. first+rows-1 of the raw tensor, staged, into their blocks; first is a multiple of 16. */
static void bring_rows(struct cu_state *s, struct cu_weight *w, const struct oc_weight *raw, int64_t first, int64_t rows) {
    int64_t row_bytes = (int64_t)oc_weight_row_bytes(raw), row_blocks = (rows + 15) / 16;
    if (first + rows >= w->n) row_blocks = w->row_blocks - first / 16; /* the padding too */
    cu_check("bringing a weight", cudaMemcpyAsync(s->stage, raw->w + first * row_bytes, (size_t)(rows * row_bytes),
                                                  cudaMemcpyHostToDevice, s->stream));
    int64_t block_words = oc_cu_block_bytes(w->format) / 4;
    struct repack a = {s->stage,  (uint32_t *)(void *)w->data + first / 16 * w->blocks * block_words, rows, w->k, row_bytes,
                       w->blocks, row_blocks * w->blocks * block_words, w->format};
    cu_launch(repack_kernel, grid_of(a.words, 256), 256, 0, s, a);
    cu_launched("bringing a weight");
}

/* Scales and zero biases in slices of rows, like the weights. */
static void bring_scales(struct cu_state *s, struct cu_weight *w, const struct oc_weight *raw) {
    int64_t groups = w->k / raw->group, row_bytes = groups * (int64_t)oc_dtype_bytes(raw->dtype);
    int64_t slice = (int64_t)(CU_STAGE_BYTES / 2) / row_bytes / 16 * 16, pair_bytes = w->sets == 2 ? 8 : 4;
    for (int64_t first = 0; first < w->row_blocks * 16; first += slice) {
        int64_t rows = w->n - first < slice ? w->n - first : slice, row_blocks = (rows + 15) / 16;
        if (first + rows >= w->n) row_blocks = w->row_blocks - first / 16;
        size_t bytes = (size_t)(rows * row_bytes);
        uint8_t *zero_biases = s->stage + CU_STAGE_BYTES / 2;
        cu_check("bringing scales", cudaMemcpyAsync(s->stage, raw->scales + first * row_bytes, bytes, cudaMemcpyHostToDevice, s->stream));
        cu_check("bringing scales", cudaMemcpyAsync(zero_biases, raw->zero_biases + first * row_bytes, bytes, cudaMemcpyHostToDevice, s->stream));
        struct rescale a = {s->stage,  zero_biases, w->scales + first / 16 * w->blocks * w->sets * 16 * pair_bytes, rows, groups,
                            w->blocks, row_blocks * w->blocks * w->sets * 16, raw->dtype, raw->group, w->sets};
        cu_launch(rescale_kernel, grid_of(a.pairs, 256), 256, 0, s, a);
        cu_launched("bringing scales");
        if (first + rows >= w->n) break;
    }
}

static void bring(struct cu_state *s, struct cu_weight *w, const struct oc_weight *raw) {
    int64_t slice = (int64_t)CU_STAGE_BYTES / (int64_t)oc_weight_row_bytes(raw) / 16 * 16;
    for (int64_t first = 0; first < w->n; first += slice) {
        bring_rows(s, w, raw, first, w->n - first < slice ? w->n - first : slice);
    }
    if (raw->bits) bring_scales(s, w, raw);
    int64_t rows = cu_up(w->n, CU_ROW_TILE);
    cu_launch(row_scale_kernel, grid_of(rows, 8), 256, 0, s, view_of(w), w->row_scale, rows);
    cu_launched("bringing a weight");
    cu_check("bringing a weight", cudaStreamSynchronize(s->stream)); /* the mapping may go away */
}

static struct cu_weight *weight_new(const struct oc_weight *raw, int format) {
    struct cu_weight *w = (struct cu_weight *)calloc(1, sizeof *w);
    if (!w) return NULL;
    w->host = raw->w, w->n = raw->n, w->k = raw->k, w->format = format;
    w->row_blocks = cu_up(raw->n, 32) / 16, w->blocks = cu_up(raw->k, 64) / 64;
    if (raw->bits) w->sets = raw->dtype == OC_BF16 && raw->group >= 64 ? 1 : 2;
    return w;
}

static void weight_free(struct cu_weight *w) {
    cudaFree(w->data), cudaFree(w->scales), cudaFree(w->row_scale), cudaFree(w->high), cudaFree(w->low);
    free(w);
}

static enum oc_err weight_rooms(struct cu_state *s, struct cu_weight *w, struct oc_errinfo *ei) {
    size_t blocks = (size_t)(w->row_blocks * w->blocks);
    OC_TRY(cu_malloc(s, blocks * (size_t)oc_cu_block_bytes(w->format), (void **)&w->data, ei));
    if (w->sets) OC_TRY(cu_malloc(s, blocks * (size_t)w->sets * 16 * (w->sets == 2 ? 8 : 4), (void **)&w->scales, ei));
    return cu_malloc(s, (size_t)cu_up(w->n, CU_ROW_TILE) * sizeof(float), (void **)&w->row_scale, ei);
}

enum oc_err cu_take_weight(struct oc_device *d, struct oc_weight *raw, struct oc_errinfo *ei) {
    struct cu_state *s = (struct cu_state *)d->state;
    cu_check("choosing the device", cudaSetDevice(s->index));
    if (raw->bias) OC_TRY(cu_take_floats(d, &raw->bias, raw->n, ei));
    struct cu_weight *w = s->weights;
    while (w && (w->host != raw->w || w->n != raw->n || w->k != raw->k)) w = w->next;
    if (!w) {
        int format = format_of(raw);
        if (format < 0 || oc_weight_row_bytes(raw) * 16 > CU_STAGE_BYTES) {
            return oc_fail(ei, OC_ERR_UNSUPPORTED, "the CUDA kernels take no weight [%lld, %lld] of %d bits in %s", (long long)raw->n,
                           (long long)raw->k, raw->bits, raw->dtype == OC_F32 ? "F32" : raw->dtype == OC_F16 ? "F16" : "another type");
        }
        w = weight_new(raw, format);
        if (!w) return oc_fail(ei, OC_ERR_NOMEM, "no memory for a weight");
        enum oc_err e = weight_rooms(s, w, ei);
        if (e != OC_OK) {
            weight_free(w);
            return e;
        }
        bring(s, w, raw);
        if (w->n <= VOCABULARY) cu_keep_expanded(s, w, format == OC_CU_F32);
        w->next = s->weights;
        s->weights = w;
    }
    raw->w = raw->scales = raw->zero_biases = (const uint8_t *)(const void *)w;
    return OC_OK;
}

enum oc_err cu_take_floats(struct oc_device *d, const float **v, int64_t n, struct oc_errinfo *ei) {
    struct cu_state *s = (struct cu_state *)d->state;
    cu_check("choosing the device", cudaSetDevice(s->index));
    struct cu_floats *f = s->floats;
    while (f && (f->host != *v || f->n != n)) f = f->next;
    if (!f) {
        f = (struct cu_floats *)calloc(1, sizeof *f);
        if (!f) return oc_fail(ei, OC_ERR_NOMEM, "no memory for a vector");
        enum oc_err e = cu_malloc(s, (size_t)n * sizeof(float), (void **)&f->data, ei);
        if (e != OC_OK) {
            free(f);
            return e;
        }
        d->put(d, f->data, *v, (size_t)n * sizeof(float));
        f->host = *v, f->n = n, f->next = s->floats;
        s->floats = f;
    }
    *v = f->data;
    return OC_OK;
}

void cu_weights_free(struct cu_state *s) {
    for (struct cu_weight *w = s->weights, *next; w; w = next) {
        next = w->next;
        weight_free(w);
    }
    for (struct cu_floats *f = s->floats, *next; f; f = next) {
        next = f->next;
        cudaFree(f->data);
        free(f);
    }
    s->weights = NULL, s->floats = NULL;
}

struct embed {
    struct view v;
    const int32_t *ids;
    float *y;
    int64_t ldy;
};

__global__ static void embed_kernel(struct embed a) {
    cu_begin();
    int64_t row = blockIdx.y;
    int64_t k = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (k < a.v.k) a.y[row * a.ldy + k] = value_at(a.v, a.ids[row], k);
}

void cu_embed(const struct oc_kctx *ctx, const struct oc_embed *a) {
    struct cu_state *s = cu_state_of(ctx);
    for (int64_t done = 0; done < a->m; done += 32768) {
        int64_t m = a->m - done < 32768 ? a->m - done : 32768;
        const int32_t *ids = (const int32_t *)cu_send(s, a->ids + done, (size_t)m * sizeof *ids);
        struct embed e = {view_of(cu_weight_of(a->w)), ids, a->y + done * a->ldy, a->ldy};
        cu_launch(embed_kernel, dim3(grid_of(a->w->k, 128), (unsigned)m), 128, 0, s, e);
        cu_launched("embed");
    }
}
