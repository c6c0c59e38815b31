/* server/fetch.h - the bytes of a picture from its URL: data:, http(s):, file: below the media directory.
 *
 * Blocking; runs on the thread pool, any number at once. The address is vetted after DNS, at the socket
 * (libcurl's open-socket callback): every range that is not globally routable is refused (server/address.h),
 * redirects are followed by hand and vetted again, size and time are capped, no proxy, no cookies, no
 * credentials in the URL. Every port but 0 may be asked for. Data URLs are decoded strictly: image types, base64
 * without blanks. A file is named by a file: URL or a path, absolute or relative to the media directory; no link
 * leads out of it. */
#ifndef OC_SERVER_FETCH_H
#define OC_SERVER_FETCH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

/* Once in the process, by its main, before and after all others. The process must ignore SIGPIPE. Errors: OC_ERR_IO. */
OC_MUST_CHECK enum oc_err oc_fetch_init(struct oc_errinfo *ei);
void oc_fetch_exit(void);

struct oc_fetch_options {
    bool remote;           /* http and https are allowed */
    const char *media_dir; /* NULL: no files */
    uint64_t max_bytes;
    int timeout_ms, connect_timeout_ms;
    int max_redirects;
    const atomic_bool *cancelled; /* looked at now and then; NULL: never */
    bool allow_private;    /* do not vet addresses: for tests and trusted networks */
};

/* Puts the bytes into a new memfd, sealed against change; *n_bytes says how many, at least 1. Errors: OC_ERR_FORMAT (a
 * broken data URL or base64), OC_ERR_UNSUPPORTED (scheme, media type), OC_ERR_LIMIT (size), OC_ERR_NOT_FOUND (file, host,
 * HTTP 404), OC_ERR_USAGE (an address, path or kind of URL that is not allowed), OC_ERR_IO (network, timeout, other
 * answers), OC_ERR_NOMEM, OC_ERR_CANCELLED. Messages are fit for the client: no addresses, no paths. */
OC_MUST_CHECK enum oc_err oc_fetch(struct oc_str url, const struct oc_fetch_options *o, int *fd, uint64_t *n_bytes,
                                   struct oc_errinfo *ei);

#endif
