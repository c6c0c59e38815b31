#include "ipc/frame.h"

#include <string.h>

#include "base/limits.h"
#include "ipc/channel.h"
#include "ipc/messages.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "heads are little-endian");
_Static_assert(sizeof(struct oc_ipc_frame_head) == OC_IPC_HEAD_BYTES, "a head has no padding");

void oc_ipc_frame_write_head(const struct oc_ipc_frame_head *h, uint8_t out[OC_IPC_HEAD_BYTES]) {
    memcpy(out, h, OC_IPC_HEAD_BYTES);
}

enum oc_err oc_ipc_frame_read_head(const uint8_t in[OC_IPC_HEAD_BYTES], struct oc_ipc_frame_head *out,
                                   struct oc_errinfo *ei) {
    memcpy(out, in, OC_IPC_HEAD_BYTES);
    if (out->type == OC_IPC_NONE || out->type >= OC_IPC_N_TYPES)
        return oc_fail(ei, OC_ERR_FORMAT, "a frame of type %u, which is none", out->type);
    if (out->n_fds > OC_IPC_MAX_FDS)
        return oc_fail(ei, OC_ERR_FORMAT, "a frame %s with %u descriptors, at most %d are allowed",
                       oc_ipc_type_name(out->type), out->n_fds, OC_IPC_MAX_FDS);
    if (out->n_bytes > OC_LIMIT_IPC_FRAME_BYTES)
        return oc_fail(ei, OC_ERR_LIMIT, "a frame %s of %u bytes, at most %zu are allowed", oc_ipc_type_name(out->type),
                       out->n_bytes, OC_LIMIT_IPC_FRAME_BYTES);
    return OC_OK;
}
