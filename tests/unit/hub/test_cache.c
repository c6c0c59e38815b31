/* Names to directories: a made-up cache in the build folder. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "hub/cache.h"

#define COMMIT "0123456789abcdef0123456789abcdef01234567"

struct fixture {
    char root[256];
    struct oc_arena arena;
    struct oc_errinfo ei;
    struct oc_hub_env env;
};

/* Makes every folder on the way to root/path, and the file itself unless text is NULL. */
static void make(const struct fixture *fx, const char *path, const char *text) {
    char full[1024];
    snprintf(full, sizeof full, "%s/%s", fx->root, path);
    for (char *p = full + strlen(fx->root) + 1; (p = strchr(p, '/')); *p++ = '/') {
        *p = '\0';
        mkdir(full, 0777);
    }
    if (!text) {
        assert_int_equal(mkdir(full, 0777), 0);
        return;
    }
    FILE *f = fopen(full, "wb");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static int setup(void **state) {
    struct fixture *fx = calloc(1, sizeof *fx);
    snprintf(fx->root, sizeof fx->root, "%s/cache-XXXXXX", OC_TEST_TMP);
    if (!mkdtemp(fx->root)) return -1;
    oc_arena_init(&fx->arena, 8 << 20);
    fx->env.hf_hub_cache = fx->root;
    *state = fx;
    return 0;
}

static int teardown(void **state) {
    struct fixture *fx = *state;
    char command[300];
    snprintf(command, sizeof command, "rm -r '%s'", fx->root);
    int rc = system(command);
    oc_arena_free(&fx->arena);
    free(fx);
    return rc;
}

static void find_fails(struct fixture *fx, const char *name, enum oc_err want, const char *part) {
    const char *dir;
    assert_int_equal(oc_hub_cache_find(&fx->arena, &fx->env, name, &dir, &fx->ei), want);
    assert_null(dir);
    if (!strstr(fx->ei.msg, part)) fail_msg("message: %s", fx->ei.msg);
}

static void find_ok(struct fixture *fx, const char *name, const char *want_below_root) {
    const char *dir;
    char want[512];
    snprintf(want, sizeof want, "%s/%s", fx->root, want_below_root);
    if (oc_hub_cache_find(&fx->arena, &fx->env, name, &dir, &fx->ei) != OC_OK) fail_msg("%s", fx->ei.msg);
    assert_string_equal(dir, want);
}

static void test_names(void **state) {
    (void)state;
    static const char *const good[] = {"a/b", "mlx-community/Some_Model-2.5-4bit", "A.b/9"};
    static const char *const bad[] = {"",     "a",    "a/",     "/b",    "a/b/c", "../b", "a/..",  ".a/b",
                                      "a/b.", "-a/b", "a/b--c", "a b/c", "a/b\n", "~/b",  "a/b:c", "a..b/c"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) assert_true(oc_hub_name_is_valid(good[i]));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (oc_hub_name_is_valid(bad[i])) fail_msg("taken: %s", bad[i]);
}

static void test_cache_dir(void **state) {
    struct fixture *fx = *state;
    const char *dir;
    struct oc_hub_env env = {"/h", "/i", "/j", "/k"};
    assert_int_equal(oc_hub_cache_dir(&fx->arena, &env, &dir, &fx->ei), OC_OK);
    assert_string_equal(dir, "/h");
    env.hf_hub_cache = "";
    assert_int_equal(oc_hub_cache_dir(&fx->arena, &env, &dir, &fx->ei), OC_OK);
    assert_string_equal(dir, "/i/hub");
    env.hf_home = NULL;
    assert_int_equal(oc_hub_cache_dir(&fx->arena, &env, &dir, &fx->ei), OC_OK);
    assert_string_equal(dir, "/j/huggingface/hub");
    env.xdg_cache_home = NULL;
    assert_int_equal(oc_hub_cache_dir(&fx->arena, &env, &dir, &fx->ei), OC_OK);
    assert_string_equal(dir, "/k/.cache/huggingface/hub");
    env.home = NULL;
    assert_int_equal(oc_hub_cache_dir(&fx->arena, &env, &dir, &fx->ei), OC_ERR_NOT_FOUND);
}

static void test_find(void **state) {
    struct fixture *fx = *state;
    make(fx, "models--org--m-1/refs/main", COMMIT "\n");
    make(fx, "models--org--m-1/snapshots/" COMMIT "/config.json", "{}");
    make(fx, "models--org--m-1/snapshots/ffffffffff/config.json", "{}");
    find_ok(fx, "org/m-1", "models--org--m-1/snapshots/" COMMIT);
    make(fx, "models--org--pinned/snapshots/ffffffffff/config.json", "{}");
    find_ok(fx, "org/pinned", "models--org--pinned/snapshots/ffffffffff");
    make(fx, "models--org--pinned/snapshots/eeeeeeeeee/config.json", "{}");
    find_fails(fx, "org/pinned", OC_ERR_NOT_FOUND,
               "org/pinned is neither a directory nor in the model cache");
    find_fails(fx, "org/none", OC_ERR_NOT_FOUND, fx->root);
    find_fails(fx, "org/none", OC_ERR_NOT_FOUND, "hf download org/none");
    find_fails(fx, "nothing", OC_ERR_USAGE, "no such directory");
    find_fails(fx, "../no/such-dir", OC_ERR_USAGE, "no such directory");
}

static void test_directory_wins(void **state) {
    struct fixture *fx = *state;
    char path[512];
    make(fx, "here/config.json", "{}");
    snprintf(path, sizeof path, "%s/here", fx->root);
    find_ok(fx, path, "here");
    snprintf(path, sizeof path, "%s/here/config.json", fx->root);
    find_fails(fx, path, OC_ERR_USAGE, "is a file");
}

static void test_damaged(void **state) {
    struct fixture *fx = *state;
    make(fx, "models--org--up/refs/main", "../../../../etc");
    make(fx, "models--org--up/snapshots", NULL);
    find_fails(fx, "org/up", OC_ERR_FORMAT, "no commit");
    make(fx, "models--org--gone/refs/main", COMMIT);
    find_fails(fx, "org/gone", OC_ERR_NOT_FOUND, "org/gone");
}

static void test_list(void **state) {
    struct fixture *fx = *state;
    struct oc_hub_model *models;
    size_t n;
    make(fx, "models--z--last/refs/main", COMMIT);
    make(fx, "models--z--last/snapshots/" COMMIT "/config.json", "12345");
    make(fx, "models--z--last/snapshots/" COMMIT "/onnx/x.bin", "123");
    make(fx, "models--a--first/snapshots/" COMMIT "/x", "1");
    make(fx, "models--a--broken/refs/main", "no");
    make(fx, "datasets--a--d/refs/main", COMMIT);
    make(fx, "models--alone/refs/main", COMMIT);
    assert_int_equal(oc_hub_cache_list(&fx->arena, &fx->env, &models, &n, &fx->ei), OC_OK);
    assert_int_equal(n, 2);
    assert_string_equal(models[0].name, "a/first");
    assert_string_equal(models[1].name, "z/last");
    assert_int_equal(models[1].n_bytes, 8);
    fx->env.hf_hub_cache = "/no/such/place";
    assert_int_equal(oc_hub_cache_list(&fx->arena, &fx->env, &models, &n, &fx->ei), OC_OK);
    assert_int_equal(n, 0);
}

#define IN_CACHE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),  IN_CACHE(test_cache_dir), IN_CACHE(test_find),
        IN_CACHE(test_directory_wins), IN_CACHE(test_damaged),   IN_CACHE(test_list),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
