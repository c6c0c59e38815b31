/* ocellus.h - the engine: load a model, look at pictures, run sequences.
 *
 * An oc_engine is one loaded model on one backend; an oc_session is one sequence in it: its tokens, KV pages and
 * positions. One thread drives an engine and its sessions (it owns further compute threads itself); two engines
 * are independent. All memory is sized and taken in oc_engine_open: a step allocates nothing.
 *
 * The order of a request:
 *   oc_engine_plan_picture   size of each picture -> resized size, grid, tokens
 *   (image/ makes patches)   oc_engine_encode_picture: patches -> embeddings
 *   (chat/ makes token ids)  one placeholder token per picture; oc_prompt_expand repeats it n_tokens times
 *   oc_session_open, oc_session_prefill, then oc_session_decode until the end
 */
#ifndef OCELLUS_H
#define OCELLUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct oc_engine;
struct oc_session;
struct oc_device;

/* ---- Opening ---------------------------------------------------------------------------------------------- */

struct oc_engine_params {
    const char *model_dir;       /* directory with config.json and safetensors */
    const char *device;          /* "cpu", "cuda", "cuda:1"; NULL or "auto": see struct oc_engine_info */
    const char *cuda_plugin;     /* path of libocellus-cuda.so; NULL: there is none */
    struct oc_device *opened;    /* or a device that the caller opened (kernels/device.h): the engine's from now on, also on error */
    const char *isa;             /* of the CPU: "ref", "avx2", ...; NULL or "auto": the best of this machine */
    const char *batch_mode;      /* "exact", which NULL means too, or "throughput": see struct oc_engine_info */
    int n_threads;               /* 0: one for each core this process may use */
    int ctx_tokens;              /* of one sequence; 0: the model's own length, at most 16384 */
    int kv_tokens;               /* KV slots of all sequences together; 0: ctx_tokens */
    int image_max_tokens;        /* per picture; 0: the model's rule, at most a quarter of the context */
    int n_sessions;              /* sequences that may be open at once; 0: 1 */
    bool skip_prefetch;          /* do not read the weights ahead, take no memory on a GPU: for who only asks what a model is */
    void (*progress)(void *arg, double fraction); /* may be NULL; called while weights are read */
    void *progress_arg;
};

/* What is said where throughput was asked for; figures: docs/KERNELS.md. */
#define OC_THROUGHPUT_COST                                                                                              \
    "logits move by up to 8 % of their standard deviation, as with bf16, and now and then a word differs"
#define OC_THROUGHPUT_SENTENCE                                                                                          \
    "throughput mode: what meets quantised weights while an answer is made is rounded to 8 bits: " OC_THROUGHPUT_COST   \
    "; --batch-mode exact rounds nothing"
#define OC_NO_THROUGHPUT_SENTENCE                                                                                       \
    "throughput mode was asked for, but this machine has no kernels for it: all is computed exactly"

/* Errors: OC_ERR_NOT_FOUND (also a plug-in that is not there), _FORMAT, _UNSUPPORTED (architecture, quantisation, ISA, device),
 * _LIMIT, _NOMEM, _IO, _USAGE, each with a sentence that names the file or tensor. On error *out is NULL. */
OC_MUST_CHECK enum oc_err oc_engine_open(const struct oc_engine_params *p, struct oc_engine **out,
                                         struct oc_errinfo *ei);

/* Closes the engine; its sessions must be closed before. NULL is allowed. */
void oc_engine_close(struct oc_engine *e);

#define OC_MAX_EOS 8

