#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/convert.h"
#include "weights/checkpoint.h"

#define NAME_BYTES 512

static bool is_float(enum oc_dtype t) {
    return t == OC_F32 || t == OC_F16 || t == OC_BF16;
}

static enum oc_err missing(const struct oc_checkpoint *ck, const char *name, struct oc_errinfo *ei) {
    return oc_fail(ei, OC_ERR_NOT_FOUND, "%.250s: tensor %.150s is missing", oc_weights_dir(ck), name);
}

static enum oc_err bad_dtype(const struct oc_tensor_view *t, const char *want, struct oc_errinfo *ei) {
    return oc_fail(ei, OC_ERR_UNSUPPORTED, "%.200s: tensor %.120s is %s; ocellus reads %s here", t->path,
                   t->name, t->dtype_name, want);
}

/* Holds the shape against [d0] or, with n_dims 2, [d0, d1]; why stands in the message ("" or " (...)"). */
static enum oc_err check_shape(const struct oc_tensor_view *t, int n_dims, int64_t d0, int64_t d1,
                               const char *why, struct oc_errinfo *ei) {
    int64_t want[2] = {d0, d1};
    if (t->n_dims == n_dims && t->shape[0] == d0 && (n_dims == 1 || t->shape[1] == d1)) return OC_OK;
    char got_text[128], want_text[128];
    return oc_fail(ei, OC_ERR_FORMAT, "%.150s: tensor %.120s has shape %.60s, the config asks for %.60s%s",
                   t->path, t->name, oc_weights_shape_str(t->shape, t->n_dims, got_text),
                   oc_weights_shape_str(want, n_dims, want_text), why);
}

/* "prefix" "suffix" looked up; *name_out (NAME_BYTES) keeps the name for messages. */
static const struct oc_tensor_view *find_part(const struct oc_checkpoint *ck, const char *prefix,
                                              const char *suffix, char *name_out) {
    int n = snprintf(name_out, NAME_BYTES, "%s%s", prefix, suffix);
    return n < NAME_BYTES ? oc_weights_find(ck, name_out) : NULL;
}

enum oc_err oc_weights_vector(struct oc_checkpoint *ck, const char *name, int64_t n, const float **out,
                              struct oc_errinfo *ei) {
    *out = NULL;
    const struct oc_tensor_view *t = oc_weights_find(ck, name);
    if (!t) return missing(ck, name, ei);
    if (!is_float(t->dtype)) return bad_dtype(t, "F32, F16 and BF16", ei);
    OC_TRY(check_shape(t, 1, n, 0, "", ei));
    float *v = oc_arena_array(oc_weights_arena(ck), (size_t)n, sizeof *v);
    if (!v) return oc_fail(ei, OC_ERR_NOMEM, "%.200s: out of memory for tensor %.120s", t->path, t->name);
    for (int64_t i = 0; i < n; i++) {
        v[i] = oc_load_float(t->data, t->dtype, i);
        if (!isfinite(v[i]))
            return oc_fail(ei, OC_ERR_FORMAT, "%.200s: tensor %.120s holds a NaN or infinity at %lld",
                           t->path, t->name, (long long)i);
    }
    *out = v;
    return OC_OK;
}

static enum oc_err take_bias(struct oc_checkpoint *ck, const char *prefix, enum oc_bias bias,
                             struct oc_weight *out, struct oc_errinfo *ei) {
    char name[NAME_BYTES];
    if (bias == OC_BIAS_NONE) return OC_OK;
    const struct oc_tensor_view *t = find_part(ck, prefix, ".bias", name);
    if (!t) return bias == OC_BIAS_REQUIRED ? missing(ck, name, ei) : OC_OK;
    return oc_weights_vector(ck, name, out->n, &out->bias, ei);
}

static enum oc_err take_plain(const struct oc_tensor_view *t, struct oc_weight *out, struct oc_errinfo *ei) {
    if (!is_float(t->dtype)) return bad_dtype(t, "F32, F16, BF16 or MLX-quantised U32 with .scales", ei);
    OC_TRY(check_shape(t, 2, out->n, out->k, "", ei));
    out->dtype = t->dtype;
    out->w = t->data;
    return OC_OK;
}

