/* http/conn.h - connections of a server: what the files of this room share. Internal to the room.
 *
 * A connection reads all the time. Its input goes through the head, the body and, while a request is being
 * answered, into `surplus`. No callback of the user's runs inside a call that the user makes: what an answer
 * sets off (the end of the exchange, the next pipelined request, the death of the connection) happens when
 * the call is over, at the end of the input that is being worked on or in the loop's next turn (`deferred`).
 */
#ifndef OC_HTTP_CONN_H
#define OC_HTTP_CONN_H

#include "base/limits.h"
#include "http/body.h"
#include "http/head.h"
#include "http/tls_session.h"

/* Circular list; an element alone, and an empty list, points at itself. */
struct oc_http_link {
    struct oc_http_link *prev, *next;
};

struct oc_http_server {
    uv_loop_t *loop;
    struct oc_http_options o; /* with the defaults filled in; server_name is owned */
    struct oc_http_events ev;
    uv_poll_t listener;
    uv_timer_t retry; /* accepting rests until then: no descriptors were left */
    uv_idle_t turn;   /* active while something is deferred */
    int fd, port;     /* fd is -1 once the server has stopped accepting */
    int n_connections, n_overflow;
    int n_shakes;                          /* steps of handshakes in this turn of the loop */
    int n_handles;                         /* handles and connections not yet closed */
    size_t bodies_bytes, max_bodies_bytes; /* of all exchanges, and their maximum */
    bool stopping, closing;
    struct oc_http_link connections, deferred;
    void (*done)(void *arg);
    void *done_arg;
    int64_t date_s; /* the second that `date` tells */
    char date[32];
    char read_bytes[OC_LIMIT_HTTP_READ_BYTES]; /* a read is copied or worked on before the next one */
    char *plain_bytes; /* with TLS: OC_LIMIT_HTTP_TLS_RECORD_BYTES for what was decrypted, as above */
};

enum oc_http_phase { OC_HTTP_OPEN, OC_HTTP_LINGERING, OC_HTTP_CLOSED };

struct oc_http_conn {
    uv_tcp_t tcp;
    uv_timer_t timer; /* the one deadline of the connection's state */
    uv_write_t write;
    uv_shutdown_t shutdown;
    struct oc_http_link link, deferred;
    struct oc_http_server *server;
    struct oc_http_tls_session *tls; /* NULL on a connection without TLS */
    struct oc_http_exchange *x;   /* the request being read or answered, or NULL */
    struct oc_buf surplus;        /* input after it */
    struct oc_buf out, in_flight; /* output: waiting, and given to the loop */
    size_t n_sealed;              /* with TLS: bytes of `out` that are encrypted and gone */
    size_t last_left;             /* output that was left at the last look, to see progress */
    size_t n_drained;             /* input thrown away after a refusal */
    int n_stalled;                /* looks without progress */
    int n_turn;                   /* requests answered in this turn of the loop */
    uint64_t turn_ms;             /* and when that was */
    uint8_t phase, n_handles;
    bool busy;     /* its input is being worked on: nothing needs to be deferred */
    bool writing;  /* in_flight is with the loop */
    bool broken;   /* to be closed as soon as no call of the user's is running */
    bool rest;     /* reading rests for one turn, while no request runs */
    bool overflow; /* over the maximum of connections: 503 and gone */
    bool reset;    /* to be closed with RST: the end of a stream without framing must be told from its loss */
    char peer[46];
    uint64_t source; /* of oc_http_listen_source(peer) */
};

enum oc_http_in { OC_HTTP_IN_HEAD, OC_HTTP_IN_BODY, OC_HTTP_IN_DONE };
enum oc_http_out { OC_HTTP_OUT_NONE, OC_HTTP_OUT_STREAM, OC_HTTP_OUT_DONE };

struct oc_http_exchange {
    struct oc_http_conn *c;
    struct oc_http_head head;
    struct oc_http_body body;
    struct oc_http_request request;
    size_t body_bytes;     /* of the body, as counted in the server's bodies_bytes */
    struct oc_buf headers; /* fields the user adds to the answer */
    void *user;
    uint8_t in, out;
    bool seen;          /* on_request was called: on_end is due */
    bool close;         /* the connection closes after the answer */
    bool close_refused; /* it does so when the request is refused before its body is read */
    bool aborted;       /* the answer ends without being whole */
    bool begun;         /* the answer is a stream */
    bool chunked;       /* the answer is */
    bool no_body;       /* the answer has none: HEAD, 204, 304 */
    bool high;          /* on_drain is due */
};

/* ---- conn.c: a connection's life ----------------------------------------------------------------------- */

/* Takes over an accepted socket; closes it when that fails. overflow: to be refused. */
void oc_http_conn_open(struct oc_http_server *s, int fd, const char *peer, bool overflow);

/* Closes at once; an exchange that was seen ends unfinished. Not inside a call of the user's. */
void oc_http_conn_close(struct oc_http_conn *c);

/* Ends what has ended and goes on with pipelined input. Not inside a call of the user's. */
void oc_http_conn_advance(struct oc_http_conn *c);

/* Has advance called soon, unless it will be anyway. */
void oc_http_conn_defer(struct oc_http_conn *c);

/* Ends the exchange if it is over, and the connection if that is. As above. */
void oc_http_conn_settle(struct oc_http_conn *c);

