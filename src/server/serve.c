#include "server/serve.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/digest.h"
#include "server/alerts.h"
#include "server/endpoints.h"
#include "server/fetch.h"
#include "server/images.h"
#include "server/models.h"
#include "server/notify.h"
#include "server/poison.h"
#include "server/request.h"
#include "server/runtime.h"

#define TICK_MS 100
#define LINGER_MS 2000 /* for the last bytes of answers */
#define STOP_MS 20000  /* a thread that hangs in the system must not keep the process */
#define N_QUICK 4
#define N_SLOW 8

enum phase { RUNNING, DRAINING, LINGERING, STOPPING, CLOSING };

struct serve {
    struct oc_server s;
    enum phase phase;
    struct oc_server_door doors[2];
    bool fetch_open;
    uv_timer_t tick;
    uv_prepare_t turn;
    uv_signal_t signals[3];
    int n_open_servers, n_ticks;
    bool handles_open;
    uint64_t phase_ms; /* when it began */
};

void oc_server_progress(struct oc_server *s) {
    (void)s; /* every turn of the loop looks: see on_turn */
}

/* ---- Shutting down ------------------------------------------------------------------------------------- */

static void enter(struct serve *v, enum phase phase) {
    v->phase = phase;
    v->phase_ms = oc_server_now_ms();
}

static uint64_t ms_in_phase(const struct serve *v) {
    return oc_server_now_ms() - v->phase_ms;
}

static void begin_drain(struct serve *v) {
    struct oc_server *s = &v->s;
    enter(v, DRAINING);
    s->draining = true;
    oc_log(s->log, OC_LOG_INFO, "shutting down: running requests may finish",
           OC_LOG_I("requests", s->n_requests), OC_LOG_I("limit_s", s->config->drain_timeout_s));
    oc_notify_send(s->config->notify_socket, "STOPPING=1");
    for (struct oc_server_model *m = s->models ? s->models->first : NULL; m; m = m->next)
        oc_admission_drain(m->admission, true);
}

static void fail_rest(struct oc_server *s) {
    struct oc_api_error e = {0};
    oc_api_fail(&e, OC_API_DRAINING, NULL,
                "the server is shutting down and the request took too long to finish");
    oc_server_requests_fail_all(s, &e);
    s->stopping = true; /* nothing is loaded from now on */
    for (struct oc_server_model *m = s->models ? s->models->first : NULL; m; m = m->next)
        oc_server_model_fail_wants(m, &e);
}

static void server_closed(void *arg) {
    struct serve *v = arg;
    v->n_open_servers--;
}

static void begin_linger(struct serve *v) {
    fail_rest(&v->s);
    enter(v, LINGERING);
    if (v->s.http) oc_http_server_stop_accepting(v->s.http);
    if (v->s.admin) oc_http_server_stop_accepting(v->s.admin);
}

static void begin_stop(struct serve *v) {
    struct oc_server *s = &v->s;
    s->stopping = true;
    enter(v, STOPPING);
    if (s->http) oc_http_server_close(s->http, server_closed, v);
    if (s->admin) oc_http_server_close(s->admin, server_closed, v);
    for (struct oc_server_model *m = s->models ? s->models->first : NULL; m; m = m->next) {
        oc_server_model_stop(m);
        oc_server_model_close_chat(m);
    }
    oc_server_images_close(s->images);
}

/* All that still has business with the loop. */
static bool is_quiet(const struct serve *v) {
    const struct oc_server *s = &v->s;
    for (const struct oc_server_model *m = s->models ? s->models->first : NULL; m; m = m->next)
        if (m->worker || m->n_refs || m->chat || m->state == OC_MODEL_MEASURING ||
            m->state == OC_MODEL_PREPARING)
            return false;
    return !s->requests && !s->ended && s->n_calls == 0 && !s->images && v->n_open_servers == 0 &&
           (!s->quick || oc_server_crew_n_pending(s->quick) == 0) &&
           (!s->slow || oc_server_crew_n_pending(s->slow) == 0);
}

