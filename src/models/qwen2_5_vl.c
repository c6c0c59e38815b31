/* Qwen2.5-VL ("Qwen2.5-VL Technical Report", 2025): the shared vision encoder with windows, a Qwen2 decoder with
 * rotary positions on three axes. Tensor names come in three layouts. */
#include <stdio.h>

#include "base/limits.h"
#include "models/config.h"
#include "models/families.h"
#include "models/pictures.h"
#include "models/text.h"

#define NAME_BYTES 256

struct layout {
    const char *visual; /* prefix of the vision tensors; its presence picks the layout */
    const char *body, *head;
    bool conv_channels_last;
};

static const struct layout layouts[] = {
    {"model.visual.", "model.language_model.", "lm_head", false},
    {"vision_tower.", "language_model.model.", "language_model.lm_head", true},
    {"visual.", "model.", "lm_head", false},
};

static const struct layout *find_layout(const struct oc_checkpoint *ck) {
    for (size_t i = 0; i < sizeof layouts / sizeof layouts[0]; i++)
        if (oc_weights_has_prefix(ck, layouts[i].visual)) return &layouts[i];
    return NULL;
}

static enum oc_err read_full_attention(const struct oc_json *list, struct oc_vision *v, struct oc_errinfo *ei) {
    for (size_t i = 0; list && list->type == OC_JSON_ARR && i < list->n_items; i++) {
        int64_t at = oc_json_int_or(&list->items[i], -1);
        if (at < 0) return oc_fail(ei, OC_ERR_FORMAT, "config.json: \"fullatt_block_indexes\" holds something else than block numbers");
        if (at < v->n_blocks) v->blocks[at].full_attention = true;
    }
    return OC_OK;
}

static enum oc_err read_vision_config(struct oc_model *m, const struct oc_json *c, struct oc_errinfo *ei) {
    struct oc_vision *v = &m->vision;
    struct oc_picture_rules *p = &m->pictures;
    int channels, window_px;
    OC_TRY(oc_models_config_int(c, "depth", 1, OC_LIMIT_LAYERS, &v->n_blocks, ei));
    OC_TRY(oc_models_config_int(c, "hidden_size", 1, OC_LIMIT_HIDDEN, &v->dim, ei));
    OC_TRY(oc_models_config_int(c, "num_heads", 1, OC_LIMIT_HEADS, &v->n_heads, ei));
    OC_TRY(oc_models_config_int(c, "intermediate_size", 1, 8 * OC_LIMIT_HIDDEN, &v->inter, ei));
    OC_TRY(oc_models_config_int_or(c, "out_hidden_size", 1, OC_LIMIT_HIDDEN, m->lm.dim, &v->out_dim, ei));
    OC_TRY(oc_models_config_int_or(c, oc_json_get(c, "in_channels") ? "in_channels" : "in_chans", 3, 3, 3, &channels, ei));
    OC_TRY(oc_models_config_int_or(c, "patch_size", 1, OC_LIMIT_PATCH_EDGE, 14, &p->patch, ei));
    OC_TRY(oc_models_config_int_or(c, "temporal_patch_size", 1, OC_LIMIT_PATCH_FRAMES, 2, &p->temporal, ei));
    OC_TRY(oc_models_config_int_or(c, "spatial_merge_size", 1, OC_LIMIT_PATCH_MERGE, 2, &p->merge, ei));
    OC_TRY(oc_models_config_int_or(c, "window_size", 1, 65536, 112, &window_px, ei));
    OC_TRY(oc_models_config_act(c, "hidden_act", "silu", &v->act, ei));
    v->hd = v->dim / v->n_heads;
    if (v->dim % v->n_heads || v->hd % 4 || v->hd > OC_VISION_MAX_HD)
        return oc_fail(ei, OC_ERR_UNSUPPORTED, "config.json: %d vision heads in a width of %d: the head size must be a multiple of 4, at most %d",
                       v->n_heads, v->dim, OC_VISION_MAX_HD);
    if (v->out_dim != m->lm.dim)
        return oc_fail(ei, OC_ERR_FORMAT, "config.json: the vision output is %d wide, the text model %d", v->out_dim, m->lm.dim);
    v->merge = p->merge;
    v->patch_dim = channels * p->temporal * p->patch * p->patch;
    v->window = window_px / p->patch / p->merge;
    if (v->window < 1) return oc_fail(ei, OC_ERR_FORMAT, "config.json: \"window_size\" %d is smaller than a merge block", window_px);
    v->eps = 1e-6f; /* fixed in the architecture, as are theta and the merger's GELU */
    v->rope_theta = 10000;
    v->merger_act = OC_ACT_GELU;
    v->blocks = oc_arena_array(&m->arena, (size_t)v->n_blocks, sizeof *v->blocks);
    if (!v->blocks) return oc_fail(ei, OC_ERR_NOMEM, "out of memory for %d vision blocks", v->n_blocks);
    return read_full_attention(oc_json_get(c, "fullatt_block_indexes"), v, ei);
}

