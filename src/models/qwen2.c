/* Qwen2 and Qwen2.5 text models ("Qwen2 Technical Report", 2024): Llama-like with Q/K/V biases. */
#include "models/config.h"
#include "models/families.h"
#include "models/text.h"

static enum oc_err bind(struct oc_model *m, const struct oc_json *config, struct oc_errinfo *ei) {
    OC_TRY(oc_models_config_text(config, &m->arena, &m->lm, ei));
    struct oc_models_text_names names = {"model.", "lm_head", oc_models_text_tied(m, config, "lm_head")};
    return oc_models_text_bind(m, &names, OC_BIAS_REQUIRED, ei);
}

static const char *const architectures[] = {"Qwen2ForCausalLM", NULL};

const struct oc_model_family oc_models_qwen2 = {.name = "qwen2", .architectures = architectures, .bind = bind};
