/* The queue: order, limits, deadlines; and its accounting against a plain list under random operations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/limits.h"
#include "server/admission.h"

#define MAX_EVENTS 4096

struct events {
    struct oc_admission *a;
    struct oc_ticket *started[MAX_EVENTS], *out[MAX_EVENTS];
    int n_started, n_out;
    bool leave_at_once; /* each one that starts leaves from its callback */
    struct oc_ticket *enter_again;
};

static void on_start(void *arg, struct oc_ticket *t) {
    struct events *e = arg;
    assert_int_equal(t->state, OC_TICKET_RUNNING);
    assert_true(e->n_started < MAX_EVENTS);
    e->started[e->n_started++] = t;
    if (e->leave_at_once) oc_admission_leave(e->a, t, t->started_ms);
}

static void on_timeout(void *arg, struct oc_ticket *t) {
    struct events *e = arg;
    assert_int_equal(t->state, OC_TICKET_OUT);
    assert_true(e->n_out < MAX_EVENTS);
    e->out[e->n_out++] = t;
    if (e->enter_again == t) (void)oc_admission_enter(e->a, t, t->priority, t->deadline_ms);
}

static void open_queue(struct events *e, int n_slots, int max_waiting) {
    struct oc_errinfo ei;
    struct oc_admission_params p = {n_slots, max_waiting, {120, 60, 30}, e, on_start, on_timeout};
    memset(e, 0, sizeof *e);
    assert_int_equal(oc_admission_open(&p, &e->a, &ei), OC_OK);
}

static struct oc_admission_figures figures(const struct events *e) {
    struct oc_admission_figures f;
    oc_admission_figures(e->a, &f);
    return f;
}

/* Item 88: a free slot at once, position 0; then 1, 2, ... */
static void test_positions(void **state) {
    (void)state;
    struct events e;
    struct oc_ticket t[4] = {0};
    open_queue(&e, 1, 10);
    assert_int_equal(oc_admission_enter(e.a, &t[0], OC_PRIORITY_NORMAL, 5), OC_ADMIT_NOW);
    assert_int_equal(t[0].position, 0);
    for (int i = 1; i < 4; i++) {
        assert_int_equal(oc_admission_enter(e.a, &t[i], OC_PRIORITY_NORMAL, 5), OC_ADMIT_QUEUED);
        assert_int_equal(t[i].position, i);
    }
    struct oc_ticket urgent = {0};
    assert_int_equal(oc_admission_enter(e.a, &urgent, OC_PRIORITY_HIGH, 5), OC_ADMIT_QUEUED);
    assert_int_equal(urgent.position, 1);
    assert_int_equal(e.n_started, 0); /* NOW is the answer itself, no callback */
    oc_admission_leave(e.a, &urgent, 6);
    for (int i = 0; i < 4; i++) oc_admission_leave(e.a, &t[i], 6);
    oc_admission_close(e.a);
}

/* Item 89: high before normal before low, first come first served inside one. */
static void test_order(void **state) {
    (void)state;
    static const enum oc_priority in[] = {OC_PRIORITY_LOW, OC_PRIORITY_NORMAL, OC_PRIORITY_HIGH,
                                          OC_PRIORITY_LOW, OC_PRIORITY_NORMAL, OC_PRIORITY_HIGH,
                                          OC_PRIORITY_LOW};
    static const int out[] = {2, 5, 1, 4, 0, 3, 6};
    struct events e;
    struct oc_ticket first = {0}, t[7] = {0};
    open_queue(&e, 1, 10);
    (void)oc_admission_enter(e.a, &first, OC_PRIORITY_LOW, 0);
    for (int i = 0; i < 7; i++) (void)oc_admission_enter(e.a, &t[i], in[i], (uint64_t)i);
    oc_admission_leave(e.a, &first, 10);
    for (int i = 0; i < 7; i++) {
        assert_int_equal(e.n_started, i + 1);
        assert_ptr_equal(e.started[i], &t[out[i]]);
        assert_int_equal(figures(&e).n_running, 1);
        oc_admission_leave(e.a, e.started[i], 10);
    }
    assert_int_equal(figures(&e).n_running, 0);
    oc_admission_close(e.a);
}

