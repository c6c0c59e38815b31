#include "weights/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

#define PREFIX_BYTES 8 /* little-endian length of the header */

struct dtype_row {
    const char *name;
    uint8_t bits;
    enum oc_dtype dtype;
};

/* Every dtype of the format; those that no kernel takes still have a size, so that their ranges are checked.
 */
static const struct dtype_row dtype_rows[] = {
    {"F32", 32, OC_F32},          {"F16", 16, OC_F16},      {"BF16", 16, OC_BF16},
    {"U32", 32, OC_U32},          {"U8", 8, OC_U8},         {"I32", 32, OC_I32},
    {"I64", 64, OC_I64},          {"F64", 64, OC_OTHER},    {"U64", 64, OC_OTHER},
    {"U16", 16, OC_OTHER},        {"I16", 16, OC_OTHER},    {"I8", 8, OC_OTHER},
    {"BOOL", 8, OC_OTHER},        {"C64", 64, OC_OTHER},    {"F8_E4M3", 8, OC_OTHER},
    {"F8_E5M2", 8, OC_OTHER},     {"F8_E8M0", 8, OC_OTHER}, {"F8_E4M3FNUZ", 8, OC_OTHER},
    {"F8_E5M2FNUZ", 8, OC_OTHER}, {"F6_E2M3", 6, OC_OTHER}, {"F6_E3M2", 6, OC_OTHER},
    {"F4", 4, OC_OTHER},
};

static const struct dtype_row *dtype_find(struct oc_str name) {
    for (size_t i = 0; i < sizeof dtype_rows / sizeof *dtype_rows; i++)
        if (oc_str_is(name, dtype_rows[i].name)) return &dtype_rows[i];
    return NULL;
}

const char *oc_weights_shape_str(const int64_t *shape, int n_dims, char out[128]) {
    size_t n = (size_t)snprintf(out, 128, "[");
    for (int i = 0; i < n_dims && n < 100; i++)
        n += (size_t)snprintf(out + n, 128 - n, "%s%lld", i ? ", " : "", (long long)shape[i]);
    snprintf(out + n, 128 - n, "]");
    return out;
}

/* A name is shown to people and compared as a C string: no NUL, no terminal control. */
static bool name_is_sane(struct oc_str s) {
    for (size_t i = 0; i < s.n; i++)
        if ((uint8_t)s.p[i] < 0x20 || s.p[i] == 0x7F) return false;
    return true;
}

static enum oc_err tensor_fail(struct oc_errinfo *ei, const char *path, const char *name, const char *what) {
    return oc_fail(ei, OC_ERR_FORMAT, "%.200s: tensor %.120s: %s", path, name, what);
}

/* Reads `shape`; *n_elems is the product. */
static enum oc_err read_shape(const struct oc_json *j, struct oc_tensor_view *t, uint64_t *n_elems,
                              struct oc_errinfo *ei) {
    if (!j || j->type != OC_JSON_ARR) return tensor_fail(ei, t->path, t->name, "shape is not an array");
    if (j->n_items > OC_LIMIT_TENSOR_DIMS)
        return oc_fail(ei, OC_ERR_LIMIT, "%.200s: tensor %.120s has %zu dimensions, at most %d are read",
                       t->path, t->name, j->n_items, OC_LIMIT_TENSOR_DIMS);
    *n_elems = 1;
    for (size_t i = 0; i < j->n_items; i++) {
        const struct oc_json *d = &j->items[i];
        if (d->type != OC_JSON_INT || d->i < 0)
            return tensor_fail(ei, t->path, t->name, "shape holds something other than whole numbers");
        if (__builtin_mul_overflow(*n_elems, (uint64_t)d->i, n_elems))
            return tensor_fail(ei, t->path, t->name, "shape is too large for any file");
        t->shape[t->n_dims++] = d->i;
    }
    return OC_OK;
}

