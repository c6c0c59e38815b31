/* server/crew.h - a few threads for work that the loop must not do.
 *
 * Two crews are open: one for work that computes, one for work that waits for the network, so that slow hosts
 * cannot hold up templates. Posted and answered on the loop's thread. A work item owns or keeps alive all
 * that it touches; nothing else touches it between post and done. */
#ifndef OC_SERVER_CREW_H
#define OC_SERVER_CREW_H

#include <stdbool.h>
#include <uv.h>

#include "base/err.h"

struct oc_server_crew;

/* Embedded in whatever the work is about. */
struct oc_server_work {
    struct oc_server_work *next;
    void (*run)(struct oc_server_work *w);  /* on a thread of the crew */
    void (*done)(struct oc_server_work *w); /* on the loop's thread, always, after run */
};

/* Errors: OC_ERR_NOMEM, OC_ERR_IO (threads). */
OC_MUST_CHECK enum oc_err oc_server_crew_open(uv_loop_t *loop, int n_threads, struct oc_server_crew **out,
                                              struct oc_errinfo *ei);
void oc_server_crew_post(struct oc_server_crew *c, struct oc_server_work *w);
/* Takes back work that no thread has begun: true, and done is not called. */
bool oc_server_crew_withdraw(struct oc_server_crew *c, struct oc_server_work *w);
/* Items posted whose done has not been called. */
int oc_server_crew_n_pending(const struct oc_server_crew *c);
/* Ends the threads after what they do now; nothing may be pending. The memory goes once the loop has closed
 * the handle. NULL is allowed. */
void oc_server_crew_close(struct oc_server_crew *c);

#endif
