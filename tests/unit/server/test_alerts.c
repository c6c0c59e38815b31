/* Alerts: each comes with a line in the log and a gauge, and goes away again. The status shows what stands in s->alerts. */
#define _GNU_SOURCE
#include "model_rig.h"
#include "server/process.h"

static double gauge(struct fixture *fx, enum oc_server_alert a) {
    return oc_metrics_value(fx->rig.s.metrics, OC_M_ALERT, oc_server_alert_name(a), NULL);
}

/* Looks, and wants exactly these alerts. */
static void expect(struct fixture *fx, unsigned on) {
    oc_server_alerts_tick(&fx->rig.s);
    for (int a = 0; a < OC_ALERT_N; a++) {
        const bool is = fx->alerts.v[a].on, should = on >> a & 1;
        if (is != should || gauge(fx, (enum oc_server_alert)a) != (double)is)
            fail_msg("%s: %d, gauge %g", oc_server_alert_name((enum oc_server_alert)a), is, gauge(fx, (enum oc_server_alert)a));
    }
}
#define ON(a) (1u << OC_ALERT_##a)

static int count_in_log(struct fixture *fx, const char *what) {
    struct oc_arena a;
    struct oc_str s;
    struct oc_errinfo ei;
    int n = 0;
    oc_arena_init(&a, 2 * OC_MIB);
    assert_int_equal(oc_file_read(&a, fx->rig.log, OC_MIB, &s, &ei), OC_OK);
    for (const char *p = oc_arena_strndup(&a, s.p, s.n); (p = strstr(p, what)); p++) n++;
    oc_arena_free(&a);
    return n;
}

static struct oc_server_model *loaded(struct fixture *fx, struct want *k) {
    struct oc_server_model *m = add_model(fx, "ok");
    want(m, k);
    wait_until(&fx->rig, k->n_have);
    return m;
}

static struct oc_ipc_board *board_of(struct oc_server_model *m) {
    return (struct oc_ipc_board *)oc_server_worker_board(m->worker);
}

/* The budget is set to what the worker's share of it shall be. */
static void set_share(struct fixture *fx, double share) {
    fx->models.budget_bytes = (int64_t)((double)oc_server_process_workers_rss(&fx->rig.s) / share);
}

static void memory(void **state) {
    struct fixture *fx = *state;
    struct want k;
    expect(fx, 0); /* no model at all */
    struct oc_server_model *m = loaded(fx, &k);
    wait_until(&fx->rig, atomic_load(&board_of(m)->heartbeat_ns) > 0); /* it only waits from here on: its size rests */
    set_share(fx, 0.5);
    expect(fx, 0);
    set_share(fx, 0.82);
    expect(fx, ON(MEMORY));
    expect(fx, ON(MEMORY));
    assert_int_equal(count_in_log(fx, "alert=memory_warning"), 1); /* a change is logged, not a state */
    assert_non_null(strstr(fx->alerts.v[OC_ALERT_MEMORY].message, "of the memory budget"));
    assert_string_equal(oc_server_alert_severity(OC_ALERT_MEMORY), "warning");
    set_share(fx, 0.95);
    expect(fx, ON(MEMORY_FULL));
    assert_string_equal(oc_server_alert_severity(OC_ALERT_MEMORY_FULL), "critical");
    LOG_HAS(fx, "alert=memory_critical");
    set_share(fx, 0.82);
    expect(fx, ON(MEMORY));
    set_share(fx, 0.6);
    expect(fx, 0);
    assert_int_equal(count_in_log(fx, "an alert is over"), 3);
    fx->models.budget_bytes = 0; /* no budget, no share */
    expect(fx, 0);
    oc_server_model_release(&k.want);
}

static void slow_decoding(void **state) {
    struct fixture *fx = *state;
    struct want k;
    struct oc_server_model *m = loaded(fx, &k);
    fx->models.budget_bytes = 1000000000000000;
    atomic_store(&board_of(m)->decode_mtok_s, 1500);
    atomic_store(&board_of(m)->n_output_tokens, 10);
    expect(fx, 0); /* nobody asked for this alert */
    fx->rig.config.alert_tok_s = 2;
    expect(fx, 0); /* no tokens since the last look */
    atomic_store(&board_of(m)->n_output_tokens, 11);
    expect(fx, ON(SLOW_DECODE));
    assert_non_null(strstr(fx->alerts.v[OC_ALERT_SLOW_DECODE].message, "ok decoded 1.5 tokens a second, under the 2.0"));
    LOG_HAS(fx, "alert=slow_decode");
    atomic_store(&board_of(m)->decode_mtok_s, 2000);
    atomic_store(&board_of(m)->n_output_tokens, 20);
    expect(fx, ON(SLOW_DECODE)); /* is told for a while */
    fx->alerts.slow_ms -= 60000;
    expect(fx, 0);
    assert_int_equal(count_in_log(fx, "an alert is over"), 1);
    oc_server_model_release(&k.want);
}

static void slow_loads(void **state) {
    struct fixture *fx = *state;
    struct want k;
    struct oc_server_model *m = loaded(fx, &k);
    fx->models.budget_bytes = 1000000000000000;
    m->load_s = 10.5;
    expect(fx, 0);
    fx->rig.config.alert_load_s = 10;
    expect(fx, ON(SLOW_LOAD));
    assert_string_equal(fx->alerts.v[OC_ALERT_SLOW_LOAD].message, "ok took 10.5 s to load");
    LOG_HAS(fx, "ok took 10.5 s to load", "alert=slow_load");
    oc_server_model_release(&k.want);
    oc_server_model_unload(m, "asked", NULL);
    wait_until(&fx->rig, !m->worker);
    expect(fx, 0);
    assert_int_equal(count_in_log(fx, "an alert is over"), 1);
}

/* While it still loads, too. */
static void a_load_that_does_not_end(void **state) {
    struct fixture *fx = *state;
    struct oc_server_model *m = add_model(fx, "start-hang");
    struct want k;
    fx->rig.config.alert_load_s = 1;
    want(m, &k);
    wait_until(&fx->rig, m->state == OC_MODEL_LOADING);
    fx->models.budget_bytes = 1000000000000000;
    wait_until(&fx->rig, oc_server_worker_load_s(m->worker) > 1);
    expect(fx, ON(SLOW_LOAD));
    oc_server_model_stop(m);
    wait_until(&fx->rig, !m->worker);
    fx->rig.s.stopping = true;
    expect(fx, 0);
    assert_int_equal(k.n_failed, 1);
}

static void a_stuck_worker(void **state) {
    struct fixture *fx = *state;
    struct want k;
    struct oc_server_model *m = loaded(fx, &k);
    const int pid = oc_server_worker_pid(m->worker);
    fx->models.budget_bytes = 1000000000000000;
    expect(fx, 0);
    fx->rig.config.stall_timeout_s = 2;
    assert_int_equal(kill(pid, SIGSTOP), 0);
    wait_until(&fx->rig, oc_server_worker_is_stuck(m->worker));
    expect(fx, ON(STUCK));
    fx->rig.config.stall_timeout_s = 600;
    assert_int_equal(kill(pid, SIGCONT), 0);
    expect(fx, 0);
    LOG_HAS(fx, "the worker of ok shows no progress", "an alert is over");
    oc_server_model_release(&k.want);
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "worker")) return fake_worker_main(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        CASE(memory), CASE(slow_decoding), CASE(slow_loads), CASE(a_load_that_does_not_end), CASE(a_stuck_worker),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
