// The scheduler and its checks. The host (Rust) owns the coroutines: it asks a block which thread to resume next
// and resumes it; a thread that must wait yields. Which of the ready threads goes next is drawn from a seed.
#include "emulator.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <vector>

#include "memory.h"

namespace emu {
namespace {

struct Copy {
    void* to;
    const void* from;
    size_t bytes, read;
    Site site;
};

enum class Wait { Ready, Barrier, Warp, Gone };

struct Thread {
    Dim3 place{};
    unsigned index = 0, lane = 0;
    Wait wait = Wait::Ready;
    Site site{};
    unsigned mask = 0;
    const char* instruction = "";
    void* self = nullptr;
    unsigned barriers = 0, warp_barriers = 0;
    std::vector<std::vector<Copy>> groups;  // committed, oldest first
    std::vector<Copy> open;
    void* yielder = nullptr;
    const unsigned char *stack_low = nullptr, *stack_high = nullptr;
};

struct SharedArray {
    const void* key;
    const char* name;
    size_t offset, bytes;
};

}  // namespace

struct Launch {
    const Kernel* kernel;
    Dim3 grid, block;
    size_t shared;
    uint64_t seed;
    uint32_t first_serial;
    std::vector<unsigned char> params;
    std::mutex mutex;
    char report[1024] = "";
};

struct Block {
    Launch* launch;
    uint32_t serial;
    Dim3 index;
    uint64_t random;
    std::vector<Thread> threads;
    std::vector<unsigned> ready;
    unsigned at_barrier = 0, gone = 0;
    bool faulted = false;
    // Shared memory: arrays with gaps between them that belong to nobody.
    static constexpr size_t SHARED_BYTES = 256 * 1024, GAP = 64;
    std::vector<SharedArray> arrays;
    unsigned char* shared;
    Cell* cells;
    size_t shared_used = GAP;
};

namespace {

thread_local Block* block = nullptr;
thread_local Thread* running = nullptr;
thread_local bool checking = true;
void (*yield)(void* yielder) = nullptr;

// Shared memory of the blocks that a thread of the host runs, one after the other. Untouched between blocks.
struct SharedMemory {
    unsigned char* data = static_cast<unsigned char*>(aligned_alloc(128, Block::SHARED_BYTES));
    Cell* cells = static_cast<Cell*>(calloc(Block::SHARED_BYTES / CELL, sizeof(Cell)));

