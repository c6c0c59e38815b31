/* Pages kept for reuse: found by all that went into them, evicted the longest unused first, never while held. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "engine/prefix_cache.h"

#define N_PAGES 8

struct fixture {
    struct oc_lm_kv_cache kv;
    struct oc_engine_prefix_cache c;
};

static void open_all(struct fixture *f, bool on) {
    assert_int_equal(oc_lm_kv_cache_open(&f->kv, NULL, 1, 1, 8, OC_F32, N_PAGES, NULL), OC_OK);
    assert_int_equal(oc_engine_prefix_cache_open(&f->c, &f->kv, on, NULL), OC_OK);
}

static void close_all(struct fixture *f) {
    oc_engine_prefix_cache_close(&f->c);
    assert_int_equal(f->kv.n_free, N_PAGES);
    oc_lm_kv_cache_close(&f->kv);
}

static struct oc_engine_prefix_key key_of(uint8_t n) {
    struct oc_engine_prefix_key k;
    oc_engine_prefix_cache_root(&n, 1, &k);
    return k;
}

/* A session takes n pages and enters them under keys first, first+1, ... */
static void enter(struct fixture *f, int32_t *pages, int n, uint8_t first) {
    assert_true(oc_lm_kv_cache_take(&f->kv, pages, n));
    for (int i = 0; i < n; i++) {
        struct oc_engine_prefix_key k = key_of((uint8_t)(first + i));
        oc_engine_prefix_cache_enter(&f->c, &k, pages[i]);
    }
}

static int32_t find(const struct fixture *f, uint8_t n) {
    struct oc_engine_prefix_key k = key_of(n);
    return oc_engine_prefix_cache_find(&f->c, &k);
}

static void a_page_is_found_while_held_and_after(void **state) {
    (void)state;
    struct fixture f;
    int32_t pages[3];
    open_all(&f, true);
    enter(&f, pages, 3, 1);
    assert_int_equal(find(&f, 2), pages[1]);
    assert_int_equal(find(&f, 9), -1);
    assert_int_equal(f.c.n_idle, 0);
    oc_engine_prefix_cache_give(&f.c, pages, 3);
    assert_int_equal(f.c.n_idle, 3);
    assert_int_equal(f.kv.n_free, N_PAGES - 3);
    assert_int_equal(find(&f, 2), pages[1]);
    oc_engine_prefix_cache_hold(&f.c, pages[1]);
    assert_int_equal(f.c.n_idle, 2);
    oc_engine_prefix_cache_hold(&f.c, pages[1]); /* a second session */
    oc_engine_prefix_cache_give(&f.c, &pages[1], 1);
    assert_int_equal(f.c.n_idle, 2);
    oc_engine_prefix_cache_give(&f.c, &pages[1], 1);
    assert_int_equal(f.c.n_idle, 3);
    close_all(&f);
}

static void the_longest_unused_goes_first_and_chains_from_their_end(void **state) {
    (void)state;
    struct fixture f;
    int32_t a[3], b[2];
    open_all(&f, true);
    enter(&f, a, 3, 1);
    enter(&f, b, 2, 11);
    oc_engine_prefix_cache_give(&f.c, a, 3);
    oc_engine_prefix_cache_give(&f.c, b, 2);
    oc_engine_prefix_cache_evict(&f.c, 4); /* three are free */
    assert_int_equal(find(&f, 3), -1);
    assert_int_equal(find(&f, 2), a[1]);
    oc_engine_prefix_cache_hold(&f.c, a[0]); /* used again: the newest */
    oc_engine_prefix_cache_give(&f.c, &a[0], 1);
    oc_engine_prefix_cache_evict(&f.c, 7);
    assert_int_equal(find(&f, 1), a[0]);
    assert_int_equal(find(&f, 11), -1);
    assert_int_equal(f.c.n_evictions, 4);
    close_all(&f);
}

static void held_pages_are_not_evicted(void **state) {
    (void)state;
    struct fixture f;
    int32_t pages[4];
    open_all(&f, true);
    enter(&f, pages, 4, 1);
    oc_engine_prefix_cache_give(&f.c, pages + 2, 2);
    oc_engine_prefix_cache_evict(&f.c, N_PAGES);
    assert_int_equal(f.kv.n_free, N_PAGES - 2);
    assert_int_equal(find(&f, 1), pages[0]);
    assert_int_equal(find(&f, 3), -1);
    oc_engine_prefix_cache_give(&f.c, pages, 2);
    close_all(&f);
}

static void the_first_page_under_a_key_stays(void **state) {
    (void)state;
    struct fixture f;
    int32_t a[1], b[1];
    open_all(&f, true);
    enter(&f, a, 1, 1);
    enter(&f, b, 1, 1);
    assert_int_equal(find(&f, 1), a[0]);
    oc_engine_prefix_cache_give(&f.c, b, 1); /* never entered: free at once */
    assert_int_equal(f.kv.n_free, N_PAGES - 1);
    oc_engine_prefix_cache_give(&f.c, a, 1);
    close_all(&f);
}

static void a_cache_that_is_off_keeps_nothing(void **state) {
    (void)state;
    struct fixture f;
    int32_t pages[2];
    open_all(&f, false);
    enter(&f, pages, 2, 1);
    assert_int_equal(find(&f, 1), -1);
    oc_engine_prefix_cache_give(&f.c, pages, 2);
    oc_engine_prefix_cache_evict(&f.c, N_PAGES);
    assert_int_equal(f.kv.n_free, N_PAGES);
    close_all(&f);
}

/* Whatever a page's KV depends on changes its key. */
static void keys_differ_in_everything(void **state) {
    (void)state;
    int32_t tokens[OC_LM_PAGE_TOKENS] = {1, 2, 3}, other[OC_LM_PAGE_TOKENS] = {1, 2, 4};
    const struct oc_engine_prefix_part part = {{7}, 1, 4, 6, 0, 5};
    struct oc_engine_prefix_part parts[5] = {part, part, part, part, part};
    struct oc_engine_prefix_key root[2] = {key_of(1), key_of(2)}, k[9];
    parts[1].digest[31] = 1;
    parts[2].grid_h = 6;
    parts[3].from = 1;
    parts[4].to = 6;
    oc_engine_prefix_cache_key(&root[0], tokens, NULL, 0, &k[0]);
    oc_engine_prefix_cache_key(&root[1], tokens, NULL, 0, &k[1]);
    oc_engine_prefix_cache_key(&root[0], other, NULL, 0, &k[2]);
    for (int i = 0; i < 5; i++) oc_engine_prefix_cache_key(&root[0], tokens, &parts[i], 1, &k[3 + i]);
    oc_engine_prefix_cache_key(&root[0], tokens, parts, 2, &k[8]);
    for (int i = 0; i < 9; i++)
        for (int j = 0; j < i; j++) assert_memory_not_equal(&k[i], &k[j], sizeof k[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_page_is_found_while_held_and_after),
        cmocka_unit_test(the_longest_unused_goes_first_and_chains_from_their_end),
        cmocka_unit_test(held_pages_are_not_evicted),
        cmocka_unit_test(the_first_page_under_a_key_stays),
        cmocka_unit_test(a_cache_that_is_off_keeps_nothing),
        cmocka_unit_test(keys_differ_in_everything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
