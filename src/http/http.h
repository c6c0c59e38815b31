/* http/http.h - a strict HTTP/1.1 server on a libuv loop: sockets to requests, answers and SSE bytes back.
 *
 * Called by server/ from the loop's thread only; every callback runs there too and must return within a
 * millisecond. The room knows no URL of ours, no JSON and no model. Parsing follows RFC 9112 without its
 * leniencies: CRLF only, one Host, one Content-Length of digits or `chunked` alone, no obs-fold, no control
 * bytes; what breaks a rule is answered with 400 and the connection is closed.
 *
 * Reading goes on while a request is being answered, so a client that leaves is noticed at once (FIN or
 * RST: `on_end`, not finished), also before the first byte of the answer. A client that closes only its
 * sending side looks the same and is treated the same: whoever wants the answer keeps both sides open.
 * Pipelined requests wait in a small buffer; a connection whose buffer is full while a request runs is
 * closed.
 *
 * Connections over a maximum are accepted, told 503 and closed (at most
 * OC_LIMIT_HTTP_OVERFLOW_CONNECTIONS at a time, the rest without a word). Without descriptors accepting
 * rests for a moment; the others are served. After the last answer of a connection its sending side is
 * closed first, and input is thrown away for up to OC_LIMIT_HTTP_LINGER_MS or OC_LIMIT_HTTP_DRAIN_BYTES,
 * so that the client can read the answer.
 *
 * With oc_http_options.tls the port speaks TLS (http/tls.h) and nothing else changes: what waits to be sent
 * is counted as before, and a client's close_notify is the end of its connection like a FIN. The handshake has
 * header_timeout_ms from the accept on; who speaks plain HTTP instead is told so with 400.
 *
 * No callback is called from inside a function of this header: what a call sets off happens once the
 * callback that made it has returned, or in the loop's next turn. */
#ifndef OC_HTTP_HTTP_H
#define OC_HTTP_HTTP_H

#include <stdbool.h>
#include <uv.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/str.h"
#include "http/tls.h"

struct oc_http_server;
struct oc_http_exchange; /* one request and its answer; owned by the connection */

enum oc_http_method { OC_HTTP_GET, OC_HTTP_HEAD, OC_HTTP_POST, OC_HTTP_PUT, OC_HTTP_DELETE, OC_HTTP_OPTIONS, OC_HTTP_OTHER };

struct oc_http_header {
    struct oc_str name, value; /* value without surrounding blanks */
};

/* A request; everything borrowed from the exchange. */
struct oc_http_request {
    enum oc_http_method method;
    struct oc_str method_name;
    struct oc_str path;  /* before '?', still percent-encoded */
    struct oc_str query; /* after '?', or empty */
    const struct oc_http_header *headers;
    size_t n_headers;
    struct oc_str body;    /* de-chunked, NUL-terminated past its end */
    struct oc_str peer;    /* "127.0.0.1" or "::1" */
    uint64_t received_ns;  /* monotonic: when its first byte came */
};

/* The value of a header (name in any case), or an empty string with p == NULL. */
struct oc_str oc_http_request_header(const struct oc_http_request *r, const char *name);

/* The value of a query parameter, percent-decoded into the arena-free buffer `out`; false when absent or
 * ill-formed. */
bool oc_http_request_param(const struct oc_http_request *r, const char *name, struct oc_buf *out);

struct oc_http_events {
    void *arg;
    /* The head is there, the body not yet: say 0 to read it (up to *max_body, which may be lowered or raised), or a
     * status to refuse with at once (401, 403, 404, 405, 413, 429, 503 ...) after having called
     * oc_http_respond on the exchange. `Expect: 100-continue` is answered after a 0. NULL: always 0. */
    int (*on_head)(void *arg, struct oc_http_exchange *x, const struct oc_http_request *r, size_t *max_body);
    /* The request is whole. Answer now or later, from this thread, with the functions below. */
    void (*on_request)(void *arg, struct oc_http_exchange *x, const struct oc_http_request *r);
    /* The client left, or a limit closed the connection, before the answer was finished; or the answer was
     * finished: all of it is with the kernel. The exchange must not be used after this, and may be used until
     * then, even when the client is gone. Always called exactly once for an exchange that on_request saw;
     * `finished` says which (an aborted stream is not finished). An exchange that only on_head saw ends
     * without a word. */
    void (*on_end)(void *arg, struct oc_http_exchange *x, bool finished);
    /* Output that had been over the high-water mark has drained. May be NULL. */
    void (*on_drain)(void *arg, struct oc_http_exchange *x);
    /* An error answer of the room's own (400, 408, 413, 431, 501, 505): writes the body for a status and a
     * sentence and says its content type. NULL: a plain text. */
    void (*error_body)(void *arg, int status, const char *message, struct oc_buf *body, const char **content_type);
    /* A TLS handshake that had begun came to nothing; reason is a few words. May be NULL. */
    void (*on_tls_failure)(void *arg, const char *peer, enum oc_http_tls_failure failure, const char *reason);
};

