/* Configuration: where values come from, what is refused and how it is told, and that --print-config reads
 * back. */
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

#include "base/limits.h"
#include "server/config_impl.h"
#include "server/machine.h"

#define MAX_ARGS 64
#define GIB ((int64_t)OC_GIB)

struct fixture {
    char dir[64], file[96];
    const char *environ[MAX_ARGS + 1];
    int64_t memory_bytes;
    struct oc_server_config c;
    struct oc_buf faults;
    struct oc_errinfo ei;
    bool show;
};

static int set_up(void **state) {
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    snprintf(f->dir, sizeof f->dir, "/tmp/oc_config_XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->file, sizeof f->file, "%s/o.yaml", f->dir);
    f->memory_bytes = 32 * GIB;
    oc_buf_init(&f->faults, OC_MIB);
    *state = f;
    return 0;
}

static int tear_down(void **state) {
    struct fixture *f = *state;
    oc_server_config_free(&f->c);
    oc_buf_free(&f->faults);
    unlink(f->file);
    rmdir(f->dir);
    free(f);
    return 0;
}

/* Arguments split by spaces; environment and memory from the fixture. */
static enum oc_err read_args(struct fixture *f, const char *args) {
    char text[2048], *argv[MAX_ARGS], *save = NULL;
    int argc = 0;
    snprintf(text, sizeof text, "%s", args);
    for (char *p = strtok_r(text, " ", &save); p; p = strtok_r(NULL, " ", &save)) argv[argc++] = p;
    struct oc_config_world w = {f->environ, f->memory_bytes};
    oc_server_config_free(&f->c);
    oc_buf_clear(&f->faults);
    memset(&f->ei, 0, sizeof f->ei);
    return oc_config_read_in(&w, argc, argv, &f->c, &f->show, &f->ei, &f->faults);
}

static void ok(struct fixture *f, const char *args) {
    if (read_args(f, args) != OC_OK) print_error("%s: %s\n", args, oc_buf_str(&f->faults));
    assert_string_equal(oc_buf_str(&f->faults), "");
}

/* Refused with exactly this sentence among the faults. */
static void refused(struct fixture *f, const char *args, const char *sentence) {
    char line[1200];
    assert_int_not_equal(read_args(f, args), OC_OK);
    snprintf(line, sizeof line, "%s\n", sentence);
    const char *hit = strstr(oc_buf_str(&f->faults), line);
    if (!hit || (hit != oc_buf_str(&f->faults) && hit[-1] != '\n')) {
        print_error("wanted: %sgot: %s", line, oc_buf_str(&f->faults));
        fail();
    }
    assert_non_null(strstr(f->ei.msg, hit == oc_buf_str(&f->faults) ? sentence : ""));
}

static void write_file(struct fixture *f, const char *text) {
    FILE *o = fopen(f->file, "w");
    assert_non_null(o);
    fputs(text, o);
    fclose(o);
}

static void yaml_ok(struct fixture *f, const char *text) {
    char args[128];
    write_file(f, text);
    snprintf(args, sizeof args, "--config %s", f->file);
    ok(f, args);
}

/* The sentence comes after "FILE:". */
static void yaml_refused(struct fixture *f, const char *text, const char *sentence) {
    char args[128], whole[1200];
    write_file(f, text);
    snprintf(args, sizeof args, "--config %s", f->file);
    snprintf(whole, sizeof whole, "%s:%s", f->file, sentence);
    refused(f, args, whole);
}

static void test_defaults(void **state) {
    struct fixture *f = *state;
    ok(f, "");
    assert_string_equal(f->c.host, "127.0.0.1");
    assert_int_equal(f->c.port, 11440);
    assert_int_equal(f->c.admin_port, 11441);
    assert_int_equal(f->c.max_body_bytes, 96 * OC_MIB);
    assert_int_equal(f->c.models.n, 0);
    assert_null(f->c.default_model);
    assert_null(f->c.media_dir);
    assert_int_equal(f->c.idle_unload_s, 0);
    assert_int_equal(f->c.queue_timeout_s[0], 120);
    assert_int_equal(f->c.queue_timeout_s[2], 30);
    assert_true(f->c.prefix_cache && f->c.remote_images);
    assert_false(f->c.rate_limit || f->c.allow_private_images || f->show);
    assert_int_equal(f->c.max_image_bytes, 10485760);
    assert_string_equal(f->c.log_level, "info");
    assert_true(f->c.alert_tok_s == 0);
    assert_int_equal(f->c.notes.n, 0);
}

/* Items 83 and 86. */
static void test_tiers(void **state) {
    struct fixture *f = *state;
    static const struct {
        int64_t gib;
        const char *tier;
        int request, load;
        int64_t budget_gib;
    } cases[] = {{128, "high-memory", 600, 300, 108}, {64, "high-memory", 600, 300, 44},
                 {32, "medium-memory", 300, 180, 24}, {24, "medium-memory", 300, 180, 16},
                 {16, "low-memory", 180, 120, 12},    {6, "low-memory", 180, 120, 3}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        f->memory_bytes = cases[i].gib * GIB;
        ok(f, "");
        assert_string_equal(f->c.tier, cases[i].tier);
        assert_string_equal(f->c.machine_type, cases[i].tier);
        assert_int_equal(f->c.request_timeout_s, cases[i].request);
        assert_int_equal(f->c.load_timeout_s, cases[i].load);
        assert_int_equal(f->c.memory_budget_bytes, cases[i].budget_gib * GIB);
    }
    f->memory_bytes = 63 * GIB + GIB / 2; /* what Linux leaves of 64 */
    ok(f, "");
    assert_string_equal(f->c.tier, "high-memory");
    refused(f, "--memory-budget 80GiB",
            "memory_budget (80.0 GiB, --memory-budget) is more than the 63.5 GiB that this process may use");
}

static void put_file(const char *dir, const char *name, const char *text) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *o = fopen(path, "w");
    assert_non_null(o);
    fputs(text, o);
    fclose(o);
}

