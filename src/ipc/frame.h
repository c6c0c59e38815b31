/* ipc/frame.h - the 16 bytes before a payload, without any socket.
 *
 * Used by channel.c. Any thread, no state. */
#ifndef OC_IPC_FRAME_H
#define OC_IPC_FRAME_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define OC_IPC_HEAD_BYTES 16

struct oc_ipc_frame_head {
    uint32_t n_bytes; /* of the payload */
    uint16_t type, n_fds;
    uint64_t id;
};

void oc_ipc_frame_write_head(const struct oc_ipc_frame_head *h, uint8_t out[OC_IPC_HEAD_BYTES]);

/* Errors: OC_ERR_FORMAT (a type that is none, more descriptors than a frame may have), OC_ERR_LIMIT (a payload over
 * OC_LIMIT_IPC_FRAME_BYTES). */
OC_MUST_CHECK enum oc_err oc_ipc_frame_read_head(const uint8_t in[OC_IPC_HEAD_BYTES], struct oc_ipc_frame_head *out,
                                                 struct oc_errinfo *ei);

#endif
