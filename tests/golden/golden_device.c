#include "golden_device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake_device.h"

static const char *device = "cpu";

static bool is_known(const char *s) {
    return strcmp(s, "cpu") == 0 || strcmp(s, "fake") == 0 || (strncmp(s, "cuda:", 5) == 0 && s[5]);
}

void golden_device_read(int *argc, char **argv) {
    int n = 0;
    for (int i = 0; i < *argc; i++) {
        if (strcmp(argv[i], "--device") != 0) {
            argv[n++] = argv[i];
            continue;
        }
        device = ++i < *argc ? argv[i] : "";
        if (is_known(device)) continue;
        fprintf(stderr, "--device takes cpu, fake, or cuda: and the path of the plug-in\n");
        exit(2);
    }
    *argc = n;
}

void golden_device_set(struct oc_engine_params *p) {
    if (strcmp(device, "fake") == 0) {
        p->opened = fake_device_open(p->isa);
        return;
    }
    p->device = strcmp(device, "cpu") == 0 ? "cpu" : "cuda";
    if (!golden_device_is_cpu()) p->cuda_plugin = device + strlen("cuda:");
}

bool golden_device_is_cpu(void) {
    return strcmp(device, "cpu") == 0;
}
