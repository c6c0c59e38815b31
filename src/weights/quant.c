#include "weights/quant.h"

#include <string.h>

#define DEFAULT_BITS 4 /* of MLX, where an override gives only one of the two */
#define DEFAULT_GROUP 64

/* Fields of the section that describe the default; every other key is a module path. */
static bool is_own_key(struct oc_str key) {
    return oc_str_is(key, "group_size") || oc_str_is(key, "bits") || oc_str_is(key, "mode") ||
           oc_str_is(key, "quant_method");
}

/* Reads {bits, group_size, mode} of the section itself (module empty) or of one override. */
static enum oc_err read_rule(const struct oc_json *j, struct oc_str module, const char *path,
                             struct oc_quant_rule *out, struct oc_errinfo *ei) {
    const char *sep = module.n ? " of " : "";
    int n_name = module.n > 120 ? 120 : (int)module.n;
    const struct oc_json *mode = oc_json_get(j, "mode");
    if (!oc_json_is_null(mode) && !(mode->type == OC_JSON_STR && oc_str_is(mode->str, "affine"))) {
        struct oc_str s = oc_json_str_or(mode, OC_STR("something else"));
        return oc_fail(
            ei, OC_ERR_UNSUPPORTED,
            "%.200s: quantisation mode%s%.*s is \"%.*s\"; ocellus reads \"affine\" with 4 or 8 bits", path,
            sep, n_name, module.p, s.n > 40 ? 40 : (int)s.n, s.p);
    }
    int64_t bits = oc_json_int_or(oc_json_get(j, "bits"), module.n ? DEFAULT_BITS : 0);
    int64_t group = oc_json_int_or(oc_json_get(j, "group_size"), DEFAULT_GROUP);
    if (bits == 0)
        return oc_fail(ei, OC_ERR_FORMAT, "%.200s: the quantisation section gives no number of bits", path);
    if (bits != 4 && bits != 8)
        return oc_fail(ei, OC_ERR_UNSUPPORTED,
                       "%.200s: quantisation%s%.*s to %lld bits; ocellus reads 4 and 8 bits", path, sep,
                       n_name, module.p, (long long)bits);
    if (group != 32 && group != 64 && group != 128)
        return oc_fail(ei, OC_ERR_UNSUPPORTED,
                       "%.200s: quantisation%s%.*s in groups of %lld; ocellus reads groups of 32, 64 and 128",
                       path, sep, n_name, module.p, (long long)group);
    *out = (struct oc_quant_rule){(uint8_t)bits, (uint16_t)group};
    return OC_OK;
}

/* Sections of other formats name their method: refused by that name. */
static enum oc_err refuse_other_methods(const struct oc_json *section, const char *path,
                                        struct oc_errinfo *ei) {
    const struct oc_json *method = oc_json_get(section, "quant_method");
    if (oc_json_is_null(method)) return OC_OK;
    struct oc_str s = oc_json_str_or(method, OC_STR("an unnamed method"));
    return oc_fail(
        ei, OC_ERR_UNSUPPORTED,
        "%.200s: the weights are quantised by \"%.*s\", which ocellus does not read: use the model in MLX 4- "
        "or 8-bit, or unquantised",
        path, s.n > 40 ? 40 : (int)s.n, s.p);
}

static enum oc_err check_overrides(const struct oc_json *section, const char *path, struct oc_errinfo *ei) {
    for (size_t i = 0; i < section->n_members; i++) {
        const struct oc_json_member *m = &section->members[i];
        struct oc_quant_rule rule;
        if (is_own_key(m->key) || m->key.n == 0 || m->value.type != OC_JSON_OBJ) continue;
        OC_TRY(read_rule(&m->value, m->key, path, &rule, ei));
    }
    return OC_OK;
}

enum oc_err oc_weights_quant_read(const struct oc_json *config, const char *path, struct oc_quant *out,
                                  struct oc_errinfo *ei) {
    *out = (struct oc_quant){0};
    const struct oc_json *section = oc_json_get(config, "quantization");
    if (oc_json_is_null(section)) {
        OC_TRY(
            refuse_other_methods(oc_json_path(config, "text_config", "quantization_config", NULL), path, ei));
        section = oc_json_get(config, "quantization_config");
        if (oc_json_is_null(section)) return OC_OK;
        if (section->type == OC_JSON_OBJ) OC_TRY(refuse_other_methods(section, path, ei));
    }
    if (section->type != OC_JSON_OBJ)
        return oc_fail(ei, OC_ERR_FORMAT, "%.200s: the quantisation section is not an object", path);
    OC_TRY(read_rule(section, OC_STR(""), path, &out->base, ei));
    OC_TRY(check_overrides(section, path, ei));
    out->section = section;
    return OC_OK;
}

struct root {
    const char *prefix;
    char kind; /* t: text, v: vision, l: output head */
};

/* The module path without what differs between the layouts; *kind tells what was cut off. */
static struct oc_str strip_root(struct oc_str path, char *kind) {
    static const struct root roots[] = {
        {"model.language_model.", 't'},
        {"language_model.model.", 't'},
        {"model.visual.", 'v'},
        {"vision_tower.", 'v'},
        {"visual.", 'v'},
        {"language_model.", 'l'},
        {"model.", 't'},
    };
    *kind = 'l';
    for (size_t i = 0; i < sizeof roots / sizeof *roots; i++) {
        struct oc_str prefix = oc_str_from(roots[i].prefix);
        if (!oc_str_starts(path, prefix)) continue;
        *kind = roots[i].kind;
        return (struct oc_str){path.p + prefix.n, path.n - prefix.n};
    }
    return path;
}

static const struct oc_json *find_override(const struct oc_json *section, struct oc_str module) {
    const struct oc_json *hit = oc_json_get_str(section, module);
    if (hit) return hit;
    char kind, other_kind;
    struct oc_str rest = strip_root(module, &kind);
    for (size_t i = 0; i < section->n_members; i++) {
        const struct oc_json_member *m = &section->members[i];
        if (!oc_str_ends(m->key, rest)) continue;
        if (oc_str_eq(strip_root(m->key, &other_kind), rest) && kind == other_kind) return &m->value;
    }
    return NULL;
}

struct oc_quant_rule oc_weights_quant_rule(const struct oc_quant *q, const char *module) {
    struct oc_str path = oc_str_from(module);
    if (!q->section || is_own_key(path)) return q->base;
    const struct oc_json *over = find_override(q->section, path);
    if (over && over->type == OC_JSON_BOOL && !over->b) return (struct oc_quant_rule){0};
    if (!over || over->type != OC_JSON_OBJ) return q->base;
    struct oc_quant_rule rule;
    return read_rule(over, path, "", &rule, NULL) == OC_OK ? rule : q->base;
}
