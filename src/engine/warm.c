/* The first work of an engine on a device of its own, at load: a device brings its kernels in, lays weights out anew and takes
 * memory for that when something is first used, and the first request should not wait for it. On the CPU nothing is done. */
#include <stdlib.h>

#include "engine/engine.h"

/* A whole chunk, then a token, then two: the prompt's kernels, and those of decoding. Sessions and pages are as before. */
static enum oc_err warm_text(struct oc_engine *e, struct oc_errinfo *ei) {
    int n = e->info.ctx_tokens - 3 < OC_ENGINE_CHUNK_ROWS ? e->info.ctx_tokens - 3 : OC_ENGINE_CHUNK_ROWS;
    int32_t tokens[OC_ENGINE_CHUNK_ROWS] = {0};
    struct oc_session *s;
    if (n < 1) return OC_OK;
    for (int i = 0; i < n; i++) tokens[i] = e->info.image_token == 0; /* any that stands for itself */
    OC_TRY(oc_session_open(e, n + 3, &s, ei));
    enum oc_err err = oc_session_prefill(s, &(struct oc_prompt){.tokens = tokens, .n_tokens = n}, NULL, NULL, ei);
    if (err == OC_OK) err = oc_session_decode(s, tokens[0], ei);
    if (err == OC_OK) err = oc_session_decode_several(s, tokens, 2, ei);
    oc_session_close(s);
    return err;
}

/* A grey picture, as large as there is room for up to 448 x 448 pixels. */
static enum oc_err warm_picture(struct oc_engine *e, struct oc_errinfo *ei) {
    struct oc_picture_plan plan;
    if (!e->model->has_vision || oc_engine_plan_picture(e, 448, 448, NULL, &plan, ei) != OC_OK) return OC_OK;
    float *patches = calloc((size_t)plan.n_patches * (size_t)plan.patch_dim, sizeof *patches);
    float *out = calloc((size_t)plan.n_tokens * (size_t)e->info.dim, sizeof *out);
    enum oc_err err = patches && out ? oc_engine_encode_picture(e, &plan, patches, out, ei)
                                     : oc_fail(ei, OC_ERR_NOMEM, "out of memory for a picture of %d patches", plan.n_patches);
    free(patches);
    free(out);
    return err;
}

enum oc_err oc_engine_warm_up(struct oc_engine *e, struct oc_errinfo *ei) {
    if (e->dev->is_host) return OC_OK;
    OC_TRY(warm_text(e, ei));
    OC_TRY(warm_picture(e, ei));
    e->dev->wait(e->dev);
    return OC_OK;
}
