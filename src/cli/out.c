#include "cli/out.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

void oc_cli_out_init(struct oc_cli_out *o, int fd) {
    *o = (struct oc_cli_out){.fd = fd, .is_tty = isatty(fd), .at_line_start = true};
}

static enum oc_err failed(struct oc_cli_out *o, int error, struct oc_errinfo *ei) {
    o->reader_gone = error == EPIPE;
    return oc_fail(ei, OC_ERR_IO, "the answer could not be written: %s", strerror(error));
}

static enum oc_err write_all(struct oc_cli_out *o, const char *p, size_t n, struct oc_errinfo *ei) {
    while (n > 0) {
        ssize_t w = write(o->fd, p, n);
        if (w > 0) {
            p += w;
            n -= (size_t)w;
        } else if (w < 0 && errno == EAGAIN) {
            struct pollfd ready = {.fd = o->fd, .events = POLLOUT}; /* someone made it non-blocking */
            poll(&ready, 1, -1);
        } else if (w < 0 && errno != EINTR) {
            return failed(o, errno, ei);
        }
    }
    return OC_OK;
}

/* Bytes of a control character at p: C0 but tab and newline, DEL, and C1 in UTF-8. 0: not one. */
static size_t control_bytes(const unsigned char *p, size_t n) {
    if ((p[0] < 0x20 && p[0] != '\n' && p[0] != '\t') || p[0] == 0x7f) return 1;
    return n > 1 && p[0] == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0 ? 2 : 0;
}

enum oc_err oc_cli_out_write(struct oc_cli_out *o, const char *p, size_t n, struct oc_errinfo *ei) {
    if (n == 0) return OC_OK;
    o->at_line_start = p[n - 1] == '\n';
    if (!o->is_tty) return write_all(o, p, n, ei);
    size_t from = 0;
    for (size_t i = 0; i < n;) {
        size_t skip = control_bytes((const unsigned char *)p + i, n - i);
        if (skip) {
            OC_TRY(write_all(o, p + from, i - from, ei));
            OC_TRY(write_all(o, "?", 1, ei));
            from = i + skip;
        }
        i += skip ? skip : 1;
    }
    return write_all(o, p + from, n - from, ei);
}

enum oc_err oc_cli_out_close(struct oc_cli_out *o, struct oc_errinfo *ei) {
    int fd = o->fd;
    o->fd = -1;
    if (fd >= 0 && close(fd) != 0 && errno != EINTR) return failed(o, errno, ei);
    return OC_OK;
}
