/* The loop of an image-worker: one picture after the other. */
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/digest.h"
#include "image/decode.h"
#include "ipc/channel.h"
#include "ipc/messages.h"
#include "worker/jail.h"
#include "worker/lifetime.h"
#include "worker/picture.h"
#include "worker/worker.h"

#define LARGE_BYTES (1 << 20) /* blocks from here on go back to the system when they are freed */

/* A grey pixel as baseline JPEG: quantisation of ones, one Huffman code for each of the two coefficients. */
static const uint8_t tiny_jpeg[] = {
    0xff, 0xd8, 0xff, 0xdb, 0x00, 0x43, 0x00, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0xff, 0xc0, 0x00,
    0x0b, 0x08, 0x00, 0x01, 0x00, 0x01, 0x01, 0x01, 0x11, 0x00, 0xff, 0xc4, 0x00, 0x14, 0x00, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0x00, 0xff, 0xc4, 0x00, 0x14, 0x10, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x00, 0xff, 0xda, 0x00, 0x08,
    0x01, 0x01, 0x00, 0x00, 0x3f, 0x00, 0x3f, 0xff, 0xd9};
static const uint8_t tiny_webp[] = {0x52, 0x49, 0x46, 0x46, 0x1c, 0x00, 0x00, 0x00, 0x57, 0x45, 0x42, 0x50,
                                    0x56, 0x50, 0x38, 0x4c, 0x10, 0x00, 0x00, 0x00, 0x2f, 0x00, 0x00, 0x00,
                                    0x00, 0x07, 0x50, 0x94, 0x28, 0x54, 0xff, 0x03, 0x11, 0xd1, 0xff, 0x00};

/* Libraries look at the machine and at their configuration the first time they are used: that must be before the
 * jail. */
static enum oc_err warm_up(struct oc_errinfo *ei) {
    static const struct {
        const uint8_t *bytes;
        size_t n;
    } pictures[] = {{tiny_jpeg, sizeof tiny_jpeg}, {tiny_webp, sizeof tiny_webp}};
    uint8_t digest[OC_DIGEST_BYTES];
    for (size_t i = 0; i < sizeof pictures / sizeof *pictures; i++) {
        struct oc_image img;
        OC_TRY(oc_image_decode(pictures[i].bytes, pictures[i].n, NULL, &img, ei));
        oc_digest(&(struct oc_digest_piece){img.rgb, 3}, 1, digest);
        oc_image_free(&img);
    }
    return OC_OK;
}

static enum oc_err send_seen(struct oc_ipc_channel *c, uint64_t id, const struct oc_ipc_seen *m, int pixels_fd,
                             struct oc_errinfo *ei) {
    struct oc_buf b;
    oc_buf_init(&b, 4 * OC_KIB);
    enum oc_err err;
    if (oc_ipc_seen_write(&b, m)) {
        err = oc_ipc_channel_send(c, OC_IPC_SEEN, id, b.data, b.n_bytes, &pixels_fd, 1, ei);
    } else {
        close(pixels_fd);
        err = oc_fail(ei, OC_ERR_NOMEM, "no memory for an answer");
    }
    oc_buf_free(&b);
    return err;
}

static enum oc_err send_unseen(struct oc_ipc_channel *c, uint64_t id, const struct oc_errinfo *why, struct oc_errinfo *ei) {
    const struct oc_ipc_unseen m = {.err = (int32_t)why->code, .message = oc_str_from(why->msg)};
    struct oc_buf b;
    oc_buf_init(&b, 4 * OC_KIB);
    enum oc_err err = oc_ipc_unseen_write(&b, &m)
                          ? oc_ipc_channel_send(c, OC_IPC_UNSEEN, id, b.data, b.n_bytes, NULL, 0, ei)
                          : oc_fail(ei, OC_ERR_NOMEM, "no memory for an answer");
    oc_buf_free(&b);
    return err;
}

static enum oc_err look(const struct oc_ipc_frame *f, struct oc_ipc_seen *seen, int *pixels_fd, struct oc_errinfo *ei) {
    struct oc_ipc_look m;
    struct oc_arena none; /* the message has no arrays */
    oc_arena_init(&none, 0);
    OC_TRY(oc_ipc_look_read(&none, f->payload, f->n_bytes, &m, ei));
    if (f->n_fds != 1) return oc_fail(ei, OC_ERR_FORMAT, "a picture came with %d descriptors, not one", f->n_fds);
    return oc_worker_picture_look(f->fds[0], &m, seen, pixels_fd, ei);
}

static enum oc_err answer(struct oc_ipc_channel *c, const struct oc_ipc_frame *f, struct oc_errinfo *ei) {
    struct oc_ipc_seen seen;
    struct oc_errinfo why;
    int pixels_fd;
    if (f->type != OC_IPC_LOOK)
        return oc_fail(ei, OC_ERR_FORMAT, "a message %s is not for an image-worker", oc_ipc_type_name(f->type));
    enum oc_err err = look(f, &seen, &pixels_fd, &why);
    malloc_trim(0); /* what one picture took is not kept for the next */
    return err ? send_unseen(c, f->id, &why, ei) : send_seen(c, f->id, &seen, pixels_fd, ei);
}

static enum oc_err run(struct oc_ipc_channel *c, struct oc_errinfo *ei) {
    for (;;) {
        struct oc_ipc_frame f;
        enum oc_ipc_got got;
        OC_TRY(oc_ipc_channel_receive(c, -1, &f, &got, ei));
        if (got == OC_IPC_END || (got == OC_IPC_FRAME && f.type == OC_IPC_SHUTDOWN)) return OC_OK;
        if (got == OC_IPC_FRAME) OC_TRY(answer(c, &f, ei));
    }
}

static enum oc_err enter_jail(bool no_jail, struct oc_errinfo *ei) {
    if (no_jail) return OC_OK;
    if (!oc_worker_jail_is_possible()) {
        fputs("image-worker: not jailed, since this build has a sanitizer\n", stderr);
        return OC_OK;
    }
    OC_TRY(oc_worker_jail_limit(ei));
    return oc_worker_jail_filter(ei);
}

static enum oc_err start(const struct oc_image_worker_options *o, struct oc_ipc_channel **c, struct oc_errinfo *ei) {
    *c = NULL;
    signal(SIGINT, SIG_IGN); /* a terminal sends these to parent and child alike: the parent decides */
    signal(SIGHUP, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    oc_worker_lifetime_close_others(o->socket_fd, o->socket_fd);
    mallopt(M_MMAP_THRESHOLD, LARGE_BYTES);
    mallopt(M_ARENA_MAX, 1);
    OC_TRY(warm_up(ei));
    OC_TRY(oc_ipc_channel_open(o->socket_fd, c, ei));
    return enter_jail(o->no_jail, ei);
}

int oc_image_worker_main(const struct oc_image_worker_options *o) {
    struct oc_ipc_channel *c = NULL;
    struct oc_errinfo ei;
    if (!oc_worker_lifetime_bind(o->parent_pid)) return 0;
    enum oc_err err = start(o, &c, &ei);
    if (!err) err = run(c, &ei);
    if (err) fprintf(stderr, "image-worker: %s\n", ei.msg);
    oc_ipc_channel_close(c);
    return err ? 1 : 0;
}
