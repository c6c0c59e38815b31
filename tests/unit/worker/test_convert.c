/* Between messages and engine: every field arrives, and plans that lie are refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <string.h>

#include <cmocka.h>

#include "worker/convert.h"

static const struct oc_picture_rules rules = {.kind = 1, .patch = 14, .merge = 2, .temporal = 2, .resample = OC_RESAMPLE_BICUBIC,
                                              .max_tokens = 100, .min_pixels = 3136, .max_pixels = 1003520, .rescale = 1 / 255.0,
                                              .mean = {0.1, 0.2, 0.3}, .std = {0.4, 0.5, 0.6}};

static struct oc_ipc_picture_plan good_plan(void) {
    return (struct oc_ipc_picture_plan){.width = 56, .height = 84, .resample = 3, .rescale = 1 / 255.0, .mean = {0.1, 0.2, 0.3},
                                        .std = {0.4, 0.5, 0.6}, .patch = 14, .merge = 2, .temporal = 2, .grid_t = 1, .grid_h = 6,
                                        .grid_w = 4, .n_patches = 24, .patch_dim = 1176, .n_tokens = 6};
}

static void test_rules_there_and_back(void **state) {
    (void)state;
    struct oc_ipc_picture_rules wire, again;
    struct oc_picture_rules back;
    struct oc_errinfo ei;
    memset(&again, 0, sizeof again);
    oc_worker_convert_rules_out(&rules, &wire);
    assert_int_equal(oc_worker_convert_rules(&wire, &back, &ei), OC_OK);
    assert_true(back.kind == 1 && back.patch == 14 && back.merge == 2 && back.temporal == 2 && back.max_tokens == 100);
    assert_true(back.min_pixels == 3136 && back.max_pixels == 1003520 && back.rescale == rules.rescale);
    assert_memory_equal(back.mean, rules.mean, sizeof rules.mean);
    assert_memory_equal(back.std, rules.std, sizeof rules.std);
    assert_int_equal(back.resample, OC_RESAMPLE_BICUBIC);
    assert_int_equal(oc_worker_convert_rules(&again, &back, &ei), OC_OK); /* a model without vision */
    wire.resample = 4;
    assert_int_equal(oc_worker_convert_rules(&wire, &back, &ei), OC_ERR_FORMAT);
    wire.resample = -1;
    assert_int_equal(oc_worker_convert_rules(&wire, &back, &ei), OC_ERR_FORMAT);
    wire.resample = 1;
    wire.mean[2] = NAN;
    assert_int_equal(oc_worker_convert_rules(&wire, &back, &ei), OC_ERR_FORMAT);
    wire.mean[2] = 0;
    wire.std[0] = 0;
    assert_int_equal(oc_worker_convert_rules(&wire, &back, &ei), OC_ERR_FORMAT);
    wire.std[0] = INFINITY;
    assert_int_equal(oc_worker_convert_rules(&wire, &back, &ei), OC_ERR_FORMAT);
}

static void test_a_plan_of_the_rules_passes(void **state) {
    (void)state;
    static const int sizes[][2] = {{1, 1}, {28, 28}, {640, 480}, {33, 2000}, {4000, 3000}};
    struct oc_errinfo ei;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct oc_picture_plan plan, back;
        struct oc_ipc_picture_plan wire;
        assert_int_equal(oc_picture_rules_plan(&rules, sizes[i][0], sizes[i][1], NULL, 0, &plan, &ei), OC_OK);
        oc_worker_convert_plan_out(&plan, &wire);
        assert_int_equal(oc_worker_convert_plan(&wire, &rules, &back, &ei), OC_OK);
        assert_true(back.width == plan.width && back.height == plan.height && back.n_tokens == plan.n_tokens);
        assert_true(back.n_patches == plan.n_patches && back.patch_dim == plan.patch_dim && back.grid_h == plan.grid_h);
        assert_true(back.grid_t == 1 && back.grid_w == plan.grid_w && back.resample == plan.resample && back.std[2] == 0.6);
        assert_int_equal(oc_worker_convert_pixel_bytes(&back), (size_t)plan.width * (size_t)plan.height * 3);
    }
}

