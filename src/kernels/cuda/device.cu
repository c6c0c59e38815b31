/* The CUDA device: opening it, its memory, bytes there and back, and the symbol that the program looks for. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.cuh"

void cu_die(const char *doing, cudaError_t e) {
    fprintf(stderr, "ocellus: the CUDA device failed at %s: %s\n", doing, cudaGetErrorString(e));
    abort();
}

struct cu_state *cu_state_of(const struct oc_kctx *ctx) {
    struct cu_state *s = (struct cu_state *)ctx->device;
    OC_ASSERT(s);
    cu_check("choosing the device", cudaSetDevice(s->index));
    return s;
}

static struct cu_state *state_of(struct oc_device *d) {
    struct cu_state *s = (struct cu_state *)d->state;
    cu_check("choosing the device", cudaSetDevice(s->index));
    return s;
}

/* Expanded weights are a luxury: they go when memory is needed for something else. */
enum oc_err cu_malloc(struct cu_state *s, size_t bytes, void **out, struct oc_errinfo *ei) {
    cudaError_t e = cudaMalloc(out, bytes ? bytes : 1);
    if (e == cudaErrorMemoryAllocation && cu_drop_expanded(s)) {
        cudaGetLastError();
        e = cudaMalloc(out, bytes ? bytes : 1);
    }
    if (e == cudaErrorMemoryAllocation) {
        size_t free_bytes = 0, total = 0;
        cudaGetLastError();
        cudaMemGetInfo(&free_bytes, &total);
        *out = NULL;
        return oc_fail(ei, OC_ERR_NOMEM, "%s has %.1f MiB free of %.1f, but %.1f more are needed", s->name,
                       (double)free_bytes / (double)OC_MIB, (double)total / (double)OC_MIB, (double)bytes / (double)OC_MIB);
    }
    cu_check("an allocation", e);
    return OC_OK;
}

static enum oc_err device_alloc(struct oc_device *d, size_t bytes, void **out, struct oc_errinfo *ei) {
    struct cu_state *s = state_of(d);
    *out = NULL;
    OC_TRY(cu_malloc(s, bytes, out, ei));
    cu_check("clearing memory", cudaMemsetAsync(*out, 0, bytes, s->stream));
    return OC_OK;
}

static void device_free(struct oc_device *d, void *p, size_t bytes) {
    (void)bytes;
    struct cu_state *s = state_of(d);
    cu_check("waiting", cudaStreamSynchronize(s->stream));
    if (p) cu_check("freeing memory", cudaFree(p));
}

/* What fits half the ring goes through it and the caller need not wait; the rest waits for its turn and is staged by the driver. */
static void device_put(struct oc_device *d, void *dst, const void *src, size_t bytes) {
    struct cu_state *s = state_of(d);
    if (bytes == 0) return;
    if (bytes > s->ring.bytes / 2) {
        cu_check("a copy to the device", cudaMemcpyAsync(dst, src, bytes, cudaMemcpyHostToDevice, s->stream));
        cu_check("a copy to the device", cudaStreamSynchronize(s->stream));
        return;
    }
    if (s->ring.at + bytes > s->ring.bytes) {
        cu_check("waiting", cudaStreamSynchronize(s->stream));
        s->ring.at = 0, s->ring.generation++;
    }
    memcpy(s->ring.host + s->ring.at, src, bytes);
    cu_check("a copy to the device", cudaMemcpyAsync(dst, s->ring.host + s->ring.at, bytes, cudaMemcpyHostToDevice, s->stream));
    s->ring.at = oc_round_up(s->ring.at + bytes, 256);
}

/* Piece i of what device_get brings is on its way to its half of the landing. */
static size_t fly(struct cu_state *s, const uint8_t *src, size_t bytes, size_t at) {
    size_t half = CU_LANDING_BYTES / 2, n = bytes - at < half ? bytes - at : half, i = at / half % 2;
    cu_check("a copy from the device", cudaMemcpyAsync(s->landing + i * half, src + at, n, cudaMemcpyDeviceToHost, s->stream));
    cu_check("a copy from the device", cudaEventRecord(s->landed[i], s->stream));
    return n;
}

