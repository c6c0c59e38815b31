/* The channel: frames through tiny socket buffers, descriptors in order, what a lying or dying peer does. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/limits.h"
#include "ipc/channel.h"
#include "ipc/frame.h"
#include "ipc/messages.h"

struct pair {
    struct oc_ipc_channel *a, *b;
    int n_fds_before;
};

static int count_fds(void) {
    DIR *d = opendir("/proc/self/fd");
    int n = 0;
    while (readdir(d)) n++;
    closedir(d);
    return n;
}

static void shrink(int fd) {
    const int small = 1; /* the kernel's least is about 4.6 KiB */
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
}

static struct pair open_pair(void) {
    struct pair p = {.n_fds_before = count_fds()};
    struct oc_errinfo ei;
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    shrink(fds[0]);
    shrink(fds[1]);
    assert_int_equal(oc_ipc_channel_open(fds[0], &p.a, &ei), OC_OK);
    assert_int_equal(oc_ipc_channel_open(fds[1], &p.b, &ei), OC_OK);
    return p;
}

static void close_pair(struct pair *p) {
    oc_ipc_channel_close(p->a);
    oc_ipc_channel_close(p->b);
    assert_int_equal(count_fds(), p->n_fds_before); /* none leaked */
}

static int memfd_of(int number) {
    int fd = memfd_create("test", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, &number, sizeof number), sizeof number);
    return fd;
}

static int number_of(int fd) {
    int number = -1;
    assert_int_equal(pread(fd, &number, sizeof number, 0), sizeof number);
    return number;
}

static uint8_t pattern(size_t i, unsigned seed) {
    return (uint8_t)(i * 131 + (i >> 8) * 7 + seed);
}

static uint8_t *make_payload(size_t n, unsigned seed) {
    uint8_t *p = malloc(n ? n : 1);
    for (size_t i = 0; i < n; i++) p[i] = pattern(i, seed);
    return p;
}

static enum oc_err send_bytes(struct oc_ipc_channel *c, size_t n, unsigned seed, const int *fds, int n_fds) {
    struct oc_errinfo ei;
    uint8_t *p = make_payload(n, seed);
    enum oc_err err = oc_ipc_channel_send(c, OC_IPC_JOB, 1000 + seed, p, n, fds, n_fds, &ei);
    free(p);
    return err;
}

static void check_frame(const struct oc_ipc_frame *f, size_t n, unsigned seed) {
    assert_int_equal(f->type, OC_IPC_JOB);
    assert_int_equal(f->id, 1000 + seed);
    assert_int_equal(f->n_bytes, n);
    for (size_t i = 0; i < n; i++)
        if (f->payload[i] != pattern(i, seed)) fail_msg("byte %zu differs", i);
}

static void test_frames_of_all_sizes(void **state) {
    (void)state;
    static const size_t sizes[] = {0, 1, 15, 16, 17, 4095, 4096, 100000, 0, 3 * 1000 * 1000, 5};
    const unsigned n = sizeof sizes / sizeof *sizes;
    struct pair p = open_pair();
    struct oc_ipc_frame f;
    struct oc_errinfo ei;
    enum oc_ipc_got got;
    for (unsigned i = 0; i < n; i++) assert_int_equal(send_bytes(p.a, sizes[i], i, NULL, 0), OC_OK);
    assert_true(oc_ipc_channel_wants_write(p.a));
    assert_true(oc_ipc_channel_queued_bytes(p.a) > 3000000);
    for (unsigned i = 0, turns = 0; i < n; turns++) {
        assert_true(turns < 100000);
        assert_int_equal(oc_ipc_channel_flush(p.a, &ei), OC_OK);
        assert_int_equal(oc_ipc_channel_receive(p.b, 0, &f, &got, &ei), OC_OK);
        if (got == OC_IPC_NOTHING) continue;
        assert_int_equal(got, OC_IPC_FRAME);
        check_frame(&f, sizes[i], i);
        i++;
    }
    assert_false(oc_ipc_channel_wants_write(p.a));
    assert_int_equal(oc_ipc_channel_queued_bytes(p.a), 0);
    assert_int_equal(oc_ipc_channel_receive(p.b, 0, &f, &got, &ei), OC_OK);
    assert_int_equal(got, OC_IPC_NOTHING);
    close_pair(&p);
}

