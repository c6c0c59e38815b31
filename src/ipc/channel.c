/* Reading never goes past the frame at hand: first the head, then exactly its payload. So whatever descriptors come
 * with those bytes belong to that frame, however the kernel cut the stream. */
#include "ipc/channel.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/limits.h"
#include "ipc/frame.h"
#include "ipc/messages.h"

#define KEPT_PAYLOAD_BYTES (256 * OC_KIB) /* a larger buffer is given back after its frame */

/* A frame, or the rest of one, that waits for the socket. */
struct waiting {
    struct waiting *next;
    size_t n_bytes, n_sent; /* of data */
    int n_fds;              /* not yet sent; they go with the next byte */
    int fds[OC_IPC_MAX_FDS];
    uint8_t data[];
};

struct oc_ipc_channel {
    int fd;
    struct waiting *first, *last;
    size_t queued_bytes;
    /* the frame that is arriving */
    uint8_t head[OC_IPC_HEAD_BYTES];
    struct oc_ipc_frame_head h;
    size_t n_head, n_payload; /* bytes there */
    uint8_t *payload;
    size_t payload_cap;
    int fds[OC_IPC_MAX_FDS];
    int n_fds;
    bool given;  /* the descriptors are those of the last frame handed out; -1: kept by its receiver */
    bool broken; /* a lying frame came: where the next one starts is unknown */
};

static void close_all(const int *fds, int n) {
    for (int i = 0; i < n; i++)
        if (fds[i] >= 0) close(fds[i]);
}

enum oc_err oc_ipc_channel_open(int fd, struct oc_ipc_channel **out, struct oc_errinfo *ei) {
    struct oc_ipc_channel *c = calloc(1, sizeof *c);
    *out = c;
    if (!c) {
        close(fd);
        return oc_fail(ei, OC_ERR_NOMEM, "no memory for a channel between processes");
    }
    c->fd = fd;
    return OC_OK;
}

static void drop_first(struct oc_ipc_channel *c) {
    struct waiting *w = c->first;
    c->queued_bytes -= w->n_bytes - w->n_sent;
    c->first = w->next;
    if (!c->first) c->last = NULL;
    close_all(w->fds, w->n_fds);
    free(w);
}

/* Closes what the receiver of the last frame did not keep. */
static void end_given(struct oc_ipc_channel *c) {
    if (!c->given) return;
    close_all(c->fds, c->n_fds);
    c->given = false;
    c->n_fds = 0;
}

void oc_ipc_channel_close(struct oc_ipc_channel *c) {
    if (!c) return;
    while (c->first) drop_first(c);
    close_all(c->fds, c->n_fds);
    close(c->fd);
    free(c->payload);
    free(c);
}

int oc_ipc_channel_fd(const struct oc_ipc_channel *c) {
    return c->fd;
}

/* ---- Sending ---------------------------------------------------------------------------------------------- */

/* Hands bytes to the socket, the descriptors with the first of them. *n_sent may be 0. */
static enum oc_err send_some(int fd, const struct iovec *iov, int n_iov, const int *fds, int n_fds, size_t *n_sent,
                             struct oc_errinfo *ei) {
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(OC_IPC_MAX_FDS * sizeof(int))];
    } control;
    struct msghdr m = {.msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)n_iov};
    *n_sent = 0;
    if (n_fds > 0) {
        memset(&control, 0, sizeof control);
        m.msg_control = control.bytes;
        m.msg_controllen = CMSG_SPACE((size_t)n_fds * sizeof(int));
        struct cmsghdr *h = CMSG_FIRSTHDR(&m);
        h->cmsg_level = SOL_SOCKET;
        h->cmsg_type = SCM_RIGHTS;
        h->cmsg_len = CMSG_LEN((size_t)n_fds * sizeof(int));
        memcpy(CMSG_DATA(h), fds, (size_t)n_fds * sizeof(int));
    }
    for (;;) {
        ssize_t n = sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n >= 0) {
            *n_sent = (size_t)n;
            return OC_OK;
        }
        if (errno == EAGAIN || errno == EWOULDBLOCK) return OC_OK;
        if (errno == EINTR) continue;
        return oc_fail(ei, OC_ERR_IO, "nothing can be sent to the other process: %s", strerror(errno));
    }
}

/* Queues what was not sent. The descriptors are the queue's from now on. */
static enum oc_err queue(struct oc_ipc_channel *c, const uint8_t *head, const void *payload, size_t n_bytes,
                         size_t n_sent, const int *fds, int n_fds, struct oc_errinfo *ei) {
    const size_t n_all = OC_IPC_HEAD_BYTES + n_bytes;
    struct waiting *w = malloc(sizeof *w + n_all);
    if (!w) return oc_fail(ei, OC_ERR_NOMEM, "no memory for a message of %zu bytes", n_bytes);
    *w = (struct waiting){.n_bytes = n_all, .n_sent = n_sent, .n_fds = n_fds};
    memcpy(w->data, head, OC_IPC_HEAD_BYTES);
    if (n_bytes) memcpy(w->data + OC_IPC_HEAD_BYTES, payload, n_bytes);
    if (n_fds) memcpy(w->fds, fds, (size_t)n_fds * sizeof *fds);
    if (c->last) c->last->next = w;
    else c->first = w;
    c->last = w;
    c->queued_bytes += n_all - n_sent;
    return OC_OK;
}

