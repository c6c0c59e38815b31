/* Any bytes as JSON: refused with a message, or written out, read again and written the same. */
#include <stdint.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/limits.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void look_up_all(const struct oc_json *v) {
    if (v->type == OC_JSON_ARR)
        for (size_t i = 0; i < v->n_items; i++) look_up_all(&v->items[i]);
    if (v->type != OC_JSON_OBJ) return;
    for (size_t i = 0; i < v->n_members; i++) {
        OC_ASSERT(oc_json_get_str(v, v->members[i].key) == &v->members[i].value);
        look_up_all(&v->members[i].value);
    }
}

static void check_round_trip(struct oc_arena *a, const struct oc_json *first) {
    struct oc_buf one, two;
    struct oc_json again;
    struct oc_errinfo ei;
    oc_buf_init(&one, OC_LIMIT_JSON_BYTES);
    oc_buf_init(&two, OC_LIMIT_JSON_BYTES);
    oc_json_write(&one, first, ",", ":");
    OC_ASSERT(!one.failed && oc_utf8_valid(oc_buf_str(&one), one.n_bytes));
    OC_ASSERT(oc_json_parse(a, (struct oc_str){oc_buf_str(&one), one.n_bytes}, "again", &again, &ei) ==
              OC_OK);
    oc_json_write(&two, &again, ",", ":");
    OC_ASSERT(one.n_bytes == two.n_bytes && memcmp(oc_buf_str(&one), oc_buf_str(&two), one.n_bytes) == 0);
    oc_buf_free(&one);
    oc_buf_free(&two);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct oc_arena a;
    struct oc_json v;
    struct oc_errinfo ei = {0};
    oc_arena_init(&a, 256 * OC_MIB);
    enum oc_err err = oc_json_parse(&a, (struct oc_str){(const char *)data, n}, "fuzz", &v, &ei);
    if (err == OC_OK) {
        look_up_all(&v);
        check_round_trip(&a, &v);
    } else {
        OC_ASSERT(ei.code == err && ei.msg[0] != '\0');
    }
    oc_arena_free(&a);
    return 0;
}