/* Descriptors of many frames, most of which wait in the queue, arrive with their own frame and in order. */
static void test_descriptors_in_order(void **state) {
    (void)state;
    struct pair p = open_pair();
    struct oc_ipc_frame f;
    struct oc_errinfo ei;
    enum oc_ipc_got got;
    static const int counts[] = {1, 0, 3, OC_IPC_MAX_FDS, 0, 2};
    static const size_t sizes[] = {10, 9000, 0, 20000, 1, 30000};
    int next = 0, expected = 0;
    for (unsigned i = 0; i < 6; i++) {
        int fds[OC_IPC_MAX_FDS];
        for (int k = 0; k < counts[i]; k++) fds[k] = memfd_of(next++);
        assert_int_equal(send_bytes(p.a, sizes[i], i, fds, counts[i]), OC_OK);
    }
    for (unsigned i = 0, turns = 0; i < 6; turns++) {
        assert_true(turns < 10000);
        assert_int_equal(oc_ipc_channel_flush(p.a, &ei), OC_OK);
        assert_int_equal(oc_ipc_channel_receive(p.b, 0, &f, &got, &ei), OC_OK);
        if (got != OC_IPC_FRAME) continue;
        check_frame(&f, sizes[i], i);
        assert_int_equal(f.n_fds, counts[i]);
        for (int k = 0; k < f.n_fds; k++) {
            assert_int_equal(number_of(f.fds[k]), expected++);
            assert_int_equal(fcntl(f.fds[k], F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
        }
        i++;
    }
    close_pair(&p);
}

static void test_descriptors_kept_and_closed(void **state) {
    (void)state;
    struct pair p = open_pair();
    struct oc_ipc_frame f;
    struct oc_errinfo ei;
    enum oc_ipc_got got;
    const int fds[3] = {memfd_of(1), memfd_of(2), memfd_of(3)};
    assert_int_equal(send_bytes(p.a, 4, 0, fds, 3), OC_OK);
    assert_int_equal(fcntl(fds[0], F_GETFD), -1); /* the channel took them over */
    assert_int_equal(oc_ipc_channel_receive(p.b, 0, &f, &got, &ei), OC_OK);
    assert_int_equal(f.n_fds, 3);
    const int kept = f.fds[1], first = f.fds[0], third = f.fds[2];
    f.fds[1] = -1;
    struct oc_ipc_frame other; /* the next receive needs nothing of the last frame */
    memset(&f, 0x55, sizeof f);
    assert_int_equal(oc_ipc_channel_receive(p.b, 0, &other, &got, &ei), OC_OK);
    assert_int_equal(got, OC_IPC_NOTHING);
    assert_int_equal(fcntl(first, F_GETFD), -1);
    assert_int_equal(fcntl(third, F_GETFD), -1);
    assert_int_equal(number_of(kept), 2);
    close(kept);
    close_pair(&p);
}

/* A frame and its descriptors written by hand, the descriptors with a byte in the middle of the payload. */
static void send_raw(int fd, const void *bytes, size_t n, const int *fds, int n_fds) {
    char control[CMSG_SPACE(253 * sizeof(int))] = {0};
    struct iovec iov = {(void *)bytes, n};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    if (n_fds) {
        m.msg_control = control;
        m.msg_controllen = CMSG_SPACE((size_t)n_fds * sizeof(int));
        struct cmsghdr *h = CMSG_FIRSTHDR(&m);
        *h = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN((size_t)n_fds * sizeof(int))};
        memcpy(CMSG_DATA(h), fds, (size_t)n_fds * sizeof(int));
    }
    assert_int_equal(sendmsg(fd, &m, MSG_NOSIGNAL), n);
}

struct raw {
    int fd, n_fds_before;
    struct oc_ipc_channel *c;
};

static struct raw open_raw(void) {
    struct raw r = {.n_fds_before = count_fds()};
    struct oc_errinfo ei;
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    r.fd = fds[0];
    assert_int_equal(oc_ipc_channel_open(fds[1], &r.c, &ei), OC_OK);
    return r;
}

static void close_raw(struct raw *r) {
    oc_ipc_channel_close(r->c);
    if (r->fd >= 0) close(r->fd);
    assert_int_equal(count_fds(), r->n_fds_before);
}

static void head_of(uint8_t out[OC_IPC_HEAD_BYTES], uint32_t n_bytes, uint16_t type, uint16_t n_fds) {
    const struct oc_ipc_frame_head h = {n_bytes, type, n_fds, 77};
    oc_ipc_frame_write_head(&h, out);
}

static void test_descriptors_apart_from_the_head(void **state) {
    (void)state;
    struct raw r = open_raw();
    struct oc_ipc_frame f;
    struct oc_errinfo ei;
    enum oc_ipc_got got;
    uint8_t head[OC_IPC_HEAD_BYTES];
    const int fds[2] = {memfd_of(5), memfd_of(6)};
    head_of(head, 4, OC_IPC_LOOK, 2);
    for (size_t i = 0; i < sizeof head; i++) { /* byte by byte, the first descriptor with one of them */
        send_raw(r.fd, head + i, 1, fds, i == 9);
        assert_int_equal(oc_ipc_channel_receive(r.c, 0, &f, &got, &ei), OC_OK);
        assert_int_equal(got, OC_IPC_NOTHING);
    }
    send_raw(r.fd, "ab", 2, NULL, 0);
    send_raw(r.fd, "cd", 2, fds + 1, 1);
    send_raw(r.fd, head, 3, NULL, 0); /* the next one has begun */
    assert_int_equal(oc_ipc_channel_receive(r.c, 0, &f, &got, &ei), OC_OK);
    assert_int_equal(got, OC_IPC_FRAME);
    assert_int_equal(f.n_fds, 2);
    assert_int_equal(number_of(f.fds[0]), 5);
    assert_int_equal(number_of(f.fds[1]), 6);
    assert_memory_equal(f.payload, "abcd", 4);
    close(fds[0]);
    close(fds[1]);
    close_raw(&r);
}

static void expect_broken(struct raw *r, enum oc_err err, const char *word) {
    struct oc_ipc_frame f;
    struct oc_errinfo ei;
    enum oc_ipc_got got;
    assert_int_equal(oc_ipc_channel_receive(r->c, 0, &f, &got, &ei), err);
    if (!strstr(ei.msg, word)) fail_msg("'%s' is not in '%s'", word, ei.msg);
    assert_int_equal(oc_ipc_channel_receive(r->c, 0, &f, &got, &ei), OC_ERR_FORMAT); /* and stays so */
    close_raw(r);
}

static void test_lying_frames(void **state) {
    (void)state;
    uint8_t head[OC_IPC_HEAD_BYTES];
    int fds[65];
    static const struct {
        uint32_t n_bytes;
        uint16_t type, n_fds;
        int n_sent;
        enum oc_err err;
        const char *word;
    } cases[] = {
        {OC_LIMIT_IPC_FRAME_BYTES + 1, OC_IPC_JOB, 0, 0, OC_ERR_LIMIT, "16777217 bytes"},
        {UINT32_MAX, OC_IPC_JOB, 0, 0, OC_ERR_LIMIT, "4294967295 bytes"},
        {0, OC_IPC_NONE, 0, 0, OC_ERR_FORMAT, "type 0"},
        {0, OC_IPC_N_TYPES, 0, 0, OC_ERR_FORMAT, "which is none"},
        {0, OC_IPC_JOB, OC_IPC_MAX_FDS + 1, 0, OC_ERR_FORMAT, "65 descriptors"},
        {0, OC_IPC_JOB, 2, 0, OC_ERR_FORMAT, "of 2 descriptors came with 0"},
        {0, OC_IPC_JOB, 2, 1, OC_ERR_FORMAT, "of 2 descriptors came with 1"},
        {0, OC_IPC_JOB, 0, 3, OC_ERR_FORMAT, "of 0 descriptors came with 3"},
        {0, OC_IPC_JOB, 64, 65, OC_ERR_FORMAT, "more descriptors"},
    };
    for (int i = 0; i < 65; i++) fds[i] = memfd_of(i);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct raw r = open_raw();
        head_of(head, cases[i].n_bytes, cases[i].type, cases[i].n_fds);
        send_raw(r.fd, head, sizeof head, fds, cases[i].n_sent);
        expect_broken(&r, cases[i].err, cases[i].word);
    }
    for (int i = 0; i < 65; i++) close(fds[i]);
}

