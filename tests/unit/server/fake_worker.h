/* What tests of workers and models share: a test program that is started as `worker` plays one. The base name of the
 * model's directory says what it does wrong, such as "ok" or "ready-twice"; see obey() and start_up(). */
#ifndef OC_TESTS_UNIT_SERVER_FAKE_WORKER_H
#define OC_TESTS_UNIT_SERVER_FAKE_WORKER_H

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/clock.h"
#include "ipc/board.h"
#include "ipc/channel.h"
#include "ipc/frame.h"
#include "ipc/messages.h"

struct fake {
    struct oc_ipc_channel *c;
    struct oc_ipc_board *board;
    const char *how; /* base name of the model's directory */
    char dir[600];
};

static bool fake_is(const struct fake *k, const char *how) {
    return !strcmp(k->how, how);
}

static void fake_say(struct fake *k, uint16_t type, uint64_t id, struct oc_buf *b) {
    struct oc_errinfo ei;
    if (oc_ipc_channel_send(k->c, type, id, b->data, b->n_bytes, NULL, 0, &ei)) _exit(3);
    oc_buf_free(b);
}

#define FAKE_SAY(k, TYPE, name, id, message)                                                                  \
    do {                                                                                                      \
        struct oc_buf b_;                                                                                     \
        oc_buf_init(&b_, 1 << 20);                                                                            \
        if (!oc_ipc_##name##_write(&b_, (message))) _exit(3);                                                 \
        fake_say((k), OC_IPC_##TYPE, (id), &b_);                                                              \
    } while (0)

/* Bytes that no channel would send. */
static void fake_say_raw(struct fake *k, uint32_t n_bytes, uint16_t type, uint64_t id, const char *payload) {
    uint8_t head[OC_IPC_HEAD_BYTES];
    oc_ipc_frame_write_head(&(struct oc_ipc_frame_head){.n_bytes = n_bytes, .type = type, .id = id}, head);
    if (write(oc_ipc_channel_fd(k->c), head, sizeof head) != (ssize_t)sizeof head) _exit(3);
    if (*payload && write(oc_ipc_channel_fd(k->c), payload, strlen(payload)) < 0) _exit(3);
}

static void fake_ready(struct fake *k) {
    struct oc_ipc_ready m = {.version = OC_IPC_VERSION, .architecture = OC_STR("Fake"), .family = OC_STR("fake"), .isa = OC_STR("none"),
                             .n_threads = 1, .n_vocab = 100, .ctx_tokens = 512, .model_ctx_tokens = 512, .n_sessions = 4,
                             .kv_tokens = 2048, .image_token = -1};
    m.throughput = fake_is(k, "ready-throughput");
    if (fake_is(k, "ready-version")) m.version = 99;
    if (fake_is(k, "ready-no-sequences")) m.n_sessions = 0;
    if (fake_is(k, "ready-too-many-sequences")) m.n_sessions = INT32_MAX;
    if (fake_is(k, "ready-no-context")) m.ctx_tokens = 0;
    if (fake_is(k, "ready-little-kv")) m.kv_tokens = 511;
    if (fake_is(k, "ready-no-vocabulary")) m.n_vocab = 0;
    if (fake_is(k, "ready-negative")) m.ctx_tokens = -5; /* which writers write and readers refuse */
    FAKE_SAY(k, READY, ready, 0, &m);
}

static void fake_stage(struct fake *k, uint64_t id, int stage) {
    const struct oc_ipc_stage_entered m = {.stage = stage, .n_prompt = 3};
    FAKE_SAY(k, STAGE, stage, id, &m);
}

static void fake_tokens(struct fake *k, uint64_t id) {
    const struct oc_ipc_pick picks[] = {{.token = 7}, {.token = 8}};
    const struct oc_ipc_tokens m = {.picks = picks, .n_picks = 2};
    FAKE_SAY(k, TOKENS, tokens, id, &m);
}

static void fake_done(struct fake *k, uint64_t id) {
    const struct oc_ipc_done m = {.finish = OC_IPC_FINISH_LENGTH, .n_prompt = 3, .n_output = 2};
    FAKE_SAY(k, DONE, done, id, &m);
}

/* True the first time, for a directory. */
static bool fake_first_time(const struct fake *k) {
    char path[700];
    snprintf(path, sizeof path, "%s/was-here", k->dir);
    int fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    if (fd >= 0) close(fd);
    return fd >= 0;
}

static void fake_hang(void) {
    for (;;) pause();
}

/* As when a mapped file is cut; sanitizers would make it an exit. */
static void fake_bus(void) {
    signal(SIGBUS, SIG_DFL);
    raise(SIGBUS);
}

/* Before READY. */
static void fake_start_up(struct fake *k) {
    const struct oc_ipc_refused no = {.err = OC_ERR_FORMAT, .message = OC_STR("/secret/place/model.safetensors: broken")};
    if (fake_is(k, "start-exit")) _exit(3);
    if (fake_is(k, "start-kill")) raise(SIGKILL);
    if (fake_is(k, "start-bus")) fake_bus();
    if (fake_is(k, "start-kill-once") && fake_first_time(k)) raise(SIGKILL);
    if (fake_is(k, "start-hang")) fake_hang();
    if (fake_is(k, "start-done")) fake_done(k, 1);
    if (fake_is(k, "refuse") || fake_is(k, "refuse-and-stay")) FAKE_SAY(k, REFUSED, refused, 0, &no);
    if (fake_is(k, "refuse")) _exit(1);
    if (fake_is(k, "refuse-and-stay")) fake_hang();
    fake_ready(k);
    if (fake_is(k, "ready-twice")) fake_ready(k);
    if (fake_is(k, "close")) {
        oc_ipc_channel_close(k->c);
        fake_hang();
    }
}

static void fake_job(struct fake *k, uint64_t id) {
    atomic_store(&k->board->job, id);
    atomic_store(&k->board->doing, (uint32_t)OC_IPC_DOING_PREFILL);
    atomic_store(&k->board->n_running, 1);
    fake_stage(k, id, OC_IPC_STAGE_PREFILL);
    if (fake_is(k, "silent")) fake_hang();
    if (fake_is(k, "job-kill")) raise(SIGKILL);
    if (fake_is(k, "job-bus")) fake_bus();
    if (fake_is(k, "job-hold")) return; /* until it is cancelled */
    if (fake_is(k, "job-type")) fake_say_raw(k, 0, OC_IPC_LOOK, id, "");
    if (fake_is(k, "job-no-type")) fake_say_raw(k, 0, 77, id, "");
    if (fake_is(k, "job-oversize")) fake_say_raw(k, UINT32_MAX, OC_IPC_TOKENS, id, "");
    if (fake_is(k, "job-garbage")) fake_say_raw(k, 4, OC_IPC_TOKENS, id, "\xff\xff\xff\xff");
    if (fake_is(k, "job-torn")) {
        fake_say_raw(k, 1000, OC_IPC_TOKENS, id, "abc");
        _exit(0);
    }
    if (fake_is(k, "job-bad-stage")) fake_stage(k, id, 9);
    if (fake_is(k, "job-wrong-id")) {
        fake_tokens(k, id + 1000);
        fake_done(k, id + 1000);
        fake_tokens(k, 0);
        fake_done(k, 0);
    }
    fake_tokens(k, id);
    fake_done(k, id);
    if (fake_is(k, "job-after-done")) {
        fake_tokens(k, id);
        fake_stage(k, id, OC_IPC_STAGE_DECODE);
        fake_done(k, id);
    }
    if (fake_is(k, "job-last-words")) _exit(0);
}

static void fake_obey(struct fake *k, const struct oc_ipc_frame *f) {
    const struct oc_ipc_done cancelled = {.finish = OC_IPC_FINISH_CANCELLED};
    if (f->type == OC_IPC_JOB) fake_job(k, f->id);
    if (f->type == OC_IPC_CANCEL) FAKE_SAY(k, DONE, done, f->id, &cancelled);
    if (f->type == OC_IPC_SHUTDOWN && fake_is(k, "stubborn")) fake_hang();
    if (f->type == OC_IPC_SHUTDOWN) _exit(0);
}

/* `worker --measure`: what it prints is in the directory's name too. */
static int fake_measure(const struct fake *k) {
    const char *weights = fake_is(k, "measure-negative") ? "-1" : fake_is(k, "measure-absurd") ? "1e300" : "1000000";
    if (fake_is(k, "measure-kill")) raise(SIGKILL);
    if (fake_is(k, "measure-hang")) fake_hang();
    if (fake_is(k, "measure-fails")) fputs("ocellus: /secret/place/config.json: it is broken\n", stderr);
    if (fake_is(k, "measure-fails")) return 1;
    if (fake_is(k, "measure-large")) weights = "99000000000";
    if (!fake_is(k, "measure-nothing"))
        printf("{\"weight_bytes\":%s,\"kv_bytes\":1000,\"workspace_bytes\":1,\"embed_cache_bytes\":1,\"jobs_bytes\":1,\"ctx_tokens\":512,"
               "\"kv_tokens\":512,\"n_sessions\":4}\n", weights);
    return 0;
}

/* The whole of main() when argv[1] is "worker". */
static int fake_worker_main(int argc, char **argv) {
    struct fake k = {.how = ""};
    struct oc_ipc_frame f;
    struct oc_errinfo ei;
    enum oc_ipc_got got = OC_IPC_FRAME;
    bool measure = false;
    for (int i = 2; i < argc; i++) {
        measure |= !strcmp(argv[i], "--measure");
        if (!strcmp(argv[i], "--model") && i + 1 < argc) snprintf(k.dir, sizeof k.dir, "%s", argv[i + 1]);
    }
    k.how = strrchr(k.dir, '/') ? strrchr(k.dir, '/') + 1 : k.dir;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (measure) return fake_measure(&k);
    if (oc_ipc_channel_open(3, &k.c, &ei) || oc_ipc_board_map(4, &k.board, &ei)) return 3;
    fake_start_up(&k);
    while (got != OC_IPC_END) {
        if (!fake_is(&k, "no-heart")) atomic_store(&k.board->heartbeat_ns, oc_clock_ns());
        if (oc_ipc_channel_receive(k.c, 50, &f, &got, &ei)) return 3;
        if (got == OC_IPC_FRAME) fake_obey(&k, &f);
    }
    return 0;
}

#endif
