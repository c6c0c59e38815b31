/* server/gate.h - who may talk to the server at all: API keys, Host and Origin, CORS, the rate limit.
 *
 * Pure checks over strings, on the loop's thread. A server without keys is still guarded against web pages (DNS
 * rebinding, cross-site POST): Host must be an IP literal, localhost or an allowed name; an Origin must be
 * allowed or the server's own; POST needs application/json. With keys any well-formed Host will do: a page that
 * reaches the server that way has no key. Keys are compared as SHA-256 digests in constant time. */
#ifndef OC_SERVER_GATE_H
#define OC_SERVER_GATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

struct oc_gate;

struct oc_gate_params {
    const char *keys_file; /* one key a line, optional "name " before it; '#' comments; NULL: none */
    const char *const *hosts; /* names without ports; "*.name" for all below it, "*" for all */
    int n_hosts;
    const char *const *origins; /* scheme://host[:port]; "*" allows all but null */
    int n_origins;
    bool rate_limit;
    int rate_per_minute, rate_burst;
};

/* Errors: OC_ERR_IO, OC_ERR_FORMAT (line of the keys file), OC_ERR_USAGE, OC_ERR_LIMIT. */
OC_MUST_CHECK enum oc_err oc_gate_open(const struct oc_gate_params *p, struct oc_gate **out, struct oc_errinfo *ei);
void oc_gate_close(struct oc_gate *g);
bool oc_gate_has_keys(const struct oc_gate *g);

/* The key's number, from 0 on, from an Authorization header ("Bearer x") or x-api-key, one of which must be right; -1:
 * none or wrong; 0 when the server has no keys. *salt gets 16 bytes that differ among keys (zeros without keys). */
int oc_gate_key(const struct oc_gate *g, struct oc_str authorization, struct oc_str x_api_key, uint8_t salt[16]);
/* The name that stands before the key in the file, "" where there is none. For logs; never the key itself. */
const char *oc_gate_key_name(const struct oc_gate *g, int key);
bool oc_gate_host_ok(const struct oc_gate *g, struct oc_str host_header);
/* origin may be empty (not a browser): true. "null" never is right. The server's own origin: http(s)://<host_header>. */
bool oc_gate_origin_ok(const struct oc_gate *g, struct oc_str origin, struct oc_str host_header);
/* True for application/json with or without parameters. */
bool oc_gate_is_json(struct oc_str content_type);

/* Takes a token of the key's bucket (monotonic time); false: *retry_after_s (at least 1) says when. The key is a number
 * that oc_gate_key gave, not -1. */
bool oc_gate_take(struct oc_gate *g, int key, uint64_t now_ms, double *retry_after_s);
/* Gives a token back that was taken for a request that was then refused. */
void oc_gate_give(struct oc_gate *g, int key);
double oc_gate_tokens(const struct oc_gate *g, int key, uint64_t now_ms);

#endif
