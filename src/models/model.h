/* models/model.h - a loaded model: what config.json says, bound to the tensors of a checkpoint.
 *
 * Called by engine/ when a model is opened and for each picture and prompt. One file per family fills this struct;
 * family names appear only in this room. Read-only after opening; any thread. */
#ifndef OC_MODELS_MODEL_H
#define OC_MODELS_MODEL_H

#include "base/arena.h"
#include "lm/decoder.h"
#include "ocellus.h"
#include "vision/encoder.h"
#include "weights/checkpoint.h"

struct oc_model {
    const struct oc_model_family *family;
    const char *architecture; /* from config.json, in the arena */
    struct oc_arena arena;
    struct oc_checkpoint *checkpoint;
    struct oc_lm lm;
    bool has_vision;
    struct oc_vision vision;
    struct oc_picture_rules pictures; /* kind 0 without vision; max_tokens is the engine's to choose, 0 here */
    int32_t image_token; /* -1 without vision */
};

/* A family: data and three functions. */
struct oc_model_family {
    const char *name;
    const char *const *architectures; /* NULL-terminated values of config.json "architectures" */
    /* Reads the config and binds all tensors; errors as oc_model_open. */
    enum oc_err (*bind)(struct oc_model *m, const struct oc_json *config, struct oc_errinfo *ei);
};

/* Opens the checkpoint in dir, finds its family, binds it. Errors: those of oc_weights_checkpoint_open, and
 * OC_ERR_UNSUPPORTED (unknown architecture: named, with the known ones). */
OC_MUST_CHECK enum oc_err oc_model_open(const char *dir, struct oc_model **out, struct oc_errinfo *ei);
void oc_model_close(struct oc_model *m);

/* Positions of a prompt whose first token stands at position `start` on all axes: pos [n_tokens][3]. Returns the
 * position of the token after it (max of all + 1). Pictures are found by their placeholder runs. Errors:
 * OC_ERR_FORMAT when placeholders and pictures do not match. */
OC_MUST_CHECK enum oc_err oc_model_positions(const struct oc_model *m, const struct oc_prompt *prompt, int32_t start,
                                             int32_t (*pos)[3], int32_t *next, struct oc_errinfo *ei);

#endif
