/* Files: whole, mapped, bounded, and one sentence for each refusal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/limits.h"

#define PATH OC_TEST_TMP "/test_file.bin"
#define N_BYTES 200000

struct fixture {
    struct oc_arena arena;
    struct oc_errinfo ei;
    struct oc_str s;
};

static int setup(void **state) {
    struct fixture *fx = calloc(1, sizeof *fx);
    FILE *f = fopen(PATH, "wb");
    if (!f) return -1;
    for (int i = 0; i < N_BYTES; i++) fputc(i % 251, f);
    fclose(f);
    oc_arena_init(&fx->arena, 4 << 20);
    *state = fx;
    return 0;
}

static int teardown(void **state) {
    struct fixture *fx = *state;
    oc_arena_free(&fx->arena);
    unlink(PATH);
    free(fx);
    return 0;
}

static void expect_bytes(const uint8_t *p, size_t n) {
    assert_int_equal(n, N_BYTES);
    for (int i = 0; i < N_BYTES; i++)
        if (p[i] != i % 251) fail_msg("byte %d", i);
}

static void test_read(void **state) {
    struct fixture *fx = *state;
    assert_int_equal(oc_file_read(&fx->arena, PATH, N_BYTES, &fx->s, &fx->ei), OC_OK);
    expect_bytes((const uint8_t *)fx->s.p, fx->s.n);
    assert_int_equal(fx->s.p[fx->s.n], 0);
    assert_int_equal(oc_file_read(&fx->arena, PATH, N_BYTES - 1, &fx->s, &fx->ei), OC_ERR_LIMIT);
    assert_non_null(strstr(fx->ei.msg, PATH));
    assert_non_null(strstr(fx->ei.msg, "199999"));
}

static void test_read_faults(void **state) {
    struct fixture *fx = *state;
    assert_int_equal(oc_file_read(&fx->arena, PATH ".none", 10, &fx->s, &fx->ei), OC_ERR_NOT_FOUND);
    assert_non_null(strstr(fx->ei.msg, "test_file.bin.none"));
    assert_int_equal(oc_file_read(&fx->arena, PATH "/below", 10, &fx->s, &fx->ei), OC_ERR_NOT_FOUND);
    assert_int_equal(oc_file_read(&fx->arena, OC_TEST_TMP, 10, &fx->s, &fx->ei), OC_ERR_IO);
    struct oc_arena small;
    oc_arena_init(&small, 1000);
    assert_int_equal(oc_file_read(&small, PATH, N_BYTES, &fx->s, &fx->ei), OC_ERR_NOMEM);
    oc_arena_free(&small);
}

/* A pipe has no size in advance and gives its bytes in pieces. */
static void test_read_pipe(void **state) {
    struct fixture *fx = *state;
    FILE *f = popen("cat '" PATH "'", "r");
    assert_non_null(f);
    assert_int_equal(oc_file_read_fd(&fx->arena, fileno(f), "pipe", N_BYTES, &fx->s, &fx->ei), OC_OK);
    expect_bytes((const uint8_t *)fx->s.p, fx->s.n);
    pclose(f);
    f = popen("cat '" PATH "'", "r");
    assert_int_equal(oc_file_read_fd(&fx->arena, fileno(f), "pipe", N_BYTES - 1, &fx->s, &fx->ei),
                     OC_ERR_LIMIT);
    pclose(f);
}

static void test_map(void **state) {
    struct fixture *fx = *state;
    struct oc_map m;
    assert_int_equal(oc_map_open(PATH, &m, &fx->ei), OC_OK);
    expect_bytes(m.data, m.n_bytes);
    oc_map_close(&m);
    assert_null(m.data);
    oc_map_close(&m);
    assert_int_equal(truncate(PATH, 0), 0);
    assert_int_equal(oc_map_open(PATH, &m, &fx->ei), OC_OK);
    assert_null(m.data);
    assert_int_equal(m.n_bytes, 0);
    oc_map_close(&m);
    assert_int_equal(oc_map_open(OC_TEST_TMP, &m, &fx->ei), OC_ERR_IO);
    assert_int_equal(oc_map_open(PATH ".none", &m, &fx->ei), OC_ERR_NOT_FOUND);
}

static void test_kinds(void **state) {
    (void)state;
    assert_true(oc_file_exists(PATH));
    assert_false(oc_file_exists(OC_TEST_TMP));
    assert_false(oc_file_exists(PATH ".none"));
    assert_true(oc_file_is_dir(OC_TEST_TMP));
    assert_false(oc_file_is_dir(PATH));
}

static void test_join(void **state) {
    struct fixture *fx = *state;
    assert_string_equal(oc_path_join(&fx->arena, "a", "b"), "a/b");
    assert_string_equal(oc_path_join(&fx->arena, "a/", "b"), "a/b");
    assert_string_equal(oc_path_join(&fx->arena, "", "b"), "/b");
    char *long_name = calloc(1, OC_LIMIT_PATH_BYTES);
    memset(long_name, 'x', OC_LIMIT_PATH_BYTES - 1);
    assert_null(oc_path_join(&fx->arena, "a", long_name));
    long_name[OC_LIMIT_PATH_BYTES - 3] = '\0';
    char *longest = oc_path_join(&fx->arena, "a", long_name);
    assert_int_equal(strlen(longest), OC_LIMIT_PATH_BYTES - 1);
    free(long_name);
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        CASE(test_read), CASE(test_read_faults), CASE(test_read_pipe),
        CASE(test_map),  CASE(test_kinds),       CASE(test_join),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
