/* The listening socket. It is watched with uv_poll and accepted from by hand, because accepting must be able
 * to rest: when the process has no descriptor left, a readable listening socket would keep the loop spinning.
 */
#define _GNU_SOURCE /* accept4 */
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http/conn.h"

enum { BACKLOG = 1024, RETRY_MS = 100 };

/* ---- Accepting ----------------------------------------------------------------------------------------- */

static void on_ready(uv_poll_t *h, int status, int events);

static void on_retry(uv_timer_t *t) {
    struct oc_http_server *s = t->data;
    uv_poll_start(&s->listener, UV_READABLE, on_ready);
}

/* An IPv4 address that came through an IPv6 socket is written as what it is. */
static void peer_name(const struct sockaddr_storage *a, char *name, size_t n) {
    const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)a;
    snprintf(name, n, "unknown");
    if (a->ss_family == AF_INET) {
        inet_ntop(AF_INET, &((const struct sockaddr_in *)a)->sin_addr, name, (socklen_t)n);
    } else if (a->ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&six->sin6_addr)) {
        inet_ntop(AF_INET, six->sin6_addr.s6_addr + 12, name, (socklen_t)n);
    } else if (a->ss_family == AF_INET6) {
        inet_ntop(AF_INET6, &six->sin6_addr, name, (socklen_t)n);
    }
}

uint64_t oc_http_listen_source(const char *peer) {
    unsigned char a[16] = {0};
    uint64_t source = 0;
    if (inet_pton(AF_INET, peer, a + 4) == 1) {
        a[2] = a[3] = 0xff;
    } else if (inet_pton(AF_INET6, peer, a) != 1) {
        return 0;
    }
    for (int i = 0; i < 8; i++) source = source << 8 | a[i];
    return source;
}

/* Walking over a few thousand connections takes less than accepting one. */
static bool has_too_many(const struct oc_http_server *s, const char *peer) {
    const uint64_t source = oc_http_listen_source(peer);
    int n = 0;
    if (s->o.max_connections_per_ip <= 0) return false;
    for (struct oc_http_link *l = s->connections.next; l != &s->connections; l = l->next) {
        const struct oc_http_conn *c = OC_HTTP_CONN_OF(l, link);
        n += !c->overflow && c->source == source;
    }
    return n >= s->o.max_connections_per_ip;
}

static void admit(struct oc_http_server *s, int fd, const struct sockaddr_storage *a) {
    char peer[INET6_ADDRSTRLEN];
    peer_name(a, peer, sizeof(peer));
    bool overflow = s->n_connections >= s->o.max_connections || has_too_many(s, peer);
    if (overflow && s->n_overflow >= OC_LIMIT_HTTP_OVERFLOW_CONNECTIONS) {
        close(fd);
    } else {
        oc_http_conn_open(s, fd, peer, overflow);
    }
}

static bool is_passing(int error) { /* this connection is gone, others may be waiting */
    return error == EINTR || error == ECONNABORTED || error == EPROTO || error == EPERM ||
           error == ENETDOWN || error == EHOSTUNREACH || error == ENETUNREACH || error == EHOSTDOWN ||
           error == ENONET;
}

static void on_ready(uv_poll_t *h, int status, int events) {
    struct oc_http_server *s = h->data;
    (void)status;
    (void)events;
    for (int i = 0; i < OC_LIMIT_HTTP_TURN_ACCEPTS && !s->stopping; i++) {
        struct sockaddr_storage a;
        socklen_t n = sizeof(a);
        int fd = accept4(s->fd, (struct sockaddr *)&a, &n, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            admit(s, fd, &a);
        } else if (errno == EAGAIN) {
            return;
        } else if (!is_passing(errno)) { /* no descriptors, no memory */
            uv_poll_stop(&s->listener);
            uv_timer_start(&s->retry, on_retry, RETRY_MS, 0);
            return;
        }
    }
}

/* ---- Listening ----------------------------------------------------------------------------------------- */

void oc_http_listen_close(struct oc_http_server *s) {
    if (s->fd >= 0) close(s->fd);
    s->fd = -1;
}

static enum oc_err parse_address(const char *host, int port, struct sockaddr_storage *a,
                                 struct oc_errinfo *ei) {
    const char *literal = strcmp(host, "localhost") == 0 ? "127.0.0.1" : host;
    if (port < 0 || port > 65535) return oc_fail(ei, OC_ERR_USAGE, "%d is no port: 0 to 65535", port);
    if (uv_ip4_addr(literal, port, (struct sockaddr_in *)a) == 0) return OC_OK;
    if (uv_ip6_addr(literal, port, (struct sockaddr_in6 *)a) == 0) return OC_OK;
    return oc_fail(ei, OC_ERR_USAGE, "'%s' is no IP address to listen on (such as 127.0.0.1, 0.0.0.0 or ::1)",
                   host);
}

