/* chat/model.h - what of a model directory turns messages into tokens and back: tokenizer, template, defaults.
 *
 * No tensors here. Used by cli/ and by server/, whose orchestrator holds one for each model it serves; immutable
 * once open, so that any number of threads may use it. */
#ifndef OC_CHAT_MODEL_H
#define OC_CHAT_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/json.h"
#include "chat/template.h"
#include "chat/tokenizer.h"

#define OC_CHAT_MAX_EOS 8

/* generation_config.json and config.json, as transformers reads them. */
struct oc_chat_generation {
    bool do_sample;
    double temperature, top_p, min_p, repetition_penalty; /* transformers' defaults where absent: 1, 1, 0, 1 */
    int top_k;                /* 0: off; absent with do_sample: 50 */
    int64_t max_new_tokens;   /* 0: not said */
    int32_t eos[OC_CHAT_MAX_EOS]; /* generation_config.json, config.json, text_config; the template's turn end */
    int n_eos;
};

struct oc_chat_model {
    struct oc_arena arena;
    const char *dir;
    struct oc_chat_generation generation;
    struct oc_json tokenizer_config; /* null when there is none */
    struct oc_chat_tokenizer *tokenizer;
    struct oc_chat_template *template_; /* NULL: the directory has none, or it was not wanted */
    struct oc_errinfo template_error;   /* why template_ is NULL although it was wanted */
};

/* Opens what is in `dir`. A missing or refused template is no error here when `template_required` is false: only
 * chat needs it. Close the model also after an error. Errors: those of the parts, each naming its file. */
OC_MUST_CHECK enum oc_err oc_chat_model_open(struct oc_chat_model *m, const char *dir, bool want_template,
                                             bool template_required, struct oc_errinfo *ei);
void oc_chat_model_close(struct oc_chat_model *m);

bool oc_chat_model_is_eos(const struct oc_chat_model *m, int32_t token);

/* Renders messages (as oc_chat_messages_prepare makes them) with the template and appends the token ids. extra:
 * further template variables, or NULL. Errors: those of oc_chat_template_render and oc_chat_tokenizer_encode. */
OC_MUST_CHECK enum oc_err oc_chat_model_encode(const struct oc_chat_model *m, const struct oc_json *messages,
                                               const struct oc_json *extra, bool add_generation_prompt,
                                               struct oc_chat_ids *ids, struct oc_errinfo *ei);

#endif
