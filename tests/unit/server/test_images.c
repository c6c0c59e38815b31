/* The pool of image-workers, with real processes: this program plays their part when it is started as one.
 * The bytes of a picture say what its image-worker does. */
#define _GNU_SOURCE
#include <dirent.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "ipc/channel.h"
#include "server/images.h"
#include "server/runtime.h"

/* ---- The part of an image-worker ----------------------------------------------------------------------- */

static void say(struct oc_ipc_channel *c, uint16_t type, uint64_t id, const struct oc_buf *b, int fd) {
    struct oc_errinfo ei;
    if (oc_ipc_channel_send(c, type, id, b->data, b->n_bytes, &fd, fd >= 0, &ei)) _exit(3);
}

static void say_seen(struct oc_ipc_channel *c, uint64_t id) {
    struct oc_ipc_seen m = {.width = 7, .height = 5, .plan = {.n_tokens = 3}};
    struct oc_buf b;
    oc_buf_init(&b, 1 << 16);
    if (!oc_ipc_seen_write(&b, &m)) _exit(3);
    say(c, OC_IPC_SEEN, id, &b, memfd_create("pixels", MFD_CLOEXEC));
    oc_buf_free(&b);
}

static void say_unseen(struct oc_ipc_channel *c, uint64_t id) {
    struct oc_ipc_unseen m = {.err = OC_ERR_FORMAT, .message = OC_STR("this is no picture")};
    struct oc_buf b;
    oc_buf_init(&b, 1 << 16);
    if (!oc_ipc_unseen_write(&b, &m)) _exit(3);
    say(c, OC_IPC_UNSEEN, id, &b, -1);
    oc_buf_free(&b);
}

/* "once:PATH": dies unless the file is there, and makes it. */
static void die_once(const char *path) {
    if (access(path, F_OK) == 0) return;
    FILE *f = fopen(path, "w");
    if (f) fclose(f);
    raise(SIGKILL);
}

static void obey(struct oc_ipc_channel *c, uint64_t id, const char *text) {
    if (!strncmp(text, "crash", 5)) raise(SIGKILL);
    if (!strncmp(text, "leave", 5)) _exit(0);
    if (!strncmp(text, "once:", 5)) die_once(text + 5);
    while (!strncmp(text, "hang", 4)) pause();
    if (!strncmp(text, "slow", 4)) usleep(300 * 1000);
    if (!strncmp(text, "lie", 3)) {
        struct oc_buf b = {0};
        say(c, OC_IPC_READY, id, &b, -1);
    } else if (!strncmp(text, "no", 2)) {
        say_unseen(c, id);
    } else {
        say_seen(c, id);
    }
    if (!strncmp(text, "last", 4)) _exit(0);
}

static int be_image_worker(void) {
    struct oc_ipc_channel *c;
    struct oc_ipc_frame f;
    struct oc_errinfo ei;
    enum oc_ipc_got got;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (oc_ipc_channel_open(3, &c, &ei)) return 3;
    while (!oc_ipc_channel_receive(c, -1, &f, &got, &ei) && got == OC_IPC_FRAME) {
        char text[256] = "";
        if (f.type != OC_IPC_LOOK || f.n_fds != 1 || pread(f.fds[0], text, sizeof text - 1, 0) < 0) return 3;
        obey(c, f.id, text);
    }
    oc_ipc_channel_close(c);
    return 0;
}

/* ---- The other side ------------------------------------------------------------------------------------ */

struct fixture {
    struct oc_server s;
    struct oc_server_config config;
    char dir[128];
};

struct picture {
    struct oc_server_look look;
    int n_done;
    enum oc_server_look_end how;
    int width;
    struct oc_errinfo ei;
};

static void on_done(struct oc_server_look *l, enum oc_server_look_end how, const struct oc_ipc_seen *seen,
                    int pixels, const struct oc_errinfo *ei) {
    struct picture *p = (struct picture *)l;
    p->n_done++;
    p->how = how;
    p->width = seen ? seen->width : 0;
    if (ei) p->ei = *ei;
    assert_int_equal(how == OC_LOOK_SEEN, pixels >= 0);
    if (pixels >= 0) close(pixels);
}