static void make_dir(const char *dir, const char *name) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_int_equal(mkdir(path, 0700), 0);
}

static void test_machine_memory(void **state) {
    (void)state;
    char dir[] = "/tmp/oc_machine_XXXXXX", proc[64], cgroup[64];
    assert_non_null(mkdtemp(dir));
    snprintf(proc, sizeof proc, "%s/proc", dir);
    snprintf(cgroup, sizeof cgroup, "%s/cg", dir);
    assert_int_equal(oc_machine_memory_in(proc, cgroup, 0), 32 * GIB);
    assert_int_equal(oc_machine_memory_in(proc, cgroup, 5 * GIB), 5 * GIB);
    static const char *const dirs[] = {"proc",   "proc/self", "cg",         "cg/a",
                                       "cg/a/b", "cg/memory", "cg/memory/c"};
    for (size_t i = 0; i < sizeof dirs / sizeof dirs[0]; i++) make_dir(dir, dirs[i]);
    put_file(dir, "proc/self/cgroup", "0::/a/b\n");
    put_file(dir, "cg/a/b/memory.max", "max\n");
    assert_int_equal(oc_machine_memory_in(proc, cgroup, 5 * GIB), 5 * GIB);
    put_file(dir, "cg/a/memory.max", "2147483648\n"); /* a limit further up counts too */
    assert_int_equal(oc_machine_memory_in(proc, cgroup, 5 * GIB), 2 * GIB);
    put_file(dir, "cg/memory.max", "1073741824\n");
    assert_int_equal(oc_machine_memory_in(proc, cgroup, 5 * GIB), GIB);
    put_file(dir, "proc/self/cgroup", "4:memory:/c\n3:cpu:/a\n");
    assert_int_equal(oc_machine_memory_in(proc, cgroup, 5 * GIB), 5 * GIB);
    put_file(dir, "cg/memory/c/memory.limit_in_bytes", "3221225472\n");
    assert_int_equal(oc_machine_memory_in(proc, cgroup, 5 * GIB), 3 * GIB);
    put_file(dir, "cg/memory/c/memory.limit_in_bytes", "9223372036854771712\n"); /* how v1 says no limit */
    assert_int_equal(oc_machine_memory_in(proc, cgroup, 5 * GIB), 5 * GIB);
    assert_true(oc_machine_memory() > 0);
    static const char *const names[] = {"cg/memory/c/memory.limit_in_bytes",
                                        "cg/memory.max",
                                        "cg/a/memory.max",
                                        "cg/a/b/memory.max",
                                        "proc/self/cgroup",
                                        "cg/memory/c",
                                        "cg/memory",
                                        "cg/a/b",
                                        "cg/a",
                                        "cg",
                                        "proc/self",
                                        "proc",
                                        ""};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[256];
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        assert_int_equal(remove(path), 0);
    }
}

static void test_flags(void **state) {
    struct fixture *f = *state;
    ok(f, "--port 8000 --admin-port=0 -m a/b --model c/d --model=e,f -c 4096 --rate-limit --no-prefix-cache "
          "--log-json=false --remote-images=false --max-image-bytes 5MB --idle-unload-s 90 --ping 0 "
          "--max-image-side-px 99 "
          "--ctx-tokens 2048 --alert-tok-s 12.5 --embed-cache-bytes 1GiB --print-config --log-level WARN");
    assert_int_equal(f->c.port, 8000);
    assert_int_equal(f->c.admin_port, 0);
    assert_int_equal(f->c.models.n, 3);
    assert_string_equal(f->c.models.items[0], "a/b");
    assert_string_equal(f->c.models.items[2], "e,f");
    assert_true(f->c.rate_limit && !f->c.prefix_cache && !f->c.log_json && !f->c.remote_images && f->show);
    assert_int_equal(f->c.max_image_bytes, 5000000);
    assert_int_equal(f->c.idle_unload_s, 90);
    assert_int_equal(f->c.ping_s, 0);
    assert_int_equal(f->c.max_image_side_px, 99);
    assert_int_equal(f->c.ctx_tokens, 2048);
    assert_true(f->c.alert_tok_s == 12.5);
    assert_int_equal(f->c.embed_cache_bytes, GIB);
    assert_string_equal(f->c.log_level, "warn");
    ok(f, "-mx -p9 --port=10");
    assert_string_equal(f->c.models.items[0], "x");
    assert_int_equal(f->c.port, 10);
}

