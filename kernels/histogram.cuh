// Counts membrane potentials z = (H - threshold)/threshold as src/histogram.rs does: 512 equal bins over [-4, 4), then
// underflow, overflow and non-finite. Counts are integers, so the order of counting does not matter.
#pragma once
#include "device.cuh"

constexpr uint32_t BINS = 512, COUNTS = BINS + 3, NO_BIN = ~0u;

DEVICE uint32_t bin_of(float z) {
    if (!(fabsf(z) < INFINITY)) return BINS + 2;
    // Scaling by a power of two is exact, so z = 0 is the lower end of bin 256 and no negative z falls into it.
    const float bin = floorf(z * 64.0f) + 256.0f;
    if (bin < 0.0f) return BINS;
    return bin >= 512.0f ? BINS + 1 : static_cast<uint32_t>(bin);
}

// Adds one potential per lane to a block's private counts. Equal bins within a warp become one addition, because a
// layer's potentials crowd into few bins. All 32 lanes must call it; NO_BIN counts nothing.
DEVICE void count_in_block(uint32_t* counts, uint32_t bin) {
    const uint32_t same = __match_any_sync(~0u, bin);
    if (bin != NO_BIN && (same & ((1u << LANE) - 1)) == 0) atomicAdd(&counts[bin], static_cast<uint32_t>(__popc(same)));
}

// Clears a block's counts; the caller must follow with a barrier.
DEVICE void clear_counts(uint32_t* counts) {
    for (uint32_t i = threadIdx.x; i < COUNTS; i += blockDim.x) counts[i] = 0;
}

// Adds a block's counts to the layer's, after a barrier.
DEVICE void add_counts(const uint32_t* counts, unsigned long long* total) {
    for (uint32_t i = threadIdx.x; i < COUNTS; i += blockDim.x) {
        if (counts[i]) atomicAdd(&total[i], static_cast<unsigned long long>(counts[i]));
    }
}
