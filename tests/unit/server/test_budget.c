/* Who may come into memory and who must go, and the line of --measure. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "server/budget.h"

static int victims[16], n_victims;

static enum oc_server_verdict decide(int64_t budget, int64_t need, const struct oc_server_resident *r,
                                     int n) {
    return oc_server_budget_decide(budget, need, 16, r, n, victims, &n_victims);
}

static void an_empty_machine(void **state) {
    (void)state;
    assert_int_equal(decide(100, 100, NULL, 0), OC_BUDGET_FITS);
    assert_int_equal(decide(100, 101, NULL, 0), OC_BUDGET_NEVER);
}

static void what_fits_beside_others_comes_in(void **state) {
    struct oc_server_resident r[] = {{.bytes = 40, .idle = true}, {.bytes = 30, .idle = false}};
    (void)state;
    assert_int_equal(decide(100, 30, r, 2), OC_BUDGET_FITS);
    assert_int_equal(n_victims, 0);
}

static void the_least_recently_used_idle_one_goes(void **state) {
    struct oc_server_resident r[] = {{.bytes = 30, .idle = true, .last_used_ms = 30},
                                     {.bytes = 30, .idle = true, .last_used_ms = 10},
                                     {.bytes = 30, .idle = false, .last_used_ms = 1}};
    (void)state;
    assert_int_equal(decide(100, 40, r, 3), OC_BUDGET_EVICT);
    assert_int_equal(n_victims, 1);
    assert_int_equal(victims[0], 1);
    assert_int_equal(decide(100, 70, r, 3), OC_BUDGET_EVICT);
    assert_int_equal(n_victims, 2);
    assert_int_equal(victims[0], 1);
    assert_int_equal(victims[1], 0);
}

static void busy_ones_are_waited_for(void **state) {
    struct oc_server_resident r[] = {{.bytes = 60, .idle = false}};
    (void)state;
    assert_int_equal(decide(100, 50, r, 1), OC_BUDGET_WAIT);
    assert_int_equal(n_victims, 0);
}

/* Nobody is unloaded for a model that cannot come in yet anyway. */
static void no_victim_in_vain(void **state) {
    struct oc_server_resident r[] = {{.bytes = 60, .idle = false}, {.bytes = 30, .idle = true}};
    (void)state;
    assert_int_equal(decide(100, 50, r, 2), OC_BUDGET_WAIT);
    assert_int_equal(n_victims, 0);
    assert_int_equal(decide(100, 101, r, 2), OC_BUDGET_NEVER);
    assert_int_equal(n_victims, 0);
}

static void those_on_their_way_out_are_waited_for(void **state) {
    struct oc_server_resident r[] = {{.bytes = 60, .going = true}, {.bytes = 30, .idle = true}};
    (void)state;
    assert_int_equal(decide(100, 50, r, 2), OC_BUDGET_WAIT);
    assert_int_equal(decide(100, 80, r, 2), OC_BUDGET_EVICT);
    assert_int_equal(n_victims, 1);
    assert_int_equal(victims[0], 1);
}

static void the_number_of_models_is_bounded(void **state) {
    struct oc_server_resident r[16];
    (void)state;
    for (int i = 0; i < 16; i++)
        r[i] = (struct oc_server_resident){.bytes = 1, .idle = true, .last_used_ms = (uint64_t)(50 - i)};
    assert_int_equal(decide(100, 1, r, 15), OC_BUDGET_FITS);
    assert_int_equal(decide(100, 1, r, 16), OC_BUDGET_EVICT);
    assert_int_equal(n_victims, 1);
    assert_int_equal(victims[0], 15);
}

#define REST "\"jobs_bytes\":17,\"ctx_tokens\":100,\"kv_tokens\":100,\"n_sessions\":8}"

static enum oc_err parse(const char *text, struct oc_server_measure *m) {
    struct oc_errinfo ei;
    return oc_server_budget_parse_measure(text, strlen(text), m, &ei);
}

static void measurements(void **state) {
    struct oc_server_measure m;
    const char *good = "{\"weight_bytes\":5,\"kv_bytes\":700,\"workspace_bytes\":11,\"embed_cache_bytes\":13,"
                       "\"other\":1," REST;
    const char *bad[] = {
        "",
        "{}",
        "[5]",
        "{\"weight_bytes\":-1,\"kv_bytes\":7,\"workspace_bytes\":1,\"embed_cache_bytes\":1," REST,
        "{\"weight_bytes\":\"5\",\"kv_bytes\":7,\"workspace_bytes\":1,\"embed_cache_bytes\":1," REST,
        "{\"weight_bytes\":9223372036854775807,\"kv_bytes\":7,\"workspace_bytes\":1,\"embed_cache_bytes\":"
        "1," REST,
        "{\"weight_bytes\":1,\"workspace_bytes\":1,\"embed_cache_bytes\":1," REST,
        "{\"weight_bytes\":1,\"kv_bytes\":7,\"workspace_bytes\":1,\"embed_cache_bytes\":1,\"ctx_tokens\":9,"
        "\"kv_tokens\":9,\"n_sessions\":1}"};
    (void)state;
    assert_int_equal(parse(good, &m), OC_OK);
    assert_int_equal(oc_server_budget_need(&m, 100), 747);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_int_equal(parse(bad[i], &m), OC_ERR_FORMAT);
}

