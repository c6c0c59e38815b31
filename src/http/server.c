/* A server: its list of connections, its clock, its end. Listening is listen.c. */
#include "http/conn.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int oc_http_server_port(const struct oc_http_server *s) {
    return s->port;
}

int oc_http_server_n_connections(const struct oc_http_server *s) {
    return s->n_connections;
}

/* IMF-fixdate (RFC 9110 section 5.6.7), whatever the locale. */
const char *oc_http_server_date(struct oc_http_server *s) {
    static const char days[] = "SunMonTueWedThuFriSat", months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    time_t now = time(NULL);
    struct tm t;
    if (s->date[0] && now == s->date_s) return s->date;
    if (!gmtime_r(&now, &t)) return "Thu, 01 Jan 1970 00:00:00 GMT";
    snprintf(s->date, sizeof(s->date), "%.3s, %02d %.3s %04d %02d:%02d:%02d GMT", days + 3 * t.tm_wday,
             t.tm_mday, months + 3 * t.tm_mon, t.tm_year + 1900, t.tm_hour, t.tm_min, t.tm_sec);
    s->date_s = now;
    return s->date;
}

void oc_http_server_free(struct oc_http_server *s) {
    free((char *)s->o.server_name);
    free(s->plain_bytes);
    free(s);
}

void oc_http_server_release(struct oc_http_server *s) {
    if (--s->n_handles > 0) return;
    void (*done)(void *) = s->done;
    void *arg = s->done_arg;
    oc_http_server_free(s);
    if (done) done(arg);
}

static void on_closed(uv_handle_t *h) {
    oc_http_server_release(h->data);
}

static void close_all(struct oc_http_server *s) {
    while (!oc_http_link_alone(&s->connections))
        oc_http_conn_close(OC_HTTP_CONN_OF(s->connections.next, link));
    uv_close((uv_handle_t *)&s->retry, on_closed);
    uv_close((uv_handle_t *)&s->turn, on_closed);
}

static void on_turn(uv_idle_t *h) {
    struct oc_http_server *s = h->data;
    struct oc_http_link now; /* what is deferred from here on has its turn next time */
    uv_idle_stop(h);
    s->n_shakes = 0;
    if (s->closing) {
        close_all(s);
        return;
    }
    oc_http_link_init(&now);
    oc_http_link_add(&s->deferred, &now);
    oc_http_link_remove(&s->deferred);
    while (!oc_http_link_alone(&now)) {
        struct oc_http_conn *c = OC_HTTP_CONN_OF(now.next, deferred);
        oc_http_link_remove(&c->deferred);
        oc_http_conn_advance(c);
    }
}

void oc_http_server_wake(struct oc_http_server *s) {
    uv_idle_start(&s->turn, on_turn);
}

void oc_http_server_stop_accepting(struct oc_http_server *s) {
    if (!s->stopping) {
        s->stopping = true;
        uv_timer_stop(&s->retry);
        uv_close((uv_handle_t *)&s->listener, on_closed);
        oc_http_listen_close(s);
    }
    struct oc_http_link *l = s->connections.next;
    while (l != &s->connections) {
        struct oc_http_conn *c = OC_HTTP_CONN_OF(l, link);
        l = l->next;
        oc_http_conn_close_idle(c);
    }
}

void oc_http_server_close(struct oc_http_server *s, void (*done)(void *arg), void *arg) {
    OC_ASSERT(!s->closing);
    oc_http_server_stop_accepting(s);
    s->closing = true;
    s->done = done;
    s->done_arg = arg;
    oc_http_server_wake(s); /* not here: on_end must not be called inside a call of the user's */
}
