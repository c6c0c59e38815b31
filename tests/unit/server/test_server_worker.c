/* The orchestrator's side of a worker, with real processes that lie, fall silent and die. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/limits.h"
#include "server/worker.h"

#include "fake_worker.h"
#include "server_rig.h"

struct fixture {
    struct server_rig rig;
    struct oc_server_worker *w;
    int n_ready, n_refused, n_dead;
    bool dead_first; /* on_dead came before on_lost */
    struct oc_ipc_ready ready;
    enum oc_err refusal;
    char how[200], message[200];
};

struct job {
    struct oc_server_job job;
    struct fixture *fx;
    int n_stages, n_tokens, n_done, n_lost;
    bool blamed, told_after_death;
    struct oc_ipc_done done;
};

static void on_ready(void *arg, struct oc_server_worker *w, const struct oc_ipc_ready *m) {
    struct fixture *fx = arg;
    (void)w;
    fx->n_ready++;
    fx->ready = *m;
}

static void on_refused(void *arg, struct oc_server_worker *w, enum oc_err err, struct oc_str message) {
    struct fixture *fx = arg;
    (void)w;
    fx->n_refused++;
    fx->refusal = err;
    snprintf(fx->message, sizeof fx->message, "%.*s", (int)message.n, message.p);
}

static void on_dead(void *arg, struct oc_server_worker *w, const char *how) {
    struct fixture *fx = arg;
    assert_ptr_equal(w, fx->w);
    fx->n_dead++;
    fx->w = NULL;
    snprintf(fx->how, sizeof fx->how, "%s", how);
}

static void on_stage(struct oc_server_job *j, const struct oc_ipc_stage_entered *m) {
    (void)m;
    ((struct job *)j)->n_stages++;
}

static void on_tokens(struct oc_server_job *j, const struct oc_ipc_tokens *m) {
    ((struct job *)j)->n_tokens += (int)m->n_picks;
}

static void on_done(struct oc_server_job *j, const struct oc_ipc_done *m) {
    struct job *k = (struct job *)j;
    k->n_done++;
    k->done = *m;
}

static void on_lost(struct oc_server_job *j, bool blamed) {
    struct job *k = (struct job *)j;
    k->n_lost++;
    k->blamed = blamed;
    k->told_after_death = k->fx->n_dead == 1;
}

static const struct oc_server_job_events job_events = {
    .on_stage = on_stage, .on_tokens = on_tokens, .on_done = on_done, .on_lost = on_lost};

static int set_up(void **state) {
    struct fixture *fx = calloc(1, sizeof *fx);
    rig_open(&fx->rig, "worker",
             &(struct oc_server_config){.load_timeout_s = 600, .stall_timeout_s = 600, .batch_mode = "exact"});
    *state = fx;
    return 0;
}

static int tear_down(void **state) {
    struct fixture *fx = *state;
    if (fx->w) oc_server_worker_kill(fx->w, "the test is over");
    wait_until(&fx->rig, !fx->w);
    rig_close(&fx->rig);
    free(fx);
    return 0;
}

static void start(struct fixture *fx, const char *how) {
    struct oc_errinfo ei;
    const struct oc_server_worker_events ev = {
        .arg = fx, .on_ready = on_ready, .on_refused = on_refused, .on_dead = on_dead};
    fx->n_ready = fx->n_refused = fx->n_dead = 0;
    fx->how[0] = fx->message[0] = '\0';
    assert_int_equal(oc_server_worker_start(&fx->rig.s, how, 2048, NULL, &ev, &fx->w, &ei), OC_OK);
    assert_int_equal(oc_server_worker_state(fx->w), OC_WORKER_STARTING);
}

static void start_ready(struct fixture *fx, const char *how) {
    start(fx, how);
    wait_until(&fx->rig, fx->n_ready || fx->n_dead);
    assert_int_equal(fx->n_ready, 1);
}

