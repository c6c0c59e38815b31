#include "cli/models.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/limits.h"
#include "hub/cache.h"

const char *oc_cli_models_executable_dir(struct oc_arena *a) {
    char path[OC_LIMIT_PATH_BYTES];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path);
    if (n <= 0 || n == (ssize_t)sizeof path) return NULL;
    while (n > 1 && path[n - 1] != '/') n--;
    return oc_arena_strndup(a, path, (size_t)n - (n > 1));
}

/* root/name when that is a directory, else NULL. */
static char *dir_in(struct oc_arena *a, const char *root, const char *name) {
    char *dir = root && *root ? oc_path_join(a, root, name) : NULL;
    if (!dir || !oc_file_is_dir(dir)) return NULL;
    char *real = realpath(dir, NULL); /* without the ".." */
    char *copy = real ? oc_arena_strndup(a, real, strlen(real)) : dir;
    free(real);
    return copy;
}

/* A model that came with ocellus; NULL when there is none of that name. */
static const char *find_shipped(struct oc_arena *a, const char *name, const char *models_env) {
    if (models_env && *models_env) return dir_in(a, models_env, name);
    const char *exe = oc_cli_models_executable_dir(a);
    if (!exe) return NULL;
    const char *dir = dir_in(a, oc_path_join(a, exe, "../../models"), name);
    return dir ? dir : dir_in(a, oc_path_join(a, exe, "../share/ocellus/models"), name);
}

enum oc_err oc_cli_models_find(struct oc_arena *a, const char *name, const char **dir, const char **shown,
                               struct oc_errinfo *ei) {
    const char *models_env = getenv("OCELLUS_MODELS");
    bool set = models_env && *models_env;
    *shown = name ? name : OC_CLI_DEFAULT_MODEL;
    if (!name || (!strchr(name, '/') && !oc_file_is_dir(name) && !oc_file_exists(name))) {
        *dir = find_shipped(a, *shown, models_env);
        if (*dir) return OC_OK;
        const char *where = set ? models_env : "the models/ folder beside the program";
        if (!name)
            return oc_fail(ei, OC_ERR_NOT_FOUND,
                           "the embedded model %s is not in %s: name a model with -m, or set "
                           "OCELLUS_MODELS to the folder that holds it",
                           *shown, where);
        return oc_fail(ei, OC_ERR_NOT_FOUND,
                       "there is no model '%s': not a directory, not in %s, and not of the form "
                       "org/name",
                       name, where);
    }
    struct oc_hub_env env = {.hf_hub_cache = getenv("HF_HUB_CACHE"),
                             .hf_home = getenv("HF_HOME"),
                             .xdg_cache_home = getenv("XDG_CACHE_HOME"),
                             .home = getenv("HOME")};
    return oc_hub_cache_find(a, &env, name, dir, ei);
}
