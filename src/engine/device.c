/* Which device an engine runs on. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"

#define MAX_DEVICE 63

/* What a plug-in and the libraries behind it take for themselves beside what is asked for: workspaces, scratch, pages cut off. */
#define SPARE_BYTES ((uint64_t)1280 << 20)

struct wish {
    bool cpu, cuda; /* neither: what is there */
    int index;
};

static enum oc_err read_wish(const char *text, struct wish *w, struct oc_errinfo *ei) {
    *w = (struct wish){.index = 0};
    if (!text || !*text || strcmp(text, "auto") == 0) return OC_OK;
    w->cpu = strcmp(text, "cpu") == 0;
    w->cuda = strncmp(text, "cuda", 4) == 0 && (text[4] == '\0' || text[4] == ':');
    if (w->cpu || (w->cuda && !text[4])) return OC_OK;
    char *end = NULL;
    long n = w->cuda && text[5] >= '0' && text[5] <= '9' ? strtol(text + 5, &end, 10) : -1;
    if (n < 0 || n > MAX_DEVICE || *end)
        return oc_fail(ei, OC_ERR_USAGE, "unknown device \"%.60s\"; known: auto, cpu, cuda, cuda:0 to cuda:%d", text, MAX_DEVICE);
    w->index = (int)n;
    return OC_OK;
}

static bool names_cpu_kernels(const char *isa) {
    return isa && *isa && strcmp(isa, "auto") != 0;
}

static enum oc_err check_room(const struct oc_device *d, uint64_t need_bytes, struct oc_errinfo *ei) {
    if (need_bytes <= d->free_bytes) return OC_OK;
    return oc_fail(ei, OC_ERR_NOMEM, "the model takes %llu MiB, %.60s has %llu of its %llu MiB free", (unsigned long long)(need_bytes >> 20),
                   d->name, (unsigned long long)(d->free_bytes >> 20), (unsigned long long)(d->total_bytes >> 20));
}

static enum oc_err open_cuda(struct oc_engine *e, const struct oc_engine_params *p, int index, struct oc_errinfo *ei) {
    if (!p->cuda_plugin || !*p->cuda_plugin)
        return oc_fail(ei, OC_ERR_NOT_FOUND, "libocellus-cuda.so lies neither beside this program nor in ../lib/ocellus");
    OC_TRY(oc_device_open_plugin(p->cuda_plugin, index, &e->dev, ei));
    uint64_t need = oc_engine_device_bytes(e);
    enum oc_err err = check_room(e->dev, need + SPARE_BYTES, ei);
    if (err == OC_OK) {
        snprintf(e->device, sizeof e->device, "cuda:%d", index);
        return OC_OK;
    }
    e->dev->close(e->dev);
    e->dev = NULL;
    return err;
}

static enum oc_err open_cpu(struct oc_engine *e, const struct oc_engine_params *p, bool throughput, struct oc_errinfo *ei) {
    snprintf(e->device, sizeof e->device, "cpu");
    return oc_device_open_cpu(p->isa, throughput ? OC_CPU_INT8 : 0, &e->dev, ei);
}

enum oc_err oc_engine_device_open(struct oc_engine *e, const struct oc_engine_params *p, bool throughput, struct oc_errinfo *ei) {
    struct wish w;
    struct oc_errinfo why;
    if (e->dev) { /* the caller's */
        snprintf(e->device, sizeof e->device, "%s", e->dev->kind);
        return OC_OK;
    }
    OC_TRY(read_wish(p->device, &w, ei));
    if (w.cpu) return open_cpu(e, p, throughput, ei);
    if (w.cuda) {
        enum oc_err err = open_cuda(e, p, w.index, ei);
        return err == OC_OK ? OC_OK : oc_fail_prefix(ei, err, "device %.60s", p->device);
    }
    if (names_cpu_kernels(p->isa)) {
        snprintf(e->device_why, sizeof e->device_why, "kernels of the CPU were asked for: %.60s", p->isa);
        return open_cpu(e, p, throughput, ei);
    }
    if (open_cuda(e, p, 0, &why) == OC_OK) return OC_OK;
    snprintf(e->device_why, sizeof e->device_why, "%s", why.msg);
    return open_cpu(e, p, throughput, ei);
}
