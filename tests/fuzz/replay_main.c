/* Replays a corpus through a fuzz target in builds without libFuzzer: every file below the folders and files
 * named on the command line, then each file cut short and with flipped bits. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/arena.h"
#include "base/file.h"
#include "base/limits.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void replay_bytes(const char *p, size_t n) {
    uint8_t *copy = malloc(n ? n : 1); /* exact size, so that a sanitizer sees a read past the end */
    if (!copy) abort();
    memcpy(copy, p, n);
    LLVMFuzzerTestOneInput(copy, n);
    for (size_t cut = 1; cut < 8 && n > cut; cut++) {
        size_t shorter = n * cut / 8;
        uint8_t *part = malloc(shorter ? shorter : 1);
        if (!part) abort();
        memcpy(part, p, shorter);
        LLVMFuzzerTestOneInput(part, shorter);
        free(part);
    }
    for (size_t i = 0; i < n && i < 64; i++) {
        size_t at = n < 64 ? i : i * (n / 64);
        copy[at] ^= (uint8_t)(1u << (i % 8));
        LLVMFuzzerTestOneInput(copy, n);
        copy[at] ^= (uint8_t)(1u << (i % 8));
    }
    free(copy);
}

static int replay_file(const char *path) {
    struct oc_arena a;
    struct oc_str s;
    struct oc_errinfo ei;
    oc_arena_init(&a, 64 * OC_MIB);
    int ok = oc_file_read(&a, path, 32 * OC_MIB, &s, &ei) == OC_OK;
    if (ok) replay_bytes(s.p, s.n);
    else fprintf(stderr, "%s\n", ei.msg);
    oc_arena_free(&a);
    return ok;
}

static int replay_path(const char *path) {
    if (!oc_file_is_dir(path)) return replay_file(path);
    DIR *d = opendir(path);
    int n = 0;
    for (struct dirent *e; d && (e = readdir(d));) {
        char sub[OC_LIMIT_PATH_BYTES];
        if (e->d_name[0] == '.') continue;
        snprintf(sub, sizeof sub, "%s/%s", path, e->d_name);
        n += replay_path(sub);
    }
    if (d) closedir(d);
    return n;
}

int main(int argc, char **argv) {
    int n = 0;
    for (int i = 1; i < argc; i++) n += replay_path(argv[i]);
    printf("%d files replayed\n", n);
    return n > 0 ? 0 : 1;
}
