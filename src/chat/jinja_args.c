#include "chat/jinja.h"

static int spec_index(const char *spec, struct oc_str name) {
    for (int i = 0; *spec; i++) {
        size_t n = strcspn(spec, ",");
        if (oc_str_eq((struct oc_str){spec, n}, name)) return i;
        spec += n + (spec[n] == ',');
    }
    return -1;
}

static size_t spec_count(const char *spec) {
    size_t n = *spec != '\0';
    for (; *spec; spec++) n += *spec == ',';
    return n;
}

bool jinja_bind(struct jctx *cx, const char *who, const struct jargs *args, const char *spec,
                const struct jval **out) {
    size_t n = spec_count(spec);
    for (size_t i = 0; i < n; i++) out[i] = i < args->n_pos ? &args->pos[i] : NULL;
    if (args->n_pos > n) {
        jinja_fail(cx, OC_ERR_FORMAT, "'%s' takes at most %zu arguments and got %zu", who, n, args->n_pos);
        return false;
    }
    for (size_t i = 0; i < args->n_kw; i++) {
        const struct jval *key = &args->kw[i].key;
        int k = spec_index(spec, (struct oc_str){key->p, key->n});
        if (k < 0 || out[k]) {
            jinja_fail(cx, OC_ERR_FORMAT, "'%s' takes no argument '%.*s' here", who,
                       (int)(key->n < 60 ? key->n : 60), key->p);
            return false;
        }
        out[k] = &args->kw[i].value;
    }
    return !cx->err;
}

bool jinja_arg_bool(const struct jval *v, bool fallback) {
    return v ? jinja_truth(*v) : fallback;
}

bool jinja_arg_int(struct jctx *cx, const char *who, const struct jval *v, int64_t fallback, int64_t *out) {
    *out = fallback;
    if (!v || v->type == JV_NONE) return true;
    if (v->type == JV_INT || v->type == JV_BOOL) {
        *out = v->type == JV_INT ? v->i : v->flag;
        return true;
    }
    jinja_fail(cx, OC_ERR_FORMAT, "'%s' wants an integer and got a %s", who, jinja_type_name(*v));
    return false;
}

bool jinja_arg_str(struct jctx *cx, const char *who, const struct jval *v, struct jval fallback,
                   struct jval *out) {
    *out = v ? *v : fallback;
    if (out->type == JV_STR) return true;
    jinja_fail(cx, OC_ERR_FORMAT, "'%s' wants a string and got a %s", who, jinja_type_name(*out));
    return false;
}
