#include "memory.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <new>

namespace emu {
namespace {

// One range of addresses for all buffers: a page has one owner, found without a lock.
constexpr size_t PAGE = 4096, RANGE = size_t(1) << 36, PAGES = RANGE / PAGE;

void* map(size_t bytes) {
    void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return at == MAP_FAILED ? nullptr : at;
}

struct Heap {
    unsigned char* base = static_cast<unsigned char*>(map(RANGE));
    std::atomic<Allocation*>* owners = static_cast<std::atomic<Allocation*>*>(map(PAGES * sizeof(void*)));
    std::mutex mutex;
    std::map<size_t, size_t> used;  // first page -> pages, with a page of nobody's before and after
};

Heap& heap() {
    static Heap heap;
    return heap;
}

}  // namespace

const Allocation* find(const void* at) {
    Heap& h = heap();
    const size_t offset = static_cast<const unsigned char*>(at) - h.base;
    return offset < RANGE ? h.owners[offset / PAGE].load(std::memory_order_acquire) : nullptr;
}

// Each marks the cells before it looks at the other's marks: of two blocks that touch a cell at the same moment, one
// sees the other.
static const char* read(Cell* cells, size_t count, bool global, Stamp now, uint32_t first, Stamp& other) {
    for (size_t i = 0; i < count; i++) {
        const Stamp before = cells[i].reader.load(std::memory_order_relaxed), mark = joined(before, now, first);
        if (mark != before) cells[i].reader.store(mark, std::memory_order_relaxed);
    }
    if (global) std::atomic_thread_fence(std::memory_order_seq_cst);
    for (size_t i = 0; i < count; i++) {
        if (global) {
            const Stamp reader = cells[i].reader.load(std::memory_order_relaxed);
            const Stamp mark = serial_of(reader) == serial_of(now) ? reader : joined(reader, now, first);
            if (mark != reader) cells[i].reader.store(mark, std::memory_order_relaxed);
        }
        other = cells[i].writer.load(std::memory_order_relaxed);
        if (other == 0) return "reads what nothing has written";
        if (other == COPYING) return "reads what a cp.async still copies";
        if (!ordered(other, now, first)) return "reads without a barrier what another thread writes";
    }
    return nullptr;
}

static const char* write(Cell* cells, size_t count, bool atomic, bool global, Stamp now, uint32_t first, Stamp& other) {
    const char* const twice = "writes without a barrier where another thread writes";
    for (size_t i = 0; i < count; i++) {
        other = cells[i].writer.load(std::memory_order_relaxed);
        if (atomic && other == 0) return "reads what nothing has written";
        if (other == COPYING) return "writes where a cp.async still copies";
        const bool both_atomic = atomic && atomic_of(other);
        if (!both_atomic && !ordered(other, now, first)) return twice;
        cells[i].writer.store(both_atomic ? joined(other, now, first) : now, std::memory_order_relaxed);
    }
    if (global) std::atomic_thread_fence(std::memory_order_seq_cst);
    for (size_t i = 0; i < count; i++) {
        other = cells[i].writer.load(std::memory_order_relaxed);
        if (global && serial_of(other) != serial_of(now) && !(atomic && atomic_of(other))) return twice;
        other = cells[i].reader.load(std::memory_order_relaxed);
        if (!ordered(other, now, first)) return "writes without a barrier what another thread reads";
    }
    return nullptr;
}

const char* touch(Cell* cells, size_t count, Access access, bool global, Stamp now, uint32_t first, Stamp& other) {
    if (access == Access::Read) return read(cells, count, global, now, first, other);
    return write(cells, count, access == Access::Atomic, global, now, first, other);
}

}  // namespace emu

using emu::Allocation;

extern "C" {

// Device memory, poisoned; nullptr when there is none left.
void* adali_emulator_allocate(size_t bytes) {
    auto& h = emu::heap();
    if (!h.base || !h.owners || bytes > emu::RANGE / 2) return nullptr;
    const size_t pages = bytes / emu::PAGE + 1;
    std::lock_guard<std::mutex> lock(h.mutex);
    size_t page = 1;
    for (const auto& [first, count] : h.used) {
        if (page + pages + 1 <= first) break;
        page = first + count + 1;
    }
    if (page + pages + 1 > emu::PAGES) return nullptr;
    const size_t cells = emu::cells_of(0, bytes) * sizeof(emu::Cell);
    void* shadow = emu::map(cells ? cells : 1);
    if (!shadow) return nullptr;
    auto* made = new (std::nothrow) Allocation{h.base + page * emu::PAGE, bytes, static_cast<emu::Cell*>(shadow)};
    if (!made) return nullptr;
    memset(made->data, emu::POISON, bytes);
    h.used.emplace(page, pages);
    for (size_t i = 0; i < pages; i++) h.owners[page + i].store(made, std::memory_order_release);
    return made->data;
}

void adali_emulator_free(void* at) {
    auto& h = emu::heap();
    std::lock_guard<std::mutex> lock(h.mutex);
    const Allocation* gone = emu::find(at);
    const size_t page = (static_cast<unsigned char*>(at) - h.base) / emu::PAGE;
    const auto entry = h.used.find(page);
    if (!gone || entry == h.used.end()) abort();  // the driver frees what it has allocated, once
    for (size_t i = 0; i < entry->second; i++) h.owners[page + i].store(nullptr, std::memory_order_release);
    h.used.erase(entry);
    const size_t cells = emu::cells_of(0, gone->bytes) * sizeof(emu::Cell);
    munmap(gone->cells, cells ? cells : 1);
    madvise(gone->data, (gone->bytes / emu::PAGE + 1) * emu::PAGE, MADV_DONTNEED);
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
