/* Metrics: arithmetic, labels, aliases, and Debian's promtool as the judge of the text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/limits.h"
#include "server/metrics.h"

struct fixture {
    struct oc_metrics *m;
    struct oc_buf out;
};

static int set_up(void **state) {
    struct fixture *f = calloc(1, sizeof *f);
    struct oc_errinfo ei;
    assert_non_null(f);
    assert_int_equal(oc_metrics_open(&f->m, &ei), OC_OK);
    oc_buf_init(&f->out, 16 * OC_MIB);
    *state = f;
    return 0;
}

static int tear_down(void **state) {
    struct fixture *f = *state;
    oc_metrics_close(f->m);
    oc_buf_free(&f->out);
    free(f);
    return 0;
}

static const char *write_all(struct fixture *f) {
    oc_buf_clear(&f->out);
    oc_metrics_write(f->m, &f->out);
    assert_false(f->out.failed);
    return oc_buf_str(&f->out);
}

/* A whole line of the output. */
static void assert_line(const char *text, const char *line) {
    size_t n = strlen(line);
    for (const char *p = text; (p = strstr(p, line)); p++)
        if ((p == text || p[-1] == '\n') && p[n] == '\n') return;
    print_error("no line: %s\n", line);
    fail();
}

static void test_counter_and_gauge(void **state) {
    struct fixture *f = *state;
    const char *text = write_all(f);
    assert_line(text, "ocellus_draining 0");
    assert_line(text, "# TYPE ocellus_requests_total counter");
    assert_null(strstr(text, "\nocellus_requests_total{"));
    oc_metrics_add(f->m, OC_M_REQUESTS, "chat", "200", 1);
    oc_metrics_add(f->m, OC_M_REQUESTS, "chat", "200", 2);
    oc_metrics_add(f->m, OC_M_REQUESTS, "chat", "503", 1);
    oc_metrics_add(f->m, OC_M_REQUESTS_NOW, "chat", NULL, 5);
    oc_metrics_add(f->m, OC_M_REQUESTS_NOW, "chat", NULL, -2);
    oc_metrics_set(f->m, OC_M_KV_USED, "a/b", NULL, 0.125);
    text = write_all(f);
    assert_line(text, "ocellus_requests_total{endpoint=\"chat\",status=\"200\"} 3");
    assert_line(text, "ocellus_requests_total{endpoint=\"chat\",status=\"503\"} 1");
    assert_line(text, "ocellus_requests_in_progress{endpoint=\"chat\"} 3");
    assert_line(text, "ocellus_kv_used_ratio{model=\"a/b\"} 0.125");
    assert_true(oc_metrics_value(f->m, OC_M_REQUESTS, "chat", "200") == 3);
    assert_true(oc_metrics_value(f->m, OC_M_REQUESTS, "chat", NULL) == 4);
    assert_true(oc_metrics_value(f->m, OC_M_REQUESTS, NULL, NULL) == 4);
    assert_true(oc_metrics_value(f->m, OC_M_REQUESTS, "models", "200") == 0);
}

static void test_histogram(void **state) {
    struct fixture *f = *state;
    assert_true(oc_metrics_quantile(f->m, OC_M_QUEUE_WAIT, 0.5) == 0);
    static const double waits[] = {0.0005, 0.001, 0.02, 0.7, 1000};
    for (int i = 0; i < 5; i++) oc_metrics_observe(f->m, OC_M_QUEUE_WAIT, "m", "high", waits[i]);
    const char *text = write_all(f);
    assert_line(text, "ocellus_queue_wait_seconds_bucket{model=\"m\",priority=\"high\",le=\"0.001\"} 2");
    assert_line(text, "ocellus_queue_wait_seconds_bucket{model=\"m\",priority=\"high\",le=\"0.05\"} 3");
    assert_line(text, "ocellus_queue_wait_seconds_bucket{model=\"m\",priority=\"high\",le=\"0.5\"} 3");
    assert_line(text, "ocellus_queue_wait_seconds_bucket{model=\"m\",priority=\"high\",le=\"300\"} 4");
    assert_line(text, "ocellus_queue_wait_seconds_bucket{model=\"m\",priority=\"high\",le=\"+Inf\"} 5");
    assert_line(text, "ocellus_queue_wait_seconds_sum{model=\"m\",priority=\"high\"} 1000.7215");
    assert_line(text, "ocellus_queue_wait_seconds_count{model=\"m\",priority=\"high\"} 5");
    assert_true(oc_metrics_value(f->m, OC_M_QUEUE_WAIT, "m", NULL) == 5);
    assert_true(oc_metrics_sum(f->m, OC_M_QUEUE_WAIT, NULL, "high") > 1000.7);
    assert_true(oc_metrics_sum(f->m, OC_M_QUEUE_WAIT, NULL, "low") == 0);
}

