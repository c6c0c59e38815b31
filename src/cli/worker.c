/* cli/worker.c - `ocellus worker` and `ocellus image-worker`: what `ocellus serve` starts. Not for people. */
#include <unistd.h>

#include "base/limits.h"
#include "cli/commands.h"
#include "cli/device.h"
#include "cli/options.h"
#include "cli/out.h"
#include "worker/worker.h"

struct worker_flags {
    const char *model, *device, *isa, *batch_mode;
    int64_t socket, board, parent, ctx, kv_tokens, parallel, threads, image_max_tokens, embed_cache_bytes;
    bool no_prefix_cache, no_speculation, measure;
};

#define AT(field) offsetof(struct worker_flags, field)

static const struct oc_cli_option worker_options[] = {
    {"model", 'm', OC_CLI_STRING, AT(model), 0, 0, "DIR", "directory of the model"},
    {"measure", 0, OC_CLI_FLAG, AT(measure), 0, 0, NULL, "only print what a worker with these options would take, as JSON"},
    {"socket", 0, OC_CLI_INT, AT(socket), 0, 1 << 20, "FD", "descriptor of the channel (3)"},
    {"board", 0, OC_CLI_INT, AT(board), 0, 1 << 20, "FD", "descriptor of the board (4)"},
    {"parent", 0, OC_CLI_INT, AT(parent), 1, INT32_MAX, "PID", "end if this process is not the parent"},
    {"ctx", 'c', OC_CLI_INT, AT(ctx), 1, OC_LIMIT_CTX_TOKENS, "N", "tokens of context of one sequence"},
    {"kv-tokens", 0, OC_CLI_INT, AT(kv_tokens), 1, INT32_MAX, "N", "tokens of context of all sequences together"},
    {"parallel", 0, OC_CLI_INT, AT(parallel), 1, OC_LIMIT_SCHED_JOBS, "N", "sequences at once"},
    {"threads", 't', OC_CLI_INT, AT(threads), 1, OC_LIMIT_THREADS, "N", "compute threads"},
    {"device", 0, OC_CLI_STRING, AT(device), 0, 0, "NAME", OC_CLI_DEVICE_HELP},
    {"isa", 0, OC_CLI_STRING, AT(isa), 0, 0, "NAME", "instruction set"},
    {"batch-mode", 0, OC_CLI_STRING, AT(batch_mode), 0, 0, "MODE", "exact or throughput"},
    {"image-max-tokens", 0, OC_CLI_INT, AT(image_max_tokens), 1, OC_LIMIT_CTX_TOKENS, "N", "most tokens of one picture"},
    {"embed-cache-bytes", 0, OC_CLI_INT, AT(embed_cache_bytes), 0, (double)((int64_t)1 << 40), "N", "for embeddings of pictures; 0: none"},
    {"no-prefix-cache", 0, OC_CLI_FLAG, AT(no_prefix_cache), 0, 0, NULL, "do not keep prompts for reuse"},
    {"no-speculation", 0, OC_CLI_FLAG, AT(no_speculation), 0, 0, NULL, "do not run likely tokens ahead"},
};
#define N_WORKER_OPTIONS ((int)(sizeof worker_options / sizeof *worker_options))

void oc_cli_worker_help(FILE *f) {
    fputs("usage: ocellus worker --model DIR [OPTION]...\n\n"
          "Runs one model for `ocellus serve`, which starts it; of use by hand only with --measure.\n\n",
          f);
    oc_cli_options_help(worker_options, N_WORKER_OPTIONS, f);
}

static enum oc_err print(const struct oc_buf *b, struct oc_errinfo *ei) {
    struct oc_cli_out out;
    oc_cli_out_init(&out, STDOUT_FILENO);
    OC_TRY(oc_cli_out_write(&out, oc_buf_str(b), b->n_bytes, ei));
    return oc_cli_out_close(&out, ei);
}

