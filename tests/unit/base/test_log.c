/* Log lines: one line each whatever goes in, in both forms; a sink that is full or gone costs lines, not the
 * process. */
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/file.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/log.h"

struct fixture {
    char dir[64], path[96], moved[96];
    struct oc_arena arena;
};

static int set_up(void **state) {
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    snprintf(f->dir, sizeof f->dir, "/tmp/oc_log_XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->path, sizeof f->path, "%s/log", f->dir);
    snprintf(f->moved, sizeof f->moved, "%s/log.1", f->dir);
    oc_arena_init(&f->arena, 64 * OC_MIB);
    *state = f;
    return 0;
}

static int tear_down(void **state) {
    struct fixture *f = *state;
    unlink(f->path);
    unlink(f->moved);
    rmdir(f->dir);
    oc_arena_free(&f->arena);
    free(f);
    return 0;
}

static struct oc_log *open_log(const struct fixture *f, bool json, enum oc_log_level least) {
    struct oc_log *log;
    struct oc_errinfo ei;
    assert_int_equal(oc_log_open(f->path, json, least, "serve", &log, &ei), OC_OK);
    return log;
}

static struct oc_str read_file(struct fixture *f, const char *path) {
    struct oc_str s;
    struct oc_errinfo ei;
    assert_int_equal(oc_file_read(&f->arena, path, 64 * OC_MIB, &s, &ei), OC_OK);
    return s;
}

static size_t count(struct oc_str s, char c) {
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) n += s.p[i] == c;
    return n;
}

/* The line after its time. */
static const char *after_time(struct oc_str s) {
    assert_true(s.n > 25 && s.p[4] == '-' && s.p[10] == 'T' && s.p[19] == '.' && s.p[23] == 'Z' &&
                s.p[24] == ' ');
    return s.p + 25;
}

static void test_text(void **state) {
    struct fixture *f = *state;
    struct oc_log *log = open_log(f, false, OC_LOG_INFO);
    oc_log(log, OC_LOG_DEBUG, "not this");
    oc_log(log, OC_LOG_INFO, "listening", OC_LOG_S("host", "127.0.0.1"), OC_LOG_I("port", 11440),
           OC_LOG_D("s", 0.25), OC_LOG_S("empty", ""), OC_LOG_S("said", "a \"b\"\n"), OC_LOG_D("nan", NAN));
    oc_log_close(log);
    struct oc_str text = read_file(f, f->path);
    assert_string_equal(after_time(text),
                        "INFO  serve: listening host=127.0.0.1 port=11440 s=0.25 empty=\"\" "
                        "said=\"a \\\"b\\\"\\n\" nan=null\n");
}

static void test_json(void **state) {
    struct fixture *f = *state;
    struct oc_log *log = open_log(f, true, OC_LOG_DEBUG);
    oc_log(log, OC_LOG_ERROR, "gone\nwrong", OC_LOG_S("why", "\x1b[31m\xff \xe2\x80\xa8"), OC_LOG_I("n", -3));
    oc_log_close(log);
    struct oc_str text = read_file(f, f->path);
    struct oc_json v;
    assert_int_equal(oc_json_parse(&f->arena, text, "log", &v, NULL), OC_OK);
    assert_int_equal(count(text, '\n'), 1);
    assert_true(oc_str_is(oc_json_get(&v, "level")->str, "error"));
    assert_true(oc_str_is(oc_json_get(&v, "name")->str, "serve"));
    assert_true(oc_str_is(oc_json_get(&v, "message")->str, "gone\nwrong"));
    assert_true(oc_str_is(oc_json_get(&v, "why")->str, "\x1b[31m\xef\xbf\xbd \xe2\x80\xa8"));
    assert_int_equal(oc_json_get(&v, "n")->i, -3);
    assert_non_null(strstr(text.p, "\\u001b"));
    assert_non_null(strstr(text.p, "\\u2028"));
}

/* Any bytes in message, key values and names: as many lines as calls, valid UTF-8, JSON that parses. */
static void any_bytes(struct fixture *f, bool json) {
    struct oc_log *log = open_log(f, json, OC_LOG_DEBUG);
    unsigned seed = 7;
    char noise[20000];
    int n_lines = 300;
    for (int i = 0; i < n_lines; i++) {
        size_t n = i % 3 ? (size_t)(rand_r(&seed) % 200) : (size_t)(rand_r(&seed) % (int)(sizeof noise - 1));
        for (size_t k = 0; k < n; k++) noise[k] = (char)(rand_r(&seed) % (i % 2 ? 256 : 40) + 1);
        noise[n] = '\0';
        struct oc_log_field fields[3] = {OC_LOG_S("a", noise), OC_LOG_I("b", i), OC_LOG_S("c", noise)};
        fields[2].str.n = n; /* may hold NUL */
        if (n > 3) noise[n / 2] = '\0';
        oc_log_write(log, OC_LOG_INFO, noise, fields, 3);
    }
    assert_int_equal(oc_log_n_dropped(log), 0);
    oc_log_close(log);
    struct oc_str text = read_file(f, f->path);
    assert_true(oc_utf8_valid(text.p, text.n));
    assert_int_equal(count(text, '\n'), n_lines);
    for (const char *p = text.p, *end = text.p + text.n; p < end;) {
        const char *nl = memchr(p, '\n', (size_t)(end - p));
        assert_true((size_t)(nl + 1 - p) <= OC_LIMIT_LOG_LINE_BYTES);
        for (const char *c = p; c < nl; c++) assert_true((unsigned char)*c >= 0x20);
        struct oc_json v;
        if (json) {
            struct oc_str s = {p, (size_t)(nl - p)};
            assert_int_equal(oc_json_parse(&f->arena, s, "line", &v, NULL), OC_OK);
            assert_non_null(oc_json_get(&v, "message"));
        }
        p = nl + 1;
    }
}