/* Through pinned memory, one half filling while the other is copied out. */
static void device_get(struct oc_device *d, void *dst, const void *src, size_t bytes) {
    struct cu_state *s = state_of(d);
    size_t half = CU_LANDING_BYTES / 2, asked = bytes ? fly(s, (const uint8_t *)src, bytes, 0) : 0;
    for (size_t at = 0; at < bytes; at += half) {
        size_t n = bytes - at < half ? bytes - at : half, i = at / half % 2;
        if (asked < bytes) asked += fly(s, (const uint8_t *)src, bytes, asked);
        cu_check("waiting for work", cudaEventSynchronize(s->landed[i]));
        memcpy((uint8_t *)dst + at, s->landing + i * half, n);
    }
    cu_check("waiting for work", cudaStreamSynchronize(s->stream));
}

static void device_wait(struct oc_device *d) {
    cu_check("waiting for work", cudaStreamSynchronize(state_of(d)->stream));
}

void *cu_send(struct cu_state *s, const void *src, size_t bytes) {
    struct cu_ring *r = &s->ring;
    if (bytes > r->bytes) { /* a list of an enormous batch: the ring grows once */
        cu_check("waiting", cudaStreamSynchronize(s->stream));
        cu_check("freeing memory", cudaFreeHost(r->host));
        cu_check("freeing memory", cudaFree(r->device));
        r->bytes = oc_round_up(2 * bytes, 4096);
        cu_check("growing the ring", cudaMallocHost((void **)&r->host, r->bytes));
        cu_check("growing the ring", cudaMalloc((void **)&r->device, r->bytes));
        r->at = 0, r->generation++;
    }
    if (r->at + bytes > r->bytes) {
        cu_check("waiting", cudaStreamSynchronize(s->stream));
        r->at = 0, r->generation++;
    }
    uint8_t *host = r->host + r->at, *device = r->device + r->at;
    memcpy(host, src, bytes);
    cu_check("a copy to the device", cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, s->stream));
    r->at = oc_round_up(r->at + bytes, 256);
    return device;
}

void *cu_scratch(struct cu_state *s, size_t bytes) {
    if (bytes > s->scratch_bytes) {
        s->scratch_bytes = 2 * bytes;
        s->scratch = realloc(s->scratch, s->scratch_bytes);
        OC_ASSERT(s->scratch);
    }
    return s->scratch;
}

static void device_close(struct oc_device *d) {
    struct cu_state *s = state_of(d);
    cudaStreamSynchronize(s->stream);
    cu_weights_free(s);
    cu_rows_free(s);
    cudaFree(s->ring.device), cudaFreeHost(s->ring.host), cudaFreeHost(s->landing);
    for (int i = 0; i < 2; i++)
        if (s->landed[i]) cudaEventDestroy(s->landed[i]);
    cudaFree(s->stage), cudaFree(s->x), cudaFree(s->w), cudaFree(s->parts), cudaFree(s->columns);
    cudaStreamDestroy(s->stream);
    free(s->scratch), free(s), free(d);
}

/* Is there such a device, and can its driver run this? */
static enum oc_err find_device(int index, struct cudaDeviceProp *prop, struct oc_errinfo *ei) {
    int n = 0;
    cudaError_t e = cudaGetDeviceCount(&n);
    if (e != cudaSuccess || n == 0) {
        return oc_fail(ei, OC_ERR_UNSUPPORTED, "there is no CUDA device that works here: %s",
                       e == cudaSuccess ? "none is installed" : cudaGetErrorString(e));
    }
    if (index < 0 || index >= n) return oc_fail(ei, OC_ERR_UNSUPPORTED, "there is no CUDA device %d: this machine has %d, from 0", index, n);
    e = cudaGetDeviceProperties(prop, index);
    if (e == cudaSuccess) e = cudaSetDevice(index);
    if (e == cudaSuccess) e = cudaFree(NULL);
    if (e != cudaSuccess) return oc_fail(ei, OC_ERR_UNSUPPORTED, "CUDA device %d does not work: %s", index, cudaGetErrorString(e));
    if (prop->major < 8) {
        return oc_fail(ei, OC_ERR_UNSUPPORTED, "%s has compute capability %d.%d; these kernels need 8.0 (Ampere) or newer",
                       prop->name, prop->major, prop->minor);
    }
    return OC_OK;
}