/* Item 90: each class has its time. */
static void test_timeouts(void **state) {
    (void)state;
    struct events e;
    struct oc_ticket first = {0}, t[3] = {0};
    open_queue(&e, 1, 10);
    (void)oc_admission_enter(e.a, &first, OC_PRIORITY_NORMAL, 1000);
    for (int i = 0; i < 3; i++) (void)oc_admission_enter(e.a, &t[i], (enum oc_priority)i, 1000);
    assert_int_equal(oc_admission_tick(e.a, 1000), 31000);
    assert_int_equal(oc_admission_tick(e.a, 30999), 31000);
    assert_int_equal(e.n_out, 0);
    assert_int_equal(oc_admission_tick(e.a, 31000), 61000);
    assert_ptr_equal(e.out[0], &t[2]);
    assert_int_equal(oc_admission_tick(e.a, 200000), 0);
    assert_int_equal(e.n_out, 3);
    struct oc_admission_figures f = figures(&e);
    assert_int_equal(f.n_timeouts, 3);
    assert_int_equal(f.n_waiting, 0);
    oc_admission_leave(e.a, &t[0], 200000); /* out already: nothing happens */
    oc_admission_leave(e.a, &first, 200000);
    assert_int_equal(figures(&e).n_running, 0);
    assert_int_equal(e.n_started, 0);
    oc_admission_close(e.a);
}

/* Item 91: full, draining. */
static void test_full_and_draining(void **state) {
    (void)state;
    struct events e;
    struct oc_ticket t[4] = {0};
    open_queue(&e, 1, 2);
    for (int i = 0; i < 3; i++)
        assert_int_equal(oc_admission_enter(e.a, &t[i], OC_PRIORITY_NORMAL, 0),
                         i ? OC_ADMIT_QUEUED : OC_ADMIT_NOW);
    assert_int_equal(oc_admission_enter(e.a, &t[3], OC_PRIORITY_HIGH, 0), OC_ADMIT_FULL);
    assert_int_equal(t[3].state, OC_TICKET_OUT);
    oc_admission_drain(e.a, false);
    assert_int_equal(oc_admission_enter(e.a, &t[3], OC_PRIORITY_HIGH, 0), OC_ADMIT_DRAINING);
    assert_int_equal(figures(&e).n_rejected, 2);
    oc_admission_leave(e.a, &t[0], 0);
    assert_int_equal(e.n_started, 1); /* who was in before the drain still gets its turn */
    assert_int_equal(oc_admission_enter(e.a, &t[3], OC_PRIORITY_HIGH, 0), OC_ADMIT_DRAINING);
    /* Item 93: the waiting are turned out, the running not. */
    oc_admission_drain(e.a, true);
    assert_int_equal(e.n_out, 1);
    assert_ptr_equal(e.out[0], &t[2]);
    assert_int_equal(figures(&e).n_running, 1);
    assert_int_equal(figures(&e).n_cancelled, 1);
    oc_admission_leave(e.a, &t[1], 0);
    oc_admission_close(e.a);
}

/* Item 92: one that left the queue is skipped; leaving twice is nothing. */
static void test_cancel(void **state) {
    (void)state;
    struct events e;
    struct oc_ticket t[4] = {0};
    open_queue(&e, 1, 5);
    for (int i = 0; i < 4; i++) (void)oc_admission_enter(e.a, &t[i], OC_PRIORITY_NORMAL, 0);
    oc_admission_leave(e.a, &t[1], 1);
    oc_admission_leave(e.a, &t[1], 1);
    oc_admission_leave(e.a, &t[3], 1);
    oc_admission_leave(e.a, &t[0], 2);
    assert_int_equal(e.n_started, 1);
    assert_ptr_equal(e.started[0], &t[2]);
    oc_admission_leave(e.a, &t[2], 3);
    struct oc_admission_figures f = figures(&e);
    assert_int_equal(f.n_cancelled, 2);
    assert_int_equal(f.n_running, 0);
    oc_admission_close(e.a);
}