static int set_up(void **state) {
    struct fixture *fx = calloc(1, sizeof *fx);
    struct oc_errinfo ei;
    int n;
    snprintf(fx->dir, sizeof fx->dir, "%s/images-XXXXXX", OC_TEST_TMP);
    assert_non_null(mkdtemp(fx->dir));
    fx->config = (struct oc_server_config){.image_workers = 2, .image_timeout_s = 20};
    fx->s.config = &fx->config;
    uv_loop_init(&fx->s.loop);
    assert_int_equal(oc_server_runtime_open(fx->dir, &fx->s.runtime, &n, &ei), OC_OK);
    assert_int_equal(oc_server_images_open(&fx->s, &fx->s.images, &ei), OC_OK);
    *state = fx;
    return 0;
}

/* All processes and handles go. */
static int tear_down(void **state) {
    struct fixture *fx = *state;
    oc_server_images_close(fx->s.images);
    uv_run(&fx->s.loop, UV_RUN_DEFAULT);
    assert_null(fx->s.images);
    assert_int_equal(uv_loop_close(&fx->s.loop), 0);
    oc_server_runtime_close(fx->s.runtime);
    assert_int_equal(rmdir(fx->dir), 0);
    free(fx);
    return 0;
}

static void look(struct fixture *fx, struct picture *p, const char *text) {
    struct oc_errinfo ei;
    *p = (struct picture){.look = {.fd = memfd_create("bytes", MFD_CLOEXEC), .done = on_done}};
    assert_int_equal(write(p->look.fd, text, strlen(text)), strlen(text));
    assert_int_equal(oc_server_images_look(fx->s.images, &p->look, &ei), OC_OK);
}

static void wait_for(struct fixture *fx, struct picture *p) {
    while (!p->n_done) uv_run(&fx->s.loop, UV_RUN_ONCE);
    close(p->look.fd);
    assert_int_equal(p->look.state, OC_LOOK_OUT);
}

static struct oc_server_images_figures figures(struct fixture *fx) {
    struct oc_server_images_figures f;
    oc_server_images_figures(fx->s.images, &f);
    return f;
}

static void pictures_are_seen(void **state) {
    struct fixture *fx = *state;
    struct picture p[9];
    for (int i = 0; i < 9; i++) look(fx, &p[i], i % 3 == 2 ? "no" : "ok");
    for (int i = 0; i < 9; i++) wait_for(fx, &p[i]);
    for (int i = 0; i < 9; i++) assert_int_equal(p[i].how, i % 3 == 2 ? OC_LOOK_REFUSED : OC_LOOK_SEEN);
    assert_int_equal(p[0].width, 7);
    assert_string_equal(p[2].ei.msg, "this is no picture");
    struct oc_server_images_figures f = figures(fx);
    assert_int_equal(f.n_seen, 6);
    assert_int_equal(f.n_refused, 3);
    assert_int_equal(f.n_restarts, 0);
    assert_int_equal(f.n_idle, 2);
}

static void a_picture_gets_two_tries(void **state) {
    struct fixture *fx = *state;
    struct picture bad, lucky, good;
    char text[160];
    snprintf(text, sizeof text, "once:%s/once", fx->dir);
    look(fx, &bad, "crash");
    wait_for(fx, &bad);
    assert_int_equal(bad.how, OC_LOOK_CRASHED);
    assert_int_equal(bad.look.n_tries, 2);
    look(fx, &lucky, text);
    wait_for(fx, &lucky);
    assert_int_equal(lucky.how, OC_LOOK_SEEN);
    assert_int_equal(lucky.look.n_tries, 2);
    unlink(text + 5);
    look(fx, &good, "ok");
    wait_for(fx, &good);
    assert_int_equal(good.how, OC_LOOK_SEEN);
    assert_int_equal(figures(fx).n_crashes, 3);
}

static void leaving_and_lying_count_as_crashes(void **state) {
    struct fixture *fx = *state;
    struct picture p[3];
    look(fx, &p[0], "leave");
    look(fx, &p[1], "lie");
    look(fx, &p[2], "ok");
    for (int i = 0; i < 3; i++) wait_for(fx, &p[i]);
    assert_int_equal(p[0].how, OC_LOOK_CRASHED);
    assert_int_equal(p[1].how, OC_LOOK_CRASHED);
    assert_int_equal(p[2].how, OC_LOOK_SEEN);
}

