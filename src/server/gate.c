#define _GNU_SOURCE /* explicit_bzero */
#include "server/gate.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/arena.h"
#include "base/digest.h"
#include "base/file.h"
#include "base/limits.h"

#define MAX_KEY_BYTES 512
#define MAX_HOST_BYTES 255

struct key {
    uint8_t digest[OC_DIGEST_BYTES];
    char name[32];
};

struct bucket {
    double tokens;
    uint64_t filled_ms; /* when tokens was right */
};

struct oc_gate {
    struct oc_arena arena; /* of hosts and origins */
    struct key *keys;
    int n_keys;
    struct bucket *buckets; /* one per key, or one for all */
    bool rate_limit;
    double burst, per_ms;
    const char **hosts, **origins;
    int n_hosts, n_origins;
    bool any_host, any_origin;
};

/* ---- Keys ---------------------------------------------------------------------------------------------- */

static void digest_of(struct oc_str key, uint8_t out[OC_DIGEST_BYTES]) {
    struct oc_digest_piece piece = {key.p, key.n};
    oc_digest(&piece, 1, out);
}

/* The next run of bytes that are no blanks, taken off *s. */
static struct oc_str take_word(struct oc_str *s) {
    size_t at = 0;
    while (at < s->n && (s->p[at] == ' ' || s->p[at] == '\t' || s->p[at] == '\r')) at++;
    struct oc_str word = {s->p + at, 0};
    while (at < s->n && s->p[at] != ' ' && s->p[at] != '\t' && s->p[at] != '\r') at++;
    word.n = (size_t)(s->p + at - word.p);
    *s = (struct oc_str){s->p + at, s->n - at};
    return word;
}

static bool is_printable(struct oc_str s) {
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] <= ' ' || s.p[i] > '~') return false;
    return s.n > 0 && s.n <= MAX_KEY_BYTES;
}

/* One line of the file: nothing, a comment, "key" or "name key". */
static enum oc_err read_key_line(struct oc_gate *g, struct oc_str line, const char *path, int n_line,
                                 struct oc_errinfo *ei) {
    struct oc_str name = take_word(&line), key = take_word(&line), more = take_word(&line);
    if (!name.n || name.p[0] == '#') return OC_OK;
    if (!key.n) {
        key = name;
        name.n = 0;
    }
    if (more.n || !is_printable(key) || (name.n && !is_printable(name)))
        return oc_fail(ei, OC_ERR_FORMAT,
                       "%s:%d: a line is a key, or a name and a key: printable ASCII without blanks", path,
                       n_line);
    if (g->n_keys == OC_LIMIT_SERVER_API_KEYS)
        return oc_fail(ei, OC_ERR_LIMIT, "%s:%d: more than %d keys", path, n_line, OC_LIMIT_SERVER_API_KEYS);
    struct key *k = &g->keys[g->n_keys];
    digest_of(key, k->digest);
    for (int i = 0; i < g->n_keys; i++)
        if (oc_digest_equal(g->keys[i].digest, k->digest, sizeof k->digest))
            return oc_fail(ei, OC_ERR_FORMAT, "%s:%d: this key stands in the file twice", path, n_line);
    size_t n = name.n < sizeof k->name - 1 ? name.n : sizeof k->name - 1;
    memcpy(k->name, name.p, n);
    k->name[n] = '\0';
    g->n_keys++;
    return OC_OK;
}

static enum oc_err read_keys(struct oc_gate *g, const char *path, struct oc_errinfo *ei) {
    struct oc_arena a;
    struct oc_str text = {0};
    g->keys = calloc(OC_LIMIT_SERVER_API_KEYS, sizeof *g->keys);
    if (!g->keys) return oc_fail(ei, OC_ERR_NOMEM, "out of memory for the keys");
    oc_arena_init(&a, 4 * OC_MIB);
    enum oc_err err = oc_file_read(&a, path, OC_MIB, &text, ei);
    if (err == OC_ERR_NOT_FOUND) err = ei ? (ei->code = OC_ERR_IO) : OC_ERR_IO;
    struct oc_str rest = text;
    for (int n_line = 1; !err && rest.n; n_line++) {
        const char *nl = memchr(rest.p, '\n', rest.n);
        size_t n = nl ? (size_t)(nl - rest.p) : rest.n;
        err = read_key_line(g, (struct oc_str){rest.p, n}, path, n_line, ei);
        rest = (struct oc_str){rest.p + n + (nl != NULL), rest.n - n - (nl != NULL)};
    }
    if (!err && !g->n_keys) /* a file without keys must not mean a server without keys */
        err = oc_fail(ei, OC_ERR_USAGE, "%s holds no key", path);
    if (text.n) explicit_bzero((char *)text.p, text.n);
    oc_arena_free(&a);
    return err;
}

