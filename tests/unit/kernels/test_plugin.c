#define _GNU_SOURCE
/* Opening plug-ins: each way in which it cannot be done has its sentence; the CUDA plug-in, where it was built, fits and says what is
 * missing on a machine without a GPU. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kernels/device.h"

#define CUDA_PLUGIN OC_TEST_TMP "/libocellus-cuda.so"

static void refused(const char *path, int index, enum oc_err code, const char *sentence) {
    struct oc_device *d = (void *)&d;
    struct oc_errinfo ei;
    assert_int_equal(oc_device_open_plugin(path, index, &d, &ei), code);
    assert_null(d);
    if (!strstr(ei.msg, sentence)) fail_msg("\"%s\" does not say \"%s\"", ei.msg, sentence);
}

static void no_file(void **state) {
    (void)state;
    refused(OC_TEST_TMP "/no-such-plugin.so", 0, OC_ERR_NOT_FOUND, "no-such-plugin.so: there is no such plug-in");
}

static void no_library(void **state) {
    (void)state;
    refused(OC_TEST_DIR "/unit/kernels/test_plugin.c", 0, OC_ERR_UNSUPPORTED, "cannot be loaded here");
}

static void no_symbol(void **state) {
    (void)state;
    Dl_info libc;
    assert_true(dladdr(dlsym(RTLD_DEFAULT, "printf"), &libc));
    refused(libc.dli_fname, 0, OC_ERR_UNSUPPORTED, "no symbol oc_device_plugin");
}

static void another_abi(void **state) {
    (void)state;
    refused(OC_TEST_TMP "/wrong_plugin.so", 0, OC_ERR_UNSUPPORTED, "is of another build");
}

static bool cuda_plugin_is_there(void) {
    if (access(CUDA_PLUGIN, F_OK) == 0) return true;
    printf("[          ] the CUDA plug-in was not built here\n");
    return false;
}

static void cuda_plugin_fits(void **state) {
    (void)state;
    if (!cuda_plugin_is_there()) skip();
    void *lib = dlopen(CUDA_PLUGIN, RTLD_NOW | RTLD_LOCAL);
    if (!lib) fail_msg("%s", dlerror());
    const struct oc_device_plugin *p = dlsym(lib, "oc_device_plugin");
    assert_non_null(p);
    assert_int_equal(p->abi, OC_DEVICE_ABI);
    assert_int_equal(p->device_bytes, sizeof(struct oc_device));
    assert_int_equal(p->ops_bytes, sizeof(struct oc_ops));
    assert_int_equal(p->weight_bytes, sizeof(struct oc_weight));
    assert_non_null(p->open);
}

/* With a GPU it opens, without one it says so; a device of that number is on no machine. */
static void cuda_plugin_opens_or_says_why(void **state) {
    (void)state;
    struct oc_device *d;
    struct oc_errinfo ei;
    if (!cuda_plugin_is_there()) skip();
    enum oc_err e = oc_device_open_plugin(CUDA_PLUGIN, 0, &d, &ei);
    if (e == OC_OK) {
        assert_string_equal(d->kind, "cuda");
        assert_false(d->is_host);
        d->close(d);
    } else {
        assert_int_equal(e, OC_ERR_UNSUPPORTED);
        assert_null(d);
        assert_non_null(strstr(ei.msg, "CUDA device"));
    }
    refused(CUDA_PLUGIN, 9999, OC_ERR_UNSUPPORTED, "CUDA device");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_file),     cmocka_unit_test(no_library),       cmocka_unit_test(no_symbol),
        cmocka_unit_test(another_abi), cmocka_unit_test(cuda_plugin_fits), cmocka_unit_test(cuda_plugin_opens_or_says_why),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
