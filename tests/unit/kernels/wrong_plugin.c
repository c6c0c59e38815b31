/* A plug-in of another build, for test_plugin.c. */
#include "kernels/device.h"

extern const struct oc_device_plugin oc_device_plugin;
__attribute__((visibility("default"))) const struct oc_device_plugin oc_device_plugin = {.abi = OC_DEVICE_ABI + 1};
