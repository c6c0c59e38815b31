/* server/alerts.h - what an operator should look at: memory, slow decoding, slow loads.
 *
 * Looked at once a second; a change is logged, the current ones stand in /admin/status and as gauges. */
#ifndef OC_SERVER_ALERTS_H
#define OC_SERVER_ALERTS_H

#include "server/server.h"

#define OC_ALERT_MEMORY_WARNING 0.75 /* of the memory budget */
#define OC_ALERT_MEMORY_CRITICAL 0.875

enum oc_server_alert {
    OC_ALERT_MEMORY,
    OC_ALERT_MEMORY_FULL,
    OC_ALERT_SLOW_DECODE,
    OC_ALERT_SLOW_LOAD,
    OC_ALERT_STUCK,
    OC_ALERT_N
};

struct oc_server_alert_state {
    bool on;
    char message[160];
};

struct oc_server_alerts {
    struct oc_server_alert_state v[OC_ALERT_N];
    uint64_t slow_ms; /* when decoding was slow last; 0: never */
    double slow_tok_s;
    char slow_model[64];
};

const char *oc_server_alert_name(enum oc_server_alert a);     /* "memory_warning" */
const char *oc_server_alert_severity(enum oc_server_alert a); /* "warning", "critical" */
void oc_server_alerts_tick(struct oc_server *s);

#endif
