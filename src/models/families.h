/* models/families.h - the list of families; each is defined in the file of its name. */
#ifndef OC_MODELS_FAMILIES_H
#define OC_MODELS_FAMILIES_H

#include "models/model.h"

extern const struct oc_model_family oc_models_qwen2_5_vl;
extern const struct oc_model_family oc_models_qwen2;
extern const struct oc_model_family oc_models_llama;

#endif
