// The emulator's own interface to the CUDA language header (cuda.h): who runs, how a thread waits, what memory it
// may touch. Everything here is called from inside an emulated thread, which is a coroutine; see schedule.cpp.
#pragma once
#include <cstddef>
#include <cstdint>

namespace emu {

struct Dim3 {
    unsigned x, y, z;
};

// A place in a kernel's source; the caller's as a default argument.
struct Site {
    const char* file;
    int line;

    static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
        return {file, line};
    }
};

// Who runs.
Dim3 thread_index();
Dim3 block_index();
Dim3 block_dim();
Dim3 grid_dim();
unsigned lane();

// __syncthreads(): waits for all threads of the block, at the same place of the source.
void barrier(Site site);

// A warp instruction: waits for every lane of `mask`; the last to arrive calls `combine` with each lane's `self`.
using Combine = void (*)(void* const (&lanes)[32], unsigned mask);
void collective(unsigned mask, Site site, const char* instruction, void* self, Combine combine);

// __syncwarp(): waits for all lanes; a mask of some is refused.
void warp_barrier(unsigned mask, Site site);

// Dynamic shared memory, and static shared memory named by `key`.
void* dynamic_shared();
void* static_shared(const void* key, size_t bytes, const char* name);

// Asynchronous copies: carried out at the wait, not before; until then nobody may touch the target. `read` is 0 or
// `bytes`; the rest is zeros.
void copy_async(void* to, const void* from, size_t bytes, size_t read, Site site);
void commit_copies();
void wait_copies(unsigned groups_left);

// Atomic additions; old value.
uint32_t atomic_add(uint32_t* at, uint32_t value);
unsigned long long atomic_add(unsigned long long* at, unsigned long long value);
uint32_t atomic_cas(uint32_t* at, uint32_t expected, uint32_t value);
unsigned long long atomic_cas(unsigned long long* at, unsigned long long expected, unsigned long long value);

// Checks a row of shared memory that a combine function then reads for the lane: there the compiler announces nothing.
void check_row(const void* row, size_t bytes, const char* instruction, Site site);

// Kernels register themselves before main.
struct Kernel {
    const char* name;
    size_t params;
    unsigned threads;
    void (*run)(const void* params);
};
struct Field {
    const char* name;
    size_t offset, size;
};
struct Registration {
    explicit Registration(const Kernel& kernel);
    Registration(const char* parameters, size_t size, const Field* fields, size_t count);
};

}  // namespace emu
