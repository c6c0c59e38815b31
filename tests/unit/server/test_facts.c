/* Ids that clients may name, patterns of allowed models, facts of a model's config.json. */
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

#include "server/facts.h"

static bool ok(const char *id, size_t n) {
    const char *why = NULL;
    bool is_ok = oc_server_facts_id_ok((struct oc_str){id, n}, &why);
    assert_true(is_ok || (why && *why));
    return is_ok;
}

static void ids_that_are_taken(void **state) {
    static const char *const good[] = {"org/name", "mlx-community/a.b_c-4bit", "Org_1/N.1", "a/b", "x/y_"};
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) assert_true(ok(good[i], strlen(good[i])));
}

static void ids_that_are_paths_in_disguise(void **state) {
    static const char *const bad[] = {
        "",
        "no-slash",
        "/absolute/path",
        "../path/traversal",
        "org/../traversal",
        "org/",
        "/org/model",
        "org//model",
        "a/b/c",
        "org/..",
        "../x",
        "./x",
        "org/.hidden",
        "org/name.",
        "org/na--me",
        "org/name;ls",
        "org/name|x",
        "org/name&",
        "org/name`id`",
        "org/name$(id)",
        "org/name>x",
        "org/name<x",
        "org/name*",
        "org/name?",
        "org/name[1]",
        "org/name{1}",
        "org/name$HOME",
        "~/name",
        "org/na me",
        "org/name\t",
        "org/name\r",
        "org/name\n",
        " org/name",
        "org/name ",
        "org/name\x1b",
        "org/name%00",
        "%2e%2e%2fx/y",
        "org/..%2Fx",
        "org\xef\xbc\x8fname",
        "org/na\xe2\x80\x90me",
        "org/\xef\xbd\x8e",
        "org/na\xe2\x88\x92me",
        "org/na\xc2\xadme",
        "org/\xe2\x80\xaename",
        "org\\name",
        "C:/x",
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (ok(bad[i], strlen(bad[i]))) fail_msg("taken: %s", bad[i]);
    assert_false(ok("org/na\0me", 9));
    char longest[400];
    memset(longest, 'a', sizeof longest);
    longest[90] = '/';
    assert_true(ok(longest, 180));
    assert_false(ok(longest, sizeof longest));
}

static void patterns(void **state) {
    struct oc_server_list none = {.n = 0}, some = {.items = {"a/exact", "b/pre*"}, .n = 2};
    (void)state;
    assert_true(oc_server_facts_allowed(&none, "any/thing"));
    assert_true(oc_server_facts_allowed(&some, "a/exact"));
    assert_false(oc_server_facts_allowed(&some, "a/exact2"));
    assert_true(oc_server_facts_allowed(&some, "b/prefix"));
    assert_true(oc_server_facts_allowed(&some, "b/pre"));
    assert_false(oc_server_facts_allowed(&some, "b/pr"));
    assert_false(oc_server_facts_allowed(&some, "c/pre"));
}

static void base_names(void **state) {
    (void)state;
    assert_true(oc_str_is(oc_server_facts_base_name("/models/tiny"), "tiny"));
    assert_true(oc_str_is(oc_server_facts_base_name("/models/tiny//"), "tiny"));
    assert_true(oc_str_is(oc_server_facts_base_name("tiny"), "tiny"));
    assert_true(oc_str_is(oc_server_facts_base_name("./tiny/"), "tiny"));
}

static void hides(const char *text, const char *want) {
    char buf[200];
    snprintf(buf, sizeof buf, "%s", text);
    oc_server_facts_hide_paths(buf);
    assert_string_equal(buf, want);
}

static void paths_are_not_for_clients(void **state) {
    (void)state;
    hides("/tmp/models/x/config.json: broken", "config.json: broken");
    hides("the file '/a/b' (and /c/d/e.f) is bad", "the file 'b' (and e.f) is bad");
    hides("org/name is not there", "org/name is not there");
    hides("a / b", "a / b");
    hides("3 tokens/s, /x", "3 tokens/s, x");
    hides("/ends/", "");
    hides("", "");
    hides("/", "/");
}

static void write_config(const char *dir, const char *text) {
    char path[256];
    snprintf(path, sizeof path, "%s/config.json", dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static enum oc_err read_facts(const char *dir, struct oc_server_facts *f, char *architecture, size_t n) {
    struct oc_arena a;
    struct oc_errinfo ei;
    struct oc_hub_env hub = {0};
    oc_arena_init(&a, 1 << 20);
    enum oc_err err = oc_server_facts_read(&a, &hub, dir, f, &ei);
    if (!err) snprintf(architecture, n, "%s", f->architecture);
    oc_arena_free(&a);
    return err;
}

static void facts_of_a_directory(void **state) {
    char dir[] = OC_TEST_TMP "/facts-XXXXXX", architecture[64], path[256];
    struct oc_server_facts f;
    (void)state;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(read_facts(dir, &f, architecture, sizeof architecture), OC_ERR_NOT_FOUND);
    write_config(dir, "{\"architectures\":[\"SomeModel\"],\"max_position_embeddings\":4096}");
    assert_int_equal(read_facts(dir, &f, architecture, sizeof architecture), OC_OK);
    assert_string_equal(architecture, "SomeModel");
    assert_false(f.vision);
    assert_int_equal(f.ctx_tokens, 4096);
    assert_true(f.created > 0);
    write_config(dir, "{\"vision_config\":{},\"text_config\":{\"max_position_embeddings\":1000}}");
    assert_int_equal(read_facts(dir, &f, architecture, sizeof architecture), OC_OK);
    assert_true(f.vision);
    assert_int_equal(f.ctx_tokens, 1000);
    write_config(dir, "{\"vision_config\":null}");
    assert_int_equal(read_facts(dir, &f, architecture, sizeof architecture), OC_OK);
    assert_false(f.vision);
    write_config(dir, "{broken");
    assert_int_equal(read_facts(dir, &f, architecture, sizeof architecture), OC_ERR_FORMAT);
    snprintf(path, sizeof path, "%s/config.json", dir);
    unlink(path);
    rmdir(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_that_are_taken),
        cmocka_unit_test(ids_that_are_paths_in_disguise),
        cmocka_unit_test(patterns),
        cmocka_unit_test(base_names),
        cmocka_unit_test(paths_are_not_for_clients),
        cmocka_unit_test(facts_of_a_directory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
