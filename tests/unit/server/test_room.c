/* Memory for pixels: who has room, who waits, in which order, and that every byte comes back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "server/room.h"

#define LIMIT 100

struct request {
    struct oc_server_place place;
    struct oc_server_room *room;
    int n_calls;
    struct request *drops; /* gives this one up when it gets its room */
};

static void on_room(struct oc_server_place *p) {
    struct request *k = (struct request *)p;
    assert_int_equal(p->state, OC_PLACE_HELD);
    k->n_calls++;
    if (k->drops) oc_server_room_leave(k->room, &k->drops->place);
}

static bool take(struct oc_server_room *r, struct request *k, int64_t bytes) {
    *k = (struct request){.place = {.on_room = on_room}, .room = r};
    return oc_server_room_take(r, LIMIT, &k->place, bytes);
}

static void is_empty(const struct oc_server_room *r) {
    assert_true(r->held_bytes == 0 && r->n_held == 0 && r->n_waiting == 0 && !r->first && !r->last);
}

static void what_fits_is_held(void **state) {
    (void)state;
    struct oc_server_room r = {0};
    struct request k[4];
    assert_true(take(&r, &k[0], 60));
    assert_true(take(&r, &k[1], 40)); /* to the byte */
    assert_false(take(&r, &k[2], 1));
    assert_false(take(&r, &k[3], 0)); /* nobody passes one that waits */
    assert_int_equal(r.held_bytes, 100);
    oc_server_room_go_on(&r, LIMIT);
    assert_int_equal(r.n_waiting, 2);
    oc_server_room_leave(&r, &k[1].place);
    assert_int_equal(k[2].n_calls, 0); /* not from within the call */
    oc_server_room_go_on(&r, LIMIT);
    assert_true(k[2].n_calls == 1 && k[3].n_calls == 1 && r.held_bytes == 61 && r.n_held == 3);
    for (int i = 0; i < 4; i++) oc_server_room_leave(&r, &k[i].place);
    for (int i = 0; i < 4; i++) oc_server_room_leave(&r, &k[i].place); /* nothing when it is out */
    is_empty(&r);
}

static void one_alone_gets_any_size(void **state) {
    (void)state;
    struct oc_server_room r = {0};
    struct request large, larger, small;
    assert_true(take(&r, &large, 1000));
    assert_false(take(&r, &larger, INT64_MAX));
    assert_false(take(&r, &small, 1));
    oc_server_room_shrink(&r, &large.place, 970);
    oc_server_room_go_on(&r, LIMIT);
    assert_true(larger.n_calls == 0 && small.n_calls == 0); /* it is the larger one's turn, and that must be alone */
    oc_server_room_leave(&r, &large.place);
    oc_server_room_go_on(&r, LIMIT);
    assert_true(larger.n_calls == 1 && small.n_calls == 0 && r.held_bytes == INT64_MAX);
    oc_server_room_leave(&r, &larger.place);
    oc_server_room_go_on(&r, LIMIT);
    assert_int_equal(small.n_calls, 1);
    oc_server_room_leave(&r, &small.place);
    is_empty(&r);
}

static void what_is_not_needed_goes_back(void **state) {
    (void)state;
    struct oc_server_room r = {0};
    struct request a, b;
    assert_true(take(&r, &a, 90));
    assert_false(take(&r, &b, 80));
    oc_server_room_shrink(&r, &b.place, 80); /* it has nothing yet */
    assert_int_equal(b.place.bytes, 80);
    oc_server_room_shrink(&r, &a.place, -5); /* it never grows */
    oc_server_room_shrink(&r, &a.place, 69);
    oc_server_room_go_on(&r, LIMIT);
    assert_true(r.held_bytes == 21 && b.n_calls == 0);
    oc_server_room_shrink(&r, &a.place, 1);
    oc_server_room_go_on(&r, LIMIT);
    assert_true(r.held_bytes == 100 && b.n_calls == 1);
    oc_server_room_shrink(&r, &a.place, 1000); /* more than it has */
    assert_int_equal(r.held_bytes, 80);
    oc_server_room_leave(&r, &a.place);
    oc_server_room_leave(&r, &b.place);
    is_empty(&r);
}

static void who_waits_may_leave(void **state) {
    (void)state;
    struct oc_server_room r = {0};
    struct request holder, k[5];
    take(&r, &holder, LIMIT);
    for (int i = 0; i < 5; i++) assert_false(take(&r, &k[i], 10));
    oc_server_room_leave(&r, &k[0].place); /* the first, one amid, the last */
    oc_server_room_leave(&r, &k[2].place);
    oc_server_room_leave(&r, &k[4].place);
    assert_int_equal(r.n_waiting, 2);
    k[1].drops = &k[3]; /* and one from within another's call */
    oc_server_room_leave(&r, &holder.place);
    oc_server_room_go_on(&r, LIMIT);
    assert_true(k[1].n_calls == 1 && k[3].n_calls == 0 && k[3].place.state == OC_PLACE_OUT);
    oc_server_room_leave(&r, &k[1].place);
    is_empty(&r);
}

static void one_may_give_itself_up(void **state) {
    (void)state;
    struct oc_server_room r = {0};
    struct request holder, k[3];
    take(&r, &holder, LIMIT);
    for (int i = 0; i < 3; i++) assert_false(take(&r, &k[i], LIMIT));
    for (int i = 0; i < 3; i++) k[i].drops = &k[i];
    oc_server_room_leave(&r, &holder.place);
    oc_server_room_go_on(&r, LIMIT);
    for (int i = 0; i < 3; i++) assert_true(k[i].n_calls == 1 && k[i].place.state == OC_PLACE_OUT);
    is_empty(&r);
}

static void the_limit_may_change(void **state) {
    (void)state;
    struct oc_server_room r = {0};
    struct request a, b;
    assert_true(take(&r, &a, 80));
    assert_false(take(&r, &b, 80));
    oc_server_room_go_on(&r, LIMIT / 2); /* a model came in */
    assert_int_equal(b.n_calls, 0);
    oc_server_room_go_on(&r, 160); /* and went */
    assert_int_equal(b.n_calls, 1);
    oc_server_room_leave(&r, &a.place);
    oc_server_room_leave(&r, &b.place);
    is_empty(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_fits_is_held),   cmocka_unit_test(one_alone_gets_any_size), cmocka_unit_test(what_is_not_needed_goes_back),
        cmocka_unit_test(who_waits_may_leave), cmocka_unit_test(one_may_give_itself_up),  cmocka_unit_test(the_limit_may_change),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
