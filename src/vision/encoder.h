/* vision/encoder.h - the shared vision encoder: patches -> transformer blocks -> merged tokens.
 *
 * Filled by a family file of models/, run by engine/ from the engine's thread. It covers the encoder of "Qwen2.5-VL
 * Technical Report" (2025): RMSNorm blocks with biased QKV, 2-D rotary embedding, attention inside windows except in
 * a few layers that see everything, a gated MLP with biases, and a merger that joins merge x merge patches. */
#ifndef OC_VISION_ENCODER_H
#define OC_VISION_ENCODER_H

#include "kernels/device.h"
#include "vision/patches.h"

#define OC_VISION_MAX_HD 256

struct oc_vision_block {
    const float *norm1, *norm2; /* [dim] */
    struct oc_weight qkv;       /* [3*dim, dim]: q, k, v one under the other */
    struct oc_weight proj, gate, up, down;
    bool full_attention;
};

struct oc_vision {
    int n_blocks, dim, n_heads, hd, inter, out_dim, patch_dim;
    int merge;         /* patches per edge of a merge block */
    int window;        /* merge blocks per edge of a window */
    float eps;
    enum oc_act act, merger_act;
    double rope_theta;
    struct oc_weight patch_embed; /* [dim, patch_dim] */
    struct oc_vision_block *blocks;
    const float *merger_norm; /* [dim] */
    struct oc_weight merger_fc1, merger_fc2; /* [4*dim, 4*dim], [out_dim, 4*dim] for merge 2 */
};

struct oc_vision_trace {
    void (*fn)(void *arg, const char *stage, int layer, const float *x, int64_t n_rows, int64_t dim);
    void *arg;
};

/* Brings all weights, norms and biases to the walk's device, or counts them. Errors: the device's. */
OC_MUST_CHECK enum oc_err oc_vision_encoder_take(struct oc_vision *v, struct oc_device_walk *k, struct oc_errinfo *ei);

/* Activations for one picture, carved out of device memory, and lists, out of the host's; the engine owns both. */
struct oc_vision_workspace {
    int max_patches, staged_rows;
    float *h, *x, *qkv, *attn, *mlp, *cos, *sin, *merged;
    float *patches, *out; /* the caller's on the device; NULL where device memory is the host's */
    /* The host's. */
    int32_t *window_order, *window_place; /* merge blocks in window order; where each block stands in it */
    int32_t *window_seg, *full_seg;       /* patch offsets of segments */
    float *place_cos, *place_sin;         /* [rows or columns of patches, hd/4]: angles of each place on an axis */
    float *staging;                       /* [staged_rows]: patches that were made, and what is on its way to a device */
};

/* Bytes of device memory (is_host: whether that is the host's) and of host memory. */
size_t oc_vision_encoder_workspace_bytes(const struct oc_vision *v, bool is_host, int max_patches);
size_t oc_vision_encoder_lists_bytes(const struct oc_vision *v, int max_patches);
void oc_vision_encoder_workspace_init(struct oc_vision_workspace *ws, const struct oc_vision *v, bool is_host, int max_patches,
                                      uint8_t *mem, uint8_t *lists);

/* ---- A pass in pieces -------------------------------------------------------------------------------------
 *
 * A pass goes through stages; a stage does its rows in order, any number at a time, and the result has the same bits
 * however it is cut. Between two pieces the engine may do other work that leaves the workspace alone. */

enum oc_vision_stage {
    OC_VISION_ANGLES, /* rotary angles */
    OC_VISION_EMBED,  /* the last stage that reads the patches */
    OC_VISION_QKV,    /* norm, projections, rotation; this and the next two once for each block */
    OC_VISION_ATTEND,
    OC_VISION_MLP, /* the attention's projection, norm, gated MLP */
    OC_VISION_MERGE,
    OC_VISION_N_STAGES,
};

struct oc_vision_pass {
    const struct oc_vision *v;
    struct oc_device *dev;
    const struct oc_ops *ops; /* the device's */
    const struct oc_kctx *ctx;
    struct oc_vision_workspace *ws;
    struct oc_vision_patches patches;
    float *out;
    const struct oc_vision_trace *trace;
    int grid_t, grid_h, grid_w, n_windows;
    int64_t n; /* patches */
    double window_keys; /* keys that a patch sees in its window, on average */
    enum oc_vision_stage stage; /* N_STAGES: done */
    int block;
    int64_t row; /* of the stage: those before it are done */
};

/* What comes next: rows (patches) left in the stage, and multiplications for each. */
struct oc_vision_piece {
    enum oc_vision_stage stage;
    int64_t n_rows;
    double macs_per_row;
};

/* patches: grid_t*grid_h*grid_w rows, read until EMBED is done; out
 * [n_patches/merge^2, out_dim] in the host's memory, complete when the pass is. n_patches must not exceed ws->max_patches. trace may be NULL; stages reported to it:
 * "patch_embed" (layer -1), "block" (after each, rows in window order), "merger" (final order). Allocates nothing without trace. */
void oc_vision_encoder_begin(struct oc_vision_pass *p, const struct oc_vision *v, struct oc_device *dev,
                             const struct oc_kctx *ctx, struct oc_vision_workspace *ws,
                             const struct oc_vision_patches *patches, int grid_t, int grid_h, int grid_w, float *out,
                             const struct oc_vision_trace *trace);

/* False when the pass is done. */
bool oc_vision_encoder_next(const struct oc_vision_pass *p, struct oc_vision_piece *next);

/* Does the next n_rows rows (at least 1) of the stage, or what is left of it; EMBED and MERGE round up to whole merge
 * blocks. */
void oc_vision_encoder_step(struct oc_vision_pass *p, int64_t n_rows);

/* The whole pass at once; arguments as begin. */
void oc_vision_encoder_forward(const struct oc_vision *v, struct oc_device *dev, const struct oc_kctx *ctx,
                               struct oc_vision_workspace *ws, const struct oc_vision_patches *patches, int grid_t,
                               int grid_h, int grid_w, float *out, const struct oc_vision_trace *trace);

/* The order of merge blocks by window, and the segments of patches: returns the number of windows. order
 * [n_blocks_of_grid], seg [n_windows + 1] in patches, in window order. Formula: transformers'
 * Qwen2_5_VisionTransformerPretrainedModel.get_window_index. */
int oc_vision_encoder_windows(const struct oc_vision *v, int grid_t, int grid_h, int grid_w, int32_t *order,
                              int32_t *seg);

#endif
