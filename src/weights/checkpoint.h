/* weights/checkpoint.h - a model directory: its config.json and all its tensors by name.
 *
 * Called by models/ when a model loads (one thread) and by cli/ for `inspect`. Once loaded, everything is
 * read-only and may be used by any thread until oc_weights_checkpoint_close(). The checkpoint owns the
 * mappings and one arena; whatever the functions below return lives in one of the two. Weights are used where
 * the files are mapped; only vectors, biases and a patch embedding in the wrong order are copied.
 *
 * The functions on tensors stand in weights/linear.c, the rest in weights/checkpoint.c. */
#ifndef OC_WEIGHTS_CHECKPOINT_H
#define OC_WEIGHTS_CHECKPOINT_H

#include "base/arena.h"
#include "base/err.h"
#include "base/json.h"
#include "kernels/ops.h"
#include "weights/quant.h"
#include "weights/safetensors.h"

struct oc_checkpoint;

/* Opens a directory: config.json, and the tensors of model.safetensors.index.json with its shards, or of
 * model.safetensors, or of every other *.safetensors. Errors: OC_ERR_NOT_FOUND (no directory, no config.json,
 * no safetensors, a missing shard), OC_ERR_FORMAT, OC_ERR_UNSUPPORTED (quantisation), OC_ERR_LIMIT,
 * OC_ERR_IO, OC_ERR_NOMEM. On failure *out is NULL. */
OC_MUST_CHECK enum oc_err oc_weights_checkpoint_open(const char *dir, struct oc_checkpoint **out,
                                                     struct oc_errinfo *ei);
void oc_weights_checkpoint_close(struct oc_checkpoint *ck); /* NULL is allowed */

const char *oc_weights_dir(const struct oc_checkpoint *ck);
const struct oc_json *
oc_weights_config(const struct oc_checkpoint *ck); /* config.json, an object; never NULL */
const struct oc_quant *oc_weights_quant(const struct oc_checkpoint *ck);
struct oc_arena *oc_weights_arena(struct oc_checkpoint *ck); /* for what should live as long as the weights */

/* A tensor by its full name, or NULL. */
const struct oc_tensor_view *oc_weights_find(const struct oc_checkpoint *ck, const char *name);

/* True if any tensor's name starts with prefix, e.g. "vision_tower.": how models/ tells the layouts apart. */
bool oc_weights_has_prefix(const struct oc_checkpoint *ck, const char *prefix);

/* All tensors, for `inspect`: the i-th of oc_weights_n_tensors(), ordered by file and position. */
size_t oc_weights_n_tensors(const struct oc_checkpoint *ck);
const struct oc_tensor_view *oc_weights_tensor_at(const struct oc_checkpoint *ck, size_t i);

enum oc_bias {
    OC_BIAS_NONE,     /* the model has none: a `.bias` in the file is left alone */
    OC_BIAS_OPTIONAL, /* taken when there */
    OC_BIAS_REQUIRED, /* missing: OC_ERR_NOT_FOUND */
};

/* A linear layer or embedding of n outputs (rows) and k inputs from prefix.weight [n, k], or, quantised,
 * prefix.weight [n, k*bits/32] U32 with prefix.scales and prefix.biases [n, k/group]; prefix.bias [n] becomes
 * f32. A module is quantised if it has `.scales`; the figures must agree with config.json. Errors:
 * OC_ERR_NOT_FOUND (missing tensor, named), OC_ERR_FORMAT (shape: the message names the tensor and both
 * shapes; quantisation that contradicts config.json), OC_ERR_UNSUPPORTED (dtype), OC_ERR_NOMEM. */
OC_MUST_CHECK enum oc_err oc_weights_linear(struct oc_checkpoint *ck, const char *prefix, int64_t n,
                                            int64_t k, enum oc_bias bias, struct oc_weight *out,
                                            struct oc_errinfo *ei);

/* A vector [n] of F32, F16 or BF16 as f32, e.g. a norm's weight. Errors as above. */
OC_MUST_CHECK enum oc_err oc_weights_vector(struct oc_checkpoint *ck, const char *name, int64_t n,
                                            const float **out, struct oc_errinfo *ei);

/* A patch embedding: a convolution whose stride is its kernel, as a plain matrix of n rows and ch*t*h*w
 * inputs in channels-first order. prefix.weight is [n, ch, t, h, w], [n, t, h, w, ch], either without t when
 * t is 1, or [n, ch*t*h*w]; channels-last is permuted into the arena, in its own dtype. Where both orders fit
 * the shape, `channels_last` decides (MLX files are channels-last). ch, t, h, w are at most 4096 each. Errors
 * as above. */
struct oc_conv_shape {
    int64_t n, ch, t, h, w;
    bool channels_last;
};
OC_MUST_CHECK enum oc_err oc_weights_conv(struct oc_checkpoint *ck, const char *prefix,
                                          struct oc_conv_shape s, enum oc_bias bias, struct oc_weight *out,
                                          struct oc_errinfo *ei);

/* What is in the files. Parameters are logical ones: a quantised matrix counts n*k, its scales and biases do
 * not count. */
struct oc_weights_summary {
    size_t n_files, n_tensors;
    uint64_t n_bytes;  /* of tensor data, scales and biases included */
    uint64_t n_params; /* all of the following */
    uint64_t n_f32, n_f16, n_bf16, n_q4, n_q8, n_other;
};
void oc_weights_summarise(const struct oc_checkpoint *ck, struct oc_weights_summary *out);

/* Asked between steps of a prefetch; false stops it. */
typedef bool oc_weights_progress_fn(void *arg, uint64_t done_bytes, uint64_t total_bytes);

/* Brings the files into memory. Without `progress` it only asks the system to start reading and returns at
 * once; with it, it waits for the pages, step by step. Errors: OC_ERR_CANCELLED when progress said so; what
 * the system refuses is not an error, since reading on demand still works. */
OC_MUST_CHECK enum oc_err oc_weights_prefetch(const struct oc_checkpoint *ck,
                                              oc_weights_progress_fn *progress, void *arg,
                                              struct oc_errinfo *ei);

/* The files' pages are not needed for now: they leave the process's memory, and come back from the system's when they are read. */
void oc_weights_forget(const struct oc_checkpoint *ck);

#endif