/* More descriptors than a frame may have, sent in parts: those already there are closed too. */
static void test_descriptors_in_parts_over_the_limit(void **state) {
    (void)state;
    struct raw r = open_raw();
    uint8_t head[OC_IPC_HEAD_BYTES];
    int fds[40];
    for (int i = 0; i < 40; i++) fds[i] = memfd_of(i);
    head_of(head, 8, OC_IPC_JOB, 64);
    send_raw(r.fd, head, sizeof head, fds, 40);
    send_raw(r.fd, "x", 1, fds, 40);
    for (int i = 0; i < 40; i++) close(fds[i]);
    expect_broken(&r, OC_ERR_FORMAT, "more descriptors");
}

static void test_peer_death(void **state) {
    (void)state;
    struct oc_ipc_frame f;
    struct oc_errinfo ei;
    enum oc_ipc_got got;
    uint8_t head[OC_IPC_HEAD_BYTES];
    for (size_t n = 0; n <= sizeof head + 2; n++) { /* within the head and the payload; whole frames still come */
        struct raw r = open_raw();
        uint8_t bytes[sizeof head + 2] = {0};
        head_of(head, 2, OC_IPC_DONE, 0);
        memcpy(bytes, head, sizeof head);
        if (n) send_raw(r.fd, bytes, n, NULL, 0);
        close(r.fd);
        r.fd = -1;
        assert_int_equal(oc_ipc_channel_receive(r.c, -1, &f, &got, &ei), OC_OK);
        assert_int_equal(got, n == sizeof bytes ? OC_IPC_FRAME : OC_IPC_END);
        for (int i = 0; i < 2; i++) {
            assert_int_equal(oc_ipc_channel_receive(r.c, -1, &f, &got, &ei), OC_OK);
            assert_int_equal(got, OC_IPC_END);
        }
        const int fd = memfd_of(1);
        assert_int_equal(send_bytes(r.c, 5, 0, &fd, 1), OC_ERR_IO); /* no SIGPIPE, and the descriptor is closed */
        close_raw(&r);
    }
}

