/* What the orchestrator reads of other processes: /proc/PID/stat, its own list of children, the line of
 * --measure. */
#include <stddef.h>
#include <stdint.h>

#include "server/budget.h"
#include "server/runtime.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct oc_str text = {(const char *)data, n};
    struct oc_errinfo ei;
    struct oc_server_measure m;
    pid_t pid;
    uint64_t start;
    (void)oc_server_runtime_parse_stat(text);
    if (oc_server_runtime_parse_child(text, &pid, &start)) OC_ASSERT(pid > 1 && start > 0);
    if (oc_server_budget_parse_measure(text.p, n, &m, &ei) == OC_OK) {
        int64_t kv_tokens = oc_server_budget_kv_tokens(&m, (int64_t)8 << 30);
        OC_ASSERT(kv_tokens >= m.ctx_tokens && kv_tokens <= m.ctx_tokens * m.n_sessions);
        OC_ASSERT(oc_server_budget_need(&m, kv_tokens) > 0);
    }
    return 0;
}
