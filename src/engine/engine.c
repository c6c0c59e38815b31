#include "engine/engine.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/carve.h"
#include "base/clock.h"
#include "base/limits.h"

static int min_int(int a, int b) {
    return a < b ? a : b;
}

static enum oc_err choose_kv(struct oc_engine *e, const struct oc_engine_params *p, struct oc_errinfo *ei) {
    int ctx = e->info.ctx_tokens;
    if (p->kv_tokens < 0 || p->kv_tokens > OC_LIMIT_KV_TOKENS)
        return oc_fail(ei, OC_ERR_USAGE, "KV room for %d tokens: give 1 to %d", p->kv_tokens, OC_LIMIT_KV_TOKENS);
    if (p->kv_tokens && p->kv_tokens < ctx)
        return oc_fail(ei, OC_ERR_USAGE, "KV room for %d tokens is less than one sequence may have, %d: raise it, or lower the context", p->kv_tokens, ctx);
    e->info.kv_tokens = p->kv_tokens ? p->kv_tokens : ctx;
    return OC_OK;
}

static enum oc_err choose_sizes(struct oc_engine *e, const struct oc_engine_params *p, struct oc_errinfo *ei) {
    const struct oc_lm *lm = &e->model->lm;
    if (p->ctx_tokens < 0 || p->ctx_tokens > OC_LIMIT_CTX_TOKENS)
        return oc_fail(ei, OC_ERR_USAGE, "a context of %d tokens: give 1 to %d", p->ctx_tokens, OC_LIMIT_CTX_TOKENS);
    if (p->ctx_tokens > lm->max_tokens)
        return oc_fail(ei, OC_ERR_USAGE, "a context of %d tokens: this model was made for %d", p->ctx_tokens, lm->max_tokens);
    if (p->n_sessions < 0 || p->n_sessions > OC_ENGINE_MAX_SESSIONS)
        return oc_fail(ei, OC_ERR_USAGE, "%d sessions: give 1 to %d", p->n_sessions, OC_ENGINE_MAX_SESSIONS);
    int ctx = p->ctx_tokens ? p->ctx_tokens : min_int(lm->max_tokens, OC_ENGINE_DEFAULT_CTX);
    e->info.ctx_tokens = ctx;
    OC_TRY(choose_kv(e, p, ei));
    e->n_sessions = p->n_sessions ? p->n_sessions : 1;
    e->max_outputs = e->n_sessions + OC_ENGINE_DRAFT_ROWS;
    e->max_rows = OC_ENGINE_CHUNK_ROWS + e->max_outputs;
    if (!e->model->has_vision) return OC_OK;
    struct oc_picture_rules *r = &e->model->pictures;
    int64_t edge = (int64_t)r->patch * r->merge, rule = r->max_pixels / (edge * edge), quarter = ctx / 4;
    if (p->image_max_tokens < 0 || p->image_max_tokens > ctx)
        return oc_fail(ei, OC_ERR_USAGE, "%d tokens a picture: give 1 to %d, the context", p->image_max_tokens, ctx);
    int64_t most = p->image_max_tokens ? p->image_max_tokens : (rule < quarter ? rule : quarter);
    e->info.image_max_tokens = r->max_tokens = most > 0 ? (int)most : 1;
    return OC_OK;
}

static void widest(const struct oc_weight *w, int64_t *k, int64_t *n) {
    if (w->k > *k) *k = w->k;
    if (w->n > *n) *n = w->n;
}

static size_t scratch_bytes(const struct oc_engine *e, int n_threads) {
    const struct oc_lm *lm = &e->model->lm;
    const struct oc_vision *v = &e->model->vision;
    int64_t k = lm->inter, n = lm->n_vocab, m = e->max_rows;
    int hd = lm->hd;
    widest(&lm->layers[0].q, &k, &n);
    widest(&lm->layers[0].o, &k, &n);
    if (e->model->has_vision) {
        int64_t patches = (int64_t)e->info.image_max_tokens * v->merge * v->merge;
        if (patches > m) m = patches;
        widest(&v->patch_embed, &k, &n);
        widest(&v->blocks[0].qkv, &k, &n);
        widest(&v->blocks[0].down, &k, &n);
        widest(&v->merger_fc1, &k, &n);
        if (v->hd > hd) hd = v->hd;
    }
    return oc_ops_scratch_bytes(m, k, n, hd, n_threads);
}

