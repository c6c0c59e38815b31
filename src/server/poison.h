/* server/poison.h - pictures that were at work when a process died.
 *
 * Known by digest: of their bytes while they are decoded, of their pixels while they are encoded or
 * prefilled. The second death in a row makes the picture refused for an hour; a success clears it. Bounded.
 * Loop's thread only. */
#ifndef OC_SERVER_POISON_H
#define OC_SERVER_POISON_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define OC_POISON_DEATHS 2

struct oc_server_poison;

OC_MUST_CHECK enum oc_err oc_server_poison_open(struct oc_server_poison **out, struct oc_errinfo *ei);
void oc_server_poison_close(struct oc_server_poison *p);
/* A process died over it; returns how often in a row now. */
int oc_server_poison_blame(struct oc_server_poison *p, const uint8_t digest[32], uint64_t now_ms);
void oc_server_poison_clear(struct oc_server_poison *p, const uint8_t digest[32]);
bool oc_server_poison_refuses(const struct oc_server_poison *p, const uint8_t digest[32], uint64_t now_ms);
int oc_server_poison_n(const struct oc_server_poison *p); /* entries, refused or not */

#endif
