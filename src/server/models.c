#include "server/models.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/limits.h"

/* ---- The registry -------------------------------------------------------------------------------------- */

struct oc_server_model *oc_server_models_get(const struct oc_server_models *ms, struct oc_str id) {
    struct oc_server_model *m = ms->first;
    while (m && !oc_str_is(id, m->id)) m = m->next;
    return m;
}

/* Keeps the order of arrival: registered ones first. */
static void append(struct oc_server_models *ms, struct oc_server_model *m) {
    struct oc_server_model **end = &ms->first;
    while (*end) end = &(*end)->next;
    *end = m;
    ms->n++;
}

static enum oc_err register_model(struct oc_server_models *ms, const char *id, const char *name,
                                  struct oc_errinfo *ei) {
    struct oc_server_facts facts;
    struct oc_server_model *m;
    struct oc_arena a;
    if (oc_server_models_get(ms, oc_str_from(id)))
        return oc_fail(ei, OC_ERR_USAGE, "two models would both be called %.100s: name each once", id);
    oc_arena_init(&a, OC_LIMIT_JSON_BYTES);
    enum oc_err err = oc_server_facts_read(&a, &ms->s->config->hub_env, name, &facts, ei);
    if (!err) err = oc_server_model_make(ms->s, id, name, &facts, true, &m, ei);
    if (!err) append(ms, m);
    oc_arena_free(&a);
    return err;
}

/* A directory is called by its base name, org/name by itself. */
static enum oc_err register_named(struct oc_server_models *ms, const char *name, struct oc_errinfo *ei) {
    char id[256];
    const char *why;
    struct oc_str base = oc_server_facts_base_name(name);
    bool is_id = oc_server_facts_id_ok(oc_str_from(name), &why) && !oc_file_is_dir(name);
    if (!is_id) snprintf(id, sizeof id, "%.*s", (int)(base.n < 255 ? base.n : 255), base.p);
    return register_model(ms, is_id ? name : id, name, ei);
}

static bool is_embedded(const struct oc_server_setup *setup, const char *name) {
    return setup->embedded_name && !strcmp(name, setup->embedded_name);
}

static enum oc_err register_all(struct oc_server_models *ms, struct oc_errinfo *ei) {
    const struct oc_server_setup *setup = ms->s->setup;
    const struct oc_server_config *c = setup->config;
    for (int i = 0; i < c->models.n; i++) {
        const char *name = c->models.items[i];
        if (is_embedded(setup, name) && setup->embedded_dir && !oc_file_is_dir(name))
            continue; /* comes below */
        OC_TRY(register_named(ms, name, ei));
    }
    if (setup->embedded_dir && !oc_server_models_get(ms, oc_str_from(setup->embedded_name)))
        OC_TRY(register_model(ms, setup->embedded_name, setup->embedded_dir, ei));
    return OC_OK;
}

static enum oc_err choose_default(struct oc_server_models *ms, struct oc_errinfo *ei) {
    const struct oc_server_config *c = ms->s->config;
    if (c->default_model && *c->default_model) {
        ms->default_id = c->default_model;
        const char *why;
        if (oc_server_models_get(ms, oc_str_from(ms->default_id)) ||
            oc_server_facts_id_ok(oc_str_from(ms->default_id), &why))
            return OC_OK;
        return oc_fail(ei, OC_ERR_USAGE,
                       "the default model '%.100s' is neither one of the models nor of the form org/name",
                       ms->default_id);
    }
    ms->default_id = ms->first ? ms->first->id : NULL;
    return OC_OK;
}

enum oc_err oc_server_models_open(struct oc_server *s, struct oc_server_models **out, struct oc_errinfo *ei) {
    struct oc_server_models *ms = calloc(1, sizeof *ms);
    *out = ms;
    if (!ms) return oc_fail(ei, OC_ERR_NOMEM, "no memory for the models");
    ms->s = s;
    ms->budget_bytes = s->config->memory_budget_bytes;
    OC_TRY(register_all(ms, ei));
    return choose_default(ms, ei);
}

void oc_server_models_close(struct oc_server_models *ms) {
    if (!ms) return;
    for (struct oc_server_model *m = ms->first, *next; m; m = next) {
        next = m->next;
        oc_server_model_free(m);
    }
    free(ms);
}

/* ---- Finding ------------------------------------------------------------------------------------------- */

static void run_lookup(struct oc_server_work *w) {
    struct oc_server_lookup *l = (struct oc_server_lookup *)w;
    l->err = oc_server_facts_read(&l->arena, &l->s->config->hub_env, l->id, &l->facts, &l->ei);
}

static void not_found(struct oc_server_lookup *l, struct oc_api_error *err) {
    if (l->err == OC_ERR_NOT_FOUND)
        oc_api_fail(err, OC_API_MODEL_NOT_FOUND, "model",
                    "there is no model %.200s here: GET /v1/models lists them", l->id);
    if (l->err == OC_ERR_NOT_FOUND) return;
    oc_log(l->s->log, OC_LOG_ERROR, "a model cannot be read", OC_LOG_S("model", l->id),
           OC_LOG_S("why", l->ei.msg));
    oc_server_facts_hide_paths(l->ei.msg);
    oc_api_fail(err, OC_API_INTERNAL, "model", "the model %.100s cannot be read: %.300s", l->id, l->ei.msg);
}

