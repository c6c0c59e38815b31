/* cli/models.h - where a model is, from what the user wrote.
 *
 * The one place, with the rest of cli/, that reads the environment: OCELLUS_MODELS, and for the Hugging Face
 * cache HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME and HOME. */
#ifndef OC_CLI_MODELS_H
#define OC_CLI_MODELS_H

#include "base/arena.h"
#include "base/err.h"

#define OC_CLI_DEFAULT_MODEL "ocellus-tiny-4bit"

/* The directory of a model: `name` is a directory, a model that came with ocellus, or org/name in the Hugging
 * Face cache; NULL is the embedded default. Models that came with ocellus are looked for in $OCELLUS_MODELS
 * when that is set, else in ../../models and ../share/ocellus/models seen from the executable. *shown is what
 * to call it (name, or the default's). Errors: OC_ERR_USAGE, OC_ERR_NOT_FOUND (says where it looked), those
 * of oc_hub_cache_find. */
OC_MUST_CHECK enum oc_err oc_cli_models_find(struct oc_arena *a, const char *name, const char **dir,
                                             const char **shown, struct oc_errinfo *ei);

/* The directory of the running executable, or NULL. */
const char *oc_cli_models_executable_dir(struct oc_arena *a);

#endif
