/* One model from files to worker and back, with processes that lie, die and hang. */
#define _GNU_SOURCE
#include "model_rig.h"

#include "ocellus.h"

static void have(struct fixture *fx, struct oc_server_model *m, struct want *k) {
    want(m, k);
    wait_until(&fx->rig, k->n_have || k->n_failed);
    if (k->n_failed) fail_msg("%s", k->err.message);
    assert_int_equal(m->state, OC_MODEL_READY);
}

static double restarts(struct fixture *fx, const char *id, const char *why) {
    return oc_metrics_value(fx->rig.s.metrics, OC_M_WORKER_RESTARTS, id, why);
}

static void a_load_serves_all_that_want_it(void **state) {
    struct fixture *fx = *state;
    struct oc_server_model *m = add_model(fx, "ok");
    struct want k[3];
    for (int i = 0; i < 3; i++) want(m, &k[i]);
    assert_int_equal(m->state, OC_MODEL_PREPARING);
    wait_until(&fx->rig, k[2].n_have);
    assert_true(k[0].n_have == 1 && k[1].n_have == 1 && m->n_loads == 1 && m->n_held == 3);
    assert_int_equal(m->ready.n_sessions, 4);
    assert_int_equal(m->need_bytes, 1000000 + 4001 + 3); /* 2048 tokens of KV cache, rounded up */
    assert_string_equal(m->architecture, "Fake");
    for (int i = 0; i < 3; i++) oc_server_model_release(&k[i].want);
    assert_true(oc_server_model_is_idle(m));
    LOG_HAS(fx, "model loaded");
}

/* What the worker says counts, whatever its kernels are called. */
static void throughput_mode_is_told(void **state) {
    struct fixture *fx = *state;
    static const char *const hows[] = {"ok", "ready-throughput"};
    static const char *const sentences[] = {OC_NO_THROUGHPUT_SENTENCE, OC_THROUGHPUT_SENTENCE};
    fx->rig.config.batch_mode = "throughput";
    for (int i = 0; i < 2; i++) {
        struct oc_server_model *m = add_model(fx, hows[i]);
        struct want k;
        assert_false(log_holds(fx, sentences[i]));
        have(fx, m, &k);
        LOG_HAS(fx, sentences[i]);
        assert_int_equal(m->ready.throughput, i);
        oc_server_model_release(&k.want);
    }
}

struct unload {
    struct oc_server_unload unload;
    int n_done;
    int64_t freed;
};

static void on_unloaded(struct oc_server_unload *u, int64_t freed_bytes) {
    struct unload *k = (struct unload *)u;
    k->n_done++;
    k->freed = freed_bytes;
}

/* It goes when the last of those that use it has, and who comes meanwhile gets the next worker. */
static void an_unload_waits_for_jobs(void **state) {
    struct fixture *fx = *state;
    struct oc_server_model *m = add_model(fx, "ok");
    struct want runs, comes;
    struct unload u[2] = {{.unload = {.done = on_unloaded}}, {.unload = {.done = on_unloaded}}};
    have(fx, m, &runs);
    const int first = oc_server_worker_id(m->worker);
    oc_server_model_unload(m, "asked", &u[0].unload);
    oc_server_model_unload(m, "asked", &u[1].unload);
    want(m, &comes);
    for (int i = 0; i < 20; i++) uv_run(&fx->rig.s.loop, UV_RUN_ONCE);
    assert_true(m->state == OC_MODEL_READY && u[0].n_done == 0 && comes.n_have == 0);
    oc_server_model_release(&runs.want);
    wait_until(&fx->rig, comes.n_have);
    assert_true(u[0].n_done == 1 && u[1].n_done == 1 && u[0].freed == m->need_bytes);
    assert_true(oc_server_worker_id(m->worker) != first && m->n_loads == 2 && m->n_deaths == 0);
    oc_server_model_release(&comes.want);
}

/* A job that runs while its worker is told to stop by a shutdown is lost, not forgotten. */
static void a_stop_does_not_wait(void **state) {
    struct fixture *fx = *state;
    struct oc_server_model *m = add_model(fx, "job-hold");
    struct want runs;
    have(fx, m, &runs);
    oc_server_model_stop(m);
    wait_until(&fx->rig, !m->worker);
    assert_int_equal(m->n_held, 1);
    oc_server_model_release(&runs.want);
    assert_int_equal(m->n_held, 0);
}

