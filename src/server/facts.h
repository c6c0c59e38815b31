/* server/facts.h - what the files of a model say before it is loaded, and which ids a client may name.
 *
 * Reads config.json; a model's kind is found there, never in its name. Blocking: on the crew's threads. */
#ifndef OC_SERVER_FACTS_H
#define OC_SERVER_FACTS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/str.h"
#include "hub/cache.h"
#include "server/config.h"

struct oc_server_facts {
    const char *dir;          /* in the arena */
    const char *architecture; /* config.json's first; "" when it names none */
    bool vision;
    int ctx_tokens;  /* what the model was made for, 0: not said */
    int64_t created; /* unix seconds: config.json's age */
};

/* Finds the model called `name` (a directory, or org/name in the cache) and reads its config.json. Errors:
 * those of oc_hub_cache_find and oc_json_load; OC_ERR_NOT_FOUND without config.json. */
OC_MUST_CHECK enum oc_err oc_server_facts_read(struct oc_arena *a, const struct oc_hub_env *hub,
                                               const char *name, struct oc_server_facts *out,
                                               struct oc_errinfo *ei);

/* True for `org/name` of plain ASCII, as a client may ask for it; *why says what is wrong otherwise. */
bool oc_server_facts_id_ok(struct oc_str id, const char **why);

/* True when the list is empty or one of its patterns (org/name, or with a `*` at the end) matches. */
bool oc_server_facts_allowed(const struct oc_server_list *patterns, const char *id);

/* What the part of a path after its last '/' is, with slashes at the end left out: the id of a directory. */
struct oc_str oc_server_facts_base_name(const char *path);

/* Takes the folders out of the paths in a sentence for a client: "/a/b/c.json: broken" becomes "c.json:
 * broken". */
void oc_server_facts_hide_paths(char *text);

#endif
