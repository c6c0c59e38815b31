/* Embeddings: shared while held, kept within a bound when ready, the longest unused freed first. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "engine/embed_cache.h"

#define DIM 4
#define BYTES(n_tokens) ((size_t)(n_tokens) * DIM * sizeof(float))

static struct oc_engine_embed_key key_of(uint8_t n) {
    struct oc_engine_embed_key k = {.grid_t = 1, .grid_h = 2, .grid_w = 4};
    memset(k.digest, n, sizeof k.digest);
    return k;
}

static struct oc_engine_embedding *hold(struct oc_engine_embed_cache *c, uint8_t n, int n_tokens) {
    struct oc_engine_embed_key k = key_of(n);
    struct oc_engine_embedding *e;
    assert_int_equal(oc_engine_embed_cache_hold(c, &k, n_tokens, DIM, &e, NULL), OC_OK);
    return e;
}

static bool has(const struct oc_engine_embed_cache *c, uint8_t n) {
    struct oc_engine_embed_key k = key_of(n);
    return oc_engine_embed_cache_find(c, &k) != NULL;
}

static void use(struct oc_engine_embed_cache *c, uint8_t n, int n_tokens) {
    struct oc_engine_embedding *e = hold(c, n, n_tokens);
    e->is_ready = true;
    oc_engine_embed_cache_give(c, e);
}

static void holders_share_one(void **state) {
    (void)state;
    struct oc_engine_embed_cache c;
    oc_engine_embed_cache_init(&c, 0);
    struct oc_engine_embedding *a = hold(&c, 1, 10), *b = hold(&c, 1, 10), *other = hold(&c, 2, 10);
    assert_ptr_equal(a, b);
    assert_ptr_not_equal(a, other);
    assert_int_equal(c.held_bytes, BYTES(20));
    oc_engine_embed_cache_give(&c, a);
    assert_true(has(&c, 1));
    oc_engine_embed_cache_give(&c, b);
    assert_false(has(&c, 1)); /* no bytes to keep it in */
    oc_engine_embed_cache_give(&c, other);
    assert_int_equal(c.held_bytes, 0);
    oc_engine_embed_cache_close(&c);
}

static void idle_ones_keep_within_the_bound(void **state) {
    (void)state;
    struct oc_engine_embed_cache c;
    oc_engine_embed_cache_init(&c, BYTES(30));
    for (uint8_t n = 1; n <= 3; n++) use(&c, n, 10);
    assert_int_equal(c.idle_bytes, BYTES(30));
    use(&c, 1, 10); /* now 2 is the longest unused */
    use(&c, 4, 15);
    assert_true(has(&c, 1) && has(&c, 4));
    assert_false(has(&c, 2) || has(&c, 3));
    assert_int_equal(c.n_evictions, 2);
    assert_int_equal(c.idle_bytes, BYTES(25));
    use(&c, 5, 31); /* alone over the bound: it pushes nothing out */
    assert_true(has(&c, 1) && has(&c, 4) && !has(&c, 5));
    oc_engine_embed_cache_close(&c);
}

static void what_is_not_ready_or_not_shared_is_not_kept(void **state) {
    (void)state;
    struct oc_engine_embed_cache c;
    oc_engine_embed_cache_init(&c, BYTES(100));
    oc_engine_embed_cache_give(&c, hold(&c, 1, 10));
    assert_false(has(&c, 1));
    struct oc_engine_embedding *a = hold(&c, 0, 10), *b = hold(&c, 0, 10);
    assert_ptr_not_equal(a, b);
    a->is_ready = b->is_ready = true;
    oc_engine_embed_cache_give(&c, a);
    oc_engine_embed_cache_give(&c, b);
    assert_int_equal(c.idle_bytes, 0);
    oc_engine_embed_cache_close(&c);
}

static void salt_and_grid_are_part_of_the_key(void **state) {
    (void)state;
    struct oc_engine_embed_cache c;
    oc_engine_embed_cache_init(&c, BYTES(100));
    use(&c, 1, 2);
    struct oc_engine_embed_key salted = key_of(1), turned = key_of(1);
    salted.salt[0] = 1;
    turned.grid_h = 4, turned.grid_w = 2;
    assert_null(oc_engine_embed_cache_find(&c, &salted));
    assert_null(oc_engine_embed_cache_find(&c, &turned));
    assert_true(has(&c, 1));
    oc_engine_embed_cache_close(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(holders_share_one),
        cmocka_unit_test(idle_ones_keep_within_the_bound),
        cmocka_unit_test(what_is_not_ready_or_not_shared_is_not_kept),
        cmocka_unit_test(salt_and_grid_are_part_of_the_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
