/* cli/out.h - writing the answer so that no failure goes unseen.
 *
 * Bytes go to the descriptor at once, without stdio's buffer. On a terminal, control characters that a model
 * may have been talked into writing are shown as '?', so that a picture cannot drive the terminal. One
 * thread. */
#ifndef OC_CLI_OUT_H
#define OC_CLI_OUT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

struct oc_cli_out {
    int fd;
    bool is_tty;
    bool at_line_start; /* the last byte was a newline, or nothing was written */
    bool reader_gone;   /* EPIPE: whoever read the answer has left */
};

void oc_cli_out_init(struct oc_cli_out *o, int fd);

/* Writes all bytes. Errors: OC_ERR_IO with the system's words. */
OC_MUST_CHECK enum oc_err oc_cli_out_write(struct oc_cli_out *o, const char *p, size_t n,
                                           struct oc_errinfo *ei);

/* Closes the descriptor, where some file systems first report a full disk. Errors: OC_ERR_IO. */
OC_MUST_CHECK enum oc_err oc_cli_out_close(struct oc_cli_out *o, struct oc_errinfo *ei);

#endif