static void test_bad_flags(void **state) {
    struct fixture *f = *state;
    refused(f, "--prot 80", "there is no option --prot, did you mean --port?");
    refused(f, "--no-port", "there is no option --no-port, did you mean --port?");
    refused(f, "-x", "there is no option -x");
    refused(f, "--port", "--port needs a value");
    refused(f, "--port=", "--port: port cannot be '', it must be a whole number from 0 to 65535");
    refused(f, "--port 99999", "--port: port cannot be '99999', it must be a whole number from 0 to 65535");
    refused(f, "--port 80x", "--port: port cannot be '80x', it must be a whole number from 0 to 65535");
    refused(f, "--port -- 1", "--port: port cannot be '--', it must be a whole number from 0 to 65535");
    refused(f, "--rate-limit=yes", "--rate-limit: rate_limit cannot be 'yes', it must be true or false");
    refused(f, "--no-rate-limit=true", "--no-rate-limit takes no value");
    refused(f, "--print-config=1", "--print-config takes no value");
    refused(f, "model", "'model' is not an option: models are given by --model");
    refused(f, "--log-level loud",
            "--log-level: log_level cannot be 'loud', it must be one of debug|info|warn|error");
    refused(
        f, "--ping 2h",
        "--ping: ping cannot be '2h', it must be a time from 0 to 3600 seconds, such as 30s, 5m or 1h30m");
    refused(f, "--host a\x01z",
            "--host: host cannot be 'a?z', it must be text without control characters, 1 to 4095 bytes long");
    refused(f, "--host a\xff",
            "--host: host cannot be 'a\xef\xbf\xbd', it must be text without control characters, 1 to 4095 "
            "bytes long");
    refused(f, "--config /nowhere.yaml", "the configuration cannot be read: /nowhere.yaml: no such file");
    assert_int_equal(f->ei.code, OC_ERR_IO);
    assert_int_equal(f->c.port, 0); /* emptied */
}

/* Item 87: everything wrong is told at once. */
static void test_all_faults_at_once(void **state) {
    struct fixture *f = *state;
    static const char *const sentences[] = {
        "port (--port) and admin_port (--admin-port) are both 7, they must differ\n",
        "rate_burst (70, --rate-burst) must not be above rate_per_minute (60, default)\n",
        ("queue_timeout_high (120s) must not be below queue_timeout_normal (10s), and that not below "
         "queue_timeout_low (30s)\n"),
        "MLX_QUEUE_REJECT_THRESHOLD (10) must not be below queue_depth (100, default)\n",
        "kv_tokens (100) must not be below ctx (4096), or 0\n",
        "there is no option --nonsense\n",
        "--tls-cert: tls_cert is given without tls_key: TLS needs both, or neither\n",
        "--media-dir: media_dir /no/such/dir is no directory\n",
        "--threads: threads cannot be 'many', it must be a whole number from 0 to 256\n",
    };
    f->environ[0] = "MLX_QUEUE_REJECT_THRESHOLD=10";
    assert_int_equal(
        read_args(f,
                  "--port 7 --admin-port 7 --rate-limit --rate-burst 70 --queue-timeout-normal 10 --ctx 4096 "
                  "--kv-tokens 100 --nonsense --tls-cert x --media-dir /no/such/dir --threads many"),
        OC_ERR_USAGE);
    const char *told = oc_buf_str(&f->faults);
    for (size_t i = 0; i < sizeof sentences / sizeof sentences[0]; i++)
        if (!strstr(told, sentences[i])) {
            print_error("missing: %sin: %s", sentences[i], told);
            fail();
        }
    assert_non_null(strstr(f->ei.msg, "9 faults in the configuration, the first: "));
}

/* Items 98 to 101 at the start. */
static void test_rates(void **state) {
    struct fixture *f = *state;
    ok(f, "--rate-per-minute 0 --rate-burst 0");
    refused(f, "--rate-limit --rate-per-minute 0",
            "rate_limit is on: rate_per_minute (0) and rate_burst (10) must be at least 1");
    refused(f, "--rate-limit --rate-burst 0",
            "rate_limit is on: rate_per_minute (60) and rate_burst (0) must be at least 1");
    ok(f, "--rate-limit --rate-burst 60");
}