static void send_job(struct fixture *fx, struct job *j, bool picture) {
    static const int32_t tokens[] = {1, 2, 3};
    static struct oc_ipc_job_picture pictures[1];
    const struct oc_ipc_job m = {.tokens = tokens, .n_tokens = 3, .pictures = pictures, .n_pictures = picture, .max_tokens = 2};
    struct oc_errinfo ei;
    *j = (struct job){.job = {.ev = &job_events}, .fx = fx};
    assert_int_equal(oc_server_worker_send(fx->w, &j->job, &m, NULL, 0, &ei), OC_OK);
}

static void log_has(struct fixture *fx, const char *const *words, size_t n) {
    struct oc_arena a;
    struct oc_str s;
    struct oc_errinfo ei;
    oc_arena_init(&a, OC_MIB);
    assert_int_equal(oc_file_read(&a, fx->rig.log, OC_MIB - 100, &s, &ei), OC_OK);
    const char *text = oc_arena_strndup(&a, s.p, s.n);
    for (size_t i = 0; i < n; i++)
        if (!strstr(text, words[i])) fail_msg("no '%s' in:\n%s", words[i], text);
    oc_arena_free(&a);
}
#define LOG_HAS(fx, ...)                                                                                      \
    log_has((fx), (const char *const[]){__VA_ARGS__}, sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

static void jobs_run_and_it_stops(void **state) {
    struct fixture *fx = *state;
    struct job j[3];
    start_ready(fx, "ok");
    assert_int_equal(fx->ready.n_sessions, 4);
    for (int i = 0; i < 3; i++) send_job(fx, &j[i], false);
    assert_int_equal(oc_server_worker_n_jobs(fx->w), 3);
    for (int i = 0; i < 3; i++) wait_until(&fx->rig, j[i].n_done);
    for (int i = 0; i < 3; i++) assert_true(j[i].n_stages == 1 && j[i].n_tokens == 2 && j[i].n_lost == 0 && !j[i].job.worker);
    assert_int_equal(oc_server_worker_n_jobs(fx->w), 0);
    oc_server_worker_stop(fx->w);
    wait_until(&fx->rig, fx->n_dead);
    assert_string_equal(fx->how, "it exited with code 0");
    LOG_HAS(fx, "worker stopped");
}

/* What lies about ids costs nothing: nobody has asked for it. */
static void messages_for_others_reach_nobody(void **state) {
    struct fixture *fx = *state;
    static const char *const hows[] = {"job-wrong-id", "job-after-done"};
    for (size_t i = 0; i < 2; i++) {
        struct job j[2];
        start_ready(fx, hows[i]);
        for (int k = 0; k < 2; k++) {
            send_job(fx, &j[k], false);
            wait_until(&fx->rig, j[k].n_done);
        }
        oc_server_worker_stop(fx->w);
        wait_until(&fx->rig, fx->n_dead);
        for (int k = 0; k < 2; k++) assert_true(j[k].n_stages == 1 && j[k].n_tokens == 2 && j[k].n_done == 1 && j[k].n_lost == 0);
        assert_string_equal(fx->how, "it exited with code 0");
    }
}

/* What lies about forms is ended, and its jobs are told so once. */
static void broken_messages_end_it(void **state) {
    struct fixture *fx = *state;
    static const struct {
        const char *how, *why;
    } lies[] = {{"job-type", "LOOK"}, {"job-no-type", "channel broke"}, {"job-oversize", "channel broke"}, {"job-garbage", "broke the protocol"},
                {"job-bad-stage", "stage"}};
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        struct job j;
        start_ready(fx, lies[i].how);
        send_job(fx, &j, false);
        wait_until(&fx->rig, fx->n_dead && j.n_lost);
        if (!strstr(fx->how, lies[i].why) || strncmp(fx->how, "it was killed", 13)) fail_msg("%s: %s", lies[i].how, fx->how);
        assert_true(j.n_done == 0 && j.n_lost == 1 && j.told_after_death && !j.blamed && !j.job.worker);
    }
}

