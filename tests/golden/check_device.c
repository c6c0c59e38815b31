/* check_device MODEL_DIR: an engine on a device that is not the host (fake_device.h) gives the bits of the CPU at every stage, brings
 * home no more than it must, and fails cleanly; and which device is chosen. For any model, with pictures or without. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/buf.h"
#include "engine/engine.h"
#include "fake_device.h"

#define CTX 512
#define N_TEXT 30
#define N_DECODE 6

static const char *model_dir;

static struct oc_engine_params small_params(void) {
    return (struct oc_engine_params){.model_dir = model_dir, .device = "cpu", .ctx_tokens = CTX, .n_sessions = 2, .image_max_tokens = 100,
                                     .n_threads = 2};
}

static struct oc_engine *open_engine(struct oc_device *d) {
    struct oc_engine *e;
    struct oc_errinfo ei;
    struct oc_engine_params p = small_params();
    p.opened = d;
    if (oc_engine_open(&p, &e, &ei) != OC_OK) fail_msg("%s", ei.msg);
    return e;
}

/* ---- Bits ------------------------------------------------------------------------------------------------- */

/* Everything that an engine computes for one conversation, stage by stage. */
struct record {
    struct oc_buf all;
};

static void note(struct record *r, const float *x, size_t n) {
    assert_true(oc_buf_add(&r->all, (const char *)x, n * sizeof *x));
}

static void on_stage(void *arg, const char *stage, int layer, const float *x, int64_t n_rows, int64_t dim) {
    (void)stage, (void)layer;
    note(arg, x, (size_t)(n_rows * dim));
}

static float *encode(struct oc_engine *e, struct oc_picture_plan *plan, struct record *r) {
    struct oc_vision_trace trace = {on_stage, r};
    assert_int_equal(oc_engine_plan_picture(e, 150, 210, NULL, plan, NULL), OC_OK);
    size_t n_in = (size_t)plan->n_patches * (size_t)plan->patch_dim, n_out = (size_t)plan->n_tokens * (size_t)e->info.dim;
    float *patches = malloc(n_in * sizeof *patches), *out = malloc(n_out * sizeof *out);
    assert_true(patches && out);
    for (size_t i = 0; i < n_in; i++) patches[i] = (float)(i * 2654435761u % 2001) / 1000.0f - 1;
    e->vision_trace = &trace;
    assert_int_equal(oc_engine_encode_picture(e, plan, patches, out, NULL), OC_OK);
    e->vision_trace = NULL;
    note(r, out, n_out);
    free(patches);
    return out;
}

static int fill_prompt(struct oc_engine *e, const struct oc_picture_plan *plan, int32_t *tokens) {
    int n = 0;
    for (int i = 0; i < N_TEXT / 2; i++) tokens[n++] = 3 + i * 29 % 400;
    for (int i = 0; e->info.has_vision && i < plan->n_tokens; i++) tokens[n++] = e->info.image_token;
    for (int i = 0; i < N_TEXT / 2; i++) tokens[n++] = 7 + i * 31 % 400;
    return n;
}

static void note_logits(struct record *r, struct oc_engine *e, int n) {
    for (int i = 0; i < n; i++) note(r, oc_engine_logits(e, i), (size_t)e->info.n_vocab);
}

/* A picture, a prompt in two parts, words one by one and several at once, a cut, and words again. */
static void converse(struct oc_engine *e, struct record *r) {
    struct oc_session *s;
    struct oc_picture_plan plan = {.n_tokens = 0};
    struct oc_lm_trace trace = {on_stage, r};
    int32_t tokens[CTX];
    float *embedding = e->info.has_vision ? encode(e, &plan, r) : NULL;
    struct oc_prompt_picture picture = {plan, embedding};
    struct oc_prompt prompt = {tokens, fill_prompt(e, &plan, tokens), &picture, e->info.has_vision};
    assert_int_equal(oc_session_open(e, CTX, &s, NULL), OC_OK);
    e->lm_trace = &trace;
    assert_int_equal(oc_session_prefill(s, &prompt, NULL, NULL, NULL), OC_OK);
    note_logits(r, e, 1);
    for (int i = 0; i < N_DECODE; i++) {
        assert_int_equal(oc_session_decode(s, 11 + i, NULL), OC_OK);
        note_logits(r, e, 1);
    }
    assert_int_equal(oc_session_decode_several(s, tokens, 4, NULL), OC_OK);
    note_logits(r, e, 4);
    oc_session_truncate(s, oc_session_n_tokens(s) - 3);
    assert_int_equal(oc_session_decode(s, 17, NULL), OC_OK);
    note_logits(r, e, 1);
    e->lm_trace = NULL;
    oc_session_close(s);
    free(embedding);
}

