/* Opens a whole checkpoint from hostile bytes: config.json, a NUL, then model.safetensors. Covers the families' config
 * readers and the binding of tensors. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/limits.h"
#include "models/model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void write_file(const char *dir, const char *name, const uint8_t *p, size_t n) {
    char path[OC_LIMIT_PATH_BYTES];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, p, n) != (ssize_t)n) abort();
    close(fd);
}

static void remove_dir(const char *dir) {
    static const char *const names[] = {"config.json", "model.safetensors"};
    char path[OC_LIMIT_PATH_BYTES];
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        unlink(path);
    }
    rmdir(dir);
}

/* What a model promises once it is open. */
static void check_model(struct oc_model *m) {
    struct oc_picture_plan plan;
    m->pictures.max_tokens = 1000;
    if (m->has_vision && oc_picture_rules_plan(&m->pictures, 640, 480, NULL, 0, &plan, NULL) == OC_OK)
        OC_ASSERT(plan.n_tokens > 0 && plan.n_tokens <= 1000);
    for (int i = 0; i < m->lm.n_layers; i++) {
        const struct oc_weight *w = &m->lm.layers[i].q;
        OC_ASSERT(w->n == (int64_t)m->lm.n_heads * m->lm.hd && w->k == m->lm.dim && w->w);
        volatile uint8_t last = w->w[(w->bits ? w->n * w->k * w->bits / 8 : w->n * w->k * (int64_t)oc_dtype_bytes(w->dtype)) - 1];
        (void)last;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    const uint8_t *nul = memchr(data, 0, n);
    size_t config_bytes = nul ? (size_t)(nul - data) : n;
    char dir[] = "/tmp/ocellus-fuzz-XXXXXX";
    if (!mkdtemp(dir)) abort();
    write_file(dir, "config.json", data, config_bytes);
    if (nul) write_file(dir, "model.safetensors", nul + 1, n - config_bytes - 1);
    struct oc_model *m;
    struct oc_errinfo ei;
    enum oc_err err = oc_model_open(dir, &m, &ei);
    if (err == OC_OK) check_model(m);
    else OC_ASSERT(ei.msg[0] && m == NULL);
    oc_model_close(m);
    remove_dir(dir);
    return 0;
}
