/* server/serve.h - the orchestrator's main function, called by cli/serve.c.
 *
 * Opens everything, says "listening on http://HOST:PORT (admin PORT)" in the log, and runs the loop until
 * SIGTERM or SIGINT: newcomers get 503, running requests may finish within --drain-timeout, then workers are
 * stopped and it returns. A second signal ends the process at once with code 1. SIGHUP opens the log file
 * again and reads certificate and key anew. */
#ifndef OC_SERVER_SERVE_H
#define OC_SERVER_SERVE_H

#include "server/server.h"

/* Errors: what keeps it from starting, in a sentence. */
OC_MUST_CHECK enum oc_err oc_server_main(const struct oc_server_setup *setup, struct oc_errinfo *ei);

#endif
