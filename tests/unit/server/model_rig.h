/* What tests of models and alerts share: a server of models only, whose directories are made here and whose workers are
 * played by the test program (fake_worker.h). */
#ifndef OC_TESTS_UNIT_SERVER_MODEL_RIG_H
#define OC_TESTS_UNIT_SERVER_MODEL_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/stat.h>

#include "base/file.h"
#include "base/limits.h"
#include "server/alerts.h"
#include "server/models.h"

#include "fake_worker.h"
#include "server_rig.h"

#define MAX_MODELS 4

struct fixture {
    struct server_rig rig;
    struct oc_server_models models;
    struct oc_server_alerts alerts;
};

static int set_up(void **state) {
    struct fixture *fx = calloc(1, sizeof *fx);
    struct oc_server *s = &fx->rig.s;
    struct oc_errinfo ei;
    rig_open(&fx->rig, "models",
             &(struct oc_server_config){.load_timeout_s = 600, .stall_timeout_s = 600, .batch_mode = "exact", .parallel = 4,
                                        .queue_depth = 10, .queue_timeout_s = {60, 60, 60}, .prefix_cache = true});
    s->models = &fx->models;
    s->alerts = &fx->alerts;
    fx->models = (struct oc_server_models){.s = s, .budget_bytes = 1000000000};
    assert_int_equal(oc_metrics_open(&s->metrics, &ei), OC_OK);
    assert_int_equal(oc_server_crew_open(&s->loop, 2, &s->quick, &ei), OC_OK);
    *state = fx;
    return 0;
}

static inline void remove_model_files(const struct fixture *fx, const char *how) {
    static const char *const names[] = {"config.json", "tokenizer.json", "was-here"};
    char path[700];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s/%s", fx->rig.dir, how, names[i]);
        unlink(path);
    }
    snprintf(path, sizeof path, "%s/%s", fx->rig.dir, how);
    assert_int_equal(rmdir(path), 0);
}

/* All models stop, and nothing may be left: no process, no handle, no memory. */
static int tear_down(void **state) {
    struct fixture *fx = *state;
    struct oc_server *s = &fx->rig.s;
    s->stopping = true;
    for (struct oc_server_model *m = fx->models.first; m; m = m->next) oc_server_model_stop(m);
    for (struct oc_server_model *m = fx->models.first; m; m = m->next)
        wait_until(&fx->rig, m->state == OC_MODEL_UNLOADED && !m->worker && !m->measure && m->n_refs == 0);
    for (struct oc_server_model *m; (m = fx->models.first);) {
        fx->models.first = m->next;
        oc_server_model_close_chat(m);
        remove_model_files(fx, m->id);
        oc_server_model_free(m);
    }
    wait_until(&fx->rig, oc_server_crew_n_pending(s->quick) == 0);
    oc_server_crew_close(s->quick);
    rig_close(&fx->rig);
    oc_metrics_close(s->metrics);
    free(fx);
    return 0;
}

static inline void put_file(const char *dir, const char *name, struct oc_str s) {
    char path[700];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(s.p, 1, s.n, f), s.n);
    assert_int_equal(fclose(f), 0);
}

/* A model whose worker behaves as `how` says, which is its id too. */
static inline struct oc_server_model *add_model(struct fixture *fx, const char *how) {
    struct oc_server_model **end = &fx->models.first;
    struct oc_server_facts facts;
    struct oc_errinfo ei;
    struct oc_arena a;
    struct oc_str tokenizer;
    char dir[600];
    snprintf(dir, sizeof dir, "%s/%s", fx->rig.dir, how);
    assert_int_equal(mkdir(dir, 0700), 0);
    oc_arena_init(&a, OC_LIMIT_JSON_BYTES);
    assert_int_equal(oc_file_read(&a, OC_TEST_DIR "/golden/tokenizer/gpt2.json", 16 * OC_MIB, &tokenizer, &ei), OC_OK);
    put_file(dir, "tokenizer.json", tokenizer);
    put_file(dir, "config.json", OC_STR("{\"architectures\":[\"Fake\"],\"max_position_embeddings\":512}"));
    assert_int_equal(oc_server_facts_read(&a, &fx->rig.config.hub_env, dir, &facts, &ei), OC_OK);
    while (*end) end = &(*end)->next;
    assert_int_equal(oc_server_model_make(&fx->rig.s, how, dir, &facts, true, end, &ei), OC_OK);
    fx->models.n++;
    struct oc_server_model *m = *end;
    oc_arena_free(&a);
    return m;
}

/* Somebody who needs a model. */
struct want {
    struct oc_server_want want;
    int n_have, n_failed;
    struct oc_api_error err;
};

static inline void on_have(struct oc_server_want *w, const struct oc_api_error *err) {
    struct want *k = (struct want *)w;
    k->n_have += err == NULL;
    k->n_failed += err != NULL;
    if (err) k->err = *err;
}

static inline void want(struct oc_server_model *m, struct want *k) {
    *k = (struct want){.want = {.worker = true, .on_have = on_have}};
    if (oc_server_model_want(m, &k->want)) k->n_have++;
}

static inline bool log_holds(const struct fixture *fx, const char *words) {
    struct oc_arena a;
    struct oc_str s;
    struct oc_errinfo ei;
    oc_arena_init(&a, 2 * OC_MIB);
    assert_int_equal(oc_file_read(&a, fx->rig.log, OC_MIB, &s, &ei), OC_OK);
    const char *text = oc_arena_strndup(&a, s.p, s.n);
    assert_non_null(text);
    bool holds = strstr(text, words) != NULL;
    oc_arena_free(&a);
    return holds;
}

static inline void log_has(const struct fixture *fx, const char *const *words, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!log_holds(fx, words[i])) fail_msg("no '%s' in the log", words[i]);
}
#define LOG_HAS(fx, ...)                                                                                      \
    log_has((fx), (const char *const[]){__VA_ARGS__}, sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

#endif
