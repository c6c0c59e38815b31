/* Any bytes as headers, split at newlines: Host, Origin, Authorization, x-api-key, Content-Type. What is let
 * through must hold up against simpler rules. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/err.h"
#include "server/gate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static struct oc_str next_line(const uint8_t **p, size_t *n) {
    const uint8_t *nl = *n ? memchr(*p, '\n', *n) : NULL;
    struct oc_str line = {(const char *)*p, nl ? (size_t)(nl - *p) : *n};
    *p += line.n + (nl != NULL);
    *n -= line.n + (nl != NULL);
    return line;
}

static bool holds(struct oc_str s, const char *bytes) {
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] == '\0' || strchr(bytes, s.p[i])) return true;
    return false;
}

static bool has_letter(struct oc_str s) {
    for (size_t i = 0; i < s.n; i++)
        if ((s.p[i] | 32) >= 'a' && (s.p[i] | 32) <= 'z') return true;
    return false;
}

/* A copy of just this size, so that a read past its end is seen. */
static struct oc_str exact(struct oc_str s) {
    char *p = malloc(s.n ? s.n : 1);
    OC_ASSERT(p);
    memcpy(p, s.p, s.n);
    return (struct oc_str){p, s.n};
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static const char *const hosts[] = {"q.example", "*.w.example"};
    static const char *const origins[] = {"https://q.example"};
    struct oc_gate_params p = {.hosts = hosts, .n_hosts = 2, .origins = origins, .n_origins = 1};
    struct oc_gate *g;
    struct oc_errinfo ei;
    OC_ASSERT(oc_gate_open(&p, &g, &ei) == OC_OK);
    struct oc_str lines[5];
    for (int i = 0; i < 5; i++) lines[i] = exact(next_line(&data, &n));
    struct oc_str host = lines[0], origin = lines[1];
    if (oc_gate_host_ok(g, host)) {
        OC_ASSERT(host.n && host.n <= 255 && !holds(host, " \t\r\n@/\\?#%&'\"<>"));
        bool v6 = host.p[0] == '[';
        if (!v6 && has_letter(host)) { /* a name: one of ours at its end, before a port */
            const char *colon = memchr(host.p, ':', host.n);
            size_t end = colon ? (size_t)(colon - host.p) : host.n;
            if (host.p[end - 1] == '.') end--;
            struct oc_str name = {host.p, end};
            OC_ASSERT(end >= 9 && (strncasecmp(name.p + end - 9, "localhost", 9) == 0 ||
                                   strncasecmp(name.p + end - 9, "q.example", 9) == 0 ||
                                   strncasecmp(name.p + end - 9, "w.example", 9) == 0));
        }
    }
    if (origin.n && oc_gate_origin_ok(g, origin, host)) {
        OC_ASSERT(origin.n > 7 && strncasecmp(origin.p, "http", 4) == 0);
        OC_ASSERT(strncasecmp(origin.p, "https://q.example", origin.n) == 0 || host.n > 0);
    }
    uint8_t salt[16];
    OC_ASSERT(oc_gate_key(g, lines[2], lines[3], salt) == 0);
    if (oc_gate_is_json(lines[4])) OC_ASSERT(lines[4].n >= 16);
    for (int i = 0; i < 5; i++) free((char *)lines[i].p);
    oc_gate_close(g);
    return 0;
}
