#include "cli/pictures.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/base64.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/limits.h"
#include "base/pages.h"
#include "cli/interrupt.h"
#include "image/decode.h"
#include "image/patchify.h"

/* ---- Reading ------------------------------------------------------------------------------------------- */

/* "data:image/png;base64,...": what comes before the comma must end in ";base64". */
static enum oc_err read_data_uri(struct oc_arena *a, struct oc_str uri, struct oc_str *bytes,
                                 struct oc_errinfo *ei) {
    const char *comma = memchr(uri.p, ',', uri.n < 256 ? uri.n : 256);
    struct oc_str head = {uri.p, comma ? (size_t)(comma - uri.p) : 0};
    if (!comma || !oc_str_ends(head, OC_STR(";base64")))
        return oc_fail(ei, OC_ERR_FORMAT, "a data: URI must be data:<type>;base64,<data>");
    struct oc_str text = {comma + 1, uri.n - head.n - 1};
    if (text.n / 4 * 3 > OC_LIMIT_IMAGE_BYTES + 3)
        return oc_fail(ei, OC_ERR_LIMIT,
                       "%zu bytes of base64 are more than a picture may have (%zu MiB decoded)", text.n,
                       OC_LIMIT_IMAGE_BYTES / OC_MIB);
    uint8_t *out = oc_arena_alloc(a, oc_base64_max_bytes(text));
    if (!out) return oc_fail(ei, OC_ERR_NOMEM, "no memory for a picture of %zu bytes", text.n / 4 * 3);
    bytes->p = (const char *)out;
    return oc_base64_decode(text, out, &bytes->n, ei);
}

static bool has_scheme(struct oc_str uri, const char *scheme) {
    size_t n = strlen(scheme);
    return uri.n >= n && !strncasecmp(uri.p, scheme, n);
}

enum oc_err oc_cli_pictures_read(struct oc_arena *a, struct oc_cli_picture_source source, const char **name,
                                 struct oc_str *bytes, struct oc_errinfo *ei) {
    struct oc_str uri = source.uri;
    if (has_scheme(uri, "data:")) return read_data_uri(a, uri, bytes, ei);
    if (has_scheme(uri, "http://") || has_scheme(uri, "https://"))
        return oc_fail(ei, OC_ERR_UNSUPPORTED,
                       "'%.200s': ocellus run downloads nothing; save the picture and name the file",
                       oc_arena_strndup(a, uri.p, uri.n < 200 ? uri.n : 200));
    if (has_scheme(uri, "file://")) uri = (struct oc_str){uri.p + 7, uri.n - 7};
    char *path = uri.n < OC_LIMIT_PATH_BYTES ? oc_arena_strndup(a, uri.p, uri.n) : NULL;
    if (path && *path != '/' && source.base_dir) path = oc_path_join(a, source.base_dir, path);
    if (!path || strlen(path) < uri.n)
        return oc_fail(ei, OC_ERR_USAGE, "not the path of a picture: %zu bytes", uri.n);
    *name = path;
    return oc_file_read(a, path, OC_LIMIT_IMAGE_BYTES, bytes, ei);
}

/* ---- Encoding ------------------------------------------------------------------------------------------ */

/* Decoded picture -> patches -> embedding; p->plan is set. */
static enum oc_err encode(struct oc_engine *e, const struct oc_image *img, struct oc_cli_picture *p,
                          struct oc_cli_pictures *all, struct oc_errinfo *ei) {
    uint64_t start_ns = oc_clock_ns();
    float *patches = oc_pages_alloc((size_t)p->plan.n_patches * (size_t)p->plan.patch_dim * sizeof *patches);
    p->embedding = calloc((size_t)p->plan.n_tokens, (size_t)oc_engine_info(e)->dim * sizeof *p->embedding);
    enum oc_err err = OC_OK;
    if (!patches || !p->embedding)
        err = oc_fail(ei, OC_ERR_NOMEM, "no memory for %d patches", p->plan.n_patches);
    if (!err) err = oc_image_patchify_resized(img, &p->plan, patches, ei);
    all->image_ms += oc_clock_ms_since(start_ns);
    start_ns = oc_clock_ns();
    if (!err) err = oc_engine_encode_picture(e, &p->plan, patches, p->embedding, ei);
    all->vision_ms += oc_clock_ms_since(start_ns);
    free(patches);
    return err;
}

static enum oc_err add(struct oc_engine *e, struct oc_arena *a, struct oc_cli_picture_source source,
                       const struct oc_picture_limits *lim, struct oc_cli_pictures *all,
                       struct oc_errinfo *ei) {
    uint64_t start_ns = oc_clock_ns();
    struct oc_cli_picture *p = &all->items[all->n++];
    struct oc_image img = {0};
    struct oc_str bytes = {0};
    p->name = oc_arena_printf(a, "picture %d", all->n);
    const char *number = p->name;
    enum oc_err err = oc_cli_pictures_read(a, source, &p->name, &bytes, ei);
    if (err) return p->name == number ? oc_fail_prefix(ei, err, "%s", number ? number : "a picture") : err;
    err = oc_image_decode((const uint8_t *)bytes.p, bytes.n, NULL, &img, ei);
    p->width = img.width;
    p->height = img.height;
    if (!err) err = oc_engine_plan_picture(e, img.width, img.height, lim, &p->plan, ei);
    all->image_ms += oc_clock_ms_since(start_ns);
    if (!err) err = encode(e, &img, p, all, ei);
    oc_image_free(&img);
    all->n_tokens += p->plan.n_tokens;
    return err && err != OC_ERR_CANCELLED ? oc_fail_prefix(ei, err, "%s", p->name ? p->name : "a picture")
                                          : err;
}

enum oc_err oc_cli_pictures_encode(struct oc_engine *e, struct oc_arena *a,
                                   const struct oc_cli_picture_source *sources, int n,
                                   const struct oc_picture_limits *lim, struct oc_cli_pictures *out,
                                   struct oc_errinfo *ei) {
    *out = (struct oc_cli_pictures){0};
    if (n > OC_LIMIT_IMAGES_PER_PROMPT)
        return oc_fail(ei, OC_ERR_LIMIT, "%d pictures: a prompt may have %d", n, OC_LIMIT_IMAGES_PER_PROMPT);
    out->items = calloc(n > 0 ? (size_t)n : 1, sizeof *out->items);
    if (!out->items) return oc_fail(ei, OC_ERR_NOMEM, "no memory for %d pictures", n);
    for (int i = 0; i < n; i++) {
        if (oc_cli_interrupt_came()) return oc_fail(ei, OC_ERR_CANCELLED, "stopped");
        struct oc_arena bytes; /* the encoded bytes are gone before the next picture comes */
        oc_arena_init(&bytes, 2 * OC_LIMIT_IMAGE_BYTES + OC_MIB);
        enum oc_err err = add(e, &bytes, sources[i], lim, out, ei);
        struct oc_cli_picture *p = &out->items[i];
        p->name = p->name ? oc_arena_strndup(a, p->name, strlen(p->name)) : NULL;
        oc_arena_free(&bytes);
        if (err) return err;
    }
    return OC_OK;
}

void oc_cli_pictures_free(struct oc_cli_pictures *p) {
    for (int i = 0; i < p->n; i++) free(p->items[i].embedding);
    free(p->items);
    *p = (struct oc_cli_pictures){0};
}
