/* server/images.h - the pool of image-workers: each looks at one picture at a time.
 *
 * Started before they are needed. A picture waits in a bounded queue until one is free; one that takes too
 * long or brings its process down costs one process and one try: the picture is tried once more, the process
 * replaced (after a pause that grows while it keeps failing). Processes are also replaced after many
 * pictures. Loop's thread only. */
#ifndef OC_SERVER_IMAGES_H
#define OC_SERVER_IMAGES_H

#include "ipc/messages.h"
#include "server/server.h"

struct oc_server_images;

enum oc_server_look_end {
    OC_LOOK_SEEN,
    OC_LOOK_REFUSED, /* it is no picture, or one over the limits */
    OC_LOOK_CRASHED, /* it brought processes down, or took too long */
    OC_LOOK_FAILED,  /* no fault of the picture: nobody could look at it */
};

/* Embedded in a picture of a request; zero it first. */
struct oc_server_look {
    struct oc_server_look *prev, *next;
    enum { OC_LOOK_OUT, OC_LOOK_WAITING, OC_LOOK_RUNNING } state;
    struct oc_server_eye *eye; /* the process at work on it */
    struct oc_ipc_look what;
    int fd; /* the bytes; stays the caller's */
    int n_tries;
    uint64_t queued_ms;
    /* seen and pixels (the callee's from now on) with SEEN only, ei with the others. The look is out
     * already. */
    void (*done)(struct oc_server_look *l, enum oc_server_look_end how, const struct oc_ipc_seen *seen,
                 int pixels, const struct oc_errinfo *ei);
};

OC_MUST_CHECK enum oc_err oc_server_images_open(struct oc_server *s, struct oc_server_images **out,
                                                struct oc_errinfo *ei);
/* Errors: OC_ERR_LIMIT: the queue is full. */
OC_MUST_CHECK enum oc_err oc_server_images_look(struct oc_server_images *p, struct oc_server_look *l,
                                                struct oc_errinfo *ei);
/* done will not be called. Nothing when it is out. */
void oc_server_images_cancel(struct oc_server_images *p, struct oc_server_look *l);

/* Once a second: pictures do not wait for ever for processes that cannot be started. */
void oc_server_images_tick(struct oc_server_images *p, uint64_t now_ms);

/* Ends all processes; the pool frees itself when the last is gone (oc_server_progress tells). NULL is
 * allowed. */
void oc_server_images_close(struct oc_server_images *p);

struct oc_server_images_figures {
    int n_workers, n_idle, n_busy, n_waiting;
    uint64_t n_seen, n_refused, n_crashes, n_timeouts, n_restarts;
    int pids[OC_LIMIT_SERVER_IMAGE_WORKERS]; /* n_workers of them */
};
void oc_server_images_figures(const struct oc_server_images *p, struct oc_server_images_figures *out);

#endif
