/* Every message: there and back, cut at every byte, with every byte changed, with counts that lie. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "samples.h"

union any {
#define X(name, type) struct type name;
    SAMPLES(X)
#undef X
};

struct message {
    const char *name;
    bool (*write_sample)(struct oc_buf *b);
    enum oc_err (*read)(struct oc_arena *a, const uint8_t *p, size_t n, union any *m, struct oc_errinfo *ei);
    bool (*write)(struct oc_buf *b, const union any *m);
};

#define X(name, type)                                                                                         \
    static bool write_sample_##name(struct oc_buf *b) {                                                       \
        return oc_ipc_##name##_write(b, &sample_##name);                                                      \
    }                                                                                                         \
    static enum oc_err read_##name(struct oc_arena *a, const uint8_t *p, size_t n, union any *m, struct oc_errinfo *ei) { \
        return oc_ipc_##name##_read(a, p, n, &m->name, ei);                                                   \
    }                                                                                                         \
    static bool write_##name(struct oc_buf *b, const union any *m) {                                          \
        return oc_ipc_##name##_write(b, &m->name);                                                            \
    }
SAMPLES(X)
#undef X

static const struct message messages[] = {
#define X(name, type) {#name, write_sample_##name, read_##name, write_##name},
    SAMPLES(X)
#undef X
};
#define N_MESSAGES (sizeof messages / sizeof *messages)

/* Reads from memory of exactly n bytes, so that a sanitizer sees a read past the end; writes back what was read. */
static enum oc_err reread(const struct message *m, const uint8_t *p, size_t n, struct oc_buf *back, struct oc_errinfo *ei) {
    struct oc_arena a;
    union any *any = malloc(sizeof *any);
    uint8_t *copy = malloc(n ? n : 1);
    memcpy(copy, p, n);
    oc_arena_init(&a, 64 * OC_MIB);
    enum oc_err err = m->read(&a, copy, n, any, ei);
    if (!err) assert_true(m->write(back, any));
    oc_arena_free(&a);
    free(copy);
    free(any);
    return err;
}

static void test_there_and_back(void **state) {
    (void)state;
    for (size_t i = 0; i < N_MESSAGES; i++) {
        struct oc_buf b, back;
        struct oc_errinfo ei;
        oc_buf_init(&b, OC_MIB);
        oc_buf_init(&back, OC_MIB);
        assert_true(messages[i].write_sample(&b));
        assert_int_equal(reread(&messages[i], (uint8_t *)b.data, b.n_bytes, &back, &ei), OC_OK);
        assert_int_equal(b.n_bytes, back.n_bytes);
        assert_memory_equal(b.data, back.data, b.n_bytes);
        oc_buf_free(&b);
        oc_buf_free(&back);
    }
}

/* A spot check of values, against tables that are wrong in the same way on both sides. */
static void test_values_arrive(void **state) {
    (void)state;
    struct oc_buf b;
    struct oc_arena a;
    struct oc_errinfo ei;
    struct oc_ipc_job job;
    struct oc_ipc_tokens tokens;
    struct oc_ipc_done done;
    oc_arena_init(&a, OC_MIB);
    oc_buf_init(&b, OC_MIB);
    assert_true(oc_ipc_job_write(&b, &sample_job));
    assert_int_equal(b.n_bytes, 4 + 5 * 4 + 4 + 2 * (12 * 4 + 7 * 8 + 32) + 40 + 4 + 2 * 8 + 4 + 8 * 4 + 8 + 16);
    assert_int_equal(oc_ipc_job_read(&a, (uint8_t *)b.data, b.n_bytes, &job, &ei), OC_OK);
    assert_int_equal(job.n_tokens, 5);
    assert_memory_equal(job.tokens, sample_ids, sizeof sample_ids);
    assert_int_equal(job.n_pictures, 2);
    assert_memory_equal(&job.pictures[1].plan, &sample_plan, sizeof sample_plan);
    assert_int_equal(job.pictures[0].digest[2], 255);
    assert_memory_equal(&job.sampling, &sample_job.sampling, sizeof job.sampling);
    assert_int_equal(job.n_biases, 2);
    assert_memory_equal(job.biases, sample_biases, sizeof sample_biases);
    assert_memory_equal(job.eos, sample_job.eos, sizeof job.eos);
    assert_int_equal(job.n_eos, 8);
    assert_int_equal(job.max_tokens, OC_LIMIT_CTX_TOKENS);
    assert_int_equal(job.priority, 2);
    assert_memory_equal(job.salt, sample_job.salt, sizeof job.salt);
    oc_buf_clear(&b);
    assert_true(oc_ipc_tokens_write(&b, &sample_tokens));
    assert_int_equal(oc_ipc_tokens_read(&a, (uint8_t *)b.data, b.n_bytes, &tokens, &ei), OC_OK);
    assert_int_equal(tokens.n_picks, 2);
    assert_memory_equal(tokens.picks[0].top, sample_top, sizeof sample_top);
    assert_int_equal(tokens.picks[1].token, INT32_MAX);
    oc_buf_clear(&b);
    assert_true(oc_ipc_done_write(&b, &sample_done));
    assert_int_equal(oc_ipc_done_read(&a, (uint8_t *)b.data, b.n_bytes, &done, &ei), OC_OK);
    assert_true(oc_str_eq(done.message, sample_done.message));
    assert_int_equal(done.n_image_cached, 5);
    assert_true(done.prefill_ms == 1e-300 && done.queue_ms == DBL_MAX);
    oc_buf_free(&b);
    oc_arena_free(&a);
}

