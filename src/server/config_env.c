/* The environment: OCELLUS_* for every flag, and what the variables of the server that this one follows mean
 * here. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "server/config_impl.h"

const char *oc_config_getenv(const struct oc_config_world *w, const char *name) {
    size_t n = strlen(name);
    for (int i = 0; w->environ[i]; i++)
        if (strncmp(w->environ[i], name, n) == 0 && w->environ[i][n] == '=' && w->environ[i][n + 1])
            return w->environ[i] + n + 1;
    return NULL;
}

/* ---- MLX_* and VISION_* -------------------------------------------------------------------------------- */

enum how { SET, SET_IF_1, LOG_DIR, QUEUE_ENABLED, REJECT_THRESHOLD, NOTE, SILENT };

static const struct old {
    const char *name;
    enum how how;
    const char *key, *remark;
} olds[] = {
#define OLD(variable, how, key, remark) {variable, how, key, remark},
#include "server/config.def"
};
#define N_OLDS ((int)(sizeof olds / sizeof olds[0]))

static void read_threshold(struct oc_config_reader *r, const struct old *o, const char *value) {
    long long v;
    char rest;
    if (sscanf(value, "%9lld%c", &v, &rest) == 1 && v >= 0) {
        r->reject_threshold = v;
        return;
    }
    char text[96];
    oc_config_fault(r, OC_ERR_USAGE, "%s: it cannot be '%s', it must be a whole number", o->name,
                    oc_config_quote(oc_str_from(value), text));
}

static void read_old(struct oc_config_reader *r, const struct old *o, const char *value) {
    int key = o->key ? oc_config_find_key(oc_str_from(o->key)) : -1;
    OC_ASSERT(key >= 0 || !o->key);
    bool is_1 = strcmp(value, "1") == 0;
    char path[4200];
    switch (o->how) {
    case SET:
        oc_config_set(r, key, oc_str_from(value), OC_CONFIG_OLD, o->name);
        return;
    case SET_IF_1:
        oc_config_set(r, key, is_1 ? OC_STR("true") : OC_STR("false"), OC_CONFIG_OLD, o->name);
        return;
    case LOG_DIR:
        snprintf(path, sizeof path, "%s/ocellus.log", value);
        oc_config_set(r, key, oc_str_from(path), OC_CONFIG_OLD, o->name);
        return;
    case QUEUE_ENABLED: /* listed before MLX_QUEUE_MAX_DEPTH, but stronger */
        if (!is_1) oc_config_set(r, key, OC_STR("0"), OC_CONFIG_OLD, o->name);
        return;
    case REJECT_THRESHOLD:
        read_threshold(r, o, value);
        return;
    case NOTE:
        oc_config_note(r, "%s has no meaning here: %s", o->name, o->remark);
        return;
    case SILENT:
        return;
    }
}

static const struct old *find_old(struct oc_str name) {
    for (int i = 0; i < N_OLDS; i++)
        if (oc_str_is(name, olds[i].name)) return &olds[i];
    return NULL;
}

static struct oc_str name_of(const char *variable) {
    return (struct oc_str){variable, strcspn(variable, "=")};
}

void oc_config_read_old_env(struct oc_config_reader *r) {
    const char *enabled = oc_config_getenv(r->world, "MLX_QUEUE_ENABLED");
    bool no_queue = enabled && strcmp(enabled, "1") != 0;
    for (int i = 0; i < N_OLDS; i++) {
        const char *value = oc_config_getenv(r->world, olds[i].name);
        if (!value || (no_queue && !strcmp(olds[i].name, "MLX_QUEUE_MAX_DEPTH"))) continue;
        read_old(r, &olds[i], value);
    }
    char text[96];
    for (int i = 0; r->world->environ[i]; i++) {
        struct oc_str name = name_of(r->world->environ[i]);
        if (oc_str_starts(name, OC_STR("MLX_")) && !find_old(name))
            oc_config_note(r, "%s has no meaning here", oc_config_quote(name, text));
    }
}

/* ---- OCELLUS_* ----------------------------------------------------------------------------------------- */

/* "QUEUE_DEPTH" as "queue-depth"; empty when it is too long for a flag. */
static struct oc_str as_flag(struct oc_str name, char *out, size_t cap) {
    if (name.n >= cap) return (struct oc_str){out, 0};
    for (size_t i = 0; i < name.n; i++)
        out[i] = name.p[i] == '_' ? '-' : (char)tolower((unsigned char)name.p[i]);
    return (struct oc_str){out, name.n};
}

static void set_from_env(struct oc_config_reader *r, int key, const char *where, const char *value) {
    if (oc_config_keys[key].kind != OC_CONFIG_LIST) {
        oc_config_set(r, key, oc_str_from(value), OC_CONFIG_ENV, where);
        return;
    }
    for (const char *p = value; *p;) { /* items are split by commas */
        size_t n = strcspn(p, ",");
        if (n) oc_config_set(r, key, (struct oc_str){p, n}, OC_CONFIG_ENV, where);
        p += n + (p[n] == ',');
    }
}

void oc_config_read_env(struct oc_config_reader *r) {
    static const char prefix[] = "OCELLUS_";
    for (int i = 0; r->world->environ[i]; i++) {
        struct oc_str name = name_of(r->world->environ[i]), rest;
        if (!oc_str_starts(name, oc_str_from(prefix))) continue;
        const char *value = name.p[name.n] ? name.p + name.n + 1 : "";
        if (oc_str_is(name, "OCELLUS_MODELS") || oc_str_is(name, "OCELLUS_CONFIG") || !*value) continue;
        char flag[64], where[96];
        rest = as_flag((struct oc_str){name.p + sizeof prefix - 1, name.n - (sizeof prefix - 1)}, flag,
                       sizeof flag);
        int key = oc_config_find_flag(rest);
        oc_config_quote(name, where);
        if (key >= 0)
            set_from_env(r, key, where, value);
        else
            oc_config_note(r, "%s is no setting of ocellus serve", where);
    }
}
