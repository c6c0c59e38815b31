/* Work on other threads: all of it is done once, answers come on the loop, what has not begun can be taken
 * back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "server/crew.h"

#define N_ITEMS 200

struct item {
    struct oc_server_work work;
    int n_run, n_done;
};

struct gate {
    struct oc_server_work work;
    atomic_bool open;
    atomic_bool entered;
};

static void run_item(struct oc_server_work *w) {
    ((struct item *)w)->n_run++;
}

static void done_item(struct oc_server_work *w) {
    ((struct item *)w)->n_done++;
}

static void run_gate(struct oc_server_work *w) {
    struct gate *g = (struct gate *)w;
    atomic_store(&g->entered, true);
    while (!atomic_load(&g->open)) {
    }
}

static void done_gate(struct oc_server_work *w) {
    (void)w;
}

static void pump(uv_loop_t *loop, struct oc_server_crew *c) {
    while (oc_server_crew_n_pending(c)) uv_run(loop, UV_RUN_ONCE);
}

static void close_all(uv_loop_t *loop, struct oc_server_crew *c) {
    oc_server_crew_close(c);
    uv_run(loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(loop), 0);
}

static void everything_is_done_once(void **state) {
    static struct item items[N_ITEMS];
    uv_loop_t loop;
    struct oc_server_crew *c;
    struct oc_errinfo ei;
    (void)state;
    uv_loop_init(&loop);
    assert_int_equal(oc_server_crew_open(&loop, 3, &c, &ei), OC_OK);
    for (int i = 0; i < N_ITEMS; i++) {
        items[i] = (struct item){.work = {.run = run_item, .done = done_item}};
        oc_server_crew_post(c, &items[i].work);
    }
    pump(&loop, c);
    for (int i = 0; i < N_ITEMS; i++) {
        assert_int_equal(items[i].n_run, 1);
        assert_int_equal(items[i].n_done, 1);
    }
    close_all(&loop, c);
}

static void what_has_not_begun_is_taken_back(void **state) {
    static struct gate gate;
    static struct item items[3];
    uv_loop_t loop;
    struct oc_server_crew *c;
    struct oc_errinfo ei;
    (void)state;
    uv_loop_init(&loop);
    assert_int_equal(oc_server_crew_open(&loop, 1, &c, &ei), OC_OK);
    gate.work = (struct oc_server_work){.run = run_gate, .done = done_gate};
    oc_server_crew_post(c, &gate.work);
    for (int i = 0; i < 3; i++) {
        items[i] = (struct item){.work = {.run = run_item, .done = done_item}};
        oc_server_crew_post(c, &items[i].work);
    }
    while (!atomic_load(&gate.entered)) {
    }
    assert_false(oc_server_crew_withdraw(c, &gate.work)); /* at work */
    assert_true(oc_server_crew_withdraw(c, &items[2].work));
    assert_true(oc_server_crew_withdraw(c, &items[0].work));
    assert_false(oc_server_crew_withdraw(c, &items[0].work));
    assert_int_equal(oc_server_crew_n_pending(c), 2);
    oc_server_crew_post(c, &items[2].work); /* the queue's end is right */
    atomic_store(&gate.open, true);
    pump(&loop, c);
    assert_int_equal(items[0].n_run + items[0].n_done, 0);
    assert_int_equal(items[1].n_done, 1);
    assert_int_equal(items[2].n_done, 1);
    close_all(&loop, c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_is_done_once),
        cmocka_unit_test(what_has_not_begun_is_taken_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
