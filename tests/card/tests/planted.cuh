// A kernel with a planted fault, `planted_x`, next to its correct twin, `right_x`.
#pragma once
#include <cstdint>

#define DEVICE static __device__ __forceinline__
#define LANE (threadIdx.x % 32)
#define SHARED(type, name, count) __shared__ __align__(16) type name[count]
#define DYNAMIC_SHARED(type, name) \
    extern __shared__ __align__(16) unsigned char dynamic_memory[]; \
    type* name = reinterpret_cast<type*>(dynamic_memory)

struct Planted {
    const uint32_t* in;
    uint32_t* out;
    uint32_t count, padding;
};

#define KERNEL(name, Params, THREADS, BLOCKS) extern "C" __global__ void __launch_bounds__(THREADS) name(const Params p)
#define PLANTED(name, THREADS)                                     \
    KERNEL(planted_##name, Planted, THREADS, 1) { name<true>(p); } \
    KERNEL(right_##name, Planted, THREADS, 1) { name<false>(p); }

DEVICE uint32_t shared_address(const void* pointer) { return static_cast<uint32_t>(__cvta_generic_to_shared(pointer)); }

template <int BYTES>
DEVICE void cp_async(void* to, const void* from, bool valid) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(to)), "l"(from), "n"(BYTES),
                 "r"(valid ? BYTES : 0)
                 : "memory");
}
DEVICE void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int GROUPS>
DEVICE void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(GROUPS) : "memory");
}
DEVICE void ldmatrix(uint32_t (&matrices)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
                 : "r"(shared_address(row))
                 : "memory");
}
