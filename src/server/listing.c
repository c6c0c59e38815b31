/* server/listing.c - GET /v1/models: registered models, and those of the Hugging Face cache. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "api/response.h"
#include "base/limits.h"
#include "server/endpoints.h"
#include "server/models.h"

struct job {
    struct oc_server_user user;
    struct oc_server *s;
    const char *endpoint;
    uint64_t received_ns;
    struct oc_server_work work;
    struct oc_arena arena;
    struct oc_api_model *found; /* of the cache, complete ones */
    size_t n_found;
    struct oc_str id; /* of the one asked for; empty: all */
};

static struct oc_str owner_of(struct oc_str id) {
    const char *slash = id.n ? memchr(id.p, '/', id.n) : NULL;
    return slash ? (struct oc_str){id.p, (size_t)(slash - id.p)} : OC_STR("local");
}

static struct oc_api_model of_model(const struct oc_server_model *m) {
    struct oc_str id = oc_str_from(m->id);
    return (struct oc_api_model){.id = id,
                                 .owned_by = owner_of(id),
                                 .created = m->created,
                                 .loaded = m->state == OC_MODEL_READY,
                                 .vision = m->vision,
                                 .ctx_tokens = oc_server_model_ctx_tokens(m)};
}

/* Models whose files cannot be read are left out: they could not be loaded either. */
static void run(struct oc_server_work *w) {
    struct job *j = (struct job *)((char *)w - offsetof(struct job, work));
    struct oc_hub_model *all;
    struct oc_errinfo ei;
    size_t n;
    if (oc_hub_cache_list(&j->arena, &j->s->config->hub_env, &all, &n, &ei)) return;
    j->found = oc_arena_array(&j->arena, n, sizeof *j->found);
    for (size_t i = 0; j->found && i < n; i++) {
        struct oc_server_facts f;
        if (!oc_server_facts_allowed(&j->s->config->allow_models, all[i].name)) continue;
        if (oc_server_facts_read(&j->arena, &j->s->config->hub_env, all[i].dir, &f, &ei)) continue;
        struct oc_str id = oc_str_from(all[i].name);
        j->found[j->n_found++] = (struct oc_api_model){.id = id,
                                                       .owned_by = owner_of(id),
                                                       .created = f.created,
                                                       .vision = f.vision,
                                                       .ctx_tokens = f.ctx_tokens};
    }
}

/* Those this server knows first, then the rest of the cache. */
static size_t merge(const struct job *j, struct oc_api_model *out) {
    size_t n = 0;
    for (const struct oc_server_model *m = j->s->models->first; m; m = m->next) out[n++] = of_model(m);
    for (size_t i = 0; i < j->n_found; i++)
        if (!oc_server_models_get(j->s->models, j->found[i].id)) out[n++] = j->found[i];
    return n;
}

static void reply(struct job *j) {
    struct oc_api_model *all = oc_arena_array(&j->arena, (size_t)j->s->models->n + j->n_found, sizeof *all);
    struct oc_http_exchange *x = oc_server_call_detach(&j->user);
    struct oc_api_error e = {0};
    struct oc_buf b;
    size_t n = all ? merge(j, all) : 0, one = 0;
    oc_buf_init(&b, OC_SERVER_REPLY_BYTES);
    while (j->id.n && one < n && !oc_str_eq(all[one].id, j->id)) one++;
    if (!all)
        oc_api_fail(&e, OC_API_INTERNAL, NULL, "out of memory");
    else if (j->id.n && one == n)
        oc_api_fail(&e, OC_API_MODEL_NOT_FOUND, "model", "there is no model %.*s here", (int)j->id.n,
                    j->id.p);
    else if (j->id.n)
        oc_api_write_model(&b, &all[one]);
    else
        oc_api_write_models(&b, all, n);
    if (e.message[0])
        oc_server_call_reply_error(j->s, x, j->endpoint, &e, j->received_ns);
    else
        oc_server_call_reply_json(j->s, x, j->endpoint, 200, &b, j->received_ns);
    oc_buf_free(&b);
}

static void done(struct oc_server_work *w) {
    struct job *j = (struct job *)((char *)w - offsetof(struct job, work));
    if (j->user.x) reply(j);
    oc_arena_free(&j->arena);
    j->s->n_calls--;
    oc_server_progress(j->s);
    free(j);
}

static void on_gone(struct oc_server_user *u) {
    (void)u; /* done frees it */
}

static void start(struct oc_server_ask *a, struct oc_str id) {
    struct job *j = calloc(1, sizeof *j);
    struct oc_api_error e = {0};
    if (j) oc_arena_init(&j->arena, OC_LIMIT_JSON_BYTES);
    char *copy = j ? oc_arena_strndup(&j->arena, id.p, id.n) : NULL;
    if (!copy) {
        free(j);
        oc_api_fail(&e, OC_API_INTERNAL, NULL, "out of memory");
        oc_server_ask_fail(a, &e);
        return;
    }
    j->s = a->s;
    j->s->n_calls++;
    j->endpoint = a->endpoint;
    j->received_ns = a->h->received_ns;
    j->id = (struct oc_str){copy, id.n};
    j->user.on_gone = on_gone;
    j->work = (struct oc_server_work){.run = run, .done = done};
    oc_server_call_attach(&j->user, a->x);
    oc_server_crew_post(a->s->quick, &j->work);
}

void oc_server_listing_all(struct oc_server_ask *a) {
    start(a, OC_STR(""));
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Percent-decodes into out; false when ill-formed or too long. Only %2F is of use in an id: what else is
 * encoded fails the check of ids or matches nothing. */
static bool decode_path(struct oc_str path, char *out, size_t cap, size_t *n) {
    *n = 0;
    for (size_t i = 0; i < path.n; i++) {
        char c = path.p[i];
        if (c == '%') {
            int hi = path.n - i > 2 ? hex_digit(path.p[i + 1]) : -1,
                lo = hi < 0 ? -1 : hex_digit(path.p[i + 2]);
            if (lo < 0) return false;
            c = (char)(hi * 16 + lo);
            i += 2;
        }
        if (*n == cap) return false;
        out[(*n)++] = c;
    }
    return true;
}

void oc_server_listing_one(struct oc_server_ask *a) {
    char id[256];
    size_t n, skip = strlen("/v1/models/");
    const char *why;
    struct oc_api_error e = {0};
    struct oc_str path = {a->h->path.p + skip, a->h->path.n - skip};
    bool ok = decode_path(path, id, sizeof id, &n) && n > 0;
    struct oc_str s = {id, ok ? n : 0};
    if (ok && (oc_server_models_get(a->s->models, s) || oc_server_facts_id_ok(s, &why))) {
        start(a, s);
        return;
    }
    oc_api_fail(&e, OC_API_MODEL_NOT_FOUND, "model",
                "there is no model of that name here: GET /v1/models lists them");
    oc_server_ask_fail(a, &e);
}
