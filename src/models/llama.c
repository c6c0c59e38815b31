/* Llama and models of its shape: no biases unless `attention_bias` says so. */
#include "models/config.h"
#include "models/families.h"
#include "models/text.h"

static enum oc_err bind(struct oc_model *m, const struct oc_json *config, struct oc_errinfo *ei) {
    OC_TRY(oc_models_config_text(config, &m->arena, &m->lm, ei));
    struct oc_models_text_names names = {"model.", "lm_head", oc_models_text_tied(m, config, "lm_head")};
    bool bias = oc_json_bool_or(oc_json_get(config, "attention_bias"), false);
    return oc_models_text_bind(m, &names, bias ? OC_BIAS_REQUIRED : OC_BIAS_NONE, ei);
}

static const char *const architectures[] = {"LlamaForCausalLM", NULL};

const struct oc_model_family oc_models_llama = {.name = "llama", .architectures = architectures, .bind = bind};
