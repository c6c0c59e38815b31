/* server/server.h - what the parts of the orchestrator share.
 *
 * One struct oc_server per process, owned by serve.c; everything in it belongs to the loop's thread. Parts get a
 * pointer to it and reach each other through it; none of them keeps state of its own at file scope. */
#ifndef OC_SERVER_SERVER_H
#define OC_SERVER_SERVER_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/clock.h"
#include "base/log.h"
#include "server/config.h"
#include "server/crew.h"
#include "server/gate.h"
#include "server/metrics.h"
#include "server/room.h"

struct oc_server_models;
struct oc_server_images;
struct oc_server_runtime;
struct oc_server_poison;
struct oc_server_request;
struct oc_server_alerts;
struct oc_http_server;
struct oc_http_tls;

/* What the command line gives besides the configuration: values that only cli/ may read. */
struct oc_server_setup {
    const struct oc_server_config *config;
    const char *embedded_name, *embedded_dir; /* dir NULL: the embedded model is not there */
    const char *version;
};

/* Counted from the start. */
struct oc_server_totals {
    uint64_t n_requests, n_succeeded, n_failed, n_queue_rejects, n_rate_rejects, n_gone;
    double min_ms, max_ms; /* of a completion request */
};

struct oc_server {
    uv_loop_t loop;
    const struct oc_server_setup *setup;
    const struct oc_server_config *config;
    struct oc_log *log;
    struct oc_metrics *metrics;
    struct oc_gate *gate;
    struct oc_server_crew *quick; /* parsing, templates, tokenising, base64: work that computes */
    struct oc_server_crew *slow;  /* fetches: work that waits */
    struct oc_server_runtime *runtime;
    struct oc_server_models *models;
    struct oc_server_images *images;
    struct oc_server_poison *poison;
    struct oc_server_room room; /* of pixels */
    struct oc_server_alerts *alerts;
    struct oc_http_tls *tls; /* of both; NULL: plain HTTP */
    struct oc_http_server *http, *admin;
    struct oc_server_request *requests; /* live ones, doubly linked */
    struct oc_server_request *ended;    /* to be freed */
    int n_requests;
    int n_calls; /* exchanges that wait for something else than a completion */
    int n_workers_started;
    struct oc_server_totals totals;
    bool draining; /* newcomers are turned away */
    bool stopping; /* nothing is loaded any more: workers are on their way out */
    uint64_t start_ns;
    int64_t start_unix;
    char fingerprint[24]; /* system_fingerprint of answers */
};

static inline uint64_t oc_server_now_ms(void) {
    return oc_clock_ns() / 1000000u;
}

/* Called by the parts when the last request has ended or the last child is gone: serve.c looks whether a shutdown
 * can go on. */
void oc_server_progress(struct oc_server *s);

#endif
