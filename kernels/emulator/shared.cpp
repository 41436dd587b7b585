// Shared memory: its arrays, and the asynchronous copies to it.
#include <cstdlib>
#include <cstring>

#include "block.h"

namespace emu {
namespace {

// What a block of an H100 may have, and how much of it static.
constexpr size_t LIMIT = 227 * 1024, STATIC_LIMIT = 48 * 1024;
// Room for the arrays and gaps before, between and behind them.
constexpr size_t ROOM = 1 << 20, GAP = 4096;

// Memory of the blocks that a thread of the host runs, one after the other. Its cells are untouched between blocks.
struct SharedMemory {
    unsigned char* data = static_cast<unsigned char*>(aligned_alloc(GAP, ROOM));
    Cell* cells = static_cast<Cell*>(calloc(ROOM / CELL, sizeof(Cell)));

    ~SharedMemory() {
        free(data);
        free(cells);
    }
};
thread_local SharedMemory memory;

size_t rounded(size_t bytes) { return (bytes + 15) / 16 * 16; }

void* add_array(Block& b, const void* key, size_t bytes, const char* name) {
    b.arrays.push_back({key, name, b.shared_end, bytes});
    unsigned char* array = b.shared + b.shared_end;
    memset(array, POISON, rounded(bytes));
    b.shared_bytes += rounded(bytes);
    b.shared_end += rounded(bytes) + GAP;
    return array;
}

void mark_copy(const Copy& copy, Stamp writer) {
    const size_t offset = static_cast<unsigned char*>(copy.to) - block->shared;
    Cell* cells = block->cells + offset / CELL;
    for (size_t i = 0; i < cells_of(offset, copy.bytes); i++) cells[i].writer.store(writer, std::memory_order_relaxed);
}

void run_copies(const std::vector<Copy>& copies) {
    const Stamp now = make_stamp(block->serial, running->index, block->phases[running->index / 32], false);
    for (const Copy& copy : copies) {
        mark_copy(copy, now);
        if (copy.read) access(copy.from, copy.read, Access::Read, true);
        memcpy(copy.to, copy.from, copy.read);
        memset(static_cast<unsigned char*>(copy.to) + copy.read, 0, copy.bytes - copy.read);
    }
}

}  // namespace

void open_shared(Block& b) {
    b.shared = memory.data;
    b.cells = memory.cells;
    if (!b.shared || !b.cells) abort();
    b.shared_end = GAP;
    // First even where it has no bytes: its place is fixed.
    add_array(b, nullptr, b.launch->shared, "dynamic shared memory");
}

void close_shared(Block& b) {
    for (const SharedArray& array : b.arrays) {
        const size_t cells = cells_of(array.offset, array.bytes);
        memset(static_cast<void*>(b.cells + array.offset / CELL), 0, cells * sizeof(Cell));
    }
}

bool in_shared(const Block& b, const void* at) {
    return static_cast<size_t>(static_cast<const unsigned char*>(at) - b.shared) < ROOM;
}

const SharedArray* shared_array(const Block& b, size_t offset, size_t bytes) {
    for (const SharedArray& array : b.arrays) {
        if (offset >= array.offset && offset + bytes <= array.offset + array.bytes) return &array;
    }
    return nullptr;
}

void* dynamic_shared() { return block->shared + GAP; }

void* static_shared(const void* key, size_t bytes, const char* name) {
    for (const SharedArray& array : block->arrays) {
        if (array.key == key) return block->shared + array.offset;
    }
    const size_t total = block->shared_bytes + rounded(bytes), dynamic = rounded(block->launch->shared);
    if (total - dynamic > STATIC_LIMIT) {
        report("%zu bytes of static shared memory with %s, at most %zu", total - dynamic, name, STATIC_LIMIT);
        stop();
    }
    if (total > LIMIT) {
        report("%zu bytes of shared memory, static and dynamic, with %s, at most %zu", total, name, LIMIT);
        stop();
    }
    if (block->shared_end + rounded(bytes) + GAP > ROOM) {
        report("more shared arrays than the emulator has room for: %zu", block->arrays.size());
        stop();
    }
    return add_array(*block, key, bytes, name);
}

void check_row(const void* row, size_t bytes, const char* instruction, Site site) {
    if (!in_shared(*block, row)) {
        report("thread %u: %s from what is not shared memory at %s:%d", running->index, instruction, site.file,
               site.line);
        stop();
    }
    access(row, bytes, Access::Read, true);
}

void copy_async(void* to, const void* from, size_t bytes, size_t read, Site site) {
    if (reinterpret_cast<uintptr_t>(to) % bytes || (read && reinterpret_cast<uintptr_t>(from) % bytes)) {
        report("thread %u: misaligned cp.async of %zu bytes at %s:%d", running->index, bytes, site.file, site.line);
        stop();
    }
    if (!in_shared(*block, to)) {
        report("thread %u: cp.async to what is not shared memory at %s:%d", running->index, site.file, site.line);
        stop();
    }
    if (read && !find(from) && !nearest(from)) {
        report("thread %u: cp.async from what is not global memory at %s:%d", running->index, site.file, site.line);
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

void check_copies(const Thread& t) {
    std::vector<Copy> left = t.open;
    for (const auto& group : t.groups) left.insert(left.begin(), group.begin(), group.end());
    if (left.empty()) return;
    report("thread %u leaves without waiting for its cp.async at %s:%d", t.index, left[0].site.file, left[0].site.line);
}

}  // namespace emu