static void test_order_of_sources(void **state) {
    struct fixture *f = *state;
    char args[256], config[128];
    write_file(
        f, "port: 3\nadmin_port: 3001\nparallel: 3\nmodels: [file/one, file/two]\nallow_models: file/x\n");
    snprintf(config, sizeof config, "OCELLUS_CONFIG=%s", f->file);
    f->environ[0] = "MLX_ADMIN_PORT=2001";
    f->environ[1] = "MLX_MAX_CONCURRENT_REQUESTS=2";
    f->environ[2] = "MLX_QUEUE_MAX_DEPTH=22";
    f->environ[3] = config;
    f->environ[4] = "OCELLUS_PARALLEL=4";
    f->environ[5] = "OCELLUS_MODEL=env/one,,env/two";
    f->environ[6] = "OCELLUS_MODELS=/embedded";
    f->environ[7] = "OCELLUS_THREADS=";
    ok(f, "--port 5");
    assert_int_equal(f->c.port, 5);
    assert_int_equal(f->c.admin_port, 3001);
    assert_int_equal(f->c.parallel, 4);
    assert_int_equal(f->c.queue_depth, 22);
    assert_int_equal(f->c.models.n, 2);
    assert_string_equal(f->c.models.items[1], "env/two");
    assert_string_equal(f->c.allow_models.items[0], "file/x");
    assert_string_equal(f->c.embedded_models, "/embedded");
    assert_string_equal(f->c.config_file, f->file);
    snprintf(args, sizeof args, "--config %s -m flag/one", f->file);
    f->environ[3] = "OCELLUS_CONFIG=/nowhere";
    ok(f, args);
    assert_int_equal(f->c.models.n, 1);
    assert_string_equal(f->c.models.items[0], "flag/one");
}

/* Items 84 and 85, and the rest of the variables of the seed. */
static void test_old_variables(void **state) {
    struct fixture *f = *state;
    static const char *const vars[] = {"MLX_ADMIN_PORT=12000",
                                       "MLX_IDLE_TIMEOUT=999",
                                       "MLX_MACHINE_TYPE=custom-machine",
                                       "MLX_REQUEST_TIMEOUT=77",
                                       "MLX_MODEL_LOAD_TIMEOUT=78",
                                       "MLX_LOG_DIR=/var/log/x",
                                       "MLX_RATE_LIMIT_ENABLED=1",
                                       "MLX_RATE_LIMIT_RPM=120",
                                       "MLX_RATE_LIMIT_BURST=20",
                                       "MLX_GRACEFUL_SHUTDOWN_TIMEOUT=5",
                                       "MLX_QUEUE_TIMEOUT_HIGH=50",
                                       "MLX_QUEUE_TIMEOUT_NORMAL=40",
                                       "MLX_QUEUE_TIMEOUT_LOW=20",
                                       "VISION_AUTO_RESIZE=true",
                                       "MLX_TEST_MODEL=x",
                                       "MLX_FOO=1",
                                       "OCELLUS_PROT=1",
                                       "HF_HOME=/tmp/custom_cache",
                                       "MLX_QUEUE_REJECT_THRESHOLD=100",
                                       "NOTIFY_SOCKET=@x"};
    for (size_t i = 0; i < sizeof vars / sizeof vars[0]; i++) f->environ[i] = vars[i];
    ok(f, "");
    assert_int_equal(f->c.port, 11440);
    assert_int_equal(f->c.admin_port, 12000);
    assert_int_equal(f->c.idle_unload_s, 999);
    assert_string_equal(f->c.machine_type, "custom-machine");
    assert_string_equal(f->c.tier, "medium-memory");
    assert_int_equal(f->c.request_timeout_s, 77);
    assert_int_equal(f->c.load_timeout_s, 78);
    assert_string_equal(f->c.log_file, "/var/log/x/ocellus.log");
    assert_true(f->c.rate_limit);
    assert_int_equal(f->c.rate_per_minute, 120);
    assert_int_equal(f->c.rate_burst, 20);
    assert_int_equal(f->c.drain_timeout_s, 5);
    assert_int_equal(f->c.queue_timeout_s[0], 50);
    assert_int_equal(f->c.queue_timeout_s[2], 20);
    assert_string_equal(f->c.hub_env.hf_home, "/tmp/custom_cache");
    assert_string_equal(f->c.notify_socket, "@x");
    assert_int_equal(f->c.notes.n, 3);
    assert_string_equal(
        f->c.notes.items[0],
        "VISION_AUTO_RESIZE has no meaning here: pictures are resized by the model's own rule");
    assert_string_equal(f->c.notes.items[1], "MLX_FOO has no meaning here");
    assert_string_equal(f->c.notes.items[2], "OCELLUS_PROT is no setting of ocellus serve");
    f->environ[0] = "MLX_QUEUE_ENABLED=0";
    f->environ[1] = "MLX_QUEUE_MAX_DEPTH=50";
    f->environ[2] = "MLX_RATE_LIMIT_ENABLED=0";
    ok(f, "");
    assert_int_equal(f->c.queue_depth, 0);
    f->environ[0] = "MLX_ADMIN_PORT=abc";
    f->environ[1] = "MLX_QUEUE_REJECT_THRESHOLD=x";
    refused(f, "", "MLX_ADMIN_PORT: admin_port cannot be 'abc', it must be a whole number from 0 to 65535");
    refused(f, "", "MLX_QUEUE_REJECT_THRESHOLD: it cannot be 'x', it must be a whole number");
}

