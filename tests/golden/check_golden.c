/* check_golden [--device WHAT] MODEL_DIR GOLDEN [ISA]...: does ocellus compute what transformers computed, stage by stage?
 *
 * Prints per stage the largest error beside its bound; fails with the room of the first stage that is over it.
 * Without ISA: ref and the best of this machine; of quantised models also those that differ in how role D takes x. "-int8" behind one asks for throughput mode. */
#include <stdio.h>
#include <string.h>

#include "golden_device.h"
#include "golden_run.h"
#include "kernels/ops.h"

/* True when every stage holds. A stage that was never compared fails too, unless the model has no pictures. */
static bool print_report(const struct golden_report *rep, const char *model, bool has_vision) {
    bool good = true;
    printf("%s, %s: bounds of %s checkpoints\n", model, rep->isa, rep->exact ? "f32" : rep->blocks ? "rounded" : "bf16");
    if (rep->throughput) printf("  throughput mode: bounds of 8 bits in lm and engine\n");
    if (rep->int16) printf("  quantised weights take x as 16 bits: bounds of these in %slm and engine\n", rep->int16_vision ? "vision, " : "");
    for (enum stage s = 0; s < N_STAGES; s++) {
        const struct stage_result *r = &rep->stages[s];
        if (r->n == 0 && s <= STAGE_POSITIONS && !has_vision) continue;
        bool ok = r->n > 0 && r->ratio <= 1;
        printf("  %-6s %-11s error %.2e, bound %.2e (%5d compared; worst at %s)%s\n", golden_stage_room(s),
               golden_stage_name(s), r->error, r->bound, r->n, r->where, ok ? "" : "  <-- FAILS");
        if (!ok && good) printf("  the first stage that fails is \"%s\": look in src/%s/\n", golden_stage_name(s), golden_stage_room(s));
        good = good && ok;
    }
    if (!rep->exact || rep->throughput || rep->int16) printf("  %d tokens differ at near-ties (margin below the bound)\n", rep->n_near_ties);
    return good;
}

enum { MAX_ISAS = 5 };

/* The names to check when none is given. */
static int default_isas(const char *model, const char *isas[MAX_ISAS]) {
    static const char *const more[] = {"avx512", "avx512vnni", "avx512vnni24", "neon"};
    struct oc_ops best, ops;
    int n = 0;
    if (golden_device_is_cpu()) isas[n++] = "ref";
    isas[n++] = "auto";
    if (!golden_device_is_cpu() || !strstr(model, "mlx") || oc_ops_for_isa(&best, "auto", NULL) != OC_OK) return n;
    for (size_t i = 0; i < sizeof more / sizeof *more && n < MAX_ISAS; i++) {
        bool other = strcmp(more[i], best.isa) != 0 && oc_ops_for_isa(&ops, more[i], NULL) == OC_OK;
        if (other) isas[n++] = more[i];
    }
    return n;
}

int main(int argc, char **argv) {
    const char *isas[MAX_ISAS];
    golden_device_read(&argc, argv);
    if (argc < 3) {
        fprintf(stderr, "usage: check_golden [--device cpu|fake|cuda:PLUGIN] MODEL_DIR GOLDEN [ISA]...\n");
        return 2;
    }
    const char *slash = strrchr(argv[1], '/'), *model = slash ? slash + 1 : argv[1];
    bool has_vision = strncmp(model, "vl-", 3) == 0, good = true;
    int n_isas = argc > 3 ? argc - 3 : default_isas(model, isas);
    for (int i = 0; i < n_isas; i++) {
        struct golden_options opt = {.model_dir = argv[1], .golden_path = argv[2], .isa = argc > 3 ? argv[3 + i] : isas[i]};
        struct golden_report rep;
        golden_run(&opt, &rep);
        good = print_report(&rep, model, has_vision) && good;
    }
    return good ? 0 : 1;
}
