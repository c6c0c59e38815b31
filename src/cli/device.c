#include "cli/device.h"

#include "base/file.h"
#include "cli/models.h"

#define PLUGIN "libocellus-cuda.so"

const char *oc_cli_device_plugin(struct oc_arena *a) {
    static const char *const places[] = {PLUGIN, "../lib/ocellus/" PLUGIN};
    const char *exe = oc_cli_models_executable_dir(a);
    for (size_t i = 0; exe && i < sizeof places / sizeof *places; i++) {
        const char *path = oc_path_join(a, exe, places[i]);
        if (path && oc_file_exists(path)) return path;
    }
    return NULL;
}
