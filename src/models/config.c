#include "models/config.h"

#include <math.h>

#include "base/limits.h"

enum oc_err oc_models_config_int(const struct oc_json *c, const char *key, int64_t min, int64_t max, int *out,
                                 struct oc_errinfo *ei) {
    const struct oc_json *v = oc_json_get(c, key);
    if (oc_json_is_null(v)) return oc_fail(ei, OC_ERR_FORMAT, "config.json has no \"%s\"", key);
    int64_t n = oc_json_int_or(v, INT64_MIN);
    if (n == INT64_MIN) return oc_fail(ei, OC_ERR_FORMAT, "config.json: \"%s\" is not an integer", key);
    if (n < min || n > max)
        return oc_fail(ei, OC_ERR_LIMIT, "config.json: \"%s\" is %lld, allowed is %lld to %lld", key, (long long)n,
                       (long long)min, (long long)max);
    *out = (int)n;
    return OC_OK;
}

enum oc_err oc_models_config_int_or(const struct oc_json *c, const char *key, int64_t min, int64_t max, int fallback,
                                    int *out, struct oc_errinfo *ei) {
    if (!oc_json_is_null(oc_json_get(c, key))) return oc_models_config_int(c, key, min, max, out, ei);
    *out = fallback;
    return OC_OK;
}

enum oc_err oc_models_config_act(const struct oc_json *c, const char *key, const char *fallback, enum oc_act *out,
                                 struct oc_errinfo *ei) {
    static const struct {
        const char *name;
        enum oc_act act;
    } known[] = {
        {"silu", OC_ACT_SILU},           {"swish", OC_ACT_SILU},
        {"gelu", OC_ACT_GELU},           {"gelu_pytorch_tanh", OC_ACT_GELU_TANH},
        {"gelu_new", OC_ACT_GELU_TANH},  {"quick_gelu", OC_ACT_QUICK_GELU},
    };
    struct oc_str name = oc_json_str_or(oc_json_get(c, key), oc_str_from(fallback));
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (!oc_str_is(name, known[i].name)) continue;
        *out = known[i].act;
        return OC_OK;
    }
    return oc_fail(ei, OC_ERR_UNSUPPORTED, "config.json: \"%s\" is \"%.*s\"; known are silu, gelu, gelu_pytorch_tanh, quick_gelu",
                   key, (int)(name.n < 64 ? name.n : 64), name.p);
}

/* Llama 3.1's frequency scaling (transformers: _compute_llama3_parameters): low frequencies divided by factor, high ones
 * kept, a smooth step between. */
static void scale_llama3(const struct oc_json *rope, float *inv_freq, int n) {
    double factor = oc_json_double_or(oc_json_get(rope, "factor"), 1);
    double low = oc_json_double_or(oc_json_get(rope, "low_freq_factor"), 1);
    double high = oc_json_double_or(oc_json_get(rope, "high_freq_factor"), 4);
    double old_len = oc_json_double_or(oc_json_get(rope, "original_max_position_embeddings"), 8192);
    for (int i = 0; i < n; i++) {
        double wavelen = 2 * M_PI / inv_freq[i];
        if (wavelen > old_len / low) {
            inv_freq[i] = (float)(inv_freq[i] / factor);
        } else if (wavelen >= old_len / high) {
            double smooth = (old_len / wavelen - low) / (high - low);
            inv_freq[i] = (float)((1 - smooth) * inv_freq[i] / factor + smooth * inv_freq[i]);
        }
    }
}

static enum oc_err read_section(const struct oc_json *section, struct oc_lm *lm, struct oc_errinfo *ei) {
    int64_t sum = 0;
    bool ok = section->type == OC_JSON_ARR && section->n_items == 3;
    for (size_t i = 0; ok && i < 3; i++) {
        int64_t n = oc_json_int_or(&section->items[i], -1);
        ok = n >= 0 && n <= lm->hd / 2;
        lm->rope_section[i] = (int)n;
        sum += n;
    }
    if (ok && sum == lm->hd / 2) return OC_OK;
    return oc_fail(ei, OC_ERR_FORMAT, "config.json: \"mrope_section\" must be three integers that add up to %d, half the head size",
                   lm->hd / 2);
}

