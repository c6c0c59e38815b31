/* Slices of passes: how long, how many rows, and how fast costs are learnt, on the CPU and on a device that works by itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/sched.h"

struct fixture {
    struct oc_device dev;
    struct oc_engine e;
    struct oc_scheduler s;
    struct oc_sched_cost costs[OC_SCHED_MAX_STAGES];
    int n_waits;
};

static void count_wait(struct oc_device *d) {
    ((struct fixture *)d->state)->n_waits++;
}

static void setup(struct fixture *f, bool is_host) {
    *f = (struct fixture){.dev = {.is_host = is_host, .wait = count_wait}};
    f->dev.state = f;
    f->e.dev = &f->dev;
    f->s.e = &f->e;
}

static void a_slice_takes_a_step_or_what_a_device_needs(void **state) {
    (void)state;
    struct fixture f;
    for (int host = 0; host < 2; host++) {
        setup(&f, host);
        assert_true(oc_sched_cost_budget_ms(&f.s) == OC_SCHED_ALONE_MS);
        f.s.n_decoding = 8;
        f.s.costs.decode_ms = 3;
        double want = host ? OC_SCHED_MARGIN * (OC_SCHED_ITL_FACTOR - 1) * 3 : OC_SCHED_DEVICE_MS;
        assert_true(oc_sched_cost_budget_ms(&f.s) == want);
        f.s.costs.decode_ms = 100; /* a slow device is held to the same as the CPU */
        assert_true(oc_sched_cost_budget_ms(&f.s) == OC_SCHED_MARGIN * (OC_SCHED_ITL_FACTOR - 1) * 100);
    }
}

static void the_cpu_is_measured_piece_by_piece(void **state) {
    (void)state;
    struct fixture f;
    struct oc_sched_slice l;
    setup(&f, true);
    oc_sched_slice_begin(&f.s, &l, f.costs);
    for (int i = 0; i < 3; i++) oc_sched_slice_did(&f.s, &l, 1, 1e4, 100);
    assert_int_equal(f.n_waits, 3);
    assert_true(f.costs[1].by_size[0] > 0 && l.planned_ms == 0);
    for (int i = 1; i < OC_SCHED_N_SIZES; i++) assert_true(f.costs[1].by_size[i] == 0);
    double spent = l.spent_ms;
    assert_true(oc_sched_slice_end(&f.s, &l) == spent);
    assert_int_equal(f.n_waits, 3);
}

/* Known costs are planned with and the device is waited for once; what was never measured is measured alone. */
static void a_device_is_waited_for_once_a_slice(void **state) {
    (void)state;
    struct fixture f;
    struct oc_sched_slice l;
    setup(&f, false);
    oc_sched_slice_begin(&f.s, &l, f.costs);
    oc_sched_slice_did(&f.s, &l, 0, 1e4, 100);
    assert_int_equal(f.n_waits, 1);
    f.costs[0].by_size[1] = 1, f.costs[1].by_size[1] = 2;
    oc_sched_slice_begin(&f.s, &l, f.costs);
    assert_false(oc_sched_slice_fits(&f.s, &l, 2, 1, 100)); /* it begins a slice */
    for (int i = 0; i < 10; i++) {
        assert_true(oc_sched_slice_fits(&f.s, &l, i % 2, 1e4, 100));
        oc_sched_slice_did(&f.s, &l, i % 2, 1e4, 100);
    }
    assert_int_equal(f.n_waits, 1);
    assert_true(l.left_ms == OC_SCHED_ALONE_MS - 15 && l.planned_ms == 15);
    assert_true(oc_sched_slice_end(&f.s, &l) > 0);
    assert_int_equal(f.n_waits, 2);
    assert_true(l.planned_ms == 0 && l.left_ms + l.spent_ms > OC_SCHED_ALONE_MS - 1e-6 &&
                l.left_ms + l.spent_ms < OC_SCHED_ALONE_MS + 1e-6);
}