static void begin_close(struct serve *v) {
    enter(v, CLOSING);
    oc_server_crew_close(v->s.quick);
    oc_server_crew_close(v->s.slow);
    if (!v->handles_open) return;
    uv_close((uv_handle_t *)&v->tick, NULL);
    uv_close((uv_handle_t *)&v->turn, NULL);
    for (int i = 0; i < 3; i++) uv_close((uv_handle_t *)&v->signals[i], NULL);
}

static void close_chats(struct oc_server *s) {
    for (struct oc_server_model *m = s->models ? s->models->first : NULL; m; m = m->next)
        if (!m->worker) oc_server_model_close_chat(m);
}

static int n_connections(const struct oc_server *s) {
    return (s->http ? oc_http_server_n_connections(s->http) : 0) +
           (s->admin ? oc_http_server_n_connections(s->admin) : 0);
}

/* One look at a shutdown in progress. */
static void step(struct serve *v) {
    struct oc_server *s = &v->s;
    bool idle = s->n_requests == 0 && s->n_calls == 0;
    if (v->phase == DRAINING && (idle || ms_in_phase(v) >= (uint64_t)s->config->drain_timeout_s * 1000))
        begin_linger(v);
    else if (v->phase == LINGERING && (n_connections(s) == 0 || ms_in_phase(v) >= LINGER_MS))
        begin_stop(v);
    if (v->phase == STOPPING) close_chats(s);
    if (v->phase == STOPPING && is_quiet(v)) begin_close(v);
    if (v->phase == STOPPING && ms_in_phase(v) >= STOP_MS) {
        oc_log(s->log, OC_LOG_ERROR, "something does not end: the process leaves without it",
               OC_LOG_I("requests", s->n_requests));
        _exit(1);
    }
}

/* ---- Turns, ticks, signals ----------------------------------------------------------------------------- */

static void on_turn(uv_prepare_t *p) {
    struct serve *v = p->data;
    oc_server_requests_reap(&v->s);
    if (v->s.room.first) oc_server_room_go_on(&v->s.room, oc_server_models_picture_bytes(v->s.models));
    if (v->phase != RUNNING) step(v);
}

static void on_tick(uv_timer_t *t) {
    struct serve *v = t->data;
    struct oc_server *s = &v->s;
    uint64_t now = oc_server_now_ms();
    oc_server_models_tick_queues(s->models, now);
    oc_server_requests_tick(s, now);
    if (++v->n_ticks % (1000 / TICK_MS)) return;
    if (!s->stopping) oc_server_models_tick(s->models, now);
    if (s->images) oc_server_images_tick(s->images, now);
    oc_server_alerts_tick(s);
    oc_notify_send(s->config->notify_socket, "WATCHDOG=1");
}

static void warn_of_certificate(struct oc_server *s) {
    if (*oc_http_tls_warning(s->tls))
        oc_log(s->log, OC_LOG_WARN, oc_http_tls_warning(s->tls), OC_LOG_S("file", s->config->tls_cert));
}

/* What files have become: the log after its rotation, a new certificate. What cannot be used stays as it was. */
static void on_hangup(struct oc_server *s) {
    struct oc_errinfo ei;
    if (oc_log_reopen(s->log, &ei)) oc_log(s->log, OC_LOG_ERROR, ei.msg, OC_LOG_I("signal", SIGHUP));
    if (!s->tls) return;
    if (oc_http_tls_reload(s->tls, &ei)) {
        oc_log(s->log, OC_LOG_ERROR, ei.msg, OC_LOG_S("kept", "the certificate and key from before"));
        return;
    }
    oc_log(s->log, OC_LOG_INFO, "certificate and key read again", OC_LOG_S("file", s->config->tls_cert));
    warn_of_certificate(s);
}

static void on_signal(uv_signal_t *h, int number) {
    struct serve *v = h->data;
    if (number == SIGHUP) {
        on_hangup(&v->s);
        return;
    }
    if (v->phase != RUNNING) _exit(1); /* children end with their parent */
    begin_drain(v);
}