/* Where weights, KV and workspace are in a device's memory, the host's budget holds what is left of them. */
static void measurements_of_a_device(void **state) {
    (void)state;
    struct oc_server_measure m;
#define DEVICE(device, bytes)                                                                                           \
    "{\"device\":" device ",\"device_why\":\"so\",\"device_bytes\":" bytes ",\"device_free_bytes\":9000,\"host_bytes\":3,\"weight_bytes\":5,"  \
    "\"kv_bytes\":700,\"workspace_bytes\":11,\"embed_cache_bytes\":13," REST
    assert_int_equal(parse(DEVICE("\"cuda:0\"", "716"), &m), OC_OK);
    assert_string_equal(m.device, "cuda:0");
    assert_string_equal(m.device_why, "so");
    assert_true(m.device_bytes == 716 && m.device_free_bytes == 9000 && m.host_bytes == 3);
    assert_int_equal(oc_server_budget_need(&m, 100), 3 + 13 + 17);
    assert_int_equal(oc_server_budget_need(&m, 1000), 3 + 13 + 17);
    assert_int_equal(parse(DEVICE("\"cpu\"", "0"), &m), OC_OK);
    assert_int_equal(oc_server_budget_need(&m, 100), 747);
    assert_int_equal(parse(DEVICE("7", "716"), &m), OC_ERR_FORMAT);
    assert_int_equal(parse(DEVICE("\"a name that is far too long\"", "716"), &m), OC_ERR_FORMAT);
    assert_int_equal(parse(DEVICE("\"cuda:0\"", "-1"), &m), OC_ERR_FORMAT);
    assert_int_equal(parse(DEVICE("\"cuda:0\"", "699"), &m), OC_ERR_FORMAT);
}

/* A quarter of its free memory, as long as the model leaves as much. */
static void the_kv_pool_of_a_device_is_sized_by_its_memory(void **state) {
    (void)state;
    const int64_t mib = 1 << 20;
    struct oc_server_measure m = {.kv_bytes = 1000 * mib, .ctx_tokens = 1000, .kv_tokens = 1000, .n_sessions = 8,
                                  .device_bytes = 5000 * mib, .device_free_bytes = 80000 * mib};
    assert_int_equal(oc_server_budget_kv_tokens(&m, 1), 8000);
    m.device_free_bytes = 16000 * mib;
    assert_int_equal(oc_server_budget_kv_tokens(&m, 1), 4000);
    m.device_free_bytes = 7000 * mib; /* 7000 - 1536 - 4000 are left */
    assert_int_equal(oc_server_budget_kv_tokens(&m, 1), 1456);
    m.device_free_bytes = 100 * mib;
    assert_int_equal(oc_server_budget_kv_tokens(&m, 1), 1000);
}

static void the_kv_pool_is_sized_by_contexts_and_the_budget(void **state) {
    struct oc_server_measure m = {.kv_bytes = 1000, .ctx_tokens = 1000, .kv_tokens = 1000, .n_sessions = 8};
    (void)state;
    assert_int_equal(oc_server_budget_kv_tokens(&m, 1000000), 8000);
    assert_int_equal(oc_server_budget_kv_tokens(&m, 32000), 8000);
    assert_int_equal(oc_server_budget_kv_tokens(&m, 16000), 4000);
    assert_int_equal(oc_server_budget_kv_tokens(&m, 15990), 3984);
    assert_int_equal(oc_server_budget_kv_tokens(&m, 100), 1000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_machine),
        cmocka_unit_test(what_fits_beside_others_comes_in),
        cmocka_unit_test(the_least_recently_used_idle_one_goes),
        cmocka_unit_test(busy_ones_are_waited_for),
        cmocka_unit_test(no_victim_in_vain),
        cmocka_unit_test(those_on_their_way_out_are_waited_for),
        cmocka_unit_test(the_number_of_models_is_bounded),
        cmocka_unit_test(measurements),
        cmocka_unit_test(measurements_of_a_device),
        cmocka_unit_test(the_kv_pool_of_a_device_is_sized_by_its_memory),
        cmocka_unit_test(the_kv_pool_is_sized_by_contexts_and_the_budget),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
