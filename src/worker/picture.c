#define _GNU_SOURCE /* memfd_create, seals */
#include "worker/picture.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/digest.h"
#include "image/decode.h"
#include "image/resize.h"
#include "worker/convert.h"

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL)
#define STRIP_BYTES (128 * OC_KIB) /* resized and written at once: of the second-level cache, not all of it */

static size_t most_bytes(const struct oc_ipc_look *look) {
    return look->max_bytes && look->max_bytes < OC_LIMIT_IMAGE_BYTES ? (size_t)look->max_bytes : OC_LIMIT_IMAGE_BYTES;
}

/* A copy, not a mapping: whoever sent the descriptor may still write to it. */
static enum oc_err read_bytes(int fd, size_t max_bytes, uint8_t **out, size_t *n_bytes, struct oc_errinfo *ei) {
    const off_t size = lseek(fd, 0, SEEK_END);
    *out = NULL;
    *n_bytes = 0;
    if (size < 0) return oc_fail(ei, OC_ERR_IO, "the picture's bytes cannot be read: %s", strerror(errno));
    if ((uint64_t)size > max_bytes)
        return oc_fail(ei, OC_ERR_LIMIT, "this picture of %lld bytes is over the limit of %zu bytes", (long long)size, max_bytes);
    *out = malloc(size ? (size_t)size : 1);
    if (!*out) return oc_fail(ei, OC_ERR_NOMEM, "no memory for a picture of %lld bytes", (long long)size);
    while (*n_bytes < (size_t)size) {
        ssize_t n = pread(fd, *out + *n_bytes, (size_t)size - *n_bytes, (off_t)*n_bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            free(*out);
            *out = NULL;
            return oc_fail(ei, OC_ERR_IO, "the picture's bytes end at %zu of %lld", *n_bytes, (long long)size);
        }
        *n_bytes += (size_t)n;
    }
    return OC_OK;
}

static enum oc_err decode(int fd, const struct oc_ipc_look *look, struct oc_image *img, struct oc_errinfo *ei) {
    const struct oc_image_limits lim = {
        .max_bytes = most_bytes(look), .max_side_px = look->max_side_px, .max_pixels = look->max_image_pixels};
    uint8_t *bytes;
    size_t n_bytes;
    OC_TRY(read_bytes(fd, lim.max_bytes, &bytes, &n_bytes, ei));
    enum oc_err err = oc_image_decode(bytes, n_bytes, &lim, img, ei);
    free(bytes);
    return err;
}

static enum oc_err plan(const struct oc_image *img, const struct oc_ipc_look *look, struct oc_picture_plan *out,
                        struct oc_errinfo *ei) {
    struct oc_picture_rules rules;
    const struct oc_picture_limits lim = {.min_pixels = look->min_pixels, .max_pixels = look->max_pixels};
    OC_TRY(oc_worker_convert_rules(&look->rules, &rules, ei));
    OC_TRY(oc_picture_rules_plan(&rules, img->width, img->height, &lim, look->max_tokens, out, ei));
    if (oc_worker_convert_pixel_bytes(out) <= OC_LIMIT_IPC_PIXEL_BYTES) return OC_OK;
    return oc_fail(ei, OC_ERR_LIMIT, "a picture of %d tokens has pixels of %zu MiB, over the limit of %zu MiB", out->n_tokens,
                   oc_worker_convert_pixel_bytes(out) / OC_MIB, OC_LIMIT_IPC_PIXEL_BYTES / OC_MIB);
}

/* To a file that is filled from its start. Not through a mapping: a page that is written whole is neither cleared before nor
 * faulted in, and running out of memory is an error, not a bus error. */
static enum oc_err append(int fd, const uint8_t *p, size_t n_bytes, struct oc_errinfo *ei) {
    while (n_bytes > 0) {
        const ssize_t wrote = write(fd, p, n_bytes);
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote <= 0) return oc_fail(ei, OC_ERR_NOMEM, "no memory for the pixels of a picture: %s", strerror(errno));
        p += wrote;
        n_bytes -= (size_t)wrote;
    }
    return OC_OK;
}