/* Reads `data_offsets` and holds them against the shape and the size of the data part. */
static enum oc_err read_range(const struct oc_json *j, struct oc_tensor_view *t, uint64_t want_bytes,
                              const uint8_t *data, size_t n_data, struct oc_errinfo *ei) {
    char shape[128];
    if (!j || j->type != OC_JSON_ARR || j->n_items != 2 || j->items[0].type != OC_JSON_INT ||
        j->items[1].type != OC_JSON_INT)
        return tensor_fail(ei, t->path, t->name, "data_offsets is not a pair of whole numbers");
    int64_t begin = j->items[0].i, end = j->items[1].i;
    if (begin < 0 || end < begin) return tensor_fail(ei, t->path, t->name, "data_offsets run backwards");
    if ((uint64_t)end > n_data)
        return oc_fail(
            ei, OC_ERR_FORMAT,
            "%.200s: tensor %.120s ends at byte %lld of the data, the file holds %zu: it is cut short; "
            "download it again",
            t->path, t->name, (long long)end, n_data);
    if ((uint64_t)(end - begin) != want_bytes)
        return oc_fail(ei, OC_ERR_FORMAT,
                       "%.200s: tensor %.120s: %s of %s needs %llu bytes, its range holds %lld", t->path,
                       t->name, oc_weights_shape_str(t->shape, t->n_dims, shape), t->dtype_name,
                       (unsigned long long)want_bytes, (long long)(end - begin));
    t->data = data + begin;
    t->n_bytes = (size_t)want_bytes;
    return OC_OK;
}

static enum oc_err read_tensor(struct oc_arena *a, const struct oc_json_member *m, const uint8_t *data,
                               size_t n_data, struct oc_tensor_view *t, struct oc_errinfo *ei) {
    uint64_t n_elems = 0, n_bits;
    if (!name_is_sane(m->key))
        return oc_fail(ei, OC_ERR_FORMAT, "%.200s: a tensor's name holds control characters", t->path);
    t->name = oc_arena_strndup(a, m->key.p, m->key.n);
    if (!t->name) return oc_fail(ei, OC_ERR_NOMEM, "%.200s: out of memory for tensor names", t->path);
    const struct oc_json *dtype = oc_json_get(&m->value, "dtype");
    if (!dtype || dtype->type != OC_JSON_STR) return tensor_fail(ei, t->path, t->name, "dtype is missing");
    const struct dtype_row *row = dtype_find(dtype->str);
    if (!row)
        return oc_fail(ei, OC_ERR_UNSUPPORTED, "%.200s: tensor %.120s has the unknown dtype %.*s", t->path,
                       t->name, (int)(dtype->str.n < 32 && name_is_sane(dtype->str) ? dtype->str.n : 0),
                       dtype->str.p);
    t->dtype = row->dtype;
    t->dtype_name = row->name;
    OC_TRY(read_shape(oc_json_get(&m->value, "shape"), t, &n_elems, ei));
    if (__builtin_mul_overflow(n_elems, (uint64_t)row->bits, &n_bits) || n_bits % 8 != 0)
        return tensor_fail(ei, t->path, t->name, "shape and dtype do not make whole bytes");
    return read_range(oc_json_get(&m->value, "data_offsets"), t, n_bits / 8, data, n_data, ei);
}

static int by_position(const void *pa, const void *pb) {
    const struct oc_tensor_view *a = pa, *b = pb;
    if (a->data != b->data) return a->data < b->data ? -1 : 1;
    return a->n_bytes < b->n_bytes ? -1 : a->n_bytes > b->n_bytes;
}

/* The ranges must follow each other from the first byte to the last: no holes, no overlaps. */
static enum oc_err check_coverage(const struct oc_safetensors *f, const uint8_t *data, size_t n_data,
                                  struct oc_errinfo *ei) {
    const uint8_t *at = data;
    for (size_t i = 0; i < f->n_tensors; i++) {
        const struct oc_tensor_view *t = &f->tensors[i];
        if (t->data != at)
            return oc_fail(ei, OC_ERR_FORMAT,
                           "%.200s: tensor %.120s starts at byte %zu of the data, %s byte %zu", f->path,
                           t->name, (size_t)(t->data - data),
                           t->data < at ? "inside the tensor that ends at" : "leaving a hole after",
                           (size_t)(at - data));
        at += t->n_bytes;
    }
    if (at != data + n_data)
        return oc_fail(ei, OC_ERR_FORMAT,
                       "%.200s: the tensors end at byte %zu of the data, the file holds %zu", f->path,
                       (size_t)(at - data), n_data);
    return OC_OK;
}

