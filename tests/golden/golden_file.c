#include "golden_file.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEADER_BYTES 64

static void die(const char *what, const char *path) {
    fprintf(stderr, "%s: %s\n", path, what);
    exit(2);
}

static uint8_t *read_all(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    if (!f) die("cannot be opened", path);
    fseek(f, 0, SEEK_END);
    long size = ftell(f);
    rewind(f);
    uint8_t *bytes = malloc(size > 0 ? (size_t)size : 1);
    if (!bytes || size <= 0 || fread(bytes, 1, (size_t)size, f) != (size_t)size) die("cannot be read", path);
    fclose(f);
    *n = (size_t)size;
    return bytes;
}

void golden_open(struct golden_file *g, const char *path) {
    size_t n, at = 0;
    *g = (struct golden_file){.bytes = read_all(path, &n)};
    while (at + HEADER_BYTES <= n) {
        uint32_t head[4];
        memcpy(head, g->bytes + at + 48, sizeof head);
        size_t n_values = (size_t)head[1] * head[2];
        if (head[0] > 1 || head[1] > 1 << 20 || head[2] > 1 << 20 || at + HEADER_BYTES + 4 * n_values > n) break;
        g->records = realloc(g->records, (size_t)(g->n_records + 1) * sizeof *g->records);
        if (!g->records) die("out of memory", path);
        struct golden_record *r = &g->records[g->n_records++];
        *r = (struct golden_record){.is_int = head[0] == 1, .n_rows = (int)head[1], .n_columns = (int)head[2]};
        memcpy(r->name, g->bytes + at, 48);
        const void *values = g->bytes + at + HEADER_BYTES; /* records are multiples of 4 bytes */
        if (r->is_int) r->i = values;
        else r->f = values;
        at += HEADER_BYTES + 4 * n_values;
    }
    if (at != n) die("broken record", path);
}

void golden_close(struct golden_file *g) {
    free(g->bytes);
    free(g->records);
}

static const struct golden_record *find(const struct golden_file *g, const char *name) {
    for (int i = 0; i < g->n_records; i++)
        if (strcmp(g->records[i].name, name) == 0) return &g->records[i];
    return NULL;
}

const struct golden_record *golden_find(const struct golden_file *g, const char *fmt, ...) {
    char name[128];
    va_list args;
    va_start(args, fmt);
    vsnprintf(name, sizeof name, fmt, args);
    va_end(args);
    return find(g, name);
}

const struct golden_record *golden_get(const struct golden_file *g, const char *fmt, ...) {
    char name[128];
    va_list args;
    va_start(args, fmt);
    vsnprintf(name, sizeof name, fmt, args);
    va_end(args);
    const struct golden_record *r = find(g, name);
    if (!r) die("record missing", name);
    return r;
}

int golden_pick(int n, int most, int j) {
    return n <= most ? j : (int)((int64_t)j * (n - 1) / (most - 1));
}

void golden_picture(int width, int height, int seed, struct oc_image *img) {
    *img = (struct oc_image){.width = width, .height = height, .rgb = malloc((size_t)width * height * 3)};
    if (!img->rgb) die("out of memory", "picture");
    for (uint32_t y = 0, i = 0; y < (uint32_t)height; y++) {
        for (uint32_t x = 0; x < (uint32_t)width; x++) {
            uint32_t h = (x >> 3) * 73856093u ^ (y >> 3) * 19349663u ^ (uint32_t)seed * 83492791u;
            h ^= h >> 13;
            h *= 0x5bd1e995u;
            h ^= h >> 15;
            uint32_t slope[3] = {x * 3 + y, x + y * 2, x * y >> 5};
            for (int c = 0; c < 3; c++)
                img->rgb[i++] = (uint8_t)(((h >> 8 * c & 255) * 3 + (slope[c] & 255)) >> 2);
        }
    }
}
