/* The model's fibers: a block's threads take turns; lanes of a warp meet in collective instructions, all threads in barriers. */
#include <stdio.h>

#include <deque>
#include <map>
#include <vector>

#include "kernels/cuda/instructions.cuh"
#include "kernels/cuda/wgmma.cuh"

dim3 threadIdx, blockIdx, blockDim, gridDim;
uint8_t *model_smem;
size_t model_smem_bytes;

namespace {

enum state { READY, IN_WARP, IN_BLOCK, AT_BARRIER, IN_MEETING, DONE };

struct copy {
    uint32_t to;
    const void *from;
};

struct bulk {
    uint32_t to;
    const void *from;
    int bytes;
};

struct barrier {
    int n, arrived;
    long expected; /* bytes that have not landed */
    unsigned phase;
    std::vector<bulk> flying;
};

struct product {
    float *c;
    int n;
    uint64_t a, b;
};

struct fiber {
    void *sp;
    uint8_t *stack;
    enum state state;
    void *brought;
    std::vector<copy> open;
    std::deque<std::vector<copy>> groups;
    std::vector<product> open_products;
    std::deque<std::vector<product>> products;
};

enum { STACK = 64 << 10, MAX_THREADS = 1024, MAX_LOOKS = 1000 };

fiber fibers[MAX_THREADS];
int current, n_in_warp[MAX_THREADS / 32], n_in_meeting, n_looks;
std::map<uint32_t, barrier> barriers;
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
    f.open.clear(), f.groups.clear(), f.open_products.clear(), f.products.clear();
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
    barriers.clear(), n_in_meeting = n_looks = 0;
    for (;;) {
        bool any = false;
        for (int w = 0; w < n; w += 32) any = run_warp(w, w + 32 < n ? w + 32 : n) || any;
        if (any) continue;
        int waiting = 0, done = 0, looking = 0;
        for (int i = 0; i < n; i++) {
            if (fibers[i].state != AT_BARRIER) continue;
            fibers[i].state = READY, looking++;
        }
        if (looking && ++n_looks > MAX_LOOKS) die("a phase of a barrier does not end");
        if (looking) continue;
        for (int i = 0; i < n; i++) waiting += fibers[i].state == IN_BLOCK, done += fibers[i].state == DONE;
        if (done == n) return;
        if (waiting + done != n) die("lanes wait for others of their warp that do not come");
        for (int i = 0; i < n; i++)
            if (fibers[i].state == IN_BLOCK) fibers[i].state = READY;
    }
}

struct barrier &barrier_at(uint32_t at) {
    auto b = barriers.find(at);
    if (b == barriers.end()) die("a barrier that was not made");
    return b->second;
}

void land(struct barrier &b) {
    for (const bulk &c : b.flying) memcpy(model_smem + c.to, c.from, (size_t)c.bytes), b.expected -= c.bytes;
    b.flying.clear();
    if (b.arrived == b.n && b.expected == 0) b.arrived = 0, b.phase++, n_looks = 0;
}

/* Element (row, k) of an operand: rows of 128 bytes, 16 bytes exchanged by bits 7 to 9 of their address. */
float operand_value(uint64_t operand, int row, int k) {
    uint32_t at = ((uint32_t)(operand & 0x3fff) << 4) + (uint32_t)(row / 8) * ((uint32_t)(operand >> 32 & 0x3fff) << 4) + (uint32_t)(row % 8 * 128 + k * 2);
    if (operand >> 62 != 1) die("an operand of another swizzle");
    at ^= (at >> 7 & 7) << 4;
    uint16_t bits;
    memcpy(&bits, model_shared(at & ~15u, 16) + at % 16, 2);
    return __half2float(__ushort_as_half(bits));
}

void multiply(int thread, const product &p) {
    int lane = thread % 32, warp = thread / 32 % 4;
    float a[2][16];
    for (int h = 0; h < 2; h++)
        for (int k = 0; k < 16; k++) a[h][k] = operand_value(p.a, warp * 16 + lane / 4 + h * 8, k);
    for (int column = 0; column < p.n; column++) {
        if (column % 8 / 2 != lane % 4) continue;
        double sum[2] = {0, 0};
        for (int k = 0; k < 16; k++) {
            double b = operand_value(p.b, column, k);
            for (int h = 0; h < 2; h++) sum[h] += a[h][k] * b;
        }
        for (int h = 0; h < 2; h++) {
            float *c = &p.c[column / 8 * 4 + h * 2 + column % 2];
            *c = (float)(*c + sum[h]);
        }
    }
}

} // namespace

void cu_barrier_make(uint32_t at, int n) {
    if (at % 8 || at + 8 > model_smem_bytes) die("a barrier outside shared memory, or not aligned");
    barriers[at] = barrier{n, 0, 0, 0, {}};
}

static void arrive(struct barrier &b) {
    if (b.arrived == b.n) die("a barrier has too many arrivals");
    b.arrived++;
    if (b.arrived == b.n && b.expected == 0) land(b);
}

void cu_barrier_arrive(uint32_t at) {
    arrive(barrier_at(at));
}

void cu_barrier_expect(uint32_t at, int bytes) {
    struct barrier &b = barrier_at(at);
    b.expected += bytes;
    arrive(b);
}

void cu_barrier_wait(uint32_t at, uint32_t parity) {
    struct barrier &b = barrier_at(at);
    for (land(b); b.phase % 2 == parity; land(b)) yield(AT_BARRIER);
}

void cu_bulk_copy(uint32_t to, const void *from, int bytes, uint32_t barrier) {
    if ((uintptr_t)from % 16 || bytes % 16 || to % 16 || to + (size_t)bytes > model_smem_bytes) die("a bulk copy that is not allowed");
    barrier_at(barrier).flying.push_back(bulk{to, from, bytes});
}

void model_meet_threads(int n) {
    if (++n_in_meeting < n) {
        yield(IN_MEETING);
        return;
    }
    n_in_meeting = 0;
    for (fiber &f : fibers)
        if (f.state == IN_MEETING) f.state = READY;
}

void cu_wgmma_commit(void) {
    fibers[current].products.push_back(fibers[current].open_products);
    fibers[current].open_products.clear();
}

void model_wgmma(float *c, int n, uint64_t a, uint64_t b) {
    fibers[current].open_products.push_back(product{c, n, a, b});
}

void model_wgmma_wait(int left) {
    auto &groups = fibers[current].products;
    for (; (int)groups.size() > left; groups.pop_front())
        for (const product &p : groups.front()) multiply(current, p);
}

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
