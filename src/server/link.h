/* server/link.h - a channel to a child, driven by the loop.
 *
 * Reads whole frames as they come, in slices of a millisecond, and flushes what waits to be written. Owned by
 * a worker or a place of the image pool. Loop's thread only. */
#ifndef OC_SERVER_LINK_H
#define OC_SERVER_LINK_H

#include "ipc/channel.h"
#include "server/server.h"

struct oc_server_link;

struct oc_server_link_events {
    void *arg;
    /* A frame; its descriptors are the callee's where it sets them to -1. May close the link. */
    void (*on_frame)(void *arg, struct oc_ipc_frame *f);
    /* The other side closed, or broke the rules (ei says how; NULL for a plain end). Called once; nothing
     * follows. */
    void (*on_end)(void *arg, const struct oc_errinfo *ei);
};

/* Takes over the socket, also on error. Errors: OC_ERR_NOMEM, OC_ERR_IO. */
OC_MUST_CHECK enum oc_err oc_server_link_open(struct oc_server *s, int socket,
                                              const struct oc_server_link_events *ev,
                                              struct oc_server_link **out, struct oc_errinfo *ei);
/* Errors: those of oc_ipc_channel_send. fds are taken over in any case. */
OC_MUST_CHECK enum oc_err oc_server_link_send(struct oc_server_link *l, uint16_t type, uint64_t id,
                                              const void *payload, size_t n_bytes, const int *fds, int n_fds,
                                              struct oc_errinfo *ei);
/* Takes the frames that are there already, before a dead process is written off. Not from a callback of the
 * link. */
void oc_server_link_drain(struct oc_server_link *l);
/* No callback follows; the memory goes once the loop has closed the handles. NULL is allowed. */
void oc_server_link_close(struct oc_server_link *l);

#endif
