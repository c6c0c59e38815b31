/* engine/prefix_cache.h - KV pages of prompts kept for prompts that begin alike.
 *
 * A full page that prefill wrote is entered under the digest of everything its KV depends on: the key of the page before
 * it, its tokens, the pictures it covers, and the asker's salt at the root of the chain. The cache holds a page as a
 * session does; one that no session holds any more is idle, and idle pages are evicted, the longest unused first, when
 * pages are needed. Owned by a scheduler, used from the engine's thread. */
#ifndef OC_ENGINE_PREFIX_CACHE_H
#define OC_ENGINE_PREFIX_CACHE_H

#include "base/digest.h"
#include "lm/kv_cache.h"

struct oc_engine_prefix_key {
    uint8_t bytes[OC_DIGEST_BYTES];
};

/* The part of a picture that stands in a page: rows from .. to-1 of its embedding. */
struct oc_engine_prefix_part {
    uint8_t digest[OC_DIGEST_BYTES];
    int32_t grid_t, grid_h, grid_w, from, to;
};

struct oc_engine_prefix_entry { /* of one page */
    struct oc_engine_prefix_key key;
    int32_t next;         /* in its bucket; -1 ends */
    int32_t older, newer; /* among idle pages; -1 ends */
    bool is_entered, is_idle;
};

struct oc_engine_prefix_cache {
    struct oc_lm_kv_cache *kv;
    struct oc_engine_prefix_entry *entries; /* [kv->n_pages]; NULL when the cache is off */
    int32_t *buckets;
    uint32_t bucket_mask;
    int32_t oldest, newest;
    int n_idle;
    uint64_t n_evictions;
};

/* Off: every other call is still allowed and keeps nothing. Errors: OC_ERR_NOMEM. */
OC_MUST_CHECK enum oc_err oc_engine_prefix_cache_open(struct oc_engine_prefix_cache *c, struct oc_lm_kv_cache *kv, bool on,
                                                      struct oc_errinfo *ei);

/* Gives back all pages; none may be held by a session. */
void oc_engine_prefix_cache_close(struct oc_engine_prefix_cache *c);

/* The key before a prompt's first page. */
void oc_engine_prefix_cache_root(const uint8_t *salt, size_t n_bytes, struct oc_engine_prefix_key *out);

/* The key of a page of OC_LM_PAGE_TOKENS tokens behind the page of `before`. */
void oc_engine_prefix_cache_key(const struct oc_engine_prefix_key *before, const int32_t *tokens,
                                const struct oc_engine_prefix_part *parts, int n_parts, struct oc_engine_prefix_key *out);

/* The page under a key, or -1. */
int32_t oc_engine_prefix_cache_find(const struct oc_engine_prefix_cache *c, const struct oc_engine_prefix_key *key);

/* A session becomes a holder of a page that find gave. */
void oc_engine_prefix_cache_hold(struct oc_engine_prefix_cache *c, int32_t page);

/* Enters a page that a session holds and nobody will write again; nothing happens when the key is taken. */
void oc_engine_prefix_cache_enter(struct oc_engine_prefix_cache *c, const struct oc_engine_prefix_key *key, int32_t page);

/* A session gives up pages, entered or not; the last of them becomes idle first, so that chains lose their ends. */
void oc_engine_prefix_cache_give(struct oc_engine_prefix_cache *c, const int32_t *pages, int n);

/* Evicts idle pages until n pages are free, or none is idle. */
void oc_engine_prefix_cache_evict(struct oc_engine_prefix_cache *c, int n);

#endif