static enum oc_err take_quantised(const struct oc_checkpoint *ck, const char *prefix,
                                  const struct oc_tensor_view *w, const struct oc_tensor_view *scales,
                                  struct oc_weight *out, struct oc_errinfo *ei) {
    char name[NAME_BYTES], why[64];
    const struct oc_tensor_view *biases = find_part(ck, prefix, ".biases", name);
    if (!biases) return missing(ck, name, ei);
    struct oc_quant_rule rule = oc_weights_quant_rule(oc_weights_quant(ck), prefix);
    if (rule.bits == 0)
        return oc_fail(ei, OC_ERR_FORMAT,
                       "%.200s: tensor %.120s is there, but config.json says %.120s is not quantised",
                       scales->path, scales->name, prefix);
    if (out->k % rule.group != 0)
        return oc_fail(ei, OC_ERR_UNSUPPORTED,
                       "%.200s: %.120s has %lld inputs, no multiple of its group of %d", w->path, prefix,
                       (long long)out->k, rule.group);
    snprintf(why, sizeof why, " at %d bits in groups of %d", rule.bits, rule.group);
    if (w->dtype != OC_U32) return bad_dtype(w, "U32", ei);
    OC_TRY(check_shape(w, 2, out->n, out->k * rule.bits / 32, why, ei));
    OC_TRY(check_shape(scales, 2, out->n, out->k / rule.group, why, ei));
    OC_TRY(check_shape(biases, 2, out->n, out->k / rule.group, why, ei));
    if (!is_float(scales->dtype)) return bad_dtype(scales, "F32, F16 and BF16", ei);
    if (biases->dtype != scales->dtype) return bad_dtype(biases, "the dtype of .scales", ei);
    out->dtype = scales->dtype;
    out->bits = rule.bits;
    out->group = rule.group;
    out->w = w->data;
    out->scales = scales->data;
    out->zero_biases = biases->data;
    return OC_OK;
}

enum oc_err oc_weights_linear(struct oc_checkpoint *ck, const char *prefix, int64_t n, int64_t k,
                              enum oc_bias bias, struct oc_weight *out, struct oc_errinfo *ei) {
    char name[NAME_BYTES], scales_name[NAME_BYTES];
    OC_ASSERT(n > 0 && k > 0 && n < INT32_MAX && k < INT32_MAX);
    *out = (struct oc_weight){.n = n, .k = k};
    const struct oc_tensor_view *w = find_part(ck, prefix, ".weight", name);
    if (!w) return missing(ck, name, ei);
    const struct oc_tensor_view *scales = find_part(ck, prefix, ".scales", scales_name);
    if (scales)
        OC_TRY(take_quantised(ck, prefix, w, scales, out, ei));
    else
        OC_TRY(take_plain(w, out, ei));
    return take_bias(ck, prefix, bias, out, ei);
}

/* True if t is [n, a, b, c, d], or without the t axis (index skip) when that axis is 1. */
static bool conv_fits(const struct oc_tensor_view *t, const int64_t want[5], int skip) {
    int64_t short_want[4];
    int n = 0;
    for (int i = 0; i < 5; i++)
        if (i != skip) short_want[n++] = want[i];
    if (t->n_dims == 5) return memcmp(t->shape, want, 5 * sizeof *want) == 0;
    return t->n_dims == 4 && want[skip] == 1 && memcmp(t->shape, short_want, sizeof short_want) == 0;
}

/* Copies rows of [t, h, w, ch] into rows of [ch, t, h, w]; a position is one of t*h*w. */
static uint8_t *permute_channels_first(struct oc_arena *a, const uint8_t *src, struct oc_conv_shape s,
                                       size_t elem) {
    size_t ch = (size_t)s.ch, n_pos = (size_t)(s.t * s.h * s.w);
    uint8_t *dst = oc_arena_array(a, (size_t)s.n * ch * n_pos, elem);
    if (!dst) return NULL;
    for (size_t row = 0; row < (size_t)s.n; row++)
        for (size_t c = 0; c < ch; c++)
            for (size_t i = 0; i < n_pos; i++)
                memcpy(dst + ((row * ch + c) * n_pos + i) * elem, src + ((row * n_pos + i) * ch + c) * elem,
                       elem);
    return dst;
}

