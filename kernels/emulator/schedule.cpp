// The scheduler. The host (Rust) owns the coroutines: it asks a block which thread to resume next and resumes it; a
// thread that must wait yields. Which of the ready threads goes next is drawn from a seed.
#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "block.h"

namespace emu {

__thread Block* block = nullptr;
__thread Thread* running = nullptr;
__thread bool checking = true;

namespace {

void (*yield)(void* yielder) = nullptr;

uint64_t next_random(uint64_t& state) {  // SplitMix64
    state += 0x9e3779b97f4a7c15;
    uint64_t z = state;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

void make_ready(Thread& t) {
    t.wait = Wait::Ready;
    block->ready.push_back(t.index);
}

bool same_place(const Site& a, const Site& b) { return a.line == b.line && strcmp(a.file, b.file) == 0; }

void next_phase(unsigned warp) {
    if (++block->phases[warp] < PHASES) return;
    report("warp %u passes %u barriers, more than the emulator counts", warp, PHASES);
    stop();
}

// All threads have come to a barrier.
void pass_barrier(const Thread& me) {
    for (const Thread& t : block->threads) {
        if (!same_place(t.site, me.site)) {
            report("divergent barrier: thread %u waits at %s:%d, thread %u at %s:%d", me.index, me.site.file,
                   me.site.line, t.index, t.site.file, t.site.line);
            stop();
        }
    }
    block->at_barrier = 0;
    for (unsigned warp = 0; warp < block->threads.size() / 32; warp++) {
        next_phase(warp);
        block->since_barrier[warp] = block->phases[warp];
    }
    for (Thread& t : block->threads) make_ready(t);
}

// A block in which no thread is ready before all have left.
void report_stuck(const Block& b) {
    const auto first = [&](Wait wait) {
        const auto waits = [&](const Thread& t) { return t.wait == wait; };
        const auto t = std::find_if(b.threads.begin(), b.threads.end(), waits);
        return t == b.threads.end() ? nullptr : &*t;
    };
    if (const Thread* t = first(Wait::Barrier)) {
        report("divergent barrier: %u of %zu threads wait at %s:%d, the others have left or wait elsewhere",
               b.at_barrier, b.threads.size(), t->site.file, t->site.line);
    } else if (const Thread* t = first(Wait::Warp)) {
        report("lost lanes: thread %u waits at %s at %s:%d for lanes of mask %#x that never arrive", t->index,
               t->instruction, t->site.file, t->site.line, t->mask);
    }
}

}  // namespace

void report(const char* format, ...) {
    Launch& launch = *block->launch;
    std::lock_guard<std::mutex> lock(launch.mutex);
    if (launch.faulted.exchange(true)) return;
    const Dim3 at = block->index;
    va_list arguments;
    va_start(arguments, format);
    const int start = snprintf(launch.report, sizeof launch.report, "%s, block (%u, %u, %u): ", launch.kernel->name,
                               at.x, at.y, at.z);
    vsnprintf(launch.report + start, sizeof launch.report - start, format, arguments);
    va_end(arguments);
}

void stop() {
    for (;;) yield(running->yielder);
}

Dim3 thread_index() { return running->place; }
Dim3 block_index() { return block->index; }
Dim3 block_dim() { return block->launch->block; }
Dim3 grid_dim() { return block->launch->grid; }
unsigned lane() { return running->lane; }

void barrier(Site site) {
    Thread& me = *running;
    spend();
    me.wait = Wait::Barrier;
    me.site = site;
    if (++block->at_barrier == block->threads.size()) pass_barrier(me);
    yield(me.yielder);
}

void collective(unsigned mask, Site site, const char* instruction, void* self, Combine combine) {
    Thread& me = *running;
    spend();
    if (!(mask >> me.lane & 1)) {
        report("thread %u: lane %u is not in its own mask %#x of %s at %s:%d", me.index, me.lane, mask, instruction,
               site.file, site.line);
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
        if ((mask >> i & 1) && (!same_place(t.site, site) || strcmp(t.instruction, instruction) != 0)) {
            report("diverged warp: thread %u is at %s at %s:%d, thread %u at %s at %s:%d", me.index, instruction,
                   site.file, site.line, t.index, t.instruction, t.site.file, t.site.line);
            stop();
        }
    }
    if (combine) {
        checking = false;
        combine(lanes, mask);
        checking = true;
    } else {
        next_phase(me.index / 32);
    }
    for (unsigned i = 0; i < 32; i++) {
        if (mask >> i & 1) make_ready(warp[i]);
    }
    yield(me.yielder);
}

void warp_barrier(unsigned mask, Site site) {
    if (mask != ~0u) {
        report("thread %u: __syncwarp of part of a warp, mask %#x, at %s:%d: the emulator orders whole warps alone",
               running->index, mask, site.file, site.line);
        stop();
    }
    collective(mask, site, "__syncwarp", nullptr, nullptr);
}

}  // namespace emu

using namespace emu;

extern "C" {

void adali_emulator_set_yield(void (*f)(void*)) { emu::yield = f; }

// nullptr when the serial numbers of blocks, 32 bits in a process, are used up.
Launch* adali_emulator_launch_begin(const Kernel* kernel, const unsigned grid[3], const unsigned threads[3],
                                    size_t shared, const void* params, uint64_t seed) {
    static std::atomic<uint64_t> serials{1};
    const uint64_t blocks = uint64_t(1) * grid[0] * grid[1] * grid[2], first = serials.fetch_add(blocks);
    if (first + blocks > UINT32_MAX) return nullptr;
    auto* launch = new Launch;
    launch->kernel = kernel;
    launch->grid = {grid[0], grid[1], grid[2]};
    launch->block = {threads[0], threads[1], threads[2]};
    launch->shared = shared;
    launch->seed = seed;
    const auto* bytes = static_cast<const unsigned char*>(params);
    launch->params.assign(bytes, bytes + kernel->params);
    launch->first_serial = static_cast<uint32_t>(first);
    return launch;
}

// Copies the report of the first fault, empty where there was none.
void adali_emulator_launch_end(Launch* launch, char* report, size_t size) {
    snprintf(report, size, "%s", launch->report);
    delete launch;
}

// A block, to be run by the calling thread of the host from begin to end; nullptr after a fault of the launch.
Block* adali_emulator_block_begin(Launch* launch, uint32_t number) {
    if (launch->faulted) return nullptr;
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
    open_shared(*b);
    emu::block = b;
    return b;
}

// The thread to resume next; -1 when all are done or after a fault of the launch.
int adali_emulator_block_next(Block* b) {
    emu::running = nullptr;
    if (b->launch->faulted.load(std::memory_order_relaxed)) return -1;
    if (b->ready.empty()) {
        if (b->gone < b->threads.size()) report_stuck(*b);
        return -1;
    }
    const size_t pick = next_random(b->random) % b->ready.size();
    const unsigned i = b->ready[pick];
    b->ready[pick] = b->ready.back();
    b->ready.pop_back();
    emu::running = &b->threads[i];
    return static_cast<int>(i);
}

// The body of a thread's coroutine.
void adali_emulator_thread(Block* b, unsigned index, void* yielder, const void* stack_low, const void* stack_high) {
    Thread& t = b->threads[index];
    t.yielder = yielder;
    t.stack_low = static_cast<const unsigned char*>(stack_low);
    t.stack_high = static_cast<const unsigned char*>(stack_high);
    b->launch->kernel->run(b->launch->params.data());
    check_copies(t);
    t.wait = Wait::Gone;
    b->gone++;
}

void adali_emulator_block_end(Block* b) {
    emu::running = nullptr;
    emu::block = nullptr;
    close_shared(*b);
    delete b;
}
}
