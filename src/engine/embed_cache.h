/* engine/embed_cache.h - embeddings of pictures: those that running jobs hold, and those kept for reuse.
 *
 * Jobs that ask about the same picture (digest, grid and salt) share one embedding, be it ready or not. One that nobody
 * holds is idle: it stays while all idle ones fit their bound, the longest unused goes first. Owned by a scheduler,
 * used from the engine's thread. */
#ifndef OC_ENGINE_EMBED_CACHE_H
#define OC_ENGINE_EMBED_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/digest.h"
#include "base/err.h"

#define OC_ENGINE_EMBED_BUCKETS 1024
#define OC_ENGINE_SALT_BYTES 16

struct oc_engine_embed_key {
    uint8_t digest[OC_DIGEST_BYTES]; /* all zero: shared with nobody, never kept */
    uint8_t salt[OC_ENGINE_SALT_BYTES];
    int32_t grid_t, grid_h, grid_w;
};

struct oc_engine_embedding {
    struct oc_engine_embed_key key;
    bool is_ready; /* rows are the encoder's */
    int n_holders, n_tokens;
    size_t n_bytes;
    float *rows; /* [n_tokens, dim] */
    struct oc_engine_embedding *next;           /* in its bucket */
    struct oc_engine_embedding *older, *newer;  /* among the idle */
};

struct oc_engine_embed_cache {
    struct oc_engine_embedding *buckets[OC_ENGINE_EMBED_BUCKETS];
    struct oc_engine_embedding *oldest, *newest;
    size_t held_bytes, idle_bytes, max_idle_bytes;
    uint64_t n_evictions;
};

void oc_engine_embed_cache_init(struct oc_engine_embed_cache *c, size_t max_idle_bytes);

/* Frees everything; nothing may be held. */
void oc_engine_embed_cache_close(struct oc_engine_embed_cache *c);

/* The embedding under a key, or NULL. */
struct oc_engine_embedding *oc_engine_embed_cache_find(const struct oc_engine_embed_cache *c,
                                                       const struct oc_engine_embed_key *key);

/* One holder more of the embedding under the key, made if there is none. Errors: OC_ERR_NOMEM. */
OC_MUST_CHECK enum oc_err oc_engine_embed_cache_hold(struct oc_engine_embed_cache *c, const struct oc_engine_embed_key *key,
                                                     int n_tokens, int dim, struct oc_engine_embedding **out,
                                                     struct oc_errinfo *ei);

/* One holder less; what is not ready then, or has no digest, is freed. */
void oc_engine_embed_cache_give(struct oc_engine_embed_cache *c, struct oc_engine_embedding *e);

#endif
