// What the emulator's own files share: a launch, its blocks and their threads, and how a fault is reported.
#pragma once
#include <mutex>
#include <vector>

#include "emulator.h"
#include "memory.h"

namespace emu {

// An asynchronous copy that nobody has waited for.
struct Copy {
    void* to;
    const void* from;
    size_t bytes, read;
    Site site;
};

enum class Wait { Ready, Barrier, Warp, Gone };

struct Thread {
    // Accesses and waits: far more than any kernel makes, so that one without end is reported.
    static constexpr uint32_t BUDGET = 1u << 26;

    Dim3 place{};
    unsigned index = 0, lane = 0;
    Wait wait = Wait::Ready;
    Site site{};  // where it waits, with the two below for a warp instruction
    unsigned mask = 0;
    const char* instruction = "";
    void* self = nullptr;
    uint32_t budget = BUDGET;
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

struct Launch {
    const Kernel* kernel;
    Dim3 grid, block;
    size_t shared;
    uint64_t seed;
    uint32_t first_serial;
    std::vector<unsigned char> params;
    std::atomic<bool> faulted{false};
    std::mutex mutex;
    char report[1024] = "";  // of the first fault
};

struct Block {
    static constexpr unsigned WARPS = 32;

    Launch* launch;
    uint32_t serial;
    Dim3 index;
    uint64_t random;
    std::vector<Thread> threads;
    std::vector<unsigned> ready;
    unsigned at_barrier = 0;
    size_t gone = 0;
    // For each warp, the barriers it has passed, and how many those were after the last of the whole block.
    uint32_t phases[WARPS] = {}, since_barrier[WARPS] = {};
    // Shared memory: the dynamic array, then the static ones as they are reached, with gaps that belong to nobody.
    std::vector<SharedArray> arrays;
    unsigned char* shared = nullptr;
    Cell* cells = nullptr;
    size_t shared_end = 0, shared_bytes = 0;
};

// The block and the thread that this thread of the host runs; nullptr between them.
extern __thread Block* block;
extern __thread Thread* running;
// Off while a combine function reads other lanes' stacks.
extern __thread bool checking;

// Only the first report of a launch is kept.
void report(const char* format, ...) __attribute__((format(printf, 1, 2)));
// Leaves the running thread, which never runs again.
[[noreturn]] void stop();
// Takes one access or wait from the running thread's budget.
inline void spend() {
    if (--running->budget) return;
    report("thread %u does not end: it has made %u accesses and waits", running->index, Thread::BUDGET);
    stop();
}

// Every access of a kernel to memory.
void access(const void* address, size_t bytes, Access access, bool aligned);

// Shared memory of a block, from its begin to its end.
void open_shared(Block& b);
void close_shared(Block& b);
bool in_shared(const Block& b, const void* at);
// The array that all these bytes lie in, or nullptr.
const SharedArray* shared_array(const Block& b, size_t offset, size_t bytes);
// A thread leaves: reports copies that it has not waited for.
void check_copies(const Thread& t);

}  // namespace emu
