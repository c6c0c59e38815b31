#include "server/facts.h"

#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"

#define MAX_ID 200

static int context_of(const struct oc_json *config) {
    int64_t n = oc_json_int_or(oc_json_get(config, "max_position_embeddings"), 0);
    if (!n) n = oc_json_int_or(oc_json_path(config, "text_config", "max_position_embeddings", NULL), 0);
    return n > 0 && n <= OC_LIMIT_CTX_TOKENS ? (int)n : 0;
}

static const char *architecture_of(const struct oc_json *config) {
    const struct oc_json *v = oc_json_get(config, "architectures");
    return v && v->type == OC_JSON_ARR && v->n_items && v->items[0].type == OC_JSON_STR ? v->items[0].str.p
                                                                                        : "";
}

enum oc_err oc_server_facts_read(struct oc_arena *a, const struct oc_hub_env *hub, const char *name,
                                 struct oc_server_facts *out, struct oc_errinfo *ei) {
    struct oc_json config;
    struct stat st;
    *out = (struct oc_server_facts){.architecture = ""};
    OC_TRY(oc_hub_cache_find(a, hub, name, &out->dir, ei));
    const char *path = oc_path_join(a, out->dir, "config.json");
    if (!path) return oc_fail(ei, OC_ERR_NOMEM, "no memory for a path");
    if (!oc_file_exists(path))
        return oc_fail(ei, OC_ERR_NOT_FOUND,
                       "%.200s has no config.json: it is not the directory of a model, or only "
                       "a part of it was downloaded",
                       name);
    OC_TRY(oc_json_load(a, path, OC_LIMIT_CONFIG_BYTES, &config, ei));
    const struct oc_json *vision = oc_json_get(&config, "vision_config");
    out->vision = vision && vision->type == OC_JSON_OBJ;
    out->architecture = architecture_of(&config);
    out->ctx_tokens = context_of(&config);
    out->created = stat(path, &st) == 0 ? (int64_t)st.st_mtime : 0;
    return OC_OK;
}

static bool is_plain(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
}

bool oc_server_facts_id_ok(struct oc_str id, const char **why) {
    char name[MAX_ID + 1];
    size_t n_slashes = 0;
    *why = "it is empty";
    if (!id.n) return false;
    *why = "it is too long";
    if (id.n > MAX_ID) return false;
    for (size_t i = 0; i < id.n; i++) {
        n_slashes += id.p[i] == '/';
        *why = "it holds other characters than ASCII letters, digits, '-', '_', '.' and one '/'";
        if (id.p[i] != '/' && !is_plain(id.p[i])) return false;
    }
    *why = "it does not have the form organization/model-name";
    if (n_slashes != 1) return false;
    memcpy(name, id.p, id.n);
    name[id.n] = 0;
    return oc_hub_name_is_valid(name);
}

static bool matches(const char *pattern, const char *id) {
    size_t n = strlen(pattern);
    if (n && pattern[n - 1] == '*') return strncmp(pattern, id, n - 1) == 0;
    return strcmp(pattern, id) == 0;
}

bool oc_server_facts_allowed(const struct oc_server_list *patterns, const char *id) {
    for (int i = 0; i < patterns->n; i++)
        if (matches(patterns->items[i], id)) return true;
    return patterns->n == 0;
}

struct oc_str oc_server_facts_base_name(const char *path) {
    struct oc_str s = oc_str_from(path);
    while (s.n > 1 && s.p[s.n - 1] == '/') s.n--;
    for (size_t i = s.n; i; i--)
        if (s.p[i - 1] == '/' && i < s.n) return (struct oc_str){s.p + i, s.n - i};
    return s;
}

static bool ends_path(char c) {
    return c == 0 || c == ' ' || c == ':' || c == ',' || c == ';' || c == '\'' || c == '"' || c == ')' ||
           c == '\n';
}

void oc_server_facts_hide_paths(char *text) {
    char *to = text;
    for (const char *from = text; *from;) {
        bool begins = *from == '/' && (from == text || ends_path(from[-1]) || from[-1] == '(');
        size_t n = 0, last = 0;
        while (begins && !ends_path(from[n])) {
            if (from[n] == '/') last = n + 1;
            n++;
        }
        from += n > 1 ? last : 0;
        for (n = n > 1 ? n - last : 1; n; n--) *to++ = *from++;
    }
    *to = 0;
}