static void every_stage_has_the_bits_of_the_cpu(void **state) {
    (void)state;
    static const char *const isas[] = {"ref", "auto"};
    for (int i = 0; i < 2; i++) {
        struct record r[2];
        for (int k = 0; k < 2; k++) {
            struct oc_device *d = NULL;
            struct oc_engine_params p = small_params();
            struct oc_engine *e;
            p.isa = isas[i];
            if (k) p.opened = d = fake_device_open(isas[i]);
            assert_int_equal(oc_engine_open(&p, &e, NULL), OC_OK);
            oc_buf_init(&r[k].all, (size_t)1 << 30);
            converse(e, &r[k]);
            assert_string_equal(oc_engine_info(e)->device, k ? "fake" : "cpu");
            oc_engine_close(e);
        }
        assert_int_equal(r[0].all.n_bytes, r[1].all.n_bytes);
        assert_memory_equal(r[0].all.data, r[1].all.data, r[0].all.n_bytes);
        oc_buf_free(&r[0].all), oc_buf_free(&r[1].all);
    }
}

/* ---- What goes over --------------------------------------------------------------------------------------- */

static void a_step_brings_home_logits_alone(void **state) {
    (void)state;
    struct oc_device *d = fake_device_open("auto");
    struct oc_engine *e = open_engine(d);
    struct oc_session *s;
    int32_t tokens[CTX] = {0};
    assert_int_equal(oc_session_open(e, CTX, &s, NULL), OC_OK);
    assert_int_equal(oc_session_prefill(s, &(struct oc_prompt){.tokens = tokens, .n_tokens = 40}, NULL, NULL, NULL), OC_OK);
    struct fake_device_figures before = fake_device_figures(d);
    for (int i = 0; i < 5; i++) assert_int_equal(oc_session_decode(s, 4, NULL), OC_OK);
    struct fake_device_figures f = fake_device_figures(d);
    assert_int_equal(f.n_gets - before.n_gets, 5);
    assert_int_equal(f.got_bytes - before.got_bytes, 5 * (uint64_t)e->info.n_vocab * sizeof(float));
    assert_int_equal(f.n_puts - before.n_puts, 10); /* cosines and sines */
    assert_int_equal(f.n_allocations, before.n_allocations);
    oc_session_close(s);
    oc_engine_close(e);
}

/* Rows of pictures that lie behind each other go over together. */
static void neighbouring_embeddings_go_over_at_once(void **state) {
    (void)state;
    struct oc_device *d = fake_device_open("auto");
    struct oc_engine *e = open_engine(d);
    size_t dim = (size_t)e->info.dim;
    float *rows = calloc(40 * dim, sizeof *rows);
    struct oc_session *s;
    struct oc_row step[20];
    assert_int_equal(oc_session_open(e, CTX, &s, NULL), OC_OK);
    for (int i = 0; i < 20; i++) {
        step[i] = (struct oc_row){.session = s, .slot = i, .pos = {i, i, i}, .token = 5};
        if (i >= 5 && i < 15) step[i].embedding = rows + (size_t)(i < 10 ? i : i + 7) * dim; /* two runs of five */
    }
    struct fake_device_figures before = fake_device_figures(d);
    assert_int_equal(oc_engine_step(e, step, 20, NULL), OC_OK);
    assert_int_equal(fake_device_figures(d).n_puts - before.n_puts, 4); /* the angles are two */
    oc_session_close(s);
    free(rows);
    oc_engine_close(e);
}

/* ---- Finite numbers --------------------------------------------------------------------------------------- */

