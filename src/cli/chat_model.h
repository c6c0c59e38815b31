/* cli/chat_model.h - everything that a model directory gives: engine and chat/model.h.
 *
 * Opened once per command; what is cheap to check comes before what is slow to load. One thread. */
#ifndef OC_CLI_CHAT_MODEL_H
#define OC_CLI_CHAT_MODEL_H

#include "base/arena.h"
#include "chat/model.h"
#include "lm/sample.h"
#include "ocellus.h"

struct oc_cli_chat_model {
    struct oc_arena arena; /* names and paths */
    const char *name;      /* as the user wrote it */
    const char *dir;
    struct oc_chat_model chat; /* its template_ is NULL when it was not wanted */
    struct oc_engine *engine;
    double load_ms;
};

/* Finds and opens the model called name (NULL: the embedded one). p->model_dir and p->progress are set here:
 * when stderr is a terminal, a line there shows how far a big model is. Close the model also after an error.
 * Errors: those of the rooms below, each naming its file. */
OC_MUST_CHECK enum oc_err oc_cli_chat_model_open(struct oc_cli_chat_model *m, const char *name,
                                                 bool want_template, struct oc_engine_params *p,
                                                 struct oc_errinfo *ei);
void oc_cli_chat_model_close(struct oc_cli_chat_model *m);

/* The sampling that the model's own files ask for: greedy where do_sample is false or absent. */
struct oc_lm_sample_params oc_cli_chat_model_sampling(const struct oc_cli_chat_model *m);

#endif
