/* ipc/board.h - a page of live figures that a worker writes and the orchestrator reads, without a message.
 *
 * A memfd mapped by both. Every field is a relaxed atomic of its own: readers get recent values, not a
 * consistent set. A worker that is killed leaves its last state here. */
#ifndef OC_IPC_BOARD_H
#define OC_IPC_BOARD_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/err.h"

enum oc_ipc_doing { OC_IPC_DOING_LOADING, OC_IPC_DOING_IDLE, OC_IPC_DOING_ENCODE, OC_IPC_DOING_PREFILL, OC_IPC_DOING_DECODE, OC_IPC_DOING_EXIT };

struct oc_ipc_board {
    _Atomic uint64_t heartbeat_ns; /* monotonic; renewed before each slice of work and while idle */
    _Atomic uint64_t n_steps;
    _Atomic uint32_t doing;     /* enum oc_ipc_doing */
    _Atomic uint64_t job;       /* id of the job at hand, 0: none or several */
    _Atomic uint32_t n_running, n_waiting; /* jobs */
    _Atomic uint32_t kv_pages, kv_pages_used, kv_pages_cached; /* cached: unused now but kept for prefixes */
    _Atomic uint64_t n_prefix_queries, n_prefix_hits;          /* tokens */
    _Atomic uint64_t n_embed_queries, n_embed_hits;            /* pictures */
    _Atomic uint64_t embed_bytes, embed_evictions, kv_evictions;
    _Atomic uint64_t n_prompt_tokens, n_output_tokens, n_image_tokens;
    _Atomic uint64_t n_drafts, n_drafted, n_accepted; /* times a job had drafts in a step; their tokens; those that came true */
    _Atomic uint64_t decode_mtok_s; /* moving average of decode speed, thousandths of a token per second, all jobs together */
    _Atomic uint64_t rss_bytes;
};

/* Makes a board; *fd is its memfd, to be passed on. Errors: OC_ERR_IO. */
OC_MUST_CHECK enum oc_err oc_ipc_board_create(struct oc_ipc_board **out, int *fd, struct oc_errinfo *ei);
/* Maps the board of a descriptor, which stays the caller's. Errors: OC_ERR_IO, OC_ERR_FORMAT (wrong size). */
OC_MUST_CHECK enum oc_err oc_ipc_board_map(int fd, struct oc_ipc_board **out, struct oc_errinfo *ei);
void oc_ipc_board_unmap(struct oc_ipc_board *b);
const char *oc_ipc_doing_name(uint32_t doing);

#endif
