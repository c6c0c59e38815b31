/* kernels/cuda/cuda.cuh - what the files of the CUDA plug-in share: its state, weights on the device, lists sent up.
 *
 * One stream: what is asked for happens in that order. A failure in the middle of work ends the process (cu_check). */
#ifndef OC_KERNELS_CUDA_CUDA_CUH
#define OC_KERNELS_CUDA_CUDA_CUH

#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <stddef.h>
#include <stdint.h>

#define _Noreturn __attribute__((noreturn))
extern "C" {
#include "kernels/device.h"
#include "base/limits.h"
#include "kernels/impl.h"
}
#include "kernels/cuda/layout.h"

#define CU_MAX_COLUMNS 8 /* rows of x that role D multiplies at once: the columns of a product */
#define CU_FLASH_HD 128  /* the widest head of role P's tiles */
#define CU_ROW_TILE 128  /* rows of W and of x are padded to tiles of role P */

/* A weight as the device holds it. struct oc_weight.w points here once it was taken. */
struct cu_weight {
    struct cu_weight *next;
    const uint8_t *host; /* where it came from: what was brought is not brought again */
    int64_t n, k;
    int format;                 /* enum oc_cu_format */
    int sets;                   /* sets of scales a block: 0 plain, 1 pairs of bf16, 2 pairs of f32 for each 32 k */
    int64_t row_blocks, blocks; /* of 16 rows, even; of 64 k in each */
    uint8_t *data, *scales;
    float *row_scale; /* [n padded]: 2^-e, where role P holds row * 2^e in f16 */
    __half *high, *low; /* expanded for role P in the tiles of linear_p.cuh, n padded; or NULL */
};

struct cu_floats {
    struct cu_floats *next;
    const float *host;
    int64_t n;
    float *data;
};

/* Pinned memory that lists go up through, and its twin on the device. */
struct cu_ring {
    uint8_t *host, *device;
    size_t bytes, at;
    unsigned generation; /* goes up when it comes round */
};

struct cu_state {
    int index, n_sms;
    bool has_wgmma; /* compute capability 9.0 */
    bool overlaps; /* kernels may start while the one before them ends */
    cudaStream_t stream;
    struct cu_weight *weights;
    struct cu_floats *floats;
    struct cu_ring ring;
    struct cu_rows *rows;        /* the list of rows sent last */
    size_t expand_left;          /* bytes that expanded weights may still take */
    uint8_t *stage;              /* raw weights on their way in */
    uint8_t *landing;            /* pinned: what comes back, in two halves */
    cudaEvent_t landed[2];
    uint8_t *x, *w, *parts, *columns; /* workspaces, see the sizes below */
    void *scratch;
    size_t scratch_bytes;
    char name[256];
};

#define CU_STAGE_BYTES ((size_t)64 << 20)
#define CU_X_BYTES ((size_t)160 << 20)      /* role P: x in f16, and its scales */
#define CU_W_BYTES ((size_t)128 << 20)      /* role P: a weight that is not kept expanded */
#define CU_PARTS_BYTES ((size_t)64 << 20)   /* role D: parts of attention; two products of a glu whose formats differ */
#define CU_COLUMNS_BYTES ((size_t)48 << 20) /* role D: x cut into three bf16 */
#define CU_FIRST_SCRATCH ((size_t)1 << 20)
#define CU_LANDING_BYTES ((size_t)2 << 20)
#define CU_RING_BYTES ((size_t)16 << 20)

/* Writes "ocellus: the CUDA device failed while ...: ..." and aborts. */
void cu_die(const char *doing, cudaError_t e);

static inline void cu_check(const char *doing, cudaError_t e) {
    if (e != cudaSuccess) cu_die(doing, e);
}

/* The state behind a context, whose device is made the thread's. */
struct cu_state *cu_state_of(const struct oc_kctx *ctx);

/* The last launch went out. */
static inline void cu_launched(const char *what) {
    cu_check(what, cudaGetLastError());
}

static inline const struct cu_weight *cu_weight_of(const struct oc_weight *w) {
    return (const struct cu_weight *)(const void *)w->w;
}

static inline int64_t cu_up(int64_t n, int64_t unit) {
    return (n + unit - 1) / unit * unit;
}

/* Bytes to the device through the ring; valid until the ring has come round, which waits for the stream. */
void *cu_send(struct cu_state *s, const void *src, size_t bytes);

/* Host memory for a list being made, valid until the next call; it grows. */
void *cu_scratch(struct cu_state *s, size_t bytes);

