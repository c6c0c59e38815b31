/* bench_device.h - --device cpu (the default) or cuda:PATH of the plug-in, anywhere on a measurement's command line. */
#ifndef BENCH_DEVICE_H
#define BENCH_DEVICE_H

#include <string.h>

#include "ocellus.h"

/* Takes the option out of argv, for the engine's parameters; false for a device that is not known. */
static inline bool bench_device(int *argc, char **argv, struct oc_engine_params *p) {
    int n = 0;
    p->device = "cpu";
    for (int i = 0; i < *argc; i++) {
        if (strcmp(argv[i], "--device") != 0) {
            argv[n++] = argv[i];
            continue;
        }
        const char *what = ++i < *argc ? argv[i] : "";
        p->device = strncmp(what, "cuda:", 5) == 0 ? "cuda" : what;
        if (strcmp(p->device, "cuda") == 0) p->cuda_plugin = what + 5;
        else if (strcmp(what, "cpu") != 0) return false;
    }
    *argc = n;
    return true;
}

#endif
