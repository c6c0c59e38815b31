/* What the orchestrator reads of other processes: /proc/PID/stat, its own list of children, the line of --measure. */
#include <stddef.h>
#include <stdint.h>

#include "server/budget.h"
#include "server/runtime.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct oc_str text = {(const char *)data, n};
    struct oc_errinfo ei;
    int64_t need;
    pid_t pid;
    uint64_t start;
    (void)oc_server_runtime_parse_stat(text);
    if (oc_server_runtime_parse_child(text, &pid, &start)) OC_ASSERT(pid > 1 && start > 0);
    if (oc_server_budget_parse_measure(text.p, n, &need, &ei) == OC_OK) OC_ASSERT(need >= 0);
    return 0;
}