    ~SharedMemory() {
        free(data);
        free(cells);
    }
};
thread_local SharedMemory shared_memory;

uint64_t next_random(uint64_t& state) {  // SplitMix64
    state += 0x9e3779b97f4a7c15;
    uint64_t z = state;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

void report(Block& b, const char* format, ...) __attribute__((format(printf, 2, 3)));
void report(Block& b, const char* format, ...) {
    b.faulted = true;
    std::lock_guard<std::mutex> lock(b.launch->mutex);
    if (b.launch->report[0]) return;
    va_list arguments;
    va_start(arguments, format);
    const int start = snprintf(b.launch->report, sizeof b.launch->report,
                               "%s, block (%u, %u, %u): ", b.launch->kernel->name, b.index.x, b.index.y, b.index.z);
    vsnprintf(b.launch->report + start, sizeof b.launch->report - start, format, arguments);
    va_end(arguments);
}

// A thread with a fault never runs again.
[[noreturn]] void stop() {
    for (;;) yield(running->yielder);
}

void make_ready(Thread& t) {
    t.wait = Wait::Ready;
    block->ready.push_back(t.index);
}

const char* name_of(Access access) {
    return access == Access::Read ? "read" : access == Access::Write ? "write" : "atomic access";
}

void touch_or_stop(Cell* cells, size_t offset, size_t bytes, Access access, const char* memory) {
    const Stamp now =
        stamp(block->serial, running->index, running->barriers, running->warp_barriers, access == Access::Atomic);
    Stamp other = 0;
    const size_t first = offset / CELL, count = cells_of(offset, bytes);
    const uint32_t first_serial = block->launch->first_serial;
    const bool global = cells != block->cells;
    if (const char* wrong = touch(cells + first, count, access, global, now, first_serial, other)) {
        if (other <= COPYING) {
            report(*block, "thread %u %s (%s, byte %zu)", running->index, wrong, memory, offset);
        } else {
            report(*block, "thread %u %s (%s, byte %zu, thread %u of block number %u)", running->index, wrong, memory,
                   offset, thread_of(other), serial_of(other) - first_serial);
        }
        stop();
    }
}

// Every access of a kernel to memory.
void access(const void* address, size_t bytes, Access access, bool aligned) {
    if (!running || !checking) return;
    const auto* at = static_cast<const unsigned char*>(address);
    if (at >= running->stack_low && at < running->stack_high) return;
    if (static_cast<size_t>(at - block->launch->params.data()) < block->launch->params.size()) return;
    if (aligned && reinterpret_cast<uintptr_t>(at) % bytes) {
        report(*block, "thread %u: misaligned %s of %zu bytes at %p", running->index, name_of(access), bytes, address);
        stop();
    }
    const size_t offset = at - block->shared;
    if (offset < Block::SHARED_BYTES) {
        for (const SharedArray& array : block->arrays) {
            if (offset >= array.offset && offset + bytes <= array.offset + array.bytes) {
                return touch_or_stop(block->cells, offset, bytes, access, array.name);
            }
        }
        report(*block, "thread %u: %s of %zu bytes outside of every shared array", running->index, name_of(access),
               bytes);
        stop();
    }
    const Allocation* a = find(at);
    const size_t in = a ? at - a->data : 0;
    if (!a || in + bytes > a->bytes) {
        report(*block, "thread %u: %s of %zu bytes out of bounds: at %zd of a buffer of %zu bytes", running->index,
               name_of(access), bytes, a ? static_cast<ssize_t>(in) : -1, a ? a->bytes : 0);
        stop();
    }
    touch_or_stop(a->cells, in, bytes, access, "global memory");
}

SharedArray& add_array(const void* key, size_t bytes, const char* name) {
    const size_t rounded = (bytes + 15) / 16 * 16;
    if (block->shared_used + rounded + Block::GAP > Block::SHARED_BYTES) {
        report(*block, "shared memory exceeds %zu bytes", Block::SHARED_BYTES);
        stop();
    }
    block->arrays.push_back({key, name, block->shared_used, bytes});
    memset(block->shared + block->shared_used, POISON, rounded);
    block->shared_used += rounded + Block::GAP;
    return block->arrays.back();
}

void mark_copy(const Copy& copy, Stamp writer) {
    const size_t offset = static_cast<unsigned char*>(copy.to) - block->shared;
    Cell* cells = block->cells + offset / CELL;
    for (size_t i = 0; i < cells_of(offset, copy.bytes); i++) cells[i].writer.store(writer, std::memory_order_relaxed);
}

void run_copies(const std::vector<Copy>& copies) {
    const Stamp now = stamp(block->serial, running->index, running->barriers, running->warp_barriers, false);
    for (const Copy& copy : copies) {
        mark_copy(copy, now);
        if (copy.read) access(copy.from, copy.read, Access::Read, true);
        memcpy(copy.to, copy.from, copy.read);
        memset(static_cast<unsigned char*>(copy.to) + copy.read, 0, copy.bytes - copy.read);
    }
}

std::vector<Kernel>& kernels() {
    static std::vector<Kernel> kernels;
    return kernels;
}

struct Layout {
    const char* name;
    size_t size;
    const Field* fields;
    size_t count;
};
std::vector<Layout>& layouts() {
    static std::vector<Layout> layouts;
    return layouts;
}

}  // namespace

Registration::Registration(const Kernel& kernel) { kernels().push_back(kernel); }
Registration::Registration(const char* name, size_t size, const Field* fields, size_t count) {
    layouts().push_back({name, size, fields, count});
}

Dim3 thread_index() { return running->place; }
Dim3 block_index() { return block->index; }
Dim3 block_dim() { return block->launch->block; }
Dim3 grid_dim() { return block->launch->grid; }
unsigned lane() { return running->lane; }

void barrier(Site site) {
    Thread& me = *running;
    me.wait = Wait::Barrier;
    me.site = site;
    if (++block->at_barrier == block->threads.size()) {
        for (Thread& t : block->threads) {
            if (t.site.line != site.line || strcmp(t.site.file, site.file) != 0) {
                report(*block, "divergent barrier: thread %u waits at %s:%d, thread %u at %s:%d", me.index, site.file,
                       site.line, t.index, t.site.file, t.site.line);
                stop();
            }
        }
        block->at_barrier = 0;
        for (Thread& t : block->threads) {
            t.barriers++;
            make_ready(t);
        }
    }
    yield(me.yielder);
}

void collective(unsigned mask, Site site, const char* instruction, void* self, Combine combine) {
    Thread& me = *running;
    if (!(mask >> me.lane & 1)) {
        report(*block, "thread %u: lane %u is not in its own mask %#x of %s at %s:%d", me.index, me.lane, mask,
               instruction, site.file, site.line);
        stop();
    }
    me.wait = Wait::Warp;
    me.site = site;
    me.mask = mask;
    me.instruction = instruction;
    me.self = self;
    Thread* warp = &block->threads[me.index - me.lane];
    void* lanes[32] = {};
    for (unsigned i = 0; i < 32; i++) {
        if (!(mask >> i & 1)) continue;
        const Thread& t = warp[i];
        if (t.wait != Wait::Warp || t.mask != mask) {
            yield(me.yielder);
            return;
        }
        lanes[i] = t.self;
    }
    for (unsigned i = 0; i < 32; i++) {
        const Thread& t = warp[i];
        if ((mask >> i & 1) && (t.site.line != site.line || strcmp(t.instruction, instruction) != 0)) {
            report(*block, "diverged warp: thread %u is at %s at %s:%d, thread %u at %s at %s:%d", me.index,
                   instruction, site.file, site.line, t.index, t.instruction, t.site.file, t.site.line);
            stop();
        }
    }
    if (combine) {
        checking = false;  // it reads other lanes' stacks
        combine(lanes, mask);
        checking = true;
    }
    for (unsigned i = 0; i < 32; i++) {
        if (!(mask >> i & 1)) continue;
        if (!combine && mask == ~0u) warp[i].warp_barriers++;
        make_ready(warp[i]);
    }
    yield(me.yielder);
}

void* dynamic_shared() { return block->shared + Block::GAP; }

void* static_shared(const void* key, size_t bytes, const char* name) {
    for (const SharedArray& array : block->arrays) {
        if (array.key == key) return block->shared + array.offset;
    }
    return block->shared + add_array(key, bytes, name).offset;
}

void copy_async(void* to, const void* from, size_t bytes, size_t read, Site site) {
    if (reinterpret_cast<uintptr_t>(to) % bytes || (read && reinterpret_cast<uintptr_t>(from) % bytes)) {
        report(*block, "thread %u: misaligned cp.async of %zu bytes at %s:%d", running->index, bytes, site.file,
               site.line);
        stop();
    }
    if (static_cast<size_t>(static_cast<unsigned char*>(to) - block->shared) >= Block::SHARED_BYTES) {
        report(*block, "thread %u: cp.async to what is not shared memory at %s:%d", running->index, site.file,
               site.line);
        stop();
    }
    access(to, bytes, Access::Write, true);
    running->open.push_back({to, from, bytes, read, site});
    mark_copy(running->open.back(), COPYING);
}

void commit_copies() {
    running->groups.push_back(std::move(running->open));
    running->open.clear();
}

void wait_copies(unsigned left) {
    while (running->groups.size() > left) {
        run_copies(running->groups.front());
        running->groups.erase(running->groups.begin());
    }
}

uint32_t atomic_add(uint32_t* at, uint32_t value) {
    access(at, sizeof *at, Access::Atomic, true);
    return __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
}
unsigned long long atomic_add(unsigned long long* at, unsigned long long value) {
    access(at, sizeof *at, Access::Atomic, true);
    return __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
}

void check_read(const void* at, size_t bytes) { access(at, bytes, Access::Read, true); }

}  // namespace emu

using namespace emu;

extern "C" {

void adali_emulator_set_yield(void (*f)(void*)) { emu::yield = f; }

const Kernel* adali_emulator_kernel(const char* name, size_t length) {
    for (const Kernel& k : kernels()) {
        if (strlen(k.name) == length && memcmp(k.name, name, length) == 0) return &k;
    }
    return nullptr;
}
size_t adali_emulator_kernel_params(const Kernel* k) { return k->params; }
unsigned adali_emulator_kernel_threads(const Kernel* k) { return k->threads; }
const char* adali_emulator_kernel_name(size_t i) { return i < kernels().size() ? kernels()[i].name : nullptr; }

// The `i`-th parameter struct and the `f`-th of its fields; nullptr past the last.
const char* adali_emulator_layout(size_t i, size_t* size) {
    if (i >= layouts().size()) return nullptr;
    *size = layouts()[i].size;
    return layouts()[i].name;
}
const char* adali_emulator_field(size_t i, size_t f, size_t* offset, size_t* size) {
    if (f >= layouts()[i].count) return nullptr;
    const Field& field = layouts()[i].fields[f];
    *offset = field.offset;
    *size = field.size;
    return field.name;
}

Launch* adali_emulator_launch_begin(const Kernel* kernel, const unsigned grid[3], const unsigned threads[3],
                                    size_t shared, const void* params, uint64_t seed) {
    static std::atomic<uint32_t> serial{1};
    auto* launch = new Launch;
    launch->kernel = kernel;
    launch->grid = {grid[0], grid[1], grid[2]};
    launch->block = {threads[0], threads[1], threads[2]};
    launch->shared = shared;
    launch->seed = seed;
    const auto* bytes = static_cast<const unsigned char*>(params);
    launch->params.assign(bytes, bytes + kernel->params);
    launch->first_serial = serial.fetch_add(grid[0] * grid[1] * grid[2]);
    return launch;
}

// Copies the report of the first fault, empty where there was none.
void adali_emulator_launch_end(Launch* launch, char* report, size_t size) {
    snprintf(report, size, "%s", launch->report);
    delete launch;
}

// A block, to be run by the calling thread of the host from begin to end.
Block* adali_emulator_block_begin(Launch* launch, uint32_t number) {
    auto* b = new Block;
    b->launch = launch;
    b->serial = launch->first_serial + number;
    const Dim3 g = launch->grid, n = launch->block;
    b->index = {number % g.x, number / g.x % g.y, number / g.x / g.y};
    b->random = launch->seed ^ (0x9e3779b97f4a7c15 * (number + 1));
    b->threads.resize(n.x * n.y * n.z);
    for (unsigned i = 0; i < b->threads.size(); i++) {
        Thread& t = b->threads[i];
        t.index = i;
        t.lane = i % 32;
        t.place = {i % n.x, i / n.x % n.y, i / n.x / n.y};
        b->ready.push_back(i);
    }
    b->shared = shared_memory.data;
    b->cells = shared_memory.cells;
    if (!b->shared || !b->cells) abort();
    emu::block = b;
    if (launch->shared) add_array(nullptr, launch->shared, "dynamic shared memory");
    // Static arrays lie behind the dynamic one, whose place is fixed.
    return b;
}

// The thread to resume next; -1 when all are done, -2 after a fault.
int adali_emulator_block_next(Block* b) {
    emu::running = nullptr;
    if (b->faulted) return -2;
    if (!b->ready.empty()) {
        const size_t pick = next_random(b->random) % b->ready.size();
        const unsigned i = b->ready[pick];
        b->ready[pick] = b->ready.back();
        b->ready.pop_back();
        emu::running = &b->threads[i];
        return static_cast<int>(i);
    }
    if (b->gone == b->threads.size()) return -1;
    for (const Thread& t : b->threads) {
        if (t.wait == Wait::Barrier) {
            report(*b, "divergent barrier: %u of %zu threads wait at %s:%d, the others have left or wait elsewhere",
                   b->at_barrier, b->threads.size(), t.site.file, t.site.line);
            return -2;
        }
    }
    for (const Thread& t : b->threads) {
        if (t.wait == Wait::Warp) {
            report(*b, "lost lanes: thread %u waits at %s at %s:%d for lanes of mask %#x that never arrive", t.index,
                   t.instruction, t.site.file, t.site.line, t.mask);
            return -2;
        }
    }
    return -2;
}

// The body of a thread's coroutine.
void adali_emulator_thread(Block* b, unsigned index, void* yielder, const void* stack_low, const void* stack_high) {
    Thread& t = b->threads[index];
    t.yielder = yielder;
    t.stack_low = static_cast<const unsigned char*>(stack_low);
    t.stack_high = static_cast<const unsigned char*>(stack_high);
    b->launch->kernel->run(b->launch->params.data());
    for (const auto& group : t.groups) {
        if (!group.empty()) t.open.insert(t.open.end(), group.begin(), group.end());
    }
    if (!t.open.empty()) {
        report(*b, "thread %u leaves without waiting for its cp.async at %s:%d", index, t.open[0].site.file,
               t.open[0].site.line);
    }
    t.wait = Wait::Gone;
    b->gone++;
}

void adali_emulator_block_end(Block* b) {
    emu::running = nullptr;
    emu::block = nullptr;
    memset(static_cast<void*>(b->cells), 0, b->shared_used / CELL * sizeof(Cell));
    delete b;
}

// What g++ -fsanitize=thread calls at every access.
#define HOOK(n)                                                          \
    void __tsan_read##n(void* at) { access(at, n, Access::Read, true); } \
    void __tsan_write##n(void* at) { access(at, n, Access::Write, true); }
HOOK(1)
HOOK(2) HOOK(4) HOOK(8) HOOK(16)
#define UNALIGNED(n)                                                                \
    void __tsan_unaligned_read##n(void* at) { access(at, n, Access::Read, false); } \
    void __tsan_unaligned_write##n(void* at) { access(at, n, Access::Write, false); }
    UNALIGNED(2) UNALIGNED(4) UNALIGNED(8) UNALIGNED(16) void __tsan_read_range(void* at, size_t bytes) {
    access(at, bytes, Access::Read, false);
}
void __tsan_write_range(void* at, size_t bytes) { access(at, bytes, Access::Write, false); }
// What g++ -fsanitize=alignment calls where an address does not suit its type; vectors may have been taken apart
// when the hooks above see them.
struct TypeMismatch {
    const char* file;
    uint32_t line, column;
    const void* type;
    unsigned char log_alignment, kind;
};
void __ubsan_handle_type_mismatch_v1(const TypeMismatch* mismatch, void*) {
    if (!running || !checking) return;
    report(*block, "thread %u: misaligned access, not a multiple of %u bytes, at %s:%u", running->index,
           1u << mismatch->log_alignment, mismatch->file, mismatch->line);
    stop();
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
}