/* A list of rows on the device. */
struct cu_row {
    int32_t first_page; /* of its sequence, in pages */
    int32_t slot;
};

/* Up to 64 rows of role P of one sequence, at slots that follow each other. */
struct cu_tile {
    int32_t row, n;
};

struct cu_rows {
    int64_t m, n_d, n_tiles;
    int max_slot, max_d_slot;
    size_t bytes, room;
    unsigned generation; /* of the ring when it was sent */
    uint8_t *image, *built; /* the list sent last, and the one being built */
    const struct cu_row *rows;
    const int32_t *pages, *d; /* d: numbers of the rows of role D */
    const struct cu_tile *tiles;
};

/* The list of these rows on the device: sent, unless it is the one sent last. */
const struct cu_rows *cu_send_rows(struct cu_state *s, const struct oc_kv_row *rows, int64_t m, int page_tokens);
void cu_rows_init(struct cu_state *s);
void cu_rows_free(struct cu_state *s);

enum oc_err cu_take_weight(struct oc_device *d, struct oc_weight *w, struct oc_errinfo *ei);
enum oc_err cu_take_floats(struct oc_device *d, const float **v, int64_t n, struct oc_errinfo *ei);
void cu_weights_free(struct cu_state *s);
enum oc_err cu_malloc(struct cu_state *s, size_t bytes, void **out, struct oc_errinfo *ei);

/* Rows first .. first+n-1 of a weight, times 2^e, as f16 in tiles and, unless low is NULL, what that left. */
void cu_expand(struct cu_state *s, const struct cu_weight *w, int64_t first, int64_t n, __half *high, __half *low);

/* True when the whole weight stands expanded, low too where that is asked for; expands it if there is room. Weights of f32 are brought
 * with low, other ones of models without, so nothing is allocated later but for an op that mixes f32 or f16 with others. */
bool cu_keep_expanded(struct cu_state *s, const struct cu_weight *w, bool with_low);

/* Frees all expanded weights, and keeps none from now on; whether there were any. Their ops go on, slower, with the same bits. */
bool cu_drop_expanded(struct cu_state *s);

/* Role D's and role P's parts of the three linear ops: n_w weights, glu when y is act(gate) * up. */
struct cu_linear {
    int64_t m;
    const float *x;
    int64_t ldx;
    int n_w;
    const struct oc_weight *w[3];
    float *y[3];
    int64_t ldy[3];
    enum oc_act act;
    bool add, glu;
};
void cu_linear_d(struct cu_state *s, const struct cu_linear *a);
void cu_linear_p(struct cu_state *s, const struct cu_linear *a);

/* Shared memory beyond 48 KiB is asked for once, when the device is opened: the driver allocates for it. */
void cu_linear_p_prepare(const struct cu_state *s);
void cu_attn_prepare(void);

void cu_attn_d(struct cu_state *s, const struct oc_attn_paged *a, const struct cu_rows *rows, bool all);
void cu_attn_p(struct cu_state *s, const struct oc_attn_paged *a, const struct cu_rows *rows);

#define OC_OP(name) void cu_##name(const struct oc_kctx *ctx, const struct oc_##name *a);
#include "kernels/ops.def"
#undef OC_OP

#ifdef __CUDACC__
#include <cuda_bf16.h>

#include "kernels/cuda/instructions.cuh"

__device__ __forceinline__ float cu_act(int act, float x) {
    switch (act) {
    case OC_ACT_SILU:
        return x / (1.0f + expf(-x));
    case OC_ACT_GELU:
        return 0.5f * x * erfcf(-x * 0.70710678f);
    case OC_ACT_GELU_TANH: {
        float u = 0.7978845608f * (x + 0.044715f * x * x * x);
        return x / (1.0f + expf(-2.0f * u));
    }
    case OC_ACT_QUICK_GELU:
        return x / (1.0f + expf(-1.702f * x));
    default:
        return x;
    }
}

__device__ __forceinline__ uint32_t cu_pack_bf16(float low, float high) {
    __nv_bfloat162 v = __floats2bfloat162_rn(low, high);
    return *(uint32_t *)&v;
}

/* Two floats as two bf16 each: the nearest, and of what that left the nearest. */
__device__ __forceinline__ void cu_split_bf16(float a, float b, uint32_t *high, uint32_t *low) {
    *high = cu_pack_bf16(a, b);
    *low = cu_pack_bf16(a - __uint_as_float(*high << 16), b - __uint_as_float(*high & 0xffff0000u));
}
#endif

#endif