static void test_cut_anywhere(void **state) {
    (void)state;
    for (size_t i = 0; i < N_MESSAGES; i++) {
        struct oc_buf b, back;
        struct oc_errinfo ei;
        oc_buf_init(&b, OC_MIB);
        oc_buf_init(&back, OC_MIB);
        assert_true(messages[i].write_sample(&b));
        for (size_t n = 0; n < b.n_bytes; n++) {
            assert_int_equal(reread(&messages[i], (uint8_t *)b.data, n, &back, &ei), OC_ERR_FORMAT);
            assert_non_null(strstr(ei.msg, "ends within"));
        }
        assert_true(oc_buf_add_char(&b, 0));
        assert_int_equal(reread(&messages[i], (uint8_t *)b.data, b.n_bytes, &back, &ei), OC_ERR_FORMAT);
        assert_non_null(strstr(ei.msg, "too many"));
        oc_buf_free(&b);
        oc_buf_free(&back);
    }
}

/* Any four bytes of a payload may be a count: each becomes a lie of several sizes. Either it is refused, or what was
 * read writes the same bytes again. */
static void test_lying_counts(void **state) {
    (void)state;
    static const uint32_t lies[] = {0, 1, 2, 9, 255, 4097, 1u << 20, (1u << 20) + 1, 0x7fffffff, 0x80000000, 0xffffffff};
    size_t n_refused = 0;
    for (size_t i = 0; i < N_MESSAGES; i++) {
        struct oc_buf b, back;
        struct oc_errinfo ei;
        oc_buf_init(&b, OC_MIB);
        oc_buf_init(&back, OC_MIB);
        assert_true(messages[i].write_sample(&b));
        for (size_t at = 0; at + 4 <= b.n_bytes; at++) {
            for (size_t k = 0; k < sizeof lies / sizeof *lies; k++) {
                uint8_t *copy = malloc(b.n_bytes);
                memcpy(copy, b.data, b.n_bytes);
                memcpy(copy + at, &lies[k], 4);
                oc_buf_clear(&back);
                if (reread(&messages[i], copy, b.n_bytes, &back, &ei) == OC_OK)
                    assert_true(back.n_bytes == b.n_bytes && !memcmp(back.data, copy, b.n_bytes));
                else
                    n_refused++;
                free(copy);
            }
        }
        oc_buf_free(&b);
        oc_buf_free(&back);
    }
    assert_true(n_refused > 200);
}

/* The counts by name: over the limit, and within it but over what is there. */
static void test_counts_are_named(void **state) {
    (void)state;
    struct oc_buf b;
    struct oc_arena a;
    struct oc_errinfo ei;
    struct oc_ipc_job job;
    struct oc_ipc_refused refused;
    oc_arena_init(&a, OC_MIB);
    oc_buf_init(&b, OC_MIB);
    assert_true(oc_ipc_job_write(&b, &sample_job));
    uint32_t n = OC_LIMIT_CTX_TOKENS + 1;
    memcpy(b.data, &n, 4);
    assert_int_equal(oc_ipc_job_read(&a, (uint8_t *)b.data, b.n_bytes, &job, &ei), OC_ERR_LIMIT);
    assert_non_null(strstr(ei.msg, "\"tokens\""));
    n = OC_LIMIT_CTX_TOKENS;
    memcpy(b.data, &n, 4);
    assert_int_equal(oc_ipc_job_read(&a, (uint8_t *)b.data, b.n_bytes, &job, &ei), OC_ERR_FORMAT);
    assert_non_null(strstr(ei.msg, "\"tokens\""));
    assert_int_equal(a.used_bytes, 0); /* no memory was taken for what is not there */
    n = 5;
    memcpy(b.data, &n, 4);
    n = OC_LIMIT_IMAGES_PER_PROMPT + 1;
    memcpy(b.data + 24, &n, 4);
    assert_int_equal(oc_ipc_job_read(&a, (uint8_t *)b.data, b.n_bytes, &job, &ei), OC_ERR_LIMIT);
    assert_non_null(strstr(ei.msg, "\"pictures\""));
    oc_buf_clear(&b);
    assert_true(oc_ipc_refused_write(&b, &sample_refused));
    n = OC_LIMIT_IPC_STRING_BYTES + 1;
    memcpy(b.data + 4, &n, 4);
    assert_int_equal(oc_ipc_refused_read(&a, (uint8_t *)b.data, b.n_bytes, &refused, &ei), OC_ERR_LIMIT);
    oc_buf_free(&b);
    oc_arena_free(&a);
}

