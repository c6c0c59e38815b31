/* golden_file.h - reading tests/golden/<model>/golden.bin and drawing the pictures it was captured with.
 *
 * A file is a row of records: 48 bytes of name, then u32 type (0 f32, 1 i32), rows, columns, 0, then rows * columns
 * values, little-endian. See README.md. */
#ifndef GOLDEN_FILE_H
#define GOLDEN_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "image/decode.h"

struct golden_record {
    char name[49];
    bool is_int;
    int n_rows, n_columns;
    const float *f;   /* [n_rows, n_columns] when !is_int, else NULL */
    const int32_t *i; /* the same when is_int */
};

struct golden_file {
    uint8_t *bytes;
    struct golden_record *records;
    int n_records;
};

/* Exits with a message when the file is missing or broken. */
void golden_open(struct golden_file *g, const char *path);
void golden_close(struct golden_file *g);

/* The record of that name (printf-like), or NULL. */
const struct golden_record *golden_find(const struct golden_file *g, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* golden_find for a record that must be there: exits with its name when it is not. */
const struct golden_record *golden_get(const struct golden_file *g, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* Index j of the sample of at most `most` out of n: evenly spread, first and last among them. */
int golden_pick(int n, int most, int j);

/* The picture of tools/golden_model.py: img->rgb is from malloc. */
void golden_picture(int width, int height, int seed, struct oc_image *img);

#endif
