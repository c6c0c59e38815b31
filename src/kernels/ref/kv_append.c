/* Reference KV append: f32 rows into pages of f32 or bf16. */
#include "kernels/ref/ref.h"

static void store(uint8_t *out, enum oc_dtype t, const float *in, int n) {
    if (t == OC_F32) {
        memcpy(out, in, (size_t)n * 4);
        return;
    }
    OC_ASSERT(t == OC_BF16);
    for (int i = 0; i < n; i++) {
        uint16_t h = oc_f32_to_bf16(in[i]);
        memcpy(out + 2 * i, &h, sizeof h);
    }
}

static void work(void *arg, int thread, int n_threads) {
    const struct oc_kv_append *a = arg;
    const struct oc_kv_layer *kv = &a->kv;
    size_t head_bytes = (size_t)kv->hd * oc_dtype_bytes(kv->dtype);
    long lo, hi;
    oc_pool_split((long)a->m, 1, thread, n_threads, &lo, &hi);
    for (int64_t i = lo; i < hi; i++) {
        int32_t slot = a->rows[i].slot;
        size_t page = (size_t)a->rows[i].pages[slot / kv->page_tokens] * kv->page_stride_bytes;
        for (int h = 0; h < kv->n_kv_heads; h++) {
            size_t at = page + (size_t)(h * kv->page_tokens + slot % kv->page_tokens) * head_bytes;
            store(kv->k + at, kv->dtype, a->k + i * a->ldk + (int64_t)h * kv->hd, kv->hd);
            store(kv->v + at, kv->dtype, a->v + i * a->ldv + (int64_t)h * kv->hd, kv->hd);
        }
    }
}

void oc_ref_kv_append(const struct oc_kctx *ctx, const struct oc_kv_append *a) {
    oc_run_sized(ctx, a->m * a->kv.n_kv_heads * a->kv.hd, work, (void *)(uintptr_t)a);
}