static enum oc_err make_workspaces(struct cu_state *s, struct oc_errinfo *ei) {
    struct {
        void **p;
        size_t bytes;
    } const spaces[] = {
        {(void **)&s->ring.device, CU_RING_BYTES}, {(void **)&s->stage, CU_STAGE_BYTES},
        {(void **)&s->x, CU_X_BYTES},              {(void **)&s->w, CU_W_BYTES},
        {(void **)&s->parts, CU_PARTS_BYTES},      {(void **)&s->columns, CU_COLUMNS_BYTES},
    };
    cu_check("making a stream", cudaStreamCreateWithFlags(&s->stream, cudaStreamNonBlocking));
    for (size_t i = 0; i < sizeof spaces / sizeof spaces[0]; i++) {
        OC_TRY(cu_malloc(s, spaces[i].bytes, spaces[i].p, ei));
        cu_check("clearing memory", cudaMemsetAsync(*spaces[i].p, 0, spaces[i].bytes, s->stream));
    }
    for (int i = 0; i < 2; i++) cu_check("making an event", cudaEventCreateWithFlags(&s->landed[i], cudaEventDisableTiming));
    if (cudaMallocHost((void **)&s->ring.host, CU_RING_BYTES) != cudaSuccess ||
        cudaMallocHost((void **)&s->landing, CU_LANDING_BYTES) != cudaSuccess) {
        cudaGetLastError();
        return oc_fail(ei, OC_ERR_NOMEM, "%.0f MiB of pinned memory could not be had", (double)CU_RING_BYTES / (double)OC_MIB);
    }
    s->ring.bytes = CU_RING_BYTES;
    return OC_OK;
}

static void set_ops(struct oc_ops *ops) {
    ops->isa = "cuda";
    ops->int8 = false;
#define OC_OP(name) ops->name = cu_##name;
#include "kernels/ops.def"
#undef OC_OP
}

static enum oc_err device_open(int index, struct oc_device **out, struct oc_errinfo *ei) {
    struct cudaDeviceProp prop;
    size_t free_bytes = 0, total_bytes = 0;
    *out = NULL;
    OC_TRY(find_device(index, &prop, ei));
    struct oc_device *d = (struct oc_device *)calloc(1, sizeof *d);
    struct cu_state *s = (struct cu_state *)calloc(1, sizeof *s);
    if (!d || !s) {
        free(d), free(s);
        return oc_fail(ei, OC_ERR_NOMEM, "no memory for a device");
    }
    s->index = index;
    s->n_sms = prop.multiProcessorCount;
    s->overlaps = prop.major >= 9;
    s->has_wgmma = prop.major == 9 && prop.minor == 0;
    snprintf(s->name, sizeof s->name, "%s", prop.name);
    cu_check("asking for its memory", cudaMemGetInfo(&free_bytes, &total_bytes));
    s->expand_left = free_bytes / 3;
    d->kind = "cuda", d->name = s->name, d->state = s;
    d->total_bytes = total_bytes, d->free_bytes = free_bytes;
    set_ops(&d->ops);
    d->alloc = device_alloc, d->free = device_free;
    d->put = device_put, d->get = device_get, d->wait = device_wait;
    d->take_weight = cu_take_weight, d->take_floats = cu_take_floats;
    d->close = device_close;
    cu_rows_init(s);
    cu_linear_p_prepare(s);
    cu_attn_prepare();
    cu_scratch(s, CU_FIRST_SCRATCH);
    enum oc_err e = make_workspaces(s, ei);
    if (e != OC_OK) {
        device_close(d);
        return e;
    }
    *out = d;
    return OC_OK;
}

extern "C" {
__attribute__((visibility("default"))) extern const struct oc_device_plugin oc_device_plugin;
const struct oc_device_plugin oc_device_plugin = {OC_DEVICE_ABI, sizeof(struct oc_device), sizeof(struct oc_ops),
                                                  sizeof(struct oc_weight), device_open};
}