static void test_lying_plans(void **state) {
    (void)state;
    struct oc_picture_plan out;
    struct oc_errinfo ei;
    struct oc_ipc_picture_plan p = good_plan();
    assert_int_equal(oc_worker_convert_plan(&p, &rules, &out, &ei), OC_OK);
    static const size_t fields[] = {
#define AT(f) offsetof(struct oc_ipc_picture_plan, f)
        AT(width), AT(height), AT(patch), AT(merge), AT(temporal), AT(grid_t), AT(grid_h), AT(grid_w), AT(n_patches), AT(patch_dim), AT(n_tokens)
#undef AT
    };
    static const int32_t lies[] = {INT32_MIN, -1, 0, 3, 7, 32768, 65536, 1 << 20, INT32_MAX};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) { /* one number alone that lies is always seen */
        for (size_t k = 0; k < sizeof lies / sizeof *lies; k++) {
            p = good_plan();
            memcpy((char *)&p + fields[i], &lies[k], sizeof lies[k]);
            assert_int_equal(oc_worker_convert_plan(&p, &rules, &out, &ei), OC_ERR_FORMAT);
        }
    }
    p = good_plan();
    p.resample = 9;
    assert_int_equal(oc_worker_convert_plan(&p, &rules, &out, &ei), OC_ERR_FORMAT);
    p = good_plan();
    p.std[1] = 0;
    assert_int_equal(oc_worker_convert_plan(&p, &rules, &out, &ei), OC_ERR_FORMAT);
    p = good_plan();
    p.rescale = INFINITY;
    assert_int_equal(oc_worker_convert_plan(&p, &rules, &out, &ei), OC_ERR_FORMAT);
}

static void test_plans_of_another_model(void **state) {
    (void)state;
    struct oc_picture_plan out;
    struct oc_errinfo ei;
    struct oc_ipc_picture_plan p = good_plan();
    struct oc_picture_rules other = rules;
    other.patch = 16;
    assert_int_equal(oc_worker_convert_plan(&p, &other, &out, &ei), OC_ERR_FORMAT);
    assert_non_null(strstr(ei.msg, "another model"));
    other = rules;
    other.max_tokens = 5;
    assert_int_equal(oc_worker_convert_plan(&p, &other, &out, &ei), OC_ERR_LIMIT);
    other.max_tokens = 6;
    assert_int_equal(oc_worker_convert_plan(&p, &other, &out, &ei), OC_OK);
}

static void test_jobs(void **state) {
    (void)state;
    static const int32_t tokens[] = {1, 2, 3};
    static const struct oc_ipc_bias biases[] = {{5, -1.5f}, {6, 2}};
    struct oc_ipc_job_picture picture = {.plan = good_plan(), .digest = {7, 8}};
    struct oc_ipc_job job = {.tokens = tokens, .n_tokens = 3, .pictures = &picture, .n_pictures = 1,
                             .sampling = {.temperature = 0.5f, .top_p = 0.9f, .min_p = 0.1f, .repetition_penalty = 1.1f,
                                          .presence_penalty = 0.2f, .frequency_penalty = 0.3f, .top_k = 40, .n_logprobs = 3,
                                          .seed = 1ull << 63},
                             .biases = biases, .n_biases = 2, .eos = {9, 10}, .n_eos = 2, .max_tokens = 17, .priority = 2, .salt = {4}};
    struct oc_sched_job out;
    struct oc_sched_picture *pictures;
    struct oc_arena a;
    struct oc_errinfo ei;
    oc_arena_init(&a, OC_MIB);
    assert_int_equal(oc_worker_convert_job(&a, 99, &job, &rules, &out, &pictures, &ei), OC_OK);
    assert_true(out.id == 99 && out.n_tokens == 3 && out.tokens[2] == 3 && out.n_pictures == 1 && out.pictures == pictures);
    assert_true(pictures[0].digest[1] == 8 && !pictures[0].patches.all && !pictures[0].patches.make && pictures[0].plan.n_tokens == 6);
    const struct oc_lm_sample_params *s = &out.sample;
    assert_true(s->temperature == 0.5f && s->top_p == 0.9f && s->min_p == 0.1f && s->repetition_penalty == 1.1f && s->top_k == 40);
    assert_true(s->presence_penalty == 0.2f && s->frequency_penalty == 0.3f && s->seed == 1ull << 63 && s->n_logprobs == 3);
    assert_true(s->n_biases == 2 && s->biases[0].token == 5 && s->biases[0].bias == -1.5f);
    assert_true(out.n_eos == 2 && out.eos[1] == 10 && out.max_tokens == 17 && out.priority == 2 && out.salt[0] == 4);
    struct oc_picture_rules blind = {0};
    assert_int_equal(oc_worker_convert_job(&a, 99, &job, &blind, &out, &pictures, &ei), OC_ERR_UNSUPPORTED);
    picture.plan.n_tokens = 7;
    assert_int_equal(oc_worker_convert_job(&a, 99, &job, &rules, &out, &pictures, &ei), OC_ERR_FORMAT);
    job.n_pictures = 0;
    assert_int_equal(oc_worker_convert_job(&a, 99, &job, &blind, &out, &pictures, &ei), OC_OK);
    oc_arena_free(&a);
    oc_arena_init(&a, 0);
    assert_int_equal(oc_worker_convert_job(&a, 99, &job, &blind, &out, &pictures, &ei), OC_ERR_NOMEM);
}

