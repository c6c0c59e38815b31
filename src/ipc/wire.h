/* ipc/wire.h - structs to bytes and back, from tables.
 *
 * A layout names the fields of a struct in the order in which they stand in a payload; one table serves writing
 * and reading, so the two cannot drift apart. Numbers are little-endian without padding, a string or an array
 * is a u32 count and its bytes or elements. Used by messages.c; any thread, no state. */
#ifndef OC_IPC_WIRE_H
#define OC_IPC_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"

enum oc_ipc_wire_kind {
    OC_IPC_WIRE_RAW,   /* n bytes as they are */
    OC_IPC_WIRE_I32,   /* n times, each within [min, max] */
    OC_IPC_WIRE_N32,   /* 4 bytes of any value: a float */
    OC_IPC_WIRE_N64,   /* 8 bytes of any value: i64, u64, double */
    OC_IPC_WIRE_STR,   /* struct oc_str, at most max bytes; borrowed from the payload when read */
    OC_IPC_WIRE_SUB,   /* a struct of its own layout, in place */
    OC_IPC_WIRE_ARRAY, /* pointer to elements of a layout, at most max; from the arena when read */
    OC_IPC_WIRE_FIXED, /* the same, in an array inside the struct */
};

struct oc_ipc_wire_field {
    const char *name;
    enum oc_ipc_wire_kind kind;
    size_t offset;
    int n;                                 /* RAW, I32, N32, N64: how many in a row */
    int64_t min, max;                      /* I32: of the value; STR, ARRAY, FIXED: max of the count */
    size_t count_offset;                   /* ARRAY, FIXED: of the uint32_t that counts */
    const struct oc_ipc_wire_layout *sub; /* SUB, ARRAY, FIXED */
};

struct oc_ipc_wire_layout {
    const char *name;
    size_t n_bytes; /* of the struct */
    const struct oc_ipc_wire_field *fields;
    int n_fields;
};

/* Appends the payload of the struct at `m`; false when the buffer is full or a count is over its maximum. */
bool oc_ipc_wire_write(struct oc_buf *b, const struct oc_ipc_wire_layout *l, const void *m);

/* Fills the struct at `m`, zeroed before, from exactly these bytes. Errors: OC_ERR_FORMAT (too short, too long, a
 * value outside its range), OC_ERR_LIMIT (a count over its maximum), OC_ERR_NOMEM; each names the field. */
OC_MUST_CHECK enum oc_err oc_ipc_wire_read(struct oc_arena *a, const struct oc_ipc_wire_layout *l,
                                           const uint8_t *payload, size_t n_bytes, void *m, struct oc_errinfo *ei);

#endif