static void open_handles(struct serve *v) {
    static const int numbers[3] = {SIGTERM, SIGINT, SIGHUP};
    uv_loop_t *loop = &v->s.loop;
    uv_timer_init(loop, &v->tick);
    uv_prepare_init(loop, &v->turn);
    v->tick.data = v->turn.data = v;
    uv_timer_start(&v->tick, on_tick, TICK_MS, TICK_MS);
    uv_prepare_start(&v->turn, on_turn);
    for (int i = 0; i < 3; i++) {
        uv_signal_init(loop, &v->signals[i]);
        v->signals[i].data = v;
        uv_signal_start(&v->signals[i], on_signal, numbers[i]);
    }
    v->handles_open = true;
}

/* ---- Opening ------------------------------------------------------------------------------------------- */

/* Pictures and connections are descriptors: take as many as the system allows. */
static void raise_descriptors(void) {
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < r.rlim_max) {
        r.rlim_cur = r.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &r);
    }
}

static void make_fingerprint(struct oc_server *s) {
    uint8_t digest[OC_DIGEST_BYTES];
    struct oc_digest_piece piece = {s->setup->version, strlen(s->setup->version)};
    char hex[2 * 5 + 1];
    oc_digest(&piece, 1, digest);
    oc_digest_hex(digest, 5, hex);
    snprintf(s->fingerprint, sizeof s->fingerprint, "fp_%s", hex);
}

static enum oc_err open_log(struct oc_server *s, struct oc_errinfo *ei) {
    const struct oc_server_config *c = s->config;
    enum oc_log_level level = OC_LOG_INFO;
    oc_log_level_parse(oc_str_from(c->log_level), &level);
    OC_TRY(oc_log_open(c->log_file, c->log_json, level, "serve", &s->log, ei));
    for (int i = 0; i < c->notes.n; i++)
        oc_log(s->log, OC_LOG_WARN, c->notes.items[i], OC_LOG_S("about", "configuration"));
    return OC_OK;
}

static enum oc_err open_gate(struct oc_server *s, struct oc_errinfo *ei) {
    const struct oc_server_config *c = s->config;
    struct oc_gate_params p = {.keys_file = c->api_keys_file,
                               .hosts = c->allowed_hosts.items,
                               .n_hosts = c->allowed_hosts.n,
                               .origins = c->allowed_origins.items,
                               .n_origins = c->allowed_origins.n,
                               .rate_limit = c->rate_limit,
                               .rate_per_minute = c->rate_per_minute,
                               .rate_burst = c->rate_burst};
    return oc_gate_open(&p, &s->gate, ei);
}

static enum oc_err open_tls(struct oc_server *s, struct oc_errinfo *ei) {
    const struct oc_server_config *c = s->config;
    if (!c->tls_cert) return OC_OK;
    OC_TRY(oc_http_tls_open(c->tls_cert, c->tls_key, &s->tls, ei));
    warn_of_certificate(s);
    return OC_OK;
}

static enum oc_err listen_on(struct serve *v, bool is_admin, const char *host, int port,
                             struct oc_http_server **out, struct oc_errinfo *ei) {
    const struct oc_server_config *c = v->s.config;
    struct oc_server_door *door = &v->doors[is_admin];
    struct oc_http_options o = {.max_connections = c->max_connections,
                                .max_connections_per_ip = c->max_connections_per_ip,
                                .max_body_bytes = (size_t)c->max_body_bytes,
                                .server_name = "ocellus",
                                .tls = v->s.tls};
    struct oc_http_events ev;
    *door = (struct oc_server_door){.s = &v->s, .is_admin = is_admin};
    oc_server_endpoints_events(door, &ev);
    OC_TRY(oc_http_listen(&v->s.loop, host, port, &o, &ev, out, ei));
    v->n_open_servers++;
    return OC_OK;
}

