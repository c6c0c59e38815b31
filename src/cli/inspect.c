/* cli/inspect.c - `ocellus inspect`: what a model is, what memory it takes, what it makes of a picture. */
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/json.h"
#include "base/limits.h"
#include "cli/commands.h"
#include "cli/device.h"
#include "cli/models.h"
#include "cli/options.h"
#include "cli/out.h"
#include "cli/pictures.h"
#include "image/decode.h"
#include "models/model.h"
#include "ocellus.h"

struct inspect_options {
    struct oc_cli_list images;
    const char *device;
    int64_t ctx, image_max_tokens, min_pixels, max_pixels;
    bool json;
};

#define AT(field) offsetof(struct inspect_options, field)

static const struct oc_cli_option options[] = {
    {"image", 'i', OC_CLI_LIST, AT(images), 0, OC_LIMIT_IMAGES_PER_PROMPT, "FILE",
     "what the model makes of a picture of this size"},
    {"device", 0, OC_CLI_STRING, AT(device), 0, 0, "NAME", OC_CLI_DEVICE_HELP},
    {"ctx", 'c', OC_CLI_INT, AT(ctx), 1, OC_LIMIT_CTX_TOKENS, "N", "tokens of context, as for run"},
    {"image-max-tokens", 0, OC_CLI_INT, AT(image_max_tokens), 1, OC_LIMIT_CTX_TOKENS, "N",
     "most tokens of one picture, as for run"},
    {"min-pixels", 0, OC_CLI_INT, AT(min_pixels), 1, 1e9, "N", "as for run"},
    {"max-pixels", 0, OC_CLI_INT, AT(max_pixels), 1, 1e9, "N", "as for run"},
    {"json", 0, OC_CLI_FLAG, AT(json), 0, 0, NULL, "print JSON"},
};
#define N_OPTIONS ((int)(sizeof options / sizeof *options))

/* Everything the two printers need. */
struct facts {
    const char *name, *dir;
    struct oc_engine *engine;
    struct oc_model *model;
    const struct oc_engine_info *info;
    struct oc_weights_summary weights;
    struct oc_quant_rule quant;
    struct oc_cli_picture *pictures;
    int n_pictures;
};

static const struct { int width, height; } example = {1355, 710};

void oc_cli_inspect_help(FILE *f) {
    fputs("usage: ocellus inspect [OPTION]... [MODEL]\n\n"
          "Says what a model is, what memory it takes, and how many tokens pictures become. MODEL is a "
          "directory, or\n"
          "org/name in the Hugging Face cache; without it, the embedded model.\n\n",
          f);
    oc_cli_options_help(options, N_OPTIONS, f);
}

/* ---- Gathering ----------------------------------------------------------------------------------------- */

static enum oc_err plan_file(struct facts *f, const char *path, const struct oc_picture_limits *lim,
                             struct oc_cli_picture *p, struct oc_errinfo *ei) {
    struct oc_arena bytes;
    struct oc_str file;
    struct oc_image img = {0};
    const char *name = path;
    p->name = path;
    oc_arena_init(&bytes, OC_LIMIT_IMAGE_BYTES + OC_MIB);
    struct oc_cli_picture_source source = {oc_str_from(path), NULL};
    enum oc_err err = oc_cli_pictures_read(&bytes, source, &name, &file, ei);
    if (!err) {
        err =
            oc_image_decode((const uint8_t *)file.p, file.n, NULL, &img, ei); /* EXIF may turn the picture */
        p->width = img.width;
        p->height = img.height;
        if (!err) err = oc_engine_plan_picture(f->engine, p->width, p->height, lim, &p->plan, ei);
        if (err) oc_fail_prefix(ei, err, "%s", path);
    }
    oc_image_free(&img);
    oc_arena_free(&bytes);
    return err;
}

