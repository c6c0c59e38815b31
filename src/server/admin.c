/* server/admin.c - POST /admin/load and /admin/unload. The model is named by ?model_path=, or in a JSON body.
 */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/json.h"
#include "base/limits.h"
#include "server/endpoints.h"
#include "server/models.h"
#include "server/process.h"
#include "server/writer.h"

struct call {
    struct oc_server_user user;
    struct oc_server *s;
    const char *endpoint;
    uint64_t received_ns;
    bool busy; /* a lookup or an unload will come back */
    struct oc_server_lookup lookup;
    struct oc_server_want want;
    struct oc_server_unload unload;
    struct oc_server_model *model;
};

/* ---- What is named ------------------------------------------------------------------------------------- */

static bool is_name_ok(struct oc_str name, struct oc_api_error *e) {
    if (name.n && name.n < 256) return true;
    return oc_api_fail(e, OC_API_BAD_REQUEST, "model_path",
                       name.n ? "model_path is too long" : "model_path is empty");
}

/* The name in the arena; *given false when there is none. */
static bool read_name(struct oc_arena *a, const struct oc_http_request *h, struct oc_str *name, bool *given,
                      struct oc_api_error *e) {
    struct oc_buf b;
    struct oc_json j;
    struct oc_errinfo ei;
    oc_buf_init(&b, 4096);
    *given = oc_http_request_param(h, "model_path", &b) || oc_http_request_param(h, "model", &b);
    if (*given) *name = (struct oc_str){oc_arena_strndup(a, oc_buf_str(&b), b.n_bytes), b.n_bytes};
    oc_buf_free(&b);
    if (*given && !name->p) return oc_api_fail(e, OC_API_INTERNAL, NULL, "out of memory");
    if (*given) return is_name_ok(*name, e);
    if (!h->body.n) return true;
    if (oc_json_parse(a, h->body, "the body", &j, &ei))
        return oc_api_fail(e, OC_API_BAD_REQUEST, NULL, "%s", ei.msg);
    const struct oc_json *v = oc_json_get(&j, "model_path");
    if (oc_json_is_null(v)) v = oc_json_get(&j, "model");
    if (oc_json_is_null(v)) return true;
    if (v->type != OC_JSON_STR)
        return oc_api_fail(e, OC_API_BAD_REQUEST, "model_path", "model_path must be a string");
    *given = true;
    *name = v->str;
    return is_name_ok(*name, e);
}

/* ---- The end ------------------------------------------------------------------------------------------- */

static void finish(struct call *c) {
    if (c->want.model) oc_server_model_release(&c->want);
    c->s->n_calls--;
    oc_server_progress(c->s);
    free(c);
}

static void fail(struct call *c, const struct oc_api_error *e) {
    struct oc_http_exchange *x = oc_server_call_detach(&c->user);
    if (x) oc_server_call_reply_error(c->s, x, c->endpoint, e, c->received_ns);
    finish(c);
}

static void reply(struct call *c, struct oc_buf *b) {
    struct oc_http_exchange *x = oc_server_call_detach(&c->user);
    if (x) oc_server_call_reply_json(c->s, x, c->endpoint, 200, b, c->received_ns);
    oc_buf_free(b);
    finish(c);
}

static void on_gone(struct oc_server_user *u) {
    struct call *c = (struct call *)u;
    if (!c->busy) finish(c); /* a load goes on: someone may want the model yet */
}

static struct call *start(struct oc_server_ask *a) {
    struct call *c = calloc(1, sizeof *c);
    if (!c) {
        struct oc_api_error e = {0};
        oc_api_fail(&e, OC_API_INTERNAL, NULL, "out of memory");
        oc_server_ask_fail(a, &e);
        return NULL;
    }
    c->s = a->s;
    c->s->n_calls++;
    c->endpoint = a->endpoint;
    c->received_ns = a->h->received_ns;
    c->user.on_gone = on_gone;
    oc_server_call_attach(&c->user, a->x);
    return c;
}

/* ---- Load ---------------------------------------------------------------------------------------------- */

static void loaded(struct call *c) {
    const struct oc_server_model *m = c->want.model;
    struct oc_buf b;
    oc_buf_init(&b, 64 * OC_KIB);
    struct oc_server_writer w = {.b = &b};
    oc_server_writer_open(&w, NULL, '{');
    oc_server_writer_str(&w, "status", "success");
    oc_server_writer_str(&w, "model_name", m->id);
    oc_server_writer_num(&w, "memory_gb",
                         (double)oc_server_process_rss(oc_server_worker_pid(m->worker)) / (double)OC_GIB);
    oc_server_writer_num(&w, "load_time", m->load_s);
    oc_server_writer_int(&w, "pid", oc_server_worker_pid(m->worker));
    oc_server_writer_close(&w, '}');
    reply(c, &b);
}

