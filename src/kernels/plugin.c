/* Opening a device that is a plug-in: a shared library with one symbol, checked before anything of it is used. */
#include <dlfcn.h>
#include <unistd.h>

#include "kernels/device.h"

/* What differs between the plug-in and this binary, or NULL. */
static const char *mismatch(const struct oc_device_plugin *p) {
    if (p->abi != OC_DEVICE_ABI) return "ABI";
    if (p->device_bytes != sizeof(struct oc_device)) return "struct oc_device";
    if (p->ops_bytes != sizeof(struct oc_ops)) return "struct oc_ops";
    if (p->weight_bytes != sizeof(struct oc_weight)) return "struct oc_weight";
    return NULL;
}

enum oc_err oc_device_open_plugin(const char *path, int index, struct oc_device **out, struct oc_errinfo *ei) {
    *out = NULL;
    if (access(path, F_OK) != 0) return oc_fail(ei, OC_ERR_NOT_FOUND, "%s: there is no such plug-in", path);
    /* It stays loaded: a GPU's libraries do not survive being unloaded. */
    void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!lib) return oc_fail(ei, OC_ERR_UNSUPPORTED, "the plug-in cannot be loaded here: %s", dlerror());
    const struct oc_device_plugin *p = dlsym(lib, "oc_device_plugin");
    const char *what = p ? mismatch(p) : NULL;
    if (!p) {
        dlclose(lib);
        return oc_fail(ei, OC_ERR_UNSUPPORTED, "%s is no plug-in of ocellus: it has no symbol oc_device_plugin", path);
    }
    if (what) {
        unsigned abi = p->abi;
        dlclose(lib);
        return oc_fail(ei, OC_ERR_UNSUPPORTED,
                       "%s is of another build (its ABI is %u, this program's %d; they differ in %s): install both anew", path,
                       abi, OC_DEVICE_ABI, what);
    }
    return p->open(index, out, ei);
}