/* A value on a bound counts below it; bounds are written in full. */
static void test_bounds(void **state) {
    struct fixture *f = *state;
    oc_metrics_observe(f->m, OC_M_IMAGE_PIXELS, NULL, NULL, 3e7);
    const char *text = write_all(f);
    assert_line(text, "ocellus_image_pixels_bucket{le=\"16777216\"} 0");
    assert_line(text, "ocellus_image_pixels_bucket{le=\"33554432\"} 1");
    assert_line(text, "ocellus_image_pixels_bucket{le=\"67108864\"} 1");
    oc_metrics_observe(f->m, OC_M_IMAGE_DECODE_TIME, NULL, NULL, 0.0005);
    assert_line(write_all(f), "ocellus_image_decode_seconds_bucket{le=\"0.0005\"} 1");
}

static void test_quantile(void **state) {
    struct fixture *f = *state;
    for (int i = 0; i < 10; i++)
        oc_metrics_observe(f->m, OC_M_TTFT, i % 2 ? "a" : "b", NULL, 0.09); /* in (.08, .1] */
    assert_float_equal(oc_metrics_quantile(f->m, OC_M_TTFT, 0.5), 0.09, 1e-9);
    assert_float_equal(oc_metrics_quantile(f->m, OC_M_TTFT, 1.0), 0.1, 1e-9);
    assert_float_equal(oc_metrics_quantile(f->m, OC_M_TTFT, 0.0), 0.08, 1e-9);
    for (int i = 0; i < 90; i++) oc_metrics_observe(f->m, OC_M_TTFT, "a", NULL, 1e9);
    assert_float_equal(oc_metrics_quantile(f->m, OC_M_TTFT, 0.95), 2560, 1e-9);
}

