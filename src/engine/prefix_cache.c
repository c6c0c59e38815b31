#include "engine/prefix_cache.h"

#include <stdlib.h>
#include <string.h>

enum oc_err oc_engine_prefix_cache_open(struct oc_engine_prefix_cache *c, struct oc_lm_kv_cache *kv, bool on,
                                        struct oc_errinfo *ei) {
    *c = (struct oc_engine_prefix_cache){.kv = kv, .oldest = -1, .newest = -1};
    if (!on) return OC_OK;
    uint32_t n_buckets = 1;
    while (n_buckets < (uint32_t)kv->n_pages) n_buckets *= 2;
    c->bucket_mask = n_buckets - 1;
    c->entries = calloc((size_t)kv->n_pages, sizeof *c->entries);
    c->buckets = malloc(n_buckets * sizeof *c->buckets);
    if (!c->entries || !c->buckets) {
        free(c->entries);
        free(c->buckets);
        return oc_fail(ei, OC_ERR_NOMEM, "out of memory for a prefix cache of %d pages", kv->n_pages);
    }
    for (uint32_t i = 0; i < n_buckets; i++) c->buckets[i] = -1;
    return OC_OK;
}

void oc_engine_prefix_cache_close(struct oc_engine_prefix_cache *c) {
    if (c->kv) oc_engine_prefix_cache_evict(c, c->kv->n_pages);
    free(c->entries);
    free(c->buckets);
    *c = (struct oc_engine_prefix_cache){0};
}

void oc_engine_prefix_cache_root(const uint8_t *salt, size_t n_bytes, struct oc_engine_prefix_key *out) {
    const struct oc_digest_piece piece = {salt, n_bytes};
    oc_digest(&piece, 1, out->bytes);
}

void oc_engine_prefix_cache_key(const struct oc_engine_prefix_key *before, const int32_t *tokens,
                                const struct oc_engine_prefix_part *parts, int n_parts, struct oc_engine_prefix_key *out) {
    const struct oc_digest_piece pieces[] = {
        {before->bytes, sizeof before->bytes},
        {tokens, OC_LM_PAGE_TOKENS * sizeof *tokens},
        {parts, (size_t)n_parts * sizeof *parts},
    };
    oc_digest(pieces, 3, out->bytes);
}

static int32_t *bucket_of(const struct oc_engine_prefix_cache *c, const struct oc_engine_prefix_key *key) {
    uint32_t h;
    memcpy(&h, key->bytes, sizeof h);
    return &c->buckets[h & c->bucket_mask];
}

int32_t oc_engine_prefix_cache_find(const struct oc_engine_prefix_cache *c, const struct oc_engine_prefix_key *key) {
    if (!c->entries) return -1;
    int32_t page = *bucket_of(c, key);
    while (page >= 0 && memcmp(c->entries[page].key.bytes, key->bytes, sizeof key->bytes) != 0) page = c->entries[page].next;
    return page;
}

/* ---- Idle pages ------------------------------------------------------------------------------------------- */

static void become_idle(struct oc_engine_prefix_cache *c, int32_t page) {
    struct oc_engine_prefix_entry *e = &c->entries[page];
    e->is_idle = true;
    e->older = c->newest;
    e->newer = -1;
    if (c->newest >= 0) c->entries[c->newest].newer = page;
    else c->oldest = page;
    c->newest = page;
    c->n_idle++;
}

static void leave_idle(struct oc_engine_prefix_cache *c, int32_t page) {
    struct oc_engine_prefix_entry *e = &c->entries[page];
    e->is_idle = false;
    if (e->older >= 0) c->entries[e->older].newer = e->newer;
    else c->oldest = e->newer;
    if (e->newer >= 0) c->entries[e->newer].older = e->older;
    else c->newest = e->older;
    c->n_idle--;
}

void oc_engine_prefix_cache_hold(struct oc_engine_prefix_cache *c, int32_t page) {
    OC_ASSERT(c->entries && c->entries[page].is_entered);
    if (c->entries[page].is_idle) leave_idle(c, page);
    oc_lm_kv_cache_hold(c->kv, page);
}

void oc_engine_prefix_cache_enter(struct oc_engine_prefix_cache *c, const struct oc_engine_prefix_key *key, int32_t page) {
    if (!c->entries || c->entries[page].is_entered || oc_engine_prefix_cache_find(c, key) >= 0) return;
    int32_t *bucket = bucket_of(c, key);
    c->entries[page] = (struct oc_engine_prefix_entry){.key = *key, .next = *bucket, .older = -1, .newer = -1, .is_entered = true};
    *bucket = page;
    oc_lm_kv_cache_hold(c->kv, page);
}

void oc_engine_prefix_cache_give(struct oc_engine_prefix_cache *c, const int32_t *pages, int n) {
    for (int i = n - 1; i >= 0; i--) {
        bool last = c->entries && c->entries[pages[i]].is_entered && c->kv->n_holders[pages[i]] == 2;
        oc_lm_kv_cache_give(c->kv, &pages[i], 1);
        if (last) become_idle(c, pages[i]);
    }
}

static void remove_entry(struct oc_engine_prefix_cache *c, int32_t page) {
    int32_t *at = bucket_of(c, &c->entries[page].key);
    while (*at != page) at = &c->entries[*at].next;
    *at = c->entries[page].next;
    c->entries[page].is_entered = false;
}

void oc_engine_prefix_cache_evict(struct oc_engine_prefix_cache *c, int n) {
    while (c->kv->n_free < n && c->n_idle > 0) {
        int32_t page = c->oldest;
        leave_idle(c, page);
        remove_entry(c, page);
        oc_lm_kv_cache_give(c->kv, &page, 1);
        c->n_evictions++;
    }
}
