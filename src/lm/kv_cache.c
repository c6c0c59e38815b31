#include "lm/kv_cache.h"

#include <stdlib.h>

static size_t page_bytes(int n_kv_heads, int hd, enum oc_dtype dtype) {
    return (size_t)n_kv_heads * OC_LM_PAGE_TOKENS * (size_t)hd * oc_dtype_bytes(dtype);
}

size_t oc_lm_kv_cache_bytes(int n_layers, int n_kv_heads, int hd, enum oc_dtype dtype, int n_pages) {
    return page_bytes(n_kv_heads, hd, dtype) * 2 * (size_t)n_layers * (size_t)n_pages;
}

static bool take_memory(struct oc_lm_kv_cache *c, struct oc_errinfo *ei) {
    void *mem = NULL;
    if (!c->dev) return true;
    if (c->dev->alloc(c->dev, c->mem_bytes, &mem, ei) != OC_OK) return false;
    c->mem = mem;
    return true;
}

enum oc_err oc_lm_kv_cache_open(struct oc_lm_kv_cache *c, struct oc_device *dev, int n_layers, int n_kv_heads, int hd,
                                enum oc_dtype dtype, int n_pages, struct oc_errinfo *ei) {
    struct oc_errinfo why = {.msg = ""};
    *c = (struct oc_lm_kv_cache){.dev = dev, .n_layers = n_layers, .n_kv_heads = n_kv_heads, .hd = hd, .dtype = dtype};
    c->page_bytes = page_bytes(n_kv_heads, hd, dtype);
    c->mem_bytes = oc_lm_kv_cache_bytes(n_layers, n_kv_heads, hd, dtype, n_pages);
    c->free_pages = malloc((size_t)n_pages * sizeof *c->free_pages);
    c->n_holders = calloc((size_t)n_pages, sizeof *c->n_holders);
    if (!c->free_pages || !c->n_holders || !take_memory(c, &why)) {
        size_t want = c->mem_bytes;
        oc_lm_kv_cache_close(c);
        return oc_fail(ei, OC_ERR_NOMEM, "the KV cache needs %zu MiB: ask for a shorter context with --ctx%s%.200s", want >> 20,
                       why.msg[0] ? ": " : "", why.msg);
    }
    c->n_pages = c->n_free = n_pages;
    for (int i = 0; i < n_pages; i++) c->free_pages[i] = n_pages - 1 - i;
    return OC_OK;
}

void oc_lm_kv_cache_close(struct oc_lm_kv_cache *c) {
    if (c->dev) c->dev->free(c->dev, c->mem, c->mem_bytes);
    free(c->free_pages);
    free(c->n_holders);
    *c = (struct oc_lm_kv_cache){0};
}

uint64_t oc_lm_kv_cache_bytes_per_token(const struct oc_lm_kv_cache *c) {
    return (uint64_t)c->page_bytes * 2 * (uint64_t)c->n_layers / OC_LM_PAGE_TOKENS;
}

bool oc_lm_kv_cache_take(struct oc_lm_kv_cache *c, int32_t *pages, int n) {
    if (n > c->n_free) return false;
    for (int i = 0; i < n; i++) {
        pages[i] = c->free_pages[--c->n_free];
        c->n_holders[pages[i]] = 1;
    }
    return true;
}

void oc_lm_kv_cache_hold(struct oc_lm_kv_cache *c, int32_t page) {
    OC_ASSERT(c->n_holders[page] > 0);
    c->n_holders[page]++;
}

void oc_lm_kv_cache_give(struct oc_lm_kv_cache *c, const int32_t *pages, int n) {
    for (int i = n - 1; i >= 0; i--) {
        OC_ASSERT(c->n_holders[pages[i]] > 0);
        if (--c->n_holders[pages[i]] == 0) c->free_pages[c->n_free++] = pages[i];
    }
}

struct oc_kv_layer oc_lm_kv_cache_layer(const struct oc_lm_kv_cache *c, int layer) {
    size_t half = c->page_bytes * (size_t)c->n_pages;
    uint8_t *k = c->mem + 2 * half * (size_t)layer;
    return (struct oc_kv_layer){
        .k = k,
        .v = k + half,
        .page_stride_bytes = c->page_bytes,
        .dtype = c->dtype,
        .n_kv_heads = c->n_kv_heads,
        .hd = c->hd,
        .page_tokens = OC_LM_PAGE_TOKENS,
    };
}
