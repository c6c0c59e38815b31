/* The ops table: which kernels for which features, and the scratch they need. */
#include "kernels/ops.h"

#include <string.h>

#include "kernels/impl.h"
#include "kernels/ref/ref.h"
#include "kernels/tiled/tiled.h"

void oc_ops_set_ref(struct oc_ops *ops) {
    ops->isa = "ref";
#define OC_OP(name) ops->name = oc_ref_##name;
#include "kernels/ops.def"
#undef OC_OP
}

/* The names of tables that round x to 8 bits in role D; for another the wish stays one. */
static const char *const int8_names[][2] = {
    {"ref", "ref-int8"},       {"avx2", "avx2-int8"}, {"avx512", "avx512-int8"}, {"avx512bf16", "avx512bf16-int8"},
    {"amx", "amx-int8"}, {"amxbf16", "amxbf16-int8"}, {"amxmany", "amx-int8"},
    {"avx512vnni", "avx512-int8"}, {"avx512vnni24", "avx512-int8"},
    {"neondot", "neondot-int8"}, {"neonmm", "neonmm-int8"},
};

/* Whether the table made for these features has kernels for int8; tables above AVX-512 keep its role D. */
static bool has_int8(const struct oc_ops *ops, unsigned features) {
    if (strcmp(ops->isa, "ref") == 0 || strcmp(ops->isa, "avx2") == 0) return true;
    if (features & OC_CPU_NEON) return (features & OC_CPU_DOTPROD) && (features & OC_CPU_BYTES);
    return (features & OC_CPU_AVX512) && (features & OC_CPU_AVX512VNNI);
}

static void choose_int8(struct oc_ops *ops, unsigned features) {
    ops->int8 = (features & OC_CPU_INT8) && has_int8(ops, features);
    for (size_t i = 0; ops->int8 && i < sizeof int8_names / sizeof int8_names[0]; i++) {
        if (strcmp(ops->isa, int8_names[i][0]) == 0) ops->isa = int8_names[i][1];
    }
}

void oc_ops_init(struct oc_ops *ops, unsigned features) {
    memset(ops, 0, sizeof *ops); /* what lies between members too: tables of the same features are the same bytes */
    oc_ops_set_ref(ops);
#if defined(__x86_64__)
    if (features & OC_CPU_AVX2) oc_ops_set_avx2(ops);
    /* With the 8 bits of throughput mode role P stays exact: two roundings on top of each other come to the bound of the first. */
    bool bytes = (features & OC_CPU_BYTES) && !(features & OC_CPU_INT8), rounded = features & OC_CPU_ROUND;
    bool amx = (features & OC_CPU_AVX512BF16) && (features & OC_CPU_AMX), wide = features & OC_CPU_AVX512;
    if (bytes && (features & OC_CPU_AVXVNNI) && !wide) oc_ops_set_avxvnni(ops);
    if (wide) oc_ops_set_avx512(ops);
    if (bytes && wide && (features & OC_CPU_AVX512VNNI) && !amx && !rounded) oc_ops_set_avx512vnni(ops, features & OC_CPU_BYTES24);
    if ((features & OC_CPU_AVX512BF16) && rounded) oc_ops_set_avx512bf16(ops);
    if (amx) oc_ops_set_amx(ops, features);
#elif defined(__aarch64__)
    if (features & OC_CPU_NEON) oc_ops_set_neon(ops);
    const unsigned bytes = OC_CPU_NEON | OC_CPU_DOTPROD | OC_CPU_BYTES;
    const unsigned bfmmla = bytes | OC_CPU_I8MM | OC_CPU_BFMMLA; /* no CPU has the last alone */
    if ((features & bytes) == bytes) oc_ops_set_neon_dot8(ops, features & OC_CPU_I8MM);
    if ((features & bfmmla) == bfmmla) oc_ops_set_neon_bfmmla(ops);
#endif
    choose_int8(ops, features);
}

