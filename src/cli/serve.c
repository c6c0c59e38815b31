/* cli/serve.c - `ocellus serve`: configuration, the embedded model, and the orchestrator. */
#include <stdlib.h>

#include "cli/commands.h"
#include "cli/models.h"
#include "cli/out.h"
#include "server/serve.h"

void oc_cli_serve_help(FILE *f) {
    struct oc_buf b;
    oc_buf_init(&b, 1 << 20);
    oc_server_config_help(&b);
    fputs(oc_buf_str(&b), f);
    oc_buf_free(&b);
}

static int show(const struct oc_server_config *c) {
    struct oc_cli_out out;
    struct oc_errinfo ei;
    struct oc_buf b;
    oc_buf_init(&b, 1 << 20);
    oc_server_config_print(c, &b);
    oc_cli_out_init(&out, 1);
    enum oc_err err = oc_cli_out_write(&out, oc_buf_str(&b), b.n_bytes, &ei);
    if (!err) err = oc_cli_out_close(&out, &ei);
    oc_buf_free(&b);
    return err ? oc_cli_main_fail(&ei, "serve") : OC_CLI_EXIT_OK;
}

/* All bad values at once. */
static int complain(const struct oc_errinfo *ei, const struct oc_buf *faults) {
    if (!faults->n_bytes) return oc_cli_main_fail(ei, "serve");
    fprintf(stderr, "ocellus: the configuration cannot be used:\n%s", oc_buf_str(faults));
    fputs("Try: ocellus help serve\n", stderr);
    return OC_CLI_EXIT_USAGE;
}

static int serve(const struct oc_server_config *c) {
    struct oc_arena arena;
    struct oc_errinfo ei;
    struct oc_server_setup setup = {.config = c, .version = OC_VERSION};
    oc_arena_init(&arena, 1 << 20);
    if (oc_cli_models_find(&arena, NULL, &setup.embedded_dir, &setup.embedded_name, &ei))
        setup.embedded_dir = NULL;
    enum oc_err err = oc_server_main(&setup, &ei);
    oc_arena_free(&arena);
    return err ? oc_cli_main_fail(&ei, "serve") : OC_CLI_EXIT_OK;
}

int oc_cli_serve_main(int argc, char **argv) {
    struct oc_server_config c;
    struct oc_errinfo ei;
    struct oc_buf faults;
    bool want_show = false;
    oc_buf_init(&faults, 1 << 16);
    int code;
    if (oc_server_config_read(argc - 1, argv + 1, &c, &want_show, &ei, &faults)) {
        code = complain(&ei, &faults);
    } else {
        code = want_show ? show(&c) : serve(&c);
        oc_server_config_free(&c);
    }
    oc_buf_free(&faults);
    return code;
}
