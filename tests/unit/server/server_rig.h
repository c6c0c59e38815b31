/* What tests of the orchestrator's parts share: a server with a loop, a log and a runtime directory of its own, and nothing
 * else open. */
#ifndef OC_TESTS_UNIT_SERVER_SERVER_RIG_H
#define OC_TESTS_UNIT_SERVER_SERVER_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "server/runtime.h"
#include "server/server.h"

#define PATIENCE_MS 60000

struct server_rig {
    struct oc_server s;
    struct oc_server_config config;
    char dir[128], log[160];
    uv_timer_t tick; /* so that the loop does not sleep past what a test waits for */
};

static inline void rig_on_tick(uv_timer_t *t) {
    (void)t;
}

static inline void rig_open(struct server_rig *r, const char *name, const struct oc_server_config *config) {
    struct oc_errinfo ei;
    int n;
    snprintf(r->dir, sizeof r->dir, "%s/%s-XXXXXX", OC_TEST_TMP, name);
    assert_non_null(mkdtemp(r->dir));
    snprintf(r->log, sizeof r->log, "%s/log", r->dir);
    r->config = *config;
    r->s.config = &r->config;
    uv_loop_init(&r->s.loop);
    uv_timer_init(&r->s.loop, &r->tick);
    uv_timer_start(&r->tick, rig_on_tick, 10, 10);
    assert_int_equal(oc_log_open(r->log, false, OC_LOG_DEBUG, "test", &r->s.log, &ei), OC_OK);
    assert_int_equal(oc_server_runtime_open(r->dir, &r->s.runtime, &n, &ei), OC_OK);
}

#define wait_until(r, condition)                                                                              \
    do {                                                                                                      \
        const uint64_t begun_ = oc_clock_ns();                                                                \
        while (!(condition)) {                                                                                \
            if (oc_clock_ms_since(begun_) > PATIENCE_MS) fail_msg("%d: never: %s", __LINE__, #condition);     \
            uv_run(&(r)->s.loop, UV_RUN_ONCE);                                                                \
        }                                                                                                     \
    } while (0)

/* Nothing may be left: no process, no handle, no file. */
static inline void rig_close(struct server_rig *r) {
    uv_close((uv_handle_t *)&r->tick, NULL);
    uv_run(&r->s.loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&r->s.loop), 0);
    oc_server_runtime_close(r->s.runtime);
    oc_log_close(r->s.log);
    unlink(r->log);
    assert_int_equal(rmdir(r->dir), 0);
}

#endif
