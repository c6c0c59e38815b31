/* Opening a device that a plug-in brings. */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kernels/device.h"

static bool fits(const struct oc_device_plugin *p) {
    return p->abi == OC_DEVICE_ABI && p->device_bytes == sizeof(struct oc_device) && p->ops_bytes == sizeof(struct oc_ops) &&
           p->weight_bytes == sizeof(struct oc_weight) && p->open;
}

/* The library stays loaded: a device's code must outlive all that it started. */
enum oc_err oc_device_open_plugin(const char *path, int index, struct oc_device **out, struct oc_errinfo *ei) {
    *out = NULL;
    if (access(path, F_OK) != 0) return oc_fail(ei, OC_ERR_NOT_FOUND, "there is no plug-in %.300s", path);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) return oc_fail(ei, OC_ERR_UNSUPPORTED, "the plug-in cannot be loaded: %.300s", dlerror());
    const struct oc_device_plugin *p = dlsym(library, "oc_device_plugin");
    if (!p || !fits(p)) {
        dlclose(library);
        return oc_fail(ei, OC_ERR_UNSUPPORTED, "the plug-in %.300s is of another version than this program", path);
    }
    return p->open(index, out, ei);
}
