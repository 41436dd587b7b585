#include "memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <new>

namespace emu {
namespace {

// One range of addresses for all buffers: a page has one owner, found without a lock. Each buffer keeps a gap before
// and behind it, so that an index far past its end meets nobody else's memory.
constexpr size_t PAGE = 4096, LARGEST_RANGE = size_t(1) << 40, LEAST_GAP = size_t(1) << 20;

void* map(size_t bytes) {
    void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return at == MAP_FAILED ? nullptr : at;
}

// A buffer with its gaps.
struct Reservation {
    size_t pages;
    const Allocation* allocation;
};

struct Heap {
    size_t range = LARGEST_RANGE;
    unsigned char* base = nullptr;
    std::atomic<Allocation*>* owners = nullptr;
    std::mutex mutex;
    std::map<size_t, Reservation> used;  // by first page

    // As much as the system allows.
    Heap() {
        while (range > LEAST_GAP && !(base = static_cast<unsigned char*>(map(range)))) range /= 2;
        owners = static_cast<std::atomic<Allocation*>*>(map(range / PAGE * sizeof(void*)));
    }
};

Heap& heap() {
    static Heap heap;
    return heap;
}

size_t pages_of(size_t bytes) { return bytes / PAGE + 1; }
size_t gap_of(size_t bytes) { return std::max(pages_of(bytes), LEAST_GAP / PAGE); }

}  // namespace

const Allocation* find(const void* at) {
    Heap& h = heap();
    const size_t offset = static_cast<const unsigned char*>(at) - h.base;
    return offset < h.range ? h.owners[offset / PAGE].load(std::memory_order_acquire) : nullptr;
}

const Allocation* nearest(const void* at) {
    Heap& h = heap();
    std::lock_guard<std::mutex> lock(h.mutex);
    const size_t page = static_cast<size_t>(static_cast<const unsigned char*>(at) - h.base) / PAGE;
    auto entry = h.used.upper_bound(page);
    if (entry == h.used.begin()) return nullptr;
    --entry;
    return page < entry->first + entry->second.pages ? entry->second.allocation : nullptr;
}

// Other blocks may touch cells of global memory at the same moment: all is done in one order, so that of two blocks
// that each leave a mark and then look for the other's, one sees it.
template <bool GLOBAL>
constexpr std::memory_order ORDER = GLOBAL ? std::memory_order_seq_cst : std::memory_order_relaxed;

// False where `before` was no longer what the cell holds; then it is now.
template <bool GLOBAL>
static bool replaced(std::atomic<Stamp>& mark, Stamp& before, Stamp after) {
    if (before == after) return true;
    if (GLOBAL) return mark.compare_exchange_strong(before, after);
    mark.store(after, std::memory_order_relaxed);
    return true;
}

template <bool GLOBAL>
static const char* read(Cell* cells, size_t count, const Now& now, Stamp& other) {
    for (size_t i = 0; i < count; i++) {
        Stamp before = cells[i].reader.load(ORDER<GLOBAL>);
        while (!replaced<GLOBAL>(cells[i].reader, before, joined(before, now))) continue;
    }
    for (size_t i = 0; i < count; i++) {
        other = cells[i].writer.load(ORDER<GLOBAL>);
        if (other == 0) return "reads what nothing has written";
        if (other == COPYING) return "reads what a cp.async still copies";
        if (!ordered(other, now)) return "reads without a barrier what another thread writes";
    }
    return nullptr;
}

template <bool GLOBAL>
static const char* write(Cell* cells, size_t count, bool atomic, const Now& now, Stamp& other) {
    for (size_t i = 0; i < count; i++) {
        other = cells[i].writer.load(ORDER<GLOBAL>);
        Stamp after;
        do {
            if (atomic && other == 0) return "reads what nothing has written";
            if (other == COPYING) return "writes where a cp.async still copies";
            const bool both_atomic = atomic && atomic_of(other);
            if (!both_atomic && !ordered(other, now)) return "writes without a barrier where another thread writes";
            after = both_atomic ? joined(other, now) : now.stamp;
        } while (!replaced<GLOBAL>(cells[i].writer, other, after));
    }
    for (size_t i = 0; i < count; i++) {
        other = cells[i].reader.load(ORDER<GLOBAL>);
        if (!ordered(other, now)) return "writes without a barrier what another thread reads";
    }
    return nullptr;
}

const char* touch(Cell* cells, size_t count, Access access, bool global, const Now& now, Stamp& other) {
    const bool atomic = access == Access::Atomic;
    if (access == Access::Read) {
        return global ? read<true>(cells, count, now, other) : read<false>(cells, count, now, other);
    }
    return global ? write<true>(cells, count, atomic, now, other) : write<false>(cells, count, atomic, now, other);
}

}  // namespace emu