/* Hidden states as a pass leaves them, with one number of them spoilt. */
static bool finite_with(struct oc_engine *e, int64_t row, int64_t column, float value) {
    struct oc_lm_pass p = {.lm = &e->model->lm, .dev = e->dev, .ops = &e->dev->ops, .ctx = &e->ctx, .ws = &e->lm_ws};
    int64_t dim = e->info.dim, n = 300;
    float *h = malloc((size_t)(n * dim) * sizeof *h);
    assert_non_null(h);
    for (int64_t i = 0; i < n * dim; i++) h[i] = (float)(i * 7919 % 1000 - 500) / 300.0f;
    for (int64_t i = 0; i < dim; i++) h[3 * dim + i] = 0; /* a row of nothing is finite */
    for (int64_t i = 0; i < dim; i++) h[4 * dim + i] = i == dim - 1 ? 3e38f : 0; /* so is one whose square is not */
    h[row * dim + column] = value;
    e->dev->put(e->dev, e->lm_ws.h, h, (size_t)(n * dim) * sizeof *h);
    bool finite = oc_lm_decoder_is_finite(&p, 0, (int)n), others = oc_lm_decoder_is_finite(&p, 0, (int)row) &&
                                                                  oc_lm_decoder_is_finite(&p, (int)row + 1, (int)(n - row - 1));
    assert_true(others);
    free(h);
    return finite;
}

static void what_is_not_finite_is_found(void **state) {
    (void)state;
    for (int k = 0; k < 2; k++) {
        struct oc_engine *e = open_engine(k ? fake_device_open("auto") : NULL);
        static const int rows[] = {0, 5, 255, 256, 299};
        int dim = e->info.dim;
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            for (int column = 0; column < dim; column += column < 12 ? 1 : dim - 13) {
                assert_false(finite_with(e, rows[i], column, __builtin_nanf("")));
                assert_false(finite_with(e, rows[i], column, __builtin_inff()));
                assert_false(finite_with(e, rows[i], column, -__builtin_inff()));
                assert_true(finite_with(e, rows[i], column, 3e38f));
                if (column == dim - 1) break;
            }
        }
        oc_engine_close(e);
    }
}

/* ---- Opening ---------------------------------------------------------------------------------------------- */

struct progress {
    double last;
    int n;
};

static void on_progress(void *arg, double fraction) {
    struct progress *p = arg;
    assert_true(fraction >= p->last && fraction <= 1);
    p->last = fraction;
    p->n++;
}

static void weights_are_brought_once_and_told(void **state) {
    (void)state;
    struct oc_device *d = fake_device_open("auto");
    struct progress told = {0};
    struct oc_engine_params p = small_params();
    struct oc_engine *e;
    p.opened = d;
    p.progress = on_progress;
    p.progress_arg = &told;
    assert_int_equal(oc_engine_open(&p, &e, NULL), OC_OK);
    struct fake_device_figures f = fake_device_figures(d);
    const struct oc_model *m = e->model;
    assert_int_equal(f.n_weights, 2 + 7 * m->lm.n_layers + (m->has_vision ? 3 + 5 * m->vision.n_blocks : 0));
    assert_true(told.last == 1 && told.n >= f.n_weights - 1);
    assert_true(e->info.device_bytes > e->info.workspace_bytes && e->info.host_bytes > 0);
    oc_engine_close(e);
}

static void who_only_asks_takes_nothing(void **state) {
    (void)state;
    struct oc_engine *real = open_engine(fake_device_open("auto")), *e;
    struct oc_device *d = fake_device_open("auto");
    struct oc_engine_params p = small_params();
    p.opened = d;
    p.skip_prefetch = true;
    assert_int_equal(oc_engine_open(&p, &e, NULL), OC_OK);
    struct fake_device_figures f = fake_device_figures(d);
    assert_int_equal(f.n_allocations + f.n_weights + f.n_floats, 0);
    assert_int_equal(e->info.device_bytes, real->info.device_bytes);
    assert_int_equal(e->info.workspace_bytes, real->info.workspace_bytes);
    assert_int_equal(e->info.host_bytes, real->info.host_bytes);
    assert_int_equal(e->info.kv_bytes_per_token, real->info.kv_bytes_per_token);
    oc_engine_close(e);
    oc_engine_close(real);
}

