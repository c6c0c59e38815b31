#include "server/link.h"

#include <stdlib.h>
#include <unistd.h>

#define SLICE_NS 1000000u /* of reading before the loop gets a turn */

struct oc_server_link {
    struct oc_server_link_events ev;
    struct oc_ipc_channel *channel;
    uv_poll_t poll;
    uv_timer_t again; /* goes on with frames that were left after a slice */
    int n_handles;
    bool closed, reading;
};

static void on_closed(uv_handle_t *h) {
    struct oc_server_link *l = h->data;
    if (--l->n_handles) return;
    oc_ipc_channel_close(l->channel);
    free(l);
}

void oc_server_link_close(struct oc_server_link *l) {
    if (!l || l->closed) return;
    l->closed = true;
    if (l->reading) return; /* the reader closes it when it comes back */
    uv_close((uv_handle_t *)&l->poll, on_closed);
    uv_close((uv_handle_t *)&l->again, on_closed);
}

static void end(struct oc_server_link *l, const struct oc_errinfo *ei) {
    uv_poll_stop(&l->poll);
    uv_timer_stop(&l->again);
    void (*on_end)(void *, const struct oc_errinfo *) = l->ev.on_end;
    l->ev.on_end = NULL;
    if (on_end) on_end(l->ev.arg, ei);
}

static void on_poll(uv_poll_t *p, int status, int events);

static void watch(struct oc_server_link *l) {
    int events = UV_READABLE | (oc_ipc_channel_wants_write(l->channel) ? UV_WRITABLE : 0);
    if (!l->closed && l->ev.on_end) uv_poll_start(&l->poll, events, on_poll);
}

static void read_slice(struct oc_server_link *l);

static void on_again(uv_timer_t *t) {
    read_slice(t->data);
}

/* True while there may be more. */
static bool read_one(struct oc_server_link *l) {
    struct oc_ipc_frame f;
    struct oc_errinfo ei;
    enum oc_ipc_got got;
    enum oc_err err = oc_ipc_channel_receive(l->channel, 0, &f, &got, &ei);
    if (err || got == OC_IPC_END) {
        end(l, err ? &ei : NULL);
        return false;
    }
    if (got == OC_IPC_NOTHING) return false;
    l->ev.on_frame(l->ev.arg, &f);
    return !l->closed;
}

static void read_slice(struct oc_server_link *l) {
    uint64_t until = oc_clock_ns() + SLICE_NS;
    bool more = true;
    l->reading = true;
    while ((more = read_one(l)) && oc_clock_ns() < until) {
    }
    l->reading = false;
    if (l->closed) {
        l->closed = false;
        oc_server_link_close(l);
    } else if (more) {
        uv_timer_start(&l->again, on_again, 0, 0);
    }
}

void oc_server_link_drain(struct oc_server_link *l) {
    if (l->closed || !l->ev.on_end) return;
    l->reading = true;
    while (read_one(l)) {
    }
    l->reading = false;
    if (!l->closed) return;
    l->closed = false;
    oc_server_link_close(l);
}

static void on_poll(uv_poll_t *p, int status, int events) {
    struct oc_server_link *l = p->data;
    struct oc_errinfo ei;
    if (status == 0 && (events & UV_WRITABLE)) {
        if (oc_ipc_channel_flush(l->channel, &ei)) {
            end(l, &ei);
            return;
        }
        watch(l);
    }
    if (status < 0 || (events & UV_READABLE)) read_slice(l);
}

enum oc_err oc_server_link_open(struct oc_server *s, int socket, const struct oc_server_link_events *ev,
                                struct oc_server_link **out, struct oc_errinfo *ei) {
    struct oc_server_link *l = calloc(1, sizeof *l);
    *out = NULL;
    if (!l) {
        close(socket);
        return oc_fail(ei, OC_ERR_NOMEM, "no memory for a channel");
    }
    enum oc_err err = oc_ipc_channel_open(socket, &l->channel, ei);
    if (!err && uv_poll_init(&s->loop, &l->poll, socket)) {
        oc_ipc_channel_close(l->channel);
        err = oc_fail(ei, OC_ERR_IO, "the loop cannot watch a socket");
    }
    if (err) {
        free(l);
        return err;
    }
    uv_timer_init(&s->loop, &l->again);
    l->ev = *ev;
    l->poll.data = l->again.data = l;
    l->n_handles = 2;
    watch(l);
    *out = l;
    return OC_OK;
}

enum oc_err oc_server_link_send(struct oc_server_link *l, uint16_t type, uint64_t id, const void *payload,
                                size_t n_bytes, const int *fds, int n_fds, struct oc_errinfo *ei) {
    enum oc_err err = oc_ipc_channel_send(l->channel, type, id, payload, n_bytes, fds, n_fds, ei);
    if (!err && oc_ipc_channel_wants_write(l->channel)) watch(l);
    return err;
}
