/* worker/picture.h - one picture, from its bytes to pixels of the size that the model looks at, in a memfd.
 *
 * What an image-worker does for each LOOK. Needs no more than the jail allows: no files, no threads. */
#ifndef OC_WORKER_PICTURE_H
#define OC_WORKER_PICTURE_H

#include "base/err.h"
#include "ipc/messages.h"

/* bytes_fd: a file of the encoded picture, read from its start; stays the caller's. *pixels_fd: a sealed memfd of
 * [plan.height, plan.width, 3] bytes, the caller's to close. seen->digest is SHA-256 over the plan, the upright size and the
 * decoded pixels. Errors: those of oc_image_decode, oc_picture_rules_plan and oc_image_resize; OC_ERR_IO. */
OC_MUST_CHECK enum oc_err oc_worker_picture_look(int bytes_fd, const struct oc_ipc_look *look, struct oc_ipc_seen *seen,
                                                 int *pixels_fd, struct oc_errinfo *ei);

#endif