/* Whatever cannot be had, there is one sentence, no engine, and nothing is left behind: the fake counts. */
static void what_a_device_lacks_is_an_error(void **state) {
    (void)state;
    for (int after = 0; after < 4; after++) {
        struct oc_device *d = fake_device_open("auto");
        struct oc_engine_params p = small_params();
        struct oc_engine *e;
        struct oc_errinfo ei = {.msg = ""};
        p.opened = d;
        if (after < 2) fake_device_fail_alloc(d, after);
        else fake_device_fail_weight(d, 5 * (after - 2));
        assert_int_equal(oc_engine_open(&p, &e, &ei), OC_ERR_NOMEM);
        assert_null(e);
        assert_non_null(strstr(ei.msg, "the fake device has no"));
    }
}

static enum oc_err try_open(const char *device, const char *plugin, const char *isa, struct oc_engine **e, struct oc_errinfo *ei) {
    struct oc_engine_params p = small_params();
    p.device = device;
    p.cuda_plugin = plugin;
    p.isa = isa;
    return oc_engine_open(&p, e, ei);
}

static void names_of_devices_are_checked(void **state) {
    (void)state;
    static const char *const bad[] = {"gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:1x", "cuda:64", "cuda:99999999999999999999", "cudax", "CPU"};
    struct oc_engine *e;
    struct oc_errinfo ei;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(try_open(bad[i], NULL, NULL, &e, &ei), OC_ERR_USAGE);
        assert_non_null(strstr(ei.msg, "known: auto, cpu, cuda"));
    }
}

static void without_a_plugin_there_is_the_cpu(void **state) {
    (void)state;
    static const char *const names[] = {NULL, "auto", ""};
    struct oc_engine *e;
    struct oc_errinfo ei;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(try_open(names[i], NULL, NULL, &e, &ei), OC_OK);
        assert_string_equal(oc_engine_info(e)->device, "cpu");
        assert_non_null(strstr(oc_engine_info(e)->device_why, "libocellus-cuda.so"));
        assert_int_equal(oc_engine_info(e)->device_bytes, 0);
        oc_engine_close(e);
    }
    assert_int_equal(try_open("cuda", NULL, NULL, &e, &ei), OC_ERR_NOT_FOUND);
    assert_int_equal(try_open("cuda:3", "", NULL, &e, &ei), OC_ERR_NOT_FOUND);
    assert_int_equal(try_open("cuda", "/nonexistent/libocellus-cuda.so", NULL, &e, &ei), OC_ERR_NOT_FOUND);
    assert_non_null(strstr(ei.msg, "device cuda"));
}

/* A file that is no plug-in: an error when it was asked for by name, else a reason. */
static void a_plugin_that_is_none_is_refused(void **state) {
    (void)state;
    char path[4096];
    struct oc_engine *e;
    struct oc_errinfo ei;
    snprintf(path, sizeof path, "%s/config.json", model_dir);
    assert_int_equal(try_open("cuda", path, NULL, &e, &ei), OC_ERR_UNSUPPORTED);
    assert_int_equal(try_open("auto", path, NULL, &e, &ei), OC_OK);
    assert_string_equal(oc_engine_info(e)->device, "cpu");
    assert_true(oc_engine_info(e)->device_why[0]);
    oc_engine_close(e);
    assert_int_equal(try_open("auto", path, "ref", &e, &ei), OC_OK); /* kernels of the CPU were asked for */
    assert_non_null(strstr(oc_engine_info(e)->device_why, "ref"));
    oc_engine_close(e);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_stage_has_the_bits_of_the_cpu),
        cmocka_unit_test(a_step_brings_home_logits_alone),
        cmocka_unit_test(neighbouring_embeddings_go_over_at_once),
        cmocka_unit_test(what_is_not_finite_is_found),
        cmocka_unit_test(weights_are_brought_once_and_told),
        cmocka_unit_test(who_only_asks_takes_nothing),
        cmocka_unit_test(what_a_device_lacks_is_an_error),
        cmocka_unit_test(names_of_devices_are_checked),
        cmocka_unit_test(without_a_plugin_there_is_the_cpu),
        cmocka_unit_test(a_plugin_that_is_none_is_refused),
    };
    if (argc != 2) return 2;
    model_dir = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