static void test_aliases(void **state) {
    struct fixture *f = *state;
    oc_metrics_set(f->m, OC_M_WAITING, "a", "high", 1);
    oc_metrics_set(f->m, OC_M_WAITING, "a", "low", 2);
    oc_metrics_set(f->m, OC_M_WAITING, "b", "low", 4);
    oc_metrics_set(f->m, OC_M_RUNNING, "a", NULL, 3);
    oc_metrics_add(f->m, OC_M_QUEUE_REJECTS, "a", "full", 7);
    oc_metrics_add(f->m, OC_M_QUEUE_REJECTS, "a", "draining", 9);
    oc_metrics_add(f->m, OC_M_CACHE_HITS, "a", "prefix", 11);
    oc_metrics_add(f->m, OC_M_CACHE_HITS, "a", "embedding", 13);
    oc_metrics_add(f->m, OC_M_FINISHED, "a", "stop", 1);
    oc_metrics_set(f->m, OC_M_MODEL_MEMORY, "a", NULL, 3.0 * (1 << 30));
    oc_metrics_set(f->m, OC_M_VLLM_CACHE_CONFIG, "16", "512", 1);
    oc_metrics_observe(f->m, OC_M_QUEUE_WAIT, "a", "high", 0.02);
    oc_metrics_observe(f->m, OC_M_QUEUE_WAIT, "a", "low", 2);
    oc_metrics_observe(f->m, OC_M_QUEUE_WAIT, "b", "low", 3);
    const char *text = write_all(f);
    assert_line(text, "vllm:num_requests_running{model_name=\"a\"} 3");
    assert_line(text, "vllm:num_requests_waiting{model_name=\"a\"} 3");
    assert_line(text, "vllm:num_requests_waiting{model_name=\"b\"} 4");
    assert_line(text, "vllm:prefix_cache_hits_total{model_name=\"a\"} 11");
    assert_line(text, "vllm:mm_cache_hits_total{model_name=\"a\"} 13");
    assert_line(text, "vllm:request_success_total{model_name=\"a\",finished_reason=\"stop\"} 1");
    assert_line(text, "vllm:cache_config_info{block_size=\"16\",num_gpu_blocks=\"512\"} 1");
    assert_line(text, "vllm:request_queue_time_seconds_count{model_name=\"a\"} 2");
    assert_line(text, "vllm:request_queue_time_seconds_bucket{model_name=\"a\",le=\"0.05\"} 1");
    assert_line(text, "mlx_queue_wait_seconds_sum{priority=\"low\"} 5");
    assert_line(text, "mlx_queue_waiting{priority=\"low\"} 6");
    assert_line(text, "mlx_queue_depth 7");
    assert_line(text, "mlx_queue_full_rejects_total 7");
    assert_line(text, "mlx_model_memory_gb{model=\"a\"} 3");
    assert_line(text, "mlx_rate_limit_rejects_total 0");
    assert_line(text, "mlx_worker_alive 0");
    oc_buf_clear(&f->out);
    oc_metrics_write_names(f->m, OC_METRICS_OWN, &f->out);
    assert_null(strstr(oc_buf_str(&f->out), "vllm:"));
    assert_null(strstr(oc_buf_str(&f->out), "mlx_"));
}

static void test_labels_are_escaped(void **state) {
    struct fixture *f = *state;
    oc_metrics_set(f->m, OC_M_ALERT, "a\"b\\c\nd\xff", NULL, 1);
    assert_line(write_all(f), "ocellus_alert{alert=\"a\\\"b\\\\c\\nd\xef\xbf\xbd\"} 1");
    char big[1000];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    oc_metrics_set(f->m, OC_M_ALERT, big, NULL, 1);
    oc_metrics_set(f->m, OC_M_ALERT, big, NULL, 2); /* the same one, cut */
    big[OC_LIMIT_METRIC_LABEL_BYTES] = '\0';
    assert_true(oc_metrics_value(f->m, OC_M_ALERT, big, NULL) == 2);
    assert_true(oc_metrics_value(f->m, OC_M_ALERT, NULL, NULL) == 3);
}

static void test_too_many_labels(void **state) {
    struct fixture *f = *state;
    char name[16];
    for (int i = 0; i < 1000; i++) {
        snprintf(name, sizeof name, "m%d", i);
        oc_metrics_add(f->m, OC_M_FINISHED, name, "stop", 1);
    }
    assert_true(oc_metrics_value(f->m, OC_M_FINISHED, NULL, NULL) == 1000);
    assert_true(oc_metrics_value(f->m, OC_M_FINISHED, "other", "other") ==
                1000 - (OC_LIMIT_METRIC_SERIES - 1));
    assert_true(oc_metrics_value(f->m, OC_M_FINISHED, "m0", "stop") == 1);
}

static void test_forget(void **state) {
    struct fixture *f = *state;
    oc_metrics_add(f->m, OC_M_FINISHED, "chat", "stop", 1); /* a model of an unlucky name */
    oc_metrics_add(f->m, OC_M_FINISHED, "b", "stop", 1);
    oc_metrics_observe(f->m, OC_M_TTFT, "chat", NULL, 1);
    oc_metrics_add(f->m, OC_M_REQUESTS, "chat", "200", 1);
    oc_metrics_forget(f->m, "chat");
    assert_true(oc_metrics_value(f->m, OC_M_FINISHED, NULL, NULL) == 1);
    assert_true(oc_metrics_value(f->m, OC_M_TTFT, NULL, NULL) == 0);
    assert_true(oc_metrics_value(f->m, OC_M_REQUESTS, "chat", "200") == 1);
    oc_metrics_add(f->m, OC_M_FINISHED, "chat", "stop", 1);
    assert_true(oc_metrics_value(f->m, OC_M_FINISHED, "chat", NULL) == 1);
}

