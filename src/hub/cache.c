#include "hub/cache.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/limits.h"

#define MODEL_PREFIX "models--"

static enum oc_err no_memory(struct oc_errinfo *ei) {
    return oc_fail(ei, OC_ERR_NOMEM, "out of memory, or a path too long, while looking for models");
}

static bool is_set(const char *s) {
    return s && *s;
}

enum oc_err oc_hub_cache_dir(struct oc_arena *a, const struct oc_hub_env *env, const char **out,
                             struct oc_errinfo *ei) {
    if (is_set(env->hf_hub_cache))
        *out = oc_arena_strndup(a, env->hf_hub_cache, strlen(env->hf_hub_cache));
    else if (is_set(env->hf_home))
        *out = oc_path_join(a, env->hf_home, "hub");
    else if (is_set(env->xdg_cache_home))
        *out = oc_path_join(a, env->xdg_cache_home, "huggingface/hub");
    else if (is_set(env->home))
        *out = oc_path_join(a, env->home, ".cache/huggingface/hub");
    else
        return oc_fail(ei, OC_ERR_NOT_FOUND, "no model cache: neither HF_HUB_CACHE, HF_HOME nor HOME is set");
    return *out ? OC_OK : no_memory(ei);
}

/* One part of org/name. */
static bool part_is_valid(const char *p, size_t n) {
    if (n == 0 || n > 96 || strchr("-.", p[0]) || strchr("-.", p[n - 1])) return false;
    for (size_t i = 0; i < n; i++) {
        char c = p[i];
        bool alnum = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        if (!alnum && c != '-' && c != '_' && c != '.') return false;
        if (i && (c == '-' || c == '.') && p[i - 1] == c) return false;
    }
    return true;
}

bool oc_hub_name_is_valid(const char *name) {
    const char *slash = strchr(name, '/');
    return slash && part_is_valid(name, (size_t)(slash - name)) &&
           part_is_valid(slash + 1, strlen(slash + 1));
}

static bool commit_is_valid(const char *s) {
    size_t n = strlen(s);
    for (size_t i = 0; i < n; i++)
        if (!((s[i] >= '0' && s[i] <= '9') || (s[i] >= 'a' && s[i] <= 'f'))) return false;
    return n >= 7 && n <= 64;
}

/* The commit that refs/main names; *commit is NULL without such a file. */
static enum oc_err read_main(struct oc_arena *a, const char *repo, char **commit, struct oc_errinfo *ei) {
    struct oc_str text;
    *commit = NULL;
    char *path = oc_path_join(a, repo, "refs/main");
    if (!path) return no_memory(ei);
    if (!oc_file_exists(path)) return OC_OK;
    OC_TRY(oc_file_read(a, path, 256, &text, ei));
    while (text.n && strchr(" \n\r\t", text.p[text.n - 1])) text.n--;
    *commit = oc_arena_strndup(a, text.p, text.n);
    if (!*commit) return no_memory(ei);
    if (!commit_is_valid(*commit))
        return oc_fail(ei, OC_ERR_FORMAT,
                       "%.400s holds no commit: the cache is damaged, download the model again", path);
    return OC_OK;
}

/* Without refs/main (a model fetched by revision), the snapshot is clear only when there is just one. */
static char *only_snapshot(struct oc_arena *a, const char *snapshots) {
    DIR *d = opendir(snapshots);
    char *found = NULL;
    int n = 0;
    for (struct dirent *e; d && (e = readdir(d));) {
        if (e->d_name[0] == '.') continue;
        n++;
        found = oc_path_join(a, snapshots, e->d_name);
    }
    if (d) closedir(d);
    return n == 1 && found && oc_file_is_dir(found) ? found : NULL;
}

/* The snapshot directory of models--org--name at `repo`; *out is NULL when it has none. */
static enum oc_err find_snapshot(struct oc_arena *a, const char *repo, const char **out,
                                 struct oc_errinfo *ei) {
    char *commit, *snapshots = oc_path_join(a, repo, "snapshots");
    *out = NULL;
    if (!snapshots) return no_memory(ei);
    OC_TRY(read_main(a, repo, &commit, ei));
    char *dir = commit ? oc_path_join(a, snapshots, commit) : only_snapshot(a, snapshots);
    if (commit && !dir) return no_memory(ei);
    if (dir && oc_file_is_dir(dir)) *out = dir;
    return OC_OK;
}

