#include "engine/embed_cache.h"

#include <stdlib.h>
#include <string.h>

void oc_engine_embed_cache_init(struct oc_engine_embed_cache *c, size_t max_idle_bytes) {
    *c = (struct oc_engine_embed_cache){.max_idle_bytes = max_idle_bytes};
}

static bool has_digest(const struct oc_engine_embed_key *key) {
    static const uint8_t none[OC_DIGEST_BYTES] = {0};
    return memcmp(key->digest, none, sizeof none) != 0;
}

static struct oc_engine_embedding **bucket_of(struct oc_engine_embed_cache *c, const struct oc_engine_embed_key *key) {
    uint32_t h;
    memcpy(&h, key->digest, sizeof h);
    return &c->buckets[h % OC_ENGINE_EMBED_BUCKETS];
}

struct oc_engine_embedding *oc_engine_embed_cache_find(const struct oc_engine_embed_cache *c,
                                                       const struct oc_engine_embed_key *key) {
    if (!has_digest(key)) return NULL;
    uint32_t h;
    memcpy(&h, key->digest, sizeof h);
    struct oc_engine_embedding *e = c->buckets[h % OC_ENGINE_EMBED_BUCKETS];
    while (e && memcmp(&e->key, key, sizeof *key) != 0) e = e->next;
    return e;
}

/* ---- Idle ones -------------------------------------------------------------------------------------------- */

static void become_idle(struct oc_engine_embed_cache *c, struct oc_engine_embedding *e) {
    e->older = c->newest;
    e->newer = NULL;
    if (c->newest) c->newest->newer = e;
    else c->oldest = e;
    c->newest = e;
    c->idle_bytes += e->n_bytes;
}

static void leave_idle(struct oc_engine_embed_cache *c, struct oc_engine_embedding *e) {
    if (e->older) e->older->newer = e->newer;
    else c->oldest = e->newer;
    if (e->newer) e->newer->older = e->older;
    else c->newest = e->older;
    e->older = e->newer = NULL;
    c->idle_bytes -= e->n_bytes;
}

static void destroy(struct oc_engine_embed_cache *c, struct oc_engine_embedding *e) {
    struct oc_engine_embedding **at = bucket_of(c, &e->key);
    while (*at != e) at = &(*at)->next;
    *at = e->next;
    free(e->rows);
    free(e);
}

static struct oc_engine_embedding *make(struct oc_engine_embed_cache *c, const struct oc_engine_embed_key *key, int n_tokens,
                                        int dim) {
    struct oc_engine_embedding *e = calloc(1, sizeof *e);
    if (!e) return NULL;
    *e = (struct oc_engine_embedding){.key = *key, .n_tokens = n_tokens};
    e->n_bytes = (size_t)n_tokens * (size_t)dim * sizeof(float);
    e->rows = malloc(e->n_bytes);
    if (!e->rows) {
        free(e);
        return NULL;
    }
    struct oc_engine_embedding **bucket = bucket_of(c, key);
    e->next = *bucket;
    *bucket = e;
    return e;
}

enum oc_err oc_engine_embed_cache_hold(struct oc_engine_embed_cache *c, const struct oc_engine_embed_key *key, int n_tokens,
                                       int dim, struct oc_engine_embedding **out, struct oc_errinfo *ei) {
    struct oc_engine_embedding *e = *out = oc_engine_embed_cache_find(c, key);
    if (!e) e = make(c, key, n_tokens, dim);
    else if (e->n_holders == 0) leave_idle(c, e);
    if (!e) return oc_fail(ei, OC_ERR_NOMEM, "out of memory for the embedding of a picture of %d tokens", n_tokens);
    OC_ASSERT(e->n_tokens == n_tokens);
    if (e->n_holders++ == 0) c->held_bytes += e->n_bytes;
    *out = e;
    return OC_OK;
}

void oc_engine_embed_cache_give(struct oc_engine_embed_cache *c, struct oc_engine_embedding *e) {
    OC_ASSERT(e->n_holders > 0);
    if (--e->n_holders > 0) return;
    c->held_bytes -= e->n_bytes;
    if (!e->is_ready || !has_digest(&e->key) || e->n_bytes > c->max_idle_bytes) {
        destroy(c, e);
        return;
    }
    become_idle(c, e);
    while (c->idle_bytes > c->max_idle_bytes) {
        struct oc_engine_embedding *last = c->oldest;
        leave_idle(c, last);
        destroy(c, last);
        c->n_evictions++;
    }
}

void oc_engine_embed_cache_close(struct oc_engine_embed_cache *c) {
    OC_ASSERT(c->held_bytes == 0);
    while (c->oldest) {
        struct oc_engine_embedding *e = c->oldest;
        leave_idle(c, e);
        destroy(c, e);
    }
}
