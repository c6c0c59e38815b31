#include "server/poison.h"

#include <stdlib.h>
#include <string.h>

#include "base/limits.h"

#define KEEP_MS (3600u * 1000u)

struct entry {
    uint8_t digest[32];
    int n_deaths; /* 0: free */
    uint64_t last_ms;
};

struct oc_server_poison {
    struct entry entries[OC_LIMIT_SERVER_POISON];
    int n;
};

enum oc_err oc_server_poison_open(struct oc_server_poison **out, struct oc_errinfo *ei) {
    *out = calloc(1, sizeof **out);
    return *out ? OC_OK : oc_fail(ei, OC_ERR_NOMEM, "no memory for the list of refused pictures");
}

void oc_server_poison_close(struct oc_server_poison *p) {
    free(p);
}

static struct entry *find(const struct oc_server_poison *p, const uint8_t digest[32]) {
    for (int i = 0; p->n && i < OC_LIMIT_SERVER_POISON; i++)
        if (p->entries[i].n_deaths && !memcmp(p->entries[i].digest, digest, 32))
            return (struct entry *)&p->entries[i];
    return NULL;
}

/* A free entry, else the oldest. */
static struct entry *take(struct oc_server_poison *p) {
    struct entry *best = &p->entries[0];
    for (int i = 0; i < OC_LIMIT_SERVER_POISON && best->n_deaths; i++)
        if (!p->entries[i].n_deaths || p->entries[i].last_ms < best->last_ms) best = &p->entries[i];
    p->n += best->n_deaths == 0;
    return best;
}

int oc_server_poison_blame(struct oc_server_poison *p, const uint8_t digest[32], uint64_t now_ms) {
    struct entry *e = find(p, digest);
    if (!e) {
        e = take(p);
        memcpy(e->digest, digest, 32);
        e->n_deaths = 0;
    } else if (now_ms - e->last_ms > KEEP_MS) {
        e->n_deaths = 0;
    }
    e->last_ms = now_ms;
    return ++e->n_deaths;
}

void oc_server_poison_clear(struct oc_server_poison *p, const uint8_t digest[32]) {
    struct entry *e = find(p, digest);
    if (!e) return;
    e->n_deaths = 0;
    p->n--;
}

bool oc_server_poison_refuses(const struct oc_server_poison *p, const uint8_t digest[32], uint64_t now_ms) {
    const struct entry *e = find(p, digest);
    return e && e->n_deaths >= OC_POISON_DEATHS && now_ms - e->last_ms <= KEEP_MS;
}

int oc_server_poison_n(const struct oc_server_poison *p) {
    return p->n;
}
