/* The model's fibers: a block's threads take turns; lanes of a warp meet in collective instructions, all threads in barriers. */
#include <stdio.h>

#include <deque>
#include <vector>

#include "kernels/cuda/instructions.cuh"

dim3 threadIdx, blockIdx, blockDim, gridDim;
uint8_t *model_smem;
size_t model_smem_bytes;

namespace {

enum state { READY, IN_WARP, IN_BLOCK, DONE };

struct copy {
    uint32_t to;
    const void *from;
};

struct fiber {
    void *sp;
    uint8_t *stack;
    enum state state;
    void *brought;
    std::vector<copy> open;
    std::deque<std::vector<copy>> groups;
};

enum { STACK = 64 << 10, MAX_THREADS = 1024 };

fiber fibers[MAX_THREADS];
int current, n_in_warp[MAX_THREADS / 32];
void *scheduler_sp;
const std::function<void(void)> *job;

extern "C" void model_switch(void **save, void *to);
asm(".text\n.globl model_switch\nmodel_switch:\n"
    "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
    "mov %rsp, (%rdi)\nmov %rsi, %rsp\n"
    "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n");

[[noreturn]] void die(const char *what) {
    fprintf(stderr, "the CUDA model: %s\n", what);
    abort();
}

void yield(enum state s) {
    fibers[current].state = s;
    model_switch(&fibers[current].sp, scheduler_sp);
}

void entry(void) {
    (*job)();
    yield(DONE);
}

void prepare(int i) {
    fiber &f = fibers[i];
    if (!f.stack) f.stack = (uint8_t *)aligned_alloc(64, STACK);
    void **top = (void **)(void *)(f.stack + STACK - 64);
    *--top = NULL;
    *--top = (void *)entry;
    for (int r = 0; r < 6; r++) *--top = NULL;
    f.sp = top, f.state = READY;
    f.open.clear(), f.groups.clear();
}

/* Runs the ready lanes of a warp until none is; whether any ran. */
bool run_warp(int first, int end) {
    bool any = false, again = true;
    while (again) {
        again = false;
        for (int i = first; i < end; i++) {
            if (fibers[i].state != READY) continue;
            current = i, again = any = true;
            threadIdx = dim3((unsigned)i, 0, 0);
            model_switch(&scheduler_sp, fibers[i].sp);
        }
    }
    return any;
}

void run_block(int n) {
    for (int i = 0; i < n; i++) prepare(i);
    memset(n_in_warp, 0, sizeof n_in_warp);
    for (;;) {
        bool any = false;
        for (int w = 0; w < n; w += 32) any = run_warp(w, w + 32 < n ? w + 32 : n) || any;
        if (any) continue;
        int waiting = 0, done = 0;
        for (int i = 0; i < n; i++) waiting += fibers[i].state == IN_BLOCK, done += fibers[i].state == DONE;
        if (done == n) return;
        if (waiting + done != n) die("lanes wait for others of their warp that do not come");
        for (int i = 0; i < n; i++)
            if (fibers[i].state == IN_BLOCK) fibers[i].state = READY;
    }
}

} // namespace

void __syncthreads(void) {
    yield(IN_BLOCK);
}

void model_meet(void *mine, void (*fn)(void *const *all)) {
    int warp = current / 32;
    fibers[current].brought = mine;
    if (++n_in_warp[warp] < 32) {
        yield(IN_WARP);
        return;
    }
    void *all[32];
    for (int i = 0; i < 32; i++) all[i] = fibers[warp * 32 + i].brought;
    fn(all);
    n_in_warp[warp] = 0;
    for (int i = 0; i < 32; i++) fibers[warp * 32 + i].state = READY;
}

static void nothing(void *const *) {}

void __syncwarp(void) {
    model_meet(NULL, nothing);
}

const uint8_t *model_shared(uint32_t at, size_t bytes) {
    if (at % 16 || at + bytes > model_smem_bytes) die("an address outside shared memory, or not aligned");
    return model_smem + at;
}

void cu_copy16(uint32_t to, const void *from) {
    if ((uintptr_t)from % 16) die("a copy from an address that is not aligned");
    model_shared(to, 16);
    fibers[current].open.push_back(copy{to, from});
}

void cu_copies_commit(void) {
    fibers[current].groups.push_back(fibers[current].open);
    fibers[current].open.clear();
}

void model_copies_wait(int left) {
    auto &groups = fibers[current].groups;
    for (; (int)groups.size() > left; groups.pop_front())
        for (const copy &c : groups.front()) memcpy(model_smem + c.to, c.from, 16);
}

void model_launch(const std::function<void(void)> &kernel, dim3 grid, dim3 block, size_t smem) {
    if (block.x > MAX_THREADS || grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535) die("a grid that is not allowed");
    if (smem > 227 * 1024) die("too much shared memory");
    job = &kernel, gridDim = grid, blockDim = block;
    model_smem = (uint8_t *)aligned_alloc(1024, (smem + 1024) / 1024 * 1024), model_smem_bytes = smem;
    for (unsigned z = 0; z < grid.z; z++) {
        for (unsigned y = 0; y < grid.y; y++) {
            for (unsigned x = 0; x < grid.x; x++) {
                blockIdx = dim3(x, y, z);
                memset(model_smem, 0xff, smem);
                run_block((int)block.x);
            }
        }
    }
    free(model_smem);
}