static enum oc_err read_tensors(struct oc_arena *a, const struct oc_json *header, const uint8_t *data,
                                size_t n_data, struct oc_safetensors *f, struct oc_errinfo *ei) {
    if (header->n_members > OC_LIMIT_TENSORS)
        return oc_fail(ei, OC_ERR_LIMIT, "%.200s: %zu tensors, at most %d are read", f->path,
                       header->n_members, OC_LIMIT_TENSORS);
    f->tensors = oc_arena_array(a, header->n_members, sizeof *f->tensors);
    if (!f->tensors) return oc_fail(ei, OC_ERR_NOMEM, "%.200s: out of memory for tensors", f->path);
    for (size_t i = 0; i < header->n_members; i++) {
        const struct oc_json_member *m = &header->members[i];
        if (oc_str_is(m->key, "__metadata__")) continue;
        struct oc_tensor_view *t = &f->tensors[f->n_tensors++];
        t->path = f->path;
        OC_TRY(read_tensor(a, m, data, n_data, t, ei));
    }
    qsort(f->tensors, f->n_tensors, sizeof *f->tensors, by_position);
    return check_coverage(f, data, n_data, ei);
}

/* Finds the header's text; *n_header is its length. */
static enum oc_err find_header(const uint8_t *p, size_t n_bytes, const char *path, size_t *n_header,
                               struct oc_errinfo *ei) {
    static const char lfs[] = "version https://git-lfs";
    if (n_bytes >= sizeof lfs - 1 && memcmp(p, lfs, sizeof lfs - 1) == 0)
        return oc_fail(
            ei, OC_ERR_FORMAT,
            "%.300s is a Git LFS pointer, not the file itself: run `git lfs pull` in its directory", path);
    if (n_bytes < PREFIX_BYTES + 2)
        return oc_fail(ei, OC_ERR_FORMAT,
                       "%.300s: %zu bytes are too few for a safetensors file: download it again", path,
                       n_bytes);
    uint64_t n = 0;
    for (int i = 0; i < PREFIX_BYTES; i++) n |= (uint64_t)p[i] << (8 * i);
    if (n > OC_LIMIT_SAFETENSORS_HEADER_BYTES)
        return oc_fail(
            ei, OC_ERR_FORMAT,
            "%.300s: not a safetensors file: its first 8 bytes announce a header of %llu bytes, at most "
            "%zu are allowed",
            path, (unsigned long long)n, OC_LIMIT_SAFETENSORS_HEADER_BYTES);
    if (n > n_bytes - PREFIX_BYTES)
        return oc_fail(
            ei, OC_ERR_FORMAT,
            "%.300s: the header has %llu bytes, the file holds %zu after its length: it is cut short; "
            "download it again",
            path, (unsigned long long)n, n_bytes - PREFIX_BYTES);
    if (n < 2 || p[PREFIX_BYTES] != '{')
        return oc_fail(ei, OC_ERR_FORMAT,
                       "%.300s: not a safetensors file: its header does not start with '{'", path);
    *n_header = (size_t)n;
    return OC_OK;
}

enum oc_err oc_weights_safetensors_parse(struct oc_arena *a, const uint8_t *data, size_t n_bytes,
                                         const char *path, struct oc_safetensors *out,
                                         struct oc_errinfo *ei) {
    *out = (struct oc_safetensors){.path = oc_arena_strndup(a, path, strlen(path))};
    if (!out->path) return oc_fail(ei, OC_ERR_NOMEM, "%.300s: out of memory", path);
    size_t n_header = 0;
    OC_TRY(find_header(data, n_bytes, path, &n_header, ei));
    struct oc_arena scratch;
    struct oc_json header;
    oc_arena_init(&scratch, OC_LIMIT_SAFETENSORS_PARSE_BYTES);
    struct oc_str text = {(const char *)data + PREFIX_BYTES, n_header};
    enum oc_err err = oc_json_parse(&scratch, text, "safetensors header", &header, ei);
    if (err == OC_OK) {
        const uint8_t *body = data + PREFIX_BYTES + n_header;
        err = read_tensors(a, &header, body, n_bytes - PREFIX_BYTES - n_header, out, ei);
    } else {
        err = oc_fail_prefix(ei, err, "%.200s", path);
    }
    oc_arena_free(&scratch);
    return err;
}

enum oc_err oc_weights_safetensors_open(struct oc_arena *a, const char *path, struct oc_safetensors *out,
                                        struct oc_errinfo *ei) {
    struct oc_map map;
    *out = (struct oc_safetensors){0};
    OC_TRY(oc_map_open(path, &map, ei));
    enum oc_err err = oc_weights_safetensors_parse(a, map.data, map.n_bytes, path, out, ei);
    if (err != OC_OK) {
        oc_map_close(&map);
        return err;
    }
    out->map = map;
    return OC_OK;
}

void oc_weights_safetensors_close(struct oc_safetensors *f) {
    oc_map_close(&f->map);
    f->tensors = NULL;
    f->n_tensors = 0;
}
