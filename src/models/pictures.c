#include "models/pictures.h"

#include <math.h>

#include "base/file.h"
#include "base/limits.h"

static enum oc_err read_triple(const struct oc_json *c, const char *key, double out[3], struct oc_errinfo *ei) {
    const struct oc_json *v = oc_json_get(c, key);
    if (oc_json_is_null(v)) return OC_OK;
    if (v->type != OC_JSON_ARR || v->n_items != 3)
        return oc_fail(ei, OC_ERR_FORMAT, "preprocessor_config.json: \"%s\" is not three numbers", key);
    for (int i = 0; i < 3; i++) out[i] = oc_json_double_or(&v->items[i], out[i]);
    return OC_OK;
}

static enum oc_err check_agrees(const struct oc_json *c, const char *key, int from_config, struct oc_errinfo *ei) {
    int64_t v = oc_json_int_or(oc_json_get(c, key), from_config);
    if (v == from_config) return OC_OK;
    return oc_fail(ei, OC_ERR_FORMAT, "preprocessor_config.json: \"%s\" is %lld, but config.json says %d", key, (long long)v, from_config);
}

static bool values_ok(const struct oc_picture_rules *r) {
    bool ok = isfinite(r->rescale) && r->rescale > 0;
    for (int i = 0; i < 3; i++) ok = ok && isfinite(r->mean[i]) && isfinite(r->std[i]) && r->std[i] > 0;
    return ok;
}

static enum oc_err read_rules(struct oc_picture_rules *p, const struct oc_json *c, struct oc_errinfo *ei) {
    const struct oc_json *size = oc_json_get(c, "size");
    OC_TRY(check_agrees(c, "patch_size", p->patch, ei));
    OC_TRY(check_agrees(c, "merge_size", p->merge, ei));
    OC_TRY(check_agrees(c, "temporal_patch_size", p->temporal, ei));
    p->min_pixels = oc_json_int_or(oc_json_get(size, "shortest_edge"), p->min_pixels);
    p->max_pixels = oc_json_int_or(oc_json_get(size, "longest_edge"), p->max_pixels);
    p->min_pixels = oc_json_int_or(oc_json_get(c, "min_pixels"), p->min_pixels);
    p->max_pixels = oc_json_int_or(oc_json_get(c, "max_pixels"), p->max_pixels);
    p->rescale = oc_json_double_or(oc_json_get(c, "rescale_factor"), p->rescale);
    OC_TRY(read_triple(c, "image_mean", p->mean, ei));
    OC_TRY(read_triple(c, "image_std", p->std, ei));
    int64_t resample = oc_json_int_or(oc_json_get(c, "resample"), p->resample);
    if (resample < OC_RESAMPLE_LANCZOS || resample > OC_RESAMPLE_BICUBIC)
        return oc_fail(ei, OC_ERR_UNSUPPORTED, "preprocessor_config.json: resample %lld is not supported (1 Lanczos, 2 bilinear, 3 bicubic)",
                       (long long)resample);
    p->resample = (enum oc_resample)resample;
    if (!values_ok(p) || p->min_pixels < 1 || p->max_pixels < p->min_pixels)
        return oc_fail(ei, OC_ERR_FORMAT, "preprocessor_config.json: pixel bounds, rescale_factor, image_mean or image_std make no sense");
    return OC_OK;
}

enum oc_err oc_models_pictures_read(struct oc_model *m, struct oc_errinfo *ei) {
    struct oc_picture_rules *p = &m->pictures;
    p->kind = OC_MODELS_PICTURES_GRID;
    p->min_pixels = 56 * 56;
    p->max_pixels = 14 * 14 * 4 * 1280;
    p->resample = OC_RESAMPLE_BICUBIC;
    p->rescale = 1.0 / 255.0;
    const double mean[3] = {0.48145466, 0.4578275, 0.40821073}, std[3] = {0.26862954, 0.26130258, 0.27577711};
    for (int i = 0; i < 3; i++) p->mean[i] = mean[i], p->std[i] = std[i]; /* CLIP's (Radford et al. 2021) */
    char *path = oc_path_join(&m->arena, oc_weights_dir(m->checkpoint), "preprocessor_config.json");
    if (!path) return oc_fail(ei, OC_ERR_LIMIT, "path too long");
    if (!oc_file_exists(path)) return OC_OK;
    struct oc_json c;
    OC_TRY(oc_json_load(&m->arena, path, OC_LIMIT_CONFIG_BYTES, &c, ei));
    return read_rules(p, &c, ei);
}

