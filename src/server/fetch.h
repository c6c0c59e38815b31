/* server/fetch.h - the bytes of a picture from its URL: data:, http(s):, file: below the media directory.
 *
 * Blocking; runs on the thread pool, any number at once. The address is vetted after DNS, at the socket
 * (libcurl's open-socket callback): every range that is not globally routable is refused (server/address.h),
 * redirects are followed by hand and vetted again, size and time are capped, no proxy, no cookies, no
 * credentials in the URL. Data URLs are decoded strictly. */
#ifndef OC_SERVER_FETCH_H
#define OC_SERVER_FETCH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/str.h"

struct oc_fetch_options {
    bool remote;           /* http and https are allowed */
    const char *media_dir; /* NULL: no files */
    uint64_t max_bytes;
    int timeout_ms, connect_timeout_ms;
    int max_redirects;
    const atomic_bool *cancelled; /* looked at now and then; NULL: never */
    bool allow_private;    /* tests only: do not vet addresses */
};

/* Puts the bytes into a new memfd, sealed against change; *n_bytes says how many. Errors: OC_ERR_FORMAT (a
 * broken data URL or base64), OC_ERR_UNSUPPORTED (scheme, media type), OC_ERR_LIMIT (size), OC_ERR_NOT_FOUND (file, host,
 * HTTP 404), OC_ERR_USAGE (an address or path that is not allowed), OC_ERR_IO (network), OC_ERR_CANCELLED. */
OC_MUST_CHECK enum oc_err oc_fetch(struct oc_str url, const struct oc_fetch_options *o, int *fd, uint64_t *n_bytes,
                                   struct oc_errinfo *ei);

#endif
