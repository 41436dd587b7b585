// Memory of the emulated device, every two bytes of which know who touched them last: the source of the reports of
// accesses out of bounds, of what nothing has written, and of races.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace emu {

// Who touched a cell, packed: the block's serial number in the process (32 bits), the thread in the block (10), how
// many barriers (12) and warp barriers (9) it had passed, and whether atomically (1). 0: nobody.
using Stamp = uint64_t;
constexpr Stamp HOST = 1;  // written by the host; serial numbers start at 1

inline Stamp stamp(uint32_t serial, unsigned thread, unsigned barriers, unsigned warp_barriers, bool atomic) {
    return static_cast<Stamp>(serial) << 32 | static_cast<Stamp>(thread) << 22 | (barriers & 0xfff) << 10 |
           (warp_barriers & 0x1ff) << 1 | atomic;
}
inline uint32_t serial_of(Stamp s) { return s >> 32; }
inline unsigned thread_of(Stamp s) { return s >> 22 & 0x3ff; }
inline bool atomic_of(Stamp s) { return s & 1; }

// Whether what left `before` is ordered before `now`: an earlier launch, the same thread, a barrier between, or a
// warp barrier between two lanes of one warp. `first` is the serial number of the launch's first block.
inline bool ordered(Stamp before, Stamp now, uint32_t first) {
    if (before <= HOST || serial_of(before) < first) return true;
    if (serial_of(before) != serial_of(now)) return false;
    const bool same_warp = thread_of(before) / 32 == thread_of(now) / 32;
    return thread_of(before) == thread_of(now) || (before >> 10 & 0xfff) != (now >> 10 & 0xfff) ||
           (same_warp && (before >> 1 & 0x1ff) != (now >> 1 & 0x1ff));
}

struct Cell {
    std::atomic<Stamp> writer{0}, reader{0};
};
constexpr size_t CELL = 2;  // bytes a cell stands for

// What the buffers and shared memory hold before anything is written: NaN in f32, bf16 and f16.
constexpr unsigned char POISON = 0xff;

struct Allocation {
    unsigned char* data;
    size_t bytes;
    Cell* cells;
};

// The allocation that an address lies in, or nullptr.
const Allocation* find(const void* at);

enum class Access { Read, Write, Atomic };

// What is wrong with an access to cells, or nullptr; records it.
const char* touch(Cell* cells, size_t count, Access access, Stamp now, uint32_t first, Stamp& other);

}  // namespace emu
