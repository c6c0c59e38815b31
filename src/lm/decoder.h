/* lm/decoder.h - the shared text decoder: pre-norm blocks of grouped-query attention and a gated MLP.
 *
 * Filled by a family file of models/ (shapes, tensors), run by engine/ from the engine's thread. It covers
 * Llama-like models: RMSNorm, optional Q/K/V biases, rotary embedding on one or three axes, tied or untied head.
 * Block: h += Wo attn(rope(Wqkv norm(h))); h += Wdown (act(Wgate n) * Wup n), n = norm(h). */
#ifndef OC_LM_DECODER_H
#define OC_LM_DECODER_H

#include "kernels/device.h"
#include "lm/kv_cache.h"

struct oc_lm_layer {
    const float *attn_norm, *mlp_norm; /* [dim] */
    struct oc_weight q, k, v, o, gate, up, down;
};

struct oc_lm {
    int n_layers, dim, n_heads, n_kv_heads, hd, inter, n_vocab;
    int max_tokens; /* the length the model was made for */
    float eps;
    enum oc_act act;
    const float *inv_freq; /* [hd/2]: rotary frequencies (Su et al. 2021), scaling applied */
    int rope_section[3];   /* how many of the hd/2 frequencies follow time, height, width; {hd/2, 0, 0} for text */
    struct oc_weight embed, head; /* [n_vocab, dim]; equal when tied */
    const float *final_norm;      /* [dim] */
    struct oc_lm_layer *layers;   /* [n_layers] */
    enum oc_dtype kv_dtype;       /* F32 or BF16 */
};

/* Called after a stage with its output [n_rows, dim]; for tests that compare stage by stage. */
struct oc_lm_trace {
    void (*fn)(void *arg, const char *stage, int layer, const float *x, int64_t n_rows, int64_t dim);
    void *arg;
};

/* Brings all weights, norms and biases to the walk's device, or counts them. What is used by the host (inv_freq) stays. Errors:
 * the device's. */
OC_MUST_CHECK enum oc_err oc_lm_decoder_take(struct oc_lm *lm, struct oc_device_walk *k, struct oc_errinfo *ei);

/* One step's rows, in the host's memory: the first n_d are of role D, the others of role P. */
struct oc_lm_batch {
    int n_rows, n_d;
    const int32_t *tokens;         /* [n_rows]; ignored where embeddings[i] is not NULL */
    const float *const *embeddings; /* [n_rows] rows of [dim], or NULL */
    const int32_t (*pos)[3];       /* [n_rows] */
    const struct oc_kv_row *kv_rows; /* [n_rows] */
    const int32_t *outputs;        /* [n_outputs] row numbers whose logits are wanted */
    int n_outputs;
    float *logits; /* [n_outputs, n_vocab] */
};

/* Activations of a step, carved out of device memory that the engine owns. */
struct oc_lm_workspace {
    float *h, *x, *q, *k, *v, *attn, *mlp, *cos, *sin, *out;
    float *logits;  /* NULL where the batch's own are device memory */
    float *staging; /* host memory on its way; NULL where device memory is the host's */
};

/* Bytes that a workspace needs on a device (is_host: whether its memory is the host's) for steps of at most max_rows rows
 * and max_outputs outputs. */
size_t oc_lm_decoder_workspace_bytes(const struct oc_lm *lm, bool is_host, int max_rows, int max_outputs);

/* Bytes of host memory that workspaces need beside it; several may share them. 0 where device memory is the host's. */
size_t oc_lm_decoder_staging_bytes(const struct oc_lm *lm, bool is_host);

/* Lays the workspace into mem (64-byte aligned, as many bytes as above). */
void oc_lm_decoder_workspace_init(struct oc_lm_workspace *ws, const struct oc_lm *lm, bool is_host, int max_rows, int max_outputs,
                                  uint8_t *mem, uint8_t *staging);

/* ---- A pass in pieces -------------------------------------------------------------------------------------
 *
 * A step may be taken in pieces, so that other sequences can decode in between: the result has the same bits however it is
 * cut. Each layer is two stages, each does its rows in order, any number at a time. The batch and its arrays, the
 * workspace and the pages written must stay as they are until the pass is done. */

enum oc_lm_stage {
    OC_LM_EMBED, /* rows of the embedding matrix, rotary angles */
    OC_LM_QKV,   /* norm, projections, rotation, KV written; this and the next once for each layer */
    OC_LM_MIX,   /* attention, its projection, norm, gated MLP */
    OC_LM_HEAD,  /* rows here are outputs */
    OC_LM_N_STAGES,
};

struct oc_lm_pass {
    const struct oc_lm *lm;
    struct oc_device *dev;
    const struct oc_ops *ops; /* the device's */
    const struct oc_kctx *ctx;
    const struct oc_lm_kv_cache *kv;
    struct oc_lm_workspace *ws;
    struct oc_lm_batch b; /* its arrays are borrowed */
    const struct oc_lm_trace *trace;
    double mean_keys;       /* that a row of the batch sees */
    enum oc_lm_stage stage; /* N_STAGES: done */
    int layer, row;         /* rows of the stage before `row` are done */
};

/* What comes next: rows left in the stage, and multiplications for each. */
struct oc_lm_piece {
    enum oc_lm_stage stage;
    int n_rows;
    double macs_per_row;
};

/* `trace` may be NULL. Allocates nothing without it. */
void oc_lm_decoder_begin(struct oc_lm_pass *p, const struct oc_lm *lm, struct oc_device *dev, const struct oc_kctx *ctx,
                         const struct oc_lm_kv_cache *kv, struct oc_lm_workspace *ws, const struct oc_lm_batch *b,
                         const struct oc_lm_trace *trace);

/* False when the pass is done: the logits asked for are in the host's memory, and KV of every row is written before any op that
 * is asked for later reads it. */
bool oc_lm_decoder_next(const struct oc_lm_pass *p, struct oc_lm_piece *next);

/* Does the next n_rows rows (at least 1) of the stage, or what is left of it. */
void oc_lm_decoder_step(struct oc_lm_pass *p, int n_rows);

/* Whether the hidden states of rows from .. from+n-1 are finite numbers, asked when the pass is done. One that is so at the end was
 * so in every layer, for what is not finite stays in the sum. */
bool oc_lm_decoder_is_finite(const struct oc_lm_pass *p, int from, int n);

/* The whole pass at once; arguments as begin. */
void oc_lm_decoder_forward(const struct oc_lm *lm, struct oc_device *dev, const struct oc_kctx *ctx,
                           const struct oc_lm_kv_cache *kv, struct oc_lm_workspace *ws,
                           const struct oc_lm_batch *b, const struct oc_lm_trace *trace);

/* Bytes of weights a decoded token reads. */
uint64_t oc_lm_decoder_bytes_per_token(const struct oc_lm *lm);

#endif