static enum oc_err plan_pictures(struct facts *f, struct oc_arena *a, const struct inspect_options *o,
                                 struct oc_errinfo *ei) {
    struct oc_picture_limits lim = {o->min_pixels, o->max_pixels};
    if (!f->info->has_vision && !o->images.n) return OC_OK;
    f->n_pictures = o->images.n ? o->images.n : 1;
    f->pictures = oc_arena_array(a, (size_t)f->n_pictures, sizeof *f->pictures);
    if (!f->pictures) return oc_fail(ei, OC_ERR_NOMEM, "no memory for %d plans", f->n_pictures);
    for (int i = 0; i < o->images.n; i++) OC_TRY(plan_file(f, o->images.items[i], &lim, &f->pictures[i], ei));
    if (o->images.n) return OC_OK;
    struct oc_cli_picture *p = &f->pictures[0];
    p->name = "example";
    p->width = example.width;
    p->height = example.height;
    return oc_engine_plan_picture(f->engine, p->width, p->height, &lim, &p->plan, ei);
}

static enum oc_err gather(struct facts *f, struct oc_arena *a, const char *name,
                          const struct inspect_options *o, struct oc_errinfo *ei) {
    OC_TRY(oc_cli_models_find(a, name, &f->dir, &f->name, ei));
    struct oc_engine_params p = {.model_dir = f->dir,
                                 .device = o->device,
                                 .cuda_plugin = oc_cli_device_plugin(a),
                                 .ctx_tokens = (int)o->ctx,
                                 .n_threads = 1,
                                 .skip_prefetch = true,
                                 .image_max_tokens = (int)o->image_max_tokens};
    OC_TRY(oc_engine_open(&p, &f->engine, ei));
    OC_TRY(oc_model_open(f->dir, &f->model, ei));
    f->info = oc_engine_info(f->engine);
    oc_weights_summarise(f->model->checkpoint, &f->weights);
    f->quant = oc_weights_quant(f->model->checkpoint)->base;
    return plan_pictures(f, a, o, ei);
}

/* ---- Printing ------------------------------------------------------------------------------------------ */

struct part {
    const char *name;
    uint64_t n;
};

static int list_parts(const struct oc_weights_summary *w, struct part parts[6]) {
    const struct part all[6] = {{"4-bit", w->n_q4}, {"8-bit", w->n_q8}, {"bf16", w->n_bf16},
                                {"f16", w->n_f16},  {"f32", w->n_f32},  {"other", w->n_other}};
    int n = 0;
    for (int i = 0; i < 6; i++)
        if (all[i].n) parts[n++] = all[i];
    return n;
}

static void put_millions(struct oc_buf *b, uint64_t n) {
    if (n >= 1000000000)
        oc_buf_printf(b, "%.2f B", (double)n / 1e9);
    else if (n >= 10000000)
        oc_buf_printf(b, "%.0f M", (double)n / 1e6);
    else
        oc_buf_printf(b, "%.2f M", (double)n / 1e6);
}

static void put_bytes(struct oc_buf *b, uint64_t n) {
    if (n >= 10000000000)
        oc_buf_printf(b, "%.1f GB", (double)n / 1e9);
    else if (n >= 1000000000)
        oc_buf_printf(b, "%.2f GB", (double)n / 1e9);
    else
        oc_buf_printf(b, "%.1f MB", (double)n / 1e6);
}

static void put_model(struct oc_buf *b, const struct facts *f) {
    struct part parts[6];
    int n_parts = list_parts(&f->weights, parts);
    oc_buf_printf(b, "architecture  %s (%s)\ndirectory     %s\nparameters    ", f->info->architecture,
                  f->info->family, f->dir);
    put_millions(b, f->info->n_params);
    for (int i = 0; i < n_parts; i++) {
        oc_buf_add_str(b, i ? ", " : ": ");
        put_millions(b, parts[i].n);
        oc_buf_printf(b, " %s", parts[i].name);
    }
    if (f->quant.bits)
        oc_buf_printf(b, "\nquantisation  %d bits in groups of %d\n", f->quant.bits, f->quant.group);
    else
        oc_buf_add_str(b, "\nquantisation  none\n");
}