static enum oc_err open_parts(struct serve *v, struct oc_errinfo *ei) {
    struct oc_server *s = &v->s;
    const struct oc_server_config *c = s->config;
    int n_ended;
    OC_TRY(oc_fetch_init(ei));
    v->fetch_open = true;
    OC_TRY(oc_metrics_open(&s->metrics, ei));
    OC_TRY(open_gate(s, ei));
    OC_TRY(open_tls(s, ei));
    OC_TRY(oc_server_poison_open(&s->poison, ei));
    s->alerts = calloc(1, sizeof *s->alerts);
    if (!s->alerts) return oc_fail(ei, OC_ERR_NOMEM, "out of memory");
    OC_TRY(oc_server_models_open(s, &s->models, ei));
    OC_TRY(oc_server_runtime_open(c->runtime_dir, &s->runtime, &n_ended, ei));
    if (n_ended)
        oc_log(s->log, OC_LOG_WARN, "processes that a killed server had left were ended",
               OC_LOG_I("processes", n_ended));
    OC_TRY(oc_server_crew_open(&s->loop, N_QUICK, &s->quick, ei));
    OC_TRY(oc_server_crew_open(&s->loop, N_SLOW, &s->slow, ei));
    OC_TRY(listen_on(v, false, c->host, c->port, &s->http, ei));
    OC_TRY(listen_on(v, true, c->admin_host, c->admin_port, &s->admin, ei));
    return oc_server_images_open(s, &s->images, ei);
}

static void say_listening(struct serve *v) {
    struct oc_server *s = &v->s;
    const char *host = s->config->host;
    bool v6 = strchr(host, ':') != NULL;
    char line[256];
    snprintf(line, sizeof line, "listening on %s://%s%s%s:%d (admin %d)", s->tls ? "https" : "http",
             v6 ? "[" : "", host, v6 ? "]" : "", oc_http_server_port(s->http), oc_http_server_port(s->admin));
    oc_log(s->log, OC_LOG_INFO, line, OC_LOG_S("version", s->setup->version),
           OC_LOG_I("models", s->models->n),
           OC_LOG_D("memory_budget_gib", (double)s->models->budget_bytes / (double)OC_GIB));
    if (s->config->log_file) fprintf(stderr, "ocellus: %s\n", line);
    if (!s->models->first)
        oc_log(s->log, OC_LOG_WARN,
               "no model is registered: requests must name one of the Hugging Face cache",
               OC_LOG_S("option", "--model"));
    oc_metrics_set(s->metrics, OC_M_BUILD_INFO, s->setup->version, s->config->isa ? s->config->isa : "auto",
                   1);
    char ready[sizeof line + 32];
    snprintf(ready, sizeof ready, "READY=1\nSTATUS=%s", line);
    oc_notify_send(s->config->notify_socket, ready);
}

/* ---- The whole ----------------------------------------------------------------------------------------- */

static void close_parts(struct serve *v) {
    struct oc_server *s = &v->s;
    if (v->fetch_open) oc_fetch_exit();
    oc_server_models_close(s->models);
    oc_server_runtime_close(s->runtime);
    oc_server_poison_close(s->poison);
    free(s->alerts);
    if (s->gate) oc_gate_close(s->gate);
    oc_http_tls_close(s->tls);
    if (s->metrics) oc_metrics_close(s->metrics);
}

enum oc_err oc_server_main(const struct oc_server_setup *setup, struct oc_errinfo *ei) {
    struct serve *v = calloc(1, sizeof *v);
    if (!v) return oc_fail(ei, OC_ERR_NOMEM, "out of memory");
    struct oc_server *s = &v->s;
    s->setup = setup;
    s->config = setup->config;
    s->start_ns = oc_clock_ns();
    s->start_unix = (int64_t)time(NULL);
    make_fingerprint(s);
    raise_descriptors();
    enum oc_err err = open_log(s, ei);
    if (err) {
        free(v);
        return err;
    }
    uv_loop_init(&s->loop);
    err = open_parts(v, ei);
    open_handles(v);
    if (err)
        begin_stop(v);
    else
        say_listening(v);
    uv_run(&s->loop, UV_RUN_DEFAULT);
    OC_ASSERT(uv_loop_close(&s->loop) == 0);
    close_parts(v);
    if (!err) oc_log(s->log, OC_LOG_INFO, "stopped", OC_LOG_I("requests", (int64_t)s->totals.n_requests));
    oc_log_close(s->log);
    free(v);
    return err;
}
