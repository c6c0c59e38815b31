/* The fake device as a plug-in, in place of libocellus-cuda.so: for tests of how programs find, open and use one. It has
 * FAKE_CARDS cards and FAKE_MEMORY_MIB of memory, when the environment says so. */
#include <stdlib.h>

#include "fake_device.h"

extern const struct oc_device_plugin oc_device_plugin;

static long number_or(const char *name, long otherwise) {
    const char *s = getenv(name);
    return s && *s ? strtol(s, NULL, 10) : otherwise;
}

static enum oc_err open_fake(int index, struct oc_device **out, struct oc_errinfo *ei) {
    const long n = number_or("FAKE_CARDS", 1);
    *out = NULL;
    if (index >= n) return oc_fail(ei, OC_ERR_UNSUPPORTED, "there is no card %d: this machine has %ld", index, n);
    *out = fake_device_open("auto");
    (*out)->total_bytes = (*out)->free_bytes = (uint64_t)number_or("FAKE_MEMORY_MIB", 100000) << 20;
    return OC_OK;
}

const struct oc_device_plugin oc_device_plugin = {.abi = OC_DEVICE_ABI, .device_bytes = sizeof(struct oc_device),
                                                  .ops_bytes = sizeof(struct oc_ops), .weight_bytes = sizeof(struct oc_weight),
                                                  .open = open_fake};
