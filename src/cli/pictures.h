/* cli/pictures.h - from the pictures of a prompt to their embeddings.
 *
 * `ocellus run` trusts its user's files no more than a server would: everything is bounded. One thread. */
#ifndef OC_CLI_PICTURES_H
#define OC_CLI_PICTURES_H

#include "base/arena.h"
#include "base/err.h"
#include "base/str.h"
#include "ocellus.h"

struct oc_cli_picture {
    const char *name;  /* for messages: the path, or "picture 2" */
    int width, height; /* as decoded, upright */
    struct oc_picture_plan plan;
    float *embedding; /* [plan.n_tokens, dim]; NULL until encoded */
};

struct oc_cli_pictures {
    struct oc_cli_picture *items;
    int n;
    int n_tokens; /* of all */
    double image_ms, vision_ms;
};

/* Where picture i comes from: a path, or a "data:" URI with base64. Paths that are not absolute count from
 * base_dir (NULL: the working directory). "file://" is allowed before a path; "http:" and "https:" are
 * refused: nothing is downloaded. */
struct oc_cli_picture_source {
    struct oc_str uri;
    const char *base_dir;
};

/* Reads, decodes, resizes and encodes n pictures, in order. Free the result also after an error. Errors:
 * those of reading, decoding and planning, with the picture's name; OC_ERR_CANCELLED when Ctrl-C came. */
OC_MUST_CHECK enum oc_err oc_cli_pictures_encode(struct oc_engine *e, struct oc_arena *a,
                                                 const struct oc_cli_picture_source *sources, int n,
                                                 const struct oc_picture_limits *lim,
                                                 struct oc_cli_pictures *out, struct oc_errinfo *ei);
void oc_cli_pictures_free(struct oc_cli_pictures *p);

/* Reads the bytes of one picture into the arena. Errors as above. */
OC_MUST_CHECK enum oc_err oc_cli_pictures_read(struct oc_arena *a, struct oc_cli_picture_source source,
                                               const char **name, struct oc_str *bytes,
                                               struct oc_errinfo *ei);

#endif