/* A picture given to a process that is about to leave would lose a try, so that each round waits for fresh ones. */
static void the_answer_of_one_that_leaves_counts(void **state) {
    struct fixture *fx = *state;
    struct picture p[2];
    for (uint64_t round = 1; round <= 3; round++) {
        for (int i = 0; i < 2; i++) look(fx, &p[i], "last");
        for (int i = 0; i < 2; i++) wait_for(fx, &p[i]);
        for (int i = 0; i < 2; i++) assert_int_equal(p[i].how, OC_LOOK_SEEN);
        while (figures(fx).n_restarts < 2 * round || figures(fx).n_idle < 2) uv_run(&fx->s.loop, UV_RUN_ONCE);
    }
}

static void one_that_hangs_is_ended(void **state) {
    struct fixture *fx = *state;
    struct picture hangs, good;
    uint64_t start = oc_clock_ns();
    fx->config.image_timeout_s = 1;
    look(fx, &hangs, "hang");
    fx->config.image_timeout_s = 20;
    look(fx, &good, "ok");
    wait_for(fx, &good);
    assert_int_equal(good.how, OC_LOOK_SEEN);
    wait_for(fx, &hangs);
    assert_int_equal(hangs.how, OC_LOOK_CRASHED);
    assert_int_equal(hangs.look.n_tries, 1);
    assert_true(oc_clock_ms_since(start) > 900);
    assert_int_equal(figures(fx).n_timeouts, 1);
}

static void cancelled_ones_are_not_heard_of(void **state) {
    struct fixture *fx = *state;
    struct picture running[2], waiting, good;
    look(fx, &running[0], "slow");
    look(fx, &running[1], "hang");
    look(fx, &waiting, "ok");
    look(fx, &good, "ok");
    assert_int_equal(figures(fx).n_waiting, 2);
    oc_server_images_cancel(fx->s.images, &waiting.look);
    oc_server_images_cancel(fx->s.images, &running[0].look);
    oc_server_images_cancel(fx->s.images, &running[1].look);
    assert_int_equal(figures(fx).n_waiting, 1);
    wait_for(fx, &good);
    assert_int_equal(good.how, OC_LOOK_SEEN);
    assert_int_equal(running[0].n_done + running[1].n_done + waiting.n_done, 0);
    close(running[0].look.fd);
    close(running[1].look.fd);
    close(waiting.look.fd);
}

/* ---- Cancelled while the process dies -------------------------------------------------------------------- */

static int n_descriptors(void) {
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    assert_non_null(d);
    while (readdir(d)) n++;
    closedir(d);
    return n;
}

/* It is dead, and the loop does not know yet. */
static void wait_for_death(pid_t pid) {
    siginfo_t info;
    assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
}

/* The pool is whole again, does its work, and has kept nothing. */
static void goes_on(struct fixture *fx, uint64_t n_crashes, int n_fds) {
    struct picture good;
    while (figures(fx).n_crashes < n_crashes || figures(fx).n_idle < fx->config.image_workers) uv_run(&fx->s.loop, UV_RUN_ONCE);
    look(fx, &good, "ok");
    wait_for(fx, &good);
    assert_int_equal(good.how, OC_LOOK_SEEN);
    struct oc_server_images_figures f = figures(fx);
    assert_true(f.n_crashes == n_crashes && f.n_waiting == 0 && f.n_busy == 0);
    const uint64_t begun_ns = oc_clock_ns();
    while (n_descriptors() != n_fds) { /* the pipe of one that is gone ends a little later */
        assert_true(oc_clock_ms_since(begun_ns) < 60000);
        uv_run(&fx->s.loop, UV_RUN_NOWAIT);
    }
}

static void cancelled_before_the_death_is_known(void **state) {
    struct fixture *fx = *state;
    static const char *const ways[] = {"crash", "leave", "last"}; /* without a word, or its answer still in the socket */
    while (figures(fx).n_idle < 2) uv_run(&fx->s.loop, UV_RUN_ONCE);
    const int n_fds = n_descriptors();
    for (uint64_t i = 0; i < 3; i++) {
        struct picture p;
        const pid_t pid = figures(fx).pids[0]; /* the first that is free gets it */
        look(fx, &p, ways[i]);
        assert_int_equal(p.look.state, OC_LOOK_RUNNING);
        wait_for_death(pid);
        oc_server_images_cancel(fx->s.images, &p.look);
        assert_int_equal(p.look.state, OC_LOOK_OUT);
        close(p.look.fd);
        memset(&p.look, 0xa5, sizeof p.look); /* its request may be gone by now */
        goes_on(fx, i + 1, n_fds);
        assert_int_equal(p.n_done, 0);
    }
}

