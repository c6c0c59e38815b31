/* kernels/device.h - where an engine's tensors live, and how bytes get there and back.
 *
 * An engine has one device: the CPU, whose memory is the process's own, or one that a plug-in opens
 * (libocellus-cuda.so). Used by engine/, lm/ and vision/ from the engine's thread only. A device brings the ops table
 * that computes in its memory. Pointers in the arguments of ops are device pointers where they are activations (x, y, q, k, v,
 * cos, sin), weights, norms, biases or KV pages; lists that say what to do (ids, rows and their page tables, segments, places)
 * are host memory that the op has read when it returns. Ops, put and get happen in the order of their calls.
 *
 * A failure of the device in the middle of work (a launch refused, a card lost) is written to stderr in one sentence and ends
 * the process: the supervisor starts another. */
#ifndef OC_KERNELS_DEVICE_H
#define OC_KERNELS_DEVICE_H

#include "kernels/ops.h"

/* Goes up when struct oc_device, struct oc_ops, its arguments, struct oc_kctx or struct oc_weight change. */
#define OC_DEVICE_ABI 2

struct oc_device {
    const char *kind;  /* "cpu", "cuda" */
    const char *name;  /* of the machine's part: "NVIDIA H100 80GB HBM3"; "" for the CPU */
    bool is_host;      /* its memory is ordinary memory: put and get are memcpy, weights stay where they are mapped */
    uint64_t total_bytes, free_bytes; /* of its memory when it was opened; 0 for the CPU */
    struct oc_ops ops;
    void *state; /* the device's own */

    /* Zeroed memory, 256-byte aligned. Errors: OC_ERR_NOMEM with the figures. */
    enum oc_err (*alloc)(struct oc_device *d, size_t bytes, void **out, struct oc_errinfo *ei);
    void (*free)(struct oc_device *d, void *p, size_t bytes); /* p may be NULL */

    /* Host to device; src may change when it returns. */
    void (*put)(struct oc_device *d, void *dst, const void *src, size_t bytes);

    /* Device to host: when it returns, all work asked for before is done and dst is filled. */
    void (*get)(struct oc_device *d, void *dst, const void *src, size_t bytes);

    /* Returns when all work asked for is done. */
    void (*wait)(struct oc_device *d);

    /* Brings a weight, or n floats (a norm, a bias), to the device and makes *w or *v point there; what was brought already
     * (tied embeddings) is not brought again. They belong to the device until it is closed. Nothing to do on the CPU.
     * Errors: OC_ERR_NOMEM with the figures, OC_ERR_UNSUPPORTED for a format that its kernels do not take. */
    enum oc_err (*take_weight)(struct oc_device *d, struct oc_weight *w, struct oc_errinfo *ei);
    enum oc_err (*take_floats)(struct oc_device *d, const float **v, int64_t n, struct oc_errinfo *ei);

    void (*close)(struct oc_device *d); /* frees d and all that it holds */
};

/* The CPU with the table that oc_ops_for_wishes() gives; errors are its. */
OC_MUST_CHECK enum oc_err oc_device_open_cpu(const char *isa, unsigned wishes, struct oc_device **out, struct oc_errinfo *ei);

/* Opens a plug-in by path and its device number `index`. Errors: OC_ERR_NOT_FOUND (no such file), OC_ERR_UNSUPPORTED (it cannot be
 * loaded here, is of another ABI, there is no such device or its driver is too old), OC_ERR_NOMEM; each in one sentence. */
OC_MUST_CHECK enum oc_err oc_device_open_plugin(const char *path, int index, struct oc_device **out, struct oc_errinfo *ei);

/* The process's own memory as the CPU's device gives it: zeroed, 64-byte aligned at least, pages come as they are first touched.
 * NULL when there is none. */
void *oc_device_host_alloc(size_t bytes);
void oc_device_host_free(void *p, size_t bytes); /* p may be NULL */

/* A walk over a model's weights, norms and biases that brings them to a device, or only counts them. */
struct oc_device_walk {
    struct oc_device *d; /* NULL: only counts */
    uint64_t n_bytes;    /* of what was walked over so far */
    void (*progress)(void *arg, uint64_t n_bytes); /* called behind each weight; may be NULL */
    void *arg;
};

/* A weight with its bias, and n floats. Errors: the device's. */
OC_MUST_CHECK enum oc_err oc_device_walk_weight(struct oc_device_walk *k, struct oc_weight *w, struct oc_errinfo *ei);
OC_MUST_CHECK enum oc_err oc_device_walk_floats(struct oc_device_walk *k, const float **v, int64_t n, struct oc_errinfo *ei);

/* For tests that look at activations: x [n] in the host's memory, which is x itself where that is the host's; else *copy, which the
 * caller frees. The one thing here that allocates. */
const float *oc_device_look(struct oc_device *d, const float *x, int64_t n, float **copy);

/* What a plug-in exports under the name "oc_device_plugin". */
struct oc_device_plugin {
    uint32_t abi;              /* OC_DEVICE_ABI when it was built */
    uint32_t device_bytes, ops_bytes, weight_bytes; /* sizeof of the three structs: a second check of the same */
    enum oc_err (*open)(int index, struct oc_device **out, struct oc_errinfo *ei);
};

#endif