static void test_any_bytes_text(void **state) {
    any_bytes(*state, false);
}

static void test_any_bytes_json(void **state) {
    any_bytes(*state, true);
}

static void test_long_line_is_cut(void **state) {
    struct fixture *f = *state;
    char *big = malloc(50001);
    memset(big, '"', 50000); /* doubles when escaped */
    big[50000] = '\0';
    for (int json = 0; json < 2; json++) {
        struct oc_log *log = open_log(f, json, OC_LOG_INFO);
        oc_log(log, OC_LOG_INFO, "m", OC_LOG_I("first", 1), OC_LOG_S("big", big), OC_LOG_S("after", "x"));
        oc_log_close(log);
        struct oc_str text = read_file(f, f->path);
        assert_true(text.n <= OC_LIMIT_LOG_LINE_BYTES && text.n > OC_LIMIT_LOG_LINE_BYTES - 80);
        assert_non_null(strstr(text.p, json ? "...\",\"cut\":true}\n" : "...\" cut=true\n"));
        assert_non_null(strstr(text.p, json ? "\"first\":1" : "first=1"));
        unlink(f->path);
    }
    free(big);
}

static void test_relay(void **state) {
    struct fixture *f = *state;
    struct oc_log *log = open_log(f, false, OC_LOG_INFO);
    oc_log_relay(log, "worker 3", OC_STR("2026-11-25T01:02:03.456Z INFO  worker 3: loaded s=1\n"));
    oc_log_relay(log, "worker 3", OC_STR("ocellus: bug: x\x1b[2J\r\n"));
    oc_log_relay(log, "worker 3", OC_STR("2026-11-25T01:02:03.456Z INFO  serve: a\nb"));
    oc_log_relay(log, "worker 3", OC_STR("\n"));
    oc_log_relay(NULL, "worker 3", OC_STR("x"));
    oc_log_close(log);
    struct oc_str text = read_file(f, f->path);
    assert_int_equal(count(text, '\n'), 3);
    assert_memory_equal(text.p, "2026-11-25T01:02:03.456Z INFO  worker 3: loaded s=1\n", 52);
    assert_string_equal(strchr(after_time((struct oc_str){text.p + 52, text.n - 52}), '\n') + 1 + 25,
                        "WARN  worker 3: 2026-11-25T01:02:03.456Z INFO  serve: a\\nb\n");
    assert_memory_equal(text.p + 52 + 25, "WARN  worker 3: ocellus: bug: x\\u001b[2J\n", 41);
}

static void test_relay_json(void **state) {
    struct fixture *f = *state;
    struct oc_log *log = open_log(f, true, OC_LOG_INFO);
    oc_log_relay(log, "worker 3", OC_STR("{\"a\":1}\n"));
    oc_log_relay(log, "worker 3", OC_STR("{\"a\":1,\r\"b\":2}"));
    oc_log_relay(log, "worker 3", OC_STR("{\"a\":1} x"));
    oc_log_close(log);
    struct oc_str text = read_file(f, f->path);
    assert_int_equal(count(text, '\n'), 3);
    assert_memory_equal(text.p, "{\"a\":1}\n", 8);
    assert_non_null(strstr(text.p, "\"name\":\"worker 3\",\"message\":\"{\\\"a\\\":1,\\r"));
    assert_non_null(strstr(text.p, "\"message\":\"{\\\"a\\\":1} x\"}\n"));
}

static void test_reopen(void **state) {
    struct fixture *f = *state;
    struct oc_errinfo ei;
    struct oc_log *log = open_log(f, false, OC_LOG_INFO);
    oc_log(log, OC_LOG_INFO, "one");
    assert_int_equal(rename(f->path, f->moved), 0);
    oc_log(log, OC_LOG_INFO, "two");
    assert_int_equal(oc_log_reopen(log, &ei), OC_OK);
    oc_log(log, OC_LOG_INFO, "three");
    assert_int_equal(unlink(f->path), 0);
    assert_int_equal(mkdir(f->path, 0700), 0); /* cannot be opened: the old file goes on */
    assert_int_equal(oc_log_reopen(log, &ei), OC_ERR_IO);
    oc_log(log, OC_LOG_INFO, "four");
    assert_int_equal(oc_log_n_dropped(log), 0);
    rmdir(f->path);
    oc_log_close(log);
    assert_int_equal(count(read_file(f, f->moved), '\n'), 2);
}

