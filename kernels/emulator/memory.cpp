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

size_t cells_of(size_t bytes) { return (bytes + CELL - 1) / CELL; }

}  // namespace

const Allocation* find(const void* at) {
    Heap& h = heap();
    const size_t offset = static_cast<const unsigned char*>(at) - h.base;
    return offset < RANGE ? h.owners[offset / PAGE].load(std::memory_order_acquire) : nullptr;
}

const char* touch(Cell* cells, size_t count, Access access, Stamp now, uint32_t first, Stamp& other) {
    for (size_t i = 0; i < count; i++) {
        const Stamp writer = cells[i].writer.load(std::memory_order_relaxed);
        const Stamp reader = cells[i].reader.load(std::memory_order_relaxed);
        if (access != Access::Write && writer == 0) return "reads what nothing has written";
        other = writer;
        const bool both_atomic = access == Access::Atomic && atomic_of(writer) && writer != HOST;
        if (!both_atomic && !ordered(writer, now, first)) {
            return access == Access::Read ? "reads without a barrier what another thread writes"
                                          : "writes without a barrier where another thread writes";
        }
        if (access == Access::Read) {
            cells[i].reader.store(now, std::memory_order_relaxed);
            continue;
        }
        other = reader;
        if (!ordered(reader, now, first)) return "writes without a barrier what another thread reads";
        cells[i].writer.store(now, std::memory_order_relaxed);
    }
    return nullptr;
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
    const size_t cells = emu::cells_of(bytes) * sizeof(emu::Cell);
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
    const size_t cells = emu::cells_of(gone->bytes) * sizeof(emu::Cell);
    munmap(gone->cells, cells ? cells : 1);
    madvise(gone->data, (gone->bytes / emu::PAGE + 1) * emu::PAGE, MADV_DONTNEED);
    delete gone;
}

// Marks what the host has written; false where that lies outside one allocation.
bool adali_emulator_host_wrote(const void* at, size_t bytes) {
    const Allocation* a = emu::find(at);
    const size_t offset = a ? static_cast<const unsigned char*>(at) - a->data : 0;
    if (!a || offset > a->bytes || bytes > a->bytes - offset) return false;
    for (size_t i = offset / emu::CELL; i < emu::cells_of(offset + bytes); i++) a->cells[i].writer = emu::HOST;
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
