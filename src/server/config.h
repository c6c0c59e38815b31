/* server/config.h - everything that can be configured, with where each value came from.
 *
 * Order, later wins: built-in defaults, the seed's MLX_* and VISION_* variables, the YAML file, OCELLUS_*
 * variables, flags. One table (config.def) names every key once: YAML key, flag, variable, type, range, default,
 * help. A bad value names key, value, source and what is allowed; all bad values are told at once. Read once at
 * start, by the main thread; immutable after.
 *
 * A flag may carry the unit of its field (--idle-unload-s, --max-body-bytes). Sizes are written 8GiB, 500MB or in
 * bytes, times 30s, 5m, 1h30m or in seconds. */
#ifndef OC_SERVER_CONFIG_H
#define OC_SERVER_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "hub/cache.h"

#define OC_SERVER_MAX_LIST 64
#define OC_SERVER_CONFIG_MAX_KEYS 80

struct oc_server_list {
    const char *items[OC_SERVER_MAX_LIST];
    int n;
};

struct oc_server_config {
    struct oc_arena arena; /* of all strings */
    /* network */
    const char *host, *admin_host;
    int port, admin_port; /* 11440, 11441 */
    int max_connections;
    int max_connections_per_ip; /* 0: no limit */
    int64_t max_body_bytes;
    struct oc_server_list allowed_hosts, allowed_origins; /* besides IP literals and localhost; CORS */
    const char *api_keys_file; /* NULL: no keys */
    const char *tls_cert, *tls_key; /* PEM files; both or neither */
    /* models */
    struct oc_server_list models;      /* -m: directories or org/name */
    struct oc_server_list allow_models; /* patterns org/name or org/x*; empty: all found */
    const char *default_model;         /* answers requests without `model`; NULL: the first of models, else the embedded one */
    int64_t memory_budget_bytes;       /* after reading never 0: that became physical memory minus the tier's reserve */
    int idle_unload_s;                 /* 0: never */
    int load_timeout_s;
    /* engine */
    int ctx_tokens, parallel, n_threads, image_max_tokens;
    int64_t kv_tokens, embed_cache_bytes;
    bool prefix_cache;
    const char *speculate; /* "auto", "off" */
    const char *device; /* "auto", "cpu", "cuda", "cuda:N": what the worker takes */
    const char *isa;
    const char *batch_mode; /* "exact" or "throughput" */
    /* requests */
    int queue_depth;                        /* waiting requests at most */
    int queue_timeout_s[3];                 /* high, normal, low: each at least the next */
    int request_timeout_s;                  /* from admission to the last byte; 0: none */
    int stall_timeout_s;                    /* a worker without heartbeat for so long is killed */
    int drain_timeout_s;
    bool rate_limit;
    int rate_per_minute, rate_burst;
    int ping_s; /* SSE comment in silence */
    /* pictures */
    int image_workers;
    int max_images;
    int64_t max_image_bytes, max_image_pixels;
    int max_image_side_px;
    int image_timeout_s;
    int64_t picture_memory_bytes; /* 0: see oc_server_models_picture_bytes */
    bool remote_images, allow_private_images;
    int fetch_timeout_s;
    const char *media_dir; /* file: pictures come from below it only; NULL: none */
    /* logs and alerts */
    const char *log_file; /* NULL: stderr */
    bool log_json;
    const char *log_level;
    double alert_tok_s;  /* under it: an alert; 0: none */
    int alert_load_s;
    const char *runtime_dir; /* of this instance's lock and worker list; never NULL, may not exist yet */
    const char *machine_type;
    /* not settings, but found while reading */
    struct oc_server_list notes;  /* sentences for the log: variables that have no meaning here */
    int64_t memory_bytes;         /* physical memory, or the cgroup's limit when that is lower */
    const char *tier;             /* "high-memory", "medium-memory", "low-memory" */
    struct oc_hub_env hub_env;    /* where the models of the Hugging Face cache are */
    const char *embedded_models;  /* OCELLUS_MODELS: directory of the embedded ones; NULL: beside the binary */
    const char *notify_socket;    /* NOTIFY_SOCKET, for server/notify.h; NULL: not under systemd */
    const char *config_file;      /* NULL: none was read */
    const char *sources[OC_SERVER_CONFIG_MAX_KEYS]; /* where each value came from, in the order of config.def */
};

/* Reads argv (after "serve"), the environment and the file that --config or OCELLUS_CONFIG names. *show is set for
 * --print-config. all_faults may be NULL; ei holds the first fault and how many there are. After an error *out is
 * empty. Errors: OC_ERR_USAGE (a sentence for each bad value, one a line), OC_ERR_IO, OC_ERR_FORMAT. */
OC_MUST_CHECK enum oc_err oc_server_config_read(int argc, char **argv, struct oc_server_config *out, bool *show,
                                                struct oc_errinfo *ei, struct oc_buf *all_faults);
void oc_server_config_free(struct oc_server_config *c);

/* Writes it as YAML, each value with a comment saying where it came from. It reads back to the same configuration. */
void oc_server_config_print(const struct oc_server_config *c, struct oc_buf *out);
/* Help of all options. */
void oc_server_config_help(struct oc_buf *out);

#endif