static void test_answers(void **state) {
    (void)state;
    struct oc_lm_sample_pick pick = {.token = 3, .logprob = -0.25, .n_top = 2, .top = {{3, -0.25}, {4, -INFINITY}}};
    struct oc_ipc_choice top[OC_LIMIT_TOP_LOGPROBS];
    struct oc_ipc_pick p;
    oc_worker_convert_pick(&pick, top, &p);
    assert_true(p.token == 3 && p.logprob == -0.25f && p.n_top == 2 && p.top[1].token == 4 && isinf(p.top[1].logprob));
    struct oc_sched_done done = {.finish = OC_SCHED_ERROR, .error = {OC_ERR_FORMAT, "odd"}, .n_prompt = 1, .n_cached = 2, .n_image = 3,
                                 .n_image_cached = 4, .n_output = 5, .queue_ms = 6, .encode_ms = 7, .prefill_ms = 8, .decode_ms = 9};
    struct oc_ipc_done d;
    oc_worker_convert_done(&done, &d);
    assert_true(d.finish == OC_IPC_FINISH_ERROR && d.err == OC_ERR_FORMAT && oc_str_is(d.message, "odd"));
    assert_true(d.n_prompt == 1 && d.n_cached == 2 && d.n_image == 3 && d.n_image_cached == 4 && d.n_output == 5);
    assert_true(d.queue_ms == 6 && d.encode_ms == 7 && d.prefill_ms == 8 && d.decode_ms == 9);
    done.finish = OC_SCHED_LENGTH;
    oc_worker_convert_done(&done, &d);
    assert_true(d.finish == OC_IPC_FINISH_LENGTH && d.err == OC_OK && d.message.n == 0);
}

static void test_ready(void **state) {
    (void)state;
    static char name[OC_LIMIT_IPC_STRING_BYTES + 2];
    memset(name, 'x', sizeof name - 1);
    const struct oc_engine_info info = {.architecture = name, .family = "some", .isa = "ref", .device = "cuda:1",
                                        .device_name = "a card", .device_why = "", .device_bytes = 16, .throughput = true, .n_threads = 2, .n_vocab = 3,
                                        .ctx_tokens = 4, .kv_tokens = 50, .n_sessions = 6, .model_ctx_tokens = 7, .image_max_tokens = 8,
                                        .has_vision = true, .image_token = 9, .n_params = 10, .weight_bytes = 11,
                                        .decode_weight_bytes = 12, .kv_bytes_per_token = 1000, .workspace_bytes = 14, .load_ms = 15};
    struct oc_ipc_ready r;
    oc_worker_convert_ready(&info, &rules, &r);
    assert_true(r.version == OC_IPC_VERSION && r.architecture.n == OC_LIMIT_IPC_STRING_BYTES && oc_str_is(r.family, "some"));
    assert_true(oc_str_is(r.device, "cuda:1") && oc_str_is(r.device_name, "a card") && r.device_why.n == 0 && r.device_bytes == 16);
    assert_int_equal(r.throughput, 1);
    assert_true(r.n_threads == 2 && r.n_vocab == 3 && r.ctx_tokens == 4 && r.kv_tokens == 50 && r.n_sessions == 6);
    assert_true(r.model_ctx_tokens == 7 && r.image_max_tokens == 8 && r.image_token == 9 && r.n_params == 10 && r.load_ms == 15);
    assert_true(r.weight_bytes == 11 && r.decode_weight_bytes == 12 && r.kv_bytes == 50000 && r.workspace_bytes == 14);
    assert_true(r.rules.patch == 14 && r.rules.std[2] == 0.6);
    struct oc_buf b;
    oc_buf_init(&b, OC_MIB);
    assert_true(oc_ipc_ready_write(&b, &r));
    oc_buf_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rules_there_and_back), cmocka_unit_test(test_a_plan_of_the_rules_passes),
        cmocka_unit_test(test_lying_plans),          cmocka_unit_test(test_plans_of_another_model),
        cmocka_unit_test(test_jobs),                 cmocka_unit_test(test_answers),
        cmocka_unit_test(test_ready),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
