#include "ipc/wire.h"

#include <string.h>

#include "base/str.h"

/* On a big-endian machine these would have to swap: none is supported. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the wire is little-endian");

/* Bytes in a row of the kinds that are plain numbers; 0 for the others. */
static size_t plain_bytes(const struct oc_ipc_wire_field *f) {
    static const size_t each[] = {[OC_IPC_WIRE_RAW] = 1, [OC_IPC_WIRE_I32] = 4, [OC_IPC_WIRE_N32] = 4,
                                  [OC_IPC_WIRE_N64] = 8, [OC_IPC_WIRE_FIXED] = 0};
    return each[f->kind] * (size_t)f->n;
}

/* ---- Writing ---------------------------------------------------------------------------------------------- */

static bool write_layout(struct oc_buf *b, const struct oc_ipc_wire_layout *l, const uint8_t *m);

static bool write_count(struct oc_buf *b, uint64_t n, int64_t max) {
    uint32_t count = (uint32_t)n;
    return n <= (uint64_t)max && oc_buf_add(b, &count, sizeof count);
}

static bool write_str(struct oc_buf *b, const struct oc_ipc_wire_field *f, const uint8_t *at) {
    struct oc_str s;
    memcpy(&s, at, sizeof s);
    return write_count(b, s.n, f->max) && (s.n == 0 || oc_buf_add(b, s.p, s.n));
}

static bool write_elements(struct oc_buf *b, const struct oc_ipc_wire_field *f, const uint8_t *m) {
    const uint8_t *p = m + f->offset;
    uint32_t n;
    memcpy(&n, m + f->count_offset, sizeof n);
    if (f->kind == OC_IPC_WIRE_ARRAY) memcpy(&p, m + f->offset, sizeof p);
    if (!write_count(b, n, f->max)) return false;
    for (uint32_t i = 0; i < n; i++)
        if (!write_layout(b, f->sub, p + i * f->sub->n_bytes)) return false;
    return true;
}

static bool write_layout(struct oc_buf *b, const struct oc_ipc_wire_layout *l, const uint8_t *m) {
    for (int i = 0; i < l->n_fields; i++) {
        const struct oc_ipc_wire_field *f = &l->fields[i];
        const uint8_t *at = m + f->offset;
        const size_t n_plain = plain_bytes(f);
        bool ok;
        if (n_plain) ok = oc_buf_add(b, at, n_plain);
        else if (f->kind == OC_IPC_WIRE_STR) ok = write_str(b, f, at);
        else if (f->kind == OC_IPC_WIRE_SUB) ok = write_layout(b, f->sub, at);
        else ok = write_elements(b, f, m);
        if (!ok) return false;
    }
    return true;
}

bool oc_ipc_wire_write(struct oc_buf *b, const struct oc_ipc_wire_layout *l, const void *m) {
    return write_layout(b, l, m) && !b->failed;
}

/* ---- Reading ---------------------------------------------------------------------------------------------- */

struct reader {
    struct oc_arena *arena;
    const char *message; /* for sentences */
    const uint8_t *p;
    size_t n_left;
    struct oc_errinfo *ei;
};

static enum oc_err read_layout(struct reader *r, const struct oc_ipc_wire_layout *l, uint8_t *m);

static enum oc_err need(struct reader *r, size_t n_bytes, const char *field) {
    if (n_bytes <= r->n_left) return OC_OK;
    return oc_fail(r->ei, OC_ERR_FORMAT, "a message %s ends within \"%s\": %zu bytes wanted, %zu there", r->message,
                   field, n_bytes, r->n_left);
}

static enum oc_err take(struct reader *r, void *out, size_t n_bytes, const char *field) {
    OC_TRY(need(r, n_bytes, field));
    memcpy(out, r->p, n_bytes);
    r->p += n_bytes;
    r->n_left -= n_bytes;
    return OC_OK;
}

