/* worker/worker.h - the two roles that `ocellus serve` starts as processes of their own.
 *
 * A worker holds one model and runs the jobs that come over its socket; an image-worker, jailed, turns one picture
 * after the other from bytes to pixels of the size that the model looks at. Both are the main function of their process:
 * cli/worker.c calls them after reading flags. They speak ipc/messages.h, say on stderr only what goes wrong, and end
 * when the other side closes the socket. */
#ifndef OC_WORKER_WORKER_H
#define OC_WORKER_WORKER_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/err.h"

#define OC_WORKER_SOCKET_FD 3
#define OC_WORKER_BOARD_FD 4
#define OC_WORKER_EMBED_CACHE_BYTES ((size_t)256 << 20) /* unless told otherwise */
#define OC_WORKER_BEAT_MS 500 /* the heartbeat is renewed at least so often while there is nothing to do */

struct oc_worker_options {
    int socket_fd, board_fd;
    int parent_pid; /* who must be alive; 0: whoever started this process */
    const char *model_dir;
    const char *device, *cuda_plugin; /* as of struct oc_engine_params */
    const char *isa; /* NULL: the best of this machine */
    const char *batch_mode; /* as of struct oc_engine_params */
    int ctx_tokens, kv_tokens, n_sessions, n_threads, image_max_tokens; /* as of struct oc_engine_params; 0: its defaults */
    size_t embed_cache_bytes; /* 0: no cache */
    bool prefix_cache;
    bool speculate; /* verify drafts where that pays */
};

/* Loads the model, says READY or REFUSED, and works until SHUTDOWN, SIGTERM or the end of the socket: returns 0 then,
 * 1 when the model could not be loaded or the channel broke. */
int oc_worker_main(const struct oc_worker_options *o);

/* What a worker with these options will take, as one line of JSON, without reading the weights. Errors: those of
 * oc_engine_open. */
OC_MUST_CHECK enum oc_err oc_worker_measure(const struct oc_worker_options *o, struct oc_buf *out, struct oc_errinfo *ei);

struct oc_image_worker_options {
    int socket_fd;
    int parent_pid; /* as above */
    bool no_jail;   /* go on without: for machines whose kernel has no seccomp */
};

/* Jails the process for good, then answers LOOK with SEEN or UNSEEN until the socket ends: returns 0 then, 1 when it
 * could not be jailed or the channel broke. */
int oc_image_worker_main(const struct oc_image_worker_options *o);

#endif