static int port_of(const struct sockaddr_storage *a) {
    return ntohs(a->ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)a)->sin6_port
                                          : ((const struct sockaddr_in *)a)->sin_port);
}

/* Binds and listens; -1 and errno otherwise. */
static int open_socket(struct sockaddr_storage *a) {
    int on = 1, off = 0, fd = socket(a->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    socklen_t n = a->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    if (fd < 0) return -1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0) goto fail;
    if (a->ss_family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)) != 0)
        goto fail;
    if (bind(fd, (struct sockaddr *)a, n) != 0 || listen(fd, BACKLOG) != 0) goto fail;
    n = sizeof(*a);
    if (getsockname(fd, (struct sockaddr *)a, &n) != 0) goto fail;
    return fd;
fail:;
    int why = errno;
    close(fd);
    errno = why;
    return -1;
}

static void or_default(int *v, int otherwise) {
    if (*v <= 0) *v = otherwise;
}

static void fill_options(struct oc_http_options *o) {
    or_default(&o->max_connections, OC_LIMIT_HTTP_CONNECTIONS);
    or_default(&o->header_timeout_ms, OC_LIMIT_HTTP_HEADER_TIMEOUT_MS);
    or_default(&o->body_timeout_ms, OC_LIMIT_HTTP_BODY_TIMEOUT_MS);
    or_default(&o->idle_timeout_ms, OC_LIMIT_HTTP_IDLE_TIMEOUT_MS);
    or_default(&o->write_timeout_ms, OC_LIMIT_HTTP_WRITE_TIMEOUT_MS);
    if (!o->max_head_bytes) o->max_head_bytes = OC_LIMIT_HTTP_HEAD_BYTES;
    if (!o->max_body_bytes) o->max_body_bytes = OC_LIMIT_HTTP_BODY_BYTES;
}

static struct oc_http_server *new_server(uv_loop_t *loop, const struct oc_http_options *o,
                                         const struct oc_http_events *ev) {
    struct oc_http_server *s = calloc(1, sizeof(*s));
    if (!s) return NULL;
    s->loop = loop;
    s->ev = *ev;
    if (o) s->o = *o;
    fill_options(&s->o);
    if (s->o.server_name) {
        OC_ASSERT(!strpbrk(s->o.server_name, "\r\n"));
        s->o.server_name = strdup(s->o.server_name);
        if (!s->o.server_name) {
            oc_http_server_free(s);
            return NULL;
        }
    }
    if (s->o.tls) {
        s->plain_bytes = malloc(OC_LIMIT_HTTP_TLS_RECORD_BYTES);
        if (!s->plain_bytes) {
            oc_http_server_free(s);
            return NULL;
        }
    }
    s->max_bodies_bytes = OC_LIMIT_HTTP_BODIES_BYTES;
    oc_http_link_init(&s->connections);
    oc_http_link_init(&s->deferred);
    return s;
}

/* A client that leaves while it is written to must not end the process. */
static enum oc_err check_sigpipe(struct oc_errinfo *ei) {
    struct sigaction now;
    if (sigaction(SIGPIPE, NULL, &now) == 0 && now.sa_handler == SIG_DFL)
        return oc_fail(ei, OC_ERR_USAGE, "the process must ignore SIGPIPE before it serves HTTP");
    return OC_OK;
}

enum oc_err oc_http_listen(uv_loop_t *loop, const char *host, int port, const struct oc_http_options *o,
                           const struct oc_http_events *ev, struct oc_http_server **out,
                           struct oc_errinfo *ei) {
    struct sockaddr_storage a = {0};
    OC_ASSERT(ev->on_request);
    OC_TRY(parse_address(host, port, &a, ei));
    OC_TRY(check_sigpipe(ei));
    struct oc_http_server *s = new_server(loop, o, ev);
    if (!s) return oc_fail(ei, OC_ERR_NOMEM, "no memory for a server");
    s->fd = open_socket(&a);
    int error = s->fd < 0 ? -errno : uv_poll_init(loop, &s->listener, s->fd);
    if (error != 0) {
        oc_http_listen_close(s);
        oc_http_server_free(s);
        return oc_fail(ei, OC_ERR_IO, "cannot listen on %s port %d: %s", host, port, uv_strerror(error));
    }
    uv_timer_init(loop, &s->retry);
    uv_idle_init(loop, &s->turn);
    s->listener.data = s->retry.data = s->turn.data = s;
    s->n_handles = 3;
    s->port = port_of(&a);
    uv_poll_start(&s->listener, UV_READABLE, on_ready);
    *out = s;
    return OC_OK;
}