bool oc_gate_has_keys(const struct oc_gate *g) {
    return g->n_keys > 0;
}

const char *oc_gate_key_name(const struct oc_gate *g, int key) {
    return key >= 0 && key < g->n_keys ? g->keys[key].name : "";
}

/* Looks at every key, so that the time says nothing about which one is near. */
static int find_key(const struct oc_gate *g, struct oc_str key) {
    uint8_t digest[OC_DIGEST_BYTES];
    int found = -1;
    if (!is_printable(key)) return -1;
    digest_of(key, digest);
    for (int i = 0; i < g->n_keys; i++)
        if (oc_digest_equal(g->keys[i].digest, digest, sizeof digest)) found = i;
    return found;
}

static struct oc_str trim(struct oc_str s) {
    while (s.n && (s.p[0] == ' ' || s.p[0] == '\t')) s = (struct oc_str){s.p + 1, s.n - 1};
    while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t')) s.n--;
    return s;
}

static bool starts_nocase(struct oc_str s, const char *prefix) {
    size_t n = strlen(prefix);
    return s.n >= n && strncasecmp(s.p, prefix, n) == 0;
}

int oc_gate_key(const struct oc_gate *g, struct oc_str authorization, struct oc_str x_api_key,
                uint8_t salt[16]) {
    memset(salt, 0, 16);
    if (!g->n_keys) return 0;
    int key = -1;
    authorization = trim(authorization);
    if (starts_nocase(authorization, "bearer "))
        key = find_key(g, trim((struct oc_str){authorization.p + 7, authorization.n - 7}));
    if (key < 0) key = find_key(g, trim(x_api_key));
    if (key < 0) return -1;
    uint8_t digest[OC_DIGEST_BYTES];
    struct oc_digest_piece pieces[] = {{"ocellus cache salt", 18}, {g->keys[key].digest, OC_DIGEST_BYTES}};
    oc_digest(pieces, 2, digest);
    memcpy(salt, digest, 16);
    return key;
}

/* ---- Host and Origin ----------------------------------------------------------------------------------- */

/* Splits "name:port" or "[v6]:port". False when it is neither. *port is empty where there is none. */
static bool split_host(struct oc_str s, struct oc_str *name, struct oc_str *port) {
    const char *end = NULL;
    if (!s.n || s.n > MAX_HOST_BYTES) return false;
    if (s.p[0] == '[') end = memchr(s.p, ']', s.n);
    size_t n = end ? (size_t)(end + 1 - s.p) : 0;
    if (s.p[0] == '[' && !end) return false;
    while (!end && n < s.n && s.p[n] != ':') n++;
    *name = (struct oc_str){s.p, n};
    *port = (struct oc_str){s.p + n, s.n - n};
    if (port->n) { /* the colon */
        if (port->p[0] != ':') return false;
        *port = (struct oc_str){port->p + 1, port->n - 1};
    }
    for (size_t i = 0; i < port->n; i++)
        if (port->p[i] < '0' || port->p[i] > '9') return false;
    return name->n > 0 && port->n <= 5;
}

/* An address in its one plain form: four decimal numbers, or IPv6 in brackets. */
static bool is_ip_literal(struct oc_str name) {
    char text[64];
    unsigned char address[16];
    bool v6 = name.p[0] == '[';
    if (v6) name = (struct oc_str){name.p + 1, name.n - 2};
    if (!name.n || name.n >= sizeof text) return false;
    memcpy(text, name.p, name.n);
    text[name.n] = '\0';
    return strlen(text) == name.n && inet_pton(v6 ? AF_INET6 : AF_INET, text, address) == 1;
}

static bool ends_nocase(struct oc_str s, const char *suffix) {
    size_t n = strlen(suffix);
    return s.n >= n && strncasecmp(s.p + s.n - n, suffix, n) == 0;
}

static bool equal_nocase(struct oc_str s, const char *text) {
    return s.n == strlen(text) && strncasecmp(s.p, text, s.n) == 0;
}

/* Letters, digits, '-', '_' in labels of at least one: what a name can be. */
static bool is_name(struct oc_str s) {
    if (!s.n || s.p[0] == '.') return false;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                      c == '-' || c == '_';
        if (!letter && (c != '.' || s.p[i - 1] == '.')) return false;
    }
    return true;
}