static void a_load_that_fails_answers_all(void **state) {
    struct fixture *fx = *state;
    static const struct {
        const char *how;
        enum oc_api_problem problem;
        const char *words;
    } fails[] = {{"start-exit", OC_API_MODEL_LOADING, "exited with code 3"},
                 {"start-kill", OC_API_MODEL_LOADING, "signal 9"},
                 {"start-bus", OC_API_MODEL_LOADING, "files changed while they were in use"},
                 {"refuse", OC_API_INTERNAL, "model.safetensors: broken"},
                 {"ready-too-many-sequences", OC_API_MODEL_LOADING, "broke the protocol"}};
    for (size_t i = 0; i < sizeof fails / sizeof *fails; i++) {
        struct oc_server_model *m = add_model(fx, fails[i].how);
        struct want k[2];
        want(m, &k[0]);
        want(m, &k[1]);
        wait_until(&fx->rig, k[1].n_failed);
        if (k[0].n_failed != 1 || k[0].err.problem != fails[i].problem || !strstr(k[0].err.message, fails[i].words) ||
            strstr(k[0].err.message, "/secret"))
            fail_msg("%s: %d, %s", fails[i].how, (int)k[0].err.problem, k[0].err.message);
        wait_until(&fx->rig, m->state == OC_MODEL_UNLOADED && !m->worker);
        assert_int_equal(m->n_loads + (uint64_t)m->n_held, 0);
        assert_true(oc_metrics_value(fx->rig.s.metrics, OC_M_MODEL_LOADS, m->id, "failed") == 1);
    }
}

static void a_death_before_ready_is_no_end(void **state) {
    struct fixture *fx = *state;
    struct oc_server_model *m = add_model(fx, "start-kill-once");
    struct want k;
    want(m, &k);
    wait_until(&fx->rig, k.n_failed);
    have(fx, m, &k);
    assert_true(m->n_deaths == 1 && restarts(fx, m->id, "died") == 1);
    oc_server_model_release(&k.want);
}

static void on_lost(struct oc_server_job *j, bool blamed) {
    (void)j;
    assert_false(blamed);
}

static void on_stage(struct oc_server_job *j, const struct oc_ipc_stage_entered *m) {
    (void)j;
    (void)m;
}

/* All that was known of them is forgotten, and the next that wants the model has it. */
static void files_that_change_are_read_anew(void **state) {
    struct fixture *fx = *state;
    static const struct oc_server_job_events ev = {.on_stage = on_stage, .on_lost = on_lost};
    static const int32_t token = 1;
    struct oc_server_model *m = add_model(fx, "job-bus");
    struct oc_server_job j = {.ev = &ev};
    struct oc_errinfo ei;
    struct want k;
    have(fx, m, &k);
    assert_int_equal(oc_server_worker_send(m->worker, &j, &(struct oc_ipc_job){.tokens = &token, .n_tokens = 1, .max_tokens = 2}, NULL, 0, &ei),
                     OC_OK);
    wait_until(&fx->rig, !m->worker);
    assert_true(m->files_changed && m->need_bytes == 0 && m->n_deaths == 1 && m->chat);
    for (int i = 0; i < 20; i++) uv_run(&fx->rig.s.loop, UV_RUN_ONCE);
    assert_int_equal(m->state, OC_MODEL_UNLOADED); /* nobody asked for it again */
    oc_server_model_release(&k.want);
    assert_null(m->chat);
    have(fx, m, &k);
    assert_true(!m->files_changed && m->need_bytes > 0 && m->n_loads == 2);
    oc_server_model_release(&k.want);
}

static void measurements_are_not_trusted(void **state) {
    struct fixture *fx = *state;
    static const struct {
        const char *how;
        enum oc_api_problem problem;
        const char *words;
    } lies[] = {{"measure-negative", OC_API_INTERNAL, "no valid weight_bytes"}, {"measure-absurd", OC_API_INTERNAL, "no valid weight_bytes"},
                {"measure-nothing", OC_API_INTERNAL, "measurement"},            {"measure-kill", OC_API_MODEL_LOADING, "signal 9"},
                {"measure-fails", OC_API_INTERNAL, "config.json: it is broken"}, {"measure-large", OC_API_NO_MEMORY, "nothing was unloaded"}};
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        struct oc_server_model *m = add_model(fx, lies[i].how);
        struct want k;
        want(m, &k);
        wait_until(&fx->rig, k.n_failed);
        if (k.err.problem != lies[i].problem || !strstr(k.err.message, lies[i].words) || strstr(k.err.message, "/secret"))
            fail_msg("%s: %d, %s", lies[i].how, (int)k.err.problem, k.err.message);
        assert_true(m->state == OC_MODEL_UNLOADED && !m->worker && fx->rig.s.n_workers_started == 0);
    }
}