using emu::Allocation;

extern "C" {

// Device memory, poisoned; nullptr when there is none left.
void* adali_emulator_allocate(size_t bytes) {
    auto& h = emu::heap();
    if (!h.base || !h.owners || bytes > h.range / 4) return nullptr;
    const size_t gap = emu::gap_of(bytes), own = emu::pages_of(bytes), pages = gap + own + gap;
    std::lock_guard<std::mutex> lock(h.mutex);
    size_t start = 0;
    for (const auto& [first, reservation] : h.used) {
        if (start + pages <= first) break;
        start = first + reservation.pages;
    }
    if (start + pages > h.range / emu::PAGE) return nullptr;
    const size_t cells = emu::cells_of(0, bytes) * sizeof(emu::Cell), page = start + gap;
    void* shadow = emu::map(cells ? cells : 1);
    if (!shadow) return nullptr;
    auto* made = new (std::nothrow) Allocation{h.base + page * emu::PAGE, bytes, static_cast<emu::Cell*>(shadow)};
    if (!made) return nullptr;
    memset(made->data, emu::POISON, bytes);
    h.used.emplace(start, emu::Reservation{pages, made});
    for (size_t i = 0; i < own; i++) h.owners[page + i].store(made, std::memory_order_release);
    return made->data;
}

void adali_emulator_free(void* at) {
    auto& h = emu::heap();
    std::lock_guard<std::mutex> lock(h.mutex);
    const Allocation* gone = emu::find(at);
    if (!gone || gone->data != at) abort();  // the driver frees what it has allocated, once
    const size_t page = (gone->data - h.base) / emu::PAGE, own = emu::pages_of(gone->bytes);
    for (size_t i = 0; i < own; i++) h.owners[page + i].store(nullptr, std::memory_order_release);
    h.used.erase(page - emu::gap_of(gone->bytes));
    const size_t cells = emu::cells_of(0, gone->bytes) * sizeof(emu::Cell);
    munmap(gone->cells, cells ? cells : 1);
    madvise(gone->data, own * emu::PAGE, MADV_DONTNEED);
    delete gone;
}

// Marks what the host has written; false where that lies outside one allocation.
bool adali_emulator_host_wrote(const void* at, size_t bytes) {
    const Allocation* a = emu::find(at);
    const size_t offset = a ? static_cast<const unsigned char*>(at) - a->data : 0;
    if (!a || offset > a->bytes || bytes > a->bytes - offset) return false;
    for (size_t i = offset / emu::CELL; i < emu::cells_of(0, offset + bytes); i++) a->cells[i].writer = emu::HOST;
    return true;
}

// How many of the bytes from `at` on something has written; the host reads results with it.
size_t adali_emulator_written(const void* at, size_t bytes) {
    const Allocation* a = emu::find(at);
    if (!a) return 0;
    const size_t offset = static_cast<const unsigned char*>(at) - a->data;
    size_t i = offset;
    while (i < offset + bytes && i < a->bytes && a->cells[i / emu::CELL].writer.load() != 0) i++;
    return i - offset;
}
}