static void put_device(struct oc_buf *b, const struct oc_engine_info *i) {
    oc_buf_printf(b, "device        %s", i->device);
    if (*i->device_name) oc_buf_printf(b, ", %s", i->device_name);
    if (*i->device_why) oc_buf_printf(b, ", since %s", i->device_why);
    oc_buf_add_char(b, '\n');
    if (!i->device_bytes) return;
    oc_buf_add_str(b, "its memory    ");
    put_bytes(b, i->device_bytes);
    oc_buf_add_str(b, " for weights, workspace and KV cache; ");
    put_bytes(b, i->host_bytes);
    oc_buf_add_str(b, " of the host's beside them\n");
}

static void put_memory(struct oc_buf *b, const struct facts *f) {
    const struct oc_engine_info *i = f->info;
    put_device(b, i);
    oc_buf_add_str(b, "weights       ");
    put_bytes(b, i->weight_bytes);
    oc_buf_printf(b, " mapped from %zu file%s, ", f->weights.n_files, f->weights.n_files == 1 ? "" : "s");
    put_bytes(b, i->decode_weight_bytes);
    oc_buf_add_str(b, " read for each token\nworkspace     ");
    put_bytes(b, i->workspace_bytes);
    oc_buf_printf(b, " reserved at load for --ctx %d", i->ctx_tokens);
    if (i->has_vision) oc_buf_printf(b, " and --image-max-tokens %d", i->image_max_tokens);
    oc_buf_add_str(b, "\nKV cache      ");
    put_bytes(b, i->kv_bytes_per_token * 1000);
    oc_buf_add_str(b, " per 1k tokens, ");
    put_bytes(b, i->kv_bytes_per_token * (uint64_t)i->kv_tokens);
    oc_buf_printf(b,
                  " for %d tokens of %d session%s together\ncontext       %d tokens; the model was made for %d\n"
                  "vocabulary    %d\n",
                  i->kv_tokens, i->n_sessions, i->n_sessions == 1 ? "" : "s", i->ctx_tokens, i->model_ctx_tokens,
                  i->n_vocab);
}

static void put_pictures(struct oc_buf *b, const struct facts *f) {
    if (!f->info->has_vision) {
        oc_buf_add_str(b, "pictures      none: a text model\n");
        return;
    }
    const struct oc_picture_rules *r = &f->model->pictures;
    oc_buf_printf(b,
                  "pictures      a token for each %dx%d pixels (patch %d, merge %d), %lld to %lld pixels, "
                  "at most %d tokens each\n",
                  r->patch * r->merge, r->patch * r->merge, r->patch, r->merge, (long long)r->min_pixels,
                  (long long)r->max_pixels, f->info->image_max_tokens);
    for (int i = 0; i < f->n_pictures; i++) {
        const struct oc_cli_picture *p = &f->pictures[i];
        oc_buf_printf(b, "%-12s  %dx%d -> %dx%d, grid %dx%dx%d, %d tokens\n", p->name, p->width, p->height,
                      p->plan.width, p->plan.height, p->plan.grid_t, p->plan.grid_h, p->plan.grid_w,
                      p->plan.n_tokens);
    }
}

static void put_str_field(struct oc_buf *b, const char *name, const char *value) {
    oc_buf_printf(b, "\"%s\":", name);
    oc_json_write_str(b, oc_str_from(value));
    oc_buf_add_char(b, ',');
}

static void put_json_pictures(struct oc_buf *b, const struct facts *f) {
    const struct oc_picture_rules *r = &f->model->pictures;
    if (!f->info->has_vision) {
        oc_buf_add_str(b, "\"pictures\":null}\n");
        return;
    }
    oc_buf_printf(
        b,
        "\"pictures\":{\"patch\":%d,\"merge\":%d,\"temporal\":%d,\"min_pixels\":%lld,\"max_pixels\":%lld,"
        "\"max_tokens\":%d,\"plans\":[",
        r->patch, r->merge, r->temporal, (long long)r->min_pixels, (long long)r->max_pixels,
        f->info->image_max_tokens);
    for (int i = 0; i < f->n_pictures; i++) {
        const struct oc_cli_picture *p = &f->pictures[i];
        oc_buf_add_str(b, i ? ",{" : "{");
        put_str_field(b, "name", p->name);
        oc_buf_printf(b, "\"original\":[%d,%d],\"resized\":[%d,%d],\"grid\":[%d,%d,%d],\"tokens\":%d}",
                      p->width, p->height, p->plan.width, p->plan.height, p->plan.grid_t, p->plan.grid_h,
                      p->plan.grid_w, p->plan.n_tokens);
    }
    oc_buf_add_str(b, "]}}\n");
}