/* A strip at a time: what is written was just made, and the resized picture never stands in memory beside the file. */
static enum oc_err write_strips(struct oc_image_resizer *r, const struct oc_picture_plan *p, uint8_t *strip, int n_rows, int fd,
                                struct oc_errinfo *ei) {
    for (int y = 0; y < p->height; y += n_rows) {
        const int n = p->height - y < n_rows ? p->height - y : n_rows;
        oc_image_resizer_next(r, n, strip);
        OC_TRY(append(fd, strip, (size_t)n * (size_t)p->width * 3, ei));
    }
    return OC_OK;
}

static enum oc_err write_resized(const struct oc_image *img, const struct oc_picture_plan *p, int fd, struct oc_errinfo *ei) {
    const size_t row_bytes = (size_t)p->width * 3;
    const int n_rows = row_bytes < STRIP_BYTES ? (int)(STRIP_BYTES / row_bytes) : 1;
    struct oc_image_resizer *r;
    OC_TRY(oc_image_resizer_open(img, p->width, p->height, p->resample, n_rows, &r, ei));
    uint8_t *strip = malloc((size_t)n_rows * row_bytes);
    enum oc_err err = strip ? write_strips(r, p, strip, n_rows, fd, ei)
                            : oc_fail(ei, OC_ERR_NOMEM, "no memory for the pixels of a picture");
    free(strip);
    oc_image_resizer_close(r);
    return err;
}

static enum oc_err write_pixels(const struct oc_image *img, const struct oc_picture_plan *p, int *fd, struct oc_errinfo *ei) {
    *fd = memfd_create("ocellus-pixels", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (*fd < 0)
        return oc_fail(ei, OC_ERR_NOMEM, "no memory for %zu KiB of pixels: %s", oc_worker_convert_pixel_bytes(p) / OC_KIB,
                       strerror(errno));
    const bool same_size = img->width == p->width && img->height == p->height;
    enum oc_err err = same_size ? append(*fd, img->rgb, oc_worker_convert_pixel_bytes(p), ei) : write_resized(img, p, *fd, ei);
    if (!err && fcntl(*fd, F_ADD_SEALS, SEALS) < 0)
        err = oc_fail(ei, OC_ERR_IO, "the pixels cannot be sealed: %s", strerror(errno));
    if (!err) return OC_OK;
    close(*fd);
    *fd = -1;
    return err;
}

/* The plan and the size as they stand in a message without digest and times, then the pixels. */
static enum oc_err make_digest(const struct oc_image *img, struct oc_ipc_seen *seen, struct oc_errinfo *ei) {
    struct oc_buf head;
    oc_buf_init(&head, 4 * OC_KIB);
    const bool written = oc_ipc_seen_write(&head, seen);
    const struct oc_digest_piece pieces[] = {{"ocellus picture 1", 17},
                                             {head.data, head.n_bytes},
                                             {img->rgb, (size_t)img->width * (size_t)img->height * 3}};
    if (written) oc_digest(pieces, 3, seen->digest);
    oc_buf_free(&head);
    return written ? OC_OK : oc_fail(ei, OC_ERR_NOMEM, "no memory for a digest");
}

static enum oc_err fit(const struct oc_image *img, const struct oc_ipc_look *look, struct oc_ipc_seen *seen,
                       int *pixels_fd, struct oc_errinfo *ei) {
    struct oc_picture_plan p;
    OC_TRY(plan(img, look, &p, ei));
    *seen = (struct oc_ipc_seen){.width = img->width, .height = img->height};
    oc_worker_convert_plan_out(&p, &seen->plan);
    OC_TRY(make_digest(img, seen, ei));
    return write_pixels(img, &p, pixels_fd, ei);
}

enum oc_err oc_worker_picture_look(int bytes_fd, const struct oc_ipc_look *look, struct oc_ipc_seen *seen, int *pixels_fd,
                                   struct oc_errinfo *ei) {
    struct oc_image img;
    const uint64_t start_ns = oc_clock_ns();
    *pixels_fd = -1;
    OC_TRY(decode(bytes_fd, look, &img, ei));
    const uint64_t decoded_ns = oc_clock_ns();
    enum oc_err err = fit(&img, look, seen, pixels_fd, ei);
    oc_image_free(&img);
    if (err) return err;
    seen->decode_ms = (double)(decoded_ns - start_ns) / 1e6;
    seen->resize_ms = oc_clock_ms_since(decoded_ns);
    return OC_OK;
}
