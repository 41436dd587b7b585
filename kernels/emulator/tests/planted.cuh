// A kernel with a planted fault, `planted_x`, beside its correct twin, `right_x`: the emulator's own tests.
#pragma once
#include "device.cuh"

struct Planted {
    const uint32_t* in;
    uint32_t* out;
    uint32_t count, padding;
};

#define PLANTED(name, THREADS)                                     \
    KERNEL(planted_##name, Planted, THREADS, 1) { name<true>(p); } \
    KERNEL(right_##name, Planted, THREADS, 1) { name<false>(p); }