struct oc_http_options { /* 0 means the default of base/limits.h */
    int max_connections;
    int max_connections_per_ip; /* of one address; an IPv6 client's is its /64. 0: no such limit */
    size_t max_head_bytes, max_body_bytes;
    int header_timeout_ms; /* from the first byte of a request to the end of its head; a TLS handshake */
    int body_timeout_ms;   /* from the end of the head to the end of the body */
    int idle_timeout_ms;   /* keep-alive without a request */
    int write_timeout_ms;  /* output that makes no progress */
    const char *server_name; /* of the Server header; NULL: none */
    struct oc_http_tls *tls; /* borrowed until the server is closed; NULL: plain HTTP */
};

/* Listens on host:port (an IP literal or "localhost", which is 127.0.0.1; port 0: any free one; "::" takes
 * IPv4 too). Several servers may share a loop. Errors: OC_ERR_USAGE (not an address; SIGPIPE is not ignored),
 * OC_ERR_IO (says address, port and why), OC_ERR_NOMEM. */
OC_MUST_CHECK enum oc_err oc_http_listen(uv_loop_t *loop, const char *host, int port,
                                         const struct oc_http_options *o, const struct oc_http_events *ev,
                                         struct oc_http_server **out, struct oc_errinfo *ei);
int oc_http_server_port(const struct oc_http_server *s);
int oc_http_server_n_connections(const struct oc_http_server *s);

/* Closes the listening socket and idle connections; running exchanges go on and then close ("Connection:
 * close"). */
void oc_http_server_stop_accepting(struct oc_http_server *s);

/* Closes everything; `done` is called from the loop once all handles are closed and the server freed. */
void oc_http_server_close(struct oc_http_server *s, void (*done)(void *arg), void *arg);

/* ---- Answers ------------------------------------------------------------------------------------------------ */

/* A pointer of the caller's, NULL at first. */
void oc_http_exchange_set_user(struct oc_http_exchange *x, void *user);
void *oc_http_exchange_user(const struct oc_http_exchange *x);

/* Moves the body of a whole request out, so that it may outlive the exchange; the request's is empty after. What
 * *out held is freed. */
void oc_http_take_body(struct oc_http_exchange *x, struct oc_buf *out);

/* Adds a header to the answer; before respond or stream_begin. Values with CR, LF or NUL are an assertion. */
void oc_http_header(struct oc_http_exchange *x, const char *name, const char *value);

/* A whole answer, copied. Content-Length is added; HEAD sends no body. */
void oc_http_respond(struct oc_http_exchange *x, int status, const char *content_type, struct oc_str body);

/* An answer in pieces (chunked; HTTP/1.0: until close). */
void oc_http_stream_begin(struct oc_http_exchange *x, int status, const char *content_type);
/* Copies and sends; returns the bytes that wait to be sent. The caller slows down when that is over
 * OC_LIMIT_HTTP_OUT_HIGH_BYTES (on_drain tells when it is under half of it again); past
 * OC_LIMIT_HTTP_OUT_MAX_BYTES or without progress for write_timeout_ms the connection is closed. */
size_t oc_http_stream_write(struct oc_http_exchange *x, struct oc_str bytes);
void oc_http_stream_end(struct oc_http_exchange *x);
/* Ends a stream that cannot be finished rightly: the connection closes without the last chunk. */
void oc_http_stream_abort(struct oc_http_exchange *x);
/* True from stream_begin on, also after the end: the status is out and cannot be changed any more. */
bool oc_http_stream_begun(const struct oc_http_exchange *x);

/* "Not Found" for 404. */
const char *oc_http_reason(int status);

#endif