/* Item 94. */
static void test_figures(void **state) {
    (void)state;
    struct events e;
    struct oc_ticket t[6] = {0};
    open_queue(&e, 1, 10);
    struct oc_admission_figures f = figures(&e);
    assert_int_equal(f.n_slots, 1);
    assert_int_equal(f.max_waiting, 10);
    assert_int_equal(f.n_entered + f.n_started + f.n_timeouts + f.n_rejected + f.n_cancelled, 0);
    assert_int_equal(
        f.n_running + f.n_waiting + f.waiting_by_class[0] + f.waiting_by_class[1] + f.waiting_by_class[2], 0);
    assert_true(f.mean_wait_ms == 0);
    static const enum oc_priority in[] = {OC_PRIORITY_NORMAL, OC_PRIORITY_HIGH, OC_PRIORITY_HIGH,
                                          OC_PRIORITY_NORMAL, OC_PRIORITY_LOW,  OC_PRIORITY_LOW};
    for (int i = 0; i < 6; i++) (void)oc_admission_enter(e.a, &t[i], in[i], 100);
    f = figures(&e);
    assert_int_equal(f.waiting_by_class[0], 2);
    assert_int_equal(f.waiting_by_class[1], 1);
    assert_int_equal(f.waiting_by_class[2], 2);
    assert_int_equal(f.n_entered, 6);
    assert_int_equal(f.n_started, 1);
    oc_admission_leave(e.a, &t[0], 300); /* t[1] waited 200 ms, t[0] none */
    assert_float_equal(figures(&e).mean_wait_ms, 100, 1e-9);
    oc_admission_drain(e.a, true);
    oc_admission_leave(e.a, &t[1], 300);
    oc_admission_close(e.a);
}

static void test_mean_is_of_the_last_1000(void **state) {
    (void)state;
    struct events e;
    struct oc_ticket running = {0}, waiting = {0};
    open_queue(&e, 1, 1);
    uint64_t now = 0;
    for (int i = 0; i < 2500; i++) {
        e.n_started = 0;
        (void)oc_admission_enter(e.a, &running, OC_PRIORITY_HIGH, now);
        (void)oc_admission_enter(e.a, &waiting, OC_PRIORITY_HIGH, now);
        now += i < 2000 ? 5000 : 20; /* the last 500 rounds: waits of 0 and 20 */
        oc_admission_leave(e.a, &running, now);
        oc_admission_leave(e.a, &waiting, now);
    }
    assert_float_equal(figures(&e).mean_wait_ms, 10, 1e-9);
    oc_admission_close(e.a);
}

/* Item 95: 20 at once with 5 slots. */
static void test_slots(void **state) {
    (void)state;
    struct events e;
    struct oc_ticket t[20] = {0};
    open_queue(&e, 5, 50);
    for (int i = 0; i < 20; i++) (void)oc_admission_enter(e.a, &t[i], OC_PRIORITY_NORMAL, 0);
    assert_int_equal(figures(&e).n_running, 5);
    oc_admission_set_slots(e.a, 8, 1);
    assert_int_equal(figures(&e).n_running, 8);
    oc_admission_set_slots(e.a, 2, 1); /* those that run go on */
    assert_int_equal(figures(&e).n_running, 8);
    for (int i = 0; i < 6; i++) oc_admission_leave(e.a, &t[i], 2);
    assert_int_equal(figures(&e).n_running, 2);
    assert_int_equal(e.n_started, 3);
    oc_admission_set_slots(e.a, 0, 2);
    for (int i = 6; i < 8; i++) oc_admission_leave(e.a, &t[i], 2);
    assert_int_equal(figures(&e).n_running, 0);
    assert_int_equal(figures(&e).n_waiting, 12);
    oc_admission_drain(e.a, true);
    oc_admission_close(e.a);
}

/* Callbacks that come back: a thousand that give up as soon as they start; one that enters again when its
 * time ends. */