/* The picture stands in front of the queue again, for its second try. */
static void cancelled_between_two_tries(void **state) {
    struct fixture *fx = *state;
    struct picture bad, behind;
    while (figures(fx).n_idle < 2) uv_run(&fx->s.loop, UV_RUN_ONCE);
    const int n_fds = n_descriptors();
    struct picture busy;
    look(fx, &busy, "hang");
    look(fx, &bad, "crash");
    look(fx, &behind, "ok");
    while (bad.look.state != OC_LOOK_WAITING) uv_run(&fx->s.loop, UV_RUN_NOWAIT); /* ONCE would start the next process too */
    assert_int_equal(bad.look.n_tries, 1);
    oc_server_images_cancel(fx->s.images, &bad.look);
    wait_for(fx, &behind);
    assert_int_equal(behind.how, OC_LOOK_SEEN);
    oc_server_images_cancel(fx->s.images, &busy.look); /* that process is ended for its silence */
    close(bad.look.fd);
    close(busy.look.fd);
    goes_on(fx, 2, n_fds);
    assert_int_equal(bad.n_done + busy.n_done, 0);
}

/* What a request does when one of its pictures cannot be had: it gives up the others, whatever their processes do. */
static struct fixture *giving_up;
static struct picture *others[3];

static void on_done_give_up(struct oc_server_look *l, enum oc_server_look_end how, const struct oc_ipc_seen *seen, int pixels,
                            const struct oc_errinfo *ei) {
    on_done(l, how, seen, pixels, ei);
    for (int i = 0; i < 3; i++) oc_server_images_cancel(giving_up->s.images, &others[i]->look);
}

static void cancelled_from_within_a_death(void **state) {
    struct fixture *fx = *state;
    struct picture first, p[3];
    while (figures(fx).n_idle < 2) uv_run(&fx->s.loop, UV_RUN_ONCE);
    const int n_fds = n_descriptors();
    giving_up = fx;
    for (int i = 0; i < 3; i++) others[i] = &p[i];
    look(fx, &first, "crash");
    first.look.done = on_done_give_up;
    look(fx, &p[0], "hang");
    look(fx, &p[1], "crash");
    look(fx, &p[2], "ok");
    wait_for(fx, &first);
    assert_int_equal(first.how, OC_LOOK_CRASHED);
    assert_int_equal(first.look.n_tries, 2);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(p[i].look.state, OC_LOOK_OUT);
        close(p[i].look.fd);
    }
    goes_on(fx, 3, n_fds); /* two of the first, and the one that hangs */
    assert_int_equal(p[0].n_done + p[1].n_done + p[2].n_done, 0);
}

static void nobody_waits_for_ever(void **state) {
    struct fixture *fx = *state;
    struct picture p[3];
    for (int i = 0; i < 3; i++) look(fx, &p[i], "slow");
    oc_server_images_tick(fx->s.images, p[2].look.queued_ms + 20900);
    assert_int_equal(p[2].n_done, 0);
    oc_server_images_tick(fx->s.images, p[2].look.queued_ms + 21100);
    assert_int_equal(p[2].n_done, 1);
    assert_int_equal(p[2].how, OC_LOOK_FAILED);
    for (int i = 0; i < 3; i++) wait_for(fx, &p[i]);
    assert_int_equal(p[0].how, OC_LOOK_SEEN);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "image-worker")) return be_image_worker();
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        CASE(pictures_are_seen),
        CASE(a_picture_gets_two_tries),
        CASE(leaving_and_lying_count_as_crashes),
        CASE(the_answer_of_one_that_leaves_counts),
        CASE(one_that_hangs_is_ended),
        CASE(cancelled_ones_are_not_heard_of),
        CASE(cancelled_before_the_death_is_known),
        CASE(cancelled_between_two_tries),
        CASE(cancelled_from_within_a_death),
        CASE(nobody_waits_for_ever),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
