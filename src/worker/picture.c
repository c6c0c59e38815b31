#define _GNU_SOURCE /* memfd_create, fallocate, seals */
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
#include "image/patchify.h"
#include "worker/convert.h"

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL)

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
    if (oc_worker_convert_patch_bytes(out) <= OC_LIMIT_IPC_PATCH_BYTES) return OC_OK;
    return oc_fail(ei, OC_ERR_LIMIT, "a picture of %d tokens has patches of %zu MiB, over the limit of %zu MiB", out->n_tokens,
                   oc_worker_convert_patch_bytes(out) / OC_MIB, OC_LIMIT_IPC_PATCH_BYTES / OC_MIB);
}

/* Memory is taken before it is written to: running out is then an error, not a bus error. */
static enum oc_err make_file(size_t n_bytes, int *fd, void **p, struct oc_errinfo *ei) {
    *p = MAP_FAILED;
    *fd = memfd_create("ocellus-patches", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    int r = *fd < 0 ? -1 : 0;
    if (r == 0) do r = fallocate(*fd, 0, 0, (off_t)n_bytes); while (r < 0 && errno == EINTR);
    if (r == 0) *p = mmap(NULL, n_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
    if (*p != MAP_FAILED) return OC_OK;
    oc_fail(ei, OC_ERR_NOMEM, "no memory for %zu KiB of patches: %s", n_bytes / OC_KIB, strerror(errno));
    if (*fd >= 0) close(*fd);
    *fd = -1;
    return OC_ERR_NOMEM;
}

static enum oc_err write_patches(const struct oc_image *img, const struct oc_picture_plan *p, int *fd, struct oc_errinfo *ei) {
    const size_t n_bytes = oc_worker_convert_patch_bytes(p);
    void *out;
    OC_TRY(make_file(n_bytes, fd, &out, ei));
    enum oc_err err = oc_image_patchify_resized(img, p, out, ei);
    munmap(out, n_bytes); /* a file that is mapped for writing cannot be sealed */
    if (!err && fcntl(*fd, F_ADD_SEALS, SEALS) < 0)
        err = oc_fail(ei, OC_ERR_IO, "the patches cannot be sealed: %s", strerror(errno));
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

static enum oc_err patchify(const struct oc_image *img, const struct oc_ipc_look *look, struct oc_ipc_seen *seen,
                            int *patches_fd, struct oc_errinfo *ei) {
    struct oc_picture_plan p;
    OC_TRY(plan(img, look, &p, ei));
    *seen = (struct oc_ipc_seen){.width = img->width, .height = img->height};
    oc_worker_convert_plan_out(&p, &seen->plan);
    OC_TRY(make_digest(img, seen, ei));
    return write_patches(img, &p, patches_fd, ei);
}

enum oc_err oc_worker_picture_look(int bytes_fd, const struct oc_ipc_look *look, struct oc_ipc_seen *seen, int *patches_fd,
                                   struct oc_errinfo *ei) {
    struct oc_image img;
    const uint64_t start_ns = oc_clock_ns();
    *patches_fd = -1;
    OC_TRY(decode(bytes_fd, look, &img, ei));
    const uint64_t decoded_ns = oc_clock_ns();
    enum oc_err err = patchify(&img, look, seen, patches_fd, ei);
    oc_image_free(&img);
    if (err) return err;
    seen->decode_ms = (double)(decoded_ns - start_ns) / 1e6;
    seen->resize_ms = oc_clock_ms_since(decoded_ns);
    return OC_OK;
}
