/* ipc/channel.h - framed messages and file descriptors over a connected AF_UNIX stream socket.
 *
 * Used by the orchestrator (non-blocking, driven by its loop) and by workers (blocking or polled). A frame is
 * 16 bytes of head {u32 payload bytes, u16 type, u16 n_fds, u64 id}, little-endian, and its payload; its
 * descriptors travel with its first byte (SCM_RIGHTS). A payload is at most OC_LIMIT_IPC_FRAME_BYTES, a frame
 * carries at most OC_IPC_MAX_FDS descriptors. One thread at a time. */
#ifndef OC_IPC_CHANNEL_H
#define OC_IPC_CHANNEL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

#define OC_IPC_MAX_FDS 64

struct oc_ipc_channel;

struct oc_ipc_frame {
    uint16_t type; /* enum oc_ipc_type of ipc/messages.h */
    uint64_t id;   /* of the request it belongs to; 0: none */
    const uint8_t *payload;
    size_t n_bytes;
    int *fds; /* the channel's own list: set an entry to -1 to keep that descriptor, the rest is closed by the next
               * receive */
    int n_fds;
};

/* Takes over the socket. Errors: OC_ERR_NOMEM. */
OC_MUST_CHECK enum oc_err oc_ipc_channel_open(int fd, struct oc_ipc_channel **out, struct oc_errinfo *ei);
void oc_ipc_channel_close(struct oc_ipc_channel *c); /* NULL is allowed */
int oc_ipc_channel_fd(const struct oc_ipc_channel *c);

/* Queues a frame and sends what the socket takes at once; never blocks. fds are duplicated or sent before the
 * call returns only if nothing had to wait: the channel takes them over in any case and closes them. Errors:
 * OC_ERR_LIMIT (payload or queue over its maximum), OC_ERR_NOMEM, OC_ERR_IO (the other side is gone). */
OC_MUST_CHECK enum oc_err oc_ipc_channel_send(struct oc_ipc_channel *c, uint16_t type, uint64_t id,
                                              const void *payload, size_t n_bytes, const int *fds, int n_fds,
                                              struct oc_errinfo *ei);
/* True while queued bytes wait: poll for writing and call flush. */
bool oc_ipc_channel_wants_write(const struct oc_ipc_channel *c);
size_t oc_ipc_channel_queued_bytes(const struct oc_ipc_channel *c);
OC_MUST_CHECK enum oc_err oc_ipc_channel_flush(struct oc_ipc_channel *c, struct oc_errinfo *ei);

enum oc_ipc_got { OC_IPC_FRAME, OC_IPC_NOTHING, OC_IPC_END };

/* The next whole frame, valid until the next call. wait_ms: 0 does not block, -1 waits without limit or until a
 * signal comes. Where it waits it also sends what is queued. NOTHING:
 * none (yet); END: the other side closed, or died within a frame. Errors, after which no more can be received:
 * OC_ERR_FORMAT (a lying frame), OC_ERR_LIMIT, OC_ERR_NOMEM, OC_ERR_IO. */
OC_MUST_CHECK enum oc_err oc_ipc_channel_receive(struct oc_ipc_channel *c, int wait_ms, struct oc_ipc_frame *out,
                                                 enum oc_ipc_got *got, struct oc_errinfo *ei);

#endif
