/* The first byte picks a message, the rest is its payload. What is accepted must write the same bytes again. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/messages.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define MESSAGES(X)                                                                                           \
    X(ready, oc_ipc_ready)                                                                                    \
    X(refused, oc_ipc_refused)                                                                                \
    X(job, oc_ipc_job)                                                                                        \
    X(stage, oc_ipc_stage_entered)                                                                            \
    X(tokens, oc_ipc_tokens)                                                                                  \
    X(done, oc_ipc_done)                                                                                      \
    X(look, oc_ipc_look)                                                                                      \
    X(seen, oc_ipc_seen)                                                                                      \
    X(unseen, oc_ipc_unseen)

#define X(name, type)                                                                                         \
    static void try_##name(struct oc_arena *a, const uint8_t *p, size_t n) {                                  \
        struct type m;                                                                                        \
        struct oc_errinfo ei;                                                                                 \
        struct oc_buf b;                                                                                      \
        if (oc_ipc_##name##_read(a, p, n, &m, &ei) != OC_OK) {                                                \
            OC_ASSERT(ei.msg[0]);                                                                             \
            return;                                                                                           \
        }                                                                                                     \
        oc_buf_init(&b, n + 1);                                                                               \
        OC_ASSERT(oc_ipc_##name##_write(&b, &m) && b.n_bytes == n && (n == 0 || !memcmp(b.data, p, n)));      \
        oc_buf_free(&b);                                                                                      \
    }
MESSAGES(X)
#undef X

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static void (*const all[])(struct oc_arena *, const uint8_t *, size_t) = {
#define X(name, type) try_##name,
        MESSAGES(X)
#undef X
    };
    if (n < 1) return 0;
    uint8_t *copy = malloc(n);
    OC_ASSERT(copy);
    memcpy(copy, data + 1, n - 1);
    struct oc_arena a;
    oc_arena_init(&a, 16 * OC_MIB);
    all[data[0] % (sizeof all / sizeof *all)](&a, copy, n - 1);
    oc_arena_free(&a);
    free(copy);
    return 0;
}