static void test_yaml(void **state) {
    struct fixture *f = *state;
    yaml_ok(
        f, "# a comment\nhost: 0.0.0.0   # all\nport: 8000\nmax_body: 10 MiB\nallowed_hosts:\n  - a.example\n"
           "  - 'b.example'\nallowed_origins: []\nmodels: \"one\\u00e9\"\ndefault_model: null\nmedia_dir: "
           "~\nlog_file:\n"
           "ping:\nprefix_cache: false\nrate_limit: True\nalert_tok_s: 1e1\nqueue_timeout_high: "
           "'3m'\nmachine_type: no\n"
           "idle_unload_s: 1h\n");
    assert_string_equal(f->c.host, "0.0.0.0");
    assert_int_equal(f->c.port, 8000);
    assert_int_equal(f->c.max_body_bytes, 10 * OC_MIB);
    assert_int_equal(f->c.allowed_hosts.n, 2);
    assert_string_equal(f->c.allowed_hosts.items[1], "b.example");
    assert_int_equal(f->c.allowed_origins.n, 0);
    assert_string_equal(f->c.models.items[0], "one\xc3\xa9");
    assert_null(f->c.default_model);
    assert_int_equal(f->c.ping_s, 15);
    assert_false(f->c.prefix_cache);
    assert_true(f->c.rate_limit);
    assert_true(f->c.alert_tok_s == 10);
    assert_int_equal(f->c.queue_timeout_s[0], 180);
    assert_string_equal(f->c.machine_type, "no"); /* text in YAML 1.2 */
    assert_int_equal(f->c.idle_unload_s, 3600);
    yaml_ok(f, "");
    yaml_ok(f, "---\n");
    yaml_ok(f, "# nothing\n");
    yaml_ok(f, "{port: 8000, models: [a, b]}");
    yaml_ok(f, "\xef\xbb\xbfport: 1\n");
    yaml_ok(f, "{\"port\": 8000, \"models\": [\"a\"]}"); /* JSON is YAML */
}

static void test_bad_yaml(void **state) {
    struct fixture *f = *state;
    yaml_refused(f, "port: 1\nprt: 2\n", "2: there is no key 'prt', did you mean 'port'?");
    yaml_refused(f, "\n\nlog_jsonn: {a: [1, {b: 2}]}\nport: x\n",
                 "3: there is no key 'log_jsonn', did you mean 'log_json'?");
    yaml_refused(f, "wholly_unknown_thing: 2\n", "1: there is no key 'wholly_unknown_thing'");
    yaml_refused(f, "rate_limit: no\n", "1: rate_limit cannot be 'no', it must be true or false");
    yaml_refused(f, "rate_limit: 1\n", "1: rate_limit cannot be '1', it must be true or false");
    yaml_refused(f, "rate_limit: 'true'\n",
                 "1: rate_limit is the text 'true' in quotation marks, write it without them");
    yaml_refused(f, "port: \"80\"\n", "1: port is the text '80' in quotation marks, write it without them");
    yaml_refused(f, "port: 0x50\n", "1: port cannot be '0x50', it must be a whole number from 0 to 65535");
    yaml_refused(f, "alert_tok_s: .nan\n",
                 "1: alert_tok_s cannot be '.nan', it must be a number from 0 to 1e+06");
    yaml_refused(f, "port: [1]\n", "1: port must be a single value");
    yaml_refused(f, "port: {a: 1}\n", "1: port must be a single value");
    yaml_refused(f, "models: {a: 1}\n", "1: models must be a list of texts");
    yaml_refused(f, "models: [a, [b]]\n", "1: an item of models must be text");
    yaml_refused(f, "models:\n  - a\n  -\n", "3: an item of models must be text");
    yaml_refused(f, "port: 1\nhost: a\nport: 2\n", "3: port stands in line 1 already");
    yaml_refused(f, "host: &a x\n", "1: anchors and aliases (& and *) are not allowed here");
    yaml_refused(f, "host: *a\n", "1: anchors and aliases (& and *) are not allowed here");
    yaml_refused(f, "<<: *a\n", "1: there is no key '<<'");
    yaml_refused(f, "host: !!str x\n", "1: tags (!) are not allowed here");
    yaml_refused(f, "models: !x [a]\n", "1: tags (!) are not allowed here");
    yaml_refused(f, "models: [&a x, *a]\n", "1: anchors and aliases (& and *) are not allowed here");
    yaml_refused(f, "--- &a\nport: 1\n", "1: anchors and aliases (& and *) are not allowed here");
    yaml_refused(f, "- a\n- b\n", "1: the file must consist of lines 'key: value'");
    yaml_refused(f, "just text\n", "1: the file must consist of lines 'key: value'");
    yaml_refused(f, "port: 1\n---\nport: 2\n", "2: a second document");
    yaml_refused(f, "? [a, b]\n: c\n", "1: a key must be text");
    yaml_refused(f, "port: 1\nhost: [a\nmodels: b: c\n", "3: not YAML: did not find expected ',' or ']'");
    yaml_refused(f, "host: \"a\n", "2: not YAML: found unexpected end of stream");
    assert_int_equal(f->ei.code, OC_ERR_FORMAT);
    yaml_refused(f, "port:\t1\n\t- x", "2: not YAML: found a tab character that violates indentation");
    yaml_refused(f, "x: [[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]\n",
                 "1: nested deeper than 16");
}

