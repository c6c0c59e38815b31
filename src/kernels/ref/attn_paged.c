/* Reference causal attention over the paged KV cache: one (row, head) at a time, blocks of keys from slot 0. */
#include "kernels/ref/ref.h"

/* Gathers slots first .. first+n-1 of KV head `head` as f32 rows of hd. */
static void gather(const struct oc_kv_layer *kv, const uint8_t *base, const int32_t *pages, int head,
                   int first, int n, float *out) {
    size_t head_bytes = (size_t)kv->hd * oc_dtype_bytes(kv->dtype);
    for (int j = 0; j < n; j++) {
        int slot = first + j;
        size_t at = (size_t)pages[slot / kv->page_tokens] * kv->page_stride_bytes +
                    (size_t)(head * kv->page_tokens + slot % kv->page_tokens) * head_bytes;
        oc_ref_widen(base + at, kv->dtype, kv->hd, out + (int64_t)j * kv->hd);
    }
}

static void attend(const struct oc_attn_paged *a, int64_t i, int h) {
    const struct oc_kv_layer *kv = &a->kv;
    const struct oc_kv_row *row = &a->rows[i];
    int head = h / (a->n_heads / kv->n_kv_heads);
    int64_t at = (int64_t)h * kv->hd;
    float k[OC_REF_KEYS * OC_MAX_HD], v[OC_REF_KEYS * OC_MAX_HD];
    struct oc_ref_softmax s;
    oc_ref_softmax_start(&s, kv->hd);
    for (int first = 0; first <= row->slot; first += OC_REF_KEYS) {
        int n = row->slot + 1 - first < OC_REF_KEYS ? row->slot + 1 - first : OC_REF_KEYS;
        gather(kv, kv->k, row->pages, head, first, n, k);
        gather(kv, kv->v, row->pages, head, first, n, v);
        oc_ref_softmax_add(&s, a->q + i * a->ldq + at, kv->hd, a->scale, k, v, kv->hd, kv->hd, n);
    }
    oc_ref_softmax_finish(&s, kv->hd, a->y + i * a->ldy + at);
}

static void work(void *arg, int thread, int n_threads) {
    const struct oc_attn_paged *a = arg;
    long lo, hi;
    oc_pool_split((long)(a->m * a->n_heads), 1, thread, n_threads, &lo, &hi);
    for (int64_t u = lo; u < hi; u++) attend(a, u / a->n_heads, (int)(u % a->n_heads));
}

void oc_ref_attn_paged(const struct oc_kctx *ctx, const struct oc_attn_paged *a) {
    oc_pool_run(ctx->pool, work, (void *)(uintptr_t)a);
}
