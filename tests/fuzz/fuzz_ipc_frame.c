/* Any bytes as what the other process sends, in pieces whose sizes the first byte sets. What comes out as frames must
 * be those bytes again. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/limits.h"
#include "ipc/channel.h"
#include "ipc/frame.h"
#include "ipc/messages.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* Takes all frames that are there; adds their bytes to *n_seen. False after a lying one. */
static int drain(struct oc_ipc_channel *c, const uint8_t *data, size_t n_sent, size_t *n_seen) {
    struct oc_ipc_frame f;
    struct oc_errinfo ei;
    enum oc_ipc_got got;
    for (;;) {
        if (oc_ipc_channel_receive(c, 0, &f, &got, &ei) != OC_OK) {
            OC_ASSERT(ei.msg[0] && got == OC_IPC_NOTHING);
            return 0;
        }
        if (got != OC_IPC_FRAME) return 1;
        const struct oc_ipc_frame_head h = {(uint32_t)f.n_bytes, f.type, (uint16_t)f.n_fds, f.id};
        uint8_t head[OC_IPC_HEAD_BYTES];
        oc_ipc_frame_write_head(&h, head);
        OC_ASSERT(f.type > OC_IPC_NONE && f.type < OC_IPC_N_TYPES && f.n_fds == 0);
        OC_ASSERT(*n_seen + sizeof head + f.n_bytes <= n_sent && !memcmp(data + *n_seen, head, sizeof head));
        OC_ASSERT(f.n_bytes == 0 || !memcmp(data + *n_seen + sizeof head, f.payload, f.n_bytes));
        *n_seen += sizeof head + f.n_bytes;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    int fds[2];
    struct oc_ipc_channel *c;
    struct oc_errinfo ei;
    if (n < 1 || n > 32768 || socketpair(AF_UNIX, SOCK_STREAM, 0, fds) < 0) return 0;
    const size_t piece = data[0] ? data[0] : 4096;
    size_t n_seen = 0;
    OC_ASSERT(oc_ipc_channel_open(fds[1], &c, &ei) == OC_OK);
    data++, n--;
    for (size_t at = 0; at < n;) {
        const size_t k = n - at < piece ? n - at : piece;
        if (send(fds[0], data + at, k, MSG_NOSIGNAL) != (ssize_t)k) break;
        at += k;
        if (!drain(c, data, at, &n_seen)) break;
    }
    oc_ipc_channel_close(c);
    close(fds[0]);
    return 0;
}