static void test_values_out_of_range(void **state) {
    (void)state;
    struct oc_buf b;
    struct oc_arena a;
    struct oc_errinfo ei;
    oc_arena_init(&a, OC_MIB);
    oc_buf_init(&b, OC_MIB);
#define REFUSES(name, type, field, value)                                                                     \
    do {                                                                                                      \
        struct type m = sample_##name, out;                                                                   \
        m.field = (value);                                                                                    \
        oc_buf_clear(&b);                                                                                     \
        assert_true(oc_ipc_##name##_write(&b, &m));                                                           \
        assert_int_equal(oc_ipc_##name##_read(&a, (uint8_t *)b.data, b.n_bytes, &out, &ei), OC_ERR_FORMAT);   \
        assert_non_null(strstr(ei.msg, "for \""));                                                            \
    } while (0)
    REFUSES(ready, oc_ipc_ready, throughput, 2);
    REFUSES(ready, oc_ipc_ready, throughput, -1);
    REFUSES(job, oc_ipc_job, max_tokens, 0);
    REFUSES(job, oc_ipc_job, priority, 3);
    REFUSES(job, oc_ipc_job, priority, -1);
    REFUSES(job, oc_ipc_job, sampling.top_k, -1);
    REFUSES(job, oc_ipc_job, sampling.n_logprobs, OC_LIMIT_TOP_LOGPROBS + 1);
    REFUSES(stage, oc_ipc_stage_entered, stage, 3);
    REFUSES(done, oc_ipc_done, finish, 4);
    REFUSES(done, oc_ipc_done, err, 9);
    REFUSES(done, oc_ipc_done, n_output, -1);
    REFUSES(seen, oc_ipc_seen, width, 0);
    REFUSES(unseen, oc_ipc_unseen, err, -1);
#undef REFUSES
    oc_buf_free(&b);
    oc_arena_free(&a);
}

static void test_writers_know_the_limits(void **state) {
    (void)state;
    struct oc_buf b;
    struct oc_ipc_job job = sample_job;
    struct oc_ipc_unseen unseen = sample_unseen;
    oc_buf_init(&b, OC_MIB);
    job.n_eos = OC_IPC_MAX_EOS + 1;
    assert_false(oc_ipc_job_write(&b, &job));
    char *text = calloc(1, OC_LIMIT_IPC_STRING_BYTES + 1);
    unseen.message = (struct oc_str){text, OC_LIMIT_IPC_STRING_BYTES + 1};
    assert_false(oc_ipc_unseen_write(&b, &unseen));
    unseen.message.n--;
    oc_buf_clear(&b);
    assert_true(oc_ipc_unseen_write(&b, &unseen));
    oc_buf_free(&b);
    oc_buf_init(&b, 20);
    assert_false(oc_ipc_unseen_write(&b, &unseen));
    oc_buf_free(&b);
    free(text);
}

static void test_no_memory(void **state) {
    (void)state;
    struct oc_buf b;
    struct oc_errinfo ei;
    struct oc_ipc_job job;
    oc_buf_init(&b, OC_MIB);
    assert_true(oc_ipc_job_write(&b, &sample_job));
    bool done = false;
    for (size_t max = 0; !done; max += 16) {
        struct oc_arena a;
        oc_arena_init(&a, max);
        enum oc_err err = oc_ipc_job_read(&a, (uint8_t *)b.data, b.n_bytes, &job, &ei);
        assert_true(err == OC_OK || err == OC_ERR_NOMEM);
        assert_true(max < 4096);
        done = err == OC_OK;
        oc_arena_free(&a);
    }
    oc_buf_free(&b);
}

static void test_names(void **state) {
    (void)state;
    assert_string_equal(oc_ipc_type_name(OC_IPC_NONE), "?");
    assert_string_equal(oc_ipc_type_name(OC_IPC_READY), "READY");
    assert_string_equal(oc_ipc_type_name(OC_IPC_UNSEEN), "UNSEEN");
    assert_string_equal(oc_ipc_type_name(OC_IPC_N_TYPES), "?");
    assert_string_equal(oc_ipc_type_name(65535), "?");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there_and_back),     cmocka_unit_test(test_values_arrive),
        cmocka_unit_test(test_cut_anywhere),       cmocka_unit_test(test_lying_counts),
        cmocka_unit_test(test_counts_are_named),   cmocka_unit_test(test_values_out_of_range),
        cmocka_unit_test(test_writers_know_the_limits), cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