/* Of the decoder, whole or split. */
static size_t workspace_bytes(const struct oc_engine *e, bool is_host) {
    const struct oc_lm *lm = &e->model->lm;
    size_t whole = oc_lm_decoder_workspace_bytes(lm, is_host, OC_ENGINE_CHUNK_ROWS + e->max_outputs, e->max_outputs);
    size_t split = oc_lm_decoder_workspace_bytes(lm, is_host, e->max_outputs, e->max_outputs) +
                   oc_lm_decoder_workspace_bytes(lm, is_host, OC_ENGINE_CHUNK_ROWS, e->n_sessions);
    return whole > split ? whole : split;
}

static int max_patches(const struct oc_engine *e) {
    const struct oc_vision *v = &e->model->vision;
    return e->info.image_max_tokens * v->merge * v->merge;
}

/* Carves workspaces out of the device's memory; with mem NULL only measures. Encoding and decoding take turns, but the
 * workspaces stay apart: a picture may be encoded between two steps of running sequences. */
static size_t lay_out(const struct oc_engine *e, bool is_host, uint8_t *mem, uint8_t **lm_ws, uint8_t **vision_ws) {
    size_t at = 0;
    *lm_ws = oc_carve(mem, &at, workspace_bytes(e, is_host));
    *vision_ws = NULL;
    if (e->model->has_vision)
        *vision_ws = oc_carve(mem, &at, oc_vision_encoder_workspace_bytes(&e->model->vision, is_host, max_patches(e)));
    return at;
}

/* The same for the host's memory; the scratch is the CPU's. */
static size_t lay_out_host(struct oc_engine *e, uint8_t *mem, uint8_t **lists) {
    size_t at = 0;
    const struct oc_lm *lm = &e->model->lm;
    bool is_host = e->dev->is_host;
    e->ctx.scratch_bytes = is_host ? scratch_bytes(e, oc_pool_n_threads(e->pool)) : 0;
    e->ctx.scratch = is_host ? oc_carve(mem, &at, e->ctx.scratch_bytes) : NULL;
    e->logits = oc_carve_floats(mem, &at, (int64_t)e->max_outputs * lm->n_vocab);
    e->lm_staging = oc_carve(mem, &at, oc_lm_decoder_staging_bytes(lm, is_host));
    *lists = NULL;
    if (e->model->has_vision)
        *lists = oc_carve(mem, &at, oc_vision_encoder_lists_bytes(&e->model->vision, max_patches(e)));
    return at;
}

static int n_kv_pages(const struct oc_engine *e) {
    return (e->info.kv_tokens + OC_LM_PAGE_TOKENS - 1) / OC_LM_PAGE_TOKENS + e->n_sessions - 1;
}

/* Brings all weights to the walk's device, or counts them. */
static enum oc_err walk_weights(struct oc_model *m, struct oc_device_walk *k, struct oc_errinfo *ei) {
    OC_TRY(oc_lm_decoder_take(&m->lm, k, ei));
    return m->has_vision ? oc_vision_encoder_take(&m->vision, k, ei) : OC_OK;
}

static uint64_t count_weights(struct oc_model *m) {
    struct oc_device_walk count = {.d = NULL};
    OC_ASSERT(walk_weights(m, &count, NULL) == OC_OK); /* counting asks nobody */
    return count.n_bytes;
}

uint64_t oc_engine_device_bytes(const struct oc_engine *e) {
    struct oc_model *m = e->model;
    uint8_t *lm_ws, *vision_ws;
    return count_weights(m) + lay_out(e, false, NULL, &lm_ws, &vision_ws) +
           oc_lm_kv_cache_bytes(m->lm.n_layers, m->lm.n_kv_heads, m->lm.hd, m->lm.kv_dtype, n_kv_pages(e));
}

