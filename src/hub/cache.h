/* hub/cache.h - from the name of a model to a directory on this machine.
 *
 * Called by cli/ before a model loads, from one thread. A name is a directory, or `org/name` as kept in the
 * Hugging Face cache: models--org--name/refs/main holds a commit, snapshots/<commit> the files. Nothing is
 * downloaded here. No environment is read here: cli/ passes the values in. */
#ifndef OC_HUB_CACHE_H
#define OC_HUB_CACHE_H

#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"

/* Values of environment variables, NULL (or "") where unset. */
struct oc_hub_env {
    const char *hf_hub_cache;   /* HF_HUB_CACHE: the cache itself */
    const char *hf_home;        /* HF_HOME: the cache is hub/ in it */
    const char *xdg_cache_home; /* XDG_CACHE_HOME: the cache is huggingface/hub/ in it */
    const char *home;           /* HOME: the cache is .cache/huggingface/hub/ in it */
};

/* The cache directory, whether it exists or not: the first of the four above that is set. Errors:
 * OC_ERR_NOT_FOUND (none is set), OC_ERR_NOMEM. */
OC_MUST_CHECK enum oc_err oc_hub_cache_dir(struct oc_arena *a, const struct oc_hub_env *env, const char **out,
                                           struct oc_errinfo *ei);

/* The directory of the model called `name`, in the arena. An existing directory wins over the cache. Errors:
 * OC_ERR_USAGE (a file, or neither a directory nor a well-formed org/name), OC_ERR_NOT_FOUND (not in the
 * cache: says where it looked and what to do), OC_ERR_FORMAT (a damaged cache entry), OC_ERR_NOMEM. */
OC_MUST_CHECK enum oc_err oc_hub_cache_find(struct oc_arena *a, const struct oc_hub_env *env,
                                            const char *name, const char **out, struct oc_errinfo *ei);

/* True for `org/name` of letters, digits, '-', '_' and '.', without "--", "..", or a '-' or '.' at either
 * end. */
bool oc_hub_name_is_valid(const char *name);

struct oc_hub_model {
    const char *name; /* org/name */
    const char *dir;  /* its snapshot */
    uint64_t n_bytes; /* of the snapshot's files */
};

/* The models of the cache that have a snapshot, by name, at most OC_LIMIT_HUB_MODELS of them; *n is 0 when
 * there is no cache. Errors: those of oc_hub_cache_dir, OC_ERR_IO, OC_ERR_NOMEM. */
OC_MUST_CHECK enum oc_err oc_hub_cache_list(struct oc_arena *a, const struct oc_hub_env *env,
                                            struct oc_hub_model **out, size_t *n, struct oc_errinfo *ei);

#endif
