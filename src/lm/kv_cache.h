/* lm/kv_cache.h - paged keys and values of all layers.
 *
 * Owned by the engine, used from its thread. Pages are handed out whole to sessions and counted: one that several hold is
 * read by all and written by none. Memory is reserved once in the device's memory; on the CPU the system gives physical pages as
 * they are first written. Page layout is that of struct oc_kv_layer. */
#ifndef OC_LM_KV_CACHE_H
#define OC_LM_KV_CACHE_H

#include "base/err.h"
#include "kernels/device.h"

#define OC_LM_PAGE_TOKENS 16

struct oc_lm_kv_cache {
    struct oc_device *dev;
    uint8_t *mem; /* the device's */
    size_t mem_bytes;
    int n_layers, n_kv_heads, hd;
    enum oc_dtype dtype; /* F32 or BF16 */
    size_t page_bytes;   /* of K (or V) of one layer */
    int n_pages, n_free;
    int32_t *free_pages; /* stack of n_free page numbers */
    int32_t *n_holders;  /* [n_pages]; 0: free */
};

/* Without `dev` the pages are counted but have no memory, for who only asks what they would take. Errors: OC_ERR_NOMEM with
 * the figure. */
OC_MUST_CHECK enum oc_err oc_lm_kv_cache_open(struct oc_lm_kv_cache *c, struct oc_device *dev, int n_layers, int n_kv_heads, int hd,
                                              enum oc_dtype dtype, int n_pages, struct oc_errinfo *ei);
void oc_lm_kv_cache_close(struct oc_lm_kv_cache *c);

/* Bytes of n_pages pages. */
size_t oc_lm_kv_cache_bytes(int n_layers, int n_kv_heads, int hd, enum oc_dtype dtype, int n_pages);

/* Bytes of K and V of all layers for one token. */
uint64_t oc_lm_kv_cache_bytes_per_token(const struct oc_lm_kv_cache *c);

/* Takes n pages into pages[0..n), each with one holder; false (and nothing taken) when fewer are free. */
bool oc_lm_kv_cache_take(struct oc_lm_kv_cache *c, int32_t *pages, int n);

/* One holder more of a page that is not free. */
void oc_lm_kv_cache_hold(struct oc_lm_kv_cache *c, int32_t page);

/* One holder less of each; a page without a holder is free. */
void oc_lm_kv_cache_give(struct oc_lm_kv_cache *c, const int32_t *pages, int n);

/* The view of one layer that attention ops take. */
struct oc_kv_layer oc_lm_kv_cache_layer(const struct oc_lm_kv_cache *c, int layer);

#endif