static enum oc_err read_rope(const struct oc_json *c, struct oc_arena *a, struct oc_lm *lm, struct oc_errinfo *ei) {
    const struct oc_json *rope = oc_json_get(c, "rope_parameters");
    if (oc_json_is_null(rope)) rope = oc_json_get(c, "rope_scaling");
    double theta = oc_json_double_or(oc_json_get(rope, "rope_theta"), oc_json_double_or(oc_json_get(c, "rope_theta"), 10000));
    if (!(theta >= 1 && theta <= 1e12)) return oc_fail(ei, OC_ERR_LIMIT, "config.json: \"rope_theta\" is out of range");
    double partial = oc_json_double_or(oc_json_get(rope, "partial_rotary_factor"), oc_json_double_or(oc_json_get(c, "partial_rotary_factor"), 1));
    if (partial != 1) return oc_fail(ei, OC_ERR_UNSUPPORTED, "config.json: partial rotary embedding is not supported");
    int half = lm->hd / 2;
    float *inv_freq = oc_arena_array(a, (size_t)half, sizeof *inv_freq);
    if (!inv_freq) return oc_fail(ei, OC_ERR_NOMEM, "out of memory for rotary frequencies");
    for (int i = 0; i < half; i++) inv_freq[i] = (float)(1.0 / pow(theta, (double)(2 * i) / lm->hd));
    lm->inv_freq = inv_freq;
    lm->rope_section[0] = half;
    struct oc_str type = oc_json_str_or(oc_json_get(rope, "rope_type"), oc_json_str_or(oc_json_get(rope, "type"), OC_STR("default")));
    if (oc_str_is(type, "llama3")) {
        scale_llama3(rope, inv_freq, half);
    } else if (oc_str_is(type, "linear")) {
        double factor = oc_json_double_or(oc_json_get(rope, "factor"), 1);
        for (int i = 0; i < half; i++) inv_freq[i] = (float)(inv_freq[i] / factor);
    } else if (!oc_str_is(type, "default") && !oc_str_is(type, "mrope")) {
        return oc_fail(ei, OC_ERR_UNSUPPORTED, "config.json: rope type \"%.*s\" is not supported; known are default, mrope, llama3, linear",
                       (int)(type.n < 64 ? type.n : 64), type.p);
    }
    const struct oc_json *section = oc_json_get(rope, "mrope_section");
    return oc_json_is_null(section) ? OC_OK : read_section(section, lm, ei);
}

enum oc_err oc_models_config_text(const struct oc_json *c, struct oc_arena *a, struct oc_lm *lm, struct oc_errinfo *ei) {
    OC_TRY(oc_models_config_int(c, "hidden_size", 1, OC_LIMIT_HIDDEN, &lm->dim, ei));
    OC_TRY(oc_models_config_int(c, "num_hidden_layers", 1, OC_LIMIT_LAYERS, &lm->n_layers, ei));
    OC_TRY(oc_models_config_int(c, "num_attention_heads", 1, OC_LIMIT_HEADS, &lm->n_heads, ei));
    OC_TRY(oc_models_config_int_or(c, "num_key_value_heads", 1, OC_LIMIT_HEADS, lm->n_heads, &lm->n_kv_heads, ei));
    OC_TRY(oc_models_config_int_or(c, "head_dim", 2, 256, lm->dim / lm->n_heads, &lm->hd, ei));
    OC_TRY(oc_models_config_int(c, "intermediate_size", 1, 8 * OC_LIMIT_HIDDEN, &lm->inter, ei));
    OC_TRY(oc_models_config_int(c, "vocab_size", 1, OC_LIMIT_VOCAB, &lm->n_vocab, ei));
    OC_TRY(oc_models_config_int_or(c, "max_position_embeddings", 1, INT32_MAX, 32768, &lm->max_tokens, ei));
    if (lm->n_heads % lm->n_kv_heads != 0)
        return oc_fail(ei, OC_ERR_FORMAT, "config.json: %d attention heads cannot share %d key-value heads", lm->n_heads,
                       lm->n_kv_heads);
    if (lm->hd < 2 || lm->hd > 256 || lm->hd % 2)
        return oc_fail(ei, OC_ERR_UNSUPPORTED, "config.json: a head size of %d is not supported (even, 2 to 256)", lm->hd);
    if (oc_json_bool_or(oc_json_get(c, "use_sliding_window"), false))
        return oc_fail(ei, OC_ERR_UNSUPPORTED, "config.json: sliding-window attention is not supported");
    lm->eps = (float)oc_json_double_or(oc_json_get(c, "rms_norm_eps"), 1e-6);
    OC_TRY(oc_models_config_act(c, "hidden_act", "silu", &lm->act, ei));
    return read_rope(c, a, lm, ei);
}