static void test_death_with_a_queue(void **state) {
    (void)state;
    struct pair p = open_pair();
    struct oc_errinfo ei;
    for (unsigned i = 0; i < 3; i++) {
        const int fd = memfd_of(1);
        assert_int_equal(send_bytes(p.a, 100000, i, &fd, 1), OC_OK);
    }
    oc_ipc_channel_close(p.b);
    p.b = NULL;
    assert_int_equal(oc_ipc_channel_flush(p.a, &ei), OC_ERR_IO);
    assert_false(oc_ipc_channel_wants_write(p.a));
    assert_int_equal(oc_ipc_channel_queued_bytes(p.a), 0);
    close_pair(&p);
}

static void test_queue_limit(void **state) {
    (void)state;
    struct pair p = open_pair();
    struct oc_ipc_frame f;
    struct oc_errinfo ei;
    enum oc_ipc_got got;
    unsigned n = 0;
    enum oc_err err;
    const size_t size = OC_LIMIT_IPC_FRAME_BYTES;
    assert_int_equal(send_bytes(p.a, size + 1, 0, NULL, 0), OC_ERR_LIMIT);
    while ((err = send_bytes(p.a, size, n, NULL, 0)) == OC_OK && n < 10) n++;
    assert_int_equal(err, OC_ERR_LIMIT);
    assert_true(n >= 3 && n <= 5);
    assert_true(oc_ipc_channel_queued_bytes(p.a) <= OC_LIMIT_IPC_QUEUE_BYTES);
    const int fd = memfd_of(1);
    assert_int_equal(send_bytes(p.a, size, 9, &fd, 1), OC_ERR_LIMIT);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
    const int big = 1 << 20; /* the rest at speed */
    setsockopt(oc_ipc_channel_fd(p.a), SOL_SOCKET, SO_SNDBUF, &big, sizeof big);
    for (unsigned i = 0; i < n;) { /* what was taken arrives whole */
        assert_int_equal(oc_ipc_channel_flush(p.a, &ei), OC_OK);
        assert_int_equal(oc_ipc_channel_receive(p.b, 0, &f, &got, &ei), OC_OK);
        if (got != OC_IPC_FRAME) continue;
        assert_int_equal(f.n_bytes, size);
        assert_int_equal(f.id, 1000 + i);
        i++;
    }
    close_pair(&p);
}

