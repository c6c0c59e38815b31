/* worker/convert.h - between the structs of ipc/messages.h and those of the engine.
 *
 * ipc/ must not know the engine, so both have their own; this is the only place that knows both. What comes in is
 * checked here: the engine may rely on it. Pure; any thread. */
#ifndef OC_WORKER_CONVERT_H
#define OC_WORKER_CONVERT_H

#include "base/arena.h"
#include "engine/scheduler.h"
#include "ipc/messages.h"
#include "ocellus.h"

/* Errors: OC_ERR_FORMAT (a filter that is none, numbers that are not finite). What rules mean is checked by
 * oc_picture_rules_plan. */
OC_MUST_CHECK enum oc_err oc_worker_convert_rules(const struct oc_ipc_picture_rules *in, struct oc_picture_rules *out,
                                                  struct oc_errinfo *ei);
void oc_worker_convert_rules_out(const struct oc_picture_rules *in, struct oc_ipc_picture_rules *out);

/* A plan that contradicts neither itself nor the rules of the model. Errors: OC_ERR_FORMAT, OC_ERR_LIMIT (more tokens
 * than the rules allow). */
OC_MUST_CHECK enum oc_err oc_worker_convert_plan(const struct oc_ipc_picture_plan *in, const struct oc_picture_rules *rules,
                                                 struct oc_picture_plan *out, struct oc_errinfo *ei);
void oc_worker_convert_plan_out(const struct oc_picture_plan *in, struct oc_ipc_picture_plan *out);

/* Bytes of the pixels of a converted plan: the picture as resized. */
size_t oc_worker_convert_pixel_bytes(const struct oc_picture_plan *plan);

/* *out borrows from `in` and the arena; its pictures have no patches yet. Errors: those of oc_worker_convert_plan,
 * OC_ERR_UNSUPPORTED (pictures for a model without vision), OC_ERR_NOMEM. */
OC_MUST_CHECK enum oc_err oc_worker_convert_job(struct oc_arena *a, uint64_t id, const struct oc_ipc_job *in,
                                                const struct oc_picture_rules *rules, struct oc_sched_job *out,
                                                struct oc_sched_picture **pictures, struct oc_errinfo *ei);

/* Strings are borrowed from the engine, cut where they are too long for a message. */
void oc_worker_convert_ready(const struct oc_engine_info *in, const struct oc_picture_rules *rules,
                             struct oc_ipc_ready *out);

/* top: room for OC_LIMIT_TOP_LOGPROBS. */
void oc_worker_convert_pick(const struct oc_lm_sample_pick *in, struct oc_ipc_choice *top, struct oc_ipc_pick *out);

/* The message is borrowed from `in`. */
void oc_worker_convert_done(const struct oc_sched_done *in, struct oc_ipc_done *out);

#endif
