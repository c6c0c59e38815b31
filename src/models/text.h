/* models/text.h - binds the tensors of a Llama-like text decoder. Used by the family files. */
#ifndef OC_MODELS_TEXT_H
#define OC_MODELS_TEXT_H

#include "models/model.h"

/* Where one layout keeps the decoder: "<body>embed_tokens.weight", "<body>layers.0...", and the head. */
struct oc_models_text_names {
    const char *body; /* "model." */
    const char *head; /* "lm_head" */
    bool tied;        /* the head is the embedding */
};

/* `tie_word_embeddings`, flat or nested; where config.json is silent, a file without a head is tied. */
bool oc_models_text_tied(const struct oc_model *m, const struct oc_json *config, const char *head);

/* Binds m->lm (its shape already read). Errors: those of oc_weights_linear. */
OC_MUST_CHECK enum oc_err oc_models_text_bind(struct oc_model *m, const struct oc_models_text_names *names,
                                              enum oc_bias qkv_bias, struct oc_errinfo *ei);

#endif