enum oc_err oc_models_pictures_smart_resize(int width, int height, int factor, int64_t min_pixels, int64_t max_pixels,
                                            int *out_width, int *out_height, struct oc_errinfo *ei) {
    double w = width, h = height, f = factor;
    if (width < 1 || height < 1) return oc_fail(ei, OC_ERR_FORMAT, "a picture of %dx%d pixels", width, height);
    if (fmax(w, h) / fmin(w, h) > 200)
        return oc_fail(ei, OC_ERR_LIMIT, "a picture of %dx%d pixels: the sides may differ by a factor of 200 at most", width, height);
    double w_bar = rint(w / f) * f, h_bar = rint(h / f) * f; /* rint: half to even */
    if (w_bar * h_bar > (double)max_pixels) {
        double beta = sqrt(h * w / (double)max_pixels);
        w_bar = fmax(f, floor(w / beta / f) * f);
        h_bar = fmax(f, floor(h / beta / f) * f);
    } else if (w_bar * h_bar < (double)min_pixels) {
        double beta = sqrt((double)min_pixels / (h * w));
        w_bar = ceil(w * beta / f) * f;
        h_bar = ceil(h * beta / f) * f;
    }
    *out_width = (int)w_bar;
    *out_height = (int)h_bar;
    return OC_OK;
}

/* Rules may come from another process: nothing below may overflow or divide by zero, whatever they say. */
static enum oc_err check_rules(const struct oc_picture_rules *r, struct oc_errinfo *ei) {
    bool shape = r->patch >= 1 && r->patch <= OC_LIMIT_PATCH_EDGE && r->merge >= 1 && r->merge <= OC_LIMIT_PATCH_MERGE &&
                 r->temporal >= 1 && r->temporal <= OC_LIMIT_PATCH_FRAMES;
    bool bounds = r->min_pixels >= 1 && r->max_pixels >= r->min_pixels && r->max_tokens >= 1 && r->max_tokens <= OC_LIMIT_CTX_TOKENS;
    bool filter = (int)r->resample >= OC_RESAMPLE_LANCZOS && (int)r->resample <= OC_RESAMPLE_BICUBIC;
    bool values = values_ok(r);
    if (r->kind == OC_MODELS_PICTURES_GRID && shape && bounds && filter && values) return OC_OK;
    const char *what = r->kind != OC_MODELS_PICTURES_GRID ? "kind" : !shape ? "patch sizes" : !bounds ? "bounds" : !filter ? "filter" : "values";
    return oc_fail(ei, OC_ERR_FORMAT, "picture rules that contradict themselves: their %s", what);
}

/* The pixel bounds of one picture: the model's, the request's inside nothing but the engine's own cap. */
static void pixel_bounds(const struct oc_picture_rules *r, const struct oc_picture_limits *lim, int max_tokens, int64_t *min,
                         int64_t *max) {
    int64_t edge = (int64_t)r->patch * r->merge, cap = edge * edge * max_tokens;
    *min = lim && lim->min_pixels > 0 ? lim->min_pixels : r->min_pixels;
    *max = lim && lim->max_pixels > 0 ? lim->max_pixels : r->max_pixels;
    if (*max > cap) *max = cap;
    if (*min > *max) *min = *max;
}

enum oc_err oc_picture_rules_plan(const struct oc_picture_rules *rules, int width, int height, const struct oc_picture_limits *lim,
                                  int max_tokens, struct oc_picture_plan *plan, struct oc_errinfo *ei) {
    const struct oc_picture_rules *r = rules;
    if (r->kind == OC_MODELS_PICTURES_NONE)
        return oc_fail(ei, OC_ERR_UNSUPPORTED, "this model reads text only, it cannot look at pictures");
    OC_TRY(check_rules(r, ei));
    int most = max_tokens > 0 && max_tokens < r->max_tokens ? max_tokens : r->max_tokens;
    int64_t min_pixels, max_pixels;
    pixel_bounds(r, lim, most, &min_pixels, &max_pixels);
    *plan = (struct oc_picture_plan){
        .resample = r->resample, .rescale = r->rescale, .patch = r->patch, .merge = r->merge, .temporal = r->temporal, .grid_t = 1};
    for (int i = 0; i < 3; i++) plan->mean[i] = r->mean[i], plan->std[i] = r->std[i];
    OC_TRY(oc_models_pictures_smart_resize(width, height, r->patch * r->merge, min_pixels, max_pixels, &plan->width,
                                           &plan->height, ei));
    plan->grid_h = plan->height / r->patch;
    plan->grid_w = plan->width / r->patch;
    plan->n_patches = plan->grid_h * plan->grid_w;
    plan->patch_dim = 3 * r->temporal * r->patch * r->patch;
    plan->n_tokens = plan->n_patches / (r->merge * r->merge);
    if (plan->n_tokens <= most) return OC_OK;
    return oc_fail(ei, OC_ERR_LIMIT, "a picture of %dx%d pixels needs %d tokens, %d are allowed: see --image-max-tokens", width, height,
                   plan->n_tokens, most);
}