static void a_measurement_has_a_limit(void **state) {
    struct fixture *fx = *state;
    struct oc_server_model *m = add_model(fx, "measure-hang");
    struct want k;
    want(m, &k);
    wait_until(&fx->rig, m->state == OC_MODEL_MEASURING);
    oc_server_model_tick(m, oc_server_now_ms());
    assert_int_equal(k.n_failed, 0);
    oc_server_model_tick(m, oc_server_now_ms() + 601 * 1000);
    wait_until(&fx->rig, k.n_failed);
    assert_int_equal(k.err.problem, OC_API_MODEL_LOADING);
}

static void silence_is_a_death(void **state) {
    struct fixture *fx = *state;
    struct oc_server_model *m = add_model(fx, "ok");
    struct want k;
    have(fx, m, &k);
    kill(oc_server_worker_pid(m->worker), SIGSTOP); /* its heart stops with it */
    fx->rig.config.stall_timeout_s = 1;
    while (m->worker) {
        oc_server_model_tick(m, oc_server_now_ms());
        uv_run(&fx->rig.s.loop, UV_RUN_ONCE);
    }
    assert_true(m->state == OC_MODEL_UNLOADED && m->n_deaths == 1 && restarts(fx, m->id, "stalled") == 1);
    LOG_HAS(fx, "a worker makes no progress; it is killed");
    oc_server_model_release(&k.want);
    fx->rig.config.stall_timeout_s = 600;
    have(fx, m, &k);
    assert_int_equal(m->n_loads, 2);
    oc_server_model_release(&k.want);
}

/* The least recently used idle model goes for another; a busy one is waited for. */
static void models_make_room_for_each_other(void **state) {
    struct fixture *fx = *state;
    struct oc_server_model *a = add_model(fx, "ok"), *b = add_model(fx, "job-hold");
    struct want ka, kb;
    fx->models.budget_bytes = 1500000;
    have(fx, a, &ka);
    want(b, &kb);
    wait_until(&fx->rig, b->state == OC_MODEL_WAITING);
    for (int i = 0; i < 20; i++) uv_run(&fx->rig.s.loop, UV_RUN_ONCE);
    assert_true(a->state == OC_MODEL_READY && kb.n_have + kb.n_failed == 0);
    oc_server_model_release(&ka.want);
    wait_until(&fx->rig, kb.n_have);
    assert_true(a->state == OC_MODEL_UNLOADED && oc_server_models_n_resident(&fx->models) == 1);
    want(a, &ka); /* and now the other way round, until its time is over */
    wait_until(&fx->rig, a->state == OC_MODEL_WAITING);
    oc_server_model_tick(a, oc_server_now_ms() + 601 * 1000);
    assert_true(ka.n_failed == 1 && ka.err.problem == OC_API_NO_MEMORY && a->state == OC_MODEL_UNLOADED);
    oc_server_model_release(&kb.want);
}

static void a_want_may_be_given_up_at_any_time(void **state) {
    struct fixture *fx = *state;
    struct oc_server_model *m = add_model(fx, "ok");
    static const enum oc_server_model_state states[] = {OC_MODEL_PREPARING, OC_MODEL_MEASURING, OC_MODEL_LOADING};
    struct want k;
    for (size_t i = 0; i < sizeof states / sizeof *states; i++) {
        want(m, &k);
        wait_until(&fx->rig, m->state == states[i] || k.n_have);
        oc_server_model_release(&k.want);
        for (int turn = 0; turn < 5; turn++) uv_run(&fx->rig.s.loop, UV_RUN_ONCE);
        assert_true(k.n_failed == 0 && m->n_held == 0 && m->n_wants_waiting == 0);
    }
    have(fx, m, &k);
    oc_server_model_release(&k.want);
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "worker")) return fake_worker_main(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        CASE(a_load_serves_all_that_want_it),
        CASE(throughput_mode_is_told),
        CASE(an_unload_waits_for_jobs),
        CASE(a_stop_does_not_wait),
        CASE(a_load_that_fails_answers_all),
        CASE(a_death_before_ready_is_no_end),
        CASE(files_that_change_are_read_anew),
        CASE(measurements_are_not_trusted),
        CASE(a_measurement_has_a_limit),
        CASE(silence_is_a_death),
        CASE(models_make_room_for_each_other),
        CASE(a_want_may_be_given_up_at_any_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