static void test_big_files(void **state) {
    struct fixture *f = *state;
    char *text = malloc(OC_LIMIT_SERVER_CONFIG_BYTES + 2);
    memset(text, '#', OC_LIMIT_SERVER_CONFIG_BYTES + 1);
    text[OC_LIMIT_SERVER_CONFIG_BYTES + 1] = '\0';
    char args[128], sentence[200];
    write_file(f, text);
    snprintf(args, sizeof args, "--config %s", f->file);
    snprintf(sentence, sizeof sentence,
             "the configuration cannot be read: %s: larger than the 262144 bytes allowed here", f->file);
    refused(f, args, sentence);
    size_t n = 0;
    for (int i = 0; i < 3000; i++) n += (size_t)sprintf(text + n, "no_%d: 1\n", i);
    write_file(f, text);
    assert_int_equal(read_args(f, args), OC_ERR_USAGE);
    assert_non_null(strstr(f->ei.msg, "3000 faults"));
    assert_non_null(strstr(oc_buf_str(&f->faults), "no_98'\nand more\n"));
    n = (size_t)sprintf(text, "models: [");
    for (int i = 0; i < 65; i++) n += (size_t)sprintf(text + n, "m%d,", i);
    sprintf(text + n, "]\n");
    yaml_refused(f, text, "1: a list has at most 64 items");
    free(text);
}

static void test_sizes_and_times(void **state) {
    struct fixture *f = *state;
    static const struct {
        const char *text;
        int64_t bytes; /* -1: refused */
    } sizes[] = {{"0", 0},
                 {"4096", 4096},
                 {"4096B", 4096},
                 {"1k", 1024},
                 {"1KiB", 1024},
                 {"1kb", 1000},
                 {"2M", 2097152},
                 {"2MB", 2000000},
                 {"1.5GiB", 1610612736},
                 {"0.5G", 536870912},
                 {"1GB", 1000000000},
                 {"1TiB", -1},
                 {"1.", -1},
                 {".5G", -1},
                 {"-1", -1},
                 {"1XB", -1},
                 {"1e3", -1},
                 {"99999999999999999999", -1},
                 {"9999999TiB", -1},
                 {"", -1},
                 {"1GiBx", -1}},
      times[] = {{"0", 0},        {"30", 30},    {"30s", 30},   {"5m", 300},          {"2h", 7200},
                 {"1h30m", 5400}, {"1d", 86400}, {"2min", 120}, {"-1", -1},           {"1.5s", -1},
                 {"500ms", -1},   {"s", -1},     {"1h30", -1},  {"99999999999d", -1}, {"400d", -1},
                 {"0s", 0},       {"", -1}};
    char args[128];
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        f->memory_bytes = 100 * GIB;
        snprintf(args, sizeof args, "--embed-cache=%s", sizes[i].text);
        if (!strcmp(sizes[i].text, "1TiB")) snprintf(args, sizeof args, "--max-body=%s", sizes[i].text);
        if (sizes[i].bytes < 0)
            assert_int_equal(read_args(f, args), OC_ERR_USAGE);
        else
            ok(f, args);
        if (sizes[i].bytes >= 0) assert_int_equal(f->c.embed_cache_bytes, sizes[i].bytes);
    }
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        snprintf(args, sizeof args, "--idle-unload=%s", times[i].text);
        if (times[i].bytes < 0)
            assert_int_equal(read_args(f, args), OC_ERR_USAGE);
        else
            ok(f, args);
        if (times[i].bytes >= 0) assert_int_equal(f->c.idle_unload_s, times[i].bytes);
    }
}

/* ---- --print-config ------------------------------------------------------------------------------------ */

static void write_values(const struct oc_server_config *c, struct oc_buf *out) {
    for (int i = 0; i < oc_config_n_keys; i++) {
        oc_config_write_value(c, i, out);
        oc_buf_add_char(out, '\n');
    }
}