static enum oc_err find_in_cache(struct oc_arena *a, const struct oc_hub_env *env, const char *name,
                                 const char **out, struct oc_errinfo *ei) {
    const char *cache, *slash = strchr(name, '/');
    OC_TRY(oc_hub_cache_dir(a, env, &cache, ei));
    char *folder = oc_arena_printf(a, MODEL_PREFIX "%.*s--%s", (int)(slash - name), name, slash + 1);
    char *repo = folder ? oc_path_join(a, cache, folder) : NULL;
    if (!repo) return no_memory(ei);
    OC_TRY(find_snapshot(a, repo, out, ei));
    if (*out) return OC_OK;
    return oc_fail(
        ei, OC_ERR_NOT_FOUND,
        "%s is neither a directory nor in the model cache %.250s: run `hf download %s`, or name a directory",
        name, cache, name);
}

enum oc_err oc_hub_cache_find(struct oc_arena *a, const struct oc_hub_env *env, const char *name,
                              const char **out, struct oc_errinfo *ei) {
    *out = NULL;
    if (oc_file_is_dir(name)) {
        *out = oc_arena_strndup(a, name, strlen(name));
        return *out ? OC_OK : no_memory(ei);
    }
    if (oc_file_exists(name))
        return oc_fail(ei, OC_ERR_USAGE, "%.400s is a file: name the directory of the model", name);
    if (!oc_hub_name_is_valid(name))
        return oc_fail(ei, OC_ERR_USAGE, "%.400s: no such directory (a model is a directory, or org/name)",
                       name);
    return find_in_cache(a, env, name, out, ei);
}

/* Sizes of the files of a snapshot (links lead to blobs), one level of folders deep. */
static uint64_t dir_bytes(struct oc_arena *a, const char *dir, int depth) {
    uint64_t total = 0;
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));) {
        struct stat st;
        char *path = e->d_name[0] == '.' ? NULL : oc_path_join(a, dir, e->d_name);
        if (!path || stat(path, &st) != 0) continue;
        if (S_ISREG(st.st_mode))
            total += (uint64_t)st.st_size;
        else if (S_ISDIR(st.st_mode) && depth > 0)
            total += dir_bytes(a, path, depth - 1);
    }
    if (d) closedir(d);
    return total;
}

/* "models--org--name" becomes "org/name"; NULL for anything else. A name holds no "--", so the split is
 * clear. */
static char *name_of_folder(struct oc_arena *a, const char *folder) {
    size_t n_prefix = sizeof MODEL_PREFIX - 1;
    if (strncmp(folder, MODEL_PREFIX, n_prefix) != 0) return NULL;
    const char *org = folder + n_prefix, *sep = strstr(org, "--");
    if (!sep) return NULL;
    char *name = oc_arena_printf(a, "%.*s/%s", (int)(sep - org), org, sep + 2);
    return name && oc_hub_name_is_valid(name) ? name : NULL;
}

static int by_name(const void *pa, const void *pb) {
    const struct oc_hub_model *a = pa, *b = pb;
    return strcmp(a->name, b->name);
}

/* Fills models (at most max) from the open cache directory. */
static size_t read_cache(struct oc_arena *a, DIR *d, const char *cache, struct oc_hub_model *models,
                         size_t max) {
    size_t n = 0;
    for (struct dirent *e; n < max && (e = readdir(d));) {
        struct oc_hub_model m = {.name = name_of_folder(a, e->d_name)};
        char *repo = m.name ? oc_path_join(a, cache, e->d_name) : NULL;
        if (!repo || find_snapshot(a, repo, &m.dir, NULL) != OC_OK || !m.dir) continue;
        m.n_bytes = dir_bytes(a, m.dir, 1);
        models[n++] = m;
    }
    return n;
}

enum oc_err oc_hub_cache_list(struct oc_arena *a, const struct oc_hub_env *env, struct oc_hub_model **out,
                              size_t *n, struct oc_errinfo *ei) {
    const char *cache;
    *out = NULL;
    *n = 0;
    OC_TRY(oc_hub_cache_dir(a, env, &cache, ei));
    DIR *d = opendir(cache);
    if (!d && (errno == ENOENT || errno == ENOTDIR)) return OC_OK;
    if (!d) return oc_fail(ei, OC_ERR_IO, "%.400s: cannot list: %s", cache, strerror(errno));
    *out = oc_arena_array(a, OC_LIMIT_HUB_MODELS, sizeof **out);
    if (*out) *n = read_cache(a, d, cache, *out, OC_LIMIT_HUB_MODELS);
    closedir(d);
    if (!*out) return no_memory(ei);
    qsort(*out, *n, sizeof **out, by_name);
    return OC_OK;
}