/* What a loaded model is. Pointers live as long as the engine. */
struct oc_engine_info {
    const char *architecture; /* as config.json names it */
    const char *family;       /* as src/models/ names it */
    const char *device;      /* "cpu", "cuda:0" */
    const char *device_name; /* of the machine's part: "NVIDIA H100 80GB HBM3"; "" for the CPU */
    const char *device_why;  /* why "auto" came to take the CPU, in a sentence's part; "" where there is nothing to say. It takes the
                              * first GPU where there is a plug-in, a card that it can use and memory enough on it */
    const char *isa; /* ends in "-int8" in throughput mode */
    bool throughput; /* answers are computed with the inputs of quantised weights rounded to 8 bits (docs/KERNELS.md); false in
                      * batch mode "exact", and in "throughput" on a machine that has no kernels for it */
    int n_threads;
    int n_vocab;
    int dim;            /* width of an embedding row */
    int ctx_tokens;     /* of one sequence */
    int kv_tokens;      /* KV slots of all sequences together */
    int n_sessions;
    int model_ctx_tokens; /* what the model was made for */
    int image_max_tokens; /* per picture; 0: no vision */
    bool has_vision;
    int32_t image_token;  /* placeholder id in prompts, -1 without vision */
    uint64_t n_params;
    uint64_t weight_bytes;        /* mapped */
    uint64_t decode_weight_bytes; /* read for each decoded token, KV aside */
    uint64_t kv_bytes_per_token;
    uint64_t workspace_bytes; /* activations and scratch, reserved at load, in the device's memory */
    uint64_t host_bytes;      /* of the process beside it: lists, logits and what is on its way to a device */
    uint64_t device_bytes;    /* weights, KV and workspace where they are in a memory of the device's own; 0 for the CPU */
    uint64_t device_free_bytes; /* of that memory when the device was opened */
    double load_ms;
};
const struct oc_engine_info *oc_engine_info(const struct oc_engine *e);

/* ---- Pictures --------------------------------------------------------------------------------------------- */

enum oc_resample { OC_RESAMPLE_NEAREST = 0, OC_RESAMPLE_LANCZOS = 1, OC_RESAMPLE_BILINEAR = 2, OC_RESAMPLE_BICUBIC = 3 };

/* What image/ has to do with one picture (numbers of enum oc_resample are Pillow's). */
struct oc_picture_plan {
    int width, height;          /* resize to this, pixels */
    enum oc_resample resample;
    double rescale;             /* value = (byte * rescale - mean) / std, per channel */
    double mean[3], std[3];
    int patch, merge, temporal; /* patch edge in pixels, patches per merge-block edge, frames per patch */
    int grid_t, grid_h, grid_w; /* patches */
    int n_patches;              /* grid_t * grid_h * grid_w rows of patch_dim f32 */
    int patch_dim;              /* 3 * temporal * patch * patch */
    int n_tokens;               /* placeholders in the prompt, rows of its embedding */
};

/* Wishes of one request about one picture; 0 means the model's own. */
struct oc_picture_limits {
    int64_t min_pixels, max_pixels;
};

/* A family's rule for pictures as plain numbers, so that a process without the model can plan. */
struct oc_picture_rules {
    int kind; /* which rule (models/pictures.h); 0: the model has no vision */
    int patch, merge, temporal;
    enum oc_resample resample;
    int max_tokens; /* per picture, of this engine */
    int64_t min_pixels, max_pixels;
    double rescale, mean[3], std[3];
};

/* The rules of a loaded model. */
void oc_engine_picture_rules(const struct oc_engine *e, struct oc_picture_rules *out);

/* The plan that oc_engine_plan_picture would make, from the rules alone; `max_tokens` lowers rules->max_tokens
 * when it is over 0. Errors: as there, and OC_ERR_FORMAT (rules that contradict themselves). */
OC_MUST_CHECK enum oc_err oc_picture_rules_plan(const struct oc_picture_rules *rules, int width, int height,
                                                const struct oc_picture_limits *lim, int max_tokens,
                                                struct oc_picture_plan *plan, struct oc_errinfo *ei);

/* The plan for a picture of width x height pixels. `lim` may be NULL. Errors: OC_ERR_UNSUPPORTED (no vision),
 * OC_ERR_LIMIT (no allowed size fits, e.g. an aspect ratio over 200). */
OC_MUST_CHECK enum oc_err oc_engine_plan_picture(const struct oc_engine *e, int width, int height,
                                                 const struct oc_picture_limits *lim,
                                                 struct oc_picture_plan *plan, struct oc_errinfo *ei);

/* patches: [n_patches, patch_dim] f32 in the family's order; out: [n_tokens, dim] f32. */
OC_MUST_CHECK enum oc_err oc_engine_encode_picture(struct oc_engine *e, const struct oc_picture_plan *plan,
                                                   const float *patches, float *out, struct oc_errinfo *ei);

/* ---- Prompts ---------------------------------------------------------------------------------------------- */

struct oc_prompt_picture {
    struct oc_picture_plan plan;
    const float *embedding; /* [plan.n_tokens, dim] f32, borrowed until prefill is done */
};

/* A prompt whose placeholders are already repeated. Borrowed by the calls it is given to. */
struct oc_prompt {
    const int32_t *tokens;
    int n_tokens;
    const struct oc_prompt_picture *pictures; /* in the order of their placeholders */
    int n_pictures;
};