static void test_callbacks_come_back(void **state) {
    (void)state;
    struct events e;
    struct oc_ticket first = {0}, *t = calloc(OC_LIMIT_SERVER_QUEUE, sizeof *t);
    open_queue(&e, 1, OC_LIMIT_SERVER_QUEUE);
    e.leave_at_once = true;
    (void)oc_admission_enter(e.a, &first, OC_PRIORITY_LOW, 0);
    for (int i = 0; i < OC_LIMIT_SERVER_QUEUE; i++) (void)oc_admission_enter(e.a, &t[i], OC_PRIORITY_LOW, 0);
    oc_admission_leave(e.a, &first, 0);
    assert_int_equal(e.n_started, OC_LIMIT_SERVER_QUEUE);
    assert_int_equal(figures(&e).n_running, 0);
    assert_int_equal(figures(&e).n_waiting, 0);
    e.enter_again = &t[0];
    (void)oc_admission_enter(e.a, &first, OC_PRIORITY_LOW, 0);
    (void)oc_admission_enter(e.a, &t[0], OC_PRIORITY_LOW, 0);
    assert_int_equal(oc_admission_tick(e.a, 30000), 60000);
    assert_int_equal(t[0].state, OC_TICKET_WAITING);
    oc_admission_drain(e.a, true);
    assert_int_equal(t[0].state, OC_TICKET_OUT);
    oc_admission_leave(e.a, &first, 0);
    oc_admission_close(e.a);
    free(t);
}

/* ---- Against a plain list ------------------------------------------------------------------------------ */

#define N_TICKETS 40

struct model { /* the same rules in the simplest form: an array in order of entry */
    struct {
        int id;
        enum oc_priority p;
        uint64_t entered, deadline;
    } waiting[N_TICKETS];
    int n_waiting, n_running, n_slots, max_waiting;
    bool running[N_TICKETS];
    uint64_t n_entered, n_started, n_timeouts, n_rejected, n_cancelled;
};

static void model_drop(struct model *m, int at) {
    for (int i = at; i + 1 < m->n_waiting; i++) m->waiting[i] = m->waiting[i + 1];
    m->n_waiting--;
}

static int model_find(const struct model *m, int id) {
    for (int i = 0; i < m->n_waiting; i++)
        if (m->waiting[i].id == id) return i;
    return -1;
}

static void model_start(struct model *m) {
    while (m->n_running < m->n_slots && m->n_waiting) {
        int at = 0;
        for (int i = 1; i < m->n_waiting; i++)
            if (m->waiting[i].p < m->waiting[at].p) at = i;
        m->running[m->waiting[at].id] = true;
        m->n_running++;
        m->n_started++;
        model_drop(m, at);
    }
}

static enum oc_admit model_enter(struct model *m, int id, enum oc_priority p, uint64_t now) {
    static const uint64_t timeout_ms[] = {120000, 60000, 30000};
    bool room = m->n_running < m->n_slots;
    if (!room && m->n_waiting >= m->max_waiting) {
        m->n_rejected++;
        return OC_ADMIT_FULL;
    }
    m->n_entered++;
    m->waiting[m->n_waiting].id = id;
    m->waiting[m->n_waiting].p = p;
    m->waiting[m->n_waiting].entered = now;
    m->waiting[m->n_waiting++].deadline = now + timeout_ms[p];
    model_start(m);
    return room ? OC_ADMIT_NOW : OC_ADMIT_QUEUED;
}

static void model_leave(struct model *m, int id) {
    int at = model_find(m, id);
    if (at >= 0) {
        model_drop(m, at);
        m->n_cancelled++;
    } else if (m->running[id]) {
        m->running[id] = false;
        m->n_running--;
        model_start(m);
    }
}

static uint64_t model_tick(struct model *m, uint64_t now) {
    uint64_t next = 0;
    for (int i = 0; i < m->n_waiting;) {
        if (m->waiting[i].deadline <= now) {
            model_drop(m, i);
            m->n_timeouts++;
            continue;
        }
        if (!next || m->waiting[i].deadline < next) next = m->waiting[i].deadline;
        i++;
    }
    return next;
}