static void absurd_figures_are_not_taken(void **state) {
    struct fixture *fx = *state;
    static const char *const hows[] = {"ready-version",    "ready-no-sequences",  "ready-too-many-sequences", "ready-no-context",
                                       "ready-little-kv", "ready-no-vocabulary", "ready-negative"};
    for (size_t i = 0; i < sizeof hows / sizeof *hows; i++) {
        start(fx, hows[i]);
        wait_until(&fx->rig, fx->n_dead);
        if (fx->n_ready || !strstr(fx->how, "broke the protocol")) fail_msg("%s: %s", hows[i], fx->how);
    }
    start(fx, "ready-twice");
    wait_until(&fx->rig, fx->n_dead);
    assert_int_equal(fx->n_ready, 1);
    assert_non_null(strstr(fx->how, "READY of version"));
}

static void death_before_ready(void **state) {
    struct fixture *fx = *state;
    static const struct {
        const char *how, *end;
    } ends[] = {{"start-exit", "it exited with code 3"}, {"start-kill", "it was ended by signal 9"}};
    for (size_t i = 0; i < 2; i++) {
        start(fx, ends[i].how);
        wait_until(&fx->rig, fx->n_dead);
        assert_int_equal(fx->n_ready + fx->n_refused, 0);
        assert_int_equal(strncmp(fx->how, ends[i].end, strlen(ends[i].end)), 0);
    }
    LOG_HAS(fx, "worker died", "doing=loading");
    start_ready(fx, "start-done"); /* DONE before READY is nobody's */
}

static void a_refusal_is_told_and_awaited(void **state) {
    struct fixture *fx = *state;
    start(fx, "refuse");
    wait_until(&fx->rig, fx->n_dead);
    assert_int_equal(fx->n_refused, 1);
    assert_int_equal(fx->refusal, OC_ERR_FORMAT);
    assert_non_null(strstr(fx->message, "broken"));
    fx->rig.config.load_timeout_s = 5; /* from the start on */
    start(fx, "refuse-and-stay");
    wait_until(&fx->rig, fx->n_dead);
    assert_int_equal(fx->n_refused, 1);
    assert_non_null(strstr(fx->how, "did not load within"));
}

static void a_load_has_a_limit(void **state) {
    struct fixture *fx = *state;
    fx->rig.config.load_timeout_s = 1;
    start(fx, "start-hang");
    wait_until(&fx->rig, fx->n_dead);
    assert_int_equal(fx->n_ready, 0);
    assert_non_null(strstr(fx->how, "did not load within"));
}

static void silence_ends_it_and_its_last_state_is_logged(void **state) {
    struct fixture *fx = *state;
    struct job bad, other;
    start_ready(fx, "silent");
    send_job(fx, &bad, true);
    send_job(fx, &other, true); /* is not even read */
    wait_until(&fx->rig, bad.n_stages);
    oc_server_worker_watch(fx->w);
    assert_false(oc_server_worker_is_stuck(fx->w));
    fx->rig.config.stall_timeout_s = 1;
    wait_until(&fx->rig, oc_server_worker_is_stuck(fx->w));
    while (!fx->n_dead) {
        oc_server_worker_watch(fx->w);
        uv_run(&fx->rig.s.loop, UV_RUN_ONCE);
    }
    assert_non_null(strstr(fx->how, "heartbeat stopped"));
    LOG_HAS(fx, "makes no progress", "doing=prefill", "job=1", "running=1", "worker died", "jobs=2");
    assert_true(bad.n_lost == 1 && bad.blamed && other.n_lost == 1 && !other.blamed);
}

static void one_without_a_heart_is_silent_too(void **state) {
    struct fixture *fx = *state;
    start_ready(fx, "no-heart");
    oc_server_worker_watch(fx->w);
    fx->rig.config.stall_timeout_s = 1;
    while (!fx->n_dead) {
        oc_server_worker_watch(fx->w);
        uv_run(&fx->rig.s.loop, UV_RUN_ONCE);
    }
    assert_non_null(strstr(fx->how, "heartbeat stopped"));
}