/* What was read, printed and read again on another machine is the same. */
static void reads_back(struct fixture *f, const char *args) {
    struct oc_buf printed, before, after;
    oc_buf_init(&printed, OC_MIB);
    oc_buf_init(&before, OC_MIB);
    oc_buf_init(&after, OC_MIB);
    ok(f, args);
    oc_server_config_print(&f->c, &printed);
    write_values(&f->c, &before);
    int64_t memory = f->memory_bytes;
    f->memory_bytes = 200 * GIB;
    yaml_ok(f, oc_buf_str(&printed));
    f->memory_bytes = memory;
    write_values(&f->c, &after);
    assert_string_equal(oc_buf_str(&before), oc_buf_str(&after));
    oc_buf_free(&printed);
    oc_buf_free(&before);
    oc_buf_free(&after);
}

static void test_print_reads_back(void **state) {
    struct fixture *f = *state;
    reads_back(f, "");
    f->memory_bytes = 3 * GIB + 12345;
    reads_back(
        f, "--host ::1 --port 0 -m a -m b,c -m 'x:#y\\ --default-model true --machine-type null --log-level "
           "ERROR --max-body 5000001 "
           "--idle-unload 1d --rate-limit --no-remote-images --alert-tok-s 0.1 --allowed-origins * --isa 123 --batch-mode throughput "
           "--media-dir / --log-file - --kv-tokens 100000 --api-keys-file \"\xc3\xa9\xf0\x9f\x98\x80");
}

static void test_print_random(void **state) {
    struct fixture *f = *state;
    unsigned seed = 3;
    for (int round = 0; round < 40; round++) {
        char args[1024];
        size_t n = 0;
        args[0] = '\0';
        for (int i = 0; i < oc_config_n_keys; i++) {
            const struct oc_config_key *k = &oc_config_keys[i];
            if (rand_r(&seed) % 4) continue;
            double span = k->max - k->min,
                   v = k->min + (span > 1e6 ? 1e6 : span) * ((double)rand_r(&seed) / RAND_MAX);
            if (k->kind == OC_CONFIG_BOOL)
                n += (size_t)snprintf(args + n, sizeof args - n, "--%s=%d ", k->flag, rand_r(&seed) % 2);
            if (k->kind == OC_CONFIG_NUM)
                n += (size_t)snprintf(args + n, sizeof args - n, "--%s=%.17g ", k->flag, v);
            bool whole = k->kind == OC_CONFIG_COUNT || k->kind == OC_CONFIG_INT ||
                         k->kind == OC_CONFIG_BYTES || k->kind == OC_CONFIG_TIME;
            if (whole) n += (size_t)snprintf(args + n, sizeof args - n, "--%s=%.0f ", k->flag, v);
        }
        assert_true(n < sizeof args - 100);
        if (read_args(f, args) == OC_OK) reads_back(f, args); /* else a check of two values together */
    }
}

static void test_print_says_where(void **state) {
    struct fixture *f = *state;
    char args[128], line[160];
    write_file(f, "\nparallel: 3\n");
    snprintf(args, sizeof args, "--config %s --port 5", f->file);
    f->environ[0] = "MLX_ADMIN_PORT=6";
    f->environ[1] = "OCELLUS_THREADS=7";
    ok(f, args);
    struct oc_buf out;
    oc_buf_init(&out, OC_MIB);
    oc_server_config_print(&f->c, &out);
    snprintf(line, sizeof line, "\nparallel: 3  # %s:2\n", f->file);
    assert_non_null(strstr(oc_buf_str(&out), line));
    assert_non_null(strstr(oc_buf_str(&out), "\nport: 5  # --port\n"));
    assert_non_null(strstr(oc_buf_str(&out), "\nadmin_port: 6  # MLX_ADMIN_PORT\n"));
    assert_non_null(strstr(oc_buf_str(&out), "\nthreads: 7  # OCELLUS_THREADS\n"));
    assert_non_null(strstr(oc_buf_str(&out), "\nctx: 0  # default\n"));
    assert_non_null(strstr(oc_buf_str(&out),
                           "\nload_timeout: 180s  # default of the tier medium-memory, 32 GiB of memory\n"));
    oc_buf_free(&out);
}