enum oc_err oc_weights_conv(struct oc_checkpoint *ck, const char *prefix, struct oc_conv_shape s,
                            enum oc_bias bias, struct oc_weight *out, struct oc_errinfo *ei) {
    char name[NAME_BYTES], scales_name[NAME_BYTES], got[128], want[128];
    const int64_t first[5] = {s.n, s.ch, s.t, s.h, s.w}, last[5] = {s.n, s.t, s.h, s.w, s.ch};
    OC_ASSERT(s.n > 0 && s.ch > 0 && s.t > 0 && s.h > 0 && s.w > 0);
    OC_ASSERT(s.ch <= 4096 && s.t <= 4096 && s.h <= 4096 && s.w <= 4096); /* so that k does not overflow */
    *out = (struct oc_weight){.n = s.n, .k = s.ch * s.t * s.h * s.w};
    const struct oc_tensor_view *t = find_part(ck, prefix, ".weight", name);
    if (!t) return missing(ck, name, ei);
    if (find_part(ck, prefix, ".scales", scales_name) || !is_float(t->dtype))
        return bad_dtype(t, "F32, F16 and BF16, not quantised,", ei);
    bool fits_first = conv_fits(t, first, 2), fits_last = conv_fits(t, last, 1);
    out->dtype = t->dtype;
    out->w = t->data;
    if (fits_last && (!fits_first || s.channels_last)) {
        out->w = permute_channels_first(oc_weights_arena(ck), t->data, s, t->dtype == OC_F32 ? 4 : 2);
        if (!out->w)
            return oc_fail(ei, OC_ERR_NOMEM, "%.200s: out of memory for tensor %.120s", t->path, t->name);
    } else if (!fits_first && !(t->n_dims == 2 && t->shape[0] == s.n && t->shape[1] == out->k)) {
        return oc_fail(ei, OC_ERR_FORMAT, "%.150s: tensor %.120s has shape %.60s, the config asks for %.60s",
                       t->path, t->name, oc_weights_shape_str(t->shape, t->n_dims, got),
                       oc_weights_shape_str(first, 5, want));
    }
    return take_bias(ck, prefix, bias, out, ei);
}

/* Logical parameters of a U32 matrix from the columns of its scales, 0 if it is no quantised weight. */
static uint64_t quantised_params(const struct oc_checkpoint *ck, const struct oc_tensor_view *t, int *bits) {
    char prefix[NAME_BYTES], name[NAME_BYTES];
    size_t n = strlen(t->name);
    if (t->dtype != OC_U32 || t->n_dims != 2 || n < 8 || n >= NAME_BYTES ||
        strcmp(t->name + n - 7, ".weight") != 0)
        return 0;
    memcpy(prefix, t->name, n - 7);
    prefix[n - 7] = '\0';
    struct oc_quant_rule rule = oc_weights_quant_rule(oc_weights_quant(ck), prefix);
    if (rule.bits == 0 || !find_part(ck, prefix, ".scales", name)) return 0;
    *bits = rule.bits;
    return t->n_bytes * 8 / rule.bits;
}

/* Scales and biases of a quantised matrix belong to it and are no parameters of their own. */
static bool is_quant_part(const struct oc_checkpoint *ck, const struct oc_tensor_view *t) {
    char name[NAME_BYTES];
    size_t n = strlen(t->name), cut = 0;
    if (n > 7 && strcmp(t->name + n - 7, ".scales") == 0) cut = 7;
    if (n > 7 && strcmp(t->name + n - 7, ".biases") == 0) cut = 7;
    if (!cut || n >= NAME_BYTES) return false;
    memcpy(name, t->name, n - cut);
    memcpy(name + n - cut, ".weight", 8);
    const struct oc_tensor_view *w = oc_weights_find(ck, name);
    return w && w->dtype == OC_U32;
}

static uint64_t n_elements(const struct oc_tensor_view *t) {
    uint64_t n = 1;
    for (int i = 0; i < t->n_dims; i++) n *= (uint64_t)t->shape[i];
    return n;
}

void oc_weights_summarise(const struct oc_checkpoint *ck, struct oc_weights_summary *out) {
    *out = (struct oc_weights_summary){.n_tensors = oc_weights_n_tensors(ck)};
    const char *last_path = NULL;
    for (size_t i = 0; i < out->n_tensors; i++) {
        const struct oc_tensor_view *t = oc_weights_tensor_at(ck, i);
        if (t->path != last_path) out->n_files++;
        last_path = t->path;
        out->n_bytes += t->n_bytes;
        if (is_quant_part(ck, t)) continue;
        int bits = 0;
        uint64_t n = quantised_params(ck, t, &bits);
        if (bits == 4)
            out->n_q4 += n;
        else if (bits == 8)
            out->n_q8 += n;
        else if (t->dtype == OC_F32)
            out->n_f32 += n_elements(t);
        else if (t->dtype == OC_F16)
            out->n_f16 += n_elements(t);
        else if (t->dtype == OC_BF16)
            out->n_bf16 += n_elements(t);
        else
            out->n_other += n_elements(t);
    }
    out->n_params = out->n_f32 + out->n_f16 + out->n_bf16 + out->n_q4 + out->n_q8 + out->n_other;
}