/* Time is shared as was planned, and what was planned wrongly is corrected. */
static void the_time_of_a_slice_is_shared_out(void **state) {
    (void)state;
    struct fixture f;
    struct oc_sched_slice l;
    setup(&f, false);
    f.costs[0].by_size[2] = 7, f.costs[1].by_size[2] = 1, f.costs[3].by_size[5] = 4;
    oc_sched_slice_begin(&f.s, &l, f.costs);
    oc_sched_slice_did(&f.s, &l, 1, 5e4, 200);
    oc_sched_slice_did(&f.s, &l, 3, 2.5e3, 2000);
    assert_true(l.planned_ms == 30);
    oc_sched_slice_settle(&l, 60);
    assert_true(f.costs[1].by_size[2] > 1.49 && f.costs[1].by_size[2] < 1.51); /* half the way to twice */
    assert_true(f.costs[3].by_size[5] > 5.99 && f.costs[3].by_size[5] < 6.01);
    assert_true(f.costs[0].by_size[2] == 7 && l.left_ms == OC_SCHED_ALONE_MS - 60 && l.spent_ms == 60 && l.planned_ms == 0);
    oc_sched_slice_settle(&l, 1); /* nothing is open any more */
    assert_true(f.costs[3].by_size[5] > 5.99 && f.costs[0].by_size[2] == 7);
}

/* Each size of a device's pieces has its own cost; one that was never measured is planned with as too long rather than too short. */
static void few_rows_may_take_as_long_as_many(void **state) {
    (void)state;
    struct fixture f;
    struct oc_sched_slice l;
    setup(&f, false);
    f.s.n_decoding = 1;
    f.s.costs.decode_ms = 1;
    f.costs[0].by_size[3] = 1; /* 257 to 512 rows: a millisecond for a million */
    oc_sched_slice_begin(&f.s, &l, f.costs);
    assert_true(oc_sched_slice_fits(&f.s, &l, 0, 1e4, 512)); /* 5.12 ms */
    assert_int_equal(oc_sched_slice_rows(&f.s, &l, 0, 1e4, 512), 512);
    assert_false(oc_sched_slice_fits(&f.s, &l, 0, 4e4, 512)); /* 20.48 ms: it is cut when it has a slice of its own */
    assert_int_equal(oc_sched_slice_rows(&f.s, &l, 0, 4e4, 512), 128);
    oc_sched_slice_did(&f.s, &l, 0, 1e4, 100);
    assert_true(l.planned_ms == 2.57); /* as the smallest of the next size */
    oc_sched_slice_settle(&l, 2);
    assert_true(f.costs[0].by_size[1] == 2 && f.costs[0].by_size[3] == 1);
    oc_sched_slice_did(&f.s, &l, 0, 1e3, 3000);
    assert_true(l.planned_ms == 3); /* by rows, as the one before */
}

/* A first piece that was a thousand times dearer than what follows is forgotten at once, one that was a little dearer slowly. */
static void costs_fall_fast_from_a_bad_first_guess(void **state) {
    (void)state;
    double cost = 0;
    oc_sched_cost_learn(&cost, 1e6, 1000);
    assert_true(cost == 1000);
    oc_sched_cost_learn(&cost, 1e6, 1);
    assert_true(cost == 2);
    for (int i = 0; i < 20; i++) oc_sched_cost_learn(&cost, 1e6, 1);
    assert_true(cost > 0.99 && cost < 1.02);
    oc_sched_cost_learn(&cost, 1e6, 0.9);
    assert_true(cost > 0.97);
}

/* From costs as of a CPU to a device ten thousand times as fast, and a stage of 5,000 rows goes in one piece. */
static void pieces_on_a_fast_device_are_not_small(void **state) {
    (void)state;
    struct fixture f;
    struct oc_sched_slice l;
    setup(&f, false);
    f.s.n_decoding = 8;
    f.s.costs.decode_ms = 3;
    f.costs[2].by_size[1] = 0.05;
    int n_slices = 0, rows = 0;
    for (; rows < 5000; n_slices++) {
        oc_sched_slice_begin(&f.s, &l, f.costs);
        rows = oc_sched_slice_rows(&f.s, &l, 2, 13e6, 5000);
        assert_true(rows >= 64);
        oc_sched_slice_did(&f.s, &l, 2, 13e6, rows);
        oc_sched_slice_settle(&l, 5e-6 * 13 * rows);
    }
    assert_true(n_slices <= 3);
    oc_sched_slice_begin(&f.s, &l, f.costs);
    assert_int_equal(oc_sched_slice_rows(&f.s, &l, 2, 13e6, 5000), 5000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_slice_takes_a_step_or_what_a_device_needs),
        cmocka_unit_test(the_cpu_is_measured_piece_by_piece),
        cmocka_unit_test(a_device_is_waited_for_once_a_slice),
        cmocka_unit_test(the_time_of_a_slice_is_shared_out),
        cmocka_unit_test(few_rows_may_take_as_long_as_many),
        cmocka_unit_test(costs_fall_fast_from_a_bad_first_guess),
        cmocka_unit_test(pieces_on_a_fast_device_are_not_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