static const struct isa_name {
    const char *name;
    unsigned features;
} isa_names[] = {
    {"ref", 0},
    {"avx2", OC_CPU_AVX2},
    {"avxvnni", OC_CPU_AVX2 | OC_CPU_AVXVNNI | OC_CPU_BYTES},
    {"avx512", OC_CPU_AVX2 | OC_CPU_AVX512},
    {"avx512vnni", OC_CPU_AVX2 | OC_CPU_AVX512 | OC_CPU_AVX512VNNI | OC_CPU_BYTES},
    {"avx512vnni24", OC_CPU_AVX2 | OC_CPU_AVX512 | OC_CPU_AVX512VNNI | OC_CPU_BYTES | OC_CPU_BYTES24},
    {"avx512bf16", OC_CPU_AVX2 | OC_CPU_AVX512 | OC_CPU_AVX512BF16 | OC_CPU_ROUND},
    {"amx", OC_CPU_AVX2 | OC_CPU_AVX512 | OC_CPU_AVX512BF16 | OC_CPU_AMX},
    {"amxmany", OC_CPU_AVX2 | OC_CPU_AVX512 | OC_CPU_AVX512BF16 | OC_CPU_AMX | OC_CPU_MANY},
    {"amxint16", OC_CPU_AVX2 | OC_CPU_AVX512 | OC_CPU_AVX512BF16 | OC_CPU_AMX | OC_CPU_INT16},
    {"amxbf16", OC_CPU_AVX2 | OC_CPU_AVX512 | OC_CPU_AVX512BF16 | OC_CPU_AMX | OC_CPU_ROUND},
    {"neon", OC_CPU_NEON},
    {"neondot", OC_CPU_NEON | OC_CPU_DOTPROD | OC_CPU_BYTES},
    {"neonmm", OC_CPU_NEON | OC_CPU_DOTPROD | OC_CPU_I8MM | OC_CPU_BFMMLA | OC_CPU_BYTES},
};

enum oc_err oc_ops_for_isa(struct oc_ops *ops, const char *isa, struct oc_errinfo *ei) {
    return oc_ops_for_wishes(ops, isa, 0, ei);
}

enum oc_err oc_ops_for_wishes(struct oc_ops *ops, const char *isa, unsigned wishes, struct oc_errinfo *ei) {
    unsigned have = oc_cpu_features(), asked;
    if (isa == NULL || strcmp(isa, "auto") == 0) {
        oc_ops_init(ops, have | wishes);
        return OC_OK;
    }
    for (size_t i = 0; i < sizeof isa_names / sizeof isa_names[0]; i++) {
        if (strcmp(isa, isa_names[i].name) != 0) continue;
        asked = isa_names[i].features & ~(unsigned)(OC_CPU_ROUND | OC_CPU_MANY | OC_CPU_BYTES | OC_CPU_BYTES24 | OC_CPU_INT16);
        if ((have & asked) != asked) {
            return oc_fail(ei, OC_ERR_UNSUPPORTED, "this machine has no %s; use --isa auto", isa);
        }
        oc_ops_init(ops, isa_names[i].features | (have & (OC_CPU_AVX512VNNI | OC_CPU_I8MM)) | wishes);
        return OC_OK;
    }
    return oc_fail(ei, OC_ERR_USAGE,
                   "unknown ISA \"%s\"; known: auto, ref, avx2, avxvnni, avx512, avx512vnni, avx512vnni24, avx512bf16, amx, amxint16, "
                   "amxmany, amxbf16, neon, neondot, neonmm", isa);
}

size_t oc_ops_scratch_bytes(int64_t max_m, int64_t max_k, int64_t max_n, int max_hd, int n_threads) {
    (void)max_n; /* no kernel of now keeps whole output rows */
    size_t ref = (size_t)n_threads * OC_REF_ROWS * (size_t)max_k * sizeof(float);
    size_t tiled = oc_tiled_scratch_bytes(max_m, max_k, max_hd, n_threads);
    return oc_round_up(ref > tiled ? ref : tiled, 4096);
}