struct binder {
    struct oc_model *m;
    const char *prefix;
    struct oc_errinfo *ei;
};

static enum oc_err bind_linear(const struct binder *b, const char *name, int64_t n, int64_t k, struct oc_weight *out) {
    char full[NAME_BYTES];
    snprintf(full, sizeof full, "%s%s", b->prefix, name);
    return oc_weights_linear(b->m->checkpoint, full, n, k, OC_BIAS_REQUIRED, out, b->ei);
}

static enum oc_err bind_norm(const struct binder *b, const char *name, const float **out) {
    char full[NAME_BYTES];
    snprintf(full, sizeof full, "%s%s", b->prefix, name);
    return oc_weights_vector(b->m->checkpoint, full, b->m->vision.dim, out, b->ei);
}

static enum oc_err bind_block(const struct binder *b, struct oc_vision_block *blk) {
    const struct oc_vision *v = &b->m->vision;
    OC_TRY(bind_norm(b, "norm1.weight", &blk->norm1));
    OC_TRY(bind_norm(b, "norm2.weight", &blk->norm2));
    OC_TRY(bind_linear(b, "attn.qkv", 3 * (int64_t)v->dim, v->dim, &blk->qkv));
    OC_TRY(bind_linear(b, "attn.proj", v->dim, v->dim, &blk->proj));
    OC_TRY(bind_linear(b, "mlp.gate_proj", v->inter, v->dim, &blk->gate));
    OC_TRY(bind_linear(b, "mlp.up_proj", v->inter, v->dim, &blk->up));
    return bind_linear(b, "mlp.down_proj", v->dim, v->inter, &blk->down);
}

static enum oc_err bind_vision(struct oc_model *m, const struct layout *l, struct oc_errinfo *ei) {
    struct oc_vision *v = &m->vision;
    struct binder top = {m, l->visual, ei};
    int64_t joined = (int64_t)v->merge * v->merge * v->dim;
    char name[NAME_BYTES];
    snprintf(name, sizeof name, "%spatch_embed.proj", l->visual);
    struct oc_conv_shape conv = {v->dim, 3, m->pictures.temporal, m->pictures.patch, m->pictures.patch, l->conv_channels_last};
    OC_TRY(oc_weights_conv(m->checkpoint, name, conv, OC_BIAS_NONE, &v->patch_embed, ei));
    for (int i = 0; i < v->n_blocks; i++) {
        snprintf(name, sizeof name, "%sblocks.%d.", l->visual, i);
        struct binder block = {m, name, ei};
        OC_TRY(bind_block(&block, &v->blocks[i]));
    }
    OC_TRY(bind_norm(&top, "merger.ln_q.weight", &v->merger_norm));
    OC_TRY(bind_linear(&top, "merger.mlp.0", joined, joined, &v->merger_fc1));
    return bind_linear(&top, "merger.mlp.2", v->out_dim, joined, &v->merger_fc2);
}

static enum oc_err bind(struct oc_model *m, const struct oc_json *config, struct oc_errinfo *ei) {
    const struct oc_json *text = oc_json_get(config, "text_config");
    if (!text || text->type != OC_JSON_OBJ || !oc_json_get(text, "hidden_size")) text = config;
    OC_TRY(oc_models_config_text(text, &m->arena, &m->lm, ei));
    const struct layout *l = find_layout(m->checkpoint);
    if (!l) return oc_fail(ei, OC_ERR_FORMAT, "the checkpoint has no vision tensors (visual.*, model.visual.* or vision_tower.*)");
    struct oc_models_text_names names = {l->body, l->head, oc_models_text_tied(m, config, l->head)};
    OC_TRY(oc_models_text_bind(m, &names, OC_BIAS_REQUIRED, ei));
    OC_TRY(read_vision_config(m, oc_json_get(config, "vision_config"), ei));
    OC_TRY(oc_models_pictures_read(m, ei));
    OC_TRY(bind_vision(m, l, ei));
    int image_token;
    OC_TRY(oc_models_config_int_or(config, "image_token_id", 0, m->lm.n_vocab - 1, 151655, &image_token, ei));
    m->image_token = image_token;
    m->has_vision = true;
    return OC_OK;
}

static const char *const architectures[] = {"Qwen2_5_VLForConditionalGeneration", NULL};

const struct oc_model_family oc_models_qwen2_5_vl = {.name = "qwen2_5_vl", .architectures = architectures, .bind = bind};