static void put_json(struct oc_buf *b, const struct facts *f) {
    const struct oc_engine_info *i = f->info;
    struct part parts[6];
    int n_parts = list_parts(&f->weights, parts);
    oc_buf_add_char(b, '{');
    put_str_field(b, "model", f->name);
    put_str_field(b, "directory", f->dir);
    put_str_field(b, "architecture", i->architecture);
    put_str_field(b, "family", i->family);
    oc_buf_printf(b, "\"parameters\":%llu,\"parameters_by_format\":{", (unsigned long long)i->n_params);
    for (int k = 0; k < n_parts; k++)
        oc_buf_printf(b, "%s\"%s\":%llu", k ? "," : "", parts[k].name, (unsigned long long)parts[k].n);
    oc_buf_add_str(b, "},\"quantisation\":");
    if (f->quant.bits)
        oc_buf_printf(b, "{\"bits\":%d,\"group_size\":%d},", f->quant.bits, f->quant.group);
    else
        oc_buf_add_str(b, "null,");
    put_str_field(b, "device", i->device);
    put_str_field(b, "device_name", i->device_name);
    put_str_field(b, "device_why", i->device_why);
    oc_buf_printf(b,
                  "\"memory\":{\"device_bytes\":%llu,\"host_bytes\":%llu,\"weight_bytes\":%llu,\"decode_weight_bytes\":%llu,\"workspace_bytes\":%llu,"
                  "\"kv_bytes_per_token\":%llu},",
                  (unsigned long long)i->device_bytes, (unsigned long long)i->host_bytes, (unsigned long long)i->weight_bytes,
                  (unsigned long long)i->decode_weight_bytes, (unsigned long long)i->workspace_bytes, (unsigned long long)i->kv_bytes_per_token);
    oc_buf_printf(b, "\"ctx_tokens\":%d,\"kv_tokens\":%d,\"n_sessions\":%d,\"model_ctx_tokens\":%d,\"n_vocab\":%d,",
                  i->ctx_tokens, i->kv_tokens, i->n_sessions, i->model_ctx_tokens, i->n_vocab);
    put_json_pictures(b, f);
}

static enum oc_err print(const struct facts *f, bool json, struct oc_errinfo *ei) {
    struct oc_buf b;
    struct oc_cli_out out;
    oc_buf_init(&b, OC_MIB);
    oc_cli_out_init(&out, STDOUT_FILENO);
    if (json) {
        put_json(&b, f);
    } else {
        put_model(&b, f);
        put_memory(&b, f);
        put_pictures(&b, f);
    }
    enum oc_err err = b.failed ? oc_fail(ei, OC_ERR_NOMEM, "no memory for the report") : OC_OK;
    if (!err) err = oc_cli_out_write(&out, oc_buf_str(&b), b.n_bytes, ei);
    if (!err) err = oc_cli_out_close(&out, ei);
    oc_buf_free(&b);
    return err;
}

int oc_cli_inspect_main(int argc, char **argv) {
    struct inspect_options o = {0};
    struct facts f = {0};
    struct oc_errinfo ei;
    struct oc_arena a;
    int first = 0;
    oc_arena_init(&a, 16 * OC_MIB);
    enum oc_err err = oc_cli_options_parse(options, N_OPTIONS, &o, argc, argv, &first, &ei);
    if (!err && argc - first > 1)
        err = oc_fail(&ei, OC_ERR_USAGE, "inspect takes one MODEL, not %d", argc - first);
    if (!err) err = gather(&f, &a, first < argc ? argv[first] : NULL, &o, &ei);
    if (!err) err = print(&f, o.json, &ei);
    oc_model_close(f.model);
    oc_engine_close(f.engine);
    oc_arena_free(&a);
    return err ? oc_cli_main_fail(&ei, "inspect") : OC_CLI_EXIT_OK;
}