/* Closes after the last output: the sending side first. Not inside a call of the user's. */
void oc_http_conn_linger(struct oc_http_conn *c);

/* Tells a connection over the maximum so. As above. */
void oc_http_conn_refuse_overflow(struct oc_http_conn *c);

/* Closes it if no request has begun. */
void oc_http_conn_close_idle(struct oc_http_conn *c);

/* Counts input that is thrown away; past the limit no more is read. */
void oc_http_conn_drain(struct oc_http_conn *c, size_t n);

/* Sets the timer to what the connection now waits for. */
void oc_http_conn_rearm(struct oc_http_conn *c);

/* ---- input.c: bytes to requests ------------------------------------------------------------------------ */

/* Works on bytes that came. */
void oc_http_input(struct oc_http_conn *c, const char *p, size_t n);

/* Answers with an error of the room's own; then the connection closes. */
void oc_http_input_refuse(struct oc_http_conn *c, int status, const char *message);

void oc_http_exchange_free(struct oc_http_exchange *x);

/* ---- secure.c: a connection with TLS, between the socket and input.c, output.c ------------------------- */

/* Works on bytes that came from the wire: the handshake, then requests. */
void oc_http_secure_input(struct oc_http_conn *c, const char *p, size_t n);

/* Encrypts the next piece of what waits in `out`; all that is for the wire is in tls->out then. False when
 * that failed. */
bool oc_http_secure_seal(struct oc_http_conn *c);

/* Says close_notify, after all output that waits. */
void oc_http_secure_bye(struct oc_http_conn *c);

/* True while nothing may be read: its handshake has to wait for the loop's next turn. */
bool oc_http_secure_must_wait(const struct oc_http_conn *c);

/* True while the handshake is not done. */
bool oc_http_secure_is_shaking(const struct oc_http_conn *c);

/* Tells the user of a handshake that came to nothing, if it had begun. */
void oc_http_secure_lost(struct oc_http_conn *c, enum oc_http_tls_failure failure, const char *reason);

/* ---- output.c: bytes to the socket --------------------------------------------------------------------- */

/* Sends what the socket takes and copies the rest, which may make up to max_bytes with what already waits;
 * past that, or when the client is gone, the connection is marked broken. */
void oc_http_output(struct oc_http_conn *c, const uv_buf_t *bufs, unsigned n_bufs, size_t max_bytes);

/* With TLS: sends what waits, also what TLS itself has to say. A write under way goes on with it itself. */
void oc_http_output_flush(struct oc_http_conn *c);

/* Bytes that wait to be sent. */
size_t oc_http_output_left(const struct oc_http_conn *c);

/* The timer looks at the progress of waiting output so often per write_timeout_ms. oc_http_output_tick: false
 * when there was none in that time. */
enum { OC_HTTP_OUTPUT_TICKS = 4 };
void oc_http_output_tick_start(struct oc_http_conn *c);
bool oc_http_output_tick(struct oc_http_conn *c);

/* ---- respond.c ----------------------------------------------------------------------------------------- */

/* The answer to a status of the room's own, with the body of the user's hook. */
void oc_http_respond_error(struct oc_http_exchange *x, int status, const char *message);

/* Appends the answer's head; n_body is ignored when the body's length is not known. */
enum oc_http_length { OC_HTTP_LENGTH_KNOWN, OC_HTTP_LENGTH_CHUNKED, OC_HTTP_LENGTH_UNTIL_CLOSE };
void oc_http_respond_head(struct oc_http_exchange *x, int status, const char *content_type,
                          enum oc_http_length length, size_t n_body, struct oc_buf *out);

/* ---- server.c ------------------------------------------------------------------------------------------ */

/* The Date field's value for now. */
const char *oc_http_server_date(struct oc_http_server *s);

/* Has the deferred connections advanced in the loop's next turn. */
void oc_http_server_wake(struct oc_http_server *s);

/* Whom connections are counted for: an IPv4 address, or the /64 network of an IPv6 one, since whoever has one address there
 * has them all (listen.c). */
uint64_t oc_http_listen_source(const char *peer);

/* Closes the listening socket (listen.c). */
void oc_http_listen_close(struct oc_http_server *s);

/* Frees the memory of one that has no handles. */
void oc_http_server_free(struct oc_http_server *s);

/* One handle or connection less; frees the server after the last. */
void oc_http_server_release(struct oc_http_server *s);

/* ---- Lists --------------------------------------------------------------------------------------------- */

static inline void oc_http_link_init(struct oc_http_link *l) {
    l->prev = l->next = l;
}

static inline bool oc_http_link_alone(const struct oc_http_link *l) {
    return l->next == l;
}

static inline void oc_http_link_remove(struct oc_http_link *l) {
    l->prev->next = l->next;
    l->next->prev = l->prev;
    oc_http_link_init(l);
}

/* At the end of the list. */
static inline void oc_http_link_add(struct oc_http_link *list, struct oc_http_link *l) {
    l->prev = list->prev;
    l->next = list;
    list->prev->next = l;
    list->prev = l;
}

#define OC_HTTP_CONN_OF(l, member)                                                                           \
    ((struct oc_http_conn *)(void *)((char *)(l)-offsetof(struct oc_http_conn, member)))

#endif