static bool is_listed_host(const struct oc_gate *g, struct oc_str name) {
    for (int i = 0; i < g->n_hosts; i++) {
        const char *h = g->hosts[i];
        if (h[0] == '*' ? name.n > strlen(h + 1) && ends_nocase(name, h + 1) : equal_nocase(name, h))
            return true;
    }
    return false;
}

bool oc_gate_host_ok(const struct oc_gate *g, struct oc_str host_header) {
    struct oc_str name, port;
    if (!split_host(host_header, &name, &port)) return false;
    if (is_ip_literal(name)) return true;
    if (name.p[0] == '[') return false;
    if (name.p[name.n - 1] == '.') name.n--; /* the root of the DNS may be written out */
    if (!is_name(name)) return false;
    if (equal_nocase(name, "localhost") || ends_nocase(name, ".localhost")) return true;
    return g->any_host || g->n_keys > 0 || is_listed_host(g, name);
}

/* "host:80" of http and "host:443" of https are "host": browsers leave the port out, others do not. */
static struct oc_str without_default_port(struct oc_str host, bool https) {
    const char *port = https ? ":443" : ":80";
    if (ends_nocase(host, port)) host.n -= strlen(port);
    return host;
}

static bool is_own_origin(struct oc_str origin, struct oc_str host_header) {
    bool https = starts_nocase(origin, "https://");
    if (!host_header.n || (!https && !starts_nocase(origin, "http://"))) return false;
    size_t n = https ? 8 : 7;
    struct oc_str a = without_default_port((struct oc_str){origin.p + n, origin.n - n}, https);
    struct oc_str b = without_default_port(host_header, https);
    return a.n == b.n && a.n && strncasecmp(a.p, b.p, a.n) == 0;
}

bool oc_gate_origin_ok(const struct oc_gate *g, struct oc_str origin, struct oc_str host_header) {
    if (!origin.n) return true;
    if (equal_nocase(origin, "null")) return false; /* sandboxed frames and files of anybody */
    if (g->any_origin || is_own_origin(origin, host_header)) return true;
    for (int i = 0; i < g->n_origins; i++)
        if (equal_nocase(origin, g->origins[i])) return true;
    return false;
}

bool oc_gate_is_json(struct oc_str content_type) {
    struct oc_str s = trim(content_type);
    if (!starts_nocase(s, "application/json")) return false;
    s = trim((struct oc_str){s.p + 16, s.n - 16});
    return s.n == 0 || s.p[0] == ';';
}

/* ---- The rate ------------------------------------------------------------------------------------------ */

static struct bucket *bucket_of(const struct oc_gate *g, int key) {
    OC_ASSERT(key >= 0 && key < (g->n_keys ? g->n_keys : 1));
    return &g->buckets[key];
}

double oc_gate_tokens(const struct oc_gate *g, int key, uint64_t now_ms) {
    const struct bucket *b = bucket_of(g, key);
    if (!g->rate_limit) return g->burst;
    double passed_ms = now_ms > b->filled_ms ? (double)(now_ms - b->filled_ms) : 0;
    double tokens = b->tokens + passed_ms * g->per_ms;
    return tokens < g->burst ? tokens : g->burst;
}

bool oc_gate_take(struct oc_gate *g, int key, uint64_t now_ms, double *retry_after_s) {
    struct bucket *b = bucket_of(g, key);
    *retry_after_s = 0;
    if (!g->rate_limit) return true;
    b->tokens = oc_gate_tokens(g, key, now_ms);
    if (now_ms > b->filled_ms) b->filled_ms = now_ms;
    if (b->tokens >= 1 - 1e-6) { /* thirds of a token add up to a little less than one */
        b->tokens = b->tokens > 1 ? b->tokens - 1 : 0;
        return true;
    }
    double wait_s = (1 - b->tokens) / g->per_ms / 1000;
    *retry_after_s = wait_s > 1 ? wait_s : 1;
    return false;
}

void oc_gate_give(struct oc_gate *g, int key) {
    struct bucket *b = bucket_of(g, key);
    b->tokens = b->tokens + 1 < g->burst ? b->tokens + 1 : g->burst;
}

/* ---- Opening ------------------------------------------------------------------------------------------- */

/* "*", "name", "*.name". */
static bool is_host_entry(const char *h) {
    if (h[0] == '*') h += h[1] == '.' ? 2 : 0;
    return is_name(oc_str_from(h)) && strlen(h) <= MAX_HOST_BYTES;
}