static void compare(const struct events *e, const struct model *m, const struct oc_ticket *t) {
    struct oc_admission_figures f = figures(e);
    assert_int_equal(f.n_running, m->n_running);
    assert_int_equal(f.n_waiting, m->n_waiting);
    assert_int_equal(f.n_waiting, f.waiting_by_class[0] + f.waiting_by_class[1] + f.waiting_by_class[2]);
    assert_int_equal(f.n_entered, m->n_entered);
    assert_int_equal(f.n_started, m->n_started);
    assert_int_equal(f.n_timeouts, m->n_timeouts);
    assert_int_equal(f.n_rejected, m->n_rejected);
    assert_int_equal(f.n_cancelled, m->n_cancelled);
    assert_int_equal(f.n_entered, f.n_started + f.n_timeouts + f.n_cancelled + (uint64_t)f.n_waiting);
    for (int i = 0; i < N_TICKETS; i++)
        assert_int_equal(t[i].state, m->running[i]           ? OC_TICKET_RUNNING
                                     : model_find(m, i) >= 0 ? OC_TICKET_WAITING
                                                             : OC_TICKET_OUT);
}

static void random_operations(unsigned seed) {
    struct events e;
    struct oc_ticket t[N_TICKETS] = {0};
    struct model m = {.n_slots = 3, .max_waiting = 12};
    open_queue(&e, 3, 12);
    uint64_t now = 1;
    for (int step = 0; step < 4000; step++) {
        int id = rand_r(&seed) % N_TICKETS, what = rand_r(&seed) % 20;
        e.n_started = e.n_out = 0;
        now += (uint64_t)(rand_r(&seed) % 4000);
        if (what < 10 && t[id].state == OC_TICKET_OUT) {
            enum oc_priority p = (enum oc_priority)(rand_r(&seed) % 3);
            assert_int_equal(oc_admission_enter(e.a, &t[id], p, now), model_enter(&m, id, p, now));
        } else if (what < 17) {
            oc_admission_leave(e.a, &t[id], now);
            model_leave(&m, id);
        } else if (what < 19) {
            assert_int_equal(oc_admission_tick(e.a, now), model_tick(&m, now));
        } else {
            m.n_slots = rand_r(&seed) % 6;
            oc_admission_set_slots(e.a, m.n_slots, now);
            model_start(&m);
        }
        compare(&e, &m, t);
    }
    oc_admission_drain(e.a, true);
    for (int i = 0; i < N_TICKETS; i++) oc_admission_leave(e.a, &t[i], now);
    oc_admission_close(e.a); /* asserts that it is empty */
}

static void test_random_operations(void **state) {
    (void)state;
    for (unsigned seed = 1; seed <= 20; seed++) random_operations(seed);
}

static void test_priority_names(void **state) {
    (void)state;
    static const struct {
        const char *text;
        enum oc_priority p;
    } cases[] = {{"high", OC_PRIORITY_HIGH},      {"HIGH", OC_PRIORITY_HIGH}, {"normal", OC_PRIORITY_NORMAL},
                 {"Low", OC_PRIORITY_LOW},        {"", OC_PRIORITY_NORMAL},   {"urgent", OC_PRIORITY_NORMAL},
                 {"highest", OC_PRIORITY_NORMAL}, {"hig", OC_PRIORITY_NORMAL}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(oc_admission_parse_priority(cases[i].text, strlen(cases[i].text)), cases[i].p);
    assert_int_equal(oc_admission_parse_priority(NULL, 0), OC_PRIORITY_NORMAL);
    assert_string_equal(oc_admission_priority_name(OC_PRIORITY_LOW), "low");
}

static void test_parameters(void **state) {
    (void)state;
    struct oc_admission *a;
    struct oc_errinfo ei;
    struct oc_admission_params p = {1, OC_LIMIT_SERVER_QUEUE + 1, {1, 1, 1}, NULL, NULL, NULL};
    assert_int_equal(oc_admission_open(&p, &a, &ei), OC_ERR_USAGE);
    p.max_waiting = 1;
    p.timeout_s[2] = 0;
    assert_int_equal(oc_admission_open(&p, &a, &ei), OC_ERR_USAGE);
    assert_non_null(strstr(ei.msg, "low"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_positions),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_timeouts),
        cmocka_unit_test(test_full_and_draining),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_figures),
        cmocka_unit_test(test_mean_is_of_the_last_1000),
        cmocka_unit_test(test_slots),
        cmocka_unit_test(test_callbacks_come_back),
        cmocka_unit_test(test_random_operations),
        cmocka_unit_test(test_priority_names),
        cmocka_unit_test(test_parameters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
