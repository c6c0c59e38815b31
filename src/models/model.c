#include "models/model.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/limits.h"
#include "models/families.h"

static const struct oc_model_family *const families[] = {&oc_models_qwen2_5_vl, &oc_models_qwen2, &oc_models_llama};
#define N_FAMILIES (sizeof families / sizeof families[0])

static const struct oc_model_family *find_family(struct oc_str architecture) {
    for (size_t i = 0; i < N_FAMILIES; i++)
        for (const char *const *a = families[i]->architectures; *a; a++)
            if (oc_str_is(architecture, *a)) return families[i];
    return NULL;
}

static enum oc_err unknown_architecture(struct oc_str name, struct oc_errinfo *ei) {
    char known[256] = "";
    size_t n = 0;
    for (size_t i = 0; i < N_FAMILIES; i++)
        for (const char *const *a = families[i]->architectures; *a && n < sizeof known; a++)
            n += (size_t)snprintf(known + n, sizeof known - n, "%s%s", n ? ", " : "", *a);
    return oc_fail(ei, OC_ERR_UNSUPPORTED, "config.json: architecture \"%.*s\" is not supported; known are %s",
                   (int)(name.n < 80 ? name.n : 80), name.p, known);
}

static enum oc_err bind_model(struct oc_model *m, struct oc_errinfo *ei) {
    const struct oc_json *config = oc_weights_config(m->checkpoint);
    const struct oc_json *list = oc_json_get(config, "architectures");
    if (!list || list->type != OC_JSON_ARR || list->n_items < 1 || list->items[0].type != OC_JSON_STR)
        return oc_fail(ei, OC_ERR_FORMAT, "config.json has no \"architectures\" list: cannot tell which model this is");
    struct oc_str name = list->items[0].str;
    m->family = find_family(name);
    m->architecture = name.p;
    if (!m->family) return unknown_architecture(name, ei);
    return m->family->bind(m, config, ei);
}

enum oc_err oc_model_open(const char *dir, struct oc_model **out, struct oc_errinfo *ei) {
    *out = NULL;
    struct oc_model *m = calloc(1, sizeof *m);
    if (!m) return oc_fail(ei, OC_ERR_NOMEM, "out of memory for a model");
    oc_arena_init(&m->arena, 256 * OC_MIB);
    m->image_token = -1;
    enum oc_err err = oc_weights_checkpoint_open(dir, &m->checkpoint, ei);
    if (err == OC_OK) {
        err = bind_model(m, ei);
        if (err != OC_OK) oc_fail_prefix(ei, err, "%s", dir);
    }
    if (err != OC_OK) {
        oc_model_close(m);
        return err;
    }
    *out = m;
    return OC_OK;
}

void oc_model_close(struct oc_model *m) {
    if (!m) return;
    oc_weights_checkpoint_close(m->checkpoint);
    oc_arena_free(&m->arena);
    free(m);
}
