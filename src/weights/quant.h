/* weights/quant.h - what config.json says about quantisation.
 *
 * Called by weights/checkpoint when a model loads. MLX affine quantisation is a default {bits, group_size}
 * under `quantization` (or `quantization_config`) and, beside those keys, overrides by module path: an object
 * with its own bits or group_size, or `false` for a module left plain. Everything else is refused by name. */
#ifndef OC_WEIGHTS_QUANT_H
#define OC_WEIGHTS_QUANT_H

#include "base/err.h"
#include "base/json.h"

struct oc_quant_rule {
    uint8_t bits;   /* 4 or 8; 0: plain */
    uint16_t group; /* 32, 64 or 128; 0 when plain */
};

struct oc_quant {
    struct oc_quant_rule base;     /* for modules without an override; bits 0 when nothing is quantised */
    const struct oc_json *section; /* the object with the overrides, or NULL; lives as long as the config */
};

/* Reads the rules from config.json, checking every override as well. Errors: OC_ERR_UNSUPPORTED (a
 * quantisation that ocellus does not read, named), OC_ERR_FORMAT (wrong types). `path` of the config is for
 * messages. */
OC_MUST_CHECK enum oc_err oc_weights_quant_read(const struct oc_json *config, const char *path,
                                                struct oc_quant *out, struct oc_errinfo *ei);

/* The rule for a module, e.g. "language_model.model.layers.0.mlp.down_proj". An override is found under the
 * module's own path or under its path in one of the other two tensor-name layouts. */
struct oc_quant_rule oc_weights_quant_rule(const struct oc_quant *q, const char *module);

#endif