/* ---- promtool ------------------------------------------------------------------------------------------ */

/* One series more in each family. */
static void fill(struct oc_metrics *m) {
    static const struct {
        enum oc_metric_kind kind;
        const char *label1, *label2;
    } families[] = {
#define X(ID, name, kind, help, label1, label2, buckets) {OC_METRIC_##kind, label1, label2},
#include "server/metrics.def"
    };
    for (int i = 0; i < OC_M_N; i++) {
        enum oc_metric id = (enum oc_metric)i;
        const char *l1 = families[i].label1 ? "org/name \"4bit\"\\" : NULL,
                   *l2 = families[i].label2 ? "x\ny" : NULL;
        if (families[i].kind == OC_METRIC_COUNTER) oc_metrics_add(m, id, l1, l2, 12345.5);
        if (families[i].kind == OC_METRIC_GAUGE) oc_metrics_set(m, id, l1, l2, 1e-7);
        if (families[i].kind == OC_METRIC_HISTOGRAM) oc_metrics_observe(m, id, l1, l2, 0.3);
    }
}

/* Runs promtool over the text; its exit code, and what it says in `said`. */
static int promtool(const struct oc_buf *text, char *said, size_t cap) {
    int out[2];
    assert_int_equal(pipe(out), 0);
    FILE *whole = tmpfile(); /* more than a pipe holds */
    assert_non_null(whole);
    assert_int_equal(fwrite(text->data, 1, text->n_bytes, whole), text->n_bytes);
    rewind(whole);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(fileno(whole), 0);
        dup2(out[1], 1);
        dup2(out[1], 2);
        close(out[0]);
        execl("/usr/bin/promtool", "promtool", "check", "metrics", (char *)NULL);
        _exit(127);
    }
    close(out[1]);
    size_t n = 0;
    ssize_t r;
    while (n + 1 < cap && (r = read(out[0], said + n, cap - 1 - n)) > 0) n += (size_t)r;
    said[n] = '\0';
    close(out[0]);
    fclose(whole);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void test_promtool(void **state) {
    struct fixture *f = *state;
    char said[20000];
    if (access("/usr/bin/promtool", X_OK) != 0) skip();
    oc_metrics_write_names(f->m, OC_METRICS_OWN, &f->out);
    fill(f->m);
    oc_metrics_write_names(f->m, OC_METRICS_OWN, &f->out); /* families twice: promtool must not like it */
    assert_int_not_equal(promtool(&f->out, said, sizeof said), 0);
    oc_buf_clear(&f->out);
    oc_metrics_write_names(f->m, OC_METRICS_OWN, &f->out);
    int rc = promtool(&f->out, said, sizeof said);
    if (rc) print_error("%s\n", said);
    assert_int_equal(rc, 0);
    /* With the aliases only the foreign names themselves are found fault with (3: the text is well-formed).
     */
    write_all(f);
    assert_int_equal(promtool(&f->out, said, sizeof said), 3);
    for (char *line = said, *nl; (nl = strchr(line, '\n')); line = nl + 1) {
        *nl = '\0';
        bool colon = strncmp(line, "vllm:", 5) == 0 && strstr(line, "should not contain ':'");
        if (!colon &&
            strcmp(line, "mlx_model_memory_gb metric names should not contain abbreviated units") != 0) {
            print_error("%s\n", line);
            fail();
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_counter_and_gauge, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_histogram, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bounds, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_quantile, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_aliases, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_labels_are_escaped, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_too_many_labels, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_forget, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_promtool, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