/* Large pages where the system has them on request: kernels walk megabytes of this. A refusal costs speed alone. */
static void want_large_pages(void *mem, size_t n_bytes) {
    (void)madvise(mem, n_bytes, MADV_HUGEPAGE);
}

static enum oc_err take_working_memory(struct oc_engine *e, bool is_real, struct oc_errinfo *ei) {
    uint8_t *lm_ws, *vision_ws, *lists;
    void *mem = NULL;
    e->mem_bytes = lay_out(e, e->dev->is_host, NULL, &lm_ws, &vision_ws);
    e->host_mem_bytes = lay_out_host(e, NULL, &lists);
    if (is_real && e->dev->alloc(e->dev, e->mem_bytes, &mem, ei) != OC_OK)
        return oc_fail_prefix(ei, OC_ERR_NOMEM, "%zu MiB of working memory are not to be had: try a smaller --image-max-tokens", e->mem_bytes >> 20);
    e->mem = mem;
    e->host_mem = oc_device_host_alloc(e->host_mem_bytes);
    if (!e->host_mem) return oc_fail(ei, OC_ERR_NOMEM, "out of memory: %zu MiB are needed", e->host_mem_bytes >> 20);
    want_large_pages(e->host_mem, e->host_mem_bytes);
    if (e->dev->is_host) want_large_pages(e->mem, e->mem_bytes);
    lay_out(e, e->dev->is_host, e->mem, &e->lm_ws_mem, &vision_ws);
    lay_out_host(e, e->host_mem, &lists);
    oc_engine_workspace_join(e);
    if (e->model->has_vision)
        oc_vision_encoder_workspace_init(&e->vision_ws, &e->model->vision, e->dev->is_host, max_patches(e), vision_ws, lists);
    return OC_OK;
}

/* Who only asks takes none of a GPU's memory: another process may need it. */
static enum oc_err take_memory(struct oc_engine *e, bool only_asks, struct oc_errinfo *ei) {
    const struct oc_lm *lm = &e->model->lm;
    bool is_real = e->dev->is_host || !only_asks;
    OC_TRY(take_working_memory(e, is_real, ei));
    return oc_lm_kv_cache_open(&e->kv, is_real ? e->dev : NULL, lm->n_layers, lm->n_kv_heads, lm->hd, lm->kv_dtype, n_kv_pages(e), ei);
}

static enum oc_err take_arrays(struct oc_engine *e, struct oc_errinfo *ei) {
    struct oc_engine_step_arrays *s = &e->step;
    struct oc_arena *a = &e->arena;
    size_t n = (size_t)e->max_rows;
    oc_arena_init(a, OC_GIB);
    s->tokens = oc_arena_array(a, n, sizeof *s->tokens);
    s->outputs = oc_arena_array(a, n, sizeof *s->outputs);
    s->embeddings = oc_arena_array(a, n, sizeof *s->embeddings);
    s->pos = oc_arena_array(a, n, sizeof *s->pos);
    s->kv_rows = oc_arena_array(a, n, sizeof *s->kv_rows);
    s->order = oc_arena_array(a, n, sizeof *s->order);
    s->rows = oc_arena_array(a, n, sizeof *s->rows);
    e->sessions = oc_arena_array(a, (size_t)e->n_sessions, sizeof *e->sessions);
    if (s->tokens && s->outputs && s->embeddings && s->pos && s->kv_rows && s->order && s->rows && e->sessions) return OC_OK;
    return oc_fail(ei, OC_ERR_NOMEM, "out of memory for %d rows", e->max_rows);
}