/* Every key can be set by its flag, its variable and the file, and stands in the help. */
static void test_table(void **state) {
    struct fixture *f = *state;
    struct oc_buf help, value;
    oc_buf_init(&help, OC_MIB);
    oc_buf_init(&value, OC_MIB);
    oc_server_config_help(&help);
    for (int i = 0; i < oc_config_n_keys; i++) {
        const struct oc_config_key *k = &oc_config_keys[i];
        if (k->kind == OC_CONFIG_SECTION) continue;
        bool text = k->kind == OC_CONFIG_STR || k->kind == OC_CONFIG_LIST;
        ok(f, "");
        oc_buf_clear(&value);
        if (text)
            oc_buf_add_str(&value, "/");
        else
            oc_config_write_value(&f->c, i, &value);
        const char *v = oc_buf_str(&value);
        size_t n = strlen(v);
        v = v[0] == '"' ? (value.data[n - 1] = '\0', v + 1) : v;
        char env[128], args[128], flag[64];
        snprintf(env, sizeof env, "OCELLUS_%s=%s", k->flag, v);
        for (char *p = env; *p != '='; p++)
            *p = *p == '-' ? '_' : *p >= 'a' && *p <= 'z' ? (char)(*p - 32) : *p;
        bool tls = strncmp(k->key, "tls_", 4) == 0; /* one without the other is a fault: test_tls */
        f->environ[0] = env;
        assert_int_equal(read_args(f, ""), tls ? OC_ERR_USAGE : OC_OK);
        if (!tls) assert_memory_equal(f->c.sources[i], env, strlen(f->c.sources[i]));
        f->environ[0] = NULL;
        snprintf(args, sizeof args, "--%s=%s", k->flag, v);
        assert_int_equal(read_args(f, args), tls ? OC_ERR_USAGE : OC_OK);
        if (!tls) assert_memory_equal(f->c.sources[i], args, strlen(f->c.sources[i]));
        snprintf(args, sizeof args, "%s: %s\n", k->key, v);
        if (!tls) yaml_ok(f, args);
        snprintf(flag, sizeof flag, "--%s%c", k->flag,
                 k->kind != OC_CONFIG_BOOL || !strcmp(k->def, "false") ? ' ' : ',');
        assert_non_null(strstr(oc_buf_str(&help), flag));
        assert_int_equal(oc_config_find_key(oc_str_from(k->key)), i); /* no other has its name */
        assert_int_equal(oc_config_find_flag(oc_str_from(k->flag)), i);
    }
    for (const char *p = oc_buf_str(&help); *p; p += strcspn(p, "\n") + 1) {
        if (strcspn(p, "\n") > 110) print_error("%.150s\n", p);
        assert_true(strcspn(p, "\n") <= 110);
    }
    assert_non_null(strstr(oc_buf_str(&help), "MLX_QUEUE_TIMEOUT_LOW"));
    oc_buf_free(&help);
    oc_buf_free(&value);
}

static void test_tls(void **state) {
    struct fixture *f = *state;
    ok(f, "");
    assert_null(f->c.tls_cert);
    assert_null(f->c.tls_key);
    f->environ[0] = "OCELLUS_TLS_CERT=/from/variable.pem";
    ok(f, "--tls-key /from/flag.pem");
    assert_string_equal(f->c.tls_cert, "/from/variable.pem");
    assert_string_equal(f->c.tls_key, "/from/flag.pem");
    refused(f, "", "OCELLUS_TLS_CERT: tls_cert is given without tls_key: TLS needs both, or neither");
    f->environ[0] = "OCELLUS_TLS_KEY=/from/variable.pem";
    refused(f, "", "OCELLUS_TLS_KEY: tls_key is given without tls_cert: TLS needs both, or neither");
    f->environ[0] = NULL;
    yaml_ok(f, "tls_cert: /a.pem\ntls_key: /b.pem\n");
    assert_string_equal(f->c.tls_cert, "/a.pem");
    assert_string_equal(f->c.tls_key, "/b.pem");
}

static void test_runtime_dir(void **state) {
    struct fixture *f = *state;
    char want[64];
    ok(f, "");
    snprintf(want, sizeof want, "/tmp/ocellus-%u", (unsigned)getuid());
    assert_string_equal(f->c.runtime_dir, want);
    f->environ[0] = "XDG_RUNTIME_DIR=/run/user/1";
    ok(f, "");
    assert_string_equal(f->c.runtime_dir, "/run/user/1/ocellus");
    f->environ[1] = "RUNTIME_DIRECTORY=/run/ocellus:/run/other";
    ok(f, "");
    assert_string_equal(f->c.runtime_dir, "/run/ocellus");
    ok(f, "--runtime-dir /x");
    assert_string_equal(f->c.runtime_dir, "/x");
}

/* The way main() takes, with this process's environment. */
static void test_real_world(void **state) {
    struct fixture *f = *state;
    char *argv[] = {"--port", "0"};
    assert_int_equal(oc_server_config_read(2, argv, &f->c, &f->show, &f->ei, NULL), OC_OK);
    assert_true(f->c.memory_bytes > 0);
    argv[1] = "x";
    oc_server_config_free(&f->c);
    assert_int_equal(oc_server_config_read(2, argv, &f->c, &f->show, &f->ei, NULL), OC_ERR_USAGE);
}

int main(void) {
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(test_defaults),        T(test_tiers),
        T(test_machine_memory),  T(test_flags),
        T(test_bad_flags),       T(test_all_faults_at_once),
        T(test_rates),           T(test_order_of_sources),
        T(test_old_variables),   T(test_yaml),
        T(test_bad_yaml),        T(test_big_files),
        T(test_sizes_and_times), T(test_print_reads_back),
        T(test_print_random),    T(test_print_says_where),
        T(test_table),           T(test_tls),
        T(test_runtime_dir),     T(test_real_world),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
