#include "cli/defaults.h"

#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"

void oc_cli_defaults_add_eos(struct oc_cli_defaults *d, int64_t id) {
    if (id < 0 || id >= OC_LIMIT_VOCAB || d->n_eos == OC_MAX_EOS || oc_cli_defaults_is_eos(d, (int32_t)id))
        return;
    d->eos[d->n_eos++] = (int32_t)id;
}

bool oc_cli_defaults_is_eos(const struct oc_cli_defaults *d, int32_t token) {
    for (int i = 0; i < d->n_eos; i++)
        if (d->eos[i] == token) return true;
    return false;
}

static void add_eos_value(struct oc_cli_defaults *d, const struct oc_json *v) {
    if (!v) return;
    if (v->type == OC_JSON_INT) oc_cli_defaults_add_eos(d, v->i);
    for (size_t i = 0; v->type == OC_JSON_ARR && i < v->n_items; i++)
        if (v->items[i].type == OC_JSON_INT) oc_cli_defaults_add_eos(d, v->items[i].i);
}

/* Loads dir/name when it exists; *out stays null when it does not. */
static enum oc_err load(struct oc_arena *a, const char *dir, const char *name, struct oc_json *out,
                        struct oc_errinfo *ei) {
    *out = (struct oc_json){.type = OC_JSON_NULL};
    const char *path = oc_path_join(a, dir, name);
    if (!path) return oc_fail(ei, OC_ERR_NOMEM, "no memory for the path of %s", name);
    return oc_file_exists(path) ? oc_json_load(a, path, OC_LIMIT_CONFIG_BYTES, out, ei) : OC_OK;
}

static void read_sampling(const struct oc_json *g, struct oc_cli_defaults *d) {
    struct oc_lm_sample_params *s = &d->sample;
    *s = oc_lm_sample_defaults();
    if (oc_json_bool_or(oc_json_get(g, "do_sample"), false))
        s->temperature = (float)oc_json_double_or(oc_json_get(g, "temperature"), 1.0);
    int64_t top_k = oc_json_int_or(oc_json_get(g, "top_k"), 0);
    s->top_k = top_k > 0 && top_k < OC_LIMIT_VOCAB ? (int)top_k : 0;
    s->top_p = (float)oc_json_double_or(oc_json_get(g, "top_p"), 1.0);
    s->min_p = (float)oc_json_double_or(oc_json_get(g, "min_p"), 0.0);
    s->repetition_penalty = (float)oc_json_double_or(oc_json_get(g, "repetition_penalty"), 1.0);
    d->max_new_tokens = oc_json_int_or(oc_json_get(g, "max_new_tokens"), 0);
}

enum oc_err oc_cli_defaults_read(const char *dir, struct oc_cli_defaults *out, struct oc_errinfo *ei) {
    struct oc_arena a;
    struct oc_json generation, config;
    *out = (struct oc_cli_defaults){0};
    oc_arena_init(&a, OC_LIMIT_CHECKPOINT_BYTES);
    enum oc_err err = load(&a, dir, "generation_config.json", &generation, ei);
    if (!err) err = load(&a, dir, "config.json", &config, ei);
    if (!err) {
        read_sampling(&generation, out);
        err = oc_lm_sample_check(&out->sample, OC_LIMIT_VOCAB, ei);
        if (err) err = ei->code = oc_fail_prefix(ei, OC_ERR_FORMAT, "%s/generation_config.json", dir);
        add_eos_value(out, oc_json_get(&generation, "eos_token_id"));
        add_eos_value(out, oc_json_get(&config, "eos_token_id"));
        add_eos_value(out, oc_json_path(&config, "text_config", "eos_token_id", NULL));
    }
    oc_arena_free(&a);
    return err;
}