static void test_waits_as_long_as_asked(void **state) {
    (void)state;
    struct pair p = open_pair();
    struct oc_ipc_frame f;
    struct oc_errinfo ei;
    enum oc_ipc_got got;
    uint64_t start_ns = oc_clock_ns();
    assert_int_equal(oc_ipc_channel_receive(p.b, 0, &f, &got, &ei), OC_OK);
    assert_int_equal(got, OC_IPC_NOTHING);
    assert_int_equal(oc_ipc_channel_receive(p.b, 30, &f, &got, &ei), OC_OK);
    assert_int_equal(got, OC_IPC_NOTHING);
    assert_true(oc_clock_ms_since(start_ns) >= 29);
    close_pair(&p);
}

/* Both sides send more than the sockets take and then wait for each other: waiting sends too. */
static void test_waiting_sends_what_is_queued(void **state) {
    (void)state;
    struct pair p = open_pair();
    struct oc_ipc_frame f;
    struct oc_errinfo ei;
    enum oc_ipc_got got;
    const pid_t child = fork();
    struct oc_ipc_channel *c = child ? p.a : p.b;
    oc_ipc_channel_close(child ? p.b : p.a);
    assert_int_equal(send_bytes(c, 500000, 1, NULL, 0), OC_OK);
    assert_int_equal(oc_ipc_channel_receive(c, 20000, &f, &got, &ei), OC_OK);
    if (child == 0) {
        bool fine = got == OC_IPC_FRAME && f.n_bytes == 500000;
        while (oc_ipc_channel_wants_write(c) && oc_ipc_channel_flush(c, &ei) == OC_OK) usleep(1000);
        _exit(fine ? 0 : 1);
    }
    assert_int_equal(got, OC_IPC_FRAME);
    check_frame(&f, 500000, 1);
    for (int i = 0; oc_ipc_channel_wants_write(c) && i < 20000; i++) {
        assert_int_equal(oc_ipc_channel_flush(c, &ei), OC_OK);
        usleep(1000);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    oc_ipc_channel_close(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frames_of_all_sizes),
        cmocka_unit_test(test_descriptors_in_order),
        cmocka_unit_test(test_descriptors_kept_and_closed),
        cmocka_unit_test(test_descriptors_apart_from_the_head),
        cmocka_unit_test(test_lying_frames),
        cmocka_unit_test(test_descriptors_in_parts_over_the_limit),
        cmocka_unit_test(test_peer_death),
        cmocka_unit_test(test_death_with_a_queue),
        cmocka_unit_test(test_queue_limit),
        cmocka_unit_test(test_waits_as_long_as_asked),
        cmocka_unit_test(test_waiting_sends_what_is_queued),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
