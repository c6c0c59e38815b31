/* Any bytes as a config.json: quantisation rules are refused with a message or are ones the kernels know. */
#include <stdint.h>

#include "base/err.h"
#include "base/json.h"
#include "base/limits.h"
#include "weights/quant.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_rule(const struct oc_quant *q, const char *module) {
    struct oc_quant_rule r = oc_weights_quant_rule(q, module);
    OC_ASSERT(r.bits == 0 || r.bits == 4 || r.bits == 8);
    OC_ASSERT(r.bits == 0 ? r.group == 0 : r.group == 32 || r.group == 64 || r.group == 128);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct oc_arena a;
    struct oc_json config;
    struct oc_quant q;
    struct oc_errinfo ei = {0};
    oc_arena_init(&a, 64 * OC_MIB);
    struct oc_str text = {(const char *)data, n};
    enum oc_err err = oc_json_parse(&a, text, "config.json", &config, &ei);
    if (err == OC_OK) err = oc_weights_quant_read(&config, "config.json", &q, &ei);
    if (err == OC_OK) {
        check_rule(&q, "");
        check_rule(&q, "bits");
        check_rule(&q, "lm_head");
        check_rule(&q, "model.layers.0.mlp.down_proj");
        check_rule(&q, "language_model.model.layers.0.mlp.down_proj");
        check_rule(&q, "visual.blocks.0.attn.qkv");
    } else {
        OC_ASSERT(ei.code == err && ei.msg[0] != '\0');
    }
    oc_arena_free(&a);
    return 0;
}
