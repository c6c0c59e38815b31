/* server/child.h - child processes of the same binary: start, stderr into the log, death seen at once.
 *
 * A child has /dev/null as standard input and output (or a captured output), a pipe as standard error that is
 * drained into our log line by line, a socket as descriptor 3 when it talks, and a further descriptor as 4.
 * It inherits nothing else: all our descriptors are close-on-exec. Loop's thread only. */
#ifndef OC_SERVER_CHILD_H
#define OC_SERVER_CHILD_H

#include "base/str.h"
#include "server/server.h"

struct oc_server_child;

struct oc_server_child_params {
    const char *name;  /* in the log: "worker 3" */
    char *const *argv; /* argv[0] is the program's name; NULL at the end */
    int *socket;       /* out: our end of descriptor 3; NULL: none */
    int board_fd;      /* descriptor 4, stays the caller's; -1: none */
    size_t max_output; /* over 0: standard output is captured up to so many bytes */
    void *arg;
    /* The process is gone: exit status, or the signal that ended it (else 0). Called once, from the loop; the
     * child is not to be used after. output: what was captured; where that is nothing, the last line of
     * standard error. */
    void (*on_exit)(void *arg, int status, int signal, struct oc_str output);
};

/* Errors: OC_ERR_IO, OC_ERR_NOMEM. */
OC_MUST_CHECK enum oc_err oc_server_child_spawn(struct oc_server *s, const struct oc_server_child_params *p,
                                                struct oc_server_child **out, struct oc_errinfo *ei);
int oc_server_child_pid(const struct oc_server_child *c);
void oc_server_child_signal(struct oc_server_child *c, int signal);

#endif
