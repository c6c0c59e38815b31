/* weights/safetensors.h - one safetensors file, mapped and checked.
 *
 * Called by weights/checkpoint when a model loads, from one thread; afterwards the views are read by any
 * thread. The file is treated as hostile: nothing of it is used before the header's length, JSON, dtypes,
 * shapes and byte ranges agree with each other and with the file's size. The rules are those of the reference
 * implementation: the header is at most 100 MiB of JSON that starts with '{', the ranges cover the data part
 * from its first to its last byte without holes or overlaps. `__metadata__` is ignored. */
#ifndef OC_WEIGHTS_SAFETENSORS_H
#define OC_WEIGHTS_SAFETENSORS_H

#include "base/arena.h"
#include "base/err.h"
#include "base/file.h"
#include "base/limits.h"
#include "base/str.h"
#include "kernels/ops.h"

/* A tensor where the file is mapped. The data may start at any byte: never cast it to a typed pointer. */
struct oc_tensor_view {
    const char *name;       /* as in the file, NUL-terminated */
    const char *dtype_name; /* as in the file, e.g. "BF16", "F8_E4M3" */
    const char *path;       /* of the file, for messages */
    const uint8_t *data;
    size_t n_bytes;
    int64_t shape[OC_LIMIT_TENSOR_DIMS];
    int n_dims;
    enum oc_dtype dtype; /* OC_OTHER for dtypes that no kernel takes */
};

struct oc_safetensors {
    const char *path;
    struct oc_map map;
    struct oc_tensor_view *tensors; /* in order of their data */
    size_t n_tensors;
};

/* Maps and checks the file at path. Views and names live in the arena, data in the mapping, which the caller
 * ends with oc_weights_safetensors_close(). Errors: those of oc_map_open, OC_ERR_FORMAT, OC_ERR_LIMIT,
 * OC_ERR_NOMEM; the message names the file, the tensor and both figures. */
OC_MUST_CHECK enum oc_err oc_weights_safetensors_open(struct oc_arena *a, const char *path,
                                                      struct oc_safetensors *out, struct oc_errinfo *ei);
void oc_weights_safetensors_close(struct oc_safetensors *f);

/* The same for bytes already in memory, borrowed for as long as the views are used (out->map stays empty). */
OC_MUST_CHECK enum oc_err oc_weights_safetensors_parse(struct oc_arena *a, const uint8_t *data,
                                                       size_t n_bytes, const char *path,
                                                       struct oc_safetensors *out, struct oc_errinfo *ei);

/* Writes a shape such as "[151936, 2048]" into out and returns out. */
const char *oc_weights_shape_str(const int64_t *shape, int n_dims, char out[128]);

#endif