static int measure(const struct oc_worker_options *o) {
    struct oc_buf b;
    struct oc_errinfo ei;
    oc_buf_init(&b, OC_MIB);
    enum oc_err err = oc_worker_measure(o, &b, &ei);
    if (!err) err = print(&b, &ei);
    oc_buf_free(&b);
    return err ? oc_cli_main_fail(&ei, NULL) : OC_CLI_EXIT_OK;
}

int oc_cli_worker_main(int argc, char **argv) {
    struct worker_flags f = {.socket = OC_WORKER_SOCKET_FD, .board = OC_WORKER_BOARD_FD,
                             .embed_cache_bytes = (int64_t)OC_WORKER_EMBED_CACHE_BYTES};
    struct oc_errinfo ei;
    int first = 0;
    enum oc_err err = oc_cli_options_parse(worker_options, N_WORKER_OPTIONS, &f, argc, argv, &first, &ei);
    if (!err && first < argc) err = oc_fail(&ei, OC_ERR_USAGE, "worker takes no operand, but got '%s'", argv[first]);
    if (!err && !f.model) err = oc_fail(&ei, OC_ERR_USAGE, "worker needs --model DIR");
    if (err) return oc_cli_main_fail(&ei, "worker");
    struct oc_arena arena;
    oc_arena_init(&arena, OC_MIB);
    const struct oc_worker_options o = {.socket_fd = (int)f.socket, .board_fd = (int)f.board, .parent_pid = (int)f.parent,
                                        .model_dir = f.model, .device = f.device, .cuda_plugin = oc_cli_device_plugin(&arena),
                                        .isa = f.isa, .batch_mode = f.batch_mode, .ctx_tokens = (int)f.ctx,
                                        .kv_tokens = (int)f.kv_tokens, .n_sessions = (int)f.parallel,
                                        .n_threads = (int)f.threads, .image_max_tokens = (int)f.image_max_tokens,
                                        .embed_cache_bytes = (size_t)f.embed_cache_bytes,
                                        .prefix_cache = !f.no_prefix_cache, .speculate = !f.no_speculation};
    const int code = f.measure ? measure(&o) : oc_worker_main(&o);
    oc_arena_free(&arena);
    return code;
}

struct image_worker_flags {
    int64_t socket, parent;
    bool no_jail;
};

#undef AT
#define AT(field) offsetof(struct image_worker_flags, field)

static const struct oc_cli_option image_worker_options[] = {
    {"socket", 0, OC_CLI_INT, AT(socket), 0, 1 << 20, "FD", "descriptor of the channel (3)"},
    {"parent", 0, OC_CLI_INT, AT(parent), 1, INT32_MAX, "PID", "end if this process is not the parent"},
    {"no-jail", 0, OC_CLI_FLAG, AT(no_jail), 0, 0, NULL, "go on without seccomp, on a kernel that has none"},
};
#define N_IMAGE_WORKER_OPTIONS ((int)(sizeof image_worker_options / sizeof *image_worker_options))

void oc_cli_image_worker_help(FILE *f) {
    fputs("usage: ocellus image-worker [OPTION]...\n\n"
          "Decodes pictures for `ocellus serve`, which starts it.\n\n",
          f);
    oc_cli_options_help(image_worker_options, N_IMAGE_WORKER_OPTIONS, f);
}

int oc_cli_image_worker_main(int argc, char **argv) {
    struct image_worker_flags f = {.socket = OC_WORKER_SOCKET_FD};
    struct oc_errinfo ei;
    int first = 0;
    enum oc_err err = oc_cli_options_parse(image_worker_options, N_IMAGE_WORKER_OPTIONS, &f, argc, argv, &first, &ei);
    if (!err && first < argc) err = oc_fail(&ei, OC_ERR_USAGE, "image-worker takes no operand, but got '%s'", argv[first]);
    if (err) return oc_cli_main_fail(&ei, "image-worker");
    const struct oc_image_worker_options o = {
        .socket_fd = (int)f.socket, .parent_pid = (int)f.parent, .no_jail = f.no_jail};
    return oc_image_worker_main(&o);
}