static void on_have(struct oc_server_want *w, const struct oc_api_error *err) {
    struct call *c = (struct call *)((char *)w - offsetof(struct call, want));
    if (err)
        fail(c, err);
    else
        loaded(c);
}

static void found(struct call *c, struct oc_server_model *m, const struct oc_api_error *err) {
    if (err) {
        fail(c, err);
        return;
    }
    c->want.worker = true;
    c->want.on_have = on_have;
    if (oc_server_model_want(m, &c->want)) loaded(c);
}

static void looked_up(struct oc_server_lookup *l, struct oc_server_model *m, const struct oc_api_error *err) {
    struct call *c = (struct call *)((char *)l - offsetof(struct call, lookup));
    c->busy = false;
    if (c->user.x)
        found(c, m, err);
    else
        finish(c);
}

void oc_server_admin_load(struct oc_server_ask *a) {
    struct oc_api_error e = {0};
    struct oc_arena arena;
    struct oc_str name = {0};
    struct oc_server_model *m;
    bool given;
    oc_arena_init(&arena, OC_MIB);
    bool ok = read_name(&arena, a->h, &name, &given, &e);
    if (ok && !given) ok = oc_api_fail(&e, OC_API_BAD_REQUEST, "model_path", "model_path is missing");
    struct call *c = ok ? start(a) : NULL;
    if (!ok) oc_server_ask_fail(a, &e);
    if (c) {
        c->lookup.done = looked_up;
        c->busy = !oc_server_models_find(&c->lookup, a->s, name, &m, &e);
        if (!c->busy) found(c, m, m ? NULL : &e);
    }
    oc_arena_free(&arena);
}

/* ---- Unload -------------------------------------------------------------------------------------------- */

static void unloaded(struct oc_server_unload *u, int64_t freed_bytes) {
    struct call *c = (struct call *)((char *)u - offsetof(struct call, unload));
    struct oc_buf b;
    oc_buf_init(&b, 64 * OC_KIB);
    struct oc_server_writer w = {.b = &b};
    oc_server_writer_open(&w, NULL, '{');
    oc_server_writer_str(&w, "status", "success");
    oc_server_writer_str(&w, "model_unloaded", c->model->id);
    oc_server_writer_num(&w, "memory_freed_gb", (double)freed_bytes / (double)OC_GIB);
    oc_server_writer_num(&w, "unload_time", oc_clock_ms_since(c->received_ns) / 1e3);
    oc_server_writer_close(&w, '}');
    c->busy = false;
    reply(c, &b);
}

/* The one that is named, or the only one that is loaded. */
static struct oc_server_model *choose(struct oc_server *s, bool given, struct oc_str name,
                                      struct oc_api_error *e) {
    struct oc_server_model *only = NULL;
    int n = 0;
    for (struct oc_server_model *m = s->models->first; m; m = m->next) {
        if (!oc_server_model_is_resident(m) || (given && !oc_str_is(name, m->id))) continue;
        only = m;
        n++;
    }
    if (n == 1 && (only->state == OC_MODEL_READY || only->state == OC_MODEL_STOPPING)) return only;
    if (n == 1)
        oc_api_fail(e, OC_API_CONFLICT, "model_path", "the model %.100s is being loaded just now", only->id);
    else if (n > 1)
        oc_api_fail(e, OC_API_BAD_REQUEST, "model_path", "%d models are loaded: name one with model_path", n);
    else
        oc_api_fail(e, OC_API_BAD_REQUEST, "model_path",
                    given ? "No model of that name is currently loaded" : "No model currently loaded");
    return NULL;
}

void oc_server_admin_unload(struct oc_server_ask *a) {
    struct oc_api_error e = {0};
    struct oc_arena arena;
    struct oc_str name = {0};
    bool given;
    oc_arena_init(&arena, OC_MIB);
    struct oc_server_model *m = NULL;
    if (read_name(&arena, a->h, &name, &given, &e)) m = choose(a->s, given, name, &e);
    oc_arena_free(&arena);
    if (!m) {
        oc_server_ask_fail(a, &e);
        return;
    }
    struct call *c = start(a);
    if (!c) return;
    c->model = m;
    c->busy = true;
    c->unload.done = unloaded;
    oc_server_model_unload(m, "asked", &c->unload);
}
