#define _GNU_SOURCE /* memfd_create, seals */
#include "ipc/board.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) /* neither side can pull the page from under the other */

_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "a lock inside a shared page would be nobody's");

static enum oc_err map_fd(int fd, struct oc_ipc_board **out, struct oc_errinfo *ei) {
    void *p = mmap(NULL, sizeof **out, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) return oc_fail(ei, OC_ERR_IO, "a worker's board cannot be mapped: %s", strerror(errno));
    *out = p;
    return OC_OK;
}

enum oc_err oc_ipc_board_create(struct oc_ipc_board **out, int *fd, struct oc_errinfo *ei) {
    *out = NULL;
    *fd = memfd_create("ocellus-board", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (*fd < 0) return oc_fail(ei, OC_ERR_IO, "no memory file for a worker's board: %s", strerror(errno));
    enum oc_err err = OC_OK;
    if (ftruncate(*fd, sizeof **out) < 0 || fcntl(*fd, F_ADD_SEALS, SEALS) < 0)
        err = oc_fail(ei, OC_ERR_IO, "no memory file for a worker's board: %s", strerror(errno));
    if (!err) err = map_fd(*fd, out, ei);
    if (!err) return OC_OK;
    close(*fd);
    *fd = -1;
    return err;
}

enum oc_err oc_ipc_board_map(int fd, struct oc_ipc_board **out, struct oc_errinfo *ei) {
    struct stat st;
    *out = NULL;
    if (fstat(fd, &st) < 0) return oc_fail(ei, OC_ERR_IO, "descriptor %d is no board: %s", fd, strerror(errno));
    const int seals = fcntl(fd, F_GET_SEALS);
    if (st.st_size != (off_t)sizeof **out || seals < 0 || !(seals & F_SEAL_SHRINK))
        return oc_fail(ei, OC_ERR_FORMAT, "descriptor %d is no board of this version: %lld bytes, %zu expected", fd,
                       (long long)st.st_size, sizeof **out);
    return map_fd(fd, out, ei);
}

void oc_ipc_board_unmap(struct oc_ipc_board *b) {
    if (b) munmap(b, sizeof *b);
}

const char *oc_ipc_doing_name(uint32_t doing) {
    static const char *const names[] = {[OC_IPC_DOING_LOADING] = "loading", [OC_IPC_DOING_IDLE] = "idle",
                                        [OC_IPC_DOING_ENCODE] = "encode",   [OC_IPC_DOING_PREFILL] = "prefill",
                                        [OC_IPC_DOING_DECODE] = "decode",   [OC_IPC_DOING_EXIT] = "exit"};
    return doing < sizeof names / sizeof *names ? names[doing] : "?";
}
