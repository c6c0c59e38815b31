/* models/config.h - reading numbers out of config.json, whatever its age.
 *
 * Checkpoints write the same thing flat or nested (`text_config`), and under old and new names (`rope_scaling` or
 * `rope_parameters`). Used by the family files only. */
#ifndef OC_MODELS_CONFIG_H
#define OC_MODELS_CONFIG_H

#include "base/json.h"
#include "lm/decoder.h"

/* A required integer in [min, max]. Errors: OC_ERR_FORMAT naming the key, OC_ERR_LIMIT out of range. */
OC_MUST_CHECK enum oc_err oc_models_config_int(const struct oc_json *c, const char *key, int64_t min, int64_t max,
                                               int *out, struct oc_errinfo *ei);

/* The same with a default for an absent or null key. */
OC_MUST_CHECK enum oc_err oc_models_config_int_or(const struct oc_json *c, const char *key, int64_t min, int64_t max,
                                                  int fallback, int *out, struct oc_errinfo *ei);

/* "silu", "gelu", "gelu_pytorch_tanh", "quick_gelu". Errors: OC_ERR_UNSUPPORTED naming the other. */
OC_MUST_CHECK enum oc_err oc_models_config_act(const struct oc_json *c, const char *key, const char *fallback,
                                               enum oc_act *out, struct oc_errinfo *ei);

/* The text decoder's shape and rotary frequencies from `c` (the nested text_config, or the whole when flat).
 * Frequencies go to the arena. rope types: default, llama3, linear, mrope. Errors: as above, OC_ERR_UNSUPPORTED for
 * another rope type, sliding windows in use, or fewer than all dimensions rotated. */
OC_MUST_CHECK enum oc_err oc_models_config_text(const struct oc_json *c, struct oc_arena *a, struct oc_lm *lm,
                                                struct oc_errinfo *ei);

#endif
