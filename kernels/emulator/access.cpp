// Every access of a kernel to memory is checked here. The compiler announces them: -fsanitize=thread calls the hooks
// at the end for each; -fsanitize=alignment,shift-exponent,bounds-strict calls the others where it finds a fault.
#include "block.h"

namespace emu {
namespace {

const char* name_of(Access access) {
    return access == Access::Read ? "read" : access == Access::Write ? "write" : "atomic access";
}

void touch_or_stop(Cell* cells, size_t offset, size_t bytes, Access access, bool global, const char* memory) {
    const Thread& t = *running;
    const uint32_t first = block->launch->first_serial;
    const Stamp stamp = make_stamp(block->serial, t.index, block->phases[t.index / 32], access == Access::Atomic);
    Stamp other = 0;
    const char* wrong = touch(cells + offset / CELL, cells_of(offset, bytes), access, global,
                              {stamp, first, block->since_barrier}, other);
    if (!wrong) return;
    if (other <= COPYING) {
        report("thread %u %s (%s, byte %zu)", t.index, wrong, memory, offset);
    } else {
        report("thread %u %s (%s, byte %zu, thread %u of block number %u)", t.index, wrong, memory, offset,
               thread_of(other), serial_of(other) - first);
    }
    stop();
}

[[noreturn]] void out_of_bounds(const unsigned char* at, size_t bytes, Access access) {
    const Allocation* a = nearest(at);
    if (a) {
        report("thread %u: %s of %zu bytes out of bounds: at %td of a buffer of %zu bytes", running->index,
               name_of(access), bytes, at - a->data, a->bytes);
    } else {
        report("thread %u: %s of %zu bytes out of bounds: %p is in no buffer", running->index, name_of(access), bytes,
               static_cast<const void*>(at));
    }
    stop();
}

}  // namespace

void access(const void* address, size_t bytes, Access access, bool aligned) {
    if (!running || !checking) return;
    spend();
    const auto* at = static_cast<const unsigned char*>(address);
    if (at >= running->stack_low && at < running->stack_high) return;
    if (static_cast<size_t>(at - block->launch->params.data()) < block->launch->params.size()) return;
    if (aligned && reinterpret_cast<uintptr_t>(at) % bytes) {
        report("thread %u: misaligned %s of %zu bytes at %p", running->index, name_of(access), bytes, address);
        stop();
    }
    if (in_shared(*block, at)) {
        const size_t offset = at - block->shared;
        const SharedArray* array = shared_array(*block, offset, bytes);
        if (array) {
            Cell* cells = block->cells + array->offset / CELL;
            return touch_or_stop(cells, offset - array->offset, bytes, access, false, array->name);
        }
        report("thread %u: %s of %zu bytes outside of every shared array", running->index, name_of(access), bytes);
        stop();
    }
    const Allocation* a = find(at);
    const size_t in = a ? at - a->data : 0;
    if (!a || in + bytes > a->bytes) out_of_bounds(at, bytes, access);
    touch_or_stop(a->cells, in, bytes, access, true, "global memory");
}

uint32_t atomic_add(uint32_t* at, uint32_t value) {
    access(at, sizeof *at, Access::Atomic, true);
    return __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
}
unsigned long long atomic_add(unsigned long long* at, unsigned long long value) {
    access(at, sizeof *at, Access::Atomic, true);
    return __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
}
uint32_t atomic_cas(uint32_t* at, uint32_t expected, uint32_t value) {
    access(at, sizeof *at, Access::Atomic, true);
    __atomic_compare_exchange_n(at, &expected, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    return expected;
}
unsigned long long atomic_cas(unsigned long long* at, unsigned long long expected, unsigned long long value) {
    access(at, sizeof *at, Access::Atomic, true);
    __atomic_compare_exchange_n(at, &expected, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    return expected;
}

}  // namespace emu

using namespace emu;

extern "C" {

// clang-format off
#define HOOK(n)                                                            \
    void __tsan_read##n(void* at) { access(at, n, Access::Read, true); }   \
    void __tsan_write##n(void* at) { access(at, n, Access::Write, true); }
HOOK(1) HOOK(2) HOOK(4) HOOK(8) HOOK(16)
#define UNALIGNED(n)                                                                \
    void __tsan_unaligned_read##n(void* at) { access(at, n, Access::Read, false); } \
    void __tsan_unaligned_write##n(void* at) { access(at, n, Access::Write, false); }
UNALIGNED(2) UNALIGNED(4) UNALIGNED(8) UNALIGNED(16)
    // clang-format on
    void __tsan_read_range(void* at, size_t bytes) {
    access(at, bytes, Access::Read, false);
}
void __tsan_write_range(void* at, size_t bytes) { access(at, bytes, Access::Write, false); }
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}

// What the compiler passes on: where, and the types as the source names them.
struct Type {
    uint16_t kind, info;
    char name[];
};
struct Where {
    const char* file;
    uint32_t line, column;
};
struct TypeMismatch {
    Where where;
    const Type* type;
    unsigned char log_alignment, kind;
};
struct ShiftOutOfBounds {
    Where where;
    const Type *left, *right;
};
struct OutOfBounds {
    Where where;
    const Type *array, *index;
};

// Where an address does not suit its type; vectors may have been taken apart when the hooks above see them.
void __ubsan_handle_type_mismatch_v1(const TypeMismatch* found, void*) {
    if (!running || !checking) return;
    report("thread %u: misaligned access, not a multiple of %u bytes, at %s:%u", running->index,
           1u << found->log_alignment, found->where.file, found->where.line);
    stop();
}
// A CPU's shift takes the amount modulo 32, a GPU's does not.
void __ubsan_handle_shift_out_of_bounds(const ShiftOutOfBounds* found, void*, void* by) {
    if (!running || !checking) return;
    report("thread %u: shift of %s by %td at %s:%u", running->index, found->left->name, reinterpret_cast<intptr_t>(by),
           found->where.file, found->where.line);
    stop();
}
void __ubsan_handle_out_of_bounds(const OutOfBounds* found, void* index) {
    if (!running || !checking) return;
    report("thread %u: index %td out of bounds of %s at %s:%u", running->index, reinterpret_cast<intptr_t>(index),
           found->array->name, found->where.file, found->where.line);
    stop();
}
}