static enum oc_err send_or_queue(struct oc_ipc_channel *c, const struct oc_ipc_frame_head *h, const void *payload,
                                 const int *fds, struct oc_errinfo *ei) {
    uint8_t head[OC_IPC_HEAD_BYTES];
    size_t n_sent = 0;
    int n_fds = h->n_fds;
    oc_ipc_frame_write_head(h, head);
    if (!c->first) {
        const struct iovec iov[2] = {{head, sizeof head}, {(void *)payload, h->n_bytes}};
        enum oc_err err = send_some(c->fd, iov, h->n_bytes ? 2 : 1, fds, n_fds, &n_sent, ei);
        if (err || n_sent > 0) {
            close_all(fds, n_fds);
            n_fds = 0;
        }
        if (err || n_sent == sizeof head + h->n_bytes) return err;
    }
    enum oc_err err = queue(c, head, payload, h->n_bytes, n_sent, fds, n_fds, ei);
    if (err) close_all(fds, n_fds);
    if (err && n_sent > 0) shutdown(c->fd, SHUT_RDWR); /* half a frame is out: nothing can follow it */
    return err;
}

enum oc_err oc_ipc_channel_send(struct oc_ipc_channel *c, uint16_t type, uint64_t id, const void *payload,
                                size_t n_bytes, const int *fds, int n_fds, struct oc_errinfo *ei) {
    OC_ASSERT(n_fds >= 0 && n_fds <= OC_IPC_MAX_FDS && type > OC_IPC_NONE && type < OC_IPC_N_TYPES);
    enum oc_err err = OC_OK;
    if (n_bytes > OC_LIMIT_IPC_FRAME_BYTES)
        err = oc_fail(ei, OC_ERR_LIMIT, "a message %s of %zu bytes, at most %zu are allowed", oc_ipc_type_name(type),
                      n_bytes, OC_LIMIT_IPC_FRAME_BYTES);
    else if (c->first && c->queued_bytes + OC_IPC_HEAD_BYTES + n_bytes > OC_LIMIT_IPC_QUEUE_BYTES)
        err = oc_fail(ei, OC_ERR_LIMIT, "%zu MiB wait for the other process, which does not read",
                      c->queued_bytes / OC_MIB);
    if (err) {
        close_all(fds, n_fds);
        return err;
    }
    const struct oc_ipc_frame_head h = {(uint32_t)n_bytes, type, (uint16_t)n_fds, id};
    return send_or_queue(c, &h, payload, fds, ei);
}

bool oc_ipc_channel_wants_write(const struct oc_ipc_channel *c) {
    return c->first != NULL;
}

size_t oc_ipc_channel_queued_bytes(const struct oc_ipc_channel *c) {
    return c->queued_bytes;
}

enum oc_err oc_ipc_channel_flush(struct oc_ipc_channel *c, struct oc_errinfo *ei) {
    while (c->first) {
        struct waiting *w = c->first;
        const struct iovec iov = {w->data + w->n_sent, w->n_bytes - w->n_sent};
        size_t n;
        enum oc_err err = send_some(c->fd, &iov, 1, w->fds, w->n_fds, &n, ei);
        if (err) {
            while (c->first) drop_first(c); /* nobody is there to read it */
            return err;
        }
        if (n == 0) return OC_OK;
        close_all(w->fds, w->n_fds);
        w->n_fds = 0;
        w->n_sent += n;
        c->queued_bytes -= n;
        if (w->n_sent == w->n_bytes) drop_first(c);
    }
    return OC_OK;
}

/* ---- Receiving -------------------------------------------------------------------------------------------- */

static enum oc_err lying(struct oc_ipc_channel *c, enum oc_err err) {
    c->broken = true;
    close_all(c->fds, c->n_fds);
    c->n_fds = 0;
    return err;
}

/* Takes the descriptors of one recvmsg; those there is no room for are closed. */
static enum oc_err take_fds(struct oc_ipc_channel *c, struct msghdr *m, struct oc_errinfo *ei) {
    bool too_many = (m->msg_flags & MSG_CTRUNC) != 0;
    for (struct cmsghdr *h = CMSG_FIRSTHDR(m); h; h = CMSG_NXTHDR(m, h)) {
        if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS) continue;
        const size_t n = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(h) + i * sizeof fd, sizeof fd);
            if (c->n_fds < OC_IPC_MAX_FDS) {
                c->fds[c->n_fds++] = fd;
                continue;
            }
            close(fd);
            too_many = true;
        }
    }
    if (!too_many) return OC_OK;
    return oc_fail(ei, OC_ERR_FORMAT, "more descriptors came with a frame than this process can take");
}

