/* The CPU as a device: the process's own memory, in which weights lie where they are mapped. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "kernels/device.h"

void *oc_device_host_alloc(size_t bytes) {
    void *p = mmap(NULL, bytes ? bytes : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

void oc_device_host_free(void *p, size_t bytes) {
    if (p) munmap(p, bytes ? bytes : 1);
}

static enum oc_err cpu_alloc(struct oc_device *d, size_t bytes, void **out, struct oc_errinfo *ei) {
    (void)d;
    *out = oc_device_host_alloc(bytes);
    return *out ? OC_OK : oc_fail(ei, OC_ERR_NOMEM, "%zu MiB of memory are not to be had", bytes >> 20);
}

static void cpu_free(struct oc_device *d, void *p, size_t bytes) {
    (void)d;
    oc_device_host_free(p, bytes);
}

static void cpu_copy(struct oc_device *d, void *dst, const void *src, size_t bytes) {
    (void)d;
    memcpy(dst, src, bytes);
}

static void cpu_wait(struct oc_device *d) {
    (void)d; /* an op returns when its output is complete */
}

static enum oc_err cpu_take_weight(struct oc_device *d, struct oc_weight *w, struct oc_errinfo *ei) {
    (void)d, (void)w, (void)ei;
    return OC_OK;
}

static enum oc_err cpu_take_floats(struct oc_device *d, const float **v, int64_t n, struct oc_errinfo *ei) {
    (void)d, (void)v, (void)n, (void)ei;
    return OC_OK;
}

static void cpu_close(struct oc_device *d) {
    free(d);
}

enum oc_err oc_device_open_cpu(const char *isa, unsigned wishes, struct oc_device **out, struct oc_errinfo *ei) {
    *out = NULL;
    struct oc_device *d = malloc(sizeof *d);
    if (!d) return oc_fail(ei, OC_ERR_NOMEM, "out of memory for a device");
    *d = (struct oc_device){
        .kind = "cpu",
        .name = "",
        .is_host = true,
        .alloc = cpu_alloc,
        .free = cpu_free,
        .put = cpu_copy,
        .get = cpu_copy,
        .wait = cpu_wait,
        .take_weight = cpu_take_weight,
        .take_floats = cpu_take_floats,
        .close = cpu_close,
    };
    enum oc_err err = oc_ops_for_wishes(&d->ops, isa, wishes, ei);
    if (err != OC_OK) {
        free(d);
        return err;
    }
    *out = d;
    return OC_OK;
}