static void blame_falls_on_pictures_at_hand(void **state) {
    struct fixture *fx = *state;
    for (int picture = 0; picture < 2; picture++) {
        struct job j;
        start_ready(fx, "job-kill");
        send_job(fx, &j, picture);
        wait_until(&fx->rig, j.n_lost);
        assert_true(j.n_stages <= 1 && j.blamed == (bool)picture && j.told_after_death);
        assert_int_equal(strncmp(fx->how, "it was ended by signal 9", 24), 0);
    }
}

/* Its picture can do nothing for it. */
static void files_that_change_are_told_and_blame_nobody(void **state) {
    struct fixture *fx = *state;
    struct job j;
    start_ready(fx, "job-bus");
    send_job(fx, &j, true);
    wait_until(&fx->rig, j.n_lost);
    assert_true(j.n_stages == 1 && !j.blamed && j.told_after_death);
    assert_non_null(strstr(fx->how, "the model's files changed while they were in use"));
    LOG_HAS(fx, "worker died", "the model's files changed while they were in use", "doing=prefill");
}

static void last_words_count(void **state) {
    struct fixture *fx = *state;
    struct job j;
    start_ready(fx, "job-last-words");
    send_job(fx, &j, false);
    wait_until(&fx->rig, fx->n_dead);
    assert_true(j.n_tokens == 2 && j.n_done == 1 && j.n_lost == 0);
    start_ready(fx, "job-torn"); /* a frame that is not whole does not */
    send_job(fx, &j, false);
    wait_until(&fx->rig, fx->n_dead);
    assert_true(j.n_tokens == 0 && j.n_done == 0 && j.n_lost == 1);
}

static void a_socket_that_ends_is_the_end(void **state) {
    struct fixture *fx = *state;
    start_ready(fx, "close");
    wait_until(&fx->rig, fx->n_dead);
    assert_non_null(strstr(fx->how, "did not stop in time"));
}

static void one_that_does_not_stop_is_killed(void **state) {
    struct fixture *fx = *state;
    struct job j;
    start_ready(fx, "stubborn");
    oc_server_worker_stop(fx->w);
    struct oc_errinfo ei;
    const struct oc_ipc_job m = {.max_tokens = 1};
    j = (struct job){.job = {.ev = &job_events}, .fx = fx};
    assert_int_equal(oc_server_worker_send(fx->w, &j.job, &m, NULL, 0, &ei), OC_ERR_IO);
    wait_until(&fx->rig, fx->n_dead);
    assert_non_null(strstr(fx->how, "did not stop in time"));
}

static void cancelled_jobs_are_not_heard_of(void **state) {
    struct fixture *fx = *state;
    struct job gone, stays;
    start_ready(fx, "job-hold");
    send_job(fx, &gone, false);
    send_job(fx, &stays, false);
    wait_until(&fx->rig, gone.n_stages && stays.n_stages);
    oc_server_worker_cancel(&gone.job);
    assert_null(gone.job.worker);
    oc_server_worker_finish(&stays.job); /* whose DONE is wanted */
    wait_until(&fx->rig, stays.n_done);
    assert_int_equal(stays.done.finish, OC_IPC_FINISH_CANCELLED);
    assert_true(gone.n_done == 0 && gone.n_lost == 0);
    oc_server_worker_cancel(&gone.job); /* nothing happens */
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "worker")) return fake_worker_main(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        CASE(jobs_run_and_it_stops),
        CASE(messages_for_others_reach_nobody),
        CASE(broken_messages_end_it),
        CASE(absurd_figures_are_not_taken),
        CASE(death_before_ready),
        CASE(a_refusal_is_told_and_awaited),
        CASE(a_load_has_a_limit),
        CASE(silence_ends_it_and_its_last_state_is_logged),
        CASE(one_without_a_heart_is_silent_too),
        CASE(blame_falls_on_pictures_at_hand),
        CASE(files_that_change_are_told_and_blame_nobody),
        CASE(last_words_count),
        CASE(a_socket_that_ends_is_the_end),
        CASE(one_that_does_not_stop_is_killed),
        CASE(cancelled_jobs_are_not_heard_of),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
