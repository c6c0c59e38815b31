/* server/record.h - what happened, into metrics and the log: the one place that knows both names and events.
 */
#ifndef OC_SERVER_RECORD_H
#define OC_SERVER_RECORD_H

#include "server/server.h"

struct oc_server_request;
struct oc_server_picture;
struct oc_server_model;

void oc_server_record_answer(struct oc_server *s, const char *endpoint, int status, uint64_t received_ns);
void oc_server_record_request_started(struct oc_server_request *r);
/* The end of a completion request; reason: "stop", "length", or why it failed. */
void oc_server_record_request_ended(struct oc_server_request *r, int status, const char *reason);
void oc_server_record_slot(struct oc_server_request *r);
void oc_server_record_first_token(struct oc_server_request *r);
void oc_server_record_token_gap(struct oc_server_request *r, uint64_t gap_ns);
void oc_server_record_fetched(struct oc_server_request *r, const struct oc_server_picture *p);
void oc_server_record_seen(struct oc_server_request *r, const struct oc_server_picture *p);
void oc_server_record_picture_failed(struct oc_server_request *r,
                                     const char *result); /* refused, fetch_failed, crashed */

/* Gauges and the counters that others keep, before a scrape. */
void oc_server_record_gauges(struct oc_server *s);

#endif