static void looked_up(struct oc_server_work *w) {
    struct oc_server_lookup *l = (struct oc_server_lookup *)w;
    struct oc_server_models *ms = l->s->models;
    struct oc_api_error e = {0};
    struct oc_server_model *m =
        oc_server_models_get(ms, oc_str_from(l->id)); /* another lookup may have been faster */
    if (!m && !l->err && ms->n >= OC_LIMIT_HUB_MODELS)
        l->err = oc_fail(&l->ei, OC_ERR_LIMIT, "this server has seen too many models");
    if (!m && !l->err) {
        l->err = oc_server_model_make(l->s, l->id, l->id, &l->facts, false, &m, &l->ei);
        if (!l->err) append(ms, m);
    }
    if (!m) not_found(l, &e);
    oc_arena_free(&l->arena);
    l->done(l, m, m ? NULL : &e);
}

bool oc_server_models_find(struct oc_server_lookup *l, struct oc_server *s, struct oc_str id,
                           struct oc_server_model **m, struct oc_api_error *err) {
    const char *why;
    *m = NULL;
    *err = (struct oc_api_error){0};
    if (!id.n && s->models->default_id) id = oc_str_from(s->models->default_id);
    if (!id.n)
        return !oc_api_fail(err, OC_API_BAD_REQUEST, "model",
                            "model is missing, and this server has no default");
    if ((*m = oc_server_models_get(s->models, id))) return true;
    if (!oc_server_facts_id_ok(id, &why))
        return !oc_api_fail(err, OC_API_BAD_REQUEST, "model",
                            "invalid model id: %s (organization/model-name, or an id of GET /v1/models)",
                            why);
    *l = (struct oc_server_lookup){.work = {.run = run_lookup, .done = looked_up}, .s = s, .done = l->done};
    snprintf(l->id, sizeof l->id, "%.*s", (int)id.n, id.p);
    if (!oc_server_facts_allowed(&s->config->allow_models, l->id))
        return !oc_api_fail(err, OC_API_FORBIDDEN, "model", "the model %.200s is not on this server's list",
                            l->id);
    oc_arena_init(&l->arena, OC_LIMIT_JSON_BYTES);
    oc_server_crew_post(s->quick, &l->work);
    return false;
}

/* ---- Memory -------------------------------------------------------------------------------------------- */

int64_t oc_server_models_used_bytes(const struct oc_server_models *ms) {
    int64_t sum = 0;
    for (const struct oc_server_model *m = ms->first; m; m = m->next)
        if (oc_server_model_is_resident(m)) sum += m->need_bytes;
    return sum;
}

int64_t oc_server_models_picture_bytes(const struct oc_server_models *ms) {
    int64_t least = (int64_t)OC_LIMIT_SERVER_PICTURE_BYTES, left = ms->budget_bytes - oc_server_models_used_bytes(ms);
    if (ms->s->config->picture_memory_bytes > 0) return ms->s->config->picture_memory_bytes;
    return left > least ? left : least;
}

int oc_server_models_n_resident(const struct oc_server_models *ms) {
    int n = 0;
    for (const struct oc_server_model *m = ms->first; m; m = m->next) n += oc_server_model_is_resident(m);
    return n;
}

static double gib(int64_t bytes) {
    return (double)bytes / (double)OC_GIB;
}

static void refuse(const struct oc_server_models *ms, const struct oc_server_model *m,
                   struct oc_api_error *err) {
    oc_api_fail(err, OC_API_NO_MEMORY, "model",
                "the model %.100s needs %.2f GiB (weights, KV cache, working memory) and the memory budget "
                "is %.2f GiB: "
                "it cannot fit; nothing was unloaded",
                m->id, gib(m->need_bytes), gib(ms->budget_bytes));
}

enum oc_server_verdict oc_server_models_room(struct oc_server_models *ms, struct oc_server_model *m,
                                             struct oc_api_error *err) {
    struct oc_server_resident r[OC_LIMIT_SERVER_WORKERS];
    struct oc_server_model *owner[OC_LIMIT_SERVER_WORKERS];
    int victims[OC_LIMIT_SERVER_WORKERS], n_victims, n = 0;
    for (struct oc_server_model *o = ms->first; o && n < OC_LIMIT_SERVER_WORKERS; o = o->next) {
        if (!oc_server_model_is_resident(o)) continue;
        owner[n] = o;
        r[n++] = (struct oc_server_resident){.bytes = o->need_bytes,
                                             .last_used_ms = o->last_used_ms,
                                             .idle = oc_server_model_is_idle(o) && !o->stop_when_idle,
                                             .going = o->state == OC_MODEL_STOPPING || o->stop_when_idle};
    }
    enum oc_server_verdict v = oc_server_budget_decide(ms->budget_bytes, m->need_bytes,
                                                       OC_LIMIT_SERVER_WORKERS, r, n, victims, &n_victims);
    if (v == OC_BUDGET_NEVER) refuse(ms, m, err);
    for (int i = 0; v == OC_BUDGET_EVICT && i < n_victims; i++) {
        struct oc_server_model *o = owner[victims[i]];
        oc_log(ms->s->log, OC_LOG_INFO, "a model is unloaded to make room", OC_LOG_S("model", o->id),
               OC_LOG_S("for", m->id), OC_LOG_D("frees_gib", gib(o->need_bytes)));
        oc_server_model_unload(o, "room", NULL);
    }
    return v;
}

void oc_server_models_room_made(struct oc_server_models *ms) {
    for (struct oc_server_model *m = ms->first; m; m = m->next)
        if (m->state == OC_MODEL_WAITING) oc_server_model_advance(m);
}

void oc_server_models_tick(struct oc_server_models *ms, uint64_t now_ms) {
    for (struct oc_server_model *m = ms->first; m; m = m->next) oc_server_model_tick(m, now_ms);
}

void oc_server_models_tick_queues(struct oc_server_models *ms, uint64_t now_ms) {
    for (struct oc_server_model *m = ms->first; m; m = m->next) oc_admission_tick(m->admission, now_ms);
}