/* One recvmsg. *n is 0 with *got NOTHING (nothing there) or END. */
static enum oc_err receive_some(struct oc_ipc_channel *c, void *p, size_t want, size_t *n, enum oc_ipc_got *got,
                                struct oc_errinfo *ei) {
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(OC_IPC_MAX_FDS * sizeof(int))];
    } control;
    struct iovec iov = {p, want};
    struct msghdr m = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    ssize_t r;
    do r = recvmsg(c->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (r < 0 && errno == EINTR);
    *n = r > 0 ? (size_t)r : 0;
    *got = r > 0 ? OC_IPC_FRAME : OC_IPC_END;
    if (r > 0) return take_fds(c, &m, ei);
    if (r == 0 || errno == ECONNRESET) return OC_OK;
    *got = OC_IPC_NOTHING;
    if (errno == EAGAIN || errno == EWOULDBLOCK) return OC_OK;
    return oc_fail(ei, OC_ERR_IO, "nothing can be received from the other process: %s", strerror(errno));
}

static enum oc_err make_room(struct oc_ipc_channel *c, struct oc_errinfo *ei) {
    const size_t want = c->h.n_bytes ? c->h.n_bytes : 1;
    if (c->payload_cap >= want && (c->payload_cap <= KEPT_PAYLOAD_BYTES || want > KEPT_PAYLOAD_BYTES)) return OC_OK;
    const size_t cap = want < 4 * OC_KIB ? 4 * OC_KIB : want;
    free(c->payload);
    c->payload = malloc(cap);
    c->payload_cap = c->payload ? cap : 0;
    if (c->payload) return OC_OK;
    return oc_fail(ei, OC_ERR_NOMEM, "no memory for a message of %u bytes", c->h.n_bytes);
}

/* Moves on by one recvmsg; *whole when the frame is complete. */
static enum oc_err advance(struct oc_ipc_channel *c, enum oc_ipc_got *got, bool *whole, struct oc_errinfo *ei) {
    size_t n;
    *whole = false;
    if (c->n_head < OC_IPC_HEAD_BYTES) {
        OC_TRY(receive_some(c, c->head + c->n_head, OC_IPC_HEAD_BYTES - c->n_head, &n, got, ei));
        c->n_head += n;
        if (c->n_head < OC_IPC_HEAD_BYTES) return OC_OK;
        OC_TRY(oc_ipc_frame_read_head(c->head, &c->h, ei));
        OC_TRY(make_room(c, ei));
        c->n_payload = 0;
    } else {
        OC_TRY(receive_some(c, c->payload + c->n_payload, c->h.n_bytes - c->n_payload, &n, got, ei));
        c->n_payload += n;
    }
    *whole = c->n_payload == c->h.n_bytes;
    return OC_OK;
}

static enum oc_err hand_out(struct oc_ipc_channel *c, struct oc_ipc_frame *out, struct oc_errinfo *ei) {
    if (c->n_fds != c->h.n_fds)
        return oc_fail(ei, OC_ERR_FORMAT, "a frame %s of %u descriptors came with %d", oc_ipc_type_name(c->h.type),
                       c->h.n_fds, c->n_fds);
    *out = (struct oc_ipc_frame){
        .type = c->h.type, .id = c->h.id, .payload = c->payload, .n_bytes = c->h.n_bytes, .fds = c->fds, .n_fds = c->n_fds};
    c->given = true;
    c->n_head = 0;
    return OC_OK;
}

/* Waits for bytes, sending what is queued meanwhile; false when the time is over or a signal came. */
static bool wait_for_bytes(struct oc_ipc_channel *c, int wait_ms, uint64_t start_ns) {
    for (;;) {
        struct pollfd p = {c->fd, (short)(POLLIN | (c->first ? POLLOUT : 0)), 0};
        int left_ms = -1;
        if (wait_ms >= 0) {
            const double passed_ms = oc_clock_ms_since(start_ns);
            if (passed_ms >= wait_ms) return false;
            left_ms = wait_ms - (int)passed_ms;
        }
        if (poll(&p, 1, left_ms) <= 0) return false;
        if (p.revents & ~POLLOUT) return true;
        struct oc_errinfo ei;
        if (oc_ipc_channel_flush(c, &ei) != OC_OK) return true; /* the end is about to be read */
    }
}

enum oc_err oc_ipc_channel_receive(struct oc_ipc_channel *c, int wait_ms, struct oc_ipc_frame *out,
                                   enum oc_ipc_got *got, struct oc_errinfo *ei) {
    const uint64_t start_ns = wait_ms > 0 ? oc_clock_ns() : 0;
    end_given(c);
    *got = OC_IPC_NOTHING;
    if (c->broken) return oc_fail(ei, OC_ERR_FORMAT, "a broken frame came before: nothing more is read from the other process");
    for (;;) {
        bool whole;
        enum oc_err err = advance(c, got, &whole, ei);
        if (!err && whole) err = hand_out(c, out, ei);
        if (err) {
            *got = OC_IPC_NOTHING;
            return lying(c, err);
        }
        if (whole || *got == OC_IPC_END) return OC_OK;
        if (*got == OC_IPC_FRAME) continue;
        if (wait_ms == 0 || !wait_for_bytes(c, wait_ms, start_ns)) return OC_OK;
    }
}