static enum oc_err read_plain(struct reader *r, const struct oc_ipc_wire_field *f, size_t n_bytes, uint8_t *at) {
    OC_TRY(take(r, at, n_bytes, f->name));
    for (int i = 0; f->kind == OC_IPC_WIRE_I32 && i < f->n; i++) {
        int32_t v;
        memcpy(&v, at + (size_t)i * sizeof v, sizeof v);
        if (v < f->min || v > f->max)
            return oc_fail(r->ei, OC_ERR_FORMAT, "a message %s has %d for \"%s\"", r->message, v, f->name);
    }
    return OC_OK;
}

static enum oc_err read_count(struct reader *r, const struct oc_ipc_wire_field *f, uint32_t *n) {
    OC_TRY(take(r, n, sizeof *n, f->name));
    if (*n <= f->max) return OC_OK;
    return oc_fail(r->ei, OC_ERR_LIMIT, "a message %s says \"%s\" has %u entries, at most %lld are allowed",
                   r->message, f->name, *n, (long long)f->max);
}

static enum oc_err read_str(struct reader *r, const struct oc_ipc_wire_field *f, uint8_t *at) {
    uint32_t n;
    OC_TRY(read_count(r, f, &n));
    OC_TRY(need(r, n, f->name));
    const struct oc_str s = {(const char *)r->p, n};
    memcpy(at, &s, sizeof s);
    r->p += n;
    r->n_left -= n;
    return OC_OK;
}

/* Bytes that an element takes at least, so that a lying count is seen before memory is taken for it. */
static size_t least_bytes(const struct oc_ipc_wire_layout *l) {
    size_t n = 0;
    for (int i = 0; i < l->n_fields; i++) {
        const struct oc_ipc_wire_field *f = &l->fields[i];
        const size_t n_plain = plain_bytes(f);
        n += n_plain ? n_plain : f->kind == OC_IPC_WIRE_SUB ? least_bytes(f->sub) : sizeof(uint32_t);
    }
    return n;
}

static enum oc_err read_elements(struct reader *r, const struct oc_ipc_wire_field *f, uint8_t *m) {
    uint8_t *p = m + f->offset;
    uint32_t n;
    OC_TRY(read_count(r, f, &n));
    OC_TRY(need(r, n * least_bytes(f->sub), f->name));
    if (f->kind == OC_IPC_WIRE_ARRAY) {
        p = oc_arena_array(r->arena, n, f->sub->n_bytes);
        if (!p) return oc_fail(r->ei, OC_ERR_NOMEM, "no memory for %u \"%s\" of a message %s", n, f->name, r->message);
        memcpy(m + f->offset, &p, sizeof p);
    }
    memcpy(m + f->count_offset, &n, sizeof n);
    for (uint32_t i = 0; i < n; i++) OC_TRY(read_layout(r, f->sub, p + i * f->sub->n_bytes));
    return OC_OK;
}

static enum oc_err read_layout(struct reader *r, const struct oc_ipc_wire_layout *l, uint8_t *m) {
    for (int i = 0; i < l->n_fields; i++) {
        const struct oc_ipc_wire_field *f = &l->fields[i];
        uint8_t *at = m + f->offset;
        const size_t n_plain = plain_bytes(f);
        if (n_plain) OC_TRY(read_plain(r, f, n_plain, at));
        else if (f->kind == OC_IPC_WIRE_STR) OC_TRY(read_str(r, f, at));
        else if (f->kind == OC_IPC_WIRE_SUB) OC_TRY(read_layout(r, f->sub, at));
        else OC_TRY(read_elements(r, f, m));
    }
    return OC_OK;
}

enum oc_err oc_ipc_wire_read(struct oc_arena *a, const struct oc_ipc_wire_layout *l, const uint8_t *payload,
                             size_t n_bytes, void *m, struct oc_errinfo *ei) {
    struct reader r = {.arena = a, .message = l->name, .p = payload, .n_left = n_bytes, .ei = ei};
    memset(m, 0, l->n_bytes);
    OC_TRY(read_layout(&r, l, m));
    if (r.n_left == 0) return OC_OK;
    return oc_fail(ei, OC_ERR_FORMAT, "a message %s has %zu bytes too many", l->name, r.n_left);
}