/* Copies ids to out, the i-th placeholder repeated plans[i].n_tokens times; *n_out is set even when out is too
 * small (out_cap; pass 0 to measure). Errors: OC_ERR_FORMAT (placeholders and pictures differ in number),
 * OC_ERR_LIMIT (longer than out_cap). */
OC_MUST_CHECK enum oc_err oc_prompt_expand(const struct oc_engine *e, const int32_t *ids, int n_ids,
                                           const struct oc_picture_plan *plans, int n_plans, int32_t *out,
                                           int out_cap, int *n_out, struct oc_errinfo *ei);

/* ---- Sessions --------------------------------------------------------------------------------------------- */

/* Reserves KV pages for max_tokens slots. Errors: OC_ERR_LIMIT (no pages or no session left; says the figures). */
OC_MUST_CHECK enum oc_err oc_session_open(struct oc_engine *e, int max_tokens, struct oc_session **out,
                                          struct oc_errinfo *ei);
void oc_session_close(struct oc_session *s);

/* Tokens in the session, and how many it may hold. */
int oc_session_n_tokens(const struct oc_session *s);
int oc_session_max_tokens(const struct oc_session *s);

/* Forgets all but the first n_tokens (positions of what remains are kept). */
void oc_session_truncate(struct oc_session *s, int n_tokens);

/* Runs the prompt in chunks (role P) behind what the session holds and leaves the last row's logits. on_chunk may
 * be NULL; it returns false to cancel (OC_ERR_CANCELLED). Errors also: OC_ERR_LIMIT (does not fit), OC_ERR_FORMAT (a token
 * outside the vocabulary). */
OC_MUST_CHECK enum oc_err oc_session_prefill(struct oc_session *s, const struct oc_prompt *prompt,
                                             bool (*on_chunk)(void *arg, int n_done, int n_all), void *arg,
                                             struct oc_errinfo *ei);

/* Runs one token (role D) and leaves its logits. Errors: OC_ERR_LIMIT (session full), OC_ERR_FORMAT (bad id). */
OC_MUST_CHECK enum oc_err oc_session_decode(struct oc_session *s, int32_t token, struct oc_errinfo *ei);

/* Runs n tokens that follow each other in one step, as n calls of oc_session_decode would, bit for bit: the logits behind
 * the i-th are oc_engine_logits(e, i). For drafts: oc_session_truncate forgets those that turn out wrong. Errors: as
 * there, and OC_ERR_LIMIT (n over oc_engine_max_outputs). */
OC_MUST_CHECK enum oc_err oc_session_decode_several(struct oc_session *s, const int32_t *tokens, int n, struct oc_errinfo *ei);

/* Logits [n_vocab] f32 of the session's last row; valid until the engine's next step. */
float *oc_session_logits(struct oc_session *s);

/* ---- Ragged batches: what the two above are made of ------------------------------------------------------- */

enum oc_row_role { OC_ROW_PREFILL, OC_ROW_DECODE };
enum oc_row_output { OC_ROW_NONE, OC_ROW_LOGITS };

/* One token of one sequence in a step. Rows of one session come in the order of their slots. */
struct oc_row {
    struct oc_session *session;
    int32_t slot;    /* KV slot: number of tokens before it in the session */
    int32_t pos[3];  /* position for rotary embedding: time, height, width (equal for text) */
    enum oc_row_role role;
    int32_t token;
    const float *embedding; /* [dim] in place of the token, or NULL */
    enum oc_row_output output;
};

/* Rows a step may have, and of these how many with output. */
int oc_engine_max_rows(const struct oc_engine *e);
int oc_engine_max_outputs(const struct oc_engine *e);

/* Runs the rows and writes their KV. Rows of role PREFILL and DECODE may be mixed in any order; the result of a row
 * does not depend on the others. Errors: OC_ERR_LIMIT (too many rows or outputs, slot past the session's reserve),
 * OC_ERR_FORMAT (token id). Nothing is changed on error. */
OC_MUST_CHECK enum oc_err oc_engine_step(struct oc_engine *e, const struct oc_row *rows, int n_rows,
                                         struct oc_errinfo *ei);

/* Logits of the i-th row with output of the last step, [n_vocab] f32. */
float *oc_engine_logits(struct oc_engine *e, int i);

#endif
