/* server/fetch_impl.h - what the files fetch*.c share. Nobody else includes it but their tests. */
#ifndef OC_SERVER_FETCH_IMPL_H
#define OC_SERVER_FETCH_IMPL_H

#include <sys/socket.h>

#include "server/fetch.h"

/* The bytes as they come: a memfd that has room for o->max_bytes. */
struct oc_fetch_sink {
    int fd;
    uint64_t n_bytes, max_bytes;
};

OC_MUST_CHECK enum oc_err oc_fetch_sink_open(struct oc_fetch_sink *s, uint64_t max_bytes,
                                             struct oc_errinfo *ei);
/* Errors: OC_ERR_LIMIT, OC_ERR_IO (no memory for it). */
OC_MUST_CHECK enum oc_err oc_fetch_sink_add(struct oc_fetch_sink *s, const void *p, size_t n,
                                            struct oc_errinfo *ei);
/* Closes a descriptor of memfd_create or openat2; of its own for tests/tsan.suppressions. */
void oc_fetch_close(int fd);
/* The one sentence about a picture that is too big; n_bytes of 0: not known how much. */
enum oc_err oc_fetch_too_big(uint64_t n_bytes, uint64_t max_bytes, struct oc_errinfo *ei);

static inline bool oc_fetch_is_cancelled(const struct oc_fetch_options *o) {
    return o->cancelled && atomic_load(o->cancelled);
}

/* Says whether a connection to this address may be opened, and if not, why (a constant). */
typedef bool oc_fetch_vet(void *arg, const struct sockaddr *a, socklen_t len, const char **why);

OC_MUST_CHECK enum oc_err oc_fetch_http(struct oc_str url, const struct oc_fetch_options *o,
                                        oc_fetch_vet *vet, void *arg, struct oc_fetch_sink *s,
                                        struct oc_errinfo *ei);
OC_MUST_CHECK enum oc_err oc_fetch_file(struct oc_str url, const struct oc_fetch_options *o,
                                        struct oc_fetch_sink *s, struct oc_errinfo *ei);

/* Opens a file below a directory: -1 with errno. With old_kernel the way for kernels before 5.6, which
 * follows no links at all. */
int oc_fetch_open_beneath(int dir, const char *path, bool old_kernel);

/* oc_fetch() with another judge of addresses, for tests of redirects. */
OC_MUST_CHECK enum oc_err oc_fetch_with(struct oc_str url, const struct oc_fetch_options *o,
                                        oc_fetch_vet *vet, void *arg, int *fd, uint64_t *n_bytes,
                                        struct oc_errinfo *ei);

#endif