static void fill_info(struct oc_engine *e) {
    struct oc_weights_summary sum;
    oc_weights_summarise(e->model->checkpoint, &sum);
    struct oc_engine_info *i = &e->info;
    i->architecture = e->model->architecture;
    i->family = e->model->family->name;
    i->device = e->device;
    i->device_name = e->dev->name;
    i->device_why = e->device_why;
    i->isa = e->dev->ops.isa;
    i->throughput = e->dev->ops.int8;
    i->n_threads = oc_pool_n_threads(e->pool);
    i->n_sessions = e->n_sessions;
    i->n_vocab = e->model->lm.n_vocab;
    i->dim = e->model->lm.dim;
    i->model_ctx_tokens = e->model->lm.max_tokens;
    i->has_vision = e->model->has_vision;
    i->image_token = e->model->image_token;
    i->n_params = sum.n_params;
    i->weight_bytes = sum.n_bytes;
    i->decode_weight_bytes = oc_lm_decoder_bytes_per_token(&e->model->lm);
    i->kv_bytes_per_token = oc_lm_kv_cache_bytes_per_token(&e->kv);
    i->workspace_bytes = e->mem_bytes + (e->dev->is_host ? e->host_mem_bytes : 0);
    i->host_bytes = e->dev->is_host ? 0 : e->host_mem_bytes;
    i->device_bytes = e->dev->is_host ? 0 : oc_engine_device_bytes(e);
    i->device_free_bytes = e->dev->free_bytes;
}

static bool report_progress(void *arg, uint64_t done, uint64_t total) {
    const struct oc_engine_params *p = arg;
    p->progress(p->progress_arg, total ? (double)done / (double)total : 1);
    return true;
}

struct taking {
    const struct oc_engine_params *p;
    uint64_t total_bytes;
};

static void report_taken(void *arg, uint64_t n_bytes) {
    const struct taking *t = arg;
    if (t->p->progress) report_progress((void *)t->p, n_bytes, t->total_bytes);
}

/* Weights go to a device as they are read: who waits for the files first would read them twice. */
static enum oc_err take_weights(struct oc_engine *e, const struct oc_engine_params *p, struct oc_errinfo *ei) {
    struct oc_model *m = e->model;
    if (p->skip_prefetch) return OC_OK;
    bool waits = e->dev->is_host && p->progress;
    OC_TRY(oc_weights_prefetch(m->checkpoint, waits ? report_progress : NULL, (void *)p, ei));
    if (e->dev->is_host) return OC_OK;
    struct taking t = {p, count_weights(m)};
    struct oc_device_walk k = {.d = e->dev, .progress = report_taken, .arg = &t};
    OC_TRY(walk_weights(m, &k, ei));
    e->dev->wait(e->dev);
    oc_weights_forget(m->checkpoint);
    return OC_OK;
}

static enum oc_err choose_device(struct oc_engine *e, const struct oc_engine_params *p, struct oc_errinfo *ei) {
    const char *mode = p->batch_mode ? p->batch_mode : "exact";
    bool throughput = strcmp(mode, "throughput") == 0;
    if (!throughput && strcmp(mode, "exact") != 0)
        return oc_fail(ei, OC_ERR_USAGE, "unknown batch mode \"%.100s\"; known: exact, throughput", mode);
    OC_TRY(oc_engine_device_open(e, p, throughput, ei));
    e->ctx.int8 = e->dev->ops.int8;
    e->ctx.device = e->dev->state;
    return OC_OK;
}

static enum oc_err open_all(struct oc_engine *e, const struct oc_engine_params *p, struct oc_errinfo *ei) {
    OC_TRY(oc_model_open(p->model_dir, &e->model, ei));
    OC_TRY(choose_sizes(e, p, ei));
    OC_TRY(choose_device(e, p, ei)); /* before threads start: see oc_cpu_features */
    OC_TRY(take_weights(e, p, ei));
    OC_TRY(oc_pool_open(p->n_threads, &e->pool, ei));
    e->ctx.pool = e->pool;
    OC_TRY(take_memory(e, p->skip_prefetch, ei));
    return take_arrays(e, ei);
}