/* scheme://host[:port]; a browser never sends more. */
static bool is_origin_entry(struct oc_str o) {
    size_t n = 0;
    struct oc_str name, port;
    while (n < o.n && ((o.p[n] >= 'a' && o.p[n] <= 'z') || (n && strchr("+-.0123456789", o.p[n])))) n++;
    if (!n || o.n < n + 4 || memcmp(o.p + n, "://", 3) != 0) return false;
    if (!split_host((struct oc_str){o.p + n + 3, o.n - n - 3}, &name, &port)) return false;
    return is_ip_literal(name) || is_name(name);
}

static enum oc_err add_hosts(struct oc_gate *g, const struct oc_gate_params *p, struct oc_errinfo *ei) {
    g->hosts = oc_arena_array(&g->arena, (size_t)p->n_hosts, sizeof *g->hosts);
    for (int i = 0; g->hosts && i < p->n_hosts; i++) {
        const char *h = p->hosts[i];
        if (!strcmp(h, "*")) {
            g->any_host = true;
            continue;
        }
        if (!is_host_entry(h))
            return oc_fail(ei, OC_ERR_USAGE,
                           "allowed host '%s': give a name without a port, such as api.example or *.example",
                           h);
        g->hosts[g->n_hosts] = oc_arena_strndup(&g->arena, h, strlen(h));
        if (!g->hosts[g->n_hosts++]) break;
    }
    return !g->hosts || (g->n_hosts && !g->hosts[g->n_hosts - 1])
               ? oc_fail(ei, OC_ERR_NOMEM, "out of memory for the gate")
               : OC_OK;
}

static enum oc_err add_origins(struct oc_gate *g, const struct oc_gate_params *p, struct oc_errinfo *ei) {
    g->origins = oc_arena_array(&g->arena, (size_t)p->n_origins, sizeof *g->origins);
    for (int i = 0; g->origins && i < p->n_origins; i++) {
        struct oc_str o = oc_str_from(p->origins[i]);
        if (oc_str_is(o, "*")) {
            g->any_origin = true;
            continue;
        }
        if (o.n && o.p[o.n - 1] == '/') o.n--;
        if (!is_origin_entry(o))
            return oc_fail(
                ei, OC_ERR_USAGE,
                "allowed origin '%s': give scheme://host or scheme://host:port, such as https://chat.example",
                p->origins[i]);
        g->origins[g->n_origins] = oc_arena_strndup(&g->arena, o.p, o.n);
        if (!g->origins[g->n_origins++]) break;
    }
    return !g->origins || (g->n_origins && !g->origins[g->n_origins - 1])
               ? oc_fail(ei, OC_ERR_NOMEM, "out of memory for the gate")
               : OC_OK;
}

static enum oc_err add_buckets(struct oc_gate *g, const struct oc_gate_params *p, struct oc_errinfo *ei) {
    int n = g->n_keys ? g->n_keys : 1;
    if (p->rate_limit && (p->rate_per_minute < 1 || p->rate_burst < 1))
        return oc_fail(ei, OC_ERR_USAGE, "a rate of %d a minute with bursts of %d: both must be at least 1",
                       p->rate_per_minute, p->rate_burst);
    g->rate_limit = p->rate_limit;
    g->burst = p->rate_burst;
    g->per_ms = p->rate_per_minute / 60000.0;
    g->buckets = calloc((size_t)n, sizeof *g->buckets);
    if (!g->buckets) return oc_fail(ei, OC_ERR_NOMEM, "out of memory for the gate");
    for (int i = 0; i < n; i++) g->buckets[i].tokens = g->burst; /* full at the start */
    return OC_OK;
}

enum oc_err oc_gate_open(const struct oc_gate_params *p, struct oc_gate **out, struct oc_errinfo *ei) {
    struct oc_gate *g = *out = calloc(1, sizeof *g);
    if (!g) return oc_fail(ei, OC_ERR_NOMEM, "out of memory for the gate");
    oc_arena_init(&g->arena, OC_MIB);
    enum oc_err err = p->keys_file ? read_keys(g, p->keys_file, ei) : OC_OK;
    if (!err) err = add_hosts(g, p, ei);
    if (!err) err = add_origins(g, p, ei);
    if (!err) err = add_buckets(g, p, ei);
    if (!err) return OC_OK;
    oc_gate_close(g);
    *out = NULL;
    return err;
}

void oc_gate_close(struct oc_gate *g) {
    if (!g) return;
    oc_arena_free(&g->arena);
    free(g->keys);
    free(g->buckets);
    free(g);
}
