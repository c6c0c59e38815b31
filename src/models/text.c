#include "models/text.h"

#include <stdio.h>

#define NAME_BYTES 256

static enum oc_err bind_linear(struct oc_model *m, const char *prefix, const char *name, int64_t n, int64_t k,
                               enum oc_bias bias, struct oc_weight *out, struct oc_errinfo *ei) {
    char full[NAME_BYTES];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    return oc_weights_linear(m->checkpoint, full, n, k, bias, out, ei);
}

static enum oc_err bind_norm(struct oc_model *m, const char *prefix, const char *name, const float **out,
                             struct oc_errinfo *ei) {
    char full[NAME_BYTES];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    return oc_weights_vector(m->checkpoint, full, m->lm.dim, out, ei);
}

static enum oc_err bind_layer(struct oc_model *m, const char *body, int i, enum oc_bias qkv_bias,
                              struct oc_errinfo *ei) {
    const struct oc_lm *lm = &m->lm;
    struct oc_lm_layer *l = &lm->layers[i];
    int64_t q_dim = (int64_t)lm->n_heads * lm->hd, kv_dim = (int64_t)lm->n_kv_heads * lm->hd;
    char p[NAME_BYTES];
    snprintf(p, sizeof p, "%slayers.%d.", body, i);
    OC_TRY(bind_norm(m, p, "input_layernorm.weight", &l->attn_norm, ei));
    OC_TRY(bind_norm(m, p, "post_attention_layernorm.weight", &l->mlp_norm, ei));
    OC_TRY(bind_linear(m, p, "self_attn.q_proj", q_dim, lm->dim, qkv_bias, &l->q, ei));
    OC_TRY(bind_linear(m, p, "self_attn.k_proj", kv_dim, lm->dim, qkv_bias, &l->k, ei));
    OC_TRY(bind_linear(m, p, "self_attn.v_proj", kv_dim, lm->dim, qkv_bias, &l->v, ei));
    OC_TRY(bind_linear(m, p, "self_attn.o_proj", lm->dim, q_dim, OC_BIAS_OPTIONAL, &l->o, ei));
    OC_TRY(bind_linear(m, p, "mlp.gate_proj", lm->inter, lm->dim, OC_BIAS_OPTIONAL, &l->gate, ei));
    OC_TRY(bind_linear(m, p, "mlp.up_proj", lm->inter, lm->dim, OC_BIAS_OPTIONAL, &l->up, ei));
    return bind_linear(m, p, "mlp.down_proj", lm->dim, lm->inter, OC_BIAS_OPTIONAL, &l->down, ei);
}

bool oc_models_text_tied(const struct oc_model *m, const struct oc_json *config, const char *head) {
    char name[NAME_BYTES];
    const struct oc_json *flag = oc_json_get(config, "tie_word_embeddings");
    if (oc_json_is_null(flag)) flag = oc_json_path(config, "text_config", "tie_word_embeddings", NULL);
    if (!oc_json_is_null(flag)) return oc_json_bool_or(flag, false);
    snprintf(name, sizeof name, "%s.weight", head);
    return oc_weights_find(m->checkpoint, name) == NULL;
}

enum oc_err oc_models_text_bind(struct oc_model *m, const struct oc_models_text_names *names, enum oc_bias qkv_bias,
                                struct oc_errinfo *ei) {
    struct oc_lm *lm = &m->lm;
    lm->layers = oc_arena_array(&m->arena, (size_t)lm->n_layers, sizeof *lm->layers);
    if (!lm->layers) return oc_fail(ei, OC_ERR_NOMEM, "out of memory for %d layers", lm->n_layers);
    OC_TRY(bind_linear(m, names->body, "embed_tokens", lm->n_vocab, lm->dim, OC_BIAS_NONE, &lm->embed, ei));
    for (int i = 0; i < lm->n_layers; i++) OC_TRY(bind_layer(m, names->body, i, qkv_bias, ei));
    OC_TRY(bind_norm(m, names->body, "norm.weight", &lm->final_norm, ei));
    if (names->tied) lm->head = lm->embed;
    else OC_TRY(oc_weights_linear(m->checkpoint, names->head, lm->n_vocab, lm->dim, OC_BIAS_NONE, &lm->head, ei));
    lm->kv_dtype = OC_F32; /* bf16 would cost half the memory and parity: see docs/PITFALLS.md */
    return OC_OK;
}