enum oc_err oc_engine_open(const struct oc_engine_params *p, struct oc_engine **out, struct oc_errinfo *ei) {
    uint64_t start_ns = oc_clock_ns();
    *out = NULL;
    struct oc_engine *e = calloc(1, sizeof *e);
    if (!e) {
        if (p->opened) p->opened->close(p->opened);
        return oc_fail(ei, OC_ERR_NOMEM, "out of memory for an engine");
    }
    e->dev = p->opened;
    enum oc_err err = open_all(e, p, ei);
    if (err == OC_OK) {
        fill_info(e);
        if (!p->skip_prefetch) err = oc_engine_warm_up(e, ei);
    }
    if (err != OC_OK) {
        oc_engine_close(e);
        return err;
    }
    e->info.load_ms = oc_clock_ms_since(start_ns);
    *out = e;
    return OC_OK;
}

void oc_engine_workspace_split(struct oc_engine *e, struct oc_lm_workspace *prefill) {
    const struct oc_lm *lm = &e->model->lm;
    bool is_host = e->dev->is_host;
    e->max_rows = e->max_outputs;
    oc_lm_decoder_workspace_init(&e->lm_ws, lm, is_host, e->max_rows, e->max_outputs, e->lm_ws_mem, e->lm_staging);
    uint8_t *rest = e->lm_ws_mem + oc_lm_decoder_workspace_bytes(lm, is_host, e->max_rows, e->max_outputs);
    oc_lm_decoder_workspace_init(prefill, lm, is_host, OC_ENGINE_CHUNK_ROWS, e->n_sessions, rest, e->lm_staging);
}

void oc_engine_workspace_join(struct oc_engine *e) {
    e->max_rows = OC_ENGINE_CHUNK_ROWS + e->max_outputs;
    oc_lm_decoder_workspace_init(&e->lm_ws, &e->model->lm, e->dev->is_host, e->max_rows, e->max_outputs, e->lm_ws_mem, e->lm_staging);
}

void oc_engine_close(struct oc_engine *e) {
    if (!e) return;
    for (int i = 0; e->sessions && i < e->n_sessions; i++) OC_ASSERT(!e->sessions[i].engine);
    oc_lm_kv_cache_close(&e->kv);
    if (e->dev) e->dev->free(e->dev, e->mem, e->mem_bytes);
    oc_device_host_free(e->host_mem, e->host_mem_bytes);
    oc_pool_close(e->pool);
    if (e->dev) e->dev->close(e->dev);
    oc_model_close(e->model);
    oc_arena_free(&e->arena);
    free(e);
}

const struct oc_engine_info *oc_engine_info(const struct oc_engine *e) {
    return &e->info;
}

void oc_engine_picture_rules(const struct oc_engine *e, struct oc_picture_rules *out) {
    *out = e->model->pictures;
}

static enum oc_err need_vision(const struct oc_engine *e, struct oc_errinfo *ei) {
    if (e->model->has_vision) return OC_OK;
    return oc_fail(ei, OC_ERR_UNSUPPORTED, "this model (%s) reads text only, it cannot look at pictures", e->info.architecture);
}

enum oc_err oc_engine_plan_picture(const struct oc_engine *e, int width, int height, const struct oc_picture_limits *lim,
                                   struct oc_picture_plan *plan, struct oc_errinfo *ei) {
    OC_TRY(need_vision(e, ei));
    return oc_picture_rules_plan(&e->model->pictures, width, height, lim, 0, plan, ei);
}

enum oc_err oc_engine_encode_picture(struct oc_engine *e, const struct oc_picture_plan *plan, const float *patches,
                                     float *out, struct oc_errinfo *ei) {
    OC_TRY(need_vision(e, ei));
    if (plan->n_patches > e->vision_ws.max_patches)
        return oc_fail(ei, OC_ERR_LIMIT, "a picture of %d patches, room is for %d: see --image-max-tokens", plan->n_patches,
                       e->vision_ws.max_patches);
    const struct oc_vision_patches all = {.all = patches};
    oc_vision_encoder_forward(&e->model->vision, e->dev, &e->ctx, &e->vision_ws, &all, plan->grid_t, plan->grid_h,
                              plan->grid_w, out, e->vision_trace);
    return OC_OK;
}