static void test_full_disk(void **state) {
    (void)state;
    struct oc_log *log;
    struct oc_errinfo ei;
    assert_int_equal(oc_log_open("/dev/full", false, OC_LOG_INFO, "serve", &log, &ei), OC_OK);
    for (int i = 0; i < 5; i++) oc_log(log, OC_LOG_INFO, "lost");
    assert_int_equal(oc_log_n_dropped(log), 5);
    oc_log_close(log);
}

/* A pipe that nobody reads fills; writers do not wait; once it is read, lines are whole and the loss is told.
 */
static void test_full_pipe(void **state) {
    (void)state;
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    char path[40], big[3000], got[65536];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    snprintf(path, sizeof path, "/proc/self/fd/%d", fds[1]);
    struct oc_log *log;
    struct oc_errinfo ei;
    assert_int_equal(oc_log_open(path, false, OC_LOG_INFO, "serve", &log, &ei), OC_OK);
    for (int i = 0; i < 100; i++) oc_log(log, OC_LOG_INFO, big, OC_LOG_S("twice", big), OC_LOG_I("i", i));
    uint64_t lost = oc_log_n_dropped(log);
    assert_true(lost > 50 && lost < 100);
    size_t n_lines = 0;
    ssize_t r;
    assert_int_equal(fcntl(fds[0], F_SETFL, O_NONBLOCK), 0);
    for (int round = 0; round < 2; round++) {
        while ((r = read(fds[0], got, sizeof got)) > 0)
            n_lines += count((struct oc_str){got, (size_t)r}, '\n');
        if (round == 0) oc_log(log, OC_LOG_INFO, "again");
    }
    assert_int_equal(n_lines, 100 - lost + 2); /* the loss, and "again" */
    assert_int_equal(oc_log_n_dropped(log), lost);
    close(fds[0]);
    oc_log(log, OC_LOG_INFO, "nobody there"); /* EPIPE */
    assert_int_equal(oc_log_n_dropped(log), lost + 1);
    close(fds[1]);
    oc_log_close(log);
}

static void *log_many(void *arg) {
    for (int i = 0; i < 500; i++) oc_log(arg, OC_LOG_INFO, "from a thread", OC_LOG_I("i", i));
    return NULL;
}

static void test_threads(void **state) {
    struct fixture *f = *state;
    struct oc_log *log = open_log(f, true, OC_LOG_INFO);
    pthread_t t[4];
    struct oc_errinfo ei;
    for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&t[i], NULL, log_many, log), 0);
    for (int i = 0; i < 20; i++) assert_int_equal(oc_log_reopen(log, &ei), OC_OK);
    for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
    assert_int_equal(oc_log_n_dropped(log), 0);
    oc_log_close(log);
    struct oc_str text = read_file(f, f->path);
    assert_int_equal(count(text, '\n'), 2000);
    for (const char *p = text.p, *end = text.p + text.n; p < end;) {
        const char *nl = memchr(p, '\n', (size_t)(end - p));
        struct oc_json v;
        assert_int_equal(oc_json_parse(&f->arena, (struct oc_str){p, (size_t)(nl - p)}, "line", &v, NULL),
                         OC_OK);
        p = nl + 1;
    }
}

static void test_errors_and_levels(void **state) {
    (void)state;
    struct oc_log *log;
    struct oc_errinfo ei;
    assert_int_equal(oc_log_open("/nowhere/at/all.log", false, OC_LOG_INFO, "serve", &log, &ei), OC_ERR_IO);
    assert_null(log);
    assert_non_null(strstr(ei.msg, "/nowhere/at/all.log"));
    oc_log(NULL, OC_LOG_INFO, "nobody");
    assert_int_equal(oc_log_n_dropped(NULL), 0);
    oc_log_close(NULL);
    enum oc_log_level level = OC_LOG_INFO;
    assert_true(oc_log_level_parse(OC_STR("WARN"), &level));
    assert_int_equal(level, OC_LOG_WARN);
    assert_false(oc_log_level_parse(OC_STR("warning"), &level));
    assert_false(oc_log_level_parse(OC_STR(""), &level));
}

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_text, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_json, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_any_bytes_text, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_any_bytes_json, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_long_line_is_cut, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_relay, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_relay_json, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_reopen, set_up, tear_down),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_full_pipe),
        cmocka_unit_test_setup_teardown(test_threads, set_up, tear_down),
        cmocka_unit_test(test_errors_and_levels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
