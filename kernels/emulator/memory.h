// Memory of the emulated device, every two bytes of which know who touched them last: the source of the reports of
// accesses out of bounds, of what nothing has written, and of races.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace emu {

// Who touched a cell, packed: the block's serial number in the process (32 bits), the thread in the block (10), how
// many barriers its warp had passed, of the warp or the block (19: its phase), who else touched the cell with no order
// between (2), and whether atomically (1). 0: nobody.
using Stamp = uint64_t;
constexpr Stamp HOST = 1;     // written by the host; serial numbers start at 1
constexpr Stamp COPYING = 2;  // the target of a cp.async that nobody has waited for
constexpr uint32_t PHASES = 1u << 19;

// Others may have read a cell, or changed it atomically, since what orders accesses last did: a later access must be
// ordered after all of them, although only the last has its stamp there.
enum Others : unsigned { NOBODY, IN_WARP, IN_BLOCK, IN_GRID };

inline Stamp make_stamp(uint32_t serial, unsigned thread, uint32_t phase, bool atomic) {
    return static_cast<Stamp>(serial) << 32 | static_cast<Stamp>(thread) << 22 | phase << 3 | atomic;
}
inline uint32_t serial_of(Stamp s) { return s >> 32; }
inline unsigned thread_of(Stamp s) { return s >> 22 & 0x3ff; }
inline uint32_t phase_of(Stamp s) { return s >> 3 & (PHASES - 1); }
inline Others others_of(Stamp s) { return static_cast<Others>(s >> 1 & 3); }
inline bool atomic_of(Stamp s) { return s & 1; }

// Who touches memory now.
struct Now {
    Stamp stamp;
    uint32_t first;                 // serial number of the launch's first block
    const uint32_t* since_barrier;  // each warp's phase after the last barrier of the block
};

// Whether what left `before` is ordered before `now`: an earlier launch, the same thread, a barrier between, or a
// warp barrier between two lanes of one warp.
inline bool ordered(Stamp before, const Now& now) {
    if (serial_of(before) < now.first) return true;
    const Others others = others_of(before);
    if (others == IN_GRID || serial_of(before) != serial_of(now.stamp)) return false;
    const unsigned warp = thread_of(before) / 32;
    if (phase_of(before) < now.since_barrier[warp]) return true;
    if (others == IN_BLOCK || warp != thread_of(now.stamp) / 32) return false;
    if (phase_of(before) != phase_of(now.stamp)) return true;
    return others == NOBODY && thread_of(before) == thread_of(now.stamp);
}

// The stamp that stands for both.
inline Stamp joined(Stamp before, const Now& now) {
    if (ordered(before, now)) return now.stamp;
    Others others = thread_of(before) == thread_of(now.stamp) ? NOBODY : IN_WARP;
    if (thread_of(before) / 32 != thread_of(now.stamp) / 32) others = IN_BLOCK;
    if (serial_of(before) != serial_of(now.stamp)) others = IN_GRID;
    if (others_of(before) > others) others = others_of(before);
    // One stamp for all, so that what many blocks read is not written by each.
    return others == IN_GRID ? before | IN_GRID << 1 : now.stamp | others << 1;
}

struct Cell {
    std::atomic<Stamp> writer{0}, reader{0};
};
constexpr size_t CELL = 2;  // bytes a cell stands for; kernels write nothing smaller
inline size_t cells_of(size_t offset, size_t bytes) { return (offset + bytes + CELL - 1) / CELL - offset / CELL; }

// What the buffers and shared memory hold before anything is written: NaN in f32, bf16 and f16.
constexpr unsigned char POISON = 0xff;

struct Allocation {
    unsigned char* data;
    size_t bytes;
    Cell* cells;
};

// The allocation that an address lies in, or nullptr.
const Allocation* find(const void* at);
// The allocation that an address in the gaps between them misses least, or nullptr; locks.
const Allocation* nearest(const void* at);

enum class Access { Read, Write, Atomic };

// What is wrong with an access to cells, or nullptr; records it. `global`: other blocks may touch them meanwhile.
// `other`: who touched the cell before.
const char* touch(Cell* cells, size_t count, Access access, bool global, const Now& now, Stamp& other);

}  // namespace emu
